//! A cluster for generated cases: namespaces, service accounts and runtime classes that pods and policies
//! speak of, a webhook whose policies change from round to round, and two users: one for whom the webhook is
//! asked, and one for whom it is not.

use hardening_engine::{KubernetesVersion, PolicySet};
use serde_json::{Map, Value, json};
use test_control_plane::ControlPlane;

use super::api::{Api, namespace, shared};
use super::generate::policy::NAMESPACES;
use super::policies;
use super::version::acts_as;
use super::webhook::{Asked, RunningWebhook};

/// What a service account says about its token.
const SERVICE_ACCOUNTS: [(&str, Option<bool>); 3] = [
    ("default", None),
    ("mounts-token", Some(true)),
    ("no-token", Some(false)),
];

/// A runtime class, and the node labels that it asks for.
const RUNTIME_CLASSES: [(&str, &[(&str, &str)]); 2] =
    [("sandboxed", &[]), ("on-gpu-nodes", &[("hardware", "gpu")])];

pub(crate) struct Lab {
    pub(crate) admin: Api,
    pub(crate) with_us: Api,
    pub(crate) without_us: Api,
    /// What the cluster acts as; the engine is told, as it is by the controller.
    pub(crate) version: KubernetesVersion,
    webhook: RunningWebhook,
}

impl Lab {
    /// Prepares the cluster; each lab has a webhook of its own, which is told by its user.
    pub(crate) async fn open(user: &'static str) -> Self {
        Self::open_in(shared().await, user).await
    }

    /// As [`Self::open`], in another cluster than the one that all tests share.
    pub(crate) async fn open_in(control_plane: &ControlPlane, user: &'static str) -> Self {
        let admin = Api::of(control_plane);
        for (name, labels) in NAMESPACES {
            let labels: Map<String, Value> = labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                .collect();
            namespace(&admin, name, &labels.into()).await;
            for (account, automount) in &SERVICE_ACCOUNTS[1..] {
                let object = json!({
                    "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account},
                    "automountServiceAccountToken": automount,
                });
                let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
                admin.ensure(&path, &object).await;
            }
        }
        for (name, node_labels) in RUNTIME_CLASSES {
            let mut class = json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
                "handler": "sandbox",
            });
            if !node_labels.is_empty() {
                class["scheduling"] = json!({
                    "nodeSelector": policies::labels(node_labels),
                    "tolerations": [{"key": "gpu", "operator": "Exists"}],
                });
                class["overhead"] = json!({"podFixed": {"memory": "64Mi"}});
            }
            let path = "/apis/node.k8s.io/v1/runtimeclasses";
            admin.ensure(path, &class).await;
        }
        let webhook = RunningWebhook::start(
            &admin,
            user,
            Asked::ForUser(user),
            policy_set(&[json!({
                "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
                "metadata": {"name": "first"}, "spec": {"profile": "Restricted"},
            })]),
        )
        .await;
        let administrator = async |name| Api::user(control_plane, name, "system:masters").await;
        let with_us = administrator(user).await;
        webhook.until_asked(&with_us, NAMESPACES[0].0).await;
        Self {
            without_us: administrator("nobody-asked").await,
            version: acts_as(&admin).await,
            admin,
            with_us,
            webhook,
        }
    }

    /// Puts these policies in force, and no others.
    pub(crate) fn put_in_force(&self, policies: &[Value]) {
        self.webhook.put_in_force(self.policy_set(policies));
    }

    /// These policies, and all that is known of the cluster.
    pub(crate) fn policy_set(&self, policies: &[Value]) -> PolicySet {
        let mut set = policy_set(policies);
        set.set_kubernetes_version(Some(self.version));
        set
    }

    pub(crate) async fn close(self) {
        self.webhook.stop(&self.admin).await;
    }
}

/// These policies, and all that is known of the lab's cluster, but for its version.
pub(crate) fn policy_set(policies: &[Value]) -> PolicySet {
    let mut set = policies::of_cluster();
    for (name, labels) in NAMESPACES {
        set.insert_namespace(name, &policies::labels(labels));
        for (account, automount) in SERVICE_ACCOUNTS {
            set.insert_service_account(name, account, automount);
        }
    }
    for (name, node_labels) in RUNTIME_CLASSES {
        set.insert_runtime_class(name, &policies::labels(node_labels));
    }
    policies::insert(&mut set, policies);
    set
}

/// The policies of a case.
pub(crate) fn policies_of(case: &Value) -> &[Value] {
    case["policies"].as_array().map_or(&[], Vec::as_slice)
}
