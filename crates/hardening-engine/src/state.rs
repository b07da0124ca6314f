//! What a pod has, at both levels, while a plan is being made: what its author wrote, and then each fill.

use hardening_api::policy::ContainerKind;

use crate::defaults::Value;
use crate::field::{FIELDS, Field, FieldSet};
use crate::pod::{Container, Pod, Spec};

/// Ids above this have no place in a user namespace of the usual size.
const LAST_MAPPED_ID: i64 = 65535;

/// A place that has fields: the pod, or one of the plan's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Pod,
    Container(usize),
}

#[derive(Debug)]
pub(crate) struct State<'a> {
    pub(crate) pod: &'a Pod<'a>,
    pub(crate) spec: &'a Spec<'a>,
    pub(crate) pod_level: Slot,
    /// The fields at pod level that count as the author's: a container's default does not go before them.
    pub(crate) authors: FieldSet,
    pub(crate) containers: Vec<ContainerState<'a>>,
    pub(crate) windows: bool,
    /// Whether the pod exists already, and takes new ephemeral containers only.
    pub(crate) running: bool,
    pub(crate) host_users: Option<bool>,
    pub(crate) has_unmappable_id: bool,
    /// Items of lists that were filled in, by their keys.
    pub(crate) filled_items: Vec<(At, Field, &'a str)>,
}

#[derive(Debug)]
pub(crate) struct ContainerState<'a> {
    pub(crate) kind: ContainerKind,
    /// Where it stands in its list.
    pub(crate) index: usize,
    pub(crate) container: &'a Container<'a>,
    pub(crate) slot: Slot,
    /// Whether this plan made its root filesystem read-only.
    pub(crate) made_read_only: bool,
}

/// What is set at one place, and the values that guards look at.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) has: FieldSet,
    /// What the pod came with.
    pub(crate) written: FieldSet,
    pub(crate) user: Option<i64>,
    pub(crate) non_root: Option<bool>,
    pub(crate) allow_privilege_escalation: Option<bool>,
}

impl<'a> State<'a> {
    /// `None` where the pod has no spec: there is nothing to fill.
    pub(crate) fn of(pod: &'a Pod<'a>) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let context = spec.security_context.as_ref();
        let has = spec.written();
        let pod_level = Slot {
            has,
            written: has,
            user: context.and_then(|context| context.run_as_user),
            non_root: context.and_then(|context| context.run_as_non_root),
            allow_privilege_escalation: None,
        };
        let containers = pod
            .containers()
            .filter(|(kind, _, container)| is_open(pod, *kind, container));
        let mut state = Self {
            pod,
            spec,
            pod_level,
            authors: has.without(filled_earlier(pod)),
            containers: containers
                .map(|(kind, index, container)| ContainerState::of(kind, index, container))
                .collect(),
            windows: spec.is_windows(),
            running: pod.running.is_some(),
            host_users: spec.host_users,
            has_unmappable_id: false,
            filled_items: Vec::new(),
        };
        state.note_written_ids();
        Some(state)
    }

    fn note_written_ids(&mut self) {
        let spec = self.spec;
        if let Some(context) = &spec.security_context {
            let groups = context.supplemental_groups.iter().flatten().copied();
            let ids = [context.run_as_user, context.run_as_group, context.fs_group]
                .into_iter()
                .flatten();
            ids.chain(groups).for_each(|id| self.note_id(id));
        }
        for (_, _, container) in self.pod.containers() {
            if let Some(context) = &container.security_context {
                [context.run_as_user, context.run_as_group]
                    .into_iter()
                    .flatten()
                    .for_each(|id| self.note_id(id));
            }
        }
    }

    /// Takes note of a user or group id that the pod has.
    pub(crate) fn note_id(&mut self, id: i64) {
        self.has_unmappable_id |= !is_mappable(id);
    }

    pub(crate) fn slot(&self, at: At) -> &Slot {
        match at {
            At::Pod => &self.pod_level,
            At::Container(i) => self
                .containers
                .get(i)
                .map_or(&self.pod_level, |container| &container.slot),
        }
    }

    /// Takes note of a fill.
    pub(crate) fn set(&mut self, at: At, field: Field, value: &Value) {
        if let Some(id) = value.id() {
            self.note_id(id);
        }
        if field == Field::HostUsers {
            self.host_users = value.bool();
        }
        let slot = match at {
            At::Pod => &mut self.pod_level,
            At::Container(i) => match self.containers.get_mut(i) {
                Some(container) => {
                    container.made_read_only |=
                        field == Field::ReadOnlyRootFilesystem && value.bool() == Some(true);
                    &mut container.slot
                }
                None => return,
            },
        };
        slot.has.insert(field);
        match field {
            Field::RunAsUser => slot.user = value.id(),
            Field::RunAsNonRoot => slot.non_root = value.bool(),
            Field::AllowPrivilegeEscalation => slot.allow_privilege_escalation = value.bool(),
            _ => {}
        }
    }

    /// The keys of the items that were filled into a list.
    pub(crate) fn filled_items(&self, at: At, field: Field) -> impl Iterator<Item = &'a str> {
        let of =
            move |(a, f, key): &(At, Field, &'a str)| (*a == at && *f == field).then_some(*key);
        self.filled_items.iter().filter_map(of)
    }

    /// The user that is in force: the container's own, else the pod's.
    pub(crate) fn effective_user(&self, at: At) -> Option<i64> {
        self.slot(at).user.or(self.pod_level.user)
    }

    /// The `runAsNonRoot` that is in force.
    pub(crate) fn effective_non_root(&self, at: At) -> Option<bool> {
        self.slot(at).non_root.or(self.pod_level.non_root)
    }

    /// Whether the container is known to run as the administrator that the kubelet counts as root.
    pub(crate) fn runs_as_root(&self, at: At) -> bool {
        let windows_user = match at {
            At::Pod => None,
            At::Container(i) => self
                .containers
                .get(i)
                .and_then(|c| c.container.windows_user()),
        };
        let windows_user = windows_user.or_else(|| self.spec.windows_user());
        self.effective_user(at) == Some(0)
            || (self.windows
                && windows_user
                    .is_some_and(|user| user.eq_ignore_ascii_case("ContainerAdministrator")))
    }
}

