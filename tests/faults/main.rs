//! What the installed product does when things go wrong: the chart on a real node, its own image, and pods that are
//! created all the time while replicas die, certificates change, and the API server goes away.
//!
//! `make test-faults` runs all of it at its full length; `cargo test --workspace --test faults --
//! kill` runs the faults with that in their name, `--short` a selection of them once each, as `make test` does, and
//! `10,000 --soak-minutes=60` the soak for an hour; `--image=ARCHIVE` tries an image that is there. It is no test binary of the usual kind: its tests share one
//! cluster and take turns, as each breaks it. It prints a table, and fails where what must hold did not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_in_result,
    reason = "what helps a test may fail as a test does, and tells how much it has shown"
)]

// The faults, a row each.
mod faults;
// What they are done to: a cluster with the product installed.
mod cluster;
// One after another, each under load.
mod run;
// Who creates pods all the time, and counts.
mod loader;
// What came of it, as a table.
mod report;
// Replicas asked directly, past the API server.
mod direct;
// Processes, as the kernel sees them.
mod process;

mod support;

use std::{env, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use test_control_plane::Node;

/// How long a soak takes where nothing else is said.
const SOAK: Duration = Duration::from_mins(5);

/// What was asked for on the command line.
#[derive(Debug)]
struct Selection {
    /// Each fault once, and only those that are quick.
    is_short: bool,
    /// Parts of names; none: all.
    names: Vec<String>,
    /// How long a soak takes.
    soak: Duration,
    /// The archive of the image that is tried; none: it is built.
    image: Option<PathBuf>,
}

fn main() -> ExitCode {
    let selection = Selection::of(env::args().skip(1));
    if let Some(why) = Node::unsupported() {
        let line = format!("NO FAULT IS TRIED HERE: {why}");
        let mut stderr = std::io::stderr();
        writeln!(stderr, "{line}").unwrap();
        support::tell::tell(&line);
        return match env::var("CI").as_deref() {
            Ok("true") => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        };
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(run::run(&selection));
    println!("{report}");
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

// === impl Selection ===

impl Selection {
    fn of(arguments: impl Iterator<Item = String>) -> Self {
        let (options, names): (Vec<_>, Vec<_>) =
            arguments.partition(|argument| argument.starts_with('-'));
        // What the test harness of cargo is told as a rule means nothing here.
        let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
        Self {
            is_short: options.iter().any(|option| option == "--short"),
            soak: value("--soak-minutes=").map_or(SOAK, |minutes| {
                Duration::from_mins(minutes.parse().expect("a number of minutes"))
            }),
            image: value("--image=").map(PathBuf::from),
            names,
        }
    }

    fn has(&self, fault: &faults::Fault) -> bool {
        if self.names.is_empty() {
            return fault.is_short || !self.is_short;
        }
        self.names
            .iter()
            .any(|name| fault.name.contains(name.as_str()))
    }
}
