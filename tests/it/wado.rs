//! WADO-RS: what was stored comes back, whole, as metadata, as frames and as bulk data.

use crate::{
    support::{Slice, part10, uid},
    web::Server,
};
use axum::http::StatusCode;
use dicom_core::{DataElement, PrimitiveValue, VR, value::PixelFragmentSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use serde_json::json;

const STAR: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=\"*\"";

fn path(sop: &Slice) -> String {
    format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        sop.study, sop.series, sop.sop
    )
}

fn in_syntax(object: InMemDicomObject, syntax: &str) -> Vec<u8> {
    let sop = object
        .element(tags::SOP_INSTANCE_UID)
        .unwrap()
        .to_str()
        .unwrap()
        .into_owned();
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid(sop);
    let mut bytes = Vec::new();
    object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    bytes
}

/// The slice, run-length encoded: two segments, the high bytes and the low bytes of 64 pixels (PS3.5 annex G).
fn compressed(slice: &Slice) -> Vec<u8> {
    let [low, high] = slice.pixel.to_le_bytes();
    let mut fragment = vec![0u8; 64];
    fragment[0] = 2;
    fragment[4] = 64;
    fragment[8] = 66;
    // -63 as a run: the next byte 64 times.
    fragment.extend_from_slice(&[0xC1, high, 0xC1, low]);
    let mut object = slice.object();
    let value = PixelFragmentSequence::new(vec![0u32], vec![fragment]);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, value));
    in_syntax(object, uids::RLE_LOSSLESS)
}

#[tokio::test]
async fn gives_back_what_was_sent_byte_for_byte() {
    let server = Server::new().await;
    let slices = [Slice::new("s", "a", 1), Slice::new("s", "a", 2)];
    let sent = slices.each_ref().map(Slice::bytes);
    assert_eq!(server.stow(&sent).await.status, StatusCode::OK);
    for accept in ["multipart/related; type=\"application/dicom\"", STAR, "*/*"] {
        let study = format!("/dicom-web/studies/{}", uid("s"));
        for path in [study.clone(), format!("{study}/series/{}", uid("a"))] {
            let answer = server.get(&path, &[("accept", accept)]).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            let parts = answer.parts();
            assert_eq!(
                parts.iter().map(|part| &part.1).collect::<Vec<_>>(),
                sent.iter().collect::<Vec<_>>()
            );
            assert_eq!(
                parts[0].0,
                "Content-Type: application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
            );
        }
    }
    let answer = server.get(&path(&slices[1]), &[]).await;
    assert_eq!(answer.parts()[0].1, sent[1]);
    let answer = server
        .get(&path(&slices[1]), &[("accept", "application/dicom")])
        .await;
    assert_eq!(
        (answer.body, answer.headers["content-type"].to_str().unwrap()),
        (
            sent[1].clone(),
            "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
        )
    );
}

