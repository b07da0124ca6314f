//! What is done to the cluster: each fault, and how it is made good.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::task;

use super::{
    AT_ONCE, CHART, CLUSTER_POLICY, CRD, Cluster, DEADLINE, MANY, POLICIES, POLL, ProductPod, ROOT,
    SECRETS, WEBHOOK, rand, secret,
};
use crate::{direct::Replica, loader, process, report::Soak, support::api::namespace};

impl Cluster {
    pub(crate) async fn roll(&mut self) {
        self.kubectl(&["rollout", "restart", "deployment", WEBHOOK])
            .await;
        self.kubectl(&["rollout", "status", "deployment", WEBHOOK])
            .await;
    }

    pub(crate) async fn scale(&mut self, replicas: usize) {
        let number = format!("--replicas={replicas}");
        self.kubectl(&["scale", "deployment", WEBHOOK, &number])
            .await;
        self.until_some("as many replicas as were asked for", async |cluster| {
            let pods = cluster.pods("webhook").await?;
            let is_so = pods.len() == replicas && pods.iter().all(|pod| pod.is_ready);
            is_so.then_some(()).ok_or_else(|| format!("{pods:?}"))
        })
        .await;
    }

    /// Chooses a replica for the next fault: all in turn, as the API server's connections may be to the others.
    async fn choose_replica(&mut self) {
        let pods = self.pods("webhook").await.unwrap();
        self.turn += 1;
        self.chosen = pods[self.turn % pods.len()].clone();
    }

    /// Kills a replica, and waits until it was started again.
    pub(crate) async fn kill_replica(&mut self) {
        self.choose_replica().await;
        self.signal_chosen("SIGKILL").await;
        self.until_some("the replica is started again", async |cluster| {
            let pods = cluster.pods("webhook").await?;
            let is_again = |pod: &ProductPod| {
                pod.name == cluster.chosen.name && pod.restarts > cluster.chosen.restarts
            };
            let is_so = pods.iter().any(|pod| is_again(pod) && pod.is_ready);
            is_so.then_some(()).ok_or_else(|| format!("{pods:?}"))
        })
        .await;
    }

    /// Has another pod in place of the one that was chosen, which the kubelet would start later and later.
    pub(crate) async fn replace_replica(&mut self) {
        let pod = self.chosen.name.clone();
        self.kubectl(&["delete", "pod", &pod]).await;
    }

    pub(crate) async fn signal_manager(&mut self, signal: &str) {
        let pods = self.pods("manager").await.unwrap();
        self.chosen = pods[0].clone();
        self.signal_chosen(signal).await;
    }

    /// Signals the container that was chosen last.
    pub(crate) async fn signal_chosen(&mut self, signal: &str) {
        task::block_in_place(|| self.node.signal(&self.chosen.container, signal)).unwrap();
    }

    /// Stops a replica as a debugger would.
    pub(crate) async fn freeze_replica(&mut self) {
        self.choose_replica().await;
        let begun = Instant::now();
        self.signal_chosen("SIGSTOP").await;
        self.until_out_of_rotation(begun).await;
    }

    /// Throws away all that a replica's pod sends, so that whoever calls it waits.
    pub(crate) async fn isolate_replica(&mut self) {
        self.choose_replica().await;
        let begun = Instant::now();
        self.tc(&["replace", "dev", "eth0", "root", "pfifo", "limit", "0"])
            .await;
        self.until_out_of_rotation(begun).await;
    }

    pub(crate) async fn reconnect_replica(&mut self) {
        self.tc(&["del", "dev", "eth0", "root"]).await;
    }

    /// Changes how the chosen pod sends.
    async fn tc(&self, arguments: &[&str]) {
        let container = &self.chosen.container;
        let process = process::of_container(container).expect("a process of the container");
        let target = format!("--target={process}");
        let arguments = [&[&target, "--net", "tc", "qdisc"], arguments].concat();
        self.run(Path::new("nsenter"), &arguments).await;
    }

    /// Waits until the chosen replica is out of rotation, and some time more in which calls must find the others; but
    /// less than its liveness takes.
    async fn until_out_of_rotation(&mut self, begun: Instant) {
        self.until_some("the replica is out of rotation", async |cluster| {
            let pods = cluster.pods("webhook").await?;
            let is_out = pods
                .iter()
                .any(|pod| pod.container == cluster.chosen.container && !pod.is_ready);
            is_out.then_some(()).ok_or_else(|| format!("{pods:?}"))
        })
        .await;
        self.seen.out_of_rotation_in = self.seen.out_of_rotation_in.max(begun.elapsed());
        tokio::time::sleep_until((begun + Duration::from_secs(18)).into()).await;
    }

    pub(crate) async fn restart_kubelet(&mut self) {
        let path = self.node.directory().join("kubelet.pid");
        let before = fs::read_to_string(&path).unwrap();
        self.node.restart_kubelet().unwrap();
        self.until_some("another kubelet", async |_| {
            let now = fs::read_to_string(&path).unwrap();
            (now != before).then_some(()).ok_or(now)
        })
        .await;
    }

