//! Rendered retrieval and WADO-URI: pictures whose greys can be computed by hand, and what is refused.

use crate::{
    support::{Slice, part10, uid},
    web::Server,
};
use axum::http::{Method, StatusCode};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use image::{DynamicImage, GenericImageView};

fn path(slice: &Slice) -> String {
    format!(
        "/dicom-web/studies/{}/series/{}/instances/{}",
        slice.study, slice.series, slice.sop
    )
}

/// Pixel `n` of 8 by 8 has `n` HU; rows are twice as far apart as columns.
fn ramp() -> (Slice, Vec<u8>) {
    let slice = Slice::new("s", "a", 1);
    let mut object = slice.object();
    let values: Vec<u16> = (0..64).map(|n| 1024 + n).collect();
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OW,
        PrimitiveValue::U16(values.into()),
    ));
    object.put(DataElement::new(tags::PIXEL_SPACING, VR::DS, "1.0\\0.5"));
    (slice, part10(object))
}

async fn server() -> (Server, Slice) {
    let server = Server::new().await;
    let (slice, bytes) = ramp();
    let stored = server
        .stow(&[
            bytes,
            Slice::new("s", "a", 2).bytes(),
            Slice::new("s", "a", 3).bytes(),
        ])
        .await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    (server, slice)
}

fn open(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}

#[tokio::test]
async fn draws_the_window_that_was_asked_for_with_square_pixels() {
    let (server, slice) = server().await;
    let png = [("accept", "image/png")];
    let query = "window=32,64,linear-exact";
    let answer = server
        .get(&format!("{}/rendered?{query}", path(&slice)), &png)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "image/png");
    let picture = open(&answer.body).into_luma8();
    // Rows twice as far apart: the picture is twice as high.
    assert_eq!(picture.dimensions(), (8, 16));
    let top = |column: u32| picture.get_pixel(column, 0).0[0];
    assert_eq!((top(0), top(4), top(7)), (0, 16, 28));
    assert_eq!(picture.get_pixel(7, 15).0[0], 251);

    let mirrored = format!("{}/rendered?{query}&viewport=8,16,8,0,-8,8", path(&slice));
    let picture = open(&server.get(&mirrored, &png).await.body).into_luma8();
    assert_eq!(
        (picture.get_pixel(0, 0).0[0], picture.get_pixel(7, 0).0[0]),
        (28, 0)
    );

    let small = format!("{}/rendered?{query}&viewport=4,4", path(&slice));
    assert_eq!(open(&server.get(&small, &png).await.body).dimensions(), (2, 4));
}

#[tokio::test]
async fn chooses_the_type_and_the_parts_that_are_accepted() {
    let (server, slice) = server().await;
    let instance = path(&slice);
    let study = format!("/dicom-web/studies/{}", slice.study);
    let series = format!("{study}/series/{}", slice.series);
    for (path, accept, kind, parts) in [
        (format!("{instance}/rendered"), None, "image/jpeg", None),
        (format!("{instance}/rendered"), Some("*/*"), "image/jpeg", None),
        (
            format!("{instance}/rendered"),
            Some("image/webp, image/gif;q=0.2"),
            "image/gif",
            None,
        ),
        (
            format!("{instance}/frames/1/rendered?quality=50"),
            Some("image/*"),
            "image/jpeg",
            None,
        ),
        (
            format!("{instance}/rendered"),
            Some("multipart/related; type=\"image/png\""),
            "image/png",
            Some(1),
        ),
        (format!("{series}/rendered"), None, "image/jpeg", Some(3)),
        (
            format!("{study}/rendered"),
            Some("multipart/related; type=\"image/jpeg\""),
            "image/jpeg",
            Some(3),
        ),
        (format!("{study}/thumbnail"), None, "image/jpeg", None),
        (
            format!("{series}/thumbnail"),
            Some("image/png"),
            "image/png",
            None,
        ),
        (
            format!("{instance}/thumbnail?viewport=16,16"),
            None,
            "image/jpeg",
            None,
        ),
        (format!("{instance}/frames/1/thumbnail"), None, "image/jpeg", None),
    ] {
        let headers: Vec<_> = accept.map(|accept| ("accept", accept)).into_iter().collect();
        let answer = server.get(&path, &headers).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{path} {accept:?}: {}",
            answer.text()
        );
        match parts {
            None => {
                assert_eq!(answer.header("content-type"), kind, "{path}");
                open(&answer.body);
            }
            Some(count) => {
                let pictures = answer.parts();
                assert_eq!(pictures.len(), count, "{path}");
                for (head, body) in pictures {
                    assert!(
                        head.starts_with(&format!("Content-Type: {kind}\r\nContent-Location: http://")),
                        "{head}"
                    );
                    open(&body);
                }
            }
        }
    }
}

