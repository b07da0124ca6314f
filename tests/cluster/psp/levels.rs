//! The Pod Security Standard that a PSP is as strict as: no pod that such a PSP admits is refused at that level,
//! and whatever stands in the way of a level does so for the sake of a pod.

use std::collections::BTreeMap;

use hardening_engine::{KubernetesVersion, Pod, PolicySet, UnknownNamespaces, plan};
use hardening_psp::generate::{Pair, strict_pair};
use hardening_psp::level::VERSION;
use hardening_psp::{Gap, HardeningPolicy, Level, Policy, Standing, Target, convert, gaps};
use serde_json::{Value, json};

use crate::support::api::{Api, bare_namespace};
use crate::support::generate::{base_seed, cases};
use crate::support::policies;
use crate::support::tell::tell;
use crate::support::version::{acts_as, not_run};

/// Admitted pods that the API server takes, or refuses for a level's sake alone.
const CASES: usize = 600;
/// What Pod Security Admission says when it refuses.
const VIOLATES: &str = "violates PodSecurity";
const LEVELS: [Level; 2] = [Level::Baseline, Level::Restricted];

/// The namespace that enforces a level, as labels of namespaces say it.
fn namespace(level: Level, version: &str) -> String {
    format!("psp-{level}-{}", version.replace('.', "-"))
}

async fn open(version: &str) -> Api {
    let api = Api::admin().await;
    for level in LEVELS {
        let labels = json!({
            "pod-security.kubernetes.io/enforce": level.name(),
            "pod-security.kubernetes.io/enforce-version": version,
        });
        bare_namespace(&api, &namespace(level, version), &labels).await;
    }
    api
}

/// What Pod Security Admission has against a pod; what else the API server has is the error.
async fn verdict(
    api: &Api,
    level: Level,
    version: &str,
    pod: &Value,
) -> Result<Option<String>, String> {
    let namespace = namespace(level, version);
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = namespace.as_str().into();
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    match api.post(&path, &pod).await {
        Ok(_) => Ok(None),
        Err(refusal) if refusal.message.contains(VIOLATES) => Ok(Some(refusal.message)),
        Err(refusal) => Err(refusal.message),
    }
}

/// A PSP, what it means and what it becomes.
pub(super) struct Converted {
    pub(super) policy: Policy,
    standing: Standing,
    set: PolicySet,
}

impl Converted {
    /// `None` where 1.24 could not have used it.
    pub(super) fn of(psp: &Value) -> Option<Self> {
        let conversion = convert(psp).ok()?;
        let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
        let manifests: Vec<Value> = conversion
            .policies(&Target::all("converted"))
            .iter()
            .map(HardeningPolicy::to_json)
            .collect();
        policies::insert(&mut set, &manifests);
        Some(Self {
            standing: conversion.policy.standing(),
            policy: conversion.policy,
            set,
        })
    }

    fn admits(&self, pod: &Value) -> bool {
        let mut mutated = pod.clone();
        self.policy.mutate(&mut mutated).unwrap();
        self.policy.validate(&mutated).unwrap().is_empty()
    }

    pub(super) fn harden(&self, pod: &Value) -> Value {
        let text = pod.to_string();
        let view = Pod::from_json(&text).unwrap();
        let matching = self.set.matching("shop", &view).unwrap();
        let mut hardened = pod.clone();
        json_patch::patch(&mut hardened, &plan(&matching, &view).to_patch()).unwrap();
        hardened
    }
}

/// A generated pod as today's API servers take it, apart from its security.
pub(super) fn possible(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().unwrap();
    // Pods are not created with them, and RuntimeClasses are another test's matter.
    spec.remove("ephemeralContainers");
    spec.remove("runtimeClassName");
    pod
}

