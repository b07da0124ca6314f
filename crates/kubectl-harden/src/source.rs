//! Where policies and running pods come from: files, or a cluster. The only place that talks to a
//! cluster.
//!
//! A cluster is asked for as little as will do, so that someone who may see little can still ask: the
//! policies that can matter to the pods at hand, those pods' namespaces, and, only where a policy needs
//! them, their service accounts and the RuntimeClasses.

mod named;
mod pages;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hardening_api::{API_VERSION, PolicyKind};
use hardening_engine::{Field, KubernetesVersion, Policy, PolicySet};
use hardening_manifests::{Manifest, Object, Source, objects, policy_set, read};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::args::{ClusterArgs, PolicyArgs};
use crate::output::{Problems, names};
use crate::workload::Workload;

pub(crate) use pages::{Form, List};

/// How long a cluster may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where policies come from.
pub(crate) enum Policies {
    Files {
        paths: Vec<PathBuf>,
        manifests: Vec<Manifest>,
    },
    Cluster(Cluster),
}

/// A cluster, ready to be asked.
pub(crate) struct Cluster {
    runtime: Runtime,
    client: Client,
    /// Its API server, for messages.
    url: String,
    /// The namespace of the kubeconfig's context.
    namespace: String,
}

/// The policies, and what is odd about them.
pub(crate) struct Known {
    pub(crate) set: PolicySet,
    /// For standard error.
    pub(crate) warnings: Vec<String>,
}

/// The API server answers, and not with what it was asked for: above all where a right is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

// === impl Policies ===

impl Policies {
    /// The policies that the command line asks for: those in files, else the cluster's.
    pub(crate) fn open(policies: &PolicyArgs, cluster: &ClusterArgs) -> anyhow::Result<Self> {
        let paths = policies.policies.clone();
        if paths.is_empty() {
            let cluster =
                Cluster::open(cluster).map_err(|error| anyhow!("{error:#}; or give --policies"))?;
            return Ok(Self::Cluster(cluster));
        }
        let manifests = read(&paths)?;
        Ok(Self::Files { paths, manifests })
    }

    /// The namespace of objects that name none, unless the command line says which.
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Self::Files { .. } => "default",
            Self::Cluster(cluster) => &cluster.namespace,
        }
    }

    /// What is needed to plan for the workloads' pods. `input` are the manifests that the workloads come
    /// from: the namespaces and service accounts among them count where nothing else is known of them.
    /// `kubernetes` is the version that the pods are for; `None`: the cluster's, where one is asked.
    pub(crate) fn for_workloads(
        &self,
        workloads: &[Workload<'_>],
        input: &[Manifest],
        namespace: &str,
        kubernetes: Option<KubernetesVersion>,
    ) -> anyhow::Result<Known> {
        let (mut known, mut warnings) = match self {
            Self::Files { manifests, .. } => (manifests.clone(), Vec::new()),
            Self::Cluster(cluster) => cluster.manifests(workloads)?,
        };
        add_unknown(&mut known, input, namespace);
        let (mut set, problems) = policy_set(&known, namespace);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match self {
            Self::Files { .. } if !problems.is_empty() => bail!(Problems(problems)),
            Self::Files { paths, .. } if set.policy_count() == 0 => {
                let [namespaced, cluster] = PolicyKind::ALL.map(PolicyKind::name);
                bail!("{}: no {namespaced} or {cluster} in it", names(paths))
            }
            Self::Files { .. } => {}
            Self::Cluster(_) => {
                if uses(&set, Field::RuntimeClassName) {
                    set.know_all_runtime_classes();
                }
            }
        }
        set.set_kubernetes_version(match self {
            Self::Cluster(cluster) if kubernetes.is_none() && depends_on_version(&set) => {
                cluster.version_or_warning(&mut warnings)?
            }
            Self::Files { .. } | Self::Cluster(_) => kubernetes,
        });
        // In a cluster a broken policy is without effect, and harms no other.
        warnings.extend(
            problems
                .into_iter()
                .map(|problem| format!("warning: {problem}")),
        );
        Ok(Known { set, warnings })
    }
}

