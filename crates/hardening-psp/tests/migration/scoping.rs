//! For every pod: the PSPs taken to be usable are those that were, the defaults it gets are those of the PSP that
//! 1.24 would have taken, and where either is not so, a remark is about that pod.

use std::collections::BTreeSet;

use hardening_api::policy::Mode;
use hardening_engine::{Pod, Policy, PolicySet, UnknownNamespaces};
use hardening_psp::generate::pair;
use hardening_psp::migrate::{Given, Usable};
use hardening_psp::{HardeningPolicy, Input, Migration, Requesters, migrate};
use serde_json::{Value, json};

use crate::cluster::{ACCOUNTS, CREATORS, Cluster, Creator, NAMESPACES, pod};

const CLUSTERS: u64 = 1_500;

fn migration(cluster: &Cluster, with_rbac: bool) -> Migration {
    let given = cluster.psps.iter().enumerate();
    migrate(&Input {
        psps: given
            .map(|(index, object)| Given {
                origin: format!("psp {index}"),
                object,
            })
            .collect(),
        rbac: with_rbac.then(|| cluster.rbac.iter().collect()),
        namespaces: cluster.namespaces.clone(),
        service_accounts: cluster.service_accounts.clone(),
        mode: Mode::Enforce,
    })
}

/// Every pod: its namespace and its service account.
fn pods() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMESPACES.into_iter().flat_map(|namespace| {
        ACCOUNTS
            .into_iter()
            .map(move |account| (namespace, account))
    })
}

fn has_remark(migration: &Migration, namespace: &str, account: &str, about: &str) -> bool {
    migration.remarks.iter().any(|remark| {
        let mut scopes = remark.scopes.iter();
        remark.note.why.contains(about) && scopes.any(|scope| scope.contains(namespace, account))
    })
}

fn is_one_of(requesters: &Requesters, creator: &Creator, namespace: &str) -> bool {
    let mut own = requesters.own_accounts.iter();
    requesters.users.contains(creator.user)
        || own.any(|name| format!("system:serviceaccount:{namespace}:{name}") == creator.user)
        || creator
            .groups
            .iter()
            .any(|group| requesters.groups.contains(*group))
}

fn usable_for<'a>(usable: &'a Usable, creator: &Creator, namespace: &str) -> BTreeSet<&'a str> {
    let by_requester = usable.by_requester.iter();
    let by_requester =
        by_requester.filter(|(_, requesters)| is_one_of(requesters, creator, namespace));
    let by_account = usable.by_account.iter();
    let all = by_account.chain(by_requester.map(|(psp, _)| psp));
    all.map(String::as_str).collect()
}

#[test]
fn the_psps_taken_to_be_usable_are_those_that_were() {
    let mut granted_by_requester = 0;
    for seed in 0..CLUSTERS {
        let cluster = Cluster::generate(seed);
        let migration = migration(&cluster, true);
        for (namespace, account) in pods() {
            let about = format!("seed {seed}, {namespace}/{account}");
            let segments = migration.segments.iter();
            let of_pod = segments.filter(|segment| segment.scope.contains(namespace, account));
            assert_eq!(of_pod.count(), 1, "{about}: {:?}", migration.segments);
            let usable = migration.usable(namespace, account).unwrap();
            let of_account = cluster.of_account(namespace, account);
            let by_account: BTreeSet<&str> = usable.by_account.iter().map(String::as_str).collect();
            assert_eq!(by_account, of_account, "{about}");
            for creator in &CREATORS {
                let of_creator = cluster.may_use(namespace, creator.user, creator.groups);
                let expected = &of_account | &of_creator;
                granted_by_requester += usize::from(expected != of_account);
                assert_eq!(
                    usable_for(usable, creator, namespace),
                    expected,
                    "{about}, {}",
                    creator.user
                );
            }
        }
    }
    assert!(granted_by_requester > 1_000, "{granted_by_requester}");
}

