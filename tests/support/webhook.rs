//! The webhook in this process, registered with the API server: the server that the controller runs, with
//! policies that the test hands it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hardening_engine::PolicySet;
use hardening_webhook::{
    CERTIFICATE_INTERVAL, Certificates, Decide, Engine, Limits, Metrics, Readiness, ServeError,
    Shutdown, Webhook,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::{Api, until};

/// Which requests a webhook is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// Those by this user.
    ForUser(&'static str),
    /// Those in namespaces that have the label `webhook` with the webhook's name.
    ForNamespaces,
}

/// A webhook that serves until it is stopped.
pub(crate) struct RunningWebhook {
    policies: watch::Sender<Arc<PolicySet>>,
    configuration: Value,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

impl RunningWebhook {
    /// Serves, and registers.
    pub(crate) async fn start(api: &Api, name: &str, asked: Asked, policies: PolicySet) -> Self {
        Self::start_deciding(api, name, asked, "IfNeeded", policies, Arc::new(Engine)).await
    }

    /// As [`Self::start`], deciding in a way of its own, and asked again or not after others.
    pub(crate) async fn start_deciding(
        api: &Api,
        name: &str,
        asked: Asked,
        reinvocation: &str,
        policies: PolicySet,
        decide: Arc<dyn Decide>,
    ) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let any_port = SocketAddr::new(loopback, 0);
        let (sender, receiver) = watch::channel(Arc::new(policies));
        let mut registry = Registry::default();
        let webhook = Webhook {
            policies: receiver,
            decide,
            certificates: Certificates::self_signed(&[loopback.to_string()]).unwrap(),
            callers: None,
            certificate_interval: CERTIFICATE_INTERVAL,
            readiness: Readiness::new(),
            metrics: Metrics::register(&mut registry, "test"),
            registry: Arc::new(registry),
            span: None,
            limits: Limits {
                // The whole test runs on two cores; how fast it answers is another test's question.
                request: Duration::from_secs(20),
                ..Limits::default()
            },
            shutdown: Shutdown {
                serve_on: Duration::ZERO,
                ..Shutdown::default()
            },
        };
        let bound = webhook.bind(any_port, any_port).await.unwrap();
        let mut configuration =
            configuration(name, asked, bound.address(), &bound.ca_pem().unwrap());
        for webhook in configuration["webhooks"].as_array_mut().unwrap() {
            webhook["reinvocationPolicy"] = reinvocation.into();
        }
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(bound.run(shutdown.clone()));
        api.post(CONFIGURATIONS, &configuration).await.unwrap();
        Self {
            policies: sender,
            configuration,
            shutdown,
            server,
        }
    }

    /// Puts policies in force, at once.
    pub(crate) fn put_in_force(&self, policies: PolicySet) {
        self.policies.send_replace(Arc::new(policies));
    }

    /// Waits until the API server asks the webhook, which shows in what it stores for this pod.
    pub(crate) async fn until_asked(&self, api: &Api, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "is-it-asked"},
            "spec": {"containers": [{"name": "only", "image": "registry.example/app"}]},
        });
        until("the API server asks the webhook", async || {
            let stored = api.post(&path, &pod).await.unwrap();
            stored["metadata"]["annotations"][hardening_engine::FILLED]
                .is_string()
                .then_some(())
        })
        .await;
    }

    /// Unregisters and ends.
    pub(crate) async fn stop(self, api: &Api) {
        let name = self.configuration["metadata"]["name"].as_str().unwrap();
        api.delete(&format!("{CONFIGURATIONS}/{name}")).await;
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// As the manifests register it, but that errors are not ignored: a test must see them.
fn configuration(name: &str, asked: Asked, address: SocketAddr, ca: &str) -> Value {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let client = json!({"url": format!("https://{address}/mutate"), "caBundle": ca});
    let (namespaces, condition) = match asked {
        Asked::ForUser(user) => (json!({}), format!("request.userInfo.username == '{user}'")),
        Asked::ForNamespaces => (json!({"matchLabels": {"webhook": name}}), "true".to_owned()),
    };
    let entry = |entry: &str, operation: &str, resource: &str| {
        json!({
            "name": format!("{entry}.{name}.podhardening.dev"),
            "clientConfig": client,
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation],
                "resources": [resource], "scope": "Namespaced",
            }],
            "failurePolicy": "Fail",
            "timeoutSeconds": 30,
            "sideEffects": "None",
            "matchPolicy": "Equivalent",
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": namespaces,
            "matchConditions": [{"name": "asked", "expression": condition}],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            entry("pods", "CREATE", "pods"),
            entry("ephemeral", "UPDATE", "pods/ephemeralcontainers"),
        ],
    })
}
