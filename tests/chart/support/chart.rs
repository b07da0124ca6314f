//! The chart, and Helm.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use hardening_manifests::{objects, parse};
use serde_json::Value;

use super::files::root;
use super::go_tool::go_tool;

/// Where the chart is, from the root.
pub(crate) const CHART: &str = "charts/pod-hardening";
/// The release that the documentation makes, and its namespace.
pub(crate) const RELEASE: &str = "pod-hardening";
pub(crate) const NAMESPACE: &str = "pod-hardening-system";
/// The Deployments, each of which has a ServiceAccount of its name.
pub(crate) const WEBHOOK: &str = "pod-hardening";
pub(crate) const MANAGER: &str = "pod-hardening-manager";

/// What is held to a real API server: a name, and values as `--set` takes them.
pub(crate) const RENDERINGS: [(&str, &[&str]); 8] = [
    ("default", &[]),
    ("cert-manager", &["tls.mode=certManager"]),
    (
        "certificate files",
        &["tls.mode=files", "tls.files.secretName=of-mine"],
    ),
    ("Fail", &["failurePolicy=Fail"]),
    (
        "single replica",
        &["webhook.replicas=1", "manager.replicas=1"],
    ),
    (
        "metrics on",
        &[
            "metrics.monitor=PodMonitor",
            "metrics.alerts=true",
            "metrics.dashboard=true",
        ],
    ),
    ("compiled", &["compile.enabled=true"]),
    (
        "all on",
        &[
            "compile.enabled=true",
            "tls.mode=certManager",
            "tls.certManager.issuerRef.kind=ClusterIssuer",
            "tls.certManager.issuerRef.name=company",
            "image.repository=registry.example:5000/security/hardening-controller",
            "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "image.pullSecrets[0].name=registry",
            "excludedNamespaces={monitoring,backup}",
            "webhook.replicas=5",
            "webhook.port=10250",
            "webhook.clients.ca=-----BEGIN CERTIFICATE-----",
            "webhook.clients.names={kube-apiserver,kube-apiserver-standby}",
            "webhook.extraArgs={--worker-threads=4}",
            "webhook.podAnnotations.team=platform",
            "webhook.podLabels.team=platform",
            "webhook.tolerations[0].operator=Exists",
            "manager.podLabels.team=platform",
            "listenAddress=[::]",
            "metrics.monitor=ServiceMonitor",
            "metrics.alerts=true",
            "metrics.dashboard=true",
            "metrics.labels.release=prometheus",
            "networkPolicy.webhookFrom[0].ipBlock.cidr=10.1.0.0/24",
            "networkPolicy.egress[0].to[0].ipBlock.cidr=10.1.0.0/24",
            "commonLabels.cost-centre=platform",
        ],
    ),
];

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs Helm in the repository's root, with this kubeconfig or none, and with nothing of this user's.
pub(crate) fn helm(kubeconfig: Option<&Path>, arguments: &[&str]) -> Output {
    static HELM: OnceLock<std::path::PathBuf> = OnceLock::new();
    let package = "helm.sh/helm/v4/cmd/helm";
    let helm = HELM.get_or_init(|| go_tool("tests/helm", "helm", package, &[]));
    Command::new(helm)
        .args(arguments)
        .env_clear()
        .env("HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")))
        .current_dir(root())
        .output()
        .unwrap()
}

/// The chart rendered for the release of the documentation, with these values, each as `--set` takes it.
pub(crate) fn render(values: &[&str]) -> String {
    let arguments = ["template", RELEASE, CHART, "--namespace", NAMESPACE];
    printed(helm(None, &with_values(&arguments, values)))
}

/// Arguments of Helm, and values.
pub(crate) fn with_values<'a>(arguments: &[&'a str], values: &[&'a str]) -> Vec<&'a str> {
    let sets = values.iter().flat_map(|value| ["--set", value]);
    arguments.iter().copied().chain(sets).collect()
}

/// What a command printed, which must have gone well.
#[track_caller]
pub(crate) fn printed(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The objects of a stream of YAML.
pub(crate) fn objects_of(yaml: &str) -> Vec<Value> {
    let manifests = parse("rendered", yaml.as_bytes()).unwrap();
    objects(&manifests)
        .map(|object| object.value.clone())
        .collect()
}

/// Those of a kind.
pub(crate) fn of_kind<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind.collect()
}
