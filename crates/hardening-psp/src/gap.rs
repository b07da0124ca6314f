//! What a Pod Security Standard refuses in a pod although a PSP that is as strict as it was satisfied.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::level::Level;
use crate::pod::{InvalidPod, Pod};
use crate::seccomp;

/// What a level refuses in a pod that no PSP could refuse for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The pod's field, as `spec.containers[0].livenessProbe.httpGet.host`.
    pub field: String,
    /// Why the level refuses it although the PSP was satisfied.
    pub why: &'static str,
    /// The version of the level from which it is refused, where [`VERSION`](crate::level::VERSION) still lets it pass.
    pub from_version: Option<&'static str>,
}

/// A hardened pod as far as levels look where PSPs did not.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Extra {
    os: Option<Os>,
    node_selector: Option<BTreeMap<String, String>>,
    init_containers: Option<Vec<Handlers>>,
    containers: Option<Vec<Handlers>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Os {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Handlers {
    liveness_probe: Option<Handler>,
    readiness_probe: Option<Handler>,
    startup_probe: Option<Handler>,
    lifecycle: Option<Lifecycle>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Option<Handler>,
    pre_stop: Option<Handler>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Handler {
    http_get: Option<Remote>,
    tcp_socket: Option<Remote>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Remote {
    host: Option<String>,
}

/// What a level refuses in a hardened pod although a PSP that stands at that level admitted it.
///
/// # Errors
///
/// Where a field that matters has a value of a type that no pod has there.
pub fn gaps(level: Level, pod: &Value) -> Result<Vec<Gap>, InvalidPod> {
    let given = Pod::read(pod)?;
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let extra = match spec {
        Value::Null => Extra::default(),
        spec => InvalidPod::under("spec", spec)?,
    };
    let mut gaps = Vec::new();
    if level >= Level::Baseline {
        hosts(&extra, &mut gaps);
    }
    if level >= Level::Restricted {
        let found = of_pod(&given, &extra)
            .into_iter()
            .chain(of_containers(&given));
        gaps.extend(found.map(|(field, why)| Gap {
            field,
            why,
            from_version: None,
        }));
    }
    Ok(gaps)
}

/// What "restricted" refuses at pod level.
fn of_pod(given: &Pod, extra: &Extra) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let context = given.context().cloned().unwrap_or_default();
    if context.run_as_non_root == Some(false) {
        found.push((
            "spec.securityContext.runAsNonRoot".to_owned(),
            "refused at pod level even where every container overrides it; a PSP judged only what containers inherit",
        ));
    }
    if context.run_as_user == Some(0) {
        found.push((
            "spec.securityContext.runAsUser".to_owned(),
            "0 is refused at pod level even where every container overrides it; a PSP judged only what containers inherit",
        ));
    }
    let annotated = given.annotation(seccomp::POD_ANNOTATION);
    if context.seccomp_profile.is_none() && annotated.is_some_and(|text| !text.is_empty()) {
        found.push((
            format!("metadata.annotations[{}]", seccomp::POD_ANNOTATION),
            "servers no longer heed the annotation that the PSP was satisfied with, and it keeps the field from being filled in",
        ));
    }
    if extra.is_windows_by_selector_only() {
        found.push((
            "spec.nodeSelector[kubernetes.io/os]".to_owned(),
            "Linux's fields are not filled in for a Windows pod, and the level does without them only where spec.os.name says windows",
        ));
    }
    found
}

/// What it refuses in containers.
fn of_containers(given: &Pod) -> Vec<(String, &'static str)> {
    let is_all = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper) == "ALL"
    };
    let mut found = Vec::new();
    for place in given.containers() {
        let drop = place.container.capabilities().map(|own| own.drop());
        let drop = drop.unwrap_or_default();
        if drop.iter().any(is_all) && !drop.iter().any(|name| name == "ALL") {
            found.push((
                format!(
                    "spec.{}[{}].securityContext.capabilities.drop",
                    place.list, place.index
                ),
                "the level knows no spelling of ALL but this one",
            ));
        }
    }
    found
}

/// Hosts in probes and handlers.
fn hosts(extra: &Extra, gaps: &mut Vec<Gap>) {
    for (list, containers) in [
        ("initContainers", &extra.init_containers),
        ("containers", &extra.containers),
    ] {
        for (index, container) in containers.iter().flatten().enumerate() {
            for (name, handler) in container.all() {
                for (kind, remote) in [
                    ("httpGet", &handler.http_get),
                    ("tcpSocket", &handler.tcp_socket),
                ] {
                    let host = remote.as_ref().and_then(|remote| remote.host.as_deref());
                    if host.is_some_and(|host| !host.is_empty()) {
                        gaps.push(Gap {
                            field: format!("spec.{list}[{index}].{name}.{kind}.host"),
                            why: "no PSP could refuse a host in a probe or handler",
                            from_version: Some("v1.34"),
                        });
                    }
                }
            }
        }
    }
}

// === impl Extra ===

impl Extra {
    fn is_windows_by_selector_only(&self) -> bool {
        let selected = self
            .node_selector
            .as_ref()
            .and_then(|selector| selector.get("kubernetes.io/os"));
        let named = self.os.as_ref().is_some_and(|os| !os.name.is_empty());
        selected.is_some_and(|os| os == "windows") && !named
    }
}

impl Handlers {
    fn all(&self) -> impl Iterator<Item = (&'static str, &Handler)> {
        let lifecycle = self.lifecycle.as_ref();
        [
            ("livenessProbe", self.liveness_probe.as_ref()),
            ("readinessProbe", self.readiness_probe.as_ref()),
            ("startupProbe", self.startup_probe.as_ref()),
            (
                "lifecycle.postStart",
                lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()),
            ),
            (
                "lifecycle.preStop",
                lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()),
            ),
        ]
        .into_iter()
        .filter_map(|(name, handler)| handler.map(|handler| (name, handler)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(level: Level, spec: &Value, expected: &[&str]) {
        let found = gaps(level, &json!({ "spec": spec })).unwrap();
        let fields: Vec<&str> = found.iter().map(|gap| gap.field.as_str()).collect();
        assert_eq!(fields, expected, "{level} {spec}");
    }

    #[test]
    fn a_level_has_the_gaps_of_what_it_refuses() {
        let probe = json!({"tcpSocket": {"host": "10.0.0.1", "port": 1}});
        let spec = json!({
            "securityContext": {"runAsUser": 0},
            "initContainers": [{"name": "a", "readinessProbe": probe, "startupProbe": null}],
            "containers": [{"name": "b", "livenessProbe": {"httpGet": {"host": "", "port": 1}}}],
        });
        check(Level::Privileged, &spec, &[]);
        let host = "spec.initContainers[0].readinessProbe.tcpSocket.host";
        check(Level::Baseline, &spec, &[host]);
        let user = "spec.securityContext.runAsUser";
        check(Level::Restricted, &spec, &[host, user]);
        check(Level::Restricted, &Value::Null, &[]);
    }

    #[test]
    fn what_is_no_pod_is_told_by_its_field() {
        let error = gaps(
            Level::Baseline,
            &json!({"spec": {"nodeSelector": {"os": 1}}}),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "spec.nodeSelector.os: not what a pod has there"
        );
    }
}
