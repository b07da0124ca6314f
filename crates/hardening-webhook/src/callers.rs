//! Who may call the webhook: whoever can reach it, or only who shows a certificate of one CA.
//!
//! By default an API server shows nothing, and any pod that reaches the port can ask what a policy would do to
//! a pod that it makes up. Where that is too much, API servers can be given a certificate to show, and
//! everybody else ends with the handshake, before anything of theirs is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::cert::crypto_provider;
use crate::metrics::{Metrics, Reload};

/// Why callers' certificates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not PEM.
    #[error("{path} is not PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate in the file is none that others can be issued by.
    #[error("{path} has a certificate that cannot be trusted")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No certificate is in the file, or the implementation of TLS cannot use those that are.
    #[error("{path} has no CA to judge certificates by")]
    NoCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::server::VerifierBuilderError,
    },
}

/// Who may call: who shows a certificate of a CA, and goes by one of some names.
#[derive(Debug)]
pub struct Callers {
    file: PathBuf,
    /// What was looked at last, good or bad; `None` where it could not be read.
    seen: Option<Vec<u8>>,
    verifier: Arc<CallerVerifier>,
}

/// Judges the certificate that a caller shows, by the CA as it is now.
#[derive(Debug)]
struct CallerVerifier {
    // Every handshake reads it, so it must not be behind a lock.
    current: ArcSwap<ByCa>,
    /// The common names that may call, as Kubernetes takes the common name for the user's. Empty: any.
    names: Vec<String>,
}

#[derive(Debug)]
struct ByCa(Arc<dyn ClientCertVerifier>);

// === impl Callers ===

impl Callers {
    /// Reads the CA, or several, from a file in PEM. With `names`, a caller's certificate must have one of these
    /// as its common name; without, any that the CA has issued will do.
    ///
    /// # Errors
    ///
    /// Where there is no CA in the file.
    pub async fn from_file(file: PathBuf, names: Vec<String>) -> Result<Self, CallersError> {
        let text = read(&file).await?;
        let current = ArcSwap::from_pointee(ByCa::parse(&file, &text)?);
        Ok(Self {
            file,
            seen: Some(text),
            verifier: Arc::new(CallerVerifier { current, names }),
        })
    }

    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier) as _
    }

    /// Looks at the file again and again, until `stop`. A file without a CA changes nothing.
    pub(crate) async fn keep_current(
        mut self,
        every: Duration,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.refresh().await {
                Ok(false) => {}
                Ok(true) => {
                    metrics.certificate_reload(Reload::Loaded);
                    tracing::info!("judging callers by a new CA");
                }
                Err(error) => {
                    metrics.certificate_reload(Reload::Refused);
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "judging callers by the CA as it was");
                }
            }
        }
    }

    /// Whether there is a new CA, which is then in force.
    async fn refresh(&mut self) -> Result<bool, CallersError> {
        let text = match read(&self.file).await {
            Ok(text) => text,
            // Said once.
            Err(_) if self.seen.is_none() => return Ok(false),
            Err(error) => {
                self.seen = None;
                return Err(error);
            }
        };
        if self.seen.as_ref() == Some(&text) {
            return Ok(false);
        }
        let next = ByCa::parse(&self.file, &text);
        self.seen = Some(text);
        self.verifier.current.store(Arc::new(next?));
        Ok(true)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, CallersError> {
    let text = tokio::fs::read(path).await;
    text.map_err(|source| CallersError::Read {
        path: path.to_owned(),
        source,
    })
}

// === impl ByCa ===

impl ByCa {
    fn parse(path: &Path, text: &[u8]) -> Result<Self, CallersError> {
        let path = || path.to_owned();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|source| CallersError::Pem {
                path: path(),
                source,
            })?;
            roots
                .add(certificate)
                .map_err(|source| CallersError::Certificate {
                    path: path(),
                    source,
                })?;
        }
        let provider = Arc::new(crypto_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map(Self)
            .map_err(|source| CallersError::NoCa {
                path: path(),
                source,
            })
    }
}

// === impl CallerVerifier ===

impl ClientCertVerifier for CallerVerifier {
    /// None: a caller that has a certificate shows it, and the CAs may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let ByCa(verifier) = &**self.current.load();
        let verified = verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.names.is_empty() || has_name(end_entity, &self.names) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let ByCa(verifier) = &**self.current.load();
        verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let ByCa(verifier) = &**self.current.load();
        verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let ByCa(verifier) = &**self.current.load();
        verifier.supported_verify_schemes()
    }
}

/// Whether the common name is one of these. Where there are several, as nobody has but who means harm, none
/// counts.
fn has_name(certificate: &CertificateDer<'_>, names: &[String]) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    let mut common_names = parsed.subject().iter_common_name();
    match (common_names.next(), common_names.next()) {
        (Some(name), None) => name
            .as_str()
            .is_ok_and(|name| names.iter().any(|allowed| allowed == name)),
        _ => false,
    }
}
