//! docs/migration.md: its commands as they are written there, on a cluster whose old life and new one are the
//! same API server. No API server of today has PodSecurityPolicies, so the one command that asks for them is
//! answered by the examples.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::support::api::{Api, namespace, until};
use crate::support::controller::Controller;
use crate::support::crds;
use crate::support::desk::{Desk, ROOT, commands};
use crate::support::tell::tell;

/// What begins the command that asks for PodSecurityPolicies.
const ASKS_FOR_PSPS: &str = "kubectl --context old get podsecuritypolicies";

/// Two names for the cluster.
fn call_it_old_and_new(desk: &Desk) {
    let only = "- name: test\n  context: {cluster: test, user: test}\n";
    let both = "- name: old\n  context: {cluster: test, user: test}\n";
    let config = fs::read_to_string(&desk.kubeconfig).unwrap();
    assert!(config.contains(only), "{config}");
    let config = config
        .replace(only, &format!("{both}{}", both.replace("old", "new")))
        .replace("current-context: test", "current-context: new");
    fs::write(&desk.kubeconfig, config).unwrap();
}

/// The old cluster as far as today's API server can be it: who may use what, and the workloads.
async fn live_the_old_life(desk: &Desk, api: &Api) {
    let examples = format!("{ROOT}/examples/psp");
    desk.succeed(&format!("kubectl apply -f {examples}/namespaces.yaml"));
    for name in ["kube-system", "storage", "payments", "intranet", "shop"] {
        namespace(api, name, &json!({})).await;
    }
    for entry in fs::read_dir(&examples).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).unwrap();
            let objects = text.split("---\n");
            let kept: Vec<&str> = objects
                .filter(|object| !object.contains("kind: PodSecurityPolicy\n"))
                .collect();
            let file = desk.folder.join("old-life.yaml");
            fs::write(&file, kept.join("---\n")).unwrap();
            desk.succeed("kubectl apply -f old-life.yaml");
        }
    }
    desk.succeed(&format!("kubectl apply -f {examples}/workloads"));
    // Administrators could use every PSP.
    desk.succeed(
        "kubectl create clusterrolebinding developers --clusterrole=edit --group=developers",
    );
    until("a Deployment's pod is there", async || {
        let pods = api.get("/api/v1/namespaces/payments/pods").await.unwrap();
        let pods = pods["items"].as_array().unwrap();
        (pods.len() > 1).then_some(())
    })
    .await;
}

/// What `kubectl get podsecuritypolicies -o yaml` would have written.
fn export_psps(desk: &Desk) {
    let mut items = String::new();
    for entry in fs::read_dir(format!("{ROOT}/examples/psp")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(path).unwrap_or_default();
        for object in text.split("---\n") {
            if object.contains("kind: PodSecurityPolicy\n") {
                let lines = object.lines().filter(|line| !line.starts_with('#'));
                for (index, line) in lines.enumerate() {
                    items += if index == 0 { "- " } else { "  " };
                    items += line;
                    items.push('\n');
                }
            }
        }
    }
    fs::create_dir_all(desk.folder.join("export")).unwrap();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{items}");
    fs::write(desk.folder.join("export/psp.yaml"), list).unwrap();
}

