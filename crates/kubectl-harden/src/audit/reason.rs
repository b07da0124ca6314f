//! Why a running pod lacks what a policy would have filled in.

use std::collections::BTreeMap;

use hardening_engine::{FILLED, PolicyRef};
use hardening_manifests::{Manifest, objects};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::Value;

use super::model::Reason;

/// The end of the names of the webhooks that are this product's.
const OURS: &str = "podhardening.dev";
/// The label by which a namespace asks for a level.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

type Labels = BTreeMap<String, String>;

/// What is known of when the webhook is asked, and since when policies exist.
#[derive(Debug)]
pub(crate) struct History {
    /// The registered webhooks; `None`: it is not known which there are.
    hooks: Option<Vec<Hook>>,
    /// When policies were created, by namespace and name.
    created: BTreeMap<(String, String), String>,
    /// The labels of namespaces.
    namespaces: BTreeMap<String, Labels>,
}

/// A webhook that is asked about new pods.
#[derive(Debug)]
struct Hook {
    namespaces: Selector,
    pods: Selector,
}

impl History {
    /// Nothing yet. That no webhook is registered is known only if all registrations are read.
    pub(crate) fn new(registrations_known: bool) -> Self {
        Self {
            hooks: registrations_known.then(Vec::new),
            created: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Adds what manifests say.
    pub(crate) fn read(&mut self, manifests: &[Manifest]) {
        for object in objects(manifests) {
            let name = object.name().unwrap_or_default().to_owned();
            match (object.api_version, object.kind) {
                ("v1", "Namespace") => {
                    let labels = labels(object.value);
                    self.namespaces.entry(name).or_insert(labels);
                }
                (_, "MutatingWebhookConfiguration") => {
                    let webhooks = object.value.get("webhooks").and_then(Value::as_array);
                    let hooks = webhooks.into_iter().flatten().filter_map(hook);
                    self.hooks.get_or_insert_default().extend(hooks);
                }
                (_, "PodHardeningPolicy" | "ClusterPodHardeningPolicy") => {
                    let namespace = object.namespace().unwrap_or_default().to_owned();
                    if let Some(created) = created(object.value) {
                        self.created.insert((namespace, name), created.to_owned());
                    }
                }
                _ => {}
            }
        }
    }

    /// What namespaces' labels enforce of the Pod Security Standards.
    pub(crate) fn enforced(&self) -> BTreeMap<String, String> {
        let labels = self.namespaces.iter();
        labels
            .filter_map(|(name, labels)| Some((name.clone(), labels.get(ENFORCE)?.clone())))
            .collect()
    }

    /// Why a pod lacks what a policy would fill in.
    pub(crate) fn reason(&self, namespace: &str, pod: &Value, policy: &PolicyRef) -> Reason {
        if let Some(hooks) = &self.hooks {
            if hooks.is_empty() {
                return Reason::NotRegistered;
            }
            // Every namespace has its name as a label.
            let mut of_namespace = self.namespaces.get(namespace).cloned().unwrap_or_default();
            of_namespace.insert(
                "kubernetes.io/metadata.name".to_owned(),
                namespace.to_owned(),
            );
            let asked = hooks
                .iter()
                .filter(|hook| hook.namespaces.matches(&of_namespace));
            let asked: Vec<&Hook> = asked.collect();
            if asked.is_empty() {
                return Reason::NamespaceExcluded;
            }
            let of_pod = labels(pod);
            if !asked.iter().any(|hook| hook.pods.matches(&of_pod)) {
                return Reason::PodExcluded;
            }
        }
        let key = (
            policy.namespace.clone().unwrap_or_default(),
            policy.name.clone(),
        );
        let policy_created = self.created.get(&key).map(String::as_str);
        let filled = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(FILLED));
        match (created(pod), policy_created) {
            // The API server writes all times in one form, in which the earlier one is the lesser text.
            (Some(pod), Some(policy)) if pod < policy => Reason::BeforePolicy,
            _ if filled.is_some() => Reason::PolicyChanged,
            (Some(_), Some(_)) if self.hooks.is_some() => Reason::NotSeen,
            _ => Reason::Unknown,
        }
    }
}

fn created(object: &Value) -> Option<&str> {
    object.pointer("/metadata/creationTimestamp")?.as_str()
}

fn labels(object: &Value) -> Labels {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A webhook of ours that is asked about new pods.
fn hook(webhook: &Value) -> Option<Hook> {
    let name = webhook.get("name")?.as_str()?;
    let rules = webhook.get("rules")?.as_array()?;
    let says = |rule: &Value, field: &str, one: &str| {
        let values = rule.get(field).and_then(Value::as_array);
        let mut values = values.into_iter().flatten().filter_map(Value::as_str);
        values.any(|value| value == one || value.starts_with('*'))
    };
    let new_pods =
        |rule: &Value| says(rule, "operations", "CREATE") && says(rule, "resources", "pods");
    if !name.ends_with(OURS) || !rules.iter().any(new_pods) {
        return None;
    }
    Some(Hook {
        namespaces: selector(webhook.get("namespaceSelector"))?,
        pods: selector(webhook.get("objectSelector"))?,
    })
}

/// A selector; one that is not there selects everything.
fn selector(value: Option<&Value>) -> Option<Selector> {
    let selector: LabelSelector = match value {
        None | Some(Value::Null) => LabelSelector::default(),
        Some(value) => serde_json::from_value(value.clone()).ok()?,
    };
    selector.try_into().ok()
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    clippy::redundant_clone,
    reason = "a table of JSON is easier to read without borrows and last uses"
)]
mod tests {
    use std::sync::Arc;

