//! A message as a FHIR R4 transaction: DiagnosticReport, Observations and ImagingStudy in one Bundle.
//!
//! Each resource is created only if none with its identifier is there, so that a repeated attempt makes nothing twice.
//! The patient is referred to by identifier: who the patient is, the record knows better.
//!
//! Source: HL7 FHIR R4 (4.0.1) sections 3.1.0.11 (transaction) and 3.1.0.8.1 (conditional create), DiagnosticReport,
//! Observation, ImagingStudy; the identifier systems `urn:dicom:uid` and `urn:ietf:rfc:3986`.

use super::{
    message::{self, Said, in_code, in_words, instant},
    stow::unreachable,
    target::{Target, Token},
};
use crate::{
    db::{letter::Letter, outbox::Attempt},
    domain::{
        aspects::{LIMITS, SideReading},
        code::Code,
        finding::{Finding, Side},
        phi::redact,
    },
};
use reqwest::{Client, Url, header};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Names codes and identifiers of ours.
const OURS: &str = "urn:ictus";
/// UCUM.
const UCUM: &str = "http://unitsofmeasure.org";
/// What a score is called.
const SCORE: &str = "Score, not calibrated";

/// Sends a message.
pub(super) async fn send(
    client: &Client,
    target: &Target,
    base: &Url,
    token: &Token,
    letter: Letter,
) -> Attempt {
    let authorization = match target.authorization(token) {
        Ok(authorization) => authorization,
        Err(error) => return message::failed(redact(&error).to_string(), false),
    };
    let said = match Said::of(letter) {
        Ok(said) => said,
        Err(why) => return message::failed(why, true),
    };
    let mut request = client
        .post(base.clone())
        .header(header::CONTENT_TYPE, "application/fhir+json")
        .header(header::ACCEPT, "application/fhir+json")
        .timeout(PATIENCE);
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let answer = match request.body(bundle(&said).to_string()).send().await {
        Ok(answer) => answer,
        Err(error) => return message::failed(unreachable(error), false),
    };
    let status = answer.status();
    let mut attempt = message::judge(status);
    if attempt.message_taken
        && let Ok(body) = answer.json::<Value>().await
        && let Some(failed) = failed_entry(&body)
    {
        attempt = message::failed(
            format!("the target took the transaction and answered {failed} to one of its entries"),
            true,
        );
    }
    attempt
}

/// The status of an entry that was not done, as its number.
fn failed_entry(body: &Value) -> Option<u16> {
    let entries = body["entry"].as_array()?;
    entries
        .iter()
        .filter_map(|entry| entry["response"]["status"].as_str())
        .filter_map(|status| status.get(..3)?.parse::<u16>().ok())
        .find(|status| !(200..300).contains(status))
}

