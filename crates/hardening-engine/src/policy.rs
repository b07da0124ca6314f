//! A policy compiled: the spec is what was typed, this is what it means. Compiling is the only step that
//! can fail, and it runs when a policy changes, not when a pod arrives.

use std::cmp::Reverse;
use std::fmt;

use hardening_api::policy::{
    Capabilities, ClusterPodHardeningPolicySpec, ContainerDefaults, ContainerKind, ListMerge,
    Medium, Mode, PodDefaults, PodSecurityContext, Profile, SecurityContext, Tier, WritablePath,
};
use hardening_api::{
    ClusterPodHardeningPolicy, PodHardeningPolicy, PodHardeningPolicySpec, PolicyKind, Violation,
    violations,
};
use serde::Serialize;

use crate::field::Field;
use crate::profile;
use crate::selector::Selector;

/// A spec that means nothing, or something that it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(.violations))]
pub struct InvalidPolicy {
    /// What is wrong, field by field.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Which policy, in which version: what provenance names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyRef {
    /// The policy's namespace; `None` for a cluster policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`; 1, the first, where it has none because it comes from a file.
    pub generation: i64,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}@{}", self.name, self.generation),
            None => write!(f, "{}@{}", self.name, self.generation),
        }
    }
}

/// Which policy, in whatever version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The policy's namespace; `None` for a cluster policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// A policy compiled.
#[derive(Debug)]
pub struct Policy {
    reference: PolicyRef,
    key: PolicyKey,
    mode: Mode,
    /// The order among policies, lowest first: tier, priority, name.
    rank: (Order, Reverse<i32>),
    pub(crate) pod_selector: Selector,
    pub(crate) namespace_selector: Selector,
    /// Empty: all.
    service_accounts: Box<[Box<str>]>,
    /// Whether items that a list of the author's lacks are added to it.
    pub(crate) union: bool,
    kinds: Box<[ContainerKind]>,
    defaults: Box<[PolicyDefault]>,
    profile: &'static [PolicyDefault],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Admin,
    Namespace,
    Baseline,
}

/// Where a default is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Pod,
    Container,
}

/// One default of a policy, its JSON ready to be sent.
#[derive(Debug)]
pub(crate) struct PolicyDefault {
    pub(crate) field: Field,
    pub(crate) level: Level,
    pub(crate) value: Value,
    /// The profile that it is part of; `None`: the policy spells it out.
    pub(crate) profile: Option<Profile>,
}

/// A default's value; what no guard looks into is kept as JSON alone.
#[derive(Debug)]
pub(crate) enum Value {
    Bool(bool),
    Id(i64),
    Json(Box<str>),
    Items(Box<[Item]>),
}

/// An item of a list.
#[derive(Debug)]
pub(crate) struct Item {
    /// What makes it the same item as another: a capability, a group id, a sysctl's name, a path.
    pub(crate) key: Box<str>,
    /// The item; for a path, its emptyDir.
    pub(crate) json: Box<str>,
}

// === impl Policy ===

impl Policy {
    /// Compiles a namespace's policy.
    ///
    /// # Errors
    ///
    /// Where the API server's schema and rules would refuse it.
    pub fn namespaced(object: &PodHardeningPolicy) -> Result<Self, InvalidPolicy> {
        validate(PolicyKind::Namespaced, object)?;
        let PodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = object;
        let namespace = Some(
            metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        );
        let name = metadata.name.clone().unwrap_or_default();
        let key = PolicyKey { namespace, name };
        Ok(Self::compile(
            key,
            metadata.generation,
            spec,
            Order::Namespace,
            Selector::default(),
        ))
    }

    /// Compiles a cluster policy.
    ///
    /// # Errors
    ///
    /// Where the API server's schema and rules would refuse it.
    pub fn cluster(object: &ClusterPodHardeningPolicy) -> Result<Self, InvalidPolicy> {
        validate(PolicyKind::Cluster, object)?;
        let ClusterPodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = object;
        let ClusterPodHardeningPolicySpec {
            namespace_selector,
            tier,
            allow_weakening: _,
            policy,
        } = spec;
        let order = match tier.unwrap_or(Tier::Baseline) {
            Tier::Admin => Order::Admin,
            Tier::Baseline => Order::Baseline,
        };
        let key = PolicyKey {
            namespace: None,
            name: metadata.name.clone().unwrap_or_default(),
        };
        let namespaces = Selector::compile(namespace_selector.as_ref());
        Ok(Self::compile(
            key,
            metadata.generation,
            policy,
            order,
            namespaces,
        ))
    }

