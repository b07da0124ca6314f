//! The Kubernetes objects in manifests: what they are called, and what is in lists.

use std::fmt;

use serde_json::Value;

use crate::read::{Manifest, Source};

/// A Kubernetes object in a manifest, or an item of a list in one. Displayed as messages name it:
/// `PodHardeningPolicy shop/restricted`.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<'a> {
    /// Where it stands.
    pub source: Source,
    /// Its `apiVersion`; empty where it has none.
    pub api_version: &'a str,
    /// Its `kind`; empty where it has none.
    pub kind: &'a str,
    /// All of it.
    pub value: &'a Value,
    /// The JSON pointer to it in the manifest's value: `""`, or `/items/0`.
    pub pointer: String,
}

/// The objects in the manifests, in order, with the items of lists in the lists' place.
///
/// A list is what has `items` and a kind that ends in `List`: `kubectl get -o yaml` writes `List`, the
/// API answers with `NamespaceList` and the like, whose items have no kind of their own.
pub fn objects(manifests: &[Manifest]) -> impl Iterator<Item = Object<'_>> {
    manifests.iter().flat_map(|manifest| {
        let mut found = Vec::new();
        collect(
            &manifest.source,
            &manifest.value,
            String::new(),
            ("", ""),
            &mut found,
        );
        found
    })
}

/// `of_list` is the apiVersion and the kind that an item without its own has.
fn collect<'a>(
    source: &Source,
    value: &'a Value,
    pointer: String,
    of_list: (&'a str, &'a str),
    found: &mut Vec<Object<'a>>,
) {
    let api_version = text(value, "/apiVersion").unwrap_or(of_list.0);
    let kind = text(value, "/kind").unwrap_or(of_list.1);
    let items = value.get("items").and_then(Value::as_array);
    let (Some(item_kind), Some(items)) = (kind.strip_suffix("List"), items) else {
        found.push(Object {
            source: source.clone(),
            api_version,
            kind,
            value,
            pointer,
        });
        return;
    };
    let of_list = match item_kind {
        "" => ("", ""),
        item_kind => (api_version, item_kind),
    };
    for (index, item) in items.iter().enumerate() {
        let source = Source {
            item: Some(index + 1),
            ..source.clone()
        };
        let pointer = format!("{pointer}/items/{index}");
        collect(&source, item, pointer, of_list, found);
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

impl<'a> Object<'a> {
    /// `metadata.name`, where it is there and not empty.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        text(self.value, "/metadata/name").filter(|name| !name.is_empty())
    }

    /// `metadata.namespace`, where it is there and not empty.
    #[must_use]
    pub fn namespace(&self) -> Option<&'a str> {
        text(self.value, "/metadata/namespace").filter(|name| !name.is_empty())
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            "" => "object without a kind",
            kind => kind,
        })?;
        match (self.namespace(), self.name()) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}"),
            (None, Some(name)) => write!(f, " {name}"),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn lists_are_looked_into() {
        let cases: &[(&str, &[&str])] = &[
            (
                "kind: Pod\nmetadata: {name: a, namespace: ns}",
                &["f.yaml: Pod ns/a"],
            ),
            (
                "kind: Namespace\nmetadata: {name: a}",
                &["f.yaml: Namespace a"],
            ),
            ("a: 1", &["f.yaml: object without a kind"]),
            (
                "{kind: List, items: [{kind: Pod}, {kind: List, items: [{kind: Job}]}]}",
                &["f.yaml, item 1: Pod", "f.yaml, item 1: Job"],
            ),
            (
                "{apiVersion: v1, kind: NamespaceList, items: [{metadata: {name: a}}]}",
                &["f.yaml, item 1: Namespace a"],
            ),
            ("{kind: List, items: []}", &[]),
            // A kind of somebody's own that only looks like a list.
            ("kind: AllowList\nspec: {}", &["f.yaml: AllowList"]),
        ];
        for (text, expected) in cases {
            let manifests = parse("f.yaml", text.as_bytes()).unwrap();
            let found: Vec<String> = objects(&manifests)
                .map(|object| format!("{}: {object}", object.source))
                .collect();
            assert_eq!(found, *expected, "{text}");
        }
    }

    #[test]
    fn an_object_is_found_again_by_its_pointer() {
        let text = "{kind: List, items: [{kind: Pod}, {kind: PodList, items: [{a: 1}, {a: 2}]}]}";
        let manifests = parse("f.yaml", text.as_bytes()).unwrap();
        let pointers: Vec<String> = objects(&manifests)
            .map(|object| {
                assert_eq!(
                    manifests[0].value.pointer(&object.pointer),
                    Some(object.value)
                );
                object.pointer
            })
            .collect();
        assert_eq!(
            pointers,
            ["/items/0", "/items/1/items/0", "/items/1/items/1"]
        );
    }

    #[test]
    fn the_items_of_a_typed_list_are_of_its_kind_and_version() {
        let text = "{apiVersion: node.k8s.io/v1, kind: RuntimeClassList, items: [{}]}";
        let manifests = parse("f.yaml", text.as_bytes()).unwrap();
        let object = objects(&manifests).next().unwrap();
        assert_eq!(
            (object.api_version, object.kind),
            ("node.k8s.io/v1", "RuntimeClass")
        );
    }
}
