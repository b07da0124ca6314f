//! The Pod Security Standards as `pod-security-standards` evaluates them, against the API server's own Pod
//! Security admission: the same verdict on each generated pod, in the same words.
//!
//! Each pod is posted as a server-side dry run to a namespace that enforces a level of a version.

use std::collections::BTreeMap;

use hardening_engine::KubernetesVersion;
use pod_security_standards::{
    CHECKS, CheckId, Evaluation, FieldViolation, InvalidPod, Level, Pod, Version, Violation,
};
use serde_json::{Value, json};

use crate::support::api::{Api, Refusal, bare_namespace, until};
use crate::support::generate::{self, Random};
use crate::support::property::{Failure, Outcome, Property, broken};
use crate::support::tally::Agreed;
use crate::support::version::{acts_as, is_newest, not_run};

/// So that at each level 5,000 of them are judged.
const CASES: usize = 12_500;
const JUDGED: usize = 5000;
const EPHEMERAL_CASES: usize = 1500;
/// Running pods in each namespace, to which ephemeral containers are added.
const RUNNING: usize = 5;

const LEVELS: [Level; 2] = [Level::Baseline, Level::Restricted];
/// The versions that most namespaces ask for.
const VERSIONS: [&str; 4] = ["v1.33", "v1.34", "v1.35", "latest"];
/// Others: the first and the last ones of what changed at some time, and one to come.
const OTHER_VERSIONS: [&str; 16] = [
    "v1.0", "v1.7", "v1.8", "v1.18", "v1.19", "v1.21", "v1.22", "v1.23", "v1.24", "v1.25", "v1.26",
    "v1.28", "v1.30", "v1.31", "v1.36", "v1.99",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pod_is_judged_as_the_api_server_does_and_in_its_words() {
    let api = Api::admin().await;
    for level in LEVELS {
        for version in VERSIONS.iter().chain(&OTHER_VERSIONS) {
            bare_namespace(&api, &name(level, version), &enforce(level, version)).await;
        }
    }
    bare_namespace(&api, UNJUDGED, &json!({})).await;
    let server = acts_as(&api).await;
    let tally = Property {
        name: "pods under the standards",
        cases: generate::cases(CASES),
        rounds: 1,
        policies: |_, _| Vec::new(),
        case: |random, number, _| {
            let (level, version) = level_and_version(random);
            json!({
                "level": level.name(), "version": version,
                "pod": generate::standards::pod(random, &format!("judged-{number}")),
                "alsoStored": number % 8 == 0,
            })
        },
        prepare: async |_: &[Value]| {},
        run: async |case: &Value| judge(&api, server, case).await,
    }
    .check()
    .await;
    let mut ids: Vec<CheckId> = CHECKS.iter().map(|check| check.id).collect();
    if server < KubernetesVersion::v1(34) {
        not_run(
            server,
            "the standards do not look at the hosts of probes yet",
        );
        ids.retain(|id| *id != CheckId::HostProbesAndHostLifecycle);
    }
    if server < KubernetesVersion::v1(35) {
        not_run(server, "procMount is all the same at both levels yet");
        ids.retain(|id| *id != CheckId::ProcMountRestricted);
    }
    tally.assert_complete(&ids);
    if generate::cases(CASES) >= CASES {
        for level in LEVELS {
            assert!(tally.of(level) >= JUDGED, "{tally}");
        }
    }
}

const UNJUDGED: &str = "pss-nothing-enforced";

async fn judge(api: &Api, server: KubernetesVersion, case: &Value) -> Outcome<Agreed> {
    let (level, version) = asked_for(case);
    let answer = api
        .post(&dry_run(&name(level, &version.to_string())), &case["pod"])
        .await;
    let pod = &as_seen_by(server, &case["pod"]);
    let expected = match Pod::from_value(pod) {
        Ok(pod) => evaluate_as(server, level, version, &pod),
        Err(error) => return unreadable(error, answer),
    };
    if let Err(refusal) = compare(&expected, pod, answer)? {
        return Ok(Err(refusal));
    }
    if case["alsoStored"] == true {
        let stored = api.post(&dry_run(UNJUDGED), pod).await.unwrap();
        let after = evaluate_as(server, level, version, &Pod::from_value(&stored).unwrap());
        if after.denial() != expected.denial() {
            let evidence = format!("before\n{expected:#?}\nafter\n{after:#?}\n{stored:#}");
            return broken("a pod is judged the same before and after", evidence);
        }
    }
    Ok(Ok(Agreed(expected)))
}

/// Every version up to one that is yet to come, each with pods that lie where two versions differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_with_a_version_changes_with_that_version() {
    let api = Api::admin().await;
    let server = acts_as(&api).await;
    let versions = (0..=37).map(Version::Minor).chain([Version::Latest]);
    let pods = pods_between_versions();
    let mut verdicts = BTreeMap::new();
    for (level, version) in versions.flat_map(|version| LEVELS.map(|level| (level, version))) {
        let (name, label) = (name(level, &version.to_string()), version.to_string());
        bare_namespace(&api, &name, &enforce(level, &label)).await;
        for (index, pod) in pods.iter().enumerate() {
            let expected = evaluate_as(server, level, version, &Pod::from_value(pod).unwrap());
            let answer = api.post(&dry_run(&name), pod).await;
            match compare(&expected, pod, answer) {
                Ok(Ok(())) => {}
                other => panic!("{level}:{version}: {other:?}\n{pod:#}"),
            }
            let seen: &mut Vec<_> = verdicts.entry((level, index)).or_default();
            let told: Vec<String> = expected
                .violations
                .iter()
                .map(Violation::to_string)
                .collect();
            seen.push(told);
        }
    }
    // Each of them is there for a change.
    for (index, pod) in pods.iter().enumerate() {
        let changes = |level| {
            verdicts[&(level, index)]
                .windows(2)
                .any(|two| two[0] != two[1])
        };
        if !LEVELS.into_iter().any(changes) {
            assert!(!is_newest(server), "{pod:#}");
            not_run(
                server,
                &format!("the standards for {} change later", pod["spec"]),
            );
        }
    }
}

