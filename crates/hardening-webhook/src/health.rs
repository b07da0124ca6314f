//! Whether the program lives and is ready, for the kubelet's probes.
//!
//! Ready means that every named condition holds: each part of the program that a review depends on owns one.
//! Alive means that this code runs: it depends on nothing else, because a restart would only throw away the
//! caches that a program cut off from its API server still answers from.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::watch;

/// What must hold before the program is ready. Clones share their conditions.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<watch::Sender<Vec<Condition>>>,
}

/// The handle of one condition, for the part of the program that owns it.
#[derive(Clone, Debug)]
#[must_use = "a condition that nobody fulfils keeps the program from ever being ready"]
pub struct ReadyCondition {
    name: &'static str,
    conditions: Arc<watch::Sender<Vec<Condition>>>,
}

#[derive(Clone, Debug)]
struct Condition {
    name: &'static str,
    /// Why it does not hold; `None` where it does.
    unmet: Option<Cow<'static, str>>,
}

// === impl Readiness ===

impl Readiness {
    /// Without a condition, so ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, which does not hold until its handle says so. A condition of that name that is
    /// there already is taken over.
    pub fn condition(&self, name: &'static str) -> ReadyCondition {
        let handle = ReadyCondition {
            name,
            conditions: Arc::clone(&self.conditions),
        };
        handle.unmet("not yet");
        handle
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        all_hold(&self.conditions.borrow())
    }

    /// Returns as soon as every condition holds.
    pub async fn until_ready(&self) {
        // It fails only when the sender is gone, and `self` holds it.
        let _ = self
            .conditions
            .subscribe()
            .wait_for(|conditions| all_hold(conditions))
            .await;
    }

    /// A line for each condition, in the form of the Kubernetes components' own health pages, and whether
    /// all hold.
    pub(crate) fn report(&self) -> (bool, String) {
        let conditions = self.conditions.borrow();
        let mut page = String::new();
        for Condition { name, unmet } in conditions.iter() {
            // Writing to a String cannot fail.
            let _ = match unmet {
                None => writeln!(page, "[+]{name} ok"),
                Some(reason) => writeln!(page, "[-]{name} failed: {reason}"),
            };
        }
        let ready = all_hold(&conditions);
        page.push_str(if ready {
            "readyz check passed\n"
        } else {
            "readyz check failed\n"
        });
        (ready, page)
    }
}

fn all_hold(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| condition.unmet.is_none())
}

// === impl ReadyCondition ===

impl ReadyCondition {
    /// The condition holds.
    pub fn met(&self) {
        self.set(None);
    }

    /// The condition does not hold, and why.
    pub fn unmet(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, unmet: Option<Cow<'static, str>>) {
        let name = self.name;
        self.conditions.send_if_modified(|conditions| {
            match conditions
                .iter_mut()
                .find(|condition| condition.name == name)
            {
                Some(condition) if condition.unmet == unmet => return false,
                Some(condition) => condition.unmet = unmet,
                None => conditions.push(Condition { name, unmet }),
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_every_condition_holds() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let policies = readiness.condition("policies");
        let certificate = readiness.condition("certificate");
        assert_eq!(
            readiness.report(),
            (
                false,
                "[-]policies failed: not yet\n[-]certificate failed: not yet\nreadyz check failed\n".to_owned()
            )
        );
        policies.met();
        assert!(!readiness.is_ready());
        certificate.met();
        assert_eq!(
            readiness.report(),
            (
                true,
                "[+]policies ok\n[+]certificate ok\nreadyz check passed\n".to_owned()
            )
        );
        policies.unmet("no watch for 60 s");
        assert_eq!(
            readiness.report(),
            (
                false,
                "[-]policies failed: no watch for 60 s\n[+]certificate ok\nreadyz check failed\n"
                    .to_owned()
            )
        );
    }

    #[tokio::test]
    async fn who_waits_for_readiness_is_told() {
        let readiness = Readiness::new();
        let condition = readiness.condition("policies");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.until_ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        condition.met();
        waiting.await.unwrap();
    }
}
