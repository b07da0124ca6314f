//! `kubectl harden completions`.

use clap::CommandFactory as _;

use crate::args::{Args, CompletionsArgs};
use crate::output::Report;

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<Report> {
    let mut script = Vec::new();
    // By the program's own name: a shell completes `kubectl harden` with kubectl's script.
    clap_complete::generate(
        args.shell,
        &mut Args::command(),
        "kubectl-harden",
        &mut script,
    );
    Ok(Report {
        stdout: String::from_utf8(script)?,
        ..Report::default()
    })
}
