//! Each field of the table, as a process or its user notices it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::{self, fs::PermissionsExt as _};

use hardening_engine::{FIELDS, FILLED, Field};
use serde_json::{Value, json};
use test_control_plane::Image;

use crate::support::bench::Bench;
use crate::support::case::{
    Case, case, pod, reporter, reporting, running, sees, stops, with, with_app,
};
use crate::support::cluster::Machine;

/// A case of one field, or that no process can notice it.
enum Proof {
    Case(Case),
    /// Why there is nothing to see on this machine, or on any; the pod runs all the same.
    Unnoticed(&'static str, Case),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_is_noticed_or_it_is_known_why_not() {
    let Some(bench) = Bench::open("fields").await else {
        return;
    };
    for policy in CHANGE_POLICIES {
        volume_with_a_file(&bench, policy).await;
    }
    let proofs = proofs(bench.machine());
    let proven: BTreeSet<Field> = proofs.iter().map(|(field, _)| *field).collect();
    let unproven: Vec<&str> = FIELDS
        .iter()
        .filter(|row| !proven.contains(&row.field))
        .map(|row| row.field.name())
        .collect();
    assert!(unproven.is_empty(), "no case for {unproven:?}");

    let cases: Vec<Case> = proofs
        .iter()
        .map(|(_, proof)| match proof {
            Proof::Case(case) | Proof::Unnoticed(_, case) => case.clone(),
        })
        .collect();
    let created = bench.run(&cases).await;
    let mut unnoticed = Vec::new();
    for ((field, proof), pod) in proofs.iter().zip(&created) {
        let record = pod["metadata"]["annotations"][FILLED].as_str();
        assert!(
            record.is_some_and(|record| record.contains(path(*field))),
            "{}: {record:?}",
            field.name()
        );
        if let Proof::Unnoticed(why, _) = proof {
            unnoticed.push(format!("{} ({why})", field.name()));
        }
    }
    bench
        .close(&format!(
            "{} cases of {} fields; not to be noticed here: {}",
            cases.len(),
            proven.len(),
            unnoticed.join(", ")
        ))
        .await;
}

/// The end of the field's path, as the record on a pod has it.
fn path(field: Field) -> &'static str {
    let row = field.row();
    row.pod.or(row.container).unwrap()
}