/// Adds, of the input, what says something about the cluster and is not known from elsewhere.
pub(crate) fn add_unknown(known: &mut Vec<Manifest>, input: &[Manifest], namespace: &str) {
    let key = |object: &Object<'_>| {
        let namespaced = object.kind == "ServiceAccount";
        let namespace = namespaced.then(|| object.namespace().unwrap_or(namespace).to_owned());
        (
            object.kind.to_owned(),
            namespace,
            object.name().map(str::to_owned),
        )
    };
    let mut keys: BTreeSet<_> = objects(known).map(|object| key(&object)).collect();
    let says_something = |object: &Object<'_>| {
        matches!(
            (object.api_version, object.kind),
            ("v1", "Namespace" | "ServiceAccount") | ("node.k8s.io/v1", "RuntimeClass")
        )
    };
    for object in objects(input).filter(says_something) {
        if keys.insert(key(&object)) {
            known.push(alone(&object, object.source.clone()));
        }
    }
}

/// An object by itself; of a typed list's item, with the kind that only the list says.
pub(crate) fn alone(object: &Object<'_>, source: Source) -> Manifest {
    let mut value = object.value.clone();
    if let Value::Object(members) = &mut value {
        members.insert("apiVersion".to_owned(), object.api_version.into());
        members.insert("kind".to_owned(), object.kind.into());
    }
    Manifest { source, value }
}

pub(crate) fn uses(set: &PolicySet, field: Field) -> bool {
    set.policies()
        .any(|policy| policy.fields().any(|used| used == field))
}

/// Whether there are versions of Kubernetes without a field that the policies set.
fn depends_on_version(set: &PolicySet) -> bool {
    let mut fields = set.policies().flat_map(Policy::fields);
    fields.any(|field| field.row().since.is_some())
}

// === impl Cluster ===

