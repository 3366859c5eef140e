//! Retrieve Capabilities: `OPTIONS` on a resource → what can be done here, for programs.
//!
//! The description is made from the OpenAPI document, so that it never says more or less than the server does:
//! as WADL, which PS3.18 names, or as the OpenAPI document itself.
//!
//! Source: PS3.18 sections 8.9 and annex H; W3C Web Application Description Language, 31 August 2009.

use super::media::Accept;
use crate::http::{error::HttpError, router};
use axum::{
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use std::fmt::Write;

const WADL: &str = "application/vnd.sun.wadl+xml";
const METHODS: [&str; 6] = ["get", "post", "put", "delete", "head", "options"];

/// Describes the DICOMweb services.
pub(crate) fn describe(uri: &Uri, headers: &HeaderMap) -> Result<Response, HttpError> {
    let accept = Accept::new(headers, super::accept_parameter(uri.query()).as_deref());
    let document = serde_json::to_value(router::document()).map_err(|error| HttpError::Internal {
        what: "describing the services",
        source: error.into(),
    })?;
    let allow = methods_at(&document, uri.path());
    let kind = if accept.is_open() {
        Some(WADL)
    } else {
        accept.essences().find_map(|media| match media.essence.as_str() {
            WADL | "application/xml" | "text/xml" | "*/*" | "application/*" => Some(WADL),
            "application/json" | "application/vnd.oai.openapi+json" => Some("application/json"),
            _ => None,
        })
    };
    let Some(kind) = kind else {
        return Err(HttpError::NotAcceptable(format!(
            "capabilities are described in {WADL} or application/json; accept one of them"
        )));
    };
    let body = if kind == WADL {
        wadl(&document)
    } else {
        document.to_string()
    };
    let mut response = ([(header::CONTENT_TYPE, kind)], body).into_response();
    if let Ok(allow) = allow.parse() {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    Ok(response)
}

/// Paths of the document under the DICOMweb root.
fn services(document: &Value) -> impl Iterator<Item = (&str, &serde_json::Map<String, Value>)> {
    document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.starts_with(super::ROOT))
        .filter_map(|(path, operations)| Some((path.as_str(), operations.as_object()?)))
}

/// What the resource of a path allows; everything that any has, at the root.
fn methods_at(document: &Value, path: &str) -> String {
    let pieces: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let is = |template: &str| {
        let template: Vec<&str> = template.split('/').collect();
        template.len() == pieces.len()
            && template
                .iter()
                .zip(&pieces)
                .all(|(name, piece)| name.starts_with('{') || name == piece)
    };
    let at_root = path.trim_end_matches('/') == super::ROOT;
    let mut found: Vec<String> = services(document)
        .filter(|(template, _)| at_root || is(template))
        .flat_map(|(_, operations)| operations.keys())
        .filter(|method| METHODS.contains(&method.as_str()))
        .map(|method| method.to_uppercase())
        .collect();
    if found.iter().any(|method| method == "GET") {
        found.push("HEAD".to_owned());
    }
    found.push("OPTIONS".to_owned());
    found.sort_unstable();
    found.dedup();
    found.join(", ")
}

/// The document as WADL: resources, their methods, parameters and the types that they send.
fn wadl(document: &Value) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <application xmlns=\"http://wadl.dev.java.net/2009/02\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\">",
    );
    let _ = write!(out, "<resources base=\"{}\">", super::ROOT);
    for (path, operations) in services(document) {
        let path = path[super::ROOT.len()..].trim_start_matches('/');
        let _ = write!(out, "<resource path=\"{path}\">");
        for (method, operation) in operations
            .iter()
            .filter(|(method, _)| METHODS.contains(&method.as_str()))
        {
            let id = operation["operationId"].as_str().unwrap_or_default();
            let _ = write!(
                out,
                "<method name=\"{}\" id=\"{id}\"><request>",
                method.to_uppercase()
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let style = match parameter["in"].as_str() {
                    Some("path") => "template",
                    Some("header") => "header",
                    _ => "query",
                };
                let name = parameter["name"].as_str().unwrap_or_default();
                let required = parameter["required"] == true;
                let _ = write!(
                    out,
                    "<param name=\"{name}\" style=\"{style}\" required=\"{required}\" type=\"xsd:string\"/>"
                );
            }
            representations(&operation["requestBody"]["content"], &mut out);
            out.push_str("</request>");
            for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                let _ = write!(out, "<response status=\"{status}\">");
                representations(&response["content"], &mut out);
                out.push_str("</response>");
            }
            out.push_str("</method>");
        }
        out.push_str("</resource>");
    }
    out.push_str("</resources></application>");
    out
}

fn representations(content: &Value, out: &mut String) {
    for kind in content.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let _ = write!(out, "<representation mediaType=\"{kind}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_every_service_in_well_formed_wadl() {
        let document = serde_json::to_value(router::document()).unwrap();
        let text = wadl(&document);
        let parsed = roxmltree::Document::parse(&text).unwrap();
        let of = |name: &str| {
            parsed
                .descendants()
                .filter(|node| node.has_tag_name(("http://wadl.dev.java.net/2009/02", name)))
                .count()
        };
        assert_eq!(of("resource"), services(&document).count());
        assert!(of("method") > of("resource"));
    }

    #[test]
    fn allows_what_the_resource_has() {
        let document = serde_json::to_value(router::document()).unwrap();
        assert_eq!(
            methods_at(&document, "/dicom-web/studies"),
            "GET, HEAD, OPTIONS, POST"
        );
        assert_eq!(
            methods_at(&document, "/dicom-web/studies/1.2/metadata"),
            "GET, HEAD, OPTIONS"
        );
        assert!(methods_at(&document, "/dicom-web/").contains("POST"));
    }
}
