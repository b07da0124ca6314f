//! Field by field: what is set on a pod, who set it, and what a guard held back. Every row of the table of
//! fields, for the pod and for each of its containers.

mod lost;

use std::collections::BTreeMap;

use hardening_api::policy::{ContainerKind, Profile};
use hardening_engine::{FIELDS, FILLED, Field, FieldRow, Fill, Guard, Plan, WITHHELD};
use serde_json::Value;

pub(crate) use lost::{Because, Lost, Today};

/// A field of a pod or of one of its containers.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) scope: Scope,
    pub(crate) field: Field,
    /// Its path below the pod's spec, or below the container.
    pub(crate) path: &'static str,
    /// Its value; `None` where it is not set.
    pub(crate) value: Option<Value>,
    /// Who set it, all of them where several contributed items.
    pub(crate) set_by: Vec<SetBy>,
    /// What guards held back.
    pub(crate) withheld: Vec<Withheld>,
    /// What policies in mode Audit would fill in.
    pub(crate) audited: Vec<Would>,
    /// What policies would fill in if a running pod were created now.
    pub(crate) missing: Vec<Would>,
    /// The policies that have a default for it and do not decide.
    pub(crate) lost: Vec<Lost>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Pod,
    Container { kind: ContainerKind, name: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    Author,
    Policy {
        policy: String,
        profile: Option<Profile>,
    },
    /// The container has no value of its own, so that the pod's is in force.
    Pod,
}

#[derive(Debug)]
pub(crate) struct Withheld {
    /// The policy that would have supplied it; not known of a running pod.
    pub(crate) policy: Option<String>,
    pub(crate) guard: &'static str,
    pub(crate) reason: String,
}

/// What a policy would fill in.
#[derive(Debug)]
pub(crate) struct Would {
    pub(crate) policy: String,
    pub(crate) value: String,
}

impl Line {
    /// Its path in the pod, as the engine writes it.
    pub(crate) fn full_path(&self) -> String {
        self.scope.full_path(self.path)
    }

    /// Whether a policy supplied the value, or a part of it.
    pub(crate) fn is_set_by_policy(&self) -> bool {
        let is_policy = |set_by: &SetBy| matches!(set_by, SetBy::Policy { .. });
        self.set_by.iter().any(is_policy)
    }

    /// Whether this is the field that someone asks for: by its name, its path below the pod's spec or the
    /// container, or its whole path.
    pub(crate) fn is(&self, asked: &str) -> bool {
        let full = self.full_path();
        [self.field.name(), self.path, &full].contains(&asked)
            || (self.scope == Scope::Pod && full.strip_prefix("spec.") == Some(asked))
    }
}

/// Explains a pod that is still to be created. `before` is the pod as it was read, `after` the same with
/// what the policies fill in.
pub(crate) fn explain(before: &Value, after: &Value, today: &Today<'_, '_>) -> Vec<Line> {
    let mut lines = explain_plan(before, after, Planned::Done(today.plan));
    lost::tell(&mut lines, today);
    lines
}

/// Explains a running pod, by what is recorded on it, and what the policies of today say, where they are
/// known.
pub(crate) fn explain_running(pod: &Value, today: Option<&Today<'_, '_>>) -> Vec<Line> {
    let Some(today) = today else {
        return explain_plan(pod, pod, Planned::Unknown);
    };
    let mut lines = explain_plan(pod, pod, Planned::Missing(today.plan));
    lost::tell(&mut lines, today);
    lines
}

/// What is planned for a pod.
#[derive(Clone, Copy)]
enum Planned<'p, 'a> {
    /// It is done.
    Done(&'p Plan<'a>),
    /// It would be done if the pod were created now.
    Missing(&'p Plan<'a>),
    /// Nobody knows.
    Unknown,
}

fn explain_plan(before: &Value, after: &Value, planned: Planned<'_, '_>) -> Vec<Line> {
    let records = Records::of(before);
    let mut scopes = vec![(Scope::Pod, "/spec".to_owned())];
    for (list, kind) in LISTS {
        let containers = after
            .pointer(&format!("/spec/{list}"))
            .and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let name = container
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            scopes.push((
                Scope::Container { kind, name },
                format!("/spec/{list}/{index}"),
            ));
        }
    }
    let mut lines = Vec::new();
    for (scope, pointer) in &scopes {
        for row in &FIELDS {
            let path = match scope {
                Scope::Pod => row.pod,
                Scope::Container { .. } => row.container,
            };
            if let Some(path) = path {
                let place = Place {
                    scope,
                    pointer,
                    path,
                };
                lines.push(place.line(row, before, after, planned, &records));
            }
        }
    }
    lines
}

