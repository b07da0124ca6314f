//! JSON as API servers write it, read for little.
//!
//! Most of a pod is asked for by nobody, and serde_json takes a dozen instructions for each byte of it. This reader
//! takes half of that: the ends of all strings are looked up beforehand, 64 bytes at a time, and it knows no
//! whitespace, nor where in a text an error is. What it passes over must be JSON all the same, but for one value of which
//! it may be told the end.
//!
//! It takes nothing that serde_json refuses, and makes nothing else of it. What it does not take (whitespace, an
//! escape in a member's name, a fraction where a value is wanted, 65 brackets in each other, and what is no JSON) is for
//! serde_json, which also says what is wrong with it.

use std::fmt;
use std::ops::Range;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use wide::u8x64;

/// Reads the whole text; nothing but the end of the line may follow. `None`: ask serde_json.
///
/// Where a value begins at `known`'s start and nobody asks for it, its end is taken to be `known`'s.
pub(crate) fn read<'de, T>(
    text: &'de str,
    known: Option<Range<usize>>,
    read: impl FnOnce(&mut Reader<'_, 'de>) -> Result<T, Unusual>,
) -> Option<T> {
    let text = text.trim_end_matches('\n');
    let specials = specials(text.as_bytes(), known.clone().unwrap_or_default());
    let mut reader = Reader {
        text: Text {
            json: text,
            specials: &specials,
        },
        at: 0,
        known,
    };
    let value = read(&mut reader).ok()?;
    (reader.at == text.len()).then_some(value)
}

/// Somewhere in a text. What reads names, strings and words, and what passes over values, are one function each for the
/// readers of all types: nearly all code of theirs runs once in a review, and fetching it takes longer than running it.
pub(crate) struct Reader<'t, 'de> {
    text: Text<'t, 'de>,
    at: usize,
    /// A value whose end need not be looked for.
    known: Option<Range<usize>>,
}

