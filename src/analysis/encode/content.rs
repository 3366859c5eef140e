//! Content items of a structured report.
//!
//! An item says how it relates to its parent; [`under`] gives it children.
//!
//! Source: PS3.3 section C.17.3.

use super::element::{Dataset, Fill};
use crate::domain::{code::Code, uid::Uid};
use dicom_core::VR;
use dicom_dictionary_std::tags;

/// How an item relates to its parent.
#[derive(Clone, Copy)]
pub(super) enum Relation {
    /// Content of a container.
    Contains,
    /// The context in which the parent was observed.
    HasObservationContext,
    /// Says what the parent's concept means more closely.
    HasConceptModifier,
}
pub(super) use Relation::{Contains, HasConceptModifier, HasObservationContext};

fn item(relation: Relation, value_type: &str, name: &Code) -> Dataset {
    let mut item = Dataset::new_empty();
    let relation = match relation {
        Contains => "CONTAINS",
        HasObservationContext => "HAS OBS CONTEXT",
        HasConceptModifier => "HAS CONCEPT MOD",
    };
    item.text(tags::RELATIONSHIP_TYPE, VR::CS, relation);
    item.text(tags::VALUE_TYPE, VR::CS, value_type);
    item.code(tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    item
}

/// A coded statement.
pub(super) fn code(relation: Relation, name: &Code, value: &Code) -> Dataset {
    let mut item = item(relation, "CODE", name);
    item.code(tags::CONCEPT_CODE_SEQUENCE, value);
    item
}

/// Plain words.
pub(super) fn text(relation: Relation, name: &Code, value: impl Into<String>) -> Dataset {
    let mut item = item(relation, "TEXT", name);
    item.text(tags::TEXT_VALUE, VR::UT, value);
    item
}

/// A reference to something with a UID.
pub(super) fn uid_reference(relation: Relation, name: &Code, value: &Uid) -> Dataset {
    let mut item = item(relation, "UIDREF", name);
    item.uid(tags::UID, value.as_str());
    item
}

/// A number with its unit, shown to `digits` after the point; the exact one stands beside it for programs.
pub(super) fn number(name: &Code, value: f64, digits: usize, unit: &Code) -> Dataset {
    let mut measured = Dataset::new_empty();
    measured.text(tags::NUMERIC_VALUE, VR::DS, format!("{value:.digits$}"));
    measured.fd(tags::FLOATING_POINT_VALUE, value);
    measured.code(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, unit);
    let mut item = item(Contains, "NUM", name);
    item.sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    item
}

/// A reference to an image, or to one segment of it.
pub(super) fn image(name: &Code, mut reference: Dataset, segment: Option<u16>) -> Dataset {
    if let Some(segment) = segment {
        reference.us(tags::REFERENCED_SEGMENT_NUMBER, segment);
    }
    let mut item = item(Contains, "IMAGE", name);
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
    item
}

/// An image without a name: what a selection selects.
pub(super) fn picture(reference: Dataset) -> Dataset {
    let mut item = Dataset::new_empty();
    item.text(tags::RELATIONSHIP_TYPE, VR::CS, "CONTAINS");
    item.text(tags::VALUE_TYPE, VR::CS, "IMAGE");
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
    item
}

/// A heading with content; `template` is its number in PS3.16, where it begins one.
pub(super) fn container(name: &Code, template: Option<&str>, content: Vec<Dataset>) -> Dataset {
    let mut container = item(Contains, "CONTAINER", name);
    put_container(&mut container, template, content);
    container
}

/// The heading of the whole report, which has no parent to relate to.
pub(super) fn put_root(dataset: &mut Dataset, name: &Code, template: &str, content: Vec<Dataset>) {
    dataset.text(tags::VALUE_TYPE, VR::CS, "CONTAINER");
    dataset.code(tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    put_container(dataset, Some(template), content);
}

fn put_container(container: &mut Dataset, template: Option<&str>, content: Vec<Dataset>) {
    container.text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
    if let Some(template) = template {
        let mut item = Dataset::new_empty();
        item.text(tags::MAPPING_RESOURCE, VR::CS, "DCMR");
        item.text(tags::TEMPLATE_IDENTIFIER, VR::CS, template);
        container.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![item]);
    }
    container.sequence(tags::CONTENT_SEQUENCE, content);
}

/// Gives an item children.
pub(super) fn under(mut parent: Dataset, children: Vec<Dataset>) -> Dataset {
    if !children.is_empty() {
        parent.sequence(tags::CONTENT_SEQUENCE, children);
    }
    parent
}
