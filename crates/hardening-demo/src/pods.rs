//! What the demonstration looks at in pods.

use anyhow::Context as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::stage::until;

/// The pod of a Deployment's template as the API server would store it in a namespace that enforces nothing:
/// with all its own defaults, and stored nowhere.
pub(crate) async fn stored_without_us(
    client: &Client,
    deployment: &Value,
) -> anyhow::Result<Value> {
    let mut pod: Pod = serde_json::from_value(at(deployment, "/spec/template").clone())
        .context("read the Deployment's template")?;
    pod.metadata.name = Some("web".to_owned());
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod = Api::<Pod>::namespaced(client.clone(), "default")
        .create(&dry_run, &pod)
        .await
        .context("ask the API server how it would store the pod")?;
    Ok(serde_json::to_value(pod)?)
}

/// Why the ReplicaSet of a Deployment could not make a pod.
pub(crate) async fn refusal(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<String> {
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    let of_replica_sets =
        ListParams::default().fields("involvedObject.kind=ReplicaSet,reason=FailedCreate");
    let prefix = format!("{name}-");
    until(
        "the ReplicaSet says that it cannot make its pod",
        async || {
            let found = events
                .list(&of_replica_sets)
                .await?
                .into_iter()
                .find(|event| {
                    let object = event.involved_object.name.as_deref();
                    object.is_some_and(|object| object.starts_with(&prefix))
                });
            Ok(found.and_then(|event| event.message))
        },
    )
    .await
}

/// The pod that a Deployment's ReplicaSet has made.
pub(crate) async fn of_deployment(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Value> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
    let pod = until("the ReplicaSet has made its pod", async || {
        Ok(pods.list(&labelled).await?.into_iter().next())
    })
    .await?;
    Ok(serde_json::to_value(pod)?)
}

/// The name of a Deployment's pod, once there is only one.
pub(crate) async fn only_one(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<String> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
    until("the Deployment has one pod only", async || {
        let mut found = pods.list(&labelled).await?.items;
        let last = found.pop().filter(|_| found.is_empty());
        Ok(last.and_then(|pod| pod.metadata.name))
    })
    .await
}

/// Waits until nothing of a Deployment is left.
pub(crate) async fn until_gone(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    until("the Deployment is gone", async || {
        Ok(deployments.get_opt(name).await?.is_none().then_some(()))
    })
    .await
}

/// Waits until the API server asks the webhook, and the webhook knows that many policies for a namespace.
pub(crate) async fn until_hardened(
    client: &Client,
    namespace: &str,
    policies: usize,
) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let probe: Pod = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    until("the API server sends pods to the webhook", async || {
        // Pod Security refuses the probe for as long as nothing is filled in.
        let stored = pods.create(&dry_run, &probe).await.ok();
        let filled = stored.and_then(|pod| filled_by(&pod.metadata));
        Ok(filled.filter(|filled| filled.len() >= policies).map(drop))
    })
    .await
}

/// The policies that filled something in, by the pod's annotation.
fn filled_by(metadata: &ObjectMeta) -> Option<Vec<String>> {
    let annotation = metadata
        .annotations
        .as_ref()?
        .get("podhardening.dev/filled")?;
    let record: serde_json::Map<String, Value> = serde_json::from_str(annotation).ok()?;
    Some(record.into_iter().map(|(policy, _)| policy).collect())
}

/// What can differ between a pod as it was written and as it arrived, as YAML: not its name and number.
pub(crate) fn yaml(pod: &Value) -> anyhow::Result<String> {
    let mut labels = at(pod, "/metadata/labels").clone();
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let spec = at(pod, "/spec");
    let shown = match at(pod, "/metadata/annotations") {
        Value::Null => json!({"metadata": {"labels": labels}, "spec": spec}),
        annotations => {
            json!({"metadata": {"annotations": annotations, "labels": labels}, "spec": spec})
        }
    };
    Ok(serde_saphyr::to_string(&shown)?)
}

/// A container of a pod.
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let lists = ["/spec/containers", "/spec/initContainers"].map(|list| at(pod, list).as_array());
    lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|container| at(container, "/name") == name)
        .with_context(|| format!("the pod has no container {name}"))
}

/// What stands at a JSON pointer; null where nothing does.
pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}
