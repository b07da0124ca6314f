//! Who may call, where it is not everybody: who shows a certificate of the CA, by one of the names.

use std::path::PathBuf;

use hardening_webhook::Callers;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use time::{Duration, OffsetDateTime};

use crate::support::{Client, PROTOCOLS, Pair, Protocol, Server, Setup, eventually, within};

const UNWELCOME: &str = "podhardening_connection_errors_total{reason=\"client-certificate\"}";

const REFUSED: &str = "podhardening_certificate_reloads_total{result=\"refused\"}";

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = common_names(&[name]);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A client's certificate.
    fn client(&self, name: &str) -> Pair {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, Duration::days(1))
    }

    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose, lifetime: Duration) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_names(&[name]);
        params.extended_key_usages = vec![purpose];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + lifetime;
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

fn common_names(names: &[&str]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for name in names {
        subject.push(DnType::CommonName, *name);
    }
    subject
}

/// The file of a CA, and a server that judges callers by it.
struct Judged {
    folder: tempfile::TempDir,
    server: Server,
}

impl Judged {
    async fn start(ca: &Ca, names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, ca.0.pem()).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let callers = Callers::from_file(file, names).await.unwrap();
        let server = Setup {
            callers: Some(callers),
            ..Setup::new()
        };
        Self {
            folder,
            server: server.start().await,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Swaps the file, so that nobody sees half of it.
    fn put(&self, text: &str) {
        let new = self.file().with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Whether a caller gets an answer. With TLS 1.3 it learns only after the handshake that it does not.
    async fn answers(&self, protocol: Protocol, shown: Option<&Pair>) -> bool {
        let ca = self.server.ca_pem.as_deref().unwrap();
        let connected = Client::connect_as(self.server.address, protocol, ca, shown).await;
        let Ok(mut client) = connected else {
            return false;
        };
        let body = crate::support::recorded("create-deployment-pod");
        within(client.post(body))
            .await
            .is_ok_and(|answer| answer.is_patched())
    }
}

#[tokio::test]
async fn who_shows_no_certificate_that_may_call_is_turned_away() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let server_only = ExtendedKeyUsagePurpose::ServerAuth;
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let cases = [
        ("no certificate", None, [false, false]),
        ("of another CA", Some(other.client("api")), [false, false]),
        (
            "of a server",
            Some(ca.issue("api", server_only, Duration::days(1))),
            [false, false],
        ),
        (
            "expired",
            Some(ca.issue("api", client, -Duration::days(1))),
            [false, false],
        ),
        ("another name", Some(ca.client("api2")), [false, true]),
        ("the name", Some(ca.client("api")), [true, true]),
    ];
    for (by_name, names) in [["api"].as_slice(), &[]].into_iter().enumerate() {
        let judged = Judged::start(&ca, names).await;
        let mut turned_away = 0.0;
        for (case, shown, welcome) in &cases {
            for protocol in PROTOCOLS {
                let answers = judged.answers(protocol, shown.as_ref()).await;
                assert_eq!(answers, welcome[by_name], "{case}, names {names:?}");
                turned_away += f64::from(u8::from(!answers));
            }
        }
        judged.server.until_metric(UNWELCOME, turned_away).await;
        // Whoever probes and scrapes shows nothing.
        assert!(judged.server.page("/readyz").await.status.is_success());
        judged.server.end().await;
    }
}

#[tokio::test]
async fn a_new_ca_counts_without_a_restart_and_a_broken_file_changes_nothing() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let judged = Judged::start(&old, &[]).await;
    let (by_old, by_new) = (old.client("api"), new.client("api"));
    let answers = |shown| judged.answers(Protocol::Http1, Some(shown));

    // Both, as while one takes the other's place.
    judged.put(&(old.0.pem() + &new.0.pem()));
    eventually("the new one is trusted", || answers(&by_new)).await;
    assert!(answers(&by_old).await);

    judged.put(&new.0.pem());
    eventually("the old one is no longer trusted", || async {
        !answers(&by_old).await
    })
    .await;
    for broken in [
        "",
        "no PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let refused = judged.server.metric(REFUSED).await;
        judged.put(broken);
        judged.server.until_metric(REFUSED, refused + 1.0).await;
        assert!(answers(&by_new).await, "{broken}");
    }
    std::fs::remove_file(judged.file()).unwrap();
    judged.server.until_metric(REFUSED, 4.0).await;
    assert!(answers(&by_new).await);
    judged.put(&old.0.pem());
    eventually("the old one is trusted again", || answers(&by_old)).await;
    assert!(!answers(&by_new).await);
    judged.server.end().await;
}

#[tokio::test]
async fn a_file_without_a_ca_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (None, "read "),
        (Some(String::new()), "has no CA to judge certificates by"),
        (
            Some("-----BEGIN CERTIFICATE-----\nno\n".to_owned()),
            "is not PEM",
        ),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
            "has a certificate that cannot be trusted",
        ),
    ];
    for (number, (contents, expected)) in cases.into_iter().enumerate() {
        let file = folder.path().join(number.to_string());
        if let Some(contents) = contents {
            std::fs::write(&file, contents).unwrap();
        }
        let error = Callers::from_file(file.clone(), Vec::new())
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }
}
