//! Headers of a study or a series → whether they name one patient, one study and one frame of reference.
//!
//! An empty PatientID matches nothing: a series has it on all slices or on none.
//! Series of one study may differ in whether they name an issuer, because archives add it to what passes them; two different issuers are a conflict.
//!
//! Source: design.md ("Identity", "Text").

use super::refusal;
use crate::{dicom::attribute::Attributes, domain::finding::Refusal};
use std::collections::BTreeSet;

/// Checks that the input is one study of one patient.
pub(super) fn check_study(all: &[(usize, &Attributes)]) -> Result<(), Refusal> {
    let conflict = |text: String| Err(refusal("identity_conflict", text));
    let studies = distinct(all.iter().map(|(_, a)| &a.study_instance_uid));
    if studies > 1 {
        return conflict(format!(
            "The instances name {studies} studies; analyse one study at a time."
        ));
    }
    let patients = distinct(all.iter().filter_map(|(_, a)| a.patient_id.as_ref()));
    let issuers = distinct(all.iter().filter_map(|(_, a)| a.issuer_of_patient_id.as_ref()));
    if patients > 1 || issuers > 1 {
        return conflict(format!(
            "The study names {patients} patient identifiers of {issuers} issuers; expected one patient."
        ));
    }
    Ok(())
}

/// Checks that a series is of one patient, in one frame of reference, and that its text can be copied.
pub(super) fn check_series(slices: &[(usize, &Attributes)]) -> Result<(), Refusal> {
    if distinct(
        slices
            .iter()
            .map(|(_, a)| (&a.patient_id, &a.issuer_of_patient_id)),
    ) > 1
    {
        return Err(refusal(
            "identity_conflict",
            "Some slices of the series name a patient that others do not; expected one patient.",
        ));
    }
    let frames = distinct(slices.iter().map(|(_, a)| &a.frame_of_reference_uid));
    if frames > 1 {
        return Err(refusal(
            "identity_conflict",
            format!("The series has {frames} frames of reference; expected one."),
        ));
    }
    if slices.iter().any(|(_, a)| a.has_undecodable_identity()) {
        return Err(refusal(
            "charset",
            "Text that identifies the patient or the study is not in the declared SpecificCharacterSet. Correct the declaration and send the series again.",
        ));
    }
    Ok(())
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<BTreeSet<_>>().len()
}
