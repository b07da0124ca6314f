//! A policy compiled: the spec is what was typed, this is what it means. Compiling is the only step that
//! can fail, and it runs when a policy changes, not when a pod arrives.

use std::cmp::Reverse;
use std::fmt;

use hardening_api::policy::{ClusterPodHardeningPolicySpec, ContainerKind, ListMerge, Mode, Tier};
use hardening_api::{
    ClusterPodHardeningPolicy, PodHardeningPolicy, PodHardeningPolicySpec, PolicyKind, Violation,
    violations,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value, json};

use crate::defaults::{self, Level, PolicyDefault};
use crate::field::{Field, FieldSet};
use crate::policy_set::NAME_LABEL;
use crate::profile;
use crate::selector::Selector;

/// A spec that means nothing, or something that it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", list(.violations))]
pub struct InvalidPolicy {
    /// What is wrong, field by field.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Which policy, in which version: what provenance names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyRef {
    /// The policy's namespace; `None` for a cluster policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`; 1, the first, where it has none because it comes from a file.
    pub generation: i64,
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A pod's record has it: the machinery of `write!` would take longer than all the rest of the record.
        if let Some(namespace) = &self.namespace {
            f.write_str(namespace)?;
            f.write_str("/")?;
        }
        f.write_str(&self.name)?;
        f.write_str("@")?;
        f.write_str(itoa::Buffer::new().format(self.generation))
    }
}

/// Which policy, in whatever version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The policy's namespace; `None` for a cluster policy.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl PolicyKey {
    /// Of a policy that an API server has: it names every object, and puts none that is not a cluster's outside of a
    /// namespace.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// A policy compiled.
#[derive(Debug)]
pub struct Policy {
    reference: PolicyRef,
    key: PolicyKey,
    mode: Mode,
    /// The order among policies, lowest first: tier, priority, name.
    pub(crate) rank: (Order, Reverse<i32>),
    pub(crate) pod_selector: Selector,
    pub(crate) namespace_selector: Selector,
    /// Empty: all.
    pub(crate) service_accounts: Box<[Box<str>]>,
    /// Whether items that a list of the author's lacks are added to it.
    pub(crate) union: bool,
    kinds: Box<[ContainerKind]>,
    defaults: Box<[PolicyDefault]>,
    profile: &'static [PolicyDefault],
    /// The fields of `defaults` and of `profile` at pod level, so that those without a default need no search.
    pod_fields: FieldSet,
    /// Likewise in containers, of whatever kind.
    container_fields: FieldSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    Admin,
    Namespace,
    Baseline,
}

// === impl Policy ===

impl Policy {
    /// Compiles a policy that comes as it is and not as its type: one that an older schema let in, or that
    /// somebody put past the schema, is still an object with a name, and what is wrong with it is told by
    /// its fields' names.
    ///
    /// # Errors
    ///
    /// Where the API server's schema and rules would refuse it, or it is not what the kind's type can hold.
    pub fn from_object(kind: PolicyKind, object: &Value) -> Result<Self, InvalidPolicy> {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let metadata = Option::<ObjectMeta>::deserialize(metadata).map_err(|error| {
            let violation = Violation {
                path: "metadata".to_owned(),
                message: error.to_string(),
            };
            InvalidPolicy {
                violations: vec![violation],
            }
        })?;
        let metadata = metadata.unwrap_or_default();
        Self::of_object(key(kind, &metadata), metadata.generation, object)
    }

    /// As [`Self::from_object`], where no more than the spec of the object is at hand.
    ///
    /// # Errors
    ///
    /// As [`Self::from_object`].
    pub fn from_spec(
        key: PolicyKey,
        generation: Option<i64>,
        spec: Value,
    ) -> Result<Self, InvalidPolicy> {
        let object = Map::from_iter([("spec".to_owned(), spec)]);
        Self::of_object(key, generation, &Value::Object(object))
    }

    fn of_object(
        key: PolicyKey,
        generation: Option<i64>,
        object: &Value,
    ) -> Result<Self, InvalidPolicy> {
        match key.namespace {
            Some(_) => {
                let spec = typed(PolicyKind::Namespaced, object)?;
                Ok(Self::of_namespace(key, generation, &spec))
            }
            None => {
                let spec = typed(PolicyKind::Cluster, object)?;
                Ok(Self::of_cluster(key, generation, &spec))
            }
        }
    }

