//! `make demo` and `make playground`: the product at work on a control plane of its own, with the programs
//! and the examples that users get.
//!
//! The demonstration asserts each thing that it shows: it ends well only if all of it really happened.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;

mod demo; // the steps
mod inside; // what the process in a container sees
mod narrator; // how they are told
mod pods; // what is looked at
mod stage; // what they are played on

/// Shows what Pod Hardening for Kubernetes does, on a control plane that is started for it.
#[derive(Debug, Parser)]
#[command(name = "demo")]
enum Command {
    /// Show it step by step, and end.
    Demo,
    /// Set everything up and stay, for trying things out, until Ctrl-C.
    Playground,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Demo => demo::demo().await,
        Command::Playground => demo::playground().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where not even this can be written, the exit code says it.
            let _ = writeln!(anstream::stderr(), "\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
