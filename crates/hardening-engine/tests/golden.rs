//! Golden cases: `cases/*.yaml` says policies and a pod, `cases/*.txt` what the plan is.
//!
//! `UPDATE_EXPECT=1 cargo test -p hardening-engine --test golden` writes the expectations anew.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use hardening_api::API_VERSION;
use hardening_engine::{Fill, Plan, Pod, Policy, PolicySet, UnknownNamespaces, plan};
use serde::Deserialize;
use serde_json::{Value, json};

/// A case. Everything happens in the namespace `shop`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    case: String,
    policies: Vec<CasePolicy>,
    pod: Value,
    /// The pod as it was, for a request that adds ephemeral containers.
    #[serde(default)]
    old: Option<Value>,
    #[serde(default)]
    namespace_labels: BTreeMap<String, String>,
    /// Service accounts of `shop`, and what they say about their token.
    #[serde(default)]
    service_accounts: BTreeMap<String, Option<bool>>,
    /// All RuntimeClasses of the cluster, and the nodes they ask for; absent: not known.
    #[serde(default)]
    runtime_classes: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// The cluster's version of Kubernetes; absent: not known.
    #[serde(default)]
    kubernetes: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasePolicy {
    /// The name of a cluster policy,
    cluster: Option<String>,
    /// or of a policy of the namespace.
    name: Option<String>,
    spec: Value,
}

#[test]
fn plans_are_as_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(files.len() >= 7, "the cases are gone");
    for file in files {
        check(&file);
    }
}

#[track_caller]
fn check(file: &Path) {
    let yaml = std::fs::read_to_string(file).unwrap();
    let cases: Vec<Case> =
        serde_saphyr::from_multiple(&yaml).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let actual: String = cases.iter().map(outcome).collect();
    let expectation = file.with_extension("txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&expectation, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&expectation).unwrap_or_default();
    assert!(
        actual == expected,
        "{} is not what came out (UPDATE_EXPECT=1 writes it anew):\n{actual}",
        expectation.display()
    );
}

fn outcome(case: &Case) -> String {
    let set = policy_set(case);
    let json = case.pod.to_string();
    let old = case.old.as_ref().map(Value::to_string);
    let pod = match &old {
        Some(old) => Pod::with_new_ephemeral_containers(&json, old),
        None => Pod::from_json(&json),
    };
    let pod = pod.unwrap_or_else(|e| panic!("{}: {e}", case.case));
    let matching = set.matching("shop", &pod).unwrap();
    let plan = plan(&matching, &pod);
    holds_for_every_plan(case, &set, &plan);

    let mut out = format!("# {}\n", case.case);
    let line = |verb: &str, fill: &Fill<'_>| {
        let by = fill
            .profile
            .map_or_else(String::new, |profile| format!(", profile {profile:?}"));
        format!(
            "{verb} {} = {} ({}{by})\n",
            fill.path(),
            fill.value_json(),
            fill.policy
        )
    };
    plan.fills
        .iter()
        .for_each(|fill| out += &line("fill", fill));
    for held in &plan.withheld {
        let item = held
            .item
            .map_or_else(String::new, |item| format!("[{item}]"));
        writeln!(
            out,
            "hold {}{item}: {} ({})",
            held.path(),
            held.guard.name(),
            held.policy
        )
        .unwrap();
    }
    plan.audited
        .iter()
        .for_each(|fill| out += &line("audit", fill));
    for operation in &plan.to_patch().0 {
        let operation = serde_json::to_value(operation).unwrap();
        if operation["op"] == "remove" {
            writeln!(out, "remove {}", operation["path"].as_str().unwrap()).unwrap();
        }
    }
    if let Some(warning) = plan.warning() {
        writeln!(out, "warn {warning}").unwrap();
    }
    out + "\n"
}

/// The patch applies, to what the author wrote it adds only, and a second pass fills nothing.
fn holds_for_every_plan(case: &Case, set: &PolicySet, plan: &Plan<'_>) {
    let mut patched = case.pod.clone();
    json_patch::patch(&mut patched, &plan.to_patch().0)
        .unwrap_or_else(|e| panic!("{}: {e}: {:?}", case.case, plan.to_patch()));
    assert_eq!(plan.is_empty(), patched == case.pod, "{}", case.case);
    let removed = plan
        .fills
        .iter()
        .any(|fill| fill.field.name() == "automountServiceAccountToken");
    if !removed && case.old.is_none() {
        keeps(&case.case, &case.pod, &patched);
    }
    let json = patched.to_string();
    let old = case.old.as_ref().map(Value::to_string);
    let pod = match &old {
        Some(old) => Pod::with_new_ephemeral_containers(&json, old),
        None => Pod::from_json(&json),
    };
    let pod = pod.unwrap();
    let matching = set.matching("shop", &pod).unwrap();
    let second = hardening_engine::plan(&matching, &pod);
    assert!(
        second.is_empty(),
        "{}: the second pass fills {:?}",
        case.case,
        second.fills
    );
}

fn keeps(case: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                // A record of an earlier round is added to.
                if !value.is_null() && !key.starts_with("podhardening.dev/") {
                    keeps(case, value, &after[key]);
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            before
                .iter()
                .zip(after)
                .for_each(|(before, after)| keeps(case, before, after));
            assert!(before.len() <= after.len(), "{case}");
        }
        (before, after) => assert_eq!(before, after, "{case}"),
    }
}

fn policy_set(case: &Case) -> PolicySet {
    let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    set.insert_namespace("shop", &case.namespace_labels);
    for policy in &case.policies {
        let compiled = match (&policy.cluster, &policy.name) {
            (Some(name), None) => {
                let object = json!({"apiVersion": API_VERSION, "kind": "ClusterPodHardeningPolicy", "metadata": {"name": name}, "spec": policy.spec});
                Policy::cluster(&serde_json::from_value(object).unwrap())
            }
            (None, Some(name)) => {
                let object = json!({"apiVersion": API_VERSION, "kind": "PodHardeningPolicy", "metadata": {"name": name, "namespace": "shop"}, "spec": policy.spec});
                Policy::namespaced(&serde_json::from_value(object).unwrap())
            }
            _ => panic!("{}: a policy has a name, or a cluster policy's", case.case),
        };
        set.insert_policy(compiled.unwrap_or_else(|e| panic!("{}: {e}", case.case)));
    }
    for (name, automount) in &case.service_accounts {
        set.insert_service_account("shop", name, *automount);
    }
    for (name, nodes) in case.runtime_classes.iter().flatten() {
        set.insert_runtime_class(name, nodes);
    }
    if case.runtime_classes.is_some() {
        set.know_all_runtime_classes();
    }
    set.set_kubernetes_version(case.kubernetes.as_ref().map(|text| text.parse().unwrap()));
    set
}
