//! What PS3.4 asks of the attributes of a workitem: when it is created, updated, and before it ends.
//!
//! What is required to have a value and has none is refused; what may be empty and is not there is put there, empty.
//!
//! Source: PS3.4 tables CC.2.5-1 and CC.2.5-3.

use super::{
    WorkitemError,
    dataset::{self, Dataset, has_value, items, key, keyword, put, text},
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// UPS Push SOP Class, of which every workitem is an instance.
pub const PUSH: &str = "1.2.840.10008.5.1.4.34.6.1";
/// Stands for all workitems in subscriptions.
pub const WORKLIST: &str = "1.2.840.10008.5.1.4.34.5";
/// Stands for those that match a filter.
pub const FILTERED_WORKLIST: &str = "1.2.840.10008.5.1.4.34.5.1";

/// The worklist of what names none.
const DEFAULT_LABEL: &str = "WORKLIST";

/// Type 1 when it is created, and never emptied.
const REQUIRED: [Tag; 4] = [
    tags::SCHEDULED_PROCEDURE_STEP_PRIORITY,
    tags::PROCEDURE_STEP_LABEL,
    tags::SCHEDULED_PROCEDURE_STEP_START_DATE_TIME,
    tags::INPUT_READINESS_STATE,
];

/// Type 2 when it is created.
const MAY_BE_EMPTY: [Tag; 18] = [
    tags::SCHEDULED_PROCESSING_PARAMETERS_SEQUENCE,
    tags::SCHEDULED_STATION_NAME_CODE_SEQUENCE,
    tags::SCHEDULED_STATION_CLASS_CODE_SEQUENCE,
    tags::SCHEDULED_STATION_GEOGRAPHIC_LOCATION_CODE_SEQUENCE,
    tags::SCHEDULED_WORKITEM_CODE_SEQUENCE,
    tags::COMMENTS_ON_THE_SCHEDULED_PROCEDURE_STEP,
    tags::INPUT_INFORMATION_SEQUENCE,
    tags::STUDY_INSTANCE_UID,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::ADMISSION_ID,
    tags::ISSUER_OF_ADMISSION_ID_SEQUENCE,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::ADMITTING_DIAGNOSES_CODE_SEQUENCE,
    tags::REFERENCED_REQUEST_SEQUENCE,
];

/// Created empty: its performer fills them.
const OF_THE_PERFORMER: [Tag; 2] = [
    tags::PROCEDURE_STEP_PROGRESS_INFORMATION_SEQUENCE,
    tags::UNIFIED_PROCEDURE_STEP_PERFORMED_PROCEDURE_SEQUENCE,
];

/// What no update changes.
const FIXED: [Tag; 10] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::ADMISSION_ID,
    tags::ISSUER_OF_ADMISSION_ID_SEQUENCE,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::ADMITTING_DIAGNOSES_CODE_SEQUENCE,
    tags::REFERENCED_REQUEST_SEQUENCE,
    tags::REPLACED_PROCEDURE_STEP_SEQUENCE,
];

/// Attributes that may have only some values.
const WORDS: [(Tag, &[&str]); 2] = [
    (
        tags::SCHEDULED_PROCEDURE_STEP_PRIORITY,
        &["HIGH", "MEDIUM", "LOW"],
    ),
    (
        tags::INPUT_READINESS_STATE,
        &["READY", "INCOMPLETE", "UNAVAILABLE"],
    ),
];

fn invalid<T>(text: String) -> Result<T, WorkitemError> {
    Err(WorkitemError::Invalid(text))
}

fn check_form(attributes: &Dataset) -> Result<(), WorkitemError> {
    if let Some(fault) = dataset::fault(attributes) {
        return invalid(format!("the body is no dataset of the DICOM JSON model: {fault}"));
    }
    for (tag, words) in WORDS {
        let word = text(attributes, tag);
        if !word.is_empty() && !words.contains(&word) {
            return invalid(format!("{} is {}", keyword(tag), words.join(" or ")));
        }
    }
    Ok(())
}