#[tokio::test]
async fn what_a_psp_admits_passes_the_level_that_it_is_as_strict_as() {
    let api = open(VERSION).await;
    let first = base_seed();
    let mut figures: BTreeMap<String, usize> = BTreeMap::new();
    let (mut judged, wanted) = (0, cases(CASES));
    for seed in first.. {
        if judged == wanted {
            break;
        }
        let Pair { psp, pod } = strict_pair(seed);
        let pod = possible(&pod);
        let Some(converted) = Converted::of(&psp) else {
            continue;
        };
        let level = converted.standing.level();
        if level == Level::Privileged || !converted.admits(&pod) {
            continue;
        }
        let hardened = converted.harden(&pod);
        let gaps = gaps(level, &hardened).unwrap();
        let about =
            || format!("strict pair {seed}, {level}\npsp {psp}\npod {pod}\nhardened {hardened}");
        let what = match (verdict(&api, level, VERSION, &hardened).await, gaps.first()) {
            (Err(_), _) => "refused for what has nothing to do with levels".to_owned(),
            (Ok(None), None) => {
                judged += 1;
                format!("passes {level}")
            }
            (Ok(Some(_)), Some(gap)) => format!("does not pass {level} by a gap: {}", gap.why),
            (Ok(verdict), _) => panic!("{verdict:?}, but gaps {gaps:?}\n{}", about()),
        };
        *figures.entry(what).or_default() += 1;
    }
    for (what, count) in &figures {
        tell(&format!("PSPs against levels: {count} pods: {what}"));
    }
    for level in LEVELS {
        let passed = figures.get(&format!("passes {level}"));
        assert!(
            passed.is_some_and(|passed| *passed > wanted / 10),
            "{level}: {figures:?}"
        );
    }
}

/// A PSP on which nothing stands in the way of a level.
fn strictest() -> Value {
    json!({
        "apiVersion": "policy/v1beta1",
        "kind": "PodSecurityPolicy",
        "metadata": {
            "name": "strictest",
            "annotations": {
                "seccomp.security.alpha.kubernetes.io/allowedProfileNames": "runtime/default,localhost/a.json",
                "seccomp.security.alpha.kubernetes.io/defaultProfileName": "runtime/default",
                "apparmor.security.beta.kubernetes.io/allowedProfileNames": "runtime/default,localhost/a.json",
                "apparmor.security.beta.kubernetes.io/defaultProfileName": "runtime/default",
            },
        },
        "spec": {
            "requiredDropCapabilities": ["ALL"],
            "allowPrivilegeEscalation": false,
            "volumes": ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral",
                "persistentVolumeClaim", "projected", "secret"],
            "seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"level": "s0", "type": "container_t"}},
            "runAsUser": {"rule": "MustRunAsNonRoot"},
            "fsGroup": {"rule": "RunAsAny"},
            "supplementalGroups": {"rule": "RunAsAny"},
        },
    })
}

/// `value` with `change` laid over it, as a merge patch.
fn with(mut value: Value, change: &Value) -> Value {
    json_patch::merge(&mut value, change);
    value
}

/// A pod whose author wrote a container, and this.
fn pod(change: &Value) -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "counterexample"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    });
    with(pod, change)
}

/// A pod whose only container says this.
fn container(change: &Value) -> Value {
    let container = json!({"name": "app", "image": "registry.example/app"});
    pod(&json!({"spec": {"containers": [with(container, change)]}}))
}

fn context(change: &Value) -> Value {
    container(&json!({ "securityContext": change }))
}

/// A change to a PSP that lets it miss a level, by which of its fields, and a pod that shows that it does.
struct Counterexample {
    change: Value,
    level: Level,
    field: &'static str,
    pod: Value,
}

fn spec(level: Level, field: &'static str, change: Value, pod: Value) -> Counterexample {
    Counterexample {
        change: json!({ "spec": change }),
        level,
        field,
        pod,
    }
}

fn annotation(level: Level, field: &'static str, change: Value, pod: Value) -> Counterexample {
    Counterexample {
        change: json!({"metadata": {"annotations": change}}),
        level,
        field,
        pod,
    }
}

