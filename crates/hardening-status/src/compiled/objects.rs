//! The objects in the cluster: which are there, which differ, which are to go.
//!
//! Only those with this program's label are changed or deleted. An object of a name that is wanted and that somebody else
//! has made stays as it is: a compiled set out of Git, for instance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hardening_compile::{CompiledPolicy, LABEL, LABEL_VALUE, VERSION};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;

/// The owner of the fields, for server-side apply.
const FIELD_MANAGER: &str = "pod-hardening-compiled";
/// By which the objects are known to be this program's, besides being compiled.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "pod-hardening");
/// How many objects at a time: one of them may have a hundred kilobytes.
const PAGE: u32 = 50;
/// How long API servers may take until what was applied is in force: they load such policies anew every second, and
/// each kind by a watch of its own. What it replaces goes after that.
const SETTLE: Duration = Duration::from_secs(5);

/// Where the names of a binding's namespaces are.
const EXPRESSION: &str = "/spec/matchResources/namespaceSelector/matchExpressions/0";

/// The two kinds of objects, by their API.
pub(super) struct Objects {
    policies: Api<DynamicObject>,
    bindings: Api<DynamicObject>,
}

/// What a pass has done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Objects that were created or changed.
    pub(super) written: usize,
    /// Objects that were deleted.
    pub(super) deleted: usize,
    /// Why, by name, a compiled policy is not as it is to be.
    pub(super) failed: BTreeMap<String, String>,
}

/// Why nothing could be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {0}")]
pub(super) struct ListError(pub(super) &'static str, #[source] pub(super) kube::Error);

/// The objects of a kind, by name.
struct Kind<'a, 'w> {
    api: &'a Api<DynamicObject>,
    wanted: BTreeMap<&'w str, Value>,
    /// Those that have the label of what is compiled.
    there: BTreeMap<String, Present>,
}

/// An object that is there and has the label of what is compiled.
#[derive(Debug)]
struct Present {
    uid: Option<String>,
    is_ours: bool,
    /// Whether it is what is wanted.
    is_same: bool,
    /// The namespaces that a binding selects, or all but which it does.
    selects: Option<Selected>,
}

/// The namespaces of a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Selected {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
}

/// What becomes of a binding's namespaces.
#[derive(Debug)]
enum Change {
    /// It loses none.
    Gains,
    /// It gains none.
    Loses,
    /// It gains some and loses some: this is the binding with all of them.
    Both(Value),
}

// === impl Objects ===

impl Objects {
    pub(super) fn new(client: &Client) -> Self {
        let (group, version) = VERSION.split_once('/').unwrap_or_default();
        let api = |kind: &str, plural: &str| {
            let kind = GroupVersionKind::gvk(group, version, kind);
            let resource = ApiResource::from_gvk_with_plural(&kind, plural);
            Api::all_with(client.clone(), &resource)
        };
        Self {
            policies: api("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
            bindings: api(
                "MutatingAdmissionPolicyBinding",
                "mutatingadmissionpolicybindings",
            ),
        }
    }

    /// Makes the cluster have these and no others of this program's.
    ///
    /// First whatever gives defaults, then, once that is in force, whatever takes some away: at no moment has a namespace
    /// none because it goes from one compiled policy to another.
    pub(super) async fn apply(&self, wanted: &[CompiledPolicy]) -> Result<Outcome, ListError> {
        let policies = wanted.iter().map(|one| (&*one.name, owned(&one.policy)));
        let policies = Kind::look(&self.policies, policies.collect())
            .await
            .map_err(|error| ListError("mutatingadmissionpolicies", error))?;
        let bindings = wanted.iter().map(|one| (&*one.name, owned(&one.binding)));
        let bindings = Kind::look(&self.bindings, bindings.collect())
            .await
            .map_err(|error| ListError("mutatingadmissionpolicybindings", error))?;

        let mut outcome = Outcome::default();
        let narrower = give(&policies, &bindings, &mut outcome).await;
        let takes = !narrower.is_empty() || bindings.gone().next().is_some();
        if takes && outcome.written > 0 {
            sleep(SETTLE).await;
        }
        take(&policies, &bindings, &narrower, &mut outcome).await;
        Ok(outcome)
    }
}

/// Applies all policies, and the bindings with the namespaces that they gain; the names of those that lose some as well.
async fn give<'w>(
    policies: &Kind<'_, 'w>,
    bindings: &Kind<'_, 'w>,
    outcome: &mut Outcome,
) -> Vec<&'w str> {
    for (name, policy) in &policies.wanted {
        outcome.put(policies, name, policy).await;
    }
    let mut narrower = Vec::new();
    for (&name, binding) in &bindings.wanted {
        // Without its policy a binding gives nothing.
        if outcome.failed.contains_key(name) {
            continue;
        }
        let before = bindings.there.get(name);
        let change = before.map_or(Change::Gains, |before| Change::of(binding, before));
        match &change {
            Change::Gains => outcome.put(bindings, name, binding).await,
            Change::Both(wider) => outcome.put(bindings, name, wider).await,
            Change::Loses => {}
        }
        if !matches!(change, Change::Gains) {
            narrower.push(name);
        }
    }
    narrower
}

