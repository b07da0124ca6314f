//! A policy set compiled: `MutatingAdmissionPolicy` objects, with which an API server of Kubernetes 1.36 and
//! later gives pods the same defaults by itself, with their bindings.
//!
//! The API server promises no order among several such policies, so all policies that meet in a pod become
//! one. Namespaces with the same policies share it; and pods of namespaces that nothing is known of get one
//! that asks for the namespace's labels. What it does to a pod is [`hardening_engine::cel`]'s.

mod group;
mod object;

use std::collections::{BTreeMap, BTreeSet};

use hardening_engine::cel::{MOST_NESTED, Mutation, Note, Scope, mutation};
use hardening_engine::{KubernetesVersion, Policy, PolicyKey, PolicySet};
use serde_json::Value;

pub use self::object::{FailurePolicy, LABEL, LABEL_VALUE, SOURCES, VERSION};

/// The first version of Kubernetes whose API server knows such objects.
pub const LOWEST_VERSION: KubernetesVersion = KubernetesVersion::v1(36);

/// The namespace whose pods are never touched, as the webhook is not asked about them.
pub const ALWAYS_EXCLUDED: &str = "kube-system";

/// What is not said by the policies.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What becomes of a pod for which an expression fails.
    pub failure_policy: FailurePolicy,
    /// Namespaces whose pods are not touched, besides `kube-system`.
    pub excluded_namespaces: BTreeSet<String>,
}

/// A policy set compiled.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// In the order of their names.
    pub objects: Vec<CompiledPolicy>,
    /// What CEL cannot know, and was decided the safe way.
    pub notes: BTreeSet<Note>,
    /// Why policies could not be compiled. They are left out where they meet others so that it is too much together;
    /// where they do not, they are among the sources of an object.
    pub refused: BTreeMap<PolicyKey, Refusal>,
}

/// A `MutatingAdmissionPolicy` and its binding, both of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledPolicy {
    /// The name.
    pub name: String,
    /// The policies that it is made of, in their order.
    pub sources: Vec<PolicyKey>,
    /// The `MutatingAdmissionPolicy`.
    pub policy: Value,
    /// The `MutatingAdmissionPolicyBinding`.
    pub binding: Value,
}

/// Why a policy could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The API server takes no expression of that length.
    #[error(
        "compiled, the policies that meet in namespace {namespace} have an expression of {length} characters; the API server takes {EXPRESSION_LIMIT}"
    )]
    ExpressionTooLong {
        /// A namespace where that is so; `*`: those of which nothing is known.
        namespace: String,
        /// How long the expression is, in characters.
        length: usize,
    },
    /// The API server takes no expression that nests so deep.
    #[error(
        "compiled, the policies that meet in namespace {namespace} have an expression of {depth} levels; the API server takes {MOST_NESTED}"
    )]
    TooDeep {
        /// A namespace where that is so; `*`: those of which nothing is known.
        namespace: String,
        /// How many levels.
        depth: usize,
    },
    /// The API server takes no object of that size.
    #[error(
        "compiled, the policies that meet in namespace {namespace} take {size} bytes; the API server takes {SIZE_LIMIT}"
    )]
    TooLarge {
        /// A namespace where that is so; `*`: those of which nothing is known.
        namespace: String,
        /// How large the object is, in bytes of JSON.
        size: usize,
    },
}

/// The most characters that the API server's CEL compiler takes in one expression.
const EXPRESSION_LIMIT: usize = 100_000;
/// What is safe to store in etcd, whose own limit is 1.5 MiB with all that the API server adds.
const SIZE_LIMIT: usize = 1_000_000;

/// Compiles all policies of a set that are in mode Enforce.
#[must_use]
pub fn compile(set: &PolicySet, options: &Options) -> Compiled {
    let mut compiled = Compiled::default();
    for group in group::groups(set, options) {
        let fitting = fitting(&group, set, options);
        compiled.refused.extend(fitting.refused);
        if let Some((object, notes)) = fitting.made {
            compiled.objects.push(object);
            compiled.notes.extend(notes);
        }
    }
    compiled.objects.sort_by(|a, b| a.name.cmp(&b.name));
    compiled
}

