//! Entropy, and on request score, mutual information and variance → one Parametric Map each, on the source grid.
//!
//! A quantity from 0 to 1 becomes 16-bit unsigned values with a real-world value mapping, and is clamped, so that 0 and 65535 are exactly the ends and no value leaves the mapped range.
//! Every map has the same frames, so that they lie on each other frame by frame.
//! They run without a gap from the first to the last slice that holds brain or a value above [`WORTH_A_FRAME`]: readers that stack frames by number (dcmqi) would shift everything behind a gap.
//!
//! Why this size and syntax: results are to stay within half the bytes of their CT, which plain 16-bit frames of the brain slices exceed.
//! Cropping to the brain would be legal, but Cornerstone's adapter refuses a map whose rows and columns are not the source's.
//! RLE Lossless keeps the grid, is read by every image toolkit, and is decoded for whoever asks the server for Explicit VR Little Endian.
//! Float pixels cannot be encapsulated (PS3.5 section 8.2); their values are rounded to steps of 1/65536, so that whoever deflates the map finds little in it.
//!
//! Source: PS3.3 sections A.75 and C.8.32; PS3.5 annex G; PS3.3 section C.7.6.16.2.11 (real-world values).

use super::{
    EncodeError, EncodeInput, MapFormat, Maps, Quantity, concept,
    context::{Context, Kind, mismatch},
    element::{Dataset, Fill},
    frames::{
        POSITION, frame_groups, put_frame_anatomy, put_frames, put_image, put_integer_pixels, shared_groups,
    },
    rle,
};
use crate::domain::{code::Code, prediction::Prediction, volume::Volume};
use dicom_core::{DataElement, PrimitiveValue, VR, value::PixelFragmentSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::{iter::once, ops::Range};

/// Entropy from which a slice without brain still gets a frame.
const WORTH_A_FRAME: f32 = 0.001;

/// Steps between 0 and 1 in a float map: as fine as 16 bits, and exact in binary.
const FLOAT_STEPS: f32 = 65536.0;
/// The stored value of entropy 1.
const FULL_SCALE: u16 = u16::MAX;

/// A quantity that gets a map of its own.
struct Map<'a> {
    values: &'a Volume<f32>,
    /// Last part of the UIDs' name, and ContentLabel in capitals.
    name: &'static str,
    series_number: u16,
    /// For SeriesDescription.
    shows: &'static str,
    /// For ContentDescription, which has 64 characters with the limits of use.
    description: &'static str,
    /// For the real-world value: at most 16 characters.
    label: &'static str,
    quantity: Code,
    derivation: Code,
}

impl<'a> Map<'a> {
    fn entropy(prediction: &'a Prediction) -> Self {
        Self {
            values: &prediction.entropy,
            name: "entropy",
            series_number: 9002,
            shows: "uncertainty",
            description: "Predictive entropy",
            label: "Entropy",
            quantity: concept::ENTROPY,
            derivation: concept::ENTROPY_DERIVATION,
        }
    }

    fn of(quantity: Quantity, prediction: &'a Prediction) -> Self {
        let name = quantity_name(quantity);
        match quantity {
            Quantity::Score => Self {
                values: &prediction.score,
                name,
                series_number: 9004,
                shows: "score",
                description: "Mean score",
                label: "Score",
                quantity: concept::SCORE,
                derivation: concept::SCORE_DERIVATION,
            },
            Quantity::MutualInformation => Self {
                values: &prediction.mutual_information,
                name,
                series_number: 9005,
                shows: "mutual information",
                description: "Mutual information",
                label: "Mutual inform.",
                quantity: concept::MUTUAL_INFORMATION,
                derivation: concept::SPREAD_DERIVATION,
            },
            Quantity::Variance => Self {
                values: &prediction.variance,
                name,
                series_number: 9006,
                shows: "variance",
                description: "Score variance",
                label: "Variance",
                quantity: concept::VARIANCE,
                derivation: concept::SPREAD_DERIVATION,
            },
        }
    }

    fn kind(&self, format: MapFormat) -> Kind {
        let (end, transfer_syntax) = match format {
            MapFormat::Unsigned16 => ("", uids::RLE_LOSSLESS),
            MapFormat::Float32 => (FLOAT, uids::EXPLICIT_VR_LITTLE_ENDIAN),
        };
        Kind {
            name: format!("pm.{}{end}", self.name).into(),
            sop_class_uid: uids::PARAMETRIC_MAP_STORAGE,
            transfer_syntax,
            modality: "OT",
            series_number: self.series_number,
            shows: self.shows,
        }
    }
}

/// Ends the name of whatever holds or refers to float maps.
const FLOAT: &str = ".float";

fn quantity_name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Score => "score",
        Quantity::MutualInformation => "mutual_information",
        Quantity::Variance => "variance",
    }
}

/// What a ContentLabel is short for; the entropy's is nothing further.
pub(super) fn quantity_of(label: &str) -> Option<Quantity> {
    [Quantity::Score, Quantity::MutualInformation, Quantity::Variance]
        .into_iter()
        .find(|quantity| content_label(quantity_name(*quantity)) == label)
}

