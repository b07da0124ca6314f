//! A certification authority (CA): made, read, and the certificates that it issues.
//!
//! Nothing here knows where it is kept, or what time it is. What is read is judged by rustls, in the way in
//! which a client would.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use time::error::ComponentRange;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::validity::Validity;

/// Why a certificate is of no use, or none could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate is not PEM.
    #[error("the certificate is not PEM")]
    Pem(#[source] pem::Error),
    /// A certificate is not X.509.
    #[error("the certificate is not X.509")]
    X509(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// A certificate of a CA was expected.
    #[error("the certificate is not that of a CA")]
    NotCa,
    /// A key cannot be read.
    #[error("the private key cannot be read")]
    Key(#[source] rcgen::Error),
    /// A key cannot be read, or belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// A certificate was not issued by the CA in force, or has expired.
    #[error("the certificate is not one that the CA vouches for now")]
    Untrusted(#[source] rustls::Error),
    /// A certificate is not for the name by which the webhook is called.
    #[error("the certificate is not for {name}")]
    Name {
        /// The name.
        name: String,
        /// How it differs.
        source: rustls::Error,
    },
    /// No certificate can be for this name.
    #[error("{0:?} is neither a DNS name nor an address")]
    BadName(String),
    /// A certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A certificate would hold beyond the end of time.
    #[error("make a certificate that holds so long")]
    Time(#[from] ComponentRange),
}

/// The certificate of a CA: what clients trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CaCertificate {
    pub(super) der: CertificateDer<'static>,
    pub(super) validity: Validity,
}

/// A CA: its certificate and its key.
pub(super) struct Authority {
    pub(super) certificate: CaCertificate,
    // The key belongs to the certificate.
    key: KeyPair,
}

/// A serving certificate with its key, as it stands in a Secret: not looked at yet.
#[derive(Clone, PartialEq, Eq)]
pub struct ServingPair {
    /// The chain in PEM, the serving certificate first.
    pub chain: Vec<u8>,
    /// Its private key in PEM.
    pub key: Vec<u8>,
    /// The certificate of the CA that it is issued by, in PEM; `None` where that is not known.
    pub ca: Option<Vec<u8>>,
}

// === impl CaCertificate ===

impl CaCertificate {
    /// Reads the certificate of a CA.
    pub(super) fn from_der(der: CertificateDer<'static>) -> Result<Self, CertificateError> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(CertificateError::X509)?;
        if !parsed.is_ca() {
            return Err(CertificateError::NotCa);
        }
        let validity = validity_of(&parsed);
        Ok(Self { der, validity })
    }

    /// Reads the first certificate of a PEM, which must be that of a CA.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        Self::from_der(CertificateDer::from_pem_slice(pem).map_err(CertificateError::Pem)?)
    }

    pub(super) fn to_pem(&self) -> String {
        to_pem(&self.der)
    }
}

fn validity_of(parsed: &X509Certificate<'_>) -> Validity {
    let x509_parser::prelude::Validity {
        not_before,
        not_after,
    } = parsed.validity();
    Validity {
        not_before: not_before.timestamp(),
        not_after: not_after.timestamp(),
    }
}

// === impl Authority ===

impl Authority {
    /// Makes a CA that is valid from `now` for `lifetime`.
    ///
    /// # Errors
    ///
    /// Where the machine has no randomness, or the lifetime ends beyond what dates can say.
    pub(super) fn make(now: i64, lifetime: Duration) -> Result<Self, CertificateError> {
        let validity = Validity::made_at(now, lifetime);
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("pod-hardening CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, validity)?;
        let key = key_pair()?;
        let der = params.self_signed(&key)?.der().clone();
        let certificate = CaCertificate { der, validity };
        Ok(Self { certificate, key })
    }

    /// Reads a CA's certificate and key from PEM.
    ///
    /// # Errors
    ///
    /// Where they cannot be read, or do not belong together.
    pub(super) fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let certificate = CaCertificate::from_pem(certificate)?;
        let key = str::from_utf8(key).map_err(|_| CertificateError::OtherKey)?;
        let key = KeyPair::from_pem(key).map_err(CertificateError::Key)?;
        let (_, parsed) =
            X509Certificate::from_der(&certificate.der).map_err(CertificateError::X509)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self { certificate, key })
    }

    /// Its private key, in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Issues a serving certificate for these DNS names and addresses. It does not outlive the CA.
    ///
    /// # Errors
    ///
    /// Where a name cannot stand in a certificate, or the machine has no randomness.
    pub(super) fn issue(
        &self,
        names: &[String],
        now: i64,
        lifetime: Duration,
    ) -> Result<ServingPair, CertificateError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("pod-hardening webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let validity = Validity::made_at(now, lifetime).within(self.certificate.validity);
        set_validity(&mut params, validity)?;
        let key = key_pair()?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate.der, &self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(ServingPair {
            chain: to_pem(certificate.der()).into_bytes(),
            key: key.serialize_pem().into_bytes(),
            ca: Some(self.certificate.to_pem().into_bytes()),
        })
    }

    /// Whether clients that trust this CA accept a pair at `now`, by any of these names; and until when.
    ///
    /// # Errors
    ///
    /// Why they would not.
    pub(super) fn vouches_for(
        &self,
        pair: &ServingPair,
        names: &[String],
        now: i64,
    ) -> Result<Validity, CertificateError> {
        let leaf = pair.leaf()?;
        let parsed = ParsedCertificate::try_from(&leaf).map_err(CertificateError::Untrusted)?;
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.der.clone())
            .map_err(CertificateError::Untrusted)?;
        let provider = crypto_provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let now =
            UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)
            .map_err(CertificateError::Untrusted)?;
        for name in names {
            pair.check_name(name)?;
        }
        pair.validity()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            certificate,
            key: _,
        } = self;
        f.debug_struct("Authority")
            .field("certificate", certificate)
            .finish_non_exhaustive()
    }
}

