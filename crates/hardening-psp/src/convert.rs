//! The mutating half: a PSP's defaults as hardening policies.
//!
//! What PSP filled in at pod level becomes a `pod` default, what it filled in on containers a `containers`
//! default. Capabilities were merged into the lists that authors wrote, and nothing else was: hence
//! `listMerge: Union` for them, in a policy of their own where the PSP has `supplementalGroups` to give too.

use std::collections::{BTreeMap, BTreeSet};

use hardening_api::policy::{
    AppArmorProfile, Capabilities, ContainerDefaults, ListMerge, Mode, PodDefaults,
    PodSecurityContext, ProfileType, SeLinuxOptions, SeccompProfile, SecurityContext, Tier,
};
use hardening_api::{
    ClusterPodHardeningPolicy, ClusterPodHardeningPolicySpec, PodHardeningPolicy,
    PodHardeningPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use serde_json::Value;

use crate::capability;
use crate::check;
use crate::note::Note;
use crate::policy::{GroupRule, Policy, Unusable, UserRule};
use crate::psp::{
    APP_ARMOR_DEFAULT, InvalidPsp, PodSecurityPolicy, SECCOMP_DEFAULT, SeLinuxOptions as Labels,
};
use crate::remarks;
use crate::scope::Names;
use crate::{app_armor, seccomp};

/// What policies are called, and which pods they are for. Narrower than a [`PodScope`](crate::PodScope): a
/// policy lists service accounts, and cannot be for all but some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first policy's name; where two are needed, the second one's begins with it.
    pub name: String,
    /// The pods' namespaces.
    pub namespaces: Names,
    /// The pods' service accounts; empty: all.
    pub service_accounts: BTreeSet<String>,
    /// Whether to fill in, or only to record what would be.
    pub mode: Mode,
}

/// A hardening policy of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum HardeningPolicy {
    /// Of one namespace.
    Namespaced(Box<PodHardeningPolicy>),
    /// Of the cluster.
    Cluster(Box<ClusterPodHardeningPolicy>),
}

/// What a PSP becomes.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The PSP.
    pub policy: Policy,
    /// What is not carried over exactly.
    pub notes: Vec<Note>,
    /// What it filled in, with what each part's name ends in; empty where it filled in nothing.
    specs: Vec<(&'static str, PodHardeningPolicySpec)>,
    weak: bool,
}

/// Why a PSP is not converted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none, or a field has a value of another type.
    #[error(transparent)]
    Invalid(#[from] InvalidPsp),
    /// 1.24 could not have used it.
    #[error("{}", list(.0))]
    Unusable(Vec<Unusable>),
}

fn list(reasons: &[Unusable]) -> String {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    reasons.join("; ")
}

/// Converts a PSP's defaults.
///
/// # Errors
///
/// Where the object is no PSP, or one that 1.24 could not have used.
pub fn convert(object: &Value) -> Result<Conversion, Refused> {
    let psp = PodSecurityPolicy::read(object)?;
    let mut reasons = check::violations(&psp);
    reasons.extend(check::name(&psp.metadata.name));
    let policy = match Policy::compile(&psp) {
        Ok(policy) => policy,
        Err(more) => {
            reasons.extend(
                more.into_iter()
                    .filter(|one| !reasons.contains(one))
                    .collect::<Vec<_>>(),
            );
            return Err(Refused::Unusable(reasons));
        }
    };
    if !reasons.is_empty() {
        return Err(Refused::Unusable(reasons));
    }
    let mut notes = remarks::unknown(object);
    let mut defaults = Defaults {
        policy: &policy,
        weak: false,
        notes: &mut notes,
    };
    let pod = defaults.pod();
    let container = defaults.container();
    let weak = defaults.weak;
    remarks::about(&policy, &mut notes);
    Ok(Conversion {
        policy,
        notes,
        specs: split(pod, container),
        weak,
    })
}

