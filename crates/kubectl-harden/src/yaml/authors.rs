//! Documents as different authors would write them, for tests: in blocks and in braces, with and without
//! quotes, comments and blank lines, indented this way or that.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A document, the same in an author's words, and what is to be added to it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) before: Value,
    pub(crate) text: String,
    pub(crate) comments: usize,
    pub(crate) after: Value,
}

pub(crate) fn written() -> impl Strategy<Value = Written> {
    let whims = prop::collection::vec(any::<u8>(), 1..200);
    (
        documents(),
        whims.clone(),
        whims,
        1_usize..5,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(before, style, additions, step, lists, crlf)| {
            let mut author = Author {
                whims: Whims::new(style),
                step,
                lists,
                text: String::new(),
                comments: 0,
            };
            author.members(before.as_object().unwrap(), 0, true);
            let text = if crlf {
                author.text.replace('\n', "\r\n")
            } else {
                author.text
            };
            let mut after = before.clone();
            add(&mut after, &mut Whims::new(additions));
            Written {
                before,
                text,
                comments: author.comments,
                after,
            }
        })
}

/// Objects in the shape of manifests: maps and lists in one another, and awkward text.
fn documents() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(vec![
        "a",
        "yes",
        "0644",
        "on",
        "null",
        "~",
        "1e3",
        "0x1F",
        "",
        " x",
        "x ",
        "a: b",
        "a #b",
        "- a",
        "ö",
        "it's",
        "\"q\"",
        "two\nlines",
        "two\nlines\n",
        "keep\n\n",
        "\ttab",
        "\\",
        "{}",
        "*a",
        "a\n  b\n c\n",
    ]);
    let leaf = prop_oneof![
        text.prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        Just(json!({})),
        Just(json!([])),
    ];
    let value = leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
            members(inner).prop_map(Value::Object),
        ]
    });
    members(value).prop_map(Value::Object)
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let key = prop::sample::select(vec![
        "name", "spec", "image", "a b", "yes", "k8s.io/x", "7", "it's", "z",
    ]);
    prop::collection::btree_map(key.prop_map(str::to_owned), value, 1..5)
        .prop_map(|map| map.into_iter().collect())
}

/// Decisions, over and over the same.
struct Whims {
    bytes: Vec<u8>,
    next: usize,
}

impl Whims {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, next: 0 }
    }

    fn one_in(&mut self, n: u8) -> bool {
        self.next = (self.next + 1) % self.bytes.len();
        self.bytes[self.next].is_multiple_of(n)
    }
}

/// Adds what a policy could: members to objects, items to lists, something where there was nothing.
fn add(value: &mut Value, whims: &mut Whims) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(|value| add(value, whims));
            if whims.one_in(4) {
                members.insert(
                    "added".to_owned(),
                    json!({"drop": ["ALL"], "level": "s0:c1,c2", "on": true}),
                );
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|value| add(value, whims));
            if whims.one_in(4) {
                items.push(json!({"name": "yes", "emptyDir": {}}));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

struct Author {
    whims: Whims,
    step: usize,
    lists: bool,
    text: String,
    comments: usize,
}

impl Author {
    fn line(&mut self, column: usize) {
        // Behind a block that keeps its line ends, another would be its own.
        if self.whims.one_in(9) && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
        if self.whims.one_in(7) {
            self.text += &format!("{:column$}# comment\n", "");
            self.comments += 1;
        }
    }

    fn end_line(&mut self) {
        if self.whims.one_in(6) {
            self.text += "  # comment";
            self.comments += 1;
        }
        self.text.push('\n');
    }

    fn members(&mut self, members: &Map<String, Value>, column: usize, fresh_line: bool) {
        let mut members: Vec<_> = members.iter().collect();
        if self.whims.one_in(2) {
            members.reverse();
        }
        for (index, (key, value)) in members.into_iter().enumerate() {
            if index > 0 || fresh_line {
                self.line(column);
                self.text += &" ".repeat(column);
            }
            self.scalar(&Value::from(key.as_str()));
            self.text.push(':');
            self.value(value, column);
        }
    }

    /// A value behind its key's colon.
    fn value(&mut self, value: &Value, column: usize) {
        match value {
            Value::Object(members) if !members.is_empty() && !self.whims.one_in(5) => {
                self.end_line();
                self.members(members, column + self.step, true);
            }
            Value::Array(items) if !items.is_empty() && !self.whims.one_in(5) => {
                self.end_line();
                self.items(items, column + if self.lists { self.step } else { 0 });
            }
            Value::Null if self.whims.one_in(2) => self.end_line(),
            Value::String(text) if is_literal(text) && self.whims.one_in(2) => {
                self.text.push(' ');
                self.literal(text, column + self.step);
            }
            value => {
                self.text.push(' ');
                self.flow(value);
                self.end_line();
            }
        }
    }

    fn items(&mut self, items: &[Value], column: usize) {
        for item in items {
            self.line(column);
            self.text += &format!("{:column$}-", "");
            match item {
                Value::Object(members) if !members.is_empty() && !self.whims.one_in(5) => {
                    self.text.push(' ');
                    self.members(members, column + 2, false);
                }
                Value::Array(items) if !items.is_empty() && !self.whims.one_in(5) => {
                    self.end_line();
                    self.items(items, column + 2);
                }
                item => {
                    self.text.push(' ');
                    self.flow(item);
                    self.end_line();
                }
            }
        }
    }

    fn literal(&mut self, text: &str, column: usize) {
        self.text += match (text.ends_with("\n\n"), text.ends_with('\n')) {
            (true, _) => "|+\n",
            (false, true) => "|\n",
            (false, false) => "|-\n",
        };
        for line in text.lines() {
            if !line.is_empty() {
                self.text += &format!("{:column$}{line}", "");
            }
            self.text.push('\n');
        }
    }

    fn flow(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                self.text.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    self.text += if index > 0 { ", " } else { "" };
                    self.scalar(&Value::from(key.as_str()));
                    self.text += ": ";
                    self.flow(value);
                }
                self.text.push('}');
            }
            Value::Array(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.text += if index > 0 { ", " } else { "" };
                    self.flow(item);
                }
                self.text.push(']');
            }
            scalar => self.scalar(scalar),
        }
    }

    fn scalar(&mut self, value: &Value) {
        let text = value.as_str().unwrap_or_default();
        let plain = [
            "a", "ö", "name", "spec", "image", "a b", "k8s.io/x", "it's", "z",
        ]
        .contains(&text);
        self.text += &match value {
            Value::String(text) if plain && self.whims.one_in(2) => text.clone(),
            Value::String(text) if !text.contains(['\n', '\t']) && self.whims.one_in(2) => {
                format!("'{}'", text.replace('\'', "''"))
            }
            Value::Null if self.whims.one_in(2) => "~".to_owned(),
            value => value.to_string(),
        };
    }
}

fn is_literal(text: &str) -> bool {
    text.contains('\n')
}
