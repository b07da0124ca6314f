//! What happened in generated cases, so that a run tells how much it has shown.

use std::collections::BTreeMap;
use std::fmt;

use hardening_engine::{FIELDS, Field, Guard, Plan};

use super::api::Refusal;

/// What happened in one case.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) filled: Vec<Field>,
    pub(crate) withheld: Vec<Guard>,
    pub(crate) audited: usize,
    pub(crate) token_removed: bool,
}

/// What happened in all cases.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    admitted: usize,
    refused: BTreeMap<String, usize>,
    /// Cases in which something was filled in.
    patched: usize,
    audited: usize,
    token_removed: usize,
    filled: BTreeMap<Field, usize>,
    withheld: BTreeMap<Guard, usize>,
}

impl Seen {
    /// What a plan does and does not.
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        Self {
            filled: plan.fills.iter().map(|fill| fill.field).collect(),
            withheld: plan.withheld.iter().map(|held| held.guard).collect(),
            audited: plan.audited.len(),
            token_removed: false,
        }
    }
}

impl Tally {
    /// Counts a case that held.
    pub(crate) fn add(&mut self, seen: &Seen) {
        let Seen {
            filled,
            withheld,
            audited,
            token_removed,
        } = seen;
        self.admitted += 1;
        self.patched += usize::from(!filled.is_empty());
        self.audited += audited;
        self.token_removed += usize::from(*token_removed);
        for field in filled {
            *self.filled.entry(*field).or_default() += 1;
        }
        for guard in withheld {
            *self.withheld.entry(*guard).or_default() += 1;
        }
    }

    /// Counts a case that the API server refuses without us.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        let reason = what_is_wrong(&refusal.message);
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Whether most cases were cases, and in which each of these fields and guards took part.
    pub(crate) fn assert_complete(&self, fields: &[Field], guards: &[Guard]) {
        let refused: usize = self.refused.values().sum();
        assert!(self.admitted > refused, "most cases are none:\n{self}");
        let idle_fields: Vec<_> = fields
            .iter()
            .filter(|field| !self.filled.contains_key(field))
            .collect();
        let idle_guards: Vec<_> = guards
            .iter()
            .filter(|guard| !self.withheld.contains_key(guard))
            .collect();
        assert!(
            idle_fields.is_empty() && idle_guards.is_empty(),
            "never filled: {idle_fields:?}, never withheld: {idle_guards:?}\n{self}"
        );
    }
}

/// The first thing that is wrong with a pod, without what tells it from others: names and numbers.
fn what_is_wrong(message: &str) -> String {
    let after = [" is invalid: ", " is forbidden: "]
        .into_iter()
        .find_map(|words| Some(message.split_once(words)?.1));
    let first = after.unwrap_or(message).trim_start_matches('[');
    let first = first
        .split_once(", spec.")
        .map_or(first, |(first, _)| first);
    first
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .take(120)
        .collect()
}

/// Every field of the table.
pub(crate) fn all_fields() -> Vec<Field> {
    FIELDS.iter().map(|row| row.field).collect()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: usize = self.refused.values().sum();
        writeln!(
            f,
            "{} cases: {} admitted without us and with us, {} of them patched; {refused} refused without us",
            self.admitted + refused,
            self.admitted,
            self.patched,
        )?;
        for (reason, count) in &self.refused {
            writeln!(f, "  refused {count:>5} {reason}")?;
        }
        for (field, count) in &self.filled {
            writeln!(f, "  filled {count:>6} {}", field.name())?;
        }
        for (guard, count) in &self.withheld {
            writeln!(f, "  withheld {count:>4} {}", guard.name())?;
        }
        writeln!(
            f,
            "  {} tokens taken out, {} fills told in Audit mode",
            self.token_removed, self.audited
        )
    }
}
