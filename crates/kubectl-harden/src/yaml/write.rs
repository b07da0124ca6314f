//! Values as YAML that `kubectl`, whose parser is of YAML 1.1, reads back as just these values: `"yes"`,
//! `"0644"` and their like in quotes.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;
use serde_saphyr::{LitStr, SingleQuoted};

use super::tree::{Indentation, Node};

/// A value on lines of its own. Its keys have the order that they have in `like`, and it is indented like
/// it; other keys come after them, by name.
pub(crate) fn block(value: &Value, like: Option<&Node>) -> String {
    block_indented(value, like, like.map(Node::indentation).unwrap_or_default())
}

/// As [`block`], with an indentation.
pub(crate) fn block_indented(
    value: &Value,
    like: Option<&Node>,
    indentation: Indentation,
) -> String {
    let options = serde_saphyr::ser_options! {
        indent_step: indentation.step,
        compact_list_indent: !indentation.lists,
        prefer_block_scalars: false,
    };
    let ordered = Ordered {
        value,
        like,
        literals: true,
    };
    // Writing to a string fails for options out of range only, and these come from a parsed document.
    serde_saphyr::to_string_with_options(&ordered, options).unwrap_or_else(|_| flow(value) + "\n")
}

/// A value on one line: JSON, which is YAML too once the few characters are escaped that YAML takes for
/// line ends or does not take at all. They can stand in strings only.
pub(crate) fn flow(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

/// A value as JSON over several lines, with its keys in the order that they have in `like`.
pub(crate) fn json(value: &Value, like: Option<&Node>) -> String {
    let ordered = Ordered {
        value,
        like,
        literals: false,
    };
    serde_json::to_string_pretty(&ordered).unwrap_or_else(|_| flow(value))
}

/// Objects as a List in JSON, as [`json`] writes them.
pub(crate) fn json_list(objects: &[(&Value, Option<&Node>)]) -> String {
    let items = objects.iter().map(|(value, like)| Ordered {
        value,
        like: *like,
        literals: false,
    });
    let list = List {
        api_version: "v1",
        items: items.collect(),
        kind: "List",
    };
    serde_json::to_string_pretty(&list).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'a str,
    items: Vec<Ordered<'a>>,
    kind: &'a str,
}

/// A value that is written in its author's order of keys.
struct Ordered<'a> {
    value: &'a Value,
    like: Option<&'a Node>,
    /// Whether text of several lines is written as such (`|`).
    literals: bool,
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let with = |value, like| Ordered {
            value,
            like,
            literals: self.literals,
        };
        match self.value {
            Value::Object(members) => {
                let place = |key: &str| {
                    let entries = self.like.map(Node::entries).unwrap_or_default();
                    entries
                        .iter()
                        .rposition(|entry| entry.key == key)
                        .unwrap_or(usize::MAX)
                };
                let mut ordered: Vec<_> = members.iter().collect();
                ordered.sort_by_key(|(key, _)| place(key));
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in ordered {
                    let like = self
                        .like
                        .and_then(|like| like.entry(key))
                        .map(|entry| &entry.value);
                    map.serialize_entry(key, &with(value, like))?;
                }
                map.end()
            }
            Value::Array(items) => {
                let likes = self.like.map(Node::items).unwrap_or_default();
                let like = |index| likes.get(index);
                serializer.collect_seq(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| with(item, like(index))),
                )
            }
            Value::String(text) if self.literals && reads_well_as_literal(text) => {
                LitStr(text).serialize(serializer)
            }
            Value::String(text) if self.literals && reads_well_in_single_quotes(text) => {
                SingleQuoted(text).serialize(serializer)
            }
            other => other.serialize(serializer),
        }
    }
}

/// JSON as a value, in annotations mostly, and expressions are unreadable between double quotes.
fn reads_well_in_single_quotes(text: &str) -> bool {
    let needs_quotes = text.starts_with(['{', '[', '!']) || text.contains(": ");
    needs_quotes
        && text.contains('"')
        && text.chars().all(|c| (' '..='~').contains(&c) && c != '\'')
}

