//! `kubectl harden convert`: what is wrong with its input, and what it writes into files.

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

fn psp(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: policy/v1beta1
kind: PodSecurityPolicy
metadata: {{name: {name}}}
spec:
  seLinux: {{rule: RunAsAny}}
  fsGroup: {{rule: RunAsAny}}
  supplementalGroups: {{rule: RunAsAny}}
  {spec}
"
    )
}

fn good(name: &str) -> String {
    psp(
        name,
        "runAsUser: {rule: MustRunAs, ranges: [{min: 1, max: 9}]}",
    )
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn convert(folder: &Path, options: &[&str]) -> Output {
    Command::cargo_bin("kubectl-harden")
        .unwrap()
        .current_dir(folder)
        .arg("convert")
        .args(options)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The lines on standard error that begin so.
fn lines(output: &Output, sign: &str) -> Vec<String> {
    let stderr = text(&output.stderr);
    let lines = stderr.lines().filter_map(|line| line.strip_prefix(sign));
    lines.map(str::to_owned).collect()
}

/// The objects on standard output, as kind and name.
fn objects(output: &Output) -> Vec<String> {
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            let part = |pointer: &str| item.pointer(pointer).unwrap().as_str().unwrap().to_owned();
            format!("{} {}", part("/kind"), part("/metadata/name"))
        })
        .collect()
}

