//! A review of a new pod, which nearly all are, as API servers write it: all that stands around the pod is always the
//! same, and in the same order, so that it need only be compared.
//!
//! The order is that of the members of Kubernetes' Go types, `AdmissionReview` and `AdmissionRequest` in
//! `k8s.io/api/admission/v1`. A review that is written otherwise is for the reader of any review.

use hardening_engine::Pod;

use crate::envelope::{Object, is_dns_label, is_uid};
use crate::json::{self, Reader, Unusual};
use crate::managed_fields;

/// What such a review says.
pub(crate) struct NewPod<'a> {
    pub(crate) uid: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) pod: Box<Pod<'a>>,
    pub(crate) dry_run: bool,
}

const BEFORE_UID: &str =
    r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"#;
const BEFORE_NAME: &str = concat!(
    r#","kind":{"group":"","version":"v1","kind":"Pod"}"#,
    r#","resource":{"group":"","version":"v1","resource":"pods"}"#,
    r#","requestKind":{"group":"","version":"v1","kind":"Pod"}"#,
    r#","requestResource":{"group":"","version":"v1","resource":"pods"}"#,
);
const NAME: &str = r#","name":"#;
const NAMESPACE: &str = r#","namespace":"#;
const BEFORE_USER: &str = r#","operation":"CREATE","userInfo":"#;
const OBJECT: &str = r#","object":"#;
const BEFORE_DRY_RUN: &str = r#","oldObject":null,"dryRun":"#;
const OPTIONS: &str = r#","options":"#;
const END: &str = "}}";

/// `None`: it is not one, or not written as usual.
pub(crate) fn read(text: &str) -> Option<NewPod<'_>> {
    let managed_fields = managed_fields::find(text);
    let new = json::read(text, managed_fields, members)?;
    (is_uid(new.uid) && is_dns_label(new.namespace)).then_some(new)
}

fn members<'a>(reader: &mut Reader<'_, 'a>) -> Result<NewPod<'a>, Unusual> {
    reader.pass(BEFORE_UID)?;
    let uid = reader.string()?;
    reader.pass(BEFORE_NAME)?;
    // A pod that a controller creates mostly has none yet.
    if reader.pass(NAME).is_ok() {
        reader.skip()?;
    }
    reader.pass(NAMESPACE)?;
    let namespace = reader.string()?;
    reader.pass(BEFORE_USER)?;
    reader.skip()?;
    reader.pass(OBJECT)?;
    let Object(pod) = reader.value()?;
    reader.pass(BEFORE_DRY_RUN)?;
    let dry_run = reader.value()?;
    reader.pass(OPTIONS)?;
    reader.skip()?;
    reader.pass(END)?;
    Ok(NewPod {
        uid,
        namespace,
        pod,
        dry_run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../tests/webhook/reviews/create-deployment-pod.json");

    fn is_read(text: &str) -> bool {
        read(text).is_some()
    }

    #[test]
    fn what_an_api_server_sends_is_read() {
        let new = read(RECORDED).unwrap();
        assert_eq!(new.uid, "5f1c0a52-3c1b-4a83-9d0e-1e8f5b1f7a10");
        assert_eq!((new.namespace, new.dry_run), ("shop", false));
        assert_eq!(new.pod.label("app"), Some("cart"));
        let named = include_str!("../tests/webhook/reviews/create-dry-run-root-pod.json");
        let new = read(named).unwrap();
        assert_eq!((new.namespace, new.dry_run), ("staging", true));
        // What nobody asks for may be anything.
        let options = r#"{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}"#;
        assert!(RECORDED.contains(options));
        assert!(is_read(&RECORDED.replacen(options, "null", 1)));
    }

    #[test]
    fn what_is_not_a_new_pod_or_written_otherwise_is_not() {
        for (written, instead) in [
            ("\"AdmissionReview\"", "\"Review\""),
            ("admission.k8s.io/v1\"", "admission.k8s.io/v1beta1\""),
            ("\"CREATE\"", "\"UPDATE\""),
            ("\"pods\"}", "\"bindings\"}"),
            ("\"kind\":\"Pod\"}", "\"kind\":\"Binding\"}"),
            (
                "\"requestKind\"",
                "\"subResource\":\"eviction\",\"requestKind\"",
            ),
            ("5f1c0a52-3c1b-4a83-9d0e-1e8f5b1f7a10", ""),
            ("5f1c0a52-3c1b-4a83-9d0e-1e8f5b1f7a10", r"\u0061"),
            ("5f1c0a52-3c1b-4a83-9d0e-1e8f5b1f7a10", &"a".repeat(129)),
            (r#""namespace":"shop","#, r#""namespace":"","#),
            (r#""namespace":"shop","#, r#""namespace":"Shop","#),
            (r#""namespace":"shop","#, ""),
            (r#""namespace":"shop","#, r#""namespace":"shop", "#),
            (r#""oldObject":null"#, r#""oldObject":{}"#),
            (r#""dryRun":false"#, r#""dryRun":null"#),
            (r#""dryRun":false,"#, r#""dryRun":false,"uid":"another","#),
            (r#""object":{"#, r#""object":null,"other":{"#),
            (r#""object":{"#, r#""object":["#),
        ] {
            assert!(RECORDED.contains(written), "{written}");
            assert!(
                !is_read(&RECORDED.replacen(written, instead, 1)),
                "{instead}"
            );
        }
        let cut = RECORDED.trim_end();
        assert!(!is_read(cut.strip_suffix('}').unwrap()));
        assert!(!is_read(&format!("{cut}}}")));
    }
}
