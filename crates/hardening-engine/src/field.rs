//! The table of fields: what a policy can give a default for, where it stands in a pod, and which guard
//! watches over it. Engine, `explain`, the documentation and the tests are driven by it; adding a field
//! is adding a row (and a member to the types of `hardening-api`, where it gets its schema).

use crate::guard::Guard;
use crate::kubernetes::KubernetesVersion;

/// A field that a policy can give a default for.
///
/// The order is the order in which fields are planned, because some guards look at what was filled
/// before: users before groups and before `runAsNonRoot`, ids before `hostUsers`, `hostUsers` before
/// `procMount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is documented by its row of the table")]
pub enum Field {
    RunAsUser,
    RunAsNonRoot,
    RunAsGroup,
    FsGroup,
    FsGroupChangePolicy,
    SupplementalGroups,
    SupplementalGroupsPolicy,
    SeccompProfile,
    AppArmorProfile,
    SeLinuxOptions,
    SeLinuxChangePolicy,
    Sysctls,
    HostUsers,
    ShareProcessNamespace,
    RuntimeClassName,
    AutomountServiceAccountToken,
    AllowPrivilegeEscalation,
    Privileged,
    ProcMount,
    CapabilitiesDrop,
    CapabilitiesAdd,
    ReadOnlyRootFilesystem,
    WritablePaths,
}

/// What kind of value a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value, taken whole from one policy; structs too.
    Single,
    /// A set or a map: combined over the policies, item by item.
    List,
    /// Paths, each with a volume and a mount of its own.
    Paths,
}

/// A row of the table.
#[derive(Debug)]
pub struct FieldRow {
    /// The field.
    pub field: Field,
    /// Its path below the pod's `spec`, where it exists at pod level.
    pub pod: Option<&'static str>,
    /// Its path below a container, where it exists at container level.
    pub container: Option<&'static str>,
    /// What kind of value it has.
    pub shape: Shape,
    /// Whether it means nothing, or is refused, in a Windows pod.
    pub linux_only: bool,
    /// The first version of Kubernetes whose API server keeps the field with its default feature gates; one
    /// before it drops the field and admits the pod without. `None`: all from 1.24 on do.
    pub since: Option<KubernetesVersion>,
    /// The guards that can hold it back, besides those that hold for every field.
    pub guards: &'static [Guard],
    /// What it does, in one line.
    pub doc: &'static str,
}

const fn row(field: Field, doc: &'static str) -> FieldRow {
    FieldRow {
        field,
        pod: None,
        container: None,
        shape: Shape::Single,
        linux_only: true,
        since: None,
        guards: &[],
        doc,
    }
}

