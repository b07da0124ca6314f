//! Workloads whose pods others create, containers that are added for debugging, and a Deployment that becomes
//! hardened while it serves.

mod rollout;

use std::process::Command;

use serde_json::json;
use test_control_plane::{ControlPlane, Image};

use self::rollout::Rollout;
use crate::support::bench::{Bench, policy};
use crate::support::case::{Outcome, all_see, case, merge, plain, reporting, sees};
use crate::support::kinds::{KINDS, workload};
use crate::support::report::SCRIPT;

/// What a process sees under `Hardened`; all of it is in `profiles`.
const HARDENED: [(&str, &str); 5] = [
    ("uid", "65532"),
    ("CapEff", "0000000000000000"),
    ("Seccomp", "2"),
    ("write /", "Read-only file system"),
    ("token", "no"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_every_workload_kind_run_hardened() {
    let Some(bench) = Bench::open("workloads").await else {
        return;
    };
    let cases = KINDS.map(|(kind, _)| {
        let name = kind.to_lowercase();
        let hardened = json!({"profile": "Hardened"});
        case(&name, hardened, reporting(Image::ROOT), sees(&HARDENED))
    });
    bench.put_cases_in_force(&cases);
    for (case, (kind, version)) in cases.iter().zip(KINDS) {
        let path = bench.path(&format!("apis/{version}"), &format!("{}s", case.name));
        let template = json!({"metadata": {"labels": {"case": case.name}}, "spec": case.pod});
        let workload = workload(kind, version, &case.name, template);
        bench.api.post(&path, &workload).await.unwrap();
    }
    bench.until_met(&cases).await;
    bench.close(&format!("{} kinds", cases.len())).await;
}

/// As `kubectl debug` adds them: to a pod that was created hardened, and to one from before there was a policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_added_for_debugging_runs_hardened() {
    let Some(bench) = Bench::open("debugging").await else {
        return;
    };
    let pods = bench.path("api/v1", "pods");
    let create = async |name: &str| {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"case": name}}, "spec": plain(Image::ROOT),
        });
        bench.api.post(&pods, &pod).await.unwrap();
    };
    create("older").await;
    let hardened = policy("hardened", None, &json!({"profile": "Hardened"}));
    bench.put_in_force(&[hardened]);
    create("hardened").await;

    let works = |name: &str| case(name, json!({}), json!({}), Outcome::Works);
    bench.until_met(&[works("older"), works("hardened")]).await;
    for name in ["older", "hardened"] {
        debug(bench.topic, name).await;
    }
    // kubectl adds SYS_PTRACE, which is the author's wish; a user other than root does not get it.
    let added = [
        ("NoNewPrivs", "1"),
        ("CapBnd", "0000000000080000"),
        ("write /", "Read-only file system"),
        // A volume cannot be added to a pod that runs.
        ("write /tmp", "Read-only file system"),
    ];
    let of_hardened = [
        ("uid", "65532"),
        ("CapEff", "0000000000000000"),
        ("Seccomp", "2"),
        ("token", "no"),
    ];
    let of_older = [
        ("uid", "0"),
        ("CapEff", "0000000000080000"),
        ("Seccomp", "0"),
    ];
    let sees = |name: &str, more: &[(&str, &str)]| {
        let expected = all_see(&["debugger"], &[&added[..], more].concat());
        case(name, json!({}), json!({}), expected)
    };
    let cases = [sees("older", &of_older), sees("hardened", &of_hardened)];
    bench.until_met(&cases).await;
    bench.close(&format!("{} cases", cases.len())).await;
}

/// Has kubectl add a container to a pod.
async fn debug(namespace: &str, pod: &str) {
    let control_plane = ControlPlane::shared().await.unwrap();
    let output = Command::new(control_plane.kubectl().unwrap())
        .arg("--kubeconfig")
        .arg(control_plane.kubeconfig_path())
        .args(["--namespace", namespace, "debug", pod, "--quiet"])
        .args(["--profile=general", "--image-pull-policy=Never"])
        .args(["--image", Image::ROOT.name, "--container=debugger"])
        .args(["--", "sh", "-c", SCRIPT])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_hardened_without_downtime_and_mode_audit_leaves_it_as_it_was() {
    const UNHARDENED: [(&str, &str); 3] = [
        ("uid", "0"),
        ("CapEff", "00000000a80425fb"),
        ("write /", "yes"),
    ];
    let Some(bench) = Bench::open("rollout").await else {
        return;
    };
    let mut rollout = Rollout::start(&bench, "before").await;

    let mut audit = json!({"profile": "Hardened", "mode": "Audit"});
    bench.put_in_force(&[policy("hardened", None, &audit)]);
    rollout.roll_over("audited").await;

    // A default that keeps the new pods from starting stops at the first of them.
    let non_root = json!({"pod": {"securityContext": {"runAsNonRoot": true}}});
    bench.put_in_force(&[policy("stops-it", None, &non_root)]);
    rollout
        .roll_over_in_vain("refused", "CreateContainerConfigError")
        .await;

    merge(&mut audit, json!({"mode": "Enforce"}));
    bench.put_in_force(&[policy("hardened", None, &audit)]);
    rollout.roll_over("hardened").await;

    rollout.end().await;
    rollout.assert_saw("before", &UNHARDENED);
    rollout.assert_saw("audited", &UNHARDENED);
    rollout.assert_saw("hardened", &HARDENED);
    bench
        .close("1 Deployment became hardened with every replica ready all the time")
        .await;
}
