//! Rendered retrieval: `…/rendered` and `…/thumbnail` → pictures as a browser shows them.
//!
//! One picture is sent alone or as the only part; several are parts, each with the address of its instance.
//! Of an object with several frames the representative one stands for it, else the first.
//! Nothing is burnt in: a client that asks for annotations is told so.
//! Pictures are for a quick look: they have lost range and depth, and no mask or doubt is drawn in.
//!
//! Source: PS3.18 sections 8.3.5 and 10.4.1.1.3 to 10.4.1.1.6.

use super::{
    media::MediaType,
    parts::{Keep, Part, Validator, multipart},
    retrieve::{Evicted, OfFrames, OfInstance, OfSeries, OfStudy, Refused, Retrieval, decode, read},
    stow::warning,
};
use crate::{
    archive::Archive,
    db::qido::StoredFile,
    dicom::render::{self, Drawing, Format, Function, MAX_SIDE, Viewport, Window},
    http::error::HttpError,
};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};

/// The quality of a JPEG when nobody says.
const QUALITY: u8 = 90;
/// The longest side of a thumbnail when nobody says.
const THUMBNAIL: u32 = 128;

/// How pictures are asked for.
struct Asking {
    drawing: Drawing,
    quality: u8,
    warnings: Vec<String>,
}

/// The parameters of a picture, for the OpenAPI document.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct Look {
    /// `CENTER,WIDTH,linear|linear-exact|sigmoid`
    window: Option<String>,
    /// `WIDTH,HEIGHT[,LEFT,TOP,WIDTH,HEIGHT]`: the size to fit into, and the part to show
    viewport: Option<String>,
    /// of a JPEG, 1 to 100
    quality: Option<u8>,
}

impl Asking {
    fn new(asked: &Retrieval) -> Result<Self, HttpError> {
        let mut asking = Self {
            drawing: Drawing::default(),
            quality: QUALITY,
            warnings: Vec::new(),
        };
        for (name, value) in &asked.query {
            match name.to_ascii_lowercase().as_str() {
                "window" => asking.drawing.window = Some(window(value)?),
                "viewport" => asking.drawing.viewport = Some(viewport(value)?),
                "quality" => asking.quality = quality(value)?,
                "annotation" => {
                    let known = |word: &str| matches!(word.trim(), "patient" | "technique");
                    if !value.split(',').all(known) {
                        return Err(HttpError::BadRequest(
                            "annotation takes `patient`, `technique` or both".to_owned(),
                        ));
                    }
                    asking.warnings.push(format!(
                        "The following annotation values are not supported: {value}"
                    ));
                }
                "iccprofile" if value != "no" => {
                    asking.warnings.push("ICC profiles are not supported.".to_owned());
                }
                _ => {}
            }
        }
        Ok(asking)
    }
}

/// `CENTER,WIDTH,FUNCTION` (PS3.18 section 8.3.5.1.4).
fn window(text: &str) -> Result<Window, HttpError> {
    let pieces: Vec<&str> = text.split(',').map(str::trim).collect();
    let parsed = match pieces[..] {
        [center, width, function] => center
            .parse()
            .ok()
            .zip(width.parse().ok())
            .zip(function.parse::<Function>().ok())
            .and_then(|((center, width), function)| Window::new(center, width, function)),
        _ => None,
    };
    parsed.ok_or_else(|| {
        HttpError::BadRequest(
            "window is CENTER,WIDTH,FUNCTION with a width of at least 1 and a function linear, linear-exact or \
             sigmoid"
                .to_owned(),
        )
    })
}

/// `WIDTH,HEIGHT[,LEFT,TOP,WIDTH,HEIGHT]` (PS3.18 section 8.3.5.1.3).
fn viewport(text: &str) -> Result<Viewport, HttpError> {
    let fault = || {
        HttpError::BadRequest(format!(
            "viewport is WIDTH,HEIGHT from 1 to {MAX_SIDE}, and behind it LEFT,TOP,WIDTH,HEIGHT of the part"
        ))
    };
    let numbers: Option<Vec<Option<f64>>> = text
        .split(',')
        .map(str::trim)
        .map(|piece| match piece {
            "" => Some(None),
            piece => piece.parse().ok().filter(|n: &f64| n.is_finite()).map(Some),
        })
        .collect();
    let side = |number: f64| {
        let fits = number.fract() == 0.0 && (1.0..=f64::from(MAX_SIDE)).contains(&number);
        fits.then(|| render::pixels(number))
    };
    let pair = |width: f64, height: f64| side(width).zip(side(height));
    let parsed = match numbers.ok_or_else(fault)?[..] {
        [Some(width), Some(height)] => pair(width, height).map(|size| Viewport { size, region: None }),
        [Some(width), Some(height), left, top, columns, rows]
            if columns != Some(0.0) && rows != Some(0.0) =>
        {
            // What is left out reaches to the edges of the image.
            let reach = |length: Option<f64>| length.unwrap_or(f64::INFINITY);
            let region = [
                left.unwrap_or(0.0),
                top.unwrap_or(0.0),
                reach(columns),
                reach(rows),
            ];
            pair(width, height).map(|size| Viewport {
                size,
                region: Some(region),
            })
        }
        _ => None,
    };
    parsed.ok_or_else(fault)
}

