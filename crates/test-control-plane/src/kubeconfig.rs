//! The text that lets kubectl and `kube` in.

use base64::{Engine, engine::general_purpose::STANDARD};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{Error, certs::Pair};

/// A kubeconfig that carries its certificates, so that it works wherever it is copied.
pub(crate) fn text(server: &str, ca: &str, client: &Pair) -> String {
    let (ca, certificate, key) = (
        STANDARD.encode(ca),
        STANDARD.encode(&client.public),
        STANDARD.encode(&client.key),
    );
    format!(
        "\
apiVersion: v1
kind: Config
current-context: test
contexts:
- name: test
  context: {{cluster: test, user: test}}
clusters:
- name: test
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: test
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// What a client makes of it.
pub(crate) async fn config(text: &str) -> Result<Config, Error> {
    let read = async || {
        Config::from_custom_kubeconfig(Kubeconfig::from_yaml(text)?, &KubeConfigOptions::default())
            .await
    };
    read()
        .await
        .map_err(|source| Error::Kubeconfig(Box::new(source)))
}