/// What becomes of the policies of a group.
struct Fitting {
    made: Option<(CompiledPolicy, BTreeSet<Note>)>,
    refused: Vec<(PolicyKey, Refusal)>,
}

/// As many of a group's policies as the API server takes together: without those that are too much by themselves,
/// and without the last, as those before them go before them anyway.
fn fitting(group: &group::Group<'_>, set: &PolicySet, options: &Options) -> Fitting {
    let made = |policies: &[&Policy]| readable(policies, set, group, options);
    let too_much = match made(&group.policies) {
        Ok(made) => {
            return Fitting {
                made: Some(made),
                refused: Vec::new(),
            };
        }
        Err(refusal) => refusal,
    };
    let mut refused = Vec::new();
    let mut policies = Vec::new();
    for policy in &group.policies {
        match made(&[*policy]) {
            Ok(_) => policies.push(*policy),
            Err(refusal) => refused.push((policy.key().clone(), refusal)),
        }
    }
    // The more policies, the larger what they compile to.
    let counts: Vec<usize> = (1..=policies.len()).collect();
    let most =
        counts.partition_point(|count| made(policies.get(..*count).unwrap_or_default()).is_ok());
    let (kept, left_out) = policies.split_at_checked(most).unwrap_or_default();
    refused.extend(
        left_out
            .iter()
            .map(|policy| (policy.key().clone(), too_much.clone())),
    );
    Fitting {
        made: made(kept).ok().filter(|_| !kept.is_empty()),
        refused,
    }
}

fn made_of(policies: &[&Policy], set: &PolicySet, group: &group::Group<'_>) -> Mutation {
    let names = group.namespaces();
    let scope = match &group.reach {
        group::Reach::Known(_) => Scope::Known(&names),
        group::Reach::Unlabelled(namespace) => Scope::Unlabelled(namespace),
        group::Reach::Others(_) => Scope::Unknown,
    };
    mutation(policies, set, scope)
}

/// The object, with its expressions over several lines unless that would be too much for the API server.
fn readable(
    policies: &[&Policy],
    set: &PolicySet,
    group: &group::Group<'_>,
    options: &Options,
) -> Result<(CompiledPolicy, BTreeSet<Note>), Refusal> {
    let checked = |mutation: &Mutation| {
        let object = object::compiled(policies, mutation, group, options);
        check(mutation, &object, group).map(|()| object)
    };
    let mutation = made_of(policies, set, group);
    let plain = checked(&mutation)?;
    let object = checked(&mutation.laid_out()).unwrap_or(plain);
    Ok((object, mutation.notes))
}

