//! `kubectl harden convert`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::bail;
use hardening_api::policy::Mode;
use hardening_manifests::read_what_can_be;
use hardening_psp::{Migration, migrate};
use serde_json::Value;

use super::read_stdin_once;
use crate::args::{ConvertArgs, ConvertFormat, ConvertReport};
use crate::convert::folder;
use crate::convert::gather::{Gathered, Known, gather, in_one_line};
use crate::convert::report;
use crate::output::{Report, Usage, names};
use crate::replay::{self, Progress};
use crate::source::Cluster;
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
    match (&args.report_file, &args.replay) {
        (Some(file), _) => folder::replace(file, &told)?,
        (None, Some(_)) => {}
        (None, None) => report.stderr.extend(told.lines().map(str::to_owned)),
    }
    let manifests = migration.manifests();
    if let Some(folder) = &args.out_dir {
        folder::write(folder, &manifests, args.force)?;
        // What could not be read may be what an earlier run wrote those for.
        if !report.failed {
            folder::remove_others(folder, &manifests)?;
        }
    }
    match &args.replay {
        Some(paths) => replay_on(args, paths, &known, &mut report)?,
        None if args.out_dir.is_none() => report.stdout = print(&manifests, args.output),
        None => {}
    }
    if args.report == ConvertReport::Text {
        report.stderr.push(summary(&migration));
    }
    Ok(report)
}

/// Says what the conversion would do to pods.
fn replay_on(
    args: &ConvertArgs,
    paths: &[PathBuf],
    known: &Known,
    report: &mut Report,
) -> anyhow::Result<()> {
    let progress = Progress::on_stderr();
    let (manifests, errors, namespace) = match paths {
        [] => {
            let cluster = Cluster::open(&args.cluster)?;
            let found = replay::live_workloads(&cluster, &progress)?;
            (found, Vec::new(), cluster.namespace().to_owned())
        }
        paths => {
            let (found, errors) = read_what_can_be(paths);
            let errors = errors.into_iter().map(in_one_line).collect();
            (found, errors, "default".to_owned())
        }
    };
    // What is only recorded changes nothing that could be compared.
    let migration = migrate(&known.input(Mode::Enforce));
    let (replayed, wrong) = replay::replay(&migration, &manifests, &namespace, &progress)?;
    if replayed.is_empty() && wrong.is_empty() && errors.is_empty() {
        let none = "note: there is no pod to replay, and nothing that makes pods";
        report.stderr.push(none.to_owned());
    }
    let errors: Vec<String> = errors.into_iter().chain(wrong).collect();
    report.failed |= !errors.is_empty();
    let errors = errors.into_iter().map(|error| format!("error: {error}"));
    report.stderr.extend(errors);
    report.stdout = match args.report {
        ConvertReport::Text => replay::as_text(&replayed),
        ConvertReport::Markdown => replay::as_markdown(&replayed),
        ConvertReport::Json => serde_json::to_string_pretty(&replay::as_json(&replayed))? + "\n",
    };
    Ok(())
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
    let others = args.rbac.iter().chain(&args.namespaces);
    let others = others.chain(&args.replay).flatten();
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
