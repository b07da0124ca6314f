//! What the tests have in common; what is in `tests/support` is shared with the other test binaries.

#[path = "../../support/api.rs"]
pub(crate) mod api;
pub(crate) mod compare;
pub(crate) mod controller;
pub(crate) mod crds;
pub(crate) mod desk;
pub(crate) mod generate;
#[path = "../../support/go_tool.rs"]
pub(crate) mod go_tool;
#[path = "../../support/kinds.rs"]
pub(crate) mod kinds;
pub(crate) mod lab;
#[path = "../../support/policies.rs"]
pub(crate) mod policies;
#[path = "../../support/program.rs"]
pub(crate) mod program;
pub(crate) mod property;
pub(crate) mod shrink;
pub(crate) mod tally;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;
pub(crate) mod told;
pub(crate) mod version;
#[path = "../../support/webhook.rs"]
pub(crate) mod webhook;
