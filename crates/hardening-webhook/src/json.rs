//! JSON as API servers write it, read for little.
//!
//! Most of a pod is asked for by nobody, and serde_json takes a dozen instructions for each byte of it. This reader
//! takes less than half of that: where strings end and where brackets are is looked up beforehand, 64 bytes at a time, so
//! that what nobody asks for is passed over from bracket to bracket. It knows no whitespace, nor where in a text an error is.
//!
//! Of JSON it makes what serde_json makes of it, or nothing. What it does not take (whitespace, an escape in a member's
//! name, a fraction where a value is wanted) is for serde_json, which also says what is wrong with a text. A text that is
//! no JSON may be taken where nobody asks for what is wrong with it; no API server writes one.

use std::fmt;
use std::ops::Range;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use wide::u8x64;

/// Reads a value of the whole text; nothing but the end of the line may follow it. `None`: ask serde_json.
///
/// Where a value begins at `known`'s start and nobody asks for it, its end is taken to be `known`'s.
pub(crate) fn read<'de, T: Deserialize<'de>>(
    text: &'de str,
    known: Option<Range<usize>>,
) -> Option<T> {
    let text = text.trim_end_matches('\n');
    let blocks = blocks(text.as_bytes(), known.clone().unwrap_or_default())?;
    let mut reader = Reader {
        text: Text {
            json: text,
            blocks: &blocks,
        },
        at: 0,
        known,
    };
    let value = T::deserialize(&mut reader).ok()?;
    (reader.at == text.len()).then_some(value)
}

/// Somewhere in a text.
struct Reader<'t, 'de> {
    text: Text<'t, 'de>,
    at: usize,
    /// A value whose end need not be looked for.
    known: Option<Range<usize>>,
}

/// A text, and what is known of it beforehand.
struct Text<'t, 'de> {
    json: &'de str,
    blocks: &'t [Block],
}

/// What is known of 64 bytes: a bit for each, the lowest for the first.
#[derive(Clone, Copy)]
struct Block {
    /// Which a string cannot hold as they are: quotes, backslashes and control characters.
    specials: u64,
    quotes: u64,
    backslashes: u64,
    /// Which are brackets, and in no string.
    brackets: u64,
}

/// Where a text's strings are, from block to block.
#[derive(Default)]
struct Strings {
    /// Whether the next block begins in a string: all bits, or none.
    inside: u64,
    /// Whether its first byte is escaped: the lowest bit, or none.
    escaped: u64,
}

/// A value that is neither a string nor in brackets.
enum Word {
    Bool(bool),
    Null,
    Integer(i64),
}

/// This is not for this reader.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON as an API server writes it")]
struct Unusual;

/// The members of an object, or the items of a list, of which the opening bracket is read.
struct Entries<'r, 't, 'de> {
    reader: &'r mut Reader<'t, 'de>,
    is_first: bool,
    is_at_end: bool,
}

impl de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

// === impl Reader ===

/// What is the same for all types is not inlined: the compiler would make a copy for each, and what slows a review down is
/// how much code runs for it.
impl<'de> Reader<'_, 'de> {
    fn peek(&self) -> Result<u8, Unusual> {
        self.text.byte(self.at)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unusual> {
        self.at = self.text.expect(self.at, byte)?;
        Ok(())
    }

    fn pass(&mut self, word: &str) -> Result<(), Unusual> {
        self.at = self.text.word_end(self.at, word)?;
        Ok(())
    }

    #[inline(never)]
    fn word(&mut self) -> Result<Word, Unusual> {
        match self.peek()? {
            b't' => self.pass("true").map(|()| Word::Bool(true)),
            b'f' => self.pass("false").map(|()| Word::Bool(false)),
            b'n' => self.pass("null").map(|()| Word::Null),
            _ => self.integer().map(Word::Integer),
        }
    }

    /// Reads an object or a list, of which the opening bracket is next.
    fn entries<T>(
        &mut self,
        visit: impl FnOnce(&mut Entries<'_, '_, 'de>) -> Result<T, Unusual>,
    ) -> Result<T, Unusual> {
        self.at += 1;
        let mut entries = Entries {
            reader: self,
            is_first: true,
            is_at_end: false,
        };
        let value = visit(&mut entries)?;
        // What the visitor leaves must not be taken for what is around it.
        if entries.is_at_end {
            Ok(value)
        } else {
            Err(Unusual)
        }
    }

    /// The string that is next, if it has no escapes.
    #[inline(never)]
    fn plain_string(&mut self) -> Option<&'de str> {
        let start = self.text.expect(self.at, b'"').ok()?;
        let end = self.text.plain_end(start).ok()?;
        self.at = self.text.expect(end, b'"').ok()?;
        self.text.part(start, end).ok()
    }

    #[inline(never)]
    fn escaped_string(&mut self) -> Result<String, Unusual> {
        let start = self.at;
        self.at = self.text.string_end(start)?;
        let quoted = self.text.part(start, self.at)?;
        serde_json::from_str(quoted).map_err(|_| Unusual)
    }

    /// The whole number that is next. What is one for a float alone, as minus zero, is for serde_json.
    fn integer(&mut self) -> Result<i64, Unusual> {
        let start = self.at;
        self.at = self.text.word_or_number_end(start)?;
        let text = self.text.part(start, self.at)?;
        let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
        match digits {
            // A zero that leads, or a minus zero.
            [b'0', _, ..] => Err(Unusual),
            [b'0'] if text.len() > 1 => Err(Unusual),
            [b'0'..=b'9', ..] => text.parse().map_err(|_| Unusual),
            _ => Err(Unusual),
        }
    }
}

