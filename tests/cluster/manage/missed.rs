//! Pods that lack what policies fill in, found in the cluster and told in figures and reports.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::jiff::Timestamp;
use policy_report::PolicyReport;
use serde_json::{Value, json};
use test_control_plane::ControlPlane;

use super::{control_plane, manager, put_policy};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::program::program;

/// In a pod's env, args and annotations; and nowhere else.
const CANARY: &str = "canary-5d41402a";
const REPORTS: &str = "/apis/wgpolicyk8s.io/v1alpha2";
const NAME: &str = "pod-hardening-missed-pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"secret": CANARY}},
        "spec": {"containers": [{
            "name": "app", "image": "registry.example/app", "args": [CANARY],
            "env": [{"name": "SECRET", "value": CANARY}],
        }]},
    })
}

async fn create(api: &Api, namespace: &str, name: &str) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    api.post(&path, &pod(name)).await.unwrap()
}

/// Waits until what is created now is newer than this, as the API server writes times.
async fn until_after(object: &Value) {
    let created = object["metadata"]["creationTimestamp"].as_str().unwrap();
    let created: Timestamp = created.parse().unwrap();
    until("another second", async || {
        (Timestamp::now().as_second() > created.as_second()).then_some(())
    })
    .await;
}

/// The registration of a webhook that nobody answers, for all namespaces but one.
fn registration() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "pod-hardening"},
        "webhooks": [{
            "name": "pods.podhardening.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Ignore", "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:1/mutate"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["spared"]},
            ]},
        }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_lack_what_policies_fill_in_are_counted_and_reported() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    for namespace in ["shop", "spared", "settled"] {
        bare_namespace(&api, namespace, &json!({})).await;
    }
    let hooks = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    api.post(hooks, &registration()).await.unwrap();
    install_reports(&api).await;

    let older = create(&api, "shop", "older").await;
    create(&api, "spared", "spared").await;
    until_after(&older).await;
    let policy = put_policy(&api, "everywhere", &json!({"profile": "Restricted"})).await;
    until_after(&policy).await;
    for i in 0..3 {
        create(&api, "shop", &format!("late-{i}")).await;
    }
    // It lacks nothing: its author wrote it all.
    let mut settled = pod("settled");
    settled["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    settled["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let pods = "/api/v1/namespaces/settled/pods";
    api.post(pods, &settled).await.unwrap();

    let manager = manager(&control_plane, "manager", &["--missed-pods-interval=1s"]).await;
    let series = |namespace: &str, reason: &str| {
        format!("podhardening_missed_pods{{namespace=\"{namespace}\",reason=\"{reason}\"}}")
    };
    let is = async |expected: &[(&str, &str, f64)]| {
        let (_, page) = manager.get("/metrics").await?;
        let found = page
            .lines()
            .filter(|line| line.starts_with("podhardening_missed_pods{"))
            // Of the namespaces that have no series of their own; there are too few here.
            .filter(|line| !line.contains("\"(others)\""));
        let mut found: Vec<String> = found.map(str::to_owned).collect();
        found.sort();
        let mut expected: Vec<String> = expected
            .iter()
            .map(|(namespace, reason, count)| format!("{} {count}", series(namespace, reason)))
            .collect();
        expected.sort();
        (found == expected).then_some(page)
    };
    let page = until("all are counted", async || {
        is(&[
            ("shop", "older", 1.0),
            ("shop", "missed", 3.0),
            ("spared", "excluded", 1.0),
        ])
        .await
    })
    .await;
    assert!(
        page.contains("podhardening_missed_pods_scanned 6"),
        "{page}"
    );
    assert!(!page.contains(CANARY));

    let report = async |namespace: &str| {
        let path = format!("{REPORTS}/namespaces/{namespace}/policyreports/{NAME}");
        api.get(&path).await.ok()
    };
    let written = until("there is a report", async || report("shop").await).await;
    let typed: PolicyReport = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(
        (typed.summary.fail, typed.summary.warn, typed.summary.pass),
        (3, 1, 0)
    );
    let about: Vec<&str> = typed
        .results
        .iter()
        .map(|result| result.resources[0].name.as_deref().unwrap())
        .collect();
    assert_eq!(about, ["late-0", "late-1", "late-2", "older"]);
    let first = &typed.results[0];
    assert_eq!(first.policy, "everywhere@1");
    assert_eq!(
        first.message.as_deref(),
        Some(
            "lacks spec.securityContext.runAsNonRoot, spec.securityContext.seccompProfile, spec.containers[app].securityContext.allowPrivilegeEscalation, spec.containers[app].securityContext.capabilities.drop: the webhook did not see it, or the policy came to be for it later"
        )
    );
    assert!(!written.to_string().contains(CANARY));
    assert!(report("settled").await.is_none());

    audits_are_reports_too(&control_plane, &api).await;

    // What does not change is not written again.
    let scans = async || {
        manager
            .metric("podhardening_missed_pods_scans_total{result=\"done\"}")
            .await
    };
    let before = scans().await;
    until("two more scans", async || {
        (scans().await >= before + 2.0).then_some(())
    })
    .await;
    let again = report("shop").await.unwrap();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        written["metadata"]["resourceVersion"]
    );

    // Once pods are made anew nothing is left to tell.
    for name in ["older", "late-0", "late-1", "late-2"] {
        api.delete(&format!("/api/v1/namespaces/shop/pods/{name}"))
            .await;
    }
    until("only the spared one is left", async || {
        is(&[("spared", "excluded", 1.0)]).await
    })
    .await;
    until("the report is gone", async || {
        report("shop").await.is_none().then_some(())
    })
    .await;
    assert!(report("spared").await.is_some());
    let log = manager.log();
    assert!(!log.iter().any(|line| line.to_string().contains(CANARY)));
    manager.terminate().await;
    control_plane.stop().await.unwrap();
}

