//! End to end: how long the creation of a pod takes on a real API server, and what CPU time it takes there and in
//! the webhook, with each way of filling the fields in.
//!
//! Everybody has a namespace, and what fills in is asked for that one alone. They take turns, so that whatever else
//! the machine does hits all of them. The pods are created as a dry run: everything but the store. A second control
//! plane has a thousand namespaces with policies compiled for them; turns are taken on both.

mod api;
mod setup;
mod table;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::stream::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};
use tokio::time::{Instant, sleep};

use crate::contender::{Contender, Running};
use crate::load::{cpu_of, percentile};
use crate::{PATIENCE, Size, Written, pod};

pub(crate) use self::api::{Api, as_posted};
use self::setup::{
    SOMETHING_IS_OPEN, compiled, compiled_crowd, compiled_group, crowd, in_tree, registration,
};
pub use self::table::{ratios, table};

/// A way of filling in, as a row of the table.
#[derive(Debug)]
pub struct Competitor {
    /// What it is called in tables, and what others are compared with it by.
    pub name: &'static str,
    /// Which control plane it is on.
    pub place: Place,
    /// Its namespace.
    pub namespace: &'static str,
    /// The pods that it is measured with.
    pub pods: &'static [Written],
    /// What is set up for it.
    pub setup: Setup,
}

/// A control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everybody's.
    Shared,
    /// One with a thousand namespaces more.
    Crowded,
}

/// What is set up for a competitor, once, before anything is measured.
#[derive(Debug)]
pub enum Setup {
    /// Nothing.
    None,
    /// A webhook, by a server of its own; with a CEL expression as its matchCondition, where one is given.
    Webhook(Contender, Option<&'static str>),
    /// These objects are created. They are for the competitor's namespace alone.
    Objects(Vec<Value>),
}

/// What one competitor does with one pod under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Who.
    pub name: String,
    /// Whether there is anything to fill in.
    pub written: Written,
    /// Creations under way at any time.
    pub callers: usize,
    /// Pods created in a second.
    pub per_second: f64,
    /// Half of the creations took no longer, in microseconds.
    pub p50: f64,
    /// All but one in a hundred, in microseconds.
    pub p99: f64,
    /// The API server's CPU time for a pod, in microseconds.
    pub apiserver_cpu: f64,
    /// The webhook's; `None` where there is none.
    pub webhook_cpu: Option<f64>,
}

const BASELINE: &str = "nothing";
const NOOP: &str = "no-op webhook";
const FIXED: &str = "fixed-patch webhook";
const OURS: &str = "webhook";
const CONDITIONAL: &str = "webhook, matchCondition";
const IN_TREE: &str = "MutatingAdmissionPolicy";
const COMPILED: &str = "compiled policy";
const COMPILED_GROUP: &str = "10 compiled policies";
const CROWD_BASELINE: &str = "nothing, among 1,000 namespaces";
const CROWD: &str = "10 compiled policies, among 1,000 namespaces in 10 groups";

/// A load is one of these many callers.
const CALLERS: [usize; 2] = [1, 16];

/// Everybody.
///
/// # Errors
///
/// Where a policy is no policy any more, because the API has changed.
pub fn competitors() -> Result<Vec<Competitor>> {
    use Place::{Crowded, Shared};
    use Written::{Everything, Nothing};
    const BOTH: &[Written] = &[Nothing, Everything];
    let row = |name, place, namespace, pods, setup| Competitor {
        name,
        place,
        namespace,
        pods,
        setup,
    };
    let on_shared = |name, namespace, pods, setup| row(name, Shared, namespace, pods, setup);
    let webhook = |contender| Setup::Webhook(contender, None);
    let conditional = Setup::Webhook(Contender::Hardening, Some(SOMETHING_IS_OPEN));
    let [one, group, of_crowd] = [
        compiled("compiled")?,
        compiled_group("compiled-group")?,
        compiled_crowd("crowd")?,
    ]
    .map(Setup::Objects);
    Ok(vec![
        on_shared(BASELINE, "nothing", BOTH, Setup::None),
        on_shared(NOOP, "noop", &[Everything], webhook(Contender::Noop)),
        on_shared(FIXED, "fixed", &[Nothing], webhook(Contender::Fixed)),
        on_shared(OURS, "webhook", BOTH, webhook(Contender::Hardening)),
        on_shared(CONDITIONAL, "conditional", BOTH, conditional),
        on_shared(IN_TREE, "in-tree", BOTH, Setup::Objects(in_tree("in-tree"))),
        on_shared(COMPILED, "compiled", BOTH, one),
        on_shared(COMPILED_GROUP, "compiled-group", BOTH, group),
        row(CROWD_BASELINE, Crowded, "nothing", BOTH, Setup::None),
        row(CROWD, Crowded, "crowd", BOTH, of_crowd),
    ])
}

// === measuring ===

/// A competitor that is set up.
struct Ready {
    competitor: Competitor,
    api: Api,
    server: Option<Running>,
}

/// What is added up over a competitor's turns.
#[derive(Default)]
struct Sum {
    times: Vec<u64>,
    elapsed: Duration,
    apiserver_cpu: f64,
    webhook_cpu: f64,
}

