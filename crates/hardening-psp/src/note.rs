//! What could not be carried over exactly, each with its reason and what to do about it.

use std::fmt;

/// A remark about a PSP's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The field of the PSP, as `spec.runAsGroup`.
    pub field: String,
    /// What is not the same, and why.
    pub why: String,
    /// What a person should do.
    pub advice: String,
}

impl Note {
    pub(crate) fn new(
        field: impl Into<String>,
        why: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
            advice: advice.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; to do: {}", self.field, self.why, self.advice)
    }
}
