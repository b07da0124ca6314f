//! What the mutating half cannot say: where hardening policies fill in less or more than the PSP did.

use serde_json::Value;

use crate::note::Note;
use crate::policy::{GroupRule, Policy, UserRule};
use crate::psp::PodSecurityPolicy;

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

/// Where the guards of the product, or the way its defaults work, make a difference.
pub(crate) fn about(policy: &Policy, notes: &mut Vec<Note>) {
    let mut note = |field: &str, why: &str, advice: &str| notes.push(Note::new(field, why, advice));
    if matches!(policy.group, GroupRule::MustRunAs(_))
        && !matches!(policy.user, UserRule::MustRunAs(_))
    {
        note(
            "spec.runAsGroup",
            "the group is filled in only where a runAsUser is set: with a group alone, which is what the PSP filled in, containers do not start; a container without a user is admitted without the group",
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
