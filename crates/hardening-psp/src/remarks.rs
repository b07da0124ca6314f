//! What the mutating half cannot say: where hardening policies fill in less or more than the PSP did, and what
//! the PSP denied, which no default does.

use serde_json::Value;

use crate::note::Note;
use crate::policy::{GroupRule, Policy, UserRule};
use crate::psp::{
    APP_ARMOR_ALLOWED, IdStrategy, PodSecurityPolicy, PodSecurityPolicySpec, SECCOMP_ALLOWED,
};

/// Fields that the API server ignored.
pub(crate) fn unknown(object: &Value) -> Vec<Note> {
    let fields = PodSecurityPolicy::unknown_fields(object).into_iter();
    fields
        .map(|field| {
            Note::new(
                field,
                "no PodSecurityPolicy has this field, and the API server ignored it",
                "correct its name if it was meant to do something",
            )
        })
        .collect()
}

pub(crate) fn about(psp: &PodSecurityPolicy, policy: &Policy, notes: &mut Vec<Note>) {
    defaults(policy, notes);
    denials(psp, notes);
}

/// Where the guards of the product, or the way its defaults work, make a difference.
fn defaults(policy: &Policy, notes: &mut Vec<Note>) {
    let mut note = |field: &str, why: &str, advice: &str| notes.push(Note::new(field, why, advice));
    if matches!(policy.group, GroupRule::MustRunAs(_))
        && !matches!(policy.user, UserRule::MustRunAs(_))
    {
        note(
            "spec.runAsGroup",
            "the group is filled in only where a runAsUser is set: with a group alone, which is what the PSP filled in, containers do not start",
            "give the policy a runAsUser if every container is to have the group",
        );
    }
    if matches!(policy.user, UserRule::NonRoot) {
        note(
            "spec.runAsUser.rule",
            "runAsNonRoot: true is filled in beside a runAsUser that is not 0 too, where the PSP left it out; the two mean the same",
            "nothing",
        );
    }
    if matches!(&policy.user, UserRule::MustRunAs(ranges) if ranges.first.min == 0) {
        note(
            "spec.runAsUser.ranges",
            "user 0 is not filled in where runAsNonRoot: true is in force, because the container would not start; the PSP filled it in",
            "nothing",
        );
    }
    if policy.default_escalation == Some(false) {
        note(
            "spec.allowPrivilegeEscalation",
            "false is not filled in on containers that are privileged or add SYS_ADMIN, which the API server refuses beside it; the PSP filled it in, and such pods were refused",
            "nothing: these containers can always escalate",
        );
    }
    if !policy.default_app_armor.is_empty() || !policy.seccomp.default.is_empty() {
        note(
            "metadata.annotations",
            "default profiles are written as the fields appArmorProfile and seccompProfile; the PSP wrote annotations, which API servers no longer heed. A container with an annotation of its own, an empty one included, keeps it",
            "nothing",
        );
    }
    if !policy.default_add.is_empty() || !policy.required_drop.is_empty() {
        note(
            "spec.requiredDropCapabilities",
            "a capability that the author adds by name is not dropped, and one that is dropped is not added, in either spelling; added capabilities go to the end of the author's list, where the PSP sorted it",
            "nothing",
        );
    }
}

/// A PSP also denied. Each field with which it did is named, so that none is forgotten.
fn denials(psp: &PodSecurityPolicy, notes: &mut Vec<Note>) {
    let PodSecurityPolicySpec {
        privileged,
        default_add_capabilities: _,
        required_drop_capabilities,
        allowed_capabilities,
        volumes,
        host_network,
        host_ports,
        host_pid,
        host_ipc,
        se_linux,
        run_as_user,
        run_as_group,
        supplemental_groups,
        fs_group,
        read_only_root_filesystem,
        default_allow_privilege_escalation: _,
        allow_privilege_escalation,
        allowed_host_paths,
        allowed_flex_volumes,
        allowed_csi_drivers,
        allowed_unsafe_sysctls,
        forbidden_sysctls,
        allowed_proc_mount_types,
        runtime_class,
    } = &psp.spec;
    let any = |list: &[String]| list.iter().any(|one| one == "*");
    let restricts = |strategy: &IdStrategy| strategy.rule != "RunAsAny";
    let all_ports = host_ports
        .iter()
        .any(|range| range.min <= 1 && range.max >= 65535);
    let unmasked = allowed_proc_mount_types.iter().any(|one| one == "Unmasked");
    let default_proc = allowed_proc_mount_types.iter().any(|one| one == "Default");
    let allowed_seccomp = psp.metadata.annotations.get(SECCOMP_ALLOWED);
    let any_seccomp = allowed_seccomp.is_some_and(|list| list.split(',').any(|one| one == "*"));
    let app_armor = psp.metadata.annotations.contains_key(APP_ARMOR_ALLOWED);
    let seccomp_field = format!("metadata.annotations[{SECCOMP_ALLOWED}]");
    let app_armor_field = format!("metadata.annotations[{APP_ARMOR_ALLOWED}]");
    let all: [(&str, bool); 25] = [
        ("spec.privileged", !privileged),
        ("spec.hostNetwork", !host_network),
        ("spec.hostPID", !host_pid),
        ("spec.hostIPC", !host_ipc),
        ("spec.hostPorts", !all_ports),
        ("spec.volumes", !any(volumes)),
        ("spec.allowedHostPaths", !allowed_host_paths.is_empty()),
        ("spec.allowedFlexVolumes", !allowed_flex_volumes.is_empty()),
        ("spec.allowedCSIDrivers", !allowed_csi_drivers.is_empty()),
        ("spec.allowedProcMountTypes", !(unmasked && default_proc)),
        ("spec.allowedUnsafeSysctls", !any(allowed_unsafe_sysctls)),
        ("spec.forbiddenSysctls", !forbidden_sysctls.is_empty()),
        ("spec.allowedCapabilities", !any(allowed_capabilities)),
        (
            "spec.requiredDropCapabilities",
            !required_drop_capabilities.is_empty(),
        ),
        (
            "spec.allowPrivilegeEscalation",
            *allow_privilege_escalation == Some(false),
        ),
        ("spec.readOnlyRootFilesystem", *read_only_root_filesystem),
        ("spec.runAsUser", restricts(run_as_user)),
        (
            "spec.runAsGroup",
            run_as_group.as_ref().is_some_and(restricts),
        ),
        ("spec.fsGroup", restricts(fs_group)),
        ("spec.supplementalGroups", restricts(supplemental_groups)),
        ("spec.seLinux", se_linux.rule != "RunAsAny"),
        (
            "spec.runtimeClass",
            runtime_class
                .as_ref()
                .is_some_and(|class| !any(&class.allowed_runtime_class_names)),
        ),
        (&seccomp_field, !any_seccomp),
        (&app_armor_field, app_armor),
        ("spec", true),
    ];
    for (field, denies) in all {
        let note = match (field, denies) {
            (_, false) => continue,
            ("spec", true) => Note::new(
                field,
                "the PSP was checked again when a pod was updated, and only where its author or service account could `use` it; defaults are filled in once, when a pod is created, for every pod that the policy selects",
                "narrow the policy by namespace and service account where the PSP was not for all",
            ),
            (field, true) => Note::new(
                field,
                "the PSP also denied pods by this field, and a default denies nothing",
                "enforce a Pod Security Standard on the namespaces, or write a ValidatingAdmissionPolicy for it",
            ),
        };
        notes.push(note);
    }
}
