//! Ephemeral containers, added to running pods through their subresource: the new ones are filled in, and
//! nothing else is touched.
//!
//! The pods are real; the requests that add to them are dry runs, one without us and one with us.

use hardening_engine::{Field, Guard, Pod, plan};
use serde_json::{Value, json};

use crate::support::api::Refusal;
use crate::support::compare::{differences, losses, normalised};
use crate::support::generate;
use crate::support::generate::policy::NAMESPACES;
use crate::support::lab::{Lab, policies_of};
use crate::support::property::{Outcome, Property, broken};
use crate::support::tally::Seen;

const CASES: usize = 400;
/// Pods for each set of policies.
const PODS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_ephemeral_containers_are_filled_in_and_nothing_else_is_touched() {
    let lab = Lab::open("ephemeral").await;
    let tally = Property {
        name: "generated ephemeral containers",
        cases: PODS,
        rounds: generate::cases(CASES).div_ceil(PODS),
        policies: |random, _| generate::policy::set(random),
        case: |random, number, policies| {
            json!({
                "namespace": random.pick(&NAMESPACES).0,
                "pod": generate::pod::pod(random, &format!("running-{number}")),
                "createdWithUs": random.flip(),
                "there": if random.flip() { generate::ephemeral::containers(random, 0) } else { Vec::new() },
                "new": generate::ephemeral::containers(random, 10),
                "policies": policies,
            })
        },
        prepare: async |policies: &[Value]| lab.put_in_force(policies),
        run: async |case: &Value| run(&lab, case).await,
    }
    .check()
    .await;
    lab.close().await;
    let fields = [
        Field::RunAsUser,
        Field::RunAsNonRoot,
        Field::RunAsGroup,
        Field::SeccompProfile,
        Field::AppArmorProfile,
        Field::SeLinuxOptions,
        Field::AllowPrivilegeEscalation,
        Field::Privileged,
        Field::ProcMount,
        Field::CapabilitiesDrop,
        Field::CapabilitiesAdd,
        Field::ReadOnlyRootFilesystem,
    ];
    tally.assert_complete(&fields, &[Guard::RunningPod]);
}

/// Creates the pod, tries to add to it, and removes it.
async fn run(lab: &Lab, case: &Value) -> Outcome {
    let Some(namespace) = case["namespace"].as_str() else {
        return Ok(Ok(Seen::default()));
    };
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let creator = match case["createdWithUs"] == true {
        true => &lab.with_us,
        false => &lab.without_us,
    };
    let created = match creator.post(&pods, &case["pod"]).await {
        Ok(created) => created,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let path = format!("{pods}/{}", created["metadata"]["name"].as_str().unwrap());
    let outcome = add_to(lab, case, namespace, &path).await;
    lab.admin.delete(&path).await;
    outcome.unwrap_or_else(|refusal| Ok(Err(refusal)))
}

async fn add_to(lab: &Lab, case: &Value, namespace: &str, path: &str) -> Result<Outcome, Refusal> {
    let subresource = format!("{path}/ephemeralcontainers");
    let mut running = lab.admin.get(path).await?;
    if case["there"]
        .as_array()
        .is_some_and(|there| !there.is_empty())
    {
        running["spec"]["ephemeralContainers"] = case["there"].clone();
        running = lab.without_us.put(&subresource, &running).await?;
    }
    let mut grown = running.clone();
    let new = case["new"].as_array().cloned().unwrap_or_default();
    match &mut grown["spec"]["ephemeralContainers"] {
        Value::Array(there) => there.extend(new),
        none => *none = new.into(),
    }
    let dry_run = format!("{subresource}?dryRun=All");
    let without_us = lab.without_us.put(&dry_run, &grown).await?;

    let set = lab.policy_set(policies_of(case));
    let (text, old) = (without_us.to_string(), running.to_string());
    let view = Pod::with_new_ephemeral_containers(&text, &old).unwrap();
    let plan = plan(&set.matching(namespace, &view).unwrap(), &view);
    let with_us = match lab.with_us.put(&dry_run, &grown).await {
        Ok(stored) => stored,
        Err(refusal) => {
            let evidence = format!("{refusal}\nthe patch: {}", plan.to_patch());
            return Ok(broken(
                "what is admitted without us is admitted with us",
                evidence,
            ));
        }
    };
    let (before, after) = (
        normalised(&without_us, &running),
        normalised(&with_us, &running),
    );
    let fails = |promise, what: &[String]| {
        let what = what.join("\n");
        let evidence = format!("{what}\n--- without us\n{before:#}\n--- with us\n{after:#}\n---");
        Ok(broken(promise, evidence))
    };
    let lost = losses(&before, &after);
    if !lost.is_empty() {
        return fails("every value that the author wrote is still there", &lost);
    }
    let touched = touched(&before, &after, &case["new"]);
    if !touched.is_empty() {
        return fails("only new ephemeral containers are touched", &touched);
    }
    let mut predicted = without_us.clone();
    json_patch::patch(&mut predicted, &plan.to_patch()).unwrap();
    let predicted = normalised(&predicted, &running);
    if predicted != after {
        let differences = differences(&predicted, &after);
        return fails("what is stored is what was foretold", &differences);
    }
    let again = with_us.to_string();
    let again = Pod::with_new_ephemeral_containers(&again, &old).unwrap();
    let again = hardening_engine::plan(&set.matching(namespace, &again).unwrap(), &again);
    if !again.is_empty() {
        let patch = again.to_patch().to_string();
        return fails("a second pass fills nothing", &[patch]);
    }
    Ok(Ok(Ok(Seen::of(&plan))))
}

/// What differs outside of the new ephemeral containers.
fn touched(before: &Value, after: &Value, new: &Value) -> Vec<String> {
    let without_new = |pod: &Value| {
        let mut pod = pod.clone();
        if let Some(Value::Array(all)) = pod["spec"].get_mut("ephemeralContainers") {
            let there = all.len() - new.as_array().map_or(0, Vec::len);
            all.truncate(there);
        }
        pod
    };
    differences(&without_new(before), &without_new(after))
}
