//! What a process in a container sees, and what does not even start: policies and workloads on a real kubelet,
//! containerd and runc. One binary, whose tests share one node.
//!
//! `cargo test --package hardening-tests --test node -- fields:: --nocapture` runs one topic. Where this machine
//! cannot run a node the tests say so, in one line, and pass; with `CI=true` they fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_in_result,
    reason = "what helps a test may fail as a test does, and tells how much it has shown"
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::redundant_clone,
    reason = "a table of JSON is easier to read without borrows and last uses"
)]

// Both profiles, on every image and in every kind of container.
mod profiles;
// Each field that a process can notice.
mod fields;
// The guards that the kubelet and the runtime decide: with each, and without.
mod guards;
// What defaults stop, what that looks like, and what to set instead: also a page of the documentation.
mod compatibility;
// Jobs, DaemonSets, containers added for debugging, and a Deployment that is rolled over.
mod workloads;

// What the tests have in common.
mod support;
