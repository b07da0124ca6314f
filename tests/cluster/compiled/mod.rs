//! Policies compiled to MutatingAdmissionPolicies: the API server by itself does what the webhook does.
//!
//! Each generated pod is posted, as a server-side dry run, by a user whose pods the compiled policies change,
//! by one for whom the webhook is asked, and by one for whom both are. What is stored must be the same three
//! times, byte for byte in the record.

// The guide, as it is written.
mod guide;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use hardening_compile::{Compiled, CompiledPolicy, Options, compile};
use hardening_engine::{FILLED, Field, Guard, Pod, WITHHELD, plan};
use serde_json::{Value, json};

use crate::support::api::{Api, Refusal, until};
use crate::support::compare::{as_the_webhook_saw_it, differences, mounts_token, normalised};
use crate::support::generate;
use crate::support::generate::policy::NAMESPACES;
use crate::support::lab::{Lab, policies_of, policy_set};
use crate::support::property::{Outcome, Property, broken};
use crate::support::tally::{Seen, all_fields};
use crate::support::tell::tell;
use crate::support::version::{BINDINGS, POLICIES, can_compile};

/// So that 3,000 of them are admitted without us.
const CASES: usize = 3500;
const ADMITTED: usize = 3000;
/// Pods for each set of policies.
const PODS: usize = 50;

/// Whose pods the compiled policies change, and no webhook.
const COMPILED: &str = "compiled";
/// Whose pods both change.
const BOTH: &str = "compiled-and-webhook";
/// Whose pods show which compiled policies are in force.
const PROBE: &str = "compiled-probe";
/// What the annotations by which they show it begin with; a compiled policy's name follows.
const ROUND: &str = "round.example.com/";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiled_policies_do_what_the_webhook_does() {
    let Some(lab) = CompiledLab::open().await else {
        return;
    };
    let exceptions = AtomicUsize::new(0);
    let tally = Property {
        name: "generated pods for compiled policies",
        cases: PODS,
        rounds: generate::cases(CASES).div_ceil(PODS),
        policies: |random, _| generate::policy::set(random),
        case: |random, number, policies| {
            let namespace = random.pick(&NAMESPACES).0;
            let pod = generate::pod::pod(random, &format!("case-{number}"));
            json!({"namespace": namespace, "pod": pod, "policies": policies})
        },
        prepare: async |policies: &[Value]| lab.put_in_force(policies).await,
        run: async |case: &Value| run(&lab, case, &exceptions).await,
    }
    .check()
    .await;
    let exceptions = exceptions.into_inner();
    tell(&format!(
        "compiled policies: {exceptions} pods came with an annotation that looks like a record of ours and is not as we write it"
    ));
    lab.close().await;
    let on_creation =
        |guard: &Guard| !matches!(guard, Guard::RunningPod | Guard::KubernetesVersion);
    let guards: Vec<Guard> = Guard::ALL.into_iter().filter(on_creation).collect();
    tally.assert_complete(&all_fields(), &guards);
    if generate::cases(CASES) >= CASES {
        assert!(tally.admitted >= ADMITTED, "{tally}");
    }
}

/// The API server tells all that it finds wrong with an expression's types when it is given one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compiled_policy_is_accepted() {
    let admin = Api::admin().await;
    if !can_compile(&admin).await {
        return;
    }
    let seed = generate::base_seed();
    let (mut accepted, mut wrong) = (0, Vec::new());
    for number in 0..generate::cases(200) {
        let policies = generate::policy::set(&mut generate::Random::of(seed, "accepted", number));
        let mut set = policy_set(&policies);
        if number % 2 == 0 {
            // So that its namespace selectors are asked in CEL.
            NAMESPACES
                .iter()
                .for_each(|(name, _)| set.remove_namespace(name));
        }
        for object in compile(&set, &Options::default()).objects {
            for (path, object) in [(POLICIES, &object.policy), (BINDINGS, &object.binding)] {
                // Others may have stored one of the same name.
                let mut object = object.clone();
                object["metadata"]["name"] = format!("accepted-{number}").into();
                match admin.post(&format!("{path}?dryRun=All"), &object).await {
                    Ok(_) => accepted += 1,
                    Err(refusal) => wrong.push(format!("{number}: {refusal}")),
                }
            }
        }
    }
    tell(&format!(
        "compiled policies: {accepted} objects accepted, seed {seed}"
    ));
    assert!(
        wrong.is_empty(),
        "{} refused, the first:\n{}",
        wrong.len(),
        wrong[0]
    );
    assert!(accepted > 0);
}

