//! What `explain` says, against what is written on the pod: the annotations and the explanation agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use assert_cmd::Command;
use serde_json::Value;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmd");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn run(folder: &str, arguments: &[&str], stdin: String) -> Value {
    let output = Command::cargo_bin("kubectl-harden")
        .unwrap()
        .current_dir(folder)
        .args(arguments)
        .write_stdin(stdin)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().unwrap()
}

type Record = BTreeMap<String, BTreeSet<String>>;

/// What is written on a pod.
fn record(pod: &Value, name: &str) -> Record {
    let text = pod["metadata"]["annotations"][name].as_str();
    text.map_or_else(Record::new, |text| serde_json::from_str(text).unwrap())
}

/// The same, as an explanation has it: policies or guards, and the paths of fields.
fn explained(pod: &Value, list_name: &str, who: &str) -> Record {
    let mut record = Record::new();
    for field in list(pod, "fields") {
        let place = match (
            field["level"].as_str().unwrap(),
            field["container"].as_str(),
        ) {
            ("Pod", _) => "spec".to_owned(),
            ("Container", Some(name)) => format!("spec.containers[{name}]"),
            ("InitContainer", Some(name)) => format!("spec.initContainers[{name}]"),
            (level, name) => panic!("{level} {name:?}"),
        };
        for said in list(field, list_name) {
            if let Some(name) = said[who].as_str() {
                let path = format!("{place}.{}", field["field"].as_str().unwrap());
                record.entry(name.to_owned()).or_default().insert(path);
            }
        }
    }
    record
}

/// The pods of what `render -o json` prints.
fn pods(rendered: &Value) -> Vec<Value> {
    let objects = match rendered.get("items") {
        Some(items) => items.as_array().unwrap().clone(),
        None => vec![rendered.clone()],
    };
    let pointers = ["/spec/jobTemplate/spec/template", "/spec/template", ""];
    let pod = |object: &Value| {
        let mut found = pointers
            .iter()
            .filter_map(|pointer| object.pointer(pointer));
        found
            .find(|pod| pod.pointer("/spec/containers").is_some())
            .cloned()
    };
    objects.iter().filter_map(pod).collect()
}

#[test]
fn the_annotations_and_the_explanation_agree_before_and_after() {
    let mut filled = 0;
    let mut withheld = 0;
    for (folder, manifests, policies) in [
        (CASES, "web.yaml", "policies.yaml"),
        (CASES, "web.yaml", "contest.yaml"),
        (CASES, "everything.yaml", "settled.yaml"),
        (ROOT, "examples/workloads", "examples/policies"),
        (
            ROOT,
            "examples/workloads",
            "examples/policies/nsa-hardened.yaml",
        ),
    ] {
        let input = ["-f", manifests, "--policies", policies, "-o", "json"];
        let rendered = run(folder, &[&["render"], &input[..]].concat(), String::new());
        let before = run(folder, &[&["explain"], &input[..]].concat(), String::new());
        // Of a pod that comes with its annotations, by policies that have nothing to say.
        let again = ["explain", "-f", "-", "-o", "json", "--policies"];
        let nothing = format!("{CASES}/for-nobody.yaml");
        let after = run(
            folder,
            &[&again[..], &[&nothing]].concat(),
            rendered.to_string(),
        );
        let pods = pods(&rendered);
        assert_eq!(pods.len(), list(&before, "pods").len(), "{manifests}");
        assert_eq!(pods.len(), list(&after, "pods").len(), "{manifests}");
        for (pod, explanations) in pods
            .iter()
            .zip(list(&before, "pods").iter().zip(list(&after, "pods")))
        {
            let (fills, held) = (
                record(pod, "podhardening.dev/filled"),
                record(pod, "podhardening.dev/withheld"),
            );
            filled += fills.values().map(BTreeSet::len).sum::<usize>();
            withheld += held.values().map(BTreeSet::len).sum::<usize>();
            // An object that nothing is filled in for is not changed for the sake of a record.
            if fills.is_empty() {
                continue;
            }
            let named = format!("{manifests} {policies} {}", explanations.0["name"]);
            for explanation in [explanations.0, explanations.1] {
                assert_eq!(explained(explanation, "setBy", "policy"), fills, "{named}");
                let guards = explained(explanation, "withheld", "guard");
                let fields = held.iter().map(|(guard, paths)| {
                    // An item of a list stands behind the list's path.
                    let list = |path: &String| match path.strip_suffix(']') {
                        Some(path) => path.rsplit_once('[').unwrap().0.to_owned(),
                        None => path.clone(),
                    };
                    (guard.clone(), paths.iter().map(list).collect())
                });
                assert_eq!(guards, fields.collect::<Record>(), "{named}");
            }
        }
    }
    assert!(filled > 100 && withheld > 3, "{filled} {withheld}");
}

/// Every name that `-o json` prints is on the page about it.
#[test]
fn the_shape_of_the_json_is_documented() {
    let page = fs::read_to_string(format!("{ROOT}/docs/reference/explain-json.md")).unwrap();
    let mut names = BTreeSet::new();
    for (manifests, policies) in [("web.yaml", "contest.yaml"), ("web.yaml", "policies.yaml")] {
        let input = [
            "explain",
            "-f",
            manifests,
            "--policies",
            policies,
            "-o",
            "json",
        ];
        let explained = run(CASES, &input, String::new());
        for pod in list(&explained, "pods") {
            names.extend(members(pod));
            for field in list(pod, "fields") {
                names.extend(members(field));
                names.insert(field["level"].as_str().unwrap().to_owned());
                for said in ["setBy", "withheld", "audited", "missing", "lost"] {
                    for one in list(field, said) {
                        names.extend(members(one));
                        let words = ["who", "because"]
                            .iter()
                            .filter_map(|name| one[*name].as_str());
                        names.extend(words.map(str::to_owned));
                    }
                }
            }
        }
    }
    for told in ["lost", "notForPod", "guard", "profile", "audited"] {
        assert!(names.contains(told), "the cases do not show {told}");
    }
    let absent: Vec<&String> = names
        .iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(absent.is_empty(), "{absent:?}");
}

fn members(object: &Value) -> impl Iterator<Item = String> {
    object.as_object().unwrap().keys().cloned()
}
