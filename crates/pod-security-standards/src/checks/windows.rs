//! What exists on Windows only.

use crate::check::Finding;
use crate::evaluation::Allowed;
use crate::offenders::Offenders;
use crate::pod::Pod;
use crate::version::Version;

pub(crate) fn host_process(pod: &Pod, _: Version) -> Option<Finding> {
    let field = "securityContext.windowsOptions.hostProcess";
    let allowed = Allowed::unset_or(&["false"]);
    let set = pod.settings(
        |context| context.windows_options.host_process.then_some(true),
        |context| context.windows_options.host_process.then_some(true),
    );
    let offenders = Offenders::of(set, field, &allowed);
    (!offenders.is_empty()).then(|| Finding {
        reason: "hostProcess",
        detail: format!("{} must not set {field}=true", offenders.all()),
        fields: offenders.fields,
    })
}

#[cfg(test)]
mod tests {
    use crate::checks::support::check;

    #[test]
    fn nothing_may_run_as_a_process_of_the_node() {
        check(
            "windowsHostProcess",
            "latest",
            r#"{"securityContext": {"windowsOptions": {"hostProcess": false}}, "containers": [{"name": "a", "securityContext": {"windowsOptions": {}}}]}"#,
            None,
        );
        check(
            "windowsHostProcess",
            "latest",
            r#"{"securityContext": {"windowsOptions": {"hostProcess": true}},
                "containers": [{"name": "a", "securityContext": {"windowsOptions": {"hostProcess": true}}}]}"#,
            Some((
                r#"hostProcess (pod and container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
                &[
                    "spec.securityContext.windowsOptions.hostProcess: true, must be not set or false",
                    "spec.containers[0].securityContext.windowsOptions.hostProcess: true, must be not set or false",
                ],
            )),
        );
    }
}
