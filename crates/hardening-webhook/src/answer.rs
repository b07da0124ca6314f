//! The AdmissionReview that goes back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What the API server is told, besides that the pod is allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The patch, an RFC 6902 document; empty for none at all.
    pub patch: &'a [u8],
    /// For the API server's audit log, which puts the webhook's name before the keys.
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
            .map(|(key, value)| key.len() + value.len() + value.len() / 4 + 32)
            .sum();
        let size = 256 + uid.len() + annotations + self.patch.len().div_ceil(3) * 4;
        let mut out = String::with_capacity(size);
        out.push_str(
            r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"#,
        );
        push_json_string(&mut out, uid);
        out.push_str(r#","allowed":true"#);
        if !self.patch.is_empty() {
            // The API server wants both or neither.
            out.push_str(r#","patchType":"JSONPatch","patch":""#);
            BASE64.encode_string(self.patch, &mut out);
            out.push('"');
        }
        for (i, (key, value)) in self.audit_annotations.iter().enumerate() {
            out.push_str(if i == 0 {
                r#","auditAnnotations":{"#
            } else {
                ","
            });
            push_json_string(&mut out, key);
            out.push(':');
            push_json_string(&mut out, value);
        }
        if !self.audit_annotations.is_empty() {
            out.push('}');
        }
        if let Some(warning) = self.warning {
            out.push_str(r#","warnings":["#);
            push_json_string(&mut out, warning);
            out.push(']');
        }
        out.push_str("}}");
        out.into_bytes()
    }
}

fn push_json_string(out: &mut String, text: &str) {
    // To the end in any case: so the compiler looks at sixteen bytes at once.
    let special = |byte: u8| byte == b'\\' || byte.is_ascii_control();
    if text.bytes().fold(false, |any, byte| any | special(byte)) {
        // A string always becomes JSON.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
        return;
    }
    out.push('"');
    let mut written = 0;
    for quote in memchr::memchr_iter(b'"', text.as_bytes()) {
        out.extend([text.get(written..quote).unwrap_or_default(), "\\"]);
        written = quote;
    }
    out.extend([text.get(written..).unwrap_or_default(), "\""]);
}
