//! Running pods: what they would have had, had they been created now, and why they lack it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use crate::policy::{PolicyKey, PolicyRef};
use crate::policy_set::NAME_LABEL;
use crate::record::FILLED;
use crate::selector::Selector;

/// The end of the names of the webhooks that are this product's.
const OURS: &str = "podhardening.dev";

/// Why a running pod lacks what a policy would have filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lacking {
    /// The pod is older than the policy.
    BeforePolicy,
    /// The webhook filled in what the policies said then; they say something else now.
    PolicyChanged,
    /// The webhook is not asked about pods of this namespace.
    NamespaceExcluded,
    /// The webhook is not asked about pods with these labels.
    PodExcluded,
    /// No webhook is registered.
    NotRegistered,
    /// The webhook is asked and has not seen this pod: it was down, or not yet registered, or the policy
    /// came to be for the pod later.
    NotSeen,
    /// What was read does not say.
    Unknown,
}

/// What is known of when the webhook is asked, and since when policies exist.
#[derive(Debug)]
pub struct History {
    /// The registered webhooks; `None`: it is not known which there are.
    hooks: Option<Vec<Hook>>,
    /// When policies were created.
    created: BTreeMap<PolicyKey, String>,
}

/// A webhook that is asked about new pods.
#[derive(Debug)]
struct Hook {
    namespaces: Selector,
    pods: Selector,
}

/// Makes of a running pod the one that would be created anew: without the ephemeral containers that were
/// added to it.
pub fn renew(pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("ephemeralContainers");
    }
}

// === impl History ===

impl History {
    /// Nothing yet. That no webhook is registered is known only if all registrations are read.
    #[must_use]
    pub fn new(registrations_known: bool) -> Self {
        Self {
            hooks: registrations_known.then(Vec::new),
            created: BTreeMap::new(),
        }
    }

    /// Adds a MutatingWebhookConfiguration, whoever it is of.
    pub fn read_registration(&mut self, configuration: &Value) {
        let webhooks = configuration.get("webhooks").and_then(Value::as_array);
        let hooks = webhooks.into_iter().flatten().filter_map(hook);
        self.hooks.get_or_insert_default().extend(hooks);
    }

    /// Adds when a policy was created, as the API server writes it.
    pub fn read_policy(&mut self, key: PolicyKey, created: &str) {
        self.created.insert(key, created.to_owned());
    }

    /// Why a pod lacks what a policy would fill in. `label` gives the labels of its namespace, as far as
    /// they are known; that it has its name as a label is known anyway.
    pub fn reason<'l>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'l str>,
        pod: &Value,
        policy: &PolicyRef,
    ) -> Lacking {
        if let Some(hooks) = &self.hooks {
            if hooks.is_empty() {
                return Lacking::NotRegistered;
            }
            let of_namespace = |key: &str| match key {
                NAME_LABEL => Some(namespace),
                key => label(key),
            };
            let mut asked = hooks
                .iter()
                .filter(|hook| hook.namespaces.matches(of_namespace))
                .peekable();
            if asked.peek().is_none() {
                return Lacking::NamespaceExcluded;
            }
            let labels = pod.pointer("/metadata/labels");
            let of_pod = |key: &str| labels?.get(key)?.as_str();
            if !asked.any(|hook| hook.pods.matches(of_pod)) {
                return Lacking::PodExcluded;
            }
        }
        let key = PolicyKey {
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
        };
        let policy_created = self.created.get(&key).map(String::as_str);
        let pod_created = pod
            .pointer("/metadata/creationTimestamp")
            .and_then(Value::as_str);
        let filled = pod
            .pointer("/metadata/annotations")
            .and_then(|annotations| annotations.get(FILLED));
        match (pod_created, policy_created) {
            // The API server writes all times in one form, in which the earlier one is the lesser text.
            (Some(pod), Some(policy)) if pod < policy => Lacking::BeforePolicy,
            _ if filled.is_some() => Lacking::PolicyChanged,
            (Some(_), Some(_)) if self.hooks.is_some() => Lacking::NotSeen,
            _ => Lacking::Unknown,
        }
    }
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
    Some(Selector::compile(Some(&selector)))
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    clippy::redundant_clone,
    reason = "a table of JSON is easier to read without borrows and last uses"
)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history(values: &[Value], known: bool) -> History {
        let mut history = History::new(known);
        for value in values {
            match value["kind"].as_str() {
                Some("MutatingWebhookConfiguration") => history.read_registration(value),
                Some("PodHardeningPolicy") => {
                    let key = PolicyKey {
                        namespace: Some("shop".to_owned()),
                        name: "a".to_owned(),
                    };
                    let created = value["metadata"]["creationTimestamp"].as_str().unwrap();
                    history.read_policy(key, created);
                }
                _ => {}
            }
        }
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
            (true, vec![&policy, &all], &old, Lacking::BeforePolicy),
            (true, vec![&policy, &all], &new, Lacking::NotSeen),
            (true, vec![&policy, &all], &seen, Lacking::PolicyChanged),
            (true, vec![&policy], &old, Lacking::NotRegistered),
            (false, vec![&policy], &old, Lacking::BeforePolicy),
            (false, vec![&policy], &new, Lacking::Unknown),
            (true, vec![&all], &new, Lacking::Unknown),
            (
                true,
                vec![&policy, &namespace, &registration(skips.clone(), json!({}))],
                &old,
                Lacking::NamespaceExcluded,
            ),
            (
                false,
                vec![&policy, &registration(not_shop, json!({}))],
                &new,
                Lacking::NamespaceExcluded,
            ),
            (
                true,
                vec![&policy, &registration(json!({}), skips)],
                &new,
                Lacking::PodExcluded,
            ),
        ] {
            let read: Vec<Value> = read.into_iter().cloned().collect();
            let labels = read.iter().find(|value| value["kind"] == "Namespace");
            let label = |key: &str| labels?["metadata"]["labels"][key].as_str();
            let found = history(&read, known).reason("shop", label, pod, &reference);
            assert_eq!(found, expected, "{pod} of {read:?}");
        }
    }
}
