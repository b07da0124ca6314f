//! Everything that can go wrong between "no programs" and "a control plane that answers".

use std::{io, net::SocketAddrV4, path::PathBuf, process::ExitStatus, time::Duration};

use crate::{Tool, node::Unsupported};

/// A step that failed. The text names the step; what caused it is the
/// [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A folder of ready programs lacks one that is needed.
    #[error(
        "{tool} is not in {}: add it there, or unset KUBEBUILDER_ASSETS to have the programs built",
        directory.display()
    )]
    MissingProgram {
        /// The program that is needed.
        tool: Tool,
        /// The folder looked into.
        directory: PathBuf,
    },

    /// No variable says where the user's caches are.
    #[error(
        "no folder to keep the built programs in: set POD_HARDENING_CACHE, XDG_CACHE_HOME or HOME"
    )]
    NoCacheDirectory,

    /// The programs must be built, and `go` cannot be run.
    #[error(
        "cannot run go: install Go {required} or newer, or set KUBEBUILDER_ASSETS to a folder of ready programs"
    )]
    GoMissing {
        /// The version that go.mod asks for.
        required: String,
        /// Why `go` could not be run.
        source: io::Error,
    },

    /// The programs must be built, and `go` is too old for their go.mod.
    #[error("go is too old: install Go {required} or newer (found: {found})")]
    GoTooOld {
        /// The version that go.mod asks for.
        required: String,
        /// What `go version` said.
        found: String,
    },

    /// A go.mod does not say what is read from it.
    #[error("{} does not say {what}", path.display())]
    GoModule {
        /// The go.mod.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },

    /// `go build` failed.
    #[error("cannot build {tool} with go ({status}); the end of its output:\n{output}")]
    Build {
        /// The program that was being built.
        tool: Tool,
        /// How `go build` ended.
        status: ExitStatus,
        /// The last lines it wrote.
        output: String,
    },

    /// A file or folder could not be read, written, locked, moved or removed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    /// A pipe or the shell that watches over a program could not be made.
    #[error("cannot start {what}")]
    Spawn {
        /// What was being started.
        what: String,
        /// Why it failed.
        source: io::Error,
    },

    /// No port of the loopback interface could be reserved.
    #[error("cannot reserve a port on 127.0.0.1")]
    Port(#[source] io::Error),

    /// A key or certificate could not be made.
    #[error("cannot make the {what}")]
    Certificate {
        /// Which one.
        what: &'static str,
        /// Why it failed.
        source: rcgen::Error,
    },

    /// The kubeconfig could not be turned into the configuration of a client.
    #[error("cannot read the control plane's own kubeconfig")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),

    /// A client could not be made.
    #[error("cannot make a client for the control plane")]
    Client(#[source] Box<kube::Error>),

    /// A program ended by itself.
    #[error("{program} ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        log: String,
    },

    /// A program runs, but did not become ready in time.
    #[error("{what} not seen within {}s; the end of the log of {tool}:\n{log}", waited.as_secs())]
    NotReady {
        /// What was waited for.
        what: &'static str,
        /// The program that had to bring it about.
        tool: Tool,
        /// For how long.
        waited: Duration,
        /// The last lines the program wrote.
        log: String,
        /// What the last attempt met, if it failed rather than said "not yet".
        source: Option<Box<kube::Error>>,
    },

    /// A program did not end when asked to, and was killed.
    #[error("{program} did not end within {}s of being asked to and was killed", waited.as_secs())]
    Unwilling {
        /// The program's name.
        program: String,
        /// How long it was given.
        waited: Duration,
    },

    /// The control plane ended but its folder is still there.
    #[error("the folder {} was not removed", path.display())]
    NotRemoved {
        /// The folder.
        path: PathBuf,
    },

    /// This machine cannot run a node.
    #[error("no node can run here: {0}")]
    NoNode(Unsupported),

    /// The node's container runtime refused.
    #[error("cannot {what}: {said}")]
    Runtime {
        /// What was being done.
        what: &'static str,
        /// What its client wrote.
        said: String,
    },

    /// Pods cannot be given a way to the API server.
    #[error("cannot listen on {address} for the pods of a node")]
    Relay {
        /// Where the Service `kubernetes` is.
        address: SocketAddrV4,
        /// Why it failed.
        source: io::Error,
    },

    /// An image could not be made.
    #[error("cannot make an image")]
    Image(#[source] container_image::Error),

    /// The task that finds or builds the programs was cut short.
    #[error("the search for the control plane's programs was cut short")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl Error {
    /// For `map_err`: what was being done, and to which path.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }
}
