//! The datasets of storage commitment: what is asked and what is answered.
//!
//! Source: PS3.4 section J.3, tables J.3-1 and J.3-2.

use crate::domain::uid::Uid;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

/// Action type: request storage commitment.
pub const REQUEST: u16 = 1;
/// Event type: all of it is committed to.
pub const COMPLETE: u16 = 1;
/// Event type: some of it is not.
pub const FAILURES: u16 = 2;

/// An instance as it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// ReferencedSOPClassUID.
    pub sop_class_uid: String,
    /// ReferencedSOPInstanceUID.
    pub sop_instance_uid: String,
}

/// What is to be committed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// TransactionUID.
    pub transaction_uid: Uid,
    /// The instances.
    pub references: Vec<Reference>,
}

/// What is committed to, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// TransactionUID of the request.
    pub transaction_uid: Uid,
    /// These are safe.
    pub committed: Vec<Reference>,
    /// These are not, and why (PS3.3 section C.14.1.1).
    pub failed: Vec<(Reference, u16)>,
}

/// A dataset that is none of storage commitment; says which attribute is wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct DatasetError(&'static str);

impl Request {
    /// Reads the dataset of a request.
    ///
    /// # Errors
    /// When an attribute that it needs is not there.
    pub fn read(dataset: &InMemDicomObject) -> Result<Self, DatasetError> {
        let references = references(dataset, tags::REFERENCED_SOP_SEQUENCE)?;
        if references.is_empty() {
            return Err(DatasetError(
                "ReferencedSOPSequence (0008,1199) names no instance",
            ));
        }
        Ok(Self {
            transaction_uid: transaction(dataset)?,
            references: references.into_iter().map(|(reference, _)| reference).collect(),
        })
    }

    /// Its dataset.
    #[must_use]
    pub fn dataset(&self) -> InMemDicomObject {
        let items = self
            .references
            .iter()
            .map(|reference| item(reference, None))
            .collect();
        let mut dataset = InMemDicomObject::new_empty();
        put_transaction(&mut dataset, &self.transaction_uid);
        put_items(&mut dataset, tags::REFERENCED_SOP_SEQUENCE, items);
        dataset
    }
}

impl Report {
    /// Reads the dataset of a report.
    ///
    /// # Errors
    /// When an attribute that it needs is not there.
    pub fn read(dataset: &InMemDicomObject) -> Result<Self, DatasetError> {
        let committed = references(dataset, tags::REFERENCED_SOP_SEQUENCE)?;
        let failed = references(dataset, tags::FAILED_SOP_SEQUENCE)?;
        Ok(Self {
            transaction_uid: transaction(dataset)?,
            committed: committed.into_iter().map(|(reference, _)| reference).collect(),
            failed: failed
                .into_iter()
                .map(|(reference, reason)| (reference, reason.unwrap_or(0x0110)))
                .collect(),
        })
    }

    /// Its dataset; `title` is who the instances can be had from.
    #[must_use]
    pub fn dataset(&self, title: &str) -> InMemDicomObject {
        let mut dataset = InMemDicomObject::new_empty();
        put_transaction(&mut dataset, &self.transaction_uid);
        dataset.put(DataElement::new(tags::RETRIEVE_AE_TITLE, VR::AE, title));
        let committed: Vec<_> = self.committed.iter().map(|one| item(one, None)).collect();
        if !committed.is_empty() {
            put_items(&mut dataset, tags::REFERENCED_SOP_SEQUENCE, committed);
        }
        let failed = self.failed.iter().map(|(one, reason)| item(one, Some(*reason)));
        let failed: Vec<_> = failed.collect();
        if !failed.is_empty() {
            put_items(&mut dataset, tags::FAILED_SOP_SEQUENCE, failed);
        }
        dataset
    }

    /// Its event type.
    #[must_use]
    pub fn event(&self) -> u16 {
        if self.failed.is_empty() {
            COMPLETE
        } else {
            FAILURES
        }
    }
}

fn put_transaction(dataset: &mut InMemDicomObject, uid: &Uid) {
    dataset.put(DataElement::new(tags::TRANSACTION_UID, VR::UI, uid.as_str()));
}

fn put_items(dataset: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    dataset.put(DataElement::new(tag, VR::SQ, Value::Sequence(items.into())));
}

fn item(reference: &Reference, reason: Option<u16>) -> InMemDicomObject {
    let uid = |tag, uid: &str| DataElement::new(tag, VR::UI, uid);
    let mut item = InMemDicomObject::from_element_iter([
        uid(tags::REFERENCED_SOP_CLASS_UID, &reference.sop_class_uid),
        uid(tags::REFERENCED_SOP_INSTANCE_UID, &reference.sop_instance_uid),
    ]);
    if let Some(reason) = reason {
        item.put(DataElement::new(
            tags::FAILURE_REASON,
            VR::US,
            PrimitiveValue::from(reason),
        ));
    }
    item
}

fn text(dataset: &InMemDicomObject, tag: Tag) -> String {
    let text = dataset.get(tag).and_then(|element| element.to_str().ok());
    text.unwrap_or_default().trim_matches([' ', '\0']).to_owned()
}

fn transaction(dataset: &InMemDicomObject) -> Result<Uid, DatasetError> {
    Uid::parse(&text(dataset, tags::TRANSACTION_UID))
        .map_err(|_| DatasetError("TransactionUID (0008,1195) is not there or no UID"))
}

fn references(dataset: &InMemDicomObject, tag: Tag) -> Result<Vec<(Reference, Option<u16>)>, DatasetError> {
    let items = dataset
        .get(tag)
        .and_then(|element| element.items())
        .unwrap_or_default();
    let uid = |item: &InMemDicomObject, tag| Uid::parse(&text(item, tag)).map(|uid| uid.to_string());
    items
        .iter()
        .map(|item| {
            let reference = Reference {
                sop_class_uid: uid(item, tags::REFERENCED_SOP_CLASS_UID)
                    .map_err(|_| DatasetError("ReferencedSOPClassUID (0008,1150) is no UID"))?,
                sop_instance_uid: uid(item, tags::REFERENCED_SOP_INSTANCE_UID)
                    .map_err(|_| DatasetError("ReferencedSOPInstanceUID (0008,1155) is no UID"))?,
            };
            let reason = item
                .get(tags::FAILURE_REASON)
                .and_then(|element| element.to_int().ok());
            Ok((reference, reason))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(uid: &str) -> Reference {
        Reference {
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".to_owned(),
            sop_instance_uid: uid.to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let transaction_uid = Uid::parse("2.25.7").unwrap();
        let request = Request {
            transaction_uid: transaction_uid.clone(),
            references: vec![reference("1.2"), reference("1.3")],
        };
        assert_eq!(Request::read(&request.dataset()), Ok(request));
        let report = Report {
            transaction_uid,
            committed: vec![reference("1.2")],
            failed: vec![(reference("1.3"), 0x0112)],
        };
        assert_eq!(report.event(), FAILURES);
        assert_eq!(Report::read(&report.dataset("ICTUS")), Ok(report));
    }

    #[test]
    fn refuses_a_request_for_nothing() {
        let mut dataset = InMemDicomObject::new_empty();
        assert!(Request::read(&dataset).is_err());
        put_transaction(&mut dataset, &Uid::parse("2.25.7").unwrap());
        assert!(Request::read(&dataset).is_err());
    }
}
