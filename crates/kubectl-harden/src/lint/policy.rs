//! A policy as the lint rules look at it.

use std::sync::Arc;

use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy, PodHardeningPolicySpec};
use hardening_engine::{FIELDS, Field, InvalidPolicy, Policy};
use serde_json::Value;

use super::{Finding, Severity};

/// A policy that the API server would take, and where it stands.
#[derive(Debug)]
pub(crate) struct Linted {
    pub(crate) source: String,
    /// Its kind, namespace and name.
    pub(crate) object: String,
    pub(super) policy: Arc<Policy>,
    /// Those that it spells out.
    defaults: Vec<Default>,
}

/// A default that a policy spells out.
#[derive(Debug)]
pub(super) struct Default {
    field: Field,
    level: Level,
    /// Its path in the policy.
    pub(super) path: String,
    pub(super) value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Pod,
    Container,
}

impl Linted {
    /// `namespace` is the one of a policy that names none.
    pub(crate) fn namespaced(
        source: String,
        object: String,
        mut policy: PodHardeningPolicy,
        namespace: &str,
    ) -> Result<Self, InvalidPolicy> {
        let own = &mut policy.metadata.namespace;
        own.get_or_insert_with(|| namespace.to_owned());
        Ok(Self {
            source,
            object,
            policy: Arc::new(Policy::namespaced(&policy)?),
            defaults: defaults(&policy.spec),
        })
    }

    pub(crate) fn cluster(
        source: String,
        object: String,
        policy: &ClusterPodHardeningPolicy,
    ) -> Result<Self, InvalidPolicy> {
        Ok(Self {
            source,
            object,
            policy: Arc::new(Policy::cluster(policy)?),
            defaults: defaults(&policy.spec.policy),
        })
    }

    /// The default for a field that the policy spells out.
    pub(super) fn spelled_out(&self, field: Field, level: Level) -> Option<&Default> {
        self.defaults
            .iter()
            .find(|default| default.field == field && default.level == level)
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

/// The defaults in a spec, found by the table of fields.
fn defaults(spec: &PodHardeningPolicySpec) -> Vec<Default> {
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
                path: format!("spec.{path}"),
                value: value.clone(),
            });
        }
    }
    defaults
}
