//! What `kubectl harden audit` says that a running pod lacks is what the webhook would have filled in; what it
//! says of policies in mode Audit and of guards is what the webhook would have told.
//!
//! Generated pods are created by a user for whom the webhook is not asked, and stay; the audit looks at them
//! in the cluster. What it should say is what the webhook tells of the same pods, posted as dry runs by a
//! user for whom it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use hardening_engine::Guard;
use serde_json::{Value, json};

use crate::support::api::{Api, bare_namespace, shared};
use crate::support::generate::pod::alone;
use crate::support::generate::policy::NAMESPACES;
use crate::support::generate::{self, Random};
use crate::support::lab::Lab;
use crate::support::program::program;
use crate::support::tell::tell;
use crate::support::told::{Record, Told, recording, told};

const USER: &str = "audit";
/// So many pods with each of so many sets of policies.
const PODS: usize = 40;
const ROUNDS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_running_pods_lack_is_what_the_webhook_would_have_filled_in() {
    let lab = Lab::open_in(recording().await, USER).await;
    let seed = generate::base_seed();
    let mut shown = Shown::default();
    for round in 0..generate::cases(PODS * ROUNDS).div_ceil(PODS) {
        let policies = generate::policy::set(&mut Random::of(seed, "audited policies", round));
        lab.put_in_force(&policies);
        let run = format!("r{round}");
        let mut created = BTreeSet::new();
        for i in 0..PODS {
            let random = &mut Random::of(seed, "audited", round * PODS + i);
            let namespace = random.pick(&NAMESPACES).0;
            let name = format!("audited-{round}-{i}");
            let pod = alone(generate::pod::pod(random, &name), &name, &run);
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            let with_us = lab.with_us.post(&format!("{path}?dryRun=All"), &pod).await;
            if lab.without_us.post(&path, &pod).await.is_ok() {
                with_us.unwrap();
                created.insert(format!("{namespace}/{name}"));
            }
        }
        let found = audited(&policies, &run).await;
        let expected = told(USER, &created).await;
        for pod in &created {
            let path = pod.replacen('/', "/pods/", 1);
            lab.admin
                .delete(&format!("/api/v1/namespaces/{path}"))
                .await;
        }
        for (pod, told) in &expected {
            assert_eq!(
                found.get(pod).cloned().map(settled),
                Some(settled(told.clone())),
                "{pod} of HARDENING_TEST_SEED={seed}, with\n{policies:#?}"
            );
            shown.add(told);
        }
        assert_eq!(found.len(), expected.len(), "HARDENING_TEST_SEED={seed}");
    }
    lab.close().await;
    let Shown {
        pods,
        filled,
        withheld,
        audited,
    } = shown;
    tell(&format!(
        "audit: {pods} running pods lack {filled} fields, {withheld} are held back and {audited} in mode Audit, as the webhook says, seed {seed}"
    ));
    assert!(
        pods > 0 && filled > pods && withheld > 0 && audited > 0,
        "{shown:?}"
    );
}

/// Without what is settled once a pod runs: of a container's legacy annotation the API server has made a field by
/// then, so that there is nothing left to hold back.
fn settled(mut told: Told) -> Told {
    let guard = Guard::LegacyAnnotation.name();
    if let Some(mut paths) = told.withheld.remove(guard) {
        paths.retain(|path| path.starts_with("spec.securityContext."));
        if !paths.is_empty() {
            told.withheld.insert(guard.to_owned(), paths);
        }
    }
    told
}

/// How much there was to be told of.
#[derive(Debug, Default)]
struct Shown {
    pods: usize,
    filled: usize,
    withheld: usize,
    audited: usize,
}

impl Shown {
    fn add(&mut self, told: &Told) {
        let count = |record: &Record| record.values().map(BTreeSet::len).sum::<usize>();
        self.pods += 1;
        self.filled += count(&told.filled);
        self.withheld += count(&told.withheld);
        self.audited += count(&told.audited);
    }
}

/// What the audit says of the pods of a round.
async fn audited(policies: &[Value], run: &str) -> BTreeMap<String, Told> {
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": policies});
    fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    let selector = format!("run={run}");
    let arguments = ["-A", "-l", &selector, "--policies", path, "-o", "json"];
    let output = audit(recording().await.kubeconfig_path(), &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let audit: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(audit["complete"], true, "{}", audit["notices"]);
    let workloads = audit["workloads"].as_array().unwrap().iter();
    workloads.map(says).collect()
}

/// A workload's name, and what is said of it.
fn says(workload: &Value) -> (String, Told) {
    assert_eq!(workload["kind"], "Pod");
    let record = |list: &str, who: &str| {
        let mut record = Record::new();
        for said in workload[list].as_array().unwrap() {
            let [who, path] = [&said[who], &said["path"]].map(|text| text.as_str().unwrap());
            record
                .entry(who.to_owned())
                .or_default()
                .insert(path.to_owned());
        }
        record
    };
    let [namespace, name] =
        [&workload["namespace"], &workload["name"]].map(|text| text.as_str().unwrap());
    let told = Told {
        filled: record("missing", "policy"),
        withheld: record("withheld", "guard"),
        audited: record("audited", "policy"),
    };
    (format!("{namespace}/{name}"), told)
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
    let output = audit(
        kubeconfig.path(),
        &["-n", "audit-rights", "-o", "policyreport"],
    );
    let report: Value = serde_saphyr::from_slice(&output.stdout).unwrap();
    let incomplete = &report["metadata"]["annotations"]["podhardening.dev/incomplete"];
    let text = incomplete.as_str().unwrap_or_default();
    assert!(
        text.contains(r#"cannot list resource "podhardeningpolicies""#),
        "{report}"
    );

    let output = audit(kubeconfig.path(), &["-A"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains(r#"cannot list resource "pods""#),
        "{said}"
    );
}
