//! Which policies meet, and what that costs.

use hardening_api::PolicyKind;
use serde_json::{Value, json};

use super::*;
use crate::pod::Pod;
use crate::policy_set::{PolicySet, UnknownNamespaces};

/// A policy from `namespace/name` or `name`, and its spec.
fn policy(path: &str, spec: &Value) -> Arc<Policy> {
    let (kind, metadata) = match path.split_once('/') {
        Some((namespace, name)) => (
            PolicyKind::Namespaced,
            json!({"namespace": namespace, "name": name}),
        ),
        None => (PolicyKind::Cluster, json!({"name": path})),
    };
    let object = json!({
        "apiVersion": hardening_api::API_VERSION, "kind": kind.name(), "metadata": metadata, "spec": spec,
    });
    let policy = Policy::from_object(kind, &object);
    Arc::new(policy.unwrap_or_else(|error| panic!("{error}\n{object:#}")))
}

fn name(policy: &Policy) -> String {
    let reference = policy.reference().to_string();
    reference.split('@').next().unwrap().to_owned()
}

fn overlaps(policies: &[Arc<Policy>]) -> Overlaps {
    let mut overlaps = Overlaps::default();
    for policy in policies {
        overlaps.insert_policy(Arc::clone(policy));
    }
    overlaps
}

fn differing(overlaps: &Overlaps, policy: &Policy) -> Vec<String> {
    let found = overlaps.differing(policy, usize::MAX);
    found.into_iter().map(|other| name(other)).collect()
}

/// What `one` and `two` say differently.
#[track_caller]
fn check(one: (&str, Value), two: (&str, Value), expected: &[&str]) {
    let (one, two) = (policy(one.0, &one.1), policy(two.0, &two.1));
    let overlaps = overlaps(&[Arc::clone(&one), Arc::clone(&two)]);
    let text = |conflict: Conflict| {
        let Conflict {
            losing_path,
            losing,
            winning_path,
            winning,
        } = conflict;
        format!("{losing_path} {losing} < {winning_path} {winning}")
    };
    let found: Vec<String> = conflicts(&one, &two).into_iter().map(text).collect();
    assert_eq!(found, expected);
    // Whoever is asked.
    let met = !expected.is_empty();
    for (policy, other) in [(&one, &two), (&two, &one)] {
        let others = if met { vec![name(other)] } else { Vec::new() };
        assert_eq!(differing(&overlaps, policy), others);
    }
}

fn user(id: i64) -> Value {
    json!({"pod": {"securityContext": {"runAsUser": id}}})
}

