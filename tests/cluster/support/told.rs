//! What the webhook tells the API server's audit log about each pod: all of it, also where nothing is filled in
//! and so nothing is written on the pod.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use test_control_plane::{ControlPlane, ControlPlaneOptions};
use tokio::sync::OnceCell;

use super::api::{Api, until};
use super::crds::install;

/// Policies, or guards, and the paths of fields.
pub(crate) type Record = BTreeMap<String, BTreeSet<String>>;

/// What was decided about one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) filled: Record,
    pub(crate) withheld: Record,
    /// What policies in mode Audit would have filled in.
    pub(crate) audited: Record,
}

/// An audit policy by which an API server logs what its webhooks say of each new pod.
pub(crate) const AUDIT_NEW_PODS: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create]
  resources: [{group: '', resources: [pods]}]
- level: None
";

/// A control plane with our CRDs and an audit log, for all tests that read it.
pub(crate) async fn recording() -> &'static ControlPlane {
    static RECORDING: OnceCell<ControlPlane> = OnceCell::const_new();
    let start = async || {
        let control_plane = ControlPlane::start(ControlPlaneOptions {
            audit_policy: Some(AUDIT_NEW_PODS.to_owned()),
            ..ControlPlaneOptions::default()
        });
        let control_plane = control_plane.await.unwrap();
        install(&Api::of(&control_plane)).await;
        control_plane
    };
    RECORDING.get_or_init(start).await
}

/// What this webhook told about the pods that its user created, by `namespace/name`, as soon as it is there of
/// all of these.
pub(crate) async fn told(webhook: &str, pods: &BTreeSet<String>) -> BTreeMap<String, Told> {
    let path = recording().await.audit_log_path().unwrap();
    until("the audit log has all pods", async || {
        let log = fs::read_to_string(path).unwrap();
        // A line that is being written is no JSON yet.
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_user = events.filter(|event| event["user"]["username"] == webhook);
        let told: BTreeMap<String, Told> = of_user
            .map(|event| (pod(&event), Told::of(&event["annotations"], webhook)))
            .filter(|(pod, _)| pods.contains(pod))
            .collect();
        (told.len() == pods.len()).then_some(told)
    })
    .await
}

fn pod(event: &Value) -> String {
    let part = |name: &str| event["objectRef"][name].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}

impl Told {
    fn of(annotations: &Value, webhook: &str) -> Self {
        let record = |name: &str| {
            let text = annotations[format!("pods.{webhook}.podhardening.dev/{name}")].as_str();
            text.map_or_else(Record::new, |text| serde_json::from_str(text).unwrap())
        };
        Self {
            filled: record("filled"),
            withheld: without_items(&record("withheld")),
            audited: record("audited"),
        }
    }
}

/// The paths of fields where a record has those of items: `spec.securityContext.sysctls[kernel.msgmax]`.
pub(crate) fn without_items(record: &Record) -> Record {
    let field = |path: &String| match path.strip_suffix(']') {
        Some(path) => path.rsplit_once('[').unwrap().0.to_owned(),
        None => path.clone(),
    };
    let fields = record
        .iter()
        .map(|(who, paths)| (who.clone(), paths.iter().map(field).collect()));
    fields.collect()
}
