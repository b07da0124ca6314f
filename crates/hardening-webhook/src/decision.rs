//! What is decided about a pod, and by what.

use std::fmt;

use hardening_engine::{Field, Guard, InvalidPod, Pod, PolicySet, Unseen, plan};

use crate::refusal::Refusal;
use crate::review::Question;

/// Decides what a pod gets. It is a value so that the handler around it can be held to what it promises
/// whatever the decision does.
pub trait Decide: fmt::Debug + Send + Sync + 'static {
    /// Decides from memory alone.
    ///
    /// # Errors
    ///
    /// Where nothing can be decided.
    fn decide(
        &self,
        policies: &PolicySet,
        namespace: &str,
        question: Question<'_>,
    ) -> Result<Decision, Undecided>;
}

/// What a pod gets.
#[derive(Debug, Default)]
pub struct Decision {
    /// The patch, an RFC 6902 document; empty where nothing is filled in.
    pub patch: Vec<u8>,
    /// For the API server's audit log.
    pub audit_annotations: Vec<(&'static str, String)>,
    /// For the client.
    pub warning: Option<String>,
    /// The fields filled in, once for each place.
    pub filled: Vec<Field>,
    /// The fields that policies in Audit mode would have filled in.
    pub audited: Vec<Field>,
    /// The guards that held something back.
    pub withheld: Vec<Guard>,
}

/// Why nothing can be decided.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// Not yet, that is: something that matters has not been seen.
    #[error("not everything that decides is known yet")]
    Unseen(#[from] Unseen),
    /// The pod cannot be read.
    #[error("the pod cannot be read")]
    Pod(#[from] InvalidPod),
    /// The decision itself failed.
    #[error("the decision panicked")]
    Panic,
}

/// The decision of [`hardening_engine`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine;

/// Room for the patch of a pod with a few containers.
const PATCH_CAPACITY: usize = 2048;

impl Decide for Engine {
    fn decide(
        &self,
        policies: &PolicySet,
        namespace: &str,
        question: Question<'_>,
    ) -> Result<Decision, Undecided> {
        let pod = match question {
            Question::NewPod { object } => Pod::from_json(object)?,
            Question::NewEphemeralContainers { object, old_object } => {
                Pod::with_new_ephemeral_containers(object, old_object)?
            }
            Question::None => return Ok(Decision::default()),
        };
        let matching = policies.matching(namespace, &pod)?;
        let plan = plan(&matching, &pod);
        let mut patch = Vec::new();
        if !plan.is_empty() {
            patch.reserve(PATCH_CAPACITY);
            plan.write_patch(&mut patch);
        }
        Ok(Decision {
            patch,
            audit_annotations: plan.audit_annotations(),
            warning: plan.warning(),
            filled: plan.fills.iter().map(|fill| fill.field).collect(),
            audited: plan.audited.iter().map(|fill| fill.field).collect(),
            withheld: plan
                .withheld
                .iter()
                .map(|withheld| withheld.guard)
                .collect(),
        })
    }
}

impl Undecided {
    /// What the API server is told.
    pub(crate) fn into_refusal(self, waited: std::time::Duration) -> Refusal {
        match self {
            Self::Unseen(unseen) => Refusal::Unseen { unseen, waited },
            Self::Pod(pod) => Refusal::Pod(pod),
            Self::Panic => Refusal::Panic,
        }
    }
}
