//! `metadata.managedFields` left out before a review is parsed.
//!
//! Nearly half of a review's bytes are the book that the API server keeps of who set which field. No decision
//! looks at it, and a JSON parser takes as long over it as over the rest, string by string. Here it is passed
//! over by counting brackets.
//!
//! It changes nothing that is read: in valid JSON the text looked for can only be a member of that name with a
//! list as its value, and no such member is ever looked at. (In a string its quotes would be escaped.) Where
//! the list does not end, or is written otherwise than an API server writes it, the text is left as it is.

use memchr::memmem;

/// As the API server writes it: without spaces.
const MEMBER: &str = "\"managedFields\":[";

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
    let member = memmem::find(body.as_bytes(), MEMBER.as_bytes())?;
    let (before, list) = body.split_at_checked(member + MEMBER.len())?;
    if !before.strip_suffix(MEMBER)?.ends_with(['{', ',']) {
        return None;
    }
    Some((before, list.get(end_of_list(list)?..)?))
}

/// Where the bracket stands that closes the list which `text` is inside of.
fn end_of_list(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => loop {
                match bytes.next()?.1 {
                    b'"' => break,
                    // Whatever is escaped does not end the string.
                    b'\\' => drop(bytes.next()?),
                    byte if byte.is_ascii_control() => return None,
                    _ => {}
                }
            },
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        let mut lean = "what was there before".to_owned();
        let found = leave_out(body, &mut lean);
        assert_eq!(found.then_some(lean).as_deref(), expected, "{body}");
    }

    #[test]
    fn the_items_are_left_out_whatever_their_strings_hold() {
        check(
            r#"{"name":"a","managedFields":[{"f":{"k:{\"]\":\"}\"}":{}}},[["\\"]]],"b":[1]}"#,
            Some(r#"{"name":"a","managedFields":[],"b":[1]}"#),
        );
        check(r#"{"managedFields":[]}"#, Some(r#"{"managedFields":[]}"#));
        check(
            r#"{"managedFields":["\\\"]"]}"#,
            Some(r#"{"managedFields":[]}"#),
        );
    }

    #[test]
    fn only_the_first_ones_are() {
        check(
            r#"{"a":{"managedFields":[1]},"b":{"managedFields":[2]}}"#,
            Some(r#"{"a":{"managedFields":[]},"b":{"managedFields":[2]}}"#),
        );
    }

    #[test]
    fn what_only_looks_like_them_stays() {
        for body in [
            r#"{"a":"{\"managedFields\":[1]}"}"#,
            r#"{"a":"\"managedFields\":["}"#,
            r#"{"\"managedFields":[1]}"#,
            r#"{"managedFields":null}"#,
            r#"{"managedFields" : [1]}"#,
            r#"{"managedFields":[1,{"a":"]}"#,
            r#"{"managedFields":["\"#,
            "{\"managedFields\":[\"\u{1}\"]}",
            r#"{"managedFields":["#,
            r#""managedFields":[]"#,
            "",
        ] {
            check(body, None);
        }
    }
}
