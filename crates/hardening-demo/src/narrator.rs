//! How the demonstration is told: numbered steps, the commands that are really run, and what came of them,
//! for a terminal of 80 columns and for a log.

use std::{
    io::{self, Stdout, Write as _},
    time::Instant,
};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

/// Where lines end.
const WIDTH: usize = 92;
/// Where a step's lines begin.
const INDENT: &str = "    ";

const TITLE: Style = Style::new().bold();
const COMMAND: Style = AnsiColor::Cyan.on_default();
const QUOTE: Style = Style::new().dimmed();
const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();

/// Tells the story on standard output.
pub(crate) struct Narrator {
    /// With colours only where they are seen.
    out: AutoStream<Stdout>,
    started: Instant,
    steps: usize,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self {
            out: anstream::stdout(),
            started: Instant::now(),
            steps: 0,
        }
    }

    /// The first line.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{TITLE}{text}{TITLE:#}")
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, text: &str) -> io::Result<()> {
        self.steps += 1;
        writeln!(self.out, "\n{TITLE}{:2}. {text}{TITLE:#}", self.steps)
    }

    /// Says something in the narrator's own words.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.out;
        for line in wrapped(text, WIDTH - INDENT.len()) {
            writeln!(out, "{INDENT}{line}")?;
        }
        out.flush()
    }

    /// A command that is run now. A long one goes on on the next line, as a shell takes it.
    pub(crate) fn command(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.out;
        let lines = wrapped(text, WIDTH - INDENT.len() - 6);
        let text = lines.join(&format!(" \\\n{INDENT}    "));
        writeln!(out, "{INDENT}{COMMAND}$ {text}{COMMAND:#}")?;
        out.flush()
    }

    /// A command for the reader to copy, however long.
    pub(crate) fn suggest(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{INDENT}{COMMAND}{text}{COMMAND:#}")
    }

    /// What somebody else said, word for word.
    pub(crate) fn quote(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.out;
        for line in text.trim_end().lines() {
            for line in wrapped(line, WIDTH - INDENT.len() - 2) {
                writeln!(out, "{INDENT}{QUOTE}| {line}{QUOTE:#}")?;
            }
        }
        out.flush()
    }

    /// A table, its columns no wider than they must be. A row of one cell is a line of its own.
    pub(crate) fn table(&mut self, rows: &[Vec<String>]) -> io::Result<()> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let full = rows.iter().filter(|row| row.len() == columns);
            let cells = full.filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let out = &mut self.out;
        for row in rows {
            let cells = row.iter().zip(&widths);
            let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
            // Tables are wide, so they begin further left than what is said.
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "  {}", line.trim_end())?;
        }
        out.flush()
    }

    /// What changed from one text to another, with that many unchanged lines around it.
    pub(crate) fn diff(&mut self, before: &str, after: &str, context: usize) -> io::Result<()> {
        let out = &mut self.out;
        let diff = TextDiff::from_lines(before, after);
        for (index, group) in diff.grouped_ops(context).iter().enumerate() {
            if index > 0 {
                writeln!(out, "{INDENT}{QUOTE}  ...{QUOTE:#}")?;
            }
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let (sign, style) = match change.tag() {
                    ChangeTag::Insert => ('+', ADDED),
                    ChangeTag::Delete => ('-', REMOVED),
                    ChangeTag::Equal => (' ', Style::new()),
                };
                let line = cut(change.value().trim_end(), WIDTH - INDENT.len() - 2);
                writeln!(out, "{INDENT}{style}{sign} {line}{style:#}")?;
            }
        }
        out.flush()
    }

    /// The last line.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        writeln!(
            self.out,
            "\n{TITLE}All {} steps did what they say, in {:.0} seconds.{TITLE:#}",
            self.steps,
            self.started.elapsed().as_secs_f64()
        )
    }
}

/// Breaks a text between words. A word that is too long has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A line no longer than that; what is left out is marked.
fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let kept: String = line.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_broken_between_words() {
        for (text, expected) in [
            ("", vec![""]),
            ("one", vec!["one"]),
            ("one two three", vec!["one two", "three"]),
            ("  one\n two ", vec!["one two"]),
            ("incomprehensible one", vec!["incomprehensible", "one"]),
        ] {
            assert_eq!(wrapped(text, 8), expected, "{text:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        assert_eq!(cut("12345678", 8), "12345678");
        assert_eq!(cut("123456789", 8), "12345...");
    }
}
