//! The guards: when a default is not filled in, because it would break a pod that works.
//!
//! A fill never turns a pod that the API server admits into one that it refuses, nor one that the kubelet
//! can start into one that it cannot because of a contradiction that the spec itself shows.

/// Why a default was not filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// `allowPrivilegeEscalation: false` and SYS_ADMIN (or `privileged: true`) exclude each other: the
    /// API server refuses the pair.
    AlwaysEscalates,
    /// `runAsNonRoot: true` where the effective user is 0: the kubelet would not start the container.
    RunsAsRoot,
    /// `runAsUser: 0` where the effective `runAsNonRoot` is true: the same contradiction.
    NonRootDemanded,
    /// `runAsGroup` without a `runAsUser` at that level: the runtime refuses a group without a user.
    GroupWithoutUser,
    /// `procMount: Unmasked` needs `hostUsers: false`: the API server refuses it otherwise.
    UnmaskedProc,
    /// A capability that is dropped, or would be, is not added.
    CapabilityDropped,
    /// A capability that the author adds by name is not dropped.
    CapabilityAdded,
    /// A user namespace (`hostUsers: false`) beside host namespaces, raw block devices, or ids that it
    /// cannot map.
    UserNamespace,
    /// A sysctl of a namespace that the pod shares with its host: the API server refuses it.
    HostNamespaceSysctl,
    /// A field that exists on Linux only, in a Windows pod.
    WindowsPod,
    /// A writable path at or below a mount of the author's or the place of the API server's token, or at a
    /// device of the author's.
    AlreadyMounted,
    /// Anything but the new ephemeral containers' own fields, when ephemeral containers are added to a
    /// running pod.
    RunningPod,
    /// A legacy AppArmor or seccomp annotation that says something else: the API server refuses a field
    /// that differs from it. Or no room for the annotation that Kubernetes before 1.34 makes of an AppArmor field.
    LegacyAnnotation,
    /// `seLinuxChangePolicy: MountOption`, which the API server refuses unless the feature gate SELinuxMount
    /// is on, and which is what a pod has anyway where it is on.
    FeatureGate,
    /// A field that the cluster's version of Kubernetes does not have: the API server would drop it.
    KubernetesVersion,
    /// A RuntimeClass that the cluster does not have, or whose node selector contradicts the pod's.
    RuntimeClass,
    /// The service account says otherwise, or the pod uses the token volume at a path of its own.
    ServiceAccount,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Self; 17] = [
        Self::AlwaysEscalates,
        Self::RunsAsRoot,
        Self::NonRootDemanded,
        Self::GroupWithoutUser,
        Self::UnmaskedProc,
        Self::CapabilityDropped,
        Self::CapabilityAdded,
        Self::UserNamespace,
        Self::HostNamespaceSysctl,
        Self::WindowsPod,
        Self::AlreadyMounted,
        Self::RunningPod,
        Self::LegacyAnnotation,
        Self::FeatureGate,
        Self::KubernetesVersion,
        Self::RuntimeClass,
        Self::ServiceAccount,
    ];

    /// The guard's name: in annotations, metrics and the documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysEscalates => "always-escalates",
            Self::RunsAsRoot => "runs-as-root",
            Self::NonRootDemanded => "non-root-demanded",
            Self::GroupWithoutUser => "group-without-user",
            Self::UnmaskedProc => "unmasked-proc",
            Self::CapabilityDropped => "capability-dropped",
            Self::CapabilityAdded => "capability-added",
            Self::UserNamespace => "user-namespace",
            Self::HostNamespaceSysctl => "host-namespace-sysctl",
            Self::WindowsPod => "windows-pod",
            Self::AlreadyMounted => "already-mounted",
            Self::RunningPod => "running-pod",
            Self::LegacyAnnotation => "legacy-annotation",
            Self::FeatureGate => "feature-gate",
            Self::KubernetesVersion => "kubernetes-version",
            Self::RuntimeClass => "runtime-class",
            Self::ServiceAccount => "service-account",
        }
    }

    /// What the guard keeps from happening, in one sentence.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::AlwaysEscalates => {
                "a container that is privileged or has SYS_ADMIN can always escalate: the API server refuses allowPrivilegeEscalation: false beside it"
            }
            Self::RunsAsRoot => {
                "the container runs as user 0: with runAsNonRoot: true it would not start"
            }
            Self::NonRootDemanded => {
                "runAsNonRoot: true is in force: with runAsUser: 0 the container would not start"
            }
            Self::GroupWithoutUser => {
                "no runAsUser is set at this level: the runtime refuses a group without a user"
            }
            Self::UnmaskedProc => {
                "procMount: Unmasked needs hostUsers: false: the API server refuses it otherwise"
            }
            Self::CapabilityDropped => "the capability is dropped in this container",
            Self::CapabilityAdded => "the author adds this capability by name",
            Self::UserNamespace => {
                "a user namespace excludes host namespaces and raw block devices, and maps ids up to 65535 only"
            }
            Self::HostNamespaceSysctl => {
                "the pod shares the sysctl's namespace with its host: the API server refuses it"
            }
            Self::WindowsPod => "the field exists on Linux only, and this is a Windows pod",
            Self::AlreadyMounted => {
                "the author, or the API server its token, mounts something at this path or above it"
            }
            Self::RunningPod => {
                "a running pod takes no changes but those to its new ephemeral containers"
            }
            Self::LegacyAnnotation => {
                "a legacy annotation says otherwise, and the API server refuses a field that differs from it, or there is no room for the one that Kubernetes before 1.34 makes of an AppArmor field"
            }
            Self::FeatureGate => {
                "the API server refuses MountOption unless its feature gate SELinuxMount is on, and where it is on a pod has it anyway"
            }
            Self::KubernetesVersion => {
                "the cluster's Kubernetes is older than the field: its API server would drop it"
            }
            Self::RuntimeClass => {
                "the cluster has no such RuntimeClass, or its node selector contradicts the pod's: the API server would refuse the pod"
            }
            Self::ServiceAccount => {
                "the service account decides otherwise, or the pod uses its token at a path of its own"
            }
        }
    }

    /// Whether a pod held back by this guard is left weaker than its policy asks for, so that the client
    /// is warned. A field that does not apply, or a path that is writable already, is no weakness.
    #[must_use]
    pub fn leaves_pod_below_policy(self) -> bool {
        !matches!(
            self,
            Self::WindowsPod
                | Self::AlreadyMounted
                | Self::FeatureGate
                | Self::CapabilityDropped
                | Self::NonRootDemanded
                | Self::UnmaskedProc
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = Guard::ALL.iter().map(|guard| guard.name()).collect();
        assert_eq!(names.len(), Guard::ALL.len());
    }
}
