//! The one control plane with its node that all tests share, where this machine can run one.

use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};
use test_control_plane::{ControlPlane, Node};
use tokio::sync::OnceCell;

use super::api::{Api, until};
use super::tell::tell;

/// A control plane and its node, for the whole test binary; the node ends before its control plane, and both
/// end with the process.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) machine: Machine,
}

/// What this machine's kernel and container runtime can do, which decides what there is to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) app_armor: bool,
    pub(crate) se_linux: bool,
    pub(crate) user_namespaces: bool,
    pub(crate) strict_groups: bool,
}

impl Cluster {
    /// `None` where this machine cannot run a node: said once, past the test harness, which shows nothing of
    /// tests that pass. In CI that is a failure.
    pub(crate) async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Option<Cluster>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    async fn start() -> Option<Self> {
        if let Some(why) = Node::unsupported() {
            let line = format!("NO NODE TEST RUNS HERE: {why}");
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "{line}"
            );
            let mut stderr = std::io::stderr();
            writeln!(stderr, "{line}").unwrap();
            tell(&line);
            return None;
        }
        let control_plane = match ControlPlane::shared().await {
            Ok(control_plane) => control_plane,
            Err(error) => panic!("no control plane: {error}"),
        };
        let node = match Node::start(control_plane).await {
            Ok(node) => node,
            Err(error) => panic!("no node: {error}"),
        };
        seccomp_profiles(&node);
        let machine = Machine::of(&node).await;
        Some(Self { node, machine })
    }
}

/// What the kubelet finds: a profile that forbids `chmod`, and one that only records it.
fn seccomp_profiles(node: &Node) {
    let folder = node.directory().join("kubelet/seccomp");
    fs::create_dir_all(&folder).unwrap();
    for (name, action) in [
        ("no-chmod", "SCMP_ACT_ERRNO"),
        ("log-chmod", "SCMP_ACT_LOG"),
    ] {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["chmod", "fchmodat"], "action": action}],
        });
        fs::write(folder.join(format!("{name}.json")), profile.to_string()).unwrap();
    }
}

impl Machine {
    async fn of(node: &Node) -> Self {
        let api = Api::admin().await;
        let path = format!("/api/v1/nodes/{}", node.name());
        // The kubelet asks the runtime, and tells a little after it is ready.
        let status = until("the node tells what its runtime can do", async || {
            let status = api.get(&path).await.unwrap()["status"].clone();
            status["nodeInfo"]["containerRuntimeVersion"]
                .is_string()
                .then_some(status)
        })
        .await;
        let handlers = status["runtimeHandlers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let maps_users = |handler: &Value| handler["features"]["userNamespaces"] == true;
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            app_armor: enabled.is_ok_and(|enabled| enabled.trim() == "Y"),
            se_linux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
            user_namespaces: handlers.iter().any(maps_users),
            strict_groups: status["features"]["supplementalGroupsPolicy"] == true,
        }
    }
}
