//! What is decided about a pod, and by what.

use std::fmt;

use hardening_engine::{Field, Guard, Pod, PolicySet, Unseen, plan};

use crate::refusal::Refused;
use crate::review::Review;

/// Decides what a pod gets. It is a value so that the handler around it can be held to what it promises
/// whatever the decision does.
pub trait Decide: fmt::Debug + Send + Sync + 'static {
    /// Decides from memory alone.
    ///
    /// # Errors
    ///
    /// Where something that matters has not been seen yet.
    fn decide(
        &self,
        policies: &PolicySet,
        namespace: &str,
        pod: &Pod<'_>,
    ) -> Result<Decision, Unseen>;

    /// Reads what is asked, as [`Review::from_json`] does. Only what decides without looking at the pod has
    /// reason to read less of it.
    ///
    /// # Errors
    ///
    /// Where the body is not a review of a pod.
    fn read<'b>(&self, body: &'b [u8]) -> Result<Review<'b>, Refused> {
        Review::from_json(body)
    }
}

/// What a pod gets.
#[derive(Debug, Default)]
pub struct Decision {
    /// The patch, an RFC 6902 document; empty where nothing is filled in.
    pub patch: Vec<u8>,
    /// For the API server's audit log; the values are JSON strings.
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

/// The decision of [`hardening_engine`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine;

impl Decide for Engine {
    fn decide(
        &self,
        policies: &PolicySet,
        namespace: &str,
        pod: &Pod<'_>,
    ) -> Result<Decision, Unseen> {
        let matching = policies.matching(namespace, pod)?;
        let plan = plan(&matching, pod);
        let records = plan.records();
        let mut patch = Vec::new();
        if !plan.is_empty() {
            plan.write_patch(&records, &mut patch);
        }
        Ok(Decision {
            patch,
            audit_annotations: records.into_audit_annotations(),
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
