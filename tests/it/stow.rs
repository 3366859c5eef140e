//! STOW-RS: what goes in, what is answered, and that bad input is answered and harms nothing beside it.

use crate::{
    support::{Slice, part10, uid},
    web::{Answer, BOUNDARY, MULTIPART, Server, multipart, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use bytes::Bytes;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use ictus::http::{Limits, auth::Access};
use serde_json::{Value, json};
use std::convert::Infallible;

const STORED: &str = "00081199";
const FAILED: &str = "00081198";
const OTHER: &str = "0008119A";
const REASON: &str = "00081197";

fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key]["Value"].as_array().map_or(&[], Vec::as_slice)
}

async fn post(server: &Server, kind: &str, body: Vec<u8>) -> Answer {
    server
        .send(request(
            Method::POST,
            "/dicom-web/studies",
            &[("content-type", kind)],
            body.into(),
        ))
        .await
}

async fn instances(server: &Server) -> i64 {
    server.world.count("SELECT count(*) FROM instance").await
}

#[tokio::test]
async fn stores_a_series_and_says_where_it_is() {
    let server = Server::new().await;
    let answer = server
        .stow(&[Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()])
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/dicom+json");
    insta::assert_json_snapshot!("stow_two_stored", answer.json());
    assert_eq!(instances(&server).await, 2);
}

#[tokio::test]
async fn takes_the_same_instance_twice_without_storing_it_twice() {
    let server = Server::new().await;
    for _ in 0..2 {
        assert_eq!(
            server.stow(&[Slice::new("s", "a", 1).bytes()]).await.status,
            StatusCode::OK
        );
    }
    assert_eq!(instances(&server).await, 1);
}

#[tokio::test]
async fn reads_quoted_and_unquoted_parameters_in_any_case() {
    let server = Server::new().await;
    for kind in [
        format!("multipart/related; type=application/dicom; boundary={BOUNDARY}"),
        format!("Multipart/Related;TYPE=\"application/dicom\";Boundary=\"{BOUNDARY}\""),
        format!("multipart/related; boundary={BOUNDARY}"),
    ] {
        let body = multipart(&[Slice::new("s", "a", 1).bytes()]);
        assert_eq!(post(&server, &kind, body).await.status, StatusCode::OK, "{kind}");
    }
}

#[tokio::test]
async fn stores_the_good_parts_beside_a_part_that_is_not_dicom() {
    let server = Server::new().await;
    let parts = [b"not a DICOM file".to_vec(), Slice::new("s", "a", 1).bytes()];
    let answer = server.stow(&parts).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let json = answer.json();
    assert_eq!(items(&json, STORED).len(), 1);
    assert_eq!(items(&json, OTHER).len(), 1);
    assert!(items(&json, OTHER)[0][REASON]["Value"][0].is_u64());
    assert!(
        answer.header("warning").starts_with("299 ictus: "),
        "{:?}",
        answer.headers
    );
    assert_eq!(instances(&server).await, 1);
}

#[tokio::test]
async fn answers_409_when_nothing_could_be_stored() {
    let server = Server::new().await;
    let answer = server.stow(&[b"garbage".to_vec(), vec![]]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text());
    assert_eq!(items(&answer.json(), OTHER).len(), 2);
    assert_eq!(instances(&server).await, 0);
}

#[tokio::test]
async fn refuses_another_study_than_the_one_of_the_path() {
    let server = Server::new().await;
    let parts = [
        Slice::new("s", "a", 1).bytes(),
        Slice::new("other", "b", 1).bytes(),
    ];
    let path = format!("/dicom-web/studies/{}", uid("s"));
    let body = multipart(&parts).into();
    let answer = server
        .send(request(Method::POST, &path, &[("content-type", MULTIPART)], body))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let json = answer.json();
    assert_eq!(items(&json, FAILED)[0][REASON]["Value"], json!([43265]));
    assert_eq!(
        items(&json, FAILED)[0]["00081155"]["Value"],
        json!([Slice::new("other", "b", 1).sop.as_str()])
    );
}

