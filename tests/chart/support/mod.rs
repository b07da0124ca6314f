//! What the tests have in common.

pub(crate) mod chart;
pub(crate) mod cluster;

// Shared with the other test binaries, which use more of it.
#[allow(
    dead_code,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/api.rs"]
pub(crate) mod api;
#[path = "../../support/files.rs"]
pub(crate) mod files;
#[path = "../../support/go_tool.rs"]
pub(crate) mod go_tool;
