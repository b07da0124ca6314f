//! The pods in manifests: pods themselves, and the templates that controllers make pods of.

use std::error::Error as _;

use anyhow::{Context as _, anyhow};
use hardening_engine::{Matching, Pod, PolicySet, pod_template};
use hardening_manifests::{Manifest, Object, objects};
use json_patch::Patch;
use serde_json::Value;

/// An object that is a pod or makes pods.
#[derive(Debug)]
pub(crate) struct Workload<'m> {
    pub(crate) object: Object<'m>,
    /// Where its pod stands in it, as a JSON pointer.
    pub(crate) pointer: &'static str,
    /// The namespace of its pods.
    pub(crate) namespace: String,
    /// Its pod.
    pub(crate) pod: &'m Value,
    json: String,
}

/// The workloads in manifests. `namespace` is the one of objects that name none.
pub(crate) fn workloads<'m>(manifests: &'m [Manifest], namespace: &str) -> Vec<Workload<'m>> {
    let workload = |object: Object<'m>| {
        let pointer = template(object.api_version, object.kind)?;
        let pod = object.value.pointer(pointer).filter(|pod| !pod.is_null())?;
        Some(Workload {
            namespace: object.namespace().unwrap_or(namespace).to_owned(),
            json: pod.to_string(),
            object,
            pointer,
            pod,
        })
    };
    objects(manifests).filter_map(workload).collect()
}

/// Where the pod stands in Kubernetes' own kinds. Others have such kinds too (Volcano's Job, for one), and
/// what is in them nobody here can know.
fn template(api_version: &str, kind: &str) -> Option<&'static str> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let known = match kind {
        "Pod" | "PodTemplate" | "ReplicationController" => group.is_empty(),
        "Job" | "CronJob" => group == "batch",
        _ => matches!(group, "apps" | "extensions"),
    };
    if known {
        pod_template::pointer(kind)
    } else {
        None
    }
}

impl Workload<'_> {
    /// Its pod, as the engine sees it.
    pub(crate) fn pod(&self) -> anyhow::Result<Pod<'_>> {
        Pod::from_json(&self.json).map_err(|invalid| {
            let prefix = self.pointer.trim_start_matches('/').replace('/', ".");
            let path = match (prefix.as_str(), invalid.path.as_str()) {
                (prefix, "" | ".") => prefix.to_owned(),
                ("", path) => path.to_owned(),
                (prefix, path) => format!("{prefix}.{path}"),
            };
            let cause = invalid
                .source()
                .map(ToString::to_string)
                .unwrap_or_default();
            // The line and column are those of JSON that nobody has seen.
            let cause = cause
                .rsplit_once(" at line ")
                .map_or(cause.as_str(), |(cause, _)| cause);
            anyhow!(
                "{}: {path}: not what a pod has there: {cause}",
                self.title()
            )
        })
    }

    /// The policies for its pod.
    pub(crate) fn matching<'a>(
        &'a self,
        set: &'a PolicySet,
        pod: &Pod<'_>,
    ) -> anyhow::Result<Matching<'a>> {
        set.matching(&self.namespace, pod)
            .with_context(|| self.title())
    }

    /// Where it stands and what it is called, for messages.
    pub(crate) fn title(&self) -> String {
        format!("{}: {}", self.object.source, self.name())
    }

    /// What it is called: `Deployment shop/web`.
    pub(crate) fn name(&self) -> String {
        let name = self.object.name().or_else(|| {
            self.object
                .value
                .pointer("/metadata/generateName")
                .and_then(Value::as_str)
        });
        format!(
            "{} {}/{}",
            self.object.kind,
            self.namespace,
            name.unwrap_or_default()
        )
    }

    /// A patch of the pod as a patch of the object.
    pub(crate) fn patch_of_object(&self, patch: &Patch) -> anyhow::Result<Patch> {
        let mut operations = serde_json::to_value(patch)?;
        for operation in operations.as_array_mut().into_iter().flatten() {
            if let Some(Value::String(path)) = operation.get_mut("path") {
                path.insert_str(0, self.pointer);
            }
        }
        Ok(serde_json::from_value(operations)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_kinds_are_workloads_and_their_namesakes_are_not() {
        let cases = [
            ("v1", "Pod", Some("")),
            ("v1", "PodTemplate", Some("/template")),
            ("v1", "ReplicationController", Some("/spec/template")),
            ("apps/v1", "Deployment", Some("/spec/template")),
            ("apps/v1", "ReplicaSet", Some("/spec/template")),
            ("apps/v1", "StatefulSet", Some("/spec/template")),
            ("apps/v1beta2", "DaemonSet", Some("/spec/template")),
            ("extensions/v1beta1", "Deployment", Some("/spec/template")),
            ("batch/v1", "Job", Some("/spec/template")),
            (
                "batch/v1beta1",
                "CronJob",
                Some("/spec/jobTemplate/spec/template"),
            ),
            ("batch.volcano.sh/v1alpha1", "Job", None),
            ("apps.kruise.io/v1alpha1", "StatefulSet", None),
            ("v1", "Deployment", None),
            ("metrics.k8s.io/v1", "Pod", None),
            ("v1", "Service", None),
        ];
        for (api_version, kind, pointer) in cases {
            assert_eq!(template(api_version, kind), pointer, "{api_version} {kind}");
        }
    }
}
