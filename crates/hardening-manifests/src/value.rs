//! One document of text to JSON, with the values that `kubectl` would see.
//!
//! `kubectl` turns YAML into JSON with a parser of YAML 1.1: `0644` is 420, `yes` is true, and so is the
//! key `y`. Then it reads the JSON with Go's rules: a number without a fraction is an integer, however
//! it was written, and the last of two equal keys counts. `serde-saphyr` knows all but the last step.
//!
//! What still differs, by the parser: keys written out win over merged ones (`<<`) whatever their order,
//! `yEs` is true as well, and a literal block that ends the file without a line break gets one.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

/// Levels of nesting. The deepest CustomResourceDefinitions have about 50; 128, which is what JSON may
/// have, would overflow the stack of a thread in a debug build.
const MAX_DEPTH: usize = 80;

pub(crate) fn from_yaml(text: &str) -> Result<Value, serde_saphyr::Error> {
    // The default limits are for configuration files; a dump of a whole cluster is a single `List`.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 50_000_000,
            max_nodes: 25_000_000,
            max_total_scalar_bytes: 1 << 30,
            enforce_alias_anchor_ratio: false,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map(|node| node.0)
}

/// The values of a stream of JSON documents with their bytes in the text, and where it went wrong if it
/// did.
pub(crate) fn from_json(text: &str) -> (Vec<(Value, Range<usize>)>, Option<serde_json::Error>) {
    let mut values = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Node>();
    let mut read = 0;
    while let Some(node) = stream.next() {
        let Node(value) = match node {
            Ok(node) => node,
            Err(error) => return (values, Some(error)),
        };
        let end = stream.byte_offset();
        let bytes = text.get(read..end).unwrap_or_default();
        values.push((value, end - bytes.trim_ascii_start().len()..end));
        read = end;
    }
    (values, None)
}

