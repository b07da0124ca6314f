//! What is watched, and what of each object is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use hardening_api::PolicyKind;
use hardening_engine::{InvalidPolicy, Policy, PolicyKey};
use k8s_openapi::api::core::v1::{
    Namespace as CoreNamespace, ServiceAccount as CoreServiceAccount,
};
use k8s_openapi::api::node::v1::RuntimeClass as NodeRuntimeClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The resources that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    /// `podhardeningpolicies.podhardening.dev`
    PodHardeningPolicies,
    /// `clusterpodhardeningpolicies.podhardening.dev`
    ClusterPodHardeningPolicies,
    /// `namespaces`: their labels.
    Namespaces,
    /// `serviceaccounts`: what they say about their token.
    ServiceAccounts,
    /// `runtimeclasses.node.k8s.io`: which there are, and which nodes they ask for.
    RuntimeClasses,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A policy of either kind.
    Policy(PolicyKey),
    /// A namespace by its name.
    Namespace(String),
    /// A service account by its namespace and name.
    ServiceAccount(String, String),
    /// A RuntimeClass by its name.
    RuntimeClass(String),
}

/// What is kept of an object.
#[derive(Debug)]
pub enum Object {
    /// A policy compiled, or why it could not be.
    Policy(PolicyKey, Box<Result<Policy, InvalidPolicy>>),
    /// A namespace and its labels.
    Namespace(String, BTreeMap<String, String>),
    /// A service account by namespace and name, and its `automountServiceAccountToken`.
    ServiceAccount(String, String, Option<bool>),
    /// A RuntimeClass and its `scheduling.nodeSelector`.
    RuntimeClass(String, BTreeMap<String, String>),
}

/// A policy of the kind `K` as it is, and not as its type: one that an older schema let in, or that somebody
/// put past the schema, is still an object with a name. It can be reported, replaced and deleted, and its
/// neighbours in a list are not lost with it.
#[derive(Deserialize, Clone, Debug)]
#[serde(bound = "")]
pub(crate) struct RawPolicy<K> {
    #[serde(deserialize_with = "metadata")]
    metadata: Box<ObjectMeta>,
    #[serde(default)]
    spec: Value,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

/// A Namespace without what became of it.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = CoreNamespace)]
pub(crate) struct Namespace {
    #[serde(deserialize_with = "metadata")]
    metadata: Box<ObjectMeta>,
}

/// A ServiceAccount without its secrets' names.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = CoreServiceAccount)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceAccount {
    #[serde(deserialize_with = "metadata")]
    metadata: Box<ObjectMeta>,
    automount_service_account_token: Option<bool>,
}

/// A RuntimeClass as far as admission looks at it.
#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = NodeRuntimeClass)]
pub(crate) struct RuntimeClass {
    #[serde(deserialize_with = "metadata")]
    metadata: Box<ObjectMeta>,
    scheduling: Option<Scheduling>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Scheduling {
    node_selector: Option<BTreeMap<String, String>>,
}

// === impl Watched ===

impl Watched {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::PodHardeningPolicies,
        Self::ClusterPodHardeningPolicies,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::RuntimeClasses,
    ];

    /// The resource's name, as in a CustomResourceDefinition or a Role.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::PodHardeningPolicies => "podhardeningpolicies.podhardening.dev",
            Self::ClusterPodHardeningPolicies => "clusterpodhardeningpolicies.podhardening.dev",
            Self::Namespaces => "namespaces",
            Self::ServiceAccounts => "serviceaccounts",
            Self::RuntimeClasses => "runtimeclasses.node.k8s.io",
        }
    }

    /// Whether it is one of our own, which are there only once their definition was installed.
    #[must_use]
    pub fn is_policy(self) -> bool {
        match self {
            Self::PodHardeningPolicies | Self::ClusterPodHardeningPolicies => true,
            Self::Namespaces | Self::ServiceAccounts | Self::RuntimeClasses => false,
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())
    }
}

// === impl Key ===

