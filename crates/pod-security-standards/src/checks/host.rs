//! What a pod shares with its node, or makes it do.

use std::collections::BTreeSet;

use crate::check::Finding;
use crate::evaluation::{Allowed, FieldViolation};
use crate::offenders::{Offenders, containers};
use crate::pod::{Container, Handler, Place, Pod, Port};
use crate::text::{plural, quoted};
use crate::version::Version;

pub(crate) fn namespaces(pod: &Pod, _: Version) -> Option<Finding> {
    let spec = &pod.spec;
    let flags = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ];
    let shared: Vec<&str> = flags
        .into_iter()
        .filter_map(|(name, is_shared)| is_shared.then_some(name))
        .collect();
    let told: Vec<String> = shared.iter().map(|name| format!("{name}=true")).collect();
    let field = |name: &&str| FieldViolation {
        path: format!("spec.{name}"),
        value: Some(true.into()),
        allowed: Allowed::unset_or(&["false"]),
    };
    (!shared.is_empty()).then(|| Finding {
        reason: "host namespaces",
        detail: told.join(", "),
        fields: shared.iter().map(field).collect(),
    })
}

pub(crate) fn ports(pod: &Pod, _: Version) -> Option<Finding> {
    let allowed = Allowed::unset_or(&["0"]);
    let mut offenders = Offenders::default();
    let mut used = BTreeSet::new();
    for place in pod.containers() {
        for (index, port) in place.container.ports.iter().enumerate() {
            let number = host_port(pod, &place, port);
            if number != 0 {
                // As text, which is how they are sorted.
                used.insert(number.to_string());
                let field = format!("ports[{index}].hostPort");
                offenders.add(place, &field, Some(number.into()), &allowed);
            }
        }
    }
    let used: Vec<String> = used.into_iter().collect();
    (!offenders.is_empty()).then(|| Finding {
        reason: "hostPort",
        detail: format!(
            "{} {} {} {}",
            offenders.containers(),
            plural("uses", "use", offenders.names().len()),
            plural("hostPort", "hostPorts", used.len()),
            used.join(", "),
        ),
        fields: offenders.fields,
    })
}

/// The port of the node. With the node's network it is by default the container's own.
fn host_port(pod: &Pod, place: &Place<'_>, port: &Port) -> i32 {
    let is_completed = pod.spec.host_network && !place.is_ephemeral();
    match port.host_port {
        0 if is_completed => port.container_port,
        number => number,
    }
}

pub(crate) fn probes(pod: &Pod, _: Version) -> Option<Finding> {
    let allowed = Allowed::unset_or(&["\"\""]);
    let mut offenders = Offenders::default();
    for place in pod.containers() {
        for (handler, does) in handlers(place.container) {
            let actions = [
                ("httpGet", &does.http_get.host),
                ("tcpSocket", &does.tcp_socket.host),
            ];
            for (action, host) in actions.into_iter().filter(|(_, host)| !host.is_empty()) {
                let field = format!("{handler}.{action}.host");
                let host = host.as_str().into();
                offenders.add(place, &field, Some(host), &allowed);
            }
        }
    }
    // Sorted by name, unlike those of other checks.
    let mut names = offenders.names();
    names.sort_unstable();
    names.dedup();
    (!offenders.is_empty()).then(|| Finding {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural(
                "probe or lifecycle host",
                "probe or lifecycle hosts",
                offenders.values().len()
            ),
            quoted(offenders.values()),
        ),
        fields: offenders.fields,
    })
}

fn handlers(container: &Container) -> [(&'static str, &Handler); 5] {
    [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
        ("lifecycle.postStart", &container.lifecycle.post_start),
        ("lifecycle.preStop", &container.lifecycle.pre_stop),
    ]
}

#[cfg(test)]
mod tests {
    use crate::checks::support::check;

    const V: &str = "latest";

    #[test]
    fn namespaces_of_the_node_are_forbidden() {
        check(
            "hostNamespaces",
            V,
            r#"{"hostNetwork": false, "hostPID": null}"#,
            None,
        );
        check(
            "hostNamespaces",
            V,
            r#"{"hostIPC": true, "hostNetwork": true}"#,
            Some((
                "host namespaces (hostNetwork=true, hostIPC=true)",
                &[
                    "spec.hostNetwork: true, must be not set or false",
                    "spec.hostIPC: true, must be not set or false",
                ],
            )),
        );
    }

    #[test]
    fn ports_of_the_node_are_told_sorted_as_text() {
        check(
            "hostPorts",
            V,
            r#"{"containers": [{"name": "a", "ports": [{"containerPort": 1}, {"hostPort": 0}]}]}"#,
            None,
        );
        check(
            "hostPorts",
            V,
            r#"{"initContainers": [{"name": "z", "ports": [{"hostPort": 9}]}],
                "containers": [{"name": "ok"}, {"name": "a", "ports": [{"hostPort": 10}, {"hostPort": 9}]}]}"#,
            Some((
                r#"hostPort (containers "z", "a" use hostPorts 10, 9)"#,
                &[
                    "spec.initContainers[0].ports[0].hostPort: 9, must be not set or 0",
                    "spec.containers[1].ports[0].hostPort: 10, must be not set or 0",
                    "spec.containers[1].ports[1].hostPort: 9, must be not set or 0",
                ],
            )),
        );
    }

    #[test]
    fn with_the_network_of_the_node_every_port_is_one_of_the_node() {
        check(
            "hostPorts",
            V,
            r#"{"hostNetwork": true, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}],
                "ephemeralContainers": [{"name": "e", "ports": [{"containerPort": 81}]}]}"#,
            Some((
                r#"hostPort (container "a" uses hostPort 80)"#,
                &["spec.containers[0].ports[0].hostPort: 80, must be not set or 0"],
            )),
        );
    }

    #[test]
    fn hosts_of_probes_are_forbidden_since_1_34_and_containers_sorted() {
        let spec = r#"{"initContainers": [{"name": "z", "lifecycle": {"preStop": {"httpGet": {"host": "b"}}, "postStart": {"tcpSocket": {"host": "a"}}}}],
            "containers": [{"name": "a", "startupProbe": {"tcpSocket": {"host": "b"}}, "livenessProbe": {"httpGet": {"host": ""}}, "readinessProbe": {"exec": {}}}]}"#;
        check("hostProbesAndHostLifecycle", "v1.33", spec, None);
        check(
            "hostProbesAndHostLifecycle",
            "v1.34",
            spec,
            Some((
                r#"probe or lifecycle host (containers "a", "z" use probe or lifecycle hosts "a", "b")"#,
                &[
                    r#"spec.initContainers[0].lifecycle.postStart.tcpSocket.host: "a", must be not set or """#,
                    r#"spec.initContainers[0].lifecycle.preStop.httpGet.host: "b", must be not set or """#,
                    r#"spec.containers[0].startupProbe.tcpSocket.host: "b", must be not set or """#,
                ],
            )),
        );
    }
}
