//! What is written after which events, with a cluster that gives back what was written.

use hardening_api::status::condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::condition::Truth;

/// A cluster as far as policies' status goes: what is written there comes back as an event.
#[derive(Default)]
struct Cluster {
    state: State,
    objects: BTreeMap<PolicyKey, Value>,
    version: u64,
    /// Seconds since the beginning.
    now: i64,
}

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(1_700_000_000 + seconds).unwrap())
}

fn path(key: &PolicyKey) -> String {
    match &key.namespace {
        Some(namespace) => format!("{namespace}/{}", key.name),
        None => key.name.clone(),
    }
}

/// A policy's key from `namespace/name` or `name`.
fn named(path: &str) -> PolicyKey {
    let (namespace, name) = match path.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, path),
    };
    PolicyKey {
        namespace,
        name: name.to_owned(),
    }
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).unwrap()
}

impl Cluster {
    /// One whose lists are complete, with these policies.
    fn with(policies: &[(&str, Value)]) -> Self {
        let mut cluster = Self::default();
        cluster.state.additional(Arc::default());
        cluster.namespaces(&[]);
        for kind in PolicyKind::ALL {
            cluster.state.policy(kind, Event::Init);
        }
        for (path, spec) in policies {
            let value = cluster.put(path, spec);
            let kind = kind_of(&named(path));
            cluster.state.policy(kind, Event::InitApply(object(&value)));
        }
        for kind in PolicyKind::ALL {
            cluster.state.policy(kind, Event::InitDone);
        }
        cluster
    }

    fn namespaces(&mut self, namespaces: &[(&str, Value)]) {
        self.state.namespace(Event::Init);
        for (name, labels) in namespaces {
            self.state
                .namespace(Event::InitApply(namespace(name, labels)));
        }
        self.state.namespace(Event::InitDone);
    }

    /// Creates a policy, or gives it a new spec.
    fn put(&mut self, path: &str, spec: &Value) -> Value {
        let key = named(path);
        self.version += 1;
        let mut value = json!({
            "apiVersion": hardening_api::API_VERSION, "kind": kind_of(&key).name(),
            "metadata": {
                "name": key.name, "namespace": key.namespace, "uid": path, "generation": 1,
                "resourceVersion": self.version.to_string(),
            },
            "spec": spec,
        });
        if let Some(before) = self.objects.get(&key) {
            let generation = before["metadata"]["generation"].as_i64().unwrap();
            value["metadata"]["generation"] = (generation + 1).into();
            value["status"] = before["status"].clone();
        }
        self.objects.insert(key, value.clone());
        value
    }

    fn apply(&mut self, path: &str, spec: &Value) {
        let value = self.put(path, spec);
        let kind = kind_of(&named(path));
        self.state.policy(kind, Event::Apply(object(&value)));
    }

    fn delete(&mut self, path: &str) {
        let value = self.objects.remove(&named(path)).unwrap();
        let kind = kind_of(&named(path));
        self.state.policy(kind, Event::Delete(object(&value)));
    }

    /// What is written now, and that nothing is after that.
    fn settle(&mut self) -> Vec<String> {
        let written = self.write_all();
        assert_eq!(self.write_all(), [""; 0], "written again");
        written
    }

    fn write_all(&mut self) -> Vec<String> {
        let mut written = Vec::new();
        while let Some(write) = self.state.look(&at(self.now)) {
            let Some(Write {
                key,
                version,
                status,
            }) = write
            else {
                continue;
            };
            self.version += 1;
            let value = self.objects.get_mut(&key).unwrap();
            assert_eq!(
                value["metadata"]["resourceVersion"].as_str(),
                version.as_deref()
            );
            value["metadata"]["resourceVersion"] = self.version.to_string().into();
            value["status"] = serde_json::to_value(status).unwrap();
            let value = value.clone();
            let done = Written::Done(Box::new(object(&value)));
            self.state.written(&key, done);
            self.state
                .policy(kind_of(&key), Event::Apply(object(&value)));
            written.push(path(&key));
        }
        written
    }