    /// Ends the API server, and asks each replica for 20 s meanwhile.
    pub(crate) async fn lose_api_server(&mut self) {
        let ca = self.ca().await.unwrap();
        let mut replicas = Vec::new();
        for pod in self.pods("webhook").await.unwrap() {
            replicas.push(Replica::at(&pod.address, &ca).await);
        }
        task::block_in_place(|| self.control_plane.stop_apiserver());
        let end = Instant::now() + Duration::from_secs(20);
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        while Instant::now() < end {
            ticks.tick().await;
            for replica in &replicas {
                match replica.patch(loader::NAMESPACE, "app").await {
                    Ok(patch) if patch.contains("load@") => self.seen.direct.answered += 1,
                    _ => self.seen.direct.failed += 1,
                }
            }
        }
        assert!(self.seen.direct.answered + self.seen.direct.failed > 0);
    }

    pub(crate) async fn restore_api_server(&mut self) {
        self.control_plane.start_apiserver().await.unwrap();
    }

    pub(crate) async fn restart_etcd(&mut self) {
        self.control_plane.restart_etcd().await.unwrap();
    }

    pub(crate) async fn cut_watches(&mut self) {
        self.relay.cut();
    }

    pub(crate) async fn silence_watches(&mut self, time: Duration) {
        self.relay.silence();
        tokio::time::sleep(time).await;
    }

    pub(crate) async fn heal_watches(&mut self) {
        self.relay.heal();
    }

    /// Lets certificates live for minutes, for so long. Those that are there are deleted, as they would live on.
    pub(crate) async fn rotate(&mut self, time: Duration) {
        let short = "manager.extraArgs={--tls-leaf-lifetime=1m,--tls-ca-lifetime=3m}";
        self.helm_upgrade(Path::new(CHART), &[short]).await;
        self.delete_certificates().await;
        let end = Instant::now() + time;
        let [serving, ca] = SECRETS.map(secret);
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        while Instant::now() < end {
            // Where one cannot be read right now, it is a moment later.
            for (seen, (path, entry)) in seen
                .iter_mut()
                .zip([(&serving, "tls.crt"), (&ca, "ca.crt")])
            {
                if let Ok(found) = self.get(path).await {
                    seen.insert(found["data"][entry].to_string());
                }
            }
            tokio::time::sleep(POLL).await;
        }
        let renewed = seen.map(|certificates| certificates.len().saturating_sub(1));
        // In their whole lives, though they are renewed when two thirds are over: the machine may be slow.
        let least = [60, 180].map(|life| usize::try_from(time.as_secs() / life).unwrap());
        let enough = renewed
            .iter()
            .zip(least)
            .all(|(renewed, least)| *renewed >= least);
        assert!(enough, "renewed {renewed:?} times, and not {least:?}");
        self.seen.renewed = Some(renewed);
    }

    /// Lets certificates live as long as they do by default.
    pub(crate) async fn rotate_no_more(&mut self) {
        self.helm_upgrade(Path::new(CHART), &[]).await;
    }

    pub(crate) async fn delete_certificates(&mut self) {
        for name in SECRETS {
            let before = self.secret(name).await.unwrap();
            self.api.delete(&secret(name)).await;
            self.until_some("the Secret is made again", async |cluster| {
                let now = cluster.secret(name).await?;
                (now != before).then_some(()).ok_or(now)
            })
            .await;
        }
    }

