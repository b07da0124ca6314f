//! The other port: `/livez`, `/readyz` and `/metrics`, over plain HTTP.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus_client::registry::Registry;

use crate::health::Readiness;

/// Answers probes and scrapes. Clones share everything.
#[derive(Clone, Debug)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Admin {
    /// Tells about `readiness` and what is registered in `registry`.
    #[must_use]
    pub fn new(readiness: Readiness, registry: Arc<Registry>) -> Self {
        Self {
            readiness,
            registry,
        }
    }

    /// Answers a request.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = page(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "GET and HEAD only\n".to_owned(),
            );
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => {
                let (ready, report) = self.readiness.report();
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                page(status, TEXT, report)
            }
            "/metrics" => {
                let mut metrics = String::new();
                match prometheus_client::encoding::text::encode(&mut metrics, &self.registry) {
                    Ok(()) => page(StatusCode::OK, OPEN_METRICS, metrics),
                    Err(error) => page(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        TEXT,
                        format!("{error}\n"),
                    ),
                }
            }
            _ => page(
                StatusCode::NOT_FOUND,
                TEXT,
                "there are /livez, /readyz and /metrics\n".to_owned(),
            ),
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
