//! The guards that the API server decides: with the guard the pod is admitted, and with the default filled in
//! all the same the API server refuses it, in its own words. So each is known to be needed.

use hardening_engine::{FIELDS, Field, Guard, KubernetesVersion, Pod, plan};
use serde_json::{Value, json};

use crate::support::compare::as_the_webhook_saw_it;
use crate::support::lab::Lab;
use crate::support::tell::tell;
use crate::support::version::not_run;

/// A pod that works, a policy's defaults, and what would come of filling them in.
struct Case {
    name: String,
    pod: Value,
    /// A cluster policy's spec.
    policy: Value,
    guard: Guard,
    /// The pod with the default filled in by hand.
    naive: Value,
    /// What the API server says to that.
    refusal: &'static str,
}

/// Cases whose refusal came with a version; before it the API server leaves it to the kubelet.
const REFUSED_SINCE: [(&str, KubernetesVersion); 1] = [(
    "a container uses a raw block device",
    KubernetesVersion::v1(34),
)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_is_needed_and_enough() {
    let lab = Lab::open("guards").await;
    let cases = cases();
    for case in &cases {
        check(&lab, case).await;
    }
    let decided: std::collections::BTreeSet<Guard> = cases.iter().map(|case| case.guard).collect();
    tell(&format!(
        "guards: {} cases of {} guards, each refused without its guard",
        cases.len(),
        decided.len()
    ));
    lab.close().await;
}

async fn check(lab: &Lab, case: &Case) {
    let version = lab.version;
    let Case {
        name,
        pod,
        policy,
        guard,
        naive,
        refusal,
    } = case;
    let path = "/api/v1/namespaces/shop/pods?dryRun=All";
    let mut spec = policy.clone();
    spec["allowWeakening"] = true.into();
    let policies = [json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "under-test"}, "spec": spec,
    })];
    lab.put_in_force(&policies);

    let without_us = lab.without_us.post(path, pod).await;
    let without_us = without_us.unwrap_or_else(|error| panic!("{name}: no working pod: {error}"));

    let with_us = lab.with_us.post(path, pod).await;
    with_us.unwrap_or_else(|error| panic!("{name}: the guard does not hold: {error}"));
    let (set, text) = (
        lab.policy_set(&policies),
        as_the_webhook_saw_it(&without_us, pod).to_string(),
    );
    let view = Pod::from_json(&text).unwrap();
    let plan = plan(&set.matching("shop", &view).unwrap(), &view);
    let held: Vec<Guard> = plan.withheld.iter().map(|held| held.guard).collect();
    assert!(held.contains(guard), "{name}: withheld {held:?}");

    let since = REFUSED_SINCE.iter().find(|(case, _)| case == name);
    let is_refused = since.is_none_or(|(_, since)| version >= *since);
    match lab.without_us.post(path, naive).await {
        Ok(_) if !is_refused => not_run(version, &format!("{name}: it is not refused yet")),
        Ok(_) => panic!("{name}: the API server takes {naive:#}, so the guard is not needed"),
        Err(error) => {
            // 1.33 says it in Go's spelling.
            let message = error.message.replace("pod.Spec.HostUsers", "hostUsers");
            assert!(
                message.contains(refusal),
                "{name}: the API server says {error}"
            );
        }
    }
}

