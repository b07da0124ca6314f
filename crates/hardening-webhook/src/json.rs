//! JSON as API servers write it, read for little.
//!
//! Most of a pod is asked for by nobody, and serde_json takes a dozen instructions for each byte of it. This reader
//! takes half of that: the ends of all strings are looked up beforehand, 64 bytes at a time, and it knows no
//! whitespace, nor where in a text an error is. What it passes over must be JSON all the same.
//!
//! It takes nothing that serde_json refuses, and makes nothing else of it. What it does not take (whitespace, a
//! fraction where a value is wanted, 65 brackets in each other, and what is no JSON) is for serde_json, which also
//! says what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use wide::u8x64;

/// Reads a value of the whole text; nothing but the end of the line may follow it. `None`: ask serde_json.
pub(crate) fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Option<T> {
    let text = text.trim_end_matches('\n');
    let mut reader = Reader {
        text,
        specials: specials(text.as_bytes()),
        at: 0,
    };
    let value = T::deserialize(&mut reader).ok()?;
    (reader.at == text.len()).then_some(value)
}

/// Somewhere in a text.
struct Reader<'de> {
    text: &'de str,
    /// Which bytes a string cannot hold as they are, a bit for each.
    specials: Vec<u64>,
    at: usize,
}

/// This is not for this reader.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON as an API server writes it")]
struct Unusual;

/// The members of an object, or the items of a list, of which the opening bracket is read.
struct Entries<'r, 'de> {
    reader: &'r mut Reader<'de>,
    is_first: bool,
    is_at_end: bool,
}

impl de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

// === impl Reader ===

impl<'de> Reader<'de> {
    fn peek(&self) -> Result<u8, Unusual> {
        self.text.as_bytes().get(self.at).copied().ok_or(Unusual)
    }

    fn next(&mut self) -> Result<u8, Unusual> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unusual> {
        if self.next()? == byte {
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    fn pass(&mut self, word: &str) -> Result<(), Unusual> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += word.len();
        if rest.starts_with(word.as_bytes()) {
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    /// Reads an object or a list, of which the opening bracket is next.
    fn entries<T>(
        &mut self,
        visit: impl FnOnce(&mut Entries<'_, 'de>) -> Result<T, Unusual>,
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

    // --- strings ---

    /// Goes past the end of a string of which the first quote is read; whether it has escapes.
    #[inline]
    fn pass_string(&mut self) -> Result<bool, Unusual> {
        self.pass_plain()?;
        if self.peek()? == b'"' {
            self.at += 1;
            return Ok(false);
        }
        self.pass_escapes().map(|()| true)
    }

    /// As [`Self::pass_string`], from the first byte on that the string cannot hold as it is.
    #[inline(never)]
    fn pass_escapes(&mut self) -> Result<(), Unusual> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.pass_escape()?,
                _ => return Err(Unusual),
            }
            self.pass_plain()?;
        }
    }

    /// Goes to the next byte that a string cannot hold as it is.
    #[inline]
    fn pass_plain(&mut self) -> Result<(), Unusual> {
        let bits = self.specials.get(self.at / BLOCK).ok_or(Unusual)? >> (self.at % BLOCK);
        if bits == 0 {
            return self.pass_plain_blocks();
        }
        self.at += bits.trailing_zeros() as usize;
        Ok(())
    }

    #[inline(never)]
    fn pass_plain_blocks(&mut self) -> Result<(), Unusual> {
        let next = self.at / BLOCK + 1;
        let blocks = self.specials.get(next..).unwrap_or_default();
        let mut special = blocks.iter().enumerate().filter(|(_, bits)| **bits != 0);
        let (i, bits) = special.next().ok_or(Unusual)?;
        self.at = (next + i) * BLOCK + bits.trailing_zeros() as usize;
        Ok(())
    }

    fn pass_escape(&mut self) -> Result<(), Unusual> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.next()?.is_ascii_hexdigit() {
                        return Err(Unusual);
                    }
                }
                Ok(())
            }
            _ => Err(Unusual),
        }
    }

    /// A string of which the first quote is read.
    fn string(&mut self) -> Result<Cow<'de, str>, Unusual> {
        let start = self.at;
        let has_escapes = self.pass_string()?;
        let text = |start, end| self.text.get(start..end).ok_or(Unusual);
        if has_escapes {
            let quoted = text(start - 1, self.at)?;
            return serde_json::from_str(quoted)
                .map(Cow::Owned)
                .map_err(|_| Unusual);
        }
        text(start, self.at - 1).map(Cow::Borrowed)
    }

    // --- other values ---

    fn pass_digits(&mut self) -> Result<(), Unusual> {
        let start = self.at;
        while self.peek().is_ok_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(()).ok_or(Unusual)
    }

    /// Goes past a whole number, of which nothing is read.
    fn pass_integer(&mut self) -> Result<(), Unusual> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        // What follows a zero that leads is then not what may follow a number.
        if self.peek()? == b'0' {
            self.at += 1;
            return Ok(());
        }
        self.pass_digits()
    }

    /// Goes past a number, of which nothing is read.
    fn pass_number(&mut self) -> Result<(), Unusual> {
        self.pass_integer()?;
        if self.peek() == Ok(b'.') {
            self.at += 1;
            self.pass_digits()?;
        }
        if let Ok(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let b'+' | b'-' = self.peek()? {
                self.at += 1;
            }
            self.pass_digits()?;
        }
        Ok(())
    }

    /// The whole number that is next. What is one for a float alone, as minus zero, is for serde_json.
    fn integer(&mut self) -> Result<i64, Unusual> {
        let start = self.at;
        self.pass_integer()?;
        let digits = self.text.get(start..self.at).ok_or(Unusual)?;
        if digits == "-0" {
            return Err(Unusual);
        }
        digits.parse().map_err(|_| Unusual)
    }

    /// Goes past a value that nobody asks for.
    fn pass_value(&mut self) -> Result<(), Unusual> {
        // What the value is in: a bit for each, the innermost last, that says whether it is an object.
        let (mut depth, mut objects) = (0, 0_u64);
        loop {
            let opened = match self.peek()? {
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    // In ASCII, the bracket that closes is the second after it.
                    let is_empty = self.peek()? == bracket + 2;
                    self.at += usize::from(is_empty);
                    (!is_empty).then_some(bracket == b'{')
                }
                _ => {
                    self.pass_scalar()?;
                    None
                }
            };
            if let Some(is_object) = opened {
                if depth == u64::BITS {
                    return Err(Unusual);
                }
                depth += 1;
                objects = objects << 1 | u64::from(is_object);
            } else {
                loop {
                    if depth == 0 {
                        return Ok(());
                    }
                    match (self.next()?, objects & 1 == 1) {
                        (b',', _) => break,
                        (b'}', true) | (b']', false) => {
                            depth -= 1;
                            objects >>= 1;
                        }
                        _ => return Err(Unusual),
                    }
                }
            }
            if objects & 1 == 1 {
                self.expect(b'"')?;
                self.pass_string()?;
                self.expect(b':')?;
            }
        }
    }

    fn pass_scalar(&mut self) -> Result<(), Unusual> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.pass_string().map(|_| ())
            }
            b't' => self.pass("true"),
            b'f' => self.pass("false"),
            b'n' => self.pass("null"),
            _ => self.pass_number(),
        }
    }
}