/// Takes from bindings the namespaces that they lose, and deletes what is not wanted any more. Where what a namespace
/// is to have could not be applied, it keeps what it had.
async fn take(
    policies: &Kind<'_, '_>,
    bindings: &Kind<'_, '_>,
    narrower: &[&str],
    outcome: &mut Outcome,
) {
    let failed = bindings.wanted.iter();
    let failed = failed.filter(|(name, _)| outcome.failed.contains_key(**name));
    let without: Vec<Selected> = failed.filter_map(|(_, one)| Selected::of(one)).collect();
    let is_needed = |name: &str| {
        let selects = bindings
            .there
            .get(name)
            .and_then(|one| one.selects.as_ref());
        selects.is_some_and(|selects| without.iter().any(|without| selects.meets(without)))
    };
    for &name in narrower {
        if let Some(binding) = bindings.wanted.get(name).filter(|_| !is_needed(name)) {
            outcome.put(bindings, name, binding).await;
        }
    }
    for kind in [bindings, policies] {
        for (name, one) in kind.gone().filter(|(name, _)| !is_needed(name)) {
            outcome.delete(kind.api, name, one.uid.clone()).await;
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Applies an object, unless it is there as it is to be.
    async fn put(&mut self, kind: &Kind<'_, '_>, name: &str, wanted: &Value) {
        let params = PatchParams::apply(FIELD_MANAGER);
        let params = match kind.there.get(name) {
            Some(Present { is_ours: false, .. }) => {
                let kind = wanted["kind"].as_str().unwrap_or_default();
                let why = format!("{kind} {name} is there and is not this program's");
                self.failed.insert(name.to_owned(), why);
                return;
            }
            Some(Present { is_same: true, .. }) => return,
            Some(_) => params.force(),
            // Whoever has made one without the label keeps it: what differs is a conflict.
            None => params,
        };
        match kind.api.patch(name, &params, &Patch::Apply(wanted)).await {
            Ok(_) => self.written += 1,
            Err(error) => self.fail(name, &error),
        }
    }

    /// Deletes an object, unless it is another one of that name by now.
    async fn delete(&mut self, api: &Api<DynamicObject>, name: &str, uid: Option<String>) {
        let params = DeleteParams::default().preconditions(Preconditions {
            uid,
            resource_version: None,
        });
        match api.delete(name, &params).await {
            Ok(_) => self.deleted += 1,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => self.fail(name, &error),
        }
    }

    fn fail(&mut self, name: &str, error: &kube::Error) {
        let error = format!("{name}: {}", crate::error::chain(error));
        self.failed.insert(name.to_owned(), error);
    }
}

/// A compiled object with the label by which it is found to be this program's.
fn owned(object: &Value) -> Value {
    let mut object = object.clone();
    let (key, value) = MANAGED_BY;
    let labels = object.pointer_mut("/metadata/labels");
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.insert(key.to_owned(), value.into());
    }
    object
}

// === impl Kind ===

impl<'a, 'w> Kind<'a, 'w> {
    /// Looks at what is there, page by page, as all of it may be much.
    async fn look(
        api: &'a Api<DynamicObject>,
        wanted: BTreeMap<&'w str, Value>,
    ) -> Result<Self, kube::Error> {
        let mut params = ListParams::default()
            .labels(&format!("{LABEL}={LABEL_VALUE}"))
            .limit(PAGE);
        let mut there = BTreeMap::new();
        loop {
            let page = api.list(&params).await?;
            for object in page.items {
                let name = object.name_any();
                let one = Present::of(object, wanted.get(&*name));
                there.insert(name, one);
            }
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(Self { api, wanted, there }),
            }
        }
    }

    /// This program's objects that are not wanted.
    fn gone(&self) -> impl Iterator<Item = (&str, &Present)> {
        let ours = self.there.iter().filter(|(_, one)| one.is_ours);
        ours.map(|(name, one)| (name.as_str(), one))
            .filter(|(name, _)| !self.wanted.contains_key(name))
    }
}

