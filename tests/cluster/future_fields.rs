//! Fields that nobody here has heard of survive, because a patch only ever adds what is not there. The API
//! server would drop made-up fields before it asked, so that this is held against the engine alone.

use hardening_engine::{FILLED, Pod, WITHHELD, plan};
use json_patch::PatchOperation;
use serde_json::{Value, json};

use crate::support::generate::policy::NAMESPACES;
use crate::support::generate::{self, Random};
use crate::support::lab::policy_set;
use crate::support::shrink::places;
use crate::support::tell::tell;

const CASES: usize = 2000;
/// A field of a Kubernetes to come; its number is more than a reader of JSON may keep.
const MADE_UP: &str = "fieldOfTheFuture";

#[test]
fn what_nobody_knows_yet_is_left_as_it_is() {
    let seed = generate::base_seed();
    let (mut patched, mut planted) = (0, 0);
    let cases = generate::cases(CASES);
    for number in 0..cases {
        let mut random = Random::of(seed, "future fields", number);
        let policies = generate::policy::set(&mut random);
        let namespace = random.pick(&NAMESPACES).0;
        let mut pod = generate::pod::pod(&mut random, "future");
        planted += plant(&mut random, &mut pod);
        let text = pod.to_string();
        let view = Pod::from_json(&text).unwrap();
        let set = policy_set(&policies);
        let patch = plan(&set.matching(namespace, &view).unwrap(), &view).to_patch();
        patched += usize::from(!patch.0.is_empty());
        if let Err(what) = only_adds(pod.clone(), &patch.0) {
            panic!("case {number} of HARDENING_TEST_SEED={seed}: {what}\n{pod:#}\n{policies:#?}");
        }
    }
    tell(&format!(
        "future fields: {planted} in {cases} pods, {patched} of them patched, seed {seed}"
    ));
    assert!(patched > cases / 2, "{patched}");
}

/// Puts the made-up field into half of the pod's objects, annotations and labels apart.
fn plant(random: &mut Random, pod: &mut Value) -> usize {
    let mut planted = 0;
    for place in places(pod) {
        let pointer = format!("/{}", place.join("/"));
        let is_map = [
            "labels",
            "annotations",
            "nodeSelector",
            "limits",
            "requests",
        ]
        .contains(&place.last().unwrap().as_str());
        if let Some(Value::Object(members)) = pod.pointer_mut(&pointer)
            && !is_map
            && random.flip()
        {
            members.insert(
                MADE_UP.to_owned(),
                json!({"list": [1e300, null, ""], "of": {}}),
            );
            planted += 1;
        }
    }
    planted
}

/// What is as good as absent.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether each operation adds something where nothing is, or takes the API server's token out.
fn only_adds(mut pod: Value, operations: &[PatchOperation]) -> Result<(), String> {
    for operation in operations {
        let path = operation.path().as_str().to_owned();
        let there = pod.pointer(&path);
        let harmless = match operation {
            PatchOperation::Add(_) => {
                let is_record = [FILLED, WITHHELD]
                    .iter()
                    .any(|name| path.ends_with(&name.replace('/', "~1")));
                is_record || there.is_none_or(says_nothing)
            }
            PatchOperation::Remove(_) => {
                let name = there.map_or("", |named| named["name"].as_str().unwrap_or_default());
                name.starts_with("kube-api-access-")
            }
            _ => false,
        };
        if !harmless {
            return Err(format!("{operation} where there is {there:?}"));
        }
        json_patch::patch(&mut pod, std::slice::from_ref(operation))
            .map_err(|error| format!("{operation}: {error}"))?;
    }
    Ok(())
}