fn with(mut spec: Value, members: &Value) -> Value {
    for (key, value) in members.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

#[test]
fn policies_differ_where_they_decide_one_value_differently() {
    let high = json!({"priority": 1});
    check(("a/one", user(1)), ("a/two", user(1)), &[]);
    check(
        ("a/one", user(1)),
        ("a/two", user(2)),
        &["spec.pod.securityContext.runAsUser 2 < spec.pod.securityContext.runAsUser 1"],
    );
    check(
        ("a/one", user(1)),
        ("a/two", with(user(2), &high)),
        &["spec.pod.securityContext.runAsUser 1 < spec.pod.securityContext.runAsUser 2"],
    );
    check(
        ("a/one", json!({"profile": "Hardened"})),
        (
            "a/two",
            json!({"containers": {"securityContext": {"runAsUser": 3}}}),
        ),
        &["spec.containers.securityContext.runAsUser 3 < spec.profile runAsUser: 65532"],
    );
    // Lists are combined; items of one name are not.
    check(
        (
            "a/one",
            json!({"containers": {"securityContext": {"capabilities": {"drop": ["ALL"]}}}}),
        ),
        (
            "a/two",
            json!({"containers": {"securityContext": {"capabilities": {"drop": ["KILL"]}}}}),
        ),
        &[],
    );
    let path =
        |path: Value, kind: &str| json!({"containers": {"kinds": [kind], "writablePaths": [path]}});
    check(
        ("a/one", path(json!({"path": "/tmp"}), "Container")),
        (
            "b",
            path(json!({"path": "/tmp", "medium": "Memory"}), "Container"),
        ),
        &[
            r#"spec.containers.writablePaths[/tmp] emptyDir {"medium":"Memory"} < spec.containers.writablePaths[/tmp] emptyDir {}"#,
        ],
    );
    check(
        ("a/one", path(json!({"path": "/tmp"}), "Container")),
        (
            "b",
            path(json!({"path": "/tmp", "medium": "Memory"}), "InitContainer"),
        ),
        &[],
    );
    let kinds = |kind: &str, id: i64| json!({"containers": {"kinds": [kind], "securityContext": {"runAsUser": id}}});
    check(
        ("a/one", kinds("Container", 1)),
        ("a/two", kinds("InitContainer", 2)),
        &[],
    );
}

#[test]
fn policies_that_only_tell_take_no_part() {
    let told = policy("a/one", &with(user(1), &json!({"mode": "Audit"})));
    let fills = policy("a/two", &user(2));
    let overlaps = overlaps(&[Arc::clone(&told), Arc::clone(&fills)]);
    assert_eq!(differing(&overlaps, &told), [""; 0]);
    assert_eq!(differing(&overlaps, &fills), [""; 0]);
}

/// Every policy of a small world: in two namespaces, and for such and such namespaces; for such and such
/// pods; of two users.
fn world() -> Vec<Arc<Policy>> {
    let name_label = "kubernetes.io/metadata.name";
    let scopes = [
        ("a/", json!({})),
        ("b/", json!({})),
        ("", json!({})),
        ("", json!({"matchLabels": {"team": "red"}})),
        ("", json!({"matchLabels": {"team": "blue"}})),
        ("", json!({"matchLabels": {name_label: "a"}})),
        (
            "",
            json!({"matchExpressions": [{"key": name_label, "operator": "In", "values": ["b", "c"]}]}),
        ),
        (
            "",
            json!({"matchExpressions": [{"key": name_label, "operator": "NotIn", "values": ["a"]}]}),
        ),
        (
            "",
            json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["red", "green"]}]}),
        ),
        (
            "",
            json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}),
        ),
        ("", json!({"matchLabels": {"team": "red", "env": "test"}})),
    ];
    let pods = [
        json!({}),
        json!({"podSelector": {"matchLabels": {"app": "web"}}}),
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}}),
        json!({"podSelector": {"matchLabels": {"tier": "x"}}}),
        json!({"serviceAccountNames": ["robot"]}),
        json!({"serviceAccountNames": ["robot", "human"]}),
    ];
    let mut world = Vec::new();
    for (prefix, namespaces) in scopes {
        for pod in &pods {
            for id in [1, 2] {
                let mut spec = with(user(id), pod);
                if prefix.is_empty() && namespaces != json!({}) {
                    spec["namespaceSelector"] = namespaces.clone();
                }
                world.push(policy(&format!("{prefix}p{}", world.len()), &spec));
            }
        }
    }
    world
}

#[test]
fn what_is_found_by_places_is_what_all_pairs_show() {
    let red: BTreeMap<String, String> = [("team".to_owned(), "red".to_owned())].into();
    let none = BTreeMap::new();
    let (world, mut met) = (world(), 0);
    for known in [
        vec![],
        vec![("a", &red)],
        vec![("a", &red), ("b", &none)],
        vec![("a", &none), ("b", &none), ("c", &red), ("d", &red)],
    ] {
        let mut overlaps = overlaps(&world);
        for (name, labels) in &known {
            overlaps.insert_namespace(name, labels);
        }
        for one in &world {
            let mut expected: Vec<&Arc<Policy>> = world
                .iter()
                .filter(|two| two.key() != one.key() && overlaps.differ(one, two))
                .collect();
            expected.sort_by(|a, b| place::order(a).cmp(&place::order(b)));
            let expected: Vec<String> = expected.into_iter().map(|other| name(other)).collect();
            assert_eq!(
                differing(&overlaps, one),
                expected,
                "{} {known:?}",
                name(one)
            );
            met += expected.len();
        }
    }
    assert!(met > 1000, "{met}");
}

