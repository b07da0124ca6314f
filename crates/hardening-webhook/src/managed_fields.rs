//! Where `metadata.managedFields` of a review ends, before the review is parsed.
//!
//! Nearly half of a review's bytes are the book that the API server keeps of who set which field. No decision
//! looks at it, and a JSON parser takes as long over it as over the rest, string by string. Here its end is found
//! as an API server writes it: the last of `metadata`, with `spec` after it.
//!
//! A reader that goes on there reads nothing else than one that reads it all. In valid JSON the text of the end can
//! only be structure: in a string its quotes would be escaped. So a list and an object end before `spec`. If those
//! were others than this list and the object around it, deeper ones, then more would be closed in what is left than
//! is open, and it would not parse; the caller then takes the review as a whole. Likewise where anything is written
//! otherwise than an API server writes it.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

const BEGIN: &str = "\"managedFields\":[";
const END: &str = "]},\"spec\":{";

/// What looks for them, made once.
static BEGINS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BEGIN));
static ENDS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(END));

/// The first `managedFields` of a review, from its opening bracket to behind its closing one.
pub(crate) fn find(review: &str) -> Option<Range<usize>> {
    let start = BEGINS.find(review.as_bytes())? + BEGIN.len() - 1;
    let list = review.get(start..)?;
    let list = list.get(..=ENDS.find(list.as_bytes())?)?;
    // JSON has none of them in a string, nor an API server between others. To the end in any case: so the compiler
    // looks at sixteen bytes at once.
    let has_control = list
        .bytes()
        .fold(false, |any, byte| any | byte.is_ascii_control());
    (!has_control).then_some(start..start + list.len())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IgnoredAny;

    use super::*;
    use crate::json;

    /// Reads as a review is read: what is not asked for is passed over.
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "that it is read is what counts")]
    struct Object {
        metadata: Metadata,
        spec: IgnoredAny,
    }

    #[derive(Deserialize)]
    struct Metadata {}

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        let found = find(body);
        let list = found.clone().and_then(|found| body.get(found));
        assert_eq!(list, expected, "{body}");
        let is_read = json::read::<Object>(body, found).is_some();
        assert_eq!(is_read, expected.is_some(), "{body}");
    }

    #[test]
    fn the_list_is_found_whatever_its_strings_hold() {
        check(
            r#"{"metadata":{"name":"a","managedFields":[{"f":{"k:{\"]},\":{\"}\"}":{}}},[["\\"]]]},"spec":{}}"#,
            Some(r#"[{"f":{"k:{\"]},\":{\"}\"}":{}}},[["\\"]]]"#),
        );
        check(
            r#"{"metadata":{"managedFields":["]},\"spec\":{"]},"spec":{}}"#,
            Some(r#"["]},\"spec\":{"]"#),
        );
        check(r#"{"metadata":{"managedFields":[]},"spec":{}}"#, Some("[]"));
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        for body in [
            r#"{"a":"{\"managedFields\":[1]},\"spec\":{"}"#,
            r#"{"a":"\"managedFields\":["},"spec":{}}"#,
            r#"{"managedFields":null},"spec":{}}"#,
            r#"{"managedFields" : [1]},"spec":{}}"#,
            r#"{"managedFields":[1],"labels":{}},"spec":{}}"#,
            r#"{"managedFields":[1]}, "spec":{}}"#,
            "{\"managedFields\":[\"\u{1}\"]},\"spec\":{}}",
            r#"{"managedFields":["#,
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
            assert!(json::read::<Object>(&body, None).is_some(), "{body}");
            let found = find(&body);
            assert!(found.is_some(), "{body}");
            assert!(json::read::<Object>(&body, found).is_none(), "{body}");
        }
    }

    #[test]
    fn an_end_that_is_found_is_gone_to() {
        // No reader could get past this list.
        let body = r#"{"metadata":{"managedFields":[nothing of JSON]},"spec":{}}"#;
        assert!(json::read::<Object>(body, None).is_none());
        assert!(json::read::<Object>(body, find(body)).is_some());
    }
}
