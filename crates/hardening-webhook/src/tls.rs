//! TLS: which certificate is served, and how a new one takes its place while the server runs.
//!
//! Certificates in files are looked at on a timer, by content. Watching the files would miss what Kubernetes
//! does to a mounted Secret, which is to swap a symbolic link of a directory above them. A pair that cannot
//! be served, because it is torn or broken or has expired, changes nothing: the last good one stays.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::callers::Callers;
use crate::cert::{
    InvalidCertificate, IssueError, SelfSigned, ServingCertificate, crypto_provider,
};
use crate::health::ReadyCondition;
use crate::metrics::{Metrics, Reload};

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files cannot be served.
    #[error("use the certificate {certificate} with the key {key}")]
    Invalid {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: InvalidCertificate,
    },
    /// What was handed over cannot be served.
    #[error("use the certificate that was handed over")]
    Published(#[source] InvalidCertificate),
    /// No CA could be made in memory.
    #[error("make a CA for {names}")]
    SelfSigned {
        /// The names it was for.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The CA in memory could not issue a certificate.
    #[error("issue a certificate")]
    Issue(#[from] IssueError),
    /// The TLS implementation lacks what it needs.
    #[error("set TLS up")]
    Protocol(#[source] rustls::Error),
}

/// The files that hold a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM, the serving certificate first.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// A certificate with its key, as text, handed over by whoever knows where it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct PemPair {
    /// The chain, the serving certificate first.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// The certificate of the CA that it is issued by, for when it expires; `None` where it is not at hand.
    pub ca: Option<Vec<u8>>,
}

/// The certificate that is served, and where the next one comes from.
#[derive(Debug)]
pub struct Certificates {
    resolver: Arc<CertResolver>,
    /// `None` until there is one: no handshake succeeds before.
    current: Option<ServingCertificate>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Files {
        files: CertificateFiles,
        /// What was looked at last, good or bad.
        seen: Fingerprint,
    },
    Published {
        pairs: watch::Receiver<Option<PemPair>>,
        /// What was looked at last, good or bad.
        seen: Option<Fingerprint>,
    },
    SelfSigned(Box<SelfSigned>),
}

/// Hands the certificate in force to each new connection.
#[derive(Debug)]
pub(crate) struct CertResolver {
    // Every handshake reads it, so it must not be behind a lock.
    current: ArcSwapOption<CertifiedKey>,
}

/// What came of looking for a new certificate.
#[derive(Debug)]
pub enum Refreshed {
    /// There is none.
    Unchanged,
    /// It is in force.
    Replaced,
    /// It cannot be served: the one before it stays in force.
    Kept(TlsError),
}

// === impl Certificates ===

impl Certificates {
    /// Reads the certificate from files. A `ca.crt` beside it, as cert-manager writes it, is read too, for
    /// when it expires.
    ///
    /// # Errors
    ///
    /// Where it cannot be read or cannot be served.
    pub async fn from_files(files: CertificateFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files).await?;
        let current = contents.parse(&files)?;
        let seen = contents.fingerprint();
        Ok(Self::new(Some(current), Source::Files { files, seen }))
    }

    /// Takes certificates from a channel, the first one as well: until it is there, the server is not ready.
    /// One that cannot be served changes nothing, and the end of the channel ends nothing.
    #[must_use]
    pub fn published(pairs: watch::Receiver<Option<PemPair>>) -> Self {
        Self::new(None, Source::Published { pairs, seen: None })
    }

    /// Makes a CA and a certificate in memory, for these DNS names and addresses.
    ///
    /// # Errors
    ///
    /// Where a name cannot stand in a certificate.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let now = OffsetDateTime::now_utc();
        let ca = SelfSigned::new(names, now).map_err(|source| TlsError::SelfSigned {
            names: names.join(", "),
            source,
        })?;
        let current = ca.issue(now)?;
        Ok(Self::new(Some(current), Source::SelfSigned(Box::new(ca))))
    }

    fn new(current: Option<ServingCertificate>, source: Source) -> Self {
        let key = current.as_ref().map(|current| Arc::clone(&current.key));
        let resolver = CertResolver {
            current: ArcSwapOption::new(key),
        };
        Self {
            resolver: Arc::new(resolver),
            current,
            source,
        }
    }

    /// The certificate of the CA in memory, which clients must trust; `None` where the certificate comes from
    /// elsewhere.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        match &self.source {
            Source::SelfSigned(ca) => Some(ca.ca_pem()),
            Source::Files { .. } | Source::Published { .. } => None,
        }
    }

    /// The certificate in force; `None` as long as there was none.
    #[must_use]
    pub fn current(&self) -> Option<&ServingCertificate> {
        self.current.as_ref()
    }

    /// The TLS configuration of a server that always serves the certificate in force, to `callers`; `None`
    /// are all.
    pub(crate) fn server_config(
        &self,
        callers: Option<&Callers>,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?;
        let builder = match callers {
            Some(callers) => builder.with_client_cert_verifier(callers.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_cert_resolver(Arc::clone(&self.resolver) as Arc<dyn ResolvesServerCert>);
        // An API server behind a Service speaks HTTP/1.1, one that was given a URL HTTP/2.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // API servers do not resume sessions; a store of them would be memory and a lock for nothing.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Looks for a new certificate, and puts it in force.
    pub async fn refresh(&mut self) -> Refreshed {
        let now = OffsetDateTime::now_utc();
        let current = self.current.as_ref();
        let next = match &mut self.source {
            Source::SelfSigned(_)
                if current.is_some_and(|current| !SelfSigned::is_due(current, now)) =>
            {
                return Refreshed::Unchanged;
            }
            Source::SelfSigned(ca) => ca.issue(now).map_err(TlsError::from),
            Source::Published { pairs, seen } => {
                let Some(pair) = pairs.borrow().clone() else {
                    return Refreshed::Unchanged;
                };
                let fingerprint = pair.fingerprint();
                if seen.replace(fingerprint) == Some(fingerprint) {
                    return Refreshed::Unchanged;
                }
                let parsed = pair.parse(now.unix_timestamp());
                parsed.map_err(TlsError::Published)
            }
            Source::Files { files, seen } => {
                let contents = Contents::read(files).await;
                let fingerprint = Contents::fingerprint_of(&contents);
                if fingerprint == *seen {
                    return Refreshed::Unchanged;
                }
                *seen = fingerprint;
                contents.and_then(|contents| contents.parse(files))
            }
        };
        match next {
            Ok(next) => {
                self.resolver.current.store(Some(Arc::clone(&next.key)));
                self.current = Some(next);
                Refreshed::Replaced
            }
            Err(error) => Refreshed::Kept(error),
        }
    }

    /// Keeps the certificate current until `stop`.
    pub(crate) async fn keep_current(
        mut self,
        every: Duration,
        metrics: Metrics,
        condition: ReadyCondition,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.publish(&metrics, &condition);
        while stop
            .run_until_cancelled(self.until_next_look(&mut ticks))
            .await
            .is_some()
        {
            match self.refresh().await {
                Refreshed::Unchanged => {}
                Refreshed::Replaced => {
                    metrics.certificate_reload(Reload::Loaded);
                    let current = self.current.as_ref();
                    let expiry = current.map(|current| current.validity.not_after);
                    tracing::info!(expiry, "serving a new certificate");
                }
                Refreshed::Kept(error) => {
                    metrics.certificate_reload(Reload::Refused);
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "keeping the certificate in force: the new one cannot be served"
                    );
                }
            }
            self.publish(&metrics, &condition);
        }
    }

    /// Returns when the time has come, or a certificate is handed over.
    async fn until_next_look(&mut self, ticks: &mut tokio::time::Interval) {
        let handed_over = async {
            if let Source::Published { pairs, .. } = &mut self.source
                && pairs.changed().await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = ticks.tick() => {}
            () = handed_over => {}
        }
    }

    fn publish(&self, metrics: &Metrics, condition: &ReadyCondition) {
        let Some(current) = &self.current else {
            condition.unmet("there is no certificate yet");
            return;
        };
        let ServingCertificate {
            validity,
            ca_validity,
            ..
        } = *current;
        metrics.certificate(validity, ca_validity);
        if validity.not_after > OffsetDateTime::now_utc().unix_timestamp() {
            condition.met();
        } else {
            condition.unmet("the serving certificate has expired");
        }
    }
}

// === impl PemPair ===

impl PemPair {
    fn fingerprint(&self) -> Fingerprint {
        let Self { chain, key, ca } = self;
        Fingerprint::of(&[chain, key, ca.as_deref().unwrap_or_default()])
    }

    fn parse(&self, now: i64) -> Result<ServingCertificate, InvalidCertificate> {
        ServingCertificate::from_pem(&self.chain, &self.key, self.ca.as_deref(), now)
    }
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair").finish_non_exhaustive()
    }
}

