//! The examples: valid, of use to one another, and doing what is written down beside these tests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use hardening_api::policy::Profile;
use hardening_engine::{Fill, Plan, Pod, PolicySet, plan, pod_template};
use hardening_manifests::{Manifest, Object, objects, policy_set, read};
use hardening_psp::{PodSecurityPolicy, convert};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Pod as TypedPod, ServiceAccount},
    node::v1::RuntimeClass,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::support::{expect_file, files_below, none_wrong, program, root, text};

/// What is tried together: the policies that stand beside each other, and each step or alternative.
fn policy_sources() -> Vec<String> {
    let (together, alone): (Vec<String>, Vec<String>) = files_below("examples/policies")
        .into_iter()
        .partition(|file| file.matches('/').count() == 2);
    assert!(together.len() > 1, "{together:?}");
    let folder = ["examples/policies".to_owned()];
    folder.into_iter().chain(together).chain(alone).collect()
}

fn workloads() -> Vec<Manifest> {
    read_examples(&["examples/workloads"])
}

fn read_examples(paths: &[&str]) -> Vec<Manifest> {
    let paths: Vec<_> = paths.iter().map(|path| root().join(path)).collect();
    read(&paths).unwrap()
}

/// The policies of a file or folder, among the examples' namespaces and service accounts.
fn policies(source: &str) -> PolicySet {
    let mut manifests = read_examples(&["examples/namespaces.yaml", source]);
    manifests.extend(workloads());
    let (set, problems) = policy_set(&manifests, "default");
    none_wrong(&problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert!(set.policy_count() > 0, "{source}: no policy");
    set
}

/// The pod of a workload and what the policies do to it; `None` for what makes no pod.
fn planned<T>(
    set: &PolicySet,
    workload: &Object<'_>,
    look: impl FnOnce(&Value, &Plan<'_>) -> T,
) -> Option<T> {
    let pointer = pod_template::pointer(workload.kind)?;
    let template = workload.value.pointer(pointer);
    let template = template.unwrap_or_else(|| panic!("{workload}: no pod template"));
    let json = template.to_string();
    let pod = Pod::from_json(&json).unwrap();
    let namespace = workload
        .namespace()
        .unwrap_or_else(|| panic!("{workload}: no namespace"));
    let matching = set.matching(namespace, &pod).unwrap();
    Some(look(template, &plan(&matching, &pod)))
}

#[test]
fn the_policies_do_to_the_workloads_what_is_expected() {
    let workloads = workloads();
    for source in policy_sources() {
        let set = policies(&source);
        let mut report = format!("{source}, on the workloads of examples/workloads\n");
        let mut untouched = Vec::new();
        for workload in objects(&workloads) {
            match planned(&set, &workload, |_, plan| describe(plan)).as_deref() {
                None => {}
                Some("") => untouched.push(workload.to_string()),
                Some(plan) => write!(report, "\n{workload}\n{plan}").unwrap(),
            }
        }
        assert_ne!(report.lines().count(), 1, "{source} touches no example");
        if !untouched.is_empty() {
            writeln!(report, "\nuntouched: {}", untouched.join(", ")).unwrap();
        }
        let name = source
            .trim_start_matches("examples/")
            .trim_end_matches(".yaml")
            .replace('/', "-");
        expect_file(&format!("tests/fast/expect/examples/{name}.txt"), &report);
    }
}

/// With the command that people test their own policies with.
#[test]
fn the_examples_own_tests_pass_and_each_of_them_can_fail() {
    let run = |folder: &Path| {
        let output = Command::new(program("kubectl-harden"))
            .args(["test", folder.to_str().unwrap()])
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout) + &text(output.stderr), output.status)
    };
    let (said, status) = run(&root().join("examples/tests"));
    assert!(status.success(), "{said}");
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(passed > 3, "{said}");

    // Beside a folder of policies that do nothing, every case fails but those that expect just that.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples-tests");
    fs::create_dir_all(copy.join("tests")).unwrap();
    for file in files_below("examples/tests") {
        let name = Path::new(&file).file_name().unwrap();
        let test = text(&file).replace(
            "../workloads",
            root().join("examples/workloads").to_str().unwrap(),
        );
        let lines: Vec<&str> = test
            .lines()
            .map(|line| match line.starts_with("policies: ") {
                true => "policies: [../nothing.yaml]",
                false => line,
            })
            .collect();
        fs::write(copy.join("tests").join(name), lines.join("\n")).unwrap();
    }
    let nothing = "apiVersion: podhardening.dev/v1alpha1\nkind: ClusterPodHardeningPolicy\n\
        metadata: {name: nothing}\nspec: {serviceAccountNames: [nobody], pod: {hostUsers: false}}\n";
    fs::write(copy.join("nothing.yaml"), nothing).unwrap();
    let (said, status) = run(&copy.join("tests"));
    assert_eq!(status.code(), Some(1), "{said}");
    let expected = [
        "in mode Audit nothing is filled in",
        "an author who knew better keeps the user of one container",
    ];
    let held = said.lines().filter(|line| line.starts_with("ok "));
    let held: Vec<&str> = held.map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(held, expected, "{said}");
}

