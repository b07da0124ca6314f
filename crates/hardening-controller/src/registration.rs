//! The program's registration with the API server, where it makes it itself: out of a cluster, with
//! `--webhook-url`. In a cluster the manifests own it.
//!
//! It is made once the program is ready, because from then on pods' creation waits for the program; and it
//! is taken back on every way out. A program that was killed leaves it behind: with failurePolicy Ignore
//! that costs each pod's creation a refused connection, and the next start takes it over.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hardening_webhook::Readiness;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::args::FailurePolicy;
use crate::error::one_line;

/// What is registered.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The MutatingWebhookConfiguration's name.
    pub(crate) name: String,
    pub(crate) url: String,
    /// In PEM; `None`: the CAs that the API server's machine trusts.
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) failure_policy: FailurePolicy,
    /// Besides kube-system.
    pub(crate) excluded_namespaces: Vec<String>,
}

/// Makes the registration and takes it back. Clones are one and the same.
#[derive(Clone)]
pub(crate) struct Registrar {
    api: Api<MutatingWebhookConfiguration>,
    registration: Arc<Registration>,
    /// Tells this process's registration from another's.
    instance: Arc<str>,
    registered: Arc<AtomicBool>,
}

/// Which process made the registration. What lacks it was made by somebody else, and is never touched.
const REGISTERED_BY: &str = "podhardening.dev/registered-by";
/// The owner of the fields, for server-side apply.
const FIELD_MANAGER: &str = "hardening-controller";
/// Pauses between attempts while the API server does not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the way out may wait for the API server.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the API server waits for an answer.
const TIMEOUT_SECONDS: i32 = 3;

// === impl Registration ===

impl Registration {
    fn object(&self, instance: &str) -> MutatingWebhookConfiguration {
        let annotations = BTreeMap::from([(REGISTERED_BY.to_owned(), instance.to_owned())]);
        MutatingWebhookConfiguration {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            // Of a pod's updates only new ephemeral containers: the rest of its spec cannot be changed, and
            // a patch of it would make every older pod impossible to update or delete.
            webhooks: Some(vec![
                self.webhook("pods.podhardening.dev", "CREATE", "pods"),
                self.webhook(
                    "ephemeralcontainers.podhardening.dev",
                    "UPDATE",
                    "pods/ephemeralcontainers",
                ),
            ]),
        }
    }

    fn webhook(&self, name: &str, operation: &str, resource: &str) -> MutatingWebhook {
        let strings =
            |values: &[&str]| Some(values.iter().map(|value| (*value).to_owned()).collect());
        let excluded = self.excluded_namespaces.iter().map(String::as_str);
        let mut namespaces: Vec<String> = ["kube-system"]
            .into_iter()
            .chain(excluded)
            .map(str::to_owned)
            .collect();
        namespaces.sort();
        namespaces.dedup();
        MutatingWebhook {
            name: name.to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: WebhookClientConfig {
                url: Some(self.url.clone()),
                ca_bundle: self.ca.clone().map(ByteString),
                service: None,
            },
            rules: Some(vec![RuleWithOperations {
                operations: strings(&[operation]),
                api_groups: strings(&[""]),
                api_versions: strings(&["v1"]),
                resources: strings(&[resource]),
                scope: Some("Namespaced".to_owned()),
            }]),
            failure_policy: Some(
                match self.failure_policy {
                    FailurePolicy::Ignore => "Ignore",
                    FailurePolicy::Fail => "Fail",
                }
                .to_owned(),
            ),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            // What other webhooks add, sidecars above all, is hardened too.
            reinvocation_policy: Some("IfNeeded".to_owned()),
            side_effects: "None".to_owned(),
            match_policy: Some("Equivalent".to_owned()),
            // By the one label that nobody can forge.
            namespace_selector: Some(LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "kubernetes.io/metadata.name".to_owned(),
                    operator: "NotIn".to_owned(),
                    values: Some(namespaces),
                }]),
                match_labels: None,
            }),
            object_selector: None,
            // Mirror pods, told by who creates them: their annotation anybody can set.
            match_conditions: Some(vec![MatchCondition {
                name: "not-by-a-kubelet".to_owned(),
                expression: "!has(request.userInfo.groups) || \
                             !('system:nodes' in request.userInfo.groups)"
                    .to_owned(),
            }]),
        }
    }
}

// === impl Registrar ===

impl Registrar {
    pub(crate) fn new(client: Client, registration: Registration) -> Self {
        Self {
            api: Api::all(client),
            registration: Arc::new(registration),
            instance: format!("{:016x}", RandomState::new().build_hasher().finish()).into(),
            registered: Arc::default(),
        }
    }

    /// Registers once the program is ready, and unregisters at `shutdown`.
    pub(crate) async fn run(
        self,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let registering = async {
            readiness.until_ready().await;
            self.register().await
        };
        if let Some(registered) = shutdown.run_until_cancelled(registering).await {
            registered?;
            shutdown.cancelled().await;
        }
        self.unregister().await;
        Ok(())
    }

