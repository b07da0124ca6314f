//! JSON written straight to bytes: patches, records and answers are made of so little that formatting it would cost
//! as much as the rest.
//!
//! Most of it is text of a few bytes, and a call of `memcpy` costs many times that where the libc is musl. So what is
//! constant is written in place by the compiler, which knows its length, and what is not is copied in pieces of constant
//! length.

/// Writes text as it is. Where all of it is constant, `Vec::extend_from_slice` is cheaper still.
pub(crate) fn push<const N: usize>(out: &mut Vec<u8>, parts: [&str; N]) {
    for part in parts {
        push_bytes(out, part.as_bytes());
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        0..4 => {
            for byte in bytes {
                out.push(*byte);
            }
        }
        4..8 => push_ends::<4>(out, bytes),
        8..16 => push_ends::<8>(out, bytes),
        16..32 => push_ends::<16>(out, bytes),
        32..=64 => push_ends::<32>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// Writes from `N` to twice as many bytes, as two pieces of `N` that overlap in what both have.
fn push_ends<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
        return out.extend_from_slice(bytes);
    };
    let start = out.len();
    out.extend_from_slice(first);
    out.truncate(start + bytes.len() - N);
    out.extend_from_slice(last);
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
    if needs_escapes(text.as_bytes()) {
        // A string cannot fail to become JSON, nor a Vec to be written to.
        let _ = serde_json::to_writer(out, text);
    } else {
        out.push(b'"');
        push_bytes(out, text.as_bytes());
        out.push(b'"');
    }
}

/// Writes a JSON string, of a JSON text that is itself the value of a JSON string. What is in it `write` writes as it is.
pub(crate) fn write_nested_string(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"\\\"");
    let start = out.len();
    write(out);
    if out.get(start..).is_some_and(needs_escapes) {
        // Made of texts. As above, twice.
        let text = String::from_utf8(out.split_off(start)).unwrap_or_default();
        let inner = serde_json::to_string(&text).unwrap_or_default();
        let outer = serde_json::to_string(&inner).unwrap_or_default();
        let content = outer.strip_prefix("\"\\\"");
        let content = content.and_then(|outer| outer.strip_suffix("\\\"\""));
        out.extend_from_slice(content.unwrap_or_default().as_bytes());
    }
    out.extend_from_slice(b"\\\"");
}

fn needs_escapes(text: &[u8]) -> bool {
    // To the end in any case: so the compiler looks at sixteen bytes at once.
    let special = |byte: &u8| *byte == b'"' || *byte == b'\\' || byte.is_ascii_control();
    text.iter().fold(false, |any, byte| any | special(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_of_any_length_is_written_whole_behind_what_is_there() {
        let text: String = ('!'..='~').cycle().take(200).collect();
        for len in 0..=text.len() {
            let mut out = b"before".to_vec();
            push(&mut out, [&text[..len], "|"]);
            let expected = format!("before{}|", &text[..len]);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{len} bytes");
        }
    }

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
        write_nested_string(&mut out, |out| push(out, [text]));
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
