//! From PodSecurityPolicies, wherever they come from, to what takes their place, wherever it goes.

pub(crate) mod folder;
pub(crate) mod gather;
pub(crate) mod report;
