//! The version of Kubernetes that a cluster's API server has: which fields it keeps.

use std::fmt;
use std::str::FromStr;

/// A minor version of Kubernetes, such as 1.33. Patches add no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion {
    major: u32,
    minor: u32,
}

/// That a text is no version of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version of Kubernetes such as 1.33")]
pub struct InvalidKubernetesVersion(String);

// === impl KubernetesVersion ===

impl KubernetesVersion {
    /// Kubernetes 1.`minor`.
    #[must_use]
    pub const fn v1(minor: u32) -> Self {
        Self { major: 1, minor }
    }

    /// The second number: the 33 of 1.33.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.minor
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for KubernetesVersion {
    type Err = InvalidKubernetesVersion;

    /// Reads `1.33`, and what stands for it elsewhere: `v1.33.2`, and `1.33+` or `1.33.2-gke.1` as
    /// providers write it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidKubernetesVersion(text.to_owned());
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let (major, rest) = numbers.split_once('.').ok_or_else(invalid)?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let (minor, rest) = rest
            .split_at_checked(end.unwrap_or(rest.len()))
            .ok_or_else(invalid)?;
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(major)
            || !is_digits(minor)
            || !(rest.is_empty() || rest.starts_with(['.', '+', '-']))
        {
            return Err(invalid());
        }
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Self { major, minor }),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_kubernetes_and_its_providers_write_them() {
        for (text, expected) in [
            ("1.33", Some("1.33")),
            ("v1.33", Some("1.33")),
            ("v1.33.13", Some("1.33")),
            ("1.33+", Some("1.33")),
            ("v1.33.2-gke.1", Some("1.33")),
            ("1.9", Some("1.9")),
            ("2.0", Some("2.0")),
            ("1", None),
            ("1.", None),
            ("1.x", None),
            ("1.33x", None),
            (".33", None),
            ("+1.33", None),
            ("1.99999999999", None),
            ("latest", None),
            ("", None),
        ] {
            let read = text.parse::<KubernetesVersion>().ok();
            assert_eq!(
                read.map(|version| version.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(KubernetesVersion::v1(9) < KubernetesVersion::v1(33));
        assert!("2.0".parse::<KubernetesVersion>().unwrap() > KubernetesVersion::v1(33));
    }
}
