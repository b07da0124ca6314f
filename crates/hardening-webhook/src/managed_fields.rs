//! Where `metadata.managedFields` of a review ends, before the review is parsed.
//!
//! Nearly half of a review's bytes are the book that the API server keeps of who set which field. No decision
//! looks at it, and a JSON parser takes as long over it as over the rest, string by string. But there is no list in
//! it: its end is taken to be the first bracket that could be one.
//!
//! A reader that goes on there reads nothing else than one that reads it all, or nothing. The bracket cannot be behind
//! the list's end. Were it that of a deeper list, then more would be closed in what is left than is open. Were it in
//! a string, then what is left would have one quote too many, or a backslash where none may be. Neither would parse;
//! the caller then takes the review as a whole.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

const BEGIN: &str = "\"managedFields\":[";

/// What looks for it, made once.
static BEGINS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BEGIN));

/// The first `managedFields` of a review, from its opening bracket to behind its closing one.
pub(crate) fn find(review: &str) -> Option<Range<usize>> {
    let start = BEGINS.find(review.as_bytes())? + BEGIN.len() - 1;
    let rest = review.as_bytes().get(start..)?;
    let list = rest.get(..=memchr(b']', rest)?)?;
    // JSON has none of them in a string, nor an API server between others. To the end in any case: so the compiler
    // looks at sixteen bytes at once.
    let has_control = list
        .iter()
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

    fn is_read(body: &str, known: Option<Range<usize>>) -> bool {
        json::read(body, known, |reader| reader.value::<Object>()).is_some()
    }

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        let found = find(body);
        let list = found.clone().and_then(|found| body.get(found));
        assert_eq!(list, expected, "{body}");
        assert!(is_read(body, None), "{body}");
        assert!(is_read(body, found), "{body}");
    }

    #[test]
    fn the_list_is_found_wherever_it_stands() {
        check(
            r#"{"metadata":{"name":"a","managedFields":[{"f":{"k:{\"a\":1}":{}}}]},"spec":{}}"#,
            Some(r#"[{"f":{"k:{\"a\":1}":{}}}]"#),
        );
        check(r#"{"metadata":{"managedFields":[]},"spec":{}}"#, Some("[]"));
        check(
            r#"{"metadata":{"managedFields":[1],"labels":{"a":[]}},"status":[2],"spec":{}}"#,
            Some("[1]"),
        );
        check(
            r#"{"spec":{"a":{"managedFields":[1],"b":2}},"metadata":{"managedFields":[3]}}"#,
            Some("[1]"),
        );
    }

    #[test]
    fn what_only_looks_like_it_is_not_found() {
        for body in [
            r#"{"metadata":{"a":"{\"managedFields\":[1]},\"spec\":{"},"spec":{}}"#,
            r#"{"metadata":{"managedFields":null},"spec":{}}"#,
            r#"{"metadata":{"managedField":[1]},"spec":{}}"#,
        ] {
            check(body, None);
        }
    }

    #[test]
    fn what_no_api_server_writes_is_not_found() {
        for body in [
            "{\"metadata\":{\"managedFields\":[\"\u{1}\"]},\"spec\":{}}",
            r#"{"managedFields" : [1]},"spec":{}}"#,
            r#"{"managedFields":["#,
            "",
        ] {
            assert_eq!(find(body), None, "{body:?}");
        }
    }

    #[test]
    fn what_is_left_parses_only_if_the_right_end_was_found() {
        for inner in [
            // A deeper list ends first.
            r#"{"a":{"b":[]},"spec":{}}"#,
            r#"{"a":{"b":[1]},"spec":{"c":[]}},{"d":[{"e":[]},{}]}"#,
            r#"[{"b":[]},"spec",{}],{"a":{"b":[]},"spec":{"managedFields":[]},"spec":{}}"#,
            "[]",
            "[],[]",
            // A string has a bracket.
            r#""]""#,
            r#""a]b""#,
            r#""]},\"spec\":{""#,
            r#""],",":1","""#,
            r#""],","a","b""#,
            r#"{"k:{\"]\":1}":{}}"#,
            r#""],\",\"a\":\"""#,
        ] {
            let body = format!(r#"{{"metadata":{{"managedFields":[{inner}]}},"spec":{{"x":1}}}}"#);
            assert!(is_read(&body, None), "{body}");
            let found = find(&body);
            assert!(found.is_some(), "{body}");
            assert!(!is_read(&body, found), "{body}");
        }
    }

    #[test]
    fn an_end_that_is_found_is_gone_to() {
        // No reader could get past this list.
        let body = r#"{"metadata":{"managedFields":[nothing of JSON]},"spec":{}}"#;
        assert!(!is_read(body, None));
        assert!(is_read(body, find(body)));
    }
}