    fn condition(&self, path: &str, type_: &str) -> Condition {
        let status = &self.objects[&named(path)]["status"];
        let status: PolicyStatus = serde_json::from_value(status.clone()).unwrap();
        let mut conditions = status.conditions.into_iter();
        conditions.find(|one| one.type_ == type_).unwrap()
    }

    /// `Accepted` and `Overlapping` of a policy, each with its reason and message.
    fn says(&self, path: &str) -> [String; 2] {
        [condition::ACCEPTED, condition::OVERLAPPING].map(|type_| {
            let found = self.condition(path, type_);
            format!("{} {}: {}", found.status, found.reason, found.message)
        })
    }
}

fn namespace(name: &str, labels: &Value) -> PartialObjectMeta<Namespace> {
    let value = json!({"metadata": {"name": name, "labels": labels}});
    serde_json::from_value(value).unwrap()
}

fn user(id: i64) -> Value {
    json!({"pod": {"securityContext": {"runAsUser": id}}})
}

fn teams(team: &str, id: i64) -> Value {
    let mut spec = user(id);
    spec["namespaceSelector"] = json!({"matchLabels": {"team": team}});
    spec
}

const VALID: &str = "True Valid: the policy is in use";
const ALONE: &str =
    "False NoDifference: no policy that can be for the same pods gives a field another value";

#[test]
fn a_status_says_whether_a_policy_is_accepted_and_what_differs_from_it() {
    let field = "spec.pod.securityContext.runAsUser";
    let name_decides = "neither tier nor priority decides, so they go by name";
    let gives_way = format!(
        "True DifferentValues: {field}: 2 of PodHardeningPolicy shop/b gives way to 1 of PodHardeningPolicy shop/a: {name_decides}"
    );
    let wins = format!(
        "True DifferentValues: {field}: 1 of PodHardeningPolicy shop/a wins over 2 of PodHardeningPolicy shop/b: {name_decides}"
    );
    let cluster = format!(
        "True DifferentValues: {field}: 3 of ClusterPodHardeningPolicy all gives way to 1 of PodHardeningPolicy shop/a: a namespace's policy goes before tier Baseline"
    );
    let both = [("shop/a", user(1)), ("shop/b", user(2))];
    let three = [both[0].clone(), both[1].clone(), ("all", user(3))];
    let of_b = |message: &str| format!("{message}; 1 more policy differs from it");
    type Said<'a> = (&'a str, [String; 2]);
    type Policies<'a> = Vec<(&'a str, Value)>;
    let said = |name: &'static str, accepted: &str, overlapping: &str| -> Said<'static> {
        (name, [accepted.to_owned(), overlapping.to_owned()])
    };
    let cases: Vec<(Policies<'_>, Vec<Said<'_>>)> = vec![
        (
            vec![("shop/a", user(1))],
            vec![said("shop/a", VALID, ALONE)],
        ),
        (
            both.to_vec(),
            vec![
                said("shop/a", VALID, &wins),
                said("shop/b", VALID, &gives_way),
            ],
        ),
        (
            vec![("shop/a", user(1)), ("bank/b", user(2))],
            vec![said("shop/a", VALID, ALONE), said("bank/b", VALID, ALONE)],
        ),
        (
            three.to_vec(),
            vec![
                said("shop/a", VALID, &of_b(&wins)),
                said("all", VALID, &of_b(&cluster)),
            ],
        ),
        (
            vec![
                ("shop/a", user(1)),
                ("shop/b", json!({"profile": "Restrictive"})),
            ],
            vec![
                said("shop/a", VALID, ALONE),
                said(
                    "shop/b",
                    "False Invalid: spec.profile: Restrictive is not one of Restricted, Hardened",
                    "Unknown NotAccepted: the policy is not accepted",
                ),
            ],
        ),
    ];
    for (policies, expected) in cases {
        let mut cluster = Cluster::with(&policies);
        assert_eq!(cluster.settle().len(), policies.len());
        for (path, said) in expected {
            assert_eq!(cluster.says(path), said, "{path} of {policies:?}");
        }
    }
}