    pub(crate) async fn delete_namespaced_crd(&mut self) {
        self.api.delete(CRD).await;
        self.until_some("the CRD is gone", async |cluster| {
            match cluster.api.get(CRD).await {
                Err(refusal) if refusal.status == 404 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Applies the CRD again, and waits until policies of its kind are in force again.
    pub(crate) async fn restore_namespaced_crd(&mut self) {
        self.apply_crd().await;
        self.create_policies(1).await;
        self.delete_many_policies().await;
    }

    /// Applies the CRD in Helm's name, so that the next upgrade finds it as Helm left it.
    async fn apply_crd(&mut self) {
        let path = format!("{CRD}?fieldManager=helm&force=true");
        let content = [("content-type", "application/apply-patch+yaml")];
        let crd = bare(&self.crd);
        let applied = self.api.request("PATCH", &path, &content, Some(&crd)).await;
        applied.ok().unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    /// Creates policies in a namespace, all at once, each for another pod, and waits until the last is in force.
    pub(crate) async fn create_policies(&mut self, number: usize) {
        let api = &self.api;
        stream::iter(0..number)
            .for_each_concurrent(AT_ONCE, async |number| {
                let deadline = Instant::now() + DEADLINE;
                // A kind that was made just now is not served yet.
                while let Err(refusal) = api.post(POLICIES, &policy(number)).await {
                    assert!(Instant::now() < deadline, "policy {number}: {refusal}");
                    tokio::time::sleep(POLL).await;
                }
            })
            .await;
        let last = number - 1;
        self.until_in_force(last, 1).await;
    }

    /// Has the API server store a policy that no version of ours can read, among good ones, and waits until a change
    /// of one of those is in force.
    pub(crate) async fn store_broken_policy_among(&mut self, number: usize) {
        let mut lax = self.api.get(CRD).await.unwrap();
        lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        });
        self.api
            .put(CRD, &lax)
            .await
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        let mut broken = policy(number);
        broken["spec"] = json!({"profile": 5, "pod": "none"});
        self.until_some("a broken policy is stored", async |cluster| {
            let stored = cluster.api.post(POLICIES, &broken).await;
            stored.map_err(|error| error.to_string())
        })
        .await;
        self.create_policies(number - 1).await;
        let path = format!("{POLICIES}/policy-7");
        let change = json!({"spec": {"priority": 7}});
        self.api
            .merge(&path, &change)
            .await
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        self.until_in_force(7, 2).await;
    }

    async fn until_in_force(&mut self, number: usize, generation: u32) {
        let expected = format!("many/policy-{number}@{generation}");
        self.until_some("the policy is in force everywhere", async |cluster| {
            cluster
                .all_answer(MANY, &format!("app-{number}"), &expected)
                .await
        })
        .await;
    }

    /// Deletes all those policies, and puts the CRD back as it was.
    pub(crate) async fn delete_many_policies(&mut self) {
        self.api.delete(POLICIES).await;
        self.apply_crd().await;
    }

    /// Fills the cluster, and then changes a policy every second; notes how much memory replicas have meanwhile.
    pub(crate) async fn soak(&mut self) {
        self.fill().await;
        self.until_whole().await;
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut memory = Vec::new();
        let end = Instant::now() + self.soak;
        while Instant::now() < end {
            seconds.tick().await;
            let priority = json!({"spec": {"priority": i64::from(rand())}});
            let changed = self.api.merge(CLUSTER_POLICY, &priority).await;
            changed.unwrap_or_else(|refusal| panic!("{refusal}"));
            memory.push(self.memory());
        }
        let most = |samples: &[u64]| samples.iter().max().copied().unwrap_or(0);
        let part = memory.len().div_ceil(5);
        self.seen.soak = Some(Soak {
            first: most(&memory[..part]),
            last: most(&memory[memory.len() - part..]),
        });
    }

    /// Adds policies, namespaces and pods, as many as a large cluster has.
    async fn fill(&mut self) {
        self.create_policies(1_000).await;
        let api = &self.api;
        stream::iter(0..2_000)
            .for_each_concurrent(AT_ONCE, async |number| {
                let name = format!("crowd-{number}");
                namespace(api, &name, &json!({})).await;
                let path = format!("/api/v1/namespaces/{name}/pods");
                for number in 0..5 {
                    let pod = loader::pod(&format!("pod-{number}"));
                    let deadline = Instant::now() + DEADLINE;
                    // The service account of a namespace that was made just now is not there yet.
                    while let Err(refusal) = api.post(&path, &pod).await {
                        assert!(Instant::now() < deadline, "{path}: {refusal}");
                        tokio::time::sleep(POLL).await;
                    }
                }
            })
            .await;
    }

    /// Installs the chart's previous version. As there is none yet, it is this one under a lower number, with pods
    /// that differ.
    pub(crate) async fn downgrade(&mut self) {
        let previous = self.control_plane.directory().join("previous");
        copy(&Path::new(ROOT).join(CHART), &previous);
        let path = previous.join("Chart.yaml");
        let chart = fs::read_to_string(&path).unwrap();
        let chart: Vec<_> = chart
            .lines()
            .map(|line| match line.starts_with("version:") {
                true => "version: 0.0.1",
                false => line,
            })
            .collect();
        fs::write(&path, chart.join("\n")).unwrap();
        let values = [
            "webhook.podAnnotations.release=previous",
            "manager.podAnnotations.release=previous",
        ];
        self.helm_upgrade(&previous, &values).await;
    }

    pub(crate) async fn upgrade(&mut self) {
        self.helm_upgrade(Path::new(CHART), &[]).await;
    }

    pub(crate) async fn uninstall(&mut self) {
        self.helm(&["uninstall", WEBHOOK, "--wait", "--timeout=5m"])
            .await;
    }
}

/// A policy for pods that are labelled with its number.
fn policy(number: usize) -> Value {
    json!({
        "apiVersion": "podhardening.dev/v1alpha1", "kind": "PodHardeningPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": MANY},
        "spec": {"profile": "Restricted", "podSelector": {"matchLabels": {"app": format!("app-{number}")}}},
    })
}

/// An object without what only the API server gives it.
fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    let bare_object = bare.as_object_mut().unwrap();
    bare_object.remove("status");
    let metadata = bare["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| ["name", "labels", "annotations"].contains(&name.as_str()));
    bare
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
