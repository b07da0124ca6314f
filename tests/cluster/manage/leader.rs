//! Two managers, of which one does what only one may do.

use serde_json::{Value, json};

use super::{LEASE, control_plane, manager, put_policy, until_observed, user};
use crate::support::api::{Api, bare_namespace, until};
use crate::support::controller::Controller;

async fn leads(manager: &Controller) -> bool {
    manager.metric("podhardening_leading").await == 1.0
}

async fn lease(api: &Api) -> Value {
    api.get(LEASE).await.unwrap()["spec"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_or_ends_the_other_takes_over() {
    let control_plane = control_plane().await;
    let api = Api::of(&control_plane);
    bare_namespace(&api, "shop", &json!({})).await;
    let off = ["--missed-pods-interval=0"];
    let first = manager(&control_plane, "first", &off).await;
    until("the first leads", async || {
        leads(&first).await.then_some(())
    })
    .await;
    let second = manager(&control_plane, "second", &off).await;
    put_policy(&api, "shop/a", &user(1)).await;
    until_observed(&api, "shop/a").await;
    assert!(leads(&first).await && !leads(&second).await);
    let before = lease(&api).await;

    first.kill();
    put_policy(&api, "shop/a", &user(2)).await;
    until_observed(&api, "shop/a").await;
    assert!(leads(&second).await);
    let after = lease(&api).await;
    assert_ne!(after["holderIdentity"], before["holderIdentity"]);
    assert_eq!(after["leaseTransitions"], 2);

    // One that ends gives the lease up.
    let third = manager(&control_plane, "third", &off).await;
    second.terminate().await;
    assert!(lease(&api).await["holderIdentity"].as_str() != after["holderIdentity"].as_str());
    put_policy(&api, "shop/a", &user(3)).await;
    until_observed(&api, "shop/a").await;
    assert!(leads(&third).await);
    third.terminate().await;
    assert!(lease(&api).await.get("holderIdentity").is_none());
    control_plane.stop().await.unwrap();
}
