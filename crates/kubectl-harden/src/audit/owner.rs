//! Who a pod belongs to in the end: its Deployment rather than its ReplicaSet.

use std::collections::BTreeMap;

use hardening_manifests::Object;
use serde_json::Value;

/// How long a chain of owners may be; Kubernetes' own ones have two links.
const LINKS: usize = 8;

/// An object, as owner references name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// Who owns what.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<Key, Option<Key>>);

impl Key {
    pub(crate) fn new(namespace: &str, kind: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The controller that an object names. A mirror pod's node does not own it in this sense.
    pub(crate) fn controller_of(object: &Value, namespace: &str) -> Option<Self> {
        let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
        let is_controller = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
        let owner = owners.iter().find(is_controller)?;
        let text = |key| owner.get(key).and_then(Value::as_str);
        let (kind, name) = (text("kind")?, text("name")?);
        (kind != "Node").then(|| Self::new(namespace, kind, name))
    }

    /// The owner that its name gives away: a Deployment's ReplicaSet ends in the hash that its pods are
    /// labelled with, a CronJob's Job in the minute of its run.
    pub(crate) fn owner_by_name(&self, hash: Option<&str>) -> Option<Self> {
        let (owner, end) = self.name.rsplit_once('-')?;
        let kind = match self.kind.as_str() {
            "ReplicaSet" if Some(end) == hash => "Deployment",
            "Job" if end.len() == 8 && end.bytes().all(|byte| byte.is_ascii_digit()) => "CronJob",
            _ => return None,
        };
        Some(Self::new(&self.namespace, kind, owner))
    }
}

impl Owners {
    /// Adds an object. `kind` is said, as that of metadata alone is another.
    pub(crate) fn insert(&mut self, object: &Object<'_>, kind: &str, namespace: &str) {
        let namespace = object.namespace().unwrap_or(namespace);
        let key = Key::new(namespace, kind, object.name().unwrap_or_default());
        let owner = Key::controller_of(object.value, namespace);
        self.0.insert(key, owner);
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The end of the chain that begins with an object.
    pub(crate) fn top<'k>(&'k self, key: &'k Key) -> &'k Key {
        let mut top = key;
        for _ in 0..LINKS {
            match self.0.get(top) {
                Some(Some(owner)) => top = owner,
                _ => break,
            }
        }
        top
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_controller_is_the_owner_and_a_node_is_not() {
        let owned = |owners: Value| {
            let object = json!({"metadata": {"ownerReferences": owners}});
            Key::controller_of(&object, "shop").map(|key| format!("{} {}", key.kind, key.name))
        };
        let other = json!({"kind": "Backup", "name": "b"});
        let set = json!({"kind": "ReplicaSet", "name": "web-1", "controller": true});
        let node = json!({"kind": "Node", "name": "n", "controller": true});
        assert_eq!(owned(json!([other, set])).unwrap(), "ReplicaSet web-1");
        assert_eq!(owned(json!([other])), None);
        assert_eq!(owned(json!([node])), None);
    }

    #[test]
    fn names_give_owners_away_only_where_they_are_made_by_them() {
        for (kind, name, hash, expected) in [
            (
                "ReplicaSet",
                "web-api-5d4f",
                Some("5d4f"),
                Some("Deployment web-api"),
            ),
            ("ReplicaSet", "web-5d4f", Some("other"), None),
            ("ReplicaSet", "web-5d4f", None, None),
            ("Job", "report-29384756", None, Some("CronJob report")),
            ("Job", "report-2026", None, None),
            ("Job", "report", None, None),
            ("StatefulSet", "db-29384756", None, None),
        ] {
            let owner = Key::new("shop", kind, name).owner_by_name(hash);
            let owner = owner.map(|key| format!("{} {}", key.kind, key.name));
            assert_eq!(owner.as_deref(), expected, "{kind} {name}");
        }
    }

    #[test]
    fn a_chain_of_owners_is_followed_to_its_end_even_if_it_has_none() {
        let mut owners = Owners::default();
        let key = |name: &str| Key::new("shop", "Thing", name);
        for (owned, owner) in [
            ("a", Some("b")),
            ("b", Some("c")),
            ("x", Some("y")),
            ("y", Some("x")),
        ] {
            owners.0.insert(key(owned), owner.map(key));
        }
        assert_eq!(owners.top(&key("a")).name, "c");
        assert_eq!(owners.top(&key("alone")).name, "alone");
        assert!(["x", "y"].contains(&owners.top(&key("x")).name.as_str()));
    }
}
