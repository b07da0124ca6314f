//! The same decisions in CEL, for an API server that makes them by itself: what a list of policies does to a
//! pod, as the variables and the JSON Patch of a `MutatingAdmissionPolicy`.
//!
//! What is known when a policy is compiled is decided then, and only what a pod can say is asked in CEL: a
//! policy without selectors leaves no trace but its values. The parts are those of a plan, in its order:
//! who decides ([`choose`]), how each shape of field is filled (`rows`), what holds it back (`check::cel`,
//! beside the guards themselves), the record of it (`record`) and the patch (`patch`).
//!
//! Each field has up to three variables, each of which holds *outcomes*: `{}` where nothing is done,
//! `{"by": policy, "value": value}` for a fill, `{"held": guard}` for what a guard holds back. `…OfContainers`
//! is a list with an outcome for each of `variables.containers` (for a list or paths: a list of outcomes),
//! `…OfPod` one for the pod, and `…Spread` what cannot stand at pod level and is written on each container
//! that can take it.

pub(crate) mod choose;
mod layout;
mod patch;
mod record;
pub(crate) mod rows;
pub(crate) mod text;

use std::collections::BTreeSet;

use hardening_api::policy::{ContainerKind, Mode};

use crate::fill::Candidate;
use crate::policy::{Policy, PolicyRef};
use crate::policy_set::{Automount, PolicySet};
use crate::selector::Is;

use self::text::{all, not, text, texts};

/// A variable of a `MutatingAdmissionPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name: expressions after it know it as `variables.NAME`.
    pub name: String,
    /// What it is.
    pub expression: String,
}

/// How deep an expression may nest: the API server's parser takes 250 levels, and counts some things twice.
pub const MOST_NESTED: usize = 200;

/// What policies do, as the parts of a `MutatingAdmissionPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The variables, each after those that it uses.
    pub variables: Vec<Variable>,
    /// The expression of its one JSON Patch: a list of operations.
    pub patch: String,
    /// What CEL cannot know, and was decided the safe way.
    pub notes: BTreeSet<Note>,
}

impl Mutation {
    /// All its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        let variables = self.variables.iter();
        let variables = variables.map(|variable| &*variable.expression);
        variables.chain([&*self.patch])
    }

    /// How deep the deepest of its expressions nests.
    #[must_use]
    pub fn nesting(&self) -> usize {
        self.expressions().map(layout::nesting).max().unwrap_or(0)
    }

    /// The same over several lines, for those who read it; longer by the space before each.
    #[must_use]
    pub fn laid_out(&self) -> Self {
        let variable = |variable: &Variable| Variable {
            name: variable.name.clone(),
            expression: layout::laid_out(&variable.expression),
        };
        Self {
            variables: self.variables.iter().map(variable).collect(),
            patch: layout::laid_out(&self.patch),
            notes: self.notes.clone(),
        }
    }
}

/// What CEL cannot know, and was decided the safe way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Note {
    /// A RuntimeClass that is not known to exist.
    #[error(
        "{policy}: runtimeClassName {class} is not filled in: no such RuntimeClass is among what is compiled"
    )]
    RuntimeClass {
        /// The policy that names it.
        policy: String,
        /// The class.
        class: String,
    },
    /// What service accounts say about their token is known of some only.
    #[error(
        "{policy}: automountServiceAccountToken is filled in only for the service accounts that are among what is compiled"
    )]
    ServiceAccounts {
        /// The policy that has a say in the token.
        policy: String,
    },
}

/// The pods for which policies are compiled.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Those of some namespaces, of which is known which policies they have: namespace selectors need not
    /// be asked.
    Known(&'a [&'a str]),
    /// Those of one namespace, of whose labels nothing is known.
    Unlabelled(&'a str),
    /// Those of namespaces of which nothing is known.
    Unknown,
}

/// The kinds of containers, in the order in which a plan goes through them.
const KINDS: [ContainerKind; 3] = [
    ContainerKind::InitContainer,
    ContainerKind::Container,
    ContainerKind::EphemeralContainer,
];

/// Policies on their way to CEL.
pub(crate) struct Compiler<'a> {
    set: &'a PolicySet,
    scope: Scope<'a>,
    /// In order, each with what must hold for a pod to have it.
    policies: Vec<(&'a Policy, String)>,
    variables: Vec<Variable>,
    notes: BTreeSet<Note>,
    segments: Vec<record::Segment>,
}

/// Compiles what these policies, in their order, do to a pod. Those in mode Audit do nothing.
///
/// `set` is asked for RuntimeClasses and service accounts alone.
#[must_use]
pub fn mutation<'a>(policies: &[&'a Policy], set: &'a PolicySet, scope: Scope<'a>) -> Mutation {
    let enforced = policies
        .iter()
        .filter(|policy| policy.mode() == Mode::Enforce);
    let mut compiler = Compiler {
        set,
        scope,
        policies: Vec::new(),
        variables: Vec::new(),
        notes: BTreeSet::new(),
        segments: Vec::new(),
    };
    compiler.pod();
    for (rank, policy) in enforced.copied().enumerate() {
        let condition = match applies(policy, scope) {
            condition if condition == "true" => condition,
            condition => compiler.variable(&format!("isFor{}", rank + 1), condition),
        };
        compiler.policies.push((policy, condition));
    }
    compiler.rows();
    compiler.record();
    let patch = compiler.patch();
    compiler.drop_unused(&patch);
    Mutation {
        variables: compiler.variables,
        patch,
        notes: compiler.notes,
    }
}