const SECCOMP: &str =
    "metadata.annotations[seccomp.security.alpha.kubernetes.io/allowedProfileNames]";
const APP_ARMOR: &str =
    "metadata.annotations[apparmor.security.beta.kubernetes.io/allowedProfileNames]";

fn baseline() -> Vec<Counterexample> {
    let row = |field, change, pod| spec(Level::Baseline, field, change, pod);
    let allowed = "seccomp.security.alpha.kubernetes.io/allowedProfileNames";
    let unconfined = json!({"seccompProfile": {"type": "Unconfined"}});
    let se_linux =
        |options: Value| json!({"seLinux": {"rule": "MustRunAs", "seLinuxOptions": options}});
    vec![
        row(
            "spec.privileged",
            json!({"privileged": true, "allowPrivilegeEscalation": true}),
            context(&json!({"privileged": true, "allowPrivilegeEscalation": true})),
        ),
        row(
            "spec.hostNetwork",
            json!({"hostNetwork": true}),
            pod(&json!({"spec": {"hostNetwork": true}})),
        ),
        row(
            "spec.hostPID",
            json!({"hostPID": true}),
            pod(&json!({"spec": {"hostPID": true}})),
        ),
        row(
            "spec.hostIPC",
            json!({"hostIPC": true}),
            pod(&json!({"spec": {"hostIPC": true}})),
        ),
        row(
            "spec.hostPorts",
            json!({"hostPorts": [{"min": 0, "max": 80}]}),
            container(&json!({"ports": [{"containerPort": 80, "hostPort": 80}]})),
        ),
        row(
            "spec.allowedUnsafeSysctls",
            json!({"allowedUnsafeSysctls": ["net.ipv4.tcp_*"]}),
            pod(
                &json!({"spec": {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_tw_reuse", "value": "1"}]}}}),
            ),
        ),
        row(
            "spec.allowedProcMountTypes",
            json!({"allowedProcMountTypes": ["Default", "Unmasked"]}),
            with(
                context(&json!({"procMount": "Unmasked"})),
                &json!({"spec": {"hostUsers": false}}),
            ),
        ),
        row(
            "spec.allowedCapabilities",
            json!({"allowedCapabilities": ["*"], "requiredDropCapabilities": null}),
            context(&json!({"capabilities": {"add": ["NET_ADMIN"]}})),
        ),
        row(
            "spec.allowedCapabilities",
            json!({"allowedCapabilities": ["NET_RAW"]}),
            context(&json!({"capabilities": {"add": ["NET_RAW"]}})),
        ),
        row(
            "spec.allowedCapabilities",
            json!({"allowedCapabilities": ["CAP_CHOWN"]}),
            context(&json!({"capabilities": {"add": ["CAP_CHOWN"]}})),
        ),
        row(
            "spec.defaultAddCapabilities",
            json!({"defaultAddCapabilities": ["NET_RAW"]}),
            pod(&json!({})),
        ),
        row(
            "spec.volumes",
            json!({"volumes": ["hostPath"]}),
            pod(&json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})),
        ),
        row(
            "spec.volumes",
            json!({"volumes": ["*"]}),
            pod(&json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})),
        ),
        annotation(
            Level::Baseline,
            SECCOMP,
            json!({allowed: "*"}),
            context(&unconfined),
        ),
        annotation(
            Level::Baseline,
            SECCOMP,
            json!({allowed: "runtime/default,unconfined"}),
            context(&unconfined),
        ),
        annotation(
            Level::Baseline,
            APP_ARMOR,
            json!({"apparmor.security.beta.kubernetes.io/allowedProfileNames": null}),
            pod(
                &json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/app": "unconfined"}}}),
            ),
        ),
        annotation(
            Level::Baseline,
            APP_ARMOR,
            json!({"apparmor.security.beta.kubernetes.io/allowedProfileNames": "unconfined",
                "apparmor.security.beta.kubernetes.io/defaultProfileName": "unconfined"}),
            pod(&json!({})),
        ),
        row(
            "spec.seLinux.rule",
            json!({"seLinux": {"rule": "RunAsAny"}}),
            context(&json!({"seLinuxOptions": {"type": "spc_t"}})),
        ),
        row(
            "spec.seLinux.seLinuxOptions.type",
            se_linux(json!({"type": "spc_t"})),
            pod(&json!({})),
        ),
        row(
            "spec.seLinux.seLinuxOptions.user",
            se_linux(json!({"user": "system_u"})),
            pod(&json!({})),
        ),
        row(
            "spec.seLinux.seLinuxOptions.role",
            se_linux(json!({"role": "system_r"})),
            pod(&json!({})),
        ),
    ]
}

