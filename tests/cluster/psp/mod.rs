//! What PodSecurityPolicies become, on a real API server.

// The guide, as it is written.
mod guide;
// The ValidatingAdmissionPolicies that deny what PSPs denied, with PSP's own verdicts as the judge.
mod denials;
// The Pod Security Standard that a PSP is as strict as, with Pod Security Admission as the judge.
mod levels;
// What `kubectl harden convert` makes of the examples, as kubectl hands it over.
mod convert;
