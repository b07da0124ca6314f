//! A policy as the lint rules look at it.

use std::cmp::Reverse;

use hardening_api::policy::{ContainerKind, Mode, Tier};
use hardening_api::{
    ClusterPodHardeningPolicy, ClusterPodHardeningPolicySpec, PodHardeningPolicy,
    PodHardeningPolicySpec,
};
use hardening_engine::{FIELDS, Field, profile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{Finding, Namespaces, Severity, selector};

/// A policy that the API server would take, and where it stands.
#[derive(Debug)]
pub(crate) struct Linted {
    pub(crate) source: String,
    /// Its kind, namespace and name.
    pub(crate) object: String,
    name: String,
    place: Place,
    priority: i32,
    mode: Mode,
    pod_selector: LabelSelector,
    service_accounts: Vec<String>,
    /// Those that it spells out, then its profile's.
    defaults: Vec<Default>,
}

/// Which namespaces it is for, and so where it stands in the order of policies.
#[derive(Debug)]
enum Place {
    Namespace(String),
    Cluster {
        tier: Tier,
        namespaces: LabelSelector,
    },
}

/// A default that a policy gives.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) field: Field,
    pub(super) level: Level,
    /// Its path in the policy; empty where it is a part of the profile.
    pub(super) path: String,
    pub(super) value: Value,
    /// The containers that it is for; empty: all.
    kinds: Vec<ContainerKind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Pod,
    Container,
}

/// Why one policy goes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Because {
    Tier,
    Priority,
    Name,
}

impl Linted {
    pub(crate) fn namespaced(
        source: String,
        object: String,
        policy: PodHardeningPolicy,
        namespace: &str,
    ) -> Self {
        let PodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = policy;
        let namespace = metadata.namespace.unwrap_or_else(|| namespace.to_owned());
        Self::new(
            source,
            object,
            metadata.name.unwrap_or_default(),
            Place::Namespace(namespace),
            spec,
        )
    }

    pub(crate) fn cluster(
        source: String,
        object: String,
        policy: ClusterPodHardeningPolicy,
    ) -> Self {
        let ClusterPodHardeningPolicy {
            metadata,
            spec,
            status: _,
        } = policy;
        let ClusterPodHardeningPolicySpec {
            namespace_selector,
            tier,
            allow_weakening: _,
            policy,
        } = spec;
        let tier = tier.unwrap_or(Tier::Baseline);
        let place = Place::Cluster {
            tier,
            namespaces: namespace_selector.unwrap_or_default(),
        };
        Self::new(
            source,
            object,
            metadata.name.unwrap_or_default(),
            place,
            policy,
        )
    }

    fn new(
        source: String,
        object: String,
        name: String,
        place: Place,
        spec: PodHardeningPolicySpec,
    ) -> Self {
        let kinds = spec
            .containers
            .as_ref()
            .map(|containers| containers.kinds.clone())
            .unwrap_or_default();
        let mut defaults = defaults(&spec, &kinds, true);
        if let Some(profile) = spec.profile {
            defaults.extend(self::defaults(&profile::spec(profile), &[], false));
        }
        Self {
            source,
            object,
            name,
            place,
            priority: spec.priority.unwrap_or(0),
            mode: spec.mode.unwrap_or(Mode::Enforce),
            pod_selector: spec.pod_selector.unwrap_or_default(),
            service_accounts: spec.service_account_names,
            defaults,
        }
    }

    pub(super) fn is_enforced(&self) -> bool {
        self.mode == Mode::Enforce
    }

    /// All defaults for a field at a level.
    pub(super) fn defaults(&self, field: Field, level: Level) -> impl Iterator<Item = &Default> {
        self.defaults
            .iter()
            .filter(move |default| default.field == field && default.level == level)
    }

    /// The default that decides the value of a field that a container of this kind has in the end.
    pub(super) fn in_container(&self, field: Field, kind: ContainerKind) -> Option<&Default> {
        let own = self
            .defaults(field, Level::Container)
            .find(|default| default.kinds.is_empty() || default.kinds.contains(&kind));
        own.or_else(|| self.defaults(field, Level::Pod).next())
    }

