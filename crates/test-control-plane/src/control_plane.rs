//! The control plane itself: its programs, started in order, waited for, and ended.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{Api, Client, Config};
use tokio::{sync::OnceCell, task, time::Instant};

use crate::{
    Binaries, ControlPlaneOptions, Error, Progress, Tool,
    arguments::{Arguments, server_url},
    certs::Authority,
    kubeconfig,
    network::Network,
    port::ReservedPort,
    process::{self, Program},
    workspace::Workspace,
};

/// What [`ControlPlane::stop`] gives each program before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);

/// A running control plane. It ends when this value is dropped, and when the process ends, in
/// whatever way.
///
/// Dropping blocks for up to a second; [`stop`](Self::stop) is the polite way.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: first who uses, then what is used.
    controller_manager: Option<Program>,
    apiserver: Option<Program>,
    etcd: Program,
    workspace: Workspace,
    port: ReservedPort,

    binaries: Binaries,
    authority: Authority,
    arguments: Arguments,
    kubeconfig: String,
    kubeconfig_path: PathBuf,
    config: Config,
    start_timeout: Duration,
}

impl ControlPlane {
    /// One control plane with default options for the whole process: for a test binary, whose tests
    /// share it and keep to a namespace each. Started by whoever asks first; ends with the process.
    ///
    /// If it could not be started, everybody is told why, and nobody tries again.
    pub async fn shared() -> Result<&'static Self, &'static Error> {
        static SHARED: OnceCell<Result<ControlPlane, Error>> = OnceCell::const_new();
        SHARED
            .get_or_init(|| Self::start(ControlPlaneOptions::default()))
            .await
            .as_ref()
    }

    /// Starts a control plane and waits until it works: the API server is ready and, with a
    /// controller manager, the namespace `default` has what a pod needs.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self, Error> {
        let binaries = match &options.binaries {
            Some(binaries) => binaries.clone(),
            None => task::spawn_blocking(|| Binaries::locate_or_build(Progress::auto()))
                .await
                .map_err(Error::Interrupted)??,
        };
        if options.controller_manager {
            binaries.path(Tool::KubeControllerManager)?; // so that nothing is started in vain
        }
        let etcd = binaries.path(Tool::Etcd)?;

        let workspace = Workspace::create()?;
        let port = ReservedPort::reserve()?;
        let authority = Authority::create()?;
        let arguments = Arguments::prepare(&options, &workspace, &authority, port.number())?;
        let admin = authority.client("admin", Some("system:masters"))?;
        let kubeconfig =
            kubeconfig::text(&server_url(port.number()), &authority.pair().public, &admin);
        let kubeconfig_path = workspace.write("admin.kubeconfig", &kubeconfig)?;
        let config = kubeconfig::config(&kubeconfig).await?;

