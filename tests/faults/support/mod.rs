//! What the test binaries have in common.

#[allow(
    dead_code,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/api.rs"]
pub(crate) mod api;
#[path = "../../support/go_tool.rs"]
pub(crate) mod go_tool;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;
