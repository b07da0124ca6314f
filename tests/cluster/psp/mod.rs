//! What PodSecurityPolicies become, on a real API server.

// The Pod Security Standard that a PSP is as strict as, with Pod Security Admission as the judge.
mod levels;
// What `kubectl harden convert` makes of the examples, as kubectl hands it over.
mod convert;