#[test]
fn each_thing_that_is_wrong_is_named_and_the_rest_is_converted() {
    let documents = [
        good("first"),
        psp("unknown-rule", "runAsUser: {rule: MustRunAsRoot}"),
        psp(
            "inverted",
            "runAsUser: {rule: MustRunAs, ranges: [{min: 9, max: 1}]}",
        ),
        good("wrong-version").replace("v1beta1", "v1"),
        "kind: PodSecurityPolicy\nmetadata: [\n".to_owned(),
        good("first"),
        good("typed").replace("{min: 1,", "{min: one,"),
        "metadata: {name: nothing}\n".to_owned(),
        good("Upper"),
        "- a\n".to_owned(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ../up}\n".to_owned(),
        good("last"),
    ];
    let folder = folder(&[
        ("a.yaml", &documents.join("---\n")),
        ("b.yaml", &good("other")),
        ("c.json", "{\"kind\": \"List\", \"items\": ["),
    ]);
    fs::create_dir(folder.path().join("empty")).unwrap();
    let output = convert(folder.path(), &["-f", ".", "empty", "-o", "json"]);
    let mut expected = vec![
        "./a.yaml, document 5: not valid YAML: ",
        "./c.json: not valid JSON: ",
        "empty: the folder has no file that ends in .json, .yaml or .yml",
        "./a.yaml, document 8: object without a kind nothing: kind: is required",
        "./a.yaml, document 10: object without a kind: kind: is required",
        "./a.yaml, document 11: Namespace ../up: metadata: \"../up\" is no name of a Kubernetes object",
        "./a.yaml, document 2: PodSecurityPolicy unknown-rule: spec.runAsUser.rule: ",
        "./a.yaml, document 3: PodSecurityPolicy inverted: spec.runAsUser.ranges[0]: min 9 is greater than max 1",
        "./a.yaml, document 4: PodSecurityPolicy wrong-version: not a PodSecurityPolicy of policy/v1beta1 or extensions/v1beta1, but a PodSecurityPolicy of policy/v1",
        "./a.yaml, document 6: PodSecurityPolicy first: is given twice, first in ./a.yaml, document 1",
        "./a.yaml, document 7: PodSecurityPolicy typed: spec.runAsUser.ranges[0].min: not what a PodSecurityPolicy has there",
        "./a.yaml, document 9: PodSecurityPolicy Upper: metadata.name: Upper is no name of an object",
    ];
    let found = lines(&output, "error: ");
    expected.retain(|start| !found.iter().any(|line| line.starts_with(start)));
    assert_eq!(expected, [""; 0], "{found:#?}");
    assert_eq!(found.len(), 12, "{found:#?}");
    let named = "first-or-last-or-other";
    let admission = [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(
        objects(&output),
        [
            "ClusterPodHardeningPolicy psp-first".to_owned(),
            format!("{} psp-{named}", admission[0]),
            format!("{} psp-{named}", admission[1]),
            format!("{} psp-{named}-kube-system", admission[1]),
        ]
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_dump_of_everything_is_passed_over_in_silence_and_loose_manifests_are_not() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"containers": [{"name": "c", "image": "x".repeat(900)}]}});
    let psps = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicyList", "items": [
        {"metadata": {"name": "typed"}, "spec": {"runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}}]});
    let mut items = vec![pod.clone(); 10_000];
    items.push(psps);
    let dump = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    assert!(dump.len() > 10_000_000);
    let folder = folder(&[("dump.json", &dump), ("pod.json", &pod.to_string())]);
    let alone = convert(folder.path(), &["-f", "dump.json", "-o", "json"]);
    assert_eq!(
        objects(&alone),
        [
            "ValidatingAdmissionPolicy psp-typed",
            "ValidatingAdmissionPolicyBinding psp-typed"
        ]
    );
    let passed_over = |output: &Output| {
        let notes = lines(output, "note: ").into_iter();
        notes
            .filter(|note| note.contains("passed over"))
            .collect::<Vec<_>>()
    };
    assert_eq!(passed_over(&alone), [""; 0]);
    let both = convert(folder.path(), &["-f", "dump.json", "pod.json"]);
    assert_eq!(
        passed_over(&both),
        ["pod.json: passed over, as not needed here: 1 Pod"]
    );
    assert_eq!(
        (alone.status.code(), both.status.code()),
        (Some(0), Some(0))
    );
}

#[test]
fn a_folder_gets_a_file_for_each_object_and_loses_those_of_earlier_runs_only() {
    let folder = folder(&[("a.yaml", &good("a")), ("b.yaml", &good("b.c"))]);
    let out = folder.path().join("out");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    let files = || {
        let entries = fs::read_dir(&out).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let written = |psp: &str| {
        [
            format!("clusterpodhardeningpolicy_psp-{psp}.yaml"),
            "kustomization.yaml".to_owned(),
            format!("validatingadmissionpolicy_psp-{psp}.yaml"),
            format!("validatingadmissionpolicybinding_psp-{psp}-kube-system.yaml"),
            format!("validatingadmissionpolicybinding_psp-{psp}.yaml"),
        ]
    };
    let run = |file: &str, more: &[&str]| {
        let output = convert(
            folder.path(),
            &[&["-f", file, "--out-dir", "out"], more].concat(),
        );
        assert_eq!(text(&output.stdout), "");
        (lines(&output, "error: "), output.status.code())
    };
    assert_eq!(run("a.yaml", &[]), (Vec::new(), Some(0)));
    assert_eq!(files(), written("a"));
    assert_eq!(
        read("kustomization.yaml"),
        "# Written by kubectl harden convert.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- clusterpodhardeningpolicy_psp-a.yaml\n- validatingadmissionpolicy_psp-a.yaml\n- validatingadmissionpolicybinding_psp-a.yaml\n- validatingadmissionpolicybinding_psp-a-kube-system.yaml\n"
    );

    fs::write(out.join("mine.yaml"), "a: 1\n").unwrap();
    assert_eq!(run("b.yaml", &[]), (Vec::new(), Some(0)));
    let mut expected = written("b.c").to_vec();
    expected.insert(2, "mine.yaml".to_owned());
    assert_eq!(files(), expected);

    let other = &written("a")[0];
    fs::write(out.join(other), "a: 1\n").unwrap();
    let error = format!(
        "out/{other}: is there already, and not written by this command; give --force to replace it"
    );
    let before = read("kustomization.yaml");
    assert_eq!(run("a.yaml", &[]), (vec![error], Some(1)));
    assert_eq!(read("kustomization.yaml"), before);
    assert_eq!(run("a.yaml", &["--force"]), (Vec::new(), Some(0)));
    assert!(read(other).contains("kind: ClusterPodHardeningPolicy"));
    assert_eq!(read("mine.yaml"), "a: 1\n");
}

#[test]
fn the_same_input_gives_the_same_bytes_in_whatever_order() {
    let folder = folder(&[("a.yaml", &good("a")), ("b.yaml", &good("b"))]);
    let stdout = |files: &[&str]| text(&convert(folder.path(), files).stdout);
    let first = stdout(&["-f", "a.yaml", "b.yaml"]);
    assert_eq!(stdout(&["-f", "b.yaml", "a.yaml"]), first);
    assert!(
        first.starts_with(
            "apiVersion: podhardening.dev/v1alpha1\nkind: ClusterPodHardeningPolicy\n"
        )
    );
}

#[test]
fn a_report_goes_where_it_is_wanted() {
    let folder = folder(&[("a.yaml", &good("a"))]);
    let options = [
        "-f",
        "a.yaml",
        "--report",
        "json",
        "--report-file",
        "notes.json",
    ];
    let output = convert(folder.path(), &options);
    assert_eq!(lines(&output, "note: "), [""; 0]);
    let report = fs::read(folder.path().join("notes.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["converted"], json!(["a"]));
    assert_eq!(report["refused"], json!([]));
    let notes = report["notes"].as_array().unwrap();
    for note in notes {
        assert_eq!(note["podSecurityPolicy"], "a");
        for part in ["field", "why", "advice"] {
            assert_ne!(note[part].as_str().unwrap(), "");
        }
    }
    assert!(!notes.is_empty());

    let nowhere = ["-f", "a.yaml", "--report-file", "absent/notes"];
    let output = convert(folder.path(), &nowhere);
    assert_eq!(lines(&output, "error: ").len(), 1);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(1))
    );
}
