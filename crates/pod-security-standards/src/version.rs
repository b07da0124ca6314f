//! The version of Kubernetes whose standards are meant.

use std::fmt;
use std::str::FromStr;

/// Whose standards: those of a minor version of Kubernetes, or the latest ones.
///
/// The checks here are those of the API server of Kubernetes 1.36, which knows the standards of all versions
/// up to its own. The latest ones, and those of versions newer than that, are for it the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Kubernetes 1.x.
    Minor(u64),
    /// The newest that is known.
    Latest,
}

/// That a text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither \"latest\" nor \"v1.x\"")]
pub struct InvalidVersion(String);

impl Version {
    /// Whether what came with Kubernetes 1.`minor` is part of it.
    pub(crate) fn has(self, minor: u64) -> bool {
        self >= Self::Minor(minor)
    }

    /// The names that are part of it, of those that came with some minor version each.
    pub(crate) fn known(self, names: &[(&'static str, u64)]) -> Vec<&'static str> {
        let names = names.iter();
        names
            .filter_map(|(name, since)| self.has(*since).then_some(*name))
            .collect()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minor(minor) => write!(f, "v1.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    /// Reads what the API server takes as the value of a namespace's label, and nothing else.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let minor = text.strip_prefix("v1.").and_then(minor);
        minor
            .map(Self::Minor)
            .ok_or_else(|| InvalidVersion(text.to_owned()))
    }
}

fn minor(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    // For Go it is a signed number.
    let number = digits.parse::<i64>().ok()?.unsigned_abs();
    (canonical && only_digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_labels_have_them() {
        for (text, expected) in [
            ("latest", Some(Version::Latest)),
            ("v1.0", Some(Version::Minor(0))),
            ("v1.33", Some(Version::Minor(33))),
            ("v1.100", Some(Version::Minor(100))),
            ("v1.9223372036854775807", Some(Version::Minor(u64::MAX / 2))),
            ("v1.9223372036854775808", None),
            ("v1.033", None),
            ("v1.", None),
            ("v1.+3", None),
            ("v1.-3", None),
            ("v1.33.1", None),
            ("1.33", None),
            ("v2.0", None),
            ("Latest", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
            if let Some(version) = expected {
                assert_eq!(version.to_string(), text);
            }
        }
    }

    #[test]
    fn nothing_is_newer_than_the_latest() {
        assert!(Version::Minor(33) < Version::Minor(34));
        assert!(Version::Minor(u64::MAX) < Version::Latest);
    }
}
