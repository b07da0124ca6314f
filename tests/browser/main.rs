//! The page that `kubectl harden audit --report` writes, in a real browser without a window.
//!
//! `cargo test --package hardening-tests --test browser -- page::` runs one topic. Where Chromium is not installed
//! the tests say so, in one line, and pass; with `CI=true` they fail.

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
    reason = "a call with JSON is easier to read without borrows"
)]

// What the page shows, and what can be done with it.
mod page;
// With thousands of workloads, and with names that mean harm.
mod hostile;
// Its picture in the documentation.
mod picture;

// What the tests have in common.
mod support;