/// Measures everybody on a control plane of its own: `pods` in each turn, `rounds` turns under each load.
///
/// # Errors
///
/// Where the control plane or a server does not start, a pod is refused, or somebody does not do the job.
pub async fn measure(rounds: usize, pods: usize) -> Result<Vec<Row>> {
    let (shared, crowded) = (start().await?, start().await?);
    let apis = [Api(shared.client()?), Api(crowded.client()?)];
    let mut everybody = Vec::new();
    for competitor in competitors()? {
        let [shared, crowded] = &apis;
        let api = match competitor.place {
            Place::Shared => shared,
            Place::Crowded => crowded,
        };
        everybody.push(set_up(api.clone(), competitor).await?);
    }
    let [_, crowded_api] = &apis;
    fill_with_namespaces(crowded_api).await?;
    for ready in &everybody {
        until_at_work(ready).await?;
    }
    let mut rows = Vec::new();
    for written in [Written::Nothing, Written::Everything] {
        let body = as_posted(pod(Size::Typical, written)?)
            .to_string()
            .into_bytes();
        let taking_part: Vec<&Ready> = everybody
            .iter()
            .filter(|ready| ready.competitor.pods.contains(&written))
            .collect();
        for callers in CALLERS {
            let mut sums: Vec<Sum> = taking_part.iter().map(|_| Sum::default()).collect();
            // The first round only warms up.
            for round in 0..=rounds {
                for (ready, sum) in taking_part.iter().zip(&mut sums) {
                    let turn = turn(ready, &body, callers, pods).await?;
                    if round > 0 {
                        sum.add(turn);
                    }
                }
            }
            for (ready, sum) in taking_part.iter().zip(sums) {
                rows.push(sum.row(ready, written, callers)?);
            }
        }
    }
    drop(everybody);
    shared.stop().await?;
    crowded.stop().await?;
    Ok(rows)
}

async fn start() -> Result<ControlPlane> {
    let options = ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    };
    Ok(ControlPlane::start(options).await?)
}

/// The namespaces of the crowd that are not there yet.
async fn fill_with_namespaces(api: &Api) -> Result<()> {
    let names = crowd("crowd").concat();
    let missing = names.iter().filter(|name| *name != "crowd");
    futures::stream::iter(missing)
        .map(|name| api.create_namespace(name))
        .buffer_unordered(16)
        .try_collect()
        .await
}

async fn set_up(api: Api, competitor: Competitor) -> Result<Ready> {
    api.create_namespace(competitor.namespace).await?;
    let server = match &competitor.setup {
        Setup::None => None,
        Setup::Webhook(contender, condition) => {
            let server = contender.start(Size::Typical, Written::Nothing)?;
            api.create_object(&registration(&competitor, &server, *condition)?)
                .await?;
            Some(server)
        }
        Setup::Objects(objects) => {
            for object in objects {
                api.create_object(object).await?;
            }
            None
        }
    };
    Ok(Ready {
        competitor,
        api,
        server,
    })
}

/// Waits until pods come out of it as they shall.
async fn until_at_work(ready: &Ready) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let fills_in = match ready.competitor.setup {
        Setup::None | Setup::Webhook(Contender::Noop, _) => false,
        Setup::Webhook(..) | Setup::Objects(_) => true,
    };
    let body = as_posted(pod(Size::Typical, Written::Nothing)?).to_string();
    loop {
        let answer = ready
            .api
            .try_pod(ready.competitor.namespace, body.clone().into_bytes())
            .await;
        let problem = match answer {
            Ok(answer) => {
                let admitted: Value = serde_json::from_str(&answer).context("read a pod")?;
                if is_filled_in(&admitted) == fills_in {
                    return Ok(());
                }
                answer
            }
            Err(error) => format!("{error:#}"),
        };
        ensure!(
            Instant::now() < deadline,
            "{} does not do its job: {problem}",
            ready.competitor.name
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a pod has all that the job is to fill in.
fn is_filled_in(pod: &Value) -> bool {
    let expected = json!({
        "runAsNonRoot": true, "runAsUser": 10_001, "fsGroup": 10_001, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let containers = ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| pod.pointer("/spec")?.get(list)?.as_array())
        .flatten();
    let of_containers =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    pod.pointer("/spec/securityContext") == Some(&expected)
        && containers
            .map(|container| container.get("securityContext"))
            .all(|context| context == Some(&of_containers))
}

async fn turn(ready: &Ready, body: &[u8], callers: usize, pods: usize) -> Result<Sum> {
    let api = &ready.api;
    let webhook_cpu = || {
        ready
            .server
            .as_ref()
            .map_or(Ok(0.0), |server| cpu_of(server.pid()))
    };
    let before = (api.cpu().await?, webhook_cpu()?);
    let started = Instant::now();
    let times: Vec<u64> = futures::stream::iter(0..pods)
        .map(|_| async {
            let asked = Instant::now();
            api.try_pod(ready.competitor.namespace, body.to_vec())
                .await?;
            u64::try_from(asked.elapsed().as_micros()).context("a time")
        })
        .buffer_unordered(callers)
        .try_collect()
        .await?;
    let elapsed = started.elapsed();
    Ok(Sum {
        times,
        elapsed,
        apiserver_cpu: api.cpu().await? - before.0,
        webhook_cpu: webhook_cpu()? - before.1,
    })
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.elapsed += other.elapsed;
        self.apiserver_cpu += other.apiserver_cpu;
        self.webhook_cpu += other.webhook_cpu;
    }

    fn row(mut self, ready: &Ready, written: Written, callers: usize) -> Result<Row> {
        self.times.sort_unstable();
        let pods = f64::from(u32::try_from(self.times.len()).context("a number of pods")?);
        let cpu_per_pod = |seconds: f64| seconds * 1e6 / pods;
        Ok(Row {
            name: ready.competitor.name.to_owned(),
            written,
            callers,
            per_second: pods / self.elapsed.as_secs_f64(),
            p50: percentile(&self.times, 50)?,
            p99: percentile(&self.times, 99)?,
            apiserver_cpu: cpu_per_pod(self.apiserver_cpu),
            webhook_cpu: ready.server.as_ref().map(|_| cpu_per_pod(self.webhook_cpu)),
        })
    }
}