fn check(
    mutation: &Mutation,
    object: &CompiledPolicy,
    group: &group::Group<'_>,
) -> Result<(), Refusal> {
    let namespace = || {
        group
            .namespaces()
            .first()
            .map_or("*", |name| name)
            .to_owned()
    };
    let longest = mutation
        .expressions()
        .map(|expression| expression.chars().count())
        .max();
    if let Some(length) = longest.filter(|length| *length > EXPRESSION_LIMIT) {
        return Err(Refusal::ExpressionTooLong {
            namespace: namespace(),
            length,
        });
    }
    let depth = mutation.nesting();
    if depth > MOST_NESTED {
        return Err(Refusal::TooDeep {
            namespace: namespace(),
            depth,
        });
    }
    let size = object
        .policy
        .to_string()
        .len()
        .max(object.binding.to_string().len());
    if size > SIZE_LIMIT {
        return Err(Refusal::TooLarge {
            namespace: namespace(),
            size,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
    use hardening_engine::UnknownNamespaces;
    use serde_json::json;

    use super::*;

    fn cluster(name: &str, spec: &Value) -> Policy {
        let object: ClusterPodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
            "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap();
        Policy::cluster(&object).unwrap()
    }

    fn namespaced(namespace: &str, name: &str, spec: &Value) -> Policy {
        let object: PodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))
        .unwrap();
        Policy::namespaced(&object).unwrap()
    }

    fn bound(object: &CompiledPolicy) -> String {
        let expression = object
            .binding
            .pointer("/spec/matchResources/namespaceSelector/matchExpressions/0")
            .unwrap();
        let names: Vec<&str> = expression["values"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let sources: Vec<&str> = object.sources.iter().map(|key| &*key.name).collect();
        let operator = expression["operator"].as_str().unwrap();
        format!("{} {operator} {}", sources.join(" "), names.join(" "))
    }

    #[test]
    fn namespaces_with_the_same_policies_share_what_these_are_compiled_to() {
        let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
        for group in 0..10 {
            let names: Vec<String> = (0..100).map(|i| format!("ns-{group}-{i}")).collect();
            for name in &names {
                set.insert_namespace(name, &BTreeMap::default());
            }
            for i in 0..10 {
                let selector = json!({"matchExpressions": [{
                    "key": "kubernetes.io/metadata.name", "operator": "In", "values": names,
                }]});
                set.insert_policy(cluster(
                    &format!("p-{group}-{i}"),
                    &json!({"profile": "Restricted", "namespaceSelector": selector}),
                ));
            }
        }
        let compiled = compile(&set, &Options::default());
        assert_eq!(compiled.objects.len(), 10);
        assert!(compiled.refused.is_empty());
        assert!(
            compiled
                .objects
                .iter()
                .all(|object| object.sources.len() == 10)
        );
        let again = compile(&set, &Options::default());
        assert_eq!(again.objects, compiled.objects);
    }

    #[test]
    fn every_namespace_is_bound_to_the_policies_that_it_has() {
        let restricted = json!({"profile": "Restricted"});
        let of_team =
            json!({"profile": "Restricted", "namespaceSelector": {"matchLabels": {"team": "web"}}});
        let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
        let team = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        set.insert_namespace("shop", &team);
        set.insert_namespace("lab", &BTreeMap::default());
        set.insert_namespace("kube-system", &BTreeMap::default());
        set.insert_namespace("left-out", &BTreeMap::default());
        set.insert_policy(cluster("all", &restricted));
        set.insert_policy(cluster("team", &of_team));
        set.insert_policy(cluster(
            "told",
            &json!({"profile": "Restricted", "mode": "Audit"}),
        ));
        set.insert_policy(namespaced("bank", "own", &restricted));
        let options = Options {
            excluded_namespaces: BTreeSet::from(["left-out".to_owned()]),
            ..Options::default()
        };
        let compiled = compile(&set, &options);
        let mut found: Vec<String> = compiled.objects.iter().map(bound).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "all In lab",
                "all team In shop",
                "all team NotIn bank kube-system lab left-out shop",
                "own all team In bank",
            ]
        );
    }

    #[test]
    fn what_is_too_much_is_left_out_and_harms_what_goes_before_it() {
        let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
        let first = json!({"profile": "Restricted", "priority": 1});
        set.insert_policy(namespaced("shop", "first", &first));
        for n in 0..20 {
            let sysctls: Vec<Value> = (0..64)
                .map(|i| json!({"name": format!("net.ipv4.conf.eth{n}-{i}.rp_filter"), "value": "1"}))
                .collect();
            let many =
                json!({"listMerge": "Union", "pod": {"securityContext": {"sysctls": sysctls}}});
            set.insert_policy(namespaced("shop", &format!("many-{n:02}"), &many));
        }
        let compiled = compile(&set, &Options::default());
        let [object] = compiled.objects.as_slice() else {
            panic!("{}", compiled.objects.len());
        };
        let mut names: Vec<&str> = object.sources.iter().map(|key| &*key.name).collect();
        assert_eq!(names.first(), Some(&"first"));
        assert!(!compiled.refused.is_empty());
        names.extend(compiled.refused.keys().map(|key| &*key.name));
        let all: Vec<String> = (0..20).map(|n| format!("many-{n:02}")).collect();
        assert_eq!(names.get(1..).unwrap(), all);
    }
}
