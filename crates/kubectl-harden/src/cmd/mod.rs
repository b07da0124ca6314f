//! The commands, one module each. A new one is a module here, a variant of [`Command`], and an arm of
//! [`run`].

mod audit;
mod compile;
mod completions;
mod convert;
mod diff;
mod explain;
mod lint;
mod man;
mod render;
mod test;

use std::path::PathBuf;

use crate::args::{Args, Command};
use crate::output::{Report, Usage};

/// Does what the command line asks for. Nothing is printed yet.
pub(crate) fn run(args: Args) -> anyhow::Result<Report> {
    match args.command {
        Command::Render(args) => render::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Audit(args) => audit::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Standard input can be only one of the things to read.
fn read_stdin_once<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Usage> {
    let stdin = paths.into_iter().filter(|path| path.as_os_str() == "-");
    match stdin.count() {
        0 | 1 => Ok(()),
        _ => Err(Usage("standard input (-) can be read only once")),
    }
}
