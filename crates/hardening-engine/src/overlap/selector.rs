//! Whether selectors can select the same thing.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy_set::NAME_LABEL;
use crate::selector::{Is, Selector};

/// Whether there can be labels that all selectors select.
pub(super) fn can_select_together(selectors: &[&Selector]) -> bool {
    constraints(selectors).values().all(Constraint::can_be_met)
}

/// Whether all selectors can select the namespace of this name, whose other labels are not known.
pub(super) fn can_select_the_one_named(name: &str, selectors: &[&Selector]) -> bool {
    let mut constraints = constraints(selectors);
    constraints
        .entry(NAME_LABEL)
        .or_default()
        .one_of([name].into());
    constraints.values().all(Constraint::can_be_met)
}

/// The names of the namespaces that all selectors ask for; `None`: none of them asks for a name.
pub(super) fn names<'a>(selectors: &[&'a Selector]) -> Option<BTreeSet<&'a str>> {
    constraints(selectors).remove(NAME_LABEL)?.one_of
}

/// The values of a label of which whatever is selected must have one; `None`: it needs none of them.
pub(super) fn required(selector: &Selector, label: &str) -> Option<BTreeSet<String>> {
    let values = constraints(&[selector]).remove(label)?.one_of?;
    Some(values.into_iter().map(str::to_owned).collect())
}

fn constraints<'a>(selectors: &[&'a Selector]) -> BTreeMap<&'a str, Constraint<'a>> {
    let mut constraints: BTreeMap<&str, Constraint<'_>> = BTreeMap::new();
    for requirement in selectors.iter().flat_map(|selector| &selector.0) {
        let constraint = constraints.entry(&requirement.key).or_default();
        match &requirement.is {
            Is::In(values) => constraint.one_of(values.iter().map(AsRef::as_ref).collect()),
            Is::NotIn(values) => constraint.none_of.extend(values.iter().map(AsRef::as_ref)),
            Is::Present => constraint.present = true,
            Is::Absent => constraint.absent = true,
        }
    }
    constraints
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

    use super::*;

    fn selector(json: &str) -> Selector {
        let selector: LabelSelector = serde_json::from_str(json).unwrap();
        Selector::compile(Some(&selector))
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
    fn a_namespace_whose_labels_are_not_known_has_its_name_and_any_other() {
        let by_name = r#"{"matchLabels": {"kubernetes.io/metadata.name": "shop"}}"#.to_owned();
        let cases: &[(&str, bool)] = &[
            ("{}", true),
            (&by_name, true),
            (&by_name.replace("shop", "bank"), false),
            (r#"{"matchLabels": {"a": "1"}}"#, true),
            (&requirement("DoesNotExist", "null"), true),
            (&requirement("NotIn", "[\"2\"]"), true),
        ];
        for (text, expected) in cases {
            let selector = selector(text);
            assert_eq!(
                can_select_the_one_named("shop", &[&selector]),
                *expected,
                "{text}"
            );
        }
    }
}
