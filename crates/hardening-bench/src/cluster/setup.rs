//! What is set up for each way of filling in: a webhook's registration, the job written by hand for the API
//! server itself, and policies compiled for it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hardening_compile::{Options, compile};
use hardening_engine::{Policy, PolicySet, UnknownNamespaces};
use serde_json::{Value, json};

use super::Competitor;
use crate::contender::Running;
use crate::policy;

/// The label that each namespace has with its own name.
const NAME: &str = "kubernetes.io/metadata.name";

/// Whether a pod leaves a field of the policy's open: what a matchCondition would ask, for this one policy.
pub(super) const SOMETHING_IS_OPEN: &str = "!(has(object.spec.securityContext) \
    && has(object.spec.securityContext.runAsNonRoot) && has(object.spec.securityContext.runAsUser) \
    && has(object.spec.securityContext.fsGroup) && has(object.spec.securityContext.seccompProfile) \
    && object.spec.containers.all(c, has(c.securityContext) \
    && has(c.securityContext.allowPrivilegeEscalation) && has(c.securityContext.capabilities) \
    && has(c.securityContext.capabilities.drop)) \
    && (!has(object.spec.initContainers) || object.spec.initContainers.all(c, has(c.securityContext) \
    && has(c.securityContext.allowPrivilegeEscalation) && has(c.securityContext.capabilities) \
    && has(c.securityContext.capabilities.drop))))";

/// The same job written by hand for the API server itself: the profile Restricted, a user and a group, each where it
/// is open.
pub(super) fn in_tree(namespace: &str) -> Vec<Value> {
    let containers = |list: &str| {
        let add = |place: &str, value: &str| {
            format!(
                "[JSONPatch{{op: \"add\", path: \"/spec/{list}/\" + string(i) + \"/securityContext{place}\", value: {value}}}]"
            )
        };
        let (drop_all, no_escalation) = (
            "{\"drop\": [\"ALL\"]}",
            "\"allowPrivilegeEscalation\": dyn(false)",
        );
        let whole = add(
            "",
            &format!("{{{no_escalation}, \"capabilities\": dyn({drop_all})}}"),
        );
        let escalation = add("/allowPrivilegeEscalation", "false");
        let capabilities = add("/capabilities", drop_all);
        let drops = add("/capabilities/drop", "[\"ALL\"]");
        format!(
            "(has(object.spec.{list}) ? object.spec.{list}.transformList(i, c, \
             !has(c.securityContext) ? {whole} : \
             (has(c.securityContext.allowPrivilegeEscalation) ? [] : {escalation}) + \
             (has(c.securityContext.capabilities) ? (has(c.securityContext.capabilities.drop) ? [] : {drops}) \
             : {capabilities})).flatten() : [])"
        )
    };
    let at_pod = |field: &str, value: &str| {
        format!(
            "(has(object.spec.securityContext) && has(object.spec.securityContext.{field}) ? [] : \
             [JSONPatch{{op: \"add\", path: \"/spec/securityContext/{field}\", value: {value}}}])"
        )
    };
    let pod = [
        at_pod("runAsNonRoot", "true"),
        at_pod("runAsUser", "10001"),
        at_pod("fsGroup", "10001"),
        at_pod("seccompProfile", "{\"type\": \"RuntimeDefault\"}"),
    ]
    .join(" + ");
    let expression = [pod, containers("initContainers"), containers("containers")].join(" + ");
    let name = "bench-in-tree";
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [pods_created()]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": {"namespaceSelector": only(namespace)}},
        }),
    ]
}

fn pods_created() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]})
}

fn only(namespace: &str) -> Value {
    json!({"matchLabels": {NAME: namespace}})
}

pub(super) fn registration(
    competitor: &Competitor,
    server: &Running,
    condition: Option<&str>,
) -> Result<Value> {
    let conditions: Vec<Value> = condition
        .iter()
        .map(|expression| json!({"name": "something-is-open", "expression": expression}))
        .collect();
    Ok(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": format!("bench-{}", competitor.namespace)},
        "webhooks": [{
            "name": "pods.bench.example",
            "clientConfig": {
                "url": format!("https://{}/mutate", server.address),
                "caBundle": BASE64.encode(server.ca()?),
            },
            "rules": [pods_created()],
            "namespaceSelector": only(competitor.namespace),
            "matchConditions": conditions,
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 3,
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    }))
}

// === compiled ===

/// The groups of namespaces that share their policies, and the namespaces of each.
const GROUPS: usize = 10;
const NAMESPACES_OF_GROUP: usize = 100;
/// The policies of each group.
const POLICIES_OF_GROUP: usize = 10;

/// The webhook's policy, compiled for one namespace.
pub(super) fn compiled(namespace: &str) -> Result<Vec<Value>> {
    compiled_of(
        &[for_namespaces(
            policy(),
            "compiled",
            &[namespace.to_owned()],
        )],
        &[namespace.to_owned()],
    )
}

