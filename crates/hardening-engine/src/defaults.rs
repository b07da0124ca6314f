//! Defaults compiled: each field that a spec sets, with its JSON ready to be sent.

use hardening_api::PodHardeningPolicySpec;
use hardening_api::policy::{
    Capabilities, ContainerDefaults, Medium, PodDefaults, PodSecurityContext, Profile,
    SecurityContext, WritablePath,
};
use serde::Serialize;

use crate::field::Field;
use crate::write::{push, write_list};

/// Where a default is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// The defaults that a spec spells out. Every struct is taken apart whole, so that a new field cannot be
/// forgotten here.
pub(crate) fn compile(
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
            Self::Id(id) => push(out, [itoa::Buffer::new().format(*id)]),
            Self::Json(json) => push(out, [json]),
            Self::Items(items) => {
                write_list(out, items.iter(), |out, item| {
                    push(out, [&item.json]);
                });
            }
        }
    }

    /// The value as JSON text.
    pub(crate) fn to_json(&self) -> String {
        let mut json = Vec::new();
        self.write_json(&mut json);
        // What is written is made of texts.
        String::from_utf8(json).unwrap_or_default()
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
