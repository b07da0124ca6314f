//! What may stop working once policies fill in what is missing: one row of [`RISKS`] for each risk, its
//! function and its test below. A risk is told only where a policy brings it: what a pod runs with already
//! is no risk.

use serde_json::Value;

use super::container::{Container, containers};
use super::probe::writes;

/// A risk.
pub(crate) struct RiskRow {
    pub(crate) id: &'static str,
    pub(crate) text: &'static str,
    find: fn(&Change<'_>) -> Vec<Evidence>,
}

/// What policies do to a pod.
pub(crate) struct Change<'a> {
    pub(crate) before: &'a Value,
    pub(crate) after: &'a Value,
    /// The bindings that name the pod's service account, as `RoleBinding shop/reader`.
    pub(crate) bindings: &'a [String],
}

/// What shows a risk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub(crate) path: String,
    pub(crate) says: String,
}

/// Every risk.
pub(crate) const RISKS: [RiskRow; 6] = [
    RiskRow {
        id: "image-user",
        text: "runAsNonRoot: true keeps an image from starting that runs as root, or whose user is a name; and with another user than the image's it may not get at its own files",
        find: image_user,
    },
    RiskRow {
        id: "low-port",
        text: "without NET_BIND_SERVICE a process that is not root may not be allowed to listen on a port below 1024",
        find: low_port,
    },
    RiskRow {
        id: "read-only-mounts",
        text: "with a read-only root file system a mount of a node's path or of a part of a volume stays writable, but not what lies beside it: replacing a file by renaming another fails",
        find: read_only_mounts,
    },
    RiskRow {
        id: "fs-group",
        text: "without fsGroupChangePolicy: OnRootMismatch every file of the volume changes hands each time a pod starts: slow with many files, and wrong where others share them",
        find: fs_group,
    },
    RiskRow {
        id: "token-in-use",
        text: "the pod would no longer get its service account's token, and seems to use it",
        find: token_in_use,
    },
    RiskRow {
        id: "probe-writes",
        text: "with a read-only root file system the command can no longer write",
        find: probe_writes,
    },
];

/// What a change may break.
pub(crate) fn risks(change: &Change<'_>) -> impl Iterator<Item = (&'static RiskRow, Evidence)> {
    RISKS.iter().flat_map(|row| {
        let found = (row.find)(change).into_iter();
        found.map(move |evidence| (row, evidence))
    })
}

impl<'a> Change<'a> {
    /// The containers for which something becomes true.
    fn becomes(
        &self,
        is_so: fn(&Container<'a>) -> bool,
    ) -> impl Iterator<Item = (Container<'a>, Container<'a>)> + use<'a> {
        let before = containers(self.before);
        let pairs = before.zip(containers(self.after));
        pairs.filter(move |(before, after)| is_so(after) && !is_so(before))
    }
}

fn image_user(change: &Change<'_>) -> Vec<Evidence> {
    let risky = change.becomes(Container::must_be_non_root);
    let risky = risky.filter(|(before, _)| matches!(before.run_as_user(), None | Some(0)));
    let evidence = risky.map(|(before, after)| {
        let user = match (before.run_as_user(), after.run_as_user()) {
            (Some(user), _) => format!("runs as user {user}"),
            (None, Some(user)) => format!("its user is not known; it would run as {user}"),
            (None, None) => "its user is not known".to_owned(),
        };
        after.shows("image", format!("{}: {user}", after.image()))
    });
    evidence.collect()
}

fn low_port(change: &Change<'_>) -> Vec<Evidence> {
    let lowest = lowest_free_port(change.after);
    let mut evidence = Vec::new();
    for (_, after) in change.becomes(Container::cannot_bind_low_ports) {
        let ports = after.list("/ports");
        let ports = ports.filter_map(|port| port.get("containerPort")?.as_u64());
        for port in ports.filter(|port| *port < lowest) {
            evidence.push(after.shows("ports", format!("containerPort: {port}")));
        }
    }
    evidence
}

/// The lowest port that anyone may listen on, as far as the pod says.
fn lowest_free_port(pod: &Value) -> u64 {
    let sysctls = pod.pointer("/spec/securityContext/sysctls");
    let mut sysctls = sysctls.and_then(Value::as_array).into_iter().flatten();
    let set = sysctls.find(|sysctl| {
        sysctl.get("name").and_then(Value::as_str) == Some("net.ipv4.ip_unprivileged_port_start")
    });
    let value = set.and_then(|sysctl| sysctl.get("value")?.as_str()?.parse().ok());
    value.unwrap_or(1024)
}

