//! What happened in generated cases, so that a run tells how much it has shown.

use std::collections::BTreeMap;
use std::fmt;

use hardening_engine::{FIELDS, Field, Guard, Plan};
use pod_security_standards::{CHECKS, CheckId, Evaluation, Level};

use super::api::Refusal;

/// What can happen in a case, and is counted.
pub(crate) trait Sight {
    type Tally: Count<Self>;
}

/// What happened in all cases.
pub(crate) trait Count<S: ?Sized>: Default + fmt::Display {
    /// Counts a case that held.
    fn add(&mut self, seen: &S);

    /// Counts what the API server refuses in any case.
    fn refuse(&mut self, refusal: &Refusal);
}

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
    pub(crate) admitted: usize,
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

impl Sight for Seen {
    type Tally = Tally;
}

impl Count<Seen> for Tally {
    fn add(&mut self, seen: &Seen) {
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

    fn refuse(&mut self, refusal: &Refusal) {
        let reason = what_is_wrong(&refusal.message);
        *self.refused.entry(reason).or_default() += 1;
    }
}

impl Tally {
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

// === Pod Security Standards ===

/// What the API server and the crate agreed on, which is what the evaluation says.
#[derive(Debug)]
pub(crate) struct Agreed(pub(crate) Evaluation);

/// How many pods each level let pass and refused, and each check.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    refused: BTreeMap<String, usize>,
    levels: BTreeMap<Level, Passes>,
    checks: BTreeMap<CheckId, Passes>,
    /// Fields of which something was told, without what tells one from others of its kind.
    fields: BTreeMap<String, usize>,
    /// Cases of each version that a namespace may ask for.
    versions: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Passes {
    passed: usize,
    failed: usize,
}

impl Passes {
    fn add(&mut self, is_passed: bool) {
        self.passed += usize::from(is_passed);
        self.failed += usize::from(!is_passed);
    }
}

impl Sight for Agreed {
    type Tally = Verdicts;
}

impl Count<Agreed> for Verdicts {
    fn add(&mut self, Agreed(evaluation): &Agreed) {
        let Evaluation {
            level,
            version,
            violations,
        } = evaluation;
        self.levels
            .entry(*level)
            .or_default()
            .add(violations.is_empty());
        *self.versions.entry(version.to_string()).or_default() += 1;
        for check in CHECKS
            .iter()
            .filter(|check| check.is_part_of(*level, *version))
        {
            let is_failed = violations.iter().any(|one| one.check == check.id);
            self.checks.entry(check.id).or_default().add(!is_failed);
        }
        for field in violations.iter().flat_map(|one| &one.fields) {
            let kind = field.path.split('/').next().unwrap_or_default();
            let kind = kind.chars().filter(|c| !c.is_ascii_digit()).collect();
            *self.fields.entry(kind).or_default() += 1;
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let reason = match refusal.status {
            400 => "it cannot be read".to_owned(),
            _ => what_is_wrong(&refusal.message),
        };
        *self.refused.entry(reason).or_default() += 1;
    }
}

impl Verdicts {
    /// Cases of a level.
    pub(crate) fn of(&self, level: Level) -> usize {
        let passes = self.levels.get(&level).copied().unwrap_or_default();
        passes.passed + passes.failed
    }

    /// Whether most cases were cases, and both answers were given at each level and by each of these checks.
    pub(crate) fn assert_complete(&self, checks: &[CheckId]) {
        let refused: usize = self.refused.values().sum();
        let judged: usize = self
            .levels
            .values()
            .map(|level| level.passed + level.failed)
            .sum();
        assert!(judged > 4 * refused, "too many cases are none:\n{self}");
        let is_one_sided = |passes: Option<&Passes>| {
            passes.is_none_or(|passes| passes.passed == 0 || passes.failed == 0)
        };
        let levels = [Level::Baseline, Level::Restricted];
        let levels = levels
            .into_iter()
            .filter(|level| is_one_sided(self.levels.get(level)));
        let levels: Vec<Level> = levels.collect();
        let checks = checks.iter().filter(|id| is_one_sided(self.checks.get(id)));
        let checks: Vec<_> = checks.collect();
        assert!(
            levels.is_empty() && checks.is_empty(),
            "always the same answer: {levels:?} {checks:?}\n{self}"
        );
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: usize = self.refused.values().sum();
        let levels: Vec<String> = self
            .levels
            .iter()
            .map(|(level, Passes { passed, failed })| {
                format!("{level} {passed} allowed and {failed} denied")
            })
            .collect();
        writeln!(
            f,
            "{}, each text as foretold; {refused} refused for other reasons",
            levels.join(", ")
        )?;
        for (reason, count) in &self.refused {
            writeln!(f, "  refused {count:>5} {reason}")?;
        }
        for (id, Passes { passed, failed }) in &self.checks {
            writeln!(f, "  {id:<28} passed {passed:>6} failed {failed:>6}")?;
        }
        for (field, count) in &self.fields {
            writeln!(f, "  told {count:>8} {field}")?;
        }
        for (version, count) in &self.versions {
            writeln!(f, "  {version:<8} {count:>6}")?;
        }
        Ok(())
    }
}