/// The names of the policies that are for a pod.
fn matching(set: &PolicySet, namespace: &str, account: &str) -> BTreeSet<String> {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": account, "containers": [{"name": "c"}]}});
    let text = pod.to_string();
    let view = Pod::from_json(&text).unwrap();
    let matching = set.matching(namespace, &view).unwrap();
    matching
        .policies()
        .map(|policy| policy.key().name.clone())
        .collect()
}

fn policy_set(policies: &[HardeningPolicy]) -> PolicySet {
    let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
    for policy in policies {
        let manifest = policy.to_json();
        set.insert_policy(match policy {
            HardeningPolicy::Namespaced(_) => {
                Policy::namespaced(&serde_json::from_value(manifest).unwrap()).unwrap()
            }
            HardeningPolicy::Cluster(_) => {
                Policy::cluster(&serde_json::from_value(manifest).unwrap()).unwrap()
            }
        });
    }
    set
}

/// Whether an object's name is made of a PSP's.
fn is_of(policy: &str, psp: &str) -> bool {
    let rest = policy.strip_prefix(&format!("psp-{psp}"));
    rest.is_some_and(|rest| {
        let numbered = rest.trim_end_matches("-capabilities");
        let number = numbered.strip_prefix('-').unwrap_or("0");
        numbered.is_empty() || number.parse::<u32>().is_ok()
    })
}

#[test]
fn a_pod_has_the_defaults_of_its_first_psp_and_of_no_other() {
    let mut left_out = 0;
    for seed in 0..CLUSTERS {
        let cluster = Cluster::generate(seed);
        let migration = migration(&cluster, seed % 10 != 0);
        let set = policy_set(&migration.policies);
        for (namespace, account) in pods() {
            let about = format!("seed {seed}, {namespace}/{account}");
            let usable = migration.usable(namespace, account).unwrap();
            // Controllers count as everyone.
            let usable = usable_for(usable, &CREATORS[2], namespace);
            let mut order: Vec<&str> = usable.into_iter().collect();
            order.sort_by_key(|name| (!migration.psps[*name].fills_nothing(), *name));
            let found = matching(&set, namespace, account);
            let expected = order
                .first()
                .filter(|name| !migration.psps[**name].fills_nothing());
            match expected {
                None => assert_eq!(found, BTreeSet::new(), "{about}"),
                Some(_) if found.is_empty() => {
                    left_out += 1;
                    let is_known = cluster
                        .service_accounts
                        .as_ref()
                        .is_some_and(|all| all[namespace].contains(account));
                    assert!(!is_known, "{about}");
                    assert!(
                        has_remark(&migration, namespace, account, "lists the service accounts"),
                        "{about}"
                    );
                }
                Some(name) => assert!(
                    found.iter().all(|policy| is_of(policy, name)),
                    "{about}: {found:?}, not {name}"
                ),
            }
        }
    }
    assert!(left_out > 100, "{left_out}");
}

/// Whether a binding, and the condition of its policy, are for a pod.
fn is_judged(policy: &Value, binding: &Value, namespace: &str, account: &str) -> bool {
    let requirement =
        &binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
    let is_listed = requirement["values"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|one| one == namespace);
    let in_namespace = match requirement["operator"].as_str() {
        Some("In") => is_listed,
        Some(_) => !is_listed,
        None => true,
    };
    let condition = &policy["spec"]["matchConditions"][0]["expression"];
    let of_account = condition.as_str().is_none_or(|condition| {
        let (_, list) = condition.split_once(" in ").unwrap();
        let list = list.trim_end_matches(')');
        let names: Vec<String> = serde_json::from_str(list).unwrap();
        names.iter().any(|name| name == account) != condition.starts_with('!')
    });
    in_namespace && of_account
}