// === impl Text ===

/// Where what begins somewhere ends: the place after its last byte. A place that is handed on from one to the next
/// stays in a register, where one that is kept in memory would be waited for at each step.
impl<'de> Text<'_, 'de> {
    #[inline]
    fn byte(&self, at: usize) -> Result<u8, Unusual> {
        self.json.as_bytes().get(at).copied().ok_or(Unusual)
    }

    #[inline]
    fn block(&self, i: usize) -> Result<Block, Unusual> {
        self.blocks.get(i).copied().ok_or(Unusual)
    }

    fn part(&self, start: usize, end: usize) -> Result<&'de str, Unusual> {
        self.json.get(start..end).ok_or(Unusual)
    }

    #[inline]
    fn expect(&self, at: usize, byte: u8) -> Result<usize, Unusual> {
        if self.byte(at)? == byte {
            Ok(at + 1)
        } else {
            Err(Unusual)
        }
    }

    fn word_end(&self, at: usize, word: &str) -> Result<usize, Unusual> {
        let rest = self.json.as_bytes().get(at..).unwrap_or_default();
        if rest.starts_with(word.as_bytes()) {
            Ok(at + word.len())
        } else {
            Err(Unusual)
        }
    }

    // --- strings ---

    /// Of a string.
    #[inline]
    fn string_end(&self, at: usize) -> Result<usize, Unusual> {
        let mut at = self.plain_end(at + 1)?;
        loop {
            match self.byte(at)? {
                b'"' => return Ok(at + 1),
                b'\\' => at = self.plain_end(at + 2)?,
                _ => return Err(Unusual),
            }
        }
    }

    /// The next byte that a string cannot hold as it is.
    #[inline]
    fn plain_end(&self, at: usize) -> Result<usize, Unusual> {
        let specials = self.block(at / BLOCK)?.specials >> (at % BLOCK);
        if specials == 0 {
            return self.plain_blocks_end(at);
        }
        Ok(at + specials.trailing_zeros() as usize)
    }

    #[inline(never)]
    fn plain_blocks_end(&self, at: usize) -> Result<usize, Unusual> {
        let next = at / BLOCK + 1;
        let blocks = self.blocks.get(next..).unwrap_or_default().iter();
        let mut special = blocks.enumerate().filter(|(_, block)| block.specials != 0);
        let (i, block) = special.next().ok_or(Unusual)?;
        Ok((next + i) * BLOCK + block.specials.trailing_zeros() as usize)
    }

    // --- any value ---

    /// Of a value that nobody asks for.
    fn value_end(&self, at: usize) -> Result<usize, Unusual> {
        match self.byte(at)? {
            b'{' | b'[' => self.brackets_end(at),
            b'"' => self.string_end(at),
            _ => self.word_or_number_end(at),
        }
    }

    /// Of an object or a list: where as many brackets are closed as are opened.
    fn brackets_end(&self, at: usize) -> Result<usize, Unusual> {
        let (mut i, mut depth) = (at / BLOCK, 0_usize);
        let mut brackets = self.block(i)?.brackets & (u64::MAX << (at % BLOCK));
        // Where nobody looked for them, the first is another.
        if brackets >> (at % BLOCK) & 1 == 0 {
            return Err(Unusual);
        }
        loop {
            while brackets != 0 {
                let at = i * BLOCK + brackets.trailing_zeros() as usize;
                brackets &= brackets - 1;
                // In ASCII, this bit tells brackets that open from those that close.
                if self.byte(at)? & 2 != 0 {
                    depth += 1;
                } else if depth == 1 {
                    return Ok(at + 1);
                } else {
                    depth -= 1;
                }
            }
            i += 1;
            brackets = self.block(i)?.brackets;
        }
    }

    /// Of what is neither a string nor in brackets.
    fn word_or_number_end(&self, start: usize) -> Result<usize, Unusual> {
        let rest = self.json.as_bytes().get(start..).unwrap_or_default();
        let is_in = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        match rest.iter().take_while(is_in).count() {
            0 => Err(Unusual),
            length => Ok(start + length),
        }
    }
}

