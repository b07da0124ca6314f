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
