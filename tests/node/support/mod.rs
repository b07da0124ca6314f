//! What the tests have in common.

// Shared with the other test binaries, which use more of it.
#[allow(
    dead_code,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/api.rs"]
pub(crate) mod api;
#[allow(
    dead_code,
    unused_imports,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/files.rs"]
pub(crate) mod files;
#[path = "../../support/kinds.rs"]
pub(crate) mod kinds;
#[path = "../../support/policies.rs"]
pub(crate) mod policies;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;
#[allow(
    dead_code,
    reason = "the other test binaries use what this one does not"
)]
#[path = "../../support/webhook.rs"]
pub(crate) mod webhook;

pub(crate) mod bench;
pub(crate) mod case;
pub(crate) mod cluster;
pub(crate) mod observe;
pub(crate) mod report;
