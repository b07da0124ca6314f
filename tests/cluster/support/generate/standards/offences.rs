//! Things that break a rule of the standards, or nearly do, each made so that the API server takes the pod.

use serde_json::{Map, Value, json};

use super::volumes;
use crate::support::generate::Random;
use crate::support::generate::values::CAPABILITIES;

/// Does something to a pod.
type Offence = fn(&mut Random, &mut Value);

/// What the API server takes in pods for any operating system.
pub(super) const EVERYWHERE: [Offence; 7] = [
    host_namespace,
    host_port,
    host_process,
    mount,
    non_root,
    probe,
    lifecycle,
];

/// What it takes only where a pod is not said to be for Windows.
pub(super) const LINUX: [Offence; 12] = [
    app_armor,
    app_armor_annotation,
    capabilities,
    escalation,
    privileged,
    proc_mount,
    root,
    seccomp,
    seccomp_annotation,
    se_linux,
    sysctls,
    user_namespace,
];

/// What can be done to containers alone.
pub(super) const IN_CONTAINERS: [Offence; 5] = [
    capabilities,
    escalation,
    privileged,
    container_profile,
    container_user,
];

// === any operating system ===

fn host_namespace(random: &mut Random, pod: &mut Value) {
    let namespace = *random.pick(&["hostNetwork", "hostPID", "hostIPC"]);
    share_with_node(pod, namespace);
}

fn host_port(random: &mut Random, pod: &mut Value) {
    let port = random.number(1..=65535);
    let ports = &mut a_container(random, pod)["ports"];
    let port = match random.number(0..=3) {
        0 => json!({"containerPort": port, "hostPort": 0}),
        // With the network of the node it becomes one of the node.
        1 => json!({"containerPort": port}),
        _ => json!({"containerPort": port, "hostPort": port}),
    };
    match ports {
        Value::Array(ports) => ports.push(port),
        none => *none = json!([port]),
    }
}

fn host_process(random: &mut Random, pod: &mut Value) {
    let is_host_process = random.chance(0.8);
    let options = json!({"hostProcess": is_host_process, "runAsUserName": "NT AUTHORITY\\SYSTEM"});
    if is_host_process {
        share_with_node(pod, "hostNetwork");
    }
    // All containers alike, by themselves or through the pod.
    let in_pod = random.flip();
    if in_pod {
        pod["spec"]["securityContext"]["windowsOptions"] = options.clone();
    }
    for container in containers(pod) {
        if !in_pod || random.chance(0.2) {
            container["securityContext"]["windowsOptions"] = options.clone();
        }
    }
}

fn mount(random: &mut Random, pod: &mut Value) {
    let mut volume = volumes::source(random);
    volume["name"] = format!("more-{}", random.word(6)).into();
    match &mut pod["spec"]["volumes"] {
        Value::Array(volumes) => volumes.insert(random.number(0..=volumes.len()), volume),
        none => *none = json!([volume]),
    }
}

fn non_root(random: &mut Random, pod: &mut Value) {
    change(
        random,
        pod,
        "runAsNonRoot",
        &[json!(false), json!(true), Value::Null],
    );
}

fn probe(random: &mut Random, pod: &mut Value) {
    let probe = *random.pick(&["livenessProbe", "readinessProbe", "startupProbe"]);
    a_long_running_container(random, pod)[probe] = call(random);
}

fn lifecycle(random: &mut Random, pod: &mut Value) {
    let step = *random.pick(&["postStart", "preStop"]);
    a_long_running_container(random, pod)["lifecycle"][step] = call(random);
}

/// A call, by one of two protocols, to the pod itself or another host.
fn call(random: &mut Random) -> Value {
    let action = *random.pick(&["httpGet", "tcpSocket"]);
    let mut call = json!({action: {"port": 8080}});
    if random.chance(0.8) {
        call[action]["host"] = (*random.pick(&["", "localhost", "10.0.0.1", "db.example"])).into();
    }
    call
}

// === Linux ===

fn app_armor(random: &mut Random, pod: &mut Value) {
    // An annotation must not say anything else.
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| !key.contains("apparmor"));
    }
    change(random, pod, "appArmorProfile", &profiles());
}

fn app_armor_annotation(random: &mut Random, pod: &mut Value) {
    let value = *random.pick(&[
        "unconfined",
        "unconfined",
        "localhost/x",
        "runtime/default",
        "",
    ]);
    annotate(
        random,
        pod,
        "container.apparmor.security.beta.kubernetes.io/",
        value,
    );
}

fn capabilities(random: &mut Random, pod: &mut Value) {
    let (add, drop) = (
        random.some(&CAPABILITIES, 0..=2),
        random.some(&CAPABILITIES, 0..=2),
    );
    let capabilities = &mut a_container(random, pod)["securityContext"]["capabilities"];
    if random.chance(0.7) {
        capabilities["add"] = add.into();
    }
    if random.chance(0.5) {
        capabilities["drop"] = drop.into();
    }
}

fn escalation(random: &mut Random, pod: &mut Value) {
    let value = random.pick(&[json!(true), Value::Null]).clone();
    a_container(random, pod)["securityContext"]["allowPrivilegeEscalation"] = value;
}

fn privileged(random: &mut Random, pod: &mut Value) {
    let context = &mut a_container(random, pod)["securityContext"];
    context["privileged"] = random.chance(0.8).into();
    context["allowPrivilegeEscalation"] = true.into();
}

fn proc_mount(random: &mut Random, pod: &mut Value) {
    user_namespace(random, pod);
    a_container(random, pod)["securityContext"]["procMount"] =
        (*random.pick(&["Unmasked", "Unmasked", "Default"])).into();
}

