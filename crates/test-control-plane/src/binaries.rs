//! The programs of a control plane: found where `KUBEBUILDER_ASSETS` points, or built once and
//! kept.
//!
//! Building them from Kubernetes' own Go modules needs no download site, and pins them by a go.sum.
//! It takes minutes, so what was built stays in a cache folder of the user's, under a name that
//! changes with whatever could change the programs. Processes that need them at the same time wait
//! for the first one's build.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::{
    Error,
    go_module::GoModule,
    progress::{Progress, Reporter},
};

/// This repository's Go modules: a folder for each minor version of Kubernetes.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/control-plane");

/// The newest minor version of Kubernetes that can be built, and the one that is where no other is asked for.
pub const NEWEST_KUBERNETES: &str = "1.36";

/// Names another minor version to build, such as 1.33.
const MINOR: &str = "TEST_KUBERNETES_MINOR";

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tool {
    /// The store of the API server.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// What makes ServiceAccounts, and pods of Deployments and the like.
    KubeControllerManager,
    /// The command line client; not run here.
    Kubectl,
    /// What chooses a node for each pod.
    KubeScheduler,
    /// What starts the pods of a node.
    Kubelet,
}

impl Tool {
    /// What a control plane is made of.
    const CONTROL_PLANE: [Self; 4] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::KubeControllerManager,
        Self::Kubectl,
    ];

    /// What a node needs besides.
    const NODE: [Self; 2] = [Self::KubeScheduler, Self::Kubelet];

    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
        }
    }

    /// The Go package that the program is built of.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Self::KubeControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Self::KubeScheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Self::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A folder that holds the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
}

impl Binaries {
    /// The folder that `KUBEBUILDER_ASSETS` names; without that variable, what is built of one of this
    /// repository's Go modules in `tests/control-plane`, now if it never was: that of the minor version which
    /// `TEST_KUBERNETES_MINOR` names, without it the newest. A first build takes minutes and blocks.
    pub fn locate_or_build(progress: Progress) -> Result<Self, Error> {
        Self::locate_or_build_from(&module(|name| env::var_os(name)), progress)
    }

    /// As [`locate_or_build`](Self::locate_or_build), with another Go module.
    pub fn locate_or_build_from(module: &Path, progress: Progress) -> Result<Self, Error> {
        if let Some(directory) = env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty())
        {
            return Ok(Self::in_directory(directory));
        }
        build_once(
            &GoModule::read(module, "go")?,
            CONTROL_PLANE,
            &cache()?,
            progress,
        )
    }

    /// The programs of a node: these, if they have them, as what `KUBEBUILDER_ASSETS` names may not; else
    /// what is built, as [`locate_or_build`](Self::locate_or_build) does.
    pub(crate) fn with_node(&self, progress: Progress) -> Result<Self, Error> {
        if Tool::NODE.iter().all(|tool| self.path(*tool).is_ok()) {
            return Ok(self.clone());
        }
        let module = GoModule::read(&module(|name| env::var_os(name)), "go")?;
        build_once(&module, NODE, &cache()?, progress)
    }

    /// Programs that are known to be in a folder.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The path of one program, if it is there.
    pub fn path(&self, tool: Tool) -> Result<PathBuf, Error> {
        let path = self.directory.join(tool.name());
        if path.is_file() {
            Ok(path)
        } else {
            Err(Error::MissingProgram {
                tool,
                directory: self.directory.clone(),
            })
        }
    }
}

/// Programs that are built together.
#[derive(Debug, Clone, Copy)]
struct Set {
    /// What their folder is called.
    folder: &'static str,
    /// What people call them.
    what: &'static str,
    /// How long a first build takes on 2 cores.
    minutes: u32,
    tools: &'static [Tool],
}

const CONTROL_PLANE: Set = Set {
    folder: "control-plane",
    what: "the test control plane",
    minutes: 7,
    tools: &Tool::CONTROL_PLANE,
};

const NODE: Set = Set {
    folder: "node",
    what: "the test node",
    minutes: 2,
    tools: &Tool::NODE,
};

/// The folder of the Go module to build.
fn module(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let minor = variable(MINOR).filter(|minor| !minor.is_empty());
    Path::new(MODULES).join(minor.unwrap_or_else(|| NEWEST_KUBERNETES.into()))
}

fn cache() -> Result<PathBuf, Error> {
    cache_directory(|name| env::var_os(name)).ok_or(Error::NoCacheDirectory)
}

/// Where this user's builds are kept.
fn cache_directory(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("POD_HARDENING_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("pod-hardening")))
        .or_else(|| Some(variable("HOME")?.join(".cache/pod-hardening")))
}

/// What was built of this module before, or is now.
fn build_once(
    module: &GoModule,
    set: Set,
    cache: &Path,
    progress: Progress,
) -> Result<Binaries, Error> {
    let finished = cache.join(format!("{}-{}", set.folder, module.key(set.tools)));
    if finished.is_dir() {
        return Ok(Binaries::in_directory(finished));
    }
    fs::create_dir_all(cache).map_err(Error::file("create", cache))?;
    let mut reporter = Reporter::new(progress);

    // The operating system gives the lock up with the process, so there are no stale ones.
    let path = finished.with_extension("lock");
    let lock = File::create(&path).map_err(Error::file("create", &path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            reporter.step(format!(
                "waiting for another process that builds {}",
                set.what
            ));
            lock.lock().map_err(Error::file("lock", &path))?;
        }
        Err(TryLockError::Error(source)) => return Err(Error::file("lock", &path)(source)),
    }
    if finished.is_dir() {
        return Ok(Binaries::in_directory(finished));
    }

    // With the lock held, what is there under this name was left by a build that was killed.
    let unfinished = finished.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::file("remove", &unfinished))?;
    }
    fs::create_dir(&unfinished).map_err(Error::file("create", &unfinished))?;
    build_all(module, set, &unfinished, &mut reporter)?;
    fs::rename(&unfinished, &finished).map_err(Error::file("rename", &unfinished))?;
    reporter.finish(&format!("built {} into {}", set.what, finished.display()));
    Ok(Binaries::in_directory(finished))
}

