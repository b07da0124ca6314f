//! Three managers and three replicas beside a control plane, and what they keep.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use super::load::{Load, decoded};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::controller::{Controller, free_addresses};
use crate::support::crds::{collection, install};

/// The two Secrets.
pub(super) const CA: &str = "pod-hardening-ca";
pub(super) const SERVING: &str = "pod-hardening-tls";
/// Where they are.
const OWN: &str = "pod-hardening-system";
/// Where pods are created.
pub(super) const SHOP: &str = "shop";
pub(super) const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pod-hardening";

/// How long certificates live, as flags say it.
#[derive(Clone, Copy)]
pub(super) struct Lifetimes {
    pub(super) leaf: &'static str,
    pub(super) ca: &'static str,
}

/// Whose rights are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    Manager,
    Replica,
}

pub(super) struct Fleet {
    pub(super) control_plane: ControlPlane,
    pub(super) api: Api,
    managers: Vec<Controller>,
    replicas: Vec<Controller>,
    /// Where each replica answers reviews.
    pub(super) urls: Vec<String>,
}

impl Fleet {
    /// Starts all at once, and waits until each is ready.
    pub(super) async fn start(lifetimes: Lifetimes) -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions {
            controller_manager: false,
            ..ControlPlaneOptions::default()
        });
        let control_plane = control_plane.await.unwrap();
        let api = Api::of(&control_plane);
        install(&api).await;
        for namespace in [OWN, SHOP] {
            bare_namespace(&api, namespace, &json!({})).await;
        }
        let policy = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
            "metadata": {"name": "user"}, "spec": {"pod": {"hostUsers": false}},
        });
        api.post(&collection(SHOP), &policy).await.unwrap();
        grant(&api).await;

        let mut fleet = Self {
            control_plane,
            api,
            managers: Vec::new(),
            replicas: Vec::new(),
            urls: Vec::new(),
        };
        for who in [Who::Manager, Who::Replica] {
            let text = fleet.control_plane.kubeconfig_for(user(who), None);
            std::fs::write(fleet.kubeconfig(who), text.unwrap()).unwrap();
        }
        for i in 0..3 {
            let (replica, url) = fleet.replica(&format!("replica-{i}"));
            fleet.replicas.push(replica);
            fleet.urls.push(url);
        }
        let url = &fleet.urls[0];
        let webhooks = json!([
            webhook("pods.podhardening.dev", url, "pods", "CREATE"),
            webhook(
                "ephemeralcontainers.podhardening.dev",
                url,
                "pods/ephemeralcontainers",
                "UPDATE"
            ),
            stranger(),
        ]);
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "pod-hardening"}, "webhooks": webhooks,
        });
        let path = CONFIGURATION.rsplit_once('/').unwrap().0;
        fleet.api.post(path, &configuration).await.unwrap();
        for i in 0..3 {
            let kubeconfig = fleet.kubeconfig(Who::Manager);
            let name = format!("manager-{i}");
            let manager = fleet.manager(&name, &kubeconfig, CA, lifetimes);
            fleet.managers.push(manager);
        }
        for program in fleet.managers.iter_mut().chain(&mut fleet.replicas) {
            program.until_ready().await;
        }
        fleet
    }

    /// One more manager, which keeps its CA in that Secret.
    pub(super) fn manager(
        &self,
        name: &str,
        kubeconfig: &Path,
        ca: &str,
        lifetimes: Lifetimes,
    ) -> Controller {
        let [metrics, _] = free_addresses();
        let arguments = [
            "manage".to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--service={OWN}/pod-hardening"),
            "--tls-names=127.0.0.1".to_owned(),
            format!("--tls-ca-secret={ca}"),
            format!("--tls-leaf-lifetime={}", lifetimes.leaf),
            format!("--tls-ca-lifetime={}", lifetimes.ca),
            format!("--metrics-listen={metrics}"),
            "--log-format=json".to_owned(),
        ];
        Controller::run(&self.control_plane, name, metrics, &arguments)
    }

    fn replica(&self, name: &str) -> (Controller, String) {
        let [listen, metrics] = free_addresses();
        let arguments = [
            "run".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig(Who::Replica).display()),
            format!("--service={OWN}/pod-hardening"),
            format!("--listen={listen}"),
            format!("--metrics-listen={metrics}"),
            "--shutdown-delay=0s".to_owned(),
            "--log-format=json".to_owned(),
        ];
        let replica = Controller::run(&self.control_plane, name, metrics, &arguments);
        (replica, format!("https://{listen}"))
    }

    /// The kubeconfig with the rights of such a program.
    fn kubeconfig(&self, who: Who) -> PathBuf {
        let name = format!("{}.kubeconfig", user(who));
        self.control_plane.directory().join(name)
    }

    pub(super) async fn as_user(&self, who: Who) -> Api {
        Api::as_user(&self.control_plane, user(who), None).await
    }

    /// A Secret, if it is there.
    pub(super) async fn secret(&self, name: &str) -> Option<Value> {
        self.api.get(&path(name)).await.ok()
    }

    pub(super) async fn configuration(&self) -> Value {
        self.api.get(CONFIGURATION).await.unwrap()
    }

    /// The certificates that each webhook of ours trusts, in PEM.
    pub(super) async fn trusted(&self) -> Vec<Vec<String>> {
        let configuration = self.configuration().await;
        let ours = configuration["webhooks"].as_array().unwrap().iter().take(2);
        let end = "-----END CERTIFICATE-----\n";
        ours.map(|webhook| {
            let bundle = &webhook["clientConfig"]["caBundle"];
            let pem = if bundle.is_null() {
                String::new()
            } else {
                decoded(bundle)
            };
            pem.split_inclusive(end).map(str::to_owned).collect()
        })
        .collect()
    }

    /// How often all managers together took a step.
    pub(super) async fn managers_wrote(&self, what: &str) -> f64 {
        let mut sum = 0.0;
        for manager in &self.managers {
            let series = format!("podhardening_certificate_writes_total{{what=\"{what}\"}}");
            sum += manager.metric(&series).await;
        }
        sum
    }

    /// Waits until there is another certificate than `before`, issued by the CA in the other Secret, which
    /// was made anew if it was lost; and until every replica serves it.
    pub(super) async fn until_repaired(
        &self,
        case: &str,
        before: &Value,
        lost_ca: bool,
        load: &mut Load,
    ) {
        let repaired = until(case, async || {
            load.go_on().await;
            let (ca, serving) = (self.secret(CA).await?, self.secret(SERVING).await?);
            let (ca, serving) = (&ca["data"], &serving["data"]);
            let is_whole = ca["ca.crt"].is_string() && ca["ca.crt"] == serving["ca.crt"];
            let is_new = serving["tls.crt"] != *before && serving["tls.crt"] != "";
            (is_whole && is_new).then(|| decoded(&serving["ca.crt"]))
        })
        .await;
        for bundle in self.trusted().await {
            assert!(bundle.contains(&repaired), "{case}");
            // The one that is lost is trusted as long as it could be in use.
            assert!(!lost_ca || bundle.len() >= 2, "{case}");
        }
        until(
            &format!("{case}: every replica serves the new certificate"),
            async || {
                load.go_on().await;
                for url in &self.urls {
                    load.call(url, &repaired).await.ok()?;
                }
                Some(())
            },
        )
        .await;
    }

    /// Ends everything, in order.
    pub(super) async fn stop(self) {
        for program in self.replicas.into_iter().chain(self.managers) {
            program.terminate().await;
        }
        self.control_plane.stop().await.unwrap();
    }
}

