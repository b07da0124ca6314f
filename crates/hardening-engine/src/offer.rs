//! What policies have to offer, whether it is used or not, and why not: for explanations.

use hardening_api::policy::ContainerKind;

use crate::defaults::Value;
use crate::field::{Field, Shape};
use crate::pod::Pod;
use crate::policy::Policy;
use crate::policy_set::PolicySet;
use crate::write::{push, write_list, write_string};

/// Why a policy is not for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It is a policy of another namespace.
    Namespace,
    /// Its `namespaceSelector` does not select the pod's namespace.
    NamespaceSelector,
    /// Its `serviceAccountNames` do not name the pod's service account.
    ServiceAccountNames,
    /// Its `podSelector` does not select the pod.
    PodSelector,
}

/// What makes a policy go before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// Tier Admin, then the policies of the namespace, then tier Baseline.
    Tier,
    /// The higher priority.
    Priority,
    /// The name, where nothing else decides.
    Name,
}

// === impl Policy ===

impl Policy {
    /// The default, as JSON, that this policy has for a field of the pod, or of a container of a kind; for
    /// what a container leaves to its pod, that is the one for the pod. Of a list, all items.
    #[must_use]
    pub fn offer(&self, field: Field, container: Option<ContainerKind>) -> Option<String> {
        let (row, is_list) = (field.row(), field.row().shape != Shape::Single);
        let mut defaults: Vec<_> = match container {
            None => self.pod_defaults(field).collect(),
            Some(kind) => self.container_defaults(field, kind).collect(),
        };
        if defaults.is_empty() && container.is_some() && row.is_two_level() {
            defaults = self.pod_defaults(field).collect();
        }
        let mut out = Vec::new();
        if is_list {
            let items: Vec<_> = defaults.iter().flat_map(|d| d.value.items()).collect();
            if items.is_empty() {
                return None;
            }
            write_list(&mut out, items.iter(), |out, item| match field {
                Field::WritablePaths => write_string(out, &item.key),
                _ => push(out, [&item.json]),
            });
        } else {
            let value: &Value = &defaults.first()?.value;
            value.write_json(&mut out);
        }
        String::from_utf8(out).ok()
    }

    /// What makes this policy go before another one; `None` where it does not.
    #[must_use]
    pub fn goes_before(&self, other: &Self) -> Option<Precedence> {
        if self.order() >= other.order() {
            return None;
        }
        let ((tier, priority), (other_tier, other_priority)) = (self.rank, other.rank);
        Some(match (tier == other_tier, priority == other_priority) {
            (false, _) => Precedence::Tier,
            (true, false) => Precedence::Priority,
            (true, true) => Precedence::Name,
        })
    }

    /// Whether it adds to lists that authors wrote.
    #[must_use]
    pub fn adds_to_lists(&self) -> bool {
        self.union
    }
}

// === impl PolicySet ===

impl PolicySet {
    /// Why a policy is not for a pod of a namespace; `None` where it is.
    #[must_use]
    pub fn mismatch(&self, policy: &Policy, namespace: &str, pod: &Pod<'_>) -> Option<Mismatch> {
        let own = policy.key().namespace.as_deref();
        if own.is_some_and(|own| own != namespace) {
            Some(Mismatch::Namespace)
        } else if !policy
            .namespace_selector
            .matches(self.namespace_label(namespace))
        {
            Some(Mismatch::NamespaceSelector)
        } else if !policy.is_for_service_account(pod.service_account_name()) {
            Some(Mismatch::ServiceAccountNames)
        } else if !policy.pod_selector.matches(|key| pod.label(key)) {
            Some(Mismatch::PodSelector)
        } else {
            None
        }
    }
}

// === impl Precedence ===

impl Precedence {
    /// The rule, in one clause.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::Tier => {
                "tier Admin goes first, then the policies of the namespace, then tier Baseline"
            }
            Self::Priority => "the higher priority goes first",
            Self::Name => "with the same tier and priority the name decides",
        }
    }
}

#[cfg(test)]
mod tests {
    use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
    use serde_json::{Value, json};

    use super::*;
    use crate::policy_set::UnknownNamespaces;