const LISTS: [(&str, ContainerKind); 3] = [
    ("initContainers", ContainerKind::InitContainer),
    ("containers", ContainerKind::Container),
    ("ephemeralContainers", ContainerKind::EphemeralContainer),
];

/// One field in one place.
struct Place<'a> {
    scope: &'a Scope,
    /// The pod's spec, or the container.
    pointer: &'a str,
    path: &'static str,
}

impl Place<'_> {
    fn line(
        &self,
        row: &FieldRow,
        before: &Value,
        after: &Value,
        planned: Planned<'_, '_>,
        records: &Records,
    ) -> Line {
        let full = self.full_path();
        let (done, missing, plan) = match planned {
            Planned::Done(plan) => (plan.fills.as_slice(), &[][..], Some(plan)),
            Planned::Missing(plan) => (&[][..], plan.fills.as_slice(), Some(plan)),
            Planned::Unknown => (&[][..], &[][..], None),
        };
        let here = |fills: &[Fill<'_>]| -> Vec<Would> {
            let here = fills.iter().filter(|fill| fill.path() == full);
            here.map(|fill| Would {
                policy: fill.policy.to_string(),
                value: fill.value_json(),
            })
            .collect()
        };
        let value = self.value(row.field, after);
        let mut set_by = Vec::new();
        let recorded = records.filled.get(&full);
        if recorded.is_none() && self.value(row.field, before).is_some() {
            set_by.push(SetBy::Author);
        }
        for policy in recorded.into_iter().flatten() {
            set_by.push(SetBy::Policy {
                policy: policy.clone(),
                profile: None,
            });
        }
        for fill in done.iter().filter(|fill| fill.path() == full) {
            set_by.push(SetBy::Policy {
                policy: fill.policy.to_string(),
                profile: fill.profile,
            });
        }
        let (value, set_by) = match (value, self.scope) {
            (None, Scope::Container { .. }) if row.is_two_level() => {
                let pods = row.pod.and_then(|path| at(after, "/spec", path));
                let set_by = if pods.is_some() {
                    vec![SetBy::Pod]
                } else {
                    Vec::new()
                };
                (pods, set_by)
            }
            (value, _) => (value, set_by),
        };
        let planned = plan.map_or(&[][..], |plan| &plan.withheld);
        let planned = planned.iter().filter(|held| held.path() == full);
        let mut withheld: Vec<Withheld> = planned
            .map(|held| Withheld {
                policy: Some(held.policy.to_string()),
                guard: held.guard.name(),
                reason: held.reason().into_owned(),
            })
            .collect();
        // What is recorded, but where the policies of today say the same, with the policy's name.
        let recorded = records.withheld.get(&full).into_iter().flatten();
        for held in recorded.map(Held::explain) {
            let told = |told: &Withheld| (told.guard, &told.reason) == (held.guard, &held.reason);
            if !withheld.iter().any(told) {
                withheld.push(held);
            }
        }
        Line {
            scope: self.scope.clone(),
            field: row.field,
            path: self.path,
            value,
            set_by,
            withheld,
            audited: here(plan.map_or(&[], |plan| &plan.audited)),
            missing: here(missing),
            lost: Vec::new(),
        }
    }

    /// The field's path as the engine writes it.
    fn full_path(&self) -> String {
        self.scope.full_path(self.path)
    }

    fn value(&self, field: Field, pod: &Value) -> Option<Value> {
        if field == Field::WritablePaths {
            return self.writable_paths(pod);
        }
        at(pod, self.pointer, self.path)
    }

    /// Where the container has emptyDirs mounted.
    fn writable_paths(&self, pod: &Value) -> Option<Value> {
        let list = |pointer: &str| {
            pod.pointer(pointer)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let volumes = list("/spec/volumes").filter(|volume| volume.get("emptyDir").is_some());
        let names: Vec<&Value> = volumes.filter_map(|volume| volume.get("name")).collect();
        let mounts = list(&format!("{}/volumeMounts", self.pointer));
        let of_emptied =
            mounts.filter(|mount| mount.get("name").is_some_and(|name| names.contains(&name)));
        let paths: Vec<Value> = of_emptied
            .filter_map(|mount| mount.get("mountPath").cloned())
            .collect();
        (!paths.is_empty()).then_some(Value::Array(paths))
    }
}

