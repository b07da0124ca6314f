//! Where a policy stands among others: what it gives, and what its namespaces and pods must have.
//!
//! Places and values are kept as hashes. Two that fall together make a comparison too many, and never an
//! answer that is wrong: whatever is found there is looked at itself.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use hardening_api::policy::ContainerKind;

use super::conflict::{self, KINDS};
use super::selector;
use crate::field::{FIELDS, Field, Shape};
use crate::policy::Policy;
use crate::policy_set::NAME_LABEL;
use crate::selector::Selector;

/// A label that is asked for with more values than this tells policies apart too little for the room that
/// it takes.
const FEW: usize = 16;
/// To look at more places than this for what stands at one is not worth it.
const MANY: usize = 1024;

/// Something that has one value in the end, for which policies compete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// A field of the pod's.
    Pod(Field),
    /// What a field comes to in a container of a kind.
    Container(Field, ContainerKind),
    /// An item of a list that is combined, by what makes it the same item as another.
    Item(Field, Option<ContainerKind>, Box<str>),
}

/// A policy where one looks that can have a pod in common with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// The slot, and the labels of namespaces and pods.
    pub(super) place: u64,
    /// What the policy gives there.
    pub(super) value: u64,
    /// `None` is before every policy.
    pub(super) policy: Option<Ranked>,
}

/// A policy in the order in which policies are asked.
#[derive(Clone, Debug)]
pub(super) struct Ranked(pub(super) Arc<Policy>);

/// The two labels, at most, by which a policy is told from others: each one's value is asked for by the
/// policy, so that what has another value there cannot meet it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group {
    /// A label of namespaces.
    pub(super) scope: Option<Arc<str>>,
    /// What tells pods apart.
    pub(super) pods: Option<PodKey>,
}

/// What tells pods apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PodKey {
    Label(Arc<str>),
    ServiceAccount,
}

/// A group's labels with the values that are looked for; `None`: any.
#[derive(Debug, Hash)]
pub(super) struct Probe {
    group: Group,
    scope: Option<String>,
    pods: Option<String>,
}

/// All that a policy competes for, with what it gives.
pub(super) fn slots(policy: &Policy) -> Vec<(Slot, u64)> {
    let mut slots = Vec::new();
    for row in &FIELDS {
        let field = row.field;
        match row.shape {
            Shape::Single => {
                slots.extend(row.pod.map(|_| Slot::Pod(field)));
                let kinds = KINDS.into_iter().filter(|_| row.container.is_some());
                slots.extend(kinds.map(|kind| Slot::Container(field, kind)));
            }
            // What makes other items the same is the whole of them.
            Shape::List | Shape::Paths
                if !matches!(field, Field::Sysctls | Field::WritablePaths) => {}
            Shape::List | Shape::Paths => {
                for (kind, items) in conflict::items(policy, row) {
                    let keys = items.into_iter().map(|item| item.key.into());
                    slots.extend(keys.map(|key| Slot::Item(field, kind, key)));
                }
            }
        }
    }
    slots
        .into_iter()
        .filter_map(|slot| {
            let value = hash(&conflict::value(policy, &slot)?);
            Some((slot, value))
        })
        .collect()
}

/// Every place where a policy is to be found: under the values that it asks for, and, for those who look
/// for any, under none.
pub(super) fn entries(policy: &Arc<Policy>, group: &Group) -> Vec<Entry> {
    let scopes = group.scope.as_deref().map(|label| {
        match &policy.key().namespace {
            Some(name) => Some([name.clone()].into()),
            None => selector::required(&policy.namespace_selector, label),
        }
        .unwrap_or_default()
    });
    let pods = group
        .pods
        .as_ref()
        .map(|key| pod_values(policy, key).unwrap_or_default());
    let or_any = |values: Option<BTreeSet<String>>| -> Vec<Option<String>> {
        let values = values.into_iter().flatten().map(Some);
        values.chain([None]).collect()
    };
    let (scopes, pods) = (or_any(scopes), or_any(pods));
    let slots = slots(policy);
    let mut entries = Vec::with_capacity(slots.len() * scopes.len() * pods.len());
    for scope in &scopes {
        for pods in &pods {
            let probe = Probe {
                group: group.clone(),
                scope: scope.clone(),
                pods: pods.clone(),
            };
            entries.extend(slots.iter().map(|(slot, value)| Entry {
                place: probe.place(slot),
                value: *value,
                policy: Some(Ranked(Arc::clone(policy))),
            }));
        }
    }
    entries
}

/// The values of what tells pods apart that the pods of a policy can have; `None`: any, or none at all.
pub(super) fn pod_values(policy: &Policy, key: &PodKey) -> Option<BTreeSet<String>> {
    match key {
        PodKey::Label(label) => selector::required(&policy.pod_selector, label),
        PodKey::ServiceAccount => {
            let accounts = policy.service_accounts.iter().map(ToString::to_string);
            Some(accounts.collect()).filter(|accounts: &BTreeSet<String>| !accounts.is_empty())
        }
    }
}

/// What sorts policies into the order in which they are asked; those of several namespaces, which never
/// meet, by their namespaces.
pub(super) fn order(policy: &Policy) -> impl Ord + '_ {
    (policy.order(), policy.key().namespace.as_deref())
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

// === impl Group ===

impl Group {
    pub(super) fn of(policy: &Policy) -> Self {
        let few = |selector: &'_ Selector| {
            let (key, values) = selector.required_labels()?;
            (values.len() <= FEW).then(|| Arc::clone(key))
        };
        let scope = match &policy.key().namespace {
            Some(_) => Some(NAME_LABEL.into()),
            None => few(&policy.namespace_selector),
        };
        let label = few(&policy.pod_selector).map(PodKey::Label);
        let account = (1..=FEW)
            .contains(&policy.service_accounts.len())
            .then_some(PodKey::ServiceAccount);
        Self {
            scope,
            pods: label.or(account),
        }
    }
}

// === impl Probe ===

impl Probe {
    /// The places of a group at which policies stand with these values. Of each label: `None`, the group
    /// has none; `Some(None)`, any value; else one of these.
    pub(super) fn all(
        group: &Group,
        scopes: Option<Option<BTreeSet<String>>>,
        pods: Option<Option<BTreeSet<String>>>,
    ) -> Vec<Self> {
        let values = |values: Option<Option<BTreeSet<String>>>| match values.flatten() {
            Some(values) => values.into_iter().map(Some).collect(),
            None => vec![None],
        };
        let (mut scopes, mut pods) = (values(scopes), values(pods));
        if scopes.len() > MANY {
            scopes = vec![None];
        }
        if scopes.len() * pods.len() > MANY {
            pods = vec![None];
        }
        let pair = |scope: &Option<String>| {
            let scope = scope.clone();
            pods.iter().map(move |pods| Self {
                group: group.clone(),
                scope: scope.clone(),
                pods: pods.clone(),
            })
        };
        scopes.iter().flat_map(pair).collect()
    }

    pub(super) fn place(&self, slot: &Slot) -> u64 {
        hash(&(self, slot))
    }
}

// === impl Entry ===

impl Entry {
    /// Before all that stands at a place.
    pub(super) fn first_at(place: u64) -> Self {
        Self {
            place,
            value: 0,
            policy: None,
        }
    }

    /// Before all with a greater value; `None`: there is none greater.
    pub(super) fn after_value(place: u64, value: u64) -> Option<Self> {
        Some(Self {
            place,
            value: value.checked_add(1)?,
            policy: None,
        })
    }
}

// === impl Ranked ===

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0).cmp(&order(&other.0))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
