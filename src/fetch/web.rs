//! Asking an archive over DICOMweb: QIDO-RS for what it has, WADO-RS to have it, instance by instance.
//!
//! Instances are asked for as they are stored there; one is in memory at a time, and its size is bounded.
//! Redirects are not followed and no proxy is asked, so that names of patients go to the address of the file only.
//!
//! Source: PS3.18 sections 8.7, 10.4 and 10.6; RFC 2046 section 5.1.

use super::{FetchError, MOST_ANSWERS, Search, SeriesFound, StudyFound};
use crate::{
    domain::{phi::redact, uid::Uid},
    receive::Receiver,
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use reqwest::{Client, StatusCode, Url, header, redirect::Policy};
use serde_json::Value;
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long the source may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest answer to a search.
const MOST_JSON: usize = 32 << 20;
/// The longest instance.
const MOST_INSTANCE: usize = 512 << 20;
/// Instances of one series or study.
const MOST_INSTANCES: usize = 20_000;
/// An instance as it is stored.
const AS_STORED: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";

/// Where, and with which token.
pub(super) type From<'a> = (&'a Url, Option<&'a Path>);

/// A client; its connections are kept.
pub(super) fn client() -> Result<Client, FetchError> {
    crate::deliver::install_cryptography();
    Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .no_proxy()
        .user_agent(concat!("ictus/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| FetchError::Http(redact(&error)))
}

fn url((base, _): From<'_>, path: &[&str], query: &[(&str, &str)]) -> Result<Url, FetchError> {
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| FetchError::Answer("has an address that takes no path".to_owned()))?
        .extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

/// Gets a body; `None` when there is none.
async fn body(
    client: &Client,
    from: From<'_>,
    url: Url,
    accept: &str,
    most: usize,
) -> Result<Option<(String, Bytes)>, FetchError> {
    let http = |error: reqwest::Error| FetchError::Http(redact(&error.without_url()));
    let mut request = client.get(url).header(header::ACCEPT, accept);
    if let Some(path) = from.1 {
        let token = std::fs::read_to_string(path)
            .map_err(|_| FetchError::Answer("needs a token whose file cannot be read".to_owned()))?;
        request = request.bearer_auth(token.lines().next().unwrap_or_default().trim());
    }
    let mut response = request.send().await.map_err(http)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT => return Ok(None),
        code => {
            return Err(FetchError::Answer(format!("answered HTTP {}", code.as_u16())));
        }
    }
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut bytes = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(http)? {
        if bytes.len() + piece.len() > most {
            return Err(FetchError::Answer(format!(
                "sends an answer of more than {most} bytes"
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some((kind, bytes.freeze())))
}

async fn search(
    client: &Client,
    from: From<'_>,
    path: &[&str],
    query: &[(&str, &str)],
) -> Result<Vec<Value>, FetchError> {
    let url = url(from, path, query)?;
    let Some((_, bytes)) = body(client, from, url, "application/dicom+json", MOST_JSON).await? else {
        return Ok(Vec::new());
    };
    serde_json::from_slice(&bytes)
        .map_err(|_| FetchError::Answer("answers a search with something that is no list in JSON".to_owned()))
}

fn text(answer: &Value, key: &str) -> Option<String> {
    match answer.get(key)?.get("Value")?.get(0)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

pub(super) async fn studies(
    client: &Client,
    from: From<'_>,
    wanted: &Search,
) -> Result<Vec<StudyFound>, FetchError> {
    let (dates, limit) = (format!("{}-{}", wanted.from, wanted.to), MOST_ANSWERS.to_string());
    let mut query = vec![
        ("PatientID", wanted.patient_id.as_str()),
        ("StudyDate", &dates),
        ("includefield", "00100021"),
        ("limit", &limit),
    ];
    if let Some(modality) = &wanted.modality {
        query.push(("ModalitiesInStudy", modality));
    }
    let found = search(client, from, &["studies"], &query).await?;
    Ok(found
        .iter()
        .map(|answer| StudyFound {
            study_instance_uid: text(answer, "0020000D").unwrap_or_default(),
            patient_id: text(answer, "00100020").unwrap_or_default(),
            issuer_of_patient_id: text(answer, "00100021"),
            study_date: text(answer, "00080020"),
        })
        .collect())
}

pub(super) async fn series(
    client: &Client,
    from: From<'_>,
    study: &Uid,
) -> Result<Vec<SeriesFound>, FetchError> {
    let path = ["studies", study.as_str(), "series"];
    let found = search(client, from, &path, &[("includefield", "00180015")]).await?;
    Ok(found
        .iter()
        .map(|answer| SeriesFound {
            series_instance_uid: text(answer, "0020000E").unwrap_or_default(),
            modality: text(answer, "00080060"),
            body_part: text(answer, "00180015"),
            instances: text(answer, "00201209").and_then(|count| count.parse().ok()),
        })
        .collect())
}

/// Gets a study or series; how many instances came.
pub(super) async fn get(
    client: &Client,
    from: From<'_>,
    receiver: &Receiver,
    study: &Uid,
    series: Option<&Uid>,
) -> Result<u64, FetchError> {
    let mut path = vec!["studies", study.as_str()];
    if let Some(series) = series {
        path.extend(["series", series.as_str()]);
    }
    path.push("instances");
    let limit = MOST_INSTANCES.to_string();
    let found = search(
        client,
        from,
        &path,
        &[("includefield", "0020000E"), ("limit", &limit)],
    )
    .await?;
    let host = from.0.host_str().unwrap_or_default().to_owned();
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut session = receiver.open(&host, "WADO-RS", address);
    let got = async {
        let mut came = 0;
        for answer in &found {
            let of = text(answer, "0020000E").or_else(|| series.map(Uid::to_string));
            let (Some(of), Some(instance)) = (of, text(answer, "00080018")) else {
                return Err(FetchError::Answer(
                    "names an instance without its UIDs in a search".to_owned(),
                ));
            };
            let path = ["studies", study.as_str(), "series", &of, "instances", &instance];
            let url = url(from, &path, &[])?;
            let Some((kind, bytes)) = body(client, from, url, AS_STORED, MOST_INSTANCE).await? else {
                return Err(FetchError::Answer(
                    "has an instance in its search and not to give".to_owned(),
                ));
            };
            let file = only_part(&kind, bytes)?;
            let staged = receiver.stage(stream::iter([Ok::<_, Infallible>(file)])).await?;
            if session.store(staged).await?.is_ok() {
                came += 1;
            }
        }
        Ok(came)
    }
    .await;
    session.end(if got.is_ok() { "released" } else { "lost" }).await?;
    got
}

/// The first part of a multipart body, or the whole of a body that is none.
fn only_part(kind: &str, body: Bytes) -> Result<Bytes, FetchError> {
    if !kind.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        return Ok(body);
    }
    let broken = || FetchError::Answer("sends a multipart answer that cannot be read".to_owned());
    let boundary = kind
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value.trim().trim_matches('"'))
        .filter(|boundary| !boundary.is_empty())
        .ok_or_else(broken)?;
    let opening = format!("--{boundary}");
    let start = find(&body, opening.as_bytes(), 0).ok_or_else(broken)?;
    let head = find(&body, b"\r\n\r\n", start).ok_or_else(broken)? + 4;
    let closing = format!("\r\n--{boundary}");
    let end = find(&body, closing.as_bytes(), head).ok_or_else(broken)?;
    Ok(body.slice(head..end))
}

fn find(body: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let rest = body.get(from..)?;
    // The first byte is looked for by itself, which is fast; the rest is compared where it is.
    let mut at = 0;
    while let Some(next) = rest[at..].iter().position(|byte| *byte == wanted[0]) {
        at += next;
        if rest[at..].starts_with(wanted) {
            return Some(from + at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_part_of_a_multipart_body() {
        let body =
            Bytes::from_static(b"--b1\r\nContent-Type: application/dicom\r\n\r\n\r\n--b\r\n--b1--\r\n");
        let kind = "multipart/related; type=\"application/dicom\"; boundary=\"b1\"";
        assert_eq!(only_part(kind, body.clone()).unwrap().as_ref(), b"\r\n--b");
        assert_eq!(only_part("application/dicom", body.clone()).unwrap(), body);
        assert!(only_part("multipart/related; boundary=other", body.clone()).is_err());
        assert!(only_part("multipart/related", body).is_err());
    }
}