// === impl Present ===

impl Present {
    fn of(object: DynamicObject, wanted: Option<&Value>) -> Self {
        let (key, value) = MANAGED_BY;
        let (uid, is_ours) = (
            object.uid(),
            object.labels().get(key).is_some_and(|owner| owner == value),
        );
        let object = serde_json::to_value(object).unwrap_or_default();
        let is_same = wanted.is_some_and(|wanted| {
            let mut parts = ["/metadata/labels", "/metadata/annotations", "/spec"].iter();
            parts.all(|part| match (object.pointer(part), wanted.pointer(part)) {
                (Some(there), Some(wanted)) => has(there, wanted),
                (_, wanted) => wanted.is_none(),
            })
        });
        Self {
            uid,
            is_ours,
            is_same,
            selects: Selected::of(&object),
        }
    }
}

/// Whether all that is wanted is there; what the API server adds to it does not count.
fn has(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| there.get(key).is_some_and(|there| has(there, wanted))),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there
                    .iter()
                    .zip(wanted)
                    .all(|(there, wanted)| has(there, wanted))
        }
        _ => there == wanted,
    }
}

// === impl Change ===

impl Change {
    fn of(wanted: &Value, before: &Present) -> Self {
        let (Some(had), Some(wants)) = (&before.selects, Selected::of(wanted)) else {
            return Self::Gains;
        };
        let all = match (had, &wants) {
            (Selected::In(had), Selected::In(wants)) => Selected::In(had | wants),
            (Selected::NotIn(had), Selected::NotIn(wants)) => Selected::NotIn(had & wants),
            // A name is for one of the two.
            (Selected::In(_), Selected::NotIn(_)) | (Selected::NotIn(_), Selected::In(_)) => {
                wants.clone()
            }
        };
        if all == wants {
            return Self::Gains;
        }
        if all == *had {
            return Self::Loses;
        }
        let mut wider = wanted.clone();
        let values = wider
            .pointer_mut(EXPRESSION)
            .and_then(|expression| expression.get_mut("values"));
        if let Some(values) = values {
            let (Selected::In(names) | Selected::NotIn(names)) = all;
            *values = json!(names);
        }
        Self::Both(wider)
    }
}

// === impl Selected ===

impl Selected {
    fn of(binding: &Value) -> Option<Self> {
        let expression = binding.pointer(EXPRESSION)?;
        let values = expression.get("values")?.as_array()?;
        let names = values
            .iter()
            .filter_map(|name| Some(name.as_str()?.to_owned()));
        match expression.get("operator")?.as_str()? {
            "In" => Some(Self::In(names.collect())),
            "NotIn" => Some(Self::NotIn(names.collect())),
            _ => None,
        }
    }

    /// Whether there can be a namespace that both select.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(names), Self::In(others)) => !names.is_disjoint(others),
            (Self::In(names), Self::NotIn(all_but)) | (Self::NotIn(all_but), Self::In(names)) => {
                !names.is_subset(all_but)
            }
            (Self::NotIn(_), Self::NotIn(_)) => true,
        }
    }
}

#[cfg(test)]
mod tests;