/// The Secrets of the namespace with ours.
pub(super) fn collection_of_secrets() -> String {
    format!("/api/v1/namespaces/{OWN}/secrets")
}

/// One of them.
pub(super) fn path(secret: &str) -> String {
    format!("{}/{secret}", collection_of_secrets())
}

fn user(who: Who) -> &'static str {
    match who {
        Who::Manager => "pod-hardening-manager",
        Who::Replica => "pod-hardening",
    }
}

fn webhook(name: &str, url: &str, resource: &str, operation: &str) -> Value {
    json!({
        "name": name,
        "clientConfig": {"url": format!("{url}/mutate")},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": [resource], "operations": [operation]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SHOP}},
        "failurePolicy": "Fail", "timeoutSeconds": 10, "sideEffects": "None", "admissionReviewVersions": ["v1"],
    })
}

/// Somebody else's webhook, in the same object. Nothing is ever sent to it.
pub(super) fn stranger() -> Value {
    let mut stranger = webhook("pods.example.com", "https://example.com", "pods", "CREATE");
    stranger["namespaceSelector"] = json!({"matchLabels": {"no": "where"}});
    stranger["failurePolicy"] = json!("Ignore");
    stranger
}

/// The rights of both.
async fn grant(api: &Api) {
    for object in include_str!("rights.yaml").split("\n---\n") {
        let object: Value = serde_saphyr::from_str(object).unwrap();
        let kind = object["kind"].as_str().unwrap().to_owned();
        let (resource, scope) = match &*kind {
            "Role" => ("role", format!("/namespaces/{OWN}")),
            _ => ("clusterrole", String::new()),
        };
        let base = format!("/apis/rbac.authorization.k8s.io/v1{scope}");
        let name = object["metadata"]["name"].clone();
        api.post(&format!("{base}/{resource}s"), &object)
            .await
            .unwrap();
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "apiVersion": format!("{group}/v1"), "kind": format!("{kind}Binding"), "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
        });
        api.post(&format!("{base}/{resource}bindings"), &binding)
            .await
            .unwrap();
    }
}