/// One policy, or two where one list is to be merged and another one kept.
fn split(
    pod: PodDefaults,
    container: SecurityContext,
) -> Vec<(&'static str, PodHardeningPolicySpec)> {
    let has_groups = pod
        .security_context
        .as_ref()
        .is_some_and(|context| !context.supplemental_groups.is_empty());
    let spec = |pod: PodDefaults, container: SecurityContext| PodHardeningPolicySpec {
        list_merge: container.capabilities.is_some().then_some(ListMerge::Union),
        pod: (pod != PodDefaults::default()).then_some(pod),
        containers: (container != SecurityContext::default()).then(|| ContainerDefaults {
            security_context: Some(container),
            ..ContainerDefaults::default()
        }),
        ..PodHardeningPolicySpec::default()
    };
    let mut specs = Vec::new();
    if has_groups && container.capabilities.is_some() {
        let capabilities = SecurityContext {
            capabilities: container.capabilities.clone(),
            ..SecurityContext::default()
        };
        let rest = SecurityContext {
            capabilities: None,
            ..container
        };
        specs.push(("", spec(pod, rest)));
        specs.push(("-capabilities", spec(PodDefaults::default(), capabilities)));
    } else {
        specs.push(("", spec(pod, container)));
    }
    specs.retain(|(_, spec)| spec.pod.is_some() || spec.containers.is_some());
    specs
}

/// Gives a spec its name and its pods. A namespace's policy may not weaken, so a weak one for one namespace is a
/// cluster policy that selects it.
fn address(
    name: String,
    spec: &PodHardeningPolicySpec,
    target: &Target,
    weak: bool,
) -> HardeningPolicy {
    let mut metadata = ObjectMeta {
        name: Some(name),
        ..ObjectMeta::default()
    };
    let spec = PodHardeningPolicySpec {
        mode: (target.mode != Mode::Enforce).then_some(target.mode),
        service_account_names: target.service_accounts.iter().cloned().collect(),
        ..spec.clone()
    };
    if let Names::Only(names) = &target.namespaces
        && let (Some(namespace), 1, false) = (names.first(), names.len(), weak)
    {
        metadata.namespace = Some(namespace.clone());
        return HardeningPolicy::Namespaced(Box::new(PodHardeningPolicy {
            metadata,
            spec,
            status: None,
        }));
    }
    HardeningPolicy::Cluster(Box::new(ClusterPodHardeningPolicy {
        metadata,
        spec: ClusterPodHardeningPolicySpec {
            namespace_selector: selector(&target.namespaces),
            tier: Some(Tier::Baseline),
            allow_weakening: is_weak(&spec).then_some(true),
            policy: spec,
        },
        status: None,
    }))
}

fn selector(namespaces: &Names) -> Option<LabelSelector> {
    let (operator, names) = match namespaces {
        Names::All => return None,
        Names::Only(names) => ("In", names),
        Names::AllBut(names) => ("NotIn", names),
    };
    let by_name = LabelSelectorRequirement {
        key: "kubernetes.io/metadata.name".to_owned(),
        operator: operator.to_owned(),
        values: Some(names.iter().cloned().collect()),
    };
    Some(LabelSelector {
        match_expressions: Some(vec![by_name]),
        match_labels: None,
    })
}

/// Whether the API would ask for `allowWeakening`.
fn is_weak(spec: &PodHardeningPolicySpec) -> bool {
    let pod = spec
        .pod
        .as_ref()
        .and_then(|pod| pod.security_context.as_ref());
    let container = spec
        .containers
        .as_ref()
        .and_then(|containers| containers.security_context.as_ref());
    let seccomp = pod.and_then(|pod| pod.seccomp_profile.as_ref());
    let app_armor = container.and_then(|container| container.app_armor_profile.as_ref());
    seccomp.is_some_and(|profile| profile.type_ == ProfileType::Unconfined)
        || app_armor.is_some_and(|profile| profile.type_ == ProfileType::Unconfined)
        || container.is_some_and(|container| {
            let adds = container.capabilities.as_ref();
            container.run_as_user == Some(0)
                || container.allow_privilege_escalation == Some(true)
                || adds.is_some_and(|capabilities| !capabilities.add.is_empty())
        })
}

/// A PSP's defaults, one by one.
struct Defaults<'a> {
    policy: &'a Policy,
    weak: bool,
    notes: &'a mut Vec<Note>,
}

