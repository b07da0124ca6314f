//! A Kubernetes control plane as a value: etcd, kube-apiserver and kube-controller-manager, started
//! in a few seconds on loopback, and ended with the value that holds them.
//!
//! ```no_run
//! use k8s_openapi::api::core::v1::Namespace;
//! use test_control_plane::ControlPlane;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let control_plane = ControlPlane::shared().await?; // one for the whole test binary
//! let namespaces = kube::Api::<Namespace>::all(control_plane.client()?);
//! assert!(namespaces.get_opt("kube-system").await?.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! [`ControlPlane::start`] gives one that belongs to the caller, with [`ControlPlaneOptions`] of
//! its own, whose API server can be stopped and started again.
//!
//! # What this promises
//!
//! * **It ends.** Dropping the value, a panic, Ctrl-C, even SIGKILL of the test process: the
//!   programs end and their folder is removed. Each program is watched by a shell that holds a pipe
//!   from the test process (`process.rs`, `workspace.rs`); the kernel closes the pipe however the
//!   process ends.
//! * **It shares nothing.** Each control plane has its own folder, certificates and port, so any
//!   number run side by side. Only the programs themselves are shared ([`Binaries`]).
//! * **It knows nothing of what it is used to test.** No custom resource, no webhook, no policy. What
//!   is tested can run beside it all the same ([`ControlPlane::run`]), and ends as surely.
//!
//! # A node
//!
//! [`Node::start`] adds a real node: kubelet, container runtime and scheduler. It needs root and packages of
//! the machine's ([`Node::unsupported`] names what is missing), so nothing here depends on it. Its pods reach the
//! API server while there is a [`Relay`] for them, which can also cut and silence their connections.

mod arguments;
mod binaries;
mod certs;
mod control_plane;
mod error;
mod go_module;
mod kubeconfig;
mod network;
mod node;
mod options;
mod port;
mod process;
mod progress;
mod relay;
mod workspace;

pub use self::{
    binaries::{Binaries, NEWEST_KUBERNETES, Tool},
    control_plane::ControlPlane,
    error::Error,
    node::{Image, NAMED_USER, Node, Unsupported},
    options::ControlPlaneOptions,
    process::Program,
    progress::Progress,
    relay::Relay,
};