#[tokio::test]
async fn refuses_looks_and_types_that_it_cannot_give() {
    let (server, slice) = server().await;
    let instance = path(&slice);
    let series = format!("/dicom-web/studies/{}/series/{}", slice.study, slice.series);
    for (path, accept, status) in [
        (format!("{instance}/rendered?window=40"), "*/*", 400),
        (format!("{instance}/rendered?window=40,0,linear"), "*/*", 400),
        (format!("{instance}/rendered?viewport=0,4"), "*/*", 400),
        (format!("{instance}/rendered?viewport=4,4,90,90,1,1"), "*/*", 400),
        (format!("{instance}/rendered?quality=101"), "*/*", 400),
        (format!("{instance}/rendered?annotation=everything"), "*/*", 400),
        (format!("{instance}/frames/2/rendered"), "*/*", 404),
        (format!("{instance}/rendered"), "image/jp2", 406),
        (format!("{series}/rendered"), "image/jpeg", 406),
        ("/dicom-web/studies/1.2.3/rendered".to_owned(), "*/*", 404),
    ] {
        let answer = server.get(&path, &[("accept", accept)]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let told = server
        .get(&format!("{instance}/rendered?annotation=patient"), &[])
        .await;
    assert_eq!(
        told.header("warning"),
        "299 ictus: The following annotation values are not supported: patient"
    );
}

#[tokio::test]
async fn has_no_picture_of_what_is_no_image_and_of_colours_that_need_a_table() {
    let server = Server::new().await;
    let mut report = Slice::new("s", "b", 1).object();
    for tag in [tags::PIXEL_DATA, tags::ROWS, tags::COLUMNS] {
        report.remove_element(tag);
    }
    report.put(DataElement::new(
        tags::SOP_CLASS_UID,
        VR::UI,
        uids::COMPREHENSIVE3_DSR_STORAGE,
    ));
    let palette = Slice::new("s", "c", 1);
    let mut object = palette.object();
    object.put(DataElement::new(
        tags::PHOTOMETRIC_INTERPRETATION,
        VR::CS,
        "PALETTE COLOR",
    ));
    let stored = server.stow(&[part10(report), part10(object)]).await;
    assert_eq!(stored.status, StatusCode::OK, "{}", stored.text());
    for slice in [Slice::new("s", "b", 1), palette] {
        for what in ["rendered", "thumbnail"] {
            let answer = server.get(&format!("{}/{what}", path(&slice)), &[]).await;
            assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE, "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn answers_wado_uri_with_the_object_or_a_picture() {
    let (server, slice) = server().await;
    let (study, series, sop) = (&slice.study, &slice.series, &slice.sop);
    let uri = format!("/dicom-web/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={sop}");
    let object = server
        .get(&format!("{uri}&contentType=application/dicom"), &[])
        .await;
    assert_eq!(object.status, StatusCode::OK, "{}", object.text());
    assert_eq!(object.body, ramp().1);
    let picture = server
        .get(
            &format!("{uri}&contentType=image/png&windowCenter=32&windowWidth=65&columns=4"),
            &[],
        )
        .await;
    assert_eq!(open(&picture.body).dimensions(), (4, 8));
    assert_eq!(server.get(&uri, &[]).await.header("content-type"), "image/jpeg");
    for (bad, status) in [
        (uri.replace("=WADO", "=other"), 400),
        (uri.replace("objectUID", "object"), 400),
        (format!("{uri}&windowCenter=3"), 400),
        (format!("{uri}&contentType=video/mpeg"), 406),
        (
            format!("{uri}&contentType=application/dicom&transferSyntax=1.2.840.10008.1.2.4.90"),
            406,
        ),
        (uri.replace(sop.as_str(), "1.2.3"), 404),
    ] {
        assert_eq!(server.get(&bad, &[]).await.status.as_u16(), status, "{bad}");
    }
}

#[tokio::test]
async fn is_asked_again_without_sending_again() {
    let (server, slice) = server().await;
    let instance = path(&slice);
    for (path, accept, cache) in [
        (instance.clone(), "application/dicom", "private, no-cache"),
        (
            format!("{instance}/metadata"),
            "application/dicom+json",
            "private, no-cache",
        ),
        (format!("{instance}/rendered"), "image/jpeg", "private, no-cache"),
        (
            format!("{instance}/frames/1"),
            "application/octet-stream",
            "private, max-age=86400, immutable",
        ),
    ] {
        let answer = server.get(&path, &[("accept", accept)]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("cache-control"), cache, "{path}");
        let tag = answer.header("etag").to_owned();
        let again = server
            .get(&path, &[("accept", accept), ("if-none-match", &tag)])
            .await;
        assert_eq!(
            (again.status, again.body.len()),
            (StatusCode::NOT_MODIFIED, 0),
            "{path}"
        );
        let other = server
            .get(&path, &[("accept", accept), ("if-none-match", "\"other\"")])
            .await;
        assert_eq!(other.status, StatusCode::OK, "{path}");
    }
    let part = [("accept", "application/octet-stream"), ("range", "bytes=2-5")];
    let answer = server.get(&format!("{instance}/frames/1"), &part).await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(answer.body, [1, 4, 2, 4]);
    assert_eq!(answer.header("content-range"), "bytes 2-5/128");
}

#[tokio::test]
async fn sends_all_bulk_data_each_value_at_its_address() {
    let (server, slice) = server().await;
    let study = format!("/dicom-web/studies/{}", slice.study);
    for (path, count) in [
        (format!("{}/bulkdata", path(&slice)), 1),
        (format!("{}/pixeldata", path(&slice)), 1),
        (format!("{study}/bulkdata"), 3),
        (format!("{study}/series/{}/pixeldata", slice.series), 3),
    ] {
        let answer = server.get(&path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        let parts = answer.parts();
        assert_eq!(parts.len(), count, "{path}");
        for (head, body) in parts {
            let address = head.split("Content-Location: http://localhost").nth(1).unwrap();
            let alone = server
                .get(address.trim(), &[("accept", "application/octet-stream")])
                .await;
            assert_eq!(alone.body, body, "{address}");
        }
    }
}

#[tokio::test]
async fn says_what_it_can_do() {
    let server = Server::new().await;
    let options = async |path: &str, accept: &str| {
        let headers = [("accept", accept)];
        server
            .send(crate::web::request(
                Method::OPTIONS,
                path,
                &headers,
                axum::body::Body::empty(),
            ))
            .await
    };
    let wadl = options("/dicom-web/", "*/*").await;
    assert_eq!(wadl.status, StatusCode::OK);
    assert_eq!(wadl.header("content-type"), "application/vnd.sun.wadl+xml");
    assert!(
        wadl.text()
            .contains("<resource path=\"studies/{study}/metadata\">")
    );
    let json = options("/dicom-web/studies", "application/json").await;
    assert!(json.json()["paths"]["/dicom-web/studies"]["post"].is_object());
    assert_eq!(json.header("allow"), "GET, HEAD, OPTIONS, POST");
    assert_eq!(
        options("/dicom-web/studies", "image/png").await.status,
        StatusCode::NOT_ACCEPTABLE
    );
    let study = format!("/dicom-web/studies/{}/metadata", uid("s"));
    assert_eq!(options(&study, "*/*").await.header("allow"), "GET, HEAD, OPTIONS");
}
