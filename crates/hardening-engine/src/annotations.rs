//! The annotations of a pod that matter to a plan.

use crate::json::Text;
use crate::record::{FILLED, WITHHELD};

/// The annotations that matter, and how much room all of them take.
#[derive(Debug, Default)]
pub(crate) struct Annotations<'a> {
    /// Keys and values of all annotations, in bytes.
    pub(crate) bytes: usize,
    pub(crate) mirror: bool,
    pub(crate) filled: Option<Text<'a>>,
    pub(crate) withheld: Option<Text<'a>>,
    /// Legacy profiles: the key's prefix that names the kind, the container's name (empty: the pod), and
    /// the profile.
    pub(crate) legacy: Vec<(LegacyProfile, Text<'a>, Text<'a>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LegacyProfile {
    AppArmor,
    Seccomp,
}

// === impl Annotations ===

const MIRROR: &str = "kubernetes.io/config.mirror";
pub(crate) const APP_ARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";

impl<'a> Annotations<'a> {
    pub(crate) fn note(&mut self, key: &str, value: Text<'a>) {
        self.bytes += key.len() + value.as_str().len();
        if key == MIRROR {
            self.mirror = true;
        } else if key == FILLED {
            self.filled = Some(value);
        } else if key == WITHHELD {
            self.withheld = Some(value);
        } else if key == SECCOMP_POD {
            self.legacy
                .push((LegacyProfile::Seccomp, Text::default(), value));
        } else if let Some(name) = key.strip_prefix(APP_ARMOR_CONTAINER) {
            self.legacy
                .push((LegacyProfile::AppArmor, Text::from(name.to_owned()), value));
        } else if let Some(name) = key.strip_prefix(SECCOMP_CONTAINER) {
            self.legacy
                .push((LegacyProfile::Seccomp, Text::from(name.to_owned()), value));
        }
    }
}
