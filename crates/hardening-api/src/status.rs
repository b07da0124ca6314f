//! What the controller says about a policy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of both kinds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The `metadata.generation` that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Accepted`: False with a reason, and a message that names the field, where the policy could not
    /// be used. `Overlapping`: True where another policy that can select the same pods sets a field to
    /// another value; the message names both policies, the field, and which one wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// The types of the conditions in a [`PolicyStatus`].
pub mod condition {
    /// Whether the policy, as it is now, can be used.
    pub const ACCEPTED: &str = "Accepted";
    /// Whether another policy that can be for the same pods gives a field another value.
    pub const OVERLAPPING: &str = "Overlapping";
    /// Whether the policy is also carried out by the API server itself, as a MutatingAdmissionPolicy.
    pub const COMPILED: &str = "Compiled";
}

/// The reasons of the conditions.
pub mod reason {
    /// `Accepted` is True: it is in use.
    pub const VALID: &str = "Valid";
    /// `Accepted` is False: the message names the fields that are wrong.
    pub const INVALID: &str = "Invalid";
    /// `Overlapping` is True: the message names the other policy, the field, and which of the two wins.
    pub const DIFFERENT_VALUES: &str = "DifferentValues";
    /// `Overlapping` is False.
    pub const NO_DIFFERENCE: &str = "NoDifference";
    /// `Overlapping` is Unknown: what the policy gives is not known while it is not accepted.
    pub const NOT_ACCEPTED: &str = "NotAccepted";
    /// `Compiled` is True: the API server has it.
    pub const APPLIED: &str = "Applied";
    /// `Compiled` is False: a policy in mode Audit fills in nothing.
    pub const AUDIT: &str = "Audit";
    /// `Compiled` is False: the policy is for namespaces only whose pods are never touched.
    pub const EXCLUDED: &str = "Excluded";
    /// `Compiled` is False: it would be more than the API server takes; the message says where.
    pub const TOO_LARGE: &str = "TooLarge";
    /// `Compiled` is False, or Unknown where nothing could be looked at: the API server's answer is in the message.
    pub const NOT_APPLIED: &str = "NotApplied";
}