async fn run(lab: &CompiledLab, case: &Value, exceptions: &AtomicUsize) -> Outcome {
    let (Some(namespace), pod, policies) =
        (case["namespace"].as_str(), &case["pod"], policies_of(case))
    else {
        return Ok(Ok(Seen::default()));
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let webhook = match lab.webhook.with_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let compiled = match lab.compiled.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => {
            return broken(
                "what is admitted with the webhook is admitted with compiled policies",
                refusal.to_string(),
            );
        }
    };
    let both = match lab.both.with_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => {
            return broken(
                "what is admitted with the webhook is admitted with both",
                refusal.to_string(),
            );
        }
    };
    let mut stored = [webhook, compiled, both].map(|stored| normalised(&stored, pod));
    if comes_with_foreign_record(pod) {
        exceptions.fetch_add(1, Ordering::Relaxed);
        stored.iter_mut().for_each(without_record);
    }
    let [webhook, compiled, both] = stored;
    for (promise, other) in [
        ("compiled policies do what the webhook does", &compiled),
        ("both do what the webhook does", &both),
    ] {
        if webhook != *other {
            let differences = differences(&webhook, other).join("\n");
            let evidence = format!("{differences}\n--- webhook\n{webhook:#}\n--- other\n{other:#}");
            return broken(promise, evidence);
        }
    }
    let without_us = match lab.webhook.without_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let set = policy_set(policies);
    let text = as_the_webhook_saw_it(&without_us, pod).to_string();
    let view = Pod::from_json(&text).unwrap();
    let seen = Seen::of(&plan(&set.matching(namespace, &view).unwrap(), &view));
    Ok(Ok(Seen {
        token_removed: mounts_token(&without_us) && !mounts_token(&compiled),
        ..seen
    }))
}

/// Pods for each set of policies, of those to which ephemeral containers are added.
const RUNNING_PODS: usize = 25;
const RUNNING_CASES: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiled_policies_do_to_ephemeral_containers_what_the_webhook_does() {
    let Some(lab) = CompiledLab::open().await else {
        return;
    };
    let tally = Property {
        name: "generated ephemeral containers for compiled policies",
        cases: RUNNING_PODS,
        rounds: generate::cases(RUNNING_CASES).div_ceil(RUNNING_PODS),
        policies: |random, _| generate::policy::set(random),
        case: |random, number, policies| {
            json!({
                "namespace": random.pick(&NAMESPACES).0,
                "pod": generate::pod::pod(random, &format!("compiled-running-{number}")),
                "createdWithUs": random.flip(),
                "there": if random.flip() { generate::ephemeral::containers(random, 0) } else { Vec::new() },
                "new": generate::ephemeral::containers(random, 10),
                "policies": policies,
            })
        },
        prepare: async |policies: &[Value]| lab.put_in_force(policies).await,
        run: async |case: &Value| run_on_running(&lab, case).await,
    }
    .check()
    .await;
    lab.close().await;
    tally.assert_complete(
        &[Field::RunAsUser, Field::CapabilitiesDrop],
        &[Guard::RunningPod],
    );
}

