//! What is to be done next, as a function of what is there and of the time. It knows no API server, no clock
//! and no randomness, and does nothing itself.
//!
//! ```text
//! MakeNext ----> Trust ----> Promote ----> Issue
//! a CA that      caBundle    it issues     a serving certificate,
//! issues         holds it    from now on   which the replicas take
//! nothing yet                              into use
//! ```
//!
//! So nothing is ever issued by a CA that the API servers did not trust before, whether it is the first CA,
//! one that replaces one about to end, or one that replaces one that was lost. Every step is made by whichever
//! process comes first; a process that dies between two of them leaves nothing that the next cannot go on
//! from.

use super::authority::{Authority, CaCertificate, ServingPair};
use super::stored::Authorities;
use super::trust::Bundle;
use super::validity::{Jitter, Validity};

/// What is there.
pub(super) struct Seen<'a> {
    /// The CAs that could be read.
    pub(super) authorities: &'a Authorities,
    /// What stands in the Secret of the serving certificate; `None` where there is no such Secret.
    pub(super) serving: Option<&'a ServingPair>,
    /// Whom the API servers trust, for each webhook of ours; none where none is registered.
    pub(super) trusted: &'a [Bundle],
    /// Whether the next CA has been trusted for so long that every API server must know.
    pub(super) next_is_known: bool,
}

/// What a process is told to do it by.
pub(super) struct Rules<'a> {
    /// The names that the serving certificate must be for.
    pub(super) names: &'a [String],
    pub(super) jitter: Jitter,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A CA is to be made that issues nothing yet.
    MakeNext,
    /// These are to be trusted, for each webhook of ours.
    Trust(Vec<Bundle>),
    /// The next CA is to issue from now on.
    Promote,
    /// A serving certificate is to be issued.
    Issue,
    /// Nothing, until this time (in seconds of Unix time) at the latest; `None`: until something changes.
    Wait(Option<i64>),
}