/// Every field, in the order of [`Field`].
pub static FIELDS: [FieldRow; 23] = [
    FieldRow {
        pod: Some("securityContext.runAsUser"),
        container: Some("securityContext.runAsUser"),
        guards: &[Guard::NonRootDemanded, Guard::UserNamespace],
        ..row(Field::RunAsUser, "The user id of the container's process.")
    },
    FieldRow {
        pod: Some("securityContext.runAsNonRoot"),
        container: Some("securityContext.runAsNonRoot"),
        linux_only: false,
        guards: &[Guard::RunsAsRoot],
        ..row(
            Field::RunAsNonRoot,
            "The kubelet refuses to start a process with user id 0.",
        )
    },
    FieldRow {
        pod: Some("securityContext.runAsGroup"),
        container: Some("securityContext.runAsGroup"),
        guards: &[Guard::GroupWithoutUser, Guard::UserNamespace],
        ..row(
            Field::RunAsGroup,
            "The primary group id of the container's process.",
        )
    },
    FieldRow {
        pod: Some("securityContext.fsGroup"),
        guards: &[Guard::UserNamespace],
        ..row(
            Field::FsGroup,
            "The group that owns the pod's volumes, and a group of every process.",
        )
    },
    FieldRow {
        pod: Some("securityContext.fsGroupChangePolicy"),
        ..row(
            Field::FsGroupChangePolicy,
            "When volumes are given to fsGroup: OnRootMismatch or Always.",
        )
    },
    FieldRow {
        pod: Some("securityContext.supplementalGroups"),
        shape: Shape::List,
        guards: &[Guard::UserNamespace],
        ..row(Field::SupplementalGroups, "More groups of every process.")
    },
    FieldRow {
        pod: Some("securityContext.supplementalGroupsPolicy"),
        since: Some(KubernetesVersion::v1(33)), // gate SupplementalGroupsPolicy
        ..row(
            Field::SupplementalGroupsPolicy,
            "Whether groups that the image gives the user count: Merge or Strict.",
        )
    },
    FieldRow {
        pod: Some("securityContext.seccompProfile"),
        container: Some("securityContext.seccompProfile"),
        guards: &[Guard::LegacyAnnotation],
        ..row(Field::SeccompProfile, "Which system calls are allowed.")
    },
    FieldRow {
        pod: Some("securityContext.appArmorProfile"),
        container: Some("securityContext.appArmorProfile"),
        since: Some(KubernetesVersion::v1(30)), // gate AppArmorFields
        guards: &[Guard::LegacyAnnotation],
        ..row(
            Field::AppArmorProfile,
            "Which AppArmor profile confines the process.",
        )
    },
    FieldRow {
        pod: Some("securityContext.seLinuxOptions"),
        container: Some("securityContext.seLinuxOptions"),
        ..row(
            Field::SeLinuxOptions,
            "The SELinux labels of the process, taken whole from one policy.",
        )
    },
    FieldRow {
        pod: Some("securityContext.seLinuxChangePolicy"),
        since: Some(KubernetesVersion::v1(33)), // gate SELinuxChangePolicy
        guards: &[Guard::FeatureGate],
        ..row(
            Field::SeLinuxChangePolicy,
            "How volumes get the SELinux label: MountOption or Recursive.",
        )
    },
    FieldRow {
        pod: Some("securityContext.sysctls"),
        shape: Shape::List,
        guards: &[Guard::HostNamespaceSysctl],
        ..row(
            Field::Sysctls,
            "Kernel settings of the pod's namespaces, combined by name.",
        )
    },
    FieldRow {
        pod: Some("hostUsers"),
        since: Some(KubernetesVersion::v1(33)), // gate UserNamespacesSupport
        guards: &[Guard::UserNamespace],
        ..row(
            Field::HostUsers,
            "false: a user namespace of the pod's own, in which root is nobody outside.",
        )
    },
    FieldRow {
        pod: Some("shareProcessNamespace"),
        ..row(
            Field::ShareProcessNamespace,
            "false: containers do not see one another's processes.",
        )
    },
    FieldRow {
        pod: Some("runtimeClassName"),
        linux_only: false,
        guards: &[Guard::RuntimeClass],
        ..row(
            Field::RuntimeClassName,
            "The container runtime to use, gVisor or Kata for instance.",
        )
    },
    FieldRow {
        pod: Some("automountServiceAccountToken"),
        linux_only: false,
        guards: &[Guard::ServiceAccount],
        ..row(
            Field::AutomountServiceAccountToken,
            "false: no API token in the pod; the one that the API server has already mounted is taken out.",
        )
    },
    FieldRow {
        container: Some("securityContext.allowPrivilegeEscalation"),
        guards: &[Guard::AlwaysEscalates],
        ..row(
            Field::AllowPrivilegeEscalation,
            "false: a process never gets more rights than its parent has.",
        )
    },
    FieldRow {
        container: Some("securityContext.privileged"),
        ..row(Field::Privileged, "false: not privileged, said outright.")
    },
    FieldRow {
        container: Some("securityContext.procMount"),
        guards: &[Guard::UnmaskedProc],
        ..row(
            Field::ProcMount,
            "Default: /proc with the runtime's masked and read-only paths.",
        )
    },
    FieldRow {
        container: Some("securityContext.capabilities.drop"),
        shape: Shape::List,
        guards: &[Guard::CapabilityAdded],
        ..row(
            Field::CapabilitiesDrop,
            "Capabilities that are taken from the process.",
        )
    },
    FieldRow {
        container: Some("securityContext.capabilities.add"),
        shape: Shape::List,
        guards: &[Guard::CapabilityDropped, Guard::AlwaysEscalates],
        ..row(
            Field::CapabilitiesAdd,
            "Capabilities that are given to the process.",
        )
    },
    FieldRow {
        container: Some("securityContext.readOnlyRootFilesystem"),
        ..row(
            Field::ReadOnlyRootFilesystem,
            "true: the image's files cannot be changed.",
        )
    },
    FieldRow {
        container: Some("writablePaths"),
        shape: Shape::Paths,
        guards: &[Guard::AlreadyMounted],
        ..row(
            Field::WritablePaths,
            "An emptyDir at each path of a container whose root filesystem was just made read-only.",
        )
    },
];

impl Field {
    /// The field's row.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "the table has a row for each field; a test holds it to that"
    )]
    pub fn row(self) -> &'static FieldRow {
        &FIELDS[self as usize]
    }

    /// The field's name as people say it, without `securityContext`: `capabilities.drop`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let row = self.row();
        let path = row.pod.or(row.container).unwrap_or_default();
        path.strip_prefix("securityContext.").unwrap_or(path)
    }
}

impl FieldRow {
    /// Whether the field exists at pod level and at container level, so that a container's own value
    /// goes before the pod's.
    #[must_use]
    pub fn is_two_level(&self) -> bool {
        self.pod.is_some() && self.container.is_some()
    }

    /// Whether the API server of that version keeps the field; where the version is not known, it is taken to.
    #[must_use]
    pub fn is_known_to(&self, version: Option<KubernetesVersion>) -> bool {
        match (self.since, version) {
            (Some(since), Some(version)) => version >= since,
            (None, _) | (_, None) => true,
        }
    }
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet(u32);

impl FieldSet {
    pub(crate) fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    pub(crate) fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_fields() {
        for (i, row) in FIELDS.iter().enumerate() {
            assert_eq!(row.field as usize, i);
            assert_eq!(row.field.row().field, row.field);
        }
    }

    #[test]
    fn names_are_unique_and_every_field_has_a_place_and_a_line_of_documentation() {
        let names: BTreeSet<&str> = FIELDS.iter().map(|row| row.field.name()).collect();
        assert_eq!(names.len(), FIELDS.len());
        for row in &FIELDS {
            assert!(
                row.pod.is_some() || row.container.is_some(),
                "{:?}",
                row.field
            );
            assert!(row.doc.ends_with('.'), "{:?}", row.field);
        }
    }
}
