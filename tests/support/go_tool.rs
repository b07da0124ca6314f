//! Programs of others that ours are tested with, built from Go modules of this repository that pin them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a package of a module, a folder of the repository, as a program of that name: a few minutes the
/// first time, a second or two once Go has it in its cache. `flags` are for `go build`.
pub(crate) fn go_tool(module: &str, name: &str, package: &str, flags: &[&str]) -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let output = Command::new("go")
        .args(["build", "-ldflags", "-s -w"])
        .args(flags)
        .arg("-o")
        .args([built.as_os_str(), package.as_ref()])
        .env("CGO_ENABLED", "0")
        .current_dir(root.join(module))
        .output()
        .unwrap_or_else(|error| panic!("{name} is built with Go 1.26 or newer: run go: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "go build {package}:\n{said}");
    built
}