    fn compile(
        key: PolicyKey,
        generation: Option<i64>,
        spec: &PodHardeningPolicySpec,
        order: Order,
        namespace_selector: Selector,
    ) -> Self {
        let PodHardeningPolicySpec {
            mode,
            priority,
            pod_selector,
            service_account_names,
            profile,
            list_merge,
            pod: _,
            containers,
        } = spec;
        let reference = PolicyRef {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            generation: generation.unwrap_or(1),
        };
        Self {
            reference,
            key,
            mode: mode.unwrap_or(Mode::Enforce),
            rank: (order, Reverse(priority.unwrap_or(0))),
            pod_selector: Selector::compile(pod_selector.as_ref()),
            namespace_selector,
            service_accounts: service_account_names
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            union: list_merge.unwrap_or(ListMerge::Keep) == ListMerge::Union,
            kinds: containers
                .iter()
                .flat_map(|containers| containers.kinds.iter().copied())
                .collect(),
            defaults: compile_defaults(spec, None),
            profile: profile.map_or(&[], profile::defaults),
        }
    }

    /// Which policy this is, for provenance.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.reference
    }

    /// Which policy this is, whatever its version.
    #[must_use]
    pub fn key(&self) -> &PolicyKey {
        &self.key
    }

    /// Whether it fills in or only tells.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The fields it gives a default for, spelled out or by its profile, at either level.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.all_defaults().map(|default| default.field)
    }

    pub(crate) fn is_for_service_account(&self, name: &str) -> bool {
        self.service_accounts.is_empty() || self.service_accounts.iter().any(|one| &**one == name)
    }

    /// What sorts policies into the order in which they are asked.
    pub(crate) fn order(&self) -> impl Ord + '_ {
        (self.rank, self.key.name.as_str())
    }

    /// The default for a field at pod level: what is spelled out goes before the profile's.
    pub(crate) fn pod_default(&self, field: Field) -> Option<&PolicyDefault> {
        self.all_defaults()
            .find(|default| default.field == field && default.level == Level::Pod)
    }

    /// The default for a field in a container of a kind. The kinds that a policy names are those of the
    /// defaults it spells out; a profile is for all.
    pub(crate) fn container_default(
        &self,
        field: Field,
        kind: ContainerKind,
    ) -> Option<&PolicyDefault> {
        self.container_defaults(field, kind).next()
    }

    /// As [`Self::container_default`], all of them: for lists, which are combined.
    pub(crate) fn container_defaults(
        &self,
        field: Field,
        kind: ContainerKind,
    ) -> impl Iterator<Item = &PolicyDefault> {
        let named = self.kinds.is_empty() || self.kinds.contains(&kind);
        self.all_defaults().filter(move |default| {
            default.field == field
                && default.level == Level::Container
                && (named || default.profile.is_some())
        })
    }

    /// As [`Self::pod_default`], all of them: for lists, which are combined.
    pub(crate) fn pod_defaults(&self, field: Field) -> impl Iterator<Item = &PolicyDefault> {
        self.all_defaults()
            .filter(move |default| default.field == field && default.level == Level::Pod)
    }

    fn all_defaults(&self) -> impl Iterator<Item = &PolicyDefault> {
        self.defaults.iter().chain(self.profile)
    }
}

fn validate(kind: PolicyKind, object: &impl Serialize) -> Result<(), InvalidPolicy> {
    let object = serde_json::to_value(object).unwrap_or_default();
    let violations = violations(kind, &object);
    if violations.is_empty() {
        Ok(())
    } else {
        Err(InvalidPolicy { violations })
    }
}

// === impl PolicyDefault ===

/// The defaults that a spec spells out. Every struct is taken apart whole, so that a new field cannot be
/// forgotten here.
pub(crate) fn compile_defaults(
    spec: &PodHardeningPolicySpec,
    profile: Option<Profile>,
) -> Box<[PolicyDefault]> {
    let mut defaults = Vec::new();
    let mut add = |field, level, value: Option<Value>| {
        defaults.extend(value.map(|value| PolicyDefault {
            field,
            level,
            value,
            profile,
        }));
    };
    if let Some(pod) = &spec.pod {
        compile_pod(pod, |field, value| add(field, Level::Pod, value));
    }
    if let Some(ContainerDefaults {
        kinds: _,
        security_context,
        writable_paths,
    }) = &spec.containers
    {
        if let Some(context) = security_context {
            compile_container(context, |field, value| add(field, Level::Container, value));
        }
        let paths = items(writable_paths, |path| path.path.clone(), empty_dir);
        add(Field::WritablePaths, Level::Container, paths);
    }
    defaults.into()
}

