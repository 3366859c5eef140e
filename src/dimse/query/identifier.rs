//! The identifier of a query or retrieval → level, filter, and what is to be answered.
//!
//! Upper levels may be left open, as in relational queries, whether they were negotiated or not: nobody is refused for
//! asking more than the hierarchy allows.
//!
//! Source: PS3.4 sections C.2.2.2, C.4.1.1.3 and C.6.

use super::{answer::Match, matching};
use crate::{
    association::syntax,
    db::qido::{Filter, Range},
    dicom::level::{self, Level},
    domain::uid::Uid,
};
use dicom_core::{Tag, VR, header::Header, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::{InMemDicomObject, mem::InMemElement};

/// The information model that a SOP class stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dimse) enum Root {
    Patient,
    Study,
}

impl Root {
    pub(super) fn of(sop_class: &str) -> Self {
        match sop_class {
            syntax::PATIENT_ROOT_FIND | syntax::PATIENT_ROOT_MOVE | syntax::PATIENT_ROOT_GET => Self::Patient,
            _ => Self::Study,
        }
    }
}

/// An attribute that is to be answered.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) tag: Tag,
    pub(super) vr: VR,
    /// Of a sequence: the attributes of its items that are asked for; all, when there are none.
    pub(super) items: Vec<Tag>,
}

/// A key that is matched on the attributes of what the query found.
#[derive(Debug, Clone)]
struct Test {
    tag: Tag,
    vr: VR,
    wanted: String,
}

/// A checked identifier.
#[derive(Debug, Clone)]
pub(in crate::dimse) struct Identifier {
    pub(in crate::dimse) level: Level,
    pub(in crate::dimse) filter: Filter,
    /// Whether the unique key of the level has a value, which a retrieval needs.
    pub(in crate::dimse) has_unique_key: bool,
    /// Whether there was a key that is neither matched nor answered.
    pub(super) is_partly_supported: bool,
    pub(super) keys: Vec<Key>,
    tests: Vec<Test>,
}

/// Attributes that are made for an answer: they may be asked for and are not matched.
pub(super) const COUNTS: [Tag; 6] = [
    tags::NUMBER_OF_PATIENT_RELATED_STUDIES,
    tags::NUMBER_OF_PATIENT_RELATED_SERIES,
    tags::NUMBER_OF_PATIENT_RELATED_INSTANCES,
    tags::NUMBER_OF_STUDY_RELATED_SERIES,
    tags::NUMBER_OF_STUDY_RELATED_INSTANCES,
    tags::NUMBER_OF_SERIES_RELATED_INSTANCES,
];

impl Identifier {
    /// Reads an identifier; the error says why it is none for this model.
    pub(super) fn parse(dataset: InMemDicomObject, root: Root) -> Result<Self, String> {
        let level = level_of(&dataset, root)?;
        let mut identifier = Self {
            level,
            filter: Filter::default(),
            has_unique_key: false,
            is_partly_supported: false,
            keys: Vec::new(),
            tests: Vec::new(),
        };
        for element in dataset {
            let tag = element.tag();
            let about_the_query = [
                tags::SPECIFIC_CHARACTER_SET,
                tags::QUERY_RETRIEVE_LEVEL,
                tags::QUERY_RETRIEVE_VIEW,
                tags::RETRIEVE_AE_TITLE,
                tags::INSTANCE_AVAILABILITY,
                tags::TIMEZONE_OFFSET_FROM_UTC,
            ];
            if tag.element() != 0 && !about_the_query.contains(&tag) {
                identifier.key(&element)?;
            }
        }
        let filter = &identifier.filter;
        identifier.has_unique_key = match level {
            Level::Patient => filter.patient_id.is_some(),
            Level::Study => filter.study_instance_uid.is_some(),
            Level::Series => filter.series_instance_uid.is_some(),
            Level::Image => filter.sop_instance_uid.is_some(),
        };
        Ok(identifier)
    }

    /// Whether a match of the filter matches the other keys, too.
    pub(super) fn fits(&self, found: &Match) -> bool {
        self.tests
            .iter()
            .all(|test| matching::fits(found.attribute(test.tag).as_ref(), test.vr, &test.wanted))
    }

