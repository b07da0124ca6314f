//! The guards at work: whether a default that is about to be filled in must be held back.

pub(crate) mod cel;

use serde_json::json;

use crate::annotations::{APP_ARMOR_CONTAINER, LegacyProfile};
use crate::defaults::{Item, Value};
use crate::field::Field;
use crate::fill::{Candidate, Pass, capability_key, sysctl_key};
use crate::guard::Guard;
use crate::json::Text;
use crate::pod::Container;
use crate::record::ANNOTATIONS_LIMIT;
use crate::state::{At, State, is_mappable};
use crate::token;

/// The guard that holds a single value back, if one does. `inheritors` are the containers that would get
/// a pod-level value because they have none of their own.
pub(crate) fn value(
    pass: &Pass<'_, '_>,
    at: At,
    candidate: &Candidate<'_>,
    inheritors: &[usize],
) -> Option<Guard> {
    let state = &pass.state;
    let default = candidate.default;
    every_field(pass, at, default.field).or_else(|| match (default.field, &default.value) {
        (Field::RunAsUser, Value::Id(0)) => root_user(pass, at, candidate, inheritors),
        (Field::RunAsUser | Field::FsGroup, Value::Id(id)) => unmappable(state, *id),
        (Field::RunAsGroup, Value::Id(id)) => {
            let no_user = state.effective_user(at).is_none();
            no_user
                .then_some(Guard::GroupWithoutUser)
                .or_else(|| unmappable(state, *id))
        }
        (Field::RunAsNonRoot, Value::Bool(true)) => {
            let root = |i: &usize| state.runs_as_root(At::Container(*i));
            (state.runs_as_root(at) || inheritors.iter().any(root)).then_some(Guard::RunsAsRoot)
        }
        (Field::HostUsers, Value::Bool(false)) => user_namespace(state),
        (Field::SeccompProfile, Value::Json(json)) => legacy_seccomp(state, at, json),
        (Field::SeLinuxChangePolicy, Value::Json(json)) if **json == *"\"MountOption\"" => {
            Some(Guard::FeatureGate)
        }
        (Field::AppArmorProfile, _) => legacy_app_armor(pass, at),
        (Field::RuntimeClassName, Value::Json(json)) => runtime_class(pass, json),
        (Field::AutomountServiceAccountToken, Value::Bool(mount)) => {
            let otherwise = pass.matching.automount == Some(!mount);
            let in_use = !mount && token::is_used_elsewhere(state.pod);
            (otherwise || in_use).then_some(Guard::ServiceAccount)
        }
        (Field::AllowPrivilegeEscalation, Value::Bool(false)) => always_escalates(state, at),
        (Field::ProcMount, Value::Json(json)) if **json == *"\"Unmasked\"" => {
            // Where the cluster has no user namespaces, the author's hostUsers comes to nothing.
            let has_own =
                state.host_users == Some(false) && pass.matching.has_field(Field::HostUsers);
            (!has_own).then_some(Guard::UnmaskedProc)
        }
        _ => None,
    })
}

/// The guard that holds an item of a list back, if one does.
pub(crate) fn item(
    pass: &Pass<'_, '_>,
    at: At,
    candidate: &Candidate<'_>,
    item: &Item,
) -> Option<Guard> {
    let state = &pass.state;
    let field = candidate.default.field;
    every_field(pass, at, field).or_else(|| match field {
        Field::CapabilitiesDrop => {
            author_adds(state, at, &item.key).then_some(Guard::CapabilityAdded)
        }
        Field::CapabilitiesAdd if is_dropped(state, at, &item.key) => {
            Some(Guard::CapabilityDropped)
        }
        Field::CapabilitiesAdd => {
            let contradicts = state.slot(at).allow_privilege_escalation == Some(false);
            (&*item.key == SYS_ADMIN && contradicts).then_some(Guard::AlwaysEscalates)
        }
        Field::SupplementalGroups => item.key.parse().ok().and_then(|id| unmappable(state, id)),
        Field::Sysctls => host_sysctl(state, &item.key).then_some(Guard::HostNamespaceSysctl),
        Field::WritablePaths => already_mounted(state, at, &item.key),
        _ => None,
    })
}

fn every_field(pass: &Pass<'_, '_>, at: At, field: Field) -> Option<Guard> {
    let state = &pass.state;
    if state.windows && field.row().linux_only {
        Some(Guard::WindowsPod)
    } else if state.running && (at == At::Pod || field == Field::WritablePaths) {
        Some(Guard::RunningPod)
    } else if !pass.matching.has_field(field) {
        Some(Guard::KubernetesVersion)
    } else {
        None
    }
}

// --- users and groups ---

