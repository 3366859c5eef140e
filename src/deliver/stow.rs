//! Results → one STOW-RS request, its body streamed from the archive file by file; its answer → what became of each.
//!
//! An answer is believed instance by instance where it names them, and by its status where it does not.
//! An instance whose transfer syntax is refused (C122H) is sent again uncompressed.
//! Redirects are not followed, since the body would have to be sent twice: the file of targets must name the last address.
//!
//! Source: PS3.18 section 10.5, annex F.2 and annex I.2; RFC 2387.

use super::{DeliverError, archive_failure, meaning_of, profile::Files, target::Target, target::Token};
use crate::{
    association::syntax,
    db::outbox::{Attempt, Outgoing},
    dicom::transcode,
    domain::phi::{redact, redact_text},
    scu::store::DEFLATED,
};
use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, Url, header, redirect::Policy};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Once},
    time::Duration,
};
use uuid::Uuid;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a request may take, whatever its size: a receiver that commits slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// A slower receiver is taken for one that is stuck.
const MIN_BYTES_PER_SECOND: u64 = 32 << 10;
/// The longest answer that is read: some kilobytes an instance would be long.
const MOST_ANSWER: usize = 1 << 20;
/// SOP class not supported (PS3.18 table I.2-2).
const SOP_CLASS: u16 = 0x0122;
/// Transfer syntax not supported (PS3.18 table I.2-2).
const TRANSFER_SYNTAX: u16 = 0xC122;
/// RetrieveURL's neighbours (PS3.18 annex I.2): ReferencedSOPSequence and FailedSOPSequence.
const REFERENCED: &str = "00081199";
/// See [`REFERENCED`].
const FAILED: &str = "00081198";
/// ReferencedSOPInstanceUID.
const INSTANCE_UID: &str = "00081155";
/// FailureReason.
const FAILURE_REASON: &str = "00081197";

/// Gives every HTTP client of the process its cryptography, once; without it none can be made.
pub fn install_cryptography() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another one that is installed already serves as well.
        let _installed = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client for all targets; its connections are kept.
pub(super) fn client() -> Result<Client, DeliverError> {
    install_cryptography();
    Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        // A PACS is a neighbour: a proxy for the world outside must not see results.
        .no_proxy()
        .user_agent(concat!("ictus/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| DeliverError::Client(redact(&error)))
}

/// Sends what is left of a delivery.
pub(super) async fn send(
    client: &Client,
    target: &Target,
    (studies, token): (&Url, &Token),
    archive: &Files,
    instances: &[Outgoing],
) -> Attempt {
    let mut attempt = Attempt::default();
    let authorization = match target.authorization(token) {
        Ok(authorization) => authorization,
        Err(error) => {
            attempt.error = Some(redact(&error).to_string());
            return attempt;
        }
    };
    let sender = Sender {
        client,
        studies,
        authorization,
        archive,
    };
    // There are archives that take what is deflated and show nothing: it is sent inflated.
    let (deflated, others): (Vec<&Outgoing>, Vec<&Outgoing>) = instances
        .iter()
        .partition(|instance| instance.transfer_syntax_uid == DEFLATED);
    if !deflated.is_empty() {
        sender.post(&deflated, true, &mut attempt).await;
    }
    if others.is_empty() || attempt.error.is_some() {
        return attempt;
    }
    let unreadable = sender.post(&others, false, &mut attempt).await;
    let again: Vec<&Outgoing> = others
        .into_iter()
        .filter(|instance| unreadable.contains(&instance.instance_id))
        .filter(|instance| {
            let stored = instance.transfer_syntax_uid.as_str();
            stored != syntax::EXPLICIT && transcode::is_decodable(stored)
        })
        .collect();
    if !again.is_empty() && attempt.error.is_none() {
        let ids: Vec<i64> = again.iter().map(|instance| instance.instance_id).collect();
        attempt.refused.retain(|(id, _)| !ids.contains(id));
        sender.post(&again, true, &mut attempt).await;
    }
    attempt
}

struct Sender<'a> {
    client: &'a Client,
    studies: &'a Url,
    authorization: Option<header::HeaderValue>,
    archive: &'a Files,
}

impl Sender<'_> {
    /// Makes one request and notes what became of each instance; returns those whose transfer syntax was refused.
    async fn post(&self, instances: &[&Outgoing], explicit: bool, attempt: &mut Attempt) -> Vec<i64> {
        let boundary = format!("ictus-{}", Uuid::new_v4().simple());
        let broken = Arc::new(Mutex::new(None));
        let files = instances
            .iter()
            .map(|instance| instance.archive_key.clone())
            .collect();
        let size: u64 = instances.iter().map(|i| i.size_bytes.unsigned_abs()).sum();
        let kind = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
        let mut request = self
            .client
            .post(self.studies.clone())
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "application/dicom+json")
            .timeout(PATIENCE + Duration::from_secs(size / MIN_BYTES_PER_SECOND));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if !explicit {
            // Not every receiver takes a body of unknown length.
            let around: usize = instances.iter().map(|_| part_head(&boundary).len()).sum();
            let length = size + (around + tail(&boundary).len()) as u64;
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let body = body(self.archive.clone(), files, boundary, explicit, broken.clone());
        let answer = request.body(reqwest::Body::wrap_stream(body)).send().await;
        let broken = broken.lock().ok().and_then(|mut slot| slot.take());
        if let Some((why, is_final)) = broken {
            attempt.error = Some(why);
            attempt.is_final = is_final;
            return Vec::new();
        }
        match answer {
            Ok(answer) => judge(answer, instances, attempt).await,
            Err(error) => {
                attempt.error = Some(unreachable(error));
                Vec::new()
            }
        }
    }
}

