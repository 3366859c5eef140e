//! A message as JSON, signed, in one POST.
//!
//! It is signed over its id, its time and its bytes, so that a receiver can tell ours from others' and a repeated one from a
//! new one; the id is the delivery's, the same in each attempt.
//! The patient is named only when the target's entry says so.
//!
//! Source: the Standard Webhooks specification 1.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature`); RFC 2104.

use super::{
    message::{self, Said, in_code, instant},
    stow::unreachable,
    target::{Target, Token},
};
use crate::{
    db::{letter::Letter, outbox::Attempt},
    domain::phi::redact,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Url, header};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends a message.
pub(super) async fn send(
    client: &Client,
    target: &Target,
    url: &Url,
    secret: &Token,
    names_patient: bool,
    letter: Letter,
) -> Attempt {
    let secret = match target.secret(secret) {
        Ok(secret) => secret.unwrap_or_default(),
        Err(error) => return message::failed(redact(&error).to_string(), false),
    };
    let said = match Said::of(letter) {
        Ok(said) => said,
        Err(why) => return message::failed(why, true),
    };
    let body = document(&said, names_patient).to_string();
    let id = said.letter.delivery.to_string();
    let at = OffsetDateTime::now_utc().unix_timestamp().to_string();
    let answer = client
        .post(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", &at)
        .header("webhook-signature", signature(&secret, &id, &at, &body))
        .timeout(PATIENCE)
        .body(body)
        .send()
        .await;
    match answer {
        Ok(answer) => message::judge(answer.status()),
        Err(error) => message::failed(unreachable(error), false),
    }
}

/// `v1,` and the HMAC-SHA-256 of `id.time.body` in base64.
fn signature(secret: &str, id: &str, at: &str, body: &str) -> String {
    // A secret of the specification's own form is base64 after its prefix; any other is taken as its bytes.
    let key = secret
        .strip_prefix("whsec_")
        .and_then(|text| BASE64_STANDARD.decode(text).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec());
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    for part in [id, ".", at, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The message.
pub(super) fn document(said: &Said, names_patient: bool) -> Value {
    let letter = &said.letter;
    let answers = said.report.answers.iter().map(|answer| {
        json!({
            "question": answer.question,
            "model": answer.model,
            "answer": in_code(answer),
            "score": answer.score,
            "probability": answer.probability,
            "uncertainty": answer.uncertainty,
        })
    });
    let findings = said.findings().iter().map(|finding| {
        json!({
            "id": finding.id,
            "kind": finding.kind,
            "code": finding.code,
            "model": finding.model,
            "series_instance_uid": finding.series,
            "side": finding.side,
            "volume_ml": finding.volume_ml,
            "volume_interval_ml": finding.volume_interval_ml,
            "score": finding.score,
            "probability": finding.probability,
            "uncertainty": finding.uncertainty,
        })
    });
    let models = said.models().iter().map(
        |model| json!({ "id": model.id, "version": model.version, "weights_sha256": model.weights_sha256, "calibration": model.calibration }),
    );
    let mut document = json!({
        "schema": 1,
        "type": format!("ictus.{}", letter.subject),
        "id": letter.delivery,
        "filed_at": instant(letter.filed_at),
        "disclaimer": said.disclaimer(),
        "text": said.headline(),
        "study": { "study_instance_uid": letter.study_instance_uid },
        "analysis": {
            "id": letter.analysis,
            "revision": letter.revision,
            "at": instant(letter.analysed_at),
            "answer": letter.answer,
            "alert": letter.alert,
            "answers": answers.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
            "models": models.collect::<Vec<_>>(),
        },
        "results": letter.results.0,
    });
    if let Some(verdict) = &letter.verdict {
        document["verdict"] = json!({
            "verdict": verdict,
            "finding": letter.verdict_finding,
            "at": letter.read_at.map(instant),
        });
    }
    if letter.subject == "correction" {
        document["correction"] = json!({ "volumes_ml": letter.drawn, "at": letter.read_at.map(instant) });
    }
    if names_patient {
        document["study"]["accession_number"] = json!(letter.accession_number);
        document["study"]["study_date"] = json!(letter.study_date);
        document["patient"] = json!({
            "name": letter.patient_name,
            "id": letter.patient_id,
            "issuer_of_id": letter.issuer_of_patient_id,
            "birth_date": letter.patient_birth_date,
            "sex": letter.patient_sex,
        });
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_specification_does() {
        // RFC 4231 test case 2 with the three parts put so that they join to its text: key "Jefe".
        let said = signature("Jefe", "what do ya want for nothing?", "", "");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?..");
        assert_eq!(
            said,
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        );
        let mut plain = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        plain.update(b"what do ya want for nothing?");
        assert_eq!(
            hex::encode(plain.finalize().into_bytes()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            signature("whsec_SmVmZQ==", "i", "1", "{}"),
            signature("Jefe", "i", "1", "{}")
        );
    }
}
