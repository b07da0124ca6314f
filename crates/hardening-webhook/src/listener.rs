//! Accepting connections, and serving reviews on them over TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Activity, End, Patience, Watched, drive};
use crate::limits::Limits;
use crate::log_limit::LogLimit;
use crate::metrics::{ConnectionError, Metrics, Raised};
use crate::router::Router;

/// Accepts connections until `stop`, and then waits as long as `drain` for those that are open. Each gets a
/// task of its own, so that a slow handshake holds up nobody else; `panicked` is called where one ends by a
/// defect.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    most: usize,
    drain: Duration,
    stop: &CancellationToken,
    panicked: impl Fn(),
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    let ended = |ended: Result<(), JoinError>| {
        if ended.is_err_and(|error| error.is_panic()) {
            panicked();
            tracing::error!("a connection ended because of a defect in this program");
        }
    };
    loop {
        // Connections beyond the limit wait in the kernel's queue.
        let accepting = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            (accepted, permit) = accepting => match accepted {
                Ok((stream, _)) => {
                    let connection = serve(stream);
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                    // Whoever connects again and again holds up nobody: what else is ready goes before the next one.
                    tokio::task::yield_now().await;
                }
                Err(error) => pause(&error).await,
            },
            Some(result) = connections.join_next() => ended(result),
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    let draining = async {
        while let Some(result) = connections.join_next().await {
            ended(result);
        }
    };
    if timeout(drain, draining).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "cutting off connections that did not end in time"
        );
    }
    connections.shutdown().await;
}

/// A connection that its peer gave up is nothing; anything else (no file descriptors left) would come back
/// at once.
async fn pause(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        tracing::warn!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Serves connections to the webhook, which share it.
pub(crate) struct WebhookConnections {
    pub(crate) tls: TlsAcceptor,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    /// Peers are asked to go elsewhere.
    pub(crate) draining: CancellationToken,
    /// Connections end with the requests that are under way.
    pub(crate) stop: CancellationToken,
    /// The requests of HTTP/2 connections.
    pub(crate) streams: TaskTracker,
    /// For handshakes that fail: whoever can reach the port can make them fail.
    pub(crate) log: LogLimit,
}

// === impl WebhookConnections ===

/// What the peer may send before it hears from us: a large review must not stall, and the body limit holds
/// whatever the window is.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// A review is taken in as few pieces as possible.
const FRAME: u32 = 256 << 10;
/// A peer that is gone without a word is found out by this.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

impl WebhookConnections {
    /// Serves a connection. Whoever connects and says nothing, or is gone again, costs little more than the socket: what a
    /// handshake needs, and all after it, is on the heap from the peer's first byte on.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream) {
        let (_open, _) = Raised::by_one(&self.metrics.connections);
        let deadline = Instant::now() + self.limits.handshake;
        match timeout_at(deadline, stream.peek(&mut [0])).await {
            // Gone again: nothing is set up for it.
            Ok(Ok(0)) => self.note_handshake(&io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Box::pin(self.talk(stream, deadline)).await,
            Ok(Err(error)) => self.note_handshake(&error),
            Err(_) => self.note_silence(),
        }
    }

    async fn talk(&self, stream: TcpStream, deadline: Instant) {
        // Answers are written whole; waiting for more would only delay them. Without it they are just late.
        let _ = stream.set_nodelay(true);
        match timeout_at(deadline, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                // On the heap, so that a connection that never gets so far does not hold the room for both.
                if is_http2 {
                    Box::pin(self.http2(stream)).await;
                } else {
                    Box::pin(self.http1(stream)).await;
                }
            }
            Ok(Err(error)) => self.note_handshake(&error),
            Err(_) => self.note_silence(),
        }
    }

    fn note_silence(&self) {
        self.metrics
            .connection_error(ConnectionError::HandshakeTimeout);
        tracing::debug!("a TLS handshake took too long");
    }

    /// Port scanners and TCP probes close a connection before they have said anything: that is not worth a
    /// warning. An API server that does not trust the certificate says so, and is.
    fn note_handshake(&self, error: &io::Error) {
        let is_unwelcome = is_unwelcome(error);
        self.metrics.connection_error(if is_unwelcome {
            ConnectionError::ClientCertificate
        } else {
            ConnectionError::Handshake
        });
        if error.kind() != io::ErrorKind::InvalidData {
            tracing::debug!(%error, "a TLS handshake broke off");
        } else if let Some(held_back) = self.log.admit() {
            tracing::warn!(%error, held_back, "a TLS handshake failed");
        }
    }

    async fn http1(&self, stream: tokio_rustls::server::TlsStream<TcpStream>) {
        let activity = Activity::new();
        let service = reviews(self.router.clone(), Arc::clone(&activity));
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let connection = http1().serve_connection(io, service);
        self.drive(connection, &activity, &self.stop).await;
    }

    async fn http2(&self, stream: tokio_rustls::server::TlsStream<TcpStream>) {
        let activity = Activity::new();
        let service = reviews(self.router.clone(), Arc::clone(&activity));
        let streams = u32::try_from(self.limits.in_flight).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(Tracked(self.streams.clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_concurrent_streams(streams)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // HTTP/1.1 asks the peer to go elsewhere with each answer; here the connection itself must. One that
        // was opened since has nowhere else to go, and stays until the end.
        let stop = if self.draining.is_cancelled() {
            &self.stop
        } else {
            &self.draining
        };
        self.drive(connection, &activity, stop).await;
    }

    async fn drive<C>(&self, connection: C, activity: &Activity, stop: &CancellationToken)
    where
        C: GracefulConnection,
        C::Error: std::error::Error + 'static,
    {
        let patience = Patience {
            header: self.limits.header,
            idle: self.limits.idle,
        };
        match drive(connection, activity, patience, stop).await {
            End::Closed => {}
            End::SlowHeader => {
                self.metrics
                    .connection_error(ConnectionError::HeaderTimeout);
                tracing::debug!("the head of a request took too long");
            }
            End::Broken(error) => {
                self.metrics.connection_error(ConnectionError::Broken);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection broke"
                );
            }
        }
    }
}

/// Whether it is the caller's certificate, or that it has none, that ended the handshake.
fn is_unwelcome(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_))
    )
}

// === HTTP ===

/// An API server's request has a dozen short headers.
const LARGEST_HEAD: usize = 16 << 10;

/// hyper would let a connection's buffer grow to twenty times as much, for whoever sends without an end.
const LARGEST_READ: usize = LARGEST_HEAD + (4 << 10);

/// HTTP/1.1 as both servers speak it.
pub(crate) fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Its own timeout for heads would close connections that an API server still counts on.
    builder
        .header_read_timeout(None)
        .max_header_size(LARGEST_HEAD)
        .max_buf_size(LARGEST_READ);
    builder
}

/// The webhook as a service of one connection.
fn reviews(
    router: Router,
    activity: Arc<Activity>,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
{
    service_fn(move |request| {
        let (router, under_way) = (router.clone(), activity.request());
        async move {
            // On the heap, so that a connection without a request does not hold the room for one.
            let response = Box::pin(router.respond(request)).await;
            drop(under_way);
            Ok(response)
        }
    })
}

/// Runs HTTP/2 requests as tasks that can be waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        // The tracker joins it.
        drop(self.0.spawn(future));
    }
}
