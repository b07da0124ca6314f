//! All that a decision needs besides the pod: the policies, and what is known of the cluster. And the one
//! place that says which policies a pod has, in which order.
//!
//! A `PolicySet` is immutable to its readers and cheap to copy: its maps share structure, so that a change
//! costs what it changes, with ten thousand policies as with ten. A lookup costs what it finds: the
//! namespace's own policies stand under its name, and a cluster policy that asks for a label's value stands
//! under that label, so that only policies which can match are looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hardening_api::policy::Mode;
use rpds::HashTrieMapSync;
use smallvec::SmallVec;

use crate::field::Field;
use crate::kubernetes::KubernetesVersion;
use crate::pod::Pod;
use crate::policy::{Policy, PolicyKey};

/// The label that every namespace has, and nobody can change.
pub(crate) const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What to make of a namespace, or a service account, that was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownNamespaces {
    /// The watch has not shown it yet, so nothing can be said about its labels.
    NotYetSeen,
    /// Without a cluster: it has just its name as a label, and its service accounts say nothing.
    OnlyNameLabel,
}

/// What must be seen before a decision can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// The pod's namespace: its labels decide which policies it has.
    #[error("the namespace is not in the cache yet")]
    Namespace,
    /// The pod's service account: it has a say in whether the pod gets its token.
    #[error("the service account is not in the cache yet")]
    ServiceAccount,
}

/// Policies and what is known of the cluster.
#[derive(Clone)]
pub struct PolicySet {
    unknown: UnknownNamespaces,
    all: Map<PolicyKey, Arc<Policy>>,
    /// By namespace, in order.
    namespaced: Map<Arc<str>, Policies>,
    /// Cluster policies that need one of some values of a label, under each of them.
    by_label: Map<(Arc<str>, Arc<str>), Policies>,
    /// The other cluster policies.
    unlabelled: Policies,
    namespaces: Map<Arc<str>, Arc<Labels>>,
    /// By namespace and name: what `automountServiceAccountToken` says.
    service_accounts: Map<Arc<str>, Arc<Accounts>>,
    runtime_classes: Map<Arc<str>, Arc<Labels>>,
    /// Whether a RuntimeClass that is not in the map does not exist.
    all_runtime_classes_known: bool,
    /// Whether a service account that is not in the map does not exist.
    all_service_accounts_known: bool,
    /// `None`: not known, and taken to have every field.
    kubernetes: Option<KubernetesVersion>,
}

/// By a keyed hash: what is looked up is named by whoever may create a namespace.
type Map<K, V> = HashTrieMapSync<K, V, ahash::RandomState>;
type Policies = Arc<[Arc<Policy>]>;
/// By name.
type Accounts = BTreeMap<Box<str>, Option<bool>>;
type Labels = Box<[(Arc<str>, Arc<str>)]>;

