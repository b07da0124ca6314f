//! Every field of a pod's spec and of the security contexts in it is either offered, or stands here with the
//! reason why not. So a field that comes with a new Kubernetes is decided upon before that version is supported.

use std::collections::BTreeSet;

use hardening_engine::FIELDS;
use serde_json::Value;

use crate::support::api::Api;
use crate::support::tell::tell;
use crate::support::version::{acts_as, is_newest, not_run};

/// Fields that are not offered, and why.
struct NotOffered {
    schema: &'static str,
    fields: &'static [&'static str],
    why: &'static str,
}

const NOT_OFFERED: [NotOffered; 14] = [
    NotOffered {
        schema: "PodSpec",
        fields: &[
            "containers",
            "initContainers",
            "ephemeralContainers",
            "securityContext",
        ],
        why: "what stands in it is offered field by field",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &["hostNetwork", "hostPID", "hostIPC"],
        why: "left out means false already, and true is never a default that hardens",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &[
            "enableServiceLinks",
            "restartPolicy",
            "dnsPolicy",
            "preemptionPolicy",
            "schedulerName",
            "terminationGracePeriodSeconds",
        ],
        why: "the API server fills it in before it asks, so that nobody can tell whether the author did",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &["serviceAccount", "serviceAccountName", "imagePullSecrets"],
        why: "whose rights a pod has is for its author to say; the API server fills it in before it asks",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &["volumes"],
        why: "a pod's data; writablePaths brings the volumes that it needs",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &[
            "affinity",
            "nodeName",
            "nodeSelector",
            "os",
            "overhead",
            "priority",
            "priorityClassName",
            "schedulingGates",
            "schedulingGroup",
            "tolerations",
            "topologySpreadConstraints",
            "workloadRef",
        ],
        why: "where and when a pod runs, not what it may do there",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &[
            "activeDeadlineSeconds",
            "readinessGates",
            "resourceClaims",
            "resources",
        ],
        why: "how much a pod gets and for how long: for LimitRanges and ResourceQuotas",
    },
    NotOffered {
        schema: "PodSpec",
        fields: &[
            "dnsConfig",
            "hostAliases",
            "hostname",
            "hostnameOverride",
            "setHostnameAsFQDN",
            "subdomain",
        ],
        why: "names, not rights",
    },
    NotOffered {
        schema: "PodSecurityContext",
        fields: &["windowsOptions"],
        why: "Windows only; what is offered is for Linux or for both",
    },
    NotOffered {
        schema: "SecurityContext",
        fields: &["windowsOptions"],
        why: "Windows only; what is offered is for Linux or for both",
    },
    NotOffered {
        schema: "Container",
        fields: &["securityContext"],
        why: "what stands in it is offered field by field",
    },
    NotOffered {
        schema: "Container",
        fields: &[
            "args",
            "command",
            "env",
            "envFrom",
            "image",
            "imagePullPolicy",
            "name",
            "ports",
            "stdin",
            "stdinOnce",
            "tty",
            "workingDir",
        ],
        why: "what the container runs",
    },
    NotOffered {
        schema: "Container",
        fields: &["volumeDevices", "volumeMounts"],
        why: "the container's data; writablePaths brings the mounts that it needs",
    },
    NotOffered {
        schema: "Container",
        fields: &[
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "resizePolicy",
            "resources",
            "restartPolicy",
            "restartPolicyRules",
            "startupProbe",
            "terminationMessagePath",
            "terminationMessagePolicy",
        ],
        why: "how the container is started, watched and limited, not what it may do",
    },
];

/// Fields that a supported version has, and the newest no longer.
const GONE: [(&str, &str); 1] = [
    ("PodSpec", "workloadRef"), // in 1.35 alone; schedulingGroup took its place
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_field_of_an_api_server_is_offered_or_has_a_reason() {
    let api = Api::admin().await;
    let version = acts_as(&api).await;
    let openapi = api.get("/openapi/v3/api/v1").await.unwrap();
    let mut count = 0;
    for schema in [
        "PodSpec",
        "PodSecurityContext",
        "SecurityContext",
        "Container",
    ] {
        let served = served(&openapi, schema);
        let (offered, not_offered) = (offered(schema), not_offered(schema));
        let both: Vec<_> = offered.intersection(&not_offered).collect();
        assert!(both.is_empty(), "{schema}: offered, and not: {both:?}");
        let known: BTreeSet<String> = offered.union(&not_offered).cloned().collect();
        let new: Vec<_> = served.difference(&known).collect();
        assert!(
            new.is_empty(),
            "{schema} has fields that nobody has decided upon: {new:?}. Offer each in FIELDS, or give a reason here"
        );
        let absent: Vec<&str> = known.difference(&served).map(String::as_str).collect();
        let is_gone = |field: &&str| GONE.contains(&(schema, *field));
        if is_newest(version) {
            assert!(
                absent.iter().all(is_gone),
                "{schema} has not all of these fields: {absent:?}"
            );
        } else if !absent.is_empty() {
            not_run(version, &format!("{schema} does not have {absent:?}"));
        }
        count += served.len();
    }
    tell(&format!(
        "known fields: {count} of {version}, each offered or not for a reason"
    ));
}

#[test]
fn every_reason_is_said() {
    for NotOffered {
        schema,
        fields,
        why,
    } in &NOT_OFFERED
    {
        assert!(!why.is_empty() && !fields.is_empty(), "{schema}");
    }
}

/// The fields of a schema that the API server serves.
fn served(openapi: &Value, schema: &str) -> BTreeSet<String> {
    let properties =
        &openapi["components"]["schemas"][format!("io.k8s.api.core.v1.{schema}")]["properties"];
    let fields = properties
        .as_object()
        .unwrap_or_else(|| panic!("no schema {schema}"));
    fields.keys().cloned().collect()
}

/// The fields of a schema that the table offers.
fn offered(schema: &str) -> BTreeSet<String> {
    const IN_CONTEXT: &str = "securityContext.";
    let paths = FIELDS.iter().filter_map(|row| match schema {
        "PodSpec" => row.pod.filter(|path| !path.starts_with(IN_CONTEXT)),
        "PodSecurityContext" => row.pod.and_then(|path| path.strip_prefix(IN_CONTEXT)),
        "SecurityContext" => row.container.and_then(|path| path.strip_prefix(IN_CONTEXT)),
        _ => None,
    });
    let first = |path: &str| path.split('.').next().unwrap_or(path).to_owned();
    paths.map(first).collect()
}

fn not_offered(schema: &str) -> BTreeSet<String> {
    let groups = NOT_OFFERED.iter().filter(|group| group.schema == schema);
    groups
        .flat_map(|group| group.fields.iter().map(|field| (*field).to_owned()))
        .collect()
}
