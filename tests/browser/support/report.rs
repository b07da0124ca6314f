//! Reports to look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::files::root;
use super::program::program;

/// Runs `kubectl harden audit` from the repository's root, as of always the same second, and returns the report
/// that it wrote: even where it fails, as not all could be read.
fn audit(name: &str, arguments: &[&str]) -> PathBuf {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.html"));
    fs::remove_file(&report).ok();
    let output = Command::new(program("kubectl-harden"))
        .args(["audit", "--report"])
        .arg(&report)
        .args(arguments)
        .env("KUBECONFIG", "/dev/null")
        .env("SOURCE_DATE_EPOCH", "1790000000")
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(report.exists(), "{said}");
    report
}

/// Of the examples, by the README's own command.
pub(crate) fn of_examples(name: &str) -> PathBuf {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut lines = readme.lines();
    let command = lines.find_map(|line| {
        let arguments = line.strip_prefix("kubectl harden audit ")?;
        arguments.strip_suffix(" --report report.html")
    });
    let command = command.expect("README.md shows how to make a report");
    audit(name, &command.split(' ').collect::<Vec<_>>())
}

/// Of these objects, held against the examples' policies.
pub(crate) fn of_objects(name: &str, objects: &[Value]) -> PathBuf {
    let dump = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fs::write(&dump, list.to_string()).unwrap();
    let file = dump.to_str().unwrap();
    audit(name, &["-f", file, "--policies", "examples/policies"])
}
