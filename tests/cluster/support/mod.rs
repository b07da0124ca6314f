//! What the tests have in common.

// Shared with the tests on a node, and with those that need no cluster.
#[path = "../../support/api.rs"]
pub(crate) mod api;
#[path = "../../support/policies.rs"]
pub(crate) mod policies;
#[path = "../../support/program.rs"]
pub(crate) mod program;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;
#[path = "../../support/webhook.rs"]
pub(crate) mod webhook;

pub(crate) mod compare;
pub(crate) mod controller;
pub(crate) mod crds;
pub(crate) mod generate;
pub(crate) mod lab;
pub(crate) mod property;
pub(crate) mod shrink;
pub(crate) mod tally;
