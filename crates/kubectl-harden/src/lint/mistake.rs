//! What the API server takes and is likely a mistake all the same.

use hardening_engine::Field;
use hardening_engine::overlap::{Given, Overlaps};

use super::policy::{Level, Linted};
use super::{Finding, Severity};

/// The sysctls that every kubelet allows (Kubernetes 1.36, `pkg/kubelet/sysctl`); the pods of a policy that
/// sets another one are refused by kubelets that were not told to allow it.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

pub(super) fn find(policy: &Linted, overlaps: &Overlaps, findings: &mut Vec<Finding>) {
    unsafe_sysctls(policy, findings);
    group_without_user(policy, overlaps, findings);
    slow_fs_group(policy, overlaps, findings);
    writable_paths_without_effect(policy, overlaps, findings);
    no_writable_tmp(policy, overlaps, findings);
}

fn warn(policy: &Linted, field: &str, message: &str, findings: &mut Vec<Finding>) {
    findings.push(policy.finding(Severity::Warning, field, message.to_owned()));
}

fn unsafe_sysctls(policy: &Linted, findings: &mut Vec<Finding>) {
    let Some(default) = policy.spelled_out(Field::Sysctls, Level::Pod) else {
        return;
    };
    for sysctl in default.value.as_array().into_iter().flatten() {
        let name = sysctl["name"].as_str().unwrap_or_default();
        if !SAFE_SYSCTLS.contains(&with_dots(name).as_str()) {
            let message = "is not among the sysctls that Kubernetes calls safe: a kubelet refuses the pod, unless its --allowed-unsafe-sysctls says otherwise";
            warn(
                policy,
                &format!("{}[{name}]", default.path),
                message,
                findings,
            );
        }
    }
}

/// `net/ipv4/conf/eth0.1/x` is `net.ipv4.conf.eth0/1.x`: the first separator says which of the two is meant.
fn with_dots(name: &str) -> String {
    if name
        .find(['.', '/'])
        .and_then(|at| name.get(at..))
        .is_none_or(|rest| rest.starts_with('.'))
    {
        return name.to_owned();
    }
    let swap = |c| match c {
        '/' => '.',
        '.' => '/',
        c => c,
    };
    name.chars().map(swap).collect()
}

fn group_without_user(policy: &Linted, overlaps: &Overlaps, findings: &mut Vec<Finding>) {
    for level in [Level::Pod, Level::Container] {
        let Some(group) = policy.spelled_out(Field::RunAsGroup, level) else {
            continue;
        };
        let user = match level {
            Level::Pod => Given::Pod(Field::RunAsUser),
            Level::Container => Given::Container(Field::RunAsUser),
        };
        if !overlaps.gives(&policy.policy, user, |_| true) {
            let message = "no policy given here sets runAsUser for the same pods: without a user the group is not filled in, because such a pod would not start";
            warn(policy, &group.path, message, findings);
        }
    }
}

fn slow_fs_group(policy: &Linted, overlaps: &Overlaps, findings: &mut Vec<Finding>) {
    let Some(group) = policy.spelled_out(Field::FsGroup, Level::Pod) else {
        return;
    };
    let how = Given::Pod(Field::FsGroupChangePolicy);
    if !overlaps.gives(&policy.policy, how, |value| value == r#""OnRootMismatch""#) {
        let message = "without fsGroupChangePolicy: OnRootMismatch every file of every volume changes hands each time a pod starts, which takes long with many files";
        warn(policy, &group.path, message, findings);
    }
}

fn writable_paths_without_effect(
    policy: &Linted,
    overlaps: &Overlaps,
    findings: &mut Vec<Finding>,
) {
    let Some(paths) = policy.spelled_out(Field::WritablePaths, Level::Container) else {
        return;
    };
    let read_only = Given::Container(Field::ReadOnlyRootFilesystem);
    if !overlaps.gives(&policy.policy, read_only, |value| value == "true") {
        let message = "no policy given here sets readOnlyRootFilesystem: true for the same pods: paths are made writable only where that was filled in";
        warn(policy, &paths.path, message, findings);
    }
}

fn no_writable_tmp(policy: &Linted, overlaps: &Overlaps, findings: &mut Vec<Finding>) {
    let read_only = policy.spelled_out(Field::ReadOnlyRootFilesystem, Level::Container);
    let Some(read_only) = read_only.filter(|default| default.value == true) else {
        return;
    };
    let tmp = Given::Item(Field::WritablePaths, "/tmp");
    if !overlaps.gives(&policy.policy, tmp, |_| true) {
        let message = "no policy given here makes /tmp writable for the same pods (spec.containers.writablePaths), which many programs need";
        warn(policy, &read_only.path, message, findings);
    }
}
