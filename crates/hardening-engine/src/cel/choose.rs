//! Who decides: the first policy with a default, among those that the pod has.

use hardening_api::policy::ContainerKind;

use crate::defaults::PolicyDefault;
use crate::field::Field;
use crate::fill::Candidate;
use crate::policy::Policy;

use super::text::either;
use super::{Compiler, KINDS, kind_name};

/// Candidates in order, each with what must hold for a pod to have its policy. None follows one that every
/// pod has.
pub(crate) type Choices<'a> = Vec<(String, Candidate<'a>)>;

impl<'a> Compiler<'a> {
    fn choices(&self, default: impl Fn(&'a Policy) -> Option<&'a PolicyDefault>) -> Choices<'a> {
        let mut choices = Vec::new();
        for (rank, (policy, condition)) in self.policies.iter().enumerate() {
            let Some(default) = default(policy) else {
                continue;
            };
            let candidate = Candidate {
                rank,
                policy,
                default,
            };
            choices.push((condition.clone(), candidate));
            if condition == "true" {
                break;
            }
        }
        choices
    }

    pub(crate) fn pod_choices(&self, field: Field) -> Choices<'a> {
        self.choices(|policy| policy.pod_default(field))
    }

    /// For a field of containers only.
    pub(crate) fn container_choices(&self, field: Field, kind: ContainerKind) -> Choices<'a> {
        self.choices(|policy| policy.container_default(field, kind))
    }

    /// For a field of both levels, in a container that leaves it open: as `Pass::decision`.
    pub(crate) fn decisions(&self, field: Field, kind: ContainerKind) -> Choices<'a> {
        self.choices(|policy| {
            policy
                .container_default(field, kind)
                .or_else(|| policy.pod_default(field))
        })
    }
}

/// What is made of the candidate that decides.
pub(crate) fn pick<'a>(
    choices: &Choices<'a>,
    nobody: &str,
    make: impl Fn(&Candidate<'a>) -> String,
) -> String {
    choices
        .iter()
        .rev()
        .fold(nobody.to_owned(), |otherwise, (condition, candidate)| {
            either(condition, make(candidate), otherwise)
        })
}

/// What is so for the kind of the container `n`.
pub(crate) fn by_kind(make: impl Fn(ContainerKind) -> String) -> String {
    let [init, main, ephemeral] = KINDS.map(make);
    let is = |kind| format!(r#"n.kind == "{}""#, kind_name(kind));
    let rest = either(&is(ContainerKind::Container), main, ephemeral);
    either(&is(ContainerKind::InitContainer), init, rest)
}
