//! Which user containers run as.

use crate::check::Finding;
use crate::evaluation::Allowed;
use crate::offenders::{Inherited, Offenders};
use crate::pod::Pod;
use crate::version::Version;

pub(crate) fn non_root(pod: &Pod, _: Version) -> Option<Finding> {
    let Inherited { said, unsaid } = Inherited::of(
        pod,
        "securityContext.runAsNonRoot",
        |context| context.run_as_non_root,
        |context| context.run_as_non_root,
        |value| *value,
        &Allowed::only(&["true"]),
    );
    let (detail, fields) = if !said.is_empty() {
        let who = said.all();
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        (detail, said.fields)
    } else if !unsaid.is_empty() {
        let who = unsaid.containers();
        let detail = format!("pod or {who} must set securityContext.runAsNonRoot=true");
        (detail, unsaid.fields)
    } else {
        return None;
    };
    Some(Finding {
        reason: "runAsNonRoot != true",
        detail,
        fields,
    })
}

pub(crate) fn root(pod: &Pod, _: Version) -> Option<Finding> {
    const ROOT: i64 = 0;
    let field = "securityContext.runAsUser";
    let allowed = Allowed::unset_or(&["any other user than 0"]);
    let users = pod.settings(|context| context.run_as_user, |context| context.run_as_user);
    let bad = users.filter(|(_, user)| *user == ROOT);
    let offenders = Offenders::of(bad, field, &allowed);
    (!offenders.is_empty()).then(|| Finding {
        reason: "runAsUser=0",
        detail: format!("{} must not set runAsUser=0", offenders.all()),
        fields: offenders.fields,
    })
}

#[cfg(test)]
mod tests {
    use crate::check::Exemption;
    use crate::checks::support::{check, exempt};

    #[test]
    fn somebody_must_say_that_nothing_runs_as_root() {
        let spec = |pod: &str, a: &str, b: &str| {
            format!(
                r#"{{"securityContext": {{"runAsNonRoot": {pod}}}, "containers": [
                {{"name": "a", "securityContext": {{"runAsNonRoot": {a}}}}}, {{"name": "b", "securityContext": {{"runAsNonRoot": {b}}}}}]}}"#
            )
        };
        let id = "runAsNonRoot";
        check(id, "v1.0", &spec("true", "null", "true"), None);
        check(id, "v1.0", &spec("null", "true", "true"), None);
        check(
            id,
            "v1.0",
            &spec("null", "null", "true"),
            Some((
                r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
                &["spec.containers[0].securityContext.runAsNonRoot: not set, must be true"],
            )),
        );
        check(
            id,
            "v1.0",
            &spec("false", "null", "false"),
            Some((
                r#"runAsNonRoot != true (pod and container "b" must not set securityContext.runAsNonRoot=false)"#,
                &[
                    "spec.securityContext.runAsNonRoot: false, must be true",
                    "spec.containers[1].securityContext.runAsNonRoot: false, must be true",
                ],
            )),
        );
        check(
            id,
            "v1.0",
            &spec("true", "false", "false"),
            Some((
                r#"runAsNonRoot != true (containers "a", "b" must not set securityContext.runAsNonRoot=false)"#,
                &[
                    "spec.containers[0].securityContext.runAsNonRoot: false, must be true",
                    "spec.containers[1].securityContext.runAsNonRoot: false, must be true",
                ],
            )),
        );
        let broken = spec("null", "null", "true");
        exempt(id, &broken, Exemption::UserNamespace, 35);
    }

    #[test]
    fn no_user_may_be_root_since_1_23() {
        let spec = r#"{"securityContext": {"runAsUser": 0}, "initContainers": [{"name": "a", "securityContext": {"runAsUser": 0}}],
            "containers": [{"name": "b", "securityContext": {"runAsUser": 1}}]}"#;
        let id = "runAsUser";
        check(id, "v1.22", spec, None);
        check(
            id,
            "v1.23",
            spec,
            Some((
                r#"runAsUser=0 (pod and container "a" must not set runAsUser=0)"#,
                &[
                    "spec.securityContext.runAsUser: 0, must be not set or any other user than 0",
                    "spec.initContainers[0].securityContext.runAsUser: 0, must be not set or any other user than 0",
                ],
            )),
        );
        let good = r#"{"securityContext": {"runAsUser": null}, "containers": [{"name": "a"}]}"#;
        check(id, "latest", good, None);
        exempt(id, spec, Exemption::UserNamespace, 35);
    }
}