#[tokio::test]
async fn keeps_what_came_complete_before_a_body_breaks_off() {
    let server = Server::new().await;
    let body = multipart(&[Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()]);
    let cut = body.len() - 200;
    let answer = post(&server, MULTIPART, body[..cut].to_vec()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(items(&answer.json(), STORED).len(), 1);
    assert!(
        answer.header("warning").contains("ended inside part 2"),
        "{}",
        answer.header("warning")
    );
    assert_eq!(instances(&server).await, 1);

    let answer = post(
        &server,
        MULTIPART,
        multipart(&[Slice::new("s", "a", 3).bytes()])[..300].to_vec(),
    )
    .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(instances(&server).await, 1);
}

#[tokio::test]
async fn keeps_what_came_complete_before_the_connection_breaks() {
    let server = Server::new().await;
    let body = multipart(&[Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()]);
    let pieces = [
        Ok(Bytes::from(body[..body.len() - 200].to_vec())),
        Err(std::io::Error::other("reset")),
    ];
    let body = Body::from_stream(futures::stream::iter(pieces));
    let answer = server
        .send(request(
            Method::POST,
            "/dicom-web/studies",
            &[("content-type", MULTIPART)],
            body,
        ))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(instances(&server).await, 1);
}

#[tokio::test]
async fn answers_malformed_requests_with_words() {
    let server = Server::new().await;
    let slice = || multipart(&[Slice::new("s", "a", 1).bytes()]);
    let headless = format!("--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--");
    let wrong_part = format!("--{BOUNDARY}\r\nContent-Type: image/png\r\n\r\nx\r\n--{BOUNDARY}--");
    for (kind, body, status) in [
        ("application/dicom", slice(), 415),
        ("multipart/form-data; boundary=----test-boundary", slice(), 415),
        (
            "multipart/related; type=\"application/dicom+json\"; boundary=----test-boundary",
            slice(),
            415,
        ),
        ("multipart/related; type=\"application/dicom\"", slice(), 400),
        ("multipart/related; boundary=\"\"", slice(), 400),
        ("multipart/related; boundary=another", slice(), 400),
        (MULTIPART, Vec::new(), 400),
        (MULTIPART, format!("--{BOUNDARY}--").into_bytes(), 400),
        (MULTIPART, headless.into_bytes(), 400),
        (MULTIPART, wrong_part.into_bytes(), 415),
    ] {
        let answer = post(&server, kind, body).await;
        assert_eq!(answer.status.as_u16(), status, "{kind}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["status"], json!(status));
    }
    assert_eq!(instances(&server).await, 0);
    let refused = server
        .world
        .count("SELECT count(*) FROM audit WHERE act = 'refuse'")
        .await;
    assert!(refused >= 9, "{refused} refusals are in the trail");
}

#[tokio::test]
async fn refuses_an_answer_in_a_type_that_it_does_not_write() {
    let server = Server::new().await;
    let headers = [("content-type", MULTIPART), ("accept", "text/html")];
    let body = multipart(&[Slice::new("s", "a", 1).bytes()]);
    let answer = server
        .send(request(Method::POST, "/dicom-web/studies", &headers, body.into()))
        .await;
    assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(instances(&server).await, 0);
}

#[tokio::test]
async fn says_which_limit_was_passed_and_stores_the_rest() {
    let access = Access::new(None, [127, 0, 0, 1].into()).unwrap();
    let small = Slice::new("s", "a", 1).bytes();
    let limits = Limits {
        part_bytes: small.len() as u64 + 100,
        request_bytes: 1 << 20,
        ..Limits::default()
    };
    let server = Server::with(access, limits).await;
    let large = vec![0u8; small.len() + 200];

    let answer = server.stow(&[large.clone(), small.clone()]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    assert_eq!(items(&answer.json(), OTHER)[0][REASON]["Value"], json!([0xA700]));
    assert_eq!(instances(&server).await, 1);

    let answer = server.stow(&[large]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("part 1 passes the limit")
    );

    let claim = [("content-type", MULTIPART), ("content-length", "4294967296")];
    let answer = server
        .send(request(
            Method::POST,
            "/dicom-web/studies",
            &claim,
            multipart(&[small]).into(),
        ))
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
}

#[tokio::test]
async fn reads_a_refused_body_to_its_end() {
    let server = Server::new().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let sending = tokio::spawn(async move {
        for _ in 0..50 {
            sender.send(Ok(Bytes::from(vec![0; 1000]))).await.unwrap();
        }
    });
    let answer = server
        .send(request(
            Method::POST,
            "/dicom-web/studies",
            &[("content-type", "text/plain")],
            body,
        ))
        .await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    sending.await.unwrap();
}

#[tokio::test]
async fn refuses_bad_datasets_one_by_one_and_stores_the_rest() {
    let server = Server::new().await;
    let good = Slice::new("s", "a", 1);
    let spoilt = |spoil: &dyn Fn(&mut dicom_object::InMemDicomObject)| {
        let mut object = Slice::new("s", "a", 9).object();
        spoil(&mut object);
        part10(object)
    };
    let whole = Slice::new("s", "a", 8).bytes();
    // The length of Pixel Data claims 4 GiB that are not there.
    let mut claim = Slice::new("s", "a", 7).bytes();
    let at = claim
        .windows(4)
        .rposition(|tag| tag == [0xE0, 0x7F, 0x10, 0x00])
        .unwrap();
    claim[at + 8..at + 12].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
    let parts = [
        good.bytes(),
        whole[..whole.len() - 50].to_vec(),
        claim,
        spoilt(&|object| assert!(object.remove_element(tags::SOP_INSTANCE_UID))),
        spoilt(&|object| assert!(object.remove_element(tags::STUDY_INSTANCE_UID))),
        spoilt(&|object| {
            object.put(DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, "../../etc"));
        }),
    ];
    let answer = server.stow(&parts).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    let json = answer.json();
    assert_eq!(items(&json, STORED).len(), 1);
    let failures: Vec<&Value> = items(&json, FAILED).iter().chain(items(&json, OTHER)).collect();
    assert_eq!(failures.len(), 5, "{json:#}");
    assert!(
        failures
            .iter()
            .all(|item| item[REASON]["Value"][0].is_u64() && item["00000902"]["Value"][0].is_string())
    );
    assert_eq!(instances(&server).await, 1);
}

#[tokio::test]
async fn keeps_patient_names_out_of_what_it_says() {
    let server = Server::new().await;
    let mut slice = Slice::new("s", "a", 1);
    slice.patient_name = "Plantedname^Quirin".to_owned();
    let mut object = slice.object();
    object.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, "Plantedname"));
    let answer = server.stow(&[part10(object), slice.bytes()]).await;
    let metrics = server.get("/metrics", &[]).await;
    for text in [answer.text(), format!("{:?}", answer.headers), metrics.text()] {
        assert!(!text.contains("Plantedname"), "{text}");
    }
}

