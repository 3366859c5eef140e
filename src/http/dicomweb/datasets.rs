//! Datasets in the DICOM JSON model → the body that a client accepts: JSON, or XML in one document or several parts.
//!
//! Source: PS3.18 section 8.7.3.2, annexes F and I.

use super::{
    attribute::Dataset,
    media::{Accept, DICOM_XML, Form},
    parts::{Part, whole_multipart},
};
use crate::{dicom::xml, http::error::HttpError};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::Value;

/// How the list of datasets of a search or of metadata is sent.
pub(super) fn list_form(accept: &Accept, single: bool) -> Result<Form, HttpError> {
    accept.datasets(single).ok_or_else(|| {
        HttpError::NotAcceptable(
            "this is answered in application/dicom+json or in multipart/related; \
             type=\"application/dicom+xml\"; accept one of them"
                .to_owned(),
        )
    })
}

/// How the one dataset of an answer to a request is sent.
pub(super) fn one_form(accept: &Accept) -> Result<Form, HttpError> {
    accept.datasets(true).ok_or_else(|| {
        HttpError::NotAcceptable(
            "this is answered in application/dicom+json or application/dicom+xml; accept one of them"
                .to_owned(),
        )
    })
}

/// The body of a list.
pub(super) fn list(form: Form, datasets: Vec<Dataset>) -> Response {
    match form {
        Form::Json(kind) => {
            let list = Value::Array(datasets.into_iter().map(Value::Object).collect());
            ([(header::CONTENT_TYPE, kind)], list.to_string()).into_response()
        }
        Form::Xml => one(form, datasets.into_iter().next().unwrap_or_default()),
        Form::XmlParts => {
            let parts = datasets
                .into_iter()
                .map(|dataset| Part::new(DICOM_XML, Bytes::from(xml::to_xml(&dataset))));
            whole_multipart(DICOM_XML, parts.collect())
        }
    }
}

/// The body of a list of datasets that are written already.
pub(super) fn written(kind: &'static str, texts: &[String]) -> Response {
    let mut body = String::with_capacity(texts.iter().map(|text| text.len() + 1).sum::<usize>() + 1);
    body.push('[');
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(text);
    }
    body.push(']');
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// The body of one dataset.
pub(super) fn one(form: Form, dataset: Dataset) -> Response {
    match form {
        Form::Json(kind) => {
            let body = Value::Object(dataset).to_string();
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Form::Xml => ([(header::CONTENT_TYPE, DICOM_XML)], xml::to_xml(&dataset)).into_response(),
        Form::XmlParts => list(form, vec![dataset]),
    }
}
