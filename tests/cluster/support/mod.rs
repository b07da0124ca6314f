//! What the tests have in common.

pub(crate) mod api;
pub(crate) mod compare;
pub(crate) mod controller;
pub(crate) mod crds;
pub(crate) mod generate;
pub(crate) mod lab;
pub(crate) mod policies;
pub(crate) mod program;
pub(crate) mod property;
pub(crate) mod shrink;
pub(crate) mod tally;
pub(crate) mod tell;
pub(crate) mod webhook;
