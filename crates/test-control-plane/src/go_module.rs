//! The Go module that pins Kubernetes and etcd, and `go build` in it.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};

use crate::{Error, Tool, progress::Reporter};

/// How many lines of go's output an error shows.
const OUTPUT_TAIL: usize = 20;

/// A folder with a go.mod that requires `k8s.io/kubernetes` and `go.etcd.io/etcd/server/v3`.
#[derive(Debug)]
pub(crate) struct GoModule {
    directory: PathBuf,
    /// The `go` to run; only tests run another than the one on `PATH`.
    command: OsString,
    /// The Go version that go.mod asks for, such as `1.26.0`.
    go_version: String,
    /// What the linker is told, such as Kubernetes' own version.
    linker_flags: String,
    /// All else that what is built depends on: go.mod and go.sum.
    files: [String; 2],
}

impl GoModule {
    /// Reads the module in that folder.
    pub(crate) fn read(directory: &Path, command: impl Into<OsString>) -> Result<Self, Error> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(Error::file("read", &path))
        };
        let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
        let missing = |what| Error::GoModule {
            path: directory.join("go.mod"),
            what,
        };

        let go_version = version_of(&go_mod, "go").ok_or_else(|| missing("its Go version"))?;
        let kubernetes = version_of(&go_mod, "k8s.io/kubernetes")
            .ok_or_else(|| missing("a version of k8s.io/kubernetes"))?;
        let linker_flags = linker_flags(kubernetes)
            .ok_or_else(|| missing("a version of k8s.io/kubernetes like v1.2.3"))?;
        Ok(Self {
            directory: directory.to_owned(),
            command: command.into(),
            go_version: go_version.to_owned(),
            linker_flags,
            files: [go_mod, go_sum],
        })
    }

    /// A short name for these programs, built of exactly this module with exactly these flags. It differs
    /// whenever the programs may.
    pub(crate) fn key(&self, tools: &[Tool]) -> String {
        let [go_mod, go_sum] = &self.files;
        let parts = [go_mod.as_str(), go_sum, &self.linker_flags];
        key(parts
            .into_iter()
            .chain(tools.iter().map(|tool| tool.package())))
    }

    /// Fails with what to install if `go` cannot build this module.
    pub(crate) fn check_go(&self) -> Result<(), Error> {
        // In the module's folder, so that a `go` that fetches newer versions of itself does so now.
        let output = Command::new(&self.command)
            .arg("version")
            .current_dir(&self.directory)
            .output()
            .map_err(|source| Error::GoMissing {
                required: self.go_version.clone(),
                source,
            })?;
        let said = String::from_utf8_lossy(&output.stdout);
        // "go version go1.26.8 linux/amd64"
        let found = said
            .split_whitespace()
            .find_map(|word| word.strip_prefix("go1."))
            .map(|rest| format!("1.{rest}"));
        match found {
            Some(found) if numbers(&found) >= numbers(&self.go_version) => Ok(()),
            Some(found) => Err(Error::GoTooOld {
                required: self.go_version.clone(),
                found,
            }),
            None => Err(Error::GoTooOld {
                required: self.go_version.clone(),
                found: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// Builds one program into a folder.
    pub(crate) fn build(
        &self,
        tool: Tool,
        folder: &Path,
        reporter: &mut Reporter,
    ) -> Result<(), Error> {
        let failed = |source| Error::Spawn {
            what: format!("go build for {tool}"),
            source,
        };
        let mut child = Command::new(&self.command)
            .args(["build", "-v", "-o"])
            .arg(folder.join(tool.name()))
            .args(["-ldflags", &self.linker_flags, tool.package()])
            .env("CGO_ENABLED", "0")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;

        // With -v go names each package that it compiles; a thread reads, so that time is reported
        // without lines too.
        let (sender, lines) = mpsc::channel();
        let reader = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                BufReader::new(stderr)
                    .lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| sender.send(line))
            })
        });
        let mut output = VecDeque::with_capacity(OUTPUT_TAIL);
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) => {
                    if output.len() == OUTPUT_TAIL {
                        output.pop_front();
                    }
                    output.push_back(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            reporter.tick(output.back().map_or("", String::as_str));
        }
        let status = child.wait().map_err(failed)?;
        drop(reader); // at its end already: it let go of the channel
        if status.success() {
            return Ok(());
        }
        Err(Error::Build {
            tool,
            status,
            output: output.make_contiguous().join("\n"),
        })
    }
}

/// The version that a line `name version` of a go.mod gives, whether inside a `require` block or
/// not.
fn version_of<'a>(go_mod: &'a str, name: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let mut first = words.next()?;
        if first == "require" {
            first = words.next()?;
        }
        (first == name).then(|| words.next())?
    })
}

/// Without its version linked in, Kubernetes calls itself v0.0.0.
fn linker_flags(kubernetes: &str) -> Option<String> {
    let (major, rest) = kubernetes.strip_prefix('v')?.split_once('.')?;
    let (minor, _) = rest.split_once('.')?;
    let version = "k8s.io/component-base/version";
    Some(format!(
        "-s -w -X {version}.gitVersion={kubernetes} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    ))
}

fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// `1.26.0` as numbers that compare; what follows a number, as in `26rc1`, is left out.
fn numbers(version: &str) -> Vec<u32> {
    let number = |part: &str| {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part.get(..end)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0)
    };
    version.split('.').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_MOD: &str =
        "module m\n\ngo 1.26.0\n\nrequire (\n\tk8s.io/kubernetes v1.36.3 // indirect\n)\n";

    #[test]
    fn versions_come_from_go_mod() {
        assert_eq!(version_of(GO_MOD, "go"), Some("1.26.0"));
        assert_eq!(version_of(GO_MOD, "k8s.io/kubernetes"), Some("v1.36.3"));
        assert_eq!(
            version_of("require k8s.io/kubernetes v1.0.0", "k8s.io/kubernetes"),
            Some("v1.0.0")
        );
        assert_eq!(version_of(GO_MOD, "k8s.io/api"), None);
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        assert_eq!(
            linker_flags("v1.36.3").unwrap(),
            "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
             -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"
        );
    }

    #[test]
    fn go_versions_compare_as_numbers() {
        assert!(numbers("1.26.8") > numbers("1.26.0"));
        assert!(numbers("1.9") < numbers("1.26.0"));
        assert!(numbers("1.27rc1") > numbers("1.26.0"));
    }

    #[test]
    fn the_key_follows_every_part() {
        assert_eq!(key(["a", "b"]), key(["a", "b"]));
        assert_ne!(key(["a", "b"]), key(["ab", ""]));
        assert_eq!(key(["a"]).len(), 16);
    }
}
