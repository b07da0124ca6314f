//! The two kinds and their spec.
//!
//! Every default is written as a pod's author would write it: `pod` and `containers.securityContext`
//! are fragments of `core/v1`, with the same names and values. A field left out gives no default.
//! The types are our own and not `k8s-openapi`'s, because a policy offers less than a pod (no
//! `windowsOptions`), allows less (`privileged` takes `false` only), and must document more.

#![allow(
    clippy::duplicated_attributes,
    reason = "the printer columns of a kind are attributes of the same form"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::PolicyStatus;

/// Defaults for the pods of one namespace: what a pod's author left out is filled in when the pod is
/// created, what the author wrote is left as it is. A namespace's policy can only harden.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "podhardening.dev",
    version = "v1alpha1",
    kind = "PodHardeningPolicy",
    plural = "podhardeningpolicies",
    singular = "podhardeningpolicy",
    shortname = "php",
    category = "podhardening",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "PodHardeningPolicy gives defaults to the pods of its namespace: security fields that a pod's author left out are filled in when the pod is created; what the author wrote is left as it is.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Profile", type_ = "string", json_path = ".spec.profile"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Overlapping",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Overlapping\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PodHardeningPolicySpec {
    /// Enforce (when left out): fill the fields in. Audit: take no part in filling; what this policy
    /// would still add to a pod is recorded in the API server's audit log, in a warning to the client,
    /// and in the metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,

    /// Among policies of the same tier the higher priority goes first, and policies of the same
    /// priority go by name. 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -2147483648, max = 2147483647))]
    pub priority: Option<i32>,

    /// The pods, by their labels, that this policy is for. Empty or left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,

    /// The pods, by the name of their service account, that this policy is for. Empty or left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub service_account_names: Vec<String>,

    /// A named set of defaults. Restricted: what a pod needs to pass the Pod Security Standard
    /// "restricted". Hardened: all that the NSA/CISA Kubernetes Hardening Guide recommends for pods.
    /// What this policy spells out goes before what its profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,

    /// What happens to a list that the author wrote (capabilities, supplementalGroups, sysctls).
    /// Keep (when left out): it stays as it is. Union: the items it lacks are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_merge: Option<ListMerge>,

    /// Defaults at pod level: a fragment of a pod's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodDefaults>,

    /// Defaults at container level: for every container of the kinds named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerDefaults>,
}

/// Defaults for the pods of the namespaces that the policy selects.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "podhardening.dev",
    version = "v1alpha1",
    kind = "ClusterPodHardeningPolicy",
    plural = "clusterpodhardeningpolicies",
    singular = "clusterpodhardeningpolicy",
    shortname = "cphp",
    category = "podhardening",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "ClusterPodHardeningPolicy gives defaults to the pods of the namespaces it selects: security fields that a pod's author left out are filled in when the pod is created; what the author wrote is left as it is.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "Profile", type_ = "string", json_path = ".spec.profile"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Overlapping",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Overlapping\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPodHardeningPolicySpec {
    /// The namespaces, by their labels, that this policy is for. Empty or left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,

    /// Admin: goes before the namespaces' own policies. Baseline (when left out): goes after them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,

    /// Allows defaults that weaken a pod (runAsUser: 0, added capabilities, Unconfined profiles and so
    /// on), for clusters that come from a PodSecurityPolicy which filled in just that. False when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_weakening: Option<bool>,

    /// What both kinds have.
    #[serde(flatten)]
    pub policy: PodHardeningPolicySpec,
}

/// Whether a policy fills fields in or only tells what it would fill in.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum Mode {
    /// Fields are filled in.
    Enforce,
    /// Nothing is filled in; what would still be added is recorded.
    Audit,
}

/// Where a cluster policy stands in the order of policies.
///
/// As in the tiers of the ClusterNetworkPolicy API: Admin, the namespaces' own, Baseline.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum Tier {
    /// Before the namespaces' own policies.
    Admin,
    /// After the namespaces' own policies.
    Baseline,
}

/// A named set of defaults, whose contents never change within an API version.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(transform = without_description)]
pub enum Profile {
    /// What a pod needs to pass the Pod Security Standard "restricted" when its author wrote nothing.
    Restricted,
    /// What the NSA/CISA Kubernetes Hardening Guide recommends for pods; includes Restricted.
    Hardened,
}

/// What happens to a list that the author wrote.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum ListMerge {
    /// It stays as it is.
    Keep,
    /// The items it lacks are added.
    Union,
}

/// Defaults at pod level: a fragment of `core/v1` PodSpec.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodDefaults {
    /// Default for the pod's automountServiceAccountToken. With false, the token volume that the API
    /// server has already added is taken out again; a pod whose service account itself says true is
    /// left alone, and so, with true, is one whose service account says false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,

    /// Default for the pod's hostUsers: false gives the pod a user namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,

    /// Default for the pod's runtimeClassName, where the cluster has a RuntimeClass of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub runtime_class_name: Option<String>,

    /// Default for the pod's shareProcessNamespace. Takes false only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [false]))]
    pub share_process_namespace: Option<bool>,

    /// Defaults for the pod's securityContext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodSecurityContext>,
}

