//! Policies from files, read again when they change.
//!
//! The files are looked at on a timer, by content: that works for editors that replace files, for mounted
//! ConfigMaps, which are swapped by a symbolic link, and for network file systems. A change counts once it
//! has been seen twice, so that a file caught half-written is not taken for what its author meant.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hardening_engine::PolicySet;
use hardening_manifests::{File, Manifest, Problem, load, parse_file, policy_set};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::error::one_line;

/// How often the files are looked at; a change is in force after at most twice that.
const INTERVAL: Duration = Duration::from_millis(500);

/// The namespace of objects that name none, as for `kubectl` without any configuration.
const NAMESPACE: &str = "default";

/// Files, and the policy set that they made last.
#[derive(Debug)]
pub(crate) struct PolicyFiles {
    paths: Vec<PathBuf>,
    published: watch::Sender<Arc<PolicySet>>,
    /// What the policy set, or the last complaint, is about.
    handled: Fingerprint,
    /// What was seen at the last look.
    seen: Fingerprint,
}

/// What came of a look at the files.
#[derive(Debug)]
pub(crate) enum Refreshed {
    Unchanged,
    /// There is a new policy set.
    Replaced,
    /// The files are not valid: the policy set before stays.
    Kept(anyhow::Error),
}

/// The files' names and content, or why they could not be read.
type Fingerprint = Result<u64, String>;
type Loaded = Result<Vec<(String, Vec<u8>)>, hardening_manifests::Error>;

impl PolicyFiles {
    /// Reads the files, which must be valid now.
    pub(crate) fn read(
        paths: Vec<PathBuf>,
    ) -> anyhow::Result<(Self, watch::Receiver<Arc<PolicySet>>)> {
        let loaded = load(&paths);
        let fingerprint = fingerprint(&loaded);
        let set = parse(loaded)?;
        let (published, policies) = watch::channel(Arc::new(set));
        let files = Self {
            paths,
            published,
            handled: fingerprint.clone(),
            seen: fingerprint,
        };
        Ok((files, policies))
    }

    /// Looks at the files from now on. It returns only where it cannot look any more.
    pub(crate) async fn follow(mut self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // Files block, and the threads that answer reviews must not.
            let (files, refreshed) = tokio::task::spawn_blocking(move || {
                let refreshed = self.refresh();
                (self, refreshed)
            })
            .await
            .context("look at the policy files")?;
            self = files;
            match refreshed {
                Refreshed::Unchanged => {}
                Refreshed::Replaced => {
                    let policies = self.published.borrow().policy_count();
                    tracing::info!(policies, "the policy files changed: they are in force");
                }
                Refreshed::Kept(error) => {
                    let error = one_line(&error);
                    tracing::warn!(
                        error,
                        "the policy files are not valid: the policies before stay in force"
                    );
                }
            }
        }
    }

    /// Looks at the files once.
    fn refresh(&mut self) -> Refreshed {
        let loaded = load(&self.paths);
        let fingerprint = fingerprint(&loaded);
        let settled = fingerprint == self.seen;
        self.seen.clone_from(&fingerprint);
        if !settled || fingerprint == self.handled {
            return Refreshed::Unchanged;
        }
        self.handled = fingerprint;
        match parse(loaded) {
            Ok(set) => {
                self.published.send_replace(Arc::new(set));
                Refreshed::Replaced
            }
            Err(error) => Refreshed::Kept(error),
        }
    }
}

fn fingerprint(loaded: &Loaded) -> Fingerprint {
    match loaded {
        Ok(files) => {
            let mut hasher = DefaultHasher::new();
            files.hash(&mut hasher);
            Ok(hasher.finish())
        }
        Err(error) => Err(format!("{error:?}")),
    }
}