// === blocks ===

const BLOCK: usize = u64::BITS as usize;

/// What a reader must know beforehand of a text of which `unread` is read by nobody; `None`: its last string does not
/// end. Bytes are told apart first, and strings are found then: the compiler makes many more instructions of both in one.
#[inline(never)]
fn blocks(text: &[u8], unread: Range<usize>) -> Option<Vec<Block>> {
    let (whole, rest) = text.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let read = whole.get(..unread.start.div_ceil(BLOCK)).unwrap_or(whole);
    let passed = read.len().max(unread.end / BLOCK);
    let mut blocks = Vec::with_capacity(whole.len() + 1);
    blocks.extend(read.iter().map(Block::new));
    blocks.resize(passed, Block::UNREAD);
    blocks.extend(whole.get(passed..)?.iter().map(Block::new));
    blocks.push(Block::new(&last));

    for i in [unread.start / BLOCK, unread.end / BLOCK] {
        if let Some(block) = blocks.get_mut(i) {
            block.leave(before(unread.end, i) & !before(unread.start, i));
        }
    }
    let mut strings = Strings::default();
    for range in [0..read.len(), passed..blocks.len()] {
        for block in blocks.get_mut(range)? {
            block.brackets &= !strings.inside(block);
        }
    }
    (strings.inside == 0).then_some(blocks)
}

/// The bytes of a block that come before a place in the text.
fn before(at: usize, block: usize) -> u64 {
    match at.saturating_sub(block * BLOCK) {
        bytes if bytes < BLOCK => !(u64::MAX << bytes),
        _ => u64::MAX,
    }
}

impl Block {
    /// A string that begins here would not get past its first byte.
    const UNREAD: Self = Self {
        specials: u64::MAX,
        quotes: 0,
        backslashes: 0,
        brackets: 0,
    };

    #[inline(never)]
    fn new(bytes: &[u8; BLOCK]) -> Self {
        let bytes = u8x64::new(*bytes);
        let is_quote = bytes.simd_eq(u8x64::splat(b'"'));
        let is_backslash = bytes.simd_eq(u8x64::splat(b'\\'));
        let is_control = bytes.min(u8x64::splat(b' ' - 1)).simd_eq(bytes);
        // With the bits in which they differ, brackets are alike, and a few bytes that stand in strings alone.
        let is_bracket = (bytes | u8x64::splat(b'{' ^ b']')).simd_eq(u8x64::splat(b'{' | b']'));
        Self {
            specials: (is_quote | is_backslash | is_control).to_bitmask(),
            quotes: is_quote.to_bitmask(),
            backslashes: is_backslash.to_bitmask(),
            brackets: is_bracket.to_bitmask(),
        }
    }

    /// Knows neither strings nor brackets of what is read by nobody.
    fn leave(&mut self, unread: u64) {
        self.quotes &= !unread;
        self.backslashes &= !unread;
        self.brackets &= !unread;
    }
}

