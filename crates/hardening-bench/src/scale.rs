//! What many policies and namespaces cost: the real program, `run`, beside an API server that lists them and sends
//! events, on loopback.

mod apiserver;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::contender::Running;
use crate::load::{Client, Extent, Figures, Protocol, cpu_of, memory_of};
use crate::report::{Limit, Ratio};
use crate::{Size, Written, review, wait};
use apiserver::{ApiServer, Resource};

/// What a number of policies, and as many namespaces, cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How many of each.
    pub count: u32,
    /// From the program's start until it is ready, in milliseconds.
    pub ready: f64,
    /// What of that a client takes that only reads the same lists, in milliseconds.
    pub lists: f64,
    /// Resident memory when it is ready and has answered nothing yet, in MiB.
    pub idle: f64,
    /// The most while everything is listed anew, in MiB.
    pub relist_peak: f64,
    /// CPU time of listing everything anew, in milliseconds.
    pub relist_cpu: f64,
    /// CPU time of a change of a policy, in microseconds.
    pub policy_event: f64,
    /// CPU time of a change of a namespace's labels, in microseconds.
    pub namespace_event: f64,
    /// CPU time of a review, in microseconds: the median over the rounds.
    pub review_cpu: f64,
    /// Reviews in each round, in their order.
    pub rounds: Vec<Figures>,
}

/// The numbers of policies, and of namespaces.
const COUNTS: [u32; 4] = [1, 10, 1_000, 10_000];
/// Events of a kind, over which their cost is averaged.
const EVENTS: u32 = 1_000;

/// Measures every number of policies; reviews in turns.
///
/// # Errors
///
/// Where the program does not start, or does not do what it is sent.
pub fn measure(extent: Extent) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let mut programs = Vec::new();
    for count in COUNTS {
        let apiserver = runtime.block_on(ApiServer::start(count))?;
        programs.push(one(count, apiserver)?);
    }
    let body = tempfile::NamedTempFile::new().context("make a file")?;
    fs::write(body.path(), review(Size::Typical, Written::Nothing)?).context("write the review")?;
    let started = programs
        .iter()
        .map(|(_, program, _)| Client::start(program, body.path(), (Protocol::Http2, 16)));
    let mut clients = started.collect::<Result<Vec<_>>>()?;
    let mut figures = vec![Vec::new(); COUNTS.len()];
    for _ in 0..extent.rounds {
        for (client, figures) in clients.iter_mut().zip(&mut figures) {
            figures.push(client.turn(extent.turn)?);
        }
    }
    // Before the programs.
    drop(clients);
    let rows = programs
        .into_iter()
        .zip(figures)
        .map(|((row, ..), figures)| {
            Ok(Row {
                review_cpu: Figures::median(&figures)?.server_cpu,
                rounds: figures,
                ..row
            })
        });
    rows.collect()
}

/// Starts the program by an API server, and measures all but reviews.
fn one(count: u32, apiserver: ApiServer) -> Result<(Row, Running, ApiServer)> {
    let started = Instant::now();
    let (program, probes) = Running::by_cluster(&apiserver.kubeconfig()?)?;
    wait(Duration::from_millis(1), "ready", || {
        Ok(get(probes, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
    })?;
    let ready = millis(started.elapsed());
    let started = Instant::now();
    for path in apiserver.pages() {
        get(apiserver.address(), &path)?;
    }
    let lists = millis(started.elapsed());
    let idle = mebibytes(memory_of(program.pid())?.resident)?;
    let policy_event = events(&apiserver, &program, probes, Resource::Policies)?;
    let namespace_event = events(&apiserver, &program, probes, Resource::Namespaces)?;

    // Writing 5 there makes the peak start anew.
    fs::write(format!("/proc/{}/clear_refs", program.pid()), "5").context("forget the peak")?;
    let (before, watches) = (cpu_of(program.pid())?, apiserver.watches());
    apiserver.expire();
    let all = watches + Resource::ALL.len();
    wait(Duration::from_millis(5), "watching again", || {
        Ok(apiserver.watches() >= all)
    })?;
    let relist_cpu = (cpu_of(program.pid())? - before) * 1e3;
    let relist_peak = mebibytes(memory_of(program.pid())?.peak)?;
    let row = Row {
        count,
        ready,
        lists,
        idle,
        relist_peak,
        relist_cpu,
        policy_event,
        namespace_event,
        review_cpu: 0.0,
        rounds: Vec::new(),
    };
    Ok((row, program, apiserver))
}

/// CPU time of an event, in microseconds: of many, and then of one more object, which shows that all were seen.
fn events(
    apiserver: &ApiServer,
    program: &Running,
    probes: SocketAddr,
    resource: Resource,
) -> Result<f64> {
    let known = || gauge(probes, resource.gauge());
    let (seen, before) = (known()?, cpu_of(program.pid())?);
    for i in 0..EVENTS {
        apiserver.change(resource, i);
    }
    apiserver.add(resource);
    wait(Duration::from_millis(20), "told of an object more", || {
        Ok(known()? > seen)
    })?;
    Ok((cpu_of(program.pid())? - before) * 1e6 / f64::from(EVENTS + 1))
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("ask")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    Ok(answer)
}

fn gauge(probes: SocketAddr, name: &str) -> Result<f64> {
    let page = get(probes, "/metrics")?;
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("there is no metric {name}"))?;
    value.parse().context("read a metric")
}

/// Of memory, in KiB.
fn mebibytes(kibibytes: Option<u64>) -> Result<f64> {
    let kibibytes = kibibytes.context("the kernel does not tell the program's memory")?;
    Ok(kibibytes as f64 / 1024.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

// === the tables ===

/// What is asked of it, and how it does.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let (Some(few), Some(many)) = (rows.first(), rows.last()) else {
        return Vec::new();
    };
    let limit = |what: &str, ratio, most| Ratio {
        what: what.to_owned(),
        ratio,
        limit: Limit::AtMost(most),
    };
    vec![
        limit(
            "CPU per request with 10,000 policies by that with 1",
            Figures::median_ratio(&many.rounds, &few.rounds, |f| f.server_cpu).unwrap_or(f64::NAN),
            1.05,
        ),
        limit(
            "ms to ready with 10,000, beyond the lists",
            many.ready - many.lists,
            100.0,
        ),
        limit(
            "µs of CPU for a change of a policy among 10,000",
            many.policy_event,
            100.0,
        ),
        limit("MiB resident, idle", few.idle, 12.0),
        limit("MiB resident with 10,000", many.idle, 48.0),
        limit(
            "peak of a relist by what is resident with 10,000",
            many.relist_peak / many.idle,
            2.0,
        ),
    ]
}

/// The figures.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n| policies, namespaces | CPU µs per request | MiB resident | peak of a relist | ms to ready | of it lists \
         | policy event CPU µs | namespace event | relist CPU ms |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            row.count,
            row.review_cpu,
            row.idle,
            row.relist_peak,
            row.ready,
            row.lists,
            row.policy_event,
            row.namespace_event,
            row.relist_cpu,
        );
    }
    out
}
