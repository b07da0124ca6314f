//! Whole clusters' PSPs against what 1.24 would have done: generated roles and bindings, each judged again here by
//! RBAC's own rules, pod by pod.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod remarks; // what is said of it
#[cfg(test)]
mod scoping; // which defaults and which PSPs a pod gets
