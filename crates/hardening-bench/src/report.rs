//! Figures as people read them, on a terminal and on the page that keeps them: ratios first, raw figures after.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use procfs::Current as _;
use serde::Serialize;
use time::OffsetDateTime;

/// A figure of ours as a multiple of somebody else's, and what it is held to.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// What is compared, with whose, under which load.
    pub what: String,
    /// Our figure by the other's.
    pub ratio: f64,
    /// What it must reach.
    pub limit: Limit,
}

/// What a ratio is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

// === impl Ratio ===

impl Ratio {
    /// Whether it is what it must be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.ratio <= limit,
            Limit::AtLeast(limit) => self.ratio >= limit,
        }
    }
}

/// The ratios as a table in Markdown.
#[must_use]
pub fn ratios(ratios: &[Ratio]) -> String {
    let mut out = String::from("| | measured | limit | |\n|---|---:|---:|---|\n");
    for ratio in ratios {
        let limit = match ratio.limit {
            Limit::AtMost(limit) => format!("at most {limit}"),
            Limit::AtLeast(limit) => format!("at least {limit}"),
        };
        let met = if ratio.is_met() { "met" } else { "**not met**" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {:.2} | {limit} | {met} |",
            ratio.what, ratio.ratio
        );
    }
    out
}

// === where they go ===

/// Shows the tables, with how each ratio has changed since those that stand on the page; and writes them there, in
/// place of the section of this name.
///
/// # Errors
///
/// Where the page cannot be read or written, or has no such section.
pub fn publish(section: &str, tables: &str, ratios: &[Ratio], page: &Path) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let (before, old, after) = split(&text, section)
        .with_context(|| format!("{} has no section {section}", page.display()))?;
    let mut stdout = io::stdout().lock();
    let said = format!("Measured on {}.\n\n{tables}", circumstances()?);
    write!(stdout, "{said}\n{}", changes(&known(old), ratios)).context("write the tables")?;
    fs::write(page, format!("{before}\n{said}{after}"))
        .with_context(|| format!("write {}", page.display()))
}

/// Writes the figures as JSON.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn save(rows: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let json = serde_json::to_vec_pretty(rows).context("write the figures")?;
    fs::write(path, json).with_context(|| format!("write {}", path.display()))
}

/// What stands before a section, in it, and after it.
fn split<'t>(text: &'t str, section: &str) -> Option<(&'t str, &'t str, &'t str)> {
    let begin = format!("<!-- measured: {section} -->\n");
    let start = text.find(&begin)? + begin.len();
    let (before, rest) = text.split_at_checked(start)?;
    let (old, after) = rest.split_at_checked(rest.find("<!-- end -->")?)?;
    Some((before, old, after))
}

/// The ratios that a section tells, by what is compared.
fn known(section: &str) -> BTreeMap<&str, f64> {
    section
        .lines()
        .filter(|line| line.ends_with("met |") || line.ends_with("met** |"))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            Some((cells.next()?, cells.next()?.parse().ok()?))
        })
        .collect()
}

fn changes(known: &BTreeMap<&str, f64>, ratios: &[Ratio]) -> String {
    let mut out = String::new();
    for Ratio { what, ratio, .. } in ratios {
        let Some(before) = known.get(&**what) else {
            continue;
        };
        let change = (ratio / before - 1.0) * 100.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{what}: {ratio:.2}, {before:.2} on the page, {change:+.0} %"
        );
    }
    out
}

/// When, with what, on what.
fn circumstances() -> Result<String> {
    let date = OffsetDateTime::now_utc().date();
    let cpu = procfs::CpuInfo::current().context("read the processor's name")?;
    let model = cpu
        .model_name(0)
        .unwrap_or("an unknown processor")
        .to_owned();
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().next().map(str::to_owned)
    };
    let versions: Vec<String> = ["rustc", "h2load"]
        .iter()
        .filter_map(|p| first_line(p))
        .collect();
    Ok(format!(
        "{date}, on {} cores of {model}, with {}",
        cpu.num_cores(),
        versions.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# Page\n<!-- measured: a -->\nold\n| x | 2.00 | at most 3 | met |\n<!-- end -->\nmore\n";

    #[test]
    fn a_section_is_found_by_its_name_and_the_rest_stays() {
        let (before, old, after) = split(PAGE, "a").unwrap();
        assert_eq!([before, old, after].concat(), PAGE);
        assert!(after.starts_with("<!-- end -->\nmore"));
        assert_eq!(split(PAGE, "b"), None);
    }

    #[test]
    fn a_ratio_is_compared_with_the_one_on_the_page() {
        let ratio = Ratio {
            what: "x".to_owned(),
            ratio: 3.0,
            limit: Limit::AtMost(3.0),
        };
        let page = ratios(std::slice::from_ref(&ratio));
        assert_eq!(known(&page).get("x"), Some(&3.0));
        let (_, old, _) = split(PAGE, "a").unwrap();
        assert_eq!(
            changes(&known(old), &[ratio]),
            "x: 3.00, 2.00 on the page, +50 %\n"
        );
    }
}