/// Every field, with what its default does to a pod in which nothing is said.
fn proofs(machine: Machine) -> Vec<(Field, Proof)> {
    let seen = |field, name: &str, policy, pod, expected: &[(&str, &str)]| {
        (field, Proof::Case(case(name, policy, pod, sees(expected))))
    };
    let root = || reporting(Image::ROOT);
    let mut proofs = vec![
        seen(
            Field::RunAsUser,
            "user-of-the-pod",
            context(json!({"runAsUser": 10001})),
            root(),
            &[
                ("uid", "10001"),
                ("gid", "0"),
                ("CapEff", "0000000000000000"),
            ],
        ),
        seen(
            Field::RunAsUser,
            "user-of-the-container",
            container(json!({"runAsUser": 10002})),
            reporting(Image::NAMED_USER),
            &[("uid", "10002")],
        ),
        seen(
            Field::RunAsGroup,
            "group-of-the-pod",
            context(json!({"runAsUser": 10001, "runAsGroup": 3000})),
            root(),
            &[("uid", "10001"), ("gid", "3000"), ("groups", "3000")],
        ),
        seen(
            Field::RunAsGroup,
            "group-of-the-container",
            container(json!({"runAsGroup": 3001})),
            with_app(root(), json!({"securityContext": {"runAsUser": 10003}})),
            &[("uid", "10003"), ("gid", "3001")],
        ),
        (
            Field::RunAsNonRoot,
            Proof::Case(case(
                "not-as-root",
                context(json!({"runAsNonRoot": true})),
                root(),
                stops("CreateContainerConfigError", crate::profiles::RUNS_AS_ROOT),
            )),
        ),
        seen(
            Field::RunAsNonRoot,
            "not-as-root-and-is-not",
            container(json!({"runAsNonRoot": true})),
            reporting(Image::NUMERIC_USER),
            &[("uid", "1234")],
        ),
        seen(
            Field::FsGroup,
            "group-of-volumes",
            context(json!({"fsGroup": 2000})),
            with_volume(reporting(Image::NUMERIC_USER)),
            &[
                ("groups", "1234 2000 4321"),
                ("owner /volume", "drwxrwsrwx 0 2000"),
                ("write /volume", "yes"),
            ],
        ),
        seen(
            Field::SupplementalGroups,
            "more-groups",
            context(json!({"supplementalGroups": [4000, 4001]})),
            root(),
            &[("gid", "0"), ("groups", "0 4000 4001")],
        ),
        seen(
            Field::SupplementalGroupsPolicy,
            "groups-of-the-image",
            context(json!({"supplementalGroupsPolicy": "Merge"})),
            reporting(Image::NUMERIC_USER),
            // The image's /etc/group has the user in 4321.
            &[("groups", "1234 4321")],
        ),
        seen(
            Field::SeccompProfile,
            "system-calls-of-the-pod",
            context(json!({"seccompProfile": {"type": "RuntimeDefault"}})),
            root(),
            &[("Seccomp", "2"), ("chmod", "yes")],
        ),
        seen(
            Field::SeccompProfile,
            "system-calls-of-the-container",
            container(
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "no-chmod.json"}}),
            ),
            root(),
            &[("Seccomp", "2"), ("chmod", "Operation not permitted")],
        ),
        seen(
            Field::Sysctls,
            "kernel-settings",
            context(json!({"sysctls": [
                {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
                {"name": "kernel.shm_rmid_forced", "value": "1"},
            ]})),
            root(),
            &[
                ("net.ipv4.ip_unprivileged_port_start", "80"),
                ("kernel.shm_rmid_forced", "1"),
            ],
        ),
        seen(
            Field::AutomountServiceAccountToken,
            "no-token",
            json!({"pod": {"automountServiceAccountToken": false}}),
            root(),
            &[("token", "no"), ("secrets", "no")],
        ),
        seen(
            Field::AllowPrivilegeEscalation,
            "no-escalation",
            container(json!({"allowPrivilegeEscalation": false})),
            root(),
            &[("NoNewPrivs", "1"), ("uid", "0")],
        ),
        seen(
            Field::CapabilitiesDrop,
            "capabilities-taken",
            container(json!({"capabilities": {"drop": ["ALL"]}})),
            root(),
            &[
                ("CapEff", "0000000000000000"),
                ("CapBnd", "0000000000000000"),
            ],
        ),
        seen(
            Field::CapabilitiesAdd,
            "capabilities-given",
            container(json!({"capabilities": {"add": ["NET_ADMIN"]}})),
            root(),
            &[("CapEff", "00000000a80435fb")],
        ),
        seen(
            Field::ReadOnlyRootFilesystem,
            "read-only",
            container(json!({"readOnlyRootFilesystem": true})),
            root(),
            &[
                ("write /", "Read-only file system"),
                ("write /tmp", "Read-only file system"),
            ],
        ),
        seen(
            Field::WritablePaths,
            "writable-paths",
            json!({"containers": {
                "securityContext": {"readOnlyRootFilesystem": true},
                "writablePaths": [{"path": "/tmp", "medium": "Memory", "sizeLimit": "1Mi"}, {"path": "/data"}],
            }}),
            looking_at(root(), "/data /etc"),
            &[
                ("write /tmp", "yes"),
                ("kind /tmp", "tmpfs"),
                ("write /data", "yes"),
                ("write /etc", "Read-only file system"),
            ],
        ),
        (
            Field::RuntimeClassName,
            Proof::Case(case(
                "another-runtime",
                json!({"pod": {"runtimeClassName": "sandboxed"}}),
                root(),
                stops(
                    "ContainerCreating",
                    "no runtime for \"missing\" is configured",
                ),
            )),
        ),
    ];
    proofs.extend(CHANGE_POLICIES.map(change_of_volumes));
    proofs.push(app_armor(machine));
    proofs.push(user_namespace(machine));
    proofs.extend(unnoticed(machine));
    proofs
}

/// The policies of `fsGroupChangePolicy`, and the claim of a volume of each one's own.
const CHANGE_POLICIES: [(&str, &str); 2] =
    [("Always", "always"), ("OnRootMismatch", "on-mismatch")];

/// A volume that outlives pods: its folder is the group's already, and a file in it is not.
async fn volume_with_a_file(bench: &Bench, (_, claim): (&str, &str)) {
    let node = &bench.cluster.node;
    let folder = node.directory().join(claim);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    unix::fs::chown(&folder, None, Some(2000)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name()]},
    ]}]}});
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": claim},
        "spec": {
            "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
            "local": {"path": folder.to_str().unwrap()}, "nodeAffinity": affinity,
            "claimRef": {"namespace": bench.topic, "name": claim},
        },
    });
    bench.api.ensure("/api/v1/persistentvolumes", &volume).await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "volumeName": claim,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    });
    let claims = bench.path("api/v1", "persistentvolumeclaims");
    bench.api.post(&claims, &claim).await.unwrap();
}