/// The pod as Pod Security admission sees it: up to 1.33 the API server has by then written each AppArmor profile
/// as the legacy annotation too.
fn as_seen_by(server: KubernetesVersion, pod: &Value) -> Value {
    let mut seen = pod.clone();
    let annotations = &pod["metadata"]["annotations"];
    let is_readable =
        pod["metadata"].is_object() && (annotations.is_object() || annotations.is_null());
    let is_windows = pod["spec"]["os"]["name"] == "windows";
    if server > KubernetesVersion::v1(33) || is_windows || !is_readable {
        return seen;
    }
    for container in ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
    {
        let profiles =
            [container, &pod["spec"]].map(|at| &at["securityContext"]["appArmorProfile"]);
        let Some(profile) = profiles.into_iter().find(|profile| !profile.is_null()) else {
            continue;
        };
        let annotation = match profile["type"].as_str() {
            Some("RuntimeDefault") => "runtime/default".to_owned(),
            Some("Unconfined") => "unconfined".to_owned(),
            Some("Localhost") => match profile["localhostProfile"].as_str() {
                Some(name) => format!("localhost/{name}"),
                None => continue,
            },
            _ => continue,
        };
        let key = format!(
            "container.apparmor.security.beta.kubernetes.io/{}",
            container["name"].as_str().unwrap_or_default()
        );
        if annotations[&key].is_null() {
            seen["metadata"]["annotations"][key] = annotation.into();
        }
    }
    seen
}

/// What an API server of a version says: of standards that came after it, it knows none.
fn evaluate_as(server: KubernetesVersion, level: Level, version: Version, pod: &Pod) -> Evaluation {
    let known = Version::Minor(server.minor().into());
    let evaluation = pod_security_standards::evaluate(level, version.min(known), pod);
    Evaluation {
        version,
        ..evaluation
    }
}

fn pods_between_versions() -> Vec<Value> {
    let specs = [
        container(json!({})),
        json!({"os": {"name": "windows"}, "securityContext": {"seccompProfile": null}, "containers": [{"name": "c", "image": "i"}]}),
        container(json!({"livenessProbe": {"tcpSocket": {"host": "db", "port": 1}}})),
        container(json!({"securityContext": {"capabilities": {"add": ["CHOWN"]}}})),
        with(
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            &json!({"hostUsers": false}),
        ),
        json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": false}}),
        json!({"securityContext": {"runAsUser": 0}}),
        json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}),
    ];
    let sysctls = [
        "ip_local_reserved_ports",
        "tcp_fin_timeout",
        "tcp_keepalive_intvl",
        "tcp_keepalive_probes",
        "tcp_keepalive_time",
        "tcp_rmem",
        "tcp_wmem",
    ];
    let sysctls = sysctls.map(|name| {
        let sysctl = json!({"name": format!("net.ipv4.{name}"), "value": "1"});
        json!({"securityContext": {"sysctls": [sysctl]}})
    });
    let mut annotated = hardened_but(&json!({"securityContext": {"seccompProfile": null}}));
    annotated["metadata"]["annotations"] =
        json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"});
    let specs = specs.iter().chain(&sysctls);
    specs.map(hardened_but).chain([annotated]).collect()
}

