//! The controller of Pod Hardening for Kubernetes: arguments, wiring and signals.
//!
//! What it wires: [`hardening_index`] (or files) publishes policy sets over a channel, and
//! [`hardening_webhook`] answers reviews from the latest one. The two know nothing of each other.
//!
//! What else runs beside them: readiness follows the watches, and where the API server reaches the webhook
//! by a URL, the program registers itself. All that is a task in `run.rs`.
//!
//! What is written into a cluster is written by another process, `manage`, which answers no reviews: each
//! thing is a task in `manage.rs`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
// Linked by being named.
use memory_functions as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use tikv_jemallocator::Jemalloc;

mod args;
mod crds;
mod error;
mod kubernetes;
mod lead;
mod log;
mod manage;
mod policy_files;
mod registration;
mod run;
mod serve;
mod supervise;
mod traces;
mod webhook;

use args::{Args, Command, LogArgs};

/// The libc's own is no choice: musl's, which the image would have, makes a review several times as dear.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Runs the program with the arguments and the environment of the process.
///
/// Exit codes: 0 where it did what it was asked to, 1 where it could not, 2 where it was asked wrongly.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Run(args) => args.check().and_then(|()| {
            let (log, threads) = (args.log.clone(), args.server.worker_threads);
            block_on(&log, threads, run::run(*args))
        }),
        Command::Manage(args) => args.check().and_then(|()| {
            let log = args.log.clone();
            block_on(&log, MANAGE_THREADS, manage::manage(*args))
        }),
        Command::Serve(args) => args.check().and_then(|()| {
            let (log, threads) = (args.log.clone(), args.server.worker_threads);
            block_on(&log, threads, serve::serve(*args))
        }),
        Command::Crds => crds::print(),
        Command::Completions { shell } => args::print_completions(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error),
    }
}

/// Probes are answered while one thread signs or compiles.
const MANAGE_THREADS: usize = 2;

/// Takes as many file descriptors as may be had. What starts a container often gives 1,024 at first, for
/// programs of old that cannot bear more, and each connection takes one.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Without it fewer connections are open at once, which says so itself.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs the future on few threads, with its log: reviews take microseconds, and each thread costs memory.
fn block_on(
    log: &LogArgs,
    worker_threads: usize,
    future: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads)
        .enable_all()
        .build()
        .context("start the runtime's threads")?;
    // What sends traces is at home in the runtime.
    let _inside = runtime.enter();
    let traces = log::init(log)?;
    let result = runtime.block_on(future);
    traces.end();
    result
}
