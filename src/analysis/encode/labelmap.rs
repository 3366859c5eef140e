//! Findings and the mask → a Label Map Segmentation: one frame a slice, the segment's number in each pixel.
//!
//! It says what the BINARY Segmentation says, in fewer frames; readers that know it are few yet, so that it is made on
//! request and beside the other.
//! Segment 0 is the background, and is described, because a reader may ask what a value means.
//!
//! Source: PS3.3 sections A.51 and C.8.20 with Segmentation Type LABELMAP (supplement 243).

use super::{
    EncodeError, concept,
    context::{Context, Kind, mismatch},
    element::{Dataset, Fill, code_item},
    frames::{POSITION, frame_groups, put_frames, put_image, put_integer_pixels, shared_groups},
    seg::{self, Segment},
};
use crate::domain::volume::Volume;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::borrow::Cow;

/// How the series of label maps is told from the others.
const KIND: Kind = Kind {
    name: Cow::Borrowed("labelmap"),
    sop_class_uid: uids::LABEL_MAP_SEGMENTATION_STORAGE,
    transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
    modality: "SEG",
    series_number: 9006,
    shows: "masks as a label map",
};

/// Makes the label map.
pub(super) fn encode(
    context: &Context<'_>,
    segments: &[Segment<'_>],
    voxels: &Volume<u16>,
) -> Result<DefaultDicomObject, EncodeError> {
    let slices: Vec<usize> = (0..voxels.geometry.slices())
        .filter(|slice| voxels.slice(*slice).iter().any(|voxel| *voxel != 0))
        .collect();
    let highest = voxels.data.iter().max().copied().unwrap_or_default();
    if usize::from(highest) > segments.len() {
        return Err(mismatch(
            "segment number of a voxel",
            highest,
            format!("0 to {}", segments.len()),
        ));
    }
    let bits: u16 = if highest > 255 { 16 } else { 8 };
    let mut dataset = context.dataset(&KIND)?;
    context.put_frame_of_reference(&mut dataset)?;
    put_image(&mut dataset, context, bits);
    put_integer_pixels(&mut dataset, bits);
    dataset.us(tags::PIXEL_PADDING_VALUE, 0);
    dataset.texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED", "PRIMARY"]);
    dataset.text(tags::SEGMENTATION_TYPE, VR::CS, "LABELMAP");
    dataset.text(tags::SEGMENTS_OVERLAP, VR::CS, "NO");
    dataset.text(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
    seg::put_content(&mut dataset, context.maker, context.maker.question());
    let mut items = vec![background()];
    items.extend(segments.iter().map(|segment| segment.item(context.maker)));
    dataset.sequence(tags::SEGMENT_SEQUENCE, items);
    let groups = slices.iter().enumerate().map(|(at, slice)| {
        let place = [u32::try_from(at + 1).unwrap_or(u32::MAX)];
        frame_groups(context, *slice, &place, &concept::SEGMENTATION)
    });
    let groups = groups.collect();
    put_frames(
        &mut dataset,
        context,
        &KIND.name,
        &[POSITION],
        shared_groups(context.geometry),
        groups,
    );
    let values = slices
        .iter()
        .flat_map(|slice| voxels.slice(*slice).iter().copied());
    if bits == 16 {
        dataset.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(values.collect()),
        ));
    } else {
        let mut bytes: Vec<u8> = values
            .map(|value| u8::try_from(value).unwrap_or(u8::MAX))
            .collect();
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        dataset.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OB,
            PrimitiveValue::from(bytes),
        ));
    }
    context.object(dataset, &KIND)
}

/// What lies outside of every finding.
fn background() -> Dataset {
    let mut item = Dataset::new_empty();
    item.us(tags::SEGMENT_NUMBER, 0);
    item.text(tags::SEGMENT_LABEL, VR::LO, "Background");
    item.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    item.text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, "ictus");
    item.sequence(
        tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
        vec![code_item(&concept::BACKGROUND)],
    );
    item.sequence(
        tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE,
        vec![code_item(&concept::BACKGROUND)],
    );
    item
}
