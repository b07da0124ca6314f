//! Nothing of what a pod keeps to itself gets out. A program of its own, because it listens to everything that
//! is logged.

#[cfg(test)]
mod leaks;
#[cfg(test)]
#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "../webhook/support.rs"]
mod support;