fn quality(text: &str) -> Result<u8, HttpError> {
    text.parse()
        .ok()
        .filter(|quality| (1..=100).contains(quality))
        .ok_or_else(|| HttpError::BadRequest("quality is a whole number from 1 to 100".to_owned()))
}

/// The format and whether it comes in parts, by the first type that is accepted and can be sent.
fn choose(asked: &Retrieval, single: bool, quality: u8) -> Result<(Format, bool), HttpError> {
    let jpeg = Format::Jpeg { quality };
    let format = |essence: &str| match essence {
        "image/jpeg" | "image/*" | "*/*" => Some(jpeg),
        "image/png" => Some(Format::Png),
        "image/gif" => Some(Format::Gif),
        _ => None,
    };
    let one = |media: &MediaType| match media.essence.as_str() {
        "multipart/related" | "multipart/*" => {
            let root = media.parameter("type").unwrap_or("*/*").to_ascii_lowercase();
            format(&root).map(|format| (format, true))
        }
        "*/*" => Some((jpeg, !single)),
        essence if single => format(essence).map(|format| (format, false)),
        _ => None,
    };
    let accept = asked.accept();
    if accept.is_open() {
        return Ok((jpeg, !single));
    }
    accept.essences().find_map(one).ok_or_else(|| {
        HttpError::NotAcceptable(
            "pictures are sent as image/jpeg, image/png or image/gif, several of them as multipart/related; \
             type=\"image/jpeg\"; accept one of them"
                .to_owned(),
        )
    })
}

/// A picture that will be drawn.
struct Sitting {
    archive_key: String,
    frame: Option<u32>,
    location: String,
}

impl Sitting {
    async fn draw(self, archive: &Archive, drawing: Drawing, format: Format) -> Result<Part, HttpError> {
        let bytes = read(archive, &self.archive_key).await?;
        let drawn = decode(move || render::draw(&bytes, self.frame, &drawing, format)).await?;
        Ok(Part::new(format.media_type(), drawn).at(self.location))
    }
}

fn is_image(instance: &StoredFile) -> bool {
    instance.rows.is_some_and(|rows| rows > 0)
}

fn no_image() -> HttpError {
    HttpError::NotAcceptable("there is no image in it that could be drawn".to_owned())
}