fn restricted() -> Vec<Counterexample> {
    let row = |field, change, pod| spec(Level::Restricted, field, change, pod);
    let any_user = |rule: Value| json!({ "runAsUser": rule });
    vec![
        row(
            "spec.requiredDropCapabilities",
            json!({"requiredDropCapabilities": ["NET_RAW"]}),
            pod(&json!({})),
        ),
        row(
            "spec.allowedCapabilities",
            json!({"allowedCapabilities": ["CHOWN"]}),
            context(&json!({"capabilities": {"add": ["CHOWN"]}})),
        ),
        row(
            "spec.defaultAddCapabilities",
            json!({"defaultAddCapabilities": ["CHOWN"]}),
            pod(&json!({})),
        ),
        row(
            "spec.volumes",
            json!({"volumes": ["nfs"]}),
            pod(
                &json!({"spec": {"volumes": [{"name": "v", "nfs": {"server": "x", "path": "/x"}}]}}),
            ),
        ),
        row(
            "spec.allowPrivilegeEscalation",
            json!({"allowPrivilegeEscalation": true}),
            pod(&json!({})),
        ),
        row(
            "spec.runAsUser.rule",
            any_user(json!({"rule": "RunAsAny"})),
            pod(&json!({})),
        ),
        row(
            "spec.runAsUser.rule",
            any_user(json!({"rule": "MustRunAs", "ranges": [{"min": 0, "max": 9}]})),
            context(&json!({"runAsUser": 0})),
        ),
        row(
            "spec.runAsUser.rule",
            any_user(json!({"rule": "MustRunAs", "ranges": [{"min": 1, "max": 9}]})),
            pod(&json!({})),
        ),
        annotation(
            Level::Restricted,
            SECCOMP,
            json!({"seccomp.security.alpha.kubernetes.io/allowedProfileNames": null,
                "seccomp.security.alpha.kubernetes.io/defaultProfileName": null}),
            pod(&json!({})),
        ),
        annotation(
            Level::Restricted,
            SECCOMP,
            json!({"seccomp.security.alpha.kubernetes.io/allowedProfileNames": "",
                "seccomp.security.alpha.kubernetes.io/defaultProfileName": null}),
            pod(&json!({})),
        ),
    ]
}

#[tokio::test]
async fn whatever_stands_in_the_way_of_a_level_does_so_for_the_sake_of_a_pod() {
    let api = open(VERSION).await;
    let whole = Converted::of(&strictest()).unwrap();
    assert_eq!(
        whole.standing.level(),
        Level::Restricted,
        "{:?}",
        whole.standing
    );
    let plain = whole.harden(&pod(&json!({})));
    assert_eq!(
        verdict(&api, Level::Restricted, VERSION, &plain).await,
        Ok(None)
    );

    let rows: Vec<Counterexample> = baseline().into_iter().chain(restricted()).collect();
    for row in &rows {
        let about = format!("{}: {}", row.field, row.change);
        let converted = Converted::of(&with(strictest(), &row.change)).expect(&about);
        let mut fields = converted.standing.in_the_way_of(row.level);
        assert!(
            fields.any(|one| one.field == row.field),
            "{about}: {:?}",
            converted.standing
        );
        assert!(converted.standing.level() < row.level, "{about}");
        assert!(
            converted.admits(&row.pod),
            "{about}: the PSP denies {}",
            row.pod
        );
        let hardened = converted.harden(&row.pod);
        let refused = verdict(&api, row.level, VERSION, &hardened).await;
        assert!(
            matches!(refused, Ok(Some(_))),
            "{about}: {refused:?}\n{hardened}"
        );
        if row.level == Level::Restricted {
            let passed = verdict(&api, Level::Baseline, VERSION, &hardened).await;
            assert_eq!(passed, Ok(None), "{about}: baseline");
        }
    }
    tell(&format!(
        "PSPs against levels: {} counterexamples",
        rows.len()
    ));
}

