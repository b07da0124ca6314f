//! Load on a server, made by h2load, and what it costs: the requests' times, and the CPU time of both sides.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::contender::Running;

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// A connection for each caller, as an API server does it to a webhook behind a Service.
    #[serde(rename = "HTTP/1.1")]
    Http1,
    /// A stream for each caller on one connection, as it does it to a webhook given by URL.
    #[serde(rename = "HTTP/2")]
    Http2,
}

/// What one run has shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Requests answered in a second.
    pub per_second: f64,
    /// Half of the requests took no longer, in microseconds.
    pub p50: f64,
    /// All but one in a hundred, in microseconds.
    pub p99: f64,
    /// The server's CPU time for a request, in microseconds.
    pub server_cpu: f64,
    /// The client's, in microseconds: where it is near the server's, the client holds the server up.
    pub client_cpu: f64,
}

// === impl Protocol ===

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

// === impl Figures ===

impl Figures {
    /// Of each figure the median over rounds.
    ///
    /// # Errors
    ///
    /// Where there is no round.
    pub(crate) fn median(rounds: &[Self]) -> Result<Self> {
        let of = |figure: fn(&Self) -> f64| {
            median(rounds.iter().map(figure)).ok_or_else(|| anyhow!("there is no round"))
        };
        Ok(Self {
            per_second: of(|f| f.per_second)?,
            p50: of(|f| f.p50)?,
            p99: of(|f| f.p99)?,
            server_cpu: of(|f| f.server_cpu)?,
            client_cpu: of(|f| f.client_cpu)?,
        })
    }

    /// The median of a figure in each round by another server's in the same one, a moment before or after. So what the
    /// machine does for others meanwhile hits both, or counts for one round; `None`: there is no round.
    pub(crate) fn median_ratio(
        own: &[Self],
        other: &[Self],
        figure: impl Fn(&Self) -> f64,
    ) -> Option<f64> {
        let rounds = own.iter().zip(other);
        median(rounds.map(|(own, other)| figure(own) / figure(other)))
    }
}

/// The value in the middle; none of no values.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

// === running h2load ===

/// Sends `body` `requests` times, `callers` at once.
///
/// # Errors
///
/// Where h2load is missing, or a request is not answered with 200.
pub fn run(
    server: &Running,
    body: &Path,
    (protocol, callers, requests): (Protocol, u32, u32),
) -> Result<Figures> {
    let log = tempfile::NamedTempFile::new().context("make a file for the requests' times")?;
    let (total, callers) = (requests.to_string(), callers.to_string());
    let mut command = Command::new("h2load");
    match protocol {
        Protocol::Http1 => command.args(["--h1", "-c", &callers]),
        Protocol::Http2 => command.args(["-c", "1", "-m", &callers]),
    };
    command
        .args([
            "-t",
            "1",
            "-n",
            &total,
            "-H",
            "content-type: application/json",
        ])
        // Windows that hold any review: what is measured is the server.
        .args(["-w", "20", "-W", "24", "-d"])
        .arg(body)
        .arg("--log-file")
        .arg(log.path())
        .arg(format!("https://{}/mutate?timeout=3s", server.address));
    let before = (cpu_of(server.pid())?, cpu_of_children()?);
    let output = command
        .output()
        .context("run h2load (on Debian: apt-get install nghttp2-client)")?;
    let after = (cpu_of(server.pid())?, cpu_of_children()?);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?} failed: {text}");
    let per_second = answered(&text, requests)?;
    let log = fs::read_to_string(log.path()).context("read the requests' times")?;
    let mut times = times(&log)?;
    times.sort_unstable();
    let per_request = |before, after| (after - before) * 1e6 / f64::from(requests);
    Ok(Figures {
        per_second,
        p50: percentile(&times, 50)?,
        p99: percentile(&times, 99)?,
        server_cpu: per_request(before.0, after.0),
        client_cpu: per_request(before.1, after.1),
    })
}

/// The rate that h2load tells, if it got as many answers as it asked for.
fn answered(text: &str, requests: u32) -> Result<f64> {
    let status = format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx");
    ensure!(
        text.contains(&status),
        "not every request was answered: {text}"
    );
    let rate = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("finished in ")?
                .split(", ")
                .nth(1)?
                .strip_suffix(" req/s")
        })
        .ok_or_else(|| anyhow!("h2load tells no rate: {text}"))?;
    rate.parse()
        .with_context(|| format!("read the rate {rate}"))
}

