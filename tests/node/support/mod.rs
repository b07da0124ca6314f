//! What the tests have in common.

// Shared with the tests on an API server, which use more of them.
#[allow(
    dead_code,
    reason = "the other test binary uses what this one does not"
)]
#[path = "../../support/api.rs"]
pub(crate) mod api;
#[path = "../../support/files.rs"]
pub(crate) mod files;
#[path = "../../support/policies.rs"]
pub(crate) mod policies;
#[path = "../../support/tell.rs"]
pub(crate) mod tell;
#[allow(
    dead_code,
    reason = "the other test binary uses what this one does not"
)]
#[path = "../../support/webhook.rs"]
pub(crate) mod webhook;

pub(crate) mod bench;
pub(crate) mod case;
pub(crate) mod cluster;
pub(crate) mod observe;
pub(crate) mod report;
