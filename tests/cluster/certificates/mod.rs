//! `hardening-controller manage` and `run` with certificates of their own, on a real API server: three of
//! each, with the rights that the documentation gives them, while pods are being created and every one of
//! those calls must succeed.

mod fleet;
mod load;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::api::until;
use crate::support::tell::tell;
use fleet::{CA, Fleet, Lifetimes, SERVING, Who, collection_of_secrets, path};
use load::Load;

/// Short enough to see several of each, long enough for a machine that does much else meanwhile.
const SECONDS: Lifetimes = Lifetimes {
    leaf: "15s",
    ca: "45s",
};
/// Too long to be renewed while a case runs; and a new CA waits for a twentieth of its life.
const MINUTES: Lifetimes = Lifetimes {
    leaf: "2m",
    ca: "4m",
};
/// How many renewals are waited for.
const LEAVES: usize = 6;
const CAS: usize = 3;
/// How long that may take: twice what it does.
const RENEWALS_WITHIN: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_fail_no_call() {
    let fleet = Fleet::start(SECONDS).await;
    let mut load = Load::start(&fleet).await;
    let started = Instant::now();
    let (mut leaves, mut cas) = (BTreeSet::new(), BTreeSet::new());
    let mut most_trusted = 0;
    while leaves.len() <= LEAVES || cas.len() <= CAS {
        assert!(
            started.elapsed() < RENEWALS_WITHIN,
            "{} leaves, {} CAs",
            leaves.len(),
            cas.len()
        );
        let secret = fleet.secret(SERVING).await.unwrap();
        leaves.insert(secret["data"]["tls.crt"].to_string());
        cas.insert(secret["data"]["ca.crt"].to_string());
        most_trusted = most_trusted.max(fleet.trusted().await[0].len());
        load.go_on().await;
    }
    // The old CA and the new one, side by side.
    assert!(most_trusted >= 2, "{most_trusted}");
    let seen = load.end().await;
    seen.assert_none_failed();
    tell(&format!(
        "certificates: {} leaves and {} CAs in {:.0?}, 3 managers, 3 replicas: {seen}",
        leaves.len(),
        cas.len(),
        started.elapsed()
    ));
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_harmed_is_made_again_and_no_call_fails() {
    let fleet = Fleet::start(MINUTES).await;
    first_start_made_one_ca(&fleet).await;
    strangers_are_left_alone(&fleet).await;
    rights_are_enough_and_no_more(&fleet).await;

    let mut load = Load::start(&fleet).await;
    let garbage = |entries: &[&str]| {
        let entries = entries
            .iter()
            .map(|entry| ((*entry).to_owned(), json!("Z2FyYmFnZQ==")));
        json!({"data": Value::Object(entries.collect())})
    };
    let empty = json!({"data": {"tls.crt": "", "tls.key": ""}});
    let gone = json!({"data": null});
    type Harm = (&'static str, Option<Value>);
    let cases: [(&str, &[Harm]); 7] = [
        ("the certificate deleted", &[(SERVING, None)]),
        (
            "the certificate garbage",
            &[(SERVING, Some(garbage(&["tls.crt", "tls.key", "ca.crt"])))],
        ),
        (
            "half of the certificate garbage",
            &[(SERVING, Some(garbage(&["tls.key"])))],
        ),
        ("the certificate emptied", &[(SERVING, Some(empty))]),
        ("the CA deleted", &[(CA, None)]),
        ("the CA emptied", &[(CA, Some(gone))]),
        ("both deleted", &[(CA, None), (SERVING, None)]),
    ];
    for (case, harms) in cases {
        let before = fleet.secret(SERVING).await.unwrap()["data"]["tls.crt"].clone();
        for (secret, harm) in harms {
            match harm {
                None => fleet.api.delete(&path(secret)).await,
                Some(members) => {
                    fleet.api.merge(&path(secret), members).await.unwrap();
                }
            }
        }
        let lost_ca = harms.iter().any(|(secret, _)| *secret == CA);
        fleet
            .until_repaired(case, &before, lost_ca, &mut load)
            .await;
    }
    let seen = load.end().await;
    seen.assert_none_failed();
    tell(&format!("certificates: harmed in 7 ways: {seen}"));
    a_lost_ca_is_no_longer_trusted_when_asked_for(&fleet).await;
    fleet.stop().await;
}

async fn first_start_made_one_ca(fleet: &Fleet) {
    assert_eq!(fleet.managers_wrote("next-ca").await, 1.0);
    assert_eq!(fleet.managers_wrote("certificate").await, 1.0);
    let (ca, serving) = (
        fleet.secret(CA).await.unwrap(),
        fleet.secret(SERVING).await.unwrap(),
    );
    assert_eq!(ca["data"]["ca.crt"], serving["data"]["ca.crt"]);
    let ours = fleet.trusted().await;
    assert_eq!(ours.len(), 2);
    for bundle in ours {
        assert_eq!(bundle, [load::decoded(&ca["data"]["ca.crt"])]);
    }
}

/// Somebody wants to be rid of a CA before its time, as docs/operations.md says how.
async fn a_lost_ca_is_no_longer_trusted_when_asked_for(fleet: &Fleet) {
    assert!(fleet.trusted().await.iter().all(|bundle| bundle.len() > 1));
    let remove = |webhook: usize| json!({"op": "remove", "path": format!("/webhooks/{webhook}/clientConfig/caBundle")});
    let content = [("content-type", "application/json-patch+json")];
    let patch = json!([remove(0), remove(1)]);
    let answer = fleet
        .api
        .request("PATCH", fleet::CONFIGURATION, &content, Some(&patch))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until("only the CAs that are there are trusted", async || {
        let ca = fleet.secret(CA).await?;
        let known = ["ca.crt", "next.crt", "previous.crt"];
        let known: Vec<String> = known
            .iter()
            .map(|entry| &ca["data"][entry])
            .filter(|entry| entry.is_string())
            .map(load::decoded)
            .collect();
        let trusted = fleet.trusted().await;
        let right = |bundle: &Vec<String>| bundle.iter().eq(&known);
        trusted.iter().all(right).then_some(())
    })
    .await;
}

/// Only the `caBundle`s of our webhooks are written, and nothing is taken over.
async fn strangers_are_left_alone(fleet: &Fleet) {
    let configuration = fleet.configuration().await;
    let stranger = &configuration["webhooks"][2];
    assert_eq!(stranger["clientConfig"], fleet::stranger()["clientConfig"]);
    let managers = configuration["metadata"]["managedFields"]
        .as_array()
        .unwrap();
    let ours = managers
        .iter()
        .find(|entry| entry["manager"] == "hardening-controller")
        .unwrap();
    let expected = |name: &str| {
        let key = format!("k:{{\"name\":\"{name}\"}}");
        (key, json!({"f:clientConfig": {"f:caBundle": {}}}))
    };
    let expected: Value = [
        expected("pods.podhardening.dev"),
        expected("ephemeralcontainers.podhardening.dev"),
    ]
    .into_iter()
    .collect();
    assert_eq!(ours["fieldsV1"], json!({"f:webhooks": expected}));

    // A Secret of somebody else's under the name of ours.
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "data": {"a": "Yg=="},
    });
    let collection = collection_of_secrets();
    let theirs = fleet.api.post(&collection, &theirs).await.unwrap();
    // With all rights, so that it is not for want of rights that it stays away.
    let kubeconfig = fleet.control_plane.kubeconfig_path();
    let manager = fleet.manager("stranger", kubeconfig, "theirs", MINUTES);
    let page = until("the manager tells why it is not ready", async || {
        let (status, page) = manager.get("/readyz").await?;
        (status == 503 && page.contains("theirs")).then_some(page)
    })
    .await;
    let expected = "[-]certificates failed: Secret pod-hardening-system/theirs was not made by this program \
                    (it lacks the label podhardening.dev/certificate=ca) and is left as it is: delete it, or \
                    name another one";
    assert!(page.contains(expected), "{page}");
    manager.terminate().await;
    assert_eq!(
        fleet
            .api
            .get(&format!("{collection}/theirs"))
            .await
            .unwrap(),
        theirs
    );
}

async fn rights_are_enough_and_no_more(fleet: &Fleet) {
    let cases = [
        (Who::Replica, "get", SERVING, 200),
        (Who::Replica, "get", CA, 403),
        (Who::Replica, "put", SERVING, 403),
        (Who::Manager, "get", CA, 200),
        (Who::Manager, "get", "theirs", 403),
        (Who::Manager, "put", SERVING, 200),
    ];
    for (who, verb, secret, status) in cases {
        let api = fleet.as_user(who).await;
        let path = path(secret);
        let object = fleet.secret(SERVING).await.unwrap();
        let answer = match verb {
            "put" => {
                api.send("PUT", &format!("{path}?dryRun=All"), Some(&object))
                    .await
            }
            _ => api.send("GET", &path, None).await,
        };
        assert_eq!(answer.status, status, "{who:?} {verb} {secret}: {answer:?}");
    }
}