/// Creates the pod, tries to add to it, and removes it.
async fn run_on_running(lab: &CompiledLab, case: &Value) -> Outcome {
    let Some(namespace) = case["namespace"].as_str() else {
        return Ok(Ok(Seen::default()));
    };
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let creator = match case["createdWithUs"] == true {
        true => &lab.webhook.with_us,
        false => &lab.webhook.without_us,
    };
    let created = match creator.post(&pods, &case["pod"]).await {
        Ok(created) => created,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let path = format!("{pods}/{}", created["metadata"]["name"].as_str().unwrap());
    let outcome = add_to(lab, case, namespace, &path).await;
    lab.webhook.admin.delete(&path).await;
    outcome.unwrap_or_else(|refusal| Ok(Err(refusal)))
}

async fn add_to(
    lab: &CompiledLab,
    case: &Value,
    namespace: &str,
    path: &str,
) -> Result<Outcome, Refusal> {
    let subresource = format!("{path}/ephemeralcontainers");
    let mut running = lab.webhook.admin.get(path).await?;
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    if !items(&case["there"]).is_empty() {
        running["spec"]["ephemeralContainers"] = case["there"].clone();
        running = lab.webhook.without_us.put(&subresource, &running).await?;
    }
    let mut grown = running.clone();
    let mut all = items(&grown["spec"]["ephemeralContainers"]);
    all.extend(items(&case["new"]));
    grown["spec"]["ephemeralContainers"] = all.into();
    let dry_run = format!("{subresource}?dryRun=All");
    let without_us = lab.webhook.without_us.put(&dry_run, &grown).await?;
    let webhook = lab.webhook.with_us.put(&dry_run, &grown).await?;
    let compiled = match lab.compiled.put(&dry_run, &grown).await {
        Ok(stored) => stored,
        Err(refusal) => {
            return Ok(broken(
                "what is admitted with the webhook is admitted with compiled policies",
                refusal.to_string(),
            ));
        }
    };
    let [webhook, compiled] = [webhook, compiled].map(|stored| normalised(&stored, &running));
    if webhook != compiled {
        let evidence = differences(&webhook, &compiled).join("\n");
        return Ok(broken(
            "compiled policies do what the webhook does",
            evidence,
        ));
    }
    let set = policy_set(policies_of(case));
    let (text, old) = (without_us.to_string(), running.to_string());
    let view = Pod::with_new_ephemeral_containers(&text, &old).unwrap();
    Ok(Ok(Ok(Seen::of(&plan(
        &set.matching(namespace, &view).unwrap(),
        &view,
    )))))
}

/// As many containers as a pod can hardly have more of, and policies that touch all of them in every way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_fifty_containers_are_within_the_cost_that_the_api_server_allows() {
    let Some(lab) = CompiledLab::open().await else {
        return;
    };
    let seed = generate::base_seed();
    let mut same = 0;
    for number in 0..generate::cases(6) {
        let mut random = generate::Random::of(seed, "fifty containers", number);
        let mut policies = generate::policy::set(&mut random);
        for i in 0..4 {
            policies.push(json!({
                "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
                "metadata": {"name": format!("all-{i}"), "generation": 1},
                "spec": {
                    "profile": if i == 0 { "Restricted" } else { "Hardened" }, "listMerge": "Union",
                    "podSelector": {"matchExpressions": [{"key": format!("not-{i}"), "operator": "DoesNotExist"}]},
                    "containers": {"writablePaths": [{"path": format!("/var/cache/{i}")}, {"path": "/var/run"}]},
                },
            }));
        }
        lab.put_in_force(&policies).await;
        let namespace = NAMESPACES[number % NAMESPACES.len()].0;
        let containers: Vec<Value> = (0..50)
            .map(|i| {
                let mut container = json!({
                    "name": format!("container-with-a-long-name-{i}"), "image": "registry.example/app",
                });
                if i % 3 == 0 {
                    container["securityContext"] = json!({
                        "runAsUser": if i % 2 == 0 { 0 } else { 70000 },
                        "capabilities": {"add": ["cap_net_raw", "SYS_TIME"], "drop": ["KILL"]},
                    });
                    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/var"}]);
                }
                container
            })
            .collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fifty"},
            "spec": {"containers": containers, "volumes": [{"name": "data", "emptyDir": {}}]},
        });
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let [webhook, compiled] = [&lab.webhook.with_us, &lab.compiled];
        let webhook = normalised(&webhook.post(&path, &pod).await.unwrap(), &pod);
        let compiled = normalised(&compiled.post(&path, &pod).await.unwrap(), &pod);
        assert!(
            webhook == compiled,
            "case {number} of HARDENING_TEST_SEED={seed}, in {namespace}, with\n{policies:#?}\n{}",
            differences(&webhook, &compiled).join("\n")
        );
        same += usize::from(webhook["metadata"]["annotations"][FILLED].is_string());
    }
    lab.close().await;
    tell(&format!(
        "compiled policies: {same} pods of fifty containers are the same, seed {seed}"
    ));
    assert!(same > 0);
}

