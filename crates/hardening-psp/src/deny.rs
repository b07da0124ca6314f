//! The denying half: a `ValidatingAdmissionPolicy` that denies what PSPs denied, and its binding.
//!
//! A pod was admitted where any one PSP that it could use admitted it. Admission policies are the other way
//! round: each of them can deny. So all PSPs of a group of pods become one policy. For each PSP, each rule is a
//! variable that lists what is wrong with the pod by that rule; the pod is admitted where for one PSP all lists
//! are empty, and denied with what the lists say.
//!
//! Only pods that are created are judged. PodSecurityPolicy judged updates as well, but nothing that it looked
//! at can be changed in a pod; and it never saw `pods/ephemeralcontainers`.

mod cel;
mod checks;
mod volumes;

use serde_json::{Map, Value, json};

use self::cel::{any, list, text};
use crate::note::Note;
use crate::policy::{ANY, Policy};
use crate::scope::{Names, PodScope, Requesters};

/// A PSP that may admit the pods of a group.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The PSP.
    pub policy: &'a Policy,
    /// Who has to ask for a pod; `None`: whoever asks, as the pod's service account could use the PSP.
    pub requesters: Option<Requesters>,
}

/// What happens to a pod that no PSP of its group admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is denied.
    #[default]
    Deny,
    /// It is admitted, with a warning to whoever creates it and an annotation in the audit log.
    WarnAndAudit,
}

const VERSION: &str = "admissionregistration.k8s.io/v1";
/// The label that each namespace has with its own name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// How much of the reasons a denial tells, in characters: the API server tells none of a message that is longer
/// than 5 KiB.
const LONGEST: usize = 1200;

/// The `ValidatingAdmissionPolicy` for the pods in scope, and the `ValidatingAdmissionPolicyBinding` that puts it
/// in force, both of that name. Without candidates every pod is denied.
#[must_use]
pub fn deny(
    name: &str,
    candidates: &[Candidate<'_>],
    scope: &PodScope,
    action: Action,
) -> [Value; 2] {
    let policy = json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": spec(candidates, &scope.service_accounts),
    });
    let binding = binding(name, name, &scope.namespaces, action);
    [policy, binding]
}

/// Puts a policy in force in these namespaces.
pub(crate) fn binding(name: &str, policy: &str, namespaces: &Names, action: Action) -> Value {
    let actions = match action {
        Action::Deny => json!(["Deny"]),
        Action::WarnAndAudit => json!(["Warn", "Audit"]),
    };
    let mut spec = Map::new();
    spec.insert("policyName".to_owned(), policy.into());
    spec.insert("validationActions".to_owned(), actions);
    if let Some(selector) = selector(namespaces) {
        let resources = json!({"namespaceSelector": selector});
        spec.insert("matchResources".to_owned(), resources);
    }
    json!({
        "apiVersion": VERSION,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// What the variables of one PSP lead to.
struct Judgement {
    /// Whether it admits the pod.
    admits: String,
    /// A list of one text that says why not; empty where it was not to be used.
    says: String,
}

fn spec(candidates: &[Candidate<'_>], accounts: &Names) -> Value {
    let mut variables = vec![
        variable("initNames", checks::INIT_NAMES),
        variable("containers", checks::CONTAINERS),
    ];
    let judgements: Vec<Judgement> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            // One PSP is the usual case, and then its variables are as easily read as they can be.
            let suffix = match candidates.len() {
                1 => String::new(),
                _ => (index + 1).to_string(),
            };
            judge(candidate, &suffix, &mut variables)
        })
        .collect();
    let says: Vec<&str> = judgements.iter().map(|one| one.says.as_str()).collect();
    let message = match says.is_empty() {
        true => text(""),
        // A message may have one line only.
        false => format!(r#"({}).join(" | ").replace("\n", " ")"#, says.join(" + ")),
    };
    variables.push(variable("message", &message));
    let none = "no PodSecurityPolicy that could be used by this pod admits it";
    let message = format!(
        r#"variables.message == "" ? {} : variables.message.size() > {LONGEST} ? variables.message.substring(0, {LONGEST}) + " ..." : variables.message"#,
        text(none)
    );
    let conditions: Option<Value> = of_account(accounts)
        .map(|condition| json!({"name": "service-account", "expression": condition}));
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
        }]},
        "matchConditions": conditions.as_slice(),
        "variables": variables,
        "validations": [{
            "expression": any(judgements.into_iter().map(|one| one.admits)),
            "message": none,
            "messageExpression": message,
            "reason": "Forbidden",
        }],
    })
}

/// Adds a PSP's variables, each with this at the end of its name.
fn judge(candidate: &Candidate<'_>, suffix: &str, variables: &mut Vec<Value>) -> Judgement {
    let mut lists = Vec::new();
    for check in candidate.policy.checks() {
        let name = format!("{}{suffix}", check.name);
        lists.push(format!("variables.{name}"));
        variables.push(variable(&name, &check.expression));
    }
    let reasons = format!("reasons{suffix}");
    // There always is a check: no PSP allows every capability, sysctl, port and seccomp profile there is.
    variables.push(variable(&reasons, &lists.join(" + ")));
    let admits = format!("size(variables.{reasons}) == 0");
    let says = format!(
        r#"[{} + variables.{reasons}.join("; ")]"#,
        text(&format!("PodSecurityPolicy {}: ", candidate.policy.name()))
    );
    match candidate.requesters.as_ref().map(asks) {
        None => Judgement { admits, says },
        Some(asks) => Judgement {
            admits: format!("{asks} && {admits}"),
            says: format!("({asks} ? {says} : [])"),
        },
    }
}

