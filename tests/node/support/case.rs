//! A case: a policy, a pod, and what must come of it.

use serde_json::{Value, json};
use test_control_plane::Image;

use super::observe::Observed;
use super::report::{SCRIPT, WAIT};

/// A policy, a pod, and what must come of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The pod's name, and how the policy selects it.
    pub(crate) name: String,
    /// A cluster policy's spec; absent: none.
    pub(crate) policy: Option<Value>,
    /// The pod's spec.
    pub(crate) pod: Value,
    pub(crate) outcome: Outcome,
}

/// What must come of a pod.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It runs, and each of these containers reports this.
    Reports(Vec<(&'static str, Vec<(String, String)>)>),
    /// It runs, and says that it works.
    Works,
    /// All its containers do what they are there for, and end.
    Ends,
    /// It does not run: its STATUS as kubectl shows it, and a part of the message.
    Stops {
        status: &'static str,
        message: String,
    },
}

impl Outcome {
    /// Whether it has come; `Err` where it no longer can.
    pub(crate) fn is_met(&self, observed: &Observed) -> Result<bool, String> {
        let is_met = match self {
            Self::Reports(expected) => {
                let mut all = true;
                for (container, expected) in expected {
                    let Some(report) = observed.reports.get(*container) else {
                        all = false;
                        continue;
                    };
                    for (name, value) in expected {
                        let found = report.get(name);
                        if found != Some(value) {
                            return Err(format!(
                                "{container} sees {name} = {found:?}, not {value:?}: {report:#?}"
                            ));
                        }
                    }
                }
                all
            }
            Self::Works => observed.is_ready,
            Self::Ends => observed.is_over && observed.trouble.is_none(),
            Self::Stops { status, message } => observed
                .trouble
                .as_ref()
                .is_some_and(|(is, why)| is == status && why.contains(message)),
        };
        if observed.is_over && !is_met {
            return Err(format!("it is over: {observed:#?}"));
        }
        Ok(is_met)
    }
}

/// A case.
pub(crate) fn case(name: &str, policy: Value, pod: Value, outcome: Outcome) -> Case {
    Case {
        name: name.to_owned(),
        policy: Some(policy),
        pod,
        outcome,
    }
}

/// That the container `app` sees this.
pub(crate) fn sees(expected: &[(&str, &str)]) -> Outcome {
    all_see(&["app"], expected)
}

/// That each of these containers sees this.
pub(crate) fn all_see(containers: &[&'static str], expected: &[(&str, &str)]) -> Outcome {
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Outcome::Reports(
        containers
            .iter()
            .map(|container| (*container, expected.clone()))
            .collect(),
    )
}

/// That it does not run.
pub(crate) fn stops(status: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Stops {
        status,
        message: message.into(),
    }
}

/// A pod of one container that reports what it sees, and ends.
pub(crate) fn reporting(image: Image) -> Value {
    pod(json!([reporter("app", image)]))
}

/// A pod of one container that does what its image does.
pub(crate) fn plain(image: Image) -> Value {
    pod(json!([working("app", image)]))
}

/// A pod of these containers, which run once.
pub(crate) fn pod(containers: Value) -> Value {
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers})
}

/// A container that reports what it sees, and ends.
pub(crate) fn reporter(name: &str, image: Image) -> Value {
    running(name, image, SCRIPT)
}

/// A sidecar that reports what it sees, and stays until the others have ended.
pub(crate) fn sidecar(name: &str, image: Image) -> Value {
    let mut sidecar = running(name, image, &format!("{SCRIPT}\n{WAIT}"));
    sidecar["restartPolicy"] = "Always".into();
    sidecar
}

/// A container that runs a script.
pub(crate) fn running(name: &str, image: Image, script: &str) -> Value {
    let mut container = working(name, image);
    container["command"] = json!(["sh", "-c", script]);
    container.as_object_mut().unwrap().remove("readinessProbe");
    container
}

/// A container that does what its image does, and is ready once that works.
pub(crate) fn working(name: &str, image: Image) -> Value {
    let probe = match image {
        Image::WRITER => json!({"exec": {"command": ["cat", "/tmp/scratch"]}}),
        Image::PORT_80 => json!({"httpGet": {"port": 80, "path": "/"}}),
        _ => json!({"exec": {"command": ["true"]}}),
    };
    let mut container = json!({
        "name": name, "image": image.name, "imagePullPolicy": "Never",
        // Where a container fails, the end of what it wrote is in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {"periodSeconds": 1, "timeoutSeconds": 10},
    });
    merge(&mut container["readinessProbe"], probe);
    container
}

/// Lays members over an object, as deep as they go.
pub(crate) fn merge(object: &mut Value, members: Value) {
    match members {
        Value::Object(members) => {
            for (name, member) in members {
                merge(&mut object[name], member);
            }
        }
        other => *object = other,
    }
}

/// An object with members laid over it.
pub(crate) fn with(mut object: Value, members: Value) -> Value {
    merge(&mut object, members);
    object
}

/// A pod whose container `app` has members laid over it.
pub(crate) fn with_app(mut pod: Value, members: Value) -> Value {
    merge(&mut pod["containers"][0], members);
    pod
}
