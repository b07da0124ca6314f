//! Which PSPs were usable for which pods: the pods of all namespaces and service accounts, divided.

use std::collections::{BTreeMap, BTreeSet};

use crate::rbac::{Grant, Grantee};
use crate::scope::{Names, PodScope, Requesters};

/// The PSPs that a pod could be admitted by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usable {
    /// Those that its service account could use.
    pub by_account: BTreeSet<String>,
    /// Those that only some who create pods could use.
    pub by_requester: BTreeMap<String, Requesters>,
}

/// Pods for which the same PSPs were usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The pods.
    pub scope: PodScope,
    /// The PSPs.
    pub usable: Usable,
    /// The PSP whose defaults the pods get, if any PSP is usable.
    pub chosen: Option<String>,
}

// === impl Usable ===

impl Usable {
    /// Whether no PSP admitted the pod, whoever created it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_account.is_empty() && self.by_requester.is_empty()
    }

    /// Whether the PSP was usable at all.
    pub(crate) fn has(&self, psp: &str) -> bool {
        self.by_account.contains(psp) || self.by_requester.contains_key(psp)
    }

    /// The PSPs of which defaults are taken: those usable for every pod, and those of the controllers that
    /// create the pods of most workloads.
    pub(crate) fn for_defaults(&self) -> BTreeSet<&str> {
        let of_controllers = self.by_requester.iter();
        let of_controllers = of_controllers.filter(|(_, requesters)| are_controllers(requesters));
        self.by_account
            .iter()
            .chain(of_controllers.map(|(psp, _)| psp))
            .map(String::as_str)
            .collect()
    }
}

/// Whether the ReplicaSet controller, which creates the pods of Deployments, is among them.
pub(crate) fn are_controllers(requesters: &Requesters) -> bool {
    const USERS: [&str; 2] = [
        "system:serviceaccount:kube-system:replicaset-controller",
        "system:kube-controller-manager",
    ];
    let groups = &requesters.groups;
    groups.contains("system:serviceaccounts:kube-system")
        || USERS.iter().any(|user| requesters.users.contains(*user))
}

/// Whether they are `system:masters` and nobody else.
pub(crate) fn are_masters(requesters: &Requesters) -> bool {
    let mut groups = requesters.groups.iter();
    requesters.users.is_empty()
        && requesters.own_accounts.is_empty()
        && groups.all(|group| group == "system:masters")
}

/// Divides all pods. `namespaces` are those known by name; every other one is like the next.
pub(crate) fn divide(
    grants: &BTreeSet<Grant>,
    namespaces: &BTreeSet<String>,
) -> Vec<(PodScope, Usable)> {
    let mut by_namespace: BTreeMap<Option<&str>, Vec<&Grant>> = BTreeMap::new();
    for grant in grants {
        let namespace = grant.namespace.as_deref();
        by_namespace.entry(namespace).or_default().push(grant);
    }
    let in_namespace = |namespace: Option<&str>| {
        let own = namespace.and_then(|name| by_namespace.get(&Some(name)));
        let everywhere = by_namespace.get(&None);
        let here = everywhere.into_iter().chain(own).flatten();
        in_one(here.copied())
    };
    let mut cells = Cells::new(namespaces);
    for namespace in namespaces
        .iter()
        .map(|name| Some(name.as_str()))
        .chain([None])
    {
        for (accounts, usable) in in_namespace(namespace) {
            cells.add(usable, namespace, &accounts);
        }
    }
    cells.into_scopes()
}

