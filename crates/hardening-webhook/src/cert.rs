//! A certificate with its key: read from PEM, checked, or made in memory.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// The certificate file is not PEM.
    #[error("the certificate is not PEM")]
    CertificatePem(#[source] pem::Error),
    /// The certificate file has nothing in it.
    #[error("there is no CERTIFICATE section in the certificate's PEM")]
    NoCertificate,
    /// The key file is not PEM, or has no private key in it.
    #[error("there is no private key in the key's PEM")]
    KeyPem(#[source] pem::Error),
    /// The key is of no use, or belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    Key(#[source] rustls::Error),
    /// The certificate is not X.509.
    #[error("the certificate is not X.509")]
    X509(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    /// The certificate's time is over.
    #[error("the certificate expired on {0}")]
    Expired(ASN1Time),
}

/// A certificate to serve with, and how long it and its CA hold.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) validity: Validity,
    /// That of the CA that it is issued by, where that is known.
    pub(crate) ca_validity: Option<Validity>,
}

/// From when and until when a certificate holds, as Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// A CA in memory, and the certificates it issues: for programs that are not reached through a Service, and
/// for trying things out.
#[derive(Debug)]
pub(crate) struct SelfSigned {
    ca: CertifiedIssuer<'static, KeyPair>,
    ca_validity: Validity,
    names: Vec<String>,
}

// === impl ServingCertificate ===

impl ServingCertificate {
    /// Reads a chain and its key from PEM, and the CA's certificate where it is at hand.
    ///
    /// # Errors
    ///
    /// Where they cannot be read, do not belong together, or have expired at `now`.
    pub fn from_pem(
        chain: &[u8],
        key: &[u8],
        ca: Option<&[u8]>,
        now: i64,
    ) -> Result<Self, InvalidCertificate> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(InvalidCertificate::KeyPem)?;
        // The CA's expiry is only shown: that it cannot be read is no reason not to serve.
        let ca = ca.and_then(|ca| certificates(ca).ok()).unwrap_or_default();
        Self::new(chain, key, &ca, now)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        ca: &[CertificateDer<'static>],
        now: i64,
    ) -> Result<Self, InvalidCertificate> {
        let leaf = chain.first().ok_or(InvalidCertificate::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(InvalidCertificate::X509)?;
        let validity = Validity::of(&parsed);
        if validity.not_after <= now {
            return Err(InvalidCertificate::Expired(parsed.validity().not_after));
        }
        let ca_validity = chain
            .iter()
            .skip(1)
            .chain(ca)
            .filter_map(Validity::of_ca)
            .min_by_key(|validity| validity.not_after);
        let key = CertifiedKey::from_der(chain, key, &crypto_provider())
            .map_err(InvalidCertificate::Key)?;
        Ok(Self {
            key: Arc::new(key),
            validity,
            ca_validity,
        })
    }

    /// The certificates to show to a peer, the serving one first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(InvalidCertificate::CertificatePem)?;
    if certificates.is_empty() {
        return Err(InvalidCertificate::NoCertificate);
    }
    Ok(certificates)
}

// === impl Validity ===

impl Validity {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        }
    }

    /// That of a certificate, if it is a CA's.
    fn of_ca(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        parsed.is_ca().then(|| Self::of(&parsed))
    }
}

/// The one implementation of cryptography in the program. Named wherever one is needed, so that nothing
/// depends on which one was installed for the process, or when.
pub(crate) fn crypto_provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

// === impl SelfSigned ===

/// Nothing renews the CA, so it outlives the process.
const CA_LIFETIME: Duration = Duration::days(3650);
const LIFETIME: Duration = Duration::days(90);
/// Clocks differ.
const BACK_DATED: Duration = Duration::hours(1);

impl SelfSigned {
    /// Makes a CA for a server that is reached by these DNS names and addresses.
    ///
    /// # Errors
    ///
    /// Where a name cannot stand in a certificate.
    pub(crate) fn new(names: &[String], now: OffsetDateTime) -> Result<Self, rcgen::Error> {
        // That the names are good shows here, and not when a certificate is due for renewal.
        CertificateParams::new(names)?;
        let (not_before, not_after) = (now - BACK_DATED, now + CA_LIFETIME);
        let mut params = CertificateParams::default();
        // Some clients take a leaf with its issuer's name for self-signed.
        params.distinguished_name = common_name("pod-hardening in-memory CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = not_before;
        params.not_after = not_after;
        let ca = CertifiedIssuer::self_signed(params, key_pair()?)?;
        Ok(Self {
            ca,
            ca_validity: Validity {
                not_before: not_before.unix_timestamp(),
                not_after: not_after.unix_timestamp(),
            },
            names: names.to_vec(),
        })
    }

    /// The CA's certificate: what clients must trust.
    #[must_use]
    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// Issues a certificate.
    pub(crate) fn issue(&self, now: OffsetDateTime) -> Result<ServingCertificate, IssueError> {
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name = common_name("pod-hardening webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACK_DATED;
        params.not_after = now + LIFETIME;
        let key = key_pair()?;
        let certificate = params.signed_by(&key, &self.ca)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let issued = ServingCertificate::new(
            vec![certificate.der().clone()],
            key.into(),
            &[],
            now.unix_timestamp(),
        )?;
        Ok(ServingCertificate {
            ca_validity: Some(self.ca_validity),
            ..issued
        })
    }

    /// Whether a certificate of ours has less than a third of its life left.
    pub(crate) fn is_due(certificate: &ServingCertificate, now: OffsetDateTime) -> bool {
        certificate.validity.not_after - now.unix_timestamp() < LIFETIME.whole_seconds() / 3
    }
}

/// Why no certificate could be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// It could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// It could not be served.
    #[error("use the certificate just made")]
    Use(#[from] InvalidCertificate),
}

fn key_pair() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}