    /// Compiles a namespace's policy.
    ///
    /// # Errors
    ///
    /// Where the API server's schema and rules would refuse it.
    pub fn namespaced(object: &PodHardeningPolicy) -> Result<Self, InvalidPolicy> {
        let PodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = object;
        validate(PolicyKind::Namespaced, spec)?;
        let key = key(PolicyKind::Namespaced, metadata);
        Ok(Self::of_namespace(key, metadata.generation, spec))
    }

    /// Compiles a cluster policy.
    ///
    /// # Errors
    ///
    /// Where the API server's schema and rules would refuse it.
    pub fn cluster(object: &ClusterPodHardeningPolicy) -> Result<Self, InvalidPolicy> {
        let ClusterPodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = object;
        validate(PolicyKind::Cluster, spec)?;
        let key = key(PolicyKind::Cluster, metadata);
        Ok(Self::of_cluster(key, metadata.generation, spec))
    }

    /// Of a spec that nothing is wrong with.
    fn of_namespace(
        key: PolicyKey,
        generation: Option<i64>,
        spec: &PodHardeningPolicySpec,
    ) -> Self {
        Self::compile(key, generation, spec, Order::Namespace, Selector::default())
    }

    /// As [`Self::of_namespace`].
    fn of_cluster(
        key: PolicyKey,
        generation: Option<i64>,
        spec: &ClusterPodHardeningPolicySpec,
    ) -> Self {
        let ClusterPodHardeningPolicySpec {
            namespace_selector,
            tier,
            allow_weakening: _,
            policy,
        } = spec;
        let order = match tier.unwrap_or(Tier::Baseline) {
            Tier::Admin => Order::Admin,
            Tier::Baseline => Order::Baseline,
        };
        let namespaces = Selector::compile(namespace_selector.as_ref());
        Self::compile(key, generation, policy, order, namespaces)
    }

    fn compile(
        key: PolicyKey,
        generation: Option<i64>,
        spec: &PodHardeningPolicySpec,
        order: Order,
        namespace_selector: Selector,
    ) -> Self {
        let PodHardeningPolicySpec {
            mode,
            priority,
            pod_selector,
            service_account_names,
            profile,
            list_merge,
            pod: _,
            containers,
        } = spec;
        let reference = PolicyRef {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            generation: generation.unwrap_or(1),
        };
        let defaults = defaults::compile(spec, None);
        let profile = profile.map_or(&[][..], profile::compiled);
        let (mut pod_fields, mut container_fields) = (FieldSet::default(), FieldSet::default());
        for default in defaults.iter().chain(profile) {
            match default.level {
                Level::Pod => pod_fields.insert(default.field),
                Level::Container => container_fields.insert(default.field),
            }
        }
        Self {
            reference,
            key,
            mode: mode.unwrap_or(Mode::Enforce),
            rank: (order, Reverse(priority.unwrap_or(0))),
            pod_selector: Selector::compile(pod_selector.as_ref()),
            namespace_selector,
            service_accounts: service_account_names
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            union: list_merge.unwrap_or(ListMerge::Keep) == ListMerge::Union,
            kinds: containers
                .iter()
                .flat_map(|containers| containers.kinds.iter().copied())
                .collect(),
            defaults,
            profile,
            pod_fields,
            container_fields,
        }
    }

    /// Which policy this is, for provenance.
    #[must_use]
    pub fn reference(&self) -> &PolicyRef {
        &self.reference
    }

    /// Which policy this is, whatever its version.
    #[must_use]
    pub fn key(&self) -> &PolicyKey {
        &self.key
    }

    /// Whether it fills in or only tells.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether its namespace selector selects by name, and only names of which this holds.
    #[must_use]
    pub fn names_its_namespaces(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.namespace_selector
            .required_labels()
            .is_some_and(|(key, names)| {
                **key == *NAME_LABEL && names.iter().all(|name| holds(name))
            })
    }

