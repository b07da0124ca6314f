//! The program for an architecture, from the sources, by `cargo auditable`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use container_image::Architecture;

/// An architecture as compilers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// As Rust calls it. With musl, which is linked statically.
    pub(crate) triple: &'static str,
    /// What compiles the C in it, and on another architecture also links.
    compiler: &'static str,
    is_foreign: bool,
}

// === impl Target ===

impl Target {
    pub(crate) fn of(architecture: Architecture) -> Self {
        let is_foreign = Architecture::of_this_machine() != Some(architecture);
        let (triple, cross) = match architecture {
            Architecture::Amd64 => ("x86_64-unknown-linux-musl", "x86_64-linux-gnu-gcc"),
            Architecture::Arm64 => ("aarch64-unknown-linux-musl", "aarch64-linux-gnu-gcc"),
        };
        Self {
            triple,
            // Debian has musl's headers for the machine's own architecture only. For another one the C is compiled
            // with glibc's: all that it asks of the system library is declared alike in both, or would not link.
            compiler: if is_foreign { cross } else { "musl-gcc" },
            is_foreign,
        }
    }

    /// The variables by which cargo and the build scripts of C libraries are told.
    fn variables(self, root: &Path, build: &Path) -> anyhow::Result<Vec<(String, OsString)>> {
        let cargo = home("CARGO_HOME", ".cargo")?;
        let rustup = home("RUSTUP_HOME", ".rustup")?;
        // The longest last, as the last that fits is taken.
        let maps = [
            (cargo.as_path(), "/cargo"),
            (&rustup, "/rustup"),
            (root, "/source"),
            (build, "/build"),
        ];
        let rust = maps.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        let c = maps.map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
        let underscored = self.triple.replace('-', "_");
        let mut variables = vec![
            // As the flags are separated by a character that no path has.
            (
                "CARGO_ENCODED_RUSTFLAGS".to_owned(),
                rust.join("\x1f").into(),
            ),
            (format!("CFLAGS_{underscored}"), c.join(" ").into()),
            (format!("CC_{underscored}"), self.compiler.into()),
        ];
        if self.triple.starts_with("aarch64") {
            // jemalloc does not start where the kernel's pages are larger than it was told: on arm64 they may be of 64 KiB.
            variables.push(("JEMALLOC_SYS_WITH_LG_PAGE".to_owned(), "16".into()));
        }
        if self.is_foreign {
            let name = format!("CARGO_TARGET_{}_LINKER", underscored.to_uppercase());
            variables.push((name, self.compiler.into()));
        }
        Ok(variables)
    }
}

/// Builds the program, in a folder that keeps what was built before. Says what is missing where tools are.
pub(crate) fn program(root: &Path, target: Target, build: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        runs(target.compiler),
        "{} is not found: on Debian, apt-get install {}",
        target.compiler,
        if target.is_foreign {
            format!("gcc-{}", target.compiler.trim_end_matches("-gcc"))
        } else {
            "musl-tools".to_owned()
        }
    );
    let status = Command::new("cargo")
        .args(["auditable", "build", "--release", "--locked"])
        .args(["--package", "hardening-controller"])
        .args(["--target", target.triple])
        .arg("--target-dir")
        .arg(build)
        .envs(target.variables(root, build)?)
        .env_remove("RUSTFLAGS")
        .current_dir(root)
        .status()
        .context("run cargo auditable")?;
    if !status.success() {
        bail!("cargo auditable for {}: {status}", target.triple);
    }
    Ok(build
        .join(target.triple)
        .join("release/hardening-controller"))
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Where cargo or rustup keep their files.
fn home(variable: &str, folder: &str) -> anyhow::Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(folder)))
        .with_context(|| format!("find {folder}: neither {variable} nor HOME is set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_of_this_machine_is_left_unmapped() {
        let target = Target::of(Architecture::Arm64);
        let root = Path::new("/somewhere/source");
        let variables = target.variables(root, &root.join("target/image")).unwrap();
        let flags = |name: &str| {
            let (_, value) = variables.iter().find(|(key, _)| key == name).unwrap();
            value.to_str().unwrap().to_owned()
        };
        let rust = flags("CARGO_ENCODED_RUSTFLAGS");
        let c = flags("CFLAGS_aarch64_unknown_linux_musl");
        for (flags, option) in [(rust, "--remap-path-prefix"), (c, "-ffile-prefix-map")] {
            // The build folder is in the sources' here, and goes before it.
            let source = flags.find(&format!("{option}=/somewhere/source=/source"));
            let build = flags.find(&format!("{option}=/somewhere/source/target/image=/build"));
            assert!(source.unwrap() < build.unwrap(), "{flags}");
            assert!(flags.contains("=/cargo"), "{flags}");
        }
    }
}
