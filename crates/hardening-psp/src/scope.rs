//! Which pods something is for, by namespace and service account; and who asks for them.

use std::collections::BTreeSet;

/// Names of namespaces, or of service accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Names {
    /// Every one, also those that are not there yet.
    #[default]
    All,
    /// These.
    Only(BTreeSet<String>),
    /// Every one but these.
    AllBut(BTreeSet<String>),
}

/// Which pods something is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodScope {
    /// The pods' namespaces.
    pub namespaces: Names,
    /// The pods' service accounts, in each of the namespaces.
    pub service_accounts: Names,
}

/// Who asks the API server for a pod: people, and controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requesters {
    /// Names of users; a service account is `system:serviceaccount:NAMESPACE:NAME`.
    pub users: BTreeSet<String>,
    /// Names of groups.
    pub groups: BTreeSet<String>,
    /// Names of service accounts of the pod's own namespace, whichever that is.
    pub own_accounts: BTreeSet<String>,
}

// === impl Names ===

impl Names {
    /// Whether a name is one of them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
            Self::AllBut(names) => !names.contains(name),
        }
    }

    /// These and those.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Only(one), Self::Only(two)) => Self::Only(one | two),
            (Self::AllBut(but), Self::Only(names)) | (Self::Only(names), Self::AllBut(but)) => {
                Self::all_but(but - names)
            }
            (Self::AllBut(one), Self::AllBut(two)) => Self::all_but(one & two),
        }
    }

    /// Every one but these, of which there may be none.
    #[must_use]
    pub fn all_but(names: BTreeSet<String>) -> Self {
        match names.is_empty() {
            true => Self::All,
            false => Self::AllBut(names),
        }
    }

    /// These names but for one; `None` where none is left.
    #[must_use]
    pub fn without(&self, name: &str) -> Option<Self> {
        let all_but = |names: &BTreeSet<String>| {
            let mut names = names.clone();
            names.insert(name.to_owned());
            Self::AllBut(names)
        };
        match self {
            Self::All => Some(all_but(&BTreeSet::new())),
            Self::AllBut(names) => Some(all_but(names)),
            Self::Only(names) => {
                let mut names = names.clone();
                names.remove(name);
                (!names.is_empty()).then_some(Self::Only(names))
            }
        }
    }
}

// === impl PodScope ===

impl PodScope {
    /// Whether a pod of this namespace and service account is one of them.
    #[must_use]
    pub fn contains(&self, namespace: &str, service_account: &str) -> bool {
        self.namespaces.contains(namespace) && self.service_accounts.contains(service_account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_has_what_either_has() {
        let set = |names: &str| {
            names
                .chars()
                .map(String::from)
                .collect::<BTreeSet<String>>()
        };
        let mut all = vec![Names::All];
        for names in ["", "a", "ab", "bc"] {
            all.extend([Names::Only(set(names)), Names::AllBut(set(names))]);
        }
        for one in &all {
            for two in &all {
                let union = one.union(two);
                for name in ["a", "b", "c", "d"] {
                    let expected = one.contains(name) || two.contains(name);
                    assert_eq!(union.contains(name), expected, "{one:?} {two:?} {name}");
                }
            }
        }
    }

    #[test]
    fn a_name_can_be_taken_out() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (from, expected) in [
            (Names::All, Some(Names::AllBut(names(&["a"])))),
            (
                Names::AllBut(names(&["b"])),
                Some(Names::AllBut(names(&["a", "b"]))),
            ),
            (
                Names::Only(names(&["a", "b"])),
                Some(Names::Only(names(&["b"]))),
            ),
            (Names::Only(names(&["a"])), None),
        ] {
            assert_eq!(from.without("a"), expected, "{from:?}");
        }
    }

    #[test]
    fn a_pod_is_in_scope_by_both_its_names() {
        let names = || BTreeSet::from(["a".to_owned()]);
        let scope = |namespaces, service_accounts| PodScope {
            namespaces,
            service_accounts,
        };
        for (scope, namespace, service_account, expected) in [
            (PodScope::default(), "a", "b", true),
            (scope(Names::Only(names()), Names::All), "a", "b", true),
            (scope(Names::Only(names()), Names::All), "b", "a", false),
            (scope(Names::AllBut(names()), Names::All), "a", "b", false),
            (scope(Names::All, Names::AllBut(names())), "a", "b", true),
            (scope(Names::All, Names::Only(names())), "a", "b", false),
        ] {
            let found = scope.contains(namespace, service_account);
            assert_eq!(found, expected, "{scope:?} {namespace}/{service_account}");
        }
    }
}
