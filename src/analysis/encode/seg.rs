//! Findings and the mask → a BINARY Segmentation, one segment a finding; anatomical structures → another, one segment a structure.
//!
//! A frame is written only where its segment has a voxel; frames go by segment, then along the normal.
//! Bits are packed without a gap between frames, the first voxel in the lowest bit, so that a frame need not start on a byte.
//!
//! Source: PS3.3 sections A.51 and C.8.20; PS3.5 section 8.1.1 and annex D.

use super::{
    Correction, EncodeError, concept,
    context::{Context, Kind, Maker, brain_region, mismatch},
    element::{Dataset, Fill, code_item},
    frames::{Dimension, POSITION, frame_groups, put_frames, put_image, put_integer_pixels, shared_groups},
};
use crate::domain::{
    code::{self, Code},
    finding::{Finding, Region, Side},
    plan::{Plan, Structure},
    prediction::STRUCTURES_LABEL,
    uid::Uid,
    volume::Volume,
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

/// How the series of a reader's masks is told from the others.
pub(super) const READER_KIND: Kind = Kind {
    name: Cow::Borrowed("reader.seg"),
    series_number: 9010,
    shows: "masks by a reader",
    ..KIND
};

/// How the series of anatomical structures is told from the others.
const STRUCTURE_KIND: Kind = Kind {
    name: Cow::Borrowed("structures"),
    series_number: 9008,
    shows: "anatomical structures",
    ..KIND
};

/// Frames of one segment.
const SEGMENT: Dimension = (
    tags::REFERENCED_SEGMENT_NUMBER,
    tags::SEGMENT_IDENTIFICATION_SEQUENCE,
    "Referenced Segment Number",
);

/// CIELab of the display colour, a clear red (sRGB 230, 60, 50), through D50 and scaled to 16 bits as PS3.3 section C.10.7.1.1 says.
const DISPLAY_CIELAB: [u16; 3] = [34729, 49596, 45013];
/// The same of anatomical structures, a light blue (sRGB 96, 200, 255).
const STRUCTURE_CIELAB: [u16; 3] = [49880, 27994, 23443];

/// Makes the Segmentation.
pub(super) fn encode(
    context: &Context<'_>,
    kind: &Kind,
    label: &str,
    segments: &[Segment<'_>],
    voxels: &Volume<u16>,
) -> Result<DefaultDicomObject, EncodeError> {
    let frames = frames_with_voxels(segments, voxels)?;
    let mut dataset = context.dataset(kind)?;
    context.put_frame_of_reference(&mut dataset)?;
    put_image(&mut dataset, context, 1);
    put_integer_pixels(&mut dataset, 1);
    dataset.texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED", "PRIMARY"]);
    dataset.text(tags::SEGMENTATION_TYPE, VR::CS, "BINARY");
    dataset.text(tags::SEGMENTS_OVERLAP, VR::CS, "NO");
    dataset.text(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
    put_content(&mut dataset, context.maker, label);
    dataset.sequence(
        tags::SEGMENT_SEQUENCE,
        segments
            .iter()
            .map(|segment| segment.item(context.maker))
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
        &kind.name,
        &[SEGMENT, POSITION],
        shared_groups(context.geometry),
        groups,
    );
    let masks = frames
        .iter()
        .map(|(number, slice)| voxels.slice(*slice).iter().map(move |voxel| voxel == number));
    let bits = pack(masks.flatten(), frames.len() * context.geometry.slice_len());
    dataset.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PrimitiveValue::from(bits),
    ));
    context.object(dataset, kind)
}

/// Makes the Segmentation of the structures that a model knows; nothing where none is seen.
pub(super) fn encode_structures(
    context: &Context<'_>,
    plan: &Plan,
    seen: &Volume<u8>,
) -> Result<Option<DefaultDicomObject>, EncodeError> {
    let mut is_seen = vec![false; plan.structures.len() + 1];
    for value in &seen.data {
        *is_seen.get_mut(usize::from(*value)).ok_or_else(|| {
            let known = format!("0 to {}", plan.structures.len());
            mismatch("structure of a voxel", value, known)
        })? = true;
    }
    // Segments are numbered without a gap.
    let mut number = vec![0u16; is_seen.len()];
    let mut segments = Vec::new();
    for (value, structure) in (1..).zip(&plan.structures) {
        if is_seen[value] {
            let segment = Segment::of_structure(context, structure, segments.len());
            number[value] = segment.number;
            segments.push(segment);
        }
    }
    if segments.is_empty() {
        return Ok(None);
    }
    let voxels = Volume {
        geometry: seen.geometry.clone(),
        data: seen
            .data
            .iter()
            .map(|value| number[usize::from(*value)])
            .collect(),
    };
    encode(context, &STRUCTURE_KIND, STRUCTURES_LABEL, &segments, &voxels).map(Some)
}

/// Which segment has voxels on which slice, by segment, then slice.
fn frames_with_voxels(
    segments: &[Segment<'_>],
    voxels: &Volume<u16>,
) -> Result<BTreeSet<(u16, usize)>, EncodeError> {
    let mut frames = BTreeSet::new();
    for slice in 0..voxels.geometry.slices() {
        let mut last = 0;
        for voxel in voxels.slice(slice) {
            if *voxel != last && *voxel != 0 {
                if usize::from(*voxel) > segments.len() {
                    return Err(mismatch(
                        "segment number of a voxel",
                        voxel,
                        format!("0 to {}", segments.len()),
                    ));
                }
                frames.insert((*voxel, slice));
            }
            last = *voxel;
        }
    }
    for Segment { number, .. } in segments {
        if frames
            .range((*number, 0)..=(*number, usize::MAX))
            .next()
            .is_none()
        {
            return Err(mismatch("voxels of a segment", 0, "at least one"));
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

/// Content Identification: a reader chooses by the label, which of findings is the question.
pub(super) fn put_content(dataset: &mut Dataset, maker: Maker<'_>, label: &str) {
    let label: String = label
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
    dataset.text(tags::CONTENT_DESCRIPTION, VR::LO, maker.limits());
    let creator = match maker {
        Maker::Model { .. } => "ictus^".to_owned(),
        // One component group of a name has at most 64 characters, and none that parts it from others.
        Maker::Reader(Correction { reader, .. }) => {
            reader.replace(['^', '=', '\\'], " ").chars().take(64).collect()
        }
    };
    dataset.text(tags::CONTENT_CREATOR_NAME, VR::PN, creator);
}

/// One segment, as a reader is told of it.
pub(super) struct Segment<'a> {
    number: u16,
    label: String,
    description: String,
    category: Code,
    code: &'a Code,
    site: Option<&'a Code>,
    side: Side,
    tracking_id: String,
    tracking_uid: Uid,
    colour: [u16; 3],
}

impl<'a> Segment<'a> {
    /// The segments of an analysis: a finding each.
    pub(super) fn of_findings(context: &Context<'a>, plan: &Plan) -> Vec<Self> {
        let segment = |finding: &&'a Finding| Self {
            number: finding.segment,
            label: label(context, finding),
            description: format!(
                "{}, mean score {:.2} (not calibrated), {}",
                finding.id,
                finding.score,
                context.maker.limits()
            ),
            category: category(plan, finding),
            code: &finding.code,
            site: finding.site.as_ref(),
            side: finding.side,
            tracking_id: finding.id.clone(),
            tracking_uid: context.tracking_uid(finding.segment),
            colour: DISPLAY_CIELAB,
        };
        context.findings.iter().map(segment).collect()
    }

    /// The segments of a reader's mask: a connected region each.
    pub(super) fn of_regions(context: &Context<'a>, correction: &'a Correction<'a>) -> Vec<Self> {
        let segment = |region: &Region| Self {
            number: region.segment,
            label: format!("{} {}", capitalised(correction.kind), region.segment),
            description: context.maker.limits().to_owned(),
            category: code::MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
            code: correction.code,
            site: None,
            side: region.side,
            tracking_id: format!("{}-{}", correction.kind, region.segment),
            tracking_uid: context.tracking_uid(region.segment),
            colour: DISPLAY_CIELAB,
        };
        correction.regions.iter().map(segment).collect()
    }

    /// A structure, on whatever side it is.
    fn of_structure(context: &Context<'a>, structure: &'a Structure, before: usize) -> Self {
        let number = u16::try_from(before + 1).unwrap_or(u16::MAX);
        Self {
            number,
            label: structure.code.meaning.to_string(),
            description: context.maker.limits().to_owned(),
            category: code::ANATOMICAL_STRUCTURE,
            code: &structure.code,
            site: None,
            side: Side::Unknown,
            tracking_id: structure.name.clone(),
            tracking_uid: context.uid("structure", number),
            colour: STRUCTURE_CIELAB,
        }
    }

    pub(super) fn item(&self, maker: Maker<'_>) -> Dataset {
        let mut item = Dataset::new_empty();
        item.us(tags::SEGMENT_NUMBER, self.number);
        item.text(tags::SEGMENT_LABEL, VR::LO, &*self.label);
        item.text(tags::SEGMENT_DESCRIPTION, VR::ST, &*self.description);
        item.code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &self.category);
        item.code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, self.code);
        // A structure is its own place.
        if self.category != code::ANATOMICAL_STRUCTURE {
            let mut region = self.site.map_or_else(brain_region, code_item);
            if let Some(side) = laterality(self.side) {
                region.code(tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, &side);
            }
            item.sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![region]);
        }
        put_algorithm(&mut item, maker);
        item.text(tags::TRACKING_ID, VR::UT, &*self.tracking_id);
        item.uid(tags::TRACKING_UID, self.tracking_uid.as_str());
        item.put(DataElement::new(
            tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE,
            VR::US,
            PrimitiveValue::U16(self.colour.into_iter().collect()),
        ));
        item
    }
}

