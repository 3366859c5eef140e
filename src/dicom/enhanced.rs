//! An enhanced multi-frame CT → the slices that it holds, each as if it had come by itself.
//!
//! What the functional groups say of a frame stands in its slice where a single-frame CT has it, so that whoever reads slices
//! need not know where they came from; [`Attributes::frame`] says which frame of its instance a slice is, for references to it.
//! Nothing is put in order or judged here: what tells frames apart beside their place comes along, for `assemble` to refuse.
//! An instance whose frames cannot be told apart stays whole and says why ([`Attributes::frames_problem`]).
//!
//! Source: PS3.3 sections A.38.1 (Enhanced CT), A.70 (Legacy Converted Enhanced CT), C.7.6.16 and C.8.15.3.

use super::{
    DicomError,
    attribute::{Attributes, Frame},
    fragments,
    instance::Instance,
    transcode::TranscodeError,
};
use crate::domain::uid::Uid;
use bytes::Bytes;
use dicom_core::{
    DataElement, PrimitiveValue, Tag, VR,
    value::{PixelFragmentSequence, Value},
};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, mem::InMemElement};

/// Whose frames are slices.
const ENHANCED_CT: [&str; 2] = [
    uids::ENHANCED_CT_IMAGE_STORAGE,
    uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
];

/// Where a functional group keeps an attribute, and where a single-frame CT has it.
const FLATTENED: [(Tag, Tag, Tag); 15] = [
    (
        tags::PIXEL_MEASURES_SEQUENCE,
        tags::PIXEL_SPACING,
        tags::PIXEL_SPACING,
    ),
    (
        tags::PIXEL_MEASURES_SEQUENCE,
        tags::SLICE_THICKNESS,
        tags::SLICE_THICKNESS,
    ),
    (
        tags::PLANE_POSITION_SEQUENCE,
        tags::IMAGE_POSITION_PATIENT,
        tags::IMAGE_POSITION_PATIENT,
    ),
    (
        tags::PLANE_ORIENTATION_SEQUENCE,
        tags::IMAGE_ORIENTATION_PATIENT,
        tags::IMAGE_ORIENTATION_PATIENT,
    ),
    (
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        tags::RESCALE_SLOPE,
        tags::RESCALE_SLOPE,
    ),
    (
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        tags::RESCALE_INTERCEPT,
        tags::RESCALE_INTERCEPT,
    ),
    (
        tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
        tags::RESCALE_TYPE,
        tags::RESCALE_TYPE,
    ),
    (
        tags::FRAME_VOILUT_SEQUENCE,
        tags::WINDOW_CENTER,
        tags::WINDOW_CENTER,
    ),
    (
        tags::FRAME_VOILUT_SEQUENCE,
        tags::WINDOW_WIDTH,
        tags::WINDOW_WIDTH,
    ),
    (
        tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
        tags::FRAME_TYPE,
        tags::IMAGE_TYPE,
    ),
    (
        tags::CT_RECONSTRUCTION_SEQUENCE,
        tags::CONVOLUTION_KERNEL,
        tags::CONVOLUTION_KERNEL,
    ),
    (
        tags::CT_ACQUISITION_DETAILS_SEQUENCE,
        tags::GANTRY_DETECTOR_TILT,
        tags::GANTRY_DETECTOR_TILT,
    ),
    (
        tags::FRAME_CONTENT_SEQUENCE,
        tags::FRAME_ACQUISITION_NUMBER,
        tags::ACQUISITION_NUMBER,
    ),
    (
        tags::FRAME_CONTENT_SEQUENCE,
        tags::FRAME_REFERENCE_DATE_TIME,
        tags::ACQUISITION_DATE_TIME,
    ),
    (
        tags::FRAME_CONTENT_SEQUENCE,
        tags::FRAME_ACQUISITION_DATE_TIME,
        tags::ACQUISITION_DATE_TIME,
    ),
];

/// What belongs to the instance as a whole and not to a slice of it.
const WHOLE: [Tag; 8] = [
    tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::DIMENSION_ORGANIZATION_SEQUENCE,
    tags::DIMENSION_INDEX_SEQUENCE,
    tags::NUMBER_OF_FRAMES,
    tags::EXTENDED_OFFSET_TABLE,
    tags::EXTENDED_OFFSET_TABLE_LENGTHS,
    tags::PIXEL_DATA,
];

/// Dimensions that say where a frame lies or when it was taken, or that are looked at by themselves: any number of values is one stack.
const OF_A_STACK: [Tag; 14] = [
    tags::STACK_ID,
    tags::IN_STACK_POSITION_NUMBER,
    tags::IMAGE_POSITION_PATIENT,
    tags::IMAGE_ORIENTATION_PATIENT,
    tags::IMAGE_POSITION_VOLUME,
    tags::SLICE_LOCATION,
    tags::TABLE_POSITION,
    tags::INSTANCE_NUMBER,
    tags::FRAME_ACQUISITION_NUMBER,
    tags::FRAME_ACQUISITION_DATE_TIME,
    tags::FRAME_REFERENCE_DATE_TIME,
    tags::TEMPORAL_POSITION_INDEX,
    tags::CONVOLUTION_KERNEL,
    tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
];