impl Strings {
    /// Which bytes of the next block are in strings, with their first quotes and without their last.
    #[inline]
    fn inside(&mut self, block: &Block) -> u64 {
        let mut inside = block.quotes;
        if block.backslashes | self.escaped != 0 {
            inside &= !self.escaped(block.backslashes);
        }
        // Each bit becomes the parity of those up to it.
        for distance in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << distance;
        }
        inside ^= self.inside;
        self.inside = (inside >> 63).wrapping_neg();
        inside
    }

    /// Which bytes of the next block are escaped, where there may be any.
    #[inline(never)]
    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = std::mem::take(&mut self.escaped);
        backslashes &= !escaped;
        while backslashes != 0 {
            let first = backslashes & backslashes.wrapping_neg();
            escaped |= first << 1;
            self.escaped = first >> 63;
            backslashes &= !(first | first << 1);
        }
        escaped
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'_, 'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.peek()? {
            b'"' => match self.plain_string() {
                Some(text) => visitor.visit_borrowed_str(text),
                None => visitor.visit_string(self.escaped_string()?),
            },
            b'{' => self.entries(|entries| visitor.visit_map(entries)),
            b'[' => self.entries(|entries| visitor.visit_seq(entries)),
            _ => match self.word()? {
                Word::Bool(value) => visitor.visit_bool(value),
                Word::Null => visitor.visit_unit(),
                Word::Integer(number) => visitor.visit_i64(number),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        if self.peek()? == b'n' {
            self.pass("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.at = match &self.known {
            Some(known) if known.start == self.at => known.end,
            _ => self.text.value_end(self.at)?,
        };
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier
    }
}

// === impl Entries ===

impl<'de> Entries<'_, '_, 'de> {
    /// The next member's name; `None`: there is none, or it is not for this reader.
    #[inline(never)]
    fn key(&mut self) -> Option<&'de str> {
        if !self.advance(b'}').ok()? {
            return None;
        }
        let key = self.reader.plain_string()?;
        self.reader.expect(b':').ok()?;
        Some(key)
    }

    /// Goes on to the next, if there is one.
    fn advance(&mut self, end: u8) -> Result<bool, Unusual> {
        let is_first = std::mem::take(&mut self.is_first);
        match self.reader.peek()? {
            // Asked again, it must not go on into what is around it.
            _ if self.is_at_end => {}
            byte if byte == end => {
                self.reader.at += 1;
                self.is_at_end = true;
            }
            b',' if !is_first => self.reader.at += 1,
            _ if is_first => {}
            _ => return Err(Unusual),
        }
        Ok(!self.is_at_end)
    }
}

