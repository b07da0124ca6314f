//! Whether selectors can select the same thing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::Namespaces;

/// The label that every namespace has.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether there can be labels that all selectors select.
pub(super) fn can_select_together(selectors: &[&LabelSelector]) -> bool {
    let mut constraints: BTreeMap<&str, Constraint<'_>> = BTreeMap::new();
    for selector in selectors {
        for (key, value) in selector.match_labels.iter().flatten() {
            constraints
                .entry(key)
                .or_default()
                .one_of([value.as_str()].into());
        }
        for LabelSelectorRequirement {
            key,
            operator,
            values,
        } in selector.match_expressions.iter().flatten()
        {
            let constraint = constraints.entry(key).or_default();
            let values = values.iter().flatten().map(String::as_str).collect();
            match operator.as_str() {
                "In" => constraint.one_of(values),
                "NotIn" => constraint.none_of.extend(values),
                "Exists" => constraint.present = true,
                "DoesNotExist" => constraint.absent = true,
                // The schema refuses it; it selects nothing.
                _ => return false,
            }
        }
    }
    constraints.values().all(Constraint::can_be_met)
}

/// Whether a selector can select a namespace: by its labels where they are known, else by its name.
pub(super) fn can_select_namespace(
    selector: &LabelSelector,
    name: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let mut exactly: BTreeMap<String, String> = labels.cloned().unwrap_or_default();
    exactly.insert(NAME_LABEL.to_owned(), name.to_owned());
    let mut known = LabelSelector {
        match_labels: Some(exactly),
        match_expressions: None,
    };
    if labels.is_some() {
        // Every other label that the selector asks for is known to be absent.
        let asked = selector.match_labels.iter().flatten().map(|(key, _)| key);
        let asked = asked.chain(
            selector
                .match_expressions
                .iter()
                .flatten()
                .map(|requirement| &requirement.key),
        );
        let has = |key: &&String| {
            known
                .match_labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key(*key))
        };
        let absent = asked
            .filter(|key| !has(key))
            .map(|key| LabelSelectorRequirement {
                key: key.clone(),
                operator: "DoesNotExist".to_owned(),
                values: None,
            });
        known.match_expressions = Some(absent.collect());
    }
    can_select_together(&[selector, &known])
}

/// Whether two selectors can select the same namespace: one of those that are known, or another.
pub(super) fn can_select_the_same_namespace(
    one: &LabelSelector,
    two: &LabelSelector,
    known: &Namespaces,
) -> bool {
    let mut known_ones = known.iter();
    let other = LabelSelectorRequirement {
        key: NAME_LABEL.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(known.keys().cloned().collect()),
    };
    let other = LabelSelector {
        match_labels: None,
        match_expressions: Some(vec![other]),
    };
    known_ones.any(|(name, labels)| {
        let selects = |selector| can_select_namespace(selector, name, Some(labels));
        selects(one) && selects(two)
    }) || can_select_together(&[one, two, &other])
}

/// What a label must be.
#[derive(Default)]
struct Constraint<'a> {
    one_of: Option<BTreeSet<&'a str>>,
    none_of: BTreeSet<&'a str>,
    present: bool,
    absent: bool,
}

impl<'a> Constraint<'a> {
    fn one_of(&mut self, values: BTreeSet<&'a str>) {
        self.one_of = Some(match self.one_of.take() {
            Some(before) => before.intersection(&values).copied().collect(),
            None => values,
        });
    }