fn build_all(
    module: &GoModule,
    set: Set,
    folder: &Path,
    reporter: &mut Reporter,
) -> Result<(), Error> {
    module.check_go()?;
    reporter.say(&format!(
        "building {} with go; the first time takes about {} minutes on 2 cores",
        set.what, set.minutes
    ));
    for (index, tool) in set.tools.iter().enumerate() {
        reporter.step(format!(
            "building {tool} ({} of {})",
            index + 1,
            set.tools.len()
        ));
        module.build(*tool, folder, reporter)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use tempfile::TempDir;

    use super::*;

    /// A folder with a small Go module and, as its `go`, a shell script.
    fn module_with_go(script: &str) -> (TempDir, GoModule) {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "go.mod",
            "module m\ngo 1.26.0\nrequire k8s.io/kubernetes v1.36.3\n",
        );
        write("go.sum", "");
        write("go", script);
        let go = folder.path().join("go");
        fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
        let module = GoModule::read(folder.path(), go).unwrap();
        (folder, module)
    }

    /// Answers like go 1.26.8, and notes what it builds.
    const GO: &str = "#!/bin/sh\n\
        [ $1 = version ] && { echo go version go1.26.8 linux/amd64; exit; }\n\
        echo \"${4##*/}\" >>built\n\
        : >\"$4\"\n";

    #[test]
    fn the_cache_is_the_users() {
        let with = |set: &[(&str, &str)]| {
            cache_directory(|name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            })
        };
        let home = ("HOME", "/users/me");
        assert_eq!(with(&[home]), Some("/users/me/.cache/pod-hardening".into()));
        assert_eq!(
            with(&[home, ("XDG_CACHE_HOME", "/xdg")]),
            Some("/xdg/pod-hardening".into())
        );
        assert_eq!(
            with(&[
                home,
                ("XDG_CACHE_HOME", "/xdg"),
                ("POD_HARDENING_CACHE", "/own")
            ]),
            Some("/own".into())
        );
        assert_eq!(
            with(&[home, ("POD_HARDENING_CACHE", "")]),
            Some("/users/me/.cache/pod-hardening".into())
        );
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn the_newest_version_is_built_unless_another_one_is_named() {
        for (named, folder) in [
            (None, NEWEST_KUBERNETES),
            (Some(""), NEWEST_KUBERNETES),
            (Some("1.33"), "1.33"),
        ] {
            let module = module(|name| {
                assert_eq!(name, MINOR);
                named.map(Into::into)
            });
            assert!(module.ends_with(folder), "{named:?}: {}", module.display());
            GoModule::read(&module, "go").unwrap();
        }
    }

    #[test]
    fn two_at_once_build_once() {
        let (folder, module) = module_with_go(GO);
        let cache = folder.path().join("cache");
        let build = || build_once(&module, CONTROL_PLANE, &cache, Progress::Silent).unwrap();
        let (one, other) = thread::scope(|scope| {
            let (one, other) = (scope.spawn(build), scope.spawn(build));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!(one, other);
        assert_eq!(one, build());
        for tool in Tool::CONTROL_PLANE {
            one.path(tool).unwrap();
        }
        let built = fs::read_to_string(folder.path().join("built")).unwrap();
        assert_eq!(
            built,
            "etcd\nkube-apiserver\nkube-controller-manager\nkubectl\n"
        );
    }

    #[test]
    fn a_build_that_fails_leaves_nothing_to_be_taken_for_finished() {
        let (folder, broken) = module_with_go(
            "#!/bin/sh\n[ $1 = version ] && { echo go version go1.26.8; exit; }\necho no space left >&2; exit 1",
        );
        let cache = folder.path().join("cache");
        let error = build_once(&broken, CONTROL_PLANE, &cache, Progress::Silent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot build etcd with go (exit status: 1); the end of its output:\nno space left"
        );
        let (_folder, working) = module_with_go(GO);
        build_once(&working, CONTROL_PLANE, &cache, Progress::Silent)
            .unwrap()
            .path(Tool::Kubectl)
            .unwrap();
    }

    #[test]
    fn an_old_or_absent_go_is_named() {
        let (folder, old) = module_with_go("#!/bin/sh\necho go version go1.25.1 linux/amd64");
        let error = build_once(&old, CONTROL_PLANE, folder.path(), Progress::Silent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "go is too old: install Go 1.26.0 or newer (found: 1.25.1)"
        );

        let absent = GoModule::read(folder.path(), folder.path().join("absent")).unwrap();
        let error =
            build_once(&absent, CONTROL_PLANE, folder.path(), Progress::Silent).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot run go: install Go 1.26.0 or newer, or set KUBEBUILDER_ASSETS to a folder of ready programs"
        );
    }

    #[test]
    fn a_program_missing_from_given_ones_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Binaries::in_directory(folder.path())
            .path(Tool::KubeControllerManager)
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("kube-controller-manager is not in "),
            "{error}"
        );
    }
}
