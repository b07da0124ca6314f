//! What is known of the policies, and whose status must be looked at. Synchronous and without a client, so
//! that every order of events can be tried in a test.
//!
//! A change marks the policy itself, and those that differed from it before or do now; whatever is marked is
//! judged anew, and written only where that says something else than what is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use hardening_api::PolicyKind;
use hardening_api::status::PolicyStatus;
use hardening_engine::overlap::Overlaps;
use hardening_engine::{InvalidPolicy, Policy, PolicyKey};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use serde::Deserialize as _;

use crate::condition::{COUNTED, Judgement, accepted, changed, overlapping};

/// Judgements of others' of each policy.
pub(crate) type Additional = HashMap<PolicyKey, Judgement>;

/// What is known, and what is to be done.
#[derive(Debug, Default)]
pub(crate) struct State {
    entries: HashMap<PolicyKey, Entry>,
    overlaps: Overlaps,
    /// What others say; `None`: they have not said it yet.
    additional: Option<Arc<Additional>>,
    /// Whose status is to be looked at.
    marked: BTreeSet<PolicyKey>,
    /// Whose status is being written: they are not written again before that is over.
    in_flight: HashSet<PolicyKey>,
    policies: [Listing<PolicyKey>; 2],
    namespaces: Listing<String>,
}

/// A policy as it was seen last.
#[derive(Debug)]
struct Entry {
    uid: Option<String>,
    generation: Option<i64>,
    version: Option<String>,
    /// What is wrong with it.
    invalid: Option<InvalidPolicy>,
    seen: PolicyStatus,
}

/// How far the listing of a resource has come.
#[derive(Debug)]
struct Listing<K> {
    /// Whether a list was complete.
    complete: bool,
    /// What the list in progress has shown; `None`: there is none.
    listed: Option<HashSet<K>>,
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    pub(crate) key: PolicyKey,
    /// The `resourceVersion` of the object that was judged: no other of its name may be written to.
    pub(crate) version: Option<String>,
    pub(crate) status: PolicyStatus,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Written {
    /// It was written, and this is the object now.
    Done(Box<DynamicObject>),
    /// The object had changed, or was gone, as the watch will tell.
    Outdated,
    /// It is to be tried again.
    Failed,
}

// === impl State ===

impl State {
    /// Takes in what happened to a policy of a kind.
    pub(crate) fn policy(&mut self, kind: PolicyKind, event: Event<DynamicObject>) {
        match event {
            Event::Init => self.listing(kind).begin(),
            Event::InitApply(object) => {
                let key = PolicyKey::of(&object.metadata);
                self.listing(kind).list(key);
                self.apply(kind, object);
            }
            Event::InitDone => {
                let was_synced = self.is_synced();
                if let Some(listed) = self.listing(kind).end() {
                    let of_kind = |key: &&PolicyKey| kind_of(key) == kind && !listed.contains(*key);
                    let gone: Vec<PolicyKey> =
                        self.entries.keys().filter(of_kind).cloned().collect();
                    gone.iter().for_each(|key| self.delete(key));
                }
                self.synced(was_synced);
            }
            Event::Apply(object) => self.apply(kind, object),
            Event::Delete(object) => self.delete(&PolicyKey::of(&object.metadata)),
        }
    }

    /// Takes in what happened to a namespace.
    pub(crate) fn namespace(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        match event {
            Event::Init => self.namespaces.begin(),
            Event::InitApply(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                self.namespaces.list(name);
                self.labels(object);
            }
            Event::InitDone => {
                let was_synced = self.is_synced();
                if let Some(listed) = self.namespaces.end() {
                    let gone = self.overlaps.namespaces();
                    let gone = gone.filter(|name| !listed.contains(*name));
                    let gone: Vec<String> = gone.map(str::to_owned).collect();
                    for name in gone {
                        self.relabel(&name, None);
                    }
                }
                self.synced(was_synced);
            }
            Event::Apply(object) => self.labels(object),
            Event::Delete(object) => {
                self.relabel(&object.metadata.name.unwrap_or_default(), None);
            }
        }
    }