    fn can_be_met(&self) -> bool {
        let with_a_value = match &self.one_of {
            Some(values) => values.difference(&self.none_of).next().is_some(),
            // There is always another value.
            None => true,
        };
        let without = self.one_of.is_none() && !self.present;
        (with_a_value && !self.absent) || without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    fn requirement(operator: &str, values: &str) -> String {
        format!(
            r#"{{"matchExpressions": [{{"key": "a", "operator": "{operator}", "values": {values}}}]}}"#
        )
    }

    #[test]
    fn selectors_that_exclude_each_other_select_nothing_together() {
        let [one, two] = [
            r#"{"matchLabels": {"a": "1"}}"#,
            r#"{"matchLabels": {"a": "2"}}"#,
        ]
        .map(str::to_owned);
        let [in_1, in_12] = ["[\"1\"]", "[\"1\", \"2\"]"].map(|values| requirement("In", values));
        let [not_1, not_12] =
            ["[\"1\"]", "[\"1\", \"2\"]"].map(|values| requirement("NotIn", values));
        let [exists, absent] =
            ["Exists", "DoesNotExist"].map(|operator| requirement(operator, "null"));
        let all = "{}".to_owned();
        let cases: &[(&String, &String, bool)] = &[
            (&all, &all, true),
            (&all, &one, true),
            (&one, &one, true),
            (&one, &two, false),
            (&one, &in_12, true),
            (&two, &in_1, false),
            (&one, &not_1, false),
            (&two, &not_1, true),
            (&in_12, &not_1, true),
            (&in_12, &not_12, false),
            (&one, &exists, true),
            (&one, &absent, false),
            (&exists, &absent, false),
            (&not_1, &absent, true),
            (&not_1, &exists, true),
            (&absent, &absent, true),
        ];
        for (a, b, expected) in cases {
            let (left, right) = (selector(a), selector(b));
            assert_eq!(can_select_together(&[&left, &right]), *expected, "{a} {b}");
            assert_eq!(can_select_together(&[&right, &left]), *expected, "{b} {a}");
        }
        assert!(!can_select_together(&[&selector(&requirement(
            "Weird", "null"
        ))]));
    }

    #[test]
    fn a_namespace_has_its_known_labels_or_any_beside_its_name() {
        let known: BTreeMap<String, String> = [("a".to_owned(), "1".to_owned())].into();
        let by_name = r#"{"matchLabels": {"kubernetes.io/metadata.name": "shop"}}"#.to_owned();
        let cases: &[(&str, bool, bool)] = &[
            ("{}", true, true),
            (&by_name, true, true),
            (&by_name.replace("shop", "bank"), false, false),
            (r#"{"matchLabels": {"a": "1"}}"#, true, true),
            (r#"{"matchLabels": {"a": "2"}}"#, false, true),
            (r#"{"matchLabels": {"b": "1"}}"#, false, true),
            (&requirement("DoesNotExist", "null"), false, true),
            (&requirement("NotIn", "[\"2\"]"), true, true),
        ];
        for (text, with_labels, without) in cases {
            let selector = selector(text);
            assert_eq!(
                can_select_namespace(&selector, "shop", Some(&known)),
                *with_labels,
                "{text}"
            );
            assert_eq!(
                can_select_namespace(&selector, "shop", None),
                *without,
                "{text}"
            );
        }
    }

    #[test]
    fn two_selectors_meet_in_a_namespace_that_is_known_or_in_any_other() {
        let by_name = r#"{"matchLabels": {"kubernetes.io/metadata.name": "shop"}}"#;
        let [bank, shop] =
            ["bank", "shop"].map(|team| format!(r#"{{"matchLabels": {{"team": "{team}"}}}}"#));
        let labels = [("team".to_owned(), "shop".to_owned())].into();
        let known: Namespaces = [("shop".to_owned(), labels)].into();
        let cases: &[(&str, &str, bool, bool)] = &[
            ("{}", "{}", true, true),
            (by_name, &shop, true, true),
            (by_name, &bank, false, true),
            (&bank, "{}", true, true),
            (&bank, &shop, false, false),
        ];
        for (a, b, with_known, without) in cases {
            let (one, two) = (selector(a), selector(b));
            assert_eq!(
                can_select_the_same_namespace(&one, &two, &known),
                *with_known,
                "{a} {b}"
            );
            assert_eq!(
                can_select_the_same_namespace(&one, &two, &Namespaces::new()),
                *without,
                "{a} {b}"
            );
        }
    }
}
