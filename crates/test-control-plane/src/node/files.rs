//! What the node's programs read.

use std::path::Path;

use super::{image::Image, requirements::Requirements};
use crate::network::Network;

/// containerd's configuration: everything in the node's folder, and nothing that needs a network.
pub(super) fn containerd(folder: &Path, has: &Requirements) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "/run/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{folder}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without it runc fails where this process may not lower how readily the kernel kills it.
  restrict_oom_score_adj = true
  disable_tcp_service = true
  # As Kubernetes and older containerds have it, whatever this one's default is.
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/network"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    # Copies: slower than an overlay for large images, and works wherever files can be written.
    snapshotter = "native"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#,
        pause = Image::PAUSE.name,
        plugins = has.plugins.display(),
        runc = has.runc.display(),
    )
}

/// The pods' network: each pod a cable to this machine.
pub(super) fn network(folder: &Path, network: Network) -> String {
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{
                    "subnet": network.pods(), "rangeStart": network.first_pod(),
                    "gateway": network.kubernetes().ip(),
                }]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": folder.join("addresses").display().to_string(),
            },
        }],
    })
    .to_string()
}

/// The kubelet's configuration: on loopback, quick, and content with whatever disk and memory there is.
pub(super) fn kubelet(folder: &Path, ca: &Path, port: u16) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": ca.display().to_string()},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", path("containerd.sock")),
        "imageServiceEndpoint": format!("unix://{}", path("containerd.sock")),
        "staticPodPath": "",
        "podLogsDir": path("pod-logs"),
        "volumePluginDir": path("volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "localStorageCapacityIsolation": false,
        "resolvConf": "",
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "syncFrequency": "2s",
        "nodeStatusUpdateFrequency": "2s",
        "registryPullQPS": 0,
        // Not 0, which here does not mean "as many as there are" but what a client does by default: 5.
        "eventRecordQPS": 1000,
        "eventBurst": 1000,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "shutdownGracePeriod": "0s",
    })
    .to_string()
}
