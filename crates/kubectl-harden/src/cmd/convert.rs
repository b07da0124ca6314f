//! `kubectl harden convert`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::bail;
use hardening_psp::{Migration, migrate};
use serde_json::Value;

use super::read_stdin_once;
use crate::args::{ConvertArgs, ConvertFormat, ConvertReport};
use crate::convert::folder;
use crate::convert::gather::{Gathered, gather};
use crate::convert::report;
use crate::output::{Report, Usage, names};
use crate::yaml;

pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<Report> {
    let files = inputs(args)?;
    let Gathered {
        known,
        errors,
        notes,
    } = gather(args, &files)?;
    if known.psps.is_empty() && errors.is_empty() {
        bail!("{}: no PodSecurityPolicy in it", names(&files));
    }
    let migration = migrate(&known.input(args.mode.into()));
    let mut report = Report {
        failed: !errors.is_empty() || !migration.refused.is_empty(),
        ..Report::default()
    };
    let refused = migration.refused.iter().map(ToString::to_string);
    let errors = errors.into_iter().chain(refused);
    report
        .stderr
        .extend(errors.map(|error| format!("error: {error}")));
    report
        .stderr
        .extend(notes.into_iter().map(|note| format!("note: {note}")));

    if migration.psps.is_empty() {
        return Ok(report);
    }
    let told = report::tell(&migration, args.report)?;
    match &args.report_file {
        Some(file) => folder::replace(file, &told)?,
        None => report.stderr.extend(told.lines().map(str::to_owned)),
    }
    let manifests = migration.manifests();
    match &args.out_dir {
        Some(folder) => {
            folder::write(folder, &manifests, args.force)?;
            // What could not be read may be what an earlier run wrote those for.
            if !report.failed {
                folder::remove_others(folder, &manifests)?;
            }
        }
        None => report.stdout = print(&manifests, args.output),
    }
    if args.report == ConvertReport::Text {
        report.stderr.push(summary(&migration));
    }
    Ok(report)
}

/// The files to read.
fn inputs(args: &ConvertArgs) -> anyhow::Result<Vec<PathBuf>> {
    let files = match args.files.as_slice() {
        [] if io::stdin().is_terminal() => {
            return Err(
                Usage("give PodSecurityPolicies with -f FILE, or on standard input").into(),
            );
        }
        [] => vec![PathBuf::from("-")],
        files => files.to_vec(),
    };
    let others = args.rbac.iter().chain(&args.namespaces).flatten();
    read_stdin_once(files.iter().chain(others))?;
    Ok(files)
}

fn print(manifests: &[Value], format: ConvertFormat) -> String {
    match format {
        ConvertFormat::Yaml => {
            let documents = manifests.iter().map(|manifest| yaml::block(manifest, None));
            documents.collect::<Vec<_>>().join("---\n")
        }
        ConvertFormat::Json => {
            let items: Vec<_> = manifests.iter().map(|manifest| (manifest, None)).collect();
            yaml::json_list(&items) + "\n"
        }
    }
}

fn summary(migration: &Migration) -> String {
    let count = |count: usize, one: &str, several: &str| {
        format!("{count} {}", if count == 1 { one } else { several })
    };
    format!(
        "{} converted, {} refused: {}, {}",
        count(
            migration.psps.len(),
            "PodSecurityPolicy",
            "PodSecurityPolicies"
        ),
        migration.refused.len(),
        count(migration.manifests().len(), "object", "objects"),
        count(migration.remarks.len(), "note", "notes"),
    )
}
