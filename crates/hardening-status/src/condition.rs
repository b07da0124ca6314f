//! What is said of a policy, and how it becomes conditions. Pure: the time is given.

use std::fmt::Write as _;

use hardening_api::PolicyKind;
use hardening_api::status::{PolicyStatus, condition, reason};
use hardening_engine::overlap::{Conflict, conflicts};
use hardening_engine::{InvalidPolicy, Policy, PolicyKey};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The conditions that this program writes. Others are others' and stay as they are.
const OURS: [&str; 3] = [
    condition::ACCEPTED,
    condition::OVERLAPPING,
    condition::COMPILED,
];

/// The longest message, in characters: there may be many policies, and the API server keeps each message
/// for each change.
const LONGEST: usize = 1000;

/// How many policies that differ are looked for. Counting all of them would rewrite ten thousand messages
/// when one policy comes.
pub(crate) const COUNTED: usize = 10;

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is.
    True,
    /// It is not.
    False,
    /// It cannot be told.
    Unknown,
}

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What it is about: one of [`condition`].
    pub type_: &'static str,
    /// Whether it is so.
    pub truth: Truth,
    /// Why, in one word in `CamelCase`.
    pub reason: String,
    /// Why, for people; it is cut when it is long.
    pub message: String,
    /// The policy's `metadata.generation` that was judged; `None` where it has none.
    pub generation: Option<i64>,
}

/// Whether a policy can be used.
pub(crate) fn accepted(invalid: Option<&InvalidPolicy>, generation: Option<i64>) -> Judgement {
    let (truth, reason, message) = match invalid {
        None => (
            Truth::True,
            reason::VALID,
            "the policy is in use".to_owned(),
        ),
        Some(invalid) => (Truth::False, reason::INVALID, invalid.to_string()),
    };
    Judgement {
        type_: condition::ACCEPTED,
        truth,
        reason: reason.to_owned(),
        message,
        generation,
    }
}

/// Whether others, which can be for the same pods, differ from a policy: at most [`COUNTED`] of them, in the
/// order in which policies are asked. `policy` is `None` where it is not accepted.
pub(crate) fn overlapping(
    policy: Option<&Policy>,
    others: &[&Policy],
    generation: Option<i64>,
) -> Judgement {
    let said = policy.map(|policy| others.first().and_then(|other| differs(policy, other)));
    let (truth, reason, message) = match said {
        None => (
            Truth::Unknown,
            reason::NOT_ACCEPTED,
            "the policy is not accepted".to_owned(),
        ),
        Some(None) => (
            Truth::False,
            reason::NO_DIFFERENCE,
            "no policy that can be for the same pods gives a field another value".to_owned(),
        ),
        Some(Some(mut message)) => {
            // A String takes whatever is written to it.
            let _ = match others.len() {
                1 => Ok(()),
                2 => write!(message, "; 1 more policy differs from it"),
                n if n < COUNTED => write!(message, "; {} more policies differ from it", n - 1),
                _ => write!(
                    message,
                    "; at least {} more policies differ from it",
                    COUNTED - 1
                ),
            };
            (Truth::True, reason::DIFFERENT_VALUES, message)
        }
    };
    Judgement {
        type_: condition::OVERLAPPING,
        truth,
        reason: reason.to_owned(),
        message,
        generation,
    }
}

/// Where a policy and another one differ first, in the words of the policy's own fields.
fn differs(policy: &Policy, other: &Policy) -> Option<String> {
    let conflicts = conflicts(policy, other);
    let Conflict {
        losing_path,
        losing,
        winning_path,
        winning,
    } = conflicts.first()?;
    let more = match conflicts.len() {
        1 => String::new(),
        2 => " (and 1 more field)".to_owned(),
        n => format!(" (and {} more fields)", n - 1),
    };
    let (own, others) = (title(policy.key()), title(other.key()));
    Some(match policy.goes_before(other) {
        Some(why) => format!(
            "{winning_path}{more}: {winning} of {own} wins over {losing} of {others}: {}",
            why.between(policy, other)
        ),
        None => {
            let why = other.goes_before(policy)?;
            format!(
                "{losing_path}{more}: {losing} of {own} gives way to {winning} of {others}: {}",
                why.between(other, policy)
            )
        }
    })
}

/// A policy's kind, namespace and name.
fn title(key: &PolicyKey) -> String {
    match &key.namespace {
        Some(namespace) => format!("{} {namespace}/{}", PolicyKind::Namespaced.name(), key.name),
        None => format!("{} {}", PolicyKind::Cluster.name(), key.name),
    }
}

/// The status that is to be written; `None`: what is there says it already. A condition's time is that of
/// its last change from one truth to another.
pub(crate) fn changed(
    seen: &PolicyStatus,
    judgements: &[Judgement],
    generation: Option<i64>,
    now: &Time,
) -> Option<PolicyStatus> {
    let of_type = |type_: &str| seen.conditions.iter().find(|seen| seen.type_ == type_);
    let conditions: Vec<Condition> = judgements
        .iter()
        .map(|judgement| judgement.condition(of_type(judgement.type_), now))
        .collect();
    let ours = seen
        .conditions
        .iter()
        .filter(|seen| OURS.contains(&seen.type_.as_str()));
    let is_same = seen.observed_generation == generation
        && ours.count() == conditions.len()
        && conditions
            .iter()
            .all(|condition| of_type(&condition.type_) == Some(condition));
    (!is_same).then_some(PolicyStatus {
        observed_generation: generation,
        conditions,
    })
}

// === impl Judgement ===

impl Judgement {
    fn condition(&self, seen: Option<&Condition>, now: &Time) -> Condition {
        let status = match self.truth {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        };
        let since = seen.filter(|seen| seen.status == status);
        Condition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason.clone(),
            message: cut(&self.message),
            observed_generation: self.generation,
            last_transition_time: since.map_or(now, |seen| &seen.last_transition_time).clone(),
        }
    }
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(LONGEST - 1) {
        Some((at, _)) if message.chars().count() > LONGEST => {
            format!("{}…", message.get(..at).unwrap_or_default())
        }
        _ => message.to_owned(),
    }
}