    /// Takes in what others say of policies.
    pub(crate) fn additional(&mut self, additional: Arc<Additional>) {
        let was_synced = self.is_synced();
        let before = self.additional.take().unwrap_or_default();
        let keys = before.keys().chain(additional.keys());
        let changed = keys.filter(|key| before.get(*key) != additional.get(*key));
        self.marked.extend(changed.cloned());
        self.additional = Some(additional);
        self.synced(was_synced);
    }

    /// Whether all is known that decides what is said of a policy. Before, nothing is written: a condition that others
    /// have not spoken of yet would be taken away, and come back.
    pub(crate) fn is_synced(&self) -> bool {
        let are_listed = self.policies.iter().all(|list| list.complete) && self.namespaces.complete;
        are_listed && self.additional.is_some()
    }

    /// How many policies are still to be looked at.
    pub(crate) fn marked(&self) -> usize {
        self.marked.len()
    }

    /// Whether there is something that can be looked at now.
    pub(crate) fn has_work(&self) -> bool {
        self.is_synced() && self.marked.iter().any(|key| !self.in_flight.contains(key))
    }

    /// Looks at the next policy that is marked: whether there was one, and what is to be written.
    pub(crate) fn look(&mut self, now: &Time) -> Option<Option<Write>> {
        if !self.is_synced() {
            return None;
        }
        let next = self
            .marked
            .iter()
            .find(|key| !self.in_flight.contains(*key));
        let key = next.cloned()?;
        self.marked.remove(&key);
        let write = self.judge(&key, now);
        if write.is_some() {
            self.in_flight.insert(key);
        }
        Some(write)
    }

    /// A write is over.
    pub(crate) fn written(&mut self, key: &PolicyKey, outcome: Written) {
        self.in_flight.remove(key);
        match outcome {
            Written::Done(object) => {
                let uid = &object.metadata.uid;
                if let Some(entry) = self.entries.get_mut(key)
                    && entry.uid == *uid
                    && !is_older(&object.metadata.resource_version, &entry.version)
                {
                    entry.seen = status(&object);
                    entry.version = object.metadata.resource_version;
                }
            }
            Written::Outdated => {}
            Written::Failed if self.entries.contains_key(key) => {
                self.marked.insert(key.clone());
            }
            Written::Failed => {}
        }
    }

    fn judge(&self, key: &PolicyKey, now: &Time) -> Option<Write> {
        let entry = self.entries.get(key)?;
        let policy = self
            .overlaps
            .policy(key)
            .filter(|_| entry.invalid.is_none());
        let others = policy.map(|policy| self.overlaps.differing(policy, COUNTED));
        let others: Vec<&Policy> = others.iter().flatten().map(|other| &***other).collect();
        let mut judgements = vec![
            accepted(entry.invalid.as_ref(), entry.generation),
            overlapping(policy.map(|policy| &**policy), &others, entry.generation),
        ];
        let additional = self.additional.as_ref();
        judgements.extend(additional.and_then(|said| said.get(key)).cloned());
        let status = changed(&entry.seen, &judgements, entry.generation, now)?;
        Some(Write {
            key: key.clone(),
            version: entry.version.clone(),
            status,
        })
    }

    fn apply(&mut self, kind: PolicyKind, object: DynamicObject) {
        let key = PolicyKey::of(&object.metadata);
        let (uid, generation) = (object.metadata.uid.clone(), object.metadata.generation);
        let (version, seen) = (object.metadata.resource_version.clone(), status(&object));
        self.marked.insert(key.clone());
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.uid == uid
        {
            // An event from before a write of ours, whose own event is still to come.
            if is_older(&version, &entry.version) {
                return;
            }
            if entry.generation == generation {
                entry.version = version;
                entry.seen = seen;
                return;
            }
        }
        let value = serde_json::to_value(object).unwrap_or_default();
        let compiled = Policy::from_object(kind, &value);
        self.mark_differing(&key);
        let invalid = match compiled {
            Ok(policy) => {
                self.overlaps.insert_policy(Arc::new(policy));
                self.mark_differing(&key);
                None
            }
            Err(invalid) => {
                self.overlaps.remove_policy(&key);
                Some(invalid)
            }
        };
        let entry = Entry {
            uid,
            generation,
            version,
            invalid,
            seen,
        };
        self.entries.insert(key, entry);
    }

