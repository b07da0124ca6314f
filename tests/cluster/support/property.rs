//! A property held against many generated cases, with the least case that breaks it.
//!
//! A case is plain JSON, so that it can be printed, and cut down member by member.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::{StreamExt as _, stream};
use serde_json::Value;

use super::api::Refusal;
use super::generate::{Random, base_seed};
use super::shrink::smallest;
use super::tally::{Count as _, Seen, Sight};
use super::tell::tell;

/// How many cases are with the API server at one time.
const IN_FLIGHT: usize = 16;

/// What happened; or the refusal of what the API server refuses in any case; or what is broken.
pub(crate) type Outcome<S = Seen> = Result<Result<S, Refusal>, Failure>;

/// A promise that is broken, and what shows it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) promise: &'static str,
    pub(crate) evidence: String,
}

/// A property.
pub(crate) struct Property<Prepare, Run> {
    pub(crate) name: &'static str,
    /// Cases that share their policies, and how many of those.
    pub(crate) cases: usize,
    pub(crate) rounds: usize,
    /// Makes the policies of a round.
    pub(crate) policies: fn(&mut Random, usize) -> Vec<Value>,
    /// Makes a case.
    pub(crate) case: fn(&mut Random, usize, &[Value]) -> Value,
    /// Puts a case's policies in force.
    pub(crate) prepare: Prepare,
    /// Runs a case.
    pub(crate) run: Run,
}

pub(crate) fn broken<T>(promise: &'static str, evidence: String) -> Result<T, Failure> {
    Err(Failure { promise, evidence })
}

impl<Prepare: AsyncFn(&[Value]), Run> Property<Prepare, Run> {
    /// Holds the property against all cases, prints what happened in them, and fails if it is broken.
    pub(crate) async fn check<S: Sight>(&self) -> S::Tally
    where
        Run: AsyncFn(&Value) -> Outcome<S>,
    {
        let seed = base_seed();
        let started = Instant::now();
        let mut tally = S::Tally::default();
        let mut failures = Vec::new();
        for round in 0..self.rounds {
            let policies = (self.policies)(&mut Random::of(seed, "policies", round), round);
            (self.prepare)(&policies).await;
            let numbers = (0..self.cases).map(|i| round * self.cases + i);
            let outcomes: Vec<(usize, Value, Outcome<S>)> = stream::iter(numbers)
                .map(async |number| {
                    let mut random = Random::of(seed, self.name, number);
                    let case = (self.case)(&mut random, number, &policies);
                    let outcome = (self.run)(&case).await;
                    (number, case, outcome)
                })
                .buffer_unordered(IN_FLIGHT)
                .collect()
                .await;
            for (number, case, outcome) in outcomes {
                match outcome {
                    Ok(Ok(seen)) => tally.add(&seen),
                    Ok(Err(refusal)) => tally.refuse(&refusal),
                    Err(failure) => failures.push((number, case, failure)),
                }
            }
        }
        tell(&format!(
            "{}: {tally}  in {:.1?}, seed {seed}",
            self.name,
            started.elapsed()
        ));
        self.report(seed, failures).await;
        tally
    }

    /// Fails if there is a failure, with the first one of each promise in full.
    async fn report<S>(&self, seed: u64, failures: Vec<(usize, Value, Failure)>)
    where
        Run: AsyncFn(&Value) -> Outcome<S>,
    {
        let mut all: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut texts = Vec::new();
        for (number, case, failure) in failures {
            let numbers = all.entry(failure.promise).or_default();
            numbers.push(number);
            if numbers.len() == 1 {
                texts.push(self.explain(seed, number, case, failure).await);
            }
        }
        let texts = texts.join("\n\n");
        assert!(
            all.is_empty(),
            "{texts}\n\ncases that break each promise: {all:?}"
        );
    }

    /// All that is needed to see a failure again: the seed, and the least case that fails alike.
    async fn explain<S>(&self, seed: u64, number: usize, case: Value, failure: Failure) -> String
    where
        Run: AsyncFn(&Value) -> Outcome<S>,
    {
        let alike = async |case: &Value| {
            let policies = case["policies"].as_array().cloned().unwrap_or_default();
            if !policies.iter().all(is_valid) {
                return None;
            }
            (self.prepare)(&policies).await;
            let found = (self.run)(case).await.err()?;
            (found.promise == failure.promise).then_some(found)
        };
        let least = smallest(case, async |case| alike(case).await.is_some()).await;
        let found = alike(&least).await.unwrap_or(Failure { ..failure });
        format!(
            "case {number} of {} (HARDENING_TEST_SEED={seed}) breaks the promise: {}\n{}\n\
             it is cut down to\n{least:#}",
            self.name, found.promise, found.evidence,
        )
    }
}

fn is_valid(policy: &Value) -> bool {
    use hardening_api::{PolicyKind, violations};
    let kind = policy["kind"].as_str().unwrap_or_default();
    PolicyKind::of(hardening_api::API_VERSION, kind)
        .is_some_and(|kind| violations(kind, policy).is_empty())
        && policy["metadata"]["name"].is_string()
        && (policy["metadata"]["namespace"].is_string() || kind.starts_with("Cluster"))
}
