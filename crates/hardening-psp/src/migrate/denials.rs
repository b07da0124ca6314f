//! The denying half of everything: for each part of the pods one policy, which admits what any of the PSPs usable
//! there admitted.

use std::collections::BTreeMap;

use hardening_api::policy::Mode;

use crate::deny::{Action, Candidate, deny, notes};
use crate::migrate::names::Taken;
use crate::migrate::usable::{Segment, Usable};
use crate::migrate::{Input, Migration, Remark};
use crate::note::Note;

/// How many characters of PSPs' names make a policy's name.
const LONGEST: usize = 100;

/// Adds the ValidatingAdmissionPolicies and their bindings.
pub(super) fn add(migration: &mut Migration, input: &Input<'_>) {
    let mut taken = Taken::default();
    let mut objects = Vec::new();
    let mut closed = Vec::new();
    for Segment { scope, usable, .. } in &migration.segments {
        let candidates = candidates(usable, migration);
        let names: Vec<&str> = candidates.keys().copied().collect();
        let name = taken.name(&joined(&names), &[]);
        // Where 1.24 admitted nothing at all, few clusters rely on it, and some have never noticed.
        let action = match (input.mode, candidates.is_empty()) {
            (Mode::Enforce, false) => Action::Deny,
            (Mode::Enforce, true) | (Mode::Audit, _) => Action::WarnAndAudit,
        };
        if candidates.is_empty() {
            closed.push((scope.clone(), name.clone()));
        }
        let candidates: Vec<Candidate<'_>> = candidates.into_values().collect();
        objects.extend(deny(&name, &candidates, scope, action).objects);
    }
    migration.admission = objects;
    for (name, psp) in &migration.psps {
        let usable = migration.segments.iter().map(|segment| &segment.usable);
        let notes = match usable.into_iter().any(|usable| usable.has(name)) {
            true => notes(&psp.policy),
            false => vec![Note::new(
                "metadata.name",
                "by the roles and bindings that are given, nobody could use it, so nothing is made of it",
                "give the roles and bindings that are missing, if any are",
            )],
        };
        migration
            .remarks
            .extend(notes.into_iter().map(|note| Remark {
                psp: Some(name.clone()),
                scopes: Vec::new(),
                note,
            }));
    }
    migration.remarks.extend(closed.into_iter().map(|(scope, name)| Remark {
        psp: None,
        scopes: vec![scope],
        note: Note::new(
            "spec",
            format!(
                "no PSP was usable there, so every pod was denied; the ValidatingAdmissionPolicy {name} only warns of such pods and has them audited"
            ),
            "change validationActions of its binding to [Deny] where that was meant so",
        ),
    }));
}

/// The PSPs that may admit pods, by name.
fn candidates<'a>(
    usable: &'a Usable,
    migration: &'a Migration,
) -> BTreeMap<&'a str, Candidate<'a>> {
    let by_account = usable.by_account.iter().map(|psp| (psp, None));
    let by_requester = usable.by_requester.iter();
    let by_requester = by_requester.map(|(psp, requesters)| (psp, Some(requesters.clone())));
    by_account
        .chain(by_requester)
        .filter_map(|(name, requesters)| {
            let policy = &migration.psps.get(name)?.policy;
            Some((name.as_str(), Candidate { policy, requesters }))
        })
        .collect()
}

/// `a`, `a-or-b`, or, where that grows long, `a-or-7-others`.
fn joined(psps: &[&str]) -> String {
    match psps {
        [] => "none".to_owned(),
        [first, others @ ..] => {
            let all = psps.join("-or-");
            match all.len() <= LONGEST || others.is_empty() {
                true => all,
                false => format!("{first}-or-{}-others", others.len()),
            }
        }
    }
}