    fn delete(&mut self, key: &PolicyKey) {
        self.mark_differing(key);
        self.overlaps.remove_policy(key);
        self.entries.remove(key);
        self.marked.remove(key);
    }

    fn labels(&mut self, object: PartialObjectMeta<Namespace>) {
        let name = object.metadata.name.unwrap_or_default();
        self.relabel(&name, Some(object.metadata.labels.unwrap_or_default()));
    }

    /// A namespace has these labels now, or is gone.
    fn relabel(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        if !self.overlaps.has_other_labels(name, labels.as_ref()) {
            return;
        }
        // Before everything is known all are to be looked at anyway.
        let concerned: Vec<PolicyKey> = match self.is_synced() {
            true => self
                .overlaps
                .of_namespace(name)
                .map(|policy| policy.key().clone())
                .collect(),
            false => Vec::new(),
        };
        concerned.iter().for_each(|key| self.mark_differing(key));
        match labels {
            Some(labels) => self.overlaps.insert_namespace(name, &labels),
            None => self.overlaps.remove_namespace(name),
        }
        concerned.iter().for_each(|key| self.mark_differing(key));
        self.marked.extend(concerned);
    }

    /// Marks all that a policy, as it is known now, differs from.
    fn mark_differing(&mut self, key: &PolicyKey) {
        if !self.is_synced() {
            return;
        }
        if let Some(policy) = self.overlaps.policy(key) {
            let others = self.overlaps.differing(policy, usize::MAX);
            let others = others.into_iter().map(|other| other.key().clone());
            self.marked.extend(others);
        }
    }

    fn synced(&mut self, was_synced: bool) {
        if !was_synced && self.is_synced() {
            self.marked.extend(self.entries.keys().cloned());
        }
    }

    fn listing(&mut self, kind: PolicyKind) -> &mut Listing<PolicyKey> {
        let [namespaced, cluster] = &mut self.policies;
        match kind {
            PolicyKind::Namespaced => namespaced,
            PolicyKind::Cluster => cluster,
        }
    }
}

/// The kind of a policy of this key.
pub(crate) fn kind_of(key: &PolicyKey) -> PolicyKind {
    match key.namespace {
        Some(_) => PolicyKind::Namespaced,
        None => PolicyKind::Cluster,
    }
}

/// Whether a version is older than another one. They are numbers that grow (since Kubernetes 1.35 that is
/// promised, and it was so before); what is none is not older.
fn is_older(version: &Option<String>, than: &Option<String>) -> bool {
    let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
    let numbers = number(version).zip(number(than));
    numbers.is_some_and(|(version, than)| version < than)
}

/// The status that stands in an object. What is no status says nothing.
fn status(object: &DynamicObject) -> PolicyStatus {
    let status = object.data.get("status");
    let status = status.and_then(|status| PolicyStatus::deserialize(status).ok());
    status.unwrap_or_default()
}

// === impl Listing ===

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self {
            complete: false,
            listed: None,
        }
    }
}

impl<K: Eq + std::hash::Hash> Listing<K> {
    fn begin(&mut self) {
        self.listed = Some(HashSet::new());
    }

    fn list(&mut self, key: K) {
        self.listed.get_or_insert_default().insert(key);
    }

    /// What was listed.
    fn end(&mut self) -> Option<HashSet<K>> {
        self.complete = true;
        self.listed.take()
    }
}

#[cfg(test)]
mod tests;
