//! When a certificate holds, and when it is due for renewal. All of it follows from the certificate itself
//! and the time, so that every process comes to the same conclusion.

use std::time::Duration;

/// From when to when a certificate holds, in seconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// The first second in which it holds.
    pub(super) not_before: i64,
    /// The last second in which it holds.
    pub(super) not_after: i64,
}

/// How much later than at the earliest moment a process renews, from 0 to [`Jitter::MOST`]: so that
/// processes that share a certificate rarely renew it at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jitter(u8);

/// Clocks differ: a certificate holds from some time before it was made. Not more than a tenth of its
/// lifetime, or one that lives for minutes would be due for renewal when it is made.
const MOST_BACK_DATED: Duration = Duration::from_secs(3600);

// === impl Validity ===

impl Validity {
    /// That of a certificate which is made at `now` and lives for `lifetime` from then on.
    #[must_use]
    pub(super) fn made_at(now: i64, lifetime: Duration) -> Self {
        let back_dated = seconds(MOST_BACK_DATED.min(lifetime / 10));
        Self {
            not_before: now.saturating_sub(back_dated),
            not_after: now.saturating_add(seconds(lifetime)),
        }
    }

    /// Whether its time is over. Being ahead of its time is no reason to replace it: then it is this clock
    /// that is wrong, or the one of whoever made it, and both would go on replacing each other's.
    #[must_use]
    pub(super) fn is_over(self, now: i64) -> bool {
        now >= self.not_after
    }

    /// From when on it is to be renewed: when two thirds of its life are over, and up to a thirtieth later.
    #[must_use]
    pub(super) fn renewal(self, jitter: Jitter) -> i64 {
        let life = i128::from(self.not_after) - i128::from(self.not_before);
        let most = i128::from(Jitter::MOST);
        let after = (life.max(0) * (20 * most + i128::from(jitter.0))) / (30 * most);
        let renewal = i128::from(self.not_before) + after;
        // It lies between two numbers that fit.
        i64::try_from(renewal).unwrap_or(self.not_after)
    }

    /// How long it lives.
    #[must_use]
    pub(super) fn life(self) -> Duration {
        let life = self.not_after.saturating_sub(self.not_before);
        Duration::from_secs(u64::try_from(life).unwrap_or_default())
    }

    /// The same, but not beyond the end of `other`.
    #[must_use]
    pub(super) fn within(self, other: Self) -> Self {
        Self {
            not_after: self.not_after.min(other.not_after),
            ..self
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

// === impl Jitter ===

impl Jitter {
    /// The latest.
    pub(super) const MOST: u8 = 100;
    /// `later` hundredths of the latest.
    #[must_use]
    pub(super) fn new(later: u8) -> Self {
        Self(later.min(Self::MOST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_due_when_two_thirds_of_its_life_are_over() {
        let check = |lifetime: u64, back_dated: i64, renewal: i64| {
            let validity = Validity::made_at(NOW, Duration::from_secs(lifetime));
            assert_eq!(NOW - validity.not_before, back_dated, "{lifetime}");
            assert_eq!(
                validity.renewal(Jitter::new(0)) - NOW,
                renewal,
                "{lifetime}"
            );
        };
        const DAY: u64 = 86_400;
        check(10, 1, 6);
        check(60, 6, 38);
        check(180, 18, 114);
        check(90 * DAY, 3600, 60 * 86_400 - 1200);
        check(365 * DAY, 3600, (365 * 86_400 - 1800) * 2 / 3);
    }

    proptest! {
        #[test]
        fn it_is_due_within_its_life_and_never_when_it_is_made(
            now in -1_000_000_000_000..1_000_000_000_000_i64,
            lifetime in 10..4_000_000_000_u64,
            later in 0..=u8::MAX,
        ) {
            let validity = Validity::made_at(now, Duration::from_secs(lifetime));
            let renewal = validity.renewal(Jitter::new(later));
            prop_assert!(now < renewal && renewal < validity.not_after, "{validity:?}: {renewal}");
            // What is left is enough for whoever renews: a quarter of its life at the least.
            let left = validity.not_after - renewal;
            prop_assert!(left * 4 >= i64::try_from(lifetime).unwrap(), "{validity:?}: {renewal}");
            prop_assert!(!validity.is_over(renewal));
        }

        #[test]
        fn the_later_is_not_the_earlier(
            not_before: i64,
            not_after: i64,
            one in 0..=Jitter::MOST,
            other in 0..=Jitter::MOST,
        ) {
            let validity = Validity { not_before, not_after };
            let (earlier, later) = (Jitter::new(one.min(other)), Jitter::new(one.max(other)));
            prop_assert!(validity.renewal(earlier) <= validity.renewal(later));
            if not_before < not_after {
                prop_assert!((not_before..=not_after).contains(&validity.renewal(later)));
            }
        }

        #[test]
        fn a_leaf_never_outlives_its_ca(made: u32, issued in 0..100_i64, ca in 0..10_000_u64, leaf in 0..10_000_u64) {
            let made = i64::from(made);
            let ca = Validity::made_at(made, Duration::from_secs(ca));
            let leaf = Validity::made_at(made + issued, Duration::from_secs(leaf)).within(ca);
            prop_assert!(leaf.not_after <= ca.not_after);
        }
    }
}