    fn key(&mut self, element: &InMemElement) -> Result<(), String> {
        let (tag, vr) = (element.tag(), element.vr());
        let mut items = Vec::new();
        let wanted = match element.value() {
            Value::Sequence(sequence) => {
                for nested in sequence.items().iter().flat_map(|item| item.iter()) {
                    items.push(nested.tag());
                    // Keys in items are answered and not matched.
                    self.is_partly_supported |= nested
                        .value()
                        .primitive()
                        .is_none_or(|value| !value.to_str().trim_matches([' ', '\0', '*']).is_empty());
                }
                String::new()
            }
            Value::Primitive(value) => value
                .to_multi_str()
                .join("\\")
                .trim_matches([' ', '\0'])
                .to_owned(),
            Value::PixelSequence(_) => String::new(),
        };
        self.keys.push(Key { tag, vr, items });
        let is_universal = wanted.chars().all(|c| c == '*');
        if COUNTS.contains(&tag) {
            self.is_partly_supported |= !is_universal || !is_counted(tag, self.level);
            return Ok(());
        }
        if tag == tags::SOP_CLASSES_IN_STUDY || tag.group() % 2 == 1 {
            self.is_partly_supported = true;
            return Ok(());
        }
        let known_from = if tag == tags::MODALITIES_IN_STUDY {
            Level::Study
        } else {
            level::of(tag)
        };
        if known_from > self.level || tag == tags::MODALITIES_IN_STUDY && self.level != Level::Study {
            self.is_partly_supported = true;
            return Ok(());
        }
        if is_universal || vr == VR::SQ {
            return Ok(());
        }
        self.narrow(tag, vr, wanted)
    }

    /// Puts a key that has a value into the filter, or among the tests.
    fn narrow(&mut self, tag: Tag, vr: VR, wanted: String) -> Result<(), String> {
        let filter = &mut self.filter;
        // Several values and names beyond ASCII are matched by the tests: the columns hold one group of a name.
        let is_plain = !wanted.contains('\\') && (vr != VR::PN || wanted.is_ascii() && !wanted.contains('='));
        match tag {
            tags::STUDY_INSTANCE_UID => filter.study_instance_uid = Some(uids(tag, &wanted)?),
            tags::SERIES_INSTANCE_UID => filter.series_instance_uid = Some(uids(tag, &wanted)?),
            tags::SOP_INSTANCE_UID => filter.sop_instance_uid = Some(uids(tag, &wanted)?),
            tags::SOP_CLASS_UID => filter.sop_class_uid = Some(uids(tag, &wanted)?),
            tags::STUDY_DATE => filter.study_date = range(tag, vr, &wanted)?,
            tags::STUDY_TIME => filter.study_time = range(tag, vr, &wanted)?,
            tags::PERFORMED_PROCEDURE_STEP_START_DATE => {
                filter.performed_procedure_step_start_date = range(tag, vr, &wanted)?;
            }
            tags::SERIES_NUMBER => filter.series_number = Some(integer(tag, &wanted)?),
            tags::INSTANCE_NUMBER => filter.instance_number = Some(integer(tag, &wanted)?),
            tags::PATIENT_NAME if is_plain => filter.patient_name = Some(name(&wanted)),
            tags::REFERRING_PHYSICIAN_NAME if is_plain => {
                filter.referring_physician_name = Some(name(&wanted));
            }
            tags::PATIENT_ID if is_plain => filter.patient_id = Some(wanted),
            tags::ACCESSION_NUMBER if is_plain => filter.accession_number = Some(wanted),
            tags::STUDY_ID if is_plain => filter.study_id = Some(wanted),
            tags::MODALITIES_IN_STUDY if is_plain => filter.modalities_in_study = Some(wanted),
            tags::MODALITY if is_plain => filter.modality = Some(wanted),
            _ => {
                if matches!(vr, VR::DA | VR::TM | VR::DT) {
                    range(tag, vr, &wanted)?;
                }
                self.tests.push(Test { tag, vr, wanted });
            }
        }
        Ok(())
    }
}

/// Whether a level has this count.
fn is_counted(tag: Tag, level: Level) -> bool {
    match tag {
        tags::NUMBER_OF_STUDY_RELATED_SERIES | tags::NUMBER_OF_STUDY_RELATED_INSTANCES => {
            level == Level::Study
        }
        tags::NUMBER_OF_SERIES_RELATED_INSTANCES => level == Level::Series,
        _ => level == Level::Patient,
    }
}

