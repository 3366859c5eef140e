//! Findings and the mask → a BINARY Segmentation, one segment a finding.
//!
//! A frame is written only where its segment has a voxel; frames go by segment, then along the normal.
//! Bits are packed without a gap between frames, the first voxel in the lowest bit, so that a frame need not start on a byte.
//!
//! Source: PS3.3 sections A.51 and C.8.20; PS3.5 section 8.1.1 and annex D.

use super::{
    EncodeError, concept,
    context::{Context, Kind, brain_region, mismatch},
    element::{Dataset, Fill, code_item},
    frames::{Dimension, POSITION, frame_groups, put_frames, put_image, put_integer_pixels, shared_groups},
};
use crate::domain::{
    code::{self, Code},
    finding::{Finding, Side},
    plan::Plan,
};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// How the series of masks is told from the others.
pub(super) const KIND: Kind = Kind {
    name: Cow::Borrowed("seg"),
    sop_class_uid: uids::SEGMENTATION_STORAGE,
    transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
    modality: "SEG",
    series_number: 9001,
    shows: "masks",
};

/// Frames of one segment.
const SEGMENT: Dimension = (
    tags::REFERENCED_SEGMENT_NUMBER,
    tags::SEGMENT_IDENTIFICATION_SEQUENCE,
    "Referenced Segment Number",
);

/// CIELab of the display colour, a clear red (sRGB 230, 60, 50), through D50 and scaled to 16 bits as PS3.3 section C.10.7.1.1 says.
const DISPLAY_CIELAB: [u16; 3] = [34729, 49596, 45013];

/// Makes the Segmentation.
pub(super) fn encode(context: &Context<'_>) -> Result<DefaultDicomObject, EncodeError> {
    let frames = frames_with_voxels(context)?;
    let mut dataset = context.dataset(&KIND)?;
    context.put_frame_of_reference(&mut dataset)?;
    put_image(&mut dataset, context, 1);
    put_integer_pixels(&mut dataset, 1);
    dataset.texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED", "PRIMARY"]);
    dataset.text(tags::SEGMENTATION_TYPE, VR::CS, "BINARY");
    dataset.text(tags::SEGMENTS_OVERLAP, VR::CS, "NO");
    dataset.text(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
    put_content(&mut dataset, context.input.plan);
    dataset.sequence(
        tags::SEGMENT_SEQUENCE,
        context
            .findings
            .iter()
            .map(|finding| segment(context, finding))
            .collect(),
    );
    let planes: Vec<usize> = frames
        .iter()
        .map(|(_, slice)| *slice)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let groups = frames.iter().map(|(number, slice)| {
        let at = planes.partition_point(|plane| plane < slice) + 1;
        let place = [u32::from(*number), u32::try_from(at).unwrap_or(u32::MAX)];
        let mut frame = frame_groups(context, *slice, &place, &concept::SEGMENTATION);
        let mut identification = Dataset::new_empty();
        identification.us(tags::REFERENCED_SEGMENT_NUMBER, *number);
        frame.sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![identification]);
        frame
    });
    let groups = groups.collect();
    put_frames(
        &mut dataset,
        context,
        &KIND.name,
        &[SEGMENT, POSITION],
        shared_groups(context.geometry()),
        groups,
    );
    let masks = frames.iter().map(|(number, slice)| {
        context
            .input
            .segments
            .slice(*slice)
            .iter()
            .map(move |voxel| voxel == number)
    });
    let bits = pack(masks.flatten(), frames.len() * context.geometry().slice_len());
    dataset.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PrimitiveValue::from(bits),
    ));
    context.object(dataset, &KIND)
}

/// Which segment has voxels on which slice, by segment, then slice.
fn frames_with_voxels(context: &Context<'_>) -> Result<BTreeSet<(u16, usize)>, EncodeError> {
    let segments = context.findings.len();
    let mut frames = BTreeSet::new();
    for slice in 0..context.geometry().slices() {
        let mut last = 0;
        for voxel in context.input.segments.slice(slice) {
            if *voxel != last && *voxel != 0 {
                if usize::from(*voxel) > segments {
                    return Err(mismatch(
                        "segment number of a voxel",
                        voxel,
                        format!("0 to {segments}"),
                    ));
                }
                frames.insert((*voxel, slice));
            }
            last = *voxel;
        }
    }
    for finding in &context.findings {
        if frames
            .range((finding.segment, 0)..=(finding.segment, usize::MAX))
            .next()
            .is_none()
        {
            return Err(mismatch("voxels of a finding", 0, "at least one"));
        }
    }
    Ok(frames)
}