/// Defaults for `core/v1` PodSecurityContext: every field of it but windowsOptions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityContext {
    /// Default for runAsNonRoot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,

    /// Default for runAsUser, a user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub run_as_user: Option<i64>,

    /// Default for runAsGroup, a group id. Filled in only where a user is set too: without one the pod
    /// would not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub run_as_group: Option<i64>,

    /// Default for fsGroup, a group id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub fs_group: Option<i64>,

    /// Default for fsGroupChangePolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_group_change_policy: Option<FsGroupChangePolicy>,

    /// Default for supplementalGroups, group ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(range(min = 0, max = 2147483647)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub supplemental_groups: Vec<i64>,

    /// Default for supplementalGroupsPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplemental_groups_policy: Option<SupplementalGroupsPolicy>,

    /// Default for seccompProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,

    /// Default for appArmorProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_armor_profile: Option<AppArmorProfile>,

    /// Default for seLinuxOptions, taken whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SeLinuxOptions>,

    /// Default for seLinuxChangePolicy. MountOption is never filled in: without the feature gate
    /// SELinuxMount the API server refuses it in a pod, and with it, it is what a pod has anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_change_policy: Option<SeLinuxChangePolicy>,

    /// Default for sysctls, combined by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub sysctls: Vec<Sysctl>,
}

/// Defaults at container level.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDefaults {
    /// The kinds of container these defaults are for. Empty or left out: all three. A sidecar is an
    /// InitContainer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub kinds: Vec<ContainerKind>,

    /// Defaults for the containers' securityContext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// Paths that stay writable (an emptyDir each) where readOnlyRootFilesystem: true was filled in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"])
    )]
    pub writable_paths: Vec<WritablePath>,
}

/// A kind of container in a pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// One of `spec.containers`.
    Container,
    /// One of `spec.initContainers`, sidecars included.
    InitContainer,
    /// One of `spec.ephemeralContainers`.
    EphemeralContainer,
}

/// Defaults for `core/v1` SecurityContext: every field of it but windowsOptions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// Default for allowPrivilegeEscalation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_privilege_escalation: Option<bool>,

    /// Default for privileged. Takes false only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [false]))]
    pub privileged: Option<bool>,

    /// Default for readOnlyRootFilesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,

    /// Default for procMount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proc_mount: Option<ProcMount>,

    /// Default for capabilities; drop and add are two lists with a default each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,

    /// Default for runAsNonRoot; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,

    /// Default for runAsUser, a user id; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub run_as_user: Option<i64>,

    /// Default for runAsGroup, a group id; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2147483647))]
    pub run_as_group: Option<i64>,

    /// Default for seccompProfile; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,

    /// Default for appArmorProfile; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_armor_profile: Option<AppArmorProfile>,

    /// Default for seLinuxOptions, taken whole; goes before the same policy's pod-level one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub se_linux_options: Option<SeLinuxOptions>,
}

/// Capabilities, spelled as in a pod: upper case, without the `CAP_` prefix.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Capabilities to drop; ALL is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Z0-9_]*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub drop: Vec<String>,

    /// Capabilities to add. Weakens, so it needs allowWeakening.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Z0-9_]*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub add: Vec<String>,
}

/// A seccomp profile.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    /// Which profile.
    #[serde(rename = "type")]
    pub type_: ProfileType,
    /// With type Localhost: the profile's file, relative to the kubelet's seccomp folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4095))]
    pub localhost_profile: Option<String>,
}

/// An AppArmor profile.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AppArmorProfile {
    /// Which profile.
    #[serde(rename = "type")]
    pub type_: ProfileType,
    /// With type Localhost: the name of a profile loaded on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4095), regex(pattern = r"^[!-~]([ -~]*[!-~])?$"))]
    pub localhost_profile: Option<String>,
}

/// Where a seccomp or AppArmor profile comes from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileType {
    /// The container runtime's own.
    RuntimeDefault,
    /// One that is on the node.
    Localhost,
    /// None. Weakens, so it needs allowWeakening.
    Unconfined,
}

/// SELinux labels; at least one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct SeLinuxOptions {
    /// SELinux user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// SELinux role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub role: Option<String>,
    /// SELinux type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub type_: Option<String>,
    /// SELinux level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub level: Option<String>,
}

/// A sysctl of the pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Sysctl {
    /// Its name, with dots or slashes.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// How volumes come to belong to fsGroup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum FsGroupChangePolicy {
    /// Only where the volume's root does not belong to it yet.
    OnRootMismatch,
    /// All files, each time.
    Always,
}

/// How the groups of a container's processes come about.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum SupplementalGroupsPolicy {
    /// The image's groups of the user are added.
    Merge,
    /// Only what the pod says.
    Strict,
}

/// How volumes get the pod's SELinux label.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum SeLinuxChangePolicy {
    /// By mount option where the volume can.
    MountOption,
    /// File by file.
    Recursive,
}

/// How `/proc` is mounted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum ProcMount {
    /// With the runtime's masked and read-only paths.
    Default,
    /// Bare. Weakens, so it needs allowWeakening.
    Unmasked,
}

/// A path that stays writable.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WritablePath {
    /// Absolute path in the container, without `.`, `..` or a slash at its end.
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^(/[^/:]+)+$"))]
    pub path: String,
    /// The most the emptyDir may hold, in bytes, as a Kubernetes quantity. Left out: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        regex(pattern = r"^[0-9]{1,15}(\.[0-9]{1,3})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
    )]
    pub size_limit: Option<String>,
    /// Memory: a tmpfs. Left out: the node's default medium.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
}

/// What an emptyDir is made of.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = without_description)]
pub enum Medium {
    /// A tmpfs.
    Memory,
}

/// Takes a type's description out of its schema. Where the type is optional, kube's schema would have that
/// description in place of the field's, which says more: what leaving the field out means.
fn without_description(schema: &mut schemars::Schema) {
    schema.remove("description");
}
