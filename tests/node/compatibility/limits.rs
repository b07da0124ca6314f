//! The table.

use serde_json::{Value, json};
use test_control_plane::Image;

use crate::profiles::{HAS_A_NAME, RUNS_AS_ROOT};
use crate::support::bench::KEEPS_TOKEN;
use crate::support::case::{
    Case, Outcome, case, merge, plain, pod, running, stops, with, with_app,
};
use crate::support::cluster::Machine;

/// A default, what it stops, and what helps.
pub(super) struct Limit {
    pub(super) name: &'static str,
    /// The default, as people write it.
    pub(super) default: &'static str,
    /// The images and workloads that it stops.
    pub(super) stops: &'static str,
    /// What is seen from outside.
    pub(super) status: &'static str,
    pub(super) message: &'static str,
    /// What to set instead.
    pub(super) instead: &'static str,
    pub(super) shows: Where,
    pub(super) policy: Value,
    pub(super) pod: Value,
    pub(super) remedy: Remedy,
}

/// On which machines a limit is met.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    Everywhere,
    WithoutAppArmor,
    WithoutUserNamespaces,
    WithoutStrictGroups,
}

/// What helps, as far as it can be set here.
pub(super) enum Remedy {
    /// Another policy, for the same pod.
    Policy(Value),
    /// More in the policy.
    More(Value),
    /// What the author writes, at the container.
    Container(Value),
    /// What the author writes, at the pod.
    Pod(Value),
    /// Another node, which there is none of.
    AnotherNode,
}

impl Where {
    pub(super) fn is_here(self, machine: Machine) -> bool {
        match self {
            Self::Everywhere => true,
            Self::WithoutAppArmor => !machine.app_armor,
            Self::WithoutUserNamespaces => !machine.user_namespaces,
            Self::WithoutStrictGroups => !machine.strict_groups,
        }
    }
}

impl Limit {
    /// That the default stops the pod.
    pub(super) fn stopped(&self) -> Case {
        let outcome = stops(self.status, self.message);
        case(self.name, self.policy.clone(), self.pod.clone(), outcome)
    }

    /// That the pod works with what helps.
    pub(super) fn helped(&self) -> Option<Case> {
        let (mut policy, mut pod) = (self.policy.clone(), self.pod.clone());
        match &self.remedy {
            Remedy::Policy(other) => policy = other.clone(),
            Remedy::More(more) => merge(&mut policy, more.clone()),
            Remedy::Container(members) => pod = with_app(pod, members.clone()),
            Remedy::Pod(members) => merge(&mut pod, members.clone()),
            Remedy::AnotherNode => return None,
        }
        let goes_on = pod["containers"][0]["readinessProbe"].is_object();
        let outcome = match goes_on {
            true => Outcome::Works,
            false => Outcome::Ends,
        };
        Some(case(&format!("{}-helped", self.name), policy, pod, outcome))
    }
}