impl Defaults<'_> {
    fn note(&mut self, field: &str, why: impl Into<String>, advice: &str) {
        self.notes.push(Note::new(field, why, advice));
    }

    fn weakens(&mut self, field: &str, what: &str) {
        self.weak = true;
        self.note(
            field,
            format!("the PSP filled in {what}, which weakens pods; it is carried over under allowWeakening: true"),
            "take it out unless workloads rely on it",
        );
    }

    fn pod(&mut self) -> PodDefaults {
        let context = PodSecurityContext {
            fs_group: self.group("spec.fsGroup", &self.policy.fs_group),
            supplemental_groups: self
                .group("spec.supplementalGroups", &self.policy.supplemental_groups)
                .into_iter()
                .collect(),
            seccomp_profile: self.seccomp(),
            se_linux_options: self.policy.se_linux.as_ref().and_then(labels),
            ..PodSecurityContext::default()
        };
        PodDefaults {
            runtime_class_name: self.policy.default_runtime_class.clone(),
            security_context: (context != PodSecurityContext::default()).then_some(context),
            ..PodDefaults::default()
        }
    }

    fn container(&mut self) -> SecurityContext {
        let policy = self.policy;
        if policy.default_escalation == Some(true) {
            self.weakens("spec.defaultAllowPrivilegeEscalation", "true");
        }
        let run_as_user = match &policy.user {
            UserRule::MustRunAs(ranges) => self.id("spec.runAsUser", ranges.first.min),
            UserRule::Any | UserRule::NonRoot => None,
        };
        if run_as_user == Some(0) {
            self.weakens("spec.runAsUser", "user 0");
        }
        SecurityContext {
            run_as_user,
            run_as_group: self.group("spec.runAsGroup", &policy.group),
            run_as_non_root: matches!(policy.user, UserRule::NonRoot).then_some(true),
            allow_privilege_escalation: policy.default_escalation,
            read_only_root_filesystem: policy.read_only_root.then_some(true),
            capabilities: self.capabilities(),
            app_armor_profile: self.app_armor(),
            ..SecurityContext::default()
        }
    }

    fn group(&mut self, field: &str, rule: &GroupRule) -> Option<i64> {
        match rule {
            GroupRule::MustRunAs(ranges) => self.id(field, ranges.first.min),
            GroupRule::Any | GroupRule::MayRunAs(_) => None,
        }
    }

    fn id(&mut self, field: &str, id: i64) -> Option<i64> {
        let valid = (0..=i64::from(i32::MAX)).contains(&id);
        if !valid {
            self.note(
                field,
                format!("the default {id} is no id that the API server takes in a pod"),
                "nothing: pods that relied on the default were refused",
            );
        }
        valid.then_some(id)
    }

    fn seccomp(&mut self) -> Option<SeccompProfile> {
        let field = format!("metadata.annotations[{SECCOMP_DEFAULT}]");
        let profile = self.policy.seccomp.default.as_str();
        let (type_, localhost_profile) = self.profile(&field, profile, seccomp::field(profile))?;
        Some(SeccompProfile {
            type_,
            localhost_profile,
        })
    }

    fn app_armor(&mut self) -> Option<AppArmorProfile> {
        let field = format!("metadata.annotations[{APP_ARMOR_DEFAULT}]");
        let profile = self.policy.default_app_armor.as_str();
        let (type_, localhost_profile) =
            self.profile(&field, profile, app_armor::field(profile))?;
        Some(AppArmorProfile {
            type_,
            localhost_profile,
        })
    }

    fn profile(
        &mut self,
        field: &str,
        text: &str,
        profile: Option<Value>,
    ) -> Option<(ProfileType, Option<String>)> {
        let Some(profile) = profile else {
            if !text.is_empty() {
                let why = format!("{text} is a profile that no field of a pod can name");
                self.note(field, why, "write the profile you want into the policy");
            }
            return None;
        };
        let part = |key: &str| profile.get(key).and_then(Value::as_str);
        let localhost = part("localhostProfile").map(str::to_owned);
        match part("type") {
            Some("RuntimeDefault") => Some((ProfileType::RuntimeDefault, None)),
            Some("Localhost") => Some((ProfileType::Localhost, localhost)),
            _ => {
                self.weakens(field, "an unconfined profile");
                Some((ProfileType::Unconfined, None))
            }
        }
    }

    fn capabilities(&mut self) -> Option<Capabilities> {
        let add: Vec<String> = self.policy.default_add.iter().cloned().collect();
        let add = self.capability_names("spec.defaultAddCapabilities", &add);
        let required = self.policy.required_drop.clone();
        let drop = self.capability_names("spec.requiredDropCapabilities", &required);
        if !add.is_empty() {
            self.weakens("spec.defaultAddCapabilities", "added capabilities");
        }
        (!add.is_empty() || !drop.is_empty()).then_some(Capabilities { drop, add })
    }

    /// In the one spelling that policies have, each once.
    fn capability_names(&mut self, field: &str, names: &[String]) -> Vec<String> {
        let mut spelled = BTreeMap::new();
        for name in names {
            let Some(bare) = capability::spelled(name) else {
                let why = format!("\"{name}\" is no name of a capability");
                self.note(field, why, "nothing: container runtimes refused it");
                continue;
            };
            if *name != bare {
                let why = format!("{name} becomes {bare}: policies have one spelling for each");
                self.note(field, why, "nothing: runtimes take the two for the same");
            }
            spelled.insert(bare, ());
        }
        spelled.into_keys().collect()
    }
}

