//! Long lists, page by page.

use hardening_manifests::Manifest;
use serde_json::Value;

use super::Cluster;

/// How much of a list a cluster is asked for at a time.
const PAGE: usize = 500;

impl Cluster {
    /// The items of the list at a path; none where the cluster does not know the resource.
    pub(crate) fn pages(&self, path: &str, what: &str) -> anyhow::Result<Vec<Manifest>> {
        let mut found = Vec::new();
        let mut page = format!("{path}?limit={PAGE}");
        while let Some(value) = self.runtime.block_on(self.get(&page, what))? {
            let next = value.pointer("/metadata/continue").and_then(Value::as_str);
            let next = next.filter(|token| !token.is_empty());
            // The token is one of base64 for URLs.
            let next = next.map(|token| format!("{path}?limit={PAGE}&continue={token}"));
            found.extend(self.items(value));
            match next {
                Some(next) => page = next,
                None => break,
            }
        }
        Ok(found)
    }
}