/// Every limit, by what it is about; `host` is a folder of the node's.
pub(super) fn limits(host: &str) -> [(&'static str, Vec<Limit>); 4] {
    [
        ("Users and groups", users(host)),
        ("Files", files()),
        ("Rights", rights()),
        ("What nodes must have", nodes()),
    ]
}

fn users(host: &str) -> Vec<Limit> {
    let non_root = context(json!({"runAsNonRoot": true}));
    let user = context(json!({"runAsUser": 65532}));
    let host = json!({
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
        "containers": [with(
            running("app", Image::ROOT, "echo collected >/host/file"),
            json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]}),
        )],
    });
    vec![
        Limit {
            name: "non-root-of-a-root-image",
            default: "runAsNonRoot: true",
            stops: "images that run as root, where nothing gives them another user",
            status: "CreateContainerConfigError",
            message: RUNS_AS_ROOT,
            instead: "`runAsUser` beside it, as profile Hardened has; or a numeric `USER` in the image",
            shows: Where::Everywhere,
            policy: non_root.clone(),
            pod: plain(Image::ROOT),
            remedy: Remedy::More(user.clone()),
        },
        Limit {
            name: "non-root-of-a-named-user",
            default: "runAsNonRoot: true",
            stops: "images whose `USER` is a name: the kubelet cannot tell whether it is root",
            status: "CreateContainerConfigError",
            message: HAS_A_NAME,
            instead: "`runAsUser` with that user's id; or a numeric `USER` in the image",
            shows: Where::Everywhere,
            policy: non_root,
            pod: plain(Image::NAMED_USER),
            remedy: Remedy::Container(json!({"securityContext": {"runAsUser": 1234}})),
        },
        Limit {
            name: "user-of-private-files",
            default: "runAsUser: 65532",
            stops: "images with files that only their own user may read",
            status: "Error",
            message: "can't open '/home/app/own': Permission denied",
            instead: "`runAsUser` with the id of the image's own user",
            shows: Where::Everywhere,
            policy: user.clone(),
            pod: script(Image::NAMED_USER, "cat /home/app/own"),
            remedy: Remedy::Policy(context(json!({"runAsUser": 1234}))),
        },
        Limit {
            name: "user-without-a-name",
            default: "runAsUser: 65532",
            stops: "programs that look up the name of their user, which the image's `/etc/passwd` does not have",
            status: "Error",
            message: "unknown ID 65532",
            instead: "`runAsUser` with an id that the image knows",
            shows: Where::Everywhere,
            policy: user.clone(),
            pod: script(Image::NAMED_USER, "id -un"),
            remedy: Remedy::Policy(context(json!({"runAsUser": 1234}))),
        },
        Limit {
            name: "user-of-a-host-path",
            default: "runAsUser: 65532",
            stops: "workloads that write to a `hostPath` of root's, such as node agents; `fsGroup` does not change that",
            status: "Error",
            message: "can't create /host/file: Permission denied",
            instead: "`runAsUser: 0` at the container, by its author; `runAsNonRoot` is then held back there",
            shows: Where::Everywhere,
            policy: context(json!({"runAsUser": 65532, "fsGroup": 65532, "runAsNonRoot": true})),
            pod: with(pod(json!([])), host),
            remedy: Remedy::Container(json!({"securityContext": {"runAsUser": 0}})),
        },
        Limit {
            name: "group-of-a-private-key",
            default: "fsGroup: 65532",
            stops: "programs that refuse a key that others may read, as ssh does: `fsGroup` lets the group read the files of \
                    a Secret, whatever their `defaultMode`",
            status: "Error",
            message: "permissions of the key are too open",
            instead: "a copy with mode 0600 in a writable path, made when the container starts",
            shows: Where::Everywhere,
            policy: context(json!({"fsGroup": 65532})),
            pod: with_key(CHECK_KEY),
            remedy: Remedy::Container(json!({"command": [
                "sh", "-c",
                format!("busybox cp -L /keys/key /tmp/key && chmod 600 /tmp/key && {}", CHECK_KEY.replace("/keys", "/tmp")),
            ]})),
        },
    ]
}

/// Fails where others than the owner may read the key.
const CHECK_KEY: &str = "ls -lL /keys/key | grep -q '^-r.-------' || { echo permissions of the key are too open >&2; exit 1; }";