#[tokio::test]
async fn transcodes_to_explicit_little_endian_unless_anything_is_accepted() {
    let server = Server::new().await;
    let (implicit, rle) = (Slice::new("s", "a", 1), Slice::new("s", "a", 2));
    let sent = [
        in_syntax(implicit.object(), uids::IMPLICIT_VR_LITTLE_ENDIAN),
        compressed(&rle),
    ];
    let stored = server.stow(&sent).await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    for (slice, sent) in [(&implicit, &sent[0]), (&rle, &sent[1])] {
        let answer = server.get(&path(slice), &[("accept", STAR)]).await;
        assert_eq!(&answer.parts()[0].1, sent);
        let answer = server.get(&path(slice), &[("accept", "application/dicom")]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let object = dicom_object::from_reader(&answer.body[..]).unwrap();
        assert_eq!(
            object.meta().transfer_syntax().trim_end_matches('\0'),
            uids::EXPLICIT_VR_LITTLE_ENDIAN
        );
        let pixels = object
            .element(tags::PIXEL_DATA)
            .unwrap()
            .to_multi_int::<u16>()
            .unwrap();
        assert_eq!(pixels, vec![slice.pixel; 64]);
        assert_eq!(
            object.element(tags::PATIENT_NAME).unwrap().to_str().unwrap(),
            "Phantom^One"
        );
        let frame = server.get(&format!("{}/frames/1", path(slice)), &[]).await;
        assert_eq!(frame.parts()[0].1, slice.pixel.to_le_bytes().repeat(64));
        assert_eq!(
            frame.header("content-length"),
            frame.body.len().to_string(),
            "a client can show how far it is"
        );
    }
}

#[tokio::test]
async fn refuses_a_transfer_syntax_that_it_cannot_make() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    for accept in [
        "multipart/related; type=\"application/dicom\"; transfer-syntax=1.2.840.10008.1.2.4.90",
        "application/dicom+xml",
        "image/jpeg",
    ] {
        let answer = server.get(&path(&slice), &[("accept", accept)]).await;
        assert_eq!(
            answer.status,
            StatusCode::NOT_ACCEPTABLE,
            "{accept}: {}",
            answer.text()
        );
    }
    let several = format!("/dicom-web/studies/{}", uid("s"));
    let answer = server.get(&several, &[("accept", "application/dicom")]).await;
    assert_eq!(
        answer.status,
        StatusCode::NOT_ACCEPTABLE,
        "a study is not sent as a single part"
    );
}

#[tokio::test]
async fn describes_every_attribute_and_links_the_pixels() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(
        server
            .stow(&[slice.bytes(), Slice::new("s", "a", 2).bytes()])
            .await
            .status,
        StatusCode::OK
    );
    let answer = server.get(&format!("{}/metadata", path(&slice)), &[]).await;
    assert_eq!(answer.header("content-type"), "application/dicom+json");
    insta::assert_json_snapshot!("wado_metadata", answer.json());
    let study = format!("/dicom-web/studies/{}", slice.study);
    for path in [
        format!("{study}/metadata"),
        format!("{study}/series/{}/metadata", slice.series),
    ] {
        assert_eq!(
            server.get(&path, &[]).await.json().as_array().unwrap().len(),
            2,
            "{path}"
        );
    }
    let uri = answer.json()[0]["7FE00010"]["BulkDataURI"]
        .as_str()
        .unwrap()
        .to_owned();
    let bulk = uri.strip_prefix("http://localhost").unwrap();
    let value = server.get(bulk, &[("accept", "application/octet-stream")]).await;
    assert_eq!(value.body, slice.pixel.to_le_bytes().repeat(64));
}

#[tokio::test]
async fn sends_single_frames_in_the_order_asked() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    let mut object = slice.object();
    // Three frames of 3 by 3 single bits: the second and third start inside a byte.
    for (tag, value) in [
        (tags::ROWS, 3u16),
        (tags::COLUMNS, 3),
        (tags::BITS_ALLOCATED, 1),
        (tags::BITS_STORED, 1),
        (tags::HIGH_BIT, 0),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "3"));
    object.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        uids::SEGMENTATION_STORAGE,
    ));
    object.put(DataElement::new(tags::MODALITY, VR::CS, "SEG"));
    let bits = 0b111_111_111_u32 | 0b000_010_001 << 9 | 0b100_000_000 << 18;
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PrimitiveValue::from(bits.to_le_bytes().to_vec()),
    ));
    let stored = server.stow(&[part10(object)]).await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    let frames = |list: &str| format!("{}/frames/{list}", path(&slice));
    let accept = [(
        "accept",
        "multipart/related; type=\"application/octet-stream\"; transfer-syntax=\"*\"",
    )];
    let answer = server.get(&frames("3,1,2"), &accept).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let bodies: Vec<Vec<u8>> = answer.parts().into_iter().map(|part| part.1).collect();
    assert_eq!(bodies, [[0, 1], [0xFF, 1], [0b0001_0001, 0]]);
    for (list, status) in [("4", 404), ("1,4", 404), ("0", 400), ("x", 400), ("1,,2", 400)] {
        assert_eq!(
            server.get(&frames(list), &accept).await.status.as_u16(),
            status,
            "{list}"
        );
    }
    let jpeg = [("accept", "multipart/related; type=\"image/jpeg\"")];
    assert_eq!(
        server.get(&frames("1"), &jpeg).await.status,
        StatusCode::NOT_ACCEPTABLE
    );
}