impl Scope {
    /// The path of a field in here, as the engine writes it.
    fn full_path(&self, path: &str) -> String {
        match self {
            Self::Pod => format!("spec.{path}"),
            Self::Container { kind, name } => {
                let list = LISTS
                    .iter()
                    .find(|(_, listed)| listed == kind)
                    .map_or("", |(list, _)| list);
                format!("spec.{list}[{name}].{path}")
            }
        }
    }
}

/// The value at a dotted path below a pointer. Null and what is empty is as good as absent.
fn at(pod: &Value, pointer: &str, path: &str) -> Option<Value> {
    let value = pod.pointer(&format!("{pointer}/{}", path.replace('.', "/")))?;
    let is_empty = match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    (!is_empty).then(|| value.clone())
}

/// What the pod's annotations record of earlier fills, by field.
#[derive(Default)]
struct Records {
    /// The policies.
    filled: BTreeMap<String, Vec<String>>,
    withheld: BTreeMap<String, Vec<Held>>,
}

/// A guard that held a field, or an item of it, back.
struct Held {
    guard: String,
    item: Option<String>,
}

impl Records {
    fn of(pod: &Value) -> Self {
        let record = |name: &str| -> BTreeMap<String, Vec<String>> {
            let text = pod
                .pointer("/metadata/annotations")
                .and_then(|all| all.get(name))
                .and_then(Value::as_str);
            // The annotation can be edited by whoever may edit the pod; what is no record records nothing.
            text.and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default()
        };
        let mut records = Self::default();
        for (policy, paths) in record(FILLED) {
            for path in paths {
                records.filled.entry(path).or_default().push(policy.clone());
            }
        }
        for (guard, paths) in record(WITHHELD) {
            for path in paths {
                let (path, item) = split_item(&path);
                let held = Held {
                    guard: guard.clone(),
                    item: item.map(str::to_owned),
                };
                records
                    .withheld
                    .entry(path.to_owned())
                    .or_default()
                    .push(held);
            }
        }
        records
    }
}

/// `spec.securityContext.sysctls[net.core.somaxconn]` is the item of a field.
fn split_item(path: &str) -> (&str, Option<&str>) {
    match path
        .strip_suffix(']')
        .and_then(|path| path.rsplit_once('['))
    {
        Some((field, item)) => (field, Some(item)),
        None => (path, None),
    }
}

impl Held {
    fn explain(&self) -> Withheld {
        let guard = Guard::ALL
            .into_iter()
            .find(|guard| guard.name() == self.guard);
        let why = guard.map_or(
            "a guard that this version of kubectl-harden does not know",
            Guard::explanation,
        );
        Withheld {
            policy: None,
            guard: guard.map_or("unknown", Guard::name),
            reason: self
                .item
                .as_ref()
                .map_or_else(|| why.to_owned(), |item| format!("{item}: {why}")),
        }
    }
}

/// What Kubernetes does where a field is not set.
pub(crate) fn kubernetes_default(field: Field) -> &'static str {
    match field {
        Field::RunAsUser => "the image's user",
        Field::RunAsNonRoot
        | Field::ShareProcessNamespace
        | Field::Privileged
        | Field::ReadOnlyRootFilesystem => "false",
        Field::RunAsGroup => "the image's group",
        Field::FsGroup
        | Field::SupplementalGroups
        | Field::Sysctls
        | Field::CapabilitiesAdd
        | Field::WritablePaths => "none",
        Field::FsGroupChangePolicy => "Always",
        Field::SupplementalGroupsPolicy => "Merge",
        Field::SeccompProfile => "Unconfined, unless the kubelet sets a default",
        Field::AppArmorProfile => "the runtime's profile, where nodes have AppArmor",
        Field::SeLinuxOptions => "the runtime's choice, where nodes have SELinux",
        Field::SeLinuxChangePolicy => "MountOption or Recursive, by volume",
        Field::HostUsers | Field::AllowPrivilegeEscalation => "true",
        Field::RuntimeClassName => "the nodes' default runtime",
        Field::AutomountServiceAccountToken => "as the service account says, else true",
        Field::ProcMount => "Default",
        Field::CapabilitiesDrop => "none of the runtime's default set",
    }
}
