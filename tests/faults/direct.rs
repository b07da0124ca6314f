//! Replicas asked directly, past the API server: whether each answers, and by which policies.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::BodyExt as _;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::cluster::{NAMESPACE, WEBHOOK};

/// How long an answer may take: what the API server allows.
const PATIENCE: Duration = Duration::from_secs(3);

/// One replica, as the API server would call it.
#[derive(Clone)]
pub(crate) struct Replica(Client);

// === impl Replica ===

impl Replica {
    /// The replica at an address of a pod, which must have a certificate of one of these CAs, in PEM.
    pub(crate) async fn at(address: &str, ca: &str) -> Self {
        let cluster = json!({
            "server": format!("https://{address}:9443"),
            "certificate-authority-data": STANDARD.encode(ca),
            "tls-server-name": format!("{WEBHOOK}.{NAMESPACE}.svc"),
        });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "only",
            "clusters": [{"name": "only", "cluster": cluster}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "only", "context": {"cluster": "only", "user": "nobody"}}],
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Self(Client::try_from(config.unwrap()).unwrap())
    }

    /// The patch for a pod with this label `app` in a namespace, as text; what came instead is an error.
    pub(crate) async fn patch(&self, namespace: &str, app: &str) -> Result<String, String> {
        let request = http::Request::post("/mutate")
            .header("content-type", "application/json")
            .body(Body::from(review(namespace, app).to_string().into_bytes()))
            .unwrap();
        let answer = async {
            let response = self
                .0
                .send(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            if !status.is_success() {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
            }
            let review: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let patch = review["response"]["patch"].as_str().unwrap_or_default();
            let patch = STANDARD.decode(patch).map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&patch).into_owned())
        };
        timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }
}

fn review(namespace: &str, app: &str) -> Value {
    let pods = json!({"group": "", "version": "v1", "resource": "pods"});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7d3b0f3e-4e0b-4f5c-9d3e-0d6f1f2a9c11",
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": pods,
            "name": "direct", "namespace": namespace, "operation": "CREATE", "dryRun": true,
            "userInfo": {"username": "tests"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "direct", "namespace": namespace, "labels": {"app": app}},
                "spec": {
                    "serviceAccountName": "default", "securityContext": {},
                    "containers": [{"name": "app", "image": "registry.example/app:1"}],
                },
            },
        },
    })
}
