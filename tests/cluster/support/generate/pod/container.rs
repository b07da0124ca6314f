//! A pod's containers.

use serde_json::{Map, Value, json};

use crate::support::generate::values::{self, CAPABILITIES, PATHS};
use crate::support::generate::{Member, Random};

/// Whether containers may say what exists on Linux only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::support::generate) enum Linux {
    /// A pod with a user namespace of its own, which allows more.
    UserNamespace,
    Yes,
    /// The API server refuses it.
    No,
}

/// What a pod's containers have in common.
pub(super) struct Shape<'v> {
    pub(super) volumes: &'v [Value],
    pub(super) linux: Linux,
    pub(super) host_network: bool,
    pub(super) next_port: u16,
}

/// A container's name; some are as long as names may be, and some are alike for as long as possible.
pub(super) fn name(init: bool, number: usize) -> String {
    match (init, number) {
        (false, 0) => "app".to_owned(),
        (true, 0) => "app-init".to_owned(),
        (false, 3 | 4) => format!("{}-{number}", "long".repeat(15)),
        (false, _) => format!("c{number}"),
        (true, _) => format!("i{number}"),
    }
}

/// A container, or an init container.
pub(super) fn container(
    random: &mut Random,
    shape: &mut Shape<'_>,
    name: &str,
    init: bool,
) -> Value {
    let mut container = random.object(&[
        ("command", 0.3, |_| json!(["/bin/app", "--flag"])),
        ("env", 0.3, |_| {
            json!([{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}, {"name": "X", "value": "y"}])
        }),
        ("resources", 0.3, |_| {
            json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}})
        }),
        ("imagePullPolicy", 0.2, |_| "Never".into()),
        ("terminationMessagePolicy", 0.1, |_| {
            "FallbackToLogsOnError".into()
        }),
        ("workingDir", 0.1, |_| "/srv".into()),
        ("stdin", 0.05, |_| true.into()),
    ]);
    container.insert("name".to_owned(), name.into());
    container.insert("image".to_owned(), "registry.example/app:1.2".into());
    if init && random.chance(0.4) {
        container.insert("restartPolicy".to_owned(), "Always".into());
    }
    if !init && random.chance(0.15) {
        container.insert(
            "livenessProbe".to_owned(),
            json!({"httpGet": {"path": "/healthz", "port": 8080}}),
        );
    }
    if !init && random.chance(0.3) {
        container.insert("ports".to_owned(), ports(random, shape).into());
    }
    if random.chance(0.75) {
        let context = security_context(random, shape.linux);
        container.insert("securityContext".to_owned(), context.into());
    }
    mount(random, shape, &mut container);
    random.leave_open(
        &mut container,
        &[
            "securityContext",
            "volumeMounts",
            "volumeDevices",
            "env",
            "resources",
            "command",
        ],
    );
    container.into()
}

fn ports(random: &mut Random, shape: &mut Shape<'_>) -> Vec<Value> {
    (0..random.number(1..=2))
        .map(|i| {
            shape.next_port += 1;
            let mut port = json!({"containerPort": shape.next_port, "name": format!("p{i}")});
            if shape.host_network && random.flip() {
                port["hostPort"] = shape.next_port.into();
            }
            port
        })
        .collect()
}

/// Mounts and raw block devices, at paths that differ.
fn mount(random: &mut Random, shape: &Shape<'_>, container: &mut Map<String, Value>) {
    let mut volumes = random.some(shape.volumes, 0..=3);
    let mut paths = random.some(&PATHS, 3..=3).into_iter();
    if let Some(at) = volumes
        .iter()
        .position(|volume| volume["persistentVolumeClaim"].is_object())
        && random.flip()
        && (shape.linux == Linux::Yes || random.chance(0.1))
        && let Some(path) = paths.next()
    {
        let volume = volumes.remove(at);
        let device = json!([{"name": volume["name"], "devicePath": path}]);
        container.insert("volumeDevices".to_owned(), device);
    }
    let mounts: Vec<Value> = volumes
        .iter()
        .zip(paths)
        .map(|(volume, path)| {
            let path = match random.number(0..=9) {
                0 => format!("{path}/"),
                1 => format!("{path}/."),
                2 => "/".to_owned(),
                _ => path.to_owned(),
            };
            let mut mount = random.object(&[("readOnly", 0.3, values::boolean)]);
            mount.insert("name".to_owned(), volume["name"].clone());
            mount.insert("mountPath".to_owned(), path.into());
            mount.into()
        })
        .collect();
    if !mounts.is_empty() {
        container.insert("volumeMounts".to_owned(), mounts.into());
    }
}

const CONTEXT: [Member; 11] = [
    ("runAsUser", 0.2, values::user),
    ("runAsNonRoot", 0.2, values::boolean),
    ("runAsGroup", 0.15, values::user),
    ("privileged", 0.2, |r| r.chance(0.4).into()),
    ("allowPrivilegeEscalation", 0.2, values::boolean),
    ("readOnlyRootFilesystem", 0.15, values::boolean),
    ("procMount", 0.1, values::proc_mount),
    ("capabilities", 0.35, capabilities),
    ("seccompProfile", 0.12, values::seccomp_profile),
    ("appArmorProfile", 0.1, values::app_armor_profile),
    ("seLinuxOptions", 0.1, values::se_linux_options),
];

/// A container's security context.
pub(in crate::support::generate) fn security_context(
    random: &mut Random,
    linux: Linux,
) -> Map<String, Value> {
    let mut context = match linux {
        Linux::No => random.object(&[
            ("runAsNonRoot", 0.3, values::boolean),
            (
                "windowsOptions",
                0.3,
                |_| json!({"runAsUserName": "ContainerAdministrator"}),
            ),
        ]),
        Linux::Yes | Linux::UserNamespace => random.object(&CONTEXT),
    };
    if random.chance(0.95) {
        let privileged = context.get("privileged") == Some(&true.into());
        let escalates = context
            .get("capabilities")
            .is_some_and(|capabilities| capabilities.to_string().contains("CAP_SYS_ADMIN"));
        if (privileged || escalates)
            && context.get("allowPrivilegeEscalation") == Some(&false.into())
        {
            context.remove("allowPrivilegeEscalation");
        }
        if linux != Linux::UserNamespace && context.get("procMount") == Some(&"Unmasked".into()) {
            context.remove("procMount");
        }
    }
    random.leave_open(&mut context, &CONTEXT.map(|(name, ..)| name));
    context
}

/// In any spelling: the API server takes what it is given.
fn capabilities(random: &mut Random) -> Value {
    fn names(random: &mut Random) -> Value {
        let spell = |random: &mut Random, name: &str| match random.number(0..=5) {
            0 => format!("CAP_{name}"),
            1 => name.to_lowercase(),
            _ => name.to_owned(),
        };
        let names = random.some(&CAPABILITIES, 0..=3);
        names.iter().map(|name| spell(random, name)).collect()
    }
    random
        .object(&[("add", 0.5, names), ("drop", 0.5, names)])
        .into()
}