fn describe(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    for (sign, fills) in [("+", &plan.fills), ("?", &plan.audited)] {
        for fill in fills {
            writeln!(
                text,
                "  {sign} {}: {}  ({})",
                fill.path(),
                fill.value_json(),
                source(fill)
            )
            .unwrap();
        }
    }
    for held in &plan.withheld {
        writeln!(
            text,
            "  - {}: {}  ({}, {})",
            held.path(),
            held.reason(),
            held.policy,
            held.guard.name()
        )
        .unwrap();
    }
    if let Some(warning) = plan.warning() {
        writeln!(text, "  ! {warning}").unwrap();
    }
    text
}

fn source(fill: &Fill<'_>) -> String {
    match fill.profile {
        None => fill.policy.to_string(),
        Some(Profile::Restricted) => format!("{}, Restricted", fill.policy),
        Some(Profile::Hardened) => format!("{}, Hardened", fill.policy),
    }
}

#[test]
fn applying_twice_changes_nothing_and_nothing_that_an_author_wrote_is_touched() {
    let workloads = workloads();
    for source in policy_sources() {
        let set = policies(&source);
        for workload in objects(&workloads) {
            let patched = planned(&set, &workload, |template, plan| {
                let mut patched = template.clone();
                json_patch::patch(&mut patched, &plan.to_patch()).unwrap();
                assert!(
                    contains(&patched, template),
                    "{source} on {workload}: {patched}"
                );
                patched
            });
            let Some(json) = patched.map(|pod| pod.to_string()) else {
                continue;
            };
            let pod = Pod::from_json(&json).unwrap();
            let matching = set.matching(workload.namespace().unwrap(), &pod).unwrap();
            assert!(
                plan(&matching, &pod).is_empty(),
                "{source} on {workload}, a second time"
            );
        }
    }
}

/// Whether all of `part` stands in `whole`; lists may have grown at their end.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() >= part.len()
                && part
                    .iter()
                    .zip(whole)
                    .all(|(part, whole)| contains(whole, part))
        }
        (whole, part) => whole == part,
    }
}

