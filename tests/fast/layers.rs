//! Which crate may depend on what. Arrows point down, crates of one layer do not know each other, and what
//! is pure stays pure: ARCHITECTURE.md says why.

use std::{collections::BTreeSet, env, process::Command};

use serde_json::Value;

use crate::support::{files_below, none_wrong, root, text};

/// Every crate, by layer: one may use those of the layers before its own.
const LAYERS: &[&[&str]] = &[
    &[
        "container-image",
        "hardening-api",
        "memory-functions",
        "pod-security-standards",
        "policy-report",
    ],
    &["hardening-engine", "hardening-psp", "test-control-plane"],
    &["hardening-compile"],
    &[
        "hardening-index",
        "hardening-manifests",
        "hardening-status",
        "hardening-webhook",
    ],
    &["hardening-controller", "kubectl-harden"],
    &[
        "hardening-bench",
        "hardening-demo",
        "hardening-image",
        "hardening-tests",
    ],
];

/// Crates without a runtime, I/O, a clock or a log, down to the last dependency.
const PURE: &[&str] = &[
    "hardening-api",
    "hardening-compile",
    "hardening-engine",
    "hardening-psp",
    "pod-security-standards",
    "policy-report",
];

/// What a pure crate may not reach.
const IMPURE: &[&str] = &[
    "hyper",
    "kube-client",
    "kube-runtime",
    "mio",
    "reqwest",
    "rustls",
    "tokio",
    "tracing",
];

/// What a pure crate's own code may not name: `std` modules, and items of `std::time`.
const IMPURE_STD: &[&str] = &[
    "env",
    "fs",
    "net",
    "os",
    "process",
    "stderr",
    "stdin",
    "stdout",
    "thread",
    "Instant",
    "SystemTime",
];

/// A crate, and what it may not reach because that is the point of its being a crate of its own.
const NEVER: &[(&str, &[&str])] = &[
    // Answering a review makes no call to the API server: there is nothing to make it with.
    ("hardening-webhook", &["kube-client", "kube-runtime"]),
    // Files are read the same way with and without a cluster.
    (
        "hardening-manifests",
        &["kube-client", "kube-runtime", "tokio"],
    ),
    // A control plane for tests knows nothing of what it tests.
    ("test-control-plane", &["hardening-api", "hardening-engine"]),
    // What judges pods as Kubernetes does is of use without anything of ours.
    ("pod-security-standards", &["hardening-api", "k8s-openapi"]),
];

fn cargo(arguments: &[&str]) -> String {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The names of the packages that a crate reaches, itself included.
fn reached(package: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "--package",
        package,
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
    ]);
    tree.lines()
        .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
        .collect()
}

#[test]
fn arrows_point_down() {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version=1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let layer = |package: &str| LAYERS.iter().position(|layer| layer.contains(&package));
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some(own) = layer(name) else {
            wrong.push(format!(
                "{name} has no layer: give it one in tests/fast/layers.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let is_normal = dependency["kind"].is_null();
            if is_normal && layer(other).is_some_and(|other| other >= own) {
                wrong.push(format!("{name} depends on {other}, which is not below it"));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn what_a_crate_is_kept_away_from_is_not_among_its_dependencies() {
    let pure = PURE.iter().map(|package| (*package, IMPURE));
    let mut wrong = Vec::new();
    for (package, never) in pure.chain(NEVER.iter().copied()) {
        let reached = reached(package);
        assert!(
            reached.contains(package),
            "cargo tree said nothing about {package}"
        );
        wrong.extend(
            never
                .iter()
                .filter(|name| reached.contains(**name))
                .map(|name| format!("{package} reaches {name}")),
        );
    }
    none_wrong(&wrong);
}

#[test]
fn pure_code_does_no_io_and_reads_no_clock() {
    let mut wrong = Vec::new();
    for package in PURE {
        let files = files_below(&format!("crates/{package}/src"));
        assert!(!files.is_empty(), "{package} has no sources");
        for file in files {
            let found = impurities(&text(&file));
            wrong.extend(
                found
                    .into_iter()
                    .map(|name| format!("{file} names std's {name}")),
            );
        }
    }
    none_wrong(&wrong);
}

/// The impure parts of `std` that a source names, before its tests.
fn impurities(source: &str) -> Vec<&'static str> {
    let code: String = before_tests(source)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut named = BTreeSet::new();
    // `std::fs::read`, and every name in the braces of `use std::{fs, time::Instant}`.
    for (at, _) in code.match_indices("std::") {
        let path: String = code[at..]
            .chars()
            .take_while(|c| !";()<>=".contains(*c))
            .collect();
        named.extend(
            path.split(|c: char| !c.is_alphanumeric() && c != '_')
                .map(str::to_owned),
        );
    }
    IMPURE_STD
        .iter()
        .copied()
        .filter(|name| named.contains(*name))
        .collect()
}

/// The code of a source file without the tests at its end.
pub(crate) fn before_tests(source: &str) -> &str {
    source
        .split_once("\n#[cfg(test)]\nmod tests {")
        .map_or(source, |(code, _)| code)
}

#[test]
fn impurities_are_found() {
    let cases: &[(&str, &[&str])] = &[
        ("use std::fs;", &["fs"]),
        (
            "use std::{collections::BTreeMap, io::{Write, stdout}};",
            &["stdout"],
        ),
        (
            "use std::{\n    fmt,\n    time::{Duration, Instant},\n};",
            &["Instant"],
        ),
        ("let home = std::env::var(\"HOME\");", &["env"]),
        ("use std::{fmt, sync::LazyLock};", &[]),
        ("let fs = 1;", &[]),
        ("// as std::fs does", &[]),
        (
            "use std::fmt;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}",
            &[],
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(impurities(source), *expected, "{source}");
    }
}
