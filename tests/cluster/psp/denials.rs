//! The denying half on a real API server: its CEL compiles without a warning and costs little enough, and it
//! denies a pod exactly where PodSecurityPolicy denied it.

// Each rule by itself.
mod rules;
// Several PSPs at once, and whom they are for.
mod groups;

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use hardening_psp::generate::{Pair, pair};
use hardening_psp::{Action, Candidate, Names, PodScope, Policy, deny};
use serde_json::{Value, json};

use super::levels::{Converted, possible};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::generate::{base_seed, cases};
use crate::support::tell::tell;

/// Pods that the API server itself takes, each with a PSP.
const CASES: usize = 1500;
/// Pods for each PSP.
const PODS: usize = 25;
/// PSPs whose policies are in force at one time.
const AT_ONCE: usize = 12;
const CONTROL: &str = "psp-control";
/// Those that generated PSPs name.
const RUNTIME_CLASSES: [&str; 3] = ["gvisor", "kata", "runc"];
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

/// A policy in force in a namespace of its own.
struct InForce {
    name: String,
}

impl InForce {
    async fn put(api: &Api, name: &str, candidates: &[Candidate<'_>]) -> Self {
        Self::put_for(api, name, candidates, Names::All, Action::Deny).await
    }

    async fn put_for(
        api: &Api,
        name: &str,
        candidates: &[Candidate<'_>],
        service_accounts: Names,
        action: Action,
    ) -> Self {
        let scope = PodScope {
            namespaces: Names::Only([name.to_owned()].into()),
            service_accounts,
        };
        bare_namespace(api, name, &json!({})).await;
        let objects = deny(name, candidates, &scope, action);
        for (path, object) in [POLICIES, BINDINGS].into_iter().zip(&objects) {
            let path = format!("{path}?fieldValidation=Strict");
            let answer = api.send("POST", &path, Some(object)).await;
            assert!(answer.status == 201, "{answer:?}\n{object:#}");
            assert_eq!(answer.warnings, [""; 0], "{object:#}");
        }
        Self {
            name: name.to_owned(),
        }
    }

    /// Waits until the controller has checked the types of all expressions, and gives what it found.
    async fn warnings(&self, api: &Api) -> Value {
        let path = format!("{POLICIES}/{}", self.name);
        until("the policy's expressions are checked", async || {
            let policy = api.get(&path).await.unwrap();
            let status = &policy["status"];
            (status["observedGeneration"] == policy["metadata"]["generation"])
                .then(|| status["typeChecking"]["expressionWarnings"].clone())
        })
        .await
    }

    /// Why the policy denies a pod, if it does; `Err` where the API server refuses it for another reason.
    async fn verdict(&self, api: &Api, pod: &Value) -> Result<Option<String>, String> {
        let denies = format!("ValidatingAdmissionPolicy '{}' with binding", self.name);
        match create(api, &self.name, pod).await {
            Ok(_) => Ok(None),
            Err(message) if message.contains(&denies) => Ok(Some(message)),
            Err(message) => Err(message),
        }
    }

    async fn end(self, api: &Api) {
        api.delete(&format!("{BINDINGS}/{}", self.name)).await;
        api.delete(&format!("{POLICIES}/{}", self.name)).await;
        api.delete(&format!("/api/v1/namespaces/{}", self.name))
            .await;
    }
}

/// Waits until all that was put in force is heeded: a last policy is, which has no candidate and so denies
/// everything.
async fn all_heeded(api: &Api, name: &str) {
    let last = InForce::put(api, name, &[]).await;
    until("the last policy denies", async || {
        last.verdict(api, &plain()).await.unwrap().map(drop)
    })
    .await;
    last.end(api).await;
}

fn plain() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    })
}

async fn runtime_classes(api: &Api) {
    for name in RUNTIME_CLASSES {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": name}, "handler": name});
        api.ensure("/apis/node.k8s.io/v1/runtimeclasses", &class)
            .await;
    }
}

fn for_all(policy: &Policy) -> Candidate<'_> {
    Candidate {
        policy,
        requesters: None,
    }
}

/// A dry run: how the API server would store the pod.
async fn create(api: &Api, namespace: &str, pod: &Value) -> Result<Value, String> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = namespace.into();
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let stored = api.post(&path, &pod).await;
    stored.map_err(|refusal| refusal.message)
}

/// A pod as the API server gives it, as one that could be sent to it.
fn sendable(stored: &Value) -> Value {
    let mut pod = stored.clone();
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| ["name", "annotations", "labels"].contains(&key.as_str()));
    pod.as_object_mut().unwrap().remove("status");
    pod
}

/// What the API server had against `allowPrivilegeEscalation: false` that the PSP had filled in.
const ESCALATES: &str = ": cannot but escalate";

