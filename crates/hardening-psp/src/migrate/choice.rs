//! Whose defaults pods get, where several PSPs are usable for them.
//!
//! 1.24 tried one after the other: it took the first, by name, that admitted a pod as it was, else the first that
//! admitted it once filled in. Defaults know nothing of admission, so one PSP is taken beforehand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::convert::Conversion;

/// What is taken, and what that may do otherwise than 1.24.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choice {
    /// The PSP.
    pub(crate) psp: String,
    pub(crate) doubt: Option<Doubt>,
}

/// Why the choice may be another one than 1.24's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Doubt {
    /// All that were usable, in PSP's order.
    pub(crate) psps: Vec<String>,
    /// The fields in which they fill in different values.
    pub(crate) fields: BTreeSet<String>,
    /// Whether nothing is filled in, where 1.24 sometimes did.
    pub(crate) is_unfilled: bool,
}

/// The PSP that comes first of those that are usable: one that fills in nothing, so that no pod is changed that
/// 1.24 left alone, else the first by name.
pub(crate) fn choose(
    usable: &BTreeSet<&str>,
    psps: &BTreeMap<String, Conversion>,
) -> Option<Choice> {
    let usable = usable.iter().filter_map(|name| psps.get(*name));
    let (mut order, filling): (Vec<&Conversion>, Vec<&Conversion>) =
        usable.partition(|psp| psp.policy.fills_nothing());
    let is_superseded = |psp: &&Conversion| {
        let mut by = order.iter();
        by.any(|one| one.policy.supersedes(&psp.policy))
    };
    let is_exact = !order.is_empty() && filling.iter().all(is_superseded);
    order.extend(filling);
    let first = order.first()?;
    let fields = differing(&order);
    let doubt = (!is_exact && !fields.is_empty()).then(|| Doubt {
        psps: order.iter().map(|psp| psp.policy.name.clone()).collect(),
        fields,
        is_unfilled: first.fills_nothing(),
    });
    Some(Choice {
        psp: first.policy.name.clone(),
        doubt,
    })
}

/// The fields that not all of them give the same value.
fn differing(psps: &[&Conversion]) -> BTreeSet<String> {
    let given: Vec<BTreeMap<String, Value>> = psps.iter().map(|psp| psp.fields()).collect();
    let names: BTreeSet<&String> = given.iter().flat_map(BTreeMap::keys).collect();
    let differs = |name: &&&String| {
        let mut values = given.iter().map(|fields| fields.get(**name));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    names
        .iter()
        .filter(differs)
        .map(|name| (*name).clone())
        .collect()
}
