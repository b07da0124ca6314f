//! The one writer of policy sets.
//!
//! Synchronous and without a client, so that every order of events can be tried in a test. An event costs
//! what it changes: the set's maps share structure with the ones published before.

use std::sync::Arc;

use ahash::{HashMap, HashSet};
use hardening_engine::{InvalidPolicy, Policy, PolicyKey, PolicyRef, PolicySet, UnknownNamespaces};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::object::{Key, Object, Watched};
use crate::version::ServerVersion;

/// Turns changes of watched objects into policy sets, and publishes each.
///
/// - A policy that is edited into something invalid keeps its last good version in force and is
///   reported; one that is deleted is gone at once, whether it was valid or not.
/// - Nothing is published before the first list of every resource is complete, and the API server was asked for
///   its version: until then the published set knows no namespace, and a decision by it is refused.
/// - A later list replaces all that was known of its resource in one step, when it is complete.
#[derive(Debug)]
pub struct PolicyIndex {
    set: PolicySet,
    published: watch::Sender<Arc<PolicySet>>,
    /// The version of each policy that is in the set.
    in_force: HashMap<PolicyKey, PolicyRef>,
    /// What is wrong with the latest version of a policy, whether an earlier one is in the set or none.
    invalid: HashMap<PolicyKey, InvalidPolicy>,
    /// The objects in the set other than policies.
    others: HashSet<Key>,
    lists: HashMap<Watched, List>,
    /// What the API server says that it is; `None`: it has not answered yet.
    version: Option<ServerVersion>,
}

/// How far the listing of a resource has come.
#[derive(Debug)]
enum List {
    /// The first is in progress. As nothing is published before its end, its objects are in the set as they come;
    /// these are of an attempt before, and have not come again.
    First { missing: HashSet<Key> },
    /// Another one is in progress, and has these.
    Later { listed: Vec<Object> },
    /// None is in progress.
    Complete,
}

