//! PodSecurityPolicy's own code against ours, on generated policies and pods.
//!
//! `PSP_PAIRS` says how many pairs, `PSP_SEED` where to begin.

#[cfg(test)]
mod conversion; // what converted policies fill in is what 1.24 stored
#[cfg(test)]
mod figures;
#[cfg(test)]
mod levels; // what 1.24 admitted passes the Pod Security Standard of its PSP
#[cfg(test)]
mod model; // what 1.24 filled in and refused is what the model fills in and refuses
#[cfg(test)]
mod oracle;
