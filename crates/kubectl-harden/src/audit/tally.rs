//! Pods, folded into their workloads one after the other: none is kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::look::Look;
use super::model::{self, Fill, Found, Level, Missing, Obstacle, Risk, Withheld};
use super::owner::{Key, Owners};
use crate::workload::Workload;

/// The workloads so far.
#[derive(Default)]
pub(crate) struct Tally {
    /// By the owner that the pods name.
    groups: BTreeMap<Key, Group>,
    shared: Shared,
    pub(crate) pods: usize,
}

/// What some workloads have in common.
#[derive(Default)]
struct Shared {
    texts: HashSet<Arc<str>>,
    missing: HashSet<Arc<Missing>>,
    audited: HashSet<Arc<Fill>>,
    withheld: HashSet<Arc<Withheld>>,
    obstacles: HashSet<Arc<Obstacle>>,
    risks: HashSet<Arc<Risk>>,
}

struct Group {
    pods: usize,
    example: String,
    source: Arc<str>,
    /// What a ReplicaSet's pods are labelled with.
    hash: Option<String>,
    policies: Vec<Arc<str>>,
    missing: Pods<Missing>,
    audited: Pods<Fill>,
    withheld: Pods<Withheld>,
    today: Level,
    after: Level,
    /// Of the pods that are lowest.
    obstacles: Pods<Obstacle>,
    risks: Pods<Risk>,
}

/// In how many pods something was found.
type Pods<T> = BTreeMap<Arc<T>, usize>;

// === impl Tally ===

impl Tally {
    /// Adds a pod, or a template that stands for the pods that will be made of it.
    pub(crate) fn add(&mut self, workload: &Workload<'_>, look: Look) {
        let object = &workload.object;
        let name = object.name().unwrap_or_default();
        let own = Key::new(&workload.namespace, object.kind, name);
        let key = Key::controller_of(object.value, &workload.namespace).unwrap_or(own);
        let is_pod = object.kind == "Pod";
        self.pods += usize::from(is_pod);
        let shared = &mut self.shared;
        let hash = workload.pod.pointer("/metadata/labels/pod-template-hash");
        let one = Group {
            pods: usize::from(is_pod),
            example: name.to_owned(),
            source: kept(&mut shared.texts, &Arc::from(object.source.to_string())),
            hash: hash.and_then(|hash| hash.as_str()).map(str::to_owned),
            policies: look
                .policies
                .iter()
                .map(|policy| kept(&mut shared.texts, policy))
                .collect(),
            missing: all_kept(&mut shared.missing, look.missing),
            audited: all_kept(&mut shared.audited, look.audited),
            withheld: all_kept(&mut shared.withheld, look.withheld),
            today: look.today,
            after: look.after,
            obstacles: all_kept(&mut shared.obstacles, look.obstacles),
            risks: all_kept(&mut shared.risks, look.risks),
        };
        join(&mut self.groups, key, one);
    }

    /// Whether pods name an owner of this kind.
    pub(crate) fn names_a(&self, kind: &str) -> bool {
        self.groups.keys().any(|key| key.kind == kind)
    }

    /// The workloads that there are so far.
    pub(crate) fn tops(&self, owners: &Owners) -> BTreeSet<Key> {
        let groups = self.groups.iter();
        groups
            .map(|(key, group)| top(key, group, owners).0)
            .collect()
    }

    /// The workloads, by their top owners. Where those are not known names are asked.
    pub(crate) fn finish(self, owners: &Owners) -> Vec<model::Workload> {
        let mut tops: BTreeMap<Key, Group> = BTreeMap::new();
        let mut by_name = BTreeSet::new();
        for (key, group) in self.groups {
            let (top, is_by_name) = top(&key, &group, owners);
            if is_by_name {
                by_name.insert(top.clone());
            }
            join(&mut tops, top, group);
        }
        let workloads = tops.into_iter();
        workloads
            .map(|(key, group)| {
                let owner_by_name = by_name.contains(&key);
                group.finish(key, owner_by_name)
            })
            .collect()
    }
}

/// The end owner of a group, and whether its name alone tells so.
fn top(key: &Key, group: &Group, owners: &Owners) -> (Key, bool) {
    if !owners.contains(key)
        && let Some(owner) = key.owner_by_name(group.hash.as_deref())
    {
        return (owner, true);
    }
    (owners.top(key).clone(), false)
}

/// The one copy of something that is kept.
fn kept<T: Eq + Hash + ?Sized>(shared: &mut HashSet<Arc<T>>, one: &Arc<T>) -> Arc<T> {
    if let Some(there) = shared.get(one) {
        return Arc::clone(there);
    }
    shared.insert(Arc::clone(one));
    Arc::clone(one)
}

fn all_kept<T: Eq + Hash + Ord>(shared: &mut HashSet<Arc<T>>, found: Vec<T>) -> Pods<T> {
    let found = found.into_iter();
    found.map(|one| (kept(shared, &Arc::new(one)), 1)).collect()
}

fn join(groups: &mut BTreeMap<Key, Group>, key: Key, group: Group) {
    match groups.get_mut(&key) {
        Some(there) => there.add(group),
        None => {
            groups.insert(key, group);
        }
    }
}

// === impl Group ===

impl Group {
    fn add(&mut self, other: Self) {
        self.pods += other.pods;
        for policy in other.policies {
            if !self.policies.contains(&policy) {
                self.policies.push(policy);
            }
        }
        add(&mut self.missing, other.missing);
        add(&mut self.audited, other.audited);
        add(&mut self.withheld, other.withheld);
        add(&mut self.risks, other.risks);
        self.today = self.today.min(other.today);
        if other.after < self.after {
            self.obstacles = other.obstacles;
        } else if other.after == self.after {
            add(&mut self.obstacles, other.obstacles);
        }
        self.after = self.after.min(other.after);
    }

    fn finish(self, key: Key, owner_by_name: bool) -> model::Workload {
        model::Workload {
            namespace: key.namespace,
            kind: key.kind,
            name: key.name,
            owner_by_name,
            pods: self.pods,
            example: self.example,
            source: self.source.to_string(),
            policies: self.policies,
            missing: found(self.missing),
            audited: found(self.audited),
            withheld: found(self.withheld),
            level_today: self.today,
            level_after: self.after,
            next_level: match self.after {
                Level::Privileged => Some(Level::Baseline),
                Level::Baseline => Some(Level::Restricted),
                Level::Restricted => None,
            },
            obstacles: found(self.obstacles),
            risks: found(self.risks),
        }
    }
}

fn add<T: Ord>(pods: &mut Pods<T>, more: Pods<T>) {
    for (what, count) in more {
        *pods.entry(what).or_default() += count;
    }
}

fn found<T>(pods: Pods<T>) -> Vec<Found<T>> {
    let pods = pods.into_iter();
    pods.map(|(what, pods)| Found { pods, what }).collect()
}