fn compile_pod(pod: &PodDefaults, mut add: impl FnMut(Field, Option<Value>)) {
    let PodDefaults {
        automount_service_account_token,
        host_users,
        runtime_class_name,
        share_process_namespace,
        security_context,
    } = pod;
    add(
        Field::AutomountServiceAccountToken,
        automount_service_account_token.map(Value::Bool),
    );
    add(Field::HostUsers, host_users.map(Value::Bool));
    add(
        Field::RuntimeClassName,
        json_of(runtime_class_name.as_ref()),
    );
    add(
        Field::ShareProcessNamespace,
        share_process_namespace.map(Value::Bool),
    );
    let Some(PodSecurityContext {
        run_as_non_root,
        run_as_user,
        run_as_group,
        fs_group,
        fs_group_change_policy,
        supplemental_groups,
        supplemental_groups_policy,
        seccomp_profile,
        app_armor_profile,
        se_linux_options,
        se_linux_change_policy,
        sysctls,
    }) = security_context
    else {
        return;
    };
    add(Field::RunAsNonRoot, run_as_non_root.map(Value::Bool));
    add(Field::RunAsUser, run_as_user.map(Value::Id));
    add(Field::RunAsGroup, run_as_group.map(Value::Id));
    add(Field::FsGroup, fs_group.map(Value::Id));
    add(
        Field::FsGroupChangePolicy,
        json_of(fs_group_change_policy.as_ref()),
    );
    add(
        Field::SupplementalGroups,
        items(
            supplemental_groups,
            ToString::to_string,
            ToString::to_string,
        ),
    );
    add(
        Field::SupplementalGroupsPolicy,
        json_of(supplemental_groups_policy.as_ref()),
    );
    add(Field::SeccompProfile, json_of(seccomp_profile.as_ref()));
    add(Field::AppArmorProfile, json_of(app_armor_profile.as_ref()));
    add(Field::SeLinuxOptions, json_of(se_linux_options.as_ref()));
    add(
        Field::SeLinuxChangePolicy,
        json_of(se_linux_change_policy.as_ref()),
    );
    add(
        Field::Sysctls,
        items(
            sysctls,
            |sysctl| crate::fill::sysctl_key(&sysctl.name).into_owned(),
            to_json,
        ),
    );
}

fn compile_container(context: &SecurityContext, mut add: impl FnMut(Field, Option<Value>)) {
    let SecurityContext {
        allow_privilege_escalation,
        privileged,
        read_only_root_filesystem,
        proc_mount,
        capabilities,
        run_as_non_root,
        run_as_user,
        run_as_group,
        seccomp_profile,
        app_armor_profile,
        se_linux_options,
    } = context;
    add(
        Field::AllowPrivilegeEscalation,
        allow_privilege_escalation.map(Value::Bool),
    );
    add(Field::Privileged, privileged.map(Value::Bool));
    add(
        Field::ReadOnlyRootFilesystem,
        read_only_root_filesystem.map(Value::Bool),
    );
    add(Field::ProcMount, json_of(proc_mount.as_ref()));
    if let Some(Capabilities { drop, add: added }) = capabilities {
        add(Field::CapabilitiesDrop, items(drop, Clone::clone, to_json));
        add(Field::CapabilitiesAdd, items(added, Clone::clone, to_json));
    }
    add(Field::RunAsNonRoot, run_as_non_root.map(Value::Bool));
    add(Field::RunAsUser, run_as_user.map(Value::Id));
    add(Field::RunAsGroup, run_as_group.map(Value::Id));
    add(Field::SeccompProfile, json_of(seccomp_profile.as_ref()));
    add(Field::AppArmorProfile, json_of(app_armor_profile.as_ref()));
    add(Field::SeLinuxOptions, json_of(se_linux_options.as_ref()));
}

fn json_of<T: Serialize>(value: Option<&T>) -> Option<Value> {
    value.map(|value| Value::Json(to_json(value).into()))
}

fn items<T>(list: &[T], key: impl Fn(&T) -> String, json: impl Fn(&T) -> String) -> Option<Value> {
    let items = list.iter().map(|item| Item {
        key: key(item).into(),
        json: json(item).into(),
    });
    (!list.is_empty()).then(|| Value::Items(items.collect()))
}

/// Plain data of our own, which cannot fail to become JSON.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn empty_dir(path: &WritablePath) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct EmptyDir<'p> {
        #[serde(skip_serializing_if = "Option::is_none")]
        medium: &'p Option<Medium>,
        #[serde(skip_serializing_if = "Option::is_none")]
        size_limit: &'p Option<String>,
    }
    let WritablePath {
        path: _,
        size_limit,
        medium,
    } = path;
    to_json(&EmptyDir { medium, size_limit })
}

impl Value {
    /// Writes the value as JSON.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Id(id) => out.extend_from_slice(id.to_string().as_bytes()),
            Self::Json(json) => out.extend_from_slice(json.as_bytes()),
            Self::Items(items) => {
                crate::patch::write_list(out, items.iter(), |out, item| {
                    out.extend_from_slice(item.json.as_bytes());
                });
            }
        }
    }

    pub(crate) fn items(&self) -> &[Item] {
        match self {
            Self::Items(items) => items,
            Self::Bool(_) | Self::Id(_) | Self::Json(_) => &[],
        }
    }

    pub(crate) fn id(&self) -> Option<i64> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Bool(_) | Self::Json(_) | Self::Items(_) => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Id(_) | Self::Json(_) | Self::Items(_) => None,
        }
    }
}
