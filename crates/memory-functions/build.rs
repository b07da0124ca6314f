//! Takes the memory functions out of LLVM's libc, and puts them before musl's.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where LLVM's libc, `libllvmlibc.a`, is; absent: where Debian has it.
const VARIABLE: &str = "LLVM_LIBC";
/// The version that Debian has, whose package is `libllvmlibc-19-dev`.
const OF_DEBIAN: &str = "/usr/lib/llvm-19/lib/libllvmlibc.a";
/// A file of the library for each function. No other: with what musl has otherwise, musl has to do.
const MEMBERS: [&str; 5] = [
    "memcpy.cpp.o",
    "memmove.cpp.o",
    "memset.cpp.o",
    "memcmp.cpp.o",
    "bcmp.cpp.o",
];
const NAME: &str = "memory-functions";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (architecture, libc) = (
        variable("CARGO_CFG_TARGET_ARCH"),
        variable("CARGO_CFG_TARGET_ENV"),
    );
    if (architecture.as_str(), libc.as_str()) != ("x86_64", "musl") {
        return;
    }
    if let Err(wrong) = link(variable("HOST").starts_with("x86_64")) {
        println!("cargo::error={wrong}");
    }
}

/// Has the functions linked; the error says what is missing, in a line.
fn link(is_native: bool) -> Result<(), String> {
    let library = match env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None if is_native => PathBuf::from(OF_DEBIAN),
        None => {
            return Err(format!(
                "set {VARIABLE} to LLVM's libllvmlibc.a for x86_64: this machine's is for another architecture"
            ));
        }
    };
    let shown = library.display();
    if !library.exists() {
        return Err(format!(
            "{shown} is not found: on Debian, apt-get install libllvmlibc-19-dev; elsewhere, set {VARIABLE} to LLVM's \
             libllvmlibc.a for x86_64"
        ));
    }
    println!("cargo::rerun-if-changed={shown}");
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    take(&library, &folder)
        .map_err(|error| format!("take the memory functions out of {shown}: {error}"))?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    // All of it, and before the libc: or a function that was asked for already would be musl's.
    println!("cargo::rustc-link-lib=static:+whole-archive,-bundle={NAME}");
    Ok(())
}

/// Makes a library of the members alone, the same bytes each time.
fn take(library: &Path, folder: &Path) -> io::Result<()> {
    let archive = format!("lib{NAME}.a");
    ar(folder, &["x", &library.to_string_lossy()])?;
    ar(folder, &["crDs", &archive])
}

fn ar(folder: &Path, to_do: &[&str]) -> io::Result<()> {
    let output = Command::new("ar")
        .args(to_do)
        .args(MEMBERS)
        .current_dir(folder)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().to_owned()))
}
