//! A control plane of a test's own: what the chart makes has fixed names and is the whole cluster's.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use super::api::{Api, Refusal, bare_namespace, until};
use super::chart::{self, NAMESPACE, printed, text};

pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
}

/// Where the registration is.
pub(crate) const REGISTRATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pod-hardening";

/// A namespace of somebody's.
pub(crate) const SHOP: &str = "shop";

/// Every write that was answered, in order.
const AUDIT_WRITES: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create", "patch", "delete"]}]
}"#;

/// CRDs of others.
struct OfOthers {
    /// The Go module that has them.
    module: &'static str,
    /// Its checksum, as Go has it.
    sum: &'static str,
    /// The folder there.
    folder: &'static str,
    group: &'static str,
    /// Those that the chart makes objects of.
    plurals: &'static [&'static str],
}

const OF_OTHERS: [OfOthers; 2] = [
    OfOthers {
        module: "github.com/cert-manager/cert-manager@v1.21.2",
        sum: "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        folder: "deploy/crds",
        group: "cert-manager.io",
        plurals: &["certificates", "issuers"],
    },
    OfOthers {
        module: "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        folder: "example/prometheus-operator-crd",
        group: "monitoring.coreos.com",
        plurals: &["podmonitors", "servicemonitors", "prometheusrules"],
    },
];

impl Cluster {
    /// Starts one that has our namespace and another, [`SHOP`]. Nothing but a test changes what is in it: there is
    /// no controller manager.
    pub(crate) async fn start() -> Self {
        Self::with_controllers(false).await
    }

    /// As [`Self::start`], but that controllers make pods of Deployments, if so. There is no node for them.
    pub(crate) async fn with_controllers(controller_manager: bool) -> Self {
        let options = ControlPlaneOptions {
            controller_manager,
            audit_policy: Some(AUDIT_WRITES.to_owned()),
            ..ControlPlaneOptions::default()
        };
        let control_plane = ControlPlane::start(options).await.unwrap();
        let cluster = Self { control_plane };
        let own = text("deploy/namespace.yaml");
        printed(cluster.kubectl(&["create", "--filename", "-"], &own));
        let api = cluster.api();
        for name in [NAMESPACE, SHOP, "kube-system"] {
            bare_namespace(&api, name, &json!({})).await;
        }
        cluster
    }

    /// The API server, as an administrator of the runtime at hand.
    pub(crate) fn api(&self) -> Api {
        Api::of(&self.control_plane)
    }

    /// Installs the CRDs of cert-manager and of the Prometheus operator, and waits until they are served.
    pub(crate) async fn install_crds_of_others(&self) {
        let api = self.api();
        for of_others in OF_OTHERS {
            let downloaded = Command::new("go")
                .args(["mod", "download", "-json", of_others.module])
                .current_dir(self.control_plane.directory())
                .output()
                .unwrap();
            let module: Value = serde_json::from_str(&printed(downloaded)).unwrap();
            assert_eq!(module["Sum"], of_others.sum, "{module:#}");
            let folder = Path::new(module["Dir"].as_str().unwrap()).join(of_others.folder);
            let group = of_others.group;
            for plural in of_others.plurals {
                let crd = folder.join(format!("{group}_{plural}.yaml"));
                let file = format!("--filename={}", crd.display());
                printed(self.kubectl(&["create", &file], ""));
                let path = format!("/apis/{group}/v1/{plural}");
                until(&format!("{path} is served"), async || {
                    api.get(&path).await.ok()
                })
                .await;
            }
        }
    }

    /// Runs kubectl, with this on its standard input.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut kubectl = Command::new(self.control_plane.kubectl().unwrap())
            .args(arguments)
            .env("KUBECONFIG", self.control_plane.kubeconfig_path())
            .env("HOME", self.control_plane.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        kubectl
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        kubectl.wait_with_output().unwrap()
    }

    /// Runs Helm, in our namespace.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Output {
        let kubeconfig = self.control_plane.kubeconfig_path();
        let namespace = ["--namespace", NAMESPACE];
        chart::helm(Some(kubeconfig), &[arguments, &namespace].concat())
    }

    /// Writes a CA into the registration, as the manager does.
    pub(crate) async fn write_ca_bundle(&self) {
        let ca = STANDARD.encode(self.control_plane.ca_pem());
        let names = [
            "pods.podhardening.dev",
            "ephemeralcontainers.podhardening.dev",
        ];
        let webhooks = names.map(|name| json!({"name": name, "clientConfig": {"caBundle": ca}}));
        let content = [("content-type", "application/strategic-merge-patch+json")];
        let path = format!("{REGISTRATION}?fieldManager=hardening-controller");
        let patch = json!({"webhooks": webhooks});
        let api = self.api();
        let answer = api.request("PATCH", &path, &content, Some(&patch));
        answer.await.ok().unwrap();
    }

    /// The CA in each entry of the registration.
    pub(crate) async fn ca_bundles(&self) -> Vec<Value> {
        let registration = self.api().get(REGISTRATION).await.unwrap();
        let webhooks = registration["webhooks"].as_array().unwrap().iter();
        webhooks
            .map(|webhook| webhook["clientConfig"]["caBundle"].clone())
            .collect()
    }

    /// What the API server stores of these objects of a stream of YAML: kind, name, and the version that
    /// changes with every write.
    pub(crate) fn versions(&self, yaml: &str) -> String {
        let version = "custom-columns=:kind,:metadata.name,:metadata.resourceVersion";
        let output = [
            "get",
            "--filename",
            "-",
            "--output",
            version,
            "--no-headers",
        ];
        printed(self.kubectl(&output, yaml))
    }

    /// Whether a plain pod can be created there, as a dry run.
    pub(crate) async fn create_pod(&self, namespace: &str) -> Result<(), Refusal> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        // As strict as our own namespace wants it.
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "only", "image": "registry.example/app",
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        self.api().post(&path, &pod).await.map(drop)
    }

    /// The resources that Helm asked the API server to write by one of these verbs, in order; each once.
    pub(crate) fn written_by_helm(&self, verbs: &[&str]) -> Vec<String> {
        let log = std::fs::read_to_string(self.control_plane.audit_log_path().unwrap()).unwrap();
        let mut resources: Vec<String> = Vec::new();
        for line in log.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let agent = event["userAgent"].as_str().unwrap_or_default();
            let is_helm = agent.starts_with("Helm/");
            let is_asked = verbs.iter().any(|verb| event["verb"] == *verb);
            let resource = event["objectRef"]["resource"].as_str().unwrap_or_default();
            if is_helm && is_asked && !resources.iter().any(|known| known == resource) {
                resources.push(resource.to_owned());
            }
        }
        resources
    }
}