fn level_of(dataset: &InMemDicomObject, root: Root) -> Result<Level, String> {
    let word = dataset
        .get(tags::QUERY_RETRIEVE_LEVEL)
        .and_then(|element| element.to_str().ok())
        .map(|text| text.trim_matches([' ', '\0']).to_owned())
        .unwrap_or_default();
    match (word.as_str(), root) {
        ("PATIENT", Root::Patient) => Ok(Level::Patient),
        ("STUDY", _) => Ok(Level::Study),
        ("SERIES", _) => Ok(Level::Series),
        ("IMAGE", _) => Ok(Level::Image),
        ("PATIENT", Root::Study) => Err("study root has no level PATIENT".to_owned()),
        _ => Err("(0008,0052) is none of STUDY, SERIES, IMAGE".to_owned()),
    }
}

fn fault(tag: Tag, what: &str) -> String {
    format!("({:04X},{:04X}) is {what}", tag.group(), tag.element())
}

fn uids(tag: Tag, wanted: &str) -> Result<Vec<Uid>, String> {
    wanted
        .split('\\')
        .map(|uid| uid.trim_matches([' ', '\0']))
        .filter(|uid| !uid.is_empty())
        .map(|uid| Uid::parse(uid).map_err(|_| fault(tag, "no list of UIDs")))
        .collect()
}

fn integer(tag: Tag, wanted: &str) -> Result<i32, String> {
    wanted.trim().parse().map_err(|_| fault(tag, "no whole number"))
}

/// Empty components at the end of a name say nothing.
fn name(wanted: &str) -> String {
    wanted.trim_end_matches('^').trim_end().to_owned()
}

fn range(tag: Tag, vr: VR, wanted: &str) -> Result<Range, String> {
    let (from, to) =
        matching::range(vr, wanted).ok_or_else(|| fault(tag, "no date or time, and no range of them"))?;
    Ok(Range { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::DataElement;

    fn parse(root: Root, level: &str, keys: &[(Tag, VR, &str)]) -> Result<Identifier, String> {
        let mut dataset = InMemDicomObject::new_empty();
        dataset.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
        for (tag, vr, value) in keys {
            dataset.put(DataElement::new(*tag, *vr, *value));
        }
        Identifier::parse(dataset, root)
    }

    #[test]
    fn fills_the_filter_and_tests_the_rest() {
        let found = parse(
            Root::Study,
            "STUDY",
            &[
                (tags::PATIENT_NAME, VR::PN, "DOE^J*^^"),
                (tags::STUDY_DATE, VR::DA, "20240101-"),
                (tags::STUDY_INSTANCE_UID, VR::UI, "1.2\\1.3"),
                (tags::PATIENT_ID, VR::LO, "*"),
                (tags::PATIENT_BIRTH_DATE, VR::DA, "19500102"),
            ],
        )
        .unwrap();
        assert_eq!(found.filter.patient_name.as_deref(), Some("DOE^J*"));
        assert_eq!(found.filter.study_date.from.as_deref(), Some("20240101"));
        assert_eq!(found.filter.study_instance_uid.as_ref().unwrap().len(), 2);
        assert_eq!(found.filter.patient_id, None);
        assert_eq!((found.tests.len(), found.keys.len()), (1, 5));
        assert!(found.has_unique_key && !found.is_partly_supported);
    }

    #[test]
    fn says_so_when_a_key_is_neither_matched_nor_answered() {
        for (tag, vr, value) in [
            (tags::MODALITY, VR::CS, "CT"),
            (tags::SOP_CLASSES_IN_STUDY, VR::UI, ""),
            (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, ""),
            (tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, "5"),
        ] {
            assert!(
                parse(Root::Study, "STUDY", &[(tag, vr, value)])
                    .unwrap()
                    .is_partly_supported,
                "{tag}"
            );
        }
        let counted = [(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, VR::IS, "")];
        assert!(!parse(Root::Study, "STUDY", &counted).unwrap().is_partly_supported);
    }

    #[test]
    fn refuses_what_is_no_identifier_of_the_model() {
        assert!(parse(Root::Study, "PATIENT", &[]).is_err());
        assert!(parse(Root::Patient, "PATIENT", &[]).is_ok());
        assert!(parse(Root::Study, "", &[]).is_err());
        for key in [
            (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.*"),
            (tags::STUDY_DATE, VR::DA, "yesterday"),
            (tags::STUDY_ID, VR::SH, "x"),
        ] {
            let refused = parse(Root::Study, "STUDY", &[key]).is_err();
            assert_eq!(refused, key.0 != tags::STUDY_ID);
        }
        assert!(parse(Root::Study, "SERIES", &[(tags::SERIES_NUMBER, VR::IS, "two")]).is_err());
    }
}
