//! How each shape of field is filled: who decides, at which level, and past which guard.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::check;
use crate::defaults::{Level, PolicyDefault, Value};
use crate::field::{FIELDS, Field, FieldRow, FieldSet, Shape};
use crate::guard::Guard;
use crate::plan::{Fill, FillValue, Items, Target, Withheld};
use crate::policy::Policy;
use crate::policy_set::Matching;
use crate::state::{At, State};

/// A pass over all fields for a list of policies.
pub(crate) struct Pass<'p, 'a> {
    pub(crate) state: State<'a>,
    pub(crate) matching: &'p Matching<'a>,
    pub(crate) policies: &'p [&'a Policy],
    /// What the API server may add to the pod's annotations, in bytes, whichever of the policies' defaults are
    /// filled in: [`check::app_armor_bytes`].
    pub(crate) app_armor_bytes: usize,
    pub(crate) fills: Vec<Fill<'a>>,
    pub(crate) withheld: Vec<Withheld<'a>>,
}

/// A default that is about to be filled in, and how far from the front its policy stands.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) rank: usize,
    pub(crate) policy: &'a Policy,
    pub(crate) default: &'a PolicyDefault,
}

/// What a list holds, as [`crate::defaults::Item::key`] says it; few have more.
type Keys<'a> = SmallVec<[Cow<'a, str>; 4]>;

/// Fills every field of the table that a policy has a default for.
pub(crate) fn run<'p, 'a>(pass: &mut Pass<'p, 'a>, policies: &'p [&'a Policy]) {
    pass.policies = policies;
    pass.app_armor_bytes = check::app_armor_bytes(pass);
    let sets = policies.iter().map(|policy| policy.field_set());
    let wanted = sets.fold(FieldSet::default(), FieldSet::union);
    for row in FIELDS.iter().filter(|row| wanted.contains(row.field)) {
        match (row.shape, row.is_two_level(), row.pod.is_some()) {
            (Shape::Single, true, _) => pass.two_levels(row),
            (Shape::Single, false, true) => pass.pod_single(row.field),
            (Shape::Single, false, false) => pass.container_single(row.field),
            (Shape::List, _, true) => pass.pod_list(row.field),
            (Shape::List, _, false) => pass.container_list(row.field),
            (Shape::Paths, ..) => pass.paths(row.field),
        }
    }
}

impl<'p, 'a> Pass<'p, 'a> {
    pub(crate) fn new(state: State<'a>, matching: &'p Matching<'a>) -> Self {
        Self {
            state,
            matching,
            policies: &[],
            app_armor_bytes: 0,
            fills: Vec::new(),
            withheld: Vec::new(),
        }
    }

    fn candidates<D>(
        &self,
        default: impl Fn(&'a Policy) -> Option<D>,
    ) -> Option<(usize, &'a Policy, D)> {
        let mut ranked = self.policies.iter().enumerate();
        ranked.find_map(|(rank, policy)| default(policy).map(|found| (rank, *policy, found)))
    }

    fn pod_candidate(&self, field: Field) -> Option<Candidate<'a>> {
        let (rank, policy, default) = self.candidates(|policy| policy.pod_default(field))?;
        Some(Candidate {
            rank,
            policy,
            default,
        })
    }

