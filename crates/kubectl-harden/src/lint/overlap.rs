//! Two policies that can be for the same pod and give a field different values.

use std::collections::BTreeSet;

use hardening_api::policy::ContainerKind;
use hardening_engine::{FIELDS, Field, Shape};
use serde_json::Value;

use super::policy::{Because, Default, Level, Linted};
use super::{Finding, Namespaces, Severity};

const KINDS: [ContainerKind; 3] = [
    ContainerKind::Container,
    ContainerKind::InitContainer,
    ContainerKind::EphemeralContainer,
];

/// Where `policy` gives way to another, field by field.
pub(super) fn find(
    policy: &Linted,
    all: &[Linted],
    namespaces: &Namespaces,
    findings: &mut Vec<Finding>,
) {
    for winner in all {
        let Some(because) = winner.goes_before(policy) else {
            continue;
        };
        if !policy.is_enforced()
            || !winner.is_enforced()
            || !policy.can_share_a_pod(winner, namespaces)
        {
            continue;
        }
        // By name alone is nobody's intention.
        let severity = match because {
            Because::Tier | Because::Priority => Severity::Note,
            Because::Name => Severity::Warning,
        };
        for conflict in conflicts(policy, winner) {
            let message = format!(
                "{} gives way to {} of {} ({}), where both are for a pod: {}",
                conflict.losing,
                conflict.winning,
                winner.object,
                winner.source,
                reason(because, policy, winner)
            );
            findings.push(policy.finding(severity, &conflict.field, message));
        }
    }
}

fn reason(because: Because, loser: &Linted, winner: &Linted) -> String {
    match because {
        Because::Tier => format!("{} goes before {}", winner.tier(), loser.tier()),
        Because::Priority => format!(
            "priority {} goes before {}",
            winner.priority(),
            loser.priority()
        ),
        Because::Name => "neither tier nor priority decides, so they go by name".to_owned(),
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Conflict {
    /// Where the loser says it.
    field: String,
    losing: String,
    winning: String,
}

fn conflicts(loser: &Linted, winner: &Linted) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for row in &FIELDS {
        let mut seen = BTreeSet::new();
        match row.shape {
            Shape::Single => {
                let pairs = pairs(loser, winner, row.field);
                seen.extend(
                    pairs
                        .into_iter()
                        .filter_map(|(losing, winning)| conflict(losing, winning)),
                );
            }
            Shape::List | Shape::Paths => {
                for level in [Level::Pod, Level::Container] {
                    for losing in loser.defaults(row.field, level) {
                        for winning in winner.defaults(row.field, level) {
                            seen.extend(item_conflicts(losing, winning));
                        }
                    }
                }
            }
        }
        conflicts.extend(seen);
    }
    conflicts
}

/// The defaults that decide one and the same value.
fn pairs<'a>(
    loser: &'a Linted,
    winner: &'a Linted,
    field: Field,
) -> Vec<(&'a Default, &'a Default)> {
    let pod = |policy: &'a Linted| policy.defaults(field, Level::Pod).next();
    let container = |kind| {
        loser
            .in_container(field, kind)
            .zip(winner.in_container(field, kind))
    };
    pod(loser)
        .zip(pod(winner))
        .into_iter()
        .chain(KINDS.into_iter().filter_map(container))
        .collect()
}

fn conflict(losing: &Default, winning: &Default) -> Option<Conflict> {
    (losing.value != winning.value).then(|| Conflict {
        field: losing.path().to_owned(),
        losing: named(losing, &losing.value),
        winning: named(winning, &winning.value),
    })
}

/// Items of the same name that are otherwise different: lists are combined over the policies.
fn item_conflicts(losing: &Default, winning: &Default) -> Vec<Conflict> {
    let key = match losing.field {
        Field::Sysctls => "name",
        Field::WritablePaths => "path",
        _ => return Vec::new(),
    };
    let items = |default: &Default| default.value.as_array().cloned().unwrap_or_default();
    let name = |item: &Value| item.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut conflicts = Vec::new();
    for item in items(losing) {
        let same_name = |other: &&Value| name(other) == name(&item);
        for other in items(winning).iter().filter(same_name) {
            if *other != item {
                conflicts.push(Conflict {
                    field: format!("{}[{}]", losing.path(), name(&item).unwrap_or_default()),
                    losing: item.to_string(),
                    winning: other.to_string(),
                });
            }
        }
    }
    conflicts
}

