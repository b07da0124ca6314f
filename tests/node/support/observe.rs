//! What became of a pod, as it looks from outside: what `kubectl get pod` shows as its STATUS, and why.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::{self, Report};

/// What became of a pod, as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Whether every container that should run does, and says that it works.
    pub(crate) is_ready: bool,
    /// Whether nothing more will come.
    pub(crate) is_over: bool,
    /// What the processes that have ended reported, by container.
    pub(crate) reports: BTreeMap<String, Report>,
    /// What keeps it from running: its STATUS in kubectl's words, and the message that goes with it.
    pub(crate) trouble: Option<(String, String)>,
}

const LISTS: [&str; 3] = [
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// Reads a pod's status and its events.
pub(crate) fn observe(pod: &Value, events: &[Value]) -> Observed {
    let status = &pod["status"];
    let phase = status["phase"].as_str().unwrap_or_default();
    let mut observed = Observed {
        is_ready: items(&status["conditions"])
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
        is_over: ["Succeeded", "Failed"].contains(&phase),
        ..Observed::default()
    };
    for (list, container) in LISTS
        .iter()
        .flat_map(|list| items(&status[*list]).map(move |container| (*list, container)))
    {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let ended = [&container["state"], &container["lastState"]]
            .map(|state| &state["terminated"])
            .into_iter()
            .find(|ended| ended.is_object());
        if let Some(message) = ended.and_then(|ended| ended["message"].as_str()) {
            observed.reports.insert(name, report::read(message));
        }
        if observed.trouble.is_none() {
            observed.trouble = trouble(container).map(|(reason, message)| {
                let prefix = if list.starts_with("init") {
                    "Init:"
                } else {
                    ""
                };
                (format!("{prefix}{reason}"), message)
            });
        }
    }
    // The kubelet refused the whole pod.
    if let Some(reason) = status["reason"].as_str() {
        let message = status["message"].as_str().unwrap_or_default();
        observed.trouble = Some((reason.to_owned(), message.to_owned()));
    }
    // The pod's sandbox is not there, which only events tell.
    if observed.trouble.is_none() && phase == "Pending" {
        observed.trouble = events
            .iter()
            .filter(|event| event["involvedObject"]["uid"] == pod["metadata"]["uid"])
            .find(|event| event["reason"] == "FailedCreatePodSandBox")
            .and_then(|event| event["message"].as_str())
            .map(|message| ("ContainerCreating".to_owned(), message.to_owned()));
    }
    observed
}

/// Why a container does not run, or has failed.
fn trouble(container: &Value) -> Option<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let waiting = &container["state"]["waiting"];
    let on_its_way = ["ContainerCreating", "PodInitializing"];
    if waiting["reason"]
        .as_str()
        .is_some_and(|reason| !on_its_way.contains(&reason))
    {
        return Some((text(&waiting["reason"]), text(&waiting["message"])));
    }
    let ended = &container["state"]["terminated"];
    (ended.is_object() && ended["exitCode"] != 0)
        .then(|| (text(&ended["reason"]), text(&ended["message"])))
}

/// The items of a list that may not be there.
fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