    fn container_candidate(&self, field: Field, i: usize) -> Option<Candidate<'a>> {
        let kind = self.state.containers.get(i)?.kind;
        let (rank, policy, default) =
            self.candidates(|policy| policy.container_default(field, kind))?;
        Some(Candidate {
            rank,
            policy,
            default,
        })
    }

    /// Who decides a field that exists at both levels for a container that leaves it open: the first
    /// policy that says anything at either level, its container value before its pod value.
    pub(crate) fn decision(&self, field: Field, i: usize) -> Option<Candidate<'a>> {
        let container = self.state.containers.get(i)?;
        if container.slot.has.contains(field) || self.state.authors.contains(field) {
            return None;
        }
        let kind = container.kind;
        let (rank, policy, default) = self.candidates(|policy| {
            policy
                .container_default(field, kind)
                .or_else(|| policy.pod_default(field))
        })?;
        Some(Candidate {
            rank,
            policy,
            default,
        })
    }

    /// What any of the policies says of a field for a container, at either level.
    pub(crate) fn values_for(&self, field: Field, i: usize) -> impl Iterator<Item = &'a Value> {
        let kind = self.state.containers.get(i).map(|container| container.kind);
        self.policies.iter().flat_map(move |policy| {
            let own = kind.and_then(|kind| policy.container_default(field, kind));
            own.into_iter()
                .chain(policy.pod_default(field))
                .map(|default| &default.value)
        })
    }

    fn target(&self, at: At) -> Target<'a> {
        let container = match at {
            At::Pod => None,
            At::Container(i) => self.state.containers.get(i),
        };
        container.map_or(Target::Pod, |container| Target::Container {
            kind: container.kind,
            index: container.index,
            name: container.container.name.as_str(),
        })
    }

    fn accept(&mut self, at: At, candidate: &Candidate<'a>) {
        let PolicyDefault { field, value, .. } = candidate.default;
        self.state.set(at, *field, value);
        self.fill(at, candidate, FillValue::Single(value));
    }

    fn fill(&mut self, at: At, candidate: &Candidate<'a>, value: FillValue<'a>) {
        let PolicyDefault { field, profile, .. } = candidate.default;
        if self.fills.is_empty() {
            // What a pod is given that was given nothing before: some fields for itself, some for each container.
            self.fills.reserve(4 * (self.state.containers.len() + 1));
        }
        let target = self.target(at);
        let fill = Fill::new(target, *field, candidate.policy, *profile, value);
        self.fills.push(fill);
    }

    fn hold(&mut self, at: At, candidate: &Candidate<'a>, item: Option<&'a str>, guard: Guard) {
        let target = self.target(at);
        let policy = candidate.policy.reference();
        self.withheld.push(Withheld {
            target,
            field: candidate.default.field,
            item,
            policy,
            guard,
        });
    }

    /// Fills a value in unless a guard holds it back; which one, if any.
    #[inline(never)]
    fn attempt(
        &mut self,
        at: At,
        candidate: &Candidate<'a>,
        inheritors: &[usize],
    ) -> Result<(), Guard> {
        match check::value(self, at, candidate, inheritors) {
            None => {
                self.accept(at, candidate);
                Ok(())
            }
            Some(guard) => {
                self.hold(at, candidate, None, guard);
                Err(guard)
            }
        }
    }

    fn container_indices(&self) -> std::ops::Range<usize> {
        0..self.state.containers.len()
    }

    // --- single values ---

    fn pod_single(&mut self, field: Field) {
        if self.state.pod_level.has.contains(field) {
            return;
        }
        if let Some(candidate) = self.pod_candidate(field) {
            // A guard that holds it back has said so.
            let _ = self.attempt(At::Pod, &candidate, &[]);
        }
    }

    fn container_single(&mut self, field: Field) {
        for i in self.container_indices() {
            let open = self
                .state
                .containers
                .get(i)
                .is_some_and(|c| !c.slot.has.contains(field));
            if let Some(candidate) = self.container_candidate(field, i).filter(|_| open) {
                let _ = self.attempt(At::Container(i), &candidate, &[]);
            }
        }
    }

    fn two_levels(&mut self, row: &FieldRow) {
        let field = row.field;
        for i in self.container_indices() {
            if let Some(decision) = self.decision(field, i)
                && decision.default.level == Level::Container
            {
                let _ = self.attempt(At::Container(i), &decision, &[]);
            }
        }
        let Some(candidate) = self.pod_candidate(field) else {
            return;
        };
        if self.state.pod_level.has.contains(field) {
            return;
        }
        let open = |i: &usize| {
            self.state
                .containers
                .get(*i)
                .is_some_and(|c| !c.slot.has.contains(field))
        };
        let inheritors: SmallVec<[usize; 8]> = self.container_indices().filter(open).collect();
        let spread = [
            Guard::RunsAsRoot,
            Guard::NonRootDemanded,
            Guard::GroupWithoutUser,
        ];
        if self
            .attempt(At::Pod, &candidate, &inheritors)
            .is_err_and(|guard| spread.contains(&guard))
        {
            // What cannot stand at pod level, because of some of the containers or because it needs
            // something else at that level, is written on the containers that can take it.
            for i in inheritors {
                if let Some(decision) = self.decision(field, i)
                    && decision.default.level == Level::Pod
                {
                    let _ = self.attempt(At::Container(i), &decision, &[]);
                }
            }
        }
    }

    // --- lists ---

    fn pod_list(&mut self, field: Field) {
        let present = match (field, &self.state.spec.security_context) {
            (Field::SupplementalGroups, Some(context)) => {
                let groups = context.supplemental_groups.iter().flatten();
                groups.map(|group| Cow::Owned(group.to_string())).collect()
            }
            (Field::Sysctls, Some(context)) => {
                let sysctls = context.sysctls.iter().flatten();
                sysctls
                    .map(|sysctl| sysctl_key(sysctl.name.as_str()))
                    .collect()
            }
            _ => Keys::new(),
        };
        self.list(At::Pod, field, present, |policy| policy.pod_defaults(field));
    }

    fn container_list(&mut self, field: Field) {
        for i in self.container_indices() {
            let Some(state) = self.state.containers.get(i) else {
                continue;
            };
            let (kind, container) = (state.kind, state.container);
            let names = if field == Field::CapabilitiesDrop {
                container.drops()
            } else {
                container.adds()
            };
            let present = names
                .unwrap_or_default()
                .iter()
                .map(|name| capability_key(name.as_str()))
                .collect();
            self.list(At::Container(i), field, present, |policy| {
                policy.container_defaults(field, kind)
            });
        }
    }

    /// Combines the policies' items, first policy first. Where the author wrote the list, only policies
    /// that ask for it add what is missing.
    fn list<D: Iterator<Item = &'a PolicyDefault>>(
        &mut self,
        at: At,
        field: Field,
        mut present: Keys<'a>,
        defaults: impl Fn(&'a Policy) -> D,
    ) {
        let written = self.state.slot(at).written.contains(field);
        present.extend(self.state.filled_items(at, field).map(Cow::Borrowed));
        for (rank, &policy) in self.policies.iter().enumerate() {
            if written && !policy.union {
                continue;
            }
            for default in defaults(policy) {
                let candidate = Candidate {
                    rank,
                    policy,
                    default,
                };
                let mut added = Items::new();
                for item in default.value.items() {
                    if present.iter().any(|key| **key == *item.key) {
                        continue;
                    }
                    match check::item(self, at, &candidate, item) {
                        None => {
                            // One policy, too, may say the same in two spellings.
                            present.push(Cow::Borrowed(&*item.key));
                            added.push(item);
                        }
                        Some(guard) => self.hold(at, &candidate, Some(&item.key), guard),
                    }
                }
                self.accept_items(at, &candidate, added);
            }
        }
    }

    fn accept_items(&mut self, at: At, candidate: &Candidate<'a>, items: Items<'a>) {
        if items.is_empty() {
            return;
        }
        let PolicyDefault { field, value, .. } = candidate.default;
        self.state.set(at, *field, value);
        if *field == Field::SupplementalGroups {
            items
                .iter()
                .filter_map(|item| item.key.parse().ok())
                .for_each(|id| self.state.note_id(id));
        }
        self.state
            .filled_items
            .extend(items.iter().map(|item| (at, *field, &*item.key)));
        self.fill(at, candidate, FillValue::Items(items));
    }

    // --- paths ---

    /// Keeps paths writable in the containers whose root filesystem this very plan makes read-only.
    fn paths(&mut self, field: Field) {
        for i in self.container_indices() {
            let Some(state) = self.state.containers.get(i).filter(|c| c.made_read_only) else {
                continue;
            };
            let kind = state.kind;
            self.list(At::Container(i), field, Keys::new(), |policy| {
                policy.container_defaults(field, kind)
            });
        }
    }
}

