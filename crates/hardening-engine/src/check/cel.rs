//! The guards in CEL, each as the function of the same name beside which it stands in `check.rs`.
//!
//! In a container's place `i` and `n` are the container that is asked about: its index in
//! `variables.containers`, and its entry there.

use crate::cel::rows::{of_containers, of_pod, spread};
use crate::cel::text::{all, any, either, not, text, texts};
use crate::cel::{Compiler, Note, choose};
use crate::defaults::{Item, Value};
use crate::field::Field;
use crate::fill::{Candidate, sysctl_key};
use crate::guard::Guard;
use crate::policy_set::Automount;
use crate::state::{LAST_MAPPED_ID, is_mappable};
use crate::token;

/// At which level a default is about to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Pod,
    Container,
}

/// What is asked about.
pub(crate) struct Asked<'c, 'a> {
    pub(crate) compiler: &'c Compiler<'a>,
    pub(crate) place: Place,
    pub(crate) candidate: &'c Candidate<'a>,
}

type Held = Vec<(Guard, String)>;

/// The guards that can hold a single value back, in the order in which they are asked: as [`super::value`].
pub(crate) fn held_value(asked: &Asked<'_, '_>) -> Held {
    let default = asked.candidate.default;
    let mut held = every_field(default.field);
    let mut guard = |guard, condition| held.push((guard, condition));
    match (default.field, &default.value) {
        (Field::RunAsUser, Value::Id(0)) => guard(Guard::NonRootDemanded, root_user(asked)),
        (Field::RunAsUser | Field::FsGroup, Value::Id(id)) => {
            guard(Guard::UserNamespace, unmappable(*id));
        }
        (Field::RunAsGroup, Value::Id(id)) => {
            guard(Guard::GroupWithoutUser, format!("{} < 0", user(asked)));
            guard(Guard::UserNamespace, unmappable(*id));
        }
        (Field::RunAsNonRoot, Value::Bool(true)) => guard(Guard::RunsAsRoot, runs_as_root(asked)),
        (Field::HostUsers, Value::Bool(false)) => {
            guard(Guard::UserNamespace, user_namespace(asked.compiler));
        }
        (Field::SeccompProfile, Value::Json(json)) => {
            guard(Guard::LegacyAnnotation, legacy_seccomp(asked.place, json));
        }
        (Field::SeLinuxChangePolicy, Value::Json(json)) if **json == *"\"MountOption\"" => {
            guard(Guard::FeatureGate, "true".to_owned());
        }
        (Field::AppArmorProfile, _) => guard(Guard::LegacyAnnotation, legacy_app_armor(asked)),
        (Field::RuntimeClassName, Value::Json(json)) => {
            guard(Guard::RuntimeClass, runtime_class(asked.compiler, json));
        }
        (Field::AutomountServiceAccountToken, Value::Bool(mount)) => {
            guard(
                Guard::ServiceAccount,
                service_account(asked.compiler, *mount),
            );
        }
        (Field::AllowPrivilegeEscalation, Value::Bool(false)) => {
            guard(Guard::AlwaysEscalates, always_escalates());
        }
        (Field::ProcMount, Value::Json(json)) if **json == *"\"Unmasked\"" => {
            guard(Guard::UnmaskedProc, not(&in_user_namespace(asked.compiler)));
        }
        _ => {}
    }
    held
}

/// The guards that can hold an item of a list back: as [`super::item`].
pub(crate) fn held_item(asked: &Asked<'_, '_>, item: &Item) -> Held {
    let field = asked.candidate.default.field;
    let mut held = every_field(field);
    let mut guard = |guard, condition| held.push((guard, condition));
    match field {
        Field::CapabilitiesDrop => guard(Guard::CapabilityAdded, author_adds(&item.key)),
        Field::CapabilitiesAdd => {
            guard(
                Guard::CapabilityDropped,
                is_dropped(asked.compiler, &item.key),
            );
            if *item.key == *super::SYS_ADMIN {
                guard(Guard::AlwaysEscalates, forbids_escalation(asked.compiler));
            }
        }
        Field::SupplementalGroups => {
            if let Ok(id) = item.key.parse() {
                guard(Guard::UserNamespace, unmappable(id));
            }
        }
        Field::Sysctls => guard(Guard::HostNamespaceSysctl, host_sysctl(&item.key)),
        Field::WritablePaths => guard(Guard::AlreadyMounted, already_mounted(&item.key)),
        _ => {}
    }
    held
}