fn read_only_mounts(change: &Change<'_>) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    for (before, _) in change.becomes(Container::has_read_only_root) {
        for mount in before.writable_mounts() {
            let text = |key| mount.get(key).and_then(Value::as_str);
            let path = text("mountPath").unwrap_or_default();
            let volume = text("name").and_then(|name| volume(change.before, name));
            let says = match (text("subPath").or(text("subPathExpr")), volume) {
                (Some(part), _) => format!("subPath: {part}"),
                (None, Some(volume)) if volume.get("hostPath").is_some() => {
                    let path = volume.pointer("/hostPath/path").and_then(Value::as_str);
                    format!("hostPath: {}", path.unwrap_or_default())
                }
                _ => continue,
            };
            evidence.push(before.shows(&format!("volumeMounts[{path}]"), says));
        }
    }
    evidence
}

fn volume<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let mut volumes = pod.pointer("/spec/volumes")?.as_array()?.iter();
    volumes.find(|volume| volume.get("name").and_then(Value::as_str) == Some(name))
}

/// Volumes whose files may be many, or others' too, and that the kubelet hands to a group.
const LARGE_OR_SHARED: [&str; 16] = [
    "persistentVolumeClaim",
    "ephemeral",
    "csi",
    "nfs",
    "cephfs",
    "glusterfs",
    "azureFile",
    "azureDisk",
    "awsElasticBlockStore",
    "gcePersistentDisk",
    "cinder",
    "rbd",
    "iscsi",
    "fc",
    "portworxVolume",
    "vsphereVolume",
];

fn fs_group(change: &Change<'_>) -> Vec<Evidence> {
    let changes_hands = |pod: &Value| {
        let context = pod.pointer("/spec/securityContext");
        let field = |name| context.and_then(|context| context.get(name));
        let policy = field("fsGroupChangePolicy").and_then(Value::as_str);
        field("fsGroup").is_some_and(Value::is_i64) && policy != Some("OnRootMismatch")
    };
    if !changes_hands(change.after) || changes_hands(change.before) {
        return Vec::new();
    }
    let volumes = change.before.pointer("/spec/volumes");
    let volumes = volumes.and_then(Value::as_array).into_iter().flatten();
    let evidence = volumes.filter_map(|volume| {
        let name = volume.get("name")?.as_str()?;
        let is_kind = |kind: &&&str| volume.get(**kind).is_some_and(|source| !source.is_null());
        let kind = LARGE_OR_SHARED.iter().find(is_kind)?;
        Some(Evidence {
            path: format!("spec.volumes[{name}]"),
            says: (*kind).to_owned(),
        })
    });
    evidence.collect()
}

/// What speaks of the token, or of the client libraries' way to it, in a container's command or environment.
const IN_CLUSTER: [&str; 6] = [
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run/secrets/kubernetes.io/serviceaccount",
    "KUBERNETES_SERVICE_HOST",
    "kubernetes.default",
    "in-cluster",
    "incluster",
];

fn token_in_use(change: &Change<'_>) -> Vec<Evidence> {
    let path = "/spec/automountServiceAccountToken";
    let has_none = |pod: &Value| pod.pointer(path) == Some(&Value::Bool(false));
    if !has_none(change.after) || has_none(change.before) {
        return Vec::new();
    }
    let mut evidence = Vec::new();
    for container in containers(change.before) {
        for (field, said) in container.said() {
            let lower = said.to_ascii_lowercase();
            let speaks = |sign: &str| lower.contains(&sign.to_ascii_lowercase());
            if IN_CLUSTER.into_iter().any(speaks) {
                evidence.push(container.shows(&field, said.to_owned()));
            }
        }
    }
    evidence.extend(own_token_volumes(change.before));
    evidence.extend(change.bindings.iter().map(|binding| Evidence {
        path: "spec.serviceAccountName".to_owned(),
        says: format!("{binding} gives it rights"),
    }));
    evidence
}

/// Projected tokens of the author's own, beside the one that the API server adds.
fn own_token_volumes(pod: &Value) -> Vec<Evidence> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let mut evidence = Vec::new();
    for volume in volumes.into_iter().flatten() {
        let name = volume.get("name").and_then(Value::as_str);
        let name = name.unwrap_or_default();
        let sources = volume.pointer("/projected/sources");
        let mut sources = sources.and_then(Value::as_array).into_iter().flatten();
        let token = sources.find_map(|source| source.get("serviceAccountToken"));
        if let Some(token) = token.filter(|_| !name.starts_with("kube-api-access-")) {
            let audience = token.get("audience").and_then(Value::as_str);
            evidence.push(Evidence {
                path: format!("spec.volumes[{name}]"),
                says: match audience {
                    Some(audience) => format!("a projected token for {audience}"),
                    None => "a projected token".to_owned(),
                },
            });
        }
    }
    evidence
}

