//! Long lists, page by page.

use hardening_engine::KubernetesVersion;
use hardening_manifests::Manifest;

use super::Cluster;

/// How much of a list a cluster is asked for at a time.
const PAGE: usize = 500;

/// A list to ask for.
pub(crate) struct List<'a> {
    pub(crate) path: &'a str,
    /// Which of it; empty: all.
    pub(crate) selector: &'a str,
    pub(crate) form: Form,
    /// What that is, for messages: `list pods`.
    pub(crate) what: &'a str,
}

/// How much of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
}

/// A part of a list.
pub(crate) struct Page {
    /// A list by itself.
    pub(crate) list: Manifest,
    /// How many objects follow, where the API server says so.
    pub(crate) remaining: Option<u64>,
}

impl Cluster {
    /// The items of the list at a path; none where the cluster does not know the resource.
    pub(crate) fn pages(&self, path: &str, what: &str) -> anyhow::Result<Vec<Manifest>> {
        Ok(self.listed(path, what)?.unwrap_or_default())
    }

    /// The items of the list at a path; `None` where the cluster does not know the resource.
    pub(crate) fn listed(&self, path: &str, what: &str) -> anyhow::Result<Option<Vec<Manifest>>> {
        let list = List {
            path,
            selector: "",
            form: Form::Whole,
            what,
        };
        let mut found = Vec::new();
        let is_there = self.each_page(&list, |page| {
            found.extend(self.items(page.list.value));
            Ok(())
        })?;
        Ok(is_there.then_some(found))
    }

    /// Hands over a list page by page; whether the cluster knows the resource.
    pub(crate) fn each_page(
        &self,
        list: &List<'_>,
        mut take: impl FnMut(Page) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let form = match list.form {
            Form::Whole => "application/json",
            Form::Metadata => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
        };
        let mut start = format!("{}?limit={PAGE}", list.path);
        if !list.selector.is_empty() {
            start += &format!("&labelSelector={}", encoded(list.selector));
        }
        let mut next = Some(start.clone());
        while let Some(page) = next {
            let answer = self.get_as(&page, form, list.what);
            let Some(value) = self.runtime.block_on(answer)? else {
                return Ok(false);
            };
            let metadata = value.get("metadata");
            let token = metadata.and_then(|metadata| metadata.get("continue")?.as_str());
            let token = token.filter(|token| !token.is_empty());
            next = token.map(|token| format!("{start}&continue={}", encoded(token)));
            take(Page {
                remaining: metadata
                    .and_then(|metadata| metadata.get("remainingItemCount")?.as_u64()),
                list: Manifest {
                    source: self.source(),
                    value,
                },
            })?;
        }
        Ok(true)
    }

    /// The version of Kubernetes that the API server says it is; `None`: it says nothing that is one.
    pub(crate) fn kubernetes_version(&self) -> anyhow::Result<Option<KubernetesVersion>> {
        let answer = self.get("/version", "get the version");
        let told = self.runtime.block_on(answer)?.unwrap_or_default();
        // One API server can be told to act as an older one.
        let numbers = [["emulationMajor", "emulationMinor"], ["major", "minor"]];
        let version = numbers.into_iter().find_map(|[major, minor]| {
            let (major, minor) = (told.get(major)?.as_str()?, told.get(minor)?.as_str()?);
            Some(format!("{major}.{minor}"))
        });
        Ok(version.and_then(|version| version.parse().ok()))
    }
}

/// A text as a part of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_stays_one_value_of_a_query() {
        assert_eq!(
            encoded("a=b,c in (d)&limit=1"),
            "a%3Db%2Cc%20in%20%28d%29%26limit%3D1"
        );
        assert_eq!(encoded("eyJ2-_.~"), "eyJ2-_.~");
    }
}
