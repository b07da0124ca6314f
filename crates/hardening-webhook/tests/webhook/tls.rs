//! The serving certificate: from files that are swapped while the server runs, and made in memory.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use hardening_webhook::tls::Refreshed;
use hardening_webhook::{CertificateFiles, Certificates, PemPair};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{Client, PROTOCOLS, Pair, Protocol, Setup, eventually};

/// A CA, and a directory that kubelets would mount a Secret in.
struct Mount {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Mount {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "a CA for tests");
        params.not_before = OffsetDateTime::now_utc() - Duration::days(5);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(20);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            directory: tempfile::tempdir().unwrap(),
            ca,
        }
    }

    fn pair(&self, name: &str, lifetime: Duration) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Puts files in place as a kubelet does: a new directory, and a symbolic link swapped to it.
    fn put(&self, version: &str, files: &[(&str, &str)]) {
        let root = self.directory.path();
        std::fs::create_dir(root.join(version)).unwrap();
        for (name, contents) in files {
            std::fs::write(root.join(version).join(name), contents).unwrap();
            let link = root.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        symlink(version, root.join("..data_tmp")).unwrap();
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    }

    fn put_pair(&self, version: &str, Pair { certificate, key }: &Pair) {
        let ca = self.ca.pem();
        self.put(
            version,
            &[("tls.crt", certificate), ("tls.key", key), ("ca.crt", &ca)],
        );
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> CertificateFiles {
        CertificateFiles {
            certificate: self.file("tls.crt"),
            key: self.file("tls.key"),
        }
    }
}

fn name(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
    parsed
        .subject()
        .iter_common_name()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

const MONTH: Duration = Duration::days(30);

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let mount = Mount::new();
    mount.put_pair("v1", &mount.pair("one", MONTH));
    let certificates = Certificates::from_files(mount.files()).await.unwrap();
    let server = Setup {
        certificates,
        ..Setup::new()
    }
    .start()
    .await;
    let ca = mount.ca.pem();
    let connect = |protocol| Client::connect(server.address, protocol, &ca);
    let served = || async { name(&connect(Protocol::Http1).await.unwrap().certificate) };

    let mut kept = connect(Protocol::Http1).await.unwrap();
    assert_eq!(name(&kept.certificate), "one");
    for (version, next) in [("v2", "two"), ("v3", "three")] {
        mount.put_pair(version, &mount.pair(next, MONTH));
        eventually(next, || async { served().await == next }).await;
        for protocol in PROTOCOLS {
            assert!(
                connect(protocol)
                    .await
                    .unwrap()
                    .create_pod()
                    .await
                    .is_patched()
            );
        }
    }
    // Connections that were open have not noticed.
    assert!(kept.create_pod().await.is_patched());
    let loaded = "podhardening_certificate_reloads_total{result=\"loaded\"}";
    assert_eq!(server.metric(loaded).await, 2.0);

    let (torn, other) = (mount.pair("torn", MONTH), mount.pair("other", MONTH));
    mount.put_pair(
        "v4",
        &Pair {
            key: other.key,
            ..torn
        },
    );
    server
        .until_metric(
            "podhardening_certificate_reloads_total{result=\"refused\"}",
            1.0,
        )
        .await;
    assert_eq!(served().await, "three");
    assert!(server.readiness.is_ready());
    server.end().await;
}

#[tokio::test]
async fn when_it_expires_can_be_seen() {
    let mount = Mount::new();
    mount.put_pair("v1", &mount.pair("one", MONTH));
    let certificates = Certificates::from_files(mount.files()).await.unwrap();
    assert_eq!(certificates.ca_pem(), None);
    let server = Setup {
        certificates,
        ..Setup::new()
    }
    .start()
    .await;
    server.readiness.until_ready().await;
    let now = OffsetDateTime::now_utc();
    for (certificate, kind, from_now) in [
        ("serving", "start", Duration::days(-9)),
        ("serving", "expiry", MONTH),
        ("ca", "start", Duration::days(-5)),
        ("ca", "expiry", Duration::days(20)),
    ] {
        let series = format!(
            "podhardening_certificate_{kind}_timestamp_seconds{{certificate=\"{certificate}\"}}"
        );
        let shown = server.metric(&series).await;
        let expected = (now + from_now).unix_timestamp() as f64;
        assert!(
            (shown - expected).abs() < 60.0,
            "{certificate} {kind}: {shown} {expected}"
        );
    }
    server.end().await;
}

/// A CA that is no file of its own is told of where the chain has it.
#[tokio::test]
async fn when_the_ca_expires_can_be_seen_from_the_chain_too() {
    let mount = Mount::new();
    let pair = mount.pair("one", MONTH);
    let chain = pair.certificate.clone() + &mount.ca.pem();
    mount.put("v1", &[("tls.crt", &chain), ("tls.key", &pair.key)]);
    let server = Setup {
        certificates: Certificates::from_files(mount.files()).await.unwrap(),
        ..Setup::new()
    }
    .start()
    .await;
    server.readiness.until_ready().await;
    let series = "podhardening_certificate_expiry_timestamp_seconds{certificate=\"ca\"}";
    let expected = (OffsetDateTime::now_utc() + Duration::days(20)).unix_timestamp() as f64;
    let shown = server.metric(series).await;
    assert!((shown - expected).abs() < 60.0, "{shown} {expected}");
    server.end().await;
}

#[tokio::test]
async fn what_is_handed_over_is_served_at_once_and_the_last_good_one_stays() {
    let mount = Mount::new();
    let ca = mount.ca.pem();
    let handed = |name: &str| {
        let Pair { certificate, key } = mount.pair(name, MONTH);
        PemPair {
            chain: certificate.into_bytes(),
            key: key.into_bytes(),
            ca: Some(ca.clone().into_bytes()),
        }
    };
    let (sender, pairs) = tokio::sync::watch::channel(None);
    let server = Setup {
        certificates: Certificates::published(pairs),
        ..Setup::new()
    }
    .start()
    .await;
    let connect = || Client::connect(server.address, Protocol::Http1, &ca);
    // Without one it listens, and nobody gets further than that.
    assert!(connect().await.is_err());
    assert!(!server.readiness.is_ready());

    sender.send_replace(Some(handed("one")));
    server.readiness.until_ready().await;
    assert_eq!(name(&connect().await.unwrap().certificate), "one");
    let refused = "podhardening_certificate_reloads_total{result=\"refused\"}";
    let torn = PemPair {
        key: handed("other").key,
        ..handed("torn")
    };
    let bad = [
        torn,
        PemPair {
            chain: Vec::new(),
            ..handed("empty")
        },
    ];
    for (i, bad) in bad.into_iter().enumerate() {
        sender.send_replace(Some(bad));
        server.until_metric(refused, (i + 1) as f64).await;
        assert_eq!(name(&connect().await.unwrap().certificate), "one");
    }
    sender.send_replace(Some(handed("two")));
    eventually("two", || async {
        name(&connect().await.unwrap().certificate) == "two"
    })
    .await;
    // Whoever handed them over may go.
    drop(sender);
    assert!(connect().await.unwrap().create_pod().await.is_patched());
    assert!(server.readiness.is_ready());
    server.end().await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_served_changes_nothing() {
    let mount = Mount::new();
    let good = mount.pair("good", MONTH);
    mount.put_pair("v0", &good);
    let mut certificates = Certificates::from_files(mount.files()).await.unwrap();
    let other = mount.pair("other", MONTH);
    let expired = mount.pair("expired", -Duration::days(1));
    let half = |pem: &str| pem[..pem.len() / 2].to_owned();
    let changed = |certificate: &str, key: &str| Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    let cases = [
        (
            "a key of another certificate",
            changed(&good.certificate, &other.key),
            "the private key does not belong to the certificate",
        ),
        (
            "a certificate of another key",
            changed(&other.certificate, &good.key),
            "the private key does not belong to the certificate",
        ),
        (
            "half a certificate",
            changed(&half(&other.certificate), &other.key),
            "the certificate is not PEM",
        ),
        (
            "half a key",
            changed(&other.certificate, &half(&other.key)),
            "there is no private key in the key's PEM",
        ),
        (
            "no certificate",
            changed("", &other.key),
            "there is no CERTIFICATE section in the certificate's PEM",
        ),
        (
            "no key",
            changed(&other.certificate, ""),
            "there is no private key in the key's PEM",
        ),
        (
            "something else",
            changed(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &other.key,
            ),
            "the certificate is not X.509",
        ),
        (
            "the files swapped",
            changed(&other.key, &other.certificate),
            "there is no CERTIFICATE section in the certificate's PEM",
        ),
        (
            "one that has expired",
            expired,
            "the certificate expired on ",
        ),
    ];
    for (i, (case, pair, message)) in cases.iter().enumerate() {
        mount.put_pair(&format!("bad{i}"), pair);
        let Refreshed::Kept(error) = certificates.refresh().await else {
            panic!("{case}")
        };
        let [certificate, key] =
            ["tls.crt", "tls.key"].map(|file| mount.file(file).display().to_string());
        assert_eq!(
            error.to_string(),
            format!("use the certificate {certificate} with the key {key}"),
            "{case}"
        );
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with(message), "{case}: {cause}");
        // Said once, not every time it is looked at.
        assert!(
            matches!(certificates.refresh().await, Refreshed::Unchanged),
            "{case}"
        );
        assert_eq!(
            name(&certificates.current().unwrap().chain()[0]),
            "good",
            "{case}"
        );
    }

    std::fs::remove_file(mount.file("..data")).unwrap();
    let Refreshed::Kept(error) = certificates.refresh().await else {
        panic!("no files")
    };
    assert_eq!(
        error.to_string(),
        format!("read {}", mount.file("tls.crt").display())
    );

    mount.put_pair("next", &other);
    assert!(matches!(certificates.refresh().await, Refreshed::Replaced));
    assert_eq!(name(&certificates.current().unwrap().chain()[0]), "other");
    // Back to what was refused at first, because it was half of a change.
    mount.put_pair("back", &good);
    assert!(matches!(certificates.refresh().await, Refreshed::Replaced));
}

#[tokio::test]
async fn a_bad_pair_at_the_start_is_an_error_that_names_the_files() {
    let mount = Mount::new();
    let error = Certificates::from_files(mount.files()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("read {}", mount.file("tls.crt").display())
    );
    let pair = mount.pair("one", MONTH);
    mount.put(
        "v1",
        &[
            ("tls.crt", &pair.certificate),
            ("tls.key", &mount.pair("other", MONTH).key),
        ],
    );
    let error = Certificates::from_files(mount.files()).await.unwrap_err();
    assert!(
        error.to_string().contains("tls.crt") && error.to_string().contains("tls.key"),
        "{error}"
    );
}

#[tokio::test]
async fn one_made_in_memory_holds_for_its_names_and_is_valid_already() {
    let names = [
        "localhost",
        "10.1.2.3",
        "pod-hardening.pod-hardening-system.svc",
    ]
    .map(str::to_owned);
    let certificates = Certificates::self_signed(&names).unwrap();
    let leaf = &certificates.current().unwrap().chain()[0];
    let (_, leaf) = X509Certificate::from_der(leaf).unwrap();
    assert_ne!(leaf.subject().to_string(), leaf.issuer().to_string());
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert!(leaf.validity().not_before.timestamp() < now - 1800);
    assert!(leaf.validity().not_after.timestamp() > now + 86_400 * 30);
    let alternative = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(alternative.value.general_names.len(), names.len());

    let ca = certificates.ca_pem().unwrap();
    let server = Setup {
        certificates,
        ..Setup::new()
    }
    .start()
    .await;
    assert_eq!(server.ca_pem.as_deref(), Some(&*ca));
    assert!(
        server
            .connect(Protocol::Http2)
            .await
            .create_pod()
            .await
            .is_patched()
    );
    // Nobody else's CA will do.
    let other = Mount::new().ca.pem();
    assert!(
        Client::connect(server.address, Protocol::Http1, &other)
            .await
            .is_err()
    );
    server.end().await;
}

#[test]
fn a_name_that_cannot_be_is_an_error_that_says_so() {
    let error = Certificates::self_signed(&["köln".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "make a CA for köln");
}