/// A text, and where its strings may end.
struct Text<'t, 'de> {
    json: &'de str,
    /// Which bytes a string cannot hold as they are, a bit for each.
    specials: &'t [u64],
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
pub(crate) struct Unusual;

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

impl<'de> Reader<'_, 'de> {
    /// Reads the value that is next.
    pub(crate) fn value<T: Deserialize<'de>>(&mut self) -> Result<T, Unusual> {
        T::deserialize(self)
    }

    /// Reads the string that is next; one with escapes is not for this reader.
    pub(crate) fn string(&mut self) -> Result<&'de str, Unusual> {
        self.plain_string().ok_or(Unusual)
    }

    /// Passes over this very text, if it is next.
    pub(crate) fn pass(&mut self, text: &str) -> Result<(), Unusual> {
        self.at = self.text.literal_end(self.at, text)?;
        Ok(())
    }

    /// Passes over the value that is next, of which nothing is wanted but that it is one.
    #[inline(never)]
    pub(crate) fn skip(&mut self) -> Result<(), Unusual> {
        self.at = match &self.known {
            Some(known) if known.start == self.at => known.end,
            _ => self.text.value_end(self.at)?,
        };
        Ok(())
    }

    fn peek(&self) -> Result<u8, Unusual> {
        self.text.byte(self.at)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unusual> {
        self.at = self.text.expect(self.at, byte)?;
        Ok(())
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

    /// The string that is next, if it has escapes.
    #[inline(never)]
    fn escaped_string(&mut self) -> Result<String, Unusual> {
        let start = self.at;
        self.at = self.text.string_end(start + 1)?;
        let quoted = self.text.part(start, self.at)?;
        serde_json::from_str(quoted).map_err(|_| Unusual)
    }

    /// The value that is next, if it is neither a string nor in brackets.
    #[inline(never)]
    fn word(&mut self) -> Result<Word, Unusual> {
        match self.peek()? {
            b't' => self.pass("true").map(|()| Word::Bool(true)),
            b'f' => self.pass("false").map(|()| Word::Bool(false)),
            b'n' => self.pass("null").map(|()| Word::Null),
            _ => self.integer().map(Word::Integer),
        }
    }

    /// The whole number that is next. What is one for a float alone, as minus zero, is for serde_json.
    fn integer(&mut self) -> Result<i64, Unusual> {
        let start = self.at;
        self.at = self.text.integer_end(start)?;
        let digits = self.text.part(start, self.at)?;
        if digits == "-0" {
            return Err(Unusual);
        }
        digits.parse().map_err(|_| Unusual)
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

    fn literal_end(&self, at: usize, text: &str) -> Result<usize, Unusual> {
        let rest = self.json.as_bytes().get(at..).unwrap_or_default();
        if rest.starts_with(text.as_bytes()) {
            Ok(at + text.len())
        } else {
            Err(Unusual)
        }
    }

    // --- strings ---

    /// Of a string, from behind its first quote.
    #[inline]
    fn string_end(&self, at: usize) -> Result<usize, Unusual> {
        let at = self.plain_end(at)?;
        if self.byte(at)? == b'"' {
            return Ok(at + 1);
        }
        self.escaped_end(at)
    }

    /// As [`Self::string_end`], from the first byte on that the string cannot hold as it is.
    #[inline(never)]
    fn escaped_end(&self, mut at: usize) -> Result<usize, Unusual> {
        loop {
            match self.byte(at)? {
                b'"' => return Ok(at + 1),
                b'\\' => at = self.escape_end(at + 1)?,
                _ => return Err(Unusual),
            }
            at = self.plain_end(at)?;
        }
    }

    /// The next byte that a string cannot hold as it is.
    #[inline]
    fn plain_end(&self, at: usize) -> Result<usize, Unusual> {
        let bits = self.specials.get(at / BLOCK).ok_or(Unusual)? >> (at % BLOCK);
        if bits == 0 {
            return self.plain_blocks_end(at);
        }
        Ok(at + bits.trailing_zeros() as usize)
    }

    #[inline(never)]
    fn plain_blocks_end(&self, at: usize) -> Result<usize, Unusual> {
        let next = at / BLOCK + 1;
        let blocks = self.specials.get(next..).unwrap_or_default();
        let mut special = blocks.iter().enumerate().filter(|(_, bits)| **bits != 0);
        let (i, bits) = special.next().ok_or(Unusual)?;
        Ok((next + i) * BLOCK + bits.trailing_zeros() as usize)
    }

    /// Of an escape, from behind its backslash.
    fn escape_end(&self, at: usize) -> Result<usize, Unusual> {
        match self.byte(at)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
            b'u' => {
                let digits = self.json.as_bytes().get(at + 1..at + 5).ok_or(Unusual)?;
                let are_digits = digits.iter().all(u8::is_ascii_hexdigit);
                are_digits.then_some(at + 5).ok_or(Unusual)
            }
            _ => Err(Unusual),
        }
    }

    // --- numbers ---

    fn digits_end(&self, start: usize) -> Result<usize, Unusual> {
        let mut at = start;
        while self.byte(at).is_ok_and(|byte| byte.is_ascii_digit()) {
            at += 1;
        }
        (at > start).then_some(at).ok_or(Unusual)
    }

    /// Of a whole number.
    fn integer_end(&self, mut at: usize) -> Result<usize, Unusual> {
        if self.byte(at)? == b'-' {
            at += 1;
        }
        // What follows a zero that leads is then not what may follow a number.
        if self.byte(at)? == b'0' {
            return Ok(at + 1);
        }
        self.digits_end(at)
    }

    fn number_end(&self, at: usize) -> Result<usize, Unusual> {
        let mut at = self.integer_end(at)?;
        if self.byte(at) == Ok(b'.') {
            at = self.digits_end(at + 1)?;
        }
        if let Ok(b'e' | b'E') = self.byte(at) {
            at += 1;
            if let b'+' | b'-' = self.byte(at)? {
                at += 1;
            }
            at = self.digits_end(at)?;
        }
        Ok(at)
    }

    // --- any value ---

    /// Of a value that nobody asks for.
    fn value_end(&self, mut at: usize) -> Result<usize, Unusual> {
        // What the value is in: a bit for each, the innermost last, that says whether it is an object.
        let (mut depth, mut objects) = (0, 0_u64);
        loop {
            if objects & 1 == 1 {
                at = self.key_end(at)?;
            }
            match self.byte(at)? {
                bracket @ (b'{' | b'[') => {
                    at += 1;
                    // In ASCII, the bracket that closes is the second after it.
                    if self.byte(at)? != bracket + 2 {
                        if depth == u64::BITS {
                            return Err(Unusual);
                        }
                        depth += 1;
                        objects = objects << 1 | u64::from(bracket == b'{');
                        continue;
                    }
                    at += 1;
                }
                first => at = self.scalar_end(at, first)?,
            }
            loop {
                if depth == 0 {
                    return Ok(at);
                }
                let byte = self.byte(at)?;
                at += 1;
                match (byte, objects & 1 == 1) {
                    (b',', _) => break,
                    (b'}', true) | (b']', false) => {
                        depth -= 1;
                        objects >>= 1;
                    }
                    _ => return Err(Unusual),
                }
            }
        }
    }

    /// Of a member's name, with the colon.
    #[inline]
    fn key_end(&self, at: usize) -> Result<usize, Unusual> {
        let end = self.string_end(self.expect(at, b'"')?)?;
        self.expect(end, b':')
    }

    #[inline]
    fn scalar_end(&self, at: usize, first: u8) -> Result<usize, Unusual> {
        match first {
            b'"' => self.string_end(at + 1),
            b't' => self.literal_end(at, "true"),
            b'f' => self.literal_end(at, "false"),
            b'n' => self.literal_end(at, "null"),
            _ => self.number_end(at),
        }
    }
}

/// As many bytes as a word has bits.
const BLOCK: usize = 64;

/// Which bytes of a text are quotes, backslashes or control characters. A string that began in `unread` would not get past
/// its first byte.
fn specials(text: &[u8], unread: Range<usize>) -> Vec<u64> {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let special = |block: &[u8; BLOCK]| {
        let bytes = u8x64::new(*block);
        // With this bit the other way round, the quote is next to the control characters.
        let turned = bytes ^ u8x64::splat(b'"' ^ b' ');
        let is_control_or_quote = turned.min(u8x64::splat(b' ')).simd_eq(turned);
        (is_control_or_quote | bytes.simd_eq(u8x64::splat(b'\\'))).to_bitmask()
    };
    let unread = unread.start.div_ceil(BLOCK)..unread.end / BLOCK;
    let blocks = blocks.iter().chain([&last]).enumerate();
    blocks
        .map(|(i, block)| match unread.contains(&i) {
            true => u64::MAX,
            false => special(block),
        })
        .collect()
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
        self.skip()?;
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

    fn value<'de, T: Deserialize<'de>>(text: &'de str, known: Option<Range<usize>>) -> Option<T> {
        read(text, known, |reader| reader.value())
    }

    /// Neither what is made of a text nor what is passed over may be other than serde_json's.
    #[track_caller]
    fn check_agreement(text: &str) {
        if let Some(found) = value::<Value>(text, None) {
            assert_eq!(Some(found), serde_json::from_str(text).ok(), "{text:?}");
        }
        if value::<IgnoredAny>(text, None).is_some() {
            let passed = serde_json::from_str::<IgnoredAny>(text);
            assert!(passed.is_ok(), "{text:?}: {passed:?}");
        }
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
        fn every_document_written_without_whitespace_is_read_as_serde_json_reads_it(document in document()) {
            let text = document.to_string();
            prop_assert_eq!(value::<Value>(&text, None), Some(document));
            prop_assert!(value::<IgnoredAny>(&text, None).is_some());
        }

        #[test]
        fn whatever_is_broken_serde_json_refuses_or_reads_alike(
            document in document(),
            edits in prop::collection::vec(edit(), 1..4),
        ) {
            let mut text: Vec<char> = document.to_string().chars().collect();
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
            let whole = value::<Object>(&text, None);
            prop_assert!(whole.is_some());
            if let Some(found) = value::<Object>(&text, managed_fields::find(&text)) {
                prop_assert_eq!(Some(found), whole);
            }
        }
    }

    #[test]
    fn what_is_passed_over_is_json_or_not_as_for_serde_json() {
        let deep = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        let (deepest, deeper) = (deep(64), deep(66));
        let long = format!("\"{}\"", "x".repeat(200));
        for (text, is_passed) in [
            ("0", true),
            ("-0", true),
            ("-1.25e+9", true),
            ("1E9", true),
            ("12345678901234567890123", true),
            ("01", false),
            ("-", false),
            ("1.", false),
            (".5", false),
            ("1e", false),
            ("+1", false),
            ("true", true),
            ("tru", false),
            ("nul", false),
            (r#""\u00e9\\\"\/""#, true),
            (r#""\ud800""#, true),
            (r#""\u00g0""#, false),
            (r#""\x""#, false),
            (r#""\""#, false),
            (r#"""#, false),
            ("\"\u{1}\"", false),
            ("\"\u{7f}\u{e9}\"", true),
            (&long, true),
            ("[]", true),
            ("[{}]", true),
            ("[}", false),
            ("[1,]", false),
            ("[,1]", false),
            ("[1 ]", false),
            (r#"{"a":1,"a":[2,{"b":null}]}"#, true),
            (r#"{"a":1,}"#, false),
            (r#"{"a"}"#, false),
            (r#"{"a":}"#, false),
            (r#"{1:2}"#, false),
            (r#"{"a":1]"#, false),
            ("1,2", false),
            ("[]]", false),
            ("", false),
            ("1\n", true),
            (&deepest, true),
            (&deeper, false),
        ] {
            assert_eq!(
                value::<IgnoredAny>(text, None).is_some(),
                is_passed,
                "{text}"
            );
            check_agreement(text);
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

        assert!(value::<Vec<First>>("[[1,2],[3]]", None).is_none());
    }
}