/// Why the body ended early, and whether it will again.
type Broken = Arc<Mutex<Option<(String, bool)>>>;

/// The multipart body: one file in memory at a time, each held to its digest before its first byte leaves.
fn body(
    archive: Files,
    files: Vec<String>,
    boundary: String,
    explicit: bool,
    broken: Broken,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    async_stream::try_stream! {
        for key in files {
            let file = match read(&archive, &key, explicit).await {
                Ok(file) => file,
                Err(why) => {
                    if let Ok(mut slot) = broken.lock() {
                        *slot = Some(why);
                    }
                    Err(std::io::Error::other("the archive"))?;
                    return;
                }
            };
            yield Bytes::from(part_head(&boundary));
            yield file;
        }
        yield Bytes::from(tail(&boundary));
    }
}

async fn read(archive: &Files, key: &str, explicit: bool) -> Result<Bytes, (String, bool)> {
    let file = archive.read(key).await.map_err(|error| archive_failure(&error))?;
    if !explicit {
        return Ok(file);
    }
    tokio::task::spawn_blocking(move || transcode::to_explicit_vr_little_endian(&file))
        .await
        .map_err(|_| {
            (
                "decompressing a result failed; this is a fault of ictus".to_owned(),
                false,
            )
        })?
        .map(Bytes::from)
        .map_err(|error| (redact(&error).to_string(), true))
}

fn part_head(boundary: &str) -> String {
    format!("\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n")
}

fn tail(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
}

/// Reads the answer to the end of what is needed of it.
async fn judge(mut answer: Response, instances: &[&Outgoing], attempt: &mut Attempt) -> Vec<i64> {
    let status = answer.status();
    let mut body = Vec::new();
    while body.len() < MOST_ANSWER {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                attempt.error = Some(unreachable(error));
                return Vec::new();
            }
        }
    }
    let said = Said::of(&body);
    if status.is_success() || status == StatusCode::CONFLICT {
        return sort(status, &said, instances, attempt);
    }
    let (words, is_final) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ("it does not let us in; check the token", false),
        StatusCode::NOT_FOUND => ("it has no such resource; check the URL", false),
        StatusCode::PAYLOAD_TOO_LARGE => ("it does not take requests of this size", true),
        StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::NOT_ACCEPTABLE => (
            "it does not take multipart/related of application/dicom, or cannot answer in JSON",
            true,
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => ("it has no time for us now", false),
        _ if status.is_redirection() => (
            "it is elsewhere; name the last address in the file of targets",
            true,
        ),
        _ if status.is_client_error() => ("it does not understand the request", true),
        _ => ("it has a problem of its own", false),
    };
    attempt.error = Some(format!("the target answered {}: {words}", status.as_u16()));
    attempt.is_final = is_final;
    Vec::new()
}

/// Puts each instance where the answer says that it belongs.
fn sort(status: StatusCode, said: &Said, instances: &[&Outgoing], attempt: &mut Attempt) -> Vec<i64> {
    let mut unreadable = Vec::new();
    for instance in instances {
        let id = instance.instance_id;
        match said.failed.get(&instance.sop_instance_uid) {
            Some(code) => {
                let why = format!("the target answered {code:04X}: {}", meaning_of(*code));
                if super::is_passing(*code) {
                    attempt.postponed.push((id, why));
                } else {
                    if *code == TRANSFER_SYNTAX {
                        unreadable.push(id);
                    }
                    if *code == SOP_CLASS {
                        attempt.unsupported.push(id);
                    }
                    attempt.refused.push((id, why));
                }
            }
            None if said.stored.contains(&instance.sop_instance_uid) => attempt.delivered.push(id),
            // A 200 says that everything is stored (PS3.18 table 10.5.3-1), with or without a body.
            None if status == StatusCode::OK || status == StatusCode::NO_CONTENT => {
                attempt.delivered.push(id)
            }
            None if status == StatusCode::CONFLICT && !said.names_anything() => {
                let why = "the target answered 409 and did not say why".to_owned();
                attempt.refused.push((id, why));
            }
            None => {
                let why = format!(
                    "the target answered {} and did not name this instance",
                    status.as_u16()
                );
                attempt.postponed.push((id, why));
            }
        }
    }
    unreadable
}