/// A JSON value, read from any format.
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(Node)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        number(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(Node(key)) = entries.next_key()? {
            let key = match key {
                Value::String(key) => key,
                Value::Bool(key) => key.to_string(),
                Value::Number(key) => key.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(A::Error::custom("a key must be a string"));
                }
            };
            let Node(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The number as JSON has it after a way through Go: `1e3` and `1000.0` are the integer 1000.
fn number(value: f64) -> Option<Number> {
    /// 2^63: every float below is exact as an `i64` where it has no fraction.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && value.abs() < LIMIT {
        Some(Number::from(value as i64))
    } else {
        Number::from_f64(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `sigs.k8s.io/yaml` v1.6.0, which is what kubectl 1.36 uses, makes of the same text.
    const KUBECTL: &[(&str, &str)] = &[
        ("a: 0644", r#"{"a":420}"#),
        ("a: 0o17", r#"{"a":15}"#),
        ("a: 089", r#"{"a":89}"#),
        ("a: -010", r#"{"a":-8}"#),
        ("a: 0777_7", r#"{"a":4095}"#),
        ("a: 1e3", r#"{"a":1000}"#),
        ("a: 12e03", r#"{"a":12000}"#),
        ("a: 1.0", r#"{"a":1}"#),
        ("a: 1.", r#"{"a":1}"#),
        ("a: 1.5", r#"{"a":1.5}"#),
        ("a: .5", r#"{"a":0.5}"#),
        ("a: -0", r#"{"a":0}"#),
        ("a: +1", r#"{"a":1}"#),
        ("a: 1e-7", r#"{"a":1e-7}"#),
        ("a: 1e21", r#"{"a":1e+21}"#),
        ("a: 1_000", r#"{"a":1000}"#),
        ("a: 0x1F", r#"{"a":31}"#),
        ("a: -0x1F", r#"{"a":-31}"#),
        ("a: 0b101", r#"{"a":5}"#),
        ("a: 18446744073709551615", r#"{"a":18446744073709551615}"#),
        ("a: yes", r#"{"a":true}"#),
        ("a: No", r#"{"a":false}"#),
        ("a: y", r#"{"a":true}"#),
        ("a: on", r#"{"a":true}"#),
        ("a: 'no'", r#"{"a":"no"}"#),
        ("a: ~", r#"{"a":null}"#),
        ("a:", r#"{"a":null}"#),
        ("a: Null", r#"{"a":null}"#),
        ("a: nULL", r#"{"a":"nULL"}"#),
        ("a: 2001-01-01", r#"{"a":"2001-01-01"}"#),
        ("a: 12:30", r#"{"a":"12:30"}"#),
        ("a: 1.2.3", r#"{"a":"1.2.3"}"#),
        ("a: 10Mi", r#"{"a":"10Mi"}"#),
        ("a: 0x", r#"{"a":"0x"}"#),
        ("a: 0b2", r#"{"a":"0b2"}"#),
        ("a: _1", r#"{"a":"_1"}"#),
        ("a: Infinity", r#"{"a":"Infinity"}"#),
        ("a: nan", r#"{"a":"nan"}"#),
        ("a: =", r#"{"a":"="}"#),
        ("a: !!str 123", r#"{"a":"123"}"#),
        ("a: !!binary aGVsbG8=", r#"{"a":"hello"}"#),
        ("a: \"x\\ty\"", r#"{"a":"x\ty"}"#),
        ("a: |\n  line\n   two\n", r#"{"a":"line\n two\n"}"#),
        ("a: >-\n  folded\n  text\n", r#"{"a":"folded text"}"#),
        ("y: 1", r#"{"true":1}"#),
        ("1: x", r#"{"1":"x"}"#),
        ("1.5: x", r#"{"1.5":"x"}"#),
        ("010: x", r#"{"8":"x"}"#),
        ("a: 1\na: 2", r#"{"a":2}"#),
        (
            "b: &x {k: 1, l: 2}\na: {<<: *x, k: 3}",
            r#"{"a":{"k":3,"l":2},"b":{"k":1,"l":2}}"#,
        ),
        (
            "b: &x {k: 1}\nc: &y {k: 2, m: 4}\na: {<<: [*x, *y]}",
            r#"{"a":{"k":1,"m":4},"b":{"k":1},"c":{"k":2,"m":4}}"#,
        ),
        ("a: &v hello\nb: *v", r#"{"a":"hello","b":"hello"}"#),
        ("- a\n- - b", r#"["a",["b"]]"#),
        ("%YAML 1.1\n---\na: no", r#"{"a":false}"#),
    ];

    #[test]
    fn yaml_has_the_values_that_kubectl_reads() {
        for (yaml, json) in KUBECTL {
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(from_yaml(yaml).unwrap(), expected, "{yaml}");
        }
    }

    #[test]
    fn what_kubectl_refuses_is_refused() {
        let deep = nested(MAX_DEPTH + 1);
        for yaml in [
            "a: .inf",
            "a: .nan",
            "~: x",
            "? [a]\n: b",
            "a: [1, 2",
            "a: \"unclosed",
            "a: b: c",
            "a: *missing",
            &deep[0],
            &deep[1],
            &deep[2],
            &deep[3],
        ] {
            assert!(from_yaml(yaml).is_err(), "{yaml}");
        }
    }

    /// So many levels of lists and maps, in flow and block style.
    fn nested(levels: usize) -> [String; 4] {
        let map = (0..levels).map(|level| format!("{}a:\n", " ".repeat(level)));
        [
            "[".repeat(levels) + &"]".repeat(levels),
            "{a: ".repeat(levels) + &"}".repeat(levels),
            "- ".repeat(levels),
            map.collect(),
        ]
    }

    #[test]
    fn deep_nesting_is_read_without_overflowing_the_stack() {
        for yaml in nested(MAX_DEPTH) {
            assert!(from_yaml(&yaml).is_ok(), "{yaml}");
        }
    }

    #[test]
    fn json_is_a_stream_of_documents_with_gos_integers() {
        let (values, error) = from_json("{\"a\":1000.0}\n{\"a\":1,\"a\":2} [1e2, 0.5]");
        assert!(error.is_none());
        let values = values.into_iter().map(|(value, _)| value).collect();
        assert_eq!(
            Value::Array(values).to_string(),
            r#"[{"a":1000},{"a":2},[100,0.5]]"#
        );
    }

    #[test]
    fn a_stream_gives_the_documents_before_its_error() {
        let (values, error) = from_json("{} {\"a\":");
        assert_eq!(values.len(), 1);
        assert!(error.unwrap().is_eof());
    }
}
