//! `kubectl harden`: see what Pod Hardening for Kubernetes does to a pod, and why.

mod args;
mod audit;
mod cmd;
mod convert;
mod diff;
mod explain;
mod lint;
mod output;
mod replay;
mod source;
mod workload;
mod yaml;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    output::finish(cmd::run(args::Args::parse()))
}