/// Text of several lines, without what a literal block hides from the eye or cannot hold.
fn reads_well_as_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !text.ends_with("\n\n")
        && text.lines().all(|line| !line.ends_with([' ', '\t']))
        && text
            .chars()
            .all(|c| c == '\n' || c == '\t' || !c.is_control())
        && !text.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        let [manifest] = hardening_manifests::parse("", text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        manifest.value
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        let text = [
            "yes",
            "y",
            "on",
            "n",
            "No",
            "OFF",
            "true",
            "null",
            "~",
            "",
            "0644",
            "1e3",
            "0x1F",
            "0b1",
            "1_000",
            "12:30",
            "2001-01-01",
            ".5",
            "+1",
            "<<",
            "=",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a",
            "[a",
            "a\tb",
            " a",
            "a ",
            "?",
            "-",
            "\"a\"",
            "'a'",
            "a\u{7f}",
            "\u{feff}",
            "\u{2028}",
        ];
        for text in text {
            let written = block(&json!({"k": text}), None);
            assert!(
                written.starts_with("k: \"") || written.starts_with("k: '"),
                "{written}"
            );
            assert_eq!(read(&written), json!({"k": text}));
            if text != "<<" {
                assert_eq!(read(&block(&json!({text: 1}), None)), json!({text: 1}));
            }
        }
        for text in [
            "a",
            "app.kubernetes.io/name",
            "10Mi",
            "a b",
            "/tmp",
            "v1.2.3",
            "ö",
            "a:b",
            "RuntimeDefault",
            "-c",
        ] {
            assert_eq!(block(&json!({"k": text}), None), format!("k: {text}\n"));
        }
    }

    #[test]
    fn text_of_several_lines_stays_readable() {
        let script = "set -e\nif true; then\n  echo hi: there # no comment\n\n\techo\nfi\n";
        assert_eq!(
            block(&json!({"a": [script]}), None),
            "a:\n- |\n  set -e\n  if true; then\n    echo hi: there # no comment\n\n  \techo\n  fi\n"
        );
        for text in [
            "a\nb", "a\nb\n\n", "a \nb", " a\nb", "\na", "a\r\nb", "a\n", "\n", "a\n b \n",
        ] {
            assert_eq!(
                read(&block(&json!({"k": text}), None)),
                json!({"k": text}),
                "{text:?}"
            );
        }
    }

    #[test]
    fn json_stays_readable() {
        let text = r#"{"a@1":["b\\"]}"#;
        let written = block(&json!({"k": text}), None);
        assert_eq!(written, format!("k: '{text}'\n"));
        assert_eq!(read(&written), json!({"k": text}));
        let text = r#"!a ? b : "c""#;
        assert_eq!(block(&json!({"k": text}), None), format!("k: '{text}'\n"));
        for text in ["{\"a\":\"it's\"}", "[\"ö\"]", "{\"a\n\"}"] {
            assert_eq!(read(&block(&json!({"k": text}), None)), json!({"k": text}));
        }
    }

    #[test]
    fn keys_have_their_authors_order_and_new_ones_come_last() {
        let like = Node::parse("kind: x\napiVersion: y\nitems:\n- b: 1\n  a: 2\n").unwrap();
        let value = json!({"apiVersion": 1, "kind": 2, "x": 3, "items": [{"a": 1, "b": [], "c": {}}, {"b": 1, "a": 2}]});
        assert_eq!(
            block(&value, Some(&like)),
            "kind: 2\napiVersion: 1\nitems:\n- b: []\n  a: 1\n  c: {}\n- a: 2\n  b: 1\nx: 3\n"
        );
        assert_eq!(
            json(&json!({"apiVersion": 1, "kind": "yes"}), Some(&like)),
            "{\n  \"kind\": \"yes\",\n  \"apiVersion\": 1\n}"
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ -~]{0,12}",
            "[a-z:#\\-\\[\\]{}&*!|>'\"%@`,?\n\t ]{0,10}",
            "(y|n|on|off|no|null|~|\\.inf|0x|0o|0b|1|_|e|\\+|-|\\.|:){1,4}",
            "\\PC{0,6}",
            "(a|\n| |\t|\r|\u{85}|\u{2028}|\u{feff}|\u{0}|\u{7f}|ö|😀){0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| json!(f64::from(n) + 0.25)),
            prop::sample::select(vec![json!(1e21), json!(-1e300), json!(5e-324), json!(1e-7)]),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_reads_back_as_itself(value in values(), step in 1_usize..6, lists: bool) {
            let value = json!({"k": value});
            let written = block_indented(&value, None, Indentation { step, lists });
            prop_assert_eq!(&read(&written), &value, "{}", written);
            let written = flow(&value);
            prop_assert_eq!(&read(&format!("- {written}")), &json!([value]), "{}", written);
        }
    }
}