// === impl ServingPair ===

impl ServingPair {
    /// The serving certificate, once the key is known to belong to it.
    fn leaf(&self) -> Result<CertificateDer<'static>, CertificateError> {
        let leaf = CertificateDer::from_pem_slice(&self.chain).map_err(CertificateError::Pem)?;
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| CertificateError::OtherKey)?;
        CertifiedKey::from_der(vec![leaf.clone()], key, &crypto_provider())
            .map_err(|_| CertificateError::OtherKey)?;
        Ok(leaf)
    }

    /// When it holds.
    ///
    /// # Errors
    ///
    /// Where it cannot be used.
    pub(super) fn validity(&self) -> Result<Validity, CertificateError> {
        let leaf = self.leaf()?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(CertificateError::X509)?;
        Ok(validity_of(&parsed))
    }

    /// Whether it can be read, its key belongs to it, and it is for this name.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub(super) fn check_name(&self, name: &str) -> Result<(), CertificateError> {
        let server_name = server_name(name)?;
        let leaf = self.leaf()?;
        let parsed = ParsedCertificate::try_from(&leaf).map_err(CertificateError::Untrusted)?;
        verify_server_name(&parsed, &server_name).map_err(|source| CertificateError::Name {
            name: name.to_owned(),
            source,
        })
    }
}

impl fmt::Debug for ServingPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingPair").finish_non_exhaustive()
    }
}

/// A name as clients check it.
///
/// # Errors
///
/// Where it is neither a DNS name nor an address.
pub(super) fn server_name(name: &str) -> Result<ServerName<'_>, CertificateError> {
    ServerName::try_from(name).map_err(|_| CertificateError::BadName(name.to_owned()))
}

// === what rcgen and rustls want ===

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), ComponentRange> {
    params.not_before = OffsetDateTime::from_unix_timestamp(validity.not_before)?;
    params.not_after = OffsetDateTime::from_unix_timestamp(validity.not_after)?;
    Ok(())
}

fn key_pair() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Named, so that nothing depends on which one was installed for the process, or when.
fn crypto_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