impl PolicyIndex {
    /// An index that knows nothing yet, and where its policy sets appear.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<Arc<PolicySet>>) {
        let set = PolicySet::new(UnknownNamespaces::NotYetSeen);
        let (published, receiver) = watch::channel(Arc::new(set.clone()));
        let index = Self {
            set,
            published,
            in_force: HashMap::default(),
            invalid: HashMap::default(),
            others: HashSet::default(),
            lists: HashMap::default(),
            version: None,
        };
        (index, receiver)
    }

    /// An object was created or changed.
    pub fn apply(&mut self, object: Object) {
        self.insert(object);
        self.publish();
    }

    /// An object was deleted.
    pub fn delete(&mut self, key: &Key) {
        self.remove(key);
        self.publish();
    }

    /// A list of a resource begins. One that was in progress is given up.
    pub fn begin_list(&mut self, watched: Watched) {
        let list = if self.is_synced(watched) {
            List::Later { listed: Vec::new() }
        } else {
            List::First {
                missing: self.known(watched),
            }
        };
        self.lists.insert(watched, list);
    }

    /// An object of the list in progress of a resource.
    pub fn list(&mut self, watched: Watched, object: Object) {
        match self.lists.get_mut(&watched) {
            Some(List::First { missing }) => {
                if !missing.is_empty() {
                    missing.remove(&object.key());
                }
                self.insert(object);
            }
            Some(List::Later { listed }) => listed.push(object),
            // Not in a list: no different from a change.
            Some(List::Complete) | None => self.apply(object),
        }
    }

    /// The list of a resource is complete: what it has is there, and what it has not is gone.
    pub fn end_list(&mut self, watched: Watched) {
        let gone = match self.lists.insert(watched, List::Complete) {
            Some(List::First { missing }) => missing,
            Some(List::Later { listed }) => {
                let mut gone = self.known(watched);
                for object in listed {
                    gone.remove(&object.key());
                    self.insert(object);
                }
                gone
            }
            Some(List::Complete) | None => return,
        };
        gone.iter().for_each(|key| self.remove(key));
        if watched == Watched::RuntimeClasses {
            self.set.know_all_runtime_classes();
        }
        debug!(resource = %watched, "list complete");
        self.publish();
    }

    /// The API server was asked for its version.
    pub(crate) fn set_version(&mut self, version: ServerVersion) {
        if self.version == Some(version) {
            return;
        }
        self.version = Some(version);
        match version {
            ServerVersion::Known(version) => {
                info!(%version, "the API server's version of Kubernetes");
                self.set.set_kubernetes_version(Some(version));
            }
            ServerVersion::Untold => {
                warn!("the API server does not tell its version: it is taken to have every field");
                self.set.set_kubernetes_version(None);
            }
        }
        self.publish();
    }

    /// Whether the API server was asked for its version.
    pub(crate) fn has_asked_for_version(&self) -> bool {
        self.version.is_some()
    }

    /// The resources of which no list was complete yet.
    pub fn unsynced(&self) -> impl Iterator<Item = Watched> {
        Watched::ALL
            .into_iter()
            .filter(|watched| !self.is_synced(*watched))
    }

    /// How many policies are invalid in their latest version.
    #[must_use]
    pub fn invalid_policies(&self) -> usize {
        self.invalid.len()
    }

    fn is_synced(&self, watched: Watched) -> bool {
        match self.lists.get(&watched) {
            Some(List::Later { .. } | List::Complete) => true,
            Some(List::First { .. }) | None => false,
        }
    }

    fn publish(&self) {
        if self.has_asked_for_version() && self.unsynced().next().is_none() {
            self.published.send_replace(Arc::new(self.set.clone()));
        }
    }

    fn known(&self, watched: Watched) -> HashSet<Key> {
        if watched.is_policy() {
            let policies = self.in_force.keys().chain(self.invalid.keys());
            let keys = policies.cloned().map(Key::Policy);
            return keys.filter(|key| key.watched() == watched).collect();
        }
        let others = self.others.iter().filter(|key| key.watched() == watched);
        others.cloned().collect()
    }

    fn insert(&mut self, object: Object) {
        match object {
            Object::Policy(key, policy) => match *policy {
                Ok(policy) => self.insert_policy(key, policy),
                Err(invalid) => self.report_policy(key, invalid),
            },
            Object::Namespace(name, labels) => {
                self.set.insert_namespace(&name, &labels);
                self.others.insert(Key::Namespace(name));
            }
            Object::ServiceAccount(namespace, name, automount) => {
                self.set
                    .insert_service_account(&namespace, &name, automount);
                self.others.insert(Key::ServiceAccount(namespace, name));
            }
            Object::RuntimeClass(name, node_selector) => {
                self.set.insert_runtime_class(&name, &node_selector);
                self.others.insert(Key::RuntimeClass(name));
            }
        }
    }

    fn insert_policy(&mut self, key: PolicyKey, policy: Policy) {
        let repaired = self.invalid.remove(&key).is_some();
        let before = self.in_force.insert(key, policy.reference().clone());
        if repaired || before.as_ref() != Some(policy.reference()) {
            info!(policy = %policy.reference(), mode = ?policy.mode(), "policy in force");
        }
        self.set.insert_policy(policy);
    }

    /// The object stays as it was in the set, if it was there.
    fn report_policy(&mut self, key: PolicyKey, invalid: InvalidPolicy) {
        if self.invalid.get(&key) != Some(&invalid) {
            let policy = Key::Policy(key.clone());
            match self.in_force.get(&key) {
                Some(good) => {
                    warn!(%policy, error = %invalid, in_force = %good, "invalid policy: its last good version stays in force");
                }
                None => warn!(%policy, error = %invalid, "invalid policy: it is not in force"),
            }
        }
        self.invalid.insert(key, invalid);
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::Policy(policy) => {
                let was_invalid = self.invalid.remove(policy).is_some();
                if self.in_force.remove(policy).is_some() || was_invalid {
                    info!(policy = %key, "policy deleted");
                }
                self.set.remove_policy(policy);
            }
            Key::Namespace(name) => self.set.remove_namespace(name),
            Key::ServiceAccount(namespace, name) => {
                self.set.remove_service_account(namespace, name);
            }
            Key::RuntimeClass(name) => self.set.remove_runtime_class(name),
        }
        self.others.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use hardening_engine::{Pod, plan};
    use serde_json::{Value, json};

    use super::*;
    use crate::object::RawPolicy;

    enum Step {
        Apply(Object),
        Delete(Key),
        Begin(Watched),
        Listed(Object),
        End(Watched),
    }
    use Step::{Apply, Begin, Delete, End, Listed};
    use Watched::{
        ClusterPodHardeningPolicies, Namespaces, PodHardeningPolicies, RuntimeClasses,
        ServiceAccounts,
    };

    /// A policy from `namespace/name@generation` or `name@generation`.
    fn policy_with(reference: &str, spec: &Value) -> Object {
        let (path, generation) = reference.split_once('@').unwrap();
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, path),
        };
        let kind = match namespace {
            Some(_) => "PodHardeningPolicy",
            None => "ClusterPodHardeningPolicy",
        };
        let object: RawPolicy<()> = serde_json::from_value(json!({
            "apiVersion": hardening_api::API_VERSION,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": generation.parse::<i64>().unwrap(),
            },
            "spec": spec,
        }))
        .unwrap();
        Object::policy(object)
    }

    fn policy(reference: &str) -> Object {
        policy_with(reference, &json!({"profile": "Restricted"}))
    }

    fn broken(reference: &str) -> Object {
        policy_with(reference, &json!({"profile": "Restrictive"}))
    }

    fn key(path: &str) -> Key {
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, path),
        };
        Key::Policy(PolicyKey {
            namespace,
            name: name.to_owned(),
        })
    }

    fn namespace(name: &str, team: &str) -> Object {
        Object::Namespace(
            name.to_owned(),
            [("team".to_owned(), team.to_owned())].into(),
        )
    }

    fn account(name: &str, automount: Option<bool>) -> Object {
        Object::ServiceAccount("shop".to_owned(), name.to_owned(), automount)
    }

    fn runtime_class(name: &str) -> Object {
        Object::RuntimeClass(
            name.to_owned(),
            [("sandbox".to_owned(), "yes".to_owned())].into(),
        )
    }

    fn run(index: &mut PolicyIndex, steps: Vec<Step>) {
        for step in steps {
            match step {
                Apply(object) => index.apply(object),
                Delete(key) => index.delete(&key),
                Begin(watched) => index.begin_list(watched),
                Listed(object) => index.list(object.key().watched(), object),
                End(watched) => index.end_list(watched),
            }
        }
    }

    fn list(watched: Watched, objects: Vec<Object>) -> Vec<Step> {
        let listed = objects.into_iter().map(Listed);
        [Begin(watched)]
            .into_iter()
            .chain(listed)
            .chain([End(watched)])
            .collect()
    }

    /// An index that has completed its first lists, which were empty.
    fn synced() -> (PolicyIndex, watch::Receiver<Arc<PolicySet>>) {
        let (mut index, published) = PolicyIndex::new();
        for watched in Watched::ALL {
            run(&mut index, list(watched, vec![]));
        }
        index.set_version(ServerVersion::Untold);
        (index, published)
    }

    fn in_force(set: &PolicySet) -> Vec<String> {
        let mut policies: Vec<String> = set
            .policies()
            .map(|policy| policy.reference().to_string())
            .collect();
        policies.sort();
        policies
    }

    /// What the published set has in force after the steps, and how many policies are invalid.
    #[track_caller]
    fn check(steps: Vec<Step>, expected: &[&str], invalid: usize) {
        let (mut index, published) = synced();
        run(&mut index, steps);
        assert_eq!(in_force(&published.borrow()), expected);
        assert_eq!(index.invalid_policies(), invalid);
    }

    #[test]
    fn policies_come_change_and_go() {
        check(
            vec![Apply(policy("shop/a@1")), Apply(policy("b@1"))],
            &["b@1", "shop/a@1"],
            0,
        );
        check(
            vec![Apply(policy("shop/a@1")), Apply(policy("shop/a@2"))],
            &["shop/a@2"],
            0,
        );
        check(
            vec![Apply(policy("shop/a@1")), Delete(key("shop/a"))],
            &[],
            0,
        );
        check(
            vec![Apply(policy("shop/a@1")), Delete(key("a"))],
            &["shop/a@1"],
            0,
        );
        check(vec![Delete(key("shop/a"))], &[], 0);
    }

    #[test]
    fn a_broken_policy_harms_only_itself() {
        check(
            vec![Apply(broken("shop/a@1")), Apply(policy("shop/b@1"))],
            &["shop/b@1"],
            1,
        );
        check(
            list(
                PodHardeningPolicies,
                vec![broken("shop/a@1"), policy("shop/b@1")],
            ),
            &["shop/b@1"],
            1,
        );
        check(
            vec![Apply(broken("a@1")), Apply(broken("shop/a@1"))],
            &[],
            2,
        );
    }

    #[test]
    fn a_policy_edited_into_something_invalid_keeps_its_last_good_version() {
        check(
            vec![Apply(policy("shop/a@1")), Apply(broken("shop/a@2"))],
            &["shop/a@1"],
            1,
        );
        check(
            vec![
                Apply(policy("shop/a@1")),
                Apply(broken("shop/a@2")),
                Apply(broken("shop/a@3")),
            ],
            &["shop/a@1"],
            1,
        );
        check(
            vec![
                Apply(policy("shop/a@1")),
                Apply(broken("shop/a@2")),
                Apply(policy("shop/a@3")),
            ],
            &["shop/a@3"],
            0,
        );
        let mut steps = vec![Apply(policy("shop/a@1"))];
        steps.extend(list(PodHardeningPolicies, vec![broken("shop/a@2")]));
        check(steps, &["shop/a@1"], 1);
    }

    #[test]
    fn a_broken_policy_that_is_deleted_is_gone_at_once() {
        check(
            vec![
                Apply(policy("shop/a@1")),
                Apply(broken("shop/a@2")),
                Delete(key("shop/a")),
            ],
            &[],
            0,
        );
        let mut steps = vec![Apply(policy("shop/a@1")), Apply(broken("shop/a@2"))];
        steps.extend(list(PodHardeningPolicies, vec![]));
        check(steps, &[], 0);
        // And the last good version does not come back with a new object of that name.
        check(
            vec![
                Apply(policy("shop/a@1")),
                Apply(broken("shop/a@2")),
                Delete(key("shop/a")),
                Apply(broken("shop/a@1")),
            ],
            &[],
            1,
        );
    }

    #[test]
    fn a_list_replaces_what_was_known_of_its_resource_and_nothing_else() {
        let before = || {
            vec![
                Apply(policy("shop/a@1")),
                Apply(policy("shop/b@1")),
                Apply(policy("c@1")),
                Apply(namespace("shop", "x")),
            ]
        };
        let mut steps = before();
        steps.extend(list(
            PodHardeningPolicies,
            vec![policy("shop/b@2"), policy("shop/d@1")],
        ));
        check(steps, &["c@1", "shop/b@2", "shop/d@1"], 0);
        let mut steps = before();
        steps.extend(list(ClusterPodHardeningPolicies, vec![]));
        check(steps, &["shop/a@1", "shop/b@1"], 0);
        let mut steps = before();
        steps.extend(list(Namespaces, vec![]));
        check(steps, &["c@1", "shop/a@1", "shop/b@1"], 0);
    }

    #[test]
    fn a_list_in_progress_changes_nothing_until_it_is_complete() {
        let unfinished = || {
            vec![
                Apply(policy("shop/a@1")),
                Begin(PodHardeningPolicies),
                Listed(policy("shop/b@1")),
                Apply(policy("c@1")),
            ]
        };
        check(unfinished(), &["c@1", "shop/a@1"], 0);
        // One that breaks off and begins again forgets what it had.
        let mut steps = unfinished();
        steps.extend(list(PodHardeningPolicies, vec![policy("shop/d@1")]));
        check(steps, &["c@1", "shop/d@1"], 0);
    }

    #[test]
    fn nothing_is_published_before_every_first_list_is_complete() {
        let (mut index, mut published) = PolicyIndex::new();
        published.mark_unchanged();
        for watched in Watched::ALL {
            assert!(index.unsynced().any(|unsynced| unsynced == watched));
            assert!(!published.has_changed().unwrap());
            run(&mut index, list(watched, vec![]));
        }
        assert_eq!(index.unsynced().count(), 0);
        assert!(!published.has_changed().unwrap());
        index.set_version(ServerVersion::Untold);
        assert!(published.has_changed().unwrap());
        // Nor is anything taken back by a later list.
        run(&mut index, vec![Begin(Namespaces)]);
        assert_eq!(index.unsynced().count(), 0);
    }

    #[test]
    fn a_first_list_that_breaks_off_leaves_nothing_that_the_next_one_has_not() {
        let (mut index, published) = PolicyIndex::new();
        index.set_version(ServerVersion::Untold);
        let broken_off = vec![
            Begin(PodHardeningPolicies),
            Listed(policy("shop/a@1")),
            Listed(broken("shop/b@1")),
            Listed(policy("shop/c@1")),
        ];
        run(&mut index, broken_off);
        let again = list(PodHardeningPolicies, vec![policy("shop/c@2")]);
        run(&mut index, again);
        for watched in Watched::ALL {
            if watched != PodHardeningPolicies {
                run(&mut index, list(watched, vec![]));
            }
        }
        assert_eq!(in_force(&published.borrow()), ["shop/c@2"]);
        assert_eq!(index.invalid_policies(), 0);
    }

    /// What the published set decides for a pod of service account `robot` in namespace `shop`, where
    /// the baseline is to have no token and the runtime class `gvisor`, for namespaces of team `a`.
    fn decision(steps: Vec<Step>) -> String {
        let (mut index, published) = synced();
        run(
            &mut index,
            vec![Apply(policy_with(
                "baseline@1",
                &json!({
                    "namespaceSelector": {"matchLabels": {"team": "a"}},
                    "pod": {"automountServiceAccountToken": false, "runtimeClassName": "gvisor"},
                }),
            ))],
        );
        run(&mut index, steps);
        let set = Arc::clone(&published.borrow());
        let json = r#"{"spec": {"serviceAccountName": "robot", "containers": [{"name": "app"}]}}"#;
        let pod = Pod::from_json(json).unwrap();
        match set.matching("shop", &pod) {
            Err(unseen) => unseen.to_string(),
            Ok(matching) => {
                let mut filled: Vec<&str> = plan(&matching, &pod)
                    .fills
                    .iter()
                    .map(|fill| fill.field.name())
                    .collect();
                filled.sort_unstable();
                filled.join(" ")
            }
        }
    }

    #[test]
    fn decisions_follow_namespaces_service_accounts_and_runtime_classes() {
        let shop = || Apply(namespace("shop", "a"));
        let robot = || Apply(account("robot", None));
        let gvisor = || Apply(runtime_class("gvisor"));
        let gone = |key| Delete(key);
        let cases = [
            (vec![], "the namespace is not in the cache yet"),
            (vec![shop()], "the service account is not in the cache yet"),
            (vec![shop(), robot()], "automountServiceAccountToken"),
            (
                vec![shop(), robot(), gvisor()],
                "automountServiceAccountToken runtimeClassName",
            ),
            (
                vec![shop(), Apply(account("robot", Some(true))), gvisor()],
                "runtimeClassName",
            ),
            (
                vec![shop(), robot(), gvisor(), Apply(namespace("shop", "b"))],
                "",
            ),
            (
                vec![
                    shop(),
                    robot(),
                    gvisor(),
                    gone(Key::RuntimeClass("gvisor".into())),
                ],
                "automountServiceAccountToken",
            ),
            (
                vec![
                    shop(),
                    robot(),
                    gone(Key::ServiceAccount("shop".into(), "robot".into())),
                ],
                "the service account is not in the cache yet",
            ),
            (
                vec![shop(), robot(), gone(Key::Namespace("shop".into()))],
                "the namespace is not in the cache yet",
            ),
        ];
        for (index, (steps, expected)) in cases.into_iter().enumerate() {
            assert_eq!(decision(steps), expected, "case {index}");
        }
    }

    #[test]
    fn a_list_drops_namespaces_service_accounts_and_runtime_classes_that_it_has_not() {
        for (watched, kept, expected) in [
            (
                Namespaces,
                namespace("other", "a"),
                "the namespace is not in the cache yet",
            ),
            (
                ServiceAccounts,
                account("other", None),
                "the service account is not in the cache yet",
            ),
            (
                RuntimeClasses,
                runtime_class("other"),
                "automountServiceAccountToken",
            ),
        ] {
            let mut steps = vec![
                Apply(namespace("shop", "a")),
                Apply(account("robot", None)),
                Apply(runtime_class("gvisor")),
            ];
            steps.extend(list(watched, vec![kept]));
            assert_eq!(decision(steps), expected, "{watched}");
        }
    }

    #[test]
    fn the_error_of_a_broken_policy_names_its_field() {
        let Object::Policy(_, policy) = broken("shop/a@1") else {
            unreachable!()
        };
        assert_eq!(
            policy.unwrap_err().to_string(),
            "spec.profile: Restrictive is not one of Restricted, Hardened"
        );
    }

    #[test]
    fn a_field_that_a_newer_definition_has_does_not_make_a_policy_invalid() {
        let spec = json!({"profile": "Restricted", "fieldOfANewerVersion": true});
        check(
            vec![Apply(policy_with("shop/a@1", &spec))],
            &["shop/a@1"],
            0,
        );
    }
}
