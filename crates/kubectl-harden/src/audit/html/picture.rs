//! Two bars: how many stand at which level, today and after hardening.

use crate::audit::model::{ByLevel, Counts, Level, Namespace};

/// What there is how much of, before and after.
#[derive(Debug)]
pub(super) struct Picture {
    /// What is counted: `Namespaces`.
    pub(super) title: &'static str,
    pub(super) bars: [Bar; 2],
}

#[derive(Debug)]
pub(super) struct Bar {
    /// When: `today`.
    pub(super) label: &'static str,
    pub(super) parts: Vec<Part>,
}

/// A level's share of a bar.
#[derive(Debug, PartialEq)]
pub(super) struct Part {
    pub(super) level: &'static str,
    pub(super) count: usize,
    /// Where it begins, and how long it is, in thousandths of the bar.
    pub(super) x: usize,
    pub(super) width: usize,
}

/// The length of a bar.
const WHOLE: usize = 1000;

impl Picture {
    pub(super) fn of_namespaces(namespaces: &[Namespace]) -> Self {
        let mut levels = [ByLevel::default(), ByLevel::default()];
        let [today, after] = &mut levels;
        for namespace in namespaces {
            today.add(namespace.level_today);
            after.add(namespace.level_after);
        }
        Self::new("Namespaces", levels)
    }

    pub(super) fn of_workloads(total: &Counts) -> Self {
        Self::new("Workloads", [total.today, total.after])
    }

    fn new(title: &'static str, [today, after]: [ByLevel; 2]) -> Self {
        Self {
            title,
            bars: [Bar::new("today", today), Bar::new("after hardening", after)],
        }
    }
}

impl Bar {
    fn new(label: &'static str, levels: ByLevel) -> Self {
        let counts = Level::ALL.map(|level| (level, levels.of(level)));
        let all: usize = counts.iter().map(|(_, count)| count).sum();
        let mut before = 0;
        let parts = counts.into_iter().map(|(level, count)| {
            // Both ends are rounded, so that the parts meet and the last one ends with the bar.
            let end = |count: usize| (count * WHOLE).checked_div(all).unwrap_or(0);
            let x = end(before);
            before += count;
            Part {
                level: level.name(),
                count,
                x,
                width: end(before) - x,
            }
        });
        Self {
            label,
            parts: parts.filter(|part| part.count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_meet_and_fill_the_bar_however_they_round() {
        for counts in [[0, 0, 0], [1, 0, 0], [1, 1, 1], [3, 0, 4], [1, 4999, 7]] {
            let [privileged, baseline, restricted] = counts;
            let levels = ByLevel {
                privileged,
                baseline,
                restricted,
            };
            let bar = Bar::new("today", levels);
            let mut end = 0;
            for part in &bar.parts {
                assert_eq!(part.x, end, "{bar:?}");
                end += part.width;
            }
            let any = counts.iter().sum::<usize>() > 0;
            assert_eq!(end, if any { WHOLE } else { 0 }, "{bar:?}");
        }
    }
}