#[test]
fn every_object_is_spelled_as_its_kind_has_it() {
    let mut wrong = Vec::new();
    let files = files_below("examples")
        .into_iter()
        .filter(|file| file.ends_with(".yaml"));
    for file in files {
        let manifests = read_examples(&[&file]);
        assert!(!manifests.is_empty(), "{file} is empty");
        for object in objects(&manifests) {
            let again = match (object.api_version, object.kind) {
                ("v1", "Namespace") => again::<Namespace>(&object),
                ("v1", "ServiceAccount") => again::<ServiceAccount>(&object),
                ("v1", "Pod") => again::<TypedPod>(&object),
                ("apps/v1", "Deployment") => again::<Deployment>(&object),
                ("apps/v1", "StatefulSet") => again::<StatefulSet>(&object),
                ("apps/v1", "DaemonSet") => again::<DaemonSet>(&object),
                ("batch/v1", "CronJob") => again::<CronJob>(&object),
                ("batch/v1", "Job") => again::<Job>(&object),
                ("node.k8s.io/v1", "RuntimeClass") => again::<RuntimeClass>(&object),
                ("rbac.authorization.k8s.io/v1", "Role") => again::<Role>(&object),
                ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<RoleBinding>(&object),
                ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<ClusterRole>(&object),
                ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
                    again::<ClusterRoleBinding>(&object)
                }
                (version, kind) if PodSecurityPolicy::is_kind(version, kind) => {
                    convert(object.value).unwrap_or_else(|error| panic!("{object}: {error}"));
                    none_wrong(&PodSecurityPolicy::unknown_fields(object.value));
                    object.value.clone()
                }
                // `policies` looks at these more closely.
                (hardening_api::API_VERSION, _) => object.value.clone(),
                (api_version, kind) => {
                    panic!("{file}: {api_version} {kind} is not known to this test")
                }
            };
            if !contains(&again, object.value) {
                wrong.push(format!(
                    "{file}: {object}: read and written again it is {again}"
                ));
            }
        }
    }
    none_wrong(&wrong);
}

/// What the type makes of an object: a field that it does not know is gone.
fn again<T: Serialize + DeserializeOwned>(object: &Object<'_>) -> Value {
    let typed: T = serde_json::from_value(object.value.clone())
        .unwrap_or_else(|error| panic!("{object}: {error}"));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn every_namespace_of_the_examples_is_among_them() {
    let mut used = workloads();
    for source in policy_sources() {
        used.extend(read_examples(&[&source]));
    }
    check_namespaces("examples/namespaces.yaml", &used);
    let used = read_examples(&["examples/psp", "examples/psp/workloads"]);
    check_namespaces("examples/psp/namespaces.yaml", &used);
}

fn check_namespaces(given: &str, used: &[Manifest]) {
    let given = read_examples(&[given]);
    let given: BTreeSet<&str> = objects(&given)
        .filter_map(|namespace| namespace.name())
        .collect();
    let used: BTreeSet<&str> = objects(used)
        .filter_map(|object| object.namespace())
        .collect();
    assert_eq!(given, used);
}

#[test]
fn every_localhost_profile_is_among_the_seccomp_profiles() {
    let mut named = BTreeSet::new();
    for source in policy_sources() {
        for manifest in read_examples(&[&source]) {
            let profile = manifest
                .value
                .pointer("/spec/pod/securityContext/seccompProfile/localhostProfile");
            named.extend(profile.and_then(Value::as_str).map(str::to_owned));
        }
    }
    let files = files_below("examples/seccomp-profiles");
    let there: BTreeSet<String> = files
        .iter()
        .map(|file| file.replace("examples/seccomp-profiles", "pod-hardening"))
        .collect();
    assert_eq!(named, there);

    for file in &files {
        let profile: Value = serde_json::from_str(&text(file)).unwrap();
        let actions = ["SCMP_ACT_LOG", "SCMP_ACT_ERRNO"];
        assert!(
            actions
                .iter()
                .any(|action| profile["defaultAction"] == *action),
            "{file}"
        );
        for group in profile["syscalls"].as_array().into_iter().flatten() {
            let names: Vec<&str> = group["names"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            assert!(
                names.is_sorted_by(|a, b| a < b),
                "{file}: system calls out of order, or given twice"
            );
        }
    }
}

#[test]
fn the_readme_of_the_examples_names_every_one() {
    let readme = text("examples/README.md");
    let missing: Vec<String> = files_below("examples")
        .into_iter()
        .filter(|file| !file.ends_with("README.md"))
        .filter(|file| {
            let path = file.trim_start_matches("examples/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            !readme.contains(&format!("]({path})")) && !readme.contains(&format!("]({folder})"))
        })
        .collect();
    none_wrong(&missing);
}