/// What must hold for a pod to have a policy.
fn applies(policy: &Policy, scope: Scope<'_>) -> String {
    let accounts = match policy.service_accounts() {
        [] => "true".to_owned(),
        names => format!(
            "variables.account in {}",
            texts(names.iter().map(|name| &**name))
        ),
    };
    let namespaces = match scope {
        Scope::Known(_) => "true".to_owned(),
        Scope::Unlabelled(_) | Scope::Unknown => {
            selects(policy.namespace_selector.requirements(), "namespaceLabels")
        }
    };
    let pods = selects(policy.pod_selector.requirements(), "labels");
    all([namespaces, accounts, pods])
}

fn selects<'s>(requirements: impl Iterator<Item = (&'s str, &'s Is)>, labels: &str) -> String {
    all(requirements.map(|(key, is)| {
        let present = format!("{} in variables.{labels}", text(key));
        let among = |values: &[std::sync::Arc<str>]| {
            let values = texts(values.iter().map(|value| &**value));
            all([
                present.clone(),
                format!("variables.{labels}[{}] in {values}", text(key)),
            ])
        };
        match is {
            Is::In(values) => among(values),
            Is::NotIn(values) => not(&among(values)),
            Is::Present => present,
            Is::Absent => not(&present),
        }
    }))
}

impl<'a> Compiler<'a> {
    /// Adds a variable; how it is said.
    fn variable(&mut self, name: &str, expression: String) -> String {
        self.variables.push(Variable {
            name: name.to_owned(),
            expression,
        });
        format!("variables.{name}")
    }

    /// What is known of the cluster.
    pub(crate) fn set(&self) -> &'a PolicySet {
        self.set
    }

    /// What the service accounts in scope say to a default for their token.
    pub(crate) fn automount(&self, mount: bool) -> Automount {
        let namespaces = match &self.scope {
            Scope::Known(namespaces) => Some(*namespaces),
            Scope::Unlabelled(namespace) => Some(std::slice::from_ref(namespace)),
            Scope::Unknown => None,
        };
        self.set.automounts(namespaces, mount)
    }

    /// Whether there is a variable of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.variables.iter().any(|variable| variable.name == name)
    }

    /// What is read from the pod.
    fn pod(&mut self) {
        for (name, expression) in [
            (
                "running",
                r#"request.?subResource.orValue("") == "ephemeralcontainers""#,
            ),
            ("annotations", "object.metadata.?annotations.orValue({})"),
            ("labels", "object.metadata.?labels.orValue({})"),
            (
                "namespaceLabels",
                "namespaceObject.metadata.?labels.orValue({})",
            ),
            (
                "account",
                r#"[string(object.spec.?serviceAccountName.orValue("")), "default"].filter(name, name != "")[0]"#,
            ),
            (
                "windows",
                r#"object.spec.?os.?name.orValue(object.spec.?nodeSelector["kubernetes.io/os"].orValue("")) == "windows""#,
            ),
            ("podContext", "object.spec.?securityContext.orValue({})"),
            ("containers", &containers()),
            ("injectedTokens", crate::token::INJECTED_IN_CEL),
            (
                "filledBefore",
                &format!(
                    r#"variables.annotations[?{}].orValue("")"#,
                    text(crate::record::FILLED)
                ),
            ),
            (
                "withheldBefore",
                &format!(
                    r#"variables.annotations[?{}].orValue("")"#,
                    text(crate::record::WITHHELD)
                ),
            ),
        ] {
            self.variable(name, expression.to_owned());
        }
    }

    /// Drops the variables that nothing needs, and that would only stand in a reader's way.
    fn drop_unused(&mut self, patch: &str) {
        let mut kept: Vec<Variable> = Vec::new();
        for variable in std::mem::take(&mut self.variables).into_iter().rev() {
            let said = format!("variables.{}", variable.name);
            let uses = |text: &str| {
                text.match_indices(&said).any(|(at, _)| {
                    let after = text
                        .get(at + said.len()..)
                        .and_then(|rest| rest.chars().next());
                    !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
                })
            };
            if uses(patch) || kept.iter().any(|user| uses(&user.expression)) {
                kept.push(variable);
            }
        }
        kept.reverse();
        self.variables = kept;
    }
}

/// The containers that may be changed, with where they stand and how the record says it: all while the pod is
/// being created, only the new ephemeral ones once it runs.
fn containers() -> String {
    let list = |kind: ContainerKind, and: &str| {
        let list = crate::plan::list_of(kind);
        format!(
            r#"object.spec.?{list}.orValue([]).transformList(i, c{and}, {{"kind": dyn("{kind}"), "at": dyn("/spec/{list}/" + string(i)), "name": dyn("spec.{list}[" + c.name + "]"), "it": dyn(c), "context": dyn(c.?securityContext.orValue({{}}))}})"#,
            kind = kind_name(kind),
        )
    };
    let old = "oldObject.spec.?ephemeralContainers.orValue([])";
    let is_new = format!(", !{old}.exists(old, old.name == c.name)");
    format!(
        "variables.running ? {} : {} + {}",
        list(ContainerKind::EphemeralContainer, &is_new),
        list(ContainerKind::InitContainer, ""),
        list(ContainerKind::Container, ""),
    )
}

fn kind_name(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Container => "Container",
        ContainerKind::InitContainer => "InitContainer",
        ContainerKind::EphemeralContainer => "EphemeralContainer",
    }
}

/// A policy as the record names it.
fn policy_name(policy: &PolicyRef) -> String {
    text(&policy.to_string())
}

/// What a fill comes to.
fn filled(candidate: &Candidate<'_>, value: &str) -> String {
    format!(
        r#"{{"by": dyn({}), "value": dyn({value})}}"#,
        policy_name(candidate.policy.reference())
    )
}
