//! Pods as their authors post them and policies that the CRDs accept, from seeds.
//!
//! Pods and policies draw from the same small pools of values ([`values`]), so that they meet: a policy's
//! user is often one that a pod names, a writable path often one that a pod mounts something at.

pub(crate) mod ephemeral;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod standards;
mod values;

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Where the seeds start from, unless [`SEED`] says otherwise: the same cases in every run, so that a
/// failure is one of the change under test.
const FIRST_SEED: u64 = 20_261_122;
/// The environment variable with the number that the seeds start from.
const SEED: &str = "HARDENING_TEST_SEED";
/// The environment variable with the number of cases of each property.
const CASES: &str = "HARDENING_TEST_CASES";

/// The number that all seeds of this run start from.
pub(crate) fn base_seed() -> u64 {
    from_environment(SEED).unwrap_or(FIRST_SEED)
}

/// How many cases a property gets.
pub(crate) fn cases(usual: usize) -> usize {
    from_environment(CASES).map_or(usual, |cases| usize::try_from(cases).unwrap())
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}")),
    )
}

/// A source of choices that a seed determines.
#[derive(Debug)]
pub(crate) struct Random(fastrand::Rng);

/// A member of a generated object: its name, how often it is there, and its value.
pub(crate) type Member = (&'static str, f64, fn(&mut Random) -> Value);

impl Random {
    /// The choices for one of many things made from a seed.
    pub(crate) fn of(seed: u64, what: &str, number: usize) -> Self {
        // FNV-1a, so that neighbours have nothing in common.
        let bytes = seed
            .to_le_bytes()
            .into_iter()
            .chain(what.bytes())
            .chain(number.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(fastrand::Rng::with_seed(hash))
    }

    /// True that often.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    pub(crate) fn flip(&mut self) -> bool {
        self.0.bool()
    }

    pub(crate) fn number(&mut self, range: RangeInclusive<usize>) -> usize {
        self.0.usize(range)
    }

    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.0.usize(..from.len())]
    }

    /// Some of these, in an order of its own.
    pub(crate) fn some<T: Clone>(&mut self, from: &[T], count: RangeInclusive<usize>) -> Vec<T> {
        let count = self.number(count).min(from.len());
        let mut all = from.to_vec();
        self.0.shuffle(&mut all);
        all.truncate(count);
        all
    }

    /// Small letters and digits.
    pub(crate) fn word(&mut self, length: usize) -> String {
        let letter = |_| char::from(*self.pick(b"bcdfghjklmnpqrstvwxz2456789"));
        (0..length).map(letter).collect()
    }

    /// An object with some of these members.
    pub(crate) fn object(&mut self, members: &[Member]) -> Map<String, Value> {
        let mut object = Map::new();
        for (name, probability, value) in members {
            if self.chance(*probability) {
                let value = value(self);
                object.insert((*name).to_owned(), value);
            }
        }
        object
    }

    /// Now and then says nothing at length, as authors and templates do: null for what is not set, and
    /// null or empty in place of an object or a list.
    pub(crate) fn leave_open(&mut self, object: &mut Map<String, Value>, optional: &[&str]) {
        for name in optional {
            if !object.contains_key(*name) && self.chance(0.03) {
                object.insert((*name).to_owned(), Value::Null);
            }
        }
        for name in optional {
            let Some(value) = object.get_mut(*name).filter(|_| self.chance(0.03)) else {
                continue;
            };
            *value = match value {
                Value::Array(_) => Value::Array(Vec::new()),
                Value::Object(_) => Value::Object(Map::new()),
                _ => Value::Null,
            };
        }
    }
}