fn labels(labels: &Labels) -> Option<SeLinuxOptions> {
    let label = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let options = SeLinuxOptions {
        user: label(&labels.user),
        role: label(&labels.role),
        type_: label(&labels.type_),
        level: label(&labels.level),
    };
    (options != SeLinuxOptions::default()).then_some(options)
}

// === impl Target ===

impl Target {
    /// For every pod.
    #[must_use]
    pub fn all(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespaces: Names::All,
            service_accounts: BTreeSet::new(),
            mode: Mode::Enforce,
        }
    }
}

// === impl Conversion ===

impl Conversion {
    /// Whether the PSP filled in nothing that a pod can have.
    #[must_use]
    pub fn fills_nothing(&self) -> bool {
        self.specs.is_empty()
    }

    /// The policies that fill in what the PSP filled in; none where it filled in nothing.
    #[must_use]
    pub fn policies(&self, target: &Target) -> Vec<HardeningPolicy> {
        let specs = self.specs.iter();
        specs
            .map(|(suffix, spec)| {
                address(format!("{}{suffix}", target.name), spec, target, self.weak)
            })
            .collect()
    }

    /// Each field that is filled in, with its value.
    pub(crate) fn fields(&self) -> BTreeMap<String, Value> {
        let mut fields = BTreeMap::new();
        for (_, spec) in &self.specs {
            // Types of our own, which always become JSON.
            let spec = serde_json::to_value(spec).unwrap_or_default();
            for part in ["pod", "containers"] {
                if let Some(value) = spec.get(part) {
                    leaves(&format!("spec.{part}"), value, &mut fields);
                }
            }
        }
        fields
    }
}

/// Adds what is set below a path; profiles and labels are taken whole.
fn leaves(path: &str, value: &Value, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(members) if !path.ends_with("Profile") && !path.ends_with("Options") => {
            for (name, value) in members {
                leaves(&format!("{path}.{name}"), value, fields);
            }
        }
        _ => {
            fields.insert(path.to_owned(), value.clone());
        }
    }
}

// === impl HardeningPolicy ===

