//! What a machine must have to run a node, and what it has.

use std::{
    env, fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where programs are looked for besides `PATH`, which for some users lacks them.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"];

/// Where the plugins of a container network are, on Debian and as others install them.
const PLUGIN_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];

/// How to get what is missing, on Debian.
const PACKAGES: &str =
    "apt-get install containerd runc containernetworking-plugins busybox-static util-linux";

/// The programs of the machine that a node runs.
#[derive(Debug, Clone)]
pub(crate) struct Requirements {
    pub(crate) containerd: PathBuf,
    pub(crate) ctr: PathBuf,
    pub(crate) runc: PathBuf,
    pub(crate) busybox: PathBuf,
    pub(crate) plugins: PathBuf,
}

/// Why this machine cannot run a node, and what to do about it, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Requirements {
    /// What this machine has, or all that it lacks.
    pub(crate) fn find() -> Result<Self, Unsupported> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            program(name).unwrap_or_else(|| {
                missing.push(name.to_owned());
                PathBuf::new()
            })
        };
        let found = Self {
            containerd: find("containerd"),
            ctr: find("ctr"),
            runc: find("runc"),
            busybox: find("busybox"),
            plugins: PathBuf::new(),
        };
        find("unshare");
        let plugins = PLUGIN_FOLDERS
            .iter()
            .map(Path::new)
            .find(|folder| PLUGINS.iter().all(|plugin| folder.join(plugin).is_file()));
        if plugins.is_none() {
            missing.push(format!("the CNI plugins {}", PLUGINS.join(", ")));
        }
        if !missing.is_empty() {
            return Err(Unsupported(format!(
                "this machine lacks {}. On Debian: {PACKAGES}",
                missing.join(", ")
            )));
        }
        if !is_static(&found.busybox) {
            return Err(Unsupported(format!(
                "{} is not linked statically, so no image can be made of it. On Debian: {PACKAGES}",
                found.busybox.display()
            )));
        }
        allowed()?;
        Ok(Self {
            plugins: plugins.map(Path::to_owned).unwrap_or_default(),
            ..found
        })
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether an ELF file asks for no interpreter.
fn is_static(path: &Path) -> bool {
    const INTERPRETER: &[u8] = b"/ld-linux";
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok()
        && !head
            .windows(INTERPRETER.len())
            .any(|window| window == INTERPRETER)
}

/// Whether this process may make namespaces with mounts of their own, and cgroups.
fn allowed() -> Result<(), Unsupported> {
    let may = Command::new("unshare")
        .args([
            "--mount", "--pid", "--cgroup", "--fork", "mount", "-t", "tmpfs", "node", "/run",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    match may {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Unsupported(format!(
                "a node needs root, with the right to make namespaces and mounts: {}",
                said.trim()
            )));
        }
        Err(error) => return Err(Unsupported(format!("unshare cannot be run: {error}"))),
    }
    let cgroups = Path::new("/sys/fs/cgroup");
    let read_only = fs::metadata(cgroups).map_or(true, |folder| folder.permissions().readonly());
    if read_only {
        return Err(Unsupported(
            "a node needs cgroups, which /sys/fs/cgroup does not have here".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_off_the_path_too_and_others_are_not() {
        assert!(program("sh").is_some());
        assert_eq!(program("no-such-program"), None);
    }

    #[test]
    fn the_test_itself_is_linked_dynamically() {
        assert!(!is_static(&env::current_exe().unwrap()));
    }
}