    /// Tries until the API server answers; what it refuses is an error.
    async fn register(&self) -> anyhow::Result<()> {
        let name = &self.registration.name;
        loop {
            let error = match self.try_register().await {
                Ok(()) => {
                    tracing::info!(
                        name,
                        url = self.registration.url,
                        "registered with the API server"
                    );
                    return Ok(());
                }
                Err(error) => {
                    error.context(format!("register MutatingWebhookConfiguration {name}"))
                }
            };
            if !is_transient(&error) {
                return Err(error);
            }
            tracing::warn!(error = one_line(&error), "trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_register(&self) -> anyhow::Result<()> {
        let Registration { name, .. } = &*self.registration;
        let existing = self.api.get_opt(name).await?;
        if existing.is_some_and(|existing| registered_by(&existing).is_none()) {
            bail!(
                "there is one that this program did not make; --registration-name takes another name"
            );
        }
        // From here on it may be there, whatever comes back.
        self.registered.store(true, Ordering::Relaxed);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let object = self.registration.object(&self.instance);
        self.api.patch(name, &params, &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Takes the registration back, if it was made and nobody else has taken it over. Done again it does
    /// nothing.
    pub(crate) async fn unregister(&self) {
        if !self.registered.load(Ordering::Relaxed) {
            return;
        }
        let name = &self.registration.name;
        let unregistered = tokio::time::timeout(FAREWELL, self.try_unregister()).await;
        match unregistered
            .context("the API server does not answer")
            .flatten()
        {
            Ok(()) => {
                self.registered.store(false, Ordering::Relaxed);
                tracing::info!(name, "unregistered");
            }
            Err(error) => tracing::error!(
                error = one_line(&error),
                "could not unregister; `kubectl delete mutatingwebhookconfiguration {name}` does"
            ),
        }
    }

    async fn try_unregister(&self) -> anyhow::Result<()> {
        let name = &self.registration.name;
        let Some(existing) = self.api.get_opt(name).await? else {
            return Ok(());
        };
        if registered_by(&existing) != Some(&*self.instance) {
            return Ok(());
        }
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: existing.metadata.uid,
            resource_version: existing.metadata.resource_version,
        });
        match self.api.delete(name, &params).await {
            Ok(_) => Ok(()),
            // Somebody else was faster, and it is theirs now.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn registered_by(object: &MutatingWebhookConfiguration) -> Option<&str> {
    object
        .metadata
        .annotations
        .as_ref()?
        .get(REGISTERED_BY)
        .map(String::as_str)
}

/// Whether trying again may help: not where the API server understood, and refused.
fn is_transient(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.code >= 500 || matches!(status.code, 409 | 429),
        Some(_) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::{Method, Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn registration() -> Registration {
        Registration {
            name: "test".to_owned(),
            url: "https://webhook:9443/mutate".to_owned(),
            ca: Some(b"CA".to_vec()),
            failure_policy: FailurePolicy::Ignore,
            excluded_namespaces: vec!["own".to_owned(), "kube-system".to_owned(), "dev".to_owned()],
        }
    }

    #[test]
    fn the_registration_asks_for_new_pods_and_new_ephemeral_containers_only() {
        let webhook = |name: &str, operation: &str, resource: &str| {
            json!({
                "name": name,
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://webhook:9443/mutate", "caBundle": "Q0E="},
                "rules": [{
                    "operations": [operation],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": [resource],
                    "scope": "Namespaced",
                }],
                "failurePolicy": "Ignore",
                "timeoutSeconds": 3,
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchExpressions": [{
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": ["dev", "kube-system", "own"],
                }]},
                "matchConditions": [{
                    "name": "not-by-a-kubelet",
                    "expression": "!has(request.userInfo.groups) || !('system:nodes' in request.userInfo.groups)",
                }],
            })
        };
        let expected = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "test", "annotations": {"podhardening.dev/registered-by": "me"}},
            "webhooks": [
                webhook("pods.podhardening.dev", "CREATE", "pods"),
                webhook("ephemeralcontainers.podhardening.dev", "UPDATE", "pods/ephemeralcontainers"),
            ],
        });
        assert_eq!(
            serde_json::to_value(registration().object("me")).unwrap(),
            expected
        );
    }

    /// An API server with at most one MutatingWebhookConfiguration.
    #[derive(Clone, Default)]
    struct ApiServer(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        object: Option<Value>,
        /// Answers to give before any other.
        failures: Vec<StatusCode>,
    }

    fn made_by(instance: Option<&str>) -> Value {
        let annotations = instance.map(|instance| json!({REGISTERED_BY: instance}));
        json!({"metadata": {"name": "test", "annotations": annotations, "uid": "1", "resourceVersion": "1"}})
    }

    impl ApiServer {
        fn with(object: Option<Value>, failures: &[StatusCode]) -> Self {
            Self(Arc::new(Mutex::new(State {
                object,
                failures: failures.to_vec(),
            })))
        }

        fn object(&self) -> Option<Value> {
            self.0.lock().unwrap().object.clone()
        }

        async fn answer(self, request: Request<Body>) -> Response<Body> {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let mut state = self.0.lock().unwrap();
            let status = |code: StatusCode| {
                let reason = match code {
                    StatusCode::NOT_FOUND => "NotFound",
                    StatusCode::CONFLICT => "Conflict",
                    StatusCode::FORBIDDEN => "Forbidden",
                    _ => "InternalError",
                };
                let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(),
                    "reason": reason, "message": format!("answer {}", code.as_u16())});
                (code, status)
            };
            let (code, object) = if !state.failures.is_empty() {
                status(state.failures.remove(0))
            } else if method == Method::PATCH {
                state.object = Some(body.clone());
                (StatusCode::OK, body)
            } else {
                match (state.object.clone(), method) {
                    (None, _) => status(StatusCode::NOT_FOUND),
                    (Some(object), Method::GET) => (StatusCode::OK, object),
                    (Some(_), Method::DELETE) => {
                        state.object = None;
                        (
                            StatusCode::OK,
                            json!({"kind": "Status", "status": "Success", "code": 200}),
                        )
                    }
                    (Some(_), method) => panic!("{method}"),
                }
            };
            Response::builder()
                .status(code)
                .body(Body::from(object.to_string().into_bytes()))
                .unwrap()
        }

        fn registrar(&self) -> Registrar {
            let server = self.clone();
            let service = tower::service_fn(move |request| {
                let answer = server.clone().answer(request);
                async move { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            let mut registrar = Registrar::new(Client::new(service, "default"), registration());
            registrar.instance = "me".into();
            registrar
        }

        fn made_by(&self) -> Option<Value> {
            Some(self.object()?["metadata"]["annotations"][REGISTERED_BY].clone())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_registers_where_nobody_else_did() {
        const DOWN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        let cases = [
            (None, vec![], Ok("me")),
            (None, vec![DOWN, DOWN, StatusCode::CONFLICT], Ok("me")),
            // Left behind by a process that was killed.
            (Some(made_by(Some("other"))), vec![], Ok("me")),
            (
                Some(made_by(None)),
                vec![],
                Err("that this program did not make"),
            ),
            (None, vec![StatusCode::FORBIDDEN], Err("answer 403")),
        ];
        for (object, failures, expected) in cases {
            let server = ApiServer::with(object.clone(), &failures);
            let registered = server.registrar().register().await;
            match expected {
                Ok(instance) => {
                    registered.unwrap();
                    assert_eq!(server.made_by(), Some(json!(instance)));
                }
                Err(part) => {
                    let error = one_line(&registered.unwrap_err());
                    assert!(
                        error.starts_with("register MutatingWebhookConfiguration test: "),
                        "{error}"
                    );
                    assert!(error.contains(part), "{error}");
                    assert_eq!(server.object(), object);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_takes_back_its_own_registration_only() {
        let cases = [
            (Some(made_by(Some("me"))), None),
            (Some(made_by(Some("other"))), Some(made_by(Some("other")))),
            (Some(made_by(None)), Some(made_by(None))),
            (None, None),
        ];
        for (object, expected) in cases {
            let server = ApiServer::with(object, &[]);
            let registrar = server.registrar();
            registrar.registered.store(true, Ordering::Relaxed);
            registrar.unregister().await;
            assert_eq!(server.object(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_farewell_can_be_tried_again() {
        let server = ApiServer::with(
            Some(made_by(Some("me"))),
            &[StatusCode::INTERNAL_SERVER_ERROR],
        );
        let registrar = server.registrar();
        registrar.registered.store(true, Ordering::Relaxed);
        registrar.unregister().await;
        assert_eq!(server.made_by(), Some(json!("me")));
        registrar.clone().unregister().await;
        assert_eq!(server.object(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_registers_when_ready_and_unregisters_at_the_end() {
        let server = ApiServer::with(None, &[]);
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let condition = readiness.condition("policies");
        let running = tokio::spawn(server.registrar().run(readiness, shutdown.clone()));
        // Time only passes when there is nothing left to do.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(server.object(), None);
        condition.met();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(server.made_by(), Some(json!("me")));
        shutdown.cancel();
        running.await.unwrap().unwrap();
        assert_eq!(server.object(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_got_ready_is_never_registered() {
        let server = ApiServer::with(None, &[]);
        let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
        let _condition = readiness.condition("policies");
        shutdown.cancel();
        server.registrar().run(readiness, shutdown).await.unwrap();
        assert_eq!(server.object(), None);
    }
}
