//! What stands in the two Secrets. One holds the CA, and is read by what issues certificates alone; the other
//! holds the serving certificate, and is read by whatever serves with it.
//!
//! A Secret can be edited by people, and by tools that mean another one. So it is ours only if it is labelled
//! so, and whatever cannot be read in it counts as missing.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authority::{Authority, CaCertificate, CertificateError, ServingPair};

/// The label that makes a Secret ours. Its value says what for.
pub const LABEL: &str = "podhardening.dev/certificate";

/// What a Secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It holds the CA.
    Ca,
    /// It holds the serving certificate.
    Serving,
}

/// The CAs in a Secret, each in its place.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    /// The one that issues. It was trusted by the API servers before it came here.
    pub(super) current: Option<Authority>,
    /// The one that will issue, once the API servers trust it.
    pub(super) next: Option<Authority>,
    /// The one that issued before. Some replica may still serve a certificate of it.
    pub(super) previous: Option<CaCertificate>,
}

/// An entry of a Secret that counts as missing.
#[derive(Debug, thiserror::Error)]
#[error("{entry} cannot be used")]
pub(super) struct Unreadable {
    pub(super) entry: &'static str,
    pub(super) source: CertificateError,
}

/// A Secret of that name is somebody else's.
#[derive(Debug, thiserror::Error)]
#[error(
    "Secret {namespace}/{name} was not made by this program (it lacks the label {LABEL}={value}) and is left as it is: \
     delete it, or name another one"
)]
pub(super) struct Foreign {
    namespace: String,
    name: String,
    value: &'static str,
}

const CA: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: &str = "previous.crt";
const SERVING: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

type Data = BTreeMap<String, ByteString>;

