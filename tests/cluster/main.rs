//! The product against a real API server: one binary, so that it links once and its tests share a control
//! plane.
//!
//! `cargo test --package hardening-tests --test cluster -- admission:: --nocapture` runs one topic and shows its
//! figures. Generated cases come from a seed that each failure names; `HARDENING_TEST_SEED` sets another one,
//! and `HARDENING_TEST_CASES` how many cases of each kind there are.

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

// What the generated pods show: nothing that worked breaks, and nothing happens but what was foretold.
mod admission;
// The same for containers that are added to running pods.
mod ephemeral;
// Whose default it is, and where: the engine against a model of its documentation.
mod model;
// What a newer Kubernetes may put into a pod survives.
mod future_fields;
// Which fields an API server keeps, by its version; and that none is overlooked.
mod known_fields;
mod versions;
// Why each guard is there: what the API server says without it.
mod guards;
// What the API server makes of our CRDs, and of good and bad policies.
mod crds;
// Pods that real controllers create, and Pod Security Admission as the judge.
mod workloads;
// The Pod Security Standards as we evaluate them, and as the API server does.
mod standards;
// What the API server counts, and alerts are made of.
mod alerts;
// The controller as a program of its own, beside an API server of its own.
mod controller;

// Certificates of our own, renewed and harmed while pods are being created.
mod certificates;

// What manage writes: policies' status, and what it finds of missed pods; and which of several does it.
mod manage;

// What kubectl harden audit says of running pods.
mod audit;
// What kubectl harden shows of manifests and of running pods, and what the webhook does.
mod preview;
// What Helm installs through kubectl harden.
mod helm;
// What kubectl harden says where it may not see everything.
mod rights;

// What PodSecurityPolicies become.
mod psp;

// The examples, as kubectl hands them over.
mod examples;

// What the tests have in common.
mod support;
