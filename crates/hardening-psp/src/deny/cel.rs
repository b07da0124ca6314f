//! Small pieces of CEL, the language of a ValidatingAdmissionPolicy's rules.
//!
//! What comes from a PSP is text in these expressions, so it goes through [`text`] and [`list`] and nowhere
//! else.

use crate::policy::Ranges;

/// A text as a literal. JSON's escapes are among CEL's.
pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of literals.
pub(super) fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|one| text(one)).collect();
    format!("[{}]", texts.join(", "))
}

/// Whether any of these is so; `false` where there are none.
pub(super) fn any(conditions: impl IntoIterator<Item = String>) -> String {
    let conditions: Vec<String> = conditions.into_iter().collect();
    match conditions.is_empty() {
        true => "false".to_owned(),
        false => format!("({})", conditions.join(" || ")),
    }
}

/// Whether a number is within one of the ranges, both ends included.
pub(super) fn within(number: &str, ranges: impl IntoIterator<Item = (i64, i64)>) -> String {
    any(ranges.into_iter().map(|(min, max)| match min == max {
        true => format!("{number} == {min}"),
        false => format!("{min} <= {number} && {number} <= {max}"),
    }))
}

/// A message, in a list, where a condition holds; else an empty list.
pub(super) fn when(condition: &str, message: &str) -> String {
    format!("({condition} ? [{message}] : [])")
}

/// The messages of all these lists.
pub(super) fn all(lists: impl IntoIterator<Item = String>) -> String {
    lists.into_iter().collect::<Vec<_>>().join(" + ")
}

impl Ranges {
    /// Whether a number is within one of them.
    pub(super) fn cel(&self, number: &str) -> String {
        within(number, self.all.iter().map(|range| (range.min, range.max)))
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
            ("\u{1}", r#""\u0001""#),
        ] {
            assert_eq!(text(given), expected);
        }
    }

    #[test]
    fn ranges_have_both_their_ends() {
        assert_eq!(within("x", []), "false");
        assert_eq!(
            within("x", [(1, 1), (2, 9)]),
            "(x == 1 || 2 <= x && x <= 9)"
        );
    }
}