/// Divides the pods of one namespace by their service accounts.
fn in_one<'a>(grants: impl Iterator<Item = &'a Grant>) -> Vec<(Names, Usable)> {
    let mut everyone = BTreeSet::new();
    let mut accounts: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut by_requester: BTreeMap<String, Requesters> = BTreeMap::new();
    for grant in grants {
        let Grant {
            psp,
            namespace,
            grantee,
        } = grant;
        let psp = psp.clone();
        match grantee {
            Grantee::Everyone => {
                everyone.insert(psp);
            }
            Grantee::ServiceAccount(name) => {
                accounts.entry(name).or_default().insert(psp);
            }
            Grantee::User(name) => {
                let requesters = by_requester.entry(psp).or_default();
                match own_account(name, namespace.as_deref()) {
                    Some(account) => requesters.own_accounts.insert(account.to_owned()),
                    None => requesters.users.insert(name.clone()),
                };
            }
            Grantee::Group(name) => {
                let requesters = by_requester.entry(psp).or_default();
                requesters.groups.insert(name.clone());
            }
        }
    }
    let usable = |by_account: BTreeSet<String>| {
        let mut by_requester = by_requester.clone();
        by_requester.retain(|psp, _| !by_account.contains(psp));
        Usable {
            by_account,
            by_requester,
        }
    };
    let mut own: BTreeMap<Usable, BTreeSet<String>> = BTreeMap::new();
    for (name, psps) in accounts {
        let usable = usable(&everyone | &psps);
        own.entry(usable).or_default().insert(name.to_owned());
    }
    let rest = usable(everyone);
    own.remove(&rest);
    let named = own.values().flatten().cloned().collect();
    let mut all = vec![(Names::all_but(named), rest)];
    all.extend(
        own.into_iter()
            .map(|(usable, names)| (Names::Only(names), usable)),
    );
    all
}

/// The service account that a user is, where it is one of the namespace in which a binding holds. By its own name,
/// so that what many namespaces have alike is said once. In `kube-system` the controllers are told by their full
/// names.
fn own_account<'a>(user: &'a str, bound: Option<&str>) -> Option<&'a str> {
    let bound = bound.filter(|bound| *bound != "kube-system")?;
    let (namespace, name) = user
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    (namespace == bound).then_some(name)
}

/// Pods by namespace and service account, joined again where the same is to be said of them.
pub(crate) struct Cells<'a, T> {
    namespaces: &'a BTreeSet<String>,
    /// By what is said and by namespace, `None` being every one that is not known by name.
    accounts: BTreeMap<T, BTreeMap<Option<String>, Names>>,
}

impl<'a, T: Clone + Ord> Cells<'a, T> {
    pub(crate) fn new(namespaces: &'a BTreeSet<String>) -> Self {
        Self {
            namespaces,
            accounts: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, what: T, namespace: Option<&str>, accounts: &Names) {
        let of_what = self.accounts.entry(what).or_default();
        let of_namespace = of_what.entry(namespace.map(str::to_owned));
        let names = of_namespace.or_insert_with(|| Names::Only(BTreeSet::new()));
        *names = names.union(accounts);
    }

    pub(crate) fn add_scope(&mut self, what: &T, scope: &PodScope) {
        // Most scopes are of few namespaces, of which a cluster may have thousands.
        let (named, others) = match &scope.namespaces {
            Names::Only(names) => (names, false),
            Names::All | Names::AllBut(_) => (self.namespaces, true),
        };
        let in_scope = named.iter().filter(|name| scope.namespaces.contains(name));
        for namespace in in_scope
            .map(|name| Some(name.as_str()))
            .chain(others.then_some(None))
        {
            self.add(what.clone(), namespace, &scope.service_accounts);
        }
    }

    /// What is said, each with the pods that it is said of.
    pub(crate) fn into_scopes(self) -> Vec<(PodScope, T)> {
        let mut scopes = Vec::new();
        for (what, by_namespace) in self.accounts {
            let others = by_namespace.get(&None).cloned();
            let mut joined: BTreeMap<Names, BTreeSet<String>> = BTreeMap::new();
            for (namespace, accounts) in by_namespace {
                joined.entry(accounts).or_default().extend(namespace);
            }
            for (service_accounts, names) in joined {
                let namespaces = match others.as_ref() == Some(&service_accounts) {
                    true => Names::all_but(self.namespaces - &names),
                    false => Names::Only(names),
                };
                let scope = PodScope {
                    namespaces,
                    service_accounts,
                };
                scopes.push((scope, what.clone()));
            }
        }
        scopes
    }
}
