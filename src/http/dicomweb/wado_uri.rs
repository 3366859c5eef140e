//! WADO-URI: `GET /dicom-web/wado?requestType=WADO&…` → one object, or a picture of it, for viewers of the old kind.
//!
//! The parameters are turned into the retrieval of WADO-RS that means the same; what that has no word for is refused.
//!
//! Source: PS3.18 chapter 9.

use super::{
    parts::{Keep, Part, Validator},
    retrieve::{Evicted, Refused, Retrieval, decode, edition, query, read_coerced},
};
use crate::{
    dicom::{
        render::{self, Drawing, Format, Function, Viewport, Window},
        transcode,
    },
    domain::uid::Uid,
    http::{App, error::HttpError},
};
use axum::{
    extract::{Request, State},
    response::Response,
};

/// The quality of a JPEG when nobody says.
const QUALITY: u8 = 90;
const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// The parameters, for the OpenAPI document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct Wanted {
    /// `WADO`
    request_type: String,
    /// StudyInstanceUID
    #[param(rename = "studyUID")]
    study_uid: String,
    /// SeriesInstanceUID
    #[param(rename = "seriesUID")]
    series_uid: String,
    /// SOPInstanceUID
    #[param(rename = "objectUID")]
    object_uid: String,
    /// `application/dicom`, `image/jpeg`, `image/png` or `image/gif`
    content_type: Option<String>,
    /// of `application/dicom`: Explicit VR Little Endian if absent
    transfer_syntax: Option<String>,
    /// from 1
    frame_number: Option<u32>,
    /// at most so many rows
    rows: Option<u32>,
    /// at most so many columns
    columns: Option<u32>,
    /// with `windowWidth`
    window_center: Option<f64>,
    /// with `windowCenter`
    window_width: Option<f64>,
    /// of a JPEG, 1 to 100
    image_quality: Option<u8>,
}

/// Retrieves one object, or a picture of it.
#[utoipa::path(
    get, path = "/dicom-web/wado", tag = "WADO-URI", operation_id = "wado_uri", params(Wanted),
    responses((status = 200, description = "the object or the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn get(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let (parts, _) = request.into_parts();
    let pairs = query(&parts)?;
    let of = |name: &str| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    if of("requestType") != Some("WADO") {
        return Err(HttpError::BadRequest("requestType must be WADO".to_owned()));
    }
    let uid = |name: &str| -> Result<Option<Uid>, HttpError> {
        let text = of(name).ok_or_else(|| HttpError::BadRequest(format!("{name} is missing")))?;
        super::uid(text, name).map(Some)
    };
    let path = [uid("studyUID")?, uid("seriesUID")?, uid("objectUID")?];
    let number = |name: &str| -> Result<Option<u32>, HttpError> {
        of(name)
            .map(|text| {
                let number = text.parse().ok().filter(|&number| number > 0);
                number.ok_or_else(|| HttpError::BadRequest(format!("{name} must be a whole number from 1")))
            })
            .transpose()
    };
    let frame = number("frameNumber")?;
    let drawing = Drawing {
        window: window(of("windowCenter"), of("windowWidth"))?,
        viewport: match (number("columns")?, number("rows")?) {
            (None, None) => None,
            (columns, rows) => Some(Viewport {
                size: (
                    columns.unwrap_or(render::MAX_SIDE).min(render::MAX_SIDE),
                    rows.unwrap_or(render::MAX_SIDE).min(render::MAX_SIDE),
                ),
                region: None,
            }),
        },
    };
    if let Some(unknown) = ["region", "presentationUID", "anonymize"]
        .into_iter()
        .find(|name| of(name).is_some())
    {
        return Err(HttpError::BadRequest(format!(
            "{unknown} is not supported here; leave it out"
        )));
    }
    let quality = number("imageQuality")?.map_or(Ok(QUALITY), |quality| {
        u8::try_from(quality)
            .ok()
            .filter(|&quality| quality <= 100)
            .ok_or_else(|| HttpError::BadRequest("imageQuality is a whole number from 1 to 100".to_owned()))
    })?;
    let kinds: Vec<String> = of("contentType")
        .unwrap_or("image/jpeg")
        .split(',')
        .map(|kind| {
            kind.split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        })
        .collect();
    let wanted_syntax = of("transferSyntax").unwrap_or(EXPLICIT).to_owned();
    let asked = Retrieval::new(app, &parts, pairs.clone(), path, None, None)?;
    let format = kinds.iter().find_map(|kind| match kind.as_str() {
        "application/dicom" => Some(None),
        "image/jpeg" | "image/*" | "*/*" => Some(Some(Format::Jpeg { quality })),
        "image/png" => Some(Some(Format::Png)),
        "image/gif" => Some(Some(Format::Gif)),
        _ => None,
    });
    let Some(format) = format else {
        let text = "contentType must be application/dicom, image/jpeg, image/png or image/gif";
        return Err(HttpError::NotAcceptable(text.to_owned()));
    };
    let instance = asked.find_one().await?;
    let coercion = asked.coercion().await?;
    let validator = Validator::new(
        Keep::WhileTheSame,
        &[
            &instance.archive_key,
            &wanted_syntax,
            &edition(coercion.as_deref()),
            &format!("{frame:?} {drawing:?} {format:?}"),
        ],
    );
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let bytes = read_coerced(&asked.app.archive, &instance.archive_key, coercion).await?;
    let part = if let Some(format) = format {
        let drawn = decode(move || render::draw(&bytes, frame, &drawing, format)).await?;
        Part::new(format.media_type(), drawn)
    } else {
        let stored = instance.transfer_syntax_uid.trim_end_matches(['\0', ' ']);
        if wanted_syntax == stored || wanted_syntax == "*" {
            Part::new("application/dicom", bytes)
        } else if wanted_syntax == EXPLICIT {
            let explicit = decode(move || transcode::to_explicit_vr_little_endian(&bytes)).await?;
            Part::new("application/dicom", explicit)
        } else {
            return Err(HttpError::NotAcceptable(format!(
                "the object is stored in transfer syntax {stored}; ask for that or for {EXPLICIT}"
            )));
        }
    };
    Ok(validator.mark(part.alone(&asked.headers)))
}

fn window(center: Option<&str>, width: Option<&str>) -> Result<Option<Window>, HttpError> {
    let fault = || {
        HttpError::BadRequest(
            "windowCenter and windowWidth are numbers and go together; the width is at least 1".to_owned(),
        )
    };
    match (center, width) {
        (None, None) => Ok(None),
        (Some(center), Some(width)) => {
            let (center, width) = (
                center.parse().map_err(|_| fault())?,
                width.parse().map_err(|_| fault())?,
            );
            Window::new(center, width, Function::Linear)
                .map(Some)
                .ok_or_else(fault)
        }
        _ => Err(fault()),
    }
}