/// A capability as guards compare it: `CAP_NET_RAW` and `net_raw` are `NET_RAW`.
pub(crate) fn capability_key(name: &str) -> Cow<'_, str> {
    let upper = match name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Owned(name.to_ascii_uppercase()),
        false => Cow::Borrowed(name),
    };
    match upper {
        Cow::Borrowed(name) => Cow::Borrowed(name.strip_prefix("CAP_").unwrap_or(name)),
        Cow::Owned(name) => {
            Cow::Owned(name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name))
        }
    }
}

/// A sysctl's name with dots between its parts. Whichever of dot and slash comes first is the separator,
/// and the other one is then part of a name, as in `net/ipv4/conf/eth0.100/rp_filter` (sysctl.d(5)).
pub(crate) fn sysctl_key(name: &str) -> Cow<'_, str> {
    match name.find(['.', '/']) {
        Some(i) if name.get(i..=i) == Some("/") => {
            let swap = |c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            };
            Cow::Owned(name.chars().map(swap).collect())
        }
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_compared_by_what_they_are() {
        for (name, key) in [
            ("NET_RAW", "NET_RAW"),
            ("CAP_NET_RAW", "NET_RAW"),
            ("cap_net_raw", "NET_RAW"),
            ("all", "ALL"),
        ] {
            assert_eq!(capability_key(name), key);
        }
    }

    #[test]
    fn sysctls_are_compared_by_what_they_are() {
        for (name, key) in [
            ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
            ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
            (
                "net/ipv4/conf/eth0.100/rp_filter",
                "net.ipv4.conf.eth0/100.rp_filter",
            ),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                "net.ipv4.conf.eth0/100.rp_filter",
            ),
            ("vm", "vm"),
        ] {
            assert_eq!(sysctl_key(name), key);
        }
    }
}