// === impl CertResolver ===

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

// === the files ===

struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// Tells whether contents (or why there are none) have changed, without keeping a private key in memory
/// once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u8; 32]);

/// How many swaps may come in the midst of reading before it is left to the next look.
const SWAPS_IN_A_ROW: usize = 3;

impl Contents {
    async fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let mut contents = Self::read_once(files).await?;
        // All files are swapped at once, but read one by one: if the first is still the same after the
        // last was read, they belong together.
        for _ in 0..SWAPS_IN_A_ROW {
            let again = Self::read_once(files).await?;
            if again.certificate == contents.certificate {
                break;
            }
            contents = again;
        }
        Ok(contents)
    }

    async fn read_once(files: &CertificateFiles) -> Result<Self, TlsError> {
        let certificate = read(&files.certificate).await?;
        let key = read(&files.key).await?;
        let ca = match files.certificate.parent() {
            Some(directory) => read(&directory.join("ca.crt")).await.ok(),
            None => None,
        };
        Ok(Self {
            certificate,
            key,
            ca,
        })
    }

    fn parse(&self, files: &CertificateFiles) -> Result<ServingCertificate, TlsError> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        ServingCertificate::from_pem(&self.certificate, &self.key, self.ca.as_deref(), now).map_err(
            |source| TlsError::Invalid {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
                source,
            },
        )
    }

    fn fingerprint(&self) -> Fingerprint {
        let Self {
            certificate,
            key,
            ca,
        } = self;
        Fingerprint::of(&[certificate, key, ca.as_deref().unwrap_or_default()])
    }

    fn fingerprint_of(read: &Result<Self, TlsError>) -> Fingerprint {
        match read {
            Ok(contents) => contents.fingerprint(),
            Err(error) => Fingerprint::of(&[error.to_string().as_bytes()]),
        }
    }
}

