//! One connection, from its first byte to its end: deadlines for slow and idle clients, and a way to end it
//! that loses no answer.
//!
//! hyper's own timeout for a request's head also runs while a kept-alive connection waits for its next
//! request. So it cannot be both short enough against clients that send a head byte by byte and long enough
//! never to close a connection that an API server still counts on. Here the two are told apart: a head that
//! has begun must end soon, a connection without a request may stay.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a connection has been doing. The connection, its stream and its requests share it.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// When it was last used, in milliseconds since it was opened.
    used: AtomicU64,
    /// When the head began that has not ended yet, likewise; [`NO_HEAD`] where there is none.
    head: AtomicU64,
}

const NO_HEAD: u64 = u64::MAX;

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) header: Duration,
    pub(crate) idle: Duration,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End<E> {
    /// It was closed, by either side, at a good moment.
    Closed,
    /// The head of a request did not end in time.
    SlowHeader,
    /// It broke.
    Broken(E),
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            head: AtomicU64::new(NO_HEAD),
        })
    }

    /// A request's head is complete; the request lasts as long as what is returned.
    pub(crate) fn request(self: &Arc<Self>) -> Request {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.head.store(NO_HEAD, Ordering::Relaxed);
        Request(Arc::clone(self))
    }

    /// Something was read.
    fn read(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0
            && self.head.load(Ordering::Relaxed) == NO_HEAD
        {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NO_HEAD - 1)
    }

    /// When the connection has been given enough time, as things stand.
    fn deadline(&self, patience: Patience) -> Deadline {
        let at = |millis: u64, patience| self.opened + Duration::from_millis(millis) + patience;
        match self.head.load(Ordering::Relaxed) {
            // A request has its own deadline.
            _ if self.in_flight.load(Ordering::Relaxed) > 0 => {
                Deadline::Idle(Instant::now() + patience.idle)
            }
            NO_HEAD => Deadline::Idle(at(self.used.load(Ordering::Relaxed), patience.idle)),
            began => Deadline::Header(at(began, patience.header)),
        }
    }
}

/// When something must have happened.
enum Deadline {
    /// A request.
    Idle(Instant),
    /// The end of a request's head.
    Header(Instant),
    /// The end of a connection that was asked to go.
    Gone(Instant),
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request(Arc<Activity>);

impl Drop for Request {
    fn drop(&mut self) {
        let Self(activity) = self;
        activity.used.store(activity.now(), Ordering::Relaxed);
        activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

// === serving ===

/// Drives a connection to its end: until the peer closes it, it has been idle or slow for too long, or
/// `stop` says that it shall end with the requests that are under way.
pub(crate) async fn drive<C: GracefulConnection>(
    connection: C,
    activity: &Activity,
    patience: Patience,
    stop: &CancellationToken,
) -> End<C::Error> {
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + patience.idle));
    let mut stop = pin!(stop.cancelled().fuse());
    // When it must be gone, once it has been asked to go because it was idle.
    let mut gone_by = None;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(result));
            }
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Stop);
            }
            let deadline = || gone_by.map_or_else(|| activity.deadline(patience), Deadline::Gone);
            poll_deadline(timer.as_mut(), deadline, cx).map(Event::Deadline)
        });
        match event.await {
            Event::Ended(Ok(())) | Event::Deadline(Deadline::Gone(_)) => return End::Closed,
            Event::Ended(Err(error)) => return End::Broken(error),
            Event::Deadline(Deadline::Header(_)) => return End::SlowHeader,
            Event::Deadline(Deadline::Idle(_)) => {
                gone_by = Some(Instant::now() + patience.header);
                connection.as_mut().graceful_shutdown();
            }
            Event::Stop => connection.as_mut().graceful_shutdown(),
        }
    }
}

enum Event<E> {
    Ended(Result<(), E>),
    Stop,
    Deadline(Deadline),
}

/// Ready with the deadline that has passed. The timer is set no more often than it must be: a deadline that
/// has moved away is looked at again when the timer fires.
fn poll_deadline(
    mut timer: Pin<&mut Sleep>,
    deadline: impl Fn() -> Deadline,
    cx: &mut Context<'_>,
) -> Poll<Deadline> {
    loop {
        let deadline = deadline();
        let (Deadline::Idle(at) | Deadline::Header(at) | Deadline::Gone(at)) = deadline;
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if at <= Instant::now() {
            return Poll::Ready(deadline);
        }
        timer.as_mut().reset(at);
    }
}

// === the stream ===

/// A stream that tells when something is read from it.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