/// Packs voxels into bits, lowest first, and pads the whole to an even number of bytes.
fn pack(voxels: impl Iterator<Item = bool>, count: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; count.div_ceil(16) * 2];
    for (at, voxel) in voxels.enumerate() {
        if voxel {
            bytes[at / 8] |= 1 << (at % 8);
        }
    }
    bytes
}

/// Content Identification: a reader chooses by the question.
fn put_content(dataset: &mut Dataset, plan: &Plan) {
    let label: String = plan
        .question
        .to_ascii_uppercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(16)
        .collect();
    dataset.text(
        tags::CONTENT_LABEL,
        VR::CS,
        if label.is_empty() {
            "FINDINGS".to_owned()
        } else {
            label
        },
    );
    dataset.text(tags::CONTENT_DESCRIPTION, VR::LO, plan.provenance.limits());
    dataset.text(tags::CONTENT_CREATOR_NAME, VR::PN, "ictus^");
}

fn segment(context: &Context<'_>, finding: &Finding) -> Dataset {
    let mut item = Dataset::new_empty();
    item.us(tags::SEGMENT_NUMBER, finding.segment);
    item.text(tags::SEGMENT_LABEL, VR::LO, label(context, finding));
    item.text(
        tags::SEGMENT_DESCRIPTION,
        VR::ST,
        format!(
            "{}, mean score {:.2} (not calibrated), {}",
            finding.id,
            finding.score,
            context.input.plan.provenance.limits()
        ),
    );
    item.code(
        tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
        &category(context, finding),
    );
    item.code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, &finding.code);
    let mut region = finding.site.as_ref().map_or_else(brain_region, code_item);
    if let Some(side) = laterality(finding.side) {
        region.code(tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, &side);
    }
    item.sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![region]);
    item.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    item.text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, &*context.input.plan.id);
    item.sequence(
        tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
        vec![context.algorithm_item()],
    );
    item.text(tags::TRACKING_ID, VR::UT, &*finding.id);
    item.uid(tags::TRACKING_UID, context.tracking_uid(finding).as_str());
    item.put(DataElement::new(
        tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE,
        VR::US,
        PrimitiveValue::U16(DISPLAY_CIELAB.into_iter().collect()),
    ));
    item
}

/// `Haemorrhage 2`: the kind and the place among its kind.
fn label(context: &Context<'_>, finding: &Finding) -> String {
    let place = context
        .findings
        .iter()
        .filter(|other| other.kind == finding.kind && other.segment <= finding.segment)
        .count();
    let mut kind = finding.kind.replace('_', " ");
    if let Some(first) = kind.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{kind} {place}")
}

/// The property category that the plan gives the finding's label.
pub(super) fn category(context: &Context<'_>, finding: &Finding) -> Code {
    let label = context
        .input
        .plan
        .labels
        .iter()
        .find(|label| label.name == finding.kind);
    label.map_or(code::MORPHOLOGICALLY_ABNORMAL_STRUCTURE, |label| {
        label.category.clone()
    })
}

/// The code of a side; midline and unknown have none that would be true.
pub(super) fn laterality(side: Side) -> Option<Code> {
    match side {
        Side::Left => Some(code::LEFT),
        Side::Right => Some(code::RIGHT),
        Side::Bilateral => Some(concept::BILATERAL),
        Side::Midline | Side::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_voxel_is_the_lowest_bit_and_frames_do_not_start_on_bytes() {
        let frames = [true, false, true, false, false, true, true, true, false, false];
        assert_eq!(pack(frames.into_iter(), 10), [0b1110_0101, 0b0000_0000]);
        assert_eq!(pack([true; 17].into_iter(), 17), [0xff, 0xff, 0x01, 0x00]);
    }

    proptest! {
        #[test]
        fn unpacking_gives_the_voxels_back(voxels in prop::collection::vec(any::<bool>(), 0..500)) {
            let bytes = pack(voxels.iter().copied(), voxels.len());
            prop_assert_eq!(bytes.len() % 2, 0);
            let back: Vec<bool> = (0..voxels.len()).map(|i| bytes[i / 8] >> (i % 8) & 1 == 1).collect();
            prop_assert_eq!(back, voxels);
        }
    }
}