impl Fingerprint {
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a certificate in memory that was issued so many days ago.
    async fn check(days: i64, replaced: bool) {
        let then = OffsetDateTime::now_utc() - time::Duration::days(days);
        let ca = SelfSigned::new(&["localhost".to_owned()], then).unwrap();
        let issued = ca.issue(then).unwrap();
        let (old, ca_pem) = (issued.validity.not_after, ca.ca_pem());
        let mut certificates = Certificates::new(Some(issued), Source::SelfSigned(Box::new(ca)));
        let refreshed = certificates.refresh().await;
        assert_eq!(
            matches!(refreshed, Refreshed::Replaced),
            replaced,
            "{days}: {refreshed:?}"
        );
        let expiry = certificates.current().unwrap().validity.not_after;
        assert_eq!(expiry > old, replaced, "{days}");
        // Clients that trust the CA need not be told.
        assert_eq!(certificates.ca_pem(), Some(ca_pem));
        let served = certificates.resolver.current.load_full().unwrap();
        let current = certificates.current().unwrap();
        assert!(Arc::ptr_eq(&served, &current.key), "{days}");
        assert!(
            matches!(certificates.refresh().await, Refreshed::Unchanged),
            "{days}"
        );
    }

    #[tokio::test]
    async fn one_made_in_memory_is_renewed_when_two_thirds_of_its_life_are_over() {
        check(0, false).await;
        check(59, false).await;
        check(61, true).await;
        check(89, true).await;
    }
}
