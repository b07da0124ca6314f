//! Rules of this repository that the compiler does not know.

use std::collections::BTreeSet;
use std::path::Path;

use crate::layers::before_tests;
use crate::support::{files_below, none_wrong, text};

/// The most lines that a source file of a program has, tests not counted.
const MOST_LINES: usize = 600;

fn sources() -> Vec<String> {
    let mut files = files_below("crates");
    files.extend(files_below("tests"));
    files.retain(|file| file.ends_with(".rs"));
    assert!(files.len() > 50, "{files:?}");
    files
}

fn manifests() -> Vec<String> {
    let mut files = files_below("crates");
    files.extend(files_below("tests"));
    files.retain(|file| file.ends_with("/Cargo.toml"));
    assert!(files.len() > 5, "{files:?}");
    files
}

/// All files that are text.
fn texts() -> impl Iterator<Item = (String, String)> {
    let files = files_below("")
        .into_iter()
        .filter(|file| ![".png", ".gz"].iter().any(|end| file.ends_with(end)));
    files.map(|file| {
        let text = text(&file);
        (file, text)
    })
}

#[test]
fn a_file_is_about_one_thing() {
    let programs = sources().into_iter().filter(|file| file.contains("/src/"));
    let long = programs.filter_map(|file| {
        let lines = before_tests(&text(&file)).lines().count();
        (lines > MOST_LINES)
            .then(|| format!("{file} has {lines} lines before its tests, more than {MOST_LINES}"))
    });
    none_wrong(&long.collect::<Vec<_>>());
}

#[test]
fn a_file_says_what_it_is_and_why() {
    let silent = sources()
        .into_iter()
        .filter(|file| !text(file).starts_with("//!"));
    none_wrong(
        &silent
            .map(|file| format!("{file} does not begin with //!"))
            .collect::<Vec<_>>(),
    );
}

/// A test file that nobody declares is never compiled, and nobody notices.
#[test]
fn every_source_file_is_compiled() {
    let sources = sources();
    let manifests: String = manifests().iter().map(|file| text(file)).collect();
    let orphans = sources.iter().filter(|file| {
        let path = Path::new(file);
        let (stem, folder) = (
            path.file_stem().unwrap().to_str().unwrap(),
            path.parent().unwrap(),
        );
        let is_root = ["lib", "main", "build"].contains(&stem)
            || ["benches", "examples", "tests"]
                .iter()
                .any(|name| folder.ends_with(name))
            || manifests.contains(&format!("/{stem}.rs\""));
        let module = if stem == "mod" {
            folder.file_name().unwrap().to_str().unwrap()
        } else {
            stem
        };
        !is_root && !sources.iter().any(|parent| declares(parent, module))
    });
    none_wrong(
        &orphans
            .map(|file| format!("{file} is no module of any file"))
            .collect::<Vec<_>>(),
    );
}

fn declares(file: &str, module: &str) -> bool {
    text(file).lines().any(|line| {
        let declaration = line.split("//").next().unwrap_or_default().trim_end();
        declaration
            .strip_suffix(&format!("mod {module};"))
            .is_some_and(|before| {
                before.is_empty() || before.ends_with(' ') || before.ends_with(')')
            })
    })
}

#[test]
fn every_crate_obeys_the_lints_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for file in manifests() {
        let manifest = text(&file);
        for line in [
            "[lints]\nworkspace = true",
            "description = \"",
            "license.workspace = true",
        ] {
            if !manifest.contains(line) {
                wrong.push(format!("{file} lacks {line:?}"));
            }
        }
        // Versions stand in one place.
        let own = manifest
            .lines()
            .filter(|line| line.contains("version = \"") || line.contains(" = \"0"));
        wrong.extend(own.map(|line| format!("{file} has a version of its own: {line}")));
    }
    none_wrong(&wrong);
}

#[test]
fn nothing_is_left_unfinished_ignored_or_waited_out() {
    // Put together here, so that this file does not find itself.
    let words = [
        "TO|DO",
        "FIX|ME",
        "to|do!(",
        "un|implemented!(",
        "#[ig|nore",
    ]
    .map(|word| word.replace('|', ""));
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, line) in text(&file).lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                wrong.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    none_wrong(&wrong);
}

#[test]
fn no_machine_and_no_registry_is_named() {
    let hosts = [
        "proxy.golang|.org",
        "crates|.io",
        "pypi|.org",
        "registry.npmjs|.org",
        "deb.debian|.org",
    ];
    let places = ["/ro|ot/", "/wo|rk/", "/ho|me/me", "../sha|red"];
    let words: BTreeSet<String> = hosts
        .iter()
        .chain(&places)
        .map(|word| word.replace('|', ""))
        .collect();
    let generated = ["Cargo.lock", "go.sum", "go.mod", "LICENSE"];
    let mut wrong = Vec::new();
    for (file, text) in texts() {
        if generated.iter().any(|name| file.ends_with(name)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                wrong.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    none_wrong(&wrong);
}
