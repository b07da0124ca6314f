//! The chart in charts/pod-hardening: what it renders, and what a real API server, the real kubectl and the real
//! Helm make of that. One binary, whose tests share one build of Helm.
//!
//! `cargo test --package hardening-tests --test chart -- rendering::` runs one topic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_in_result,
    reason = "what helps a test may fail as a test does, and tells how much it has shown"
)]

// values.yaml, README.md, the CRDs and deploy/install.yaml are made of something else, and up to date.
mod generated;
// What Helm says of the chart, and of values that are wrong.
mod rendering;
// Every rendering on a real API server, the pods under the strictest Pod Security Standard, and the registration
// beside the program's own.
mod server;
// What each ServiceAccount may do, and that it is enough.
mod rights;
// Installed, upgraded and uninstalled by Helm.
mod lifecycle;
// Applied by kubectl, again and again, as GitOps tools do.
mod gitops;

// What the tests have in common.
mod support;