#[test]
fn nothing_is_written_before_everything_is_known() {
    let mut cluster = Cluster::default();
    for kind in PolicyKind::ALL {
        cluster.state.policy(kind, Event::Init);
    }
    let value = cluster.put("shop/a", &user(1));
    let event = Event::InitApply(object(&value));
    cluster.state.policy(PolicyKind::Namespaced, event);
    for kind in PolicyKind::ALL {
        cluster.state.policy(kind, Event::InitDone);
        assert!(!cluster.state.has_work());
        assert_eq!(cluster.write_all(), [""; 0]);
    }
    cluster.namespaces(&[]);
    // What others say too: a leader that begins would else take it away, and write it again.
    assert_eq!(cluster.write_all(), [""; 0]);
    cluster.state.additional(Arc::default());
    assert_eq!(cluster.settle(), ["shop/a"]);
}

#[test]
fn a_change_writes_what_it_changes_and_nothing_else() {
    let mut cluster = Cluster::with(&[
        ("shop/a", user(1)),
        ("shop/b", user(1)),
        ("bank/a", user(1)),
    ]);
    cluster.settle();
    // Its generation.
    cluster.apply("bank/a", &user(2));
    assert_eq!(cluster.settle(), ["bank/a"]);
    // And what differs from it now, and no longer.
    cluster.apply("shop/b", &user(2));
    assert_eq!(cluster.settle(), ["shop/a", "shop/b"]);
    cluster.delete("shop/b");
    assert_eq!(cluster.settle(), ["shop/a"]);
    assert_eq!(cluster.says("shop/a"), [VALID, ALONE]);
}

