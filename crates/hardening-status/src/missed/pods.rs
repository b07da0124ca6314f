//! What a scan reads, page by page.

use hardening_api::{ClusterPodHardeningPolicy, PodHardeningPolicy};
use hardening_engine::PolicyKey;
use hardening_engine::running::History;
use http::Request;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::debug;

use super::ScanError;

/// How many objects at a time.
const PAGE: u32 = 500;

/// A page of a list, its items as they are.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

/// Hands over each pod of the cluster, as the API server writes it.
pub(super) async fn each(client: &Client, mut take: impl FnMut(&str)) -> Result<(), ScanError> {
    each_of(client, "/api/v1/pods", |item| take(item))
        .await
        .map_err(|error| ScanError::List("pods", error))
}

/// When the webhook is asked, and since when policies exist.
pub(super) async fn history(client: &Client) -> Result<History, ScanError> {
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let mut registrations = Vec::new();
    let listed = each_of(client, path, |item| {
        registrations.extend(serde_json::from_str::<Value>(item).ok());
    });
    let known = match listed.await {
        Ok(()) => true,
        // Without it pods are found all the same; why they lack something is then not always known.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            debug!(
                error = status.message,
                "not allowed to see webhooks' registrations"
            );
            false
        }
        Err(error) => return Err(ScanError::List("mutatingwebhookconfigurations", error)),
    };
    let mut history = History::new(known);
    for registration in &registrations {
        history.read_registration(registration);
    }
    created::<PodHardeningPolicy>(client, &mut history, "podhardeningpolicies").await?;
    created::<ClusterPodHardeningPolicy>(client, &mut history, "clusterpodhardeningpolicies")
        .await?;
    Ok(history)
}

/// Adds when the policies of a kind were created.
async fn created<K>(
    client: &Client,
    history: &mut History,
    what: &'static str,
) -> Result<(), ScanError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list_metadata(&params).await;
        let page = page.map_err(|error| ScanError::List(what, error))?;
        for PartialObjectMeta { metadata, .. } in page.items {
            let key = PolicyKey {
                namespace: metadata.namespace,
                name: metadata.name.unwrap_or_default(),
            };
            if let Some(created) = metadata.creation_timestamp {
                history.read_policy(key, &created.0.to_string());
            }
        }
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(()),
        }
    }
}

async fn each_of(
    client: &Client,
    path: &str,
    mut take: impl FnMut(&str),
) -> Result<(), kube::Error> {
    let mut next = String::new();
    loop {
        let mut uri = format!("{path}?limit={PAGE}");
        if !next.is_empty() {
            uri = format!("{uri}&continue={next}");
        }
        let request = Request::get(uri).body(Vec::new());
        let request = request.map_err(|error| kube::Error::Service(error.into()))?;
        let page: Page = client.request(request).await?;
        page.items.iter().for_each(|item| take(item.get()));
        if page.metadata.next.is_empty() {
            return Ok(());
        }
        // In the alphabet of URLs' own base64, and so a part of one as it is.
        next = page.metadata.next;
    }
}
