//! Pods in files: dumps of clusters, or manifests that were not applied yet.

use std::collections::BTreeMap;

use anyhow::bail;
use hardening_manifests::{Manifest, objects};
use serde_json::Value;

use super::look::World;
use super::model::{Audit, Notice, Subject};
use super::owner::{Key, Owners};
use super::tally::Tally;
use super::world::{is_policy, world};
use super::{Audited, Scope};
use crate::output::Problems;
use crate::source::{add_unknown, alone};
use crate::workload::{Workload, workloads};

/// Audits what is in manifests, with these policies and those among them. `namespace` is the one of objects
/// that name none.
pub(crate) fn dump(
    input: &[Manifest],
    policies: &[Manifest],
    namespace: &str,
    scope: &Scope,
) -> anyhow::Result<Audited> {
    let mut known = policies.to_vec();
    let of_input = objects(input).filter(is_policy);
    known.extend(of_input.map(|object| alone(&object, object.source.clone())));
    add_unknown(&mut known, input, namespace);
    let (world, problems) = world(&known, input, namespace, scope.kubernetes, false);
    if !problems.is_empty() {
        bail!(Problems(problems));
    }
    let mut notices = Vec::new();
    if world.set.policy_count() == 0 {
        notices.push(Notice {
            text: "there are no policies in these files, so that nothing would be filled in: give them with --policies".to_owned(),
            affects: vec![Subject::Missing, Subject::Reasons, Subject::Risks],
        });
    }
    let mut owners = Owners::default();
    for object in objects(input) {
        owners.insert(&object, object.kind, namespace);
    }
    let found = workloads(input, namespace);
    let mut errors = Vec::new();
    let mut tally = Tally::default();
    let (pods, templates): (Vec<_>, Vec<_>) = found
        .iter()
        .filter(|workload| scope.includes(workload))
        .partition(|workload| workload.object.kind == "Pod");
    let mut add =
        |tally: &mut Tally, workload: &Workload<'_>, world: &World| match world.look(workload) {
            Ok(look) => tally.add(workload, look),
            Err(error) => errors.push(format!("{error:#}")),
        };
    for pod in pods {
        add(&mut tally, pod, &world);
    }
    // A template counts where there is no pod of it; one that has an owner is the owner's.
    let tops = tally.tops(&owners);
    for template in templates {
        let object = &template.object;
        let name = object.name().unwrap_or_default();
        let key = Key::new(&template.namespace, object.kind, name);
        if !tops.contains(&key) && owners.top(&key) == &key {
            add(&mut tally, template, &world);
        }
    }
    if !errors.is_empty() {
        notices.push(Notice {
            text: format!("{} of {} pods could not be read", errors.len(), found.len()),
            affects: vec![Subject::Pods],
        });
    }
    let workloads = tally.finish(&owners);
    let enforced = world.history.enforced();
    Ok(Audited {
        audit: Audit::new(workloads, &enforced, world.version.to_string(), notices),
        warnings: Vec::new(),
        errors,
    })
}

impl Scope {
    /// Whether a pod, or the pods of a template, are to be looked at.
    fn includes(&self, workload: &Workload<'_>) -> bool {
        let namespace = self.namespace.as_ref();
        let is_there = namespace.is_none_or(|namespace| *namespace == workload.namespace);
        let Some(selector) = &self.selector else {
            return is_there;
        };
        let labels = workload.pod.pointer("/metadata/labels");
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let labels: BTreeMap<String, String> = labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        is_there && selector.matches(&labels)
    }
}
