//! Label selectors, compiled: `metav1.LabelSelector` with the meaning that Kubernetes gives it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector. All requirements must hold; none: it selects everything.
#[derive(Debug, Default)]
pub(crate) struct Selector(pub(crate) Box<[Requirement]>);

#[derive(Debug)]
pub(crate) struct Requirement {
    pub(crate) key: Arc<str>,
    pub(crate) is: Is,
}

#[derive(Debug)]
pub(crate) enum Is {
    In(Box<[Arc<str>]>),
    /// A label that is absent is not in any set.
    NotIn(Box<[Arc<str>]>),
    Present,
    Absent,
}

impl Selector {
    /// Compiles a selector that the schema has accepted. An operator that it does not know selects
    /// nothing.
    pub(crate) fn compile(selector: Option<&LabelSelector>) -> Self {
        let Some(LabelSelector {
            match_labels,
            match_expressions,
        }) = selector
        else {
            return Self::default();
        };
        let labels = match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.as_str().into(),
                is: Is::In(Box::new([value.as_str().into()])),
            });
        let expressions = match_expressions.iter().flatten().map(|expression| {
            let values = || {
                expression
                    .values
                    .iter()
                    .flatten()
                    .map(|value| value.as_str().into())
                    .collect()
            };
            let is = match expression.operator.as_str() {
                "In" => Is::In(values()),
                "NotIn" => Is::NotIn(values()),
                "Exists" => Is::Present,
                "DoesNotExist" => Is::Absent,
                _ => Is::In(Box::default()),
            };
            Requirement {
                key: expression.key.as_str().into(),
                is,
            }
        });
        Self(labels.chain(expressions).collect())
    }

    /// Whether the selector selects what has these labels.
    pub(crate) fn matches<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|requirement| {
            let value = label(&requirement.key);
            let among =
                |values: &[Arc<str>]| value.is_some_and(|v| values.iter().any(|one| &**one == v));
            match &requirement.is {
                Is::In(values) => among(values),
                Is::NotIn(values) => !among(values),
                Is::Present => value.is_some(),
                Is::Absent => value.is_none(),
            }
        })
    }

    /// Label values of which whatever is selected must have one: a way to find this selector from a set
    /// of labels without trying them all. The namespace's own name, where it is asked for, is the
    /// sharpest.
    pub(crate) fn required_labels(&self) -> Option<(&Arc<str>, &[Arc<str>])> {
        let mut candidates = self
            .0
            .iter()
            .filter_map(|requirement| match &requirement.is {
                Is::In(values) => Some((&requirement.key, &**values)),
                Is::NotIn(_) | Is::Present | Is::Absent => None,
            });
        let first = candidates.next();
        candidates
            .find(|(key, _)| &***key == crate::policy_set::NAME_LABEL)
            .or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: &[(&str, &str)], selected: bool) {
        let selector: LabelSelector = serde_json::from_str(selector).unwrap();
        let label = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(
            Selector::compile(Some(&selector)).matches(label),
            selected,
            "{selector:?} {labels:?}"
        );
    }

    #[test]
    fn selectors_mean_what_kubernetes_says() {
        let web = [("app", "web"), ("tier", "front")];
        check("{}", &[], true);
        check("{}", &web, true);
        check(r#"{"matchLabels": {"app": "web"}}"#, &web, true);
        check(r#"{"matchLabels": {"app": "db"}}"#, &web, false);
        check(r#"{"matchLabels": {"app": "web"}}"#, &[], false);
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}"#,
            &web,
            true,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}"#,
            &web,
            false,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}"#,
            &[],
            true,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "Exists"}]}"#,
            &web,
            true,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}"#,
            &web,
            false,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}"#,
            &[],
            true,
        );
        check(
            r#"{"matchExpressions": [{"key": "app", "operator": "Weird"}]}"#,
            &web,
            false,
        );
        check(
            r#"{"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["back"]}]}"#,
            &web,
            false,
        );
    }
}