    fn namespaced(name: &str, namespace: &str, spec: &Value) -> Policy {
        let object: PodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))
        .unwrap();
        Policy::namespaced(&object).unwrap()
    }

    fn cluster(name: &str, spec: &Value) -> Policy {
        let object: ClusterPodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
            "metadata": {"name": name}, "spec": spec,
        }))
        .unwrap();
        Policy::cluster(&object).unwrap()
    }

    #[test]
    fn an_offer_is_what_would_be_filled_in_at_that_place() {
        let policy = namespaced(
            "p",
            "shop",
            &json!({
                "profile": "Restricted",
                "pod": {"securityContext": {"runAsUser": 7, "supplementalGroups": [3, 4]}},
                "containers": {"kinds": ["Container"], "securityContext": {"runAsUser": 8}, "writablePaths": [{"path": "/tmp"}]},
            }),
        );
        let container = Some(ContainerKind::Container);
        let init = Some(ContainerKind::InitContainer);
        for (field, place, offered) in [
            (Field::RunAsUser, None, Some("7")),
            (Field::RunAsUser, container, Some("8")),
            (Field::RunAsUser, init, Some("7")),
            (Field::SupplementalGroups, None, Some("[3,4]")),
            (Field::WritablePaths, container, Some(r#"["/tmp"]"#)),
            (Field::WritablePaths, init, None),
            (Field::CapabilitiesDrop, init, Some(r#"["ALL"]"#)),
            (Field::HostUsers, None, None),
        ] {
            let found = policy.offer(field, place);
            assert_eq!(found.as_deref(), offered, "{field:?} {place:?}");
        }
    }

    #[test]
    fn what_makes_a_policy_go_first_is_the_first_thing_that_differs() {
        let spec = |tier: Option<&str>, priority: i64| {
            let mut spec = json!({"priority": priority, "pod": {"hostUsers": false}});
            if let Some(tier) = tier {
                spec["tier"] = tier.into();
            }
            spec
        };
        let (admin, baseline) = (spec(Some("Admin"), 0), spec(Some("Baseline"), 9));
        let cases = [
            (
                cluster("z", &admin),
                namespaced("a", "shop", &spec(None, 9)),
                Precedence::Tier,
            ),
            (
                namespaced("z", "shop", &spec(None, 0)),
                cluster("a", &baseline),
                Precedence::Tier,
            ),
            (
                cluster("z", &baseline),
                cluster("a", &spec(Some("Baseline"), 8)),
                Precedence::Priority,
            ),
            (cluster("a", &admin), cluster("b", &admin), Precedence::Name),
        ];
        for (first, second, because) in cases {
            assert_eq!(first.goes_before(&second), Some(because));
            assert_eq!(second.goes_before(&first), None);
            assert_eq!(first.goes_before(&first), None);
        }
    }

    #[test]
    fn a_policy_is_for_a_pod_or_it_is_known_why_not() {
        let users = json!({"hostUsers": false});
        let labelled = json!({"matchLabels": {"tier": "web"}});
        let policies = [
            (namespaced("a", "shop", &json!({"pod": users})), None),
            (
                namespaced("a", "bank", &json!({"pod": users})),
                Some(Mismatch::Namespace),
            ),
            (
                cluster("a", &json!({"pod": users, "namespaceSelector": labelled})),
                Some(Mismatch::NamespaceSelector),
            ),
            (
                cluster("b", &json!({"pod": users, "serviceAccountNames": ["till"]})),
                Some(Mismatch::ServiceAccountNames),
            ),
            (
                cluster("c", &json!({"pod": users, "podSelector": labelled})),
                Some(Mismatch::PodSelector),
            ),
            (cluster("d", &json!({"pod": users})), None),
        ];
        let pod =
            Pod::from_json(r#"{"metadata": {"labels": {"app": "web"}}, "spec": {}}"#).unwrap();
        let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
        let mut matching = Vec::new();
        for (policy, why) in policies {
            assert_eq!(set.mismatch(&policy, "shop", &pod), why, "{policy:?}");
            if why.is_none() {
                matching.push(policy.reference().to_string());
            }
            set.insert_policy(policy);
        }
        // The same as what decides when a pod is admitted.
        let found = set.matching("shop", &pod).unwrap();
        let found: Vec<String> = found
            .policies()
            .map(|p| p.reference().to_string())
            .collect();
        assert_eq!(found, matching);
    }
}