/// A Code String has 16 characters.
fn content_label(name: &str) -> String {
    name.to_uppercase().chars().take(16).collect()
}

/// `name`, and which maps stand behind it where they are not the ones made by default.
pub(super) fn selection(name: &str, maps: &Maps) -> String {
    let mut selection = name.to_owned();
    for quantity in &maps.further {
        selection.push('.');
        selection.push_str(quantity_name(*quantity));
    }
    if maps.format == MapFormat::Float32 {
        selection.push_str(FLOAT);
    }
    selection
}

/// Makes the entropy's map, then those that were asked for.
pub(super) fn encode(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
) -> Result<Vec<DefaultDicomObject>, EncodeError> {
    let further = input.maps.further.iter();
    let maps: Vec<_> = once(Map::entropy(input.prediction))
        .chain(further.map(|quantity| Map::of(*quantity, input.prediction)))
        .collect();
    for map in &maps {
        if map.values.geometry != *context.geometry {
            return Err(mismatch("grid of a map", map.name, "the source's grid"));
        }
        if map.values.data.iter().any(|value| value.is_nan()) {
            return Err(mismatch("a voxel of a map", "not a number", "0 to 1"));
        }
    }
    let slices = slices_worth_a_frame(context, input);
    maps.iter()
        .map(|map| one(context, map, input.maps.format, slices.clone()))
        .collect()
}

fn one(
    context: &Context<'_>,
    map: &Map<'_>,
    format: MapFormat,
    slices: Range<usize>,
) -> Result<DefaultDicomObject, EncodeError> {
    let kind = map.kind(format);
    let mut dataset = context.dataset(&kind)?;
    context.put_frame_of_reference(&mut dataset)?;
    let bits = match format {
        MapFormat::Unsigned16 => 16,
        MapFormat::Float32 => 32,
    };
    put_image(&mut dataset, context, bits);
    dataset.texts(
        tags::IMAGE_TYPE,
        VR::CS,
        &["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"],
    );
    dataset.text(tags::PIXEL_PRESENTATION, VR::CS, "MONOCHROME");
    dataset.text(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
    dataset.text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    dataset.text(tags::RECOGNIZABLE_VISUAL_FEATURES, VR::CS, "NO");
    dataset.text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY");
    dataset.empty(tags::ACQUISITION_CONTEXT_SEQUENCE, VR::SQ);
    dataset.text(tags::CONTENT_LABEL, VR::CS, content_label(map.name));
    dataset.text(
        tags::CONTENT_DESCRIPTION,
        VR::LO,
        format!("{}, {}", map.description, context.maker.limits()),
    );
    dataset.text(tags::CONTENT_CREATOR_NAME, VR::PN, "ictus^");
    let frames = (1u32..)
        .zip(slices.clone())
        .map(|(place, slice)| frame_groups(context, slice, &[place], &map.derivation))
        .collect();
    put_frames(
        &mut dataset,
        context,
        &kind.name,
        &[POSITION],
        shared(context, map, format),
        frames,
    );
    match format {
        MapFormat::Unsigned16 => put_rle_pixels(&mut dataset, map.values, slices),
        MapFormat::Float32 => put_float_pixels(&mut dataset, map.values, slices),
    }
    context.object(dataset, &kind)
}

/// From the first to the last slice that holds brain or a value worth showing; every slice when none does.
fn slices_worth_a_frame(context: &Context<'_>, input: &EncodeInput<'_>) -> Range<usize> {
    let (mut first, mut last) = (None, 0);
    for slice in 0..context.geometry.slices() {
        let entropy = input.prediction.entropy.slice(slice);
        if input.brain.slice(slice).contains(&true) || entropy.iter().any(|value| *value > WORTH_A_FRAME) {
            first.get_or_insert(slice);
            last = slice + 1;
        }
    }
    first.map_or(0..context.geometry.slices(), |first| first..last)
}

/// What is true of every frame of the map.
fn shared(context: &Context<'_>, map: &Map<'_>, format: MapFormat) -> Dataset {
    let mut group = shared_groups(context.geometry);
    put_frame_anatomy(&mut group);
    let mut frame_type = Dataset::new_empty();
    frame_type.texts(
        tags::FRAME_TYPE,
        VR::CS,
        &["DERIVED", "PRIMARY", "VOLUME", "QUANTITY"],
    );
    group.sequence(tags::PARAMETRIC_MAP_FRAME_TYPE_SEQUENCE, vec![frame_type]);
    let mut transformation = Dataset::new_empty();
    transformation.ds(tags::RESCALE_INTERCEPT, &[0.0]);
    transformation.ds(tags::RESCALE_SLOPE, &[1.0]);
    transformation.text(tags::RESCALE_TYPE, VR::LO, "US");
    group.sequence(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE, vec![transformation]);
    // The window is in stored values: viewers apply it before any real-world value.
    let full = match format {
        MapFormat::Unsigned16 => f64::from(FULL_SCALE),
        MapFormat::Float32 => 1.0,
    };
    let mut window = Dataset::new_empty();
    window.ds(tags::WINDOW_CENTER, &[full / 2.0]);
    window.ds(tags::WINDOW_WIDTH, &[full]);
    group.sequence(tags::FRAME_VOILUT_SEQUENCE, vec![window]);
    group.sequence(
        tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE,
        vec![real_world_value_mapping(map, format)],
    );
    group
}

fn real_world_value_mapping(map: &Map<'_>, format: MapFormat) -> Dataset {
    let mut mapping = Dataset::new_empty();
    mapping.text(tags::LUT_LABEL, VR::SH, map.label);
    mapping.text(tags::LUT_EXPLANATION, VR::LO, &*map.quantity.meaning);
    mapping.code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, &concept::NO_UNITS);
    mapping.fd(tags::REAL_WORLD_VALUE_INTERCEPT, 0.0);
    match format {
        MapFormat::Unsigned16 => {
            mapping.fd(tags::REAL_WORLD_VALUE_SLOPE, 1.0 / f64::from(FULL_SCALE));
            mapping.us(tags::REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, 0);
            mapping.us(tags::REAL_WORLD_VALUE_LAST_VALUE_MAPPED, FULL_SCALE);
        }
        MapFormat::Float32 => {
            mapping.fd(tags::REAL_WORLD_VALUE_SLOPE, 1.0);
            mapping.fd(tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_FIRST_VALUE_MAPPED, 0.0);
            mapping.fd(tags::DOUBLE_FLOAT_REAL_WORLD_VALUE_LAST_VALUE_MAPPED, 1.0);
        }
    }
    let mut quantity = Dataset::new_empty();
    quantity.text(tags::VALUE_TYPE, VR::CS, "CODE");
    quantity.code(tags::CONCEPT_NAME_CODE_SEQUENCE, &concept::QUANTITY);
    quantity.code(tags::CONCEPT_CODE_SEQUENCE, &map.quantity);
    mapping.sequence(tags::QUANTITY_DEFINITION_SEQUENCE, vec![quantity]);
    mapping
}

