//! `hardening-bench`: what the webhook costs under load, beside servers that do less on the same stack.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use hardening_bench::contender::{self, Contender};
use hardening_bench::webhook::{self, Extent};
use hardening_bench::{Size, Written, table};

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

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Webhook {
            rounds,
            requests,
            output,
        } => {
            let rows = webhook::measure(Extent { rounds, requests })?;
            let ratios = webhook::ratios(&rows);
            write!(io::stdout(), "{}", table::webhook(&rows, &ratios))
                .context("write the table")?;
            if let Some(folder) = output.parent() {
                fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            }
            let json = serde_json::to_vec_pretty(&rows).context("write the figures")?;
            fs::write(&output, json).with_context(|| format!("write {}", output.display()))?;
            let met = ratios.iter().all(webhook::Ratio::is_met);
            Ok(if met {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Serve {
            contender,
            size,
            written,
            listen,
            metrics_listen,
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
            ))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
