//! YAML in and out, true to what its author wrote. What the text *means* is `hardening-manifests`'
//! business.

#[cfg(test)]
pub(crate) mod authors;
mod edit;
mod tree;
mod write;

pub(crate) use edit::edit;
pub(crate) use tree::Node;
pub(crate) use write::{block, json, json_list};