/// Whether two policies can share a namespace, by trying namespaces.
#[test]
fn two_policies_share_a_namespace_where_there_is_one_that_both_are_for() {
    let red: BTreeMap<String, String> = [("team".to_owned(), "red".to_owned())].into();
    let values = |one: &str| {
        [
            None,
            Some(one.to_owned()),
            Some("blue".to_owned()),
            Some("green".to_owned()),
        ]
    };
    let world = world();
    let mut overlaps = overlaps(&world);
    overlaps.insert_namespace("a", &red);
    // All that there can be, as far as the world's selectors look: `a` as it is known, others with any labels.
    let mut namespaces = vec![("a", red.clone())];
    for name in ["b", "c", "another"] {
        for team in values("red") {
            for env in [None, Some("test".to_owned())] {
                let labels = [("team", team.clone()), ("env", env)];
                let labels = labels
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?)));
                namespaces.push((name, labels.collect()));
            }
        }
    }
    let is_for = |policy: &Policy, name: &str, labels: &BTreeMap<String, String>| match &policy
        .key()
        .namespace
    {
        Some(own) => own == name,
        None => policy.namespace_selector.matches(|key| match key {
            NAME_LABEL => Some(name),
            key => labels.get(key).map(String::as_str),
        }),
    };
    for one in &world {
        for two in &world {
            let expected = namespaces
                .iter()
                .any(|(name, labels)| is_for(one, name, labels) && is_for(two, name, labels));
            assert_eq!(
                overlaps.can_share_a_namespace(one, two),
                expected,
                "{one:?} {two:?}"
            );
        }
    }
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut overlaps = overlaps(&world());
    overlaps.insert_namespace("a", &BTreeMap::new());
    overlaps.insert_namespace("a", &[("team".to_owned(), "red".to_owned())].into());
    overlaps.remove_namespace("a");
    for policy in world() {
        assert!(overlaps.remove_policy(policy.key()).is_some());
        assert!(overlaps.remove_policy(policy.key()).is_none());
    }
    let Overlaps {
        policies,
        entries,
        groups,
        namespaces,
        labelled,
        named,
        unknown,
        compared: _,
    } = overlaps;
    assert!(policies.is_empty() && entries.is_empty() && groups.is_empty());
    assert!(namespaces.is_empty() && labelled.is_empty() && named.is_empty() && unknown.is_empty());
}

/// How many comparisons the first ten that differ of each policy take, for each policy.
fn comparisons(
    policies: &[Arc<Policy>],
    labels: impl Fn(&str) -> BTreeMap<String, String>,
) -> usize {
    let mut overlaps = overlaps(policies);
    for policy in policies {
        if let Some(namespace) = &policy.key().namespace {
            overlaps.insert_namespace(namespace, &labels(namespace));
        }
    }
    for policy in policies {
        assert!(overlaps.differing(policy, 10).len() <= 10);
    }
    overlaps.compared.load(Ordering::Relaxed) / policies.len()
}

