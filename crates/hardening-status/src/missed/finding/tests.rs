//! What is told of which pods.

use hardening_api::PolicyKind;
use hardening_engine::{Policy, PolicyKey, UnknownNamespaces};
use serde_json::json;

use super::*;

/// When the policy was created.
const CREATED: &str = "2026-03-01T00:00:00Z";

/// A cluster with these namespaces, and a policy `strict` for all of them.
fn policies(namespaces: &[&str]) -> PolicySet {
    let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
    for name in namespaces {
        set.insert_namespace(name, &BTreeMap::new());
    }
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "strict", "generation": 3},
        "spec": {"pod": {"securityContext": {"runAsNonRoot": true, "fsGroup": 7}}},
    });
    set.insert_policy(Policy::from_object(PolicyKind::Cluster, &policy).unwrap());
    set
}

/// The webhook is asked about all namespaces but `spared`.
fn history() -> History {
    let mut history = History::new(true);
    history.read_registration(&json!({"webhooks": [{
        "name": "pods.podhardening.dev",
        "rules": [{"operations": ["CREATE"], "resources": ["pods"]}],
        "namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["spared"]},
        ]},
    }]}));
    let key = PolicyKey {
        namespace: None,
        name: "strict".to_owned(),
    };
    history.read_policy(key, CREATED);
    history
}

fn pod(namespace: &str, name: &str, created: &str) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": "u", "creationTimestamp": created},
        "spec": {"containers": [{"name": "app", "env": [{"name": "SECRET", "value": "canary"}]}]},
        "status": {"phase": "Running"},
    })
}

fn found(namespaces: &[&str], pods: &[Value]) -> Findings {
    let (policies, history) = (policies(namespaces), history());
    let mut found = Findings::default();
    for pod in pods {
        found.look(&pod.to_string(), &policies, &history);
    }
    found
}

/// What is told of one pod: its figures, and its report's results.
#[track_caller]
fn check(pod: &Value, figures: &[(&str, &str, usize)], results: &[&str]) {
    let found = found(&["shop", "spared"], std::slice::from_ref(pod));
    let said: Vec<(&str, &str, usize)> = found.by_namespace().collect();
    assert_eq!(said, figures, "{pod:#}");
    let reports: Vec<PolicyReport> = found.reports().collect();
    let text = |result: &PolicyReportResult| {
        let message = result.message.as_deref().unwrap();
        format!("{:?} {}: {message}", result.result, result.policy)
    };
    let said: Vec<String> = reports
        .iter()
        .flat_map(|report| report.results.iter().map(text))
        .collect();
    assert_eq!(said, results, "{pod:#}");
    let written = serde_json::to_string(&reports).unwrap();
    assert!(!written.contains("canary"), "{written}");
}

#[test]
fn a_pod_that_lacks_something_is_told_with_why() {
    let (before, after) = ("2026-02-28T00:00:00Z", "2026-03-02T00:00:00Z");
    let lacks = "lacks spec.securityContext.runAsNonRoot, spec.securityContext.fsGroup";
    check(
        &pod("shop", "a", after),
        &[("shop", "missed", 1)],
        &[&format!(
            "Fail strict@3: {lacks}: the webhook did not see it, or the policy came to be for it later"
        )],
    );
    check(
        &pod("shop", "a", before),
        &[("shop", "older", 1)],
        &[&format!(
            "Warn strict@3: {lacks}: the pod is older than the policy"
        )],
    );
    check(
        &pod("spared", "a", after),
        &[("spared", "excluded", 1)],
        &[&format!(
            "Warn strict@3: {lacks}: the webhook is not asked about this namespace"
        )],
    );
    let mut filled = pod("shop", "a", after);
    filled["spec"]["securityContext"]["runAsNonRoot"] = true.into();
    filled["metadata"]["annotations"] = json!({hardening_engine::FILLED: "{}"});
    check(
        &filled,
        &[("shop", "older", 1)],
        &[
            "Warn strict@3: lacks spec.securityContext.fsGroup: the pod is older than what the policies say now",
        ],
    );
}

#[test]
fn a_pod_that_lacks_nothing_or_is_over_is_not_told() {
    let after = "2026-03-02T00:00:00Z";
    let mut settled = pod("shop", "a", after);
    settled["spec"]["securityContext"] = json!({"runAsNonRoot": false, "fsGroup": 1});
    check(&settled, &[], &[]);
    for phase in ["Succeeded", "Failed"] {
        let mut ended = pod("shop", "a", after);
        ended["status"]["phase"] = phase.into();
        check(&ended, &[], &[]);
    }
    let mut going = pod("shop", "a", after);
    going["metadata"]["deletionTimestamp"] = after.into();
    check(&going, &[], &[]);
    // A debugger that was added later does not count: it was judged when it came.
    let mut debugged = settled;
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "debugger"}]);
    check(&debugged, &[], &[]);
}

#[test]
fn a_pod_that_cannot_be_judged_is_counted_as_that() {
    let unknown = pod("not-seen-yet", "a", CREATED);
    let mut broken = pod("shop", "a", CREATED);
    broken["spec"]["containers"] = "none".into();
    let found = found(&["shop"], &[unknown, broken, pod("shop", "b", CREATED)]);
    assert_eq!((found.pods, found.unreadable), (1, 2));
}

#[test]
fn figures_and_reports_have_an_end() {
    let names: Vec<String> = (0..NAMESPACES + 5).map(|i| format!("n{i:03}")).collect();
    let namespaces: Vec<&str> = names.iter().map(String::as_str).collect();
    // One in each, but many in the last.
    let mut pods: Vec<Value> = namespaces
        .iter()
        .map(|name| pod(name, "a", CREATED))
        .collect();
    let last = namespaces.last().unwrap();
    pods.extend((0..RESULTS + 50).map(|i| pod(last, &format!("p{i}"), CREATED)));
    let found = found(&namespaces, &pods);
    let figures: Vec<(&str, &str, usize)> = found.by_namespace().collect();
    assert_eq!(figures.len(), NAMESPACES + 1);
    assert!(figures.contains(&(OTHERS, "missed", 5)), "{figures:?}");
    assert!(
        figures.contains(&(last, "missed", RESULTS + 51)),
        "{figures:?}"
    );
    let counted: usize = figures.iter().map(|(_, _, count)| count).sum();
    assert_eq!(counted, pods.len());
    assert_eq!(found.reports().count(), namespaces.len());
    let report = found.reports().last().unwrap();
    assert_eq!(
        (report.results.len(), report.summary.fail),
        (RESULTS, RESULTS as i64)
    );
}
