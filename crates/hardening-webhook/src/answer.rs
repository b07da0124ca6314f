//! The AdmissionReview that goes back.

use base64_simd::STANDARD as BASE64;
use hardening_engine::write_string;

/// What the API server is told, besides that the pod is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The patch, an RFC 6902 document; empty for none at all.
    pub patch: &'a [u8],
    /// For the API server's audit log, which puts the webhook's name before the keys: names, and their
    /// values as JSON strings.
    pub audit_annotations: &'a [(&'static str, String)],
    /// For the client.
    pub warning: Option<&'a str>,
}

// === impl Answer ===

impl Answer<'_> {
    /// Writes the AdmissionReview that allows the request, in one go and into one buffer.
    #[must_use]
    pub fn to_json(&self, uid: &str) -> Vec<u8> {
        let annotations: usize = self
            .audit_annotations
            .iter()
            .map(|(key, value)| key.len() + value.len() + 8)
            .sum();
        let size = 256 + uid.len() + annotations + self.patch.len().div_ceil(3) * 4;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(
            br#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"#,
        );
        write_string(&mut out, uid);
        out.extend_from_slice(br#","allowed":true"#);
        if !self.patch.is_empty() {
            // The API server wants both or neither.
            out.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
            BASE64.encode_append(self.patch, &mut out);
            out.push(b'"');
        }
        for (i, (key, value)) in self.audit_annotations.iter().enumerate() {
            if i == 0 {
                out.extend_from_slice(br#","auditAnnotations":{"#);
            } else {
                out.push(b',');
            }
            write_string(&mut out, key);
            out.push(b':');
            out.extend_from_slice(value.as_bytes());
        }
        if !self.audit_annotations.is_empty() {
            out.push(b'}');
        }
        if let Some(warning) = self.warning {
            out.extend_from_slice(br#","warnings":["#);
            write_string(&mut out, warning);
            out.push(b']');
        }
        out.extend_from_slice(b"}}");
        out
    }
}
