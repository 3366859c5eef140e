//! The source grid → the multi-frame modules and functional groups that SEG and Parametric Map share.
//!
//! Each frame has its own position and names its own source instance, so that tilted and unevenly spaced stacks are placed exactly.
//! SpacingBetweenSlices is written only where it is true: for an even stack whose origins do not walk sideways.
//!
//! Source: PS3.3 sections C.7.6.16 and C.7.6.17.

use super::{
    Correction, concept,
    context::{Context, Maker, brain_region},
    element::{Dataset, Fill, code_item, reference_item},
};
use crate::domain::{code::Code, volume::Geometry};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};

/// One dimension of a multi-frame image: the attribute that counts, the functional group that holds it, a label.
pub(super) type Dimension = (Tag, Tag, &'static str);

/// Frames ordered by position along the normal.
pub(super) const POSITION: Dimension = (
    tags::IMAGE_POSITION_PATIENT,
    tags::PLANE_POSITION_SEQUENCE,
    "Image Position (Patient)",
);

/// Whether one Pixel Measures item speaks for every slice.
fn even_thickness(geometry: &Geometry) -> bool {
    geometry.planes.windows(2).all(|pair| {
        (pair[0].thickness_mm - pair[1].thickness_mm).abs() <= f64::EPSILON * pair[0].thickness_mm.abs()
    })
}

fn put_pixel_measures(group: &mut Dataset, geometry: &Geometry, slice: usize) {
    let mut measures = Dataset::new_empty();
    measures.ds(tags::PIXEL_SPACING, &geometry.pixel_spacing_mm);
    measures.ds(tags::SLICE_THICKNESS, &[geometry.planes[slice].thickness_mm]);
    if let Some(step) = geometry.regular_step_mm() {
        measures.ds(tags::SPACING_BETWEEN_SLICES, &[step]);
    }
    group.sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
}

/// What is true of every frame.
pub(super) fn shared_groups(geometry: &Geometry) -> Dataset {
    let mut shared = Dataset::new_empty();
    let mut orientation = Dataset::new_empty();
    let directions = [geometry.row_direction, geometry.column_direction].concat();
    orientation.ds(tags::IMAGE_ORIENTATION_PATIENT, &directions);
    shared.sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]);
    if even_thickness(geometry) {
        put_pixel_measures(&mut shared, geometry, 0);
    }
    shared
}

/// What is true of one frame: where it is, what it was made from, and its place in the dimensions.
pub(super) fn frame_groups(
    context: &Context<'_>,
    slice: usize,
    dimensions: &[u32],
    derivation: &Code,
) -> Dataset {
    let geometry = context.geometry;
    let mut frame = Dataset::new_empty();
    let mut content = Dataset::new_empty();
    content.put(DataElement::new(
        tags::DIMENSION_INDEX_VALUES,
        VR::UL,
        PrimitiveValue::U32(dimensions.iter().copied().collect()),
    ));
    frame.sequence(tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    let mut position = Dataset::new_empty();
    position.ds(tags::IMAGE_POSITION_PATIENT, &geometry.planes[slice].origin_mm);
    frame.sequence(tags::PLANE_POSITION_SEQUENCE, vec![position]);
    if !even_thickness(geometry) {
        put_pixel_measures(&mut frame, geometry, slice);
    }
    let mut source = context.references[slice].item();
    source.text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
    source.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &concept::SOURCE_IMAGE);
    let mut made = Dataset::new_empty();
    made.sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    made.sequence(tags::DERIVATION_CODE_SEQUENCE, vec![code_item(derivation)]);
    frame.sequence(tags::DERIVATION_IMAGE_SEQUENCE, vec![made]);
    frame
}

/// Frame Anatomy: the brain, both sides; dcmqi does not read a map without it.
pub(super) fn put_frame_anatomy(group: &mut Dataset) {
    let mut anatomy = Dataset::new_empty();
    anatomy.sequence(tags::ANATOMIC_REGION_SEQUENCE, vec![brain_region()]);
    anatomy.text(tags::FRAME_LATERALITY, VR::CS, "U");
    group.sequence(tags::FRAME_ANATOMY_SEQUENCE, vec![anatomy]);
}

/// The dimensions, the functional groups and the references to the source.
pub(super) fn put_frames(
    dataset: &mut Dataset,
    context: &Context<'_>,
    kind: &str,
    dimensions: &[Dimension],
    shared: Dataset,
    frames: Vec<Dataset>,
) {
    let organization = context.uid(&format!("{kind}.dimensions"), 1);
    let mut item = Dataset::new_empty();
    item.uid(tags::DIMENSION_ORGANIZATION_UID, organization.as_str());
    dataset.sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![item]);
    let indices = dimensions.iter().map(|(pointer, group, label)| {
        let mut item = Dataset::new_empty();
        item.uid(tags::DIMENSION_ORGANIZATION_UID, organization.as_str());
        item.at(tags::DIMENSION_INDEX_POINTER, *pointer);
        item.at(tags::FUNCTIONAL_GROUP_POINTER, *group);
        item.text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, *label);
        item
    });
    dataset.sequence(tags::DIMENSION_INDEX_SEQUENCE, indices.collect());
    dataset.text(tags::NUMBER_OF_FRAMES, VR::IS, frames.len().to_string());
    dataset.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);
    dataset.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames);
    let instances = context.instance_items(0..context.references.len());
    let mut series = Dataset::new_empty();
    series.uid(tags::SERIES_INSTANCE_UID, context.series.as_str());
    series.sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    let mut referenced = vec![series];
    if let Maker::Reader(Correction {
        edited: Some(edited), ..
    }) = context.maker
    {
        let mask = reference_item(uids::SEGMENTATION_STORAGE, edited.sop_instance_uid);
        let mut series = Dataset::new_empty();
        series.uid(tags::SERIES_INSTANCE_UID, edited.series_instance_uid.as_str());
        series.sequence(tags::REFERENCED_INSTANCE_SEQUENCE, vec![mask]);
        referenced.push(series);
    }
    dataset.sequence(tags::REFERENCED_SERIES_SEQUENCE, referenced);
}

/// Rows, columns and what a grey image of one sample says of itself.
pub(super) fn put_image(dataset: &mut Dataset, context: &Context<'_>, bits: u16) {
    let geometry = context.geometry;
    // The grid was checked to fit when the context was made.
    dataset.us(tags::ROWS, u16::try_from(geometry.rows).unwrap_or(u16::MAX));
    dataset.us(tags::COLUMNS, u16::try_from(geometry.columns).unwrap_or(u16::MAX));
    dataset.us(tags::SAMPLES_PER_PIXEL, 1);
    dataset.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    dataset.us(tags::BITS_ALLOCATED, bits);
    context.put_lossy_compression(dataset);
}

/// Bits stored of an image of integers; float images have none.
pub(super) fn put_integer_pixels(dataset: &mut Dataset, bits: u16) {
    dataset.us(tags::BITS_STORED, bits);
    dataset.us(tags::HIGH_BIT, bits - 1);
    dataset.us(tags::PIXEL_REPRESENTATION, 0);
}