#[tokio::test]
async fn sends_compressed_frames_as_they_are_stored_to_who_names_their_media_type() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 2);
    let stored = server.stow(&[compressed(&slice)]).await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    let frames = format!("{}/frames/1", path(&slice));
    let [low, high] = slice.pixel.to_le_bytes();
    let mut fragment = vec![0u8; 64];
    (fragment[0], fragment[4], fragment[8]) = (2, 64, 66);
    fragment.extend_from_slice(&[0xC1, high, 0xC1, low]);

    let named = [("accept", "multipart/related; type=\"image/dicom-rle\"")];
    let answer = server.get(&frames, &named).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.header("content-type").contains("type=\"image/dicom-rle\""));
    assert_eq!(answer.parts()[0].1, fragment);

    let alone = server.get(&frames, &[("accept", "image/dicom-rle")]).await;
    assert_eq!(
        alone.header("content-type"),
        "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"
    );
    assert_eq!(alone.body, fragment);

    let decoded = server
        .get(&frames, &[("accept", "application/octet-stream")])
        .await;
    assert_eq!(decoded.body, slice.pixel.to_le_bytes().repeat(64));

    let other = server
        .get(&frames, &[("accept", "multipart/related; type=\"image/jls\"")])
        .await;
    assert_eq!(other.status, StatusCode::NOT_ACCEPTABLE);
    assert!(other.text().contains("image/dicom-rle"), "{}", other.text());
}

#[tokio::test]
async fn finds_nothing_under_foreign_or_malformed_uids() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    for (path, status) in [
        ("/dicom-web/studies/1.2.3".to_owned(), 404),
        (format!("/dicom-web/studies/1.2.3/series/{}", slice.series), 404),
        (
            format!(
                "/dicom-web/studies/{}/series/{}/instances/1.2",
                slice.study, slice.series
            ),
            404,
        ),
        (format!("{}/bulkdata/00280010/0/00280010", path(&slice)), 404),
        (format!("{}/bulkdata/nonsense", path(&slice)), 400),
        ("/dicom-web/studies/..%2F..%2Fetc".to_owned(), 400),
        ("/dicom-web/studies/1..2/metadata".to_owned(), 400),
    ] {
        let answer = server.get(&path, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn a_file_that_changed_on_the_disk_is_not_sent() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    let key: String = sqlx::query_scalar("SELECT archive_key FROM instance")
        .fetch_one(&mut server.world.superuser().await)
        .await
        .unwrap();
    std::fs::write(server.world.folder.path().join(key), b"other bytes").unwrap();
    let answer = server.get(&path(&slice), &[]).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let (id, detail) = (answer.header("x-request-id"), answer.json()["detail"].clone());
    let text = format!("The request failed on the server's side; its log has the reason under {id}.");
    assert_eq!(detail, json!(text));
}

#[tokio::test]
async fn audits_a_read_before_it_is_answered() {
    let server = Server::new().await;
    let slice = Slice::new("s", "a", 1);
    assert_eq!(server.stow(&[slice.bytes()]).await.status, StatusCode::OK);
    let reads = || {
        server
            .world
            .count("SELECT count(*) FROM audit WHERE act = 'read'")
    };
    assert_eq!(reads().await, 0);
    // The body is never read: the row is there with the head.
    let answer = server
        .respond(crate::web::request(
            axum::http::Method::GET,
            &path(&slice),
            &[],
            axum::body::Body::empty(),
        ))
        .await;
    assert_eq!((answer.status(), reads().await), (StatusCode::OK, 1));
}
