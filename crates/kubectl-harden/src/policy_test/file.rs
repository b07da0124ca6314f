//! The form of a test's file.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use hardening_api::API_VERSION;
use hardening_manifests::{Object, Source};
use serde::Deserialize;
use serde_json::Value;

const KIND: &str = "PolicyTest";

/// Policies, manifests, and what is to become of their pods.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    /// Policies, and what they look at: files and folders, seen from the test's own folder.
    policies: Vec<PathBuf>,
    /// Pods, and what makes pods: files and folders, seen from the test's own folder.
    #[serde(default)]
    manifests: Vec<PathBuf>,
    /// More of the same, written out.
    #[serde(default)]
    pub(super) objects: Vec<Value>,
    /// Namespaces, with the labels that selectors look at.
    #[serde(default, deserialize_with = "namespaces")]
    pub(super) namespaces: Vec<Value>,
    pub(super) cases: Vec<Case>,
}

/// What is expected of one pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    /// `Deployment shop/web`; may be left out where there is only one.
    #[serde(default)]
    pub(super) object: Option<String>,
    /// The policies for it, in order, as `namespace/name` or `name`.
    #[serde(default)]
    pub(super) policies: Option<Vec<String>>,
    #[serde(default)]
    pub(super) pod_security: Option<Levels>,
    #[serde(default)]
    pub(super) fields: Vec<FieldExpectation>,
}

/// The highest levels of the Pod Security Standards that the pod meets.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Levels {
    /// Whose: `latest`, or `v1.33`.
    #[serde(default)]
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) before: Option<String>,
    #[serde(default)]
    pub(super) after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldExpectation {
    /// `spec.containers[app].securityContext.runAsUser`.
    pub(super) path: String,
    #[serde(default)]
    pub(super) value: Option<Value>,
    #[serde(default)]
    pub(super) absent: bool,
    /// Who set it.
    #[serde(default)]
    pub(super) set_by: Option<SetByExpectation>,
    /// The guard that held a default back.
    #[serde(default)]
    pub(super) withheld: Option<String>,
}

/// `author`, `pod`, `nobody`, or policies.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum SetByExpectation {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Namespace {
    name: String,
    #[serde(default)]
    labels: serde_json::Map<String, Value>,
}

fn namespaces<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let namespaces = Vec::<Namespace>::deserialize(deserializer)?;
    let namespace = |Namespace { name, labels }| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        })
    };
    Ok(namespaces.into_iter().map(namespace).collect())
}

// === impl File ===

impl File {
    pub(super) fn is_kind(object: &Object<'_>) -> bool {
        object.api_version == API_VERSION && object.kind == KIND
    }

    pub(super) fn parse(value: &Value) -> anyhow::Result<Self> {
        let file: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| anyhow!("{}: {}", error.path(), error.inner()))?;
        if file.cases.is_empty() {
            bail!("cases: there is none");
        }
        for (index, case) in file.cases.iter().enumerate() {
            case.check()
                .map_err(|problem| anyhow!("cases[{index}]{problem}"))?;
        }
        Ok(file)
    }

    pub(super) fn policies(&self, source: &Source) -> Vec<PathBuf> {
        beside(source, &self.policies)
    }

    pub(super) fn manifests(&self, source: &Source) -> Vec<PathBuf> {
        beside(source, &self.manifests)
    }
}

/// Paths as seen from the file that names them.
fn beside(source: &Source, paths: &[PathBuf]) -> Vec<PathBuf> {
    let folder = Path::new(&*source.file).parent().unwrap_or(Path::new(""));
    paths.iter().map(|path| folder.join(path)).collect()
}

impl Case {
    /// What is wrong with it: a test that expects nothing can never fail.
    fn check(&self) -> Result<(), String> {
        let Self {
            name: _,
            object: _,
            policies,
            pod_security,
            fields,
        } = self;
        if policies.is_none() && pod_security.is_none() && fields.is_empty() {
            return Err(": nothing is expected: give policies, podSecurity or fields".to_owned());
        }
        if let Some(Levels {
            before: None,
            after: None,
            ..
        }) = pod_security
        {
            return Err(".podSecurity: nothing is expected: give before or after".to_owned());
        }
        for (index, field) in fields.iter().enumerate() {
            let FieldExpectation {
                path: _,
                value,
                absent,
                set_by,
                withheld,
            } = field;
            let problem = if *absent && value.is_some() {
                "it cannot be absent and have a value"
            } else if !absent && value.is_none() && set_by.is_none() && withheld.is_none() {
                "nothing is expected: give value, absent, setBy or withheld"
            } else {
                continue;
            };
            return Err(format!(".fields[{index}]: {problem}"));
        }
        Ok(())
    }
}

impl SetByExpectation {
    pub(super) const NOBODY: &'static str = "nobody";

    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}
