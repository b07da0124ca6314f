//! A policy set compiled: `MutatingAdmissionPolicy` objects, with which an API server of Kubernetes 1.36 and
//! later gives pods the same defaults by itself, with their bindings.
//!
//! The API server promises no order among several such policies, so all policies that meet in a pod become
//! one. Namespaces with the same policies share it; and pods of namespaces that nothing is known of get one
//! that asks for the namespace's labels. What it does to a pod is [`hardening_engine::cel`]'s.

mod group;
mod object;

use std::collections::{BTreeMap, BTreeSet};

use hardening_engine::cel::{Mutation, Note, Scope, mutation};
use hardening_engine::{Policy, PolicyKey, PolicySet};
use serde_json::Value;

pub use self::object::{FailurePolicy, LABEL, LABEL_VALUE, SOURCES, VERSION};

/// The namespace whose pods are never touched, as the webhook is not asked about them.
pub const ALWAYS_EXCLUDED: &str = "kube-system";

/// What is not said by the policies.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What becomes of a pod for which an expression fails.
    pub failure_policy: FailurePolicy,
    /// Namespaces whose pods are not touched, besides `kube-system`.
    pub excluded_namespaces: BTreeSet<String>,
}

/// A policy set compiled.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// In the order of their names.
    pub objects: Vec<CompiledPolicy>,
    /// What CEL cannot know, and was decided the safe way.
    pub notes: BTreeSet<Note>,
    /// Why policies could not be compiled. They are in none of the objects.
    pub refused: BTreeMap<PolicyKey, Refusal>,
}

/// A `MutatingAdmissionPolicy` and its binding, both of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPolicy {
    /// The name.
    pub name: String,
    /// The policies that it is made of, in their order.
    pub sources: Vec<PolicyKey>,
    /// The `MutatingAdmissionPolicy`.
    pub policy: Value,
    /// The `MutatingAdmissionPolicyBinding`.
    pub binding: Value,
}

/// Why a policy could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The API server takes no expression of that length.
    #[error(
        "compiled, the policies that meet in namespace {namespace} have an expression of {length} characters; the API server takes {EXPRESSION_LIMIT}"
    )]
    ExpressionTooLong {
        /// A namespace where that is so; `*`: those of which nothing is known.
        namespace: String,
        /// How long the expression is, in characters.
        length: usize,
    },
    /// The API server takes no object of that size.
    #[error(
        "compiled, the policies that meet in namespace {namespace} take {size} bytes; the API server takes {SIZE_LIMIT}"
    )]
    TooLarge {
        /// A namespace where that is so; `*`: those of which nothing is known.
        namespace: String,
        /// How large the object is, in bytes of JSON.
        size: usize,
    },
}

/// The most characters that the API server's CEL compiler takes in one expression.
const EXPRESSION_LIMIT: usize = 100_000;
/// What is safe to store in etcd, whose own limit is 1.5 MiB with all that the API server adds.
const SIZE_LIMIT: usize = 1_000_000;

/// Compiles all policies of a set that are in mode Enforce.
#[must_use]
pub fn compile(set: &PolicySet, options: &Options) -> Compiled {
    let mut compiled = Compiled::default();
    for group in group::groups(set, options) {
        let mut policies = group.policies.clone();
        // What is too much is left out, the last policy first: those before it go before it anyway.
        let made = loop {
            if policies.is_empty() {
                break None;
            }
            let mutation = made_of(&policies, set, &group);
            let object = object::compiled(&policies, &mutation, &group, options);
            match check(&mutation, &object, &group) {
                Ok(()) => break Some((object, mutation.notes)),
                Err(refusal) => {
                    let culprit = culprit(&policies, set, &group, options);
                    let culprit = policies.remove(culprit);
                    compiled.refused.insert(culprit.key().clone(), refusal);
                }
            }
        };
        if let Some((object, notes)) = made {
            compiled.objects.push(object);
            compiled.notes.extend(notes);
        }
    }
    compiled.objects.sort_by(|a, b| a.name.cmp(&b.name));
    compiled
}

fn made_of(policies: &[&Policy], set: &PolicySet, group: &group::Group<'_>) -> Mutation {
    let names = group.namespaces();
    let scope = match &group.reach {
        group::Reach::Known(_) => Scope::Known(&names),
        group::Reach::Unlabelled(namespace) => Scope::Unlabelled(namespace),
        group::Reach::Others(_) => Scope::Unknown,
    };
    mutation(policies, set, scope)
}

fn check(
    mutation: &Mutation,
    object: &CompiledPolicy,
    group: &group::Group<'_>,
) -> Result<(), Refusal> {
    let namespace = || group.namespaces().first().map_or("*", |name| name).to_owned();
    let expressions = mutation
        .variables
        .iter()
        .map(|variable| &variable.expression)
        .chain([&mutation.patch]);
    let longest = expressions.map(|expression| expression.chars().count()).max();
    if let Some(length) = longest.filter(|length| *length > EXPRESSION_LIMIT) {
        return Err(Refusal::ExpressionTooLong {
            namespace: namespace(),
            length,
        });
    }
    let size = object.policy.to_string().len().max(object.binding.to_string().len());
    if size > SIZE_LIMIT {
        return Err(Refusal::TooLarge {
            namespace: namespace(),
            size,
        });
    }
    Ok(())
}

/// Which policy to leave out of those that are too much together: the first that is too much by itself, else
/// the last.
fn culprit(
    policies: &[&Policy],
    set: &PolicySet,
    group: &group::Group<'_>,
    options: &Options,
) -> usize {
    let too_much = |policy: &&Policy| {
        let alone = [*policy];
        let mutation = made_of(&alone, set, group);
        let object = object::compiled(&alone, &mutation, group, options);
        check(&mutation, &object, group).is_err()
    };
    policies
        .iter()
        .position(too_much)
        .unwrap_or_else(|| policies.len().saturating_sub(1))
}