    /// Whether there can be a pod that both are for.
    pub(super) fn can_share_a_pod(&self, other: &Self, namespaces: &Namespaces) -> bool {
        let accounts = &self.service_accounts;
        let share_account = accounts.is_empty()
            || other.service_accounts.is_empty()
            || accounts
                .iter()
                .any(|account| other.service_accounts.contains(account));
        share_account
            && selector::can_select_together(&[&self.pod_selector, &other.pod_selector])
            && self.place.can_share_a_namespace(&other.place, namespaces)
    }

    /// Why this policy goes before another, if it does.
    pub(super) fn goes_before(&self, other: &Self) -> Option<Because> {
        let because = [
            (self.place.rank().cmp(&other.place.rank()), Because::Tier),
            (
                Reverse(self.priority).cmp(&Reverse(other.priority)),
                Because::Priority,
            ),
            (self.name.cmp(&other.name), Because::Name),
        ];
        let (order, because) = because.into_iter().find(|(order, _)| order.is_ne())?;
        order.is_lt().then_some(because)
    }

    /// The tier, for people.
    pub(super) fn tier(&self) -> &'static str {
        match &self.place {
            Place::Cluster {
                tier: Tier::Admin, ..
            } => "tier Admin",
            Place::Namespace(_) => "a namespace's policy",
            Place::Cluster {
                tier: Tier::Baseline,
                ..
            } => "tier Baseline",
        }
    }

    pub(super) fn priority(&self) -> i32 {
        self.priority
    }

    pub(super) fn finding(&self, severity: Severity, field: &str, message: String) -> Finding {
        Finding {
            severity,
            source: self.source.clone(),
            object: self.object.clone(),
            field: field.to_owned(),
            message,
        }
    }
}

impl Place {
    fn rank(&self) -> u8 {
        match self {
            Self::Cluster {
                tier: Tier::Admin, ..
            } => 0,
            Self::Namespace(_) => 1,
            Self::Cluster {
                tier: Tier::Baseline,
                ..
            } => 2,
        }
    }

    fn can_share_a_namespace(&self, other: &Self, namespaces: &Namespaces) -> bool {
        match (self, other) {
            (Self::Namespace(name), _) | (_, Self::Namespace(name)) => {
                let can_be_for = |place: &Self| match place {
                    Self::Namespace(own) => own == name,
                    Self::Cluster {
                        namespaces: selector,
                        ..
                    } => selector::can_select_namespace(selector, name, namespaces.get(name)),
                };
                can_be_for(self) && can_be_for(other)
            }
            (
                Self::Cluster {
                    namespaces: one, ..
                },
                Self::Cluster {
                    namespaces: two, ..
                },
            ) => selector::can_select_the_same_namespace(one, two, namespaces),
        }
    }
}

/// The defaults in a spec, found by the table of fields.
fn defaults(
    spec: &PodHardeningPolicySpec,
    kinds: &[ContainerKind],
    spelled_out: bool,
) -> Vec<Default> {
    // Plain data, which cannot fail to become JSON.
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let mut defaults = Vec::new();
    for row in &FIELDS {
        let levels = [
            (Level::Pod, "pod", row.pod),
            (Level::Container, "containers", row.container),
        ];
        for (level, parent, path) in levels {
            let Some(path) = path.map(|path| format!("{parent}.{path}")) else {
                continue;
            };
            let value = spec.pointer(&format!("/{}", path.replace('.', "/")));
            let Some(value) =
                value.filter(|value| value.as_array().is_none_or(|items| !items.is_empty()))
            else {
                continue;
            };
            defaults.push(Default {
                field: row.field,
                level,
                path: if spelled_out {
                    format!("spec.{path}")
                } else {
                    String::new()
                },
                value: value.clone(),
                kinds: kinds.to_vec(),
            });
        }
    }
    defaults
}

impl Default {
    /// Where the policy says it.
    pub(super) fn path(&self) -> &str {
        match self.path.as_str() {
            "" => "spec.profile",
            path => path,
        }
    }

    pub(super) fn is_spelled_out(&self) -> bool {
        !self.path.is_empty()
    }
}
