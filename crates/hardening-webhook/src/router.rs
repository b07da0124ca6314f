//! The webhook's HTTP: one path, one method, and an answer to whatever else comes.
//!
//! Works on any body, so that it can be tried without a socket.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

use crate::body::{self, Budget};
use crate::handler::Handler;
use crate::limits::Limits;
use crate::log_limit::LogLimit;
use crate::metrics::{Metrics, Outcome, Raised};
use crate::refusal::{Refusal, Refused};

/// The path at which reviews are answered.
pub const PATH: &str = "/mutate";

/// Makes the span in which a request is answered.
pub type ReviewSpan = fn(&HeaderMap) -> Span;

/// Answers HTTP requests. Clones share everything.
#[derive(Clone, Debug)]
pub struct Router {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    handler: Handler,
    limits: Limits,
    bodies: Budget,
    metrics: Metrics,
    log: LogLimit,
    span: Option<ReviewSpan>,
    /// Whether clients are asked to go elsewhere.
    draining: AtomicBool,
}

/// A request was refused, and whether the connection can be used again.
struct Rejection {
    refused: Refused,
    body_read: bool,
}

// === impl Router ===

impl Router {
    /// A router in front of `handler`.
    #[must_use]
    pub fn new(
        handler: Handler,
        limits: Limits,
        metrics: Metrics,
        span: Option<ReviewSpan>,
    ) -> Self {
        let bodies = Budget::new(limits.buffered);
        let draining = AtomicBool::new(false);
        Self {
            shared: Arc::new(Shared {
                handler,
                limits,
                bodies,
                metrics,
                log: LogLimit::new(),
                span,
                draining,
            }),
        }
    }

    /// From now on every answer asks the client to close its connection.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Answers a request, whatever happens.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Shared {
            limits,
            metrics,
            span,
            draining,
            ..
        } = &*self.shared;
        let started = Instant::now();
        let (_in_flight, others) = Raised::by_one(&metrics.in_flight);
        // HTTP/2 has other means, and forbids the header.
        let old_http = request.version() < Version::HTTP_2;
        let span = span.map_or_else(Span::none, |make| make(request.headers()));
        let answering = self.answer(request, started + limits.request, others);
        let answering = AssertUnwindSafe(answering.instrument(span));
        let answered = answering.catch_unwind().await.unwrap_or_else(|_| {
            Err(Rejection {
                refused: Refused::without_uid(Refusal::Panic),
                body_read: false,
            })
        });
        let (mut response, outcome, reusable) = match answered {
            Ok((json, outcome)) => (json_response(StatusCode::OK, json), outcome, true),
            Err(Rejection { refused, body_read }) => {
                let outcome = self.note(&refused);
                (refusal_response(&refused), outcome, body_read)
            }
        };
        if old_http && (!reusable || draining.load(Ordering::Relaxed)) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        metrics.reviewed(outcome, started.elapsed());
        response
    }

    async fn answer<B>(
        &self,
        request: Request<B>,
        deadline: Instant,
        others: i64,
    ) -> Result<(Vec<u8>, Outcome), Rejection>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Shared {
            handler,
            limits,
            bodies,
            ..
        } = &*self.shared;
        let (head, body) = request.into_parts();
        let mut body = pin!(body);
        let checked = match usize::try_from(others) {
            Ok(others) if others >= limits.in_flight => Err(Refusal::Overload),
            _ => check(&head.method, head.uri.path(), &head.headers),
        };
        let mut share = bodies.share();
        let collected = match checked {
            Ok(()) => {
                let collecting = body::collect(body.as_mut(), limits.body, &mut share);
                timeout_at(deadline, collecting)
                    .await
                    .unwrap_or(Err(Refusal::Deadline(limits.request)))
            }
            Err(why) => Err(why),
        };
        match collected {
            Ok(bytes) => handler
                .answer(&bytes, deadline)
                .await
                .map_err(|refused| Rejection {
                    refused,
                    body_read: true,
                }),
            Err(why) => {
                // Nothing is kept of what is read from here on.
                drop(share);
                let body_read = self.read_off(&head.headers, body, deadline).await;
                Err(Rejection {
                    refused: Refused::without_uid(why),
                    body_read,
                })
            }
        }
    }

    /// Reads what is left of a body that nobody wants; whether its end was reached.
    async fn read_off<B>(&self, headers: &HeaderMap, body: Pin<&mut B>, deadline: Instant) -> bool
    where
        B: Body<Data = Bytes>,
    {
        if body.is_end_stream() {
            return true;
        }
        // Reading would tell a client that asks first to go on and send.
        if headers.contains_key(header::EXPECT) {
            return false;
        }
        let reading = body::discard(body, self.shared.limits.body.saturating_mul(2));
        timeout_at(deadline, reading).await.unwrap_or(false)
    }

    fn note(&self, refused: &Refused) -> Outcome {
        let Refused { uid, why } = refused;
        let kind = why.kind();
        self.shared.metrics.error(kind);
        if let Some(held_back) = self.shared.log.admit() {
            let uid = uid.as_deref().unwrap_or_default();
            let status = why.status().as_u16();
            tracing::warn!(uid, kind = kind.name(), status, held_back, "{why}");
        }
        if why.status().is_client_error() {
            Outcome::Refused
        } else {
            Outcome::Failed
        }
    }
}

/// Whether this is a request for a review, as far as its head says.
fn check(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if path != PATH {
        return Err(Refusal::Path);
    }
    if method != Method::POST {
        return Err(Refusal::Method);
    }
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
    {
        return Err(Refusal::ContentEncoding);
    }
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    let media_type = content_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    if !media_type
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
    {
        return Err(Refusal::ContentType);
    }
    Ok(())
}

fn json_response(status: StatusCode, json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn refusal_response(refused: &Refused) -> Response<Full<Bytes>> {
    let mut response = json_response(refused.why.status(), refused.to_status());
    match refused.why {
        Refusal::Overload => {
            // The one header that makes an API server try again.
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Refusal::Method => {
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    response
}