/// Reads Part 10 files, and takes the multi-frame CT among them apart into slices.
///
/// # Errors
/// As [`Instance::from_bytes`].
pub fn read(files: &[Bytes]) -> Result<Vec<Instance>, DicomError> {
    let read = files.iter().map(|file| Instance::from_bytes(file).map(slices));
    Ok(read
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// The slices of a multi-frame CT in the order of its frames; any other instance as it is.
#[must_use]
pub fn slices(mut instance: Instance) -> Vec<Instance> {
    if !is_enhanced(&instance.attributes) {
        return vec![instance];
    }
    let pixels = instance.object.get(tags::PIXEL_DATA).is_some();
    let taken = headers(&instance).and_then(|headers| {
        let pixels = pixels.then(|| frames_of(&mut instance.object, headers.len()));
        let pixels = pixels.unwrap_or(Err("there is no PixelData"))?;
        Ok(headers.into_iter().zip(pixels))
    });
    match taken {
        Ok(taken) => {
            let meta = instance.object.meta();
            let one = |((mut object, attributes), pixels): ((InMemDicomObject, Attributes), InMemElement)| {
                object.put(pixels);
                Instance {
                    object: object.with_exact_meta(meta.clone()),
                    attributes,
                }
            };
            taken.map(one).collect()
        }
        Err(problem) => {
            instance.attributes.frames_problem = Some(problem);
            vec![instance]
        }
    }
}

/// The headers of the slices of an instance, without their pixels.
#[must_use]
pub fn attributes(instance: &Instance) -> Vec<Attributes> {
    if is_enhanced(&instance.attributes)
        && let Ok(headers) = headers(instance)
    {
        return headers.into_iter().map(|(_, attributes)| attributes).collect();
    }
    vec![instance.attributes.clone()]
}

fn is_enhanced(attributes: &Attributes) -> bool {
    let class = attributes.sop_class_uid.as_ref().map(Uid::as_str);
    class.is_some_and(|class| ENHANCED_CT.contains(&class))
}

/// The dataset of each slice but for its pixels, and what is read of it; or why there is none.
fn headers(instance: &Instance) -> Result<Vec<(InMemDicomObject, Attributes)>, &'static str> {
    let object = &instance.object;
    let count = instance.attributes.number_of_frames.unwrap_or(1) as usize;
    let nothing = InMemDicomObject::new_empty();
    let shared = items(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)
        .first()
        .unwrap_or(&nothing);
    let frames = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    if frames.len() != count {
        return Err("PerFrameFunctionalGroupsSequence has not one item a frame");
    }
    let dimensions = items(object, tags::DIMENSION_INDEX_SEQUENCE);
    let common = object
        .iter()
        .filter(|element| !WHOLE.contains(&element.header().tag));
    let common = InMemDicomObject::from_element_iter(common.cloned());
    let slice = |(number, own): (u32, &InMemDicomObject)| {
        let groups = Groups { own, shared };
        let mut slice = common.clone();
        slice.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "1"));
        for converted in [
            items(shared, tags::UNASSIGNED_SHARED_CONVERTED_ATTRIBUTES_SEQUENCE),
            items(own, tags::UNASSIGNED_PER_FRAME_CONVERTED_ATTRIBUTES_SEQUENCE),
        ] {
            let elements = converted.iter().flat_map(|item| item.iter());
            for element in elements.filter(|element| object.get(element.header().tag).is_none()) {
                slice.put(element.clone());
            }
        }
        for (group, from, to) in FLATTENED {
            if let Some(element) = groups.get(group).and_then(|item| item.get(from)) {
                let vr = element.header().vr;
                slice.put(DataElement::new(to, vr, element.value().clone()));
            }
        }
        put_agent(&mut slice, &groups);
        let mut attributes = Attributes::parse(&slice);
        attributes
            .undecodable_text
            .clone_from(&instance.attributes.undecodable_text);
        attributes.frame = Some(frame(number, &groups, dimensions));
        (slice, attributes)
    };
    Ok((1..).zip(frames).map(slice).collect())
}

/// What holds for one frame: its own group, else the one of all frames.
struct Groups<'a> {
    own: &'a InMemDicomObject,
    shared: &'a InMemDicomObject,
}

