//! How the API server puts things into words.

/// `"a", "b"`, as it is: a quote within is not escaped.
pub(crate) fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("\"{}\"", item.as_ref()))
        .collect();
    items.join(", ")
}

/// One or the other, by number.
pub(crate) fn plural<'t>(one: &'t str, many: &'t str, count: usize) -> &'t str {
    if count == 1 { one } else { many }
}

/// A text as a literal of Go's, which is how values of annotations are shown.
pub(crate) fn go_literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\u{7}' => literal.push_str("\\a"),
            '\u{8}' => literal.push_str("\\b"),
            '\u{c}' => literal.push_str("\\f"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            '\u{b}' => literal.push_str("\\v"),
            c if c.is_ascii_control() => literal.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_printable(c) => literal.push(c),
            c if u32::from(c) < 0x1_0000 => literal.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => literal.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    literal.push('"');
    literal
}

fn is_printable(c: char) -> bool {
    // After another character, so that marks that combine with it are shown, as Go does.
    c == '\'' || !format!("x{c}").escape_debug().any(|shown| shown == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_those_of_go() {
        for (text, expected) in [
            ("localhost/größe", r#""localhost/größe""#),
            ("a \"b\" \\ 'c'", r#""a \"b\" \\ 'c'""#),
            ("\u{7}\u{8}\t\n\u{b}\u{c}\r", r#""\a\b\t\n\v\f\r""#),
            ("\0\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            (
                "\u{ad}\u{a0}\u{2028}\u{feff}",
                r#""\u00ad\u00a0\u2028\ufeff""#,
            ),
            ("\u{1f980}e\u{301}", "\"\u{1f980}e\u{301}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(go_literal(text), expected);
        }
    }

    #[test]
    fn lists_are_quoted_and_counted() {
        assert_eq!(quoted(["a", "b\"c"]), r#""a", "b"c""#);
        assert_eq!(plural("type", "types", 1), "type");
        assert_eq!(plural("type", "types", 0), "types");
    }
}