/// User 0 where `runAsNonRoot: true` is in force, or is about to be by a policy that goes first. A policy
/// that says both means the hardening one, unless that one comes from its profile.
fn root_user(
    pass: &Pass<'_, '_>,
    at: At,
    candidate: &Candidate<'_>,
    inheritors: &[usize],
) -> Option<Guard> {
    let demanded = |i: usize| {
        let in_force = pass.state.effective_non_root(At::Container(i)) == Some(true);
        let goes_first = |other: &Candidate<'_>| {
            let spelled_out =
                candidate.default.profile.is_none() && other.default.profile.is_some();
            other.rank < candidate.rank || (other.rank == candidate.rank && !spelled_out)
        };
        let decided = pass.decision(Field::RunAsNonRoot, i);
        in_force
            || decided
                .is_some_and(|other| other.default.value.bool() == Some(true) && goes_first(&other))
    };
    let demanded = match at {
        At::Container(i) => demanded(i),
        At::Pod => {
            pass.state.pod_level.non_root == Some(true) || inheritors.iter().copied().any(demanded)
        }
    };
    demanded.then_some(Guard::NonRootDemanded)
}

fn unmappable(state: &State<'_>, id: i64) -> Option<Guard> {
    (state.host_users == Some(false) && !is_mappable(id)).then_some(Guard::UserNamespace)
}

fn user_namespace(state: &State<'_>) -> Option<Guard> {
    let shares = |host: Option<bool>| host == Some(true);
    let spec = state.spec;
    let devices = || {
        state
            .pod
            .containers()
            .any(|(_, _, container)| !container.devices().is_empty())
    };
    let excluded = shares(spec.host_network)
        || shares(spec.host_pid)
        || shares(spec.host_ipc)
        || state.has_unmappable_id
        || devices();
    excluded.then_some(Guard::UserNamespace)
}

// --- capabilities and privilege ---

const SYS_ADMIN: &str = "SYS_ADMIN";

fn always_escalates(state: &State<'_>, at: At) -> Option<Guard> {
    let context = container(state, at)?.security_context.as_ref()?;
    let privileged = context.privileged == Some(true);
    (privileged || author_adds(state, at, SYS_ADMIN)).then_some(Guard::AlwaysEscalates)
}

/// Whether the container's author adds a capability by name, in either spelling.
fn author_adds(state: &State<'_>, at: At, key: &str) -> bool {
    container(state, at)
        .and_then(Container::adds)
        .is_some_and(|names| any_is(names, key))
}

/// Whether the container's author drops a capability by name, or a fill does.
fn is_dropped(state: &State<'_>, at: At, key: &str) -> bool {
    container(state, at)
        .and_then(Container::drops)
        .is_some_and(|names| any_is(names, key))
        || state
            .filled_items(at, Field::CapabilitiesDrop)
            .any(|dropped| dropped == key)
}