fn variable(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

/// Whether the one who asks for the pod is one of them.
fn asks(requesters: &Requesters) -> String {
    let Requesters {
        users,
        groups,
        own_accounts,
    } = requesters;
    let mut ways = Vec::new();
    if !users.is_empty() {
        ways.push(format!("request.userInfo.username in {}", list(users)));
    }
    if !groups.is_empty() {
        ways.push(format!(
            "request.userInfo.?groups.orValue([]).exists(g, g in {})",
            list(groups)
        ));
    }
    if !own_accounts.is_empty() {
        ways.push(format!(
            r#"{}.exists(a, request.userInfo.username == "system:serviceaccount:" + request.namespace + ":" + a)"#,
            list(own_accounts)
        ));
    }
    any(ways)
}

/// Whether the pod's service account is one of them.
fn of_account(accounts: &Names) -> Option<String> {
    let account = "object.spec.?serviceAccountName.orValue(\"default\")";
    match accounts {
        Names::All => None,
        Names::Only(names) => Some(format!("{account} in {}", list(names))),
        Names::AllBut(names) => Some(format!("!({account} in {})", list(names))),
    }
}

fn selector(namespaces: &Names) -> Option<Value> {
    let (operator, names) = match namespaces {
        Names::All => return None,
        Names::Only(names) => ("In", names),
        Names::AllBut(names) if names.is_empty() => return None,
        Names::AllBut(names) => ("NotIn", names),
    };
    let mut requirement = Map::new();
    requirement.insert("key".to_owned(), NAMESPACE.into());
    requirement.insert("operator".to_owned(), operator.into());
    requirement.insert("values".to_owned(), names.iter().cloned().collect());
    Some(json!({"matchExpressions": [requirement]}))
}

/// What today's API can no longer say as 1.24 did.
pub(crate) fn notes(policy: &Policy) -> Vec<Note> {
    let mut notes = Vec::new();
    if !policy.seccomp.any {
        notes.push(Note::new(
            "metadata.annotations[seccomp.security.alpha.kubernetes.io/allowedProfileNames]",
            "the PSP also judged the alpha seccomp annotations of pods; servers since 1.27 give them no meaning, and only fields are judged",
            "nothing: the annotations have no effect",
        ));
    }
    if policy.volumes.contains(ANY) {
        notes.push(Note::new(
            "spec.volumes",
            "* also allows the kinds of volume that came after PodSecurityPolicy, such as image",
            "list the kinds if those are not wanted",
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::psp::PodSecurityPolicy;

    fn policy(spec: &Value) -> Policy {
        let mut object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "metadata": {"name": "p"}, "spec": {
            "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"}, "privileged": true,
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        Policy::compile(&PodSecurityPolicy::read(&object).unwrap()).unwrap()
    }

    #[test]
    fn a_rule_that_allows_everything_is_no_check() {
        let names = |spec: Value| -> Vec<&str> {
            policy(&spec)
                .checks()
                .iter()
                .map(|check| check.name)
                .collect()
        };
        let always = [
            "hostPorts",
            "procMount",
            "sysctls",
            "capabilities",
            "seccomp",
        ];
        assert_eq!(
            names(json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "volumes": ["*"]})),
            always
        );
        let more = names(
            json!({"allowedHostPaths": [{"pathPrefix": "/a"}], "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "volumes": ["hostPath"], "runAsUser": {"rule": "MustRunAsNonRoot"}}),
        );
        for name in [
            "hostNamespaces",
            "volumes",
            "hostPaths",
            "escalation",
            "readOnlyRoot",
            "runAsUser",
        ] {
            assert!(more.contains(&name), "{name} {more:?}");
        }
    }

    #[test]
    fn a_scope_is_said_by_the_binding_and_a_match_condition() {
        let names = || BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let policy = policy(&json!({}));
        let candidates = [Candidate {
            policy: &policy,
            requesters: None,
        }];
        for (scope, selector, condition) in [
            (PodScope::default(), Value::Null, Value::Null),
            (
                PodScope {
                    namespaces: Names::Only(names()),
                    service_accounts: Names::AllBut(names()),
                },
                json!({"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]}),
                json!("!(object.spec.?serviceAccountName.orValue(\"default\") in [\"a\", \"b\"])"),
            ),
        ] {
            let [policy, binding] = deny("name", &candidates, &scope, Action::WarnAndAudit);
            let pointer = "/spec/matchConditions/0/expression";
            assert_eq!(policy.pointer(pointer).unwrap_or(&Value::Null), &condition);
            let pointer = "/spec/matchResources/namespaceSelector";
            assert_eq!(binding.pointer(pointer).unwrap_or(&Value::Null), &selector);
            assert_eq!(
                binding["spec"]["validationActions"],
                json!(["Warn", "Audit"])
            );
        }
    }
}