/// The transaction.
fn bundle(said: &Said) -> Value {
    let letter = &said.letter;
    let urn = |what: &str| {
        let uid = crate::domain::uid::Uid::derive(&[letter.analysis.as_bytes(), what.as_bytes()]);
        let digits = uid
            .as_str()
            .strip_prefix("2.25.")
            .and_then(|n| n.parse::<u128>().ok());
        format!("urn:uuid:{}", uuid::Uuid::from_u128(digits.unwrap_or_default()))
    };
    // A correction of identity or a reader's word is told as a further report.
    let own = match letter.subject.as_str() {
        "verdict" | "correction" => letter.delivery.to_string(),
        _ => format!("{}.{}", letter.analysis, letter.edition),
    };
    let study = urn("study");
    let status = match (letter.subject.as_str(), letter.revision) {
        ("verdict" | "correction", _) => "final",
        (_, 1) if letter.edition == 0 => "preliminary",
        _ => "amended",
    };
    let mut entries = vec![entry(
        "ImagingStudy",
        &study,
        &format!("urn:dicom:uid|urn:oid:{}", letter.study_instance_uid),
        imaging_study(said),
    )];
    let mut observations = Vec::new();
    for (at, answer) in said.report.answers.iter().enumerate() {
        let name = format!("answer.{at}.{own}");
        let mut observation = observation(said, status, &study, &name);
        observation["code"] = json!({
            "coding": [{ "system": OURS, "code": answer.question, "display": answer.question }],
            "text": format!("{}, automatic analysis of CT", answer.question),
        });
        observation["valueCodeableConcept"] = json!({
            "coding": [{ "system": OURS, "code": in_code(answer), "display": in_words(answer) }],
        });
        let numbers = [
            ("score", SCORE.to_owned(), answer.score),
            (
                "probability",
                probability_in_words(said, answer.model.as_deref()),
                answer.probability,
            ),
        ];
        let components: Vec<Value> = numbers
            .into_iter()
            .filter_map(|(code, words, value)| Some(quantity(code, &words, value?)))
            .collect();
        if !components.is_empty() {
            observation["component"] = components.into();
        }
        observations.push((name, observation));
    }
    for (at, finding) in said.findings().iter().enumerate() {
        let name = format!("finding.{at}.{own}");
        let mut observation = observation(said, status, &study, &name);
        put_finding(
            &mut observation,
            finding,
            &probability_in_words(said, Some(&finding.model)),
        );
        observations.push((name, observation));
    }
    if let Some(midline) = &said.report.midline_shift {
        let name = format!("midline.{own}");
        let mut observation = observation(said, status, &study, &name);
        let millimetres = |value: f64| json!({ "value": value, "unit": "mm", "system": UCUM, "code": "mm" });
        let [low, high] = midline.shift.interval_mm.map(millimetres);
        observation["code"] = json!({
            "coding": [{ "system": OURS, "code": "midline-shift" }],
            "text": "Midline shift, positive towards the patient's left",
        });
        observation["valueQuantity"] = millimetres(midline.shift.left_mm);
        observation["component"] = json!([{
            "code": { "coding": [{ "system": OURS, "code": "interval" }], "text": "Interval" },
            "valueRange": { "low": low, "high": high },
        }]);
        observations.push((name, observation));
    }
    let sides = said.report.aspects.iter().flat_map(|told| told.aspects.sides());
    for (side, reading) in sides {
        let name = format!("aspects.{}.{own}", side.name());
        let mut observation = observation(said, status, &study, &name);
        put_aspects(&mut observation, side, reading);
        observations.push((name, observation));
    }
    let references: Vec<Value> = observations
        .iter()
        .map(|(name, _)| json!({ "reference": urn(name) }))
        .collect();
    let mut report = json!({
        "resourceType": "DiagnosticReport",
        "identifier": [{ "system": OURS, "value": own }],
        "status": status,
        "category": [{ "coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology",
        }] }],
        "code": { "coding": [{ "system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study" }],
                  "text": "Automatic analysis of CT by ictus" },
        "subject": subject(said),
        "issued": instant(letter.read_at.unwrap_or(letter.analysed_at)),
        "imagingStudy": [{ "reference": study }],
        "result": references,
        "conclusion": format!("{}. {}", said.headline(), said.disclaimer()),
    });
    if let Some(at) = started(said) {
        report["effectiveDateTime"] = json!(at);
    }
    for (name, observation) in observations {
        entries.push(entry(
            "Observation",
            &urn(&name),
            &format!("{OURS}|{name}"),
            observation,
        ));
    }
    let name = format!("report.{own}");
    entries.push(entry(
        "DiagnosticReport",
        &urn(&name),
        &format!("{OURS}|{own}"),
        report,
    ));
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
}

fn entry(kind: &str, urn: &str, identifier: &str, resource: Value) -> Value {
    json!({
        "fullUrl": urn,
        "resource": resource,
        "request": { "method": "POST", "url": kind, "ifNoneExist": format!("identifier={identifier}") },
    })
}

/// Who it is about, by identifier.
fn subject(said: &Said) -> Value {
    let letter = &said.letter;
    let mut identifier = json!({ "value": letter.patient_id.as_deref().unwrap_or("unknown") });
    if let Some(issuer) = &letter.issuer_of_patient_id {
        identifier["assigner"] = json!({ "display": issuer });
    }
    let mut subject = json!({ "type": "Patient", "identifier": identifier });
    if let Some(name) = &letter.patient_name {
        subject["display"] = json!(name.replace('^', " ").trim());
    }
    subject
}

/// The study's date, as FHIR writes it; a time without a zone is none there.
fn started(said: &Said) -> Option<String> {
    let date = said.letter.study_date.as_deref()?;
    if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]))
}

fn imaging_study(said: &Said) -> Value {
    let letter = &said.letter;
    let mut identifiers = vec![json!({
        "system": "urn:dicom:uid", "value": format!("urn:oid:{}", letter.study_instance_uid),
    })];
    if let Some(accession) = &letter.accession_number {
        identifiers.push(json!({
            "type": { "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN" }] },
            "value": accession,
        }));
    }
    let series: Vec<Value> = letter
        .results
        .0
        .iter()
        .map(|made| {
            json!({
                "uid": made.series_instance_uid,
                "modality": { "system": "http://dicom.nema.org/resources/ontology/DCM", "code": modality(&made.role) },
                "instance": [{
                    "uid": made.sop_instance_uid,
                    "sopClass": { "system": "urn:ietf:rfc:3986", "code": format!("urn:oid:{}", made.sop_class_uid) },
                }],
            })
        })
        .collect();
    let mut study = json!({
        "resourceType": "ImagingStudy",
        "identifier": identifiers,
        "status": "available",
        "subject": subject(said),
        "series": series,
    });
    if let Some(at) = started(said) {
        study["started"] = json!(at);
    }
    study
}