/// Sets a value, with whatever it needs above it.
fn set_at(object: &mut Value, place: &str, value: Value) {
    let mut at = object;
    for step in place.split('/').skip(1) {
        at = match at {
            Value::Array(items) => {
                let index = step.parse().unwrap_or(items.len());
                if index == items.len() {
                    items.push(Value::Null);
                }
                &mut items[index]
            }
            other => &mut other[step],
        };
    }
    *at = value;
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "a privileged container always escalates",
            pod(json!({}), json!({"securityContext": {"privileged": true}})),
            container(json!({"allowPrivilegeEscalation": false})),
            Guard::AlwaysEscalates,
            (
                "/spec/containers/0/securityContext/allowPrivilegeEscalation",
                json!(false),
            ),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        case(
            "a container with SYS_ADMIN always escalates",
            pod(
                json!({}),
                json!({"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}}}),
            ),
            container(json!({"allowPrivilegeEscalation": false})),
            Guard::AlwaysEscalates,
            (
                "/spec/containers/0/securityContext/allowPrivilegeEscalation",
                json!(false),
            ),
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        ),
        case(
            "an unmasked /proc needs a user namespace",
            pod(json!({}), json!({})),
            container(json!({"procMount": "Unmasked"})),
            Guard::UnmaskedProc,
            (
                "/spec/containers/0/securityContext/procMount",
                json!("Unmasked"),
            ),
            "`hostUsers` must be false to use `Unmasked`",
        ),
        case(
            "a container uses a raw block device",
            pod(
                json!({"volumes": [{"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}}]}),
                json!({"volumeDevices": [{"name": "raw", "devicePath": "/dev/raw"}]}),
            ),
            json!({"pod": {"hostUsers": false}}),
            Guard::UserNamespace,
            ("/spec/hostUsers", json!(false)),
            "spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false",
        ),
        case(
            "a mount stands at the path already",
            pod(
                json!({"volumes": [{"name": "own", "emptyDir": {}}]}),
                json!({"volumeMounts": [{"name": "own", "mountPath": "/tmp"}]}),
            ),
            writable("/tmp"),
            Guard::AlreadyMounted,
            (
                "/spec/containers/0/volumeMounts/-",
                json!({"name": "own", "mountPath": "/tmp"}),
            ),
            "volumeMounts[1].mountPath: Invalid value: \"/tmp\": must be unique",
        ),
        case(
            "a device stands at the path already",
            pod(
                json!({"volumes": [
                    {"name": "raw", "persistentVolumeClaim": {"claimName": "raw"}},
                    {"name": "own", "emptyDir": {}},
                ]}),
                json!({"volumeDevices": [{"name": "raw", "devicePath": "/data"}]}),
            ),
            writable("/data"),
            Guard::AlreadyMounted,
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "own", "mountPath": "/data"}]),
            ),
            "must not already exist as a path in volumeDevices",
        ),
        case(
            "there is no such RuntimeClass",
            pod(json!({}), json!({})),
            json!({"pod": {"runtimeClassName": "missing"}}),
            Guard::RuntimeClass,
            ("/spec/runtimeClassName", json!("missing")),
            "RuntimeClass \"missing\" not found",
        ),
        case(
            "the RuntimeClass asks for other nodes",
            pod(json!({"nodeSelector": {"hardware": "cpu"}}), json!({})),
            json!({"pod": {"runtimeClassName": "on-gpu-nodes"}}),
            Guard::RuntimeClass,
            ("/spec/runtimeClassName", json!("on-gpu-nodes")),
            "conflict: runtimeClass.scheduling.nodeSelector[hardware] = gpu; pod.spec.nodeSelector[hardware] = cpu",
        ),
        case(
            "a feature gate is off",
            pod(json!({}), json!({})),
            context(json!({"seLinuxChangePolicy": "MountOption"})),
            Guard::FeatureGate,
            (
                "/spec/securityContext/seLinuxChangePolicy",
                json!("MountOption"),
            ),
            "Unsupported value: \"MountOption\": supported values: \"Recursive\"",
        ),
    ];
    cases.extend(host_namespaces());
    cases.extend(legacy_annotations());
    cases.extend(windows());
    cases
}

fn host_namespaces() -> impl Iterator<Item = Case> {
    let users = [
        (
            "hostNetwork",
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
        ),
        (
            "hostPID",
            "spec.HostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            "hostIPC",
            "spec.HostIPC: Forbidden: when `hostUsers` is false",
        ),
    ];
    let users = users.into_iter().map(|(host, refusal)| {
        case(
            host,
            pod(json!({host: true}), json!({})),
            json!({"pod": {"hostUsers": false}}),
            Guard::UserNamespace,
            ("/spec/hostUsers", json!(false)),
            refusal,
        )
    });
    let of_network = "may not be specified when 'hostNetwork' is true";
    let of_ipc = "may not be specified when 'hostIPC' is true";
    let sysctls = [
        ("net.ipv4.tcp_syncookies", "hostNetwork", of_network),
        ("net/ipv4/tcp_syncookies", "hostNetwork", of_network),
        (
            "net/ipv4/conf/eth0.100/rp_filter",
            "hostNetwork",
            of_network,
        ),
        ("kernel.shm_rmid_forced", "hostIPC", of_ipc),
        ("kernel.msgmnb", "hostIPC", of_ipc),
        ("kernel/sem", "hostIPC", of_ipc),
        ("fs/mqueue/msg_max", "hostIPC", of_ipc),
    ];
    let sysctls = sysctls.into_iter().map(|(name, host, refusal)| {
        let sysctls = json!([{"name": name, "value": "1"}]);
        case(
            name,
            pod(json!({host: true}), json!({})),
            context(json!({"sysctls": sysctls})),
            Guard::HostNamespaceSysctl,
            ("/spec/securityContext/sysctls", sysctls),
            refusal,
        )
    });
    users.chain(sysctls)
}

fn legacy_annotations() -> impl Iterator<Item = Case> {
    let seccomp_pod = "seccomp.security.alpha.kubernetes.io/pod";
    let seccomp_container = "container.seccomp.security.alpha.kubernetes.io/app";
    let app_armor = "container.apparmor.security.beta.kubernetes.io/app";
    let seccomp_differs = "seccomp type in annotation and field must match";
    let app_armor_differs = "apparmor type in annotation and field must match";
    let at_pod = ("/spec/securityContext", context as fn(Value) -> Value);
    let at_container = (
        "/spec/containers/0/securityContext",
        container as fn(Value) -> Value,
    );
    let default = json!({"type": "RuntimeDefault"});
    let local = json!({"type": "Localhost", "localhostProfile": "other.json"});
    [
        (
            seccomp_pod,
            "unconfined",
            at_pod,
            "seccompProfile",
            default.clone(),
            seccomp_differs,
        ),
        (
            seccomp_pod,
            "runtime/default",
            at_pod,
            "seccompProfile",
            local.clone(),
            seccomp_differs,
        ),
        (
            seccomp_pod,
            "localhost/one.json",
            at_pod,
            "seccompProfile",
            local.clone(),
            "seccomp profile in annotation and field must match",
        ),
        (
            seccomp_container,
            "unconfined",
            at_container,
            "seccompProfile",
            default.clone(),
            seccomp_differs,
        ),
        (
            app_armor,
            "unconfined",
            at_container,
            "appArmorProfile",
            default.clone(),
            app_armor_differs,
        ),
        (
            app_armor,
            "localhost/one",
            at_container,
            "appArmorProfile",
            default.clone(),
            app_armor_differs,
        ),
        // The API server makes no field of these, so that the pod's profile is held against them.
        (
            app_armor,
            "",
            at_pod,
            "appArmorProfile",
            default.clone(),
            app_armor_differs,
        ),
        (
            app_armor,
            "localhost/",
            at_pod,
            "appArmorProfile",
            default.clone(),
            app_armor_differs,
        ),
        (
            app_armor,
            "localhost/ padded",
            at_pod,
            "appArmorProfile",
            default.clone(),
            app_armor_differs,
        ),
    ]
    .into_iter()
    .map(
        |(annotation, value, (place, policy), field, profile, refusal)| {
            let mut annotated = pod(json!({}), json!({}));
            annotated["metadata"]["annotations"] = json!({annotation: value});
            let place = format!("{place}/{field}");
            let mut naive = annotated.clone();
            set_at(&mut naive, &place, profile.clone());
            Case {
                name: format!("{annotation}: {value:?} beside {place}"),
                pod: annotated,
                policy: policy(json!({field: profile})),
                guard: Guard::LegacyAnnotation,
                naive,
                refusal,
            }
        },
    )
}

/// Every field that exists on Linux only, at each of its levels, in a pod that says that it is for Windows.
fn windows() -> impl Iterator<Item = Case> {
    let fields = FIELDS.iter().filter(|row| row.linux_only);
    let places = fields.flat_map(|row| {
        let at_pod = row.pod.map(|path| (row.field, path, true));
        let at_container = row.container.map(|path| (row.field, path, false));
        at_pod.into_iter().chain(at_container)
    });
    // An emptyDir is as good on Windows; it is held back with the field that it is for.
    let refused = places.filter(|(field, ..)| *field != Field::WritablePaths);
    refused.map(|(field, path, at_pod)| {
        let pointer = path.replace('.', "/");
        let value = example(field);
        let mut defaults = json!({});
        set_at(&mut defaults, &format!("/{pointer}"), value.clone());
        let policy = if at_pod {
            json!({"pod": defaults})
        } else {
            json!({"containers": defaults})
        };
        let windows = pod(json!({"os": {"name": "windows"}}), json!({}));
        let mut naive = windows.clone();
        let level = if at_pod {
            "/spec"
        } else {
            "/spec/containers/0"
        };
        set_at(&mut naive, &format!("{level}/{pointer}"), value);
        Case {
            name: format!("{level}/{pointer} in a Windows pod"),
            pod: windows,
            policy,
            guard: Guard::WindowsPod,
            naive,
            refusal: "cannot be set for a windows pod",
        }
    })
}

/// A value that a policy may give the field.
fn example(field: Field) -> Value {
    match field {
        Field::RunAsUser | Field::RunAsGroup | Field::FsGroup => json!(1000),
        Field::RunAsNonRoot | Field::ReadOnlyRootFilesystem => json!(true),
        Field::HostUsers
        | Field::ShareProcessNamespace
        | Field::AutomountServiceAccountToken
        | Field::AllowPrivilegeEscalation
        | Field::Privileged => json!(false),
        Field::FsGroupChangePolicy => json!("Always"),
        Field::SupplementalGroups => json!([1000]),
        Field::SupplementalGroupsPolicy => json!("Strict"),
        Field::SeccompProfile | Field::AppArmorProfile => json!({"type": "RuntimeDefault"}),
        Field::SeLinuxOptions => json!({"level": "s0"}),
        Field::SeLinuxChangePolicy => json!("Recursive"),
        Field::Sysctls => json!([{"name": "kernel.sem", "value": "1"}]),
        Field::RuntimeClassName => json!("sandboxed"),
        Field::ProcMount => json!("Default"),
        Field::CapabilitiesDrop | Field::CapabilitiesAdd => json!(["KILL"]),
        Field::WritablePaths => json!([{"path": "/tmp"}]),
    }
}

fn case(
    name: &str,
    pod: Value,
    policy: Value,
    guard: Guard,
    (place, value): (&str, Value),
    refusal: &'static str,
) -> Case {
    let mut naive = pod.clone();
    set_at(&mut naive, place, value);
    Case {
        name: name.to_owned(),
        pod,
        policy,
        guard,
        naive,
        refusal,
    }
}

/// A pod with these members in its spec, and one container with those.
fn pod(mut spec: Value, mut container: Value) -> Value {
    container["name"] = "app".into();
    container["image"] = "registry.example/app".into();
    spec["containers"] = json!([container]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guarded"}, "spec": spec})
}

/// A policy with these defaults for the pod's security context.
fn context(context: Value) -> Value {
    json!({"pod": {"securityContext": context}})
}

/// A policy with these defaults for the containers' security context.
fn container(context: Value) -> Value {
    json!({"containers": {"securityContext": context}})
}

fn writable(path: &str) -> Value {
    json!({"containers": {"securityContext": {"readOnlyRootFilesystem": true}, "writablePaths": [{"path": path}]}})
}

/// A pod's spec cannot change once it exists, so a webhook must not fill anything in then: it would make
/// every older pod impossible to update.
#[tokio::test]
async fn a_running_pod_takes_no_default() {
    let lab = Lab::open("running-pods").await;
    let pods = "/api/v1/namespaces/lab/pods";
    let mut pod = pod(json!({}), json!({}));
    pod["metadata"]["name"] = "older".into();
    let mut running = lab.without_us.post(pods, &pod).await.unwrap();

    // Ours is asked about creations and ephemeral containers alone, so an update passes untouched.
    running["metadata"]["labels"] = json!({"seen": "yes"});
    let path = format!("{pods}/older");
    let mut running = lab.with_us.put(&path, &running).await.unwrap();
    assert!(running["metadata"]["annotations"].is_null(), "{running:#}");

    running["spec"]["securityContext"]["runAsNonRoot"] = true.into();
    let refusal = lab.without_us.put(&path, &running).await.unwrap_err();
    let words = "pod updates may not change fields other than";
    assert!(refusal.message.contains(words), "{refusal}");
    lab.admin.delete(&path).await;
    lab.close().await;
}

/// A record that makes the annotations too large would be the end of the pod.
#[tokio::test]
async fn a_record_for_which_there_is_no_room_is_left_out() {
    let lab = Lab::open("full-annotations").await;
    let path = "/api/v1/namespaces/lab/pods?dryRun=All";
    let limit = 256 * 1024;
    let mut full = pod(json!({}), json!({}));
    full["metadata"]["annotations"] = json!({"padding": "x".repeat(limit - "padding".len())});
    lab.without_us.post(path, &full).await.unwrap();

    let stored = lab.with_us.post(path, &full).await.unwrap();
    assert_eq!(stored["spec"]["securityContext"]["runAsNonRoot"], true);
    let annotations = stored["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations.len(), 1, "{:?}", annotations.keys());

    // Before 1.34 the API server itself writes an annotation for an AppArmor profile.
    let version = lab.version;
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "app-armor"},
        "spec": {"pod": {"securityContext": {
            "appArmorProfile": {"type": "RuntimeDefault"}, "fsGroup": 7,
        }}},
    });
    lab.put_in_force(&[policy]);
    let stored = lab.with_us.post(path, &full).await.unwrap();
    let context = &stored["spec"]["securityContext"];
    assert_eq!(context["fsGroup"], 7);
    let filled = !context["appArmorProfile"].is_null();
    assert_eq!(filled, version >= KubernetesVersion::v1(34), "{version}");
    full["spec"]["securityContext"] = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    let taken = lab.without_us.post(path, &full).await.is_ok();
    assert_eq!(taken, filled, "{version}");

    full["metadata"]["annotations"]["podhardening.dev/filled"] = "{}".into();
    let refusal = lab.without_us.post(path, &full).await.unwrap_err();
    assert!(refusal.message.contains("262144"), "{refusal}");
    lab.close().await;
}