fn any_is(names: &[Text<'_>], key: &str) -> bool {
    names
        .iter()
        .any(|name| capability_key(name.as_str()) == key)
}

fn container<'s, 'a>(state: &'s State<'a>, at: At) -> Option<&'s Container<'a>> {
    match at {
        At::Pod => None,
        At::Container(i) => state.containers.get(i).map(|container| container.container),
    }
}

// --- profiles ---

/// The API server refuses a seccomp field that differs from a seccomp annotation at the same level.
fn legacy_seccomp(state: &State<'_>, at: At, json: &str) -> Option<Guard> {
    let annotation = state
        .pod
        .legacy_profile(LegacyProfile::Seccomp, container_name(state, at))?;
    let equivalent = match annotation {
        "unconfined" => json!({"type": "Unconfined"}),
        "runtime/default" | "docker/default" => json!({"type": "RuntimeDefault"}),
        other => json!({"type": "Localhost", "localhostProfile": other.strip_prefix("localhost/")}),
    };
    let field: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    (field != equivalent).then_some(Guard::LegacyAnnotation)
}

/// The API server turns a container's AppArmor annotation into the container's own field. One that it
/// cannot turn into a field stands against the pod's profile instead. Before Kubernetes 1.34 it turns fields into
/// annotations, too, for which there must be room.
fn legacy_app_armor(pass: &Pass<'_, '_>, at: At) -> Option<Guard> {
    let state = &pass.state;
    let annotation = |name: &str| state.pod.legacy_profile(LegacyProfile::AppArmor, name);
    let held = match at {
        At::Container(_) => annotation(container_name(state, at)).is_some(),
        At::Pod => state.containers.iter().any(|container| {
            !container.slot.has.contains(Field::AppArmorProfile)
                && annotation(container.container.name.as_str())
                    .is_some_and(|profile| !becomes_a_field(profile))
        }),
    };
    let has_room = || {
        let written = state.pod.annotations().map_or(0, |all| all.bytes);
        written + pass.app_armor_bytes <= ANNOTATIONS_LIMIT
    };
    (held || !has_room()).then_some(Guard::LegacyAnnotation)
}

/// The most bytes that the API server itself may add to the pod's annotations: before Kubernetes 1.34 it writes the
/// AppArmor profile of each container, whoever set it, as a legacy annotation.
pub(crate) fn app_armor_bytes(pass: &Pass<'_, '_>) -> usize {
    let state = &pass.state;
    if !pass.matching.copies_app_armor() || state.windows || state.running {
        return 0;
    }
    let of = |i: usize| {
        let container = state.containers.get(i)?.container;
        let name = container.name.as_str();
        let (field, kind) = (Field::AppArmorProfile, LegacyProfile::AppArmor);
        let authors = state.authors.contains(field) || container.written().contains(field);
        let value = if authors {
            "localhost/".len() + LONGEST_APP_ARMOR_NAME
        } else {
            // As JSON a profile is longer than as an annotation.
            let values = pass.values_for(field, i);
            values.map(|value| value.to_json().len()).max()?
        };
        Some(match state.pod.legacy_profile(kind, name) {
            None => APP_ARMOR_CONTAINER.len() + name.len() + value,
            // None is added, but what an earlier round held back for want of room must not find room now: what was
            // made of the author's profile since is shorter than it might have been.
            Some(there) => value.saturating_sub(there.len()),
        })
    };
    (0..state.containers.len()).filter_map(of).sum()
}

/// The most bytes that the name of an AppArmor profile may have.
const LONGEST_APP_ARMOR_NAME: usize = 4095;

fn becomes_a_field(annotation: &str) -> bool {
    matches!(annotation, "runtime/default" | "unconfined")
        || annotation.strip_prefix("localhost/").is_some_and(|name| {
            !name.is_empty() && name.len() <= LONGEST_APP_ARMOR_NAME && name.trim() == name
        })
}

/// Empty for the pod.
fn container_name<'s>(state: &'s State<'_>, at: At) -> &'s str {
    container(state, at).map_or("", |container| container.name.as_str())
}

// --- namespaces, runtime, mounts ---

/// Whether a sysctl belongs to a namespace that the pod shares with its host.
fn host_sysctl(state: &State<'_>, key: &str) -> bool {
    let (is_net, is_ipc) = namespaces_of_sysctl(&sysctl_key(key));
    (is_net && state.spec.host_network == Some(true))
        || (is_ipc && state.spec.host_ipc == Some(true))
}

/// Whether a sysctl belongs to the network namespace, and to that of interprocess communication.
fn namespaces_of_sysctl(key: &str) -> (bool, bool) {
    const IPC: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    (
        key.starts_with("net."),
        key.starts_with("fs.mqueue.") || IPC.contains(&key),
    )
}

/// The API server refuses a pod whose RuntimeClass does not exist, or asks for other nodes than the pod.
fn runtime_class(pass: &Pass<'_, '_>, json: &str) -> Option<Guard> {
    let name: String = serde_json::from_str(json).unwrap_or_default();
    let Some(node_labels) = pass.matching.runtime_class(&name) else {
        return Some(Guard::RuntimeClass);
    };
    let selector = pass.state.spec.node_selector.as_ref();
    let contradicts = |key: &str, value: &str| {
        selector
            .and_then(|selector| selector.get(key))
            .is_some_and(|wanted| wanted != value)
    };
    node_labels
        .iter()
        .any(|(key, value)| contradicts(key, value))
        .then_some(Guard::RuntimeClass)
}

/// A mount at the path or above it decides what is there already, and two mounts, or a mount and a device,
/// cannot share a path.
fn already_mounted(state: &State<'_>, at: At, path: &str) -> Option<Guard> {
    let container = container(state, at)?;
    let mut mounts = container
        .mounts()
        .iter()
        .map(|mount| mount.mount_path.as_str());
    let mut devices = container
        .devices()
        .iter()
        .map(|device| device.device_path.as_str());
    // Whether the API server mounts its token does not show in a manifest, and an emptyDir in its place would
    // keep it from doing so.
    let taken = covers(token::MOUNT_PATH, path)
        || mounts.any(|mounted| covers(mounted, path))
        || devices.any(|device| same_path(device, path));
    taken.then_some(Guard::AlreadyMounted)
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|segment| !segment.is_empty() && *segment != ".")
}

/// Whether `path` is `mounted` or below it.
fn covers(mounted: &str, path: &str) -> bool {
    let mut below = segments(path);
    segments(mounted).all(|segment| below.next() == Some(segment))
}

