//! Seccomp profiles: in 1.24 still text in annotations, with a field beside it.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::policy::ANY;

/// Annotation of a pod: its seccomp profile.
pub(crate) const POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// Annotations of a pod: a container's seccomp profile; the container's name follows.
pub(crate) const CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

const RUNTIME_DEFAULT: &str = "runtime/default";
const DOCKER_DEFAULT: &str = "docker/default";
pub(crate) const UNCONFINED: &str = "unconfined";
const LOCALHOST: &str = "localhost/";

/// A pod's or container's `seccompProfile`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Profile {
    #[serde(rename = "type")]
    type_: Option<String>,
    localhost_profile: Option<String>,
}

impl Profile {
    /// The annotation that says the same; empty where none does.
    pub(crate) fn annotation(&self) -> String {
        match (self.type_.as_deref(), &self.localhost_profile) {
            (Some("Unconfined"), _) => UNCONFINED.to_owned(),
            (Some("RuntimeDefault"), _) => RUNTIME_DEFAULT.to_owned(),
            (Some("Localhost"), Some(profile)) => format!("{LOCALHOST}{profile}"),
            _ => String::new(),
        }
    }
}

/// The `seccompProfile` that says the same as an annotation, if one does.
pub(crate) fn field(annotation: &str) -> Option<Value> {
    match annotation {
        UNCONFINED => Some(json!({"type": "Unconfined"})),
        RUNTIME_DEFAULT | DOCKER_DEFAULT => Some(json!({"type": "RuntimeDefault"})),
        other => match other.strip_prefix(LOCALHOST) {
            Some(profile) if !profile.is_empty() => {
                Some(json!({"type": "Localhost", "localhostProfile": profile}))
            }
            _ => None,
        },
    }
}

/// What a PSP says about seccomp.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Empty: none.
    pub(crate) default: String,
    pub(crate) any: bool,
    /// Without `*`; with both names of the runtime's default where one is in it.
    pub(crate) allowed: BTreeSet<String>,
}

impl Rule {
    /// From the PSP's annotations.
    pub(crate) fn new(default: Option<&str>, allowed: Option<&str>) -> Self {
        let listed = allowed.into_iter().flat_map(|list| list.split(','));
        let mut rule = Self {
            default: default.unwrap_or_default().to_owned(),
            any: false,
            allowed: BTreeSet::new(),
        };
        for profile in listed {
            match profile {
                ANY => rule.any = true,
                RUNTIME_DEFAULT | DOCKER_DEFAULT => rule
                    .allowed
                    .extend([RUNTIME_DEFAULT, DOCKER_DEFAULT].map(str::to_owned)),
                other => {
                    rule.allowed.insert(other.to_owned());
                }
            }
        }
        rule
    }

    /// Whether a profile is allowed; empty: no profile.
    pub(crate) fn allows(&self, profile: &str) -> bool {
        self.any
            || self.allowed.contains(profile)
            || (self.allowed.is_empty() && profile.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_list_nothing_may_be_set_and_with_one_something_must_be() {
        for (allowed, profile, expected) in [
            (None, "", true),
            (None, "runtime/default", false),
            (Some("*"), "", true),
            (Some("*"), "localhost/x", true),
            (Some("*,x"), "y", true),
            (Some("runtime/default"), "docker/default", true),
            (Some("docker/default"), "runtime/default", true),
            (Some("docker/default"), "", false),
            (Some(""), "", true),
            (Some(""), "unconfined", false),
            (Some("a, b"), "b", false),
        ] {
            let rule = Rule::new(None, allowed);
            assert_eq!(rule.allows(profile), expected, "{allowed:?} {profile:?}");
        }
    }
}
