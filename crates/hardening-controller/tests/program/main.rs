//! The program as its users run it: its exit codes, what it prints, and what it serves.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod crds;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod support;
#[cfg(test)]
#[cfg(feature = "otel")]
mod traces;
