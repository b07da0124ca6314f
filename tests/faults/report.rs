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
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often the fault was brought about.
    pub(crate) times: u64,
    pub(crate) counts: Counts,
    /// How long after an injection the last call that failed was begun, at most.
    pub(crate) failing_for: Duration,
    /// The most calls that failed in one of the times.
    pub(crate) failed_at_once: u64,
    /// How long it took, once healed, until all was well again, at most.
    pub(crate) recovered_in: Duration,
    /// How many containers of the product's were started again.
    pub(crate) restarts: u64,
    /// The most memory that a replica had, in bytes.
    pub(crate) memory: u64,
    pub(crate) inside: SeenInside,
}

/// What faults saw themselves, besides what is seen from without.
#[derive(Debug, Default)]
pub(crate) struct SeenInside {
    /// How many calls past the API server were answered while it was away, and how many were not.
    pub(crate) direct: Direct,
    /// How long it took until a replica that does not answer was out of rotation, at most.
    pub(crate) out_of_rotation_in: Duration,
    /// How much memory replicas had in a soak.
    pub(crate) soak: Option<Soak>,
    /// How often the serving certificate, and its CA, were renewed.
    pub(crate) renewed: Option<[usize; 2]>,
}

/// The most memory that a replica had, in bytes, in the first fifth of a soak and in the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soak {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Calls to the replicas themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Direct {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

/// The most memory that a replica may have.
const MEMORY: u64 = 64 << 20;
/// How much more it may have at the end of a soak: an allocator takes memory by pieces.
const GROWTH: u64 = 2 << 20;
/// How many times as long anything may take in the short selection, whose machine may be slow, or do other things too.
const SLOWER: u32 = 3;

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
            "\n| fault | times | calls | failed | most at once | unhardened | unanswered | failing for | recovered in | memory |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
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
            failed_at_once,
            restarts: _,
            memory,
            inside,
        } = &self.seen;
        let mut also = String::new();
        let Direct { answered, .. } = inside.direct;
        if answered > 0 {
            also += &format!("; {answered} answers meanwhile");
        }
        if !inside.out_of_rotation_in.is_zero() {
            let seconds = inside.out_of_rotation_in.as_secs_f64();
            also += &format!("; out of rotation in {seconds:.1} s");
        }
        if let Some(Soak { first, last }) = inside.soak {
            also += &format!("; {} MiB at first, {} at last", first >> 20, last >> 20);
        }
        if let Some([leaves, authorities]) = inside.renewed {
            also += &format!("; {leaves} leaves, {authorities} CAs");
        }
        write!(
            f,
            "| {}{also} | {times} | {} | {} | {failed_at_once} | {} | {} | {:.1} s | {:.1} s | {} MiB |",
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
    let slower = if is_short { SLOWER } else { 1 };
    // A mean of one is none.
    let failed = match is_short {
        true => holds.failed_at_once,
        false => holds.failed.saturating_mul(seen.times),
    };
    must(
        counts.failed <= failed,
        format!("{} calls failed, at most {failed} may", counts.failed),
    );
    must(
        seen.failed_at_once <= holds.failed_at_once,
        format!(
            "{} calls failed at once, at most {} may",
            seen.failed_at_once, holds.failed_at_once
        ),
    );
    let failing_for = holds.failing_for * slower;
    must(
        counts.failed == 0 || seen.failing_for <= failing_for,
        format!(
            "calls failed for {:?}, they may for {failing_for:?}",
            seen.failing_for
        ),
    );
    must(
        seen.inside.out_of_rotation_in <= failing_for,
        format!(
            "out of rotation after {:?}, {failing_for:?} is allowed",
            seen.inside.out_of_rotation_in
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
        seen.inside.direct.failed == 0,
        format!(
            "{} replicas did not answer when asked directly",
            seen.inside.direct.failed
        ),
    );
    let recovered_in = holds.recovered_in * slower;
    must(
        seen.recovered_in <= recovered_in,
        format!(
            "well again after {:?}, {recovered_in:?} is allowed",
            seen.recovered_in
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
    let has_grown = |soak: Soak| soak.last > soak.first + GROWTH || soak.last >= MEMORY;
    must(
        !seen.inside.soak.is_some_and(has_grown),
        format!("memory has grown: {:?}", seen.inside.soak),
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
