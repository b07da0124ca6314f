//! Tests that need no cluster: of the examples, the documentation, and the rules of this repository.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps a test may fail as a test does"
)]

mod alerts; // each alert fires when it should, and says what to do
mod docs; // links lead somewhere, and what pages show is what the programs say
mod ecosystem; // kustomize, Helm and krew, with ours
mod examples; // every example is valid, and does what tests/fast/expect says
mod layers; // which crate may depend on what
mod reference; // docs/reference is generated
mod security; // each threat has a test, or is accepted
mod support;
mod tidy; // rules about files that the compiler does not know
mod versions; // which versions of Kubernetes are supported
