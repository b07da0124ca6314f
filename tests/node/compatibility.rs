//! What defaults stop, what that looks like from outside, and what to set instead: one table, shown on the node
//! and printed as a page of the documentation.

mod limits;

use std::fmt::Write as _;

use hardening_api::policy::Profile;
use hardening_engine::{FILLED, profile};
use serde_json::{Value, json};

use self::limits::{Limit, limits};
use crate::support::bench::Bench;
use crate::support::case::Case;
use crate::support::files::expect_file;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_is_met_and_what_to_set_instead_helps() {
    let Some(bench) = Bench::open("limits").await else {
        return;
    };
    let host = bench.cluster.node.directory().join("host");
    std::fs::create_dir(&host).unwrap();
    let keys = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"},
        "stringData": {"key": "a private key"},
    });
    let secrets = bench.path("api/v1", "secrets");
    bench.api.post(&secrets, &keys).await.unwrap();

    let machine = bench.machine();
    let limits = limits(host.to_str().unwrap());
    let (here, elsewhere): (Vec<&Limit>, Vec<&Limit>) = limits
        .iter()
        .flat_map(|(_, limits)| limits)
        .partition(|limit| limit.shows.is_here(machine));
    let stopped: Vec<Case> = here.iter().map(|limit| limit.stopped()).collect();
    let helped: Vec<Case> = here.iter().filter_map(|limit| limit.helped()).collect();
    let all = [stopped.clone(), helped.clone()].concat();
    let created = bench.run(&all).await;
    for (case, pod) in stopped.iter().zip(&created) {
        let record = pod["metadata"]["annotations"][FILLED].as_str();
        assert!(record.is_some(), "{}: nothing is filled in", case.name);
    }
    let not_here: Vec<&str> = elsewhere.iter().map(|limit| limit.default).collect();
    bench
        .close(&format!(
            "{} cases: {} limits of defaults, {} of them with what helps; not to be met here: {}",
            all.len(),
            stopped.len(),
            helped.len(),
            if not_here.is_empty() {
                "none".to_owned()
            } else {
                not_here.join(", ")
            },
        ))
        .await;
}

#[test]
fn the_page_of_what_defaults_stop_is_up_to_date() {
    let mut page = INTRODUCTION.to_owned();
    for (title, limits) in limits("") {
        writeln!(page, "\n## {title}\n").unwrap();
        page.push_str(
            "| default | profiles | what it stops | `STATUS` | message | what to set instead |\n",
        );
        page.push_str("|---|---|---|---|---|---|\n");
        for limit in limits {
            page.push_str(&row(&limit));
        }
    }
    page.push_str(CONCLUSION);
    expect_file("docs/compatibility.md", &page);
}

fn row(limit: &Limit) -> String {
    let Limit {
        name: _,
        default,
        stops,
        status,
        message,
        instead,
        shows: _,
        policy,
        pod: _,
        remedy: _,
    } = limit;
    let profiles = [Profile::Restricted, Profile::Hardened]
        .into_iter()
        .filter(|profile| contains(&json!(profile::spec(*profile)), policy));
    let profiles: Vec<String> = profiles.map(|profile| format!("{profile:?}")).collect();
    let profiles = profiles.join(", ");
    format!("| `{default}` | {profiles} | {stops} | `{status}` | `{message}` | {instead} |\n")
}

/// Whether all that the smaller one says is said by the larger one.
fn contains(larger: &Value, smaller: &Value) -> bool {
    match (larger, smaller) {
        (Value::Object(larger), Value::Object(smaller)) => smaller.iter().all(|(name, member)| {
            larger
                .get(name)
                .is_some_and(|found| contains(found, member))
        }),
        (larger, smaller) => larger == smaller,
    }
}

const INTRODUCTION: &str = "\
<!-- Made by `make generate`. -->

# What defaults stop

A default that a policy fills in is never one that the pod's own spec contradicts: the
[guards](reference/fields.md#guards) hold it back then. But whether an *image* puts up with a default does not stand in
the pod. This page says which images and workloads a default stops, how that looks, and what to set instead.

Every row is a test case, on a real kubelet with containerd and runc: a pod is created with that default filled in, and is
seen to fail with that status and message; the same pod with what the last column says is seen to work (but for what a
node lacks, where the last column is another node).

`STATUS` is what `kubectl get pod` shows of a pod that is not started again. Of one that is, as a Deployment's pods are,
`Error` and `StartError` soon become `CrashLoopBackOff`; the message is in `kubectl describe pod`, under `Message` where
`terminationMessagePolicy` is `FallbackToLogsOnError`, and in `kubectl logs` where it is not. With
`ContainerCreating` it is in the pod's events. With `CreateContainerConfigError` and `CreateContainerError` nothing has
run; the kubelet goes on trying, and starts the container once it can.

To see who filled in what: `kubectl harden explain POD`. To see what a policy would do before it does it: `mode: Audit`,
or `kubectl harden render`.
";

const CONCLUSION: &str = "
## What helps in general

- **What the author writes wins.** Whoever knows better than the policy writes the field, at the pod or at the
  container: `runAsUser: 1234`, `readOnlyRootFilesystem: false`, `automountServiceAccountToken: true`.
- **A policy of higher priority for the few.** With a `podSelector` for the workloads that need something else, it says
  only that; everything else still comes from the policy below it. A profile comes last within its policy, so
  `profile: Hardened` with `runAsUser: 1234` beside it is Hardened with another user.
- **Pods that run go on running.** Defaults are filled in when a pod is created. What a default stops shows when pods are
  created anew: roll one workload over first (`kubectl rollout restart`). A rolling update of a Deployment stops at
  the first new pods that do not become ready, and the old ones stay.
";
