//! Whom the API servers trust: the CA certificates in `clientConfig.caBundle`.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::authority::CaCertificate;

/// CA certificates, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bundle(Vec<CaCertificate>);

/// How many certificates a bundle holds at the most. More than a few only come together where the CA is lost
/// again and again.
const MOST: usize = 12;

// === impl Bundle ===

impl Bundle {
    /// The CA certificates of a PEM. What else is in it, or cannot be read, is of no use to API servers
    /// either.
    pub(super) fn read(pem: &[u8]) -> Self {
        let mut bundle = Self::default();
        for certificate in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
            if let Ok(certificate) = CaCertificate::from_der(certificate) {
                bundle.add(certificate);
            }
        }
        bundle
    }

    /// What is to be trusted: our own CAs, the one that issued what is being served, and whatever is trusted
    /// already, because a replica may serve a certificate of it. Nothing whose time is over at `now`.
    ///
    /// So the CA of a certificate in use stays trusted even where the Secret with the CA is lost, or where
    /// the certificates came from somebody else before.
    pub(super) fn wanted<'a>(
        own: impl Iterator<Item = &'a CaCertificate>,
        issuer: Option<&'a CaCertificate>,
        present: &Self,
        now: i64,
    ) -> Self {
        let mut wanted = Self::default();
        for certificate in own.chain(issuer) {
            wanted.add(certificate.clone());
        }
        let mut present = present.0.clone();
        present.sort_by_key(|certificate| std::cmp::Reverse(certificate.validity.not_after));
        for certificate in present {
            wanted.add(certificate);
        }
        wanted
            .0
            .retain(|certificate| !certificate.validity.is_over(now));
        wanted.0.truncate(MOST);
        wanted
    }

    fn add(&mut self, certificate: CaCertificate) {
        if !self.holds(&certificate) {
            self.0.push(certificate);
        }
    }

    pub(super) fn holds(&self, certificate: &CaCertificate) -> bool {
        self.0.contains(certificate)
    }

    /// Whether this one is trusted and no other.
    pub(super) fn holds_only(&self, certificate: &CaCertificate) -> bool {
        matches!(&*self.0, [only] if only == certificate)
    }

    /// Whether the same certificates are in both, in any order.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|certificate| other.holds(certificate))
    }

    /// When the first of them ends.
    pub(super) fn first_end(&self) -> Option<i64> {
        self.0
            .iter()
            .map(|certificate| certificate.validity.not_after)
            .min()
    }

    pub(super) fn to_pem(&self) -> String {
        self.0.iter().map(CaCertificate::to_pem).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::authority::Authority;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    /// A CA's certificate that ends after so many seconds.
    fn ca(seconds: u64) -> CaCertificate {
        Authority::make(NOW, Duration::from_secs(seconds))
            .unwrap()
            .certificate
    }

    fn bundle(certificates: &[&CaCertificate]) -> Bundle {
        Bundle(certificates.iter().map(|ca| (*ca).clone()).collect())
    }

    #[test]
    fn what_is_trusted_stays_trusted_until_its_time_is_over() {
        let [own, issuer, lost, over] = [100, 200, 300, 10].map(ca);
        let check = |issuer: Option<&CaCertificate>,
                     present: &[&CaCertificate],
                     expected: &[&CaCertificate]| {
            let wanted = Bundle::wanted([&own].into_iter(), issuer, &bundle(present), NOW + 50);
            assert_eq!(wanted, bundle(expected));
        };
        check(None, &[], &[&own]);
        check(Some(&issuer), &[], &[&own, &issuer]);
        check(Some(&own), &[&own], &[&own]);
        check(Some(&issuer), &[&issuer, &own], &[&own, &issuer]);
        check(None, &[&lost, &own], &[&own, &lost]);
        check(None, &[&over, &lost], &[&own, &lost]);
        check(Some(&over), &[&over], &[&own]);
        // The shortest-lived are the ones that do not fit.
        let many: Vec<CaCertificate> = (0..20).map(|i| ca(1000 + i)).collect();
        let wanted = Bundle::wanted(
            [&own].into_iter(),
            None,
            &bundle(&many.iter().collect::<Vec<_>>()),
            NOW,
        );
        assert_eq!(wanted.0.len(), MOST);
        assert!(wanted.holds(&own) && wanted.holds(&many[19]) && !wanted.holds(&many[0]));
    }

    #[test]
    fn a_bundle_is_read_as_it_was_written_and_garbage_in_it_is_passed_over() {
        let (one, other) = (ca(100), ca(200));
        let both = bundle(&[&one, &other]);
        assert_eq!(Bundle::read(both.to_pem().as_bytes()), both);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let mixed = format!(
            "text\n{garbage}{}{garbage}{}{}",
            one.to_pem(),
            one.to_pem(),
            other.to_pem()
        );
        assert_eq!(Bundle::read(mixed.as_bytes()), both);
        assert_eq!(Bundle::read(b"garbage"), Bundle::default());
        assert!(both.same(&bundle(&[&other, &one])) && !both.same(&bundle(&[&one])));
        assert!(bundle(&[&one]).holds_only(&one) && !both.holds_only(&one));
        assert_eq!(both.first_end(), Some(NOW + 100));
    }
}
