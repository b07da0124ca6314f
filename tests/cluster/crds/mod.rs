//! The CRDs on a real API server: served without a warning, and good and bad policies told apart there just
//! as [`hardening_api::violations`] tells them apart for files, with a message that names the field.

mod edges;
mod table;

use std::process::Output;

use hardening_api::{API_VERSION, PolicyKind, crds};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::api::{Answer, Api, namespace, shared};
use crate::support::crds::{CLUSTER_POLICIES, collection, condition, crd_path, install};

const NAMESPACED: PolicyKind = PolicyKind::Namespaced;
const CLUSTER: PolicyKind = PolicyKind::Cluster;

#[tokio::test]
async fn the_crds_are_established_without_a_warning() {
    let api = Api::admin().await;
    for answer in install(&api).await {
        assert_eq!(answer.warnings, [""; 0], "{:#}", answer.body["metadata"]);
    }
    for crd in crds() {
        let stored = api.get(&crd_path(&crd)).await.unwrap();
        assert_eq!(condition(&stored, "NamesAccepted"), Some("True"));
        assert_eq!(condition(&stored, "NonStructuralSchema"), None);
    }
}

#[tokio::test]
async fn kubectl_knows_the_short_names_the_category_and_the_columns() {
    let api = Api::admin().await;
    install(&api).await;
    namespace(&api, "columns", &json!({})).await;
    let status = json!({"status": {
        "observedGeneration": 1,
        "conditions": [
            condition_of("Accepted", "True", "Compiled"),
            condition_of("Overlapping", "False", "NoOverlap"),
        ],
    }});
    let spec = json!({"mode": "Audit", "priority": 7, "profile": "Restricted"});
    let mut cluster_spec = spec.clone();
    cluster_spec["tier"] = "Admin".into();
    for (kind, path, spec) in [
        (NAMESPACED, collection("columns"), spec),
        (CLUSTER, CLUSTER_POLICIES.to_owned(), cluster_spec),
    ] {
        api.ensure(&path, &policy(kind, "shown", &spec)).await;
        let path = format!("{path}/shown/status");
        let stored = api.merge(&path, &status).await.unwrap();
        assert_eq!(
            stored["metadata"]["generation"], 1,
            "status is no change of the spec"
        );
    }

    let short = kubectl(&["get", "php", "--namespace=columns"]).await;
    let (head, row) = two_lines(&short);
    assert_eq!(
        head,
        [
            "NAME",
            "MODE",
            "PRIORITY",
            "PROFILE",
            "ACCEPTED",
            "OVERLAPPING",
            "AGE"
        ]
    );
    assert_eq!(
        row[..6],
        ["shown", "Audit", "7", "Restricted", "True", "False"]
    );
    let short = kubectl(&["get", "cphp", "shown"]).await;
    let (head, row) = two_lines(&short);
    assert_eq!(
        head,
        [
            "NAME",
            "MODE",
            "TIER",
            "PRIORITY",
            "PROFILE",
            "ACCEPTED",
            "OVERLAPPING",
            "AGE"
        ]
    );
    assert_eq!(
        row[..7],
        [
            "shown",
            "Audit",
            "Admin",
            "7",
            "Restricted",
            "True",
            "False"
        ]
    );
    let category = kubectl(&[
        "get",
        "podhardening",
        "--namespace=columns",
        "--output=name",
    ])
    .await;
    assert!(
        category.contains("podhardeningpolicy.podhardening.dev/shown")
            && category.contains("clusterpodhardeningpolicy.podhardening.dev/shown"),
        "{category}"
    );
    let explained = kubectl(&["explain", "php.spec.pod.hostUsers"]).await;
    assert!(explained.contains("user namespace"), "{explained}");
}

#[tokio::test]
async fn kubectl_is_told_of_an_unknown_field_and_by_default_refused() {
    let api = Api::admin().await;
    install(&api).await;
    let typo = policy(
        NAMESPACED,
        "typo",
        &json!({"profile": "Restricted", "podSelecter": {}}),
    );
    let path = collection("default");
    let lax = format!("{path}?dryRun=All&fieldValidation=Warn");
    let warned = api.send("POST", &lax, Some(&typo)).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.warnings.len(), 1);
    assert!(
        warned.warnings[0].contains("unknown field \\\"spec.podSelecter\\\""),
        "{warned:?}"
    );
    let folder = shared().await.directory().join("typo.json");
    std::fs::write(&folder, typo.to_string()).unwrap();
    let output = run_kubectl(&[
        "apply",
        "--dry-run=server",
        "--filename",
        folder.to_str().unwrap(),
    ])
    .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{output:?}");
    assert!(
        said.contains("unknown field \"spec.podSelecter\""),
        "{said}"
    );
}

/// Posts a policy as kubectl does, and changes nothing.
async fn post(api: &Api, kind: PolicyKind, policy: &Value) -> Answer {
    let collection = match kind {
        PolicyKind::Namespaced => collection("default"),
        PolicyKind::Cluster => CLUSTER_POLICIES.to_owned(),
    };
    let path = format!("{collection}?dryRun=All&fieldValidation=Strict");
    api.send("POST", &path, Some(policy)).await
}

fn policy(kind: PolicyKind, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": API_VERSION, "kind": kind.name(), "metadata": {"name": name}, "spec": spec})
}

fn condition_of(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1,
    })
}

async fn run_kubectl(arguments: &[&str]) -> Output {
    let control_plane = shared().await;
    Command::new(control_plane.kubectl().unwrap())
        .arg("--kubeconfig")
        .arg(control_plane.kubeconfig_path())
        // Discovery is cached by server address, below the home folder unless told otherwise.
        .arg("--cache-dir")
        .arg(control_plane.directory().join("kubectl-cache"))
        .args(arguments)
        .output()
        .await
        .unwrap()
}

/// What kubectl prints.
async fn kubectl(arguments: &[&str]) -> String {
    let output = run_kubectl(arguments).await;
    assert!(output.status.success(), "kubectl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a table's head and of its one row.
fn two_lines(table: &str) -> (Vec<&str>, Vec<&str>) {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(head), Some(row), None) => (head, row),
        _ => panic!("not a head and a row: {table}"),
    }
}
