//! Our CRDs in the cluster.

use serde_json::Value;

use super::api::{Answer, Api, until};

/// Applies both CRDs, which any number of tests may do, and waits until the API server serves them.
pub(crate) async fn install(api: &Api) -> Vec<Answer> {
    let mut answers = Vec::new();
    for crd in hardening_api::crds() {
        let path = crd_path(&crd);
        let answer = api.apply(&path, &crd).await;
        assert!(answer.status < 300, "apply {path}: {answer:?}");
        answers.push(answer);
        until(&format!("{path} is established"), async || {
            let stored = api.get(&path).await.unwrap();
            (condition(&stored, "Established") == Some("True")).then_some(())
        })
        .await;
    }
    // Established is what the one API server says of itself; the paths follow.
    for path in [collection("default"), CLUSTER_POLICIES.to_owned()] {
        until(&format!("{path} is served"), async || {
            api.get(&path).await.ok().map(drop)
        })
        .await;
    }
    answers
}

pub(crate) const CLUSTER_POLICIES: &str =
    "/apis/podhardening.dev/v1alpha1/clusterpodhardeningpolicies";

/// Where a namespace's policies are.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/apis/podhardening.dev/v1alpha1/namespaces/{namespace}/podhardeningpolicies")
}

pub(crate) fn crd_path(crd: &Value) -> String {
    let name = crd["metadata"]["name"].as_str().unwrap();
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}

/// The status of a condition.
pub(crate) fn condition<'o>(object: &'o Value, kind: &str) -> Option<&'o str> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    found["status"].as_str()
}
