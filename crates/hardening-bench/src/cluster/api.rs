//! The API server as the benches use it.

use anyhow::{Context as _, Result, anyhow};
use kube::Client;
use serde_json::{Value, json};

/// Calls, as bytes: nothing that the client does with them is measured.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Client);

impl Api {
    pub(crate) async fn create(&self, path: &str, body: Vec<u8>) -> Result<String> {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body)
            .context("make a request")?;
        let answer = self.0.request_text(request).await;
        answer.with_context(|| format!("create at {path}"))
    }

    pub(crate) async fn create_object(&self, object: &Value) -> Result<()> {
        let path = match object.get("kind").and_then(Value::as_str) {
            Some("Namespace") => "/api/v1/namespaces".to_owned(),
            Some("ServiceAccount") => {
                let namespace = object
                    .pointer("/metadata/namespace")
                    .and_then(Value::as_str);
                format!(
                    "/api/v1/namespaces/{}/serviceaccounts",
                    namespace.unwrap_or_default()
                )
            }
            Some(kind) => {
                let version = object.get("apiVersion").and_then(Value::as_str);
                let plural = match kind.strip_suffix('y') {
                    Some(stem) => format!("{stem}ies"),
                    None => format!("{kind}s"),
                };
                format!(
                    "/apis/{}/{}",
                    version.unwrap_or_default(),
                    plural.to_lowercase()
                )
            }
            None => return Err(anyhow!("an object without a kind: {object}")),
        };
        self.create(&path, object.to_string().into_bytes()).await?;
        Ok(())
    }

    /// A namespace, and the service account without which no pod can be created in it.
    pub(crate) async fn create_namespace(&self, name: &str) -> Result<()> {
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
        ] {
            self.create_object(&object).await?;
        }
        Ok(())
    }

    /// A pod created as a dry run; as it would be admitted.
    pub(super) async fn try_pod(&self, namespace: &str, pod: Vec<u8>) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.create(&path, pod).await
    }

    /// Seconds of CPU time that the API server has used, as it tells itself.
    pub(super) async fn cpu(&self) -> Result<f64> {
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .context("make a request")?;
        let page = self.0.request_text(request).await.context("get /metrics")?;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        let value = value.context("the API server does not tell its CPU time")?;
        value.parse().context("read the API server's CPU time")
    }
}

/// The pod as its author sends it: without what the API server adds before it asks a webhook.
pub(crate) fn as_posted(mut pod: Value) -> Value {
    let remove = |object: Option<&mut Value>, keys: &[&str]| {
        if let Some(object) = object.and_then(Value::as_object_mut) {
            keys.iter().for_each(|key| drop(object.remove(*key)));
        }
    };
    remove(Some(&mut pod), &["status"]);
    remove(
        pod.get_mut("metadata"),
        &["managedFields", "ownerReferences", "namespace"],
    );
    remove(
        pod.get_mut("spec"),
        &["volumes", "tolerations", "priority", "preemptionPolicy"],
    );
    for list in ["containers", "initContainers"] {
        let containers = pod.pointer_mut("/spec").and_then(|spec| spec.get_mut(list));
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            remove(Some(container), &["volumeMounts"]);
        }
    }
    pod
}
