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
        if !self.is_busy() && self.head.load(Ordering::Relaxed) == NO_HEAD {
            self.head.store(self.now(), Ordering::Relaxed);
        }
    }

    fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NO_HEAD - 1)
    }

    /// When the connection has been given enough time, as things stand.
    fn deadline(&self, patience: Patience) -> Deadline {
        let at = |millis: u64, patience| self.opened + Duration::from_millis(millis) + patience;
        match self.head.load(Ordering::Relaxed) {
            // A request has its own deadline.
            _ if self.is_busy() => Deadline::Idle(Instant::now() + patience.idle),
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
    let mut asked = false;
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
            // It was asked to go, and has gone its own way.
            Event::Ended(Err(_)) if asked && !activity.is_busy() => return End::Closed,
            Event::Ended(Err(error)) => return End::Broken(error),
            Event::Deadline(Deadline::Header(_)) => return End::SlowHeader,
            Event::Deadline(Deadline::Idle(_)) => {
                gone_by = Some(Instant::now() + patience.header);
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
            Event::Stop => {
                asked = true;
                connection.as_mut().graceful_shutdown();
            }
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

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};
    use hyper::Response;
    use hyper::body::{Bytes, Incoming};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(5),
        idle: Duration::from_secs(120),
    };
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n";

    /// What a client does.
    enum Step {
        Send(&'static [u8]),
        /// Reads one answer.
        Answer,
        Wait(u64),
        Stop,
    }
    use Step::{Answer, Send, Stop, Wait};

    /// How it ends, and after how many seconds.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Ended {
        Closed(u64),
        SlowHeader(u64),
        Broken(u64),
    }

    /// Serves one connection to a client that takes these steps, and then nothing more.
    #[track_caller]
    fn check(steps: &[Step], expected: Ended) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        assert_eq!(runtime.unwrap().block_on(ended(steps)), expected);
    }

    async fn ended(steps: &[Step]) -> Ended {
        let started = Instant::now();
        let (client, server) = tokio::io::duplex(4096);
        let stop = CancellationToken::new();
        let activity = Activity::new();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let under_way = activity.request();
            async move {
                let body = request.into_body().collect().await;
                drop(under_way);
                body.map(|_| Response::new(Full::<Bytes>::default()))
            }
        });
        let io = TokioIo::new(Watched::new(server, Arc::clone(&activity)));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(io, service);
        let serving = async {
            let end = drive(connection, &activity, PATIENCE, &stop).await;
            let seconds = started.elapsed().as_secs();
            match end {
                End::Closed => Ended::Closed(seconds),
                End::SlowHeader => Ended::SlowHeader(seconds),
                End::Broken(_) => Ended::Broken(seconds),
            }
        };
        let (ended, _client) = tokio::join!(serving, take(steps, client, &stop));
        ended
    }

    async fn take(
        steps: &[Step],
        mut client: DuplexStream,
        stop: &CancellationToken,
    ) -> DuplexStream {
        for step in steps {
            match step {
                Send(bytes) => client.write_all(bytes).await.unwrap(),
                Wait(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
                Stop => stop.cancel(),
                Answer => {
                    let mut answer = [0; 15];
                    client.read_exact(&mut answer).await.unwrap();
                    assert_eq!(&answer, b"HTTP/1.1 200 OK");
                    while !answer.ends_with(b"\r\n\r\n") {
                        answer.rotate_left(1);
                        answer[14] = client.read_u8().await.unwrap();
                    }
                }
            }
        }
        client
    }

    #[test]
    fn a_connection_may_be_idle_for_two_minutes_before_its_first_request_and_after_each() {
        check(&[], Ended::Closed(120));
        check(
            &[Wait(119), Send(HEAD), Send(b"{}"), Answer],
            Ended::Closed(239),
        );
        check(
            &[
                Send(HEAD),
                Send(b"{}"),
                Answer,
                Wait(90),
                Send(HEAD),
                Send(b"{}"),
                Answer,
            ],
            Ended::Closed(210),
        );
    }

    #[test]
    fn a_head_that_has_begun_must_end_in_five_seconds_whatever_trickles_in() {
        check(&[Send(b"P")], Ended::SlowHeader(5));
        check(&[Wait(60), Send(b"P")], Ended::SlowHeader(65));
        let trickle = [
            Send(b"P"),
            Wait(2),
            Send(b"O"),
            Wait(2),
            Send(b"S"),
            Wait(2),
        ];
        check(&trickle, Ended::SlowHeader(5));
        check(
            &[Send(HEAD), Send(b"{}"), Answer, Wait(30), Send(b"P")],
            Ended::SlowHeader(35),
        );
    }

    #[test]
    fn a_request_under_way_is_not_cut_off_here() {
        check(
            &[Send(HEAD), Wait(300), Send(b"{}"), Answer],
            Ended::Closed(420),
        );
    }

    #[test]
    fn at_the_end_an_idle_connection_goes_at_once_and_a_busy_one_with_its_answer() {
        check(&[Stop], Ended::Closed(0));
        check(
            &[Send(HEAD), Send(b"{}"), Answer, Wait(3), Stop],
            Ended::Closed(3),
        );
        check(
            &[Send(HEAD), Wait(1), Stop, Wait(1), Send(b"{}"), Answer],
            Ended::Closed(2),
        );
        check(&[Send(b"P"), Wait(1), Stop], Ended::SlowHeader(5));
    }

    #[test]
    fn what_is_not_http_breaks_the_connection() {
        check(&[Send(b"\x16\x03\x01\x02\x00")], Ended::Broken(0));
    }
}
