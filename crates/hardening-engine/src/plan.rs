//! The plan: which policy fills which field, and which guard held what back. Making it cannot fail.

use std::borrow::Cow;

use hardening_api::policy::{ContainerKind, Profile};
use smallvec::SmallVec;

use crate::defaults::{Item, Value};
use crate::field::Field;
use crate::fill::{self, Pass};
use crate::guard::Guard;
use crate::patch;
use crate::pod::Pod;
use crate::policy::{Policy, PolicyRef};
use crate::policy_set::Matching;
use crate::record::Records;
use crate::state::State;
use crate::token;
use crate::write::{push, write_list, write_string};

/// What is to be done to a pod, and why.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What is filled in.
    pub fills: Vec<Fill<'a>>,
    /// What a guard held back.
    pub withheld: Vec<Withheld<'a>>,
    /// What policies in mode Audit would still fill in.
    pub audited: Vec<Fill<'a>>,
    /// What the API server may add to the pod's annotations, in bytes: no record takes the room for it.
    pub(crate) app_armor_bytes: usize,
    /// Where the API server's token stands, if it is taken out.
    pub(crate) token: token::Places,
    pub(crate) pod: &'a Pod<'a>,
}

/// The place of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The pod.
    Pod,
    /// A container.
    Container {
        /// Which of the pod's lists it stands in.
        kind: ContainerKind,
        /// Where in that list.
        index: usize,
        /// Its name.
        name: &'a str,
    },
}

/// A default that is filled in.
#[derive(Clone, Debug)]
pub struct Fill<'a> {
    /// Where.
    pub target: Target<'a>,
    /// Which field.
    pub field: Field,
    /// The policy that supplies it.
    pub policy: &'a PolicyRef,
    /// The profile that it is part of; `None`: the policy spells it out.
    pub profile: Option<Profile>,
    pub(crate) value: FillValue<'a>,
}

/// Mostly one, a capability: that is no reason to allocate.
pub(crate) type Items<'a> = SmallVec<[&'a Item; 2]>;

#[derive(Clone, Debug)]
pub(crate) enum FillValue<'a> {
    Single(&'a Value),
    /// Some items of a list; the others are there already, or were held back.
    Items(Items<'a>),
}

/// A default that a guard held back.
#[derive(Clone, Debug)]
pub struct Withheld<'a> {
    /// Where.
    pub target: Target<'a>,
    /// Which field.
    pub field: Field,
    /// The item of a list that was held back; `None`: the whole field.
    pub item: Option<&'a str>,
    /// The policy that would have supplied it.
    pub policy: &'a PolicyRef,
    /// The guard.
    pub guard: Guard,
}

/// Plans what the policies fill in.
#[must_use]
pub fn plan<'a>(matching: &Matching<'a>, pod: &'a Pod<'a>) -> Plan<'a> {
    let mut plan = Plan {
        fills: Vec::new(),
        withheld: Vec::new(),
        audited: Vec::new(),
        app_armor_bytes: 0,
        token: token::Places::default(),
        pod,
    };
    if matching.is_empty() || pod.is_mirror() {
        return plan;
    }
    let Some(state) = State::of(pod) else {
        return plan;
    };
    let mut pass = Pass::new(state, matching);
    fill::run(&mut pass, &matching.enforced);
    if pass.fills.iter().any(Fill::is_token_opt_out) {
        plan.token = token::injected(pod);
    }
    plan.app_armor_bytes = pass.app_armor_bytes;
    plan.fills = std::mem::take(&mut pass.fills);
    plan.withheld = std::mem::take(&mut pass.withheld);
    if !matching.audited.is_empty() {
        // As if the pod came with all that was filled in.
        pass.state.authors = pass.state.pod_level.has;
        fill::run(&mut pass, &matching.audited);
        plan.audited = pass.fills;
    }
    plan
}

// === impl Plan ===