    /// The fields it gives a default for, spelled out or by its profile, at either level.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.all_defaults().map(|default| default.field)
    }

    /// The service accounts that it is for; empty: all.
    pub(crate) fn service_accounts(&self) -> &[Box<str>] {
        &self.service_accounts
    }

    /// As [`Self::fields`], as a set.
    pub(crate) fn field_set(&self) -> FieldSet {
        self.pod_fields.union(self.container_fields)
    }

    pub(crate) fn is_for_service_account(&self, name: &str) -> bool {
        self.service_accounts.is_empty() || self.service_accounts.iter().any(|one| &**one == name)
    }

    /// What sorts policies into the order in which they are asked.
    pub(crate) fn order(&self) -> impl Ord + '_ {
        (self.rank, self.key.name.as_str())
    }

    /// The default for a field at pod level: what is spelled out goes before the profile's.
    pub(crate) fn pod_default(&self, field: Field) -> Option<&PolicyDefault> {
        if !self.pod_fields.contains(field) {
            return None;
        }
        self.all_defaults()
            .find(|default| default.field == field && default.level == Level::Pod)
    }

    /// The default for a field in a container of a kind. The kinds that a policy names are those of the
    /// defaults it spells out; a profile is for all.
    pub(crate) fn container_default(
        &self,
        field: Field,
        kind: ContainerKind,
    ) -> Option<&PolicyDefault> {
        if !self.container_fields.contains(field) {
            return None;
        }
        self.container_defaults(field, kind).next()
    }

    /// As [`Self::container_default`], all of them: for lists, which are combined.
    pub(crate) fn container_defaults(
        &self,
        field: Field,
        kind: ContainerKind,
    ) -> impl Iterator<Item = &PolicyDefault> {
        let named = self.kinds.is_empty() || self.kinds.contains(&kind);
        self.all_defaults().filter(move |default| {
            default.field == field
                && default.level == Level::Container
                && (named || default.profile.is_some())
        })
    }

    /// As [`Self::pod_default`], all of them: for lists, which are combined.
    pub(crate) fn pod_defaults(&self, field: Field) -> impl Iterator<Item = &PolicyDefault> {
        self.all_defaults()
            .filter(move |default| default.field == field && default.level == Level::Pod)
    }

    /// The defaults for a field in containers, of whatever kind.
    pub(crate) fn defaults_of_containers(
        &self,
        field: Field,
    ) -> impl Iterator<Item = &PolicyDefault> {
        self.all_defaults()
            .filter(move |default| default.field == field && default.level == Level::Container)
    }

    fn all_defaults(&self) -> impl Iterator<Item = &PolicyDefault> {
        self.defaults.iter().chain(self.profile)
    }
}

/// Which policy an object is; a namespaced one without a namespace, as in a file, is of `default`.
fn key(kind: PolicyKind, metadata: &ObjectMeta) -> PolicyKey {
    let PolicyKey { namespace, name } = PolicyKey::of(metadata);
    let namespace = match kind {
        PolicyKind::Namespaced => namespace.or_else(|| Some("default".to_owned())),
        PolicyKind::Cluster => None,
    };
    PolicyKey { namespace, name }
}

/// The object's spec as its type; or all that is wrong with the object, which the error of a failed
/// deserialisation alone does not tell.
fn typed<S>(kind: PolicyKind, object: &Value) -> Result<S, InvalidPolicy>
where
    S: DeserializeOwned + Serialize,
{
    let mut violations = violations(kind, object);
    let spec = object.get("spec").unwrap_or(&Value::Null);
    match S::deserialize(spec) {
        Ok(spec) => {
            // What the schema takes as it is need not be looked at again as its type: that would take longer than all
            // else, for each of ten thousand policies at a start. What it does not take may have members of a newer
            // schema.
            if !violations.is_empty() {
                validate(kind, &spec)?;
            }
            Ok(spec)
        }
        Err(error) => {
            if violations.is_empty() {
                violations.push(Violation {
                    path: "spec".to_owned(),
                    message: error.to_string(),
                });
            }
            Err(InvalidPolicy { violations })
        }
    }
}

fn validate(kind: PolicyKind, spec: &impl Serialize) -> Result<(), InvalidPolicy> {
    let violations = violations(kind, &json!({ "spec": spec }));
    if violations.is_empty() {
        Ok(())
    } else {
        Err(InvalidPolicy { violations })
    }
}
