//! One pod: what today's policies would fill in, where it stands, and what may stop working.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use hardening_engine::{Plan, Pod, Policy, PolicySet, Target, plan};
use pod_security_standards::{Standing, Version, standing};
use serde_json::Value;

use super::model::{Fill, Level, Missing, Obstacle, Reason, Risk, Withheld};
use super::reason::History;
use super::risk::{Change, risks};
use crate::workload::Workload;

/// All that pods are looked at with.
pub(crate) struct World {
    pub(crate) set: PolicySet,
    /// The same with every policy in mode Enforce; `None`: they are.
    pub(crate) enforcing: Option<PolicySet>,
    pub(crate) version: Version,
    pub(crate) history: History,
    /// The bindings that name a service account, by its namespace and name.
    pub(crate) bindings: BTreeMap<(String, String), Vec<String>>,
}

/// What a pod has to show.
pub(crate) struct Look {
    pub(crate) policies: Vec<Arc<str>>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) audited: Vec<Fill>,
    pub(crate) withheld: Vec<Withheld>,
    pub(crate) today: Level,
    pub(crate) after: Level,
    /// What stands in the way of the level above `after`.
    pub(crate) obstacles: Vec<Obstacle>,
    pub(crate) risks: Vec<Risk>,
}

impl World {
    pub(crate) fn look(&self, workload: &Workload<'_>) -> anyhow::Result<Look> {
        // Says what is wrong with it better than any of the steps below.
        workload.pod()?;
        let mut before = workload.pod.clone();
        hardening_engine::running::renew(&mut before);
        let text = before.to_string();
        let pod = Pod::from_json(&text).with_context(|| workload.title())?;
        let matching = workload.matching(&self.set, &pod)?;
        let plan = plan(&matching, &pod);
        let after = patched(&before, &plan).with_context(|| workload.title())?;
        let enforced = match &self.enforcing {
            Some(set) if !plan.audited.is_empty() => {
                let matching = workload.matching(set, &pod)?;
                let plan = hardening_engine::plan(&matching, &pod);
                patched(&before, &plan).with_context(|| workload.title())?
            }
            _ => after.clone(),
        };
        let standing = |pod: &Value| {
            let pod = pod_security_standards::Pod::from_value(pod);
            let pod = pod.map_err(|error| anyhow!("{}: {error}", workload.title()))?;
            anyhow::Ok(standing(self.version, &pod))
        };
        let today = standing(workload.pod)?.level.into();
        let hardened = standing(&after)?;
        let account = pod.service_account_name().to_owned();
        let bindings = self.bindings.get(&(workload.namespace.clone(), account));
        let change = Change {
            before: &before,
            after: &enforced,
            bindings: bindings.map_or(&[], Vec::as_slice),
        };
        Ok(Look {
            policies: policies(matching.policies()),
            missing: self.missing(workload, &plan),
            audited: plan.audited.iter().map(fill).collect(),
            withheld: plan.withheld.iter().map(withheld).collect(),
            today,
            after: hardened.level.into(),
            obstacles: obstacles(&hardened),
            risks: risks(&change)
                .map(|(row, evidence)| Risk {
                    id: row.id,
                    text: row.text,
                    path: evidence.path,
                    evidence: evidence.says,
                })
                .collect(),
        })
    }

    fn missing(&self, workload: &Workload<'_>, plan: &Plan<'_>) -> Vec<Missing> {
        let is_pod = workload.object.kind == "Pod";
        let missing = plan.fills.iter().map(|found| Missing {
            fill: fill(found),
            reason: match is_pod {
                true => self
                    .history
                    .reason(&workload.namespace, workload.pod, found.policy),
                false => Reason::Template,
            },
        });
        missing.collect()
    }
}

fn patched(pod: &Value, plan: &Plan<'_>) -> anyhow::Result<Value> {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &plan.to_patch())?;
    Ok(pod)
}

fn policies<'p>(policies: impl Iterator<Item = &'p Policy>) -> Vec<Arc<str>> {
    let names = policies.map(|policy| policy.reference().to_string().into());
    names.collect()
}

fn fill(fill: &hardening_engine::Fill<'_>) -> Fill {
    Fill {
        path: fill.path(),
        field: fill.field.name(),
        container: match fill.target {
            Target::Pod => None,
            Target::Container { name, .. } => Some(name.to_owned()),
        },
        value: fill.value_json(),
        policy: fill.policy.to_string(),
    }
}

fn withheld(held: &hardening_engine::Withheld<'_>) -> Withheld {
    Withheld {
        path: held.path(),
        policy: held.policy.to_string(),
        guard: held.guard.name(),
        reason: held.reason().into_owned(),
    }
}

fn obstacles(standing: &Standing) -> Vec<Obstacle> {
    let violations = standing.next.iter().flat_map(|next| &next.violations);
    let obstacles = violations.flat_map(|violation| {
        violation.fields.iter().map(|field| Obstacle {
            check: violation.check.name(),
            text: violation.to_string(),
            path: field.path.clone(),
            value: field.value.as_ref().unwrap_or(&Value::Null).to_string(),
            allowed: field.allowed.to_string(),
        })
    });
    obstacles.collect()
}
