//! Every error that reaches the edge → `application/problem+json`; the only such mapping.
//!
//! An answer of class 5xx says nothing but the request id; the chain of causes is logged once, under the same id.
//! The body is written by [`render`], which knows the id, and not where the error arose.
//!
//! Source: RFC 9457.

use crate::domain::failure::FailureClass;
use axum::{
    Json,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The header that names a request in answers and logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// No key, or an unknown one.
    #[error("this server wants to know who asks: sign in, or send `Authorization: Bearer KEY`")]
    Unauthorized,
    /// Name and password do not belong together.
    #[error("{0}")]
    SignIn(String),
    /// Too many attempts.
    #[error("{0}")]
    TooManyRequests(String),
    /// It was changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// The key does not allow it, or the request came through another site's name.
    #[error("{0}")]
    Forbidden(String),
    /// Nothing of that name is stored.
    #[error("{0}")]
    NotFound(String),
    /// It was here, and is not any more.
    #[error("{0}")]
    Gone(String),
    /// There is no room for what is sent.
    #[error("{0}")]
    Full(String),
    /// None of the accepted media types or transfer syntaxes can be sent.
    #[error("{0}")]
    NotAcceptable(String),
    /// The body is larger than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The body is not of a type that is taken here.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// Something that we need is out of reach for now.
    #[error("{what}")]
    Unavailable {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Source,
    },
    /// We are at fault.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Source,
    },
}

/// A cause of any module.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

impl HttpError {
    /// An error of another module, by its class; `what` was being done.
    pub fn of(class: FailureClass, what: &'static str, source: impl Into<Source>) -> Self {
        let source = source.into();
        match class {
            FailureClass::Input => Self::BadRequest(source.to_string()),
            FailureClass::Transient => Self::Unavailable { what, source },
            FailureClass::Internal => Self::Internal { what, source },
        }
    }

    /// How the failure is treated.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Unavailable { .. } | Self::Full(_) => FailureClass::Transient,
            Self::Internal { .. } => FailureClass::Internal,
            Self::BadRequest(_)
            | Self::Unauthorized
            | Self::SignIn(_)
            | Self::TooManyRequests(_)
            | Self::Conflict(_)
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Gone(_)
            | Self::NotAcceptable(_)
            | Self::TooLarge(_)
            | Self::UnsupportedMediaType(_) => FailureClass::Input,
        }
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::SignIn(_) => StatusCode::UNAUTHORIZED,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Gone(_) => StatusCode::GONE,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unavailable { .. } | Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The error of a response on its way to [`render`].
#[derive(Debug, Clone)]
struct Pending(Arc<HttpError>);

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if matches!(self, Self::Unauthorized) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self, Self::Unavailable { .. } | Self::Full(_)) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response.extensions_mut().insert(Pending(Arc::new(self)));
        response
    }
}

/// The body of a failed request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says which kind it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The phrase of the status.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What was found, what is allowed and what to do; of a 5xx only the request id.
    pub detail: String,
    /// Names the request in the log.
    pub request_id: String,
}

/// Middleware: gives failed responses their body.
pub async fn render(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let request_id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let described = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/"));
    let pending = response.extensions_mut().remove::<Pending>();
    if !(status.is_client_error() || status.is_server_error()) || (pending.is_none() && described) {
        return response;
    }
    let detail = if status.is_server_error() {
        log(status, &request_id, pending.as_ref());
        match &pending {
            // Nothing of ours is wrong, and the sender has to know what is.
            Some(Pending(error)) if matches!(**error, HttpError::Full(_)) => error.to_string(),
            _ => {
                format!("The request failed on the server's side; its log has the reason under {request_id}.")
            }
        }
    } else {
        match &pending {
            Some(Pending(error)) => error.to_string(),
            None => plain(status, &method),
        }
    };
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail,
        request_id,
    };
    let mut answer = (status, Json(problem)).into_response();
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    for name in [
        header::WWW_AUTHENTICATE,
        header::RETRY_AFTER,
        header::ALLOW,
        header::WARNING,
    ] {
        if let Some(value) = response.headers().get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// Words for what axum itself refuses; its own texts may quote the request.
fn plain(status: StatusCode, method: &Method) -> String {
    match status {
        StatusCode::NOT_FOUND => {
            "There is no such resource; /api/openapi.json lists what there is.".to_owned()
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{method} is not possible here; the Allow header lists what is.")
        }
        StatusCode::REQUEST_TIMEOUT => "The request took too long.".to_owned(),
        _ => "The request is malformed; /api/openapi.json describes what is expected.".to_owned(),
    }
}

fn log(status: StatusCode, request_id: &str, pending: Option<&Pending>) {
    let mut chain = String::new();
    let mut cause = pending.map(|Pending(error)| error.as_ref() as &dyn std::error::Error);
    while let Some(error) = cause {
        if !chain.is_empty() {
            chain.push_str(": ");
        }
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    tracing::error!(
        status = status.as_u16(),
        request_id,
        error = chain,
        "request failed"
    );
}