fn same_path(a: &str, b: &str) -> bool {
    segments(a).eq(segments(b))
}

#[cfg(test)]
mod tests {
    use hardening_api::ClusterPodHardeningPolicy;

    use super::*;
    use crate::{Fill, Pod, Policy, PolicySet, UnknownNamespaces, plan};

    /// Whether the profile and its record are there, in a pod whose annotations leave this room.
    fn app_armor(kubernetes: &str, authors: &serde_json::Value, room: usize) -> (bool, bool) {
        let padding = "x".repeat(ANNOTATIONS_LIMIT - "padding".len() - room);
        filled_and_recorded(
            kubernetes,
            &json!({
                "metadata": {"annotations": {"padding": padding}},
                "spec": {"containers": [{"name": "app", "securityContext": authors}]},
            }),
        )
    }

    fn filled_and_recorded(kubernetes: &str, object: &serde_json::Value) -> (bool, bool) {
        let policy: ClusterPodHardeningPolicy = serde_json::from_value(json!({
            "apiVersion": hardening_api::API_VERSION, "kind": "ClusterPodHardeningPolicy",
            "metadata": {"name": "a"},
            "spec": {"pod": {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}, "fsGroup": 7}}},
        }))
        .unwrap();
        let mut set = PolicySet::new(UnknownNamespaces::NotYetSeen);
        set.insert_policy(Policy::cluster(&policy).unwrap());
        set.insert_namespace("shop", &std::collections::BTreeMap::default());
        set.set_kubernetes_version(kubernetes.parse().ok());
        let object = object.to_string();
        let pod = Pod::from_json(&object).unwrap();
        let matching = set.matching("shop", &pod).unwrap();
        let plan = plan(&matching, &pod);
        let mut patch = Vec::new();
        plan.write_patch(&plan.records(), &mut patch);
        let patch = String::from_utf8(patch).unwrap();
        let filled = |fill: &Fill<'_>| fill.field == Field::AppArmorProfile;
        (
            plan.fills.iter().any(filled),
            patch.contains("podhardening.dev~1filled"),
        )
    }

    /// Seen on 1.33: the annotation that the API server makes of the author's profile stands in the pod that is stored.
    #[test]
    fn what_was_held_back_for_want_of_room_is_held_back_from_the_stored_pod_too() {
        let room = 1000;
        let mut pod = json!({
            "metadata": {"annotations": {"padding": "x".repeat(ANNOTATIONS_LIMIT - "padding".len() - room)}},
            "spec": {"containers": [
                {"name": "app", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
                {"name": "other"},
            ]},
        });
        let is_filled = |pod: &serde_json::Value| filled_and_recorded("1.33", pod).0;
        assert!(!is_filled(&pod));
        let annotation = "container.apparmor.security.beta.kubernetes.io/app";
        pod["metadata"]["annotations"][annotation] = "runtime/default".into();
        assert!(!is_filled(&pod));
    }

    #[test]
    fn an_app_armor_profile_takes_the_room_of_the_annotation_that_is_made_of_it() {
        let annotation = "container.apparmor.security.beta.kubernetes.io/app".len()
            + r#"{"type":"RuntimeDefault"}"#.len();
        let record = 200;
        let own = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "app"}});
        for (case, kubernetes, authors, room, expected) in [
            ("1.34 makes none", "1.34", json!({}), 0, (true, false)),
            (
                "an unknown version is a new one",
                "",
                json!({}),
                0,
                (true, false),
            ),
            (
                "there is no room",
                "1.33",
                json!({}),
                annotation - 1,
                (false, false),
            ),
            (
                "there is for the annotation alone",
                "1.33",
                json!({}),
                annotation,
                (true, false),
            ),
            (
                "there is for both",
                "1.33",
                json!({}),
                annotation + record,
                (true, true),
            ),
            (
                "the author's takes as much as any",
                "1.33",
                own,
                annotation + record,
                (false, false),
            ),
        ] {
            assert_eq!(app_armor(kubernetes, &authors, room), expected, "{case}");
        }
    }

    #[test]
    fn a_mount_covers_itself_and_what_is_below_it() {
        for (mounted, path, expected) in [
            ("/tmp", "/tmp", true),
            ("/tmp/", "/tmp", true),
            ("//tmp/.", "/tmp", true),
            ("/var", "/var/run/app", true),
            ("/", "/tmp", true),
            ("/tmp/cache", "/tmp", false),
            ("/tmpx", "/tmp", false),
            ("/tm", "/tmp", false),
        ] {
            assert_eq!(covers(mounted, path), expected, "{mounted} {path}");
        }
    }
}