/// Its parser takes an expression only so deep, whatever its length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_policies_as_many_are_compiled_as_the_api_server_takes() {
    let admin = Api::admin().await;
    if !can_compile(&admin).await {
        return;
    }
    let policy = |number: usize, mut spec: Value| {
        spec["listMerge"] = "Union".into();
        json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "PodHardeningPolicy",
            "metadata": {"name": format!("many-{number:03}"), "namespace": "shop"}, "spec": spec,
        })
    };
    let lists = |number: usize| {
        let groups: Vec<usize> = (0..30).map(|i| 1000 * number + i).collect();
        policy(
            number,
            json!({"pod": {"securityContext": {"supplementalGroups": groups}}}),
        )
    };
    let selectors = |number: usize| {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": format!("app-{number}")}},
            "pod": {"securityContext": {"fsGroup": 1000 + number}},
        });
        policy(number, spec)
    };
    for (name, policies, least) in [
        ("lists", (0..10).map(lists).collect::<Vec<_>>(), 10),
        ("selectors", (0..300).map(selectors).collect(), 90),
    ] {
        let compiled = compile(&policy_set(&policies), &Options::default());
        let [object] = compiled.objects.as_slice() else {
            panic!("{name}: {} objects", compiled.objects.len());
        };
        assert!(
            object.sources.len() >= least,
            "{name}: {:?}",
            compiled.refused
        );
        assert_eq!(
            object.sources.len() + compiled.refused.len(),
            policies.len()
        );
        let mut object = object.policy.clone();
        object["metadata"]["name"] = format!("many-{name}").into();
        let path = format!("{POLICIES}?dryRun=All");
        if let Err(refusal) = admin.post(&path, &object).await {
            panic!("{name}: {refusal}");
        }
    }
}

/// Whether a pod's author wrote what looks like a record, but is not as it is written here: CEL reads no
/// JSON.
fn comes_with_foreign_record(pod: &Value) -> bool {
    [FILLED, WITHHELD].iter().any(|key| {
        let text = pod["metadata"]["annotations"][*key].as_str();
        let ours = |text: &str| {
            let record = serde_json::from_str::<BTreeMap<String, Vec<String>>>(text);
            record.is_ok_and(|record| serde_json::to_string(&record).unwrap() == text)
        };
        text.is_some_and(|text| !ours(text))
    })
}

fn without_record(pod: &mut Value) {
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| ![FILLED, WITHHELD].contains(&key.as_str()));
    }
}

/// A lab whose policies are in force compiled as well.
struct CompiledLab {
    alone: tokio::sync::MutexGuard<'static, ()>,
    webhook: Lab,
    both: Lab,
    compiled: Api,
    probe: Api,
    /// The round, and the names of what is in force.
    round: tokio::sync::Mutex<(usize, Vec<String>)>,
}

impl CompiledLab {
    /// `None` where the API server is too old.
    async fn open() -> Option<Self> {
        if !can_compile(&Api::admin().await).await {
            return None;
        }
        // One at a time: they are bound to the same namespaces.
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        Some(Self {
            alone: ONE.lock().await,
            webhook: Lab::open("compiled-against").await,
            both: Lab::open(BOTH).await,
            compiled: Api::administrator(COMPILED).await,
            probe: Api::administrator(PROBE).await,
            round: tokio::sync::Mutex::default(),
        })
    }

