//! docs/without-a-webhook.md: its commands as they are written there, in a Git repository as it describes it.

use std::fs;

use serde_json::json;
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use super::can_compile;
use crate::support::api::{Api, namespace, until};
use crate::support::crds;
use crate::support::desk::{Desk, commands};
use crate::support::tell::tell;

/// A policy of the cluster's own.
const POLICY: &str = r#"apiVersion: podhardening.dev/v1alpha1
kind: ClusterPodHardeningPolicy
metadata:
  name: restricted
spec:
  profile: Restricted
"#;
const COMPILES: &str = "kubectl harden compile";
const TRIES: &str = "kubectl -n shop run try ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_can_be_followed_and_back() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default());
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    if !can_compile(&api).await {
        return;
    }
    crds::install(&api).await;
    namespace(&api, "shop", &json!({"team": "web"})).await;
    let desk = repository(&control_plane);

    let scripts = commands("docs/without-a-webhook.md");
    let try_pod = scripts.iter().find(|(_, script)| script.contains(TRIES));
    let (_, try_pod) = try_pod.unwrap();
    let hardened = async |wanted: bool| {
        until("pods are as the compiled policies say", async || {
            (desk.succeed(try_pod).contains("runAsNonRoot: true") == wanted).then_some(())
        })
        .await;
    };
    hardened(false).await;
    for (heading, script) in &scripts {
        match heading.as_str() {
            "In Git" => check_in_git(&desk, script),
            "In the cluster only" => check_in_the_cluster(&desk, script),
            _ => drop(desk.succeed(script)),
        }
        if script.contains("kubectl apply") {
            hardened(true).await;
        }
        if script.contains("kubectl delete") {
            hardened(false).await;
        }
    }
    tell(&format!(
        "guide without a webhook: {} blocks of commands",
        scripts.len()
    ));
}

/// The folders that the guide describes, in Git.
fn repository(control_plane: &ControlPlane) -> Desk {
    let desk = Desk::set_up(control_plane);
    for folder in ["policies", "cluster", "compiled"] {
        fs::create_dir(desk.folder.join(folder)).unwrap();
    }
    fs::write(desk.folder.join("policies/restricted.yaml"), POLICY).unwrap();
    desk.succeed(
        "git init --quiet && git config user.name test && git config user.email test@example.com \
         && kubectl get namespaces --output yaml > cluster/namespaces.yaml",
    );
    desk
}

/// What is committed passes until somebody changes a policy.
fn check_in_git(desk: &Desk, script: &str) {
    let compile = script.lines().find(|line| line.starts_with(COMPILES));
    let commit = "git add --all policies cluster compiled && git commit --quiet --message compiled";
    desk.succeed(&format!("{}\n{commit}", compile.unwrap()));
    desk.succeed(script);
    let policy = desk.folder.join("policies/restricted.yaml");
    fs::write(&policy, POLICY.replace("Restricted", "Hardened")).unwrap();
    let output = desk.run(script);
    assert!(!output.status.success(), "a stale file passes: {output:?}");
    desk.succeed(commit);
}

/// A policy that is other in the cluster than in Git makes a commit; without a change there is none.
fn check_in_the_cluster(desk: &Desk, script: &str) {
    desk.succeed("kubectl apply --filename policies/");
    desk.succeed(&format!("echo \"{POLICY}\" | kubectl apply --filename -"));
    let commits = || desk.succeed("git rev-list --count HEAD").trim().to_owned();
    let mut counts = vec![commits()];
    for _ in 0..2 {
        desk.succeed(script);
        counts.push(commits());
    }
    assert_eq!(counts, ["2", "3", "3"]);
    let compiled = fs::read_to_string(desk.folder.join("compiled/compiled.yaml")).unwrap();
    assert!(compiled.contains("restricted@2"), "{compiled}");
}
