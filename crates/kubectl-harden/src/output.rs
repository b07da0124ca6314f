//! What a command says, held back until all of it is known: nothing half-written ever reaches standard
//! output.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For standard output.
    pub(crate) stdout: String,
    /// Whether `stdout` has colours, which are for terminals only.
    pub(crate) coloured: bool,
    /// For standard error, line by line.
    pub(crate) stderr: Vec<String>,
    /// Whether the exit code is to be 1: bad input, or what the command was asked to tell of.
    pub(crate) failed: bool,
}

/// The command line asks for something that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) &'static str);

/// Several things are wrong with the input; each is told on a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct Problems(pub(crate) Vec<String>);

/// Prints what a command says, and how it went. `failure` is the exit code for bad input.
pub(crate) fn finish(result: anyhow::Result<Report>, failure: u8) -> ExitCode {
    let report = match result {
        Ok(report) => report,
        Err(error) => {
            let lines = match error.downcast_ref::<Problems>() {
                Some(Problems(lines)) => lines.clone(),
                None => vec![format!("{error:#}")],
            };
            for line in lines {
                say(&format!("error: {line}"));
            }
            return ExitCode::from(if error.is::<Usage>() { 2 } else { failure });
        }
    };
    for line in &report.stderr {
        say(line);
    }
    let written = if report.coloured {
        write(&mut anstream::stdout().lock(), &report.stdout)
    } else {
        write(&mut io::stdout().lock(), &report.stdout)
    };
    match written {
        Ok(()) if !report.failed => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("error: cannot write to standard output: {error}"));
            ExitCode::from(failure)
        }
    }
}

fn say(line: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// A reader that has seen enough (`| head`) is no failure.
fn write(stdout: &mut impl Write, text: &str) -> io::Result<()> {
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The paths of a command line, for messages.
pub(crate) fn names(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    paths.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Text from manifests that goes to a terminal, without what would break the line or steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push(' '),
            c if c.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(line, "{}", c.escape_default());
            }
            c => line.push(c),
        }
    }
    line
}