/// By what a segment was made: a model alone, a model and then a hand, or a hand alone.
fn put_algorithm(item: &mut Dataset, maker: Maker<'_>) {
    match maker {
        Maker::Model { plan, .. } => {
            item.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
            item.text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, &*plan.id);
            let mut algorithm = Dataset::new_empty();
            algorithm.code(
                tags::ALGORITHM_FAMILY_CODE_SEQUENCE,
                &concept::ARTIFICIAL_INTELLIGENCE,
            );
            algorithm.text(tags::ALGORITHM_NAME, VR::LO, &*plan.id);
            algorithm.text(tags::ALGORITHM_VERSION, VR::LO, &*plan.version);
            algorithm.text(tags::ALGORITHM_PARAMETERS, VR::LT, maker.parameters().join(", "));
            algorithm.text(tags::ALGORITHM_SOURCE, VR::LO, "ictus");
            item.sequence(
                tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE,
                vec![algorithm],
            );
        }
        Maker::Reader(Correction {
            edited: Some(edited), ..
        }) => {
            item.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "SEMIAUTOMATIC");
            item.text(tags::SEGMENT_ALGORITHM_NAME, VR::LO, edited.algorithm);
        }
        Maker::Reader(_) => item.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "MANUAL"),
    }
}

/// `Haemorrhage 2`: the kind and the place among its kind.
fn label(context: &Context<'_>, finding: &Finding) -> String {
    let place = context
        .findings
        .iter()
        .filter(|other| other.kind == finding.kind && other.segment <= finding.segment)
        .count();
    format!("{} {place}", capitalised(&finding.kind))
}

fn capitalised(kind: &str) -> String {
    let mut kind = kind.replace('_', " ");
    if let Some(first) = kind.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    kind
}

/// The property category that the plan gives the finding's label.
pub(super) fn category(plan: &Plan, finding: &Finding) -> Code {
    let label = plan.labels.iter().find(|label| label.name == finding.kind);
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
