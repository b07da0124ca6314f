//! A pod, or what makes pods, that someone names as kubectl has it: `web`, `deploy/web`.

use anyhow::{Context as _, bail};
use hardening_manifests::Manifest;
use serde_json::Value;

use super::{Cluster, segment};

/// A kind of workload.
#[derive(Debug)]
struct Kind {
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    short: &'static str,
}

const fn kind(
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    short: &'static str,
) -> Kind {
    Kind {
        api_version,
        name,
        plural,
        short,
    }
}

const KINDS: [Kind; 9] = [
    kind("v1", "Pod", "pods", "po"),
    kind("apps/v1", "Deployment", "deployments", "deploy"),
    kind("apps/v1", "ReplicaSet", "replicasets", "rs"),
    kind("apps/v1", "StatefulSet", "statefulsets", "sts"),
    kind("apps/v1", "DaemonSet", "daemonsets", "ds"),
    kind("batch/v1", "CronJob", "cronjobs", "cj"),
    kind("batch/v1", "Job", "jobs", "job"),
    kind(
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        "rc",
    ),
    kind("v1", "PodTemplate", "podtemplates", "podtemplate"),
];

impl Cluster {
    /// What someone names, in a namespace.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> anyhow::Result<Manifest> {
        let (kind, name) = parse(name)?;
        let prefix = match kind.api_version.contains('/') {
            true => "apis",
            false => "api",
        };
        let path = format!(
            "/{prefix}/{}/namespaces/{}/{}/{}",
            kind.api_version,
            segment(namespace)?,
            kind.plural,
            segment(name)?
        );
        let what = kind.name.to_lowercase();
        let mut value = self
            .runtime
            .block_on(self.get(&path, &format!("get {what} {namespace}/{name}")))?
            .with_context(|| format!("there is no {what} {namespace}/{name}"))?;
        if let Value::Object(members) = &mut value {
            members.insert("apiVersion".to_owned(), kind.api_version.into());
            members.insert("kind".to_owned(), kind.name.into());
        }
        Ok(Manifest {
            source: self.source(),
            value,
        })
    }
}

/// `deployments.v1.apps/web` is the Deployment web, and `web` the pod.
fn parse(text: &str) -> anyhow::Result<(&'static Kind, &str)> {
    let [pods, ..] = &KINDS;
    let Some((type_, name)) = text.split_once('/') else {
        return Ok((pods, text));
    };
    let mut parts = type_.splitn(2, '.');
    let resource = parts.next().unwrap_or_default().to_lowercase();
    let group = parts.next().map(|group| match group.split_once('.') {
        Some(("v1", group)) => group,
        None if group == "v1" => "",
        _ => group,
    });
    let found = KINDS.iter().find(|kind| {
        let known =
            [kind.plural, kind.short, &kind.name.to_lowercase()].contains(&resource.as_str());
        let own = kind
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        known && group.is_none_or(|group| group == own)
    });
    match found {
        Some(kind) => Ok((kind, name)),
        // What may as well be a path is shown whole.
        None if segment(&resource).is_err() => bail!("{text:?} is no name of a Kubernetes object"),
        None => {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.plural).collect();
            bail!(
                "{type_:?} is none of the types that make pods: {}",
                known.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_as_kubectl_has_it() {
        for (text, expected) in [
            ("web", Some(("Pod", "web"))),
            ("pod/web", Some(("Pod", "web"))),
            ("po/web", Some(("Pod", "web"))),
            ("deploy/web", Some(("Deployment", "web"))),
            ("Deployment/web", Some(("Deployment", "web"))),
            ("deployments.apps/web", Some(("Deployment", "web"))),
            ("deployments.v1.apps/web", Some(("Deployment", "web"))),
            ("pods.v1/web", Some(("Pod", "web"))),
            ("cj/report", Some(("CronJob", "report"))),
            ("job.batch/report", Some(("Job", "report"))),
            ("sts/db", Some(("StatefulSet", "db"))),
            ("ds/agent", Some(("DaemonSet", "agent"))),
            ("rs/web-1", Some(("ReplicaSet", "web-1"))),
            ("rc/old", Some(("ReplicationController", "old"))),
            ("podtemplates/t", Some(("PodTemplate", "t"))),
            ("jobs.batch.volcano.sh/x", None),
            ("services/web", None),
            ("svc/web", None),
            ("../web", None),
        ] {
            let found = parse(text).ok().map(|(kind, name)| (kind.name, name));
            assert_eq!(found, expected, "{text}");
        }
    }
}