/// The policies that a pod has, in the order in which they are asked, and what else a plan needs to know.
#[derive(Debug)]
pub struct Matching<'a> {
    pub(crate) enforced: SmallVec<[&'a Policy; 4]>,
    pub(crate) audited: SmallVec<[&'a Policy; 4]>,
    set: &'a PolicySet,
    /// What the pod's service account says about its token.
    pub(crate) automount: Option<bool>,
}

/// The service accounts (`NAMESPACE/NAME`) for which the token's default does not count.
pub(crate) enum Automount {
    /// All are known: these say otherwise.
    Against(Vec<String>),
    /// Only some are known: all but these may say otherwise.
    NotAgainst(Vec<String>),
}

// === impl PolicySet ===

impl PolicySet {
    /// An empty set.
    #[must_use]
    pub fn new(unknown: UnknownNamespaces) -> Self {
        Self {
            unknown,
            all: Map::default(),
            namespaced: Map::default(),
            by_label: Map::default(),
            unlabelled: Arc::default(),
            namespaces: Map::default(),
            service_accounts: Map::default(),
            runtime_classes: Map::default(),
            all_runtime_classes_known: false,
            all_service_accounts_known: unknown == UnknownNamespaces::NotYetSeen,
            kubernetes: None,
        }
    }

    /// Inserts a policy, in place of the one with the same key.
    pub fn insert_policy(&mut self, policy: Policy) {
        self.remove_policy(policy.key());
        let policy = Arc::new(policy);
        self.all
            .insert_mut(policy.key().clone(), Arc::clone(&policy));
        self.at_places(&policy, |policies| {
            let at = policies.partition_point(|other| other.order() <= policy.order());
            let (before, after) = policies.split_at_checked(at).unwrap_or((policies, &[]));
            before
                .iter()
                .chain([&policy])
                .chain(after)
                .cloned()
                .collect()
        });
    }

    /// Removes a policy; whether there was one.
    pub fn remove_policy(&mut self, key: &PolicyKey) -> bool {
        let Some(policy) = self.all.get(key).cloned() else {
            return false;
        };
        self.all.remove_mut(key);
        self.at_places(&policy, |policies| {
            policies
                .iter()
                .filter(|other| other.key() != policy.key())
                .cloned()
                .collect()
        });
        true
    }

    /// Changes every list that a policy stands in, or shall stand in.
    fn at_places(&mut self, policy: &Policy, change: impl Fn(&[Arc<Policy>]) -> Policies) {
        if let Some(namespace) = &policy.key().namespace {
            change_at(&mut self.namespaced, namespace.as_str().into(), change);
        } else if let Some((label, values)) = policy.namespace_selector.required_labels() {
            for value in values {
                change_at(
                    &mut self.by_label,
                    (Arc::clone(label), Arc::clone(value)),
                    &change,
                );
            }
        } else {
            self.unlabelled = change(&self.unlabelled);
        }
    }

    /// Inserts a namespace, or its new labels. It gets its name as a label, as the API server does it.
    pub fn insert_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        let others = labels.iter().filter(|(key, _)| *key != NAME_LABEL);
        let pairs = others
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .chain([(NAME_LABEL, name)]);
        let labels: Labels = pairs
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        self.namespaces.insert_mut(name.into(), Arc::new(labels));
    }

    /// Removes a namespace. Its policies and service accounts are objects of their own, and go by
    /// themselves.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove_mut(name);
    }

    /// Inserts a service account, or what it now says about its token.
    pub fn insert_service_account(
        &mut self,
        namespace: &str,
        name: &str,
        automount_token: Option<bool>,
    ) {
        let mut accounts = self
            .service_accounts
            .get(namespace)
            .cloned()
            .unwrap_or_default();
        Arc::make_mut(&mut accounts).insert(name.into(), automount_token);
        self.service_accounts.insert_mut(namespace.into(), accounts);
    }

    /// Removes a service account.
    pub fn remove_service_account(&mut self, namespace: &str, name: &str) {
        let Some(mut accounts) = self.service_accounts.get(namespace).cloned() else {
            return;
        };
        Arc::make_mut(&mut accounts).remove(name);
        if accounts.is_empty() {
            self.service_accounts.remove_mut(namespace);
        } else {
            self.service_accounts.insert_mut(namespace.into(), accounts);
        }
    }

    /// Inserts a RuntimeClass, by its `scheduling.nodeSelector`.
    pub fn insert_runtime_class(&mut self, name: &str, node_selector: &BTreeMap<String, String>) {
        let labels: Labels = node_selector
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect();
        self.runtime_classes
            .insert_mut(name.into(), Arc::new(labels));
    }

    /// Removes a RuntimeClass.
    pub fn remove_runtime_class(&mut self, name: &str) {
        self.runtime_classes.remove_mut(name);
    }

    /// From now on a RuntimeClass that was not inserted does not exist; before, it is taken to exist.
    pub fn know_all_runtime_classes(&mut self) {
        self.all_runtime_classes_known = true;
    }

    /// From now on a service account that was not inserted does not exist, when policies are compiled
    /// ([`crate::cel`]); before, it may say anything. Where namespaces are seen one by one that is so from the
    /// start: nothing is decided before they are all seen.
    pub fn know_all_service_accounts(&mut self) {
        self.all_service_accounts_known = true;
    }

    /// Says which version of Kubernetes the cluster has; `None`: that is not known, and every field is taken to
    /// be one that it has. With several API servers it is the lowest of theirs, as any of them may ask.
    pub fn set_kubernetes_version(&mut self, version: Option<KubernetesVersion>) {
        self.kubernetes = version;
    }

    /// The cluster's version of Kubernetes, where it is known.
    #[must_use]
    pub fn kubernetes_version(&self) -> Option<KubernetesVersion> {
        self.kubernetes
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.all.values().map(|policy| &**policy)
    }

    /// The namespaces that are known, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.namespaces.keys().map(|name| &**name)
    }

    /// The policies in mode Enforce that pods of a known namespace can have, in the order in which they are
    /// asked.
    #[must_use]
    pub fn policies_of(&self, namespace: &str) -> Vec<&Policy> {
        let mut policies = self.policies_possible_in(Some(namespace));
        policies.retain(|policy| {
            policy
                .namespace_selector
                .matches(self.namespace_label(namespace))
        });
        policies
    }

    /// As [`Self::policies_of`], for a namespace of whose labels nothing is known; `None`: nor of its name.
    #[must_use]
    pub fn policies_possible_in(&self, namespace: Option<&str>) -> Vec<&Policy> {
        let is_possible = |policy: &&Policy| {
            let own = policy.key().namespace.as_deref();
            policy.mode() == Mode::Enforce && (own.is_none() || own == namespace)
        };
        let mut policies: Vec<&Policy> = self.policies().filter(is_possible).collect();
        policies.sort_by(|a, b| a.order().cmp(&b.order()));
        policies
    }

    /// How many policies there are.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.all.size()
    }

    /// How many namespaces are known.
    #[must_use]
    pub fn namespace_count(&self) -> usize {
        self.namespaces.size()
    }

    /// The policies that a pod of this namespace has, in order: cluster policies of tier Admin, the
    /// namespace's own, cluster policies of tier Baseline; within each, higher priority first, then by
    /// name.
    ///
    /// # Errors
    ///
    /// Where something that decides has not been seen yet (see [`UnknownNamespaces::NotYetSeen`]).
    pub fn matching<'a>(
        &'a self,
        namespace: &'a str,
        pod: &Pod<'_>,
    ) -> Result<Matching<'a>, Unseen> {
        let labels = self.namespaces.get(namespace);
        if labels.is_none() && self.unknown == UnknownNamespaces::NotYetSeen {
            return Err(Unseen::Namespace);
        }
        let account = pod.service_account_name();
        let mut matching = Matching {
            enforced: SmallVec::new(),
            audited: SmallVec::new(),
            set: self,
            automount: None,
        };
        let mut take = |policies: &'a [Arc<Policy>],
                        namespace_label: &dyn Fn(&str) -> Option<&'a str>| {
            for policy in policies {
                if policy.namespace_selector.matches(namespace_label)
                    && policy.is_for_service_account(account)
                    && policy.pod_selector.matches(|key| pod.label(key))
                {
                    match policy.mode() {
                        Mode::Enforce => matching.enforced.push(policy),
                        Mode::Audit => matching.audited.push(policy),
                    }
                }
            }
        };
        let label = self.namespace_label(namespace);
        if !self.by_label.is_empty() {
            match labels {
                Some(labels) => labels
                    .iter()
                    .for_each(|pair| take(self.labelled(pair), &label)),
                None => take(
                    self.labelled(&(NAME_LABEL.into(), namespace.into())),
                    &label,
                ),
            }
        }
        take(&self.unlabelled, &label);
        take(
            self.namespaced
                .get(namespace)
                .map_or(&[], |policies| policies),
            &label,
        );
        for policies in [&mut matching.enforced, &mut matching.audited] {
            policies.sort_by(|a, b| a.order().cmp(&b.order()));
        }
        matching.automount = self.automount(namespace, account, &matching)?;
        Ok(matching)
    }

    /// The labels of a namespace; one that is not known has its name as a label.
    pub fn namespace_label<'a>(&'a self, namespace: &'a str) -> impl Fn(&str) -> Option<&'a str> {
        let labels = self.namespaces.get(namespace);
        move |key| match labels {
            Some(labels) => labels
                .iter()
                .find(|(k, _)| &**k == key)
                .map(|(_, value)| &**value),
            None => (key == NAME_LABEL).then_some(namespace),
        }
    }

    fn labelled(&self, label: &(Arc<str>, Arc<str>)) -> &[Arc<Policy>] {
        self.by_label.get(label).map_or(&[], |policies| policies)
    }

    /// What the service account says, where any policy asks.
    fn automount(
        &self,
        namespace: &str,
        account: &str,
        matching: &Matching<'_>,
    ) -> Result<Option<bool>, Unseen> {
        let asks = |policy: &&Policy| {
            policy
                .pod_default(Field::AutomountServiceAccountToken)
                .is_some()
        };
        if !matching.enforced.iter().chain(&matching.audited).any(asks) {
            return Ok(None);
        }
        match self
            .service_accounts
            .get(namespace)
            .and_then(|accounts| accounts.get(account))
        {
            Some(automount) => Ok(*automount),
            None if self.unknown == UnknownNamespaces::NotYetSeen => Err(Unseen::ServiceAccount),
            None => Ok(None),
        }
    }

    /// What the service accounts of some namespaces (`None`: of all) say to a default for their token.
    pub(crate) fn automounts(&self, namespaces: Option<&[&str]>, mount: bool) -> Automount {
        let all_known = self.all_service_accounts_known;
        let in_scope =
            |namespace: &str| namespaces.is_none_or(|namespaces| namespaces.contains(&namespace));
        let mut accounts: Vec<String> = self
            .service_accounts
            .iter()
            .filter(|(namespace, _)| in_scope(namespace))
            .flat_map(|(namespace, accounts)| {
                let counts = accounts
                    .iter()
                    .filter(|(_, says)| (**says == Some(!mount)) == all_known);
                counts.map(move |(name, _)| format!("{namespace}/{name}"))
            })
            .collect();
        accounts.sort_unstable();
        match all_known {
            true => Automount::Against(accounts),
            false => Automount::NotAgainst(accounts),
        }
    }

    /// The node labels that a RuntimeClass asks for; `None` where nobody knows of such a class.
    pub(crate) fn known_runtime_class(&self, name: &str) -> Option<&[(Arc<str>, Arc<str>)]> {
        self.runtime_classes.get(name).map(|labels| &***labels)
    }

    /// The node labels that a RuntimeClass asks for; `None` where the cluster has no such class.
    pub(crate) fn runtime_class(&self, name: &str) -> Option<&[(Arc<str>, Arc<str>)]> {
        match self.runtime_classes.get(name) {
            Some(labels) => Some(labels),
            None if self.all_runtime_classes_known => None,
            None => Some(&[]),
        }
    }
}

