//! Clients that mean harm, a thousand of them at once, and calls that must be answered all the same.
//!
//! Nothing here is timed to pass or fail: `make bench-hostile` shows how much longer honest calls take.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::serving::{ca, serve_with};
use crate::support::{
    Caller, DEADLINE, Server, TlsStream, connector, get, review, review_of, tls_with,
};

/// Hostile clients of each kind.
const EACH: usize = 200;

/// What may be resident at most, in KiB, besides the pages of the program itself, of 64 MiB: those of the program
/// that is tested here are far more than those of an optimised one.
const MOST_MEMORY: usize = 56 << 10;

/// How much is tried, as nobody wants to wait for figures who only wants to know whether calls are answered.
#[derive(Clone, Copy)]
struct Effort {
    /// Honest calls of each kind before, and at least so many while, there are hostile clients.
    calls: usize,
    /// How often the crowd comes and goes, so that whatever else the machine does hits calls with and without it alike.
    rounds: usize,
    /// Whether hostile clients run when nobody else wants to: what they take of this machine's processors is not what is to
    /// be seen, as real ones are on machines of their own.
    crowd_comes_last: bool,
}

impl Effort {
    /// As `make bench-hostile` asks for.
    fn asked_for() -> Self {
        let for_figures = std::env::var_os("HARDENING_HOSTILE_FIGURES").is_some();
        let (calls, rounds) = if for_figures { (3000, 9) } else { (50, 1) };
        Self {
            calls,
            rounds,
            crowd_comes_last: for_figures,
        }
    }
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
    async fn attack(self, server: SocketAddr, tls: &TlsConnector) -> io::Result<()> {
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
                let (mut read, mut write) = tokio::io::split(tls_with(tls, server).await?);
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
                let mut stream = tls_with(tls, server).await?;
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
    runtime: Option<Runtime>,
    /// How often one of each kind has been through.
    rounds: [Arc<AtomicUsize>; ALL.len()],
}

impl Crowd {
    fn gather(server: SocketAddr, ca: &Path, comes_last: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(move || {
                if comes_last {
                    run_when_nobody_else_wants_to();
                }
            })
            .build()
            .unwrap();
        let tls = connector(ca, &[]);
        let rounds = ALL.map(|_| Arc::<AtomicUsize>::default());
        for (kind, rounds) in ALL.into_iter().zip(&rounds) {
            for _ in 0..EACH {
                let (rounds, tls) = (Arc::clone(rounds), tls.clone());
                let client = async move {
                    loop {
                        // Being cut off is what it is after.
                        let _ = kind.attack(server, &tls).await;
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                };
                runtime.spawn(polite(client));
            }
        }
        Self {
            runtime: Some(runtime),
            rounds,
        }
    }

    fn has_been_through(&self) -> bool {
        let done = |rounds: &Arc<AtomicUsize>| rounds.load(Ordering::Relaxed) >= EACH;
        self.rounds.iter().all(done)
    }
}

/// As the client is, but that after each step others of this machine's threads may run first: Linux would let some
/// milliseconds pass until honest clients are allowed to, whom real hostile ones do not keep from running.
async fn polite(client: impl Future<Output = ()>) {
    let mut client = pin!(client);
    poll_fn(|context| {
        std::thread::yield_now();
        client.as_mut().poll(context)
    })
    .await;
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // A runtime may not be waited for where this one is used.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long honest calls took, each of which must have succeeded.
#[derive(Default)]
struct Took {
    /// On a connection that is kept, as an API server does.
    kept: Vec<Duration>,
    /// On a connection of its own, as an API server's first.
    first: Vec<Duration>,
}

impl Took {
    /// Makes one call after another, of both kinds.
    async fn calls(&mut self, server: &Server, ca: &Path, mut goes_on: impl FnMut(usize) -> bool) {
        let connect = || async {
            let connecting = Caller::connect(server.address, ca);
            tokio::time::timeout(DEADLINE, connecting).await.unwrap()
        };
        let mut kept = connect().await;
        let mut made = 0;
        while goes_on(made) {
            let started = Instant::now();
            kept.honest_review().await;
            self.kept.push(started.elapsed());
            let started = Instant::now();
            connect().await.honest_review().await;
            self.first.push(started.elapsed());
            made += 1;
        }
    }
}

impl Caller {
    async fn honest_review(&mut self) {
        let answer = tokio::time::timeout(DEADLINE, self.review()).await;
        assert!(!answer.unwrap().is_null());
    }
}

/// Waits until the server has noticed that the crowd is gone.
async fn until_alone(server: &Server) {
    let gone = async { while metric(server, "podhardening_connections").await > 1.0 {} };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

/// Has Linux run this thread when no other wants to.
fn run_when_nobody_else_wants_to() {
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let mut command = Command::new("chrt");
    command.args(["--idle", "--pid", "0", &thread.to_string()]);
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// One line of figures: how long calls took among the crowd, and how long without, each a median over the rounds. What else
/// the machine does for a while is so one round's matter, and a round is compared with nothing but itself.
fn compare(kind: &str, rounds: &[(Took, Took)], of: fn(&Took) -> &[Duration]) {
    let at = |took: &Took, percent| {
        let mut times = of(took).to_vec();
        times.sort_unstable();
        percentile(&times, percent).as_secs_f64()
    };
    let median = |figure: &dyn Fn(&(Took, Took)) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_unstable_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let [p50, p99] = [50, 99].map(|percent| {
        let among_them = median(&|(among_them, _)| at(among_them, percent));
        let alone = median(&|(_, alone)| at(alone, percent));
        let times = median(&|(among_them, alone)| at(among_them, percent) / at(alone, percent));
        let [among_them, alone] = [among_them, alone].map(Duration::from_secs_f64);
        format!("{among_them:.2?} ({alone:.2?} without the crowd, {times:.2} times)")
    });
    let calls: usize = rounds.iter().map(|(took, _)| of(took).len()).sum();
    println!("hostile: {calls} calls, {kind}: p50 {p50}, p99 {p99}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_clients_leave_honest_calls_answered() {
    let effort = Effort::asked_for();
    let (folder, server) = serve_with(Some(FEW_FILES), &[]);
    let ca = ca(&folder);
    let mut rounds = Vec::new();
    let (mut peak, mut connections) = ([0, 0], 0.0);
    for _ in 0..effort.rounds {
        let (mut alone, mut among_them) = (Took::default(), Took::default());
        let few = |calls| calls < effort.calls;
        alone.calls(&server, &ca, few).await;
        let crowd = Crowd::gather(server.address, &ca, effort.crowd_comes_last);
        let until_through = |calls| {
            let [besides, all] = memory(&server);
            peak = [besides.max(peak[0]), all.max(peak[1])];
            few(calls) || !crowd.has_been_through()
        };
        among_them.calls(&server, &ca, until_through).await;
        connections = metric(&server, "podhardening_connections").await;
        drop(crowd);
        until_alone(&server).await;
        rounds.push((among_them, alone));
    }
    compare("a connection kept", &rounds, |took| &took.kept);
    compare("each on a connection of its own", &rounds, |took| {
        &took.first
    });
    println!(
        "hostile: {} clients, {connections} connections at the end, no honest call failed; \
         {} KiB resident at most, {} of them besides the program",
        ALL.len() * EACH,
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
    tls_with(&connector(ca, &[b"h2"]), server).await.unwrap()
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
