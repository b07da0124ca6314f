//! Changes in a document that leave the rest of its text as the author wrote it: comments, the order of
//! keys, quotes, anchors.
//!
//! What the product changes are members added to objects and items added to lists; they become lines
//! (or, inside braces, text) of their own. Where a change is of another kind, or the edited text does not
//! say exactly what it should, there is no edit, and the caller writes the document anew.

use std::ops::Range;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::StructureStyle::{self, Block, Flow};

use super::tree::{Entry, Indentation, Kind, Node};
use super::write;

/// The text of a document that says `after` where `text` says `before`.
pub(crate) fn edit(text: &str, before: &Value, after: &Value) -> Option<String> {
    let root = Node::parse(text)?;
    let mut editor = Editor {
        text,
        line_end: line_end_of(text),
        indentation: root.indentation(),
        edits: Vec::new(),
    };
    editor.change(&root, before, after)?;
    let edited = editor.apply();
    says(&edited, after).then_some(edited)
}

/// Whether the text is one document with this value.
fn says(text: &str, value: &Value) -> bool {
    let manifests = hardening_manifests::parse("", text.as_bytes());
    matches!(manifests.as_deref(), Ok([manifest]) if manifest.value == *value)
}

fn line_end_of(text: &str) -> &'static str {
    match text.split_once('\n') {
        Some((line, _)) if line.ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

struct Editor<'t> {
    text: &'t str,
    line_end: &'static str,
    indentation: Indentation,
    /// Replaced bytes and their replacement, inner parts before those they are in, so that of several
    /// insertions in one place the deeper lines come first.
    edits: Vec<(Range<usize>, String)>,
}