pub(super) fn to_pem(der: &CertificateDer<'_>) -> String {
    let section = ::pem::Pem::new("CERTIFICATE", der.as_ref());
    let unix = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    ::pem::encode_config(&section, unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HOUR: Duration = Duration::from_secs(3600);
    const NAME: &str = "pod-hardening.system.svc";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_ca_issues_is_accepted_by_whoever_trusts_it() {
        let ca = Authority::make(NOW, 10 * HOUR).unwrap();
        let other = Authority::make(NOW, 10 * HOUR).unwrap();
        let wanted = names(&[NAME, "127.0.0.1"]);
        let pair = ca.issue(&wanted, NOW, HOUR).unwrap();
        let rekeyed = ServingPair {
            key: ca.issue(&wanted, NOW, HOUR).unwrap().key,
            ..pair.clone()
        };
        let half = ServingPair {
            chain: pair.chain[..pair.chain.len() / 2].to_vec(),
            ..pair.clone()
        };
        let validity = ca.vouches_for(&pair, &wanted, NOW).unwrap();
        assert_eq!(validity.not_after, NOW + 3600);
        let hour = 3600;
        let untrusted = "the certificate is not one that the CA vouches for now";
        let other_key = "the private key does not belong to the certificate";
        let cases = [
            ("fewer names", &ca, &pair, &names(&[NAME]), NOW, None),
            (
                "expired",
                &ca,
                &pair,
                &wanted,
                NOW + 2 * hour,
                Some(untrusted),
            ),
            ("another CA's", &other, &pair, &wanted, NOW, Some(untrusted)),
            ("another key", &ca, &rekeyed, &wanted, NOW, Some(other_key)),
            (
                "half of it",
                &ca,
                &half,
                &wanted,
                NOW,
                Some("the certificate is not PEM"),
            ),
            (
                "another name",
                &ca,
                &pair,
                &names(&["other.system.svc"]),
                NOW,
                Some("the certificate is not for other.system.svc"),
            ),
        ];
        for (case, ca, pair, names, now, expected) in cases {
            let error = ca.vouches_for(pair, names, now).err();
            let error = error.map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected, "{case}");
        }
    }

    #[test]
    fn a_ca_is_the_same_after_it_was_kept() {
        let ca = Authority::make(NOW, HOUR).unwrap();
        let kept = Authority::from_pem(ca.certificate.to_pem().as_bytes(), ca.key_pem().as_bytes())
            .unwrap();
        assert_eq!(kept.certificate, ca.certificate);
        let wanted = names(&[NAME]);
        let pair = kept.issue(&wanted, NOW, HOUR).unwrap();
        ca.vouches_for(&pair, &wanted, NOW).unwrap();
    }

    #[test]
    fn what_is_no_ca_is_refused_with_the_reason() {
        let ca = Authority::make(NOW, HOUR).unwrap();
        let other = Authority::make(NOW, HOUR).unwrap();
        let leaf = ca.issue(&names(&[NAME]), NOW, HOUR).unwrap();
        let (pem, key) = (
            ca.certificate.to_pem().into_bytes(),
            ca.key_pem().into_bytes(),
        );
        let other_key = other.key_pem();
        let nonsense = to_pem(&CertificateDer::from_slice(b"nonsense")).into_bytes();
        let cases: &[(&[u8], &[u8], &str)] = &[
            (b"", &key, "the certificate is not PEM"),
            (&nonsense, &key, "the certificate is not X.509"),
            (
                &leaf.chain,
                &leaf.key,
                "the certificate is not that of a CA",
            ),
            (&pem, b"", "the private key cannot be read"),
            (
                &pem,
                b"\xff",
                "the private key does not belong to the certificate",
            ),
            (
                &pem,
                other_key.as_bytes(),
                "the private key does not belong to the certificate",
            ),
        ];
        for (certificate, key, expected) in cases {
            let error = Authority::from_pem(certificate, key).unwrap_err();
            assert_eq!(error.to_string(), *expected);
        }
    }

    #[test]
    fn what_is_printed_for_a_defect_holds_no_key() {
        let ca = Authority::make(NOW, HOUR).unwrap();
        let pair = ca.issue(&names(&[NAME]), NOW, HOUR).unwrap();
        let printed = format!("{ca:?} {pair:?}");
        for key in [ca.key_pem().into_bytes(), pair.key] {
            let key = String::from_utf8(key).unwrap();
            let line = key.lines().nth(1).unwrap();
            assert!(!printed.contains(line));
        }
        assert!(!printed.contains("key: [") && printed.contains("ServingPair"));
    }
}
