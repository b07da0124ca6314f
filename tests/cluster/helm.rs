//! A chart that the real Helm installs through `kubectl harden render`, with the policies that are in force in the
//! cluster: what is stored is hardened, an upgrade changes nothing, and `diff` finds nothing left to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::support::api::{Api, bare_namespace, until};
use crate::support::crds::{CLUSTER_POLICIES, collection, install};
use crate::support::go_tool::go_tool;
use crate::support::program::program;

const NAMESPACE: &str = "shop";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_is_installed_as_its_pods_would_be_admitted() {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    });
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    install(&api).await;
    bare_namespace(&api, NAMESPACE, &json!({})).await;
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
        "metadata": {"name": "restricted"}, "spec": {"profile": "Restricted"},
    });
    api.post(&collection(NAMESPACE), &policy).await.unwrap();
    let shell = Shell::open(control_plane.kubeconfig_path());

    shell.run("helm plugin install harden");
    shell.run("helm install shop chart --namespace shop --post-renderer harden");
    let stored = api.get(DEPLOYMENT).await.unwrap();
    let pod = &stored["spec"]["template"];
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    let record = &pod["metadata"]["annotations"][hardening_engine::FILLED];
    assert!(
        record.as_str().unwrap().contains("shop/restricted@1"),
        "{record}"
    );

    shell.run("helm upgrade shop chart --namespace shop --post-renderer harden");
    let upgraded = api.get(DEPLOYMENT).await.unwrap();
    assert_eq!(
        upgraded["metadata"]["generation"],
        stored["metadata"]["generation"]
    );
    let left = shell.run("helm get manifest shop --namespace shop | kubectl-harden diff");
    assert_eq!(left, "");

    // Without the policies nothing is installed. Helm keeps to itself what its plugin says.
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusterpodhardeningpolicies.podhardening.dev";
    api.delete(crd).await;
    until("the API server no longer knows the kind", async || {
        api.get(CLUSTER_POLICIES).await.err()
    })
    .await;
    let said = shell.fails("helm install other chart --namespace shop --post-renderer harden");
    assert!(said.contains("post-renderer plugin \"harden\""), "{said}");
    let said = shell.fails("helm template other chart --namespace shop | kubectl-harden render");
    let why = "ClusterPodHardeningPolicy is not installed in this cluster";
    assert!(said.contains(why), "{said}");
    assert_eq!(shell.run("helm list --namespace shop --short"), "shop\n");
}

/// A folder with a chart and our plugin, and Helm and our program on the path.
struct Shell {
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    path: std::ffi::OsString,
}

impl Shell {
    fn open(kubeconfig: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        for part in ["harden", "chart/templates"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        for (from, to) in [
            ("packaging/helm/harden/plugin.yaml", "harden/plugin.yaml"),
            ("examples/workloads/web.yaml", "chart/templates/web.yaml"),
        ] {
            fs::copy(root.join(from), folder.path().join(to)).unwrap();
        }
        let chart = "apiVersion: v2\nname: shop\nversion: 1.0.0\n";
        fs::write(folder.path().join("chart/Chart.yaml"), chart).unwrap();
        let helm = go_tool("tests/helm", "helm", "helm.sh/helm/v4/cmd/helm", &[]);
        let ours = program("kubectl-harden");
        let system = std::env::var_os("PATH").unwrap();
        let tools = [helm, ours].map(|tool| tool.parent().unwrap().to_owned());
        let path = tools.into_iter().chain(std::env::split_paths(&system));
        Self {
            path: std::env::join_paths(path).unwrap(),
            kubeconfig: kubeconfig.to_owned(),
            folder,
        }
    }

    fn run(&self, command: &str) -> String {
        let output = self.output(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that fails says.
    fn fails(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(!output.status.success(), "{command}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn output(&self, command: &str) -> std::process::Output {
        Command::new("bash")
            .args(["-o", "pipefail", "-c", command])
            .env("PATH", &self.path)
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }
}
