//! Kubernetes manifests from files: read as `kubectl` reads them, and made into a
//! [`PolicySet`](hardening_engine::PolicySet).
//!
//! - [`read()`] takes files, folders and `-` (standard input) and gives [`Manifest`]s, one per document;
//! - [`objects`] looks into lists;
//! - [`policy_set()`] picks out what a policy set is made of, and says what is wrong with the rest.
//!
//! Both programs use it: the controller's `serve` mode, and `kubectl harden --policies`. So there is no
//! Kubernetes client and nothing asynchronous here.

mod object;
mod policy_set;
mod read;
mod value;

pub use object::{Object, objects};
pub use policy_set::{Problem, policy_set};
pub use read::{
    Document, Error, File, Format, Manifest, Source, load, parse, parse_file, read, read_files,
    read_what_can_be,
};
