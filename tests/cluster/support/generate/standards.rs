//! Pods for the Pod Security Standards: most of them would meet the highest level but for a few things, each of
//! which breaks, or nearly breaks, one of their rules.

mod hardened;
mod offences;
mod volumes;

use serde_json::{Value, json};

use super::Random;
use crate::support::shrink::{places, replaced};
use offences::{EVERYWHERE, LINUX};

/// A pod as its author posts it.
pub(crate) fn pod(random: &mut Random, name: &str) -> Value {
    let mut pod = super::pod::pod(random, name);
    let spec = pod["spec"].as_object_mut().unwrap();
    // What needs more of the cluster than a namespace.
    spec.retain(|name, _| !name.starts_with("serviceAccount") && name != "runtimeClassName");
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove("example.com/padding");
    }
    let is_windows = is_windows(&pod);
    if random.chance(0.85) {
        hardened::harden(random, &mut pod, is_windows);
    }
    for _ in 0..*random.pick(&[0, 1, 1, 1, 2, 3, 6]) {
        let on_linux = !is_windows && random.chance(0.7);
        let offence = random.pick(if on_linux { &LINUX[..] } else { &EVERYWHERE });
        offence(random, &mut pod);
    }
    if random.chance(0.1) {
        pod = disturbed(random, &pod);
    }
    pod
}

/// The pod with something odd in one place: often the API server cannot read it, and sometimes it means just
/// what nothing would mean there.
fn disturbed(random: &mut Random, pod: &Value) -> Value {
    let mut places = places(pod);
    places.retain(|place| place.len() > 1);
    let odd = [
        json!(null),
        json!(""),
        json!(0),
        json!(1.5),
        json!(true),
        json!([]),
        json!([null]),
        json!({}),
    ];
    let odd = random.pick(&odd).clone();
    let place: &Vec<String> = random.pick(&places);
    replaced(pod, place, odd)
}

/// Ephemeral containers, hardened but for a few things.
pub(crate) fn ephemeral_containers(random: &mut Random) -> Vec<Value> {
    let mut containers = super::ephemeral::containers(random, 0);
    for container in &mut containers {
        if random.chance(0.7) {
            container["securityContext"] = hardened::security_context(random, false);
        }
    }
    // As offences find containers: in a pod.
    let mut pod = json!({"metadata": {}, "spec": {"containers": containers}});
    for _ in 0..random.number(0..=2) {
        let offence = random.pick(&offences::IN_CONTAINERS);
        offence(random, &mut pod);
    }
    pod["spec"]["containers"].as_array().unwrap().clone()
}

fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}
