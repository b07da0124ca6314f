//! What each program is started with, and the files that its arguments name.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    ControlPlaneOptions, Error,
    certs::{self, Authority},
    kubeconfig,
    network::Network,
    workspace::Workspace,
};

/// The arguments of the programs of one control plane.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) etcd: Vec<String>,
    pub(crate) apiserver: Vec<String>,
    pub(crate) controller_manager: Vec<String>,
    /// Where the API server writes its audit log, if it does.
    pub(crate) audit_log: Option<PathBuf>,
}

impl Arguments {
    /// Writes the files into the workspace and lists the arguments.
    pub(crate) fn prepare(
        options: &ControlPlaneOptions,
        workspace: &Workspace,
        authority: &Authority,
        port: u16,
    ) -> Result<Self, Error> {
        let ControlPlaneOptions {
            binaries: _,
            controller_manager: _,
            feature_gates,
            runtime_config,
            enable_admission_plugins,
            disable_admission_plugins,
            admission_configuration,
            audit_policy,
            apiserver_args,
            controller_manager_args,
            start_timeout: _,
        } = options;

        let write =
            |name, text: &str| Ok::<_, Error>(workspace.write(name, text)?.display().to_string());
        let authority_pair = authority.pair();
        let ca = write("ca.crt", &authority_pair.public)?;
        let ca_key = write("ca.key", &authority_pair.key)?;
        let service_account = certs::service_account_key()?;
        let service_account_public = write("service-account.pub", &service_account.public)?;
        let service_account_key = write("service-account.key", &service_account.key)?;
        let feature_gates = comma_separated(feature_gates);
        let feature_gates = optional("feature-gates", &feature_gates);

        // A Unix socket needs no port and lets in nobody else on this machine.
        let store = format!("unix://{}", workspace.path().join("etcd.sock").display());
        let etcd = vec![
            "--name=test".to_owned(),
            flag(
                "data-dir",
                &workspace.path().join("etcd").display().to_string(),
            ),
            flag("listen-client-urls", &store),
            // Must be said and must not be a socket; the only client knows better, and there are no
            // peers.
            "--advertise-client-urls=http://localhost:2379".to_owned(),
            "--listen-peer-urls=unix://peer:0".to_owned(),
            "--initial-advertise-peer-urls=http://localhost:2380".to_owned(),
            "--initial-cluster=test=http://localhost:2380".to_owned(),
            // Nobody else stands for election, so a short wait for one suffices.
            "--heartbeat-interval=20".to_owned(),
            "--election-timeout=200".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ];

        let network = Network::of_port(port);
        let serving = authority.serving(*network.kubernetes().ip())?;
        let mut apiserver = vec![
            flag("etcd-servers", &store),
            "--bind-address=127.0.0.1".to_owned(),
            flag("secure-port", &port.to_string()),
            "--permit-port-sharing=true".to_owned(), // with the socket that reserves the port
            flag("tls-cert-file", &write("apiserver.crt", &serving.public)?),
            flag(
                "tls-private-key-file",
                &write("apiserver.key", &serving.key)?,
            ),
            flag("client-ca-file", &ca),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            flag("service-account-key-file", &service_account_public),
            flag("service-account-signing-key-file", &service_account_key),
            "--authorization-mode=Node,RBAC".to_owned(),
            flag("service-cluster-ip-range", &network.services()),
            // The Endpoints of the Service `kubernetes` may not be a loopback address.
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Webhooks behind a Service are called at the addresses of their pods, as nothing
            // routes Service addresses.
            "--enable-aggregator-routing=true".to_owned(),
        ];
        // For logs of pods and commands in them, where there is a node.
        let kubelet_client =
            authority.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
        apiserver.extend([
            "--kubelet-preferred-address-types=Hostname".to_owned(),
            flag(
                "kubelet-client-certificate",
                &write("kubelet-client.crt", &kubelet_client.public)?,
            ),
            flag(
                "kubelet-client-key",
                &write("kubelet-client.key", &kubelet_client.key)?,
            ),
        ]);
        apiserver.extend(feature_gates.clone());
        apiserver.extend(optional("runtime-config", &comma_separated(runtime_config)));
        apiserver.extend(optional(
            "enable-admission-plugins",
            &enable_admission_plugins.join(","),
        ));
        apiserver.extend(optional(
            "disable-admission-plugins",
            &disable_admission_plugins.join(","),
        ));
        if let Some(text) = admission_configuration {
            let path = write("admission-configuration.yaml", text)?;
            apiserver.push(flag("admission-control-config-file", &path));
        }
        let mut audit_log = None;
        if let Some(text) = audit_policy {
            let log = workspace.path().join("audit.log");
            apiserver.push(flag(
                "audit-policy-file",
                &write("audit-policy.yaml", text)?,
            ));
            apiserver.push(flag("audit-log-path", &log.display().to_string()));
            audit_log = Some(log);
        }
        apiserver.extend(apiserver_args.iter().cloned());

        let client = authority.client("system:kube-controller-manager", None)?;
        let kubeconfig = kubeconfig::text(&server_url(port), &authority_pair.public, &client);
        let mut controller_manager = vec![
            flag(
                "kubeconfig",
                &write("kube-controller-manager.kubeconfig", &kubeconfig)?,
            ),
            "--secure-port=0".to_owned(), // nobody asks it anything
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            flag("service-account-private-key-file", &service_account_key),
            flag("root-ca-file", &ca),
            flag("cluster-signing-cert-file", &ca),
            flag("cluster-signing-key-file", &ca_key),
            // The default of 20 requests a second would let a test with many namespaces wait for
            // minutes.
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ];
        controller_manager.extend(feature_gates);
        controller_manager.extend(controller_manager_args.iter().cloned());

        Ok(Self {
            etcd,
            apiserver,
            controller_manager,
            audit_log,
        })
    }
}

/// Where the API server is.
pub(crate) fn server_url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

/// No flag at all for an empty value: an empty list is not always the same as the default.
fn optional(name: &str, value: &str) -> Option<String> {
    (!value.is_empty()).then(|| flag(name, value))
}

/// `a=true,b=false`, as Kubernetes' flags take maps.
fn comma_separated(settings: &BTreeMap<String, bool>) -> String {
    settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