impl HardeningPolicy {
    /// The manifest, without `status`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Types of our own, which always become JSON.
        let mut object = match self {
            Self::Namespaced(policy) => serde_json::to_value(policy),
            Self::Cluster(policy) => serde_json::to_value(policy),
        }
        .unwrap_or_default();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A PSP that says no more than it must, and this.
    fn psp(annotations: &Value, change: &Value) -> Value {
        let mut object = json!({"apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
            "metadata": {"name": "psp", "annotations": annotations}, "spec": {
            "privileged": true, "hostNetwork": true, "hostPID": true, "hostIPC": true,
            "hostPorts": [{"min": 0, "max": 65535}], "volumes": ["*"], "allowedUnsafeSysctls": ["*"],
            "allowedProcMountTypes": ["Default", "Unmasked"],
            "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"}}});
        for (key, value) in change.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        object
    }

    fn check(
        annotations: &Value,
        change: &Value,
        target: &Target,
        expected: &Value,
    ) -> Vec<String> {
        let conversion = convert(&psp(annotations, change)).unwrap();
        let policies: Value = conversion
            .policies(target)
            .iter()
            .map(HardeningPolicy::to_json)
            .collect();
        assert_eq!(policies, *expected, "{change}");
        conversion
            .notes
            .into_iter()
            .map(|note| note.field)
            .collect()
    }

    #[test]
    fn what_fills_in_nothing_becomes_no_policy() {
        let annotations = json!({"seccomp.security.alpha.kubernetes.io/allowedProfileNames": "*"});
        let change = json!({"allowedCapabilities": ["*"]});
        let notes = check(&annotations, &change, &Target::all("psp"), &json!([]));
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn groups_are_kept_and_capabilities_merged() {
        let group =
            json!({"rule": "MustRunAs", "ranges": [{"min": 7, "max": 9}, {"min": 1, "max": 2}]});
        let change = json!({"supplementalGroups": group, "requiredDropCapabilities": ["ALL"], "readOnlyRootFilesystem": true});
        check(
            &json!({}),
            &change,
            &Target::all("psp"),
            &json!([
                {"apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
                    "metadata": {"name": "psp"}, "spec": {"tier": "Baseline",
                    "pod": {"securityContext": {"supplementalGroups": [7]}},
                    "containers": {"securityContext": {"readOnlyRootFilesystem": true}}}},
                {"apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
                    "metadata": {"name": "psp-capabilities"}, "spec": {"tier": "Baseline", "listMerge": "Union",
                    "containers": {"securityContext": {"capabilities": {"drop": ["ALL"]}}}}},
            ]),
        );
    }

    #[test]
    fn one_namespace_gets_a_policy_of_its_own_unless_it_weakens() {
        let target = Target {
            namespaces: Names::Only(BTreeSet::from(["shop".to_owned()])),
            service_accounts: BTreeSet::from(["till".to_owned()]),
            mode: Mode::Audit,
            ..Target::all("psp")
        };
        let class = json!({"allowedRuntimeClassNames": ["*"], "defaultRuntimeClassName": "gvisor"});
        check(
            &json!({}),
            &json!({ "runtimeClass": class }),
            &target,
            &json!([{"apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
                "metadata": {"name": "psp", "namespace": "shop"}, "spec": {"mode": "Audit",
                "serviceAccountNames": ["till"], "pod": {"runtimeClassName": "gvisor"}}}]),
        );
        let notes = check(
            &json!({}),
            &json!({"defaultAddCapabilities": ["CAP_KILL", "KILL"]}),
            &target,
            &json!([{"apiVersion": "podhardening.dev/v1alpha1", "kind": "ClusterPodHardeningPolicy",
                "metadata": {"name": "psp"}, "spec": {"mode": "Audit", "tier": "Baseline",
                "allowWeakening": true, "listMerge": "Union", "serviceAccountNames": ["till"],
                "namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"]}]},
                "containers": {"securityContext": {"capabilities": {"add": ["KILL"]}}}}}]),
        );
        let about_added = notes
            .iter()
            .filter(|field| *field == "spec.defaultAddCapabilities");
        assert_eq!(
            about_added.count(),
            2,
            "the other spelling, and that it weakens: {notes:?}"
        );
    }

    #[test]
    fn what_1_24_could_not_have_stored_or_used_is_refused_with_every_reason() {
        let change = json!({"runAsUser": {"rule": "MustRunAs", "ranges": [{"min": 9, "max": 1}]},
            "fsGroup": {"rule": "MayRunAs"}, "volumes": ["everything"]});
        let error = convert(&psp(&json!({}), &change)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.runAsUser.ranges[0]: min 9 is greater than max 1; \
             spec.volumes[0]: everything is no kind of volume; \
             spec.fsGroup.ranges: rule MayRunAs needs at least one range"
        );
    }
}