fn change_at<K: std::hash::Hash + Eq>(
    map: &mut Map<K, Policies>,
    key: K,
    change: impl Fn(&[Arc<Policy>]) -> Policies,
) {
    let changed = change(map.get(&key).map_or(&[], |policies| policies));
    if changed.is_empty() {
        map.remove_mut(&key);
    } else {
        map.insert_mut(key, changed);
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySet")
            .field("policies", &self.policy_count())
            .field("namespaces", &self.namespace_count())
            .finish_non_exhaustive()
    }
}

// === impl Matching ===

impl<'a> Matching<'a> {
    /// Whether no policy is for the pod.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.enforced.is_empty() && self.audited.is_empty()
    }

    /// The policies, in order: those that fill in, then those that only tell.
    pub fn policies(&self) -> impl Iterator<Item = &'a Policy> {
        self.enforced.iter().chain(&self.audited).copied()
    }

    pub(crate) fn runtime_class(&self, name: &str) -> Option<&'a [(Arc<str>, Arc<str>)]> {
        self.set.runtime_class(name)
    }

    /// Whether the cluster's version of Kubernetes writes AppArmor profiles as annotations, too.
    pub(crate) fn copies_app_armor(&self) -> bool {
        let first_without = KubernetesVersion::v1(34);
        self.set.kubernetes.is_some_and(|ours| ours < first_without)
    }

    /// Whether the cluster's version of Kubernetes has a field.
    pub(crate) fn has_field(&self, field: Field) -> bool {
        field.row().is_known_to(self.set.kubernetes)
    }
}
