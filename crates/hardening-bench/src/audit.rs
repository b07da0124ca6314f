//! `kubectl harden audit` over a whole cluster: how long it takes, beside `kubectl` listing the same pods, and the most
//! memory of it that is resident.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};

use crate::cluster::{Api, as_posted};
use crate::load::{memory_of, percentile};
use crate::report::{Limit, Ratio};
use crate::{PATIENCE, Size, Written, pod};

/// What one of the two programs took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The command.
    pub command: String,
    /// Pods in the cluster.
    pub pods: usize,
    /// From its start to its end, the median of all turns, in milliseconds.
    pub millis: f64,
    /// The most memory that was resident in any turn, in MiB.
    pub mebibytes: f64,
}

/// The pods of one workload.
const REPLICAS: usize = 5;
/// The workloads of one namespace.
const WORKLOADS: usize = 100;
/// Creations under way at any time.
const CREATIONS: usize = 16;

/// Fills a control plane of its own with pods, and lets both programs list them, `rounds` times in turn.
///
/// # Errors
///
/// Where the control plane does not start, a pod is refused, or a program fails.
pub async fn measure(rounds: usize, pods: usize) -> Result<Vec<Row>> {
    let options = ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    };
    let control_plane = ControlPlane::start(options).await?;
    let kubectl = control_plane.kubectl()?;
    fill(&Api(control_plane.client()?), pods).await?;
    let program = std::env::current_exe().context("find this program")?;
    let ours = program.with_file_name("kubectl-harden");
    let contenders: [(&str, &Path, &[&str]); 2] = [
        (LISTING, &kubectl, &["get", "pods", "-A", "-o", "json"]),
        (AUDIT, &ours, &["audit", "-A", "-o", "json"]),
    ];
    let mut turns = [Vec::new(), Vec::new()];
    // The first round only warms up.
    for round in 0..=rounds {
        for ((_, program, args), turns) in contenders.iter().zip(&mut turns) {
            let mut command = Command::new(program);
            command
                .args(*args)
                .env("KUBECONFIG", control_plane.kubeconfig_path());
            let turn = run(&mut command)?;
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    control_plane.stop().await?;
    let row = |((command, ..), turns): (&(&str, &Path, &[&str]), &Vec<Turn>)| {
        let mut times: Vec<u64> = turns.iter().map(|turn| turn.micros).collect();
        times.sort_unstable();
        let most = turns.iter().map(|turn| turn.kibibytes).max();
        Ok(Row {
            command: (*command).to_owned(),
            pods,
            millis: percentile(&times, 50)? / 1000.0,
            mebibytes: most.unwrap_or_default() as f64 / 1024.0,
        })
    };
    contenders.iter().zip(&turns).map(row).collect()
}

const LISTING: &str = "kubectl get pods -A -o json";
const AUDIT: &str = "kubectl harden audit -A -o json";

/// The limits of the audit.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let of = |command: &str| rows.iter().find(|row| row.command == command);
    let (Some(listing), Some(audit)) = (of(LISTING), of(AUDIT)) else {
        return Vec::new();
    };
    vec![
        Ratio {
            what: format!("audit of {} pods, time / kubectl listing them", audit.pods),
            ratio: audit.millis / listing.millis,
            limit: Limit::AtMost(1.5),
        },
        Ratio {
            what: format!("audit of {} pods, memory / 150 MiB", audit.pods),
            ratio: audit.mebibytes / 150.0,
            limit: Limit::AtMost(1.0),
        },
    ]
}

/// The figures as a table in Markdown.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from("\n| | pods | ms | MiB resident at most |\n|---|---:|---:|---:|\n");
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {:.0} | {:.1} |",
            row.command, row.pods, row.millis, row.mebibytes
        );
    }
    out
}

// === the cluster ===

/// Creates the CRDs, a policy and the pods, of workloads that are there too.
async fn fill(api: &Api, pods: usize) -> Result<()> {
    for crd in hardening_api::crds() {
        api.create_object(&crd).await?;
    }
    // The kind is served a moment after its definition is there.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = api.create_object(&crate::policy()).await {
        ensure!(Instant::now() < deadline, error);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for i in 0..pods.div_ceil(REPLICAS * WORKLOADS) {
        api.create_namespace(&namespace(i)).await?;
    }
    let progress = indicatif::ProgressBar::new(pods as u64).with_message("creating pods");
    let bodies = (0..pods).map(|i| Ok((namespace(i / (REPLICAS * WORKLOADS)), body(i)?)));
    stream::iter(bodies)
        .map(|made: Result<(String, Value)>| async {
            let (namespace, body) = made?;
            let path = format!("/api/v1/namespaces/{namespace}/pods");
            api.create(&path, body.to_string().into_bytes()).await?;
            progress.inc(1);
            Ok(())
        })
        .buffer_unordered(CREATIONS)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

fn namespace(i: usize) -> String {
    format!("n{i}")
}

/// A pod as its author wrote it, of a workload with some more.
fn body(i: usize) -> Result<Value> {
    let mut pod = as_posted(pod(Size::Typical, Written::Nothing)?);
    let workload = i / REPLICAS;
    let metadata = pod.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.context("a pod without metadata")?;
    metadata.remove("generateName");
    metadata.insert(
        "name".to_owned(),
        format!("w{workload}-{}", i % REPLICAS).into(),
    );
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": format!("w{workload}"),
        "uid": format!("00000000-0000-4000-8000-{workload:012}"), "controller": true,
    }]);
    metadata.insert("ownerReferences".to_owned(), owner);
    Ok(pod)
}

// === a turn ===

struct Turn {
    micros: u64,
    kibibytes: u64,
}

/// How often a program is asked for its memory. The most that it had can only grow, so little is missed.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a program to its end.
fn run(command: &mut Command) -> Result<Turn> {
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let mut kibibytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for the program")? {
            break status;
        }
        // It may just have ended.
        let peak = memory_of(child.id()).ok().and_then(|memory| memory.peak);
        kibibytes = peak.unwrap_or_default().max(kibibytes);
        std::thread::sleep(LOOK);
    };
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let name = command.get_program().display();
    ensure!(status.success(), "{name} ended with {status}");
    ensure!(kibibytes > 0, "{name} ended before its memory was seen");
    Ok(Turn { micros, kibibytes })
}
