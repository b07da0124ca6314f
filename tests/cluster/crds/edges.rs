//! The schema at its edges: for each field, values that just fit and values that just do not, and valid
//! policies with something broken in them. The API server and [`violations`] give the same verdict.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use hardening_api::{PolicyKind, crds, violations};
use regex::Regex;
use serde_json::{Value, json};

use super::{policy, post};
use crate::support::api::Api;
use crate::support::crds::install;
use crate::support::generate::{self, Random};
use crate::support::shrink::{places, replaced, smallest};
use crate::support::tell::tell;

/// How many policies are with the API server at one time.
const IN_FLIGHT: usize = 16;
/// Valid policies with something broken in them.
const BROKEN: usize = 1500;

#[tokio::test]
async fn every_limit_of_the_schema_holds_in_files_as_on_the_api_server() {
    let api = Api::admin().await;
    install(&api).await;
    let specs = PolicyKind::ALL
        .into_iter()
        .zip(crds())
        .flat_map(|(kind, crd)| {
            let schema =
                &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let cases = edge_cases(kind, schema);
            cases.into_iter().map(move |spec| (kind, spec))
        });
    let specs = specs.collect();
    let verdicts = compare(&api, specs).await;
    tell(&format!("crds: limits at their edges: {verdicts:?}"));
    assert!(
        verdicts["taken"] > 200 && verdicts["refused"] > 500,
        "{verdicts:?}"
    );
}

#[tokio::test]
async fn broken_policies_are_told_apart_in_files_as_on_the_api_server() {
    let api = Api::admin().await;
    install(&api).await;
    let seed = generate::base_seed();
    let mut specs = Vec::new();
    for number in 0..generate::cases(BROKEN) {
        let mut random = Random::of(seed, "broken policies", number);
        let [object] = &generate::policy::set(&mut random)[..1] else {
            unreachable!("a set is never empty");
        };
        let kind = PolicyKind::of(hardening_api::API_VERSION, object["kind"].as_str().unwrap());
        let mut spec = object["spec"].clone();
        for _ in 0..random.number(1..=2) {
            let places = places(&spec);
            let Some(place) = places.get(random.number(0..=places.len())) else {
                continue;
            };
            spec = replaced(&spec, place, strange(&mut random));
        }
        specs.push((kind.unwrap(), spec));
    }
    let verdicts = compare(&api, specs).await;
    tell(&format!("crds: broken policies, seed {seed}: {verdicts:?}"));
    assert!(
        verdicts["taken"] > 50 && verdicts["refused"] > 500,
        "{verdicts:?}"
    );
}

/// Posts all, and fails with the least one on which the verdicts differ, or for which the API server names
/// another field.
async fn compare(api: &Api, specs: Vec<(PolicyKind, Value)>) -> BTreeMap<&'static str, usize> {
    let verdicts: Vec<_> = stream::iter(specs)
        .map(async |(kind, spec)| (kind, verdict(api, kind, &spec).await, spec))
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await;
    let mut counts = BTreeMap::from([("taken", 0), ("refused", 0)]);
    let mut differ = BTreeMap::new();
    for (kind, verdict, spec) in verdicts {
        match verdict {
            Ok(name) => *counts.get_mut(name).unwrap() += 1,
            Err(difference) if differ.len() < 20 => {
                let spec = smallest(spec, async |spec| {
                    verdict_differs_alike(api, kind, spec, &difference).await
                })
                .await;
                if let Err(difference) = self::verdict(api, kind, &spec).await {
                    differ.insert(spec.to_string(), (kind, difference));
                }
            }
            Err(_) => {}
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    counts
}

async fn verdict_differs_alike(
    api: &Api,
    kind: PolicyKind,
    spec: &Value,
    as_in: &Difference,
) -> bool {
    let verdict = verdict(api, kind, spec).await;
    verdict.is_err_and(|found| std::mem::discriminant(&found) == std::mem::discriminant(as_in))
}

/// How the API server and `violations` disagree.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "what is in it is for the one who reads the failure"
)]
enum Difference {
    OnlyApiServer(String),
    OnlyViolations(String),
    OtherField {
        api_server: String,
        violations: String,
    },
    NoVerdict(String),
}

async fn verdict(api: &Api, kind: PolicyKind, spec: &Value) -> Result<&'static str, Difference> {
    let policy = policy(kind, "edge", spec);
    let found = violations(kind, &policy);
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    let text = text.join("; ");
    let answer = post(api, kind, &policy).await;
    let message = answer.body["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match (answer.status, found.is_empty()) {
        (201, true) => Ok("taken"),
        (201, false) => Err(Difference::OnlyViolations(text)),
        (400 | 422, true) => Err(Difference::OnlyApiServer(message)),
        (400 | 422, false) => {
            let named = found
                .iter()
                .any(|violation| message.contains(&violation.path));
            named.then_some("refused").ok_or(Difference::OtherField {
                api_server: message,
                violations: text,
            })
        }
        _ => Err(Difference::NoVerdict(format!("{answer:?}"))),
    }
}

