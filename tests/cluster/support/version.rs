//! Which version of Kubernetes the tests run on, and what is not run on it.

use hardening_engine::KubernetesVersion;
use test_control_plane::NEWEST_KUBERNETES;

use super::api::Api;
use super::tell::tell;

/// The version that an API server says it acts as.
pub(crate) async fn acts_as(api: &Api) -> KubernetesVersion {
    let told = api.get("/version").await.unwrap();
    let minor = told["emulationMinor"].as_str().or(told["minor"].as_str());
    format!("1.{}", minor.unwrap()).parse().unwrap()
}

/// Whether the API server knows what policies compile to.
pub(crate) async fn can_compile(api: &Api) -> bool {
    let server = acts_as(api).await;
    let can = server >= hardening_compile::LOWEST_VERSION;
    if !can {
        let what = "there are no MutatingAdmissionPolicies of version v1 yet";
        not_run(server, what);
    }
    can
}

/// Where the objects are that policies compile to.
pub(crate) const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
/// Where their bindings are.
pub(crate) const BINDINGS: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";

pub(crate) fn is_newest(version: KubernetesVersion) -> bool {
    version.to_string() == NEWEST_KUBERNETES
}

/// Tells what is not run because of the version; `hack/test-matrix` counts it.
pub(crate) fn not_run(version: KubernetesVersion, what: &str) {
    assert!(!is_newest(version), "not run on the newest version: {what}");
    tell(&format!("not run on {version}: {what}"));
}