/// Why 1.24 did not take a pod as it arrives: what the PSP had against it, or the API server against what the
/// PSP had made of it.
fn denied_by_1_24(policy: &Policy, pod: &Value) -> Vec<String> {
    let mut mutated = pod.clone();
    policy.mutate(&mut mutated).unwrap();
    let denials = policy.validate(&mutated).unwrap();
    let mut reasons: Vec<String> = denials.iter().map(ToString::to_string).collect();
    for list in ["initContainers", "containers"] {
        for container in mutated["spec"][list].as_array().into_iter().flatten() {
            let context = &container["securityContext"];
            let adds = context["capabilities"]["add"].as_array();
            let escalates = context["privileged"] == true
                || adds.is_some_and(|adds| adds.contains(&"CAP_SYS_ADMIN".into()));
            if escalates && context["allowPrivilegeEscalation"] == false {
                reasons.push(format!("{}{ESCALATES}", container["name"]));
            }
        }
    }
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_denied_exactly_where_its_psp_denied_it() {
    let api = Api::admin().await;
    bare_namespace(&api, CONTROL, &json!({})).await;
    runtime_classes(&api).await;
    let first = base_seed();
    let wanted = cases(CASES);
    let mut figures: BTreeMap<&str, usize> = BTreeMap::new();
    let mut round = 0;
    let mut judged = 0;
    let mut broken = Vec::new();
    while judged < wanted {
        let seeds = (0..).map(|index| first + round * 1000 + index);
        let converted: Vec<(u64, Converted)> = seeds
            .filter_map(|seed| Some((seed, Converted::of(&pair(seed).psp)?)))
            .take(AT_ONCE)
            .collect();
        let in_force: Vec<InForce> = stream::iter(&converted)
            .then(async |(seed, converted)| {
                InForce::put(&api, &format!("psp-{seed}"), &[for_all(&converted.policy)]).await
            })
            .collect()
            .await;
        all_heeded(&api, &format!("psp-last-{round}")).await;
        for ((seed, converted), in_force) in converted.iter().zip(&in_force) {
            assert_eq!(in_force.warnings(&api).await, Value::Null, "seed {seed}");
            let outcomes: Vec<(&str, Option<String>)> = stream::iter(0..PODS as u64)
                .map(async |index| {
                    let Pair { pod, .. } = pair(seed.wrapping_add(1_000_000 * (index + 1)));
                    judge(&api, converted, in_force, &pod).await
                })
                .buffer_unordered(16)
                .collect()
                .await;
            for (what, evidence) in outcomes {
                *figures.entry(what).or_default() += 1;
                judged += usize::from(what == "admitted" || what == "denied");
                broken.extend(evidence.map(|evidence| format!("PSP of seed {seed}: {evidence}")));
            }
        }
        for in_force in in_force {
            in_force.end(&api).await;
        }
        round += 1;
    }
    for (what, count) in &figures {
        tell(&format!("PSPs' denials: {count} pods {what}"));
    }
    assert!(
        broken.is_empty(),
        "{}: {}",
        broken.len(),
        broken.first().unwrap()
    );
    for what in ["admitted", "denied"] {
        assert!(figures[what] > wanted / 10, "{figures:?}");
    }
}

/// Holds the three verdicts about a pod against each other; gives what came of it, and what is wrong.
async fn judge(
    api: &Api,
    converted: &Converted,
    in_force: &InForce,
    pod: &Value,
) -> (&'static str, Option<String>) {
    // As PodSecurityPolicy saw it: with the API server's own defaults and the service account's token.
    let Ok(arrived) = create(api, CONTROL, &settled(pod)).await else {
        return ("refused by today's API server", None);
    };
    let arrived = sendable(&arrived);
    let psp = denied_by_1_24(&converted.policy, &arrived);
    let hardened = converted.harden(&arrived);
    let stored = match create(api, CONTROL, &hardened).await {
        Ok(stored) => stored,
        Err(message) => return ("of which there is no verdict", Some(message)),
    };
    let today = converted.policy.denials_today(&stored).unwrap();
    let cel = match in_force.verdict(api, &hardened).await {
        Ok(cel) => cel,
        Err(message) => return ("of which there is no verdict", Some(message)),
    };
    let what = match cel {
        None => "admitted",
        Some(_) => "denied",
    };
    let evidence = || {
        let today: Vec<String> = today.iter().map(ToString::to_string).collect();
        format!("PSP {psp:?}\ntoday {today:?}\nCEL {cel:?}\narrived {arrived}\nstored {stored}")
    };
    if today.is_empty() != cel.is_none() {
        return (
            what,
            Some(format!("the model of the CEL errs\n{}", evidence())),
        );
    }
    if psp.is_empty() != cel.is_none() {
        if let Some(exception) = exception(&arrived, &psp) {
            return (exception, None);
        }
        return (what, Some(format!("not PSP's verdict\n{}", evidence())));
    }
    (what, None)
}

/// A generated pod, without what today's API server refuses and no PSP cared for.
fn settled(pod: &Value) -> Value {
    let mut pod = possible(pod);
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        // Of ephemeral containers, which are not there any more; and empty ones, which were as good as none.
        annotations.retain(|key, value| !key.contains("/debug-") && value != "");
    }
    if pod.to_string().contains("Unmasked") {
        pod["spec"]["hostUsers"] = false.into();
    }
    pod
}

/// Why a pod may be judged otherwise than 1.24 did, told by the pod itself.
fn exception(arrived: &Value, psp: &[String]) -> Option<&'static str> {
    let spec = &arrived["spec"];
    let lists = ["initContainers", "containers"];
    let containers = lists
        .iter()
        .filter_map(|list| spec[list].as_array())
        .flatten();
    let mut places = containers.chain([spec]);
    let has_empty_labels =
        places.any(|place| place["securityContext"]["seLinuxOptions"] == json!({}));
    let annotations = arrived["metadata"]["annotations"].as_object();
    let has_alpha_seccomp = annotations.is_some_and(|annotations| {
        annotations
            .keys()
            .any(|key| key.contains("seccomp.security.alpha.kubernetes.io/"))
    });
    if !psp.is_empty() && psp.iter().all(|reason| reason.ends_with(ESCALATES)) {
        // Only where the PSP allows escalation: else the denying half has its say.
        Some(
            "judged otherwise as allowPrivilegeEscalation: false is not filled in where it cannot be",
        )
    } else if has_empty_labels {
        Some("judged otherwise for empty seLinuxOptions, which are as good as none")
    } else if has_alpha_seccomp {
        Some("judged otherwise for seccomp annotations, which have no effect today")
    } else {
        None
    }
}