fn root(random: &mut Random, pod: &mut Value) {
    change(random, pod, "runAsUser", &[json!(0), json!(1)]);
    if random.flip() {
        user_namespace(random, pod);
    }
}

fn seccomp(random: &mut Random, pod: &mut Value) {
    let mut values = profiles();
    values.push(Value::Null);
    change(random, pod, "seccompProfile", &values);
}

fn seccomp_annotation(random: &mut Random, pod: &mut Value) {
    // A field must not say anything else.
    set_all(pod, "seccompProfile", &Value::Null);
    let value = *random.pick(&[
        "unconfined",
        "unconfined",
        "docker/default",
        "localhost/x.json",
    ]);
    if random.flip() {
        let key = "seccomp.security.alpha.kubernetes.io/pod";
        pod["metadata"]["annotations"][key] = value.into();
    } else {
        annotate(
            random,
            pod,
            "container.seccomp.security.alpha.kubernetes.io/",
            value,
        );
    }
}

fn se_linux(random: &mut Random, pod: &mut Value) {
    let mut options = random.object(&[
        ("user", 0.3, |r| (*r.pick(&["", "system_u"])).into()),
        ("role", 0.3, |r| (*r.pick(&["", "system_r"])).into()),
        ("type", 0.7, |r| (*r.pick(&SE_LINUX_TYPES)).into()),
    ]);
    options.insert("level".to_owned(), "s0".into());
    change(random, pod, "seLinuxOptions", &[options.into()]);
}

const SE_LINUX_TYPES: [&str; 7] = [
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
    "spc_t",
    "unconfined_t",
];

fn sysctls(random: &mut Random, pod: &mut Value) {
    let is = |flag: &str| pod["spec"][flag] == true;
    let takes = |name: &&str| match name.starts_with("net") {
        true => !is("hostNetwork"),
        false => !is("hostIPC"),
    };
    let names: Vec<&str> = SYSCTLS.into_iter().filter(takes).collect();
    let names = random.some(&names, 1..=3).into_iter();
    let sysctls = names.map(|name| json!({"name": name, "value": "1"}));
    pod["spec"]["securityContext"]["sysctls"] = sysctls.collect();
}

const SYSCTLS: [&str; 15] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net/ipv4/tcp_syncookies",
    "net.core.somaxconn",
    "kernel.msgmax",
];

fn user_namespace(_: &mut Random, pod: &mut Value) {
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.retain(|name, _| !["hostNetwork", "hostPID", "hostIPC"].contains(&name.as_str()));
    spec.insert("hostUsers".to_owned(), false.into());
    // Raw block devices belong to nobody there.
    for container in containers(pod) {
        container.as_object_mut().unwrap().remove("volumeDevices");
    }
}

// === in containers alone ===

fn container_profile(random: &mut Random, pod: &mut Value) {
    let field = *random.pick(&["appArmorProfile", "seccompProfile"]);
    let profile = random.pick(&profiles()).clone();
    a_container(random, pod)["securityContext"][field] = profile;
}

fn container_user(random: &mut Random, pod: &mut Value) {
    let context = &mut a_container(random, pod)["securityContext"];
    match random.flip() {
        true => context["runAsUser"] = 0.into(),
        false => context["runAsNonRoot"] = false.into(),
    }
}

// === what they are made of ===

fn profiles() -> Vec<Value> {
    vec![
        json!({"type": "Unconfined"}),
        json!({"type": "RuntimeDefault"}),
        json!({"type": "Localhost", "localhostProfile": "x"}),
    ]
}

fn containers(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let spec = pod["spec"].as_object_mut().unwrap().iter_mut();
    let lists = spec.filter(|(name, _)| *name == "containers" || *name == "initContainers");
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten()
}

fn a_container<'p>(random: &mut Random, pod: &'p mut Value) -> &'p mut Value {
    let count = containers(pod).count();
    containers(pod).nth(random.number(0..=count - 1)).unwrap()
}

/// One that may have probes: no init container, or one that goes on.
fn a_long_running_container<'p>(random: &mut Random, pod: &'p mut Value) -> &'p mut Value {
    let container = a_container(random, pod);
    let name = container["name"].as_str().unwrap();
    if name.starts_with('i') || name == "app-init" {
        container["restartPolicy"] = "Always".into();
    }
    container
}

/// Sets a field of the pod's, a container's or all of their security contexts.
fn change(random: &mut Random, pod: &mut Value, field: &str, values: &[Value]) {
    let value = random.pick(values).clone();
    match random.number(0..=3) {
        0 => set_all(pod, field, &value),
        1 => a_container(random, pod)["securityContext"][field] = value,
        _ => pod["spec"]["securityContext"][field] = value,
    }
}

fn set_all(pod: &mut Value, field: &str, value: &Value) {
    pod["spec"]["securityContext"][field] = value.clone();
    for container in containers(pod) {
        container["securityContext"][field] = value.clone();
    }
}

/// Puts an annotation for one of its containers on a pod.
fn annotate(random: &mut Random, pod: &mut Value, prefix: &str, value: &str) {
    let name = a_container(random, pod)["name"].clone();
    let key = format!("{prefix}{}", name.as_str().unwrap());
    match &mut pod["metadata"]["annotations"] {
        Value::Object(annotations) => {
            annotations.insert(key, value.into());
        }
        none => *none = Map::from_iter([(key, Value::from(value))]).into(),
    }
}

/// With a user namespace of its own a pod can share none with the node.
fn share_with_node(pod: &mut Value, namespace: &str) {
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.insert(namespace.to_owned(), true.into());
    spec.remove("hostUsers");
    spec.remove("shareProcessNamespace");
    if let Some(context) = spec
        .get_mut("securityContext")
        .and_then(Value::as_object_mut)
    {
        context.remove("sysctls");
    }
}