/// Checks a workitem that is to be created, and completes it; true when something had to be put there for the sender.
pub(super) fn complete_new(attributes: &mut Dataset, uid: &str, now: &str) -> Result<bool, WorkitemError> {
    check_form(attributes)?;
    let missing: Vec<String> = REQUIRED
        .into_iter()
        .chain([tags::PROCEDURE_STEP_STATE])
        .filter(|tag| !has_value(attributes, *tag))
        .map(keyword)
        .collect();
    if !missing.is_empty() {
        return invalid(format!(
            "a workitem is created with a value of {}",
            missing.join(", ")
        ));
    }
    if text(attributes, tags::PROCEDURE_STEP_STATE) != "SCHEDULED" {
        return invalid("a workitem is created with a ProcedureStepState of SCHEDULED".to_owned());
    }
    for tag in OF_THE_PERFORMER.into_iter().chain([tags::TRANSACTION_UID]) {
        if has_value(attributes, tag) {
            return invalid(format!("a workitem is created with an empty {}", keyword(tag)));
        }
    }
    attributes.remove(&key(tags::TRANSACTION_UID));
    let mut changed = false;
    for tag in MAY_BE_EMPTY.into_iter().chain(OF_THE_PERFORMER) {
        if !attributes.contains_key(&key(tag)) {
            put(attributes, tag, Vec::new());
            changed = true;
        }
    }
    if !has_value(attributes, tags::WORKLIST_LABEL) {
        put(attributes, tags::WORKLIST_LABEL, vec![json!(DEFAULT_LABEL)]);
        changed = true;
    }
    put(attributes, tags::SOP_CLASS_UID, vec![json!(PUSH)]);
    put(attributes, tags::SOP_INSTANCE_UID, vec![json!(uid)]);
    put(
        attributes,
        tags::SCHEDULED_PROCEDURE_STEP_MODIFICATION_DATE_TIME,
        vec![json!(now)],
    );
    forget_character_set(attributes);
    Ok(changed)
}

/// Lays an update over a workitem. Returns which attributes are otherwise now.
pub(super) fn update(
    attributes: &mut Dataset,
    mut changes: Dataset,
    uid: &str,
    now: &str,
) -> Result<BTreeSet<String>, WorkitemError> {
    check_form(&changes)?;
    if changes.contains_key(&key(tags::PROCEDURE_STEP_STATE)) {
        return invalid("ProcedureStepState is changed by a request of its own, to …/state".to_owned());
    }
    let own = text(&changes, tags::SOP_INSTANCE_UID);
    if !own.is_empty() && own != uid {
        return invalid("SOPInstanceUID names another workitem than the path".to_owned());
    }
    for tag in [
        tags::SOP_CLASS_UID,
        tags::SOP_INSTANCE_UID,
        tags::TRANSACTION_UID,
        tags::SPECIFIC_CHARACTER_SET,
    ] {
        changes.remove(&key(tag));
    }
    for tag in FIXED {
        let name = key(tag);
        if changes
            .get(&name)
            .is_some_and(|value| Some(value) != attributes.get(&name))
        {
            return invalid(format!("{} cannot be changed by an update", keyword(tag)));
        }
    }
    for tag in REQUIRED.into_iter().chain([tags::WORKLIST_LABEL]) {
        if changes.contains_key(&key(tag)) && !has_value(&changes, tag) {
            return invalid(format!("{} cannot be emptied", keyword(tag)));
        }
    }
    let mut changed = BTreeSet::new();
    for (name, value) in changes {
        if attributes.get(&name) != Some(&value) {
            attributes.insert(name.clone(), value);
            changed.insert(name);
        }
    }
    put(
        attributes,
        tags::SCHEDULED_PROCEDURE_STEP_MODIFICATION_DATE_TIME,
        vec![json!(now)],
    );
    forget_character_set(attributes);
    Ok(changed)
}

/// What a workitem lacks to be completed, in keywords.
pub(super) fn lacks_to_complete(attributes: &Dataset) -> Vec<String> {
    let sequence = tags::UNIFIED_PROCEDURE_STEP_PERFORMED_PROCEDURE_SEQUENCE;
    let Some(performed) = items(attributes, sequence).next() else {
        return vec![keyword(sequence)];
    };
    let mut lacks: Vec<String> = [
        tags::PERFORMED_STATION_NAME_CODE_SEQUENCE,
        tags::PERFORMED_PROCEDURE_STEP_START_DATE_TIME,
        tags::PERFORMED_WORKITEM_CODE_SEQUENCE,
        tags::PERFORMED_PROCEDURE_STEP_END_DATE_TIME,
    ]
    .into_iter()
    .filter(|tag| !has_value(performed, *tag))
    .map(keyword)
    .collect();
    // Without results it is there and has no item.
    if !performed.contains_key(&key(tags::OUTPUT_INFORMATION_SEQUENCE)) {
        lacks.push(keyword(tags::OUTPUT_INFORMATION_SEQUENCE));
    }
    lacks
}

/// StudyInstanceUIDs that a workitem names anywhere.
pub(super) fn studies(attributes: &Dataset) -> Vec<String> {
    fn collect(attributes: &Dataset, found: &mut BTreeSet<String>) {
        for (name, attribute) in attributes {
            let values = attribute.get("Value").and_then(Value::as_array);
            for value in values.into_iter().flatten() {
                match value {
                    Value::String(uid) if *name == key(tags::STUDY_INSTANCE_UID) => {
                        found.extend(crate::domain::uid::Uid::parse(uid).ok().map(String::from));
                    }
                    Value::Object(item) => collect(item, found),
                    _ => {}
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    collect(attributes, &mut found);
    found.into_iter().collect()
}

/// Texts are UTF-8 here, which is said when they are handed out.
fn forget_character_set(attributes: &mut Dataset) {
    attributes.remove(&key(tags::SPECIFIC_CHARACTER_SET));
}
