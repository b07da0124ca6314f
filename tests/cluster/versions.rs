//! Which fields an API server keeps, by its version. The table says from which version on; an API server drops a
//! field that it does not keep, without a word. So each is held against the table, as it is and where it acts as
//! the oldest version that it can; and whatever is filled in must be kept.

use hardening_engine::{FIELDS, Field, FieldRow, Guard, KubernetesVersion, Pod, plan};
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::support::api::{Api, bare_namespace};
use crate::support::policies;
use crate::support::tell::tell;
use crate::support::version::acts_as;

const NAMESPACE: &str = "versions";
const RUNTIME_CLASS: &str = "versions";

/// No API server can act as an older version than this.
const OLDEST_ACTED_AS: u32 = 31;
/// How many minor versions back one can act as.
const ACTS_BACK: u32 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_keeps_the_fields_of_its_version_and_no_others() {
    let itself = start(&[]).await;
    let version = check(&itself).await;
    itself.stop().await.unwrap();

    let oldest = version
        .minor()
        .saturating_sub(ACTS_BACK)
        .max(OLDEST_ACTED_AS);
    let older = start(&[format!("--emulated-version=1.{oldest}")]).await;
    assert_eq!(check(&older).await, KubernetesVersion::v1(oldest));
    older.stop().await.unwrap();
}

async fn start(arguments: &[String]) -> ControlPlane {
    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        apiserver_args: arguments.to_vec(),
        ..ControlPlaneOptions::default()
    });
    control_plane.await.unwrap()
}

/// Holds an API server against the table; which version it acts as.
async fn check(control_plane: &ControlPlane) -> KubernetesVersion {
    let api = Api::of(control_plane);
    let version = acts_as(&api).await;
    bare_namespace(&api, NAMESPACE, &json!({})).await;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": RUNTIME_CLASS},
        "handler": "sandbox",
    });
    api.ensure("/apis/node.k8s.io/v1/runtimeclasses", &class)
        .await;

    let (mut kept, mut dropped) = (0, Vec::new());
    for row in &FIELDS {
        let Some(value) = sample(row.field) else {
            continue;
        };
        for path in places(row) {
            let mut pod = plain_pod();
            put(&mut pod, &path, value.clone());
            let stored = stored(&api, &pod).await;
            let is_kept = stored.pointer(&path) == Some(&value);
            assert_eq!(
                is_kept,
                row.is_known_to(Some(version)),
                "whether {version} keeps {path}: {stored:#}"
            );
            kept += usize::from(is_kept);
            dropped.extend((!is_kept).then(|| row.field.name()));
        }
    }
    what_is_filled_in_is_kept(&api, version).await;
    tell(&format!(
        "versions: an API server that acts as {version} keeps fields at {kept} places, and drops {}: {}",
        dropped.len(),
        if dropped.is_empty() {
            "-".to_owned()
        } else {
            dropped.join(", ")
        }
    ));
    version
}

/// One policy for every field that came with some version: what is filled in must be stored, and what is held
/// back is what the API server would drop.
async fn what_is_filled_in_is_kept(api: &Api, version: KubernetesVersion) {
    let mut spec = json!({});
    let came_later = || FIELDS.iter().filter(|row| row.since.is_some());
    for row in came_later() {
        let value = sample(row.field).unwrap();
        for (level, path) in [("pod", row.pod), ("containers", row.container)] {
            if let Some(path) = path {
                put(
                    &mut spec,
                    &format!("/{level}/{}", path.replace('.', "/")),
                    value.clone(),
                );
            }
        }
    }
    let mut set = policies::of_cluster();
    set.insert_namespace(NAMESPACE, &policies::labels(&[]));
    set.set_kubernetes_version(Some(version));
    let policy = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
        "metadata": {"name": "everything"}, "spec": spec,
    });
    policies::insert(&mut set, &[policy]);

    let mut pod = plain_pod();
    let text = pod.to_string();
    let view = Pod::from_json(&text).unwrap();
    let plan = plan(&set.matching(NAMESPACE, &view).unwrap(), &view);
    for row in came_later() {
        let is_filled = plan.fills.iter().any(|fill| fill.field == row.field);
        let held = |guard| {
            plan.withheld
                .iter()
                .any(|held| held.field == row.field && held.guard == guard)
        };
        assert_eq!(
            is_filled,
            row.is_known_to(Some(version)),
            "{version}: {plan:?}"
        );
        assert_eq!(
            is_filled,
            !held(Guard::KubernetesVersion),
            "{version}: {plan:?}"
        );
    }
    json_patch::patch(&mut pod, &plan.to_patch()).unwrap();
    let stored = stored(api, &pod).await;
    for fill in &plan.fills {
        let row = fill.field.row();
        let is_stored = places(row)
            .iter()
            .any(|path| stored.pointer(path).is_some());
        assert!(is_stored, "{version} dropped {}: {stored:#}", fill.path());
    }
}

async fn stored(api: &Api, pod: &Value) -> Value {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All");
    let stored = api.post(&path, pod).await;
    stored.unwrap_or_else(|refusal| panic!("{refusal}\n{pod:#}"))
}

fn plain_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]},
    })
}

/// Where a field stands in [`plain_pod`].
fn places(row: &FieldRow) -> Vec<String> {
    let pod = row
        .pod
        .map(|path| format!("/spec/{}", path.replace('.', "/")));
    let container = row
        .container
        .map(|path| format!("/spec/containers/0/{}", path.replace('.', "/")));
    pod.into_iter().chain(container).collect()
}

/// Puts a value at a place, with the objects around it.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    if object.pointer(parent).is_none() {
        put(object, parent, json!({}));
    }
    object.pointer_mut(parent).unwrap()[name] = value;
}

/// A value that the API server stores as it is; `None`: what is no field of a pod.
fn sample(field: Field) -> Option<Value> {
    Some(match field {
        Field::RunAsUser | Field::RunAsGroup | Field::FsGroup => json!(1000),
        Field::RunAsNonRoot | Field::ReadOnlyRootFilesystem => json!(true),
        Field::FsGroupChangePolicy => json!("OnRootMismatch"),
        Field::SupplementalGroups => json!([1000]),
        Field::SupplementalGroupsPolicy => json!("Strict"),
        Field::SeccompProfile | Field::AppArmorProfile => json!({"type": "RuntimeDefault"}),
        Field::SeLinuxOptions => json!({"level": "s0:c1,c2"}),
        Field::SeLinuxChangePolicy => json!("Recursive"),
        Field::Sysctls => json!([{"name": "net.ipv4.tcp_syncookies", "value": "1"}]),
        Field::HostUsers
        | Field::ShareProcessNamespace
        | Field::AutomountServiceAccountToken
        | Field::AllowPrivilegeEscalation
        | Field::Privileged => json!(false),
        Field::RuntimeClassName => json!(RUNTIME_CLASS),
        Field::ProcMount => json!("Default"),
        Field::CapabilitiesDrop => json!(["ALL"]),
        Field::CapabilitiesAdd => json!(["NET_BIND_SERVICE"]),
        Field::WritablePaths => return None,
    })
}