/// What is to be done next.
///
/// Steps that fail are tried again before any later one, so the order matters: first what keeps answers
/// going, which is to issue by a CA that is trusted already.
pub(super) fn next_step(seen: &Seen<'_>, rules: &Rules<'_>, now: i64) -> Step {
    let Seen {
        authorities,
        serving,
        trusted,
        next_is_known,
    } = *seen;
    let usable = |authority: &&Authority| !authority.certificate.validity.is_over(now);
    let current = authorities.current.as_ref().filter(usable);
    let next = authorities.next.as_ref().filter(usable);

    let due = |validity: Validity| now >= validity.renewal(rules.jitter);
    let issued = current.and_then(|current| {
        let validity = current.vouches_for(serving?, rules.names, now).ok()?;
        (!due(validity)).then_some(validity)
    });
    if current.is_some() && issued.is_none() {
        return Step::Issue;
    }
    let ca_is_due = current.is_none_or(|current| due(current.certificate.validity));
    if ca_is_due && next.is_none() {
        return Step::MakeNext;
    }
    let issuer = serving
        .and_then(|pair| pair.ca.as_deref())
        .and_then(|pem| CaCertificate::from_pem(pem).ok());
    let wanted: Vec<Bundle> = trusted
        .iter()
        .map(|present| Bundle::wanted(authorities.certificates(), issuer.as_ref(), present, now))
        .collect();
    if wanted
        .iter()
        .zip(trusted)
        .any(|(wanted, present)| !wanted.same(present))
    {
        return Step::Trust(wanted);
    }
    if let Some(next) = next {
        // Where nobody else is trusted, nobody else can be served with: then there is nothing to wait for.
        let alone = trusted
            .iter()
            .all(|bundle| bundle.holds_only(&next.certificate));
        if alone || next_is_known {
            return Step::Promote;
        }
    }
    let renewals = [issued, current.map(|current| current.certificate.validity)];
    let renewals = renewals
        .into_iter()
        .flatten()
        .map(|validity| validity.renewal(rules.jitter));
    let ends = trusted.iter().filter_map(Bundle::first_end);
    // A CA that is due waits for the next one, not for its own renewal.
    Step::Wait(renewals.chain(ends).filter(|at| *at > now).min())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const CA: Duration = Duration::from_secs(3000);
    const LEAF: Duration = Duration::from_secs(600);

    /// A cluster in small: what is there, and what the steps make of it.
    struct Model {
        now: i64,
        authorities: Authorities,
        serving: Option<ServingPair>,
        trusted: Vec<Bundle>,
        /// Since when every webhook trusts the next CA.
        next_since: Option<i64>,
        names: Vec<String>,
    }

    /// How long an API server may take to hear of a change, in this model.
    const KNOWN_AFTER: i64 = 60;

    impl Model {
        fn new() -> Self {
            Self {
                now: NOW,
                authorities: Authorities::default(),
                serving: None,
                trusted: vec![Bundle::default(); 2],
                next_since: None,
                names: vec!["pod-hardening.system.svc".to_owned()],
            }
        }

        fn step(&self) -> Step {
            let seen = Seen {
                authorities: &self.authorities,
                serving: self.serving.as_ref(),
                trusted: &self.trusted,
                next_is_known: self
                    .next_since
                    .is_some_and(|since| self.now - since >= KNOWN_AFTER),
            };
            let rules = Rules {
                names: &self.names,
                jitter: Jitter::new(0),
            };
            next_step(&seen, &rules, self.now)
        }

        /// Does what is to be done, until there is nothing: the steps, by name.
        fn settle(&mut self) -> Vec<&'static str> {
            let mut steps = Vec::new();
            loop {
                steps.push(match self.step() {
                    Step::MakeNext => {
                        self.authorities.next = Some(Authority::make(self.now, CA).unwrap());
                        "make"
                    }
                    Step::Trust(bundles) => {
                        self.trusted = bundles;
                        "trust"
                    }
                    Step::Promote => {
                        self.authorities = std::mem::take(&mut self.authorities).promoted();
                        "promote"
                    }
                    Step::Issue => {
                        let ca = self.authorities.current.as_ref().unwrap();
                        self.serving = Some(ca.issue(&self.names, self.now, LEAF).unwrap());
                        "issue"
                    }
                    Step::Wait(_) => return steps,
                });
                assert!(steps.len() < 10, "it does not settle: {steps:?}");
                let next = self.authorities.next.as_ref();
                let trusted = next.is_some_and(|next| {
                    self.trusted
                        .iter()
                        .all(|bundle| bundle.holds(&next.certificate))
                });
                self.next_since = trusted.then(|| self.next_since.unwrap_or(self.now));
            }
        }

        fn settled() -> Self {
            let mut model = Self::new();
            model.settle();
            model
        }

        /// Whether every API server accepts what is being served: a pair that some replica may hold.
        fn is_accepted(&self, pair: &ServingPair) -> bool {
            let issuer = CaCertificate::from_pem(pair.ca.as_ref().unwrap()).unwrap();
            self.trusted.iter().all(|bundle| bundle.holds(&issuer))
        }
    }

    #[test]
    fn the_first_certificate_is_there_at_once() {
        let mut model = Model::new();
        assert_eq!(model.settle(), ["make", "trust", "promote", "issue"]);
        assert!(model.is_accepted(model.serving.as_ref().unwrap()));
        // Before anything is registered there is nobody to wait for either.
        let mut model = Model {
            trusted: Vec::new(),
            ..Model::new()
        };
        assert_eq!(model.settle(), ["make", "promote", "issue"]);
        // Registered later, it is trusted then.
        model.trusted = vec![Bundle::default()];
        assert_eq!(model.settle(), ["trust"]);
    }

    #[test]
    fn what_is_lost_is_made_again_and_what_is_served_stays_trusted() {
        type Harm = fn(&mut Model);
        let no_steps: &[&str] = &[];
        let cases: &[(&str, Harm, &[&str], &[&str])] = &[
            ("nothing", |_| {}, no_steps, no_steps),
            (
                "the certificate",
                |model| model.serving = None,
                &["issue"],
                no_steps,
            ),
            (
                "the certificate's contents",
                |model| {
                    let garbage = b"garbage".to_vec();
                    model.serving = Some(ServingPair {
                        chain: garbage.clone(),
                        key: garbage,
                        ca: None,
                    });
                },
                &["issue"],
                no_steps,
            ),
            (
                "the CA",
                |model| model.authorities = Authorities::default(),
                &["make", "trust"],
                &["promote", "issue"],
            ),
            (
                "both",
                |model| (model.authorities, model.serving) = (Authorities::default(), None),
                &["make", "trust"],
                &["promote", "issue"],
            ),
            (
                "a bundle",
                |model| model.trusted[1] = Bundle::default(),
                &["trust"],
                no_steps,
            ),
            (
                "the CA and the bundles",
                |model| {
                    model.authorities = Authorities::default();
                    model.trusted = vec![Bundle::default(); 2];
                },
                &["make", "trust"],
                &["promote", "issue"],
            ),
            (
                "a name",
                |model| model.names.push("127.0.0.1".to_owned()),
                &["issue"],
                no_steps,
            ),
        ];
        for (case, harm, at_once, later) in cases {
            let mut model = Model::settled();
            let held = model.serving.clone().unwrap();
            harm(&mut model);
            assert_eq!(model.settle(), *at_once, "{case}");
            assert!(
                model.is_accepted(&held),
                "{case}: what a replica still serves"
            );
            model.now += KNOWN_AFTER - 1;
            assert!(model.settle().is_empty(), "{case}: too early");
            model.now += 1;
            assert_eq!(model.settle(), *later, "{case}");
            for pair in [&held, model.serving.as_ref().unwrap()] {
                assert!(model.is_accepted(pair), "{case}");
            }
        }
    }

    #[test]
    fn a_ca_that_ended_while_nobody_looked_is_replaced_without_waiting() {
        let mut model = Model::settled();
        model.now += 2 * i64::try_from(CA.as_secs()).unwrap();
        assert_eq!(model.settle(), ["make", "trust", "promote", "issue"]);
    }

    /// A year in the life, second by second: nothing is ever served that is not trusted, or that has expired.
    #[test]
    fn renewals_never_serve_what_is_not_trusted_or_has_expired() {
        let mut model = Model::settled();
        let (mut issued, mut promoted) = (0, 0);
        let mut held = model.serving.clone().unwrap();
        for _ in 0..20_000 {
            model.now += 1;
            let steps = model.settle();
            issued += steps.iter().filter(|step| **step == "issue").count();
            promoted += steps.iter().filter(|step| **step == "promote").count();
            let serving = model.serving.clone().unwrap();
            // A replica that has not heard of the new one yet, and one that has.
            assert!(
                model.is_accepted(&held) && model.is_accepted(&serving),
                "{}",
                model.now
            );
            let ca = model.authorities.current.as_ref().unwrap();
            let validity = ca.vouches_for(&serving, &model.names, model.now).unwrap();
            assert!(!validity.is_over(model.now));
            assert!(validity.not_after <= ca.certificate.validity.not_after);
            if !steps.is_empty() {
                held = serving;
            }
        }
        // 20,000 s, a leaf every 380 s and a CA every 1,940 s, each CA with a leaf at once.
        assert!((50..70).contains(&issued), "{issued}");
        assert!((9..=11).contains(&promoted), "{promoted}");
        for bundle in &model.trusted {
            assert!(bundle.to_pem().matches("BEGIN").count() <= 3);
        }
    }

    #[test]
    fn it_sleeps_until_something_is_due() {
        let model = Model::settled();
        let Step::Wait(Some(until)) = model.step() else {
            panic!()
        };
        // Two thirds of 660 s, 60 of which were over before it was issued.
        assert_eq!(until - NOW, 380);
    }
}
