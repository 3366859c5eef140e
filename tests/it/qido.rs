//! QIDO-RS: what is found, in which order, with which attributes.

use crate::{
    support::{Slice, part10, uid},
    web::Server,
};
use axum::http::StatusCode;
use dicom_core::{DataElement, VR, value::DataSetSequence};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ictus::dicom::xml::from_xml;
use serde_json::{Value, json};

/// Two studies: `s` with two series of two slices and one, `t` of another patient with one slice.
async fn server() -> Server {
    let server = Server::new().await;
    let mut other = Slice::new("t", "c", 1);
    other.patient_id = "P2".to_owned();
    other.patient_name = "Phantom^Two".to_owned();
    let mut thin = Slice::new("s", "b", 1);
    thin.series_description = "Head 1 mm".to_owned();
    for parts in [
        vec![Slice::new("s", "a", 1).bytes(), Slice::new("s", "a", 2).bytes()],
        vec![thin.bytes()],
        vec![other.bytes()],
    ] {
        assert_eq!(server.stow(&parts).await.status, StatusCode::OK);
    }
    server
}

fn values<'a>(found: &'a Value, key: &str) -> Vec<&'a Value> {
    found
        .as_array()
        .unwrap()
        .iter()
        .map(|dataset| &dataset[key]["Value"][0])
        .collect()
}

