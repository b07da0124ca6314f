//! Load on a server, made by h2load, and what it costs: the requests' times, and the CPU time of both sides.
//!
//! Servers that are compared take short turns: a client keeps its connections, as an API server does, and is stopped
//! while others have theirs.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::contender::Running;
use crate::{wait, wait_for};

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

/// An h2load that has connected to a server, and sends nothing but in its turns; it ends with this value.
#[derive(Debug)]
pub struct Client {
    process: Child,
    /// The server's process id.
    server: u32,
    /// What it writes of each answer.
    log: tempfile::NamedTempFile,
    /// Of what is read of it, the line that has no end yet.
    unread: String,
}

/// How much is measured, of servers that are compared.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// How often each has its turn.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
}

/// To a request.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Microseconds since 1970.
    sent: u64,
    /// Microseconds.
    took: u64,
}

/// What one turn has shown.
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

// === h2load ===

/// More requests than it gets to send.
const REQUESTS: &str = "1000000000";
/// Answers after which it is warm, for each caller.
const WARM: usize = 20;
/// How long a server must do nothing to have done all that it was asked for.
const REST: Duration = Duration::from_millis(2);

impl Client {
    /// Connects, and sends `body` until connections are made and memory is warm.
    ///
    /// # Errors
    ///
    /// Where h2load is missing, or is not answered.
    pub fn start(
        server: &Running,
        body: &Path,
        (protocol, callers): (Protocol, u32),
    ) -> Result<Self> {
        let log = tempfile::NamedTempFile::new().context("make a file for the requests' times")?;
        let callers_text = callers.to_string();
        let mut command = Command::new("h2load");
        match protocol {
            Protocol::Http1 => command.args(["--h1", "-c", &callers_text]),
            Protocol::Http2 => command.args(["-c", "1", "-m", &callers_text]),
        };
        command
            .args(["-t", "1", "-n", REQUESTS])
            .args(["-H", "content-type: application/json"])
            // Windows that hold any review: what is measured is the server.
            .args(["-w", "20", "-W", "24", "-d"])
            .arg(body)
            .arg("--log-file")
            .arg(log.path())
            .arg(format!("https://{}/mutate?timeout=3s", server.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // The kernel ends a group with a stopped process when nobody is left to let it go on. So a client ends with this
            // program, however that ends, and this program's own group has none that is stopped.
            .process_group(0);
        let process = command
            .spawn()
            .context("run h2load (on Debian: apt-get install nghttp2-client)")?;
        let mut client = Self {
            process,
            server: server.pid(),
            log,
            unread: String::new(),
        };
        let mut missing = WARM * usize::try_from(callers)?;
        wait(REST, "warm", || {
            missing = missing.saturating_sub(client.answers()?.len());
            Ok(missing == 0)
        })?;
        client.pause()?;
        Ok(client)
    }

    /// Has it send as much as it can for a while; what that has shown. Where the machine stands still for as long as that,
    /// and nothing is sent and answered, for another while.
    ///
    /// # Errors
    ///
    /// Where a request is not answered with 200, or none for long.
    pub fn turn(&mut self, length: Duration) -> Result<Figures> {
        wait_for(REST, "answering", || self.attempt(length))
    }

    fn attempt(&mut self, length: Duration) -> Result<Option<Figures>> {
        let before = (cpu_of(self.server)?, cpu_of(self.process.id())?);
        let (since, started) = (SystemTime::now(), Instant::now());
        self.signal(Signal::CONT)?;
        thread::sleep(length);
        let took = started.elapsed();
        // What the client had not read when it was stopped before is among them, as what it has not read now is not: there
        // are as many. But how long they took is how long it was stopped.
        let answers = self.pause()?;
        let after = (cpu_of(self.server)?, cpu_of(self.process.id())?);
        let since = since.duration_since(UNIX_EPOCH).context("read the clock")?;
        let sent_now = answers
            .iter()
            .filter(|answer| u128::from(answer.sent) >= since.as_micros());
        let mut times: Vec<u64> = sent_now.map(|answer| answer.took).collect();
        if times.is_empty() {
            return Ok(None);
        }
        times.sort_unstable();
        let requests = u32::try_from(answers.len()).context("count the answers")?;
        let per_request = |before, after| (after - before) * 1e6 / f64::from(requests);
        Ok(Some(Figures {
            per_second: f64::from(requests) / took.as_secs_f64(),
            p50: percentile(&times, 50)?,
            p99: percentile(&times, 99)?,
            server_cpu: per_request(before.0, after.0),
            client_cpu: per_request(before.1, after.1),
        }))
    }

    /// Stops it, and waits until the server has done all that it was asked for; what was answered since it was last asked.
    fn pause(&mut self) -> Result<Vec<Answer>> {
        self.signal(Signal::STOP)?;
        let mut before = None;
        wait(REST, "at rest", || {
            let now = cpu_of(self.server)?;
            Ok(before.replace(now) == Some(now))
        })?;
        self.answers()
    }

    /// What was answered since it was last asked.
    fn answers(&mut self) -> Result<Vec<Answer>> {
        let ended = self.process.try_wait().context("look after h2load")?;
        ensure!(ended.is_none(), "h2load ended: {ended:?}");
        let file = self.log.as_file_mut();
        file.read_to_string(&mut self.unread)
            .context("read the requests' times")?;
        // What is being written may be half of a line.
        let whole = self.unread.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.unread.drain(..whole).collect();
        lines.lines().map(Answer::from_line).collect()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.process), signal)
            .with_context(|| format!("send {signal:?} to h2load"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It has ended by now, or does so here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    /// Of a line of h2load's log: when it was sent, the status, and how long it took.
    fn from_line(line: &str) -> Result<Self> {
        let mut columns = line.split('\t');
        let (Some(sent), Some("200"), Some(took)) =
            (columns.next(), columns.next(), columns.next())
        else {
            bail!("a request was not answered: {line:?}");
        };
        let number = |column: &str| {
            let number = column.parse();
            number.with_context(|| format!("read a request's time in {line:?}"))
        };
        Ok(Self {
            sent: number(sent)?,
            took: number(took)?,
        })
    }
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
    fn an_answer_counts_where_its_status_is_200_and_only_there() {
        for (line, answer) in [
            (
                "1700000000000001\t200\t538",
                Some((1_700_000_000_000_001, 538)),
            ),
            ("1700000000000001\t500\t538", None),
            ("1700000000000001\t-1\t538", None),
            ("1700000000000001\t200\t", None),
            ("no columns", None),
        ] {
            let read = Answer::from_line(line).ok();
            assert_eq!(
                read,
                answer.map(|(sent, took)| Answer { sent, took }),
                "{line}"
            );
        }
    }

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<u64> = (1..=200).collect();
        for (percent, expected) in [(50, 100.0), (99, 198.0), (100, 200.0), (0, 1.0)] {
            assert_eq!(percentile(&times, percent).unwrap(), expected, "{percent}");
        }
        assert!(percentile(&[], 50).is_err());
    }
}
