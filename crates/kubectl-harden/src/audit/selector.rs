//! Label selectors as kubectl writes them: `app=web,tier!=db,env in (a, b),!old`.

use std::collections::BTreeMap;
use std::str::FromStr;

use kube::core::{Expression, Selector, SelectorExt as _};

/// A label selector, for the API server as it was written and to be applied here.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    pub(crate) text: String,
    selector: Selector,
}

impl Labels {
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parts(text).into_iter();
        let expressions: Result<Vec<Expression>, String> = parts.map(expression).collect();
        Ok(Self {
            text: text.to_owned(),
            selector: expressions?.into_iter().collect(),
        })
    }
}

/// The text between commas, but for those in parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let parts = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).collect()
}

fn expression(part: &str) -> Result<Expression, String> {
    let wrong =
        || format!("{part:?} is no requirement like a=b, a!=b, a in (b, c), a notin (b), a or !a");
    let key = |key: &str| match key.trim() {
        key if is_word(key) && !key.is_empty() => Ok(key.to_owned()),
        _ => Err(wrong()),
    };
    let value = |value: &str| match value.trim() {
        value if is_word(value) => Ok(value.to_owned()),
        _ => Err(wrong()),
    };
    if let Some((left, right)) = part.split_once("!=") {
        return Ok(Expression::NotEqual(key(left)?, value(right)?));
    }
    if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Expression::Equal(key(left)?, value(right)?));
    }
    if let Some(absent) = part.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(key(absent)?));
    }
    let Some((left, list)) = part.split_once('(') else {
        return Ok(Expression::Exists(key(part)?));
    };
    let list = list.strip_suffix(')').ok_or_else(wrong)?;
    let values = list.split(',').map(value).collect::<Result<_, _>>()?;
    match left.trim().rsplit_once(char::is_whitespace) {
        Some((left, "in")) => Ok(Expression::In(key(left)?, values)),
        Some((left, "notin")) => Ok(Expression::NotIn(key(left)?, values)),
        _ => Err(wrong()),
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubectl_s_do() {
        let labels = BTreeMap::from([("app", "web"), ("tier", "front")]);
        let labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        for (text, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("app = web, tier=front", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (api, web)", true),
            ("app in (api),tier", false),
            ("app notin (api)", true),
            ("tier", true),
            ("!tier", false),
            ("!other", true),
        ] {
            let selector: Labels = text.parse().unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", "a=b,", "a b", "a in b", "a in (b", "a=(b)", "=a", "!"] {
            assert!(text.parse::<Labels>().is_err(), "{text:?}");
        }
    }
}
