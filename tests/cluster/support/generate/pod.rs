//! Pods as their authors post them.
//!
//! Most are consistent, so that the API server admits them without us; what it refuses is no case. Nothing
//! here knows what a policy fills in.

mod annotations;
mod container;
mod volume;

pub(super) use container::{Linux, security_context};

use hardening_engine::{FILLED, WITHHELD};
use serde_json::{Map, Value, json};

use super::values::{self, RUNTIME_CLASSES, SERVICE_ACCOUNTS};
use super::{Member, Random};

/// The node that pods with a `nodeName` name.
const NODE: &str = "node-1";

/// Which operating system a pod is for, and how it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Os {
    Unsaid,
    Linux,
    /// `spec.os.name`: the API server refuses fields that exist on Linux only.
    Windows,
    /// Only by its node selector, which the API server does not look at.
    WindowsNodes,
}

/// A pod.
pub(crate) fn pod(random: &mut Random, name: &str) -> Value {
    let os = match random.number(0..=19) {
        0 => Os::Windows,
        1 => Os::WindowsNodes,
        2..=4 => Os::Linux,
        _ => Os::Unsaid,
    };
    let mut spec = random.object(&SPEC);
    match os {
        Os::Linux => spec.insert("os".to_owned(), json!({"name": "linux"})),
        Os::Windows => spec.insert("os".to_owned(), json!({"name": "windows"})),
        Os::WindowsNodes | Os::Unsaid => None,
    };
    spec.insert("nodeSelector".to_owned(), node_selector(random, os).into());
    if os == Os::Windows {
        spec.retain(|name, _| !LINUX_ONLY.contains(&name.as_str()));
    } else {
        spec.extend(random.object(&NAMESPACES));
    }
    let mut context = match os {
        Os::Windows => random.object(&[("runAsNonRoot", 0.3, values::boolean)]),
        Os::Unsaid | Os::Linux | Os::WindowsNodes => random.object(&CONTEXT),
    };
    if os != Os::Linux && random.chance(if os == Os::Unsaid { 0.02 } else { 0.5 }) {
        context.insert("windowsOptions".to_owned(), windows_options(random));
    }
    settle(random, &mut spec, &mut context);
    let linux = match os {
        Os::Windows => Linux::No,
        _ if spec.get("hostUsers") == Some(&false.into()) => Linux::UserNamespace,
        _ => Linux::Yes,
    };
    add_volumes_and_containers(random, &mut spec, linux);
    random.leave_open(&mut context, &CONTEXT.map(|(name, ..)| name));
    if !context.is_empty() || random.chance(0.2) {
        spec.insert("securityContext".to_owned(), context.into());
    }
    random.leave_open(
        &mut spec,
        &[
            "automountServiceAccountToken",
            "hostUsers",
            "shareProcessNamespace",
            "runtimeClassName",
            "securityContext",
            "nodeSelector",
            "tolerations",
        ],
    );
    assemble(random, name, spec)
}

/// A pod that no controller deletes and no node runs, with a name and a label to find it by, and without what
/// looks like a record.
pub(crate) fn alone(mut pod: Value, name: &str, run: &str) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("generateName");
    metadata.insert("name".to_owned(), name.into());
    metadata.remove("finalizers");
    metadata.remove("ownerReferences");
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.remove(FILLED);
        annotations.remove(WITHHELD);
        // There must be room for the record.
        annotations.retain(|_, value| value.as_str().is_some_and(|text| text.len() < 1024));
    }
    pod["metadata"]["labels"]["run"] = run.into();
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    pod
}

