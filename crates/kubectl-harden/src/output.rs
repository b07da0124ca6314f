//! What a command says, held back until all of it is known: nothing half-written ever reaches standard
//! output.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// For standard output.
    pub(crate) stdout: String,
    /// What comes after that, written piece by piece as it may be long. All that it says is known already.
    pub(crate) pieces: Option<Pieces>,
    /// Whether they have colours, which are for terminals only.
    pub(crate) coloured: bool,
    /// For standard error, line by line.
    pub(crate) stderr: Vec<String>,
    /// Whether the exit code is to be 1: bad input, or what the command was asked to tell of.
    pub(crate) failed: bool,
}

/// What writes a long text.
pub(crate) struct Pieces(pub(crate) Box<WritePieces>);

type WritePieces = dyn FnOnce(&mut dyn Write) -> io::Result<()>;

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pieces")
    }
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
    let failed = report.failed;
    let written = if report.coloured {
        write(&mut anstream::stdout().lock(), report)
    } else {
        write(&mut io::stdout().lock(), report)
    };
    match written {
        Ok(()) if !failed => ExitCode::SUCCESS,
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
fn write(stdout: &mut impl Write, report: Report) -> io::Result<()> {
    match write_all(stdout, report) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn write_all(stdout: &mut impl Write, report: Report) -> io::Result<()> {
    stdout.write_all(report.stdout.as_bytes())?;
    if let Some(Pieces(write_pieces)) = report.pieces {
        let mut buffered = BufWriter::new(&mut *stdout);
        write_pieces(&mut buffered)?;
        buffered.flush()?;
    }
    stdout.flush()
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

/// A table with a header, as wide as the terminal but for an indentation of two.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match terminal_size::terminal_size() {
        Some((width, _)) => {
            table
                .set_width(width.0.saturating_sub(2))
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        // One line each, for grep.
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}