/// Whether a file in that volume is given to the group.
fn change_of_volumes((policy, claim): (&'static str, &'static str)) -> (Field, Proof) {
    let owner = match policy {
        "Always" => "-rw-rw-r-- 0 2000",
        _ => "-rw-r--r-- 0 0",
    };
    let volume = json!([{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}]);
    let pod = with(
        with_volume(reporting(Image::NUMERIC_USER)),
        json!({"volumes": volume}),
    );
    let case = case(
        &format!("change-of-volumes-{claim}"),
        context(json!({"fsGroup": 2000, "fsGroupChangePolicy": policy})),
        looking_at(pod, "/volume /volume/file"),
        sees(&[("write /volume", "yes"), ("owner /volume/file", owner)]),
    );
    (Field::FsGroupChangePolicy, Proof::Case(case))
}

fn app_armor(machine: Machine) -> (Field, Proof) {
    let expected = match machine.app_armor {
        true => sees(&[("AppArmor", "cri-containerd.apparmor.d (enforce)")]),
        false => stops(
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ),
    };
    let policy = context(json!({"appArmorProfile": {"type": "RuntimeDefault"}}));
    let case = case("app-armor", policy, reporting(Image::ROOT), expected);
    (Field::AppArmorProfile, Proof::Case(case))
}

fn user_namespace(machine: Machine) -> (Field, Proof) {
    let expected = match machine.user_namespaces {
        true => sees(&[("uid", "0"), ("users", "its own"), ("write /", "yes")]),
        false => stops(
            "ContainerCreating",
            "runtime does not support user namespaces",
        ),
    };
    let policy = json!({"pod": {"hostUsers": false}});
    let case = case("user-namespace", policy, reporting(Image::ROOT), expected);
    (Field::HostUsers, Proof::Case(case))
}

/// The fields that change nothing that a process could see, or not on this machine.
fn unnoticed(machine: Machine) -> Vec<(Field, Proof)> {
    let works =
        |name: &str, policy| case(name, policy, reporting(Image::ROOT), sees(&[("uid", "0")]));
    let is_so_anyway = "what every pod has where nothing is said";
    vec![
        (
            Field::ShareProcessNamespace,
            Proof::Unnoticed(
                is_so_anyway,
                case(
                    "own-processes",
                    json!({"pod": {"shareProcessNamespace": false}}),
                    pod(json!([
                        reporter("app", Image::ROOT),
                        running("other", Image::ROOT, "exit 0"),
                    ])),
                    sees(&[("pid", "1")]),
                ),
            ),
        ),
        (
            Field::Privileged,
            Proof::Unnoticed(
                is_so_anyway,
                case(
                    "unprivileged",
                    container(json!({"privileged": false})),
                    reporting(Image::ROOT),
                    sees(&[("CapEff", "00000000a80425fb"), ("/proc/sys", "read-only")]),
                ),
            ),
        ),
        (
            Field::ProcMount,
            Proof::Unnoticed(
                is_so_anyway,
                case(
                    "masked-proc",
                    container(json!({"procMount": "Default"})),
                    reporting(Image::ROOT),
                    sees(&[("/proc/sys", "read-only")]),
                ),
            ),
        ),
        (
            Field::RuntimeClassName,
            Proof::Unnoticed(
                "a class of the same runtime",
                works(
                    "same-runtime",
                    json!({"pod": {"runtimeClassName": "plain"}}),
                ),
            ),
        ),
        (
            Field::SeLinuxOptions,
            Proof::Unnoticed(
                if machine.se_linux {
                    "containerd labels nothing unless it is told to"
                } else {
                    "this kernel has no SELinux"
                },
                works(
                    "se-linux",
                    context(json!({"seLinuxOptions": {"level": "s0:c1,c2"}})),
                ),
            ),
        ),
        (
            Field::SeLinuxChangePolicy,
            Proof::Unnoticed(
                "how volumes get a label that nothing has here",
                works(
                    "se-linux-change",
                    context(json!({"seLinuxChangePolicy": "Recursive"})),
                ),
            ),
        ),
    ]
}

/// A policy of the pod's security context.
fn context(fields: Value) -> Value {
    json!({"pod": {"securityContext": fields}})
}

/// A policy of each container's security context.
fn container(fields: Value) -> Value {
    json!({"containers": {"securityContext": fields}})
}

/// With a volume at `/volume`, which the report looks at.
fn with_volume(pod: Value) -> Value {
    let pod = with(
        pod,
        json!({"volumes": [{"name": "volume", "emptyDir": {}}]}),
    );
    let mounts = json!({"volumeMounts": [{"name": "volume", "mountPath": "/volume"}]});
    looking_at(with_app(pod, mounts), "/volume")
}

/// With more paths for the report to look at.
fn looking_at(pod: Value, paths: &str) -> Value {
    with_app(pod, json!({"env": [{"name": "LOOK_AT", "value": paths}]}))
}
