//! A program for an architecture, from the sources, by `cargo auditable`.
//!
//! It is compiled by a profile: how often each of its functions and branches was taken while the benches had it do all that
//! they measure. What is often taken then lies together and is made fast, what is never taken lies elsewhere and is made
//! small. `make profile` makes profiles; the last ones are in `hack/pgo`, so that a build needs to run nothing and gives the
//! same bytes each time.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use container_image::Architecture;
use flate2::read::GzDecoder;

use crate::materials::sha256;

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be released: by the profile of its architecture, where there is one.
    Release,
    /// To make a profile: it counts what it does, and writes that where `LLVM_PROFILE_FILE` says when it ends.
    Counting,
}

/// An architecture as compilers know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// As Rust calls it. With musl, which is linked statically.
    pub(crate) triple: &'static str,
    /// What compiles the C in it, and on another architecture also links.
    compiler: &'static str,
    is_foreign: bool,
}

/// The folder with profiles.
const PROFILES: &str = "hack/pgo";

// === impl Purpose ===

impl Purpose {
    /// The folder that keeps what was built for it.
    fn folder(self) -> &'static str {
        match self {
            Self::Release => "build",
            Self::Counting => "build-counting",
        }
    }
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

    /// That of this machine; absent where images are not made for it.
    pub(crate) fn of_this_machine() -> Option<Self> {
        Architecture::of_this_machine().map(Self::of)
    }

    /// Where the profile of a program for it is, which may be absent.
    fn profile(self, root: &Path) -> PathBuf {
        root.join(PROFILES)
            .join(format!("{}.profdata.gz", self.triple))
    }

    /// How a program for it is optimised for its purpose, besides what `Cargo.toml` says.
    fn optimisation(
        self,
        root: &Path,
        build: &Path,
        purpose: Purpose,
    ) -> anyhow::Result<Vec<String>> {
        let profile = self.profile(root);
        Ok(match purpose {
            Purpose::Counting => vec!["-Cprofile-generate".to_owned()],
            Purpose::Release if profile.exists() => vec![
                format!("-Cprofile-use={}", unpack(&profile, build)?.display()),
                // What is done once, at the start, is not what is never done: so it lies elsewhere, and does not bring what
                // is never done into memory with it.
                "-Cllvm-args=-profile-summary-cold-count=0".to_owned(),
            ],
            Purpose::Release => Vec::new(),
        })
    }

    /// The variables by which cargo and the build scripts of C libraries are told.
    fn variables(
        self,
        root: &Path,
        build: &Path,
        purpose: Purpose,
    ) -> anyhow::Result<Vec<(String, OsString)>> {
        let cargo = home("CARGO_HOME", ".cargo")?;
        let rustup = home("RUSTUP_HOME", ".rustup")?;
        // The longest last, as the last that fits is taken.
        let maps = [
            (cargo.as_path(), "/cargo"),
            (&rustup, "/rustup"),
            (root, "/source"),
            (build, "/build"),
        ];
        let mapped = maps.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        let rust = [self.optimisation(root, build, purpose)?, mapped.into()].concat();
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

/// Builds a package's program of the same name, in a folder below `output` that keeps what was built before. Says what is
/// missing where tools are.
pub(crate) fn program(
    root: &Path,
    target: Target,
    output: &Path,
    (package, purpose): (&str, Purpose),
) -> anyhow::Result<PathBuf> {
    let build = output.join(purpose.folder());
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
        .args(["--package", package])
        .args(["--target", target.triple])
        .arg("--target-dir")
        .arg(&build)
        .envs(target.variables(root, &build, purpose)?)
        .env_remove("RUSTFLAGS")
        .current_dir(root)
        .status()
        .context("run cargo auditable")?;
    if !status.success() {
        bail!("cargo auditable for {}: {status}", target.triple);
    }
    Ok(build.join(target.triple).join("release").join(package))
}

/// Unpacks a profile to a file that is called after what is in it: by another name, cargo compiles anew.
fn unpack(profile: &Path, build: &Path) -> anyhow::Result<PathBuf> {
    let packed = fs::read(profile).with_context(|| format!("read {}", profile.display()))?;
    let path = build.join(format!("{}.profdata", sha256(&packed)));
    if !path.exists() {
        let mut unpacked = Vec::new();
        GzDecoder::new(packed.as_slice())
            .read_to_end(&mut unpacked)
            .with_context(|| format!("unpack {}", profile.display()))?;
        // Under another name first, as one that is there is taken to be whole.
        let part = path.with_added_extension("part");
        fs::create_dir_all(build)
            .and_then(|()| fs::write(&part, unpacked))
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(path)
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_path_of_this_machine_is_left_unmapped() {
        let target = Target::of(Architecture::Arm64);
        let root = Path::new("/somewhere/source");
        let variables = target
            .variables(root, &root.join("target/image"), Purpose::Release)
            .unwrap();
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

    /// What decides by which names the compiler knows the program's functions: it finds in a profile only those that it knows.
    fn compiled(target: Target) -> BTreeSet<String> {
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let mut arguments = vec!["tree", "--locked", "--package", "hardening-controller"];
        arguments.extend(["--target", target.triple, "--edges", "normal,build"]);
        arguments.extend(["--prefix", "none", "--no-dedupe", "--format", "{p} {f}"]);
        let tree = output("cargo", &arguments);
        // Without where the sources are.
        let words = |line: &str| -> Vec<String> {
            let words = line.split_whitespace().map(str::to_owned);
            words.filter(|word| !word.starts_with('(')).collect()
        };
        let crates = tree.lines().map(|line| words(line).join(" "));
        let compiler = output("rustc", &["--version"]).trim_end().to_owned();
        crates.chain([compiler]).collect()
    }

    #[test]
    fn the_profile_is_of_the_crates_that_are_compiled() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for target in [Architecture::Amd64, Architecture::Arm64].map(Target::of) {
            let profile = target.profile(&root);
            if !profile.exists() {
                continue;
            }
            let file = profile.with_file_name(format!("{}.crates", target.triple));
            let compiled = compiled(target);
            if env::var_os("PROFILE_IS_NEW").is_some() {
                let lines: Vec<&str> = compiled.iter().map(String::as_str).collect();
                fs::write(&file, lines.join("\n") + "\n").unwrap();
            }
            let counted = fs::read_to_string(&file).unwrap_or_default();
            let counted: BTreeSet<String> = counted.lines().map(str::to_owned).collect();
            assert_eq!(
                counted.difference(&compiled).collect::<Vec<_>>(),
                compiled.difference(&counted).collect::<Vec<_>>(),
                "{} was made with the left, and the right is compiled now: make profile makes it anew",
                profile.display()
            );
        }
    }
}