impl Plan<'_> {
    /// Whether nothing is filled in. Then there is no patch, not even for a record: any patch costs the
    /// API server over a millisecond.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fills.is_empty()
    }

    /// Writes the RFC 6902 patch, with the plan's own records for the pod's annotations.
    pub fn write_patch(&self, records: &Records, out: &mut Vec<u8>) {
        patch::write(self, records, out);
    }

    /// The patch, typed.
    #[must_use]
    pub fn to_patch(&self) -> json_patch::Patch {
        if self.is_empty() {
            return json_patch::Patch::default();
        }
        let mut json = Vec::new();
        self.write_patch(&self.records(), &mut json);
        // What this crate writes is a patch; a test holds it to that for generated pods.
        serde_json::from_slice(&json).unwrap_or_default()
    }
}

// === impl Fill, Withheld ===

impl<'a> Fill<'a> {
    pub(crate) fn new(
        target: Target<'a>,
        field: Field,
        policy: &'a Policy,
        profile: Option<Profile>,
        value: FillValue<'a>,
    ) -> Self {
        Self {
            target,
            field,
            policy: policy.reference(),
            profile,
            value,
        }
    }

    /// The field's path in the pod, with the container's name in place of its index:
    /// `spec.containers[app].securityContext.allowPrivilegeEscalation`.
    #[must_use]
    pub fn path(&self) -> String {
        path(self.target, self.field)
    }

    /// The value that is filled in, as JSON; of a list, the items that are added.
    #[must_use]
    pub fn value_json(&self) -> String {
        let mut out = Vec::new();
        match &self.value {
            FillValue::Single(value) => value.write_json(&mut out),
            FillValue::Items(items) if self.field == Field::WritablePaths => {
                write_list(&mut out, items.iter(), |out, item| {
                    write_string(out, &item.key);
                });
            }
            FillValue::Items(items) => {
                write_list(&mut out, items.iter(), |out, item| {
                    push(out, [&item.json]);
                });
            }
        }
        String::from_utf8(out).unwrap_or_default()
    }

    /// Whether this takes the API server's token out of the pod.
    fn is_token_opt_out(&self) -> bool {
        self.field == Field::AutomountServiceAccountToken
            && matches!(self.value, FillValue::Single(Value::Bool(false)))
    }

    pub(crate) fn items(&self) -> &[&'a Item] {
        match &self.value {
            FillValue::Single(_) => &[],
            FillValue::Items(items) => items,
        }
    }
}

impl Withheld<'_> {
    /// As [`Fill::path`].
    #[must_use]
    pub fn path(&self) -> String {
        path(self.target, self.field)
    }

    /// Why, in one sentence.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        let why = self.guard.explanation();
        let why = match (self.guard, self.field.row().since) {
            (Guard::KubernetesVersion, Some(since)) => {
                Cow::Owned(format!("{why}; the first to keep it is {since}"))
            }
            _ => Cow::Borrowed(why),
        };
        match self.item {
            Some(item) => Cow::Owned(format!("{item}: {why}")),
            None => why,
        }
    }
}

fn path(target: Target<'_>, field: Field) -> String {
    let mut path = Vec::new();
    push_path(&mut path, target, field);
    // Made of texts.
    String::from_utf8(path).unwrap_or_default()
}

/// Writes a field's path, as [`Fill::path`] gives it.
pub(crate) fn push_path(out: &mut Vec<u8>, target: Target<'_>, field: Field) {
    let row = field.row();
    match target {
        Target::Pod => push(out, ["spec.", row.pod.unwrap_or_default()]),
        Target::Container { kind, name, .. } => {
            let field = row.container.unwrap_or_default();
            push(out, ["spec.", list_of(kind), "[", name, "].", field]);
        }
    }
}

/// The list of the pod's spec that holds the containers of a kind.
pub(crate) fn list_of(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Container => "containers",
        ContainerKind::InitContainer => "initContainers",
        ContainerKind::EphemeralContainer => "ephemeralContainers",
    }
}