impl<'a> Groups<'a> {
    fn items(&self, group: Tag) -> &'a [InMemDicomObject] {
        let own = items(self.own, group);
        if own.is_empty() {
            items(self.shared, group)
        } else {
            own
        }
    }

    fn get(&self, group: Tag) -> Option<&'a InMemDicomObject> {
        self.items(group).first()
    }
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object
        .get(tag)
        .and_then(|element| element.items())
        .unwrap_or_default()
}

/// Says in one word whether contrast agent was given, as a single-frame CT does.
///
/// An agent that is listed and of which no frame says whether it was given counts as given.
fn put_agent(slice: &mut InMemDicomObject, groups: &Groups<'_>) {
    let listed = !items(slice, tags::CONTRAST_BOLUS_AGENT_SEQUENCE).is_empty();
    let usage = groups.items(tags::CONTRAST_BOLUS_USAGE_SEQUENCE);
    let said: Vec<String> = usage
        .iter()
        .filter_map(|item| text(item, tags::CONTRAST_BOLUS_AGENT_ADMINISTERED))
        .collect();
    let given = if said.is_empty() {
        listed
    } else {
        said.iter().any(|word| word != "NO")
    };
    if given && slice.get(tags::CONTRAST_BOLUS_AGENT).is_none() {
        let named = items(slice, tags::CONTRAST_BOLUS_AGENT_SEQUENCE).first();
        let named = named.and_then(|item| text(item, tags::CODE_MEANING));
        let agent = named.unwrap_or_else(|| "given".to_owned());
        slice.put(DataElement::new(tags::CONTRAST_BOLUS_AGENT, VR::LO, agent));
    }
}

/// Which frame it is, and what sets it apart from others beside its place.
fn frame(number: u32, groups: &Groups<'_>, dimensions: &[InMemDicomObject]) -> Frame {
    let content = groups.get(tags::FRAME_CONTENT_SEQUENCE);
    let values = content
        .and_then(|content| {
            content
                .get(tags::DIMENSION_INDEX_VALUES)?
                .to_multi_int::<u32>()
                .ok()
        })
        .unwrap_or_default();
    let counts_apart = |dimension: &InMemDicomObject| {
        let pointer = dimension.get(tags::DIMENSION_INDEX_POINTER);
        let pointer = pointer.and_then(|element| element.value().primitive()?.tag().ok());
        pointer.is_none_or(|pointer| !OF_A_STACK.contains(&pointer))
    };
    let phase = groups
        .get(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE)
        .and_then(|item| text(item, tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE));
    Frame {
        number,
        stack_id: content.and_then(|content| text(content, tags::STACK_ID)),
        temporal_position_index: content
            .and_then(|content| content.get(tags::TEMPORAL_POSITION_INDEX)?.to_int().ok()),
        cardiac_phase: phase,
        other_dimensions: dimensions
            .iter()
            .zip(values)
            .filter(|(dimension, _)| counts_apart(dimension))
            .map(|(_, value)| value)
            .collect(),
    }
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The pixels of each frame as its only frame would hold them.
fn frames_of(object: &mut DefaultDicomObject, count: usize) -> Result<Vec<InMemElement>, &'static str> {
    const SHORT: &str = "PixelData is shorter than its frames";
    fragments::one_a_frame(object).map_err(|error| match error {
        TranscodeError::Layout(problem) => problem,
        _ => "its fragments cannot be told apart",
    })?;
    let number = |tag: Tag| object.get(tag).and_then(|element| element.to_int::<usize>().ok());
    let sizes = [tags::ROWS, tags::COLUMNS, tags::BITS_ALLOCATED].map(number);
    let samples = number(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let pixels = object.get(tags::PIXEL_DATA).ok_or("there is no PixelData")?;
    match pixels.value() {
        Value::PixelSequence(sequence) => {
            if sequence.fragments().len() != count {
                return Err("PixelData has not one fragment a frame");
            }
            let one = |fragment: &Vec<u8>| {
                let value = PixelFragmentSequence::new(Vec::<u32>::new(), vec![fragment.clone()]);
                DataElement::new(tags::PIXEL_DATA, VR::OB, value)
            };
            Ok(sequence.fragments().iter().map(one).collect())
        }
        Value::Primitive(value) => {
            let [Some(rows), Some(columns), Some(bits)] = sizes else {
                return Err("Rows, Columns or BitsAllocated is missing");
            };
            let bits = [rows, columns, bits]
                .into_iter()
                .try_fold(samples, usize::checked_mul);
            let length = bits
                .filter(|bits| *bits > 0 && bits.is_multiple_of(8))
                .ok_or("its frames are not of whole bytes")?
                / 8;
            let bytes = value.to_bytes();
            if bytes.len() / length < count {
                return Err(SHORT);
            }
            let one = |frame: &[u8]| {
                DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(frame.to_vec()))
            };
            Ok(bytes.chunks_exact(length).take(count).map(one).collect())
        }
        Value::Sequence(_) => Err("PixelData is a sequence of items"),
    }
}