/// The API servers that take compiled policies have every field of the table, so no version is asked for; and
/// what a running pod cannot take is left out by the rows, as nothing is recorded on such a pod.
fn every_field(field: Field) -> Held {
    match field.row().linux_only {
        true => vec![(Guard::WindowsPod, "variables.windows".to_owned())],
        false => Vec::new(),
    }
}

/// A condition on the pod, or on one of the containers that would get a pod's value.
fn of_any(asked: &Asked<'_, '_>, of_pod: String, of_container: &str) -> String {
    match asked.place {
        Place::Container => of_container.to_owned(),
        Place::Pod => {
            let inherits = asked.compiler.inherits(asked.candidate.default.field.row());
            let condition = all([inherits, of_container.to_owned()]);
            match condition.as_str() {
                "false" => of_pod,
                _ => any([
                    of_pod,
                    format!("variables.containers.exists(i, n, {condition})"),
                ]),
            }
        }
    }
}

// --- users and groups ---

fn root_user(asked: &Asked<'_, '_>) -> String {
    let non_root = Field::RunAsNonRoot.row();
    let goes_first = |other: &Candidate<'_>| {
        let candidate = asked.candidate;
        let spelled_out = candidate.default.profile.is_none() && other.default.profile.is_some();
        let first = other.rank < candidate.rank || (other.rank == candidate.rank && !spelled_out);
        (first && other.default.value.bool() == Some(true)).to_string()
    };
    let decided = choose::by_kind(|kind| {
        let decisions = asked.compiler.decisions(Field::RunAsNonRoot, kind);
        choose::pick(&decisions, "false", goes_first)
    });
    let open = [
        not(&crate::cel::rows::written(non_root)),
        not(&crate::cel::rows::authors(non_root)),
    ];
    let in_pod = "variables.podContext.?runAsNonRoot.orValue(false)";
    let in_force = format!("n.context.?runAsNonRoot.orValue({in_pod})");
    let demanded = any([in_force, all(open.into_iter().chain([decided]))]);
    of_any(asked, in_pod.to_owned(), &demanded)
}

/// The user of the place, as it is after users were filled in; -1: none.
fn user(asked: &Asked<'_, '_>) -> String {
    let compiler = asked.compiler;
    let pod = chain(
        "variables.podContext.?runAsUser",
        compiler,
        &[of_pod(Field::RunAsUser)],
        "",
        "-1",
    );
    match asked.place {
        Place::Pod => pod,
        Place::Container => of_container(compiler, &pod),
    }
}

fn of_container(compiler: &Compiler<'_>, pod: &str) -> String {
    let names = [of_containers(Field::RunAsUser), spread(Field::RunAsUser)];
    chain("n.context.?runAsUser", compiler, &names, "[i]", pod)
}

/// What is written, else what one of these variables fills in, else another value.
fn chain(
    written: &str,
    compiler: &Compiler<'_>,
    names: &[String],
    index: &str,
    otherwise: &str,
) -> String {
    let filled = names.iter().filter(|name| compiler.has(name)).rev();
    let filled = filled.fold(otherwise.to_owned(), |otherwise, name| {
        format!("variables.{name}{index}.?value.orValue({otherwise})")
    });
    format!("{written}.orValue({filled})")
}