/// As many policies as a group of namespaces has, compiled for one namespace.
pub(super) fn compiled_group(namespace: &str) -> Result<Vec<Value>> {
    let namespaces = [namespace.to_owned()];
    compiled_of(&policies_of_group(namespace, &namespaces), &namespaces)
}

/// The policies of all groups, compiled together; `namespace` is among those of the first.
pub(super) fn compiled_crowd(namespace: &str) -> Result<Vec<Value>> {
    let groups = crowd(namespace);
    let policies: Vec<Value> = groups
        .iter()
        .enumerate()
        .flat_map(|(number, namespaces)| policies_of_group(&format!("group-{number}"), namespaces))
        .collect();
    let objects = compiled_of(&policies, &groups.concat())?;
    // Each with its binding.
    ensure!(
        objects.len() <= 2 * GROUPS,
        "{} objects for {GROUPS} groups of namespaces",
        objects.len()
    );
    Ok(objects)
}

/// The namespaces of each group.
pub(super) fn crowd(namespace: &str) -> Vec<Vec<String>> {
    let mut groups: Vec<Vec<String>> = (0..GROUPS)
        .map(|group| {
            let names = (0..NAMESPACES_OF_GROUP).map(|number| format!("crowd-{group}-{number}"));
            names.collect()
        })
        .collect();
    if let Some(first) = groups.first_mut().and_then(|names| names.first_mut()) {
        namespace.clone_into(first);
    }
    groups
}

/// Policies that each ask for a label, and at last one for all pods, which does the job.
fn policies_of_group(name: &str, namespaces: &[String]) -> Vec<Value> {
    let labelled = (1..POLICIES_OF_GROUP).map(|number| {
        let spec = json!({
            "profile": "Hardened",
            "priority": 100 - number,
            "podSelector": {"matchLabels": {"tier": format!("tier-{number}")}},
        });
        let mut labelled = policy();
        set(&mut labelled, "/spec", spec);
        for_namespaces(labelled, &format!("{name}-{number}"), namespaces)
    });
    let for_all = for_namespaces(policy(), name, namespaces);
    labelled.chain([for_all]).collect()
}

fn for_namespaces(mut policy: Value, name: &str, namespaces: &[String]) -> Value {
    set(&mut policy, "/metadata/name", json!(name));
    if let Some(spec) = policy.get_mut("spec").and_then(Value::as_object_mut) {
        let names = json!({"key": NAME, "operator": "In", "values": namespaces});
        spec.insert(
            "namespaceSelector".to_owned(),
            json!({"matchExpressions": [names]}),
        );
    }
    policy
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = object.pointer_mut(pointer) {
        *place = value;
    }
}

fn compiled_of(policies: &[Value], namespaces: &[String]) -> Result<Vec<Value>> {
    let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
    set.know_all_runtime_classes();
    for policy in policies {
        let policy = serde_json::from_value(policy.clone()).context("read a policy")?;
        set.insert_policy(Policy::cluster(&policy)?);
    }
    for namespace in namespaces {
        set.insert_namespace(namespace, &BTreeMap::new());
        set.insert_service_account(namespace, "default", None);
    }
    let compiled = compile(&set, &Options::default());
    ensure!(
        compiled.refused.is_empty(),
        "refused: {:?}",
        compiled.refused
    );
    let objects = compiled.objects.into_iter();
    Ok(objects
        .flat_map(|object| [object.policy, object.binding])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_shares_an_object_by_group_and_each_is_that_of_a_group_alone() {
        let crowd = compiled_crowd("measured").unwrap();
        assert_eq!(crowd.len(), 2 * GROUPS);
        let alone = compiled_group("measured").unwrap();
        assert_eq!(alone.len(), 2);
        let expressions = |objects: &[Value], name: &str| {
            let found = objects.iter().find(|object| {
                let sources = object.pointer("/metadata/annotations");
                sources.is_some_and(|sources| sources.to_string().contains(name))
            });
            found
                .unwrap()
                .pointer("/spec/variables")
                .unwrap()
                .as_array()
                .unwrap()
                .len()
        };
        assert_eq!(
            expressions(&crowd, "group-0@"),
            expressions(&alone, "measured@")
        );
    }

    #[test]
    fn what_is_set_up_is_for_the_competitors_namespace_alone() {
        for objects in [
            in_tree("here"),
            compiled("here").unwrap(),
            compiled_group("here").unwrap(),
        ] {
            let [_, binding] = objects.as_slice() else {
                panic!("{} objects", objects.len());
            };
            let selector = binding
                .pointer("/spec/matchResources/namespaceSelector")
                .unwrap();
            let by_label = only("here");
            let by_name =
                json!({"matchExpressions": [{"key": NAME, "operator": "In", "values": ["here"]}]});
            assert!([by_label, by_name].contains(selector), "{selector}");
        }
    }
}
