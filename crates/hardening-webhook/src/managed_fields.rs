//! `metadata.managedFields` left out before a review is parsed.
//!
//! Nearly half of a review's bytes are the book that the API server keeps of who set which field. No decision
//! looks at it, and a JSON parser takes as long over it as over the rest, string by string. Here it is passed
//! over by looking for its end as an API server writes it: the last of `metadata`, with `spec` after it.
//!
//! It changes nothing that is read. In valid JSON the text of either end can only be structure: in a string its
//! quotes would be escaped. So `managedFields` is the name of a member with a list, and a list and an object end
//! before `spec`. If those were others than this list and the object around it, deeper ones, then more of what
//! is open would be closed in what is left than was opened, and it would not parse; the caller then takes the
//! review as it came. Likewise where anything is written otherwise than an API server writes it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

const BEGIN: &str = "\"managedFields\":[";
const END: &str = "]},\"spec\":{";

/// What looks for them, made once.
static BEGINS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BEGIN));
static ENDS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(END));

/// Writes `body` to `lean` without the items of its first `managedFields`; whether there were any.
pub(crate) fn leave_out(body: &str, lean: &mut String) -> bool {
    let Some((before, after)) = split(body) else {
        return false;
    };
    lean.clear();
    lean.reserve_exact(before.len() + after.len());
    lean.extend([before, after]);
    true
}

/// What stands before the items, and what stands after them.
fn split(body: &str) -> Option<(&str, &str)> {
    let begin = BEGINS.find(body.as_bytes())?;
    let (before, items) = body.split_at_checked(begin + BEGIN.len())?;
    if !before.strip_suffix(BEGIN)?.ends_with(['{', ',']) {
        return None;
    }
    let end = ENDS.find(items.as_bytes())?;
    let (items, after) = items.split_at_checked(end)?;
    // JSON has none of them in a string, nor an API server between others. To the end in any case: so the compiler
    // looks at sixteen bytes at once.
    let has_control = items
        .bytes()
        .fold(false, |any, byte| any | byte.is_ascii_control());
    (!has_control).then_some((before, after))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        let mut lean = "what was there before".to_owned();
        let found = leave_out(body, &mut lean);
        assert_eq!(found.then_some(lean).as_deref(), expected, "{body}");
    }

    #[test]
    fn the_items_are_left_out_whatever_their_strings_hold() {
        check(
            r#"{"metadata":{"name":"a","managedFields":[{"f":{"k:{\"]},\":{\"}\"}":{}}},[["\\"]]]},"spec":{}}"#,
            Some(r#"{"metadata":{"name":"a","managedFields":[]},"spec":{}}"#),
        );
        check(
            r#"{"metadata":{"managedFields":["]},\"spec\":{"]},"spec":{}}"#,
            Some(r#"{"metadata":{"managedFields":[]},"spec":{}}"#),
        );
        check(
            r#"{"metadata":{"managedFields":[]},"spec":{}}"#,
            Some(r#"{"metadata":{"managedFields":[]},"spec":{}}"#),
        );
    }

    #[test]
    fn what_only_looks_like_them_stays() {
        for body in [
            r#"{"a":"{\"managedFields\":[1]},\"spec\":{"}"#,
            r#"{"a":"\"managedFields\":["},"spec":{}}"#,
            r#"{"\"managedFields":[1]},"spec":{}}"#,
            r#"{"managedFields":null},"spec":{}}"#,
            r#"{"managedFields" : [1]},"spec":{}}"#,
            r#"{"managedFields":[1],"labels":{}},"spec":{}}"#,
            r#"{"managedFields":[1]}, "spec":{}}"#,
            "{\"managedFields\":[\"\u{1}\"]},\"spec\":{}}",
            r#"{"managedFields":["#,
            r#""managedFields":[]},"spec":{"#,
            "",
        ] {
            check(body, None);
        }
    }

    #[test]
    fn what_is_left_parses_only_if_the_right_end_was_found() {
        // Each ends, deeper, as the list and its object do.
        for inner in [
            r#"{"a":{"b":[]},"spec":{}}"#,
            r#"{"a":{"b":[1]},"spec":{"c":[]}},{"d":[{"e":[]},{}]}"#,
            r#"[{"b":[]},"spec",{}],{"a":{"b":[]},"spec":{"managedFields":[]},"spec":{}}"#,
        ] {
            let body = format!(r#"{{"metadata":{{"managedFields":[{inner}]}},"spec":{{"x":1}}}}"#);
            assert!(serde_json::from_str::<Value>(&body).is_ok(), "{body}");
            let mut lean = String::new();
            assert!(leave_out(&body, &mut lean), "{body}");
            assert!(serde_json::from_str::<Value>(&lean).is_err(), "{lean}");
        }
    }
}