fn assemble(random: &mut Random, name: &str, mut spec: Map<String, Value>) -> Value {
    let mut metadata = random.object(&[("labels", 0.7, labels)]);
    if random.chance(0.3) {
        metadata.insert("generateName".to_owned(), format!("{name}-").into());
    } else {
        metadata.insert("name".to_owned(), name.into());
    }
    let mirror = random.chance(0.01);
    if mirror {
        // What the API server demands of a kubelet's copy of a pod from a file.
        spec.insert("nodeName".to_owned(), NODE.into());
        spec.retain(|name, _| !name.starts_with("serviceAccount") && name != "volumes");
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            let container = container.as_object_mut().unwrap();
            let forbidden = ["env", "volumeMounts", "volumeDevices"];
            container.retain(|name, _| !forbidden.contains(&name.as_str()));
        }
        spec.remove("initContainers");
    }
    let names = container_names(&spec);
    let mut annotations = annotations::annotations(random, &names);
    if mirror {
        annotations.insert("kubernetes.io/config.mirror".to_owned(), "hash".into());
    }
    if !annotations.is_empty() || random.chance(0.1) {
        metadata.insert("annotations".to_owned(), annotations.into());
    }
    random.leave_open(&mut metadata, &["labels", "annotations"]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn container_names(spec: &Map<String, Value>) -> Vec<String> {
    let lists = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| spec.get(list)?.as_array());
    lists
        .flatten()
        .map(|container| container["name"].as_str().unwrap().to_owned())
        .collect()
}

fn labels(random: &mut Random) -> Value {
    random
        .object(&[
            ("app", 0.8, |r| (*r.pick(&["web", "db", "cache"])).into()),
            ("tier", 0.4, |r| (*r.pick(&["front", "back"])).into()),
            ("app.kubernetes.io/part-of", 0.2, |_| "shop".into()),
        ])
        .into()
}

/// What a spec has besides containers and volumes.
const SPEC: [Member; 16] = [
    ("automountServiceAccountToken", 0.2, values::boolean),
    ("hostUsers", 0.2, |r| r.chance(0.3).into()),
    ("shareProcessNamespace", 0.15, values::boolean),
    ("runtimeClassName", 0.08, |r| {
        (*r.pick(&RUNTIME_CLASSES[..2])).into()
    }),
    ("serviceAccountName", 0.35, |r| {
        (*r.pick(&SERVICE_ACCOUNTS)).into()
    }),
    // The deprecated alias; the API server takes either.
    ("serviceAccount", 0.05, |r| {
        (*r.pick(&SERVICE_ACCOUNTS)).into()
    }),
    ("restartPolicy", 0.2, |r| {
        (*r.pick(&["Always", "OnFailure", "Never"])).into()
    }),
    ("terminationGracePeriodSeconds", 0.2, |r| {
        r.number(0..=90).into()
    }),
    (
        "tolerations",
        0.15,
        |_| json!([{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]),
    ),
    ("dnsPolicy", 0.1, |r| {
        (*r.pick(&["ClusterFirst", "Default"])).into()
    }),
    ("enableServiceLinks", 0.1, values::boolean),
    ("priorityClassName", 0.05, |_| "system-node-critical".into()),
    ("imagePullSecrets", 0.1, |_| json!([{"name": "registry"}])),
    (
        "hostAliases",
        0.05,
        |_| json!([{"ip": "10.1.2.3", "hostnames": ["db.example"]}]),
    ),
    (
        "schedulingGates",
        0.05,
        |_| json!([{"name": "example.com/wait"}]),
    ),
    (
        "topologySpreadConstraints",
        0.05,
        |_| json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]),
    ),
];

/// What a pod shares with its host.
const NAMESPACES: [Member; 3] = [
    ("hostNetwork", 0.12, |r| r.chance(0.8).into()),
    ("hostPID", 0.08, |r| r.chance(0.8).into()),
    ("hostIPC", 0.08, |r| r.chance(0.8).into()),
];

/// What the API server refuses in a pod whose `os.name` is windows.
const LINUX_ONLY: [&str; 2] = ["hostUsers", "shareProcessNamespace"];

