//! What two policies give differently.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use hardening_api::policy::ContainerKind;

use super::place::Slot;
use crate::defaults::{Item, Level, PolicyDefault};
use crate::field::{FIELDS, Field, FieldRow, Shape};
use crate::offer::Precedence;
use crate::policy::{Order, Policy};

/// A field that two policies give different values, where both are for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// Where the policy that gives way says it: `spec.pod.securityContext.runAsUser`, with the item's name in
    /// brackets for an item of a list; `spec.profile` for what is a part of its profile.
    pub losing_path: String,
    /// What it says, as JSON; of a profile's, with the field's name.
    pub losing: String,
    /// As `losing_path`, of the policy that goes before.
    pub winning_path: String,
    /// As `losing`.
    pub winning: String,
}

pub(super) const KINDS: [ContainerKind; 3] = [
    ContainerKind::Container,
    ContainerKind::InitContainer,
    ContainerKind::EphemeralContainer,
];

/// The fields that two policies give different values, by the table of fields: which of them goes before the
/// other is decided here. Whether both can be for one pod is not.
#[must_use]
pub fn conflicts(one: &Policy, two: &Policy) -> Vec<Conflict> {
    let (loser, winner) = match one.goes_before(two) {
        Some(_) => (two, one),
        None => (one, two),
    };
    let mut conflicts = Vec::new();
    for row in &FIELDS {
        let mut seen = BTreeSet::new();
        match row.shape {
            Shape::Single => {
                let pod = loser
                    .pod_default(row.field)
                    .zip(winner.pod_default(row.field));
                let kinds = KINDS.into_iter().filter_map(|kind| {
                    let winning = in_container(winner, row.field, kind)?;
                    in_container(loser, row.field, kind).map(|losing| (losing, winning))
                });
                seen.extend(
                    pod.into_iter()
                        .chain(kinds)
                        .filter_map(|(losing, winning)| {
                            let (from, to) = (losing.value.to_json(), winning.value.to_json());
                            (from != to).then(|| Conflict {
                                losing_path: path(losing, row),
                                losing: named(losing, row, &from),
                                winning_path: path(winning, row),
                                winning: named(winning, row, &to),
                            })
                        }),
                );
            }
            Shape::List | Shape::Paths => seen.extend(item_conflicts(loser, winner, row)),
        }
        conflicts.extend(seen);
    }
    conflicts
}

/// Items of the same name that are otherwise different: lists are combined over the policies.
fn item_conflicts(loser: &Policy, winner: &Policy, row: &FieldRow) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let both = items(loser, row).into_iter().zip(items(winner, row));
    for ((_, losing), (_, winning)) in both {
        for mine in losing {
            let same = winning
                .iter()
                .find(|other| other.key == mine.key && other.json != mine.json);
            if let Some(other) = same {
                let at = |default| format!("{}[{}]", path(default, row), mine.key);
                conflicts.push(Conflict {
                    losing_path: at(mine.default),
                    losing: named(mine.default, row, mine.json),
                    winning_path: at(other.default),
                    winning: named(other.default, row, other.json),
                });
            }
        }
    }
    conflicts
}

/// An item of a list of a policy's.
pub(super) struct Listed<'p> {
    pub(super) key: &'p str,
    json: &'p str,
    default: &'p PolicyDefault,
}

/// The items of a list that can differ, each where it is given first: of the pod's (`None`), and of the
/// containers of each kind.
pub(super) fn items<'p>(
    policy: &'p Policy,
    row: &FieldRow,
) -> [(Option<ContainerKind>, Vec<Listed<'p>>); 4] {
    let first = |defaults: &mut dyn Iterator<Item = &'p PolicyDefault>| {
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        for default in defaults {
            let listed = default.value.items().iter();
            items.extend(
                listed
                    .filter(|item| seen.insert(&item.key))
                    .map(|Item { key, json }| Listed { key, json, default }),
            );
        }
        items
    };
    let [container, init, ephemeral] = KINDS.map(|kind| {
        let items = first(&mut policy.container_defaults(row.field, kind));
        (Some(kind), items)
    });
    let pod = (None, first(&mut policy.pod_defaults(row.field)));
    [pod, container, init, ephemeral]
}

/// What a policy gives in a slot, as JSON.
pub(super) fn value(policy: &Policy, slot: &Slot) -> Option<String> {
    match slot {
        Slot::Pod(field) => Some(policy.pod_default(*field)?.value.to_json()),
        Slot::Container(field, kind) => Some(in_container(policy, *field, *kind)?.value.to_json()),
        Slot::Item(field, kind, key) => {
            let row = FIELDS.iter().find(|row| row.field == *field)?;
            let of_kind = items(policy, row).into_iter().find(|(one, _)| one == kind);
            let (_, items) = of_kind?;
            let item = items.into_iter().find(|item| item.key == &**key)?;
            Some(item.json.to_owned())
        }
    }
}

/// The default that decides the value of a field that a container of this kind has in the end.
fn in_container(policy: &Policy, field: Field, kind: ContainerKind) -> Option<&PolicyDefault> {
    policy
        .container_default(field, kind)
        .or_else(|| policy.pod_default(field))
}

/// Where a policy says it.
fn path(default: &PolicyDefault, row: &FieldRow) -> String {
    let (parent, path) = match default.level {
        Level::Pod => ("pod", row.pod),
        Level::Container => ("containers", row.container),
    };
    match default.profile {
        Some(_) => "spec.profile".to_owned(),
        None => format!("spec.{parent}.{}", path.unwrap_or_default()),
    }
}

fn named(default: &PolicyDefault, row: &FieldRow, json: &str) -> String {
    match default.profile {
        // The path stands in the field's own path, and this is what is mounted there.
        _ if row.field == Field::WritablePaths => format!("emptyDir {json}"),
        Some(_) => format!("{}: {json}", row.field.name()),
        None => json.to_owned(),
    }
}

// === impl Policy ===

impl Policy {
    /// Its place in the order of tiers, for people.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        match self.rank.0 {
            Order::Admin => "tier Admin",
            Order::Namespace => "a namespace's policy",
            Order::Baseline => "tier Baseline",
        }
    }

    /// Its priority.
    #[must_use]
    pub fn priority(&self) -> i32 {
        let (_, Reverse(priority)) = self.rank;
        priority
    }
}

// === impl Precedence ===

impl Precedence {
    /// Why a policy goes before another one, with what decides of both.
    #[must_use]
    pub fn between<'a>(self, winner: &'a Policy, loser: &'a Policy) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::Tier => write!(f, "{} goes before {}", winner.tier(), loser.tier()),
            Self::Priority => write!(
                f,
                "priority {} goes before {}",
                winner.priority(),
                loser.priority()
            ),
            Self::Name => f.write_str("neither tier nor priority decides, so they go by name"),
        })
    }
}
