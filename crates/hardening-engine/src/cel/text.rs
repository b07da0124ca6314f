//! Small pieces of CEL. What a policy says is text in these expressions, so it goes through [`text`] and
//! nowhere else; what is known beforehand is not asked of the API server again.

/// A text as a literal. JSON's escapes are among CEL's.
pub(crate) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of literals.
pub(crate) fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(text).collect();
    format!("[{}]", texts.join(", "))
}

/// Whether all of these hold; `true` where there are none.
pub(crate) fn all(conditions: impl IntoIterator<Item = String>) -> String {
    joined(conditions, " && ", "true", "false")
}

/// Whether any of these holds; `false` where there are none.
pub(crate) fn any(conditions: impl IntoIterator<Item = String>) -> String {
    joined(conditions, " || ", "false", "true")
}

/// `neutral` changes nothing, `decisive` decides.
fn joined(
    conditions: impl IntoIterator<Item = String>,
    operator: &str,
    neutral: &str,
    decisive: &str,
) -> String {
    let mut kept: Vec<String> = Vec::new();
    for condition in conditions {
        if condition == decisive {
            return condition;
        }
        if condition != neutral && !kept.contains(&condition) {
            kept.push(condition);
        }
    }
    match kept.len() {
        0 => neutral.to_owned(),
        1 => kept.swap_remove(0),
        _ => format!("({})", kept.join(operator)),
    }
}

/// The opposite.
pub(crate) fn not(condition: &str) -> String {
    match condition {
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        _ => format!("!({condition})"),
    }
}

/// One or the other.
pub(crate) fn either(condition: &str, then: String, otherwise: String) -> String {
    match condition {
        "true" => then,
        "false" => otherwise,
        _ if then == otherwise => then,
        _ if then == "true" && otherwise == "false" => condition.to_owned(),
        _ => format!("({condition} ? {then} : {otherwise})"),
    }
}

/// The most operators in a row: each counts as a level of nesting, see [`super::MOST_NESTED`].
const MOST_IN_A_ROW: usize = 50;

/// All items of these lists; `[]` where there are none.
pub(crate) fn concatenated(lists: impl IntoIterator<Item = String>) -> String {
    let mut lists: Vec<String> = lists.into_iter().filter(|list| list != "[]").collect();
    while lists.len() > MOST_IN_A_ROW {
        let rows = lists.chunks(MOST_IN_A_ROW);
        lists = rows.map(|row| format!("({})", row.join(" + "))).collect();
    }
    match lists.is_empty() {
        true => "[]".to_owned(),
        false => lists.join(" + "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_literal() {
        for (given, expected) in [
            ("plain", r#""plain""#),
            (r#"a" || true || ""#, r#""a\" || true || \"""#),
            ("back\\slash", r#""back\\slash""#),
            ("two\nlines", r#""two\nlines""#),
        ] {
            assert_eq!(text(given), expected);
        }
    }

    #[test]
    fn many_lists_stand_in_rows() {
        let lists = |count: usize| concatenated((0..count).map(|n| format!("[{n}]")));
        assert_eq!(lists(0), "[]");
        assert_eq!(lists(2), "[0] + [1]");
        let many = lists(MOST_IN_A_ROW * 2 + 1);
        assert!(many.starts_with("([0] + [1] + "), "{many}");
        assert!(many.contains("[49]) + ([50] + "), "{many}");
        assert!(many.ends_with("[99]) + ([100])"), "{many}");
    }

    #[test]
    fn what_is_known_is_not_asked() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        for (conditions, both, one) in [
            (&[][..], "true", "false"),
            (&["a"], "a", "a"),
            (&["a", "true"], "a", "true"),
            (&["a", "false"], "false", "a"),
            (&["a", "b", "a"], "(a && b)", "(a || b)"),
        ] {
            assert_eq!(all(words(conditions)), both, "{conditions:?}");
            assert_eq!(any(words(conditions)), one, "{conditions:?}");
        }
        let either = |condition: &str, then: &str, otherwise: &str| {
            super::either(condition, then.to_owned(), otherwise.to_owned())
        };
        assert_eq!(either("true", "x", "y"), "x");
        assert_eq!(either("false", "x", "y"), "y");
        assert_eq!(either("a", "x", "x"), "x");
        assert_eq!(either("a", "true", "false"), "a");
        assert_eq!(either("a", "x", "y"), "(a ? x : y)");
    }
}