fn probe_writes(change: &Change<'_>) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    for (before, after) in change.becomes(Container::has_read_only_root) {
        let mounts: Vec<&str> = after
            .writable_mounts()
            .filter_map(|mount| mount.get("mountPath")?.as_str())
            .collect();
        for (field, command) in before.exec_commands() {
            if writes(&command, &mounts) {
                evidence.push(before.shows(field, command.join(" ")));
            }
        }
    }
    evidence
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    clippy::redundant_clone,
    reason = "a table of JSON is easier to read without borrows and last uses"
)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a risk's function finds, as `path: what it says`.
    fn found(id: &str, before: Value, after: Value, bindings: &[&str]) -> Vec<String> {
        let bindings: Vec<String> = bindings.iter().map(|b| (*b).to_owned()).collect();
        let change = Change {
            before: &json!({"spec": before}),
            after: &json!({"spec": after}),
            bindings: &bindings,
        };
        let row = RISKS.iter().find(|row| row.id == id).unwrap();
        let found = (row.find)(&change).into_iter();
        found.map(|e| format!("{}: {}", e.path, e.says)).collect()
    }

    fn of(container: Value) -> Value {
        let mut container = container;
        container["name"] = "app".into();
        json!({"containers": [container]})
    }

    #[test]
    fn ids_are_told_apart() {
        let mut ids: Vec<&str> = RISKS.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), RISKS.len());
    }

    #[test]
    fn the_image_s_user_matters_where_nobody_says_who_it_is() {
        let non_root = |user: Value| {
            let mut pod = of(json!({"image": "app:1"}));
            pod["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": user});
            pod
        };
        let plain = of(json!({"image": "app:1"}));
        let root = of(json!({"image": "app:1", "securityContext": {"runAsUser": 0}}));
        let known = of(json!({"image": "app:1", "securityContext": {"runAsUser": 7}}));
        let unknown = "spec.containers[app].image: app:1: its user is not known";
        let run = |before: &Value, after| found("image-user", before.clone(), after, &[]);
        assert_eq!(run(&plain, non_root(Value::Null)), [unknown]);
        assert_eq!(
            run(&plain, non_root(7.into())),
            [format!("{unknown}; it would run as 7")]
        );
        assert_eq!(
            run(&root, non_root(7.into())),
            ["spec.containers[app].image: app:1: runs as user 0"]
        );
        assert_eq!(run(&known, non_root(7.into())), [""; 0]);
        assert_eq!(run(&non_root(Value::Null), non_root(7.into())), [""; 0]);
        assert_eq!(run(&plain, plain.clone()), [""; 0]);
    }

    #[test]
    fn low_ports_need_a_capability() {
        let with = |capabilities: Value| {
            of(json!({
                "ports": [{"containerPort": 80}, {"containerPort": 8080}],
                "securityContext": {"capabilities": capabilities},
            }))
        };
        let run = |after| found("low-port", with(json!({})), after, &[]);
        let port = ["spec.containers[app].ports: containerPort: 80"];
        assert_eq!(run(with(json!({"drop": ["ALL"]}))), port);
        assert_eq!(
            run(with(json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}))),
            [""; 0]
        );
        assert_eq!(run(with(json!({"drop": ["NET_RAW"]}))), [""; 0]);
        let mut freed = with(json!({"drop": ["ALL"]}));
        freed["securityContext"] = json!({
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}],
        });
        assert_eq!(run(freed), [""; 0]);
        let dropped = with(json!({"drop": ["ALL"]}));
        assert_eq!(found("low-port", dropped.clone(), dropped, &[]), [""; 0]);
    }

    /// A container with mounts, as it is and with a read-only root.
    fn read_only(mut container: Value) -> (Value, Value) {
        let volumes = json!([
            {"name": "node", "hostPath": {"path": "/var/log"}},
            {"name": "data", "emptyDir": {}},
        ]);
        let mut before = of(container.clone());
        container["securityContext"] = json!({"readOnlyRootFilesystem": true});
        let mut after = of(container);
        before["volumes"] = volumes.clone();
        after["volumes"] = volumes;
        (before, after)
    }

    #[test]
    fn a_read_only_root_leaves_mounts_of_single_files_half_writable() {
        let (before, after) = read_only(json!({"volumeMounts": [
            {"name": "node", "mountPath": "/logs"},
            {"name": "node", "mountPath": "/read", "readOnly": true},
            {"name": "data", "mountPath": "/data"},
            {"name": "data", "mountPath": "/etc/app.conf", "subPath": "app.conf"},
        ]}));
        let mounts = [
            "spec.containers[app].volumeMounts[/logs]: hostPath: /var/log",
            "spec.containers[app].volumeMounts[/etc/app.conf]: subPath: app.conf",
        ];
        let id = "read-only-mounts";
        assert_eq!(found(id, before.clone(), after.clone(), &[]), mounts);
        assert_eq!(found(id, after.clone(), after, &[]), [""; 0]);
        assert_eq!(found(id, before.clone(), before, &[]), [""; 0]);
    }

    #[test]
    fn a_group_for_files_is_costly_on_volumes_that_last() {
        let pod = |context: Value| {
            json!({"securityContext": context, "containers": [], "volumes": [
                {"name": "tmp", "emptyDir": {}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            ]})
        };
        let run = |after| found("fs-group", pod(json!({})), pod(after), &[]);
        let claim = ["spec.volumes[data]: persistentVolumeClaim"];
        assert_eq!(run(json!({"fsGroup": 7})), claim);
        assert_eq!(
            run(json!({"fsGroup": 7, "fsGroupChangePolicy": "Always"})),
            claim
        );
        assert_eq!(
            run(json!({"fsGroup": 7, "fsGroupChangePolicy": "OnRootMismatch"})),
            [""; 0]
        );
        assert_eq!(run(json!({})), [""; 0]);
        let set = pod(json!({"fsGroup": 7}));
        assert_eq!(found("fs-group", set.clone(), set, &[]), [""; 0]);
    }

    #[test]
    fn a_token_in_use_is_seen_by_what_speaks_of_it() {
        let without = |mut pod: Value| {
            let before = pod.clone();
            pod["automountServiceAccountToken"] = false.into();
            (before, pod)
        };
        let run = |pod: Value, bindings: &[&str]| {
            let (before, after) = without(pod);
            found("token-in-use", before, after, bindings)
        };
        assert_eq!(
            run(of(json!({"args": ["--kubeconfig=in-cluster", "-v"]})), &[]),
            ["spec.containers[app].args: --kubeconfig=in-cluster"]
        );
        assert_eq!(
            run(
                of(json!({"env": [{"name": "API", "value": "https://kubernetes.default.svc"}]})),
                &[]
            ),
            ["spec.containers[app].env[API]: https://kubernetes.default.svc"]
        );
        let mut projected = of(json!({}));
        projected["volumes"] = json!([
            {"name": "kube-api-access-x2z4q", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {"name": "vault", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}},
        ]);
        assert_eq!(
            run(projected, &[]),
            ["spec.volumes[vault]: a projected token for vault"]
        );
        assert_eq!(
            run(of(json!({})), &["RoleBinding shop/reader"]),
            ["spec.serviceAccountName: RoleBinding shop/reader gives it rights"]
        );
        assert_eq!(run(of(json!({"args": ["serve"]})), &[]), [""; 0]);
        let (_, after) = without(of(json!({"args": ["in-cluster"]})));
        assert_eq!(
            found("token-in-use", after.clone(), after, &["RoleBinding a/b"]),
            [""; 0]
        );
    }

    #[test]
    fn a_probe_that_writes_needs_a_place_to_write_to() {
        let (before, after) = read_only(json!({
            "livenessProbe": {"exec": {"command": ["sh", "-c", "date > /var/alive"]}},
            "readinessProbe": {"exec": {"command": ["touch", "/data/ready"]}},
            "startupProbe": {"exec": {"command": ["cat", "/etc/started"]}},
            "lifecycle": {"preStop": {"exec": {"command": ["touch", "/stopping"]}}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }));
        assert_eq!(
            found("probe-writes", before.clone(), after.clone(), &[]),
            [
                "spec.containers[app].livenessProbe.exec.command: sh -c date > /var/alive",
                "spec.containers[app].lifecycle.preStop.exec.command: touch /stopping",
            ]
        );
        assert_eq!(found("probe-writes", after.clone(), after, &[]), [""; 0]);
    }
}