/// A pod, by which of its fields a level refuses it although the strictest PSP admits it, and at which version
/// it no longer passes.
type Gapped = (Value, &'static str, Option<&'static str>);

fn gapped() -> Vec<Gapped> {
    let non_root = json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 5}});
    let overridden = |change: Value| {
        with(
            container(&non_root),
            &json!({"spec": {"securityContext": change}}),
        )
    };
    let handler = json!({"tcpSocket": {"host": "10.0.0.1", "port": 80}});
    let probe = json!({"httpGet": {"host": "127.0.0.1", "port": 80}});
    let from = Some("v1.34");
    vec![
        (
            overridden(json!({"runAsNonRoot": false})),
            "spec.securityContext.runAsNonRoot",
            None,
        ),
        (
            overridden(json!({"runAsUser": 0})),
            "spec.securityContext.runAsUser",
            None,
        ),
        (
            context(&json!({"capabilities": {"drop": ["all"]}})),
            "spec.containers[0].securityContext.capabilities.drop",
            None,
        ),
        (
            pod(
                &json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "localhost/a.json"}}}),
            ),
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
            None,
        ),
        (
            pod(&json!({"spec": {"nodeSelector": {"kubernetes.io/os": "windows"}}})),
            "spec.nodeSelector[kubernetes.io/os]",
            None,
        ),
        (
            container(&json!({"livenessProbe": probe})),
            "spec.containers[0].livenessProbe.httpGet.host",
            from,
        ),
        (
            container(&json!({"lifecycle": {"preStop": handler}})),
            "spec.containers[0].lifecycle.preStop.tcpSocket.host",
            from,
        ),
    ]
}

#[tokio::test]
async fn what_no_psp_could_refuse_is_told_by_the_pod() {
    let api = open(VERSION).await;
    open("latest").await;
    let server = acts_as(&api).await;
    let converted = Converted::of(&strictest()).unwrap();
    let rows = gapped();
    for (pod, field, from_version) in &rows {
        assert!(converted.admits(pod), "{field}: the PSP denies {pod}");
        let hardened = converted.harden(pod);
        let found = gaps(Level::Restricted, &hardened).unwrap();
        let [
            Gap {
                field: found,
                from_version: from,
                ..
            },
        ] = found.as_slice()
        else {
            panic!("{field}: {found:?}\n{hardened}");
        };
        assert_eq!((found.as_str(), from), (*field, from_version), "{hardened}");
        // For an API server that is older than the check, the latest standards are without it.
        let came_later =
            from_version.is_some_and(|from| from.parse::<KubernetesVersion>().unwrap() > server);
        if came_later {
            not_run(server, &format!("{field} is not looked at yet"));
        }
        for (version, passes) in [(VERSION, from_version.is_some()), ("latest", came_later)] {
            let verdict = verdict(&api, Level::Restricted, version, &hardened).await;
            let verdict = verdict.unwrap_or_else(|error| panic!("{field}: {error}\n{hardened}"));
            assert_eq!(
                verdict.is_none(),
                passes,
                "{field} at {version}: {verdict:?}"
            );
        }
    }
    tell(&format!("PSPs against levels: {} gaps", rows.len()));
}
