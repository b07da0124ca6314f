//! `hardening-bench`: what the webhook costs under load, beside servers that do less on the same stack.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use hardening_bench::contender::{self, Contender};
use hardening_bench::load::Extent;
use hardening_bench::report::Ratio;
use hardening_bench::{Size, Written, audit, cluster, plot, report, scale, webhook};
// Linked by being named: as the controller's.
use memory_functions as _;
use serde::Serialize;
use tikv_jemallocator::Jemalloc;
use tokio::runtime::Runtime;

/// As the controller's, so that those who do less than it differ from it in nothing else. Not what counts instructions: what
/// this allocator does hangs on the clock and on where the kernel puts things.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures what the webhook costs.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The webhook under load: throughput, latency and CPU time, beside a no-op and a fixed patch.
    Webhook {
        /// How often every server has its turn under every load.
        #[arg(long, default_value_t = 120)]
        rounds: usize,
        #[command(flatten)]
        turn: Turn,
        #[command(flatten)]
        places: Places,
    },
    /// Many policies and namespaces: memory, time to ready, events, and CPU time of a review.
    Scale {
        /// How often every number of policies has its turn.
        #[arg(long, default_value_t = 120)]
        rounds: usize,
        #[command(flatten)]
        turn: Turn,
        #[command(flatten)]
        places: Places,
    },
    /// End to end on a control plane: pods created with each way of filling them in, in turn.
    Cluster {
        /// How often everybody has their turn.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Pods in a turn.
        #[arg(long, default_value_t = 200)]
        pods: usize,
        #[command(flatten)]
        places: Places,
    },
    /// `kubectl harden audit` of a whole cluster, beside kubectl listing its pods.
    Audit {
        /// How often each of the two has its turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Pods in the cluster.
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        #[command(flatten)]
        places: Places,
    },
    /// Have the programs do all that is measured, briefly and without judging it: what they count meanwhile, where they
    /// are built to count, is the profile by which the released program is compiled.
    Train {
        /// How often every server has its turn under every load.
        #[arg(long, default_value_t = 6)]
        rounds: usize,
        #[command(flatten)]
        turn: Turn,
    },
    /// Be one of the servers that do less.
    Serve {
        /// Which.
        #[arg(value_enum)]
        contender: Contender,
        /// The pod that the fixed patch is for.
        #[arg(long, value_enum)]
        size: Size,
        /// What its author has written.
        #[arg(long, value_enum)]
        written: Written,
        /// Where to answer reviews.
        #[arg(long)]
        listen: SocketAddr,
        /// Where to answer probes.
        #[arg(long)]
        metrics_listen: SocketAddr,
        /// Where to write the certificate of the CA.
        #[arg(long)]
        write_ca: PathBuf,
    },
}

/// How long a server has its turn.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Turn {
    /// Milliseconds in a turn.
    #[arg(long = "turn", value_name = "MILLISECONDS", default_value_t = 50)]
    milliseconds: u64,
}

/// Where what was measured goes.
#[derive(Debug, clap::Args)]
struct Places {
    /// Where to write the figures, as JSON; absent: target/bench, by the name of what is measured.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The page whose table is written anew.
    #[arg(long, default_value = "docs/benchmarks.md")]
    page: PathBuf,
}

impl Turn {
    fn times(self, rounds: usize) -> Extent {
        let turn = Duration::from_millis(self.milliseconds);
        Extent { rounds, turn }
    }
}

impl Places {
    /// Tells what was measured, in the page's section of this name, too; fails where a ratio is not met.
    fn tell<R: Serialize>(
        self,
        section: &str,
        rows: &[R],
        ratios: &[Ratio],
        table: &str,
    ) -> Result<ExitCode> {
        let tables = [&report::ratios(ratios), table].concat();
        report::publish(section, &tables, ratios, &self.page)?;
        let output = self.output;
        let output = output.unwrap_or_else(|| format!("target/bench/{section}.json").into());
        report::save(&rows, &output)?;
        Ok(if ratios.iter().all(Ratio::is_met) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// A picture beside the page.
    fn picture(&self, name: &str) -> PathBuf {
        self.page.with_file_name(name)
    }
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // If not even this can be written, the exit code says it.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Webhook {
            rounds,
            turn,
            places,
        } => {
            let rows = webhook::measure(turn.times(rounds))?;
            plot::latency(&rows, &places.picture("images/latency.svg"))?;
            let picture = "\n![Latency against load](images/latency.svg)\n";
            let table = webhook::table(&rows) + picture;
            places.tell("webhook", &rows, &webhook::ratios(&rows), &table)
        }
        Command::Scale {
            rounds,
            turn,
            places,
        } => {
            let rows = scale::measure(turn.times(rounds))?;
            plot::policies(&rows, &places.picture("images/policies.svg"))?;
            let picture = "\n![Cost against policies](images/policies.svg)\n";
            let table = scale::table(&rows) + picture;
            places.tell("scale", &rows, &scale::ratios(&rows), &table)
        }
        Command::Cluster {
            rounds,
            pods,
            places,
        } => {
            let rows = runtime()?.block_on(cluster::measure(rounds, pods))?;
            places.tell(
                "cluster",
                &rows,
                &cluster::ratios(&rows),
                &cluster::table(&rows),
            )
        }
        Command::Audit {
            rounds,
            pods,
            places,
        } => {
            let rows = runtime()?.block_on(audit::measure(rounds, pods))?;
            places.tell("audit", &rows, &audit::ratios(&rows), &audit::table(&rows))
        }
        Command::Train { rounds, turn } => {
            webhook::measure(turn.times(rounds))?;
            scale::measure(turn.times(rounds))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve {
            contender,
            size,
            written,
            listen,
            metrics_listen,
            write_ca,
        } => {
            runtime()?.block_on(contender::serve(
                contender,
                (size, written),
                (listen, metrics_listen),
                &write_ca,
            ))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Of as many threads as there are processors.
fn runtime() -> Result<Runtime> {
    Runtime::new().context("start the runtime")
}