/// A value; of a profile's, which does not stand in the policy, with the field's name.
fn named(default: &Default, value: &Value) -> String {
    match default.is_spelled_out() {
        true => value.to_string(),
        false => format!("{}: {value}", default.field.name()),
    }
}

#[cfg(test)]
mod tests {
    use hardening_api::PolicyKind;
    use hardening_engine::{Pod, plan};
    use hardening_manifests::{Manifest, parse, policy_set};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A policy for every pod of the namespace, which gives all of them a user, at one level or both.
    fn policies() -> impl Strategy<Value = Value> {
        let place = prop::sample::select(vec!["Namespace", "Admin", "Baseline"]);
        let users =
            prop::sample::select(vec![(Some(1), None), (None, Some(2)), (Some(3), Some(4))]);
        (
            place,
            -1_i32..2,
            prop::sample::select(vec!["a", "b", "c"]),
            users,
        )
            .prop_map(|(place, priority, name, (pod, container))| {
                let (kind, tier) = match place {
                    "Namespace" => (PolicyKind::Namespaced, None),
                    tier => (PolicyKind::Cluster, Some(tier)),
                };
                let mut policy = json!({
                    "apiVersion": hardening_api::API_VERSION,
                    "kind": kind.name(),
                    "metadata": {"name": format!("{name}-{}", place.to_lowercase())},
                    "spec": {"priority": priority},
                });
                if let Some(tier) = tier {
                    policy["spec"]["tier"] = tier.into();
                }
                if let Some(user) = pod {
                    policy["spec"]["pod"]["securityContext"]["runAsUser"] = user.into();
                }
                if let Some(user) = container {
                    policy["spec"]["containers"]["securityContext"]["runAsUser"] = user.into();
                }
                policy
            })
    }

    /// The user that the engine gives a container.
    fn engines_choice(manifests: &[Manifest]) -> Value {
        let (set, problems) = policy_set(manifests, "shop");
        assert_eq!(problems, []);
        let mut value = json!({"spec": {"containers": [{"name": "app"}]}});
        let json = value.to_string();
        let pod = Pod::from_json(&json).unwrap();
        let patch = plan(&set.matching("shop", &pod).unwrap(), &pod).to_patch();
        json_patch::patch(&mut value, &patch).unwrap();
        let user = |pointer| value.pointer(pointer).cloned();
        user("/spec/containers/0/securityContext/runAsUser")
            .or_else(|| user("/spec/securityContext/runAsUser"))
            .unwrap()
    }

    proptest! {
        #[test]
        fn who_wins_here_wins_in_the_engine(one in policies(), two in policies()) {
            prop_assume!(one["metadata"] != two["metadata"]);
            let manifests = parse("f", format!("{one}{two}").as_bytes()).unwrap();
            let linted: Vec<Linted> = [&one, &two]
                .into_iter()
                .map(|policy| match policy["kind"] == PolicyKind::Namespaced.name() {
                    true => {
                        let typed = serde_json::from_value(policy.clone()).unwrap();
                        Linted::namespaced("f".to_owned(), "p".to_owned(), typed, "shop")
                    }
                    false => {
                        let typed = serde_json::from_value(policy.clone()).unwrap();
                        Linted::cluster("f".to_owned(), "p".to_owned(), typed)
                    }
                })
                .collect();
            let [first, second] = linted.as_slice() else { unreachable!() };
            let winner = if first.goes_before(second).is_some() { first } else { second };
            let theirs = winner.in_container(Field::RunAsUser, ContainerKind::Container).unwrap();
            prop_assert_eq!(&engines_choice(&manifests), &theirs.value);

            // And there is a finding exactly where the other one says something else.
            let mut findings = Vec::new();
            for policy in &linted {
                find(policy, &linted, &Namespaces::new(), &mut findings);
            }
            let in_container = |policy: &Linted| policy.in_container(Field::RunAsUser, ContainerKind::Container).unwrap().value.clone();
            let in_pod = |policy: &Linted| policy.defaults(Field::RunAsUser, Level::Pod).next().map(|default| default.value.clone());
            let differ = in_container(first) != in_container(second)
                || in_pod(first).zip(in_pod(second)).is_some_and(|(one, two)| one != two);
            prop_assert_eq!(!findings.is_empty(), differ);
        }
    }
}