fn parse(loaded: Loaded) -> anyhow::Result<PolicySet> {
    let files: Vec<File> = loaded?
        .iter()
        .map(|(name, bytes)| parse_file(name, bytes))
        .collect::<Result<_, _>>()?;
    let documents = files.into_iter().flat_map(|file| file.documents);
    let manifests: Vec<Manifest> = documents.map(|document| document.manifest).collect();
    let (set, problems) = policy_set(&manifests, NAMESPACE);
    match problems.as_slice() {
        [] => Ok(set),
        [first, others @ ..] => Err(describe(first, others.len())),
    }
}

fn describe(problem: &Problem, others: usize) -> anyhow::Error {
    match others {
        0 => anyhow!("{problem}"),
        _ => anyhow!("{problem} (and {others} more: `kubectl harden lint` tells all)"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "\
apiVersion: podhardening.dev/v1alpha1
kind: PodHardeningPolicy
metadata: {name: a, namespace: shop}
spec: {profile: Restricted}
";

    /// What the look says, and how many policies are then in force.
    #[derive(Debug, PartialEq)]
    enum Look {
        Unchanged(usize),
        Replaced(usize),
        Kept(usize, String),
    }
    use Look::{Kept, Replaced, Unchanged};

    fn look(files: &mut PolicyFiles) -> Look {
        let refreshed = files.refresh();
        let policies = files.published.borrow().policy_count();
        match refreshed {
            Refreshed::Unchanged => Unchanged(policies),
            Refreshed::Replaced => Replaced(policies),
            Refreshed::Kept(error) => Kept(policies, one_line(&error)),
        }
    }

    #[test]
    fn a_change_is_taken_once_it_has_settled_and_a_bad_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let name = file.display();
        fs::write(&file, GOOD).unwrap();
        let (mut files, _policies) = PolicyFiles::read(vec![folder.path().to_owned()]).unwrap();
        let second = GOOD.replace("name: a", "name: b");
        let bad = GOOD.replace("Restricted", "Restrictive");
        let complaint = format!(
            "{name}: PodHardeningPolicy shop/a: spec.profile: Restrictive is not one of Restricted, Hardened"
        );
        let steps: [(&str, Vec<Look>); 7] = [
            (GOOD, vec![Unchanged(1), Unchanged(1)]),
            (
                &format!("{GOOD}---\n{second}"),
                vec![Unchanged(1), Replaced(2), Unchanged(2)],
            ),
            (&bad, vec![Unchanged(2), Kept(2, complaint), Unchanged(2)]),
            ("a: [", vec![Unchanged(2)]),
            (
                &format!("{GOOD}---\n{second}"),
                vec![Unchanged(2), Replaced(2)],
            ),
            ("", vec![Unchanged(2)]),
            ("# none\n", vec![Unchanged(2), Replaced(0)]),
        ];
        for (index, (text, looks)) in steps.into_iter().enumerate() {
            fs::write(&file, text).unwrap();
            for expected in looks {
                assert_eq!(look(&mut files), expected, "step {index}");
            }
        }
        // The file is gone, and with it the folder's last; then it is back.
        fs::remove_file(&file).unwrap();
        assert_eq!(look(&mut files), Unchanged(0));
        assert!(matches!(look(&mut files), Kept(0, _)));
        assert_eq!(look(&mut files), Unchanged(0));
        fs::write(&file, GOOD).unwrap();
        assert_eq!(look(&mut files), Unchanged(0));
        assert_eq!(look(&mut files), Replaced(1));
    }

    #[test]
    fn several_problems_are_one_line_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let bad = |name: &str| {
            GOOD.replace("name: a", name)
                .replace("Restricted", "Restrictive")
        };
        fs::write(&file, format!("{}---\n{}", bad("name: a"), bad("name: b"))).unwrap();
        let error = PolicyFiles::read(vec![file]).unwrap_err();
        let line = one_line(&error);
        assert!(
            line.ends_with("(and 1 more: `kubectl harden lint` tells all)"),
            "{line}"
        );
    }
}