    /// Puts these policies in force, and no others, and waits until the API server has them.
    async fn put_in_force(&self, policies: &[Value]) {
        self.webhook.put_in_force(policies);
        self.both.put_in_force(policies);
        let mut round = self.round.lock().await;
        let (number, names) = &mut *round;
        *number += 1;
        let compiled = compile(&policy_set(policies), &Options::default());
        assert!(compiled.refused.is_empty(), "{:?}", compiled.refused);
        let admin = &self.webhook.admin;
        let before = std::mem::take(names);
        for object in &compiled.objects {
            let object_name = object.name.clone();
            for (path, object) in [
                (POLICIES, for_our_users(&object.policy, *number)),
                (BINDINGS, object.binding.clone()),
            ] {
                let path = format!("{path}/{object_name}");
                admin.apply(&path, &object).await.ok().unwrap();
            }
            names.push(object_name);
        }
        for name in before.iter().filter(|name| !names.contains(name)) {
            admin.delete(&format!("{BINDINGS}/{name}")).await;
            admin.delete(&format!("{POLICIES}/{name}")).await;
        }
        for (namespace, _) in NAMESPACES {
            // Those of the round before must be gone as well.
            let expected: BTreeMap<String, Value> = selecting(&compiled, namespace)
                .map(|object| (format!("{ROUND}{}", object.name), number.to_string().into()))
                .collect();
            let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
            until("compiled policies are in force", async || {
                let probe = json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
                    "spec": {"containers": [{"name": "only", "image": "registry.example/app"}]},
                });
                let stored = self.probe.post(&path, &probe).await.unwrap();
                let annotations = stored["metadata"]["annotations"].as_object();
                let shown: BTreeMap<String, Value> = annotations
                    .into_iter()
                    .flatten()
                    .filter(|(key, _)| key.starts_with(ROUND))
                    .map(|(key, round)| (key.clone(), round.clone()))
                    .collect();
                (shown == expected).then_some(())
            })
            .await;
        }
    }

    async fn close(self) {
        let admin = &self.webhook.admin;
        for name in &self.round.into_inner().1 {
            admin.delete(&format!("{BINDINGS}/{name}")).await;
            admin.delete(&format!("{POLICIES}/{name}")).await;
        }
        self.both.close().await;
        self.webhook.close().await;
        drop(self.alone);
    }
}

/// A compiled policy that leaves the pods of other tests alone, and tells its round.
fn for_our_users(policy: &Value, round: usize) -> Value {
    let mut policy = policy.clone();
    let users = json!([COMPILED, BOTH, PROBE]);
    let conditions = policy["spec"]["matchConditions"].as_array_mut().unwrap();
    conditions.push(
        json!({"name": "our-users", "expression": format!("request.userInfo.username in {users}")}),
    );
    let name = policy["metadata"]["name"].as_str().unwrap();
    let key = format!("{ROUND}{name}").replace('/', "~1");
    let expression = format!(
        r#"request.userInfo.username != "{PROBE}" ? [] : (has(object.metadata.annotations) ? [] : [JSONPatch{{op: "add", path: "/metadata/annotations", value: {{}}}}]) + [JSONPatch{{op: "add", path: "/metadata/annotations/{key}", value: "{round}"}}]"#
    );
    let mutations = policy["spec"]["mutations"].as_array_mut().unwrap();
    mutations.push(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}));
    policy
}

/// What is bound to a namespace.
fn selecting<'c>(
    compiled: &'c Compiled,
    namespace: &str,
) -> impl Iterator<Item = &'c CompiledPolicy> {
    compiled.objects.iter().filter(move |object| {
        let expression =
            &object.binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0];
        let names = expression["values"].as_array().unwrap();
        names.contains(&namespace.into()) == (expression["operator"] == "In")
    })
}