#[test]
fn labels_of_a_namespace_decide_whom_a_cluster_policy_meets() {
    let mut cluster = Cluster::with(&[
        ("shop/a", user(1)),
        ("red", teams("red", 2)),
        ("blue", teams("blue", 3)),
    ]);
    cluster.namespaces(&[("shop", json!({"team": "red"})), ("other", json!({}))]);
    cluster.settle();
    assert_eq!(cluster.says("blue"), [VALID, ALONE]);
    assert!(cluster.says("red")[1].starts_with("True"));
    let changed = namespace("shop", &json!({"team": "blue", "more": "labels"}));
    cluster.state.namespace(Event::Apply(changed.clone()));
    assert_eq!(cluster.settle(), ["blue", "red", "shop/a"]);
    assert_eq!(cluster.says("red"), [VALID, ALONE]);
    // The same labels again are no change, nor are those of a namespace without policies.
    cluster.state.namespace(Event::Apply(changed));
    cluster
        .state
        .namespace(Event::Apply(namespace("other", &json!({"team": "red"}))));
    assert!(!cluster.state.has_work());
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_change_of_truth() {
    let mut cluster = Cluster::with(&[("shop/a", user(1))]);
    cluster.settle();
    let time = |cluster: &Cluster, type_| cluster.condition("shop/a", type_).last_transition_time;
    cluster.now = 10;
    cluster.apply("shop/a", &user(2));
    cluster.settle();
    assert_eq!(time(&cluster, condition::ACCEPTED), at(0));
    assert_eq!(
        cluster
            .condition("shop/a", condition::ACCEPTED)
            .observed_generation,
        Some(2)
    );
    cluster.now = 20;
    cluster.apply("shop/b", &user(3));
    cluster.settle();
    assert_eq!(time(&cluster, condition::ACCEPTED), at(0));
    assert_eq!(time(&cluster, condition::OVERLAPPING), at(20));
    // Another message, and the same truth.
    cluster.now = 30;
    cluster.apply("shop/b", &user(4));
    cluster.settle();
    assert_eq!(time(&cluster, condition::OVERLAPPING), at(20));
    cluster.now = 40;
    cluster.delete("shop/b");
    cluster.settle();
    assert_eq!(time(&cluster, condition::OVERLAPPING), at(40));
}

#[test]
fn a_new_process_finds_nothing_to_write() {
    let mut cluster = Cluster::with(&[
        ("shop/a", user(1)),
        ("shop/b", user(2)),
        ("all", json!({"profile": "None"})),
    ]);
    cluster.settle();
    cluster.state = State::default();
    cluster.namespaces(&[]);
    for kind in PolicyKind::ALL {
        cluster.state.policy(kind, Event::Init);
        let of_kind = cluster
            .objects
            .iter()
            .filter(|(key, _)| kind_of(key) == kind);
        for (_, value) in of_kind {
            cluster.state.policy(kind, Event::InitApply(object(value)));
        }
        cluster.state.policy(kind, Event::InitDone);
    }
    cluster.now = 50;
    assert_eq!(cluster.settle(), [""; 0]);
}

#[test]
fn an_event_from_before_a_write_does_not_undo_it() {
    let mut cluster = Cluster::with(&[("shop/a", user(1))]);
    let before = cluster.objects[&named("shop/a")].clone();
    cluster.settle();
    cluster.now = 10;
    cluster
        .state
        .policy(PolicyKind::Namespaced, Event::Apply(object(&before)));
    assert_eq!(cluster.settle(), [""; 0]);
}

#[test]
fn what_was_deleted_while_no_watch_was_there_is_gone_with_the_next_list() {
    let mut cluster = Cluster::with(&[("shop/a", user(1)), ("shop/b", user(2)), ("all", user(1))]);
    cluster.settle();
    let remains = cluster.objects[&named("shop/a")].clone();
    cluster.state.policy(PolicyKind::Namespaced, Event::Init);
    cluster
        .state
        .policy(PolicyKind::Namespaced, Event::InitApply(object(&remains)));
    cluster
        .state
        .policy(PolicyKind::Namespaced, Event::InitDone);
    assert_eq!(cluster.settle(), ["all", "shop/a"]);
    assert_eq!(cluster.says("shop/a"), [VALID, ALONE]);
}

#[test]
fn a_failed_write_is_tried_again_and_one_of_a_deleted_policy_is_not() {
    let mut cluster = Cluster::with(&[("shop/a", user(1))]);
    let now = at(0);
    let write = cluster.state.look(&now).unwrap().unwrap();
    // While it is on its way it is not begun again, whatever happens.
    cluster.apply("shop/a", &user(2));
    assert!(!cluster.state.has_work());
    assert_eq!(cluster.state.look(&now), None);
    cluster.state.written(&write.key, Written::Failed);
    assert_eq!(cluster.settle(), ["shop/a"]);

    cluster.apply("shop/a", &user(3));
    let write = cluster.state.look(&now).unwrap().unwrap();
    cluster.delete("shop/a");
    cluster.state.written(&write.key, Written::Failed);
    assert!(!cluster.state.has_work());
}

#[test]
fn a_write_to_a_policy_that_has_changed_waits_for_the_change() {
    let mut cluster = Cluster::with(&[("shop/a", user(1))]);
    let write = cluster.state.look(&at(0)).unwrap().unwrap();
    let value = cluster.put("shop/a", &user(2));
    cluster.state.written(&write.key, Written::Outdated);
    assert!(!cluster.state.has_work());
    let event = Event::Apply(object(&value));
    cluster.state.policy(PolicyKind::Namespaced, event);
    assert_eq!(cluster.settle(), ["shop/a"]);
}

#[test]
fn what_others_say_stands_beside_it_and_goes_when_it_is_not_said_any_more() {
    let mut cluster = Cluster::with(&[("shop/a", user(1)), ("shop/b", user(1))]);
    cluster.settle();
    let said = |message: &str| {
        let judgement = Judgement {
            type_: condition::COMPILED,
            truth: Truth::True,
            reason: "Compiled".to_owned(),
            message: message.to_owned(),
            generation: Some(1),
        };
        Arc::new(HashMap::from([(named("shop/a"), judgement)]))
    };
    cluster.state.additional(said("as one"));
    assert_eq!(cluster.settle(), ["shop/a"]);
    cluster.now = 10;
    cluster.state.additional(said("as two"));
    assert_eq!(cluster.settle(), ["shop/a"]);
    let compiled = cluster.condition("shop/a", condition::COMPILED);
    assert_eq!(
        (compiled.message.as_str(), compiled.last_transition_time),
        ("as two", at(0))
    );
    cluster.state.additional(said("as two"));
    assert_eq!(cluster.settle(), [""; 0]);
    cluster.state.additional(Arc::default());
    assert_eq!(cluster.settle(), ["shop/a"]);
    assert_eq!(
        cluster.objects[&named("shop/a")]["status"]["conditions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // Conditions of types that are not this program's are none of its business.
    let status = &mut cluster.objects.get_mut(&named("shop/a")).unwrap()["status"];
    let theirs = json!({"type": "Theirs", "status": "True", "reason": "So", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    status["conditions"].as_array_mut().unwrap().push(theirs);
    let value = cluster.objects[&named("shop/a")].clone();
    cluster
        .state
        .policy(PolicyKind::Namespaced, Event::Apply(object(&value)));
    assert_eq!(cluster.settle(), [""; 0]);
}

#[test]
fn a_message_has_an_end_however_much_there_is_to_say() {
    let mut cluster = Cluster::with(&[("shop/a", user(1))]);
    let judgement = Judgement {
        type_: condition::COMPILED,
        truth: Truth::False,
        reason: "Refused".to_owned(),
        message: "ü".repeat(5000),
        generation: Some(1),
    };
    let said = HashMap::from([(named("shop/a"), judgement)]);
    cluster.state.additional(Arc::new(said));
    assert_eq!(cluster.settle(), ["shop/a"]);
    let message = cluster.condition("shop/a", condition::COMPILED).message;
    assert_eq!(message.chars().count(), 1000);
    assert!(message.ends_with("ü…"), "{message}");
}

#[test]
fn with_ten_thousand_policies_a_change_of_one_is_one_write() {
    let specs: Vec<(String, Value)> = (0..10_000)
        .map(|i| match i % 10 {
            0 => (format!("p{i}"), teams(&format!("t{i}"), 7)),
            _ => (
                format!("n{}/p{i}", i / 10),
                json!({"profile": "Restricted"}),
            ),
        })
        .collect();
    let specs: Vec<(&str, Value)> = specs
        .iter()
        .map(|(path, spec)| (path.as_str(), spec.clone()))
        .collect();
    let mut cluster = Cluster::with(&specs);
    assert_eq!(cluster.settle().len(), 10_000);
    let restricted = json!({"profile": "Restricted", "priority": 1});
    cluster.apply("n5/p51", &restricted);
    assert_eq!(cluster.settle(), ["n5/p51"]);
    cluster.apply("p10", &teams("t10", 8));
    assert_eq!(cluster.settle(), ["p10"]);
}

/// Each of these policies differs from every other, and tells of ten of them.
#[test]
fn where_all_differ_from_all_one_more_is_no_write_for_each() {
    let specs: Vec<(String, Value)> = (1..300).map(|i| (format!("p{i:03}"), user(i))).collect();
    let specs: Vec<(&str, Value)> = specs
        .iter()
        .map(|(path, spec)| (path.as_str(), spec.clone()))
        .collect();
    let mut cluster = Cluster::with(&specs);
    cluster.settle();
    let mut written = 0;
    for i in 300..310 {
        cluster.apply(&format!("p{i}"), &user(i));
        written += cluster.settle().len();
    }
    assert!(
        (10..300).contains(&written),
        "{written} writes for ten policies"
    );
}
