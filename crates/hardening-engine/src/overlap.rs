//! Policies that can be for the same pod and give a field different values: who goes before whom, and where.
//!
//! [`Overlaps`] keeps policies by what they give and by what they are for, so that a policy meets only those
//! that can differ from it and can have a pod in common with it. Ten thousand policies that say the same, or
//! that are each for something else, are not compared with each other; and whoever asks for the first few
//! policies that differ pays for those alone.

mod conflict;
mod place;
mod selector;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::iter;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use hardening_api::policy::Mode;

use crate::field::Field;
use crate::policy::{Policy, PolicyKey};
use crate::policy_set::NAME_LABEL;
use place::{Entry, Group, Probe, Ranked, Slot};

pub use conflict::{Conflict, conflicts};

/// Policies, and the labels of namespaces, arranged for the question which of them can meet.
#[derive(Debug, Default)]
pub struct Overlaps {
    policies: HashMap<PolicyKey, Arc<Policy>>,
    /// Every policy under every place where one that can have a pod in common with it looks.
    entries: BTreeSet<Entry>,
    /// How many policies are told apart by the same two labels.
    groups: BTreeMap<Group, usize>,
    /// The labels of the namespaces that are known, their name among them.
    namespaces: HashMap<Arc<str>, BTreeMap<String, String>>,
    /// The namespaces that are known, by each of their labels.
    labelled: HashMap<(String, String), BTreeSet<Arc<str>>>,
    /// How many policies are for a namespace of this name, being in it or asking for it by its name.
    named: HashMap<String, usize>,
    /// The names among these of namespaces that are not known: they may have any labels.
    unknown: BTreeSet<String>,
    /// How many pairs were looked at: what tests hold against the number of policies.
    #[cfg(test)]
    compared: AtomicUsize,
}

/// Something that a policy can give.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// A field of the pod's.
    Pod(Field),
    /// What a field, which may be given at pod level, comes to in containers of some kind.
    Container(Field),
    /// An item of a list, by what makes it the same item as another: a sysctl's name, a path.
    Item(Field, &'a str),
}

// === impl Overlaps ===

impl Overlaps {
    /// Inserts a policy, in place of the one with the same key.
    pub fn insert_policy(&mut self, policy: Arc<Policy>) {
        self.remove_policy(policy.key());
        for name in named(&policy) {
            if !self.namespaces.contains_key(name.as_str()) {
                self.unknown.insert(name.clone());
            }
            *self.named.entry(name).or_default() += 1;
        }
        let group = Group::of(&policy);
        self.entries.extend(place::entries(&policy, &group));
        *self.groups.entry(group).or_default() += 1;
        self.policies.insert(policy.key().clone(), policy);
    }