#[test]
fn the_work_for_a_policy_does_not_grow_with_the_number_of_policies() {
    let n: i64 = 2000;
    let user = |id: i64| user(id + 1);
    let team = |i: i64| json!({"namespaceSelector": {"matchLabels": {"team": format!("t{i}")}}});
    let app = |i: i64| json!({"podSelector": {"matchLabels": {"app": format!("a{i}")}}});
    let account = |i: i64| json!({"serviceAccountNames": [format!("s{i}")]});
    type Make<'a> = &'a dyn Fn(i64) -> (String, Value);
    let layouts: &[(&str, Make<'_>)] = &[
        ("cluster, for all, alike", &|i| (format!("p{i}"), user(1))),
        ("cluster, for all, each other", &|i| {
            (format!("p{i}"), user(i))
        }),
        ("cluster, a label each", &|i| {
            (format!("p{i}"), with(user(i), &team(i)))
        }),
        ("cluster, an app each", &|i| {
            (format!("p{i}"), with(user(i), &app(i)))
        }),
        ("cluster, one label, an app each", &|i| {
            (format!("p{i}"), with(with(user(i), &team(0)), &app(i)))
        }),
        ("a namespace each", &|i| (format!("n{i}/p"), user(i))),
        ("one namespace, an app each", &|i| {
            (format!("n/p{i}"), with(user(i), &app(i)))
        }),
        ("one namespace, an account each", &|i| {
            (format!("n/p{i}"), with(user(i), &account(i)))
        }),
        ("namespaces and teams, a label each", &|i| match i % 2 {
            0 => (format!("n{i}/p"), user(1)),
            _ => (format!("p{i}"), with(user(2), &team(i - 1))),
        }),
        ("for all and for teams, alike", &|i| match i % 2 {
            0 => (format!("p{i}"), user(1)),
            _ => (format!("p{i}"), with(user(1), &team(i))),
        }),
    ];
    for (layout, make) in layouts {
        let policies: Vec<Arc<Policy>> = (0..n)
            .map(|i| {
                let (path, spec) = make(i);
                policy(&path, &spec)
            })
            .collect();
        let each = comparisons(&policies, |namespace| {
            [("team".to_owned(), namespace.replace('n', "t"))].into()
        });
        assert!(each <= 20, "{layout}: {each} comparisons for each policy");
    }
}

/// Who is said to go before is who decides in the engine, and policies are said to differ where it shows.
#[test]
fn who_wins_here_wins_in_the_engine() {
    let mut world = Vec::new();
    for (place, tier) in [("shop/", None), ("", Some("Admin")), ("", Some("Baseline"))] {
        for priority in -1..2 {
            for (pod, container) in [(Some(1), None), (None, Some(2)), (Some(3), Some(4))] {
                let mut spec = json!({"priority": priority});
                if let Some(tier) = tier {
                    spec["tier"] = tier.into();
                }
                if let Some(user) = pod {
                    spec["pod"]["securityContext"]["runAsUser"] = user.into();
                }
                if let Some(user) = container {
                    spec["containers"]["securityContext"]["runAsUser"] = user.into();
                }
                world.push(move |name: &str| {
                    (
                        policy(&format!("{place}{name}"), &spec),
                        container.or(pod),
                        pod,
                    )
                });
            }
        }
    }
    let json = r#"{"metadata": {}, "spec": {"containers": [{"name": "app"}]}}"#;
    let pod = Pod::from_json(json).unwrap();
    for one in &world {
        for two in &world {
            let ((first, first_user, first_pod), (second, second_user, second_pod)) =
                (one("a"), two("b"));
            let mut set = PolicySet::new(UnknownNamespaces::OnlyNameLabel);
            for policy in [one("a").0, two("b").0] {
                set.insert_policy(Arc::into_inner(policy).unwrap());
            }
            let mut patched: Value = serde_json::from_str(json).unwrap();
            let plan = crate::plan(&set.matching("shop", &pod).unwrap(), &pod);
            json_patch::patch(&mut patched, &plan.to_patch()).unwrap();
            let user = |pointer| patched.pointer(pointer).and_then(Value::as_i64);
            let engines = user("/spec/containers/0/securityContext/runAsUser")
                .or_else(|| user("/spec/securityContext/runAsUser"));
            let winners = match first.goes_before(&second) {
                Some(_) => first_user,
                None => second_user,
            };
            assert_eq!(engines, winners, "{first:?} {second:?}");
            let differ = first_user != second_user
                || first_pod
                    .zip(second_pod)
                    .is_some_and(|(one, two)| one != two);
            assert_eq!(
                !conflicts(&first, &second).is_empty(),
                differ,
                "{first:?} {second:?}"
            );
        }
    }
}
