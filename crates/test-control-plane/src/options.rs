//! What a control plane can be started with.

use std::{collections::BTreeMap, time::Duration};

use crate::Binaries;

/// How to start a [`ControlPlane`](crate::ControlPlane). The default is what most tests want.
///
/// Files are given as text: they are written into the control plane's folder and go with it.
#[derive(Debug, Clone)]
pub struct ControlPlaneOptions {
    /// The programs to run; `None` finds or builds them and shows its progress.
    pub binaries: Option<Binaries>,

    /// Whether kube-controller-manager runs. Without it there are no `default` ServiceAccounts, so
    /// pods are refused unless the `ServiceAccount` admission plugin is disabled, and nothing makes
    /// pods of Deployments and Jobs.
    pub controller_manager: bool,

    /// Feature gates, for all programs that know them.
    pub feature_gates: BTreeMap<String, bool>,

    /// APIs to serve or not to serve, such as `api/alpha`.
    pub runtime_config: BTreeMap<String, bool>,

    /// Admission plugins to enable besides the default ones (`PodSecurity` is one of those).
    pub enable_admission_plugins: Vec<String>,

    /// Default admission plugins to disable.
    pub disable_admission_plugins: Vec<String>,

    /// An `AdmissionConfiguration`, as YAML.
    pub admission_configuration: Option<String>,

    /// An audit `Policy`, as YAML. With one, the API server writes
    /// [`audit_log_path`](crate::ControlPlane::audit_log_path).
    pub audit_policy: Option<String>,

    /// More arguments for kube-apiserver. They come last, so they override what this crate sets.
    pub apiserver_args: Vec<String>,

    /// More arguments for kube-controller-manager, likewise.
    pub controller_manager_args: Vec<String>,

    /// How long each step of the start may take.
    pub start_timeout: Duration,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self {
            binaries: None,
            controller_manager: true,
            feature_gates: BTreeMap::new(),
            runtime_config: BTreeMap::new(),
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            admission_configuration: None,
            audit_policy: None,
            apiserver_args: Vec::new(),
            controller_manager_args: Vec::new(),
            start_timeout: Duration::from_secs(120),
        }
    }
}