async fn search(server: &Server, path: &str) -> Value {
    let answer = server.get(&format!("/dicom-web/{path}"), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/dicom+json");
    answer.json()
}

#[tokio::test]
async fn returns_the_required_attributes_of_each_level() {
    let server = server().await;
    let study = uid("s");
    let studies = search(&server, &format!("studies?StudyInstanceUID={study}")).await;
    insta::assert_json_snapshot!("qido_study", studies);
    let series = search(
        &server,
        &format!("studies/{study}/series?SeriesInstanceUID={}", uid("a")),
    )
    .await;
    insta::assert_json_snapshot!("qido_series", series);
    let path = format!("studies/{study}/series/{}/instances?InstanceNumber=2", uid("a"));
    insta::assert_json_snapshot!("qido_instance", search(&server, &path).await);
}

#[tokio::test]
async fn searches_below_a_study_and_over_all() {
    let server = server().await;
    let study = uid("s");
    for (path, count) in [
        ("studies".to_owned(), 2),
        ("series".to_owned(), 3),
        ("instances".to_owned(), 4),
        (format!("studies/{study}/series"), 2),
        (format!("studies/{study}/instances"), 3),
        (format!("studies/{study}/series/{}/instances", uid("a")), 2),
    ] {
        assert_eq!(
            search(&server, &path).await.as_array().unwrap().len(),
            count,
            "{path}"
        );
    }
    let all = search(&server, "instances").await;
    assert!(
        values(&all, "00100020").iter().all(|id| id.is_string()),
        "a relational answer names the patient"
    );
}

#[tokio::test]
async fn matches_by_keyword_tag_wildcard_range_and_list() {
    let server = server().await;
    for (query, count) in [
        ("PatientID=P1", 1),
        ("00100020=P2", 1),
        ("PatientName=phantom*", 2),
        ("PatientName=Phantom%5ET?o", 1),
        ("PatientName=Phantom", 0),
        ("StudyDate=20240131", 2),
        ("StudyDate=20240101-20240201", 2),
        ("StudyDate=-20231231", 0),
        ("StudyTime=1000-1030", 2),
        ("ModalitiesInStudy=CT", 2),
        ("ModalitiesInStudy=MR", 0),
        ("AccessionNumber=A100&PatientID=P2", 1),
        ("PatientID=", 2),
        ("PatientBirthDate=19500102", 2),
        ("PatientBirthDate=-19491231", 0),
        ("PatientSex=O", 2),
        // Attributes without a column, of any instance; also numbers, and within sequences.
        ("SliceThickness=5", 2),
        ("SliceThickness=1", 0),
        ("Rows=8&PatientID=P2", 1),
        ("00080008=ORIGINAL", 2),
        ("ReferencedImageSequence.ReferencedSOPInstanceUID=1.2.3", 0),
    ] {
        let answer = server.get(&format!("/dicom-web/studies?{query}"), &[]).await;
        let found = if count == 0 {
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{query}");
            assert!(answer.body.is_empty());
            0
        } else {
            answer.json().as_array().unwrap().len()
        };
        assert_eq!(found, count, "{query}");
    }
    let list = format!("studies?StudyInstanceUID={},{}", uid("s"), uid("t"));
    assert_eq!(search(&server, &list).await.as_array().unwrap().len(), 2);
    let thin = search(&server, "series?SeriesDescription=*1%20mm").await;
    assert_eq!(values(&thin, "0020000E"), [&json!(uid("b").as_str())]);
}

#[tokio::test]
async fn matches_within_sequences_and_person_names_in_any_case() {
    let server = Server::new().await;
    let mut object = Slice::new("s", "a", 1).object();
    let step = InMemDicomObject::from_element_iter([
        DataElement::new(tags::SCHEDULED_PROCEDURE_STEP_ID, VR::SH, "STEP7"),
        DataElement::new(tags::REQUESTED_PROCEDURE_ID, VR::SH, "PROC9"),
    ]);
    let steps = DataSetSequence::from(vec![step]);
    object.put(DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, steps));
    object.put(DataElement::new(
        tags::OPERATORS_NAME,
        VR::PN,
        "Nightingale^Florence",
    ));
    object.put(DataElement::new(tags::SERIES_TIME, VR::TM, "101530"));
    assert_eq!(server.stow(&[part10(object)]).await.status, StatusCode::OK);
    for (query, found) in [
        ("RequestAttributesSequence.ScheduledProcedureStepID=STEP7", true),
        ("00400275.00401001=PROC*", true),
        ("RequestAttributesSequence.ScheduledProcedureStepID=step7", false),
        ("OperatorsName=nightin*", true),
        ("OperatorsName=nobody", false),
        ("SeriesTime=1015-1016", true),
        ("SeriesTime=1016-", false),
    ] {
        let answer = server.get(&format!("/dicom-web/series?{query}"), &[]).await;
        let status = if found {
            StatusCode::OK
        } else {
            StatusCode::NO_CONTENT
        };
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
}

#[tokio::test]
async fn answers_in_xml_that_says_the_same() {
    let server = server().await;
    let accept = [("accept", "multipart/related; type=\"application/dicom+xml\"")];
    let answer = server.get("/dicom-web/instances", &accept).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let datasets: Vec<Value> = answer
        .parts()
        .into_iter()
        .map(|(head, body)| {
            assert_eq!(head, "Content-Type: application/dicom+xml");
            Value::Object(from_xml(&String::from_utf8(body).unwrap()).unwrap())
        })
        .collect();
    assert_eq!(Value::Array(datasets), search(&server, "instances").await);
    let single = [("accept", "application/dicom+xml")];
    let path = format!(
        "/dicom-web/studies/{}/series/{}/instances/{}/metadata",
        uid("s"),
        uid("a"),
        uid("a/1")
    );
    let answer = server.get(&path, &single).await;
    assert_eq!(answer.header("content-type"), "application/dicom+xml");
    let metadata = server.get(&path, &[]).await.json();
    assert_eq!(&Value::Object(from_xml(&answer.text()).unwrap()), &metadata[0]);
}

#[tokio::test]
async fn pages_in_a_stable_order() {
    let server = server().await;
    let all = search(&server, "instances").await;
    let all = values(&all, "00080018").into_iter().cloned().collect::<Vec<_>>();
    let mut paged = Vec::new();
    for offset in 0..4 {
        let page = search(&server, &format!("instances?limit=1&offset={offset}")).await;
        paged.extend(values(&page, "00080018").into_iter().cloned());
    }
    assert_eq!(paged, all);
    for query in ["limit=0", "offset=4"] {
        let answer = server.get(&format!("/dicom-web/instances?{query}"), &[]).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{query}");
    }
}

#[tokio::test]
async fn includes_fields_on_request_and_only_those_of_the_level() {
    let server = server().await;
    let plain = search(&server, &format!("studies/{}/series", uid("s"))).await;
    assert!(plain[0].get("00200052").is_none());
    let more = search(
        &server,
        &format!("studies/{}/series?includefield=FrameOfReferenceUID", uid("s")),
    )
    .await;
    assert!(more[0]["00200052"]["Value"][0].is_string());
    let study = search(&server, "studies?includefield=all").await;
    assert!(study[0].get("00200052").is_none() && study[0].get("7FE00010").is_none());
    let instance = search(&server, "instances?includefield=all&limit=1").await;
    assert!(
        instance[0]["7FE00010"]["BulkDataURI"]
            .as_str()
            .unwrap()
            .starts_with("http://localhost/dicom-web/")
    );
}

#[tokio::test]
async fn says_that_it_does_not_match_fuzzily() {
    let server = server().await;
    let answer = server
        .get("/dicom-web/studies?fuzzymatching=true&PatientName=Phantom*", &[])
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let text =
        "299 ictus: The fuzzymatching parameter is not supported. Only literal matching has been performed.";
    assert_eq!(answer.header("warning"), text);
    let answer = server.get("/dicom-web/studies?fuzzymatching=false", &[]).await;
    assert_eq!(answer.header("warning"), "");
}

#[tokio::test]
async fn answers_what_a_viewer_asks_word_for_word() {
    let server = server().await;
    let fields = "includefield=00081030,00080060,00080090,00100030";
    let found = search(
        &server,
        &format!("studies?limit=101&offset=0&fuzzymatching=false&{fields}"),
    )
    .await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    let fields = "includefield=00080021,00080031,0008103E,00200011";
    let found = search(&server, &format!("studies/{}/series?{fields}", uid("s"))).await;
    assert_eq!(values(&found, "00200011"), [&json!(2), &json!(2)]);
}

#[tokio::test]
async fn refuses_queries_that_it_cannot_answer_truly() {
    let server = server().await;
    for path in [
        "studies?PatientBirthDate=1950-01-02",
        "studies?PixelData=1",
        "studies?RequestAttributesSequence=1",
        "studies?limit=-1",
        "studies?StudyDate=yesterday",
        "studies/not-a-uid/series",
        "studies/1.2/series/..%2F1/instances",
        "series?includefield=nonsense",
    ] {
        let answer = server.get(&format!("/dicom-web/{path}"), &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let answer = server
        .get("/dicom-web/studies", &[("accept", "application/dicom+xml")])
        .await;
    assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn audits_every_study_that_a_search_shows() {
    let server = server().await;
    search(&server, "studies").await;
    search(&server, "studies").await;
    let reads = server
        .world
        .count("SELECT count(*) FROM audit WHERE act = 'read'")
        .await;
    assert_eq!(reads, 1, "one row within ten minutes");
    let shown = server
        .world
        .count("SELECT sum(cardinality(studies)) FROM audit WHERE act = 'read'")
        .await;
    assert_eq!(shown, 2);
}