impl<'de> MapAccess<'de> for &mut Entries<'_, '_, 'de> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unusual> {
        match self.key() {
            Some(key) => seed
                .deserialize(BorrowedStrDeserializer::new(key))
                .map(Some),
            None if self.is_at_end => Ok(None),
            None => Err(Unusual),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> SeqAccess<'de> for &mut Entries<'_, '_, 'de> {
    type Error = Unusual;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unusual> {
        if !self.advance(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::{Value, json};

    use super::*;
    use crate::managed_fields;

    /// What is made of a text must be what serde_json makes of it; and of JSON, nothing may be passed over but a value.
    #[track_caller]
    fn check_agreement(text: &str) {
        if let Some(value) = read::<Value>(text, None) {
            assert_eq!(Some(value), serde_json::from_str(text).ok(), "{text:?}");
        }
        let around = format!(r#"{{"passed":{text},"next":7}}"#);
        if let (Some(read), Ok(_)) = (
            read::<Around>(&around, None),
            serde_json::from_str::<IgnoredAny>(&around),
        ) {
            let expected = serde_json::from_str::<Around>(&around);
            assert_eq!(Some(read), expected.ok(), "{around:?}");
        }
    }

    /// A value that is passed over, and what comes after it.
    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Around {
        next: Value,
    }

    /// A document whose strings and numbers are of all kinds.
    fn document() -> impl Strategy<Value = Value> {
        let text = prop_oneof![any::<String>(), "[ -~]{0,80}", Just(String::new())];
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-9_i64..=9).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        scalar.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[^\"\\\\\\x00-\\x1f]{0,80}", inner, 0..6)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// A change to a text: at which character, whether in its place, and what.
    fn edit() -> impl Strategy<Value = (prop::sample::Index, bool, String)> {
        (
            any::<prop::sample::Index>(),
            any::<bool>(),
            "[{}\\[\\]\",:\\\\u0-9eE+.a-n\n\u{1}-]{0,2}",
        )
    }

    proptest! {
        #[test]
        fn every_document_written_without_whitespace_is_read_as_serde_json_reads_it(value in document()) {
            let text = value.to_string();
            prop_assert_eq!(read::<Value>(&text, None), Some(value));
            prop_assert!(read::<IgnoredAny>(&text, None).is_some());
        }

        #[test]
        fn whatever_is_broken_serde_json_refuses_or_reads_alike(
            value in document(),
            edits in prop::collection::vec(edit(), 1..4),
        ) {
            let mut text: Vec<char> = value.to_string().chars().collect();
            for (at, in_place, with) in edits {
                let at = at.index(text.len() + 1);
                let end = (at + usize::from(in_place)).min(text.len());
                text.splice(at..end, with.chars());
            }
            check_agreement(&text.into_iter().collect::<String>());
        }

        #[test]
        fn whoever_is_told_where_managed_fields_end_reads_the_same_or_nothing(
            list in prop::collection::vec(document(), 0..4),
            others in prop::collection::vec(document(), 3),
        ) {
            /// In the order in which they are written.
            #[derive(Debug, PartialEq, serde::Deserialize)]
            struct Metadata {
                a: Value,
                z: Value,
            }
            #[derive(Debug, PartialEq, serde::Deserialize)]
            struct Object {
                metadata: Metadata,
                spec: Value,
            }
            let [a, z, spec] = &others[..] else { unreachable!() };
            let object = json!({"metadata": {"a": a, "managedFields": list, "z": z}, "spec": spec});
            let text = object.to_string();
            let whole = read::<Object>(&text, None);
            prop_assert!(whole.is_some());
            if let Some(found) = read::<Object>(&text, managed_fields::find(&text)) {
                prop_assert_eq!(Some(found), whole);
            }
        }
    }

    #[test]
    fn a_number_is_one_for_serde_json_too_and_is_whole() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("-01", None),
            ("-", None),
            ("+1", None),
            ("--1", None),
            ("1.0", None),
            ("1e3", None),
            ("1a", None),
            ("nul", None),
        ] {
            assert_eq!(read::<i64>(text, None), number, "{text}");
            check_agreement(text);
        }
    }

    #[test]
    fn what_is_passed_over_ends_where_the_value_ends() {
        let deep = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        let (one_block, more) = (deep(32), deep(1000));
        let strings = |length: usize| format!(r#"{{"{}]":["{{"]}}"#, "x".repeat(length));
        let escapes =
            |length: usize| format!(r#"["{}\"]{}"]"#, "x".repeat(length), r"\\".repeat(length));
        let across = (0..=2 * BLOCK).flat_map(|length| [strings(length), escapes(length)]);
        let listed = [
            "-1.25e+9",
            "12345678901234567890123",
            "true",
            "null",
            r#""\u00e9\\\"\/""#,
            r#""\ud800""#,
            "\"\u{7f}\u{e9}\"",
            "[]",
            "[{}]",
            r#"{"a":1,"a":[2,{"b":null}]}"#,
            r#"{"a": [1, {"b" : "]"}]}"#,
            &one_block,
            &more,
        ];
        for value in across.chain(listed.map(str::to_owned)) {
            for (text, is_read) in [
                (format!(r#"{{"passed":{value},"next":7}}"#), true),
                (format!(r#"{{"passed":{value} ,"next":7}}"#), false),
                (format!(r#"{{"passed": {value},"next":7}}"#), false),
                (format!(r#"{{"passed":{value}],"next":7}}"#), false),
            ] {
                let next = read::<Around>(&text, None).map(|around| around.next);
                assert_eq!(next, is_read.then_some(json!(7)), "{text}");
            }
        }
    }

    #[test]
    fn what_has_no_end_is_not_passed_over() {
        for text in [
            "",
            "[",
            "[[]",
            r#"["]"#,
            r#"""#,
            r#""\""#,
            "\"\u{1}\"",
            r#"{"a":"#,
            " 1",
        ] {
            assert!(read::<IgnoredAny>(text, None).is_none(), "{text}");
        }
    }

    #[test]
    fn a_visitor_that_leaves_members_unread_gets_nothing() {
        /// Reads the first item only.
        struct First;

        impl<'de> Visitor<'de> for First {
            type Value = u8;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u8, A::Error> {
                Ok(items.next_element()?.unwrap_or_default())
            }
        }

        impl<'de> Deserialize<'de> for First {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_seq(Self).map(|_| Self)
            }
        }

        assert!(read::<Vec<First>>("[[1,2],[3]]", None).is_none());
    }
}
