//! The versions of Kubernetes that are supported: what is built, what is tested and what the pages say agree.

use test_control_plane::NEWEST_KUBERNETES;

use crate::support::{files_below, none_wrong, text};

const MODULES: &str = "tests/control-plane";
const PAGE: &str = "docs/operations.md";

#[test]
fn modules_tests_and_pages_speak_of_the_same_versions() {
    let mut minors: Vec<(u32, String)> = Vec::new();
    for file in files_below(MODULES) {
        let Some(folder) = file.strip_suffix("/go.mod") else {
            continue;
        };
        let minor = folder.rsplit('/').next().unwrap().to_owned();
        let number = minor.strip_prefix("1.").unwrap().parse().unwrap();
        minors.push((number, minor));
    }
    minors.sort();
    let (oldest, newest) = (&minors[0], &minors[minors.len() - 1]);
    assert_eq!(newest.1, NEWEST_KUBERNETES);

    let mut wrong = Vec::new();
    let page = text(PAGE);
    let range = format!("It is made for Kubernetes {} to {}.", oldest.1, newest.1);
    if !page.contains(&range) {
        wrong.push(format!("{PAGE} does not say: {range}"));
    }
    for (number, expected) in minors.iter().zip(oldest.0..) {
        let (number, minor) = number;
        if *number != expected {
            wrong.push(format!("{MODULES} has no 1.{expected}"));
        }
        let module = text(&format!("{MODULES}/{minor}/go.mod"));
        let Some(version) = version_of(&module, "k8s.io/kubernetes") else {
            wrong.push(format!("{MODULES}/{minor}/go.mod has no k8s.io/kubernetes"));
            continue;
        };
        if !version.starts_with(&format!("{minor}.")) {
            wrong.push(format!("{MODULES}/{minor}/go.mod is of {version}"));
        }
        // The API is in a module of its own, whose version is another number of the same release.
        let api = version_of(&module, "k8s.io/api =>")
            .map(|api| format!("1{}", api.trim_start_matches('0')));
        if api.as_deref() != Some(version) {
            wrong.push(format!(
                "{MODULES}/{minor}/go.mod has {version} with the API of {api:?}"
            ));
        }
        if !page.contains(&format!("\n| {version} |")) {
            wrong.push(format!("{PAGE} does not say what came of {version}"));
        }
    }
    none_wrong(&wrong);
}

/// The version at the end of the line of a module, without its `v`.
fn version_of<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    let line = go_mod.lines().find(|line| {
        let line = line.trim_start();
        line.strip_prefix(module)
            .is_some_and(|rest| rest.starts_with(' ') && !rest.starts_with(" =>"))
    })?;
    let line = line.split(" //").next()?;
    line.rsplit(' ').next()?.strip_prefix('v')
}
