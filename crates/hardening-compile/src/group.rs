//! Namespaces that have the same policies, in the same order.

use std::collections::{BTreeMap, BTreeSet};

use hardening_engine::{Policy, PolicyKey, PolicySet};

use crate::{ALWAYS_EXCLUDED, Options};

/// Policies that meet, and where.
pub(crate) struct Group<'a> {
    /// In order.
    pub(crate) policies: Vec<&'a Policy>,
    pub(crate) reach: Reach<'a>,
}

/// The namespaces of a group.
pub(crate) enum Reach<'a> {
    /// These, which have just these policies.
    Known(Vec<&'a str>),
    /// This one, of whose labels nothing is known.
    Unlabelled(&'a str),
    /// All but these: those of which nothing is known.
    Others(Vec<String>),
}

impl<'a> Group<'a> {
    /// The namespaces by name; empty for [`Reach::Others`].
    pub(crate) fn namespaces(&self) -> Vec<&'a str> {
        match &self.reach {
            Reach::Known(names) => names.clone(),
            Reach::Unlabelled(name) => vec![name],
            Reach::Others(_) => Vec::new(),
        }
    }
}

/// The groups of a policy set.
pub(crate) fn groups<'a>(set: &'a PolicySet, options: &Options) -> Vec<Group<'a>> {
    let is_excluded =
        |name: &str| name == ALWAYS_EXCLUDED || options.excluded_namespaces.contains(name);
    let known: BTreeSet<&str> = set.namespaces().filter(|name| !is_excluded(name)).collect();
    let mut groups: BTreeMap<Vec<&PolicyKey>, Group<'a>> = BTreeMap::new();
    for &namespace in &known {
        let policies = set.policies_of(namespace);
        let keys: Vec<&PolicyKey> = policies.iter().map(|policy| policy.key()).collect();
        let group = groups.entry(keys).or_insert_with(|| Group {
            policies,
            reach: Reach::Known(Vec::new()),
        });
        if let Reach::Known(namespaces) = &mut group.reach {
            namespaces.push(namespace);
        }
    }
    let unlabelled: BTreeSet<&str> = set
        .policies()
        .filter_map(|policy| policy.key().namespace.as_deref())
        .filter(|name| !known.contains(name) && !is_excluded(name))
        .collect();
    let mut groups: Vec<Group<'a>> = groups.into_values().collect();
    groups.extend(unlabelled.iter().map(|namespace| Group {
        policies: set.policies_possible_in(Some(namespace)),
        reach: Reach::Unlabelled(namespace),
    }));
    let named: BTreeSet<&str> = known.union(&unlabelled).copied().collect();
    let mut for_others = set.policies_possible_in(None);
    for_others.retain(|policy| {
        !policy.names_its_namespaces(|name| named.contains(name) || is_excluded(name))
    });
    let excluded = options.excluded_namespaces.iter().map(String::as_str);
    let all_but = named.into_iter().chain(excluded).chain([ALWAYS_EXCLUDED]);
    groups.push(Group {
        policies: for_others,
        reach: Reach::Others(
            all_but
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        ),
    });
    groups.retain(|group| !group.policies.is_empty());
    groups
}