#[test]
fn a_pod_is_judged_by_one_policy_with_just_the_psps_that_were_usable() {
    for seed in (0..CLUSTERS).step_by(5) {
        let cluster = Cluster::generate(seed);
        let migration = migration(&cluster, true);
        for (namespace, account) in pods() {
            let about = format!("seed {seed}, {namespace}/{account}");
            let of_kind = |kind: &'static str| {
                let objects = migration.admission.iter();
                objects.filter(move |object| object["kind"] == kind)
            };
            let mut judging = of_kind("ValidatingAdmissionPolicyBinding").filter_map(|binding| {
                let policy = of_kind("ValidatingAdmissionPolicy")
                    .find(|policy| policy["metadata"]["name"] == binding["spec"]["policyName"])?;
                is_judged(policy, binding, namespace, account).then_some(policy)
            });
            let policy = judging.next().unwrap();
            assert_eq!(judging.next(), None, "{about}");
            let text = policy.to_string();
            let names = migration.psps.keys();
            let found: BTreeSet<&String> = names
                .filter(|name| text.contains(&format!("PodSecurityPolicy {name}: ")))
                .collect();
            let usable = migration.usable(namespace, account).unwrap();
            let expected = usable
                .by_account
                .iter()
                .chain(usable.by_requester.keys())
                .collect();
            assert_eq!(found, expected, "{about}");
            for requesters in usable.by_requester.values() {
                for name in requesters
                    .users
                    .iter()
                    .chain(&requesters.groups)
                    .chain(&requesters.own_accounts)
                {
                    assert!(text.contains(&format!("\\\"{name}\\\"")), "{about}: {name}");
                }
            }
        }
    }
}

/// What 1.24 made of a pod: the PSP that it took, and the pod.
fn admit<'a>(
    migration: &Migration,
    usable: &BTreeSet<&'a str>,
    pod: &Value,
) -> Option<(&'a str, Value)> {
    let mut changed = None;
    for name in usable {
        let policy = &migration.psps[*name].policy;
        let mut mutated = pod.clone();
        policy.mutate(&mut mutated).unwrap();
        if policy.validate(&mutated).unwrap().is_empty() {
            if mutated == *pod {
                return Some((name, mutated));
            }
            changed.get_or_insert((*name, mutated));
        }
    }
    changed
}

#[test]
fn where_1_24_would_have_filled_in_otherwise_a_remark_says_so() {
    let (mut same, mut other) = (0, 0);
    for seed in 0..CLUSTERS {
        let cluster = Cluster::generate(seed);
        let migration = migration(&cluster, seed % 10 != 0);
        for (index, (namespace, account)) in (0..).zip(pods()) {
            let usable = usable_for(
                migration.usable(namespace, account).unwrap(),
                &CREATORS[2],
                namespace,
            );
            let segments = &mut migration.segments.iter();
            let segment = segments.find(|segment| segment.scope.contains(namespace, account));
            let Some(chosen) = &segment.unwrap().chosen else {
                assert_eq!(usable, BTreeSet::new());
                continue;
            };
            let seed = seed * 100 + index;
            let mut pod = match index % 2 {
                0 => pair(seed).pod,
                _ => pod(seed),
            };
            // With any profile in a field, every PSP changed the pod, by an annotation that says the same.
            if let Some(context) = pod["spec"]["securityContext"].as_object_mut() {
                context.remove("seccompProfile");
            }
            let Some((taken, filled)) = admit(&migration, &usable, &pod) else {
                continue;
            };
            let mut expected = pod.clone();
            migration.psps[chosen].policy.mutate(&mut expected).unwrap();
            if filled == expected {
                same += 1;
                continue;
            }
            other += 1;
            assert!(
                has_remark(&migration, namespace, account, "tried them pod by pod"),
                "seed {seed}, {namespace}/{account}: 1.24 took {taken}, here {chosen}\npod {pod}"
            );
        }
    }
    assert!(same > 5_000 && other > 100, "{same} {other}");
}
