//! JSON written straight to bytes: patches, records and answers are made of so little that formatting it would cost
//! as much as the rest.
//!
//! Most of it is text of a few bytes. Where its length is known when it is compiled, the compiler writes it in place;
//! a call that copies it costs many times its bytes where the libc is musl. So what is constant stays constant here.

/// Writes text as it is.
// Only where it is inlined does the compiler see which parts are constant.
#[inline(always)]
pub(crate) fn push<const N: usize>(out: &mut Vec<u8>, parts: [&str; N]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes a JSON list.
pub(crate) fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    if needs_escapes(text) {
        // A string cannot fail to become JSON, nor a Vec to be written to.
        let _ = serde_json::to_writer(out, text);
    } else {
        push(out, ["\"", text, "\""]);
    }
}

/// Writes a JSON string of a JSON text that is itself the value of a JSON string.
pub(crate) fn write_nested_string(out: &mut Vec<u8>, text: &str) {
    if needs_escapes(text) {
        // As above, twice.
        let inner = serde_json::to_string(text).unwrap_or_default();
        let outer = serde_json::to_string(&inner).unwrap_or_default();
        let content = outer.strip_prefix('"').and_then(|o| o.strip_suffix('"'));
        push(out, [content.unwrap_or_default()]);
    } else {
        push(out, ["\\\"", text, "\\\""]);
    }
}

fn needs_escapes(text: &str) -> bool {
    // To the end in any case: so the compiler looks at sixteen bytes at once.
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte.is_ascii_control();
    text.bytes().fold(false, |any, byte| any | special(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_string_is_written_as_serde_json_writes_it() {
        for text in [
            "",
            "plain",
            "\"",
            "{\"a\":[\"b\"]}",
            "a\\b",
            "tab\t",
            "\u{7f}",
            "ümlaut \"é\"",
        ] {
            check(text);
        }
    }

    fn check(text: &str) {
        let mut out = b"before".to_vec();
        write_string(&mut out, text);
        let string = serde_json::to_string(text).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("before{string}"));

        let mut out = b"\"".to_vec();
        write_nested_string(&mut out, text);
        out.push(b'"');
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), string);
    }

    proptest! {
        #[test]
        fn so_is_any(text in "[a\"\\\\\\n\u{7f}é]{0,40}|\\PC*") {
            check(&text);
        }
    }
}
