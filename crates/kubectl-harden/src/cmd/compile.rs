//! `kubectl harden compile`.

use std::collections::BTreeSet;

use anyhow::bail;
use hardening_api::PolicyKind;
use hardening_compile::{Compiled, CompiledPolicy, Options, SOURCES, compile};
use hardening_engine::PolicySet;
use hardening_manifests::{policy_set, read};

use super::read_stdin_once;
use crate::args::{CompileArgs, FailurePolicy};
use crate::output::{Report, names};
use crate::source::Cluster;
use crate::yaml;

pub(crate) fn run(args: &CompileArgs) -> anyhow::Result<Report> {
    let (set, problems) = policies(args)?;
    if set.policy_count() == 0 && problems.is_empty() {
        let [namespaced, cluster] = PolicyKind::ALL.map(PolicyKind::name);
        let place = match args.files.as_slice() {
            [] => "the cluster".to_owned(),
            files => names(files),
        };
        bail!("{place}: no {namespaced} or {cluster} in it");
    }
    let compiled = compile(&set, &options(args));
    let refused = compiled.refused.iter().map(|(policy, refusal)| {
        let namespace = policy.namespace.as_deref();
        let place = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{place}{}: {refusal}", policy.name)
    });
    let errors: Vec<String> = problems.into_iter().chain(refused).collect();
    let mut report = Report {
        stdout: print(&compiled),
        failed: !errors.is_empty(),
        ..Report::default()
    };
    let errors = errors.into_iter().map(|error| format!("error: {error}"));
    let notes = compiled.notes.iter().map(|note| format!("note: {note}"));
    report.stderr.extend(errors.chain(notes));
    if compiled.objects.is_empty() && !report.failed {
        let nothing = "note: no policy is in mode Enforce: there is nothing to compile";
        report.stderr.push(nothing.to_owned());
    }
    Ok(report)
}

/// The policies, and what is wrong with those that are not among them.
fn policies(args: &CompileArgs) -> anyhow::Result<(PolicySet, Vec<String>)> {
    let from_cluster = args.files.is_empty();
    let (manifests, namespace) = if from_cluster {
        let cluster = Cluster::open(&args.cluster)?;
        (cluster.for_compiling()?, cluster.namespace().to_owned())
    } else {
        let files: Vec<_> = args.files.iter().chain(&args.namespaces).cloned().collect();
        read_stdin_once(&files)?;
        (read(&files)?, "default".to_owned())
    };
    let (mut set, problems) = policy_set(&manifests, &namespace);
    if from_cluster {
        set.know_all_service_accounts();
    }
    Ok((set, problems.iter().map(ToString::to_string).collect()))
}

fn options(args: &CompileArgs) -> Options {
    Options {
        failure_policy: match args.failure_policy {
            FailurePolicy::Fail => hardening_compile::FailurePolicy::Fail,
            FailurePolicy::Ignore => hardening_compile::FailurePolicy::Ignore,
        },
        excluded_namespaces: args
            .exclude_namespaces
            .iter()
            .cloned()
            .collect::<BTreeSet<_>>(),
    }
}

fn print(compiled: &Compiled) -> String {
    let document = |object: &CompiledPolicy| {
        let sources = object.policy.pointer("/metadata/annotations");
        let sources = sources.and_then(|annotations| annotations.get(SOURCES)?.as_str());
        format!(
            "# Compiled by kubectl harden compile, from {}.\n{}---\n{}",
            sources.unwrap_or_default(),
            yaml::block(&object.policy, None),
            yaml::block(&object.binding, None),
        )
    };
    let documents: Vec<String> = compiled.objects.iter().map(document).collect();
    documents.join("---\n")
}