/// A spec with one container.
fn container(more: Value) -> Value {
    json!({"containers": [with(more, &json!({"name": "c", "image": "i"}))]})
}

/// A pod that meets the highest level, but for its spec's difference.
fn hardened_but(spec: &Value) -> Value {
    let hardened = container(json!({"securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
    }}));
    let context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    let hardened = with(hardened, &json!({"securityContext": context}));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "between"},
        "spec": with(hardened, spec),
    })
}

fn with(mut object: Value, more: &Value) -> Value {
    json_patch::merge(&mut object, more);
    object
}

/// What cannot be read here, the API server cannot read either.
fn unreadable(error: InvalidPod, answer: Result<Value, Refusal>) -> Outcome<Agreed> {
    const BAD_REQUEST: u16 = 400;
    match answer {
        Err(refusal) if refusal.status == BAD_REQUEST => Ok(Err(refusal)),
        answer => broken(
            "what the API server can read is read",
            format!("{error}\n{answer:?}"),
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_with_new_ephemeral_containers_are_judged_as_the_api_server_does() {
    let api = Api::admin().await;
    let server = acts_as(&api).await;
    let mut running = BTreeMap::new();
    for level in LEVELS {
        for version in VERSIONS {
            let namespace = format!("{}-running", name(level, version));
            let pods = run_pods(&api, &namespace, level, version).await;
            running.insert(namespace, pods);
        }
    }
    let tally = Property {
        name: "ephemeral containers under the standards",
        cases: generate::cases(EPHEMERAL_CASES),
        rounds: 1,
        policies: |_, _| Vec::new(),
        case: |random, _, _| {
            json!({
                "level": random.pick(&LEVELS).name(), "version": *random.pick(&VERSIONS),
                "pod": random.number(0..=RUNNING - 1),
                "new": generate::standards::ephemeral_containers(random),
            })
        },
        prepare: async |_: &[Value]| {},
        run: async |case: &Value| judge_ephemeral(&api, server, &running, case).await,
    }
    .check()
    .await;
    for namespace in running.keys() {
        api.delete(&format!("/api/v1/namespaces/{namespace}")).await;
    }
    tally.assert_complete(&[
        CheckId::AllowPrivilegeEscalation,
        CheckId::AppArmorProfile,
        CheckId::CapabilitiesBaseline,
        CheckId::CapabilitiesRestricted,
        CheckId::Privileged,
        CheckId::RunAsNonRoot,
        CheckId::RunAsUser,
        CheckId::SeccompProfileBaseline,
        CheckId::SeccompProfileRestricted,
    ]);
}

/// Creates pods while nothing is enforced, and enforces the level then.
async fn run_pods(api: &Api, namespace: &str, level: Level, version: &str) -> Vec<Value> {
    bare_namespace(api, namespace, &json!({})).await;
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let mut pods = Vec::new();
    for number in 0.. {
        let mut random = Random::of(generate::base_seed(), namespace, number);
        let pod = generate::standards::pod(&mut random, &format!("running-{number}"));
        // Some are refused for what has nothing to do with the standards.
        pods.extend(api.post(&path, &pod).await);
        if pods.len() == RUNNING {
            break;
        }
    }
    let labels = json!({"metadata": {"labels": enforce(level, version)}});
    let of_namespace = format!("/api/v1/namespaces/{namespace}");
    api.merge(&of_namespace, &labels).await.unwrap();
    let privileged = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"},
        "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]},
    });
    until(&format!("{level} is enforced in {namespace}"), async || {
        api.post(&dry_run(namespace), &privileged).await.err()
    })
    .await;
    pods
}

async fn judge_ephemeral(
    api: &Api,
    server: KubernetesVersion,
    running: &BTreeMap<String, Vec<Value>>,
    case: &Value,
) -> Outcome<Agreed> {
    let (level, version) = asked_for(case);
    let namespace = format!("{}-running", name(level, &version.to_string()));
    let number = case["pod"].as_u64().unwrap_or_default();
    let mut pod = running[&namespace][usize::try_from(number).unwrap()].clone();
    pod["spec"]["ephemeralContainers"] = case["new"].clone();
    let expected = evaluate_as(server, level, version, &Pod::from_value(&pod).unwrap());
    let name = pod["metadata"]["name"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers?dryRun=All");
    let answer = compare(&expected, &pod, api.put(&path, &pod).await)?;
    Ok(answer.map(|()| Agreed(expected)))
}

/// Compares an answer with what was expected; or it is a refusal for another reason.
fn compare(
    expected: &Evaluation,
    pod: &Value,
    answer: Result<Value, Refusal>,
) -> Result<Result<(), Refusal>, Failure> {
    let said = match answer {
        Ok(_) => None,
        Err(refusal) => match refusal
            .message
            .split_once(" is forbidden: violates PodSecurity ")
        {
            Some((_, said)) => Some(format!("violates PodSecurity {said}")),
            None => return Ok(Err(refusal)),
        },
    };
    let astray = astray(expected, pod);
    if !astray.is_empty() {
        return broken("what is told of a field is in the pod", astray.join("\n"));
    }
    let expected = expected.denial();
    if said.is_some() != expected.is_some() {
        return broken("the verdict is the same", format!("{expected:?}\n{said:?}"));
    }
    if said != expected {
        return broken("the text is the same", format!("{expected:?}\n{said:?}"));
    }
    Ok(Ok(()))
}

/// The fields of which something else is told than the pod has there.
fn astray(evaluation: &Evaluation, pod: &Value) -> Vec<String> {
    let fields = evaluation.violations.iter().flat_map(|one| &one.fields);
    let is_astray = |field: &&FieldViolation| {
        let path = &field.path;
        let there = at(pod, path).map_or(Value::Null, as_read);
        match &field.value {
            None => !there.is_null() && there != json!([]),
            Some(told) if path.ends_with(".hostPort") && (there.is_null() || there == 0) => {
                at(pod, &path.replace(".hostPort", ".containerPort")) != Some(told)
            }
            // A text that nobody wrote is an empty one.
            Some(told) => *told != there && !(told == "" && there.is_null()),
        }
    };
    let astray = fields.filter(is_astray);
    astray.map(|field| format!("{field:?}")).collect()
}

/// A list in which null is an empty text.
fn as_read(value: &Value) -> Value {
    let mut value = value.clone();
    for item in value.as_array_mut().into_iter().flatten() {
        if item.is_null() {
            *item = "".into();
        }
    }
    value
}

/// What stands at a path, as `spec.containers[0].name` or `metadata.annotations[key]`.
fn at<'p>(pod: &'p Value, path: &str) -> Option<&'p Value> {
    if let Some(key) = path.strip_prefix("metadata.annotations[") {
        return pod["metadata"]["annotations"].get(key.strip_suffix(']')?);
    }
    let pointer = path.replace(['.', '['], "/").replace(']', "");
    pod.pointer(&format!("/{pointer}"))
}

/// The level and the version of a case; the first ones where it has been cut down too far.
fn asked_for(case: &Value) -> (Level, Version) {
    let text = |member: &str| case[member].as_str().unwrap_or_default();
    let level = text("level").parse().unwrap_or(LEVELS[0]);
    let version = text("version").parse();
    (
        level,
        version.unwrap_or_else(|_| VERSIONS[0].parse().unwrap()),
    )
}

fn level_and_version(random: &mut Random) -> (Level, &'static str) {
    let level = *random.pick(&LEVELS);
    let version = match random.chance(0.75) {
        true => random.pick(&VERSIONS),
        false => random.pick(&OTHER_VERSIONS),
    };
    (level, version)
}

fn name(level: Level, version: &str) -> String {
    format!("pss-{level}-{}", version.replace('.', "-"))
}

fn dry_run(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods?dryRun=All")
}

fn enforce(level: Level, version: &str) -> Value {
    json!({
        "pod-security.kubernetes.io/enforce": level.name(),
        "pod-security.kubernetes.io/enforce-version": version,
    })
}