impl Editor<'_> {
    fn change(&mut self, node: &Node, before: &Value, after: &Value) -> Option<()> {
        if before == after {
            return Some(());
        }
        match (&node.kind, before, after) {
            // What it repeats may be changed in just this way. Reading the result back shows it.
            (Kind::Alias, ..) => Some(()),
            (Kind::Map { style, .. }, Value::Object(before), Value::Object(after)) => {
                self.change_members(*style, node, before, after)
            }
            (Kind::List { style, .. }, Value::Array(before), Value::Array(after)) => {
                let added = after.get(before.len()..)?;
                for (node, (before, after)) in node.items().iter().zip(before.iter().zip(after)) {
                    self.change(node, before, after)?;
                }
                self.add_items(*style, node, added)
            }
            _ => None,
        }
    }

    fn change_members(
        &mut self,
        style: StructureStyle,
        node: &Node,
        before: &Map<String, Value>,
        after: &Map<String, Value>,
    ) -> Option<()> {
        if before.keys().any(|key| !after.contains_key(key)) {
            return None;
        }
        let mut added = Vec::new();
        for (key, value) in after {
            match (before.get(key), node.entry(key)) {
                (Some(old), _) if old == value => {}
                (Some(old), Some(entry)) => {
                    self.change_entry(style, node.column, entry, old, value)?;
                }
                // Merged in from elsewhere (`<<`): a member of its own goes before that.
                (Some(_), None) | (None, _) => added.push((key.as_str(), value)),
            }
        }
        self.add_members(style, node, &added)
    }

    fn change_entry(
        &mut self,
        style: StructureStyle,
        column: usize,
        entry: &Entry,
        before: &Value,
        after: &Value,
    ) -> Option<()> {
        let says_nothing = match before {
            Value::Null => true,
            Value::Object(members) => members.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        if !says_nothing || matches!(entry.value.kind, Kind::Alias) {
            return self.change(&entry.value, before, after);
        }
        let old = self.value_bytes(entry)?;
        let spread = matches!(after, Value::Object(_) | Value::Array(_));
        if style == Flow || !spread {
            self.edits.push((old, format!(" {}", write::flow(after))));
        } else {
            let below = self.end_of_line(old.end);
            self.edits.push((old, String::new()));
            let right = match after {
                Value::Array(_) if !self.indentation.lists => 0,
                _ => self.indentation.step,
            };
            self.add_lines(
                below,
                column + right,
                &write::block_indented(after, None, self.indentation),
            );
        }
        Some(())
    }

    /// What stands between an entry's colon and its line's end or comment.
    fn value_bytes(&self, entry: &Entry) -> Option<Range<usize>> {
        let rest = self.text.get(entry.key_bytes.end..)?;
        let behind = rest.trim_start_matches([' ', '\t']).strip_prefix(':')?;
        let start = self.text.len() - behind.len();
        if entry.value.bytes.is_empty() {
            return Some(start..start);
        }
        let between = self.text.get(start..entry.value.bytes.start)?;
        between
            .trim_matches([' ', '\t'])
            .is_empty()
            .then_some(start..entry.value.bytes.end)
    }

    fn add_members(
        &mut self,
        style: StructureStyle,
        node: &Node,
        members: &[(&str, &Value)],
    ) -> Option<()> {
        if members.is_empty() {
            return Some(());
        }
        if style == Block {
            let members = members
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).clone()));
            let lines =
                write::block_indented(&Value::Object(members.collect()), None, self.indentation);
            let below = self.end_of_line(node.bytes.end);
            self.add_lines(below, node.column, &lines);
            return Some(());
        }
        let members = members.iter().map(|(key, value)| {
            format!(
                "{}: {}",
                write::flow(&Value::from(*key)),
                write::flow(value)
            )
        });
        let last = node
            .entries()
            .last()
            .map(|entry| match entry.value.bytes.is_empty() {
                true => self
                    .value_bytes(entry)
                    .map_or(entry.key_bytes.end, |bytes| bytes.end),
                false => entry.value.bytes.end,
            });
        self.add_in_flow(node, last, &members.collect::<Vec<_>>())
    }

    fn add_items(&mut self, style: StructureStyle, node: &Node, items: &[Value]) -> Option<()> {
        if items.is_empty() {
            return Some(());
        }
        if style == Block {
            let lines =
                write::block_indented(&Value::Array(items.to_vec()), None, self.indentation);
            let below = self.end_of_line(node.bytes.end);
            self.add_lines(below, node.column, &lines);
            return Some(());
        }
        let last = node.items().last().map(|item| item.bytes.end);
        let items: Vec<String> = items.iter().map(write::flow).collect();
        self.add_in_flow(node, last, &items)
    }

    /// Adds to what stands in braces or brackets, behind its last part or behind the opening.
    fn add_in_flow(&mut self, node: &Node, last: Option<usize>, parts: &[String]) -> Option<()> {
        let parts = parts.join(", ");
        let (at, text) = match last {
            Some(end) => (end, format!(", {parts}")),
            None => (node.bytes.start.checked_add(1)?, parts),
        };
        self.edits.push((at..at, text));
        Some(())
    }

    /// Adds lines below the line that ends at `at`.
    fn add_lines(&mut self, at: usize, column: usize, lines: &str) {
        let mut text = String::new();
        for line in lines.lines() {
            text.push_str(self.line_end);
            if !line.is_empty() {
                text.extend(std::iter::repeat_n(' ', column));
                text.push_str(line);
            }
        }
        self.edits.push((at..at, text));
    }

    fn end_of_line(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let line = rest.split('\n').next().unwrap_or_default();
        at + line.strip_suffix('\r').unwrap_or(line).len()
    }

    fn apply(mut self) -> String {
        // Stable, and every edit is an insertion or a replacement of something that no other touches.
        self.edits.sort_by_key(|(bytes, _)| bytes.start);
        let mut edited = String::with_capacity(self.text.len() + 1024);
        let mut copied = 0;
        for (bytes, text) in &self.edits {
            edited.push_str(self.text.get(copied..bytes.start).unwrap_or_default());
            edited.push_str(text);
            copied = bytes.end.max(copied);
        }
        edited.push_str(self.text.get(copied..).unwrap_or_default());
        edited
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::yaml::authors::written;

    /// Adds values as a JSON Patch would, and compares the text.
    #[track_caller]
    fn check(text: &str, added: &[(&str, Value)], expected: &str) {
        assert_eq!(edited(text, added).as_deref(), Some(expected), "{text}");
    }

    fn edited(text: &str, added: &[(&str, Value)]) -> Option<String> {
        let [manifest] = hardening_manifests::parse("", text.as_bytes())
            .unwrap()
            .try_into()
            .unwrap();
        let operations: Vec<Value> = added
            .iter()
            .map(|(path, value)| json!({"op": "add", "path": path, "value": value}))
            .collect();
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations)).unwrap();
        let mut after = manifest.value.clone();
        json_patch::patch(&mut after, &patch).unwrap();
        edit(text, &manifest.value, &after)
    }

    #[test]
    fn members_become_lines_below_the_last_one() {
        check("a: 1\n", &[("/b", json!(true))], "a: 1\nb: true\n");
        check("a: 1", &[("/b", json!({"c": []}))], "a: 1\nb:\n  c: []");
        check(
            "a: 1\r\nb: 2 # two\r\n\r\n# end\r\n",
            &[("/c", json!(3))],
            "a: 1\r\nb: 2 # two\r\nc: 3\r\n\r\n# end\r\n",
        );
        check(
            "spec: # the spec\n    containers:\n      - name: app\n        # an image\n        image: x  # here\n\n    # the end\n",
            &[
                (
                    "/spec/containers/0/securityContext",
                    json!({"capabilities": {"drop": ["ALL"]}}),
                ),
                ("/spec/securityContext", json!({"runAsNonRoot": true})),
            ],
            "spec: # the spec\n    containers:\n      - name: app\n        # an image\n        image: x  # here\n        securityContext:\n            capabilities:\n                drop:\n                    - ALL\n    securityContext:\n        runAsNonRoot: true\n\n    # the end\n",
        );
        check(
            "spec:\n  containers:\n  - name: app\n    args: [\"-c\", # why\n      'x']\n  - name: b\n",
            &[
                ("/spec/containers/0/x", json!("yes")),
                ("/spec/containers/1/x", json!("0644")),
            ],
            "spec:\n  containers:\n  - name: app\n    args: [\"-c\", # why\n      'x']\n    x: \"yes\"\n  - name: b\n    x: \"0644\"\n",
        );
    }

    #[test]
    fn what_is_empty_is_filled_where_it_stands() {
        for empty in ["", " null", " ~", " {}", "  {  }"] {
            check(
                &format!("s:\n  a:{empty} # why\n  b: 1\n"),
                &[("/s/a", json!({"c": 1}))],
                "s:\n  a: # why\n    c: 1\n  b: 1\n",
            );
        }
        check("s:\n  a:\n", &[("/s/a", json!(false))], "s:\n  a: false\n");
        check(
            "s:\n  a: null\n",
            &[("/s/a", json!(false))],
            "s:\n  a: false\n",
        );
        check(
            "s:\n- a: []\n",
            &[("/s/0/a", json!([1]))],
            "s:\n- a:\n  - 1\n",
        );
        check(
            "s:\n  - a: []\n",
            &[("/s/0/a", json!([1]))],
            "s:\n  - a:\n      - 1\n",
        );
    }

    #[test]
    fn items_become_lines_or_stay_in_their_brackets() {
        check(
            "s:\n- a: 1\n  # of a\nt: 2",
            &[("/s/-", json!({"b": {"c": "ö: #"}}))],
            "s:\n- a: 1\n- b:\n    c: \"ö: #\"\n  # of a\nt: 2",
        );
        check("s: [a, b]\n", &[("/s/-", json!("c"))], "s: [a, b, \"c\"]\n");
        check(
            "s: [\n  a, # first\n]\n",
            &[("/s/-", json!(1))],
            "s: [\n  a, 1, # first\n]\n",
        );
        check(
            "{a: 1}",
            &[("/b", json!({"c": [1]}))],
            "{a: 1, \"b\": {\"c\":[1]}}",
        );
        check(
            "s: {a: {}, b: }",
            &[("/s/a", json!({"c": 1})), ("/s/d", json!(2))],
            "s: {a: {\"c\":1}, b:, \"d\": 2 }",
        );
    }

    #[test]
    fn block_scalars_keep_their_value() {
        let x = [("/s/b", json!(1))];
        check(
            "s:\n  a: |\n    text\n\nt: 1\n",
            &x,
            "s:\n  a: |\n    text\n  b: 1\n\nt: 1\n",
        );
        check(
            "s:\n  a: |+\n    text\n\nt: 1\n",
            &x,
            "s:\n  a: |+\n    text\n\n  b: 1\nt: 1\n",
        );
        check(
            "s:\n  a: >-\n    text\n    more\n",
            &x,
            "s:\n  a: >-\n    text\n    more\n  b: 1\n",
        );
        check("s:\n  a: |\n    text", &x, "s:\n  a: |\n    text\n  b: 1");
    }

    #[test]
    fn an_anchor_is_edited_only_where_all_that_repeat_it_change_alike() {
        let both = [("/a/l", json!(2)), ("/b/l", json!(2))];
        check(
            "a: &x\n  k: 1\nb: *x\n",
            &both,
            "a: &x\n  k: 1\n  l: 2\nb: *x\n",
        );
        assert_eq!(edited("a: &x\n  k: 1\nb: *x\n", &both[..1]), None);
        check(
            "a: &x\n  k: 1\nb:\n  <<: *x\n",
            &both[1..],
            "a: &x\n  k: 1\nb:\n  <<: *x\n  l: 2\n",
        );
        check(
            "a: &x {k: {l: 1}}\nb:\n  <<: *x\n",
            &[("/b/k/m", json!(2))],
            "a: &x {k: {l: 1}}\nb:\n  <<: *x\n  k:\n    l: 1\n    m: 2\n",
        );
    }

    #[test]
    fn what_is_no_addition_is_no_edit() {
        let edit = |after: Value| edit("a: 1\nb: [1, 2]\n", &json!({"a": 1, "b": [1, 2]}), &after);
        assert_eq!(edit(json!({"b": [1, 2]})), None);
        assert_eq!(edit(json!({"a": 2, "b": [1, 2]})), None);
        assert_eq!(edit(json!({"a": 1, "b": [1]})), None);
        assert_eq!(edit(json!([])), None);
    }

    proptest! {
        #[test]
        fn whatever_an_author_wrote_stays(written in written()) {
            prop_assert!(says(&written.text, &written.before), "{}", written.text);
            let edited = edit(&written.text, &written.before, &written.after);
            prop_assert!(edited.is_some(), "{}\n{}", written.text, written.after);
            let edited = edited.unwrap();
            prop_assert!(says(&edited, &written.after));
            prop_assert_eq!(edited.matches("# comment").count(), written.comments);
            prop_assert_eq!(edited.matches("\r\n").count() > 0, written.text.contains("\r\n"));
        }
    }
}
