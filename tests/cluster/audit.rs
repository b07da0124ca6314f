//! What `kubectl harden audit` says that a running pod lacks is what the webhook would have filled in.
//!
//! Generated pods are created by a user for whom the webhook is not asked, and stay; the audit looks at them
//! in the cluster. What it should say is what the webhook records on the same pods, posted as dry runs by a
//! user for whom it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hardening_engine::{FILLED, WITHHELD};
use serde_json::{Value, json};

use crate::support::api::{Api, Refusal, bare_namespace, shared};
use crate::support::generate::policy::NAMESPACES;
use crate::support::generate::{self, Random};
use crate::support::lab::Lab;
use crate::support::program::program;
use crate::support::tell::tell;

/// So many pods with each of so many sets of policies.
const PODS: usize = 40;
const ROUNDS: usize = 12;

/// What is filled in, as `policy: path`.
type Fills = BTreeSet<String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_running_pods_lack_is_what_the_webhook_would_have_filled_in() {
    let lab = Lab::open("audit").await;
    let seed = generate::base_seed();
    let (mut pods, mut fills) = (0, 0);
    for round in 0..generate::cases(PODS * ROUNDS).div_ceil(PODS) {
        let policies = generate::policy::set(&mut Random::of(seed, "audited policies", round));
        lab.put_in_force(&policies);
        let run = format!("r{round}");
        let mut expected: BTreeMap<String, Fills> = BTreeMap::new();
        for i in 0..PODS {
            let random = &mut Random::of(seed, "audited", round * PODS + i);
            let namespace = random.pick(&NAMESPACES).0;
            let name = format!("audited-{round}-{i}");
            let pod = alone(generate::pod::pod(random, &name), &name, &run);
            if let Ok(fills) = created(&lab, namespace, &name, &pod).await {
                expected.insert(format!("{namespace}/{name}"), fills);
            }
        }
        let found = audited(&policies, &run).await;
        for pod in expected.keys() {
            let path = pod.replacen('/', "/pods/", 1);
            lab.admin
                .delete(&format!("/api/v1/namespaces/{path}"))
                .await;
        }
        for (pod, fills) in &expected {
            assert_eq!(
                found.get(pod),
                Some(fills),
                "{pod} of HARDENING_TEST_SEED={seed}, with\n{policies:#?}"
            );
        }
        assert_eq!(found.len(), expected.len(), "HARDENING_TEST_SEED={seed}");
        pods += expected.len();
        fills += expected.values().map(BTreeSet::len).sum::<usize>();
    }
    lab.close().await;
    tell(&format!(
        "audit: {pods} running pods lack {fills} fields, as the webhook says, seed {seed}"
    ));
    assert!(pods > 0 && fills > pods, "{pods} {fills}");
}

/// A pod that no controller deletes, with a name and a label to find it by, and without what looks like a record.
fn alone(mut pod: Value, name: &str, run: &str) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("generateName");
    metadata.insert("name".to_owned(), name.into());
    metadata.remove("finalizers");
    metadata.remove("ownerReferences");
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(FILLED);
        annotations.remove(WITHHELD);
        // There must be room for the record.
        annotations.retain(|_, value| value.as_str().is_some_and(|text| text.len() < 1024));
    }
    pod["metadata"]["labels"]["audited"] = run.into();
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    pod
}

/// Creates a pod without us, and says what the webhook fills in when it is asked.
async fn created(lab: &Lab, namespace: &str, name: &str, pod: &Value) -> Result<Fills, Refusal> {
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    lab.without_us.post(&path, pod).await?;
    let mut dry = pod.clone();
    dry["metadata"]["name"] = format!("{name}-dry").into();
    let with_us = lab.with_us.post(&format!("{path}?dryRun=All"), &dry).await;
    let record = &with_us.unwrap()["metadata"]["annotations"][FILLED];
    let record: BTreeMap<String, Vec<String>> = match record.as_str() {
        Some(record) => serde_json::from_str(record).unwrap(),
        None => BTreeMap::new(),
    };
    let fills = record.into_iter().flat_map(|(policy, paths)| {
        let paths = paths.into_iter();
        paths.map(move |path| format!("{policy}: {path}"))
    });
    Ok(fills.collect())
}

/// What the audit says that the pods of a round lack.
async fn audited(policies: &[Value], run: &str) -> BTreeMap<String, Fills> {
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": policies});
    fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let selector = format!("audited={run}");
    let arguments = ["-A", "-l", &selector, "--policies", path, "-o", "json"];
    let output = audit(shared().await.kubeconfig_path(), &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let audit: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(audit["complete"], true, "{}", audit["notices"]);
    let workloads = audit["workloads"].as_array().unwrap().iter();
    workloads.map(lacks).collect()
}

/// A workload's name, and what it lacks.
fn lacks(workload: &Value) -> (String, Fills) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(workload["kind"], "Pod");
    let missing = workload["missing"].as_array().unwrap().iter();
    let missing = missing.map(|one| format!("{}: {}", text(&one["policy"]), text(&one["path"])));
    let name = format!(
        "{}/{}",
        text(&workload["namespace"]),
        text(&workload["name"])
    );
    (name, missing.collect())
}

fn audit(kubeconfig: &Path, arguments: &[&str]) -> Output {
    Command::new(program("kubectl-harden"))
        .arg("audit")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap()
}

/// Who may only see the pods of one namespace is told what else would be needed, and sees what there is.
#[tokio::test]
async fn a_missing_right_is_named_and_the_rest_is_shown() {
    let api = Api::admin().await;
    bare_namespace(&api, "audit-rights", &json!({})).await;
    let group = "rbac.authorization.k8s.io";
    let path = format!("/apis/{group}/v1/namespaces/audit-rights");
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "pods"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "pods"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "pods"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    });
    api.ensure(&format!("{path}/roles"), &role).await;
    api.ensure(&format!("{path}/rolebindings"), &binding).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    api.ensure("/api/v1/namespaces/audit-rights/pods", &pod)
        .await;
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = shared().await.kubeconfig_for("reader", None).unwrap();
    fs::write(kubeconfig.path(), text).unwrap();

    let output = audit(kubeconfig.path(), &["-n", "audit-rights", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for right in [
        r#"cannot list resource "clusterpodhardeningpolicies""#,
        r#"cannot list resource "podhardeningpolicies""#,
        r#"cannot get resource "namespaces""#,
        r#"cannot list resource "mutatingwebhookconfigurations""#,
    ] {
        let naming = said.lines().filter(|line| line.contains(right));
        assert_eq!(naming.count(), 1, "{right}\n{said}");
    }
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["complete"], false);
    assert_eq!(found["workloads"][0]["levelToday"], "baseline");

    let output = audit(kubeconfig.path(), &["-A"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains(r#"cannot list resource "pods""#),
        "{said}"
    );
}
