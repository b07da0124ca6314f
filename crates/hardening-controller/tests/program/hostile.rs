//! Clients that mean harm, a thousand of them at once, and calls that must be answered all the same.
//!
//! Nothing here is timed to pass or fail: `make bench-hostile` shows how much longer honest calls take.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::serving::{ca, serve_with};
use crate::support::{DEADLINE, Server, TlsStream, get, review, review_of, tls};

/// Hostile clients of each kind.
const EACH: usize = 200;

/// What may be resident at most, in KiB, besides the pages of the program itself, of 64 MiB: those of the program
/// that is tested here are far more than those of an optimised one.
const MOST_MEMORY: usize = 56 << 10;

/// Honest calls before and while there are hostile clients: few, unless somebody wants figures.
fn honest() -> usize {
    std::env::var("HARDENING_HONEST_CALLS").map_or(50, |calls| calls.parse().unwrap())
}

/// How often the crowd comes and goes: once, unless somebody wants figures, which whatever else the machine does is to
/// hit with and without the crowd alike.
fn rounds() -> usize {
    std::env::var("HARDENING_HOSTILE_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

/// File descriptors that the program is started with; it needs more.
const FEW_FILES: usize = 256;

/// What a hostile client does, again and again.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    /// Connects, and says nothing.
    Silent,
    /// Begins to shake hands, and stops.
    HalfHello,
    /// Sends the head of a request, a byte each second.
    Trickle,
    /// Sends a body without an end.
    Endless,
    /// Connects and closes.
    ConnectAndClose,
}

const ALL: [Hostile; 5] = [
    Hostile::Silent,
    Hostile::HalfHello,
    Hostile::Trickle,
    Hostile::Endless,
    Hostile::ConnectAndClose,
];

impl Hostile {
    /// Once: until the server has had enough.
    async fn attack(self, server: SocketAddr, ca: &Path) -> io::Result<()> {
        match self {
            Self::Silent => until_closed(TcpStream::connect(server).await?).await,
            Self::HalfHello => {
                let mut stream = TcpStream::connect(server).await?;
                // A handshake record of 512 bytes that begins with a client's hello.
                stream
                    .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                    .await?;
                until_closed(stream).await
            }
            Self::Trickle => {
                let (mut read, mut write) = tokio::io::split(tls(server, ca).await?);
                let trickling = async {
                    for byte in b"POST /mutate HTTP/1.1\r\nhost: localhost\r\n"
                        .iter()
                        .cycle()
                    {
                        write.write_all(&[*byte]).await?;
                        write.flush().await?;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Ok(())
                };
                let mut answer = Vec::new();
                tokio::select! {
                    ended = trickling => ended,
                    ended = read.read_to_end(&mut answer) => ended.map(drop),
                }
            }
            Self::Endless => {
                let mut stream = tls(server, ca).await?;
                stream
                    .write_all(
                        b"POST /mutate HTTP/1.1\r\nhost: localhost\r\n\
                          content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
                    )
                    .await?;
                let mut chunk = b"2000\r\n".to_vec();
                chunk.resize(chunk.len() + 0x2000, b' ');
                chunk.extend(b"\r\n");
                loop {
                    stream.write_all(&chunk).await?;
                    // Faster, and it would be the processors of this machine that all of them share.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Self::ConnectAndClose => {
                drop(TcpStream::connect(server).await?);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            }
        }
    }
}

async fn until_closed(mut stream: TcpStream) -> io::Result<()> {
    stream.read_to_end(&mut Vec::new()).await.map(drop)
}

/// Hostile clients at work, for as long as this is in scope.
struct Crowd {
    _clients: JoinSet<()>,
    /// How often one of each kind has been through.
    rounds: [Arc<AtomicUsize>; ALL.len()],
}

impl Crowd {
    fn gather(server: SocketAddr, ca: &Path) -> Self {
        let mut clients = JoinSet::new();
        let rounds = ALL.map(|_| Arc::<AtomicUsize>::default());
        for (kind, rounds) in ALL.into_iter().zip(&rounds) {
            for _ in 0..EACH {
                let (rounds, ca) = (Arc::clone(rounds), ca.to_owned());
                clients.spawn(async move {
                    loop {
                        // Being cut off is what it is after.
                        let _ = kind.attack(server, &ca).await;
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        Self {
            _clients: clients,
            rounds,
        }
    }

    fn has_been_through(&self) -> bool {
        let done = |rounds: &Arc<AtomicUsize>| rounds.load(Ordering::Relaxed) >= EACH;
        self.rounds.iter().all(done)
    }
}

/// One honest call after another, each of which must succeed; the time that each took.
async fn honest_calls(
    server: &Server,
    ca: &Path,
    mut goes_on: impl FnMut(usize) -> bool,
) -> Vec<Duration> {
    let mut took = Vec::new();
    while goes_on(took.len()) {
        let started = Instant::now();
        let answer = tokio::time::timeout(DEADLINE, review(server.address, ca)).await;
        assert!(!answer.unwrap().is_null());
        took.push(started.elapsed());
    }
    took
}

/// Waits until the server has noticed that the crowd is gone.
async fn until_alone(server: &Server) {
    let gone = async { while metric(server, "podhardening_connections").await > 1.0 {} };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_clients_leave_honest_calls_answered() {
    let (folder, server) = serve_with(Some(FEW_FILES), &[]);
    let ca = ca(&folder);
    let (mut alone, mut among_them) = (Vec::new(), Vec::new());
    let (mut peak, mut connections) = ([0, 0], 0.0);
    for _ in 0..rounds() {
        alone.extend(honest_calls(&server, &ca, |calls| calls < honest()).await);
        let crowd = Crowd::gather(server.address, &ca);
        let calls = honest_calls(&server, &ca, |calls| {
            let [besides, all] = memory(&server);
            peak = [besides.max(peak[0]), all.max(peak[1])];
            calls < honest() || !crowd.has_been_through()
        });
        among_them.extend(calls.await);
        connections = metric(&server, "podhardening_connections").await;
        drop(crowd);
        until_alone(&server).await;
    }
    alone.sort();
    among_them.sort();

    let [p50, p99] =
        [50, 99].map(|percent| [&among_them, &alone].map(|took| percentile(took, percent)));
    println!(
        "hostile: {} honest calls among {} hostile clients, {connections} connections at the end, none failed; \
         p50 {:?} ({:?} without), p99 {:?} ({:?} without), {:.2} times; \
         {} KiB resident at most, {} of them besides the program",
        among_them.len(),
        ALL.len() * EACH,
        p50[0],
        p50[1],
        p99[0],
        p99[1],
        p99[0].as_secs_f64() / p99[1].as_secs_f64(),
        peak[1],
        peak[0],
    );
    assert!(peak[0] < MOST_MEMORY, "{peak:?} KiB");
    assert_eq!(
        get(server.metrics_address, "/readyz").await.0,
        StatusCode::OK
    );
    for reason in ["handshake-timeout", "header-timeout"] {
        let series = format!("podhardening_connection_errors_total{{reason=\"{reason}\"}}");
        assert!(metric(&server, &series).await > 0.0, "{reason}");
    }
}

/// Reviews in flight at most.
const CAP: usize = 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_as_many_reviews_as_it_takes_at_once_are_answered_or_told_to_come_back() {
    let (folder, server) = serve_with(None, &[]);
    let ca = ca(&folder);
    let mut answers = JoinSet::new();
    let mut bodies = Vec::new();
    let body = Bytes::from(review_of("shop").to_string());
    // As many as one connection takes, on two.
    for _ in 0..2 {
        let stream = TokioIo::new(http2(server.address, &ca).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        for _ in 0..CAP {
            let (pieces, receiver) = futures::channel::mpsc::unbounded::<Result<_, io::Error>>();
            let request = Request::post("https://localhost/mutate")
                .header("content-type", "application/json")
                .body(StreamBody::new(receiver))
                .unwrap();
            let mut sender = sender.clone();
            answers.spawn(async move {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                let retry = answer.headers().get("retry-after").cloned();
                (answer.status(), retry)
            });
            bodies.push(pieces);
        }
    }
    // All are under way before any can be answered, where the machine is quick enough for that.
    let deadline = Instant::now() + Duration::from_secs(2);
    while metric(&server, "podhardening_reviews_in_flight").await < (2 * CAP) as f64
        && Instant::now() < deadline
    {
        tokio::task::yield_now().await;
    }
    for pieces in bodies {
        pieces
            .unbounded_send(Ok(Frame::data(body.clone())))
            .unwrap();
    }
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    while let Some(answer) = answers.join_next().await {
        let (status, retry) = answer.unwrap();
        *counts.entry(status.as_u16()).or_default() += 1;
        assert_eq!(
            retry.is_some_and(|retry| retry == "1"),
            status == StatusCode::SERVICE_UNAVAILABLE,
            "{status}"
        );
    }
    println!("hostile: {} reviews at once: {counts:?}", 2 * CAP);
    // 408: its body came too late, on a machine that was too slow for this.
    assert!(
        counts.keys().all(|status| [200, 408, 503].contains(status)),
        "{counts:?}"
    );
    assert!(
        counts.get(&503).is_some_and(|refused| *refused > 0),
        "{counts:?}"
    );
    assert!(!review(server.address, &ca).await.is_null());
    let [memory, _] = memory(&server);
    assert!(memory < MOST_MEMORY, "{memory} KiB");
}

async fn http2(server: SocketAddr, ca: &Path) -> TlsStream {
    crate::support::tls_speaking(server, ca, &[b"h2"])
        .await
        .unwrap()
}

async fn metric(server: &Server, series: &str) -> f64 {
    let (_, page) = get(server.metrics_address, "/metrics").await;
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap().parse().unwrap()
}

/// What is resident of the program at present, in KiB: without what it maps from files, and all.
fn memory(server: &Server) -> [usize; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    ["RssAnon:", "VmRSS:"].map(|name| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    })
}