fn with_key(script: &str) -> Value {
    let mounts = json!({"volumeMounts": [{"name": "keys", "mountPath": "/keys"}]});
    let volumes = json!([{"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}}]);
    let app = with(running("app", Image::ROOT, script), mounts);
    with(pod(json!([app])), json!({"volumes": volumes}))
}

fn files() -> Vec<Limit> {
    let read_only = container(json!({"readOnlyRootFilesystem": true}));
    let writable = |paths: Value| {
        with(
            read_only.clone(),
            json!({"containers": {"writablePaths": paths}}),
        )
    };
    vec![
        Limit {
            name: "read-only-of-a-writer",
            default: "readOnlyRootFilesystem: true",
            stops: "images that write to their own files, or to `/tmp` where that is no writable path",
            status: "Error",
            message: "can't create /data/cache: Read-only file system",
            instead: "`writablePaths` with each folder that it writes to",
            shows: Where::Everywhere,
            policy: read_only.clone(),
            pod: plain(Image::WRITER),
            remedy: Remedy::More(
                json!({"containers": {"writablePaths": [{"path": "/tmp"}, {"path": "/data"}]}}),
            ),
        },
        Limit {
            name: "writable-path-over-files",
            default: "writablePaths: [{path: /data}]",
            stops: "images that have files of their own in that folder: an empty one hides them",
            status: "Error",
            message: "can't open '/data/index.html': No such file or directory",
            instead: "a folder below it, which the image leaves empty; or the author's own volume, which an init container fills",
            shows: Where::Everywhere,
            policy: writable(json!([{"path": "/data"}])),
            pod: script(
                Image::ROOT,
                "cat /data/index.html && touch /data/cache/file || exit 1",
            ),
            remedy: Remedy::Policy(writable(json!([{"path": "/data/cache"}]))),
        },
        Limit {
            name: "writable-path-over-a-file",
            default: "writablePaths: [{path: /etc/passwd}]",
            stops: "images in which that path is a file",
            status: "StartError",
            message: "not a directory",
            instead: "the path of a folder",
            shows: Where::Everywhere,
            policy: writable(json!([{"path": "/etc/passwd"}])),
            pod: plain(Image::ROOT),
            remedy: Remedy::Policy(writable(json!([{"path": "/data"}]))),
        },
        Limit {
            name: "writable-path-in-memory",
            default: "writablePaths: [{path: /tmp, medium: Memory, sizeLimit: 1Mi}]",
            stops: "programs that write more than that",
            status: "Error",
            message: "No space left on device",
            instead: "a larger `sizeLimit`; what is in memory counts against the container's memory limit",
            shows: Where::Everywhere,
            policy: writable(json!([{"path": "/tmp", "medium": "Memory", "sizeLimit": "1Mi"}])),
            pod: script(
                Image::ROOT,
                "busybox dd if=/dev/zero of=/tmp/file bs=2M count=1",
            ),
            remedy: Remedy::Policy(writable(
                json!([{"path": "/tmp", "medium": "Memory", "sizeLimit": "4Mi"}]),
            )),
        },
    ]
}

fn rights() -> Vec<Limit> {
    let drop_all = container(json!({"capabilities": {"drop": ["ALL"]}}));
    let low_ports = context(
        json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}),
    );
    vec![
        Limit {
            name: "low-port",
            default: "capabilities.drop: [ALL]",
            stops: "servers that listen on a port below 1024, where the runtime does not allow that to all",
            status: "Error",
            message: "bind: Permission denied",
            instead: "the sysctl `net.ipv4.ip_unprivileged_port_start: \"0\"`, which is on Kubernetes' safe list; or a port above 1023",
            shows: Where::Everywhere,
            policy: drop_all.clone(),
            pod: plain(Image::PORT_80),
            remedy: Remedy::More(low_ports.clone()),
        },
        Limit {
            name: "low-port-of-another-user",
            default: "runAsUser: 65532",
            stops: "the same, also where the author adds `NET_BIND_SERVICE`: a user other than root does not get it",
            status: "Error",
            message: "bind: Permission denied",
            instead: "the same sysctl",
            shows: Where::Everywhere,
            policy: context(json!({"runAsUser": 65532})),
            pod: with_app(
                plain(Image::PORT_80),
                json!({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}),
            ),
            remedy: Remedy::More(low_ports),
        },
        Limit {
            name: "chown-at-the-start",
            default: "capabilities.drop: [ALL]",
            stops: "entrypoints that start as root, give files to another user and go on as that one (`chown`, `su`, `gosu`)",
            status: "Error",
            message: "chown: /data: Operation not permitted",
            instead: "`runAsUser` with the user that it ends up as, and `fsGroup` for its volumes; or, by the author, \
                      `capabilities.add: [CHOWN, SETUID, SETGID]`",
            shows: Where::Everywhere,
            policy: drop_all.clone(),
            pod: script(
                Image::ROOT,
                "set -e; chown app /data; su app -c 'touch /data/file'",
            ),
            remedy: Remedy::Container(
                json!({"securityContext": {"capabilities": {"add": ["CHOWN", "SETUID", "SETGID"]}}}),
            ),
        },
        Limit {
            name: "su-at-the-start",
            default: "capabilities.drop: [ALL]",
            stops: "entrypoints that start as root and change to another user",
            status: "Error",
            message: "su: can't set groups: Operation not permitted",
            instead: "`runAsUser` with that user",
            shows: Where::Everywhere,
            policy: drop_all,
            pod: script(Image::ROOT, "[ $(id -u) = 1234 ] || exec su app -c 'id -u'"),
            remedy: Remedy::More(context(json!({"runAsUser": 1234}))),
        },
        Limit {
            name: "forbidden-system-call",
            default: "seccompProfile: {type: Localhost, localhostProfile: no-chmod.json}",
            stops: "programs that need a system call that the profile does not allow",
            status: "Error",
            message: "chmod: /tmp: Operation not permitted",
            instead: "the call, in the profile: first one with `SCMP_ACT_LOG`, which only records (see examples/policies/seccomp)",
            shows: Where::Everywhere,
            policy: seccomp("no-chmod.json"),
            pod: script(Image::ROOT, "chmod 777 /tmp"),
            remedy: Remedy::Policy(seccomp("log-chmod.json")),
        },
        Limit {
            name: "token-of-an-api-client",
            default: "automountServiceAccountToken: false",
            stops: "programs that speak to the API server",
            status: "Error",
            message: "can't open '/var/run/secrets/kubernetes.io/serviceaccount/token': No such file or directory",
            instead: "a ServiceAccount of their own with `automountServiceAccountToken: true`; or that field on the pod",
            shows: Where::Everywhere,
            policy: json!({"pod": {"automountServiceAccountToken": false}}),
            pod: script(
                Image::ROOT,
                "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
            ),
            remedy: Remedy::Pod(json!({"serviceAccountName": KEEPS_TOKEN})),
        },
    ]
}

fn nodes() -> Vec<Limit> {
    let root = || script(Image::ROOT, "true");
    vec![
        Limit {
            name: "missing-seccomp-profile",
            default: "seccompProfile: {type: Localhost, localhostProfile: missing.json}",
            stops: "everything on nodes that do not have the file",
            status: "CreateContainerError",
            message: "missing.json: no such file or directory",
            instead: "the file, below `seccomp` in the kubelet's folder on every node, before the policy",
            shows: Where::Everywhere,
            policy: seccomp("missing.json"),
            pod: root(),
            remedy: Remedy::Policy(seccomp("log-chmod.json")),
        },
        Limit {
            name: "unsafe-sysctl",
            default: "sysctls: [{name: net.core.somaxconn, value: \"1024\"}]",
            stops: "everything: the kubelet refuses what is not on Kubernetes' safe list",
            status: "SysctlForbidden",
            message: "forbidden sysctl: \"net.core.somaxconn\" not allowlisted",
            instead: "sysctls of the safe list (`kubectl harden lint` names others); or the kubelet's `allowedUnsafeSysctls`",
            shows: Where::Everywhere,
            policy: context(json!({"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]})),
            pod: root(),
            remedy: Remedy::Policy(context(
                json!({"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}),
            )),
        },
        Limit {
            name: "missing-runtime",
            default: "runtimeClassName: sandboxed",
            stops: "everything on nodes whose runtime does not have the class's handler",
            status: "ContainerCreating",
            message: "no runtime for \"missing\" is configured",
            instead: "`scheduling.nodeSelector` in the RuntimeClass, so that its pods go to nodes that have it",
            shows: Where::Everywhere,
            policy: json!({"pod": {"runtimeClassName": "sandboxed"}}),
            pod: root(),
            remedy: Remedy::Policy(json!({"pod": {"runtimeClassName": "plain"}})),
        },
        Limit {
            name: "no-app-armor",
            default: "appArmorProfile: {type: RuntimeDefault}",
            stops: "everything on nodes without AppArmor; whatever creates the pods creates ever more of them",
            status: "AppArmor",
            message: "Cannot enforce AppArmor: AppArmor is not enabled on the host",
            instead: "nothing: where nodes have AppArmor it is the default",
            shows: Where::WithoutAppArmor,
            policy: context(json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
            pod: root(),
            remedy: Remedy::AnotherNode,
        },
        Limit {
            name: "no-user-namespaces",
            default: "hostUsers: false",
            stops: "everything on nodes whose runtime has no user namespaces (containerd before 2.0)",
            status: "ContainerCreating",
            message: "runtime does not support user namespaces",
            instead: "nothing, until all nodes have them",
            shows: Where::WithoutUserNamespaces,
            policy: json!({"pod": {"hostUsers": false}}),
            pod: root(),
            remedy: Remedy::AnotherNode,
        },
        Limit {
            name: "no-strict-groups",
            default: "supplementalGroupsPolicy: Strict",
            stops: "everything on nodes whose runtime does not know it (containerd before 2.0)",
            status: "SupplementalGroupsPolicyNotSupported",
            message: "SupplementalGroupsPolicy=Strict is not supported in this node",
            instead: "nothing, until all nodes have it",
            shows: Where::WithoutStrictGroups,
            policy: context(json!({"supplementalGroupsPolicy": "Strict"})),
            pod: root(),
            remedy: Remedy::AnotherNode,
        },
    ]
}

/// A policy of the pod's security context.
fn context(fields: Value) -> Value {
    json!({"pod": {"securityContext": fields}})
}

/// A policy of each container's security context.
fn container(fields: Value) -> Value {
    json!({"containers": {"securityContext": fields}})
}

fn seccomp(file: &str) -> Value {
    context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": file}}))
}

/// A pod of one container that runs a script.
fn script(image: Image, script: &str) -> Value {
    pod(json!([running("app", image, script)]))
}
