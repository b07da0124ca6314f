//! The promise: what the API server admits without us it admits with us, with all that its author wrote in
//! it, and with just what was foretold.
//!
//! Each generated pod is posted twice, as a server-side dry run, to the same namespace: by a user for whom
//! the webhook is not asked, and by one for whom it is.

use hardening_engine::{FILLED, Field, Fill, Guard, Plan, Pod, plan};
use serde_json::{Value, json};

use crate::support::compare::{
    as_the_webhook_saw_it, differences, losses, mounts_token, normalised,
};
use crate::support::generate;
use crate::support::generate::policy::{NAMESPACES, set_mode};
use crate::support::lab::{Lab, policies_of};
use crate::support::property::{Failure, Outcome, Property, broken};
use crate::support::tally::{Seen, all_fields};

/// So that 3,000 of them are admitted without us.
const CASES: usize = 3500;
const ADMITTED: usize = 3000;
/// Pods for each set of policies.
const PODS: usize = 25;
/// Of so many sets of policies one is in mode Audit.
const AUDITED: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_admitted_without_us_is_admitted_with_us_whole_and_as_foretold() {
    let lab = Lab::open("admission").await;
    let tally = Property {
        name: "generated pods",
        cases: PODS,
        rounds: generate::cases(CASES).div_ceil(PODS),
        policies: |random, round| {
            let mut policies = generate::policy::set(random);
            if round % AUDITED == AUDITED - 1 {
                set_mode(&mut policies, "Audit");
            }
            policies
        },
        case: |random, number, policies| {
            let namespace = random.pick(&NAMESPACES).0;
            let pod = generate::pod::pod(random, &format!("case-{number}"));
            json!({"namespace": namespace, "pod": pod, "policies": policies})
        },
        prepare: async |policies: &[Value]| lab.put_in_force(policies),
        run: async |case: &Value| run(&lab, case).await,
    }
    .check()
    .await;
    lab.close().await;
    // Every version that these tests run on has every field: the topic `versions` holds what else there is.
    let on_creation =
        |guard: &Guard| !matches!(guard, Guard::RunningPod | Guard::KubernetesVersion);
    let guards: Vec<Guard> = Guard::ALL.into_iter().filter(on_creation).collect();
    tally.assert_complete(&all_fields(), &guards);
    if generate::cases(CASES) >= CASES {
        assert!(tally.admitted >= ADMITTED, "{tally}");
    }
}

async fn run(lab: &Lab, case: &Value) -> Outcome {
    let (Some(namespace), pod, policies) =
        (case["namespace"].as_str(), &case["pod"], policies_of(case))
    else {
        return Ok(Ok(Seen::default()));
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let without_us = match lab.without_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let seen_by_us = as_the_webhook_saw_it(&without_us, pod);
    let set = lab.policy_set(policies);
    let text = seen_by_us.to_string();
    let view = Pod::from_json(&text).unwrap();
    let matching = set.matching(namespace, &view).unwrap();
    let plan = plan(&matching, &view);

    let with_us = match lab.with_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => {
            let evidence = format!("{refusal}\nthe patch: {}", plan.to_patch());
            return broken("what is admitted without us is admitted with us", evidence);
        }
    };
    let (before, after) = (normalised(&without_us, pod), normalised(&with_us, pod));
    let fails = |promise, what: &[String]| {
        let what = what.join("\n");
        let evidence = format!("{what}\n--- without us\n{before:#}\n--- with us\n{after:#}\n---");
        broken(promise, evidence)
    };
    let lost = losses(&before, &after);
    if !lost.is_empty() {
        return fails("every value that the author wrote is still there", &lost);
    }
    let predicted = predict(lab, &path, &plan, &seen_by_us).await?;
    let predicted = normalised(&predicted, pod);
    if predicted != after {
        let differences = differences(&predicted, &after);
        return fails("what is stored is what was foretold", &differences);
    }
    let again = with_us.to_string();
    let again = Pod::from_json(&again).unwrap();
    let again = hardening_engine::plan(&set.matching(namespace, &again).unwrap(), &again);
    if !again.is_empty() {
        let patch = again.to_patch().to_string();
        return fails("a second pass fills nothing", &[patch]);
    }
    let is_audit = |policy: &Value| policy["spec"]["mode"] == "Audit";
    if policies.iter().all(is_audit) {
        // What looks like a record of an earlier round is one to Enforce.
        let is_first_round = before["metadata"]["annotations"][FILLED].is_null();
        if is_first_round {
            told_is_what_would_be_filled(lab, policies, namespace, &text, &plan)?;
        }
        if before != after {
            let differences = differences(&before, &after);
            return fails("mode Audit changes nothing", &differences);
        }
    }
    Ok(Ok(Seen {
        token_removed: mounts_token(&without_us) && !mounts_token(&with_us),
        ..Seen::of(&plan)
    }))
}

/// The pod with the patch applied. Where a fill makes the API server itself do more, it is asked what.
async fn predict(
    lab: &Lab,
    path: &str,
    plan: &Plan<'_>,
    seen_by_us: &Value,
) -> Result<Value, Failure> {
    let mut predicted = seen_by_us.clone();
    if let Err(error) = json_patch::patch(&mut predicted, &plan.to_patch()) {
        return broken("the patch applies", format!("{error}\n{}", plan.to_patch()));
    }
    if !plan.fills.iter().any(goes_on) {
        return Ok(predicted);
    }
    let metadata = predicted["metadata"].as_object_mut().unwrap();
    for of_server in ["uid", "creationTimestamp", "managedFields"] {
        metadata.remove(of_server);
    }
    lab.without_us
        .post(path, &predicted)
        .await
        .map_err(|refusal| Failure {
            promise: "what is foretold is admitted",
            evidence: format!("{refusal}\n{predicted:#}"),
        })
}

/// A runtime class adds what it asks of nodes, and quantities are written in one way.
fn goes_on(fill: &Fill<'_>) -> bool {
    matches!(fill.field, Field::RuntimeClassName | Field::WritablePaths)
}

/// Policies in mode Audit tell just what they would fill in if they were enforced.
fn told_is_what_would_be_filled(
    lab: &Lab,
    policies: &[Value],
    namespace: &str,
    pod: &str,
    plan: &Plan<'_>,
) -> Result<(), Failure> {
    let mut enforced = policies.to_vec();
    set_mode(&mut enforced, "Enforce");
    let set = lab.policy_set(&enforced);
    let view = Pod::from_json(pod).unwrap();
    let matching = set.matching(namespace, &view).unwrap();
    let filled = words(&hardening_engine::plan(&matching, &view).fills);
    let told = words(&plan.audited);
    if told == filled {
        return Ok(());
    }
    broken(
        "mode Audit tells what Enforce would fill in",
        format!("told {told:#?}\nfilled {filled:#?}"),
    )
}

fn words(fills: &[Fill<'_>]) -> Vec<String> {
    let word =
        |fill: &Fill<'_>| format!("{}: {} ({})", fill.path(), fill.value_json(), fill.policy);
    fills.iter().map(word).collect()
}