/// What a Store Instances Response names.
#[derive(Debug, Default)]
struct Said {
    stored: Vec<String>,
    failed: HashMap<String, u16>,
}

impl Said {
    /// An answer that is no DICOM JSON names nothing.
    fn of(body: &[u8]) -> Self {
        let mut said = Self::default();
        let datasets = match serde_json::from_slice(body) {
            Ok(Value::Array(datasets)) => datasets,
            Ok(dataset) => vec![dataset],
            Err(_) => Vec::new(),
        };
        for dataset in &datasets {
            said.stored.extend(items(dataset, REFERENCED).filter_map(uid));
            said.failed.extend(items(dataset, FAILED).filter_map(|item| {
                let code = item[FAILURE_REASON]["Value"][0].as_u64();
                Some((uid(item)?, u16::try_from(code.unwrap_or(0)).unwrap_or_default()))
            }));
        }
        said
    }

    fn names_anything(&self) -> bool {
        !self.stored.is_empty() || !self.failed.is_empty()
    }
}

fn items<'a>(dataset: &'a Value, tag: &str) -> impl Iterator<Item = &'a Value> {
    dataset[tag]["Value"].as_array().into_iter().flatten()
}

fn uid(item: &Value) -> Option<String> {
    item[INSTANCE_UID]["Value"][0].as_str().map(str::to_owned)
}

/// A failed request in words, without its URL and what it quotes.
pub(super) fn unreachable(error: reqwest::Error) -> String {
    let what = if error.is_connect() {
        "the target cannot be reached"
    } else if error.is_timeout() {
        "the target took too long"
    } else {
        "the connection to the target failed"
    };
    let cause = redact_text(&redact(&error.without_url()).to_string());
    format!("{what}: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outgoing(instance_id: i64) -> Outgoing {
        Outgoing {
            instance_id,
            role: "seg".to_owned(),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.66.4".to_owned(),
            sop_instance_uid: format!("1.2.{instance_id}"),
            transfer_syntax_uid: syntax::EXPLICIT.to_owned(),
            archive_key: String::new(),
            size_bytes: 1,
        }
    }

    fn item(number: i64, reason: Option<u16>) -> Value {
        let mut item = json!({ INSTANCE_UID: { "vr": "UI", "Value": [format!("1.2.{number}")] } });
        if let Some(reason) = reason {
            item[FAILURE_REASON] = json!({ "vr": "US", "Value": [reason] });
        }
        item
    }

    fn sorted(status: u16, answer: &Value) -> (Attempt, Vec<i64>) {
        let all = [outgoing(1), outgoing(2), outgoing(3)];
        let mut attempt = Attempt::default();
        let status = StatusCode::from_u16(status).unwrap();
        let said = Said::of(answer.to_string().as_bytes());
        let unreadable = sort(status, &said, &all.iter().collect::<Vec<_>>(), &mut attempt);
        (attempt, unreadable)
    }

    fn ids(list: &[(i64, String)]) -> Vec<i64> {
        list.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn an_answer_is_believed_instance_by_instance() {
        let answer = json!([{
            REFERENCED: { "vr": "SQ", "Value": [item(1, None)] },
            FAILED: { "vr": "SQ", "Value": [item(2, Some(0xC122)), item(3, Some(0xA700))] },
        }]);
        for status in [200, 202] {
            let (attempt, unreadable) = sorted(status, &answer);
            assert_eq!(attempt.delivered, [1]);
            assert_eq!(ids(&attempt.refused), [2]);
            assert_eq!(ids(&attempt.postponed), [3]);
            assert_eq!(unreadable, [2]);
        }
    }

    #[test]
    fn an_answer_that_names_nothing_is_believed_by_its_status() {
        let nothing = json!("stored, all of it");
        assert_eq!(sorted(200, &nothing).0.delivered, [1, 2, 3]);
        assert_eq!(ids(&sorted(202, &nothing).0.postponed), [1, 2, 3]);
        assert_eq!(ids(&sorted(409, &nothing).0.refused), [1, 2, 3]);
        let one = json!({ FAILED: { "vr": "SQ", "Value": [item(1, Some(0x0110)), item(2, None)] } });
        let (attempt, _) = sorted(409, &one);
        assert_eq!(
            (ids(&attempt.refused), ids(&attempt.postponed)),
            (vec![2], vec![1, 3])
        );
    }
}