const CONTEXT: [Member; 12] = [
    ("runAsNonRoot", 0.2, values::boolean),
    ("runAsUser", 0.25, values::user),
    ("runAsGroup", 0.15, values::user),
    ("fsGroup", 0.15, values::user),
    ("fsGroupChangePolicy", 0.1, values::fs_group_change_policy),
    ("supplementalGroups", 0.15, values::groups),
    (
        "supplementalGroupsPolicy",
        0.1,
        values::supplemental_groups_policy,
    ),
    ("seccompProfile", 0.15, values::seccomp_profile),
    ("appArmorProfile", 0.12, values::app_armor_profile),
    ("seLinuxOptions", 0.1, values::se_linux_options),
    ("seLinuxChangePolicy", 0.1, |_| "Recursive".into()),
    ("sysctls", 0.2, values::sysctls),
];

fn windows_options(random: &mut Random) -> Value {
    json!({"runAsUserName": *random.pick(&["ContainerUser", "ContainerAdministrator", "containeradministrator"])})
}

fn node_selector(random: &mut Random, os: Os) -> Map<String, Value> {
    let mut selector = random.object(&[
        ("kubernetes.io/os", 0.1, |_| "linux".into()),
        ("hardware", 0.15, |r| (*r.pick(&["gpu", "cpu"])).into()),
        ("disk", 0.1, |_| "ssd".into()),
    ]);
    match os {
        Os::WindowsNodes => {
            selector.insert("kubernetes.io/os".to_owned(), "windows".into());
        }
        Os::Windows if random.flip() => {
            selector.insert("kubernetes.io/os".to_owned(), "windows".into());
        }
        Os::Unsaid | Os::Linux | Os::Windows => {}
    }
    selector
}

/// Takes out what the API server refuses side by side; mostly, as authors do err.
fn settle(random: &mut Random, spec: &mut Map<String, Value>, context: &mut Map<String, Value>) {
    if random.chance(0.05) {
        return;
    }
    let is = |spec: &Map<String, Value>, name: &str, value: bool| {
        spec.get(name) == Some(&Value::Bool(value))
    };
    if is(spec, "hostUsers", false) {
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            spec.remove(name);
        }
    }
    if is(spec, "hostPID", true) && is(spec, "shareProcessNamespace", true) {
        spec.remove("shareProcessNamespace");
    }
    let (network, ipc) = (is(spec, "hostNetwork", true), is(spec, "hostIPC", true));
    if let Some(Value::Array(sysctls)) = context.get_mut("sysctls") {
        sysctls.retain(|sysctl| {
            let name = sysctl["name"].as_str().unwrap();
            match name {
                name if name.starts_with("net") => !network,
                name if name.starts_with("vm") => true,
                _ => !ipc,
            }
        });
    }
    if spec.contains_key("serviceAccountName") {
        spec.remove("serviceAccount");
    }
}

fn add_volumes_and_containers(random: &mut Random, spec: &mut Map<String, Value>, linux: Linux) {
    let volumes = volume::volumes(random);
    let host_network = spec.get("hostNetwork") == Some(&true.into());
    let total = match random.number(0..=29) {
        0 => 20,
        1..=4 => random.number(5..=12),
        _ => random.number(1..=4),
    };
    let init = random.number(0..=total / 2);
    let mut shape = container::Shape {
        volumes: &volumes,
        linux,
        host_network,
        next_port: 8000,
    };
    let mut make = |random: &mut Random, init: bool, count: usize| -> Vec<Value> {
        let names = (0..count)
            .map(|i| container::name(init, i))
            .collect::<Vec<_>>();
        names
            .iter()
            .map(|name| container::container(random, &mut shape, name, init))
            .collect()
    };
    let init_containers = make(random, true, init);
    let containers = make(random, false, total - init);
    if !init_containers.is_empty() {
        spec.insert("initContainers".to_owned(), init_containers.into());
    }
    spec.insert("containers".to_owned(), containers.into());
    if !volumes.is_empty() {
        spec.insert("volumes".to_owned(), volumes.into());
    }
}
