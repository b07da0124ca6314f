//! The product against a real API server: one binary, so that it links once and its tests share one control
//! plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "what helps a test may fail as a test does"
)]

// What the generated pods show: nothing that worked breaks, and nothing happens but what was foretold.
mod admission;
// The same for containers that are added to running pods.
mod ephemeral;
// Why each guard is there: what the API server says without it.
mod guards;
// What the API server makes of our CRDs, and of good and bad policies.
mod crds;
// Pods that real controllers create, and Pod Security Admission as the judge.
mod workloads;

// What the tests have in common.
mod support;