/// A body of metadata and bulk values, each part with its headers.
fn described(parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (headers, bytes) in parts {
        body.extend_from_slice(format!("--{BOUNDARY}\r\n{headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn described_type(kind: &str) -> String {
    MULTIPART.replace("application/dicom", kind)
}

#[tokio::test]
async fn stores_what_metadata_and_bulk_data_describe_in_json_and_in_xml() {
    // What one server says of an instance, another is sent.
    let origin = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(origin.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    let instance = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        slice.study, slice.series, slice.sop
    );
    let metadata = origin.get(&format!("{instance}/metadata"), &[]).await.json();
    let uri = metadata[0]["7FE00010"]["BulkDataURI"]
        .as_str()
        .unwrap()
        .to_owned();
    let pixels = slice.pixel.to_le_bytes().repeat(64);
    let xml = ictus::dicom::xml::to_xml(metadata[0].as_object().unwrap());
    for (kind, document) in [
        ("application/dicom+json", metadata.to_string()),
        ("application/dicom+xml", xml),
    ] {
        let server = Server::new().await;
        let body = described(&[
            (format!("Content-Type: {kind}"), document.into_bytes()),
            (
                format!("Content-Type: application/octet-stream\r\nContent-Location: {uri}"),
                pixels.clone(),
            ),
        ]);
        let answer = post(&server, &described_type(kind), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{kind}: {}", answer.text());
        let again = server.get(&format!("{instance}/metadata"), &[]).await.json();
        assert_eq!(again, metadata, "{kind}");
        let octets = [("accept", "application/octet-stream")];
        assert_eq!(
            server.get(&format!("{instance}/frames/1"), &octets).await.body,
            pixels
        );
    }
}

#[tokio::test]
async fn says_what_is_wrong_with_metadata() {
    let server = Server::new().await;
    let kind = described_type("application/dicom+json");
    let head = "Content-Type: application/dicom+json".to_owned();
    for (parts, status) in [
        (vec![(head.clone(), b"nonsense".to_vec())], 400),
        (vec![(head.clone(), b"[1]".to_vec())], 400),
        (vec![("Content-Type: text/plain".to_owned(), b"x".to_vec())], 415),
        (
            vec![(
                "Content-Type: application/octet-stream\r\nContent-Location: a".to_owned(),
                vec![0; 8],
            )],
            400,
        ),
        (
            vec![(
                head.clone(),
                br#"[{"00080018":{"vr":"UI","Value":["1.2"]},"7FE00010":{"vr":"OW","BulkDataURI":"gone"}}]"#
                    .to_vec(),
            )],
            409,
        ),
    ] {
        let answer = post(&server, &kind, described(&parts)).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    }
    assert_eq!(instances(&server).await, 0);
}

#[tokio::test]
async fn answers_a_store_in_xml() {
    let server = Server::new().await;
    let request = crate::web::request(
        axum::http::Method::POST,
        "/dicom-web/studies",
        &[("content-type", MULTIPART), ("accept", "application/dicom+xml")],
        multipart(&[Slice::new("s", "a", 1).bytes()]).into(),
    );
    let answer = server.send(request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/dicom+xml");
    let said = ictus::dicom::xml::from_xml(&answer.text()).unwrap();
    assert_eq!(said["00081190"]["vr"], "UR");
}