/// Each workload's pod under what was foretold of it: a field, or a denial.
async fn check_foretold(api: &Api, foretold: &Value) -> usize {
    let workloads = foretold["workloads"].as_array().unwrap();
    for workload in workloads {
        let about = workload["workload"].as_str().unwrap();
        let (kind, name) = about.split_once(' ').unwrap();
        let (namespace, name) = name.split_once('/').unwrap();
        let (path, template) = match kind {
            "Pod" => ("api/v1", ""),
            "CronJob" => ("apis/batch/v1", "/spec/jobTemplate/spec/template"),
            _ => ("apis/apps/v1", "/spec/template"),
        };
        let plural = kind.to_lowercase() + "s";
        let object = api
            .get(&format!("/{path}/namespaces/{namespace}/{plural}/{name}"))
            .await
            .unwrap();
        let mut pod = object.pointer(template).unwrap().clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"] =
            json!({"name": "once-more", "annotations": pod["metadata"]["annotations"]});
        for drawn in ["nodeName", "tolerations", "priority"] {
            pod["spec"].as_object_mut().unwrap().remove(drawn);
        }
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let stored = api.post(&path, &pod).await;
        let denied = !workload["converted"]["denied"]
            .as_array()
            .unwrap()
            .is_empty();
        assert_eq!(stored.is_err(), denied, "{about}: {stored:?}");
        for field in workload["fields"].as_array().unwrap() {
            let path = field["field"].as_str().unwrap();
            let (container, rest) = path
                .strip_prefix("spec.containers[")
                .and_then(|rest| rest.split_once("]."))
                .unwrap();
            let stored = stored.as_ref().unwrap();
            let mut containers = stored["spec"]["containers"].as_array().unwrap().iter();
            let found = containers.find(|one| one["name"] == container).unwrap();
            let pointer = format!("/{}", rest.replace('.', "/"));
            let found = found.pointer(&pointer).unwrap_or(&Value::Null);
            assert_eq!(*found, field["converted"], "{about}: {path}");
        }
    }
    workloads.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_can_be_followed_to_its_end() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default());
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    crds::install(&api).await;
    let controller = Controller::start(&control_plane, "guided").await;
    let desk = Desk::set_up(&control_plane);
    desk.copy("crds", "crds");
    call_it_old_and_new(&desk);
    live_the_old_life(&desk, &api).await;
    let developer = Api::user(&control_plane, "someone", "developers").await;

    let scripts = commands("docs/migration.md");
    let mut foretold = 0;
    let mut totals = BTreeSet::new();
    for (heading, script) in &scripts {
        if script.contains(ASKS_FOR_PSPS) {
            export_psps(&desk);
            continue;
        }
        let said = desk.succeed(script);
        match heading.as_str() {
            "4. Replay" => {
                let total = said.lines().find(|line| line.starts_with("all "));
                totals.insert(total.unwrap().to_owned());
            }
            "5. Audit" if script.contains(" run try ") => {
                until("a pod in Audit mode is warned of", async || {
                    desk.succeed(script).contains("Warning: ").then_some(())
                })
                .await;
            }
            "6. Enforce" if script.contains("apply") => {
                until("the policies are in force", async || {
                    let filled = desk.succeed(
                        "kubectl -n shop run try --image=registry.example/try:1 --dry-run=server -o yaml",
                    );
                    filled.contains("runAsNonRoot: true").then_some(())
                })
                .await;
                until("what was denied is denied", async || {
                    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": {
                        "containers": [{"name": "try", "image": "registry.example/try:1"}],
                        "volumes": [{"name": "logs", "hostPath": {"path": "/var/log"}}]}});
                    let path = "/api/v1/namespaces/shop/pods?dryRun=All";
                    let refusal = developer.post(path, &pod).await.err()?;
                    assert!(refusal.message.contains("hostPath"), "{refusal}");
                    Some(())
                })
                .await;
                let report = desk.run(
                    "kubectl harden convert -f export/psp.yaml export/namespaces.yaml \
                     --rbac export/rbac.yaml --replay export/workloads.yaml --report json",
                );
                let report = serde_json::from_slice(&report.stdout).unwrap();
                foretold = check_foretold(&developer, &report).await;
            }
            "8. Clean up" if script.contains("go-template") => {
                assert!(said.contains("psp:storage"), "{said}");
            }
            _ => {}
        }
    }
    controller.terminate().await;
    assert!(foretold > 6, "{foretold}");
    assert_eq!(
        totals.len(),
        1,
        "from files and from the cluster: {totals:?}"
    );
    tell(&format!(
        "migration guide: {} blocks of commands, {foretold} workloads as foretold",
        scripts.len()
    ));
}
