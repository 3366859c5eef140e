//! The handlers' annotations → the OpenAPI document at `/api/openapi.json` and its reader at `/api/docs`.
//!
//! The reader is embedded: nothing is loaded from elsewhere.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::SwaggerUi;

/// Where the document is.
pub const DOCUMENT: &str = "/api/openapi.json";
/// Where its reader is.
pub const READER: &str = "/api/docs";

/// The document without its paths, which the router adds.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "ictus", description = "Head CT in, masks with honest uncertainty out. Not for clinical use."),
    modifiers(&Key),
    security((), ("key" = [])),
    tags(
        (name = "STOW-RS", description = "Instances in (PS3.18 section 10.5)"),
        (name = "QIDO-RS", description = "Searches (PS3.18 section 10.6)"),
        (name = "WADO-RS", description = "Instances out (PS3.18 section 10.4)"),
        (name = "WADO-URI", description = "Instances out, as viewers of the old kind ask (PS3.18 chapter 9)"),
        (name = "UPS-RS", description = "Workitems, by which a task manager drives analyses (PS3.18 chapter 11)"),
        (name = "storage commitment", description = "Whether instances are kept (PS3.18 chapter 13)"),
        (name = "page", description = "What the page shows and asks for"),
        (name = "operation", description = "For those who run it"),
    )
)]
pub struct Document;

struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key; wanted when the server runs with --key-file."))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The routes of the document and its reader.
#[must_use]
pub fn routes(document: utoipa::openapi::OpenApi) -> SwaggerUi {
    SwaggerUi::new(READER).url(DOCUMENT, document)
}
