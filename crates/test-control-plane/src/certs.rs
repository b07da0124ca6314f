//! The certificates of one control plane: an authority, and what it signs.
//!
//! One authority serves for both directions, as kubeadm's `kubernetes-ca` does: clients trust it
//! for the API server, and the API server trusts it for clients. Nothing here outlives the control
//! plane, so nothing is renewed.

use std::net::Ipv4Addr;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use crate::Error;

/// What the API server is called by: from this machine, and from pods, which know an address too.
const SERVER_NAMES: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The certificate authority of one control plane.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A private key with the certificate, or the public key, that goes with it, as PEM.
pub(crate) struct Pair {
    pub(crate) public: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn create() -> Result<Self, Error> {
        let create = || {
            let mut params = params("test-control-plane", None, Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![
                KeyUsagePurpose::KeyCertSign,
                KeyUsagePurpose::DigitalSignature,
            ];
            Ok(Self {
                issuer: CertifiedIssuer::self_signed(params, new_key()?)?,
            })
        };
        create().map_err(|source| Error::Certificate {
            what: "certificate authority",
            source,
        })
    }

    /// The authority's certificate and key.
    pub(crate) fn pair(&self) -> Pair {
        Pair {
            public: self.issuer.pem(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// What the API server presents, which has this address as the Service `kubernetes`.
    pub(crate) fn serving(&self, service: Ipv4Addr) -> Result<Pair, Error> {
        let mut names = SERVER_NAMES.map(str::to_owned).to_vec();
        names.push(service.to_string());
        self.sign(
            "kube-apiserver",
            None,
            names,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
        .map_err(|source| Error::Certificate {
            what: "serving certificate",
            source,
        })
    }

    /// What makes a client that user, and a member of that group.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Pair, Error> {
        self.sign(user, group, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
            .map_err(|source| Error::Certificate {
                what: "client certificate",
                source,
            })
    }

    fn sign(
        &self,
        name: &str,
        organization: Option<&str>,
        alternative_names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<Pair, rcgen::Error> {
        let key = new_key()?;
        let mut params = params(name, organization, alternative_names)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let certificate: Certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            public: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The key that signs ServiceAccount tokens, and its public half.
pub(crate) fn service_account_key() -> Result<Pair, Error> {
    let key = new_key().map_err(|source| Error::Certificate {
        what: "service account key",
        source,
    })?;
    Ok(Pair {
        public: key.public_key_pem(),
        key: key.serialize_pem(),
    })
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn params(
    name: &str,
    organization: Option<&str>,
    alternative_names: Vec<String>,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(alternative_names)?;
    // Never rcgen's default subject: one that equals the authority's makes a certificate look
    // self-signed.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(365);
    Ok(params)
}
