//! The real router on a database of its own, and requests to it.

use crate::support::World;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use ictus::{
    http::{
        App, Limits,
        api::version::Version,
        auth::{Access, Keys, Role, key_line},
        cors::Origin,
        metrics::Metrics,
        router,
    },
    review::oidc::Oidc,
};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceExt;

/// The boundary of the bodies that [`multipart`] makes.
pub(crate) const BOUNDARY: &str = "----test-boundary";
/// The Content-Type that goes with them.
pub(crate) const MULTIPART: &str =
    "multipart/related; type=\"application/dicom\"; boundary=\"----test-boundary\"";

/// A server without a socket.
pub(crate) struct Server {
    /// What it stands on.
    pub(crate) world: World,
    /// Ends its streams.
    pub(crate) stop: watch::Sender<bool>,
    router: Router,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Server {
    /// Without keys, as on loopback.
    pub(crate) async fn new() -> Self {
        Self::with(
            Access::new(None, [127, 0, 0, 1].into()).unwrap(),
            Limits::default(),
        )
        .await
    }

    /// With a key of each role; the key is the role's name.
    pub(crate) async fn with_keys() -> Self {
        Self::with_keys_and_origins(&[]).await
    }

    /// The same, and these origins' pages may use DICOMweb.
    pub(crate) async fn with_keys_and_origins(origins: &[&str]) -> Self {
        let lines: Vec<String> = [Role::Viewer, Role::Sender, Role::Operator]
            .into_iter()
            .map(|role| key_line(&format!("the-{}", role.as_str()), role, role.as_str()).unwrap())
            .collect();
        let keys = Keys::parse(&lines.join("\n")).unwrap();
        Self::on(
            World::new().await,
            Access::Keys(keys),
            Limits::default(),
            None,
            origins,
        )
        .await
    }

    /// Without keys, and these origins' pages may use DICOMweb.
    pub(crate) async fn with_origins(origins: &[&str]) -> Self {
        let access = Access::new(None, [127, 0, 0, 1].into()).unwrap();
        Self::on(World::new().await, access, Limits::default(), None, origins).await
    }

    /// With limits of the test's own.
    pub(crate) async fn with(access: Access, limits: Limits) -> Self {
        Self::with_provider(access, limits, None).await
    }

    /// With an OpenID provider.
    pub(crate) async fn with_provider(access: Access, limits: Limits, oidc: Option<Arc<Oidc>>) -> Self {
        Self::on(World::new().await, access, limits, oidc, &[]).await
    }

    /// Without keys, on a world that was prepared.
    pub(crate) async fn of(world: World) -> Self {
        let access = Access::new(None, [127, 0, 0, 1].into()).unwrap();
        Self::on(world, access, Limits::default(), None, &[]).await
    }

    async fn on(
        world: World,
        access: Access,
        limits: Limits,
        oidc: Option<Arc<Oidc>>,
        origins: &[&str],
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let app = App {
            db: world.db.clone(),
            archive: world.archive.clone(),
            receiver: world.receiver.clone(),
            events: world.db.listen().await.unwrap(),
            metrics: Arc::new(Metrics::default()),
            version: Arc::new(Version::new(Vec::new(), None)),
            limits,
            station: Arc::from("ICTUS"),
            allow_origins: origins
                .iter()
                .map(|origin| origin.parse::<Origin>().unwrap())
                .collect(),
            oidc,
            stopping,
        };
        Self {
            world,
            stop,
            router: router(app, access),
        }
    }

    /// Serves on a socket, too, while the test runs; says where.
    pub(crate) async fn listen(&self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }

    /// The answer to a request, its body unread.
    pub(crate) async fn respond(&self, mut request: Request<Body>) -> axum::response::Response {
        request
            .headers_mut()
            .entry(header::HOST)
            .or_insert("localhost".parse().unwrap());
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.respond(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// A GET with headers.
    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(Method::GET, path, headers, Body::empty()))
            .await
    }

    /// A POST without a body.
    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(request(Method::POST, path, &[], Body::empty())).await
    }

    /// A STOW of parts to `/dicom-web/studies`.
    pub(crate) async fn stow(&self, parts: &[Vec<u8>]) -> Answer {
        let body = multipart(parts);
        self.send(request(
            Method::POST,
            "/dicom-web/studies",
            &[("content-type", MULTIPART)],
            body.into(),
        ))
        .await
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text, empty when it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The bodies of a multipart answer, split by hand: the test must not share the parser that it tests.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u8>)> {
        let kind = self.header("content-type");
        let boundary = kind.split("boundary=").nth(1).unwrap();
        let opening = format!("--{boundary}\r\n").into_bytes();
        let closing = format!("\r\n--{boundary}--\r\n").into_bytes();
        let inner = self
            .body
            .strip_prefix(&opening[..])
            .unwrap()
            .strip_suffix(&closing[..])
            .unwrap();
        let between = format!("\r\n--{boundary}\r\n").into_bytes();
        split(inner, &between)
            .into_iter()
            .map(|part| {
                let at = part.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
                (
                    String::from_utf8(part[..at].to_vec()).unwrap(),
                    part[at + 4..].to_vec(),
                )
            })
            .collect()
    }
}

fn split<'a>(mut bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while let Some(place) = bytes.windows(at.len()).position(|window| window == at) {
        pieces.push(&bytes[..place]);
        bytes = &bytes[place + at.len()..];
    }
    pieces.push(bytes);
    pieces
}

/// Any request.
pub(crate) fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

/// A body of DICOM parts.
pub(crate) fn multipart(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n").as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}
