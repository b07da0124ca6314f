//! A YAML document as its author wrote it: which keys in which order, and where in the text each part
//! stands. Values are left to `hardening-manifests`; this is about places only.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

/// A part of a document.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// The bytes it takes, from its first to after its last; comments and line ends behind it do not
    /// count. Empty for a value that is left out, then at the place where it would stand.
    pub(crate) bytes: Range<usize>,
    /// The column of the keys of a block mapping, and of the dashes of a block sequence.
    pub(crate) column: usize,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar,
    /// `*name`, a repetition of another part.
    Alias,
    Map {
        style: StructureStyle,
        entries: Vec<Entry>,
    },
    List {
        style: StructureStyle,
        items: Vec<Node>,
    },
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_bytes: Range<usize>,
    pub(crate) value: Node,
}

/// How the author indents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Indentation {
    /// Columns that a mapping stands to the right of the one it is in.
    pub(crate) step: usize,
    /// Whether the dashes of a list stand to the right of the key that the list belongs to.
    pub(crate) lists: bool,
}

impl Default for Indentation {
    fn default() -> Self {
        Self {
            step: 2,
            lists: false,
        }
    }
}

impl Node {
    /// Reads the one document of `text`; `None` where it has none, or is no YAML, or nests deeper than
    /// any manifest.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let events = Events(Parser::new_from_str(text)).peekable();
        Builder { text, events }.node(0, 0)
    }

    /// The last entry of that name, which is the one that counts.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().rfind(|entry| entry.key == key)
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map { entries, .. } => entries,
            Kind::Scalar | Kind::Alias | Kind::List { .. } => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List { items, .. } => items,
            Kind::Scalar | Kind::Alias | Kind::Map { .. } => &[],
        }
    }

    /// The part at a JSON pointer.
    pub(crate) fn at(&self, pointer: &str) -> Option<&Self> {
        let tokens = pointer.split('/').skip(1);
        tokens
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .try_fold(self, |node, token| match &node.kind {
                Kind::List { items, .. } => items.get(token.parse::<usize>().ok()?),
                Kind::Map { .. } => node.entry(&token).map(|entry| &entry.value),
                Kind::Scalar | Kind::Alias => None,
            })
    }

    /// The JSON pointers of keys that stand more than once in their mapping.
    pub(crate) fn repeated_keys(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.look_for_repeated_keys("", &mut found);
        found
    }

    fn look_for_repeated_keys(&self, pointer: &str, found: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for Entry { key, value, .. } in self.entries() {
            let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
            // Merging several mappings is what this key is for.
            if !seen.insert(key) && key != "<<" {
                found.push(pointer.clone());
            }
            value.look_for_repeated_keys(&pointer, found);
        }
        for (index, item) in self.items().iter().enumerate() {
            item.look_for_repeated_keys(&format!("{pointer}/{index}"), found);
        }
    }

    /// How the author indents, by the first examples of it.
    pub(crate) fn indentation(&self) -> Indentation {
        let (mut step, mut lists) = (None, None);
        self.look_for_indentation(&mut step, &mut lists);
        let usual = Indentation::default();
        Indentation {
            step: step.unwrap_or(usual.step),
            lists: lists.unwrap_or(usual.lists),
        }
    }

    fn look_for_indentation(&self, step: &mut Option<usize>, lists: &mut Option<bool>) {
        for Entry { value, .. } in self.entries() {
            let right = value.column.checked_sub(self.column);
            match &value.kind {
                Kind::Map {
                    style: StructureStyle::Block,
                    ..
                } => *step = step.or(right),
                Kind::List {
                    style: StructureStyle::Block,
                    ..
                } => {
                    *lists = lists.or(right.map(|columns| columns > 0));
                }
                Kind::Scalar | Kind::Alias | Kind::Map { .. } | Kind::List { .. } => {}
            }
            value.look_for_indentation(step, lists);
        }
        for item in self.items() {
            item.look_for_indentation(step, lists);
        }
    }
}

/// The events that make up the document's content.
struct Events<'t>(Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>);

impl<'t> Iterator for Events<'t> {
    type Item = Result<(Event<'t>, Span), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next_event()? {
                Ok((Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..), _)) => {}
                other => return Some(other),
            }
        }
    }
}

struct Builder<'t> {
    text: &'t str,
    events: Peekable<Events<'t>>,
}

