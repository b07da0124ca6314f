//! What came of the faults: a table, and what did not hold.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    faults::{ApiServer, Fault},
    loader::Counts,
};

/// All that was tried.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// What came of one fault.
#[derive(Debug)]
pub(crate) struct Row {
    name: &'static str,
    seen: Seen,
    /// What should have held and did not; none: all is well.
    broken: Vec<String>,
}

/// What was seen under a fault.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How often the fault was brought about.
    pub(crate) times: u64,
    pub(crate) counts: Counts,
    /// How long after an injection the last call that failed was begun, at most.
    pub(crate) failing_for: Duration,
    /// How long it took, once healed, until all was well again, at most.
    pub(crate) recovered_in: Duration,
    /// How many containers of the product's were started again.
    pub(crate) restarts: u64,
    /// How many calls past the API server were answered while it was away, and how many were not.
    pub(crate) direct: Direct,
    /// The most memory that a replica had, in bytes.
    pub(crate) memory: u64,
}

/// Calls to the replicas themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Direct {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

/// The most memory that a replica may have.
const MEMORY: u64 = 64 << 20;

// === impl Report ===

impl Report {
    /// Judges what was seen, and says at once how it went.
    pub(crate) fn add(&mut self, fault: &Fault, is_short: bool, seen: Seen) {
        let broken = judge(fault, is_short, &seen);
        let row = Row {
            name: fault.name,
            seen,
            broken,
        };
        println!("{row}");
        let verdict = if row.broken.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        println!(
            "test faults::{} ... {verdict}",
            fault.name.replace(' ', "_")
        );
        for line in &row.broken {
            println!("  {line}");
        }
        for line in row
            .seen
            .counts
            .told
            .iter()
            .filter(|_| !row.broken.is_empty())
        {
            println!("  seen: {line}");
        }
        self.rows.push(row);
    }

    pub(crate) fn is_good(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.broken.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self
            .rows
            .iter()
            .filter(|row| !row.broken.is_empty())
            .count();
        writeln!(
            f,
            "\n| fault | times | calls | failed | unhardened | unanswered | failing for | recovered in | memory |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let verdict = if failed == 0 { "ok" } else { "FAILED" };
        write!(
            f,
            "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out",
            self.rows.len() - failed
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen {
            times,
            counts,
            failing_for,
            recovered_in,
            restarts: _,
            direct: _,
            memory,
        } = &self.seen;
        write!(
            f,
            "| {} | {times} | {} | {} | {} | {} | {:.1} s | {:.1} s | {} MiB |",
            self.name,
            counts.calls,
            counts.failed,
            counts.unhardened,
            counts.unanswered,
            failing_for.as_secs_f64(),
            recovered_in.as_secs_f64(),
            memory >> 20,
        )
    }
}

/// What does not hold of what must.
fn judge(fault: &Fault, is_short: bool, seen: &Seen) -> Vec<String> {
    let holds = &fault.holds;
    let counts = &seen.counts;
    let mut broken = Vec::new();
    let mut must = |is_so: bool, what: String| {
        if !is_so {
            broken.push(what);
        }
    };
    let calls = if is_short { 1 } else { holds.calls.max(1) };
    must(
        counts.calls >= calls,
        format!("{} calls were made, {calls} count", counts.calls),
    );
    let failed = holds.failed.saturating_mul(seen.times);
    must(
        counts.failed <= failed,
        format!("{} calls failed, at most {failed} may", counts.failed),
    );
    must(
        counts.failed == 0 || seen.failing_for <= holds.failing_for,
        format!(
            "calls failed for {:?}, they may for {:?}",
            seen.failing_for, holds.failing_for
        ),
    );
    must(
        holds.unhardened || counts.unhardened == 0,
        format!("{} pods were created unhardened", counts.unhardened),
    );
    must(
        holds.api_server == ApiServer::MayBeAway || counts.unanswered == 0,
        format!("{} calls had no answer", counts.unanswered),
    );
    must(
        seen.direct.failed == 0,
        format!(
            "{} replicas did not answer when asked directly",
            seen.direct.failed
        ),
    );
    must(
        seen.recovered_in <= holds.recovered_in,
        format!(
            "well again after {:?}, {:?} is allowed",
            seen.recovered_in, holds.recovered_in
        ),
    );
    must(
        holds.restarts || seen.restarts == 0,
        format!("{} containers were started again", seen.restarts),
    );
    must(
        (1..MEMORY).contains(&seen.memory),
        format!("a replica had {} bytes of memory", seen.memory),
    );
    broken
}

/// How long after a moment the last failure was begun; nothing where none was.
pub(crate) fn failing_for(injected: Instant, counts: &Counts) -> Duration {
    let last = counts.last_failure;
    last.map_or(Duration::ZERO, |last| {
        last.saturating_duration_since(injected)
    })
}
