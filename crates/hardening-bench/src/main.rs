//! `hardening-bench`: what the webhook costs under load, beside servers that do less on the same stack.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use hardening_bench::contender::{self, Contender};
use hardening_bench::webhook::{self, Extent};
use hardening_bench::{Size, Written, audit, cluster, plot, report, scale};

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
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Requests in a turn with the typical pod.
        #[arg(long, default_value_t = 20_000)]
        requests: u32,
        /// Where to write the figures, as JSON.
        #[arg(long, default_value = "target/bench/webhook.json")]
        output: PathBuf,
        /// The page whose table is written anew.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
    },
    /// Many policies and namespaces: memory, time to ready, events, and CPU time of a review.
    Scale {
        /// How often every number of policies has its turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Reviews in a turn.
        #[arg(long, default_value_t = 20_000)]
        requests: u32,
        /// Where to write the figures, as JSON.
        #[arg(long, default_value = "target/bench/scale.json")]
        output: PathBuf,
        /// The page whose table is written anew.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
    },
    /// End to end on a control plane: pods created with each way of filling them in, in turn.
    Cluster {
        /// How often everybody has their turn.
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Pods in a turn.
        #[arg(long, default_value_t = 200)]
        pods: usize,
        /// Where to write the figures, as JSON.
        #[arg(long, default_value = "target/bench/cluster.json")]
        output: PathBuf,
        /// The page whose table is written anew.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
    },
    /// `kubectl harden audit` of a whole cluster, beside kubectl listing its pods.
    Audit {
        /// How often each of the two has its turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Pods in the cluster.
        #[arg(long, default_value_t = 10_000)]
        pods: usize,
        /// Where to write the figures, as JSON.
        #[arg(long, default_value = "target/bench/audit.json")]
        output: PathBuf,
        /// The page whose table is written anew.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
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

fn code(met: bool) -> ExitCode {
    if met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Webhook {
            rounds,
            requests,
            output,
            page,
        } => {
            let rows = webhook::measure(Extent { rounds, requests })?;
            let ratios = webhook::ratios(&rows);
            let met = ratios.iter().all(report::Ratio::is_met);
            let picture = "\n![Latency against load](images/latency.svg)\n".to_owned();
            let tables = [report::ratios(&ratios), webhook::table(&rows), picture].concat();
            report::publish("webhook", &tables, &ratios, &page)?;
            plot::latency(&rows, &page.with_file_name("images/latency.svg"))?;
            report::save(&rows, &output)?;
            Ok(code(met))
        }
        Command::Scale {
            rounds,
            requests,
            output,
            page,
        } => {
            let rows = scale::measure(rounds, requests)?;
            let ratios = scale::ratios(&rows);
            let met = ratios.iter().all(report::Ratio::is_met);
            let picture = "\n![Cost against policies](images/policies.svg)\n".to_owned();
            let tables = [report::ratios(&ratios), scale::table(&rows), picture].concat();
            report::publish("scale", &tables, &ratios, &page)?;
            plot::policies(&rows, &page.with_file_name("images/policies.svg"))?;
            report::save(&rows, &output)?;
            Ok(code(met))
        }
        Command::Cluster {
            rounds,
            pods,
            output,
            page,
        } => {
            let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
            let rows = runtime.block_on(cluster::measure(rounds, pods))?;
            let ratios = cluster::ratios(&rows);
            let met = ratios.iter().all(report::Ratio::is_met);
            let tables = [report::ratios(&ratios), cluster::table(&rows)].concat();
            report::publish("cluster", &tables, &ratios, &page)?;
            report::save(&rows, &output)?;
            Ok(code(met))
        }
        Command::Audit {
            rounds,
            pods,
            output,
            page,
        } => {
            let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
            let rows = runtime.block_on(audit::measure(rounds, pods))?;
            let ratios = audit::ratios(&rows);
            let met = ratios.iter().all(report::Ratio::is_met);
            let tables = [report::ratios(&ratios), audit::table(&rows)].concat();
            report::publish("audit", &tables, &ratios, &page)?;
            report::save(&rows, &output)?;
            Ok(code(met))
        }
        Command::Serve {
            contender,
            size,
            written,
            listen,
            metrics_listen,
            write_ca,
        } => {
            // As the webhook itself does it.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("start the runtime")?;
            runtime.block_on(contender::serve(
                contender,
                (size, written),
                (listen, metrics_listen),
                &write_ca,
            ))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
