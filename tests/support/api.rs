//! The API server, spoken to in plain JSON: what a test posts is what arrives, nulls and unknown fields
//! included, and what comes back is all that the API server said.

use std::time::{Duration, Instant};

use base64::Engine as _;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use test_control_plane::ControlPlane;

/// How long what must happen may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The API server, as one user sees it. Belongs to the runtime it was made in.
#[derive(Clone)]
pub(crate) struct Api(Client);

/// What the API server answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The warnings that kubectl would show.
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

/// That the API server refused, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Api {
    /// As an administrator of the control plane that all tests share.
    pub(crate) async fn admin() -> Self {
        Self::of(shared().await)
    }

    /// As an administrator of a control plane.
    pub(crate) fn of(control_plane: &ControlPlane) -> Self {
        Self(control_plane.client().unwrap())
    }

    /// Whatever listens at a URL with a certificate of this CA.
    pub(crate) async fn at(url: &str, ca_pem: &[u8]) -> Self {
        let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
        let cluster = json!({"server": url, "certificate-authority-data": ca});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "only",
            "clusters": [{"name": "only", "cluster": cluster}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "only", "context": {"cluster": "only", "user": "nobody"}}],
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Self(Client::try_from(config).unwrap())
    }

    /// As an administrator of that name, whom webhooks can tell from others.
    pub(crate) async fn administrator(name: &str) -> Self {
        Self::user(shared().await, name, "system:masters").await
    }

    /// As a user of that name, of one group.
    pub(crate) async fn user(control_plane: &ControlPlane, name: &str, group: &str) -> Self {
        Self::as_user(control_plane, name, Some(group)).await
    }

    /// As a user of that name, of that group if there is one.
    pub(crate) async fn as_user(
        control_plane: &ControlPlane,
        name: &str,
        group: Option<&str>,
    ) -> Self {
        let text = control_plane.kubeconfig_for(name, group).unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        Self(Client::try_from(config).unwrap())
    }

    /// Whether anything answers, whatever it says.
    pub(crate) async fn answers(&self) -> bool {
        let request = http::Request::get("/").body(Body::empty()).unwrap();
        self.0.send(request).await.is_ok()
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.send("GET", path, None).await.ok()
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        self.send("POST", path, Some(object)).await.ok()
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Result<Value, Refusal> {
        self.send("PUT", path, Some(object)).await.ok()
    }

    /// Deletes at once; well if it is not there.
    pub(crate) async fn delete(&self, path: &str) {
        let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        let answer = self.send("DELETE", path, Some(&options)).await;
        assert!(
            answer.status < 300 || answer.status == 404,
            "DELETE {path}: {answer:?}"
        );
    }

    /// Creates what a test needs, or leaves it as it is.
    pub(crate) async fn ensure(&self, path: &str, object: &Value) {
        match self.post(path, object).await {
            Ok(_) => {}
            Err(refusal) if refusal.status == 409 => {}
            Err(refusal) => panic!("POST {path}: {refusal}\n{object:#}"),
        }
    }

    /// Server-side apply.
    pub(crate) async fn apply(&self, path: &str, object: &Value) -> Answer {
        let path = format!("{path}?fieldManager=tests&force=true");
        let content = [("content-type", "application/apply-patch+yaml")];
        self.request("PATCH", &path, &content, Some(object)).await
    }

    /// Changes some members, as `kubectl patch --type=merge` does.
    pub(crate) async fn merge(&self, path: &str, members: &Value) -> Result<Value, Refusal> {
        let content = [("content-type", "application/merge-patch+json")];
        self.request("PATCH", path, &content, Some(members))
            .await
            .ok()
    }

    /// Sends a request; an answer of any status is an answer.
    pub(crate) async fn send(&self, method: &str, path: &str, object: Option<&Value>) -> Answer {
        let content = [("content-type", "application/json")];
        self.request(method, path, &content, object).await
    }

    /// As [`Self::send`], with headers.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        object: Option<&Value>,
    ) -> Answer {
        let body = object.map_or_else(Vec::new, |object| serde_json::to_vec(object).unwrap());
        self.request_bytes(method, path, headers, body).await
    }

    /// As [`Self::request`], with a body that need not be JSON.
    pub(crate) async fn request_bytes(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.0.send(request).await.unwrap();
        Self::answer(response).await
    }

    /// Posts to what may not be reached; why it was not, otherwise.
    pub(crate) async fn try_post(&self, path: &str, object: &Value) -> Result<Value, String> {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(serde_json::to_vec(object).unwrap()))
            .unwrap();
        let response = self.0.send(request).await;
        let response = response.map_err(|error| format!("{error:?}"))?;
        let answer = Self::answer(response).await.ok();
        answer.map_err(|refusal| refusal.to_string())
    }

    async fn answer(response: http::Response<Body>) -> Answer {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let warnings = head.headers.get_all("warning").iter();
        Answer {
            status: head.status.as_u16(),
            warnings: warnings
                .map(|warning| warning.to_str().unwrap().to_owned())
                .collect(),
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into()),
        }
    }
}

impl Answer {
    pub(crate) fn ok(self) -> Result<Value, Refusal> {
        if self.status < 300 {
            return Ok(self.body);
        }
        let message = self.body["message"].as_str().map(str::to_owned);
        Err(Refusal {
            status: self.status,
            message: message.unwrap_or_else(|| self.body.to_string()),
        })
    }
}

/// The control plane that all tests share, without which none can say anything.
pub(crate) async fn shared() -> &'static ControlPlane {
    match ControlPlane::shared().await {
        Ok(control_plane) => control_plane,
        Err(error) => panic!("no control plane: {error}"),
    }
}

/// Looks again and again until it is there.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Creates a namespace with these labels, and the service account without which no pod can be created in
/// it, where no controller manager does.
pub(crate) async fn bare_namespace(api: &Api, name: &str, labels: &Value) {
    api.ensure(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
    .await;
    api.ensure(
        &format!("/api/v1/namespaces/{name}/serviceaccounts"),
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
    )
    .await;
}

/// Creates a namespace with these labels, and waits until pods can be created in it.
pub(crate) async fn namespace(api: &Api, name: &str, labels: &Value) {
    api.ensure(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
    .await;
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    until(
        &format!("the service account of namespace {name}"),
        async || api.get(&account).await.ok(),
    )
    .await;
}
