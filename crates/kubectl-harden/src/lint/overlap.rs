//! Two policies that can be for the same pod and give a field different values.

use std::collections::HashMap;

use hardening_engine::overlap::{Conflict, Overlaps, conflicts};
use hardening_engine::{PolicyKey, Precedence};

use super::policy::Linted;
use super::{Finding, Severity};

/// Policies, each with its place among those that were given.
pub(super) type ByKey<'a> = HashMap<&'a PolicyKey, (usize, &'a Linted)>;

/// Where `policy` gives way to others, policy by policy in the order in which they are given.
pub(super) fn find(
    policy: &Linted,
    all: &ByKey<'_>,
    overlaps: &Overlaps,
    findings: &mut Vec<Finding>,
) {
    let others = overlaps.differing(&policy.policy, usize::MAX);
    let mut winners: Vec<(usize, &Linted, Precedence)> = others
        .into_iter()
        .filter_map(|other| {
            let precedence = other.goes_before(&policy.policy)?;
            let (at, winner) = all.get(other.key())?;
            Some((*at, *winner, precedence))
        })
        .collect();
    winners.sort_by_key(|(at, _, _)| *at);
    for (_, winner, precedence) in winners {
        // By name alone is nobody's intention.
        let severity = match precedence {
            Precedence::Tier | Precedence::Priority => Severity::Note,
            Precedence::Name => Severity::Warning,
        };
        for Conflict {
            losing_path,
            losing,
            winning_path: _,
            winning,
        } in conflicts(&policy.policy, &winner.policy)
        {
            let message = format!(
                "{losing} gives way to {winning} of {} ({}), where both are for a pod: {}",
                winner.object,
                winner.source,
                precedence.between(&winner.policy, &policy.policy)
            );
            findings.push(policy.finding(severity, &losing_path, message));
        }
    }
}