fn runs_as_root(asked: &Asked<'_, '_>) -> String {
    let administrator = |name: String| {
        format!(r#"(variables.windows && {name}.lowerAscii() == "containeradministrator")"#)
    };
    let pod_name = r#"variables.podContext.?windowsOptions.?runAsUserName.orValue("")"#;
    let name = format!("n.context.?windowsOptions.?runAsUserName.orValue({pod_name})");
    let on_pod = Asked {
        place: Place::Pod,
        ..*asked
    };
    let pod_user = user(&on_pod);
    let container_user = of_container(asked.compiler, &pod_user);
    let pod = any([
        format!("{pod_user} == 0"),
        administrator(pod_name.to_owned()),
    ]);
    let container = any([format!("{container_user} == 0"), administrator(name)]);
    of_any(asked, pod, &container)
}

/// Whether the pod has a user namespace of its own before `hostUsers` is filled in, and that has no place for
/// an id.
fn unmappable(id: i64) -> String {
    either(
        &is_mappable(id).to_string(),
        "false".to_owned(),
        "!object.spec.?hostUsers.orValue(true)".to_owned(),
    )
}

/// Whether the pod has a user namespace of its own, as it is after `hostUsers` was filled in.
fn in_user_namespace(compiler: &Compiler<'_>) -> String {
    let host_users = chain(
        "object.spec.?hostUsers",
        compiler,
        &[of_pod(Field::HostUsers)],
        "",
        "true",
    );
    format!("!{host_users}")
}

fn user_namespace(compiler: &Compiler<'_>) -> String {
    let shares = ["hostNetwork", "hostPID", "hostIPC"]
        .map(|member| format!("object.spec.?{member}.orValue(false)"));
    let large = format!("> {LAST_MAPPED_ID}");
    let mut ids = Vec::new();
    for member in ["runAsUser", "runAsGroup", "fsGroup"] {
        ids.push(format!("variables.podContext.?{member}.orValue(0) {large}"));
    }
    ids.push(format!(
        "variables.podContext.?supplementalGroups.orValue([]).exists(id, id {large})"
    ));
    ids.push(format!(
        "variables.containers.exists(n, n.context.?runAsUser.orValue(0) {large} || n.context.?runAsGroup.orValue(0) {large})"
    ));
    let filled = |name: String, condition: String| compiler.has(&name).then_some(condition);
    for field in [Field::RunAsUser, Field::RunAsGroup, Field::FsGroup] {
        let name = of_pod(field);
        let of_pod = format!("variables.{name}.?value.orValue(0) {large}");
        ids.extend(filled(name, of_pod));
        for name in [of_containers(field), spread(field)] {
            let any = format!("variables.{name}.exists(fill, fill.?value.orValue(0) {large})");
            ids.extend(filled(name, any));
        }
    }
    let name = of_pod(Field::SupplementalGroups);
    let groups = format!("variables.{name}.exists(fill, fill.?value.orValue(0) {large})");
    ids.extend(filled(name, groups));
    let devices = "variables.containers.exists(n, n.it.?volumeDevices.orValue([]) != [])";
    any(shares.into_iter().chain(ids).chain([devices.to_owned()]))
}

// --- capabilities and privilege ---

fn always_escalates() -> String {
    any([
        "n.context.?privileged.orValue(false)".to_owned(),
        author_adds(super::SYS_ADMIN),
    ])
}

fn author_adds(key: &str) -> String {
    format!(
        "n.context.?capabilities.?add.orValue([]).exists(name, name.upperAscii() in {})",
        spellings(key)
    )
}

/// As `fill::capability_key`, the other way round.
fn spellings(key: &str) -> String {
    texts([key, &format!("CAP_{key}")])
}

fn is_dropped(compiler: &Compiler<'_>, key: &str) -> String {
    let authors = format!(
        "n.context.?capabilities.?drop.orValue([]).exists(name, name.upperAscii() in {})",
        spellings(key)
    );
    let name = of_containers(Field::CapabilitiesDrop);
    let filled = match compiler.has(&name) {
        true => format!(
            r#"variables.{name}[i].exists(fill, fill.?key.orValue("") == {})"#,
            text(key)
        ),
        false => "false".to_owned(),
    };
    any([authors, filled])
}

fn forbids_escalation(compiler: &Compiler<'_>) -> String {
    let allowed = chain(
        "n.context.?allowPrivilegeEscalation",
        compiler,
        &[of_containers(Field::AllowPrivilegeEscalation)],
        "[i]",
        "true",
    );
    format!("!{allowed}")
}

// --- profiles ---

fn legacy_seccomp(place: Place, json: &str) -> String {
    let key = match place {
        Place::Pod => text(crate::annotations::SECCOMP_POD),
        Place::Container => format!(
            "{} + n.it.name",
            text(crate::annotations::SECCOMP_CONTAINER)
        ),
    };
    let profile: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let localhost = profile
        .get("localhostProfile")
        .and_then(|path| path.as_str());
    let same = match (
        profile.get("type").and_then(|kind| kind.as_str()),
        localhost,
    ) {
        (Some("Unconfined"), _) => texts(["unconfined"]),
        (Some("RuntimeDefault"), _) => texts(["runtime/default", "docker/default"]),
        (_, path) => texts([&*format!("localhost/{}", path.unwrap_or_default())]),
    };
    format!("({key} in variables.annotations && !(variables.annotations[{key}] in {same}))")
}

fn legacy_app_armor(asked: &Asked<'_, '_>) -> String {
    let key = format!(
        "{} + n.it.name",
        text(crate::annotations::APP_ARMOR_CONTAINER)
    );
    let annotated = format!("{key} in variables.annotations");
    match asked.place {
        Place::Container => annotated,
        Place::Pod => {
            let profile = format!("variables.annotations[{key}]");
            let longest = super::LONGEST_APP_ARMOR_NAME;
            let name = format!("{profile}.substring(10)");
            let is_name = format!(
                r#"{profile}.startsWith("localhost/") && {profile} != "localhost/" && size(bytes({name})) <= {longest} && {name}.trim() == {name}"#
            );
            let becomes_a_field =
                format!(r#"({profile} in ["runtime/default", "unconfined"] || {is_name})"#);
            let condition = all([
                asked.compiler.inherits(Field::AppArmorProfile.row()),
                annotated,
                not(&becomes_a_field),
            ]);
            format!("variables.containers.exists(i, n, {condition})")
        }
    }
}

// --- namespaces, runtime, mounts ---

fn host_sysctl(key: &str) -> String {
    let (is_net, is_ipc) = super::namespaces_of_sysctl(&sysctl_key(key));
    let shared = |is: bool, member: &str| {
        either(
            &is.to_string(),
            format!("object.spec.?{member}.orValue(false)"),
            "false".to_owned(),
        )
    };
    any([shared(is_net, "hostNetwork"), shared(is_ipc, "hostIPC")])
}

/// A class that is not known to exist is taken not to: a pod that names it would be refused.
fn runtime_class(compiler: &Compiler<'_>, json: &str) -> String {
    let name: String = serde_json::from_str(json).unwrap_or_default();
    let Some(labels) = compiler.set().known_runtime_class(&name) else {
        return "true".to_owned();
    };
    any(labels.iter().map(|(key, value)| {
        let (key, value) = (text(key), text(value));
        format!("object.spec.?nodeSelector[{key}].orValue({value}) != {value}")
    }))
}

/// What a service account says is known when policies are compiled, or not at all; one of which nothing is
/// known keeps its token.
fn service_account(compiler: &Compiler<'_>, mount: bool) -> String {
    let account = r#"request.namespace + "/" + variables.account"#;
    let otherwise = match compiler.automount(mount) {
        Automount::Against(accounts) if accounts.is_empty() => "false".to_owned(),
        Automount::Against(accounts) => {
            format!(
                "{account} in {}",
                texts(accounts.iter().map(String::as_str))
            )
        }
        Automount::NotAgainst(accounts) => not(&format!(
            "{account} in {}",
            texts(accounts.iter().map(String::as_str))
        )),
    };
    let in_use = match mount {
        true => "false".to_owned(),
        false => format!(
            r#"variables.containers.exists(n, n.it.?volumeMounts.orValue([]).exists(mount, mount.name in variables.injectedTokens && mount.mountPath != {}))"#,
            text(token::MOUNT_PATH)
        ),
    };
    any([otherwise, in_use])
}

/// The mounts that decide what is at a path are those at it or above it. Whether one is the place of the API
/// server's token is known beforehand.
fn already_mounted(path: &str) -> String {
    let normal = r#"split("/").filter(part, part != "" && part != ".").join("/")"#;
    let parts: Vec<&str> = super::segments(path).collect();
    let at_or_above: Vec<String> = (0..=parts.len())
        .map(|n| parts.iter().take(n).copied().collect::<Vec<_>>().join("/"))
        .collect();
    let covers = texts(at_or_above.iter().map(String::as_str));
    any([
        super::covers(token::MOUNT_PATH, path).to_string(),
        format!(
            "n.it.?volumeMounts.orValue([]).exists(mount, mount.mountPath.{normal} in {covers})"
        ),
        format!(
            "n.it.?volumeDevices.orValue([]).exists(device, device.devicePath.{normal} == {})",
            text(&parts.join("/"))
        ),
    ])
}

impl Note {
    /// What a default leaves unsaid, if it does.
    pub(crate) fn of(compiler: &Compiler<'_>, candidate: &Candidate<'_>) -> Option<Self> {
        let policy = candidate.policy.reference().to_string();
        match (candidate.default.field, &candidate.default.value) {
            (Field::RuntimeClassName, Value::Json(json)) => {
                let class: String = serde_json::from_str(json).unwrap_or_default();
                let known = compiler.set().known_runtime_class(&class).is_some();
                (!known).then_some(Self::RuntimeClass { policy, class })
            }
            (Field::AutomountServiceAccountToken, Value::Bool(mount)) => {
                let known = matches!(compiler.automount(*mount), Automount::Against(_));
                (!known).then_some(Self::ServiceAccounts { policy })
            }
            _ => None,
        }
    }
}
