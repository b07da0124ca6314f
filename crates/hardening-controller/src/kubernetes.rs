//! The way to the API server.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long the API server may take to answer for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// A client, and the namespace that the program itself runs in, if it runs in a cluster.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) own_namespace: Option<String>,
}

/// Connects by a kubeconfig file, or as the service account of the pod that this runs in.
///
/// With a kubeconfig there is somebody who gave it, and who wants to know at once that it leads nowhere. In
/// a cluster there is a kubelet, which would only start the program again, later each time: so there the
/// watches wait for the API server, and readiness with them.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Connection> {
    let Some(path) = kubeconfig else {
        let config = Config::incluster()
            .context("--kubeconfig is not given, and this does not run in a cluster")?;
        let own_namespace = Some(config.default_namespace.clone());
        let client = hardening_index::client(config).context("use the pod's service account")?;
        return Ok(Connection {
            client,
            own_namespace,
        });
    };
    let name = path.display();
    let read = Kubeconfig::read_from(path).with_context(|| format!("kubeconfig {name}"))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("kubeconfig {name}"))?;
    let server = config.cluster_url.to_string();
    let client = hardening_index::client(config).with_context(|| format!("kubeconfig {name}"))?;
    tokio::time::timeout(FIRST_ANSWER, client.apiserver_version())
        .await
        .with_context(|| format!("the API server {server} does not answer"))?
        .with_context(|| {
            format!("the API server {server} (of kubeconfig {name}) cannot be asked")
        })?;
    Ok(Connection {
        client,
        own_namespace: None,
    })
}
