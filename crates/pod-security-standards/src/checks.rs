//! The checks, one file for each group.

pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod privileges;
pub(crate) mod profiles;
pub(crate) mod users;
pub(crate) mod volumes;
pub(crate) mod windows;

#[cfg(test)]
mod support;
