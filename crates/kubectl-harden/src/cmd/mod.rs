//! The commands, one module each. A new one is a module here, a variant of [`Command`], and an arm of
//! [`run`].

mod completions;
mod explain;
mod lint;
mod render;

use crate::args::{Args, Command};
use crate::output::Report;

/// Does what the command line asks for. Nothing is printed yet.
pub(crate) fn run(args: Args) -> anyhow::Result<Report> {
    match args.command {
        Command::Render(args) => render::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