impl Key {
    /// The resource that the object is one of.
    #[must_use]
    pub fn watched(&self) -> Watched {
        match self {
            Self::Policy(PolicyKey {
                namespace: Some(_),
                name: _,
            }) => Watched::PodHardeningPolicies,
            Self::Policy(PolicyKey {
                namespace: None,
                name: _,
            }) => Watched::ClusterPodHardeningPolicies,
            Self::Namespace(_) => Watched::Namespaces,
            Self::ServiceAccount(_, _) => Watched::ServiceAccounts,
            Self::RuntimeClass(_) => Watched::RuntimeClasses,
        }
    }

    pub(crate) fn of_policy<K>(object: &RawPolicy<K>) -> Self {
        Self::Policy(PolicyKey::of(&object.metadata))
    }

    pub(crate) fn of_namespace(object: &Namespace) -> Self {
        Self::Namespace(name(&object.metadata))
    }

    pub(crate) fn of_service_account(object: &ServiceAccount) -> Self {
        Self::ServiceAccount(namespace(&object.metadata), name(&object.metadata))
    }

    pub(crate) fn of_runtime_class(object: &RuntimeClass) -> Self {
        Self::RuntimeClass(name(&object.metadata))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(PolicyKey {
                namespace: Some(namespace),
                name,
            }) => {
                write!(f, "{} {namespace}/{name}", PolicyKind::Namespaced.name())
            }
            Self::Policy(PolicyKey {
                namespace: None,
                name,
            }) => {
                write!(f, "{} {name}", PolicyKind::Cluster.name())
            }
            Self::Namespace(name) => write!(f, "Namespace {name}"),
            Self::ServiceAccount(namespace, name) => write!(f, "ServiceAccount {namespace}/{name}"),
            Self::RuntimeClass(name) => write!(f, "RuntimeClass {name}"),
        }
    }
}

// === impl Object ===

impl Object {
    /// Which object it is.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Policy(key, _) => Key::Policy(key.clone()),
            Self::Namespace(name, _) => Key::Namespace(name.clone()),
            Self::ServiceAccount(namespace, name, _) => {
                Key::ServiceAccount(namespace.clone(), name.clone())
            }
            Self::RuntimeClass(name, _) => Key::RuntimeClass(name.clone()),
        }
    }

    /// Compiles a policy.
    pub(crate) fn policy<K>(object: RawPolicy<K>) -> Self {
        let RawPolicy {
            metadata,
            spec,
            kind: _,
        } = object;
        let key = PolicyKey::of(&metadata);
        let policy = Policy::from_spec(key.clone(), metadata.generation, spec);
        Self::Policy(key, Box::new(policy))
    }

    pub(crate) fn namespace(object: Namespace) -> Self {
        Self::Namespace(
            name(&object.metadata),
            object.metadata.labels.unwrap_or_default(),
        )
    }

    pub(crate) fn service_account(object: ServiceAccount) -> Self {
        let ServiceAccount {
            metadata,
            automount_service_account_token,
        } = object;
        Self::ServiceAccount(
            namespace(&metadata),
            name(&metadata),
            automount_service_account_token,
        )
    }

    pub(crate) fn runtime_class(object: RuntimeClass) -> Self {
        let RuntimeClass {
            metadata,
            scheduling,
        } = object;
        let node_selector = scheduling.and_then(|scheduling| scheduling.node_selector);
        Self::RuntimeClass(name(&metadata), node_selector.unwrap_or_default())
    }
}

// === impl RawPolicy ===

impl<K: Resource<DynamicType = ()>> Resource for RawPolicy<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Of an object's metadata what is looked at, here or by kube's watcher: the rest, `managedFields` before all, is passed
/// over. In a box, as objects are moved from one stream to the next.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<ObjectMeta>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
    }
    let Read {
        name,
        namespace,
        resource_version,
        generation,
        labels,
    } = Read::deserialize(deserializer)?;
    Ok(Box::new(ObjectMeta {
        name,
        namespace,
        resource_version,
        generation,
        labels,
        ..ObjectMeta::default()
    }))
}

/// The API server names every object.
fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn namespace(metadata: &ObjectMeta) -> String {
    metadata.namespace.clone().unwrap_or_default()
}