async fn render_all(asked: Retrieval, single: bool) -> Result<Response, HttpError> {
    let asking = Asking::new(&asked)?;
    let frames = asked.frames.clone();
    let single = single && frames.as_ref().is_none_or(|frames| frames.len() == 1);
    let (format, multiple) = choose(&asked, single, asking.quality)?;
    let mut sittings = Vec::new();
    for instance in asked.find().await?.into_iter().filter(is_image) {
        let url = asked.url(&instance.series_instance_uid, &instance.sop_instance_uid);
        let wanted = match &frames {
            Some(frames) => frames.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        sittings.extend(wanted.into_iter().map(|frame| Sitting {
            archive_key: instance.archive_key.clone(),
            frame,
            location: match frame {
                Some(frame) => format!("{url}/frames/{frame}/rendered"),
                None => format!("{url}/rendered"),
            },
        }));
    }
    send(asked, asking, format, multiple, sittings).await
}

/// The picture that stands for everything that was named.
async fn thumbnail(asked: Retrieval) -> Result<Response, HttpError> {
    let mut asking = Asking::new(&asked)?;
    if asking
        .drawing
        .viewport
        .is_some_and(|viewport| viewport.region.is_some())
    {
        return Err(HttpError::BadRequest(
            "the viewport of a thumbnail is WIDTH,HEIGHT and nothing else".to_owned(),
        ));
    }
    let (format, multiple) = choose(&asked, true, asking.quality)?;
    asking.drawing.viewport.get_or_insert(Viewport {
        size: (THUMBNAIL, THUMBNAIL),
        region: None,
    });
    let mut images: Vec<StoredFile> = asked.find().await?.into_iter().filter(is_image).collect();
    // Of several series the first with an acquired image; of a series its middle.
    let of_acquired = images
        .iter()
        .find(|instance| instance.original)
        .or(images.first())
        .map(|instance| instance.series_instance_uid.clone());
    images.retain(|instance| Some(&instance.series_instance_uid) == of_acquired.as_ref());
    if images.is_empty() {
        return Err(no_image());
    }
    let instance = images.swap_remove(images.len() / 2);
    let middle = |frames: i32| u32::try_from(frames / 2 + 1).ok();
    let frame = match &asked.frames {
        Some(frames) => frames.first().copied(),
        None => instance
            .number_of_frames
            .filter(|&frames| frames > 1)
            .and_then(middle),
    };
    let location = format!(
        "{}/thumbnail",
        asked.url(&instance.series_instance_uid, &instance.sop_instance_uid)
    );
    let sitting = Sitting {
        archive_key: instance.archive_key,
        frame,
        location,
    };
    send(asked, asking, format, multiple, vec![sitting]).await
}

async fn send(
    asked: Retrieval,
    asking: Asking,
    format: Format,
    multiple: bool,
    sittings: Vec<Sitting>,
) -> Result<Response, HttpError> {
    let look = format!("{:?} {format:?} {multiple}", asking.drawing);
    let frames = format!("{:?}", asked.frames);
    let mut pieces: Vec<&str> = vec![&look, &frames];
    pieces.extend(sittings.iter().map(|sitting| sitting.archive_key.as_str()));
    let validator = Validator::new(Keep::WhileTheSame, &pieces);
    if let Some(answer) = validator.not_modified(&asked.headers) {
        return Ok(answer);
    }
    let (archive, drawing) = (asked.app.archive.clone(), asking.drawing);
    let mut pictures = stream::iter(sittings)
        .then(move |sitting| {
            let archive = archive.clone();
            async move { sitting.draw(&archive, drawing, format).await }
        })
        .boxed();
    // The first is drawn before the head of the answer, so that a fault there is told as one.
    let first = pictures.next().await.ok_or_else(no_image)??;
    let mut response = if multiple {
        multipart(format.media_type(), stream::iter([Ok(first)]).chain(pictures))
    } else {
        first.alone(&asked.headers)
    };
    for text in asking.warnings {
        if let Some(value) = warning(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(validator.mark(response.into_response()))
}

/// Draws the images of a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/rendered", tag = "WADO-RS", operation_id = "render_study",
    params(OfStudy, Look),
    responses((status = 200, description = "a picture an image", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn study(asked: Retrieval) -> Result<Response, HttpError> {
    render_all(asked, false).await
}

/// Draws the images of a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/rendered", tag = "WADO-RS", operation_id = "render_series",
    params(OfSeries, Look),
    responses((status = 200, description = "a picture an image", content_type = "multipart/related"), Refused, Evicted)
)]
pub(crate) async fn series(asked: Retrieval) -> Result<Response, HttpError> {
    render_all(asked, false).await
}

/// Draws an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered", tag = "WADO-RS",
    operation_id = "render_instance", params(OfInstance, Look),
    responses((status = 200, description = "the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn instance(asked: Retrieval) -> Result<Response, HttpError> {
    render_all(asked, true).await
}

/// Draws frames of an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
    tag = "WADO-RS", operation_id = "render_frames", params(OfFrames, Look),
    responses((status = 200, description = "the picture, or one a part", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn frames(asked: Retrieval) -> Result<Response, HttpError> {
    render_all(asked, true).await
}

/// A small picture that stands for a study.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/thumbnail", tag = "WADO-RS", operation_id = "study_thumbnail",
    params(OfStudy, Look),
    responses((status = 200, description = "the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn study_thumbnail(asked: Retrieval) -> Result<Response, HttpError> {
    thumbnail(asked).await
}

/// A small picture that stands for a series.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/thumbnail", tag = "WADO-RS",
    operation_id = "series_thumbnail", params(OfSeries, Look),
    responses((status = 200, description = "the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn series_thumbnail(asked: Retrieval) -> Result<Response, HttpError> {
    thumbnail(asked).await
}

/// A small picture of an instance.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail", tag = "WADO-RS",
    operation_id = "instance_thumbnail", params(OfInstance, Look),
    responses((status = 200, description = "the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn instance_thumbnail(asked: Retrieval) -> Result<Response, HttpError> {
    thumbnail(asked).await
}

/// A small picture of a frame.
#[utoipa::path(
    get, path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail",
    tag = "WADO-RS", operation_id = "frame_thumbnail", params(OfFrames, Look),
    responses((status = 200, description = "the picture", content_type = "image/jpeg"), Refused, Evicted)
)]
pub(crate) async fn frame_thumbnail(asked: Retrieval) -> Result<Response, HttpError> {
    thumbnail(asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_windows_and_viewports() {
        let window = window("40,80,linear").unwrap();
        assert_eq!(
            (window.center, window.width, window.function),
            (40.0, 80.0, Function::Linear)
        );
        for bad in ["40,80", "a,80,linear", "40,0,linear", "40,80,cubic", ""] {
            assert!(super::window(bad).is_err(), "{bad}");
        }
        assert_eq!(viewport("64,32").unwrap().size, (64, 32));
        let part = viewport("64,32,,,-100,50").unwrap().region;
        assert_eq!(part, Some([0.0, 0.0, -100.0, 50.0]));
        let rest = viewport("64,32,10,20,,").unwrap().region;
        assert_eq!(rest, Some([10.0, 20.0, f64::INFINITY, f64::INFINITY]));
        for bad in ["64", "0,32", "64,32,1", "64.5,32", "64,99999", "64,32,0,0,0,5"] {
            assert!(viewport(bad).is_err(), "{bad}");
        }
        assert!(quality("0").is_err() && quality("101").is_err() && quality("100").is_ok());
    }
}
