//! Unified diffs, coloured for terminals.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

const HEADER: Style = Style::new().bold();
const HUNK: Style = AnsiColor::Cyan.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();
const ADDED: Style = AnsiColor::Green.on_default();

/// Lines around each change.
const CONTEXT: usize = 3;

/// The difference between two texts, with escapes for colour.
pub(crate) fn unified(before: &str, after: &str, title_before: &str, title_after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let mut out = String::new();
    let mut line = |style: Style, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{style}{text}{style:#}");
    };
    line(HEADER, &format!("--- {title_before}"));
    line(HEADER, &format!("+++ {title_after}"));
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        line(HUNK, &hunk.header().to_string());
        for change in hunk.iter_changes() {
            let (style, sign) = match change.tag() {
                ChangeTag::Delete => (REMOVED, '-'),
                ChangeTag::Insert => (ADDED, '+'),
                ChangeTag::Equal => (Style::new(), ' '),
            };
            let text = change.value();
            line(
                style,
                &format!("{sign}{}", text.strip_suffix('\n').unwrap_or(text)),
            );
            if change.missing_newline() {
                line(Style::new(), "\\ No newline at end of file");
            }
        }
    }
    out
}