// === impl Purpose ===

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Serving => "serving",
        }
    }

    /// The type of a new Secret. No Secret's type can ever be changed, so these are for good; what is read
    /// and replaced is a Secret of any type.
    fn secret_type(self) -> &'static str {
        match self {
            Self::Ca => "Opaque",
            Self::Serving => "kubernetes.io/tls",
        }
    }

    /// # Errors
    ///
    /// Where the Secret is somebody else's.
    pub(super) fn check(self, secret: &Secret) -> Result<(), Foreign> {
        let labels = secret.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get(LABEL));
        if label.is_some_and(|label| label == self.label()) {
            return Ok(());
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Err(Foreign {
            namespace: text(&secret.metadata.namespace),
            name: text(&secret.metadata.name),
            value: self.label(),
        })
    }

    /// A Secret that is not there yet.
    pub(super) fn new_secret(self, name: &str, data: Data) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(BTreeMap::from([(
                    LABEL.to_owned(),
                    self.label().to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some(self.secret_type().to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}

// === impl Authorities ===

impl Authorities {
    /// What can be read, and what cannot.
    pub(super) fn read(secret: &Secret) -> (Self, Vec<Unreadable>) {
        let entry = |name: &str| secret.data.as_ref().and_then(|data| data.get(name));
        let mut unreadable = Vec::new();
        let mut authority = |[certificate, key]: [&'static str; 2]| {
            let pem = entry(certificate)?;
            let key = entry(key).map_or::<&[u8], _>(b"", |key| &key.0);
            let read = Authority::from_pem(&pem.0, key);
            read.map_err(|source| {
                unreadable.push(Unreadable {
                    entry: certificate,
                    source,
                });
            })
            .ok()
        };
        let (current, next) = (authority(CA), authority(NEXT));
        let previous = entry(PREVIOUS).and_then(|pem| {
            let read = CaCertificate::from_pem(&pem.0);
            read.map_err(|source| {
                unreadable.push(Unreadable {
                    entry: PREVIOUS,
                    source,
                });
            })
            .ok()
        });
        let read = Self {
            current,
            next,
            previous,
        };
        (read, unreadable)
    }

    pub(super) fn data(&self) -> Data {
        let Self {
            current,
            next,
            previous,
        } = self;
        let mut data = Data::new();
        for ([certificate, key], authority) in [(CA, current), (NEXT, next)] {
            if let Some(authority) = authority {
                data.insert(
                    certificate.to_owned(),
                    bytes(authority.certificate.to_pem()),
                );
                data.insert(key.to_owned(), bytes(authority.key_pem()));
            }
        }
        if let Some(previous) = previous {
            data.insert(PREVIOUS.to_owned(), bytes(previous.to_pem()));
        }
        data
    }

    /// The next CA takes its place; the key of the one before is gone for good.
    pub(super) fn promoted(self) -> Self {
        let Self {
            current,
            next,
            previous,
        } = self;
        Self {
            previous: current.map(|current| current.certificate).or(previous),
            current: next,
            next: None,
        }
    }

    /// The certificates of all of them.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CaCertificate> {
        let Self {
            current,
            next,
            previous,
        } = self;
        let with_key = current
            .iter()
            .chain(next)
            .map(|authority| &authority.certificate);
        with_key.chain(previous)
    }
}

fn bytes(text: String) -> ByteString {
    ByteString(text.into_bytes())
}

// === impl ServingPair ===

impl ServingPair {
    /// What stands in a Secret. An entry that is missing is empty.
    pub(super) fn read(secret: &Secret) -> Self {
        let entry = |name: &str| {
            let entry = secret.data.as_ref().and_then(|data| data.get(name));
            entry.map(|entry| entry.0.clone())
        };
        let [chain, key, ca] = SERVING;
        Self {
            chain: entry(chain).unwrap_or_default(),
            key: entry(key).unwrap_or_default(),
            ca: entry(ca),
        }
    }

    pub(super) fn data(self) -> Data {
        let Self { chain, key, ca } = self;
        let entries = SERVING.into_iter().zip([Some(chain), Some(key), ca]);
        entries
            .filter_map(|(name, entry)| Some((name.to_owned(), ByteString(entry?))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn authority() -> Authority {
        Authority::make(NOW, Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let kept = Authorities {
            current: Some(authority()),
            next: Some(authority()),
            previous: Some(authority().certificate),
        };
        let secret = Purpose::Ca.new_secret("a", kept.data());
        let (read, unreadable) = Authorities::read(&secret);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        assert!(read.certificates().eq(kept.certificates()));
        let promoted = read.promoted();
        let [current, next, previous] = [
            kept.next.map(|next| next.certificate),
            None,
            kept.current.map(|current| current.certificate),
        ];
        let certificate = |authority: Option<Authority>| authority.map(|a| a.certificate);
        assert_eq!(certificate(promoted.current), current);
        assert_eq!(certificate(promoted.next), next);
        assert_eq!(promoted.previous, previous);

        let pair = authority().issue(&["a.b.svc".to_owned()], NOW, Duration::from_secs(60));
        let pair = pair.unwrap();
        let secret = Purpose::Serving.new_secret("a", pair.clone().data());
        assert_eq!(ServingPair::read(&secret), pair);
    }

    #[test]
    fn what_cannot_be_read_counts_as_missing_and_harms_nothing_else() {
        let kept = Authorities {
            current: Some(authority()),
            next: Some(authority()),
            previous: Some(authority().certificate),
        };
        for entry in ["ca.crt", "ca.key", "next.crt", "next.key", "previous.crt"] {
            let mut data = kept.data();
            data.insert(entry.to_owned(), ByteString(b"garbage".to_vec()));
            let (read, unreadable) = Authorities::read(&Purpose::Ca.new_secret("a", data));
            let present = [
                read.current.is_some(),
                read.next.is_some(),
                read.previous.is_some(),
            ];
            let of = |name: &str| !entry.starts_with(name);
            assert_eq!(present, [of("ca"), of("next"), of("previous")], "{entry}");
            let [error] = &*unreadable else {
                panic!("{entry}: {unreadable:?}")
            };
            let stem = entry.split('.').next().unwrap();
            assert_eq!(error.to_string(), format!("{stem}.crt cannot be used"));
        }
        let (read, unreadable) = Authorities::read(&Secret::default());
        assert!(read.certificates().next().is_none() && unreadable.is_empty());
        assert_eq!(ServingPair::read(&Secret::default()).chain, b"");
    }

    #[test]
    fn a_secret_is_ours_only_if_it_is_labelled_so() {
        let with_label = |label: Option<(&str, &str)>| {
            let mut secret = Purpose::Ca.new_secret("a", Data::new());
            secret.metadata.namespace = Some("system".to_owned());
            let labels = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
            secret.metadata.labels = Some(labels.into_iter().collect());
            secret
        };
        Purpose::Ca.check(&with_label(Some((LABEL, "ca")))).unwrap();
        for label in [None, Some((LABEL, "serving")), Some(("other", "ca"))] {
            let error = Purpose::Ca.check(&with_label(label)).unwrap_err();
            assert_eq!(
                error.to_string(),
                "Secret system/a was not made by this program (it lacks the label \
                 podhardening.dev/certificate=ca) and is left as it is: delete it, or name another one"
            );
        }
        let unlabelled = Secret::default();
        assert!(Purpose::Serving.check(&unlabelled).is_err());
    }
}
