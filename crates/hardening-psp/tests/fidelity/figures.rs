//! How many pairs, and what they showed.

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;

/// The seeds of a run.
pub(crate) fn seeds() -> Range<u64> {
    let number = |name: &str, otherwise: u64| match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {text}: not a number")),
        Err(_) => otherwise,
    };
    let first = number("PSP_SEED", 0);
    first..first + number("PSP_PAIRS", 20_000)
}

/// Whether a run is large enough for everything to have come up at least once.
pub(crate) fn is_full() -> bool {
    let seeds = seeds();
    seeds.end - seeds.start >= 20_000
}

/// Counts by name.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, usize>);

impl Figures {
    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> usize {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Prints a table: each figure and its share of those that have the words before the first colon in common.
    pub(crate) fn print(&self, title: &str) {
        let group = |what: &str| what.split(": ").next().map(str::to_owned);
        let mut sums: BTreeMap<_, usize> = BTreeMap::new();
        for (what, count) in &self.0 {
            *sums.entry(group(what)).or_default() += count;
        }
        println!(
            "\n{title}\n   count    share  what\n{}",
            "-".repeat(title.len().max(60))
        );
        for (what, count) in &self.0 {
            let (sum, count) = (sums[&group(what)], *count);
            let hundredths = count * 10_000 / sum;
            println!(
                "{count:>8} {:>4}.{:02} %  {what}",
                hundredths / 100,
                hundredths % 100
            );
        }
    }
}
