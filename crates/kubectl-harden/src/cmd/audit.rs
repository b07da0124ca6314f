//! `kubectl harden audit`.

use std::env;
use std::io::{self, Write};

use hardening_manifests::read;
use k8s_openapi::jiff::Timestamp;

use super::read_stdin_once;
use crate::args::{AuditArgs, AuditFormat, FailOn};
use crate::audit::model::{Audit, Subject};
use crate::audit::{Audited, Scope, dump, html, live, reports, write_text};
use crate::convert::folder::replace;
use crate::output::{Pieces, Report};
use crate::source::Cluster;

pub(crate) fn run(args: &AuditArgs) -> anyhow::Result<Report> {
    read_stdin_once(args.files.iter().chain(&args.policies))?;
    let Audited {
        audit,
        warnings,
        errors,
    } = audited(args)?;
    let mut report = Report {
        failed: !errors.is_empty(),
        stderr: warnings,
        ..Report::default()
    };
    let errors = errors.iter().map(|error| format!("error: {error}"));
    report.stderr.extend(errors);
    let notices = audit.notices.iter();
    let notices = notices.map(|notice| format!("warning: this is not all: {}", notice.text));
    report.stderr.extend(notices);
    for fail_on in &args.fail_on {
        if let Some(why) = fail_on.failure(&audit) {
            report.failed = true;
            report.stderr.push(format!("error: {why}"));
        }
    }
    if let Some(path) = &args.report {
        replace(path, &html::page(&audit, &made())?)?;
    }
    let output = args.output;
    report.coloured = output == AuditFormat::Table;
    report.pieces = Some(Pieces(Box::new(move |out| print(output, &audit, out))));
    Ok(report)
}

fn print(format: AuditFormat, audit: &Audit, mut out: &mut dyn Write) -> io::Result<()> {
    match format {
        AuditFormat::Table => write_text(audit, out),
        AuditFormat::Json => {
            serde_json::to_writer_pretty(&mut out, audit)?;
            out.write_all(b"\n")
        }
        AuditFormat::Yaml => serde_saphyr::to_io_writer(&mut out, audit).map_err(io::Error::other),
        AuditFormat::PolicyReport => {
            for report in reports(audit) {
                out.write_all(b"---\n")?;
                serde_saphyr::to_io_writer(&mut out, &report).map_err(io::Error::other)?;
            }
            Ok(())
        }
    }
}

/// Now, or when `SOURCE_DATE_EPOCH` says it is, as reproducible builds have it.
fn made() -> String {
    let given = env::var("SOURCE_DATE_EPOCH").ok();
    let given = given.and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok());
    let made = given.unwrap_or_else(Timestamp::now);
    made.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn audited(args: &AuditArgs) -> anyhow::Result<Audited> {
    let policies = read(&args.policies)?;
    let mut scope = Scope {
        namespace: args.namespace.clone(),
        selector: args.selector.clone(),
        kubernetes: args.kubernetes.kubernetes_version,
    };
    if !args.files.is_empty() {
        let input = read(&args.files)?;
        let namespace = args.namespace.as_deref().unwrap_or("default");
        return dump(&input, &policies, namespace, &scope);
    }
    let cluster = Cluster::open(&args.cluster)?;
    if !args.all_namespaces && scope.namespace.is_none() {
        scope.namespace = Some(cluster.namespace().to_owned());
    }
    let given = (!policies.is_empty()).then_some(policies.as_slice());
    live(&cluster, given, &scope)
}

impl FailOn {
    /// Why the command fails, if it does. What could not be found out is no pass.
    fn failure(self, audit: &Audit) -> Option<String> {
        let all = audit.total.workloads;
        let (name, subject, failing, what) = match self {
            Self::Missing => (
                "missing".to_owned(),
                Subject::Missing,
                audit.total.workloads_missing,
                "lack fields that policies would fill in".to_owned(),
            ),
            Self::Risk => (
                "risk".to_owned(),
                Subject::Risks,
                audit.total.workloads_at_risk,
                "have a risk".to_owned(),
            ),
            Self::Level(level) => {
                let workloads = audit.workloads.iter();
                let below = workloads.filter(|workload| workload.level_today < level);
                (
                    format!("level={}", level.name()),
                    Subject::Levels,
                    below.count(),
                    format!("are below {} today", level.name()),
                )
            }
        };
        if failing > 0 {
            return Some(format!(
                "--fail-on {name}: {failing} of {all} workloads {what}"
            ));
        }
        let is_partial = audit.notices.iter().any(|notice| {
            notice.affects.contains(&subject) || notice.affects.contains(&Subject::Pods)
        });
        is_partial.then(|| format!("--fail-on {name}: it is not known, as not all could be seen"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::model::{Level, Notice};

    #[test]
    fn what_is_not_known_is_no_pass() {
        let audit = |affects: &[Subject]| {
            let notices = affects.iter().map(|subject| Notice {
                text: "cannot list something".to_owned(),
                affects: vec![*subject],
            });
            Audit::new(
                Vec::new(),
                &BTreeMap::new(),
                "latest".to_owned(),
                notices.collect(),
            )
        };
        for (fail_on, unknown, fails) in [
            (FailOn::Missing, &[][..], false),
            (FailOn::Missing, &[Subject::Missing], true),
            (FailOn::Missing, &[Subject::Owners, Subject::Reasons], false),
            (FailOn::Risk, &[Subject::Missing], false),
            (FailOn::Risk, &[Subject::Risks], true),
            (FailOn::Level(Level::Baseline), &[Subject::Risks], false),
            (FailOn::Level(Level::Baseline), &[Subject::Pods], true),
        ] {
            let failure = fail_on.failure(&audit(unknown));
            assert_eq!(failure.is_some(), fails, "{fail_on:?} {unknown:?}");
        }
    }
}