impl Cluster {
    /// Reads the kubeconfig. The cluster is not asked anything yet.
    pub(crate) fn open(args: &ClusterArgs) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let _entered = runtime.enter();
        let mut config = runtime.block_on(config(args))?;
        // Someone is waiting, and can ask again.
        config.default_retry = false;
        let (url, namespace) = (
            config
                .cluster_url
                .to_string()
                .trim_end_matches('/')
                .to_owned(),
            config.default_namespace.clone(),
        );
        let client = Client::try_from(config)
            .map_err(|error| anyhow!("the kubeconfig cannot be used: {}", reason(&error)))?;
        drop(_entered);
        Ok(Self {
            runtime,
            client,
            url,
            namespace,
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A namespace, if there is one.
    pub(crate) fn namespace_object(&self, name: &str) -> anyhow::Result<Option<Manifest>> {
        let path = format!("/api/v1/namespaces/{}", segment(name)?);
        let what = format!("get namespace {name}");
        let answer = self.one(&path, ("v1", "Namespace"), &what);
        self.runtime.block_on(answer)
    }

    /// The API server's version; where it does not tell, that, as a warning.
    fn version_or_warning(
        &self,
        warnings: &mut Vec<String>,
    ) -> anyhow::Result<Option<KubernetesVersion>> {
        match self.kubernetes_version() {
            Err(error) if error.is::<Refused>() => {
                warnings.push(format!(
                    "warning: {error:#}: it is taken to have every field, unless --kubernetes-version says which it has"
                ));
                Ok(None)
            }
            told => told,
        }
    }

    /// The roles and bindings of all namespaces.
    pub(crate) fn rbac(&self) -> anyhow::Result<Vec<Manifest>> {
        let group = "/apis/rbac.authorization.k8s.io/v1";
        let kinds = [
            "roles",
            "clusterroles",
            "rolebindings",
            "clusterrolebindings",
        ];
        self.all(&kinds.map(|kind| (format!("{group}/{kind}"), kind)))
    }

    /// The namespaces, and the service accounts in them.
    pub(crate) fn namespaces(&self) -> anyhow::Result<Vec<Manifest>> {
        self.all(&["namespaces", "serviceaccounts"].map(|kind| (format!("/api/v1/{kind}"), kind)))
    }

    fn all(&self, lists: &[(String, &str)]) -> anyhow::Result<Vec<Manifest>> {
        let mut found = Vec::new();
        for (path, kind) in lists {
            let listed = self
                .runtime
                .block_on(self.list(path, &format!("list {kind}")))?;
            found.extend(listed.with_context(|| format!("{}: there are no {kind}", self.url))?);
        }
        Ok(found)
    }

    /// All that decides what the workloads' pods get.
    fn manifests(
        &self,
        workloads: &[Workload<'_>],
    ) -> anyhow::Result<(Vec<Manifest>, Vec<String>)> {
        if workloads.is_empty() {
            return Ok(Default::default());
        }
        let mut accounts = BTreeSet::new();
        for workload in workloads {
            let pod = workload.pod()?;
            accounts.insert((
                workload.namespace.as_str(),
                pod.service_account_name().to_owned(),
            ));
        }
        self.runtime.block_on(self.ask(&accounts))
    }

    /// What the pods with these service accounts, by namespace and name, need; and what is odd about it.
    async fn ask(
        &self,
        accounts: &BTreeSet<(&str, String)>,
    ) -> anyhow::Result<(Vec<Manifest>, Vec<String>)> {
        let mut warnings = Vec::new();
        let namespaces: BTreeSet<&str> = accounts.iter().map(|(namespace, _)| *namespace).collect();
        let mut found = self.policies(&namespaces).await?;
        let (policies, _) = policy_set(&found, &self.namespace);
        for namespace in namespaces {
            let path = format!("/api/v1/namespaces/{}", segment(namespace)?);
            match self.one(&path, ("v1", "Namespace"), &format!("get namespace {namespace}")).await? {
                Some(manifest) => found.push(manifest),
                None => warnings.push(format!(
                    "warning: {}: there is no namespace {namespace} yet: unless it is among the manifests, it is taken to have just its name as a label",
                    self.url
                )),
            }
        }
        if uses(&policies, Field::AutomountServiceAccountToken) {
            for (namespace, name) in accounts {
                let path = format!(
                    "/api/v1/namespaces/{}/serviceaccounts/{}",
                    segment(namespace)?,
                    segment(name)?
                );
                let what = format!("get service account {namespace}/{name}");
                found.extend(self.one(&path, ("v1", "ServiceAccount"), &what).await?);
            }
        }
        if uses(&policies, Field::RuntimeClassName) {
            let path = "/apis/node.k8s.io/v1/runtimeclasses";
            found.extend(
                self.list(path, "list RuntimeClasses")
                    .await?
                    .unwrap_or_default(),
            );
        }
        Ok((found, warnings))
    }

    async fn policies(&self, namespaces: &BTreeSet<&str>) -> anyhow::Result<Vec<Manifest>> {
        let base = format!("/apis/{API_VERSION}");
        let mut lists = vec![(
            format!("{base}/clusterpodhardeningpolicies"),
            PolicyKind::Cluster,
            String::new(),
        )];
        for namespace in namespaces {
            let path = format!(
                "{base}/namespaces/{}/podhardeningpolicies",
                segment(namespace)?
            );
            lists.push((
                path,
                PolicyKind::Namespaced,
                format!(" in namespace {namespace}"),
            ));
        }
        let mut found = Vec::new();
        for (path, kind, place) in lists {
            let kind = kind.name();
            let listed = self
                .list(&path, &format!("list {kind} objects{place}"))
                .await?;
            found.extend(listed.with_context(|| {
                format!(
                    "{}: the custom resource {kind} is not installed in this cluster",
                    self.url
                )
            })?);
        }
        Ok(found)
    }

    /// The one object at a path, if there is one.
    async fn one(
        &self,
        path: &str,
        kind: (&str, &str),
        what: &str,
    ) -> anyhow::Result<Option<Manifest>> {
        let Some(mut value) = self.get(path, what).await? else {
            return Ok(None);
        };
        if let Value::Object(members) = &mut value {
            members.insert("apiVersion".to_owned(), kind.0.into());
            members.insert("kind".to_owned(), kind.1.into());
        }
        Ok(Some(Manifest {
            source: self.source(),
            value,
        }))
    }

    /// The items of the list at a path; `None` where the cluster does not know the resource.
    async fn list(&self, path: &str, what: &str) -> anyhow::Result<Option<Vec<Manifest>>> {
        let Some(value) = self.get(path, what).await? else {
            return Ok(None);
        };
        Ok(Some(self.items(value)))
    }

    /// The items of a list, each by itself.
    fn items(&self, value: Value) -> Vec<Manifest> {
        let list = Manifest {
            source: self.source(),
            value,
        };
        objects(std::slice::from_ref(&list))
            .map(|item| alone(&item, self.source()))
            .collect()
    }

    /// What is at a path, if anything.
    async fn get(&self, path: &str, what: &str) -> anyhow::Result<Option<Value>> {
        self.get_as(path, "application/json", what).await
    }

    /// What is at a path, if anything, in a form that the API server is asked for.
    async fn get_as(&self, path: &str, form: &str, what: &str) -> anyhow::Result<Option<Value>> {
        let request = http::Request::get(path).header(http::header::ACCEPT, form);
        let answer = self.client.request(request.body(Vec::new())?);
        let error = match self.within_patience(answer).await {
            Ok(value) => return Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => error,
        };
        let text = format!("{}: cannot {what}: {}", self.url, reason(&error));
        Err(match error {
            kube::Error::Api(_) => Refused(text).into(),
            _ => anyhow!(text),
        })
    }

    async fn within_patience<T>(
        &self,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, kube::Error> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                Err(kube::Error::Service(
                    format!("no answer within {seconds} seconds").into(),
                ))
            }
        }
    }

    fn source(&self) -> Source {
        Source {
            file: self.url.as_str().into(),
            document: None,
            item: None,
        }
    }
}

/// The configuration that kubectl would use: the kubeconfig, or, in a pod, its service account.
async fn config(args: &ClusterArgs) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let read = match &args.kubeconfig {
        Some(path) => match Kubeconfig::read_from(path) {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&options).await,
    };
    let chosen = args.kubeconfig.is_some() || args.context.is_some();
    match read {
        Ok(config) => Ok(config),
        Err(error) => match Config::incluster() {
            Ok(config) if !chosen => Ok(config),
            _ => Err(match error {
                KubeconfigError::ReadConfig(cause, path) => {
                    anyhow!("{}: the kubeconfig cannot be read: {cause}", path.display())
                }
                // Its text has its causes in it already.
                other => anyhow!("the kubeconfig cannot be used: {other}"),
            }),
        },
    }
}

/// Why the API server did not give what it was asked for.
fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return match status.message.is_empty() {
            true => format!("{} {}", status.code, status.reason),
            false => status.message.trim().to_owned(),
        };
    }
    // kube repeats causes in its texts, and the innermost one says most.
    let mut error: &dyn Error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// A name as a part of a path. What could be none is refused, so that it cannot point elsewhere.
pub(crate) fn segment(name: &str) -> anyhow::Result<&str> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let is_name = !name.is_empty()
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed);
    if is_name {
        Ok(name)
    } else {
        bail!("{name:?} is no name of a Kubernetes object")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_point_elsewhere() {
        for name in ["web", "web-1", "a.b-c.9"] {
            assert_eq!(segment(name).unwrap(), name);
        }
        for name in [
            "", "..", "a/b", "../x", "Web", "a b", "a?b", "a%2fb", "ä", "-a",
        ] {
            assert!(segment(name).is_err(), "{name}");
        }
    }
}
