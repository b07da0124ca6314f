//! What PodSecurityPolicies become, on a real API server.

// The guide, as it is written.
mod guide;
// The Pod Security Standard that a PSP is as strict as, with Pod Security Admission as the judge.
mod levels;