/// The third column of h2load's log: microseconds.
fn times(log: &str) -> Result<Vec<u64>> {
    log.lines()
        .map(|line| {
            let micros = line.split('\t').nth(2).unwrap_or_default();
            micros
                .parse()
                .with_context(|| format!("read a request's time in {line:?}"))
        })
        .collect()
}

/// Of sorted times.
pub(crate) fn percentile(times: &[u64], percent: usize) -> Result<f64> {
    let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
    let time = times
        .get(at)
        .ok_or_else(|| anyhow!("there are no requests' times"))?;
    Ok(f64::from(u32::try_from(*time).unwrap_or(u32::MAX)))
}

// === CPU time ===

/// Seconds of CPU time that a process has used.
///
/// # Errors
///
/// Where it has ended.
pub fn cpu_of(pid: u32) -> Result<f64> {
    let pid = i32::try_from(pid).context("a process id")?;
    let of_tasks = || -> procfs::ProcResult<u64> {
        // The same as utime and stime, which count in hundredths of a second, in nanoseconds.
        let tasks = procfs::process::Process::new(pid)?.tasks()?;
        tasks
            .map(|task| Ok(task?.schedstat()?.sum_exec_runtime))
            .sum()
    };
    let nanoseconds = of_tasks().with_context(|| format!("read the CPU time of process {pid}"))?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// Seconds of CPU time of the processes that this one has started and waited for.
fn cpu_of_children() -> Result<f64> {
    let stat = procfs::process::Process::myself()
        .and_then(|process| process.stat())
        .context("read the client's CPU time")?;
    let ticks = u64::try_from(stat.cutime + stat.cstime).context("read the client's CPU time")?;
    Ok(seconds(ticks))
}

fn seconds(ticks: u64) -> f64 {
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    f64::from(ticks) / f64::from(u32::try_from(procfs::ticks_per_second()).unwrap_or(100))
}

// === memory ===

/// The memory of a process, in KiB; absent: the kernel does not tell it.
pub(crate) struct Memory {
    /// What is resident.
    pub(crate) resident: Option<u64>,
    /// The most that was, since its start or since that was last forgotten.
    pub(crate) peak: Option<u64>,
}

/// The memory of a process.
///
/// # Errors
///
/// Where it has ended.
pub(crate) fn memory_of(pid: u32) -> Result<Memory> {
    let pid = i32::try_from(pid).context("a process id")?;
    let status = procfs::process::Process::new(pid).and_then(|process| process.status());
    let status = status.with_context(|| format!("read the memory of process {pid}"))?;
    Ok(Memory {
        resident: status.vmrss,
        peak: status.vmhwm,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SAID: &str = "starting benchmark...\n\nfinished in 1.50s, 20000.50 req/s, 12.3MB/s\n\
        requests: 30000 total, 30000 started, 30000 done, 30000 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 30000 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    /// Figures of which these two matter.
    pub(crate) fn figures(per_second: f64, server_cpu: f64) -> Figures {
        Figures {
            per_second,
            p50: 1e6 / per_second,
            p99: 3e6 / per_second,
            server_cpu,
            client_cpu: 10.0,
        }
    }

    #[test]
    fn a_median_is_of_each_figure_by_itself() {
        let rounds = [
            figures(100.0, 3.0),
            figures(300.0, 1.0),
            figures(200.0, 9.0),
        ];
        let median = Figures::median(&rounds).unwrap();
        assert_eq!((median.per_second, median.server_cpu), (200.0, 3.0));
        assert!(Figures::median(&[]).is_err());
    }

    #[test]
    fn a_run_counts_where_every_request_was_answered_and_only_there() {
        assert_eq!(answered(SAID, 30_000).unwrap(), 20000.5);
        let failed = SAID.replace(
            "30000 2xx, 0 3xx, 0 4xx, 0 5xx",
            "29999 2xx, 0 3xx, 0 4xx, 1 5xx",
        );
        assert!(answered(&failed, 30_000).is_err());
        assert!(answered(SAID, 30_001).is_err());
    }

    #[test]
    fn times_are_the_third_column_and_a_percentile_is_one_of_them() {
        let log: String = (1..=200)
            .map(|micros| format!("1700000000000\t200\t{micros}\n"))
            .collect();
        let times = times(&log).unwrap();
        for (percent, expected) in [(50, 100.0), (99, 198.0), (100, 200.0), (0, 1.0)] {
            assert_eq!(percentile(&times, percent).unwrap(), expected, "{percent}");
        }
        assert!(percentile(&[], 50).is_err());
        assert!(super::times("no columns").is_err());
    }
}
