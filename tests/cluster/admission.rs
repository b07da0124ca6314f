//! The promise: what the API server admits without us it admits with us, with all that its author wrote in
//! it, and with just what was foretold.
//!
//! Each generated pod is posted twice, as a server-side dry run, to the same namespace: by a user for whom
//! the webhook is not asked, and by one for whom it is.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt as _, stream};
use hardening_engine::{FILLED, Field, Fill, Guard, Plan, Pod, plan};
use serde_json::{Value, json};

use crate::support::api::Refusal;
use crate::support::compare::{
    as_the_webhook_saw_it, differences, losses, mounts_token, normalised,
};
use crate::support::generate::policy::{NAMESPACES, set_mode};
use crate::support::generate::{self, Random};
use crate::support::lab::{Lab, policy_set};
use crate::support::shrink::smallest;
use crate::support::tally::{Seen, Tally, all_fields};

const CASES: usize = 3200;
/// Pods for each set of policies.
const PODS: usize = 25;
/// Of so many sets of policies one is in mode Audit.
const AUDITED: usize = 10;
const IN_FLIGHT: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_admitted_without_us_is_admitted_with_us_whole_and_as_foretold() {
    let seed = generate::base_seed();
    let lab = Lab::open("admission").await;
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for round in 0..generate::cases(CASES).div_ceil(PODS) {
        let mut policies = generate::policy::set(&mut Random::of(seed, "policies", round));
        if round % AUDITED == AUDITED - 1 {
            set_mode(&mut policies, "Audit");
        }
        lab.put_in_force(&policies);
        let cases = (0..PODS).map(|i| Case::new(seed, round * PODS + i));
        let outcomes: Vec<(Case, Outcome)> = stream::iter(cases)
            .map(async |case| {
                let outcome = run(&lab, &policies, &case).await;
                (case, outcome)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        for (case, outcome) in outcomes {
            match outcome {
                Ok(Ok(seen)) => tally.add(&seen),
                Ok(Err(refusal)) => tally.refuse(&refusal),
                Err(failure) => failures.push((policies.clone(), case, failure)),
            }
        }
    }
    println!("{tally}in {:.1?}, seed {seed}", started.elapsed());
    report(&lab, seed, failures).await;
    lab.close().await;
    let not_on_creation = |guard: &Guard| *guard != Guard::RunningPod;
    let guards: Vec<Guard> = Guard::ALL.into_iter().filter(not_on_creation).collect();
    tally.assert_complete(&all_fields(), &guards);
}

/// A pod that someone posts somewhere.
struct Case {
    number: usize,
    namespace: &'static str,
    pod: Value,
}

/// What happened; or the refusal of a pod that the API server refuses without us, too; or what is broken.
type Outcome = Result<Result<Seen, Refusal>, Failure>;

struct Failure {
    promise: &'static str,
    evidence: String,
}

impl Case {
    fn new(seed: u64, number: usize) -> Self {
        let mut random = Random::of(seed, "pod", number);
        Self {
            number,
            namespace: random.pick(&NAMESPACES).0,
            pod: generate::pod::pod(&mut random, &format!("case-{number}")),
        }
    }
}

async fn run(lab: &Lab, policies: &[Value], case: &Case) -> Outcome {
    let Case { namespace, pod, .. } = case;
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let without_us = match lab.without_us.post(&path, pod).await {
        Ok(stored) => stored,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let seen_by_us = as_the_webhook_saw_it(&without_us, pod);
    let set = policy_set(policies);
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
    let lost = losses(&before, &after);
    if !lost.is_empty() {
        return broken(
            "every value that the author wrote is still there",
            lost.join("\n"),
        );
    }
    let predicted = predict(lab, &path, &plan, &seen_by_us).await?;
    let predicted = normalised(&predicted, pod);
    if predicted != after {
        let evidence = differences(&predicted, &after).join("\n");
        return broken("what is stored is what was foretold", evidence);
    }
    let again = with_us.to_string();
    let again = Pod::from_json(&again).unwrap();
    let again = hardening_engine::plan(&set.matching(namespace, &again).unwrap(), &again);
    if !again.is_empty() {
        let evidence = again.to_patch().to_string();
        return broken("a second pass fills nothing", evidence);
    }
    let audits = policies
        .iter()
        .all(|policy| policy["spec"]["mode"] == "Audit");
    if audits {
        // What looks like a record of an earlier round is one to Enforce.
        let is_first_round = before["metadata"]["annotations"][FILLED].is_null();
        if is_first_round {
            told_is_what_would_be_filled(policies, namespace, &text, &plan)?;
        }
        if before != after {
            let evidence = differences(&before, &after).join("\n");
            return broken("mode Audit changes nothing", evidence);
        }
    }
    Ok(Ok(Seen {
        filled: plan.fills.iter().map(|fill| fill.field).collect(),
        withheld: plan.withheld.iter().map(|held| held.guard).collect(),
        audited: plan.audited.len(),
        token_removed: mounts_token(&without_us) && !mounts_token(&with_us),
    }))
}

fn broken<T>(promise: &'static str, evidence: String) -> Result<T, Failure> {
    Err(Failure { promise, evidence })
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
    for of_server in ["uid", "creationTimestamp", "managedFields", "namespace"] {
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
    policies: &[Value],
    namespace: &str,
    pod: &str,
    plan: &Plan<'_>,
) -> Result<(), Failure> {
    let mut enforced = policies.to_vec();
    set_mode(&mut enforced, "Enforce");
    let set = policy_set(&enforced);
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

/// Fails if there is a failure, with the first one of each promise in full.
async fn report(lab: &Lab, seed: u64, failures: Vec<(Vec<Value>, Case, Failure)>) {
    let mut broken: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut texts = Vec::new();
    for (policies, case, failure) in failures {
        let cases = broken.entry(failure.promise).or_default();
        cases.push(case.number);
        if cases.len() == 1 {
            texts.push(explain(lab, seed, policies, case, &failure).await);
        }
    }
    assert!(
        broken.is_empty(),
        "{}\nbroken: {broken:#?}",
        texts.join("\n\n")
    );
}

/// All that is needed to see the failure again: the seed, and the least pod and policies that fail.
async fn explain(
    lab: &Lab,
    seed: u64,
    policies: Vec<Value>,
    case: Case,
    failure: &Failure,
) -> String {
    let Case {
        number,
        namespace,
        pod,
    } = case;
    let input = json!({"policies": policies, "pod": pod});
    let least = smallest(input, async |input| {
        let policies = input["policies"].as_array().cloned().unwrap_or_default();
        if !policies.iter().all(is_valid) {
            return false;
        }
        lab.put_in_force(&policies);
        let pod = input["pod"].clone();
        let case = Case {
            number,
            namespace,
            pod,
        };
        let outcome = run(lab, &policies, &case).await;
        outcome.is_err_and(|found| found.promise == failure.promise)
    })
    .await;
    let policies = least["policies"].as_array().cloned().unwrap_or_default();
    lab.put_in_force(&policies);
    let pod = least["pod"].clone();
    let again = Case {
        number,
        namespace,
        pod,
    };
    let evidence = match run(lab, &policies, &again).await {
        Err(found) => found.evidence,
        Ok(_) => failure.evidence.clone(),
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let stored = async |api: &crate::support::api::Api| match api.post(&path, &again.pod).await {
        Ok(stored) => format!("{:#}", normalised(&stored, &again.pod)),
        Err(refusal) => refusal.to_string(),
    };
    format!(
        "case {number} of HARDENING_TEST_SEED={seed} breaks the promise: {}\n{evidence}\n\
         in namespace {namespace}, cut down to the pod\n{:#}\nand the policies\n{:#}\n\
         --- without us\n{}\n--- with us\n{}",
        failure.promise,
        again.pod,
        least["policies"],
        stored(&lab.without_us).await,
        stored(&lab.with_us).await,
    )
}

fn is_valid(policy: &Value) -> bool {
    use hardening_api::{PolicyKind, violations};
    let kind = policy["kind"].as_str().unwrap_or_default();
    PolicyKind::of(hardening_api::API_VERSION, kind)
        .is_some_and(|kind| violations(kind, policy).is_empty())
        && policy["metadata"]["name"].is_string()
        && (policy["metadata"]["namespace"].is_string() || kind.starts_with("Cluster"))
}