/// As many bytes as a word has bits.
const BLOCK: usize = 64;

/// Which bytes of a text are quotes, backslashes or control characters.
fn specials(text: &[u8]) -> Vec<u64> {
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let mut last = [b' '; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let special = |block: &[u8; BLOCK]| {
        let bytes = u8x64::new(*block);
        let is_control = bytes.min(u8x64::splat(0x1f)).simd_eq(bytes);
        let is = |byte| bytes.simd_eq(u8x64::splat(byte));
        (is_control | is(b'"') | is(b'\\')).to_bitmask()
    };
    blocks.iter().chain([&last]).map(special).collect()
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                match self.string()? {
                    Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                    Cow::Owned(text) => visitor.visit_string(text),
                }
            }
            b'{' => self.entries(|entries| visitor.visit_map(entries)),
            b'[' => self.entries(|entries| visitor.visit_seq(entries)),
            b't' => self.pass("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.pass("false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.pass("null").and_then(|()| visitor.visit_unit()),
            _ => self.integer().and_then(|number| visitor.visit_i64(number)),
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
        self.pass_value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier
    }
}

// === impl Entries ===

impl<'de> Entries<'_, 'de> {
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

impl<'de> MapAccess<'de> for &mut Entries<'_, 'de> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unusual> {
        if !self.advance(b'}')? {
            return Ok(None);
        }
        self.reader.expect(b'"')?;
        let key = match self.reader.string()? {
            Cow::Borrowed(key) => seed.deserialize(BorrowedStrDeserializer::new(key))?,
            Cow::Owned(key) => seed.deserialize(StringDeserializer::new(key))?,
        };
        self.reader.expect(b':')?;
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> SeqAccess<'de> for &mut Entries<'_, 'de> {
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
    use serde_json::Value;

    use super::*;

    /// Neither what is made of a text nor what is passed over may be other than serde_json's.
    #[track_caller]
    fn check_agreement(text: &str) {
        if let Some(value) = read::<Value>(text) {
            assert_eq!(Some(value), serde_json::from_str(text).ok(), "{text:?}");
        }
        if read::<IgnoredAny>(text).is_some() {
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
                prop::collection::btree_map(text.clone(), inner, 0..6)
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
            prop_assert_eq!(read::<Value>(&text), Some(value));
            prop_assert!(read::<IgnoredAny>(&text).is_some());
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
            assert_eq!(read::<IgnoredAny>(text).is_some(), is_passed, "{text}");
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

        assert!(read::<Vec<First>>("[[1,2],[3]]").is_none());
    }
}
