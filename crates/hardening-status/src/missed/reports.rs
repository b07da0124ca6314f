//! Keeps the PolicyReports as a scan found them, where the cluster has their definition.

use std::collections::BTreeMap;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client, ResourceExt as _};
use policy_report::PolicyReport;
use tracing::debug;

use super::ScanError;
use super::finding::{Findings, MANAGED_BY, REPORT};

/// The owner of the fields, for server-side apply.
const FIELD_MANAGER: &str = "pod-hardening-missed-pods";
/// How many reports at a time.
const PAGE: u32 = 100;

/// Writes the reports that differ from those that are there, and deletes those with nothing to report.
/// Nothing is done where the cluster does not know PolicyReports.
pub(super) async fn write(client: &Client, found: &Findings) -> Result<(), ScanError> {
    let Some(mut present) = present(client).await? else {
        return Ok(());
    };
    let failed = |namespace: &str| {
        let namespace = namespace.to_owned();
        move |error| ScanError::Report(namespace, error)
    };
    for report in found.reports() {
        let namespace = report.namespace().unwrap_or_default();
        let api = Api::<PolicyReport>::namespaced(client.clone(), &namespace);
        let before = present.remove(&namespace);
        if before.is_some_and(|before| before.results == report.results) {
            continue;
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(REPORT, &params, &Patch::Apply(&report)).await {
            Ok(_) => {}
            // The namespace is on its way out.
            Err(kube::Error::Api(status)) if status.code == 404 || is_terminating(&status) => {
                debug!(namespace, error = status.message, "no report");
            }
            Err(error) => return Err(failed(&namespace)(error)),
        }
    }
    for (namespace, report) in present {
        let api = Api::<PolicyReport>::namespaced(client.clone(), &namespace);
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: report.uid(),
            resource_version: None,
        });
        match api.delete(REPORT, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(failed(&namespace)(error)),
        }
    }
    Ok(())
}

/// Whether nothing can be made in a namespace because it is on its way out.
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// This program's reports, by namespace; `None`: the cluster does not know PolicyReports.
async fn present(client: &Client) -> Result<Option<BTreeMap<String, PolicyReport>>, ScanError> {
    let (key, value) = MANAGED_BY;
    let api = Api::<PolicyReport>::all(client.clone());
    let mut params = ListParams::default()
        .labels(&format!("{key}={value}"))
        .limit(PAGE);
    let mut present = BTreeMap::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(ScanError::List("policyreports", error)),
        };
        let ours = page
            .items
            .into_iter()
            .filter(|report| report.name_any() == REPORT);
        present.extend(ours.filter_map(|report| Some((report.namespace()?, report))));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(Some(present)),
        }
    }
}