        let etcd = Program::spawn(&Tool::Etcd, &etcd, &arguments.etcd, &workspace)?;
        let mut control_plane = Self {
            controller_manager: None,
            apiserver: None,
            etcd,
            workspace,
            port,
            binaries,
            authority,
            arguments,
            kubeconfig,
            kubeconfig_path,
            config,
            start_timeout: options.start_timeout,
        };
        // etcd comes up meanwhile: the API server waits for it.
        control_plane.start_apiserver().await?;
        if options.controller_manager {
            control_plane.start_controller_manager().await?;
        }
        Ok(control_plane)
    }

    /// Ends the programs in order, each gracefully, and removes everything. Fails, having ended
    /// them all the same, if one had to be killed.
    pub async fn stop(self) -> Result<(), Error> {
        let Self {
            controller_manager,
            apiserver,
            etcd,
            workspace,
            ..
        } = self;
        let mut result = Ok(());
        for program in [controller_manager, apiserver, Some(etcd)]
            .into_iter()
            .flatten()
        {
            result = result.and(program.terminate(GRACE).await);
        }
        result.and(workspace.remove())
    }

    /// Ends the API server at once, as a crash would. Its port and data stay.
    pub fn stop_apiserver(&mut self) {
        if let Some(apiserver) = self.apiserver.take() {
            apiserver.kill();
        }
    }

    /// Starts the API server on its port, over its data, and waits until it is ready. Does nothing
    /// if it runs.
    pub async fn start_apiserver(&mut self) -> Result<(), Error> {
        if self
            .apiserver
            .as_mut()
            .is_some_and(|apiserver| apiserver.check().is_ok())
        {
            return Ok(());
        }
        let path = self.binaries.path(Tool::KubeApiserver)?;
        let apiserver = Program::spawn(
            &Tool::KubeApiserver,
            &path,
            &self.arguments.apiserver,
            &self.workspace,
        )?;
        self.apiserver = Some(apiserver);
        self.until_apiserver_ready().await
    }

    async fn until_apiserver_ready(&mut self) -> Result<(), Error> {
        let client = self.client()?;
        self.wait_for("a ready API server", Tool::KubeApiserver, || async {
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .map_err(kube::Error::HttpError)?;
            Ok(client.request_text(request).await? == "ok")
        })
        .await
    }

    /// Ends the store at once, as a crash would, starts it again over its data, and waits until the API server
    /// is ready again, which goes on meanwhile.
    pub async fn restart_etcd(&mut self) -> Result<(), Error> {
        let path = self.binaries.path(Tool::Etcd)?;
        self.etcd.end();
        self.etcd = Program::spawn(&Tool::Etcd, &path, &self.arguments.etcd, &self.workspace)?;
        self.until_apiserver_ready().await
    }

    /// A client with all rights. Made anew each time, as a client belongs to the tokio runtime it
    /// was made in and each `#[tokio::test]` has its own.
    pub fn client(&self) -> Result<Client, Error> {
        Client::try_from(self.config()).map_err(|source| Error::Client(Box::new(source)))
    }

    /// The configuration of [`client`](Self::client).
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A kubeconfig with all rights, which needs no other file.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// The file that holds [`kubeconfig`](Self::kubeconfig).
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// A kubeconfig for another user, who is in no group but `system:authenticated` and, if given,
    /// that one.
    pub fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<String, Error> {
        let client = self.authority.client(user, group)?;
        Ok(kubeconfig::text(
            &self.server_url(),
            &self.authority.pair().public,
            &client,
        ))
    }

    /// Where the API server is, such as `https://127.0.0.1:39127`.
    pub fn server_url(&self) -> String {
        server_url(self.port.number())
    }

    /// The port of [`server_url`](Self::server_url), which no other control plane on this machine has.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The addresses of Services and pods.
    pub(crate) fn network(&self) -> Network {
        Network::of_port(self.port.number())
    }

    /// The programs that run here.
    pub(crate) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The certificate of the authority that signed the API server's certificate.
    pub fn ca_pem(&self) -> String {
        self.authority.pair().public
    }

    /// Starts another program beside the control plane, such as what is to be tested against it. It
    /// runs in [`directory`](Self::directory) and logs there, and ends with the value returned, and
    /// however this process ends.
    pub fn run(&self, name: &str, path: &Path, arguments: &[String]) -> Result<Program, Error> {
        Program::spawn(name, path, arguments, &self.workspace)
    }

    /// The log of a program that runs here.
    pub fn log_path(&self, tool: Tool) -> PathBuf {
        process::log_path(&self.workspace, tool)
    }

    /// The audit log, if the options had an audit policy.
    pub fn audit_log_path(&self) -> Option<&Path> {
        self.arguments.audit_log.as_deref()
    }

    /// The folder that goes with this value: a place for what belongs to the same test.
    pub fn directory(&self) -> &Path {
        self.workspace.path()
    }

    /// The path of a kubectl of the same version.
    pub fn kubectl(&self) -> Result<PathBuf, Error> {
        self.binaries.path(Tool::Kubectl)
    }

    async fn start_controller_manager(&mut self) -> Result<(), Error> {
        let tool = Tool::KubeControllerManager;
        let program = Program::spawn(
            &tool,
            &self.binaries.path(tool)?,
            &self.arguments.controller_manager,
            &self.workspace,
        )?;
        self.controller_manager = Some(program);
        let client = self.client()?;
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
        let config_maps = Api::<ConfigMap>::namespaced(client, "default");
        self.wait_for(
            "the ServiceAccount and CA of namespace default",
            tool,
            || async {
                Ok(accounts.get_opt("default").await?.is_some()
                    && config_maps.get_opt("kube-root-ca.crt").await?.is_some())
            },
        )
        .await
    }

    /// Looks again and again until it is there, a program ends, or it took too long.
    async fn wait_for<Look>(
        &mut self,
        what: &'static str,
        tool: Tool,
        look: impl Fn() -> Look,
    ) -> Result<(), Error>
    where
        Look: Future<Output = Result<bool, kube::Error>>,
    {
        let deadline = Instant::now() + self.start_timeout;
        loop {
            let met = match tokio::time::timeout(LOOK, look()).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(Err(error)) => Some(Box::new(error)),
                Ok(Ok(false)) | Err(_) => None, // not yet, or no answer yet
            };
            let programs = [
                Some(&mut self.etcd),
                self.apiserver.as_mut(),
                self.controller_manager.as_mut(),
            ];
            for program in programs.into_iter().flatten() {
                program.check()?;
            }
            if Instant::now() >= deadline {
                let log = process::log_tail(&self.workspace, tool);
                return Err(Error::NotReady {
                    what,
                    tool,
                    waited: self.start_timeout,
                    log,
                    source: met,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