/// Far more than what `hardening-manifests` takes.
const MAX_DEPTH: usize = 512;

impl Builder<'_> {
    fn next(&mut self) -> Option<(Event<'_>, Span)> {
        self.events.next()?.ok()
    }

    /// `outer` is the column of the mapping that the node is a value in.
    fn node(&mut self, depth: usize, outer: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (event, span) = self.events.next()?.ok()?;
        let bytes = span.byte_range()?;
        match event {
            Event::Alias(_) => Some(Node {
                kind: Kind::Alias,
                bytes,
                column: 0,
            }),
            Event::Scalar(value, style, ..) => Some(Node {
                kind: Kind::Scalar,
                bytes: self.without_line_ends(bytes, &value, style),
                column: 0,
            }),
            Event::MappingStart(style, ..) => self.map(style, span, depth),
            Event::SequenceStart(style, ..) => self.list(style, span, depth, outer),
            _ => None,
        }
    }

    fn map(&mut self, style: StructureStyle, start: Span, depth: usize) -> Option<Node> {
        let mut bytes = start.byte_range()?;
        let mut entries = Vec::new();
        let mut column = start.start.col();
        while !matches!(self.events.peek()?, Ok((Event::MappingEnd, _))) {
            let (event, span) = self.next()?;
            let Event::Scalar(key, ..) = event else {
                return None;
            };
            let (key, key_bytes) = (key.into_owned(), span.byte_range()?);
            if entries.is_empty() {
                column = span.indent.unwrap_or(span.start.col());
            }
            let value = self.node(depth + 1, column)?;
            // A value that is left out is reported somewhere behind its key.
            bytes.end = match value.bytes.is_empty() {
                true => self.after_colon(key_bytes.end),
                false => value.bytes.end,
            };
            entries.push(Entry {
                key,
                key_bytes,
                value,
            });
        }
        let (_, end) = self.next()?;
        if style == StructureStyle::Flow {
            bytes.end = end.byte_range()?.end;
        }
        Some(Node {
            kind: Kind::Map { style, entries },
            bytes,
            column,
        })
    }

    fn list(
        &mut self,
        style: StructureStyle,
        start: Span,
        depth: usize,
        outer: usize,
    ) -> Option<Node> {
        let mut bytes = start.byte_range()?;
        let mut items: Vec<Node> = Vec::new();
        while !matches!(self.events.peek()?, Ok((Event::SequenceEnd, _))) {
            let item = self.node(depth + 1, outer)?;
            bytes.end = item.bytes.end;
            items.push(item);
        }
        let (_, end) = self.next()?;
        if style == StructureStyle::Flow {
            bytes.end = end.byte_range()?.end;
        }
        // A sequence is said to begin at its first dash or, where the dashes are not indented, behind it.
        let first = items.first().map(|item| item.bytes.start);
        let at_dash = self.text.get(bytes.start..)?.starts_with('-') && first != Some(bytes.start);
        let column = if at_dash { start.start.col() } else { outer };
        Some(Node {
            kind: Kind::List { style, items },
            bytes,
            column,
        })
    }

    /// Behind the colon that follows a key, or where the key ends if none does (in `{a, b}`).
    fn after_colon(&self, key_end: usize) -> usize {
        let rest = self.text.get(key_end..).unwrap_or_default();
        match rest.trim_start_matches([' ', '\t']).strip_prefix(':') {
            Some(behind) => self.text.len() - behind.len(),
            None => key_end,
        }
    }

    /// A block scalar is said to end with the lines behind it. Only those that are part of its value
    /// (`|+`) are left, without the last's end.
    fn without_line_ends(
        &self,
        bytes: Range<usize>,
        value: &str,
        style: ScalarStyle,
    ) -> Range<usize> {
        if !matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            return bytes;
        }
        let Some(text) = self.text.get(bytes.clone()) else {
            return bytes;
        };
        // Behind the last line's end there may be the next line's indentation.
        let lines = text.trim_end_matches(' ');
        let end = match value.ends_with("\n\n") {
            true => lines.strip_suffix('\n').unwrap_or(lines),
            false => lines.trim_end_matches(['\r', '\n', ' ']),
        };
        let end = end.strip_suffix('\r').unwrap_or(end);
        bytes.start..bytes.start + end.len()
    }
}
