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
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
        let found = Self::find_in(&folders.collect::<Vec<_>>(), &PLUGIN_FOLDERS.map(Path::new))?;
        allowed()?;
        Ok(found)
    }

    fn find_in(folders: &[PathBuf], plugin_folders: &[&Path]) -> Result<Self, Unsupported> {
        let mut missing = Vec::new();
        let mut find = |name: &str| {
            program(name, folders).unwrap_or_else(|| {
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
        let plugins = plugin_folders
            .iter()
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
        Ok(Self {
            plugins: plugins
                .map(|folder| folder.to_path_buf())
                .unwrap_or_default(),
            ..found
        })
    }
}

fn program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let mut paths = folders.iter().map(|folder| folder.join(name));
    paths.find(|path| path.is_file())
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

    /// A folder with empty files of these names.
    fn folder_of(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            File::create(folder.path().join(name)).unwrap();
        }
        folder
    }

    #[test]
    fn all_that_is_missing_is_named_in_one_line_with_how_to_get_it() {
        let programs = folder_of(&["containerd", "ctr", "busybox", "unshare"]);
        let plugins = folder_of(&["ptp", "loopback"]);
        let missing = Requirements::find_in(&[programs.path().to_owned()], &[plugins.path()]);
        assert_eq!(
            missing.unwrap_err().to_string(),
            "this machine lacks runc, the CNI plugins ptp, host-local, loopback. On Debian: apt-get install \
             containerd runc containernetworking-plugins busybox-static util-linux"
        );
    }

    #[test]
    fn what_is_there_is_found_in_the_folder_that_has_it() {
        let programs = folder_of(&["containerd", "ctr", "busybox", "unshare"]);
        let others = folder_of(&["runc"]);
        let plugins = folder_of(&PLUGINS);
        let folders = [programs.path().to_owned(), others.path().to_owned()];
        let found = Requirements::find_in(&folders, &[others.path(), plugins.path()]).unwrap();
        assert_eq!(found.containerd, programs.path().join("containerd"));
        assert_eq!(found.runc, others.path().join("runc"));
        assert_eq!(found.plugins, plugins.path());
    }

    #[test]
    fn a_busybox_that_needs_libraries_is_no_image() {
        // The test itself is linked dynamically.
        let programs = folder_of(&["containerd", "ctr", "runc", "unshare"]);
        fs::copy(env::current_exe().unwrap(), programs.path().join("busybox")).unwrap();
        let plugins = folder_of(&PLUGINS);
        let missing = Requirements::find_in(&[programs.path().to_owned()], &[plugins.path()]);
        let said = missing.unwrap_err().to_string();
        assert!(said.contains("busybox is not linked statically"), "{said}");
    }
}
