//! What `kubectl harden audit` asks a cluster for, page by page, and what it makes of answers that are no good.

use serde_json::{Value, json};

use super::cluster::{Cluster, status};

const POLICIES: &str = "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies?limit=500";
const OWN_POLICIES: &str = "/apis/podhardening.dev/v1alpha1/podhardeningpolicies?limit=500";
const NAMESPACES: &str = "/api/v1/namespaces?limit=500";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?limit=500";
const VERSION: &str = "/version";
const PODS: &str = "/api/v1/pods?limit=500";
const MORE_PODS: &str = "/api/v1/pods?limit=500&continue=next";
const SETS: &str = "/apis/apps/v1/replicasets?limit=500";

type Answer = (&'static str, u16, Value);

fn list(api_version: &str, kind: &str, items: &[Value], next: &str) -> Value {
    json!({
        "kind": kind, "apiVersion": api_version, "items": items,
        "metadata": {"continue": next, "remainingItemCount": 1},
    })
}

fn pod(name: &str, set: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"pod-template-hash": "5d4f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "controller": true}],
        },
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

/// All that is asked for, with two pages of pods of one ReplicaSet.
fn answers() -> Vec<Answer> {
    let policy = json!({
        "metadata": {"name": "c", "generation": 9, "creationTimestamp": "2026-03-01T00:00:00Z"},
        "spec": {"pod": {"hostUsers": false}},
    });
    let ours = "podhardening.dev/v1alpha1";
    let set = json!({
        "metadata": {
            "name": "web-5d4f", "namespace": "shop",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "front", "controller": true}],
        },
    });
    let namespace = json!({"metadata": {"name": "shop"}});
    vec![
        (
            POLICIES,
            200,
            list(ours, "ClusterPodHardeningPolicyList", &[policy], ""),
        ),
        (
            OWN_POLICIES,
            200,
            list(ours, "PodHardeningPolicyList", &[], ""),
        ),
        (
            NAMESPACES,
            200,
            list("v1", "NamespaceList", &[namespace], ""),
        ),
        (
            HOOKS,
            200,
            list(
                "admissionregistration.k8s.io/v1",
                "MutatingWebhookConfigurationList",
                &[],
                "",
            ),
        ),
        (VERSION, 200, json!({"major": "1", "minor": "34+"})),
        (
            PODS,
            200,
            list("v1", "PodList", &[pod("a", "web-5d4f")], "next"),
        ),
        (
            MORE_PODS,
            200,
            list("v1", "PodList", &[pod("b", "web-5d4f")], ""),
        ),
        (
            SETS,
            200,
            list("meta.k8s.io/v1", "PartialObjectMetadataList", &[set], ""),
        ),
    ]
}

/// The same with another answer for one path.
fn answers_but(path: &'static str, code: u16, body: Value) -> Vec<Answer> {
    let mut answers = answers();
    answers.retain(|(other, _, _)| *other != path);
    answers.push((path, code, body));
    answers
}

fn audit(cluster: &Cluster) -> (Value, String, Option<i32>) {
    let (stdout, stderr, code) = cluster.run("audit -A -o json");
    (serde_json::from_str(&stdout).unwrap(), stderr, code)
}

#[test]
fn pods_come_in_pages_and_go_to_their_deployment() {
    let cluster = Cluster::new(&answers());
    let (audit, stderr, code) = audit(&cluster);
    assert_eq!((stderr.as_str(), code), ("", Some(0)));
    assert_eq!(audit["complete"], true);
    assert_eq!(audit["standards"], "v1.34");
    let workloads = audit["workloads"].as_array().unwrap();
    assert_eq!(workloads.len(), 1);
    let workload = &workloads[0];
    assert_eq!(
        json!([
            workload["kind"],
            workload["name"],
            workload["pods"],
            workload["ownerByName"]
        ]),
        json!(["Deployment", "front", 2, false])
    );
    assert_eq!(
        workload["missing"],
        json!([{
            "pods": 2, "path": "spec.hostUsers", "field": "hostUsers", "container": null, "value": false,
            "policy": "c@9", "reason": "notRegistered",
        }])
    );
    let expected: Vec<&str> = answers().iter().map(|(path, _, _)| *path).collect();
    assert_eq!(cluster.asked(), expected);
}

#[test]
fn what_is_refused_is_told_and_the_rest_is_shown_as_a_part() {
    let cases = [
        (
            POLICIES,
            "list clusterpodhardeningpolicies",
            json!(["missing", "levels", "risks"]),
        ),
        (
            OWN_POLICIES,
            "list podhardeningpolicies",
            json!(["missing", "levels", "risks"]),
        ),
        (
            NAMESPACES,
            "list namespaces",
            json!(["missing", "reasons", "levels", "risks"]),
        ),
        (
            HOOKS,
            "list mutatingwebhookconfigurations",
            json!(["reasons"]),
        ),
        (
            VERSION,
            "get the version",
            json!(["missing", "levels", "risks"]),
        ),
        (SETS, "list replicasets", json!(["owners"])),
    ];
    for (path, what, affects) in cases {
        let cluster = Cluster::new(&answers_but(path, 403, status(403, "Forbidden", "no")));
        let (audit, stderr, code) = audit(&cluster);
        let text = format!("CLUSTER: cannot {what}: no");
        assert_eq!(stderr, format!("warning: this is not all: {text}\n"));
        assert_eq!(code, Some(0), "{path}");
        assert_eq!(audit["complete"], false, "{path}");
        assert_eq!(audit["notices"][0]["affects"], affects, "{path}");
        assert_eq!(audit["total"]["pods"], 2, "{path}");
    }
}

#[test]
fn without_the_owners_names_are_asked_and_that_is_said() {
    let cluster = Cluster::new(&answers_but(SETS, 403, status(403, "Forbidden", "no")));
    let (audit, _, _) = audit(&cluster);
    let workload = &audit["workloads"][0];
    assert_eq!(
        json!([workload["kind"], workload["name"], workload["ownerByName"]]),
        json!(["Deployment", "web", true])
    );
}

#[test]
fn pods_that_came_before_an_error_are_shown_as_a_part() {
    let expired = status(410, "Expired", "The provided continue parameter is too old");
    let cluster = Cluster::new(&answers_but(MORE_PODS, 410, expired));
    let (audit, stderr, code) = audit(&cluster);
    assert_eq!(code, Some(1));
    assert_eq!(audit["total"]["pods"], 1);
    assert_eq!(audit["notices"][0]["affects"], json!(["pods"]));
    let lines: Vec<&str> = stderr.lines().collect();
    let why = "CLUSTER: cannot list pods: The provided continue parameter is too old";
    assert_eq!(
        lines,
        [
            format!("error: {why}"),
            format!("warning: this is not all: only the first 1 pods were read: {why}"),
        ]
    );
}

#[test]
fn without_pods_there_is_nothing_to_show() {
    let forbidden = status(
        403,
        "Forbidden",
        "User \"me\" cannot list resource \"pods\"",
    );
    let cluster = Cluster::new(&answers_but(PODS, 403, forbidden));
    let (stdout, stderr, code) = cluster.run("audit -A");
    assert_eq!((stdout.as_str(), code), ("", Some(1)));
    assert_eq!(
        stderr,
        "error: nothing can be shown without pods: CLUSTER: cannot list pods: User \"me\" cannot list resource \"pods\"\n"
    );
}