/// The nearest stored value.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 to 1 and scaled to the range of the type"
)]
fn quantize(value: f32) -> u16 {
    (f64::from(value).clamp(0.0, 1.0) * f64::from(FULL_SCALE)).round() as u16
}

fn put_rle_pixels(dataset: &mut Dataset, values: &Volume<f32>, slices: Range<usize>) {
    put_integer_pixels(dataset, 16);
    let columns = values.geometry.columns;
    let mut stored = Vec::with_capacity(values.geometry.slice_len());
    let mut fragments = Vec::with_capacity(slices.len());
    for slice in slices {
        stored.clear();
        stored.extend(values.slice(slice).iter().map(|value| quantize(*value)));
        fragments.push(rle::encode_frame(&stored, columns));
    }
    let offsets = basic_offset_table(&fragments);
    dataset.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PixelFragmentSequence::new(offsets, fragments),
    ));
}

/// Where each frame's item begins, counted from the first; empty when the table's 32 bits do not reach.
fn basic_offset_table(fragments: &[Vec<u8>]) -> Vec<u32> {
    /// Tag and length of an item.
    const ITEM_HEADER: usize = 8;
    let mut at = 0usize;
    let offsets = fragments.iter().map(|fragment| {
        let offset = u32::try_from(at);
        at += ITEM_HEADER + fragment.len();
        offset
    });
    offsets.collect::<Result<_, _>>().unwrap_or_default()
}

fn put_float_pixels(dataset: &mut Dataset, values: &Volume<f32>, slices: Range<usize>) {
    let len = values.geometry.slice_len();
    let voxels = &values.data[slices.start * len..slices.end * len];
    let round = |value: &f32| (value.clamp(0.0, 1.0) * FLOAT_STEPS).round() / FLOAT_STEPS;
    let rounded = voxels.iter().map(round).collect();
    dataset.put(DataElement::new(
        tags::FLOAT_PIXEL_DATA,
        VR::OF,
        PrimitiveValue::F32(rounded),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_are_exact_and_nothing_leaves_them() {
        let slope = 1.0 / f64::from(FULL_SCALE);
        for (value, stored) in [(0.0, 0), (1.0, 65535), (-0.1, 0), (1.5, 65535)] {
            assert_eq!(quantize(value), stored, "{value}");
        }
        assert!((f64::from(FULL_SCALE) * slope - 1.0).abs() == 0.0);
    }

    #[test]
    fn offsets_count_item_headers() {
        assert_eq!(
            basic_offset_table(&[vec![0; 10], vec![0; 4], vec![0; 2]]),
            [0, 18, 30]
        );
    }

    proptest! {
        #[test]
        fn stored_values_are_within_one_step(value in 0.0f32..=1.0) {
            let back = f64::from(quantize(value)) / f64::from(FULL_SCALE);
            prop_assert!((back - f64::from(value)).abs() <= 0.5 / f64::from(FULL_SCALE) + 1e-12);
        }
    }
}