fn modality(role: &str) -> &'static str {
    match role {
        "seg" | "labelmap" | "structures" | "reader" => "SEG",
        "sr" => "SR",
        "kos" => "KO",
        _ => "OT",
    }
}

fn observation(said: &Said, status: &str, study: &str, name: &str) -> Value {
    json!({
        "resourceType": "Observation",
        "identifier": [{ "system": OURS, "value": name }],
        "status": status,
        "category": [{ "coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging",
        }] }],
        "code": {},
        "subject": subject(said),
        "issued": instant(said.letter.analysed_at),
        "derivedFrom": [{ "reference": study }],
        "note": [{ "text": said.disclaimer() }],
    })
}

fn put_finding(observation: &mut Value, finding: &Finding, probability: &str) {
    let system = match &*finding.code.scheme {
        "SCT" => "http://snomed.info/sct",
        "DCM" => "http://dicom.nema.org/resources/ontology/DCM",
        _ => OURS,
    };
    observation["code"] = json!({ "coding": [{ "system": "http://snomed.info/sct", "code": "118565006",
        "display": "Volume" }], "text": format!("Volume of {}", finding.id) });
    observation["focus"] = json!([{ "display": format!("{}: {}", finding.id, finding.code.meaning) }]);
    let millilitres = |value: f64| json!({ "value": value, "unit": "mL", "system": UCUM, "code": "mL" });
    observation["valueQuantity"] = millilitres(finding.volume_ml);
    let mut components = vec![
        json!({ "code": { "text": "Finding" }, "valueCodeableConcept": { "coding": [{
            "system": system, "code": finding.code.value, "display": finding.code.meaning }] } }),
        json!({ "code": { "text": "Side of the patient" }, "valueString": finding.side }),
        quantity("score", SCORE, finding.score),
        quantity("uncertainty", "Mean normalised entropy", finding.uncertainty),
    ];
    components.extend(
        finding
            .probability
            .map(|value| quantity("probability", probability, value)),
    );
    if let Some([low, high]) = finding.volume_interval_ml {
        components.push(json!({
            "code": { "coding": [{ "system": OURS, "code": "volume-interval" }], "text": "Interval of the volume" },
            "valueRange": { "low": millilitres(low), "high": millilitres(high) },
        }));
    }
    observation["component"] = components.into();
}

fn put_aspects(observation: &mut Value, side: Side, reading: Option<&SideReading>) {
    let points = |value: u8| json!({ "value": value, "unit": "1", "system": UCUM, "code": "1" });
    observation["code"] = json!({ "coding": [{ "system": OURS, "code": "aspects" }],
        "text": format!("ASPECTS of the {} side", side.name()) });
    let Some(reading) = reading else {
        observation["dataAbsentReason"] = json!({ "coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed",
        }] });
        return;
    };
    observation["note"] = json!([observation["note"][0], { "text": LIMITS }]);
    observation["valueQuantity"] = points(reading.score);
    let [low, high] = reading.range.map(points);
    let mut components = vec![
        json!({ "code": { "text": "Side of the patient" }, "valueString": side }),
        json!({
            "code": { "coding": [{ "system": OURS, "code": "aspects-range" }],
                      "text": "Score when voxels count from 0.15, and from 0.5" },
            "valueRange": { "low": low, "high": high },
        }),
    ];
    let affected = reading.regions.iter().filter(|reading| reading.affected);
    components.extend(affected.map(|reading| {
        let Code { value, meaning, .. } = reading.region.code();
        json!({ "code": { "text": "Affected region" }, "valueCodeableConcept": { "coding": [{
            "system": OURS, "code": value, "display": meaning }] } })
    }));
    observation["component"] = components.into();
}

/// A number without a unit, as a component.
fn quantity(code: &str, words: &str, value: f64) -> Value {
    json!({
        "code": { "coding": [{ "system": OURS, "code": code }], "text": words },
        "valueQuantity": { "value": value, "unit": "1", "system": UCUM, "code": "1" },
    })
}

/// What a model's probability is, and on what it rests.
fn probability_in_words(said: &Said, model: Option<&str>) -> String {
    let calibration = model.and_then(|model| said.report.calibration_of(model));
    format!(
        "Probability, calibrated on {}",
        calibration.unwrap_or("cases that were not named")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_not_done_is_seen() {
        let body = |status: &str| json!({ "entry": [{ "response": { "status": "201 Created" } }, { "response": { "status": status } }] });
        assert_eq!(failed_entry(&body("200 OK")), None);
        assert_eq!(failed_entry(&body("422 Unprocessable Entity")), Some(422));
        assert_eq!(failed_entry(&json!({})), None);
    }
}