/// Specs that are valid but perhaps for one value, which just fits its place in the schema or just does not.
fn edge_cases(kind: PolicyKind, schema: &Value) -> Vec<Value> {
    let spec = match kind {
        PolicyKind::Namespaced => json!({"profile": "Restricted"}),
        PolicyKind::Cluster => json!({"profile": "Restricted", "allowWeakening": true}),
    };
    let mut cases = Vec::new();
    members(schema, &spec, &|spec| spec, &mut cases);
    cases
}

/// Cases about the members of an object; `within` puts such an object where it belongs in a spec.
fn members(schema: &Value, base: &Value, within: Within<'_>, cases: &mut Vec<Value>) {
    let with = |name: &str, value: Value| {
        let mut object = base.clone();
        object[name] = value;
        within(object)
    };
    cases.push(with("unknownField", json!(1)));
    for name in schema["required"].as_array().into_iter().flatten() {
        let mut object = base.clone();
        object
            .as_object_mut()
            .unwrap()
            .remove(name.as_str().unwrap());
        cases.push(within(object));
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        place(child, &|value| with(name, value), cases);
    }
}

type Within<'w> = &'w dyn Fn(Value) -> Value;

/// Cases about a value; `within` puts a value there.
fn place(schema: &Value, within: Within<'_>, cases: &mut Vec<Value>) {
    let strange = [
        json!(null),
        json!(true),
        json!(1),
        json!(1.5),
        json!("x"),
        json!(""),
        json!([]),
        json!({}),
        json!([null]),
        json!({"unknownField": 1}),
    ];
    cases.extend(strange.into_iter().map(within));
    cases.push(within(example(schema, 0)));
    for value in schema["enum"].as_array().into_iter().flatten() {
        cases.push(within(value.clone()));
    }
    let bound = |name: &str| schema[name].as_i64();
    for (limit, beyond) in [("minimum", -1), ("maximum", 1)] {
        if let Some(limit) = schema[limit].as_f64() {
            let limit = limit as i64;
            cases.extend([limit, limit + beyond].map(|number| within(json!(number))));
        }
    }
    let shape = example(schema, 0);
    if let (Some(longest), Some(text)) = (bound("maxLength"), shape.as_str()) {
        for length in [longest, longest + 1] {
            for more in ["a", "A", "1", "é"] {
                let length = usize::try_from(length).unwrap() - text.chars().count();
                cases.push(within(format!("{text}{}", more.repeat(length)).into()));
            }
        }
    }
    if let Some(most) = bound("maxItems") {
        for count in [1, most, most + 1] {
            let items = (0..count).map(|i| example(&schema["items"], i));
            cases.push(within(items.collect()));
        }
        let twice = [0, 0].map(|i| example(&schema["items"], i));
        cases.push(within(json!(twice)));
        place(&schema["items"], &|item| within(json!([item])), cases);
    }
    if let Some(most) = bound("maxProperties") {
        for count in [most, most + 1] {
            let pairs = (0..count).map(|i| (format!("k{i}"), json!("v")));
            cases.push(within(Value::Object(pairs.collect())));
        }
    }
    if schema["properties"].is_object() {
        members(schema, &example(schema, 0), within, cases);
    }
}

/// A value that fits the schema; those of different numbers differ, where that many can.
fn example(schema: &Value, number: i64) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed[usize::try_from(number).unwrap() % allowed.len()].clone();
    }
    match schema["type"].as_str().unwrap() {
        "boolean" => true.into(),
        "integer" => (number + 1).into(),
        "array" => json!([]),
        "string" => {
            let pattern = Regex::new(schema["pattern"].as_str().unwrap_or_default()).unwrap();
            let candidates = ["a", "A", "/a", "1"].map(|start| format!("{start}{number}"));
            let fits = candidates.into_iter().find(|text| pattern.is_match(text));
            fits.unwrap_or_else(|| panic!("nothing fits {pattern}"))
                .into()
        }
        _ => {
            let names = schema["required"].as_array().into_iter().flatten();
            let required = names.map(|name| name.as_str().unwrap());
            let member = |name| {
                (
                    String::from(name),
                    example(&schema["properties"][name], number),
                )
            };
            Value::Object(required.map(member).collect())
        }
    }
}

/// A value that somebody may have written there by mistake.
fn strange(random: &mut Random) -> Value {
    random
        .pick(&[
            json!(null),
            json!(true),
            json!(false),
            json!(-1),
            json!(0),
            json!(2_147_483_648_i64),
            json!(9_223_372_036_854_775_807_i64),
            json!(1.5),
            json!("1"),
            json!(""),
            json!(" "),
            json!("\u{a0}x"),
            json!("a\nb"),
            json!("/tmp/"),
            json!("/tmp//a"),
            json!("../a"),
            json!("CAP_KILL"),
            json!("all"),
            json!("Unconfined"),
            json!("Localhost"),
            json!("\u{1F980}".repeat(4096)),
            json!([]),
            json!({}),
            json!([1, 1]),
            json!(["a", "a"]),
            json!([{}]),
            json!({"type": "Localhost"}),
            json!({"matchLabels": {"": "\u{0}", "a": null}}),
            json!({"a": null}),
        ])
        .clone()
}
