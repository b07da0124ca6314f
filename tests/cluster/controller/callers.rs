//! A webhook that only the API server may call: the API server is configured as docs/operations.md says.

use std::fs;

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use serde_json::json;
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use super::{filled_by, put_policy, until_stored};
use crate::support::api::{Api, bare_namespace};
use crate::support::controller::{Controller, REGISTRATION, free_addresses};
use crate::support::crds::install;

const NAMESPACE: &str = "callers";
const CALLER: &str = "the-api-server";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_api_server_with_its_certificate_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [listen, metrics] = free_addresses();

    // The certificate that the API server shows, of a CA of its own.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::default();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, CALLER);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    fs::write(path("ca.crt"), ca.pem()).unwrap();
    fs::write(path("client.crt"), certificate.pem()).unwrap();
    fs::write(path("client.key"), key.serialize_pem()).unwrap();
    let user = json!({"client-certificate": path("client.crt"), "client-key": path("client.key")});
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": listen.to_string(), "user": user}],
    });
    fs::write(path("kubeconfig"), kubeconfig.to_string()).unwrap();
    let webhooks = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": path("kubeconfig"),
    });
    let admission = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "MutatingAdmissionWebhook", "configuration": webhooks}],
    });

    let control_plane = ControlPlane::start(ControlPlaneOptions {
        controller_manager: false,
        admission_configuration: Some(admission.to_string()),
        ..ControlPlaneOptions::default()
    });
    let control_plane = control_plane.await.unwrap();
    let api = Api::of(&control_plane);
    install(&api).await;
    let more = [
        format!("--client-ca={}", path("ca.crt")),
        format!("--client-name={CALLER}"),
    ];
    let controller =
        Controller::start_at(&control_plane, "callers", [listen, metrics], &more).await;

    bare_namespace(&api, NAMESPACE, &json!({})).await;
    put_policy(
        &api,
        Some(NAMESPACE),
        "strict",
        &json!({"profile": "Hardened"}),
    )
    .await;
    until_stored(&api, NAMESPACE, "the API server is answered", |pod| {
        !filled_by(pod).is_empty()
    })
    .await;

    // Anybody else trusts the same CA, and shows nothing.
    let registration = api.get(REGISTRATION).await.unwrap();
    let trusted = registration["webhooks"][0]["clientConfig"]["caBundle"].as_str();
    let trusted = base64::engine::general_purpose::STANDARD
        .decode(trusted.unwrap())
        .unwrap();
    let turned_away = "podhardening_connection_errors_total{reason=\"client-certificate\"}";
    let (_, page) = controller.get("/metrics").await.unwrap();
    assert!(page.contains(&format!("{turned_away} 0")), "{page}");
    let stranger = Api::at(&format!("https://{listen}"), &trusted).await;
    assert!(!stranger.answers().await);
    let (_, page) = controller.get("/metrics").await.unwrap();
    assert!(!page.contains(&format!("{turned_away} 0")), "{page}");

    controller.terminate().await;
    control_plane.stop().await.unwrap();
}