    use hardening_manifests::Source;
    use serde_json::json;

    use super::*;

    fn history(values: &[Value], known: bool) -> History {
        let manifest = |value: &Value| Manifest {
            source: Source {
                file: Arc::from("here"),
                document: None,
                item: None,
            },
            value: value.clone(),
        };
        let manifests: Vec<Manifest> = values.iter().map(manifest).collect();
        let mut history = History::new(known);
        history.read(&manifests);
        history
    }

    fn registration(namespaces: Value, pods: Value) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "ours"},
            "webhooks": [
                {"name": "other.example", "rules": [{"operations": ["*"], "resources": ["*"]}]},
                {
                    "name": "pods.podhardening.dev", "namespaceSelector": namespaces, "objectSelector": pods,
                    "rules": [{"operations": ["CREATE"], "resources": ["pods"]}],
                },
            ],
        })
    }

    #[test]
    fn the_first_thing_that_kept_the_webhook_away_is_the_reason() {
        let policy = json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
            "metadata": {"name": "a", "namespace": "shop", "creationTimestamp": "2026-03-01T00:00:00Z"},
        });
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"skip": "yes"}},
        });
        let all = registration(json!({}), json!({}));
        let skips = json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
        let not_shop = json!({"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["shop"]},
        ]});
        let old = json!({"metadata": {"creationTimestamp": "2026-02-28T00:00:00Z"}});
        let new = json!({"metadata": {"creationTimestamp": "2026-03-02T00:00:00Z", "labels": {"skip": "yes"}}});
        let mut seen = new.clone();
        seen["metadata"]["annotations"] = json!({FILLED: "{}"});
        let reference = PolicyRef {
            namespace: Some("shop".to_owned()),
            name: "a".to_owned(),
            generation: 1,
        };
        for (known, read, pod, expected) in [
            (true, vec![&policy, &all], &old, Reason::BeforePolicy),
            (true, vec![&policy, &all], &new, Reason::NotSeen),
            (true, vec![&policy, &all], &seen, Reason::PolicyChanged),
            (true, vec![&policy], &old, Reason::NotRegistered),
            (false, vec![&policy], &old, Reason::BeforePolicy),
            (false, vec![&policy], &new, Reason::Unknown),
            (true, vec![&all], &new, Reason::Unknown),
            (
                true,
                vec![&policy, &namespace, &registration(skips.clone(), json!({}))],
                &old,
                Reason::NamespaceExcluded,
            ),
            (
                false,
                vec![&policy, &registration(not_shop, json!({}))],
                &new,
                Reason::NamespaceExcluded,
            ),
            (
                true,
                vec![&policy, &registration(json!({}), skips)],
                &new,
                Reason::PodExcluded,
            ),
        ] {
            let read: Vec<Value> = read.into_iter().cloned().collect();
            let found = history(&read, known).reason("shop", pod, &reference);
            assert_eq!(found, expected, "{pod} of {read:?}");
        }
    }
}
