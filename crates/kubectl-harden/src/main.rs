//! `kubectl harden`: see what Pod Hardening for Kubernetes does to a pod, and why.

mod args;
mod audit;
mod cmd;
mod convert;
mod diff;
mod explain;
mod lint;
mod output;
mod policy_test;
mod replay;
mod source;
mod workload;
mod yaml;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let failure = args.command.failure();
    output::finish(cmd::run(args), failure)
}
