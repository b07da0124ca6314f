//! Why a running pod lacks what a policy would have filled in, by what manifests tell.

use std::collections::BTreeMap;

use hardening_engine::running::{self, Lacking};
use hardening_engine::{PolicyKey, PolicyRef};
use hardening_manifests::{Manifest, objects};
use serde_json::Value;

use super::model::Reason;

/// The label by which a namespace asks for a level.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// What is known of when the webhook is asked, since when policies exist, and of namespaces.
#[derive(Debug)]
pub(crate) struct History {
    known: running::History,
    /// The labels of namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl History {
    /// Nothing yet. That no webhook is registered is known only if all registrations are read.
    pub(crate) fn new(registrations_known: bool) -> Self {
        Self {
            known: running::History::new(registrations_known),
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
                (_, "MutatingWebhookConfiguration") => self.known.read_registration(object.value),
                (_, "PodHardeningPolicy" | "ClusterPodHardeningPolicy") => {
                    let namespace = object.namespace().map(str::to_owned);
                    let created = object.value.pointer("/metadata/creationTimestamp");
                    if let Some(created) = created.and_then(Value::as_str) {
                        self.known
                            .read_policy(PolicyKey { namespace, name }, created);
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
        let labels = self.namespaces.get(namespace);
        let label = |key: &str| Some(labels?.get(key)?.as_str());
        match self.known.reason(namespace, label, pod, policy) {
            Lacking::BeforePolicy => Reason::BeforePolicy,
            Lacking::PolicyChanged => Reason::PolicyChanged,
            Lacking::NamespaceExcluded => Reason::NamespaceExcluded,
            Lacking::PodExcluded => Reason::PodExcluded,
            Lacking::NotRegistered => Reason::NotRegistered,
            Lacking::NotSeen => Reason::NotSeen,
            Lacking::Unknown => Reason::Unknown,
        }
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    labels
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
