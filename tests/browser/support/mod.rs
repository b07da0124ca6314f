//! What the tests have in common.

// Shared with the other test binaries, which use more of it.
#[allow(
    dead_code,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/files.rs"]
pub(crate) mod files;
#[path = "../../support/program.rs"]
mod program;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;

pub(crate) mod chromium;
pub(crate) mod report;