/// What `kubectl harden audit` prints as PolicyReports the API server takes as they are, every field of them.
async fn audits_are_reports_too(control_plane: &ControlPlane, api: &Api) {
    let output = Command::new(program("kubectl-harden"))
        .args(["audit", "-A", "-o", "policyreport"])
        .env("KUBECONFIG", control_plane.kubeconfig_path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains(CANARY));
    let printed = hardening_manifests::parse("output", &output.stdout).unwrap();
    let mut counts = BTreeMap::new();
    for printed in hardening_manifests::objects(&printed) {
        let report: PolicyReport = serde_json::from_value(printed.value.clone()).unwrap();
        let namespace = report.metadata.namespace.as_deref().unwrap();
        let path = format!("{REPORTS}/namespaces/{namespace}/policyreports");
        let strict = format!("{path}?fieldValidation=Strict");
        let stored = api.post(&strict, printed.value).await.unwrap();
        for member in ["summary", "results"] {
            assert_eq!(stored[member], printed.value[member], "{namespace}");
        }
        api.delete(&format!("{path}/pod-hardening-audit")).await;
        let summary = report.summary;
        counts.insert(
            namespace.to_owned(),
            (summary.fail, summary.warn, summary.pass),
        );
    }
    // Of each pod four fields, and of those that lack any the risk that its image runs as root.
    let expected = [
        ("settled", (0, 0, 1)),
        ("shop", (3 * 4, 4 + 4, 0)),
        ("spared", (0, 4 + 1, 0)),
    ];
    let expected = expected.map(|(namespace, counts)| (namespace.to_owned(), counts));
    assert_eq!(counts, BTreeMap::from(expected));
}

/// The definition of PolicyReports, by the published specification of `wgpolicyk8s.io/v1alpha2`: its own project
/// publishes no Go module that could be had it from.
async fn install_reports(api: &Api) {
    let crd: Value = serde_saphyr::from_str(include_str!("policyreports.yaml")).unwrap();
    let path = crate::support::crds::crd_path(&crd);
    assert!(api.apply(&path, &crd).await.status < 300);
    until("PolicyReports are served", async || {
        let path = format!("{REPORTS}/policyreports");
        api.get(&path).await.ok().map(drop)
    })
    .await;
}
