//! What the API server stored, made comparable, and compared.

use hardening_engine::{FILLED, WITHHELD};
use serde_json::Value;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// In place of the name that the API server draws for the token volume that it injects.
const DRAWN_NAME: &str = "kube-api-access-*****";

/// A stored pod without what differs from request to request.
pub(crate) fn normalised(stored: &Value, posted: &Value) -> Value {
    let mut pod = as_the_webhook_saw_it(stored, posted);
    let metadata = pod["metadata"].as_object_mut().unwrap();
    for drawn in ["uid", "creationTimestamp", "managedFields"] {
        metadata.remove(drawn);
    }
    if posted["metadata"]["name"].is_null() {
        metadata.remove("name");
    }
    for condition in items(&mut pod["status"], "conditions") {
        condition["lastTransitionTime"] = Value::Null;
    }
    if let Some(token) = injected_token(stored, posted) {
        let rename = |named: &mut Value| {
            if named["name"] == *token {
                named["name"] = DRAWN_NAME.into();
            }
        };
        items(&mut pod["spec"], "volumes").for_each(rename);
        for container in containers_mut(&mut pod["spec"]) {
            items(container, "volumeMounts").for_each(rename);
        }
    }
    // A list from which all was removed is none once it is stored, and an empty object says as much as none.
    drop_if_empty(&mut pod["spec"], "volumes");
    for container in containers_mut(&mut pod["spec"]) {
        drop_if_empty(container, "volumeMounts");
        drop_if_empty(container, "securityContext");
    }
    pod
}

/// A stored pod without what the API server adds after all webhooks: it turns a legacy AppArmor annotation
/// into the container's field, and up to 1.33 the field into an annotation.
pub(crate) fn as_the_webhook_saw_it(stored: &Value, posted: &Value) -> Value {
    let mut pod = stored.clone();
    if let Some(Value::Object(annotations)) = pod["metadata"].get_mut("annotations") {
        let posted = &posted["metadata"]["annotations"];
        annotations.retain(|key, _| !key.starts_with(APP_ARMOR) || posted.get(key).is_some());
    }
    drop_if_empty(&mut pod["metadata"], "annotations");
    let annotations = pod["metadata"]["annotations"].clone();
    let wrote: Vec<String> = containers(&posted["spec"])
        .filter(|container| {
            let profile = &container["securityContext"]["appArmorProfile"];
            profile
                .as_object()
                .is_some_and(|profile| !profile.is_empty())
        })
        .map(|container| name(container).to_owned())
        .collect();
    for container in containers_mut(&mut pod["spec"]) {
        let name = name(container);
        let annotated = annotations[format!("{APP_ARMOR}{name}")].is_string();
        if annotated
            && !wrote.iter().any(|wrote| wrote == name)
            && let Some(Value::Object(context)) = container.get_mut("securityContext")
        {
            context.remove("appArmorProfile");
        }
    }
    pod
}

/// What of `before` is not in `after`; what was added is no loss, nor is the token that the API server
/// injected. Lists may have grown at their ends only.
pub(crate) fn losses(before: &Value, after: &Value) -> Vec<String> {
    let mut before = before.clone();
    if let Some(annotations) = before["metadata"].get_mut("annotations") {
        // Ours: a record is added to, and what is no record is replaced by one.
        let annotations = annotations.as_object_mut().unwrap();
        annotations.retain(|key, _| ![FILLED, WITHHELD].contains(&key.as_str()));
    }
    let kept = after["spec"]["volumes"]
        .as_array()
        .is_some_and(|volumes| volumes.iter().any(|volume| volume["name"] == DRAWN_NAME));
    if !kept {
        let is_token = |named: &Value| named["name"] == DRAWN_NAME;
        retain(&mut before["spec"], "volumes", |volume| !is_token(volume));
        for container in containers_mut(&mut before["spec"]) {
            retain(container, "volumeMounts", |mount| !is_token(mount));
        }
    }
    let mut lost = Vec::new();
    lose("", &before, after, &mut lost);
    lost
}

fn lose(path: &str, before: &Value, after: &Value, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(members), Value::Object(_)) => {
            for (name, value) in members {
                lose(&format!("{path}/{name}"), value, &after[name], lost);
            }
        }
        (Value::Array(items), Value::Array(_)) => {
            for (i, item) in items.iter().enumerate() {
                lose(&format!("{path}/{i}"), item, &after[i], lost);
            }
        }
        // Nothing is left of it but nothing was in it.
        (Value::Array(items), Value::Null) if items.is_empty() => {}
        _ if before == after => {}
        _ => lost.push(format!("{path}: {before} became {after}")),
    }
}

/// Where two values differ.
pub(crate) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let patch = json_patch::diff(expected, found);
    let operations = patch.0.iter();
    operations
        .map(|operation| {
            let was = expected.pointer(operation.path().as_str());
            format!("{operation} (predicted: {})", was.unwrap_or(&Value::Null))
        })
        .collect()
}

/// The name of the token volume that the API server injected into this pod.
fn injected_token<'s>(stored: &'s Value, posted: &Value) -> Option<&'s str> {
    let wrote = |name: &str| {
        let volumes = posted["spec"]["volumes"].as_array();
        volumes
            .into_iter()
            .flatten()
            .any(|volume| volume["name"] == name)
    };
    let volumes = stored["spec"]["volumes"].as_array()?;
    let names = volumes.iter().map(name);
    let mut drawn = names.filter(|name| name.starts_with("kube-api-access-") && !wrote(name));
    drawn.next()
}

/// Whether a container has the API server's token mounted.
pub(crate) fn mounts_token(pod: &Value) -> bool {
    containers(&pod["spec"]).any(|container| {
        let mounts = container["volumeMounts"].as_array();
        mounts
            .into_iter()
            .flatten()
            .any(|mount| mount["mountPath"] == TOKEN_PATH)
    })
}

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    LISTS
        .into_iter()
        .filter_map(|list| spec[list].as_array())
        .flatten()
}

fn containers_mut(spec: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists = spec.as_object_mut().unwrap().iter_mut();
    lists
        .filter(|(name, _)| LISTS.contains(&name.as_str()))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
}

fn items<'v>(object: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = object.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn retain(object: &mut Value, list: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(items) = object.get_mut(list).and_then(Value::as_array_mut) {
        items.retain(keep);
    }
}

fn drop_if_empty(object: &mut Value, member: &str) {
    let is_empty = match object.get(member).unwrap_or(&Value::Null) {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if is_empty {
        object.as_object_mut().unwrap().remove(member);
    }
}

fn name(object: &Value) -> &str {
    object["name"].as_str().unwrap_or_default()
}