    /// Removes a policy; `None`: there was none.
    pub fn remove_policy(&mut self, key: &PolicyKey) -> Option<Arc<Policy>> {
        let policy = self.policies.remove(key)?;
        for name in named(&policy) {
            if let Some(count) = self.named.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(&name);
                    self.unknown.remove(&name);
                }
            }
        }
        let group = Group::of(&policy);
        for entry in place::entries(&policy, &group) {
            self.entries.remove(&entry);
        }
        if let Some(count) = self.groups.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(&group);
            }
        }
        Some(policy)
    }

    /// A policy by its key.
    #[must_use]
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// Inserts a namespace, or its new labels. A namespace that has policies and was not inserted may have
    /// any labels.
    pub fn insert_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        self.remove_namespace(name);
        let name: Arc<str> = name.into();
        let mut labels = labels.clone();
        // As the API server does it, and nobody can change.
        labels.insert(NAME_LABEL.to_owned(), name.to_string());
        for (key, value) in &labels {
            let under = (key.clone(), value.clone());
            self.labelled
                .entry(under)
                .or_default()
                .insert(Arc::clone(&name));
        }
        self.unknown.remove(&*name);
        self.namespaces.insert(name, labels);
    }

    /// Removes a namespace: its labels are not known any more.
    pub fn remove_namespace(&mut self, name: &str) {
        let Some(labels) = self.namespaces.remove(name) else {
            return;
        };
        for under in labels {
            if let Some(namespaces) = self.labelled.get_mut(&under) {
                namespaces.remove(name);
                if namespaces.is_empty() {
                    self.labelled.remove(&under);
                }
            }
        }
        if self.named.contains_key(name) {
            self.unknown.insert(name.to_owned());
        }
    }

    /// The names of the namespaces that are known.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(|name| &**name)
    }

    /// Whether these labels, or `None` for a namespace that is not known, are other ones than a namespace
    /// has here.
    #[must_use]
    pub fn has_other_labels(&self, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let of_others = |(key, _): &(&String, &String)| key.as_str() != NAME_LABEL;
        match (self.namespaces.get(name), labels) {
            (None, None) => false,
            (Some(known), Some(labels)) => !known
                .iter()
                .filter(of_others)
                .eq(labels.iter().filter(of_others)),
            (Some(_), None) | (None, Some(_)) => true,
        }
    }

    /// The policies whose overlaps a namespace's labels decide: its own, and the cluster policies that ask
    /// for it by its name.
    pub fn of_namespace<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Policy>> {
        // Policies change seldom and namespaces' labels more seldom still: it need not be fast.
        self.policies
            .values()
            .filter(move |policy| match policy.key().namespace.as_deref() {
                Some(namespace) => namespace == name,
                None => selector::names(&[&policy.namespace_selector])
                    .is_some_and(|names| names.contains(name)),
            })
    }

    /// Policies that can be for a pod that this one is for, and give a field another value: at most `limit`
    /// of them, in the order in which policies are asked. Where there are more than `limit`, which of them
    /// are told depends on the policies alone. Policies that only tell take no part.
    #[must_use]
    pub fn differing(&self, policy: &Policy, limit: usize) -> Vec<&Arc<Policy>> {
        let mut found: Vec<&Arc<Policy>> = Vec::new();
        if policy.mode() == Mode::Audit {
            return found;
        }
        let mut seen = HashSet::new();
        let probes = self.probes(policy);
        'all: for (slot, own) in place::slots(policy) {
            for place in probes.iter().map(|probe| probe.place(&slot)) {
                let values = self.values(place).filter(|value| *value != own);
                for other in values.flat_map(|value| self.with_value(place, value)) {
                    let is_new = other.key() != policy.key() && seen.insert(other.key());
                    if is_new && self.differ(policy, other) {
                        found.push(other);
                        if found.len() >= limit {
                            break 'all;
                        }
                    }
                }
            }
        }
        found.sort_by(|a, b| place::order(a).cmp(&place::order(b)));
        found
    }

    /// Whether a policy that can be for the same pods, this one itself included, gives something a value of
    /// which `is` says, by its JSON, that it is what is looked for. Policies that only tell count.
    #[must_use]
    pub fn gives(&self, policy: &Policy, what: Given<'_>, is: impl Fn(&str) -> bool) -> bool {
        let probes = self.probes(policy);
        what.slots().iter().any(|slot| {
            let places = probes.iter().map(|probe| probe.place(slot));
            places.into_iter().any(|place| {
                self.values(place).any(|value| {
                    let mut others = self.with_value(place, value);
                    let is_it = |other: &Arc<Policy>| {
                        conflict::value(other, slot).is_some_and(|value| is(&value))
                    };
                    others.next().is_some_and(is_it)
                        && self
                            .with_value(place, value)
                            .any(|other| self.can_share_a_pod(policy, other))
                })
            })
        })
    }

    /// Whether there can be a pod that both are for.
    #[must_use]
    pub fn can_share_a_pod(&self, one: &Policy, two: &Policy) -> bool {
        #[cfg(test)]
        self.compared.fetch_add(1, Ordering::Relaxed);
        let share_account = one.service_accounts.is_empty()
            || two.service_accounts.is_empty()
            || one
                .service_accounts
                .iter()
                .any(|account| two.service_accounts.contains(account));
        share_account
            && selector::can_select_together(&[&one.pod_selector, &two.pod_selector])
            && self.can_share_a_namespace(one, two)
    }

    fn can_share_a_namespace(&self, one: &Policy, two: &Policy) -> bool {
        let selectors = [&one.namespace_selector, &two.namespace_selector];
        match (&one.key().namespace, &two.key().namespace) {
            (Some(one), Some(two)) => one == two,
            (Some(name), None) | (None, Some(name)) => self.can_be_selected(name, &selectors),
            // Only by name can a selector ask for namespaces that are known to be all of its kind.
            (None, None) => match selector::names(&selectors) {
                Some(names) => names
                    .into_iter()
                    .any(|name| self.can_be_selected(name, &selectors)),
                None => selector::can_select_together(&selectors),
            },
        }
    }

    /// Whether all selectors can select the namespace of this name: by its labels where they are known.
    fn can_be_selected(&self, name: &str, selectors: &[&crate::selector::Selector]) -> bool {
        match self.namespaces.get(name) {
            Some(labels) => selectors
                .iter()
                .all(|selector| selector.matches(|key| labels.get(key).map(String::as_str))),
            None => selector::can_select_the_one_named(name, selectors),
        }
    }

    fn differ(&self, one: &Policy, two: &Policy) -> bool {
        one.mode() == Mode::Enforce
            && two.mode() == Mode::Enforce
            && self.can_share_a_pod(one, two)
            && !conflicts(one, two).is_empty()
    }

    /// Where to look for policies that can have a pod in common with this one.
    fn probes(&self, policy: &Policy) -> Vec<Probe> {
        self.groups
            .keys()
            .flat_map(|group| {
                let scopes = group
                    .scope
                    .as_deref()
                    .map(|label| self.namespace_values(policy, label));
                let pods = group
                    .pods
                    .as_ref()
                    .map(|key| place::pod_values(policy, key));
                Probe::all(group, scopes, pods)
            })
            .collect()
    }

    /// The values of a label that the namespaces of a policy can have; `None`: any, or none at all.
    fn namespace_values(&self, policy: &Policy, label: &str) -> Option<BTreeSet<String>> {
        match policy.key().namespace.as_deref() {
            Some(name) if label == NAME_LABEL => Some([name.to_owned()].into()),
            Some(name) => {
                let labels = self.namespaces.get(name)?;
                Some(labels.get(label).cloned().into_iter().collect())
            }
            None => {
                let required = selector::required(&policy.namespace_selector, label);
                if required.is_some() || label != NAME_LABEL {
                    return required;
                }
                // The names can be found by the labels, and of those that are not known all must be tried.
                let (key, values) = policy.namespace_selector.required_labels()?;
                let labelled = values
                    .iter()
                    .filter_map(|value| self.labelled.get(&(key.to_string(), value.to_string())));
                let labelled = labelled.flatten().map(ToString::to_string);
                Some(labelled.chain(self.unknown.iter().cloned()).collect())
            }
        }
    }

    /// The values at a place, each once.
    fn values(&self, place: u64) -> impl Iterator<Item = u64> {
        let first_from = move |from: &Entry| {
            let mut entries = self.entries.range(from..);
            let entry = entries.next().filter(|entry| entry.place == place)?;
            Some(entry.value)
        };
        iter::successors(first_from(&Entry::first_at(place)), move |value| {
            first_from(&Entry::after_value(place, *value)?)
        })
    }

    /// The policies at a place with one value, in order.
    fn with_value(&self, place: u64, value: u64) -> impl Iterator<Item = &Arc<Policy>> {
        let from = Entry {
            place,
            value,
            policy: None,
        };
        self.entries
            .range(from..)
            .take_while(move |entry| (entry.place, entry.value) == (place, value))
            .filter_map(|entry| entry.policy.as_ref())
            .map(|Ranked(policy)| policy)
    }
}

/// The names of the namespaces that a policy is for, where it tells them.
fn named(policy: &Policy) -> BTreeSet<String> {
    match &policy.key().namespace {
        Some(namespace) => [namespace.clone()].into(),
        None => selector::required(&policy.namespace_selector, NAME_LABEL).unwrap_or_default(),
    }
}

// === impl Given ===

impl Given<'_> {
    fn slots(self) -> Vec<Slot> {
        match self {
            Self::Pod(field) => vec![Slot::Pod(field)],
            Self::Container(field) => {
                let kinds = conflict::KINDS.into_iter();
                kinds.map(|kind| Slot::Container(field, kind)).collect()
            }
            Self::Item(field, key) => {
                let kinds = conflict::KINDS.into_iter().map(Some).chain([None]);
                kinds
                    .map(|kind| Slot::Item(field, kind, key.into()))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "a table of JSON is easier to read without borrows"
)]
mod tests;