/// Whether an id has a place in a user namespace.
pub(crate) fn is_mappable(id: i64) -> bool {
    id <= LAST_MAPPED_ID
}

/// Whether a container may be changed: all while the pod is being created, only the new ephemeral ones
/// once it runs.
fn is_open(pod: &Pod<'_>, kind: ContainerKind, container: &Container<'_>) -> bool {
    let Some(running) = &pod.running else {
        return true;
    };
    kind == ContainerKind::EphemeralContainer && !running.contains(&container.name)
}

/// The pod-level fields that this product filled in earlier, in an earlier round or when the pod was
/// created. Its own fill must not pass for the author's word when a container is added later.
fn filled_earlier(pod: &Pod<'_>) -> FieldSet {
    let mut earlier = FieldSet::default();
    let record = pod
        .annotations()
        .and_then(|annotations| annotations.filled.as_ref());
    let Some(record) = record else {
        return earlier;
    };
    // Found without reading it as JSON: a pod that needs nothing is to cost next to nothing.
    for (_, rest) in record
        .as_str()
        .match_indices(POD_LEVEL)
        .map(|(at, _)| record.as_str().split_at(at + POD_LEVEL.len()))
    {
        let path = rest.split('"').next().unwrap_or_default();
        let row = FIELDS
            .iter()
            .find(|row| row.is_two_level() && row.pod == Some(path));
        if let Some(row) = row {
            earlier.insert(row.field);
        }
    }
    earlier
}

/// How a field at pod level begins in a record.
const POD_LEVEL: &str = "\"spec.";

impl<'a> ContainerState<'a> {
    fn of(kind: ContainerKind, index: usize, container: &'a Container<'a>) -> Self {
        let context = container.security_context.as_ref();
        let written = container.written();
        Self {
            kind,
            index,
            container,
            slot: Slot {
                has: written,
                written,
                user: context.and_then(|context| context.run_as_user),
                non_root: context.and_then(|context| context.run_as_non_root),
                allow_privilege_escalation: context
                    .and_then(|context| context.allow_privilege_escalation),
            },
            made_read_only: false,
        }
    }
}
