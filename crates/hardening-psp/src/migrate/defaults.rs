//! The mutating half of everything: each PSP's defaults, for exactly the pods that it was chosen for.

use std::collections::{BTreeMap, BTreeSet};

use crate::convert::{HardeningPolicy, Target};
use crate::migrate::names::Taken;
use crate::migrate::usable::{Cells, Segment};
use crate::migrate::{Input, KUBE_SYSTEM, Migration, Remark};
use crate::note::Note;
use crate::scope::{Names, PodScope};

/// The endings of the names of a PSP's policies.
const ENDINGS: [&str; 1] = ["-capabilities"];

/// Service accounts that are listed, with the namespaces in which they are.
type Listed = BTreeMap<BTreeSet<String>, Names>;

/// Adds the hardening policies. Policies combine field by field, so no two PSPs may select the same pod.
pub(super) fn add(migration: &mut Migration, input: &Input<'_>, namespaces: &BTreeSet<String>) {
    let mut taken = Taken::default();
    let mut policies: Vec<HardeningPolicy> = Vec::new();
    let mut remarks = Vec::new();
    for (name, psp) in &migration.psps {
        if psp.fills_nothing() {
            continue;
        }
        let mut cells = Cells::new(namespaces);
        for Segment { scope, chosen, .. } in &migration.segments {
            if chosen.as_ref() == Some(name) {
                cells.add_scope(&(), scope);
            }
        }
        for (scope, ()) in cells.into_scopes() {
            if scope.namespaces.contains(KUBE_SYSTEM) {
                remarks.push(in_kube_system(name, &scope));
            }
            let listed = match &scope.service_accounts {
                Names::All => Listed::from([(BTreeSet::new(), scope.namespaces.clone())]),
                Names::Only(names) => Listed::from([(names.clone(), scope.namespaces.clone())]),
                Names::AllBut(but) => {
                    remarks.push(others(name, &scope, input.service_accounts.is_some()));
                    all_but(but, &scope, input, migration)
                }
            };
            for (service_accounts, namespaces) in listed {
                policies.extend(psp.policies(&Target {
                    name: taken.name(name, &ENDINGS),
                    namespaces,
                    service_accounts,
                    mode: input.mode,
                }));
            }
        }
    }
    migration.policies = policies;
    migration.remarks.extend(remarks);
}

/// The service accounts that are known and not excepted. Every namespace has `default`.
fn all_but(
    but: &BTreeSet<String>,
    scope: &PodScope,
    input: &Input<'_>,
    migration: &Migration,
) -> Listed {
    let known = |namespace: &str| {
        let given = input
            .service_accounts
            .iter()
            .filter_map(|all| all.get(namespace));
        let mut names: BTreeSet<String> = given.flatten().cloned().collect();
        names.insert("default".to_owned());
        for Segment { scope, .. } in &migration.segments {
            if let Names::Only(accounts) = &scope.service_accounts
                && scope.namespaces.contains(namespace)
            {
                names.extend(accounts.iter().cloned());
            }
        }
        &names - but
    };
    let mut listed = BTreeMap::new();
    if let Names::Only(namespaces) = &scope.namespaces {
        for namespace in namespaces {
            let names = known(namespace);
            if !names.is_empty() {
                let of: &mut BTreeSet<String> = listed.entry(names).or_default();
                of.insert(namespace.clone());
            }
        }
    }
    let listed = listed.into_iter();
    listed
        .map(|(names, namespaces)| (names, Names::Only(namespaces)))
        .collect()
}

fn in_kube_system(psp: &str, scope: &PodScope) -> Remark {
    Remark {
        psp: Some(psp.to_owned()),
        scopes: vec![PodScope {
            namespaces: Names::Only(BTreeSet::from([KUBE_SYSTEM.to_owned()])),
            service_accounts: scope.service_accounts.clone(),
        }],
        note: Note::new(
            "spec",
            "the webhook is not asked about pods there, so that a cluster can always start: nothing is filled in; so that pods that relied on it are not denied, the ValidatingAdmissionPolicy only warns of them there and has them audited",
            "write the values into those pods; then change validationActions of the binding for kube-system to [Deny]",
        ),
    }
}

/// A policy names service accounts, and cannot be for all but some.
fn others(psp: &str, scope: &PodScope, are_known: bool) -> Remark {
    let (why, advice) = match are_known {
        true => (
            "a hardening policy lists the service accounts that it is for, and here those that there are now: pods of service accounts that are made later get nothing filled in",
            "convert again, or add them to the policy's serviceAccountNames",
        ),
        false => (
            "a hardening policy lists the service accounts that it is for, and they are not known: only those that bindings name, and default, are listed; pods of others get nothing filled in, and are denied where they relied on it",
            "give the ServiceAccounts too, as --namespaces does, or add them to the policy's serviceAccountNames",
        ),
    };
    Remark {
        psp: Some(psp.to_owned()),
        scopes: vec![scope.clone()],
        note: Note::new("spec", why, advice),
    }
}
