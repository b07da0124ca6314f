//! End to end: how long the creation of a pod takes on a real API server, and what CPU time it takes there and in
//! the webhook, with each way of filling the fields in.
//!
//! Everybody has a namespace, and what fills in is asked for that one alone. They take turns, so that whatever else
//! the machine does hits all of them. The pods are created as a dry run: everything but the store.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use test_control_plane::{ControlPlane, ControlPlaneOptions};
use tokio::time::{Instant, sleep};

use crate::contender::{Contender, Running};
use crate::load::{cpu_of, percentile};
use crate::report::{Limit, Ratio};
use crate::{PATIENCE, Size, Written, pod};

/// A way of filling in, as a row of the table.
#[derive(Debug)]
pub struct Competitor {
    /// What it is called in tables, and what others are compared with it by.
    pub name: &'static str,
    /// Its namespace.
    pub namespace: &'static str,
    /// The pods that it is measured with.
    pub pods: &'static [Written],
    /// What is set up for it.
    pub setup: Setup,
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

/// A load is one of these many callers.
const CALLERS: [usize; 2] = [1, 16];

/// Everybody.
#[must_use]
pub fn competitors() -> Vec<Competitor> {
    use Written::{Everything, Nothing};
    let row = |name, namespace, pods, setup| Competitor {
        name,
        namespace,
        pods,
        setup,
    };
    let webhook = |contender| Setup::Webhook(contender, None);
    let conditional = Setup::Webhook(Contender::Hardening, Some(SOMETHING_IS_OPEN));
    vec![
        row(BASELINE, "nothing", &[Nothing, Everything], Setup::None),
        row(NOOP, "noop", &[Everything], webhook(Contender::Noop)),
        row(FIXED, "fixed", &[Nothing], webhook(Contender::Fixed)),
        row(
            OURS,
            "webhook",
            &[Nothing, Everything],
            webhook(Contender::Hardening),
        ),
        row(
            CONDITIONAL,
            "conditional",
            &[Nothing, Everything],
            conditional,
        ),
        row(
            IN_TREE,
            "in-tree",
            &[Nothing, Everything],
            Setup::Objects(in_tree("in-tree")),
        ),
    ]
}

/// Whether a pod leaves a field of the policy's open: what a matchCondition would ask, for this one policy.
const SOMETHING_IS_OPEN: &str = "!(has(object.spec.securityContext) \
    && has(object.spec.securityContext.runAsNonRoot) && has(object.spec.securityContext.runAsUser) \
    && has(object.spec.securityContext.fsGroup) && has(object.spec.securityContext.seccompProfile) \
    && object.spec.containers.all(c, has(c.securityContext) \
    && has(c.securityContext.allowPrivilegeEscalation) && has(c.securityContext.capabilities) \
    && has(c.securityContext.capabilities.drop)) \
    && (!has(object.spec.initContainers) || object.spec.initContainers.all(c, has(c.securityContext) \
    && has(c.securityContext.allowPrivilegeEscalation) && has(c.securityContext.capabilities) \
    && has(c.securityContext.capabilities.drop))))";

/// The same job written by hand for the API server itself: the profile Restricted, a user and a group, each where it
/// is open.
fn in_tree(namespace: &str) -> Vec<Value> {
    let containers = |list: &str| {
        let add = |place: &str, value: &str| {
            format!(
                "[JSONPatch{{op: \"add\", path: \"/spec/{list}/\" + string(i) + \"/securityContext{place}\", value: {value}}}]"
            )
        };
        let (drop_all, no_escalation) = (
            "{\"drop\": [\"ALL\"]}",
            "\"allowPrivilegeEscalation\": dyn(false)",
        );
        let whole = add(
            "",
            &format!("{{{no_escalation}, \"capabilities\": dyn({drop_all})}}"),
        );
        let escalation = add("/allowPrivilegeEscalation", "false");
        let capabilities = add("/capabilities", drop_all);
        let drops = add("/capabilities/drop", "[\"ALL\"]");
        format!(
            "(has(object.spec.{list}) ? object.spec.{list}.transformList(i, c, \
             !has(c.securityContext) ? {whole} : \
             (has(c.securityContext.allowPrivilegeEscalation) ? [] : {escalation}) + \
             (has(c.securityContext.capabilities) ? (has(c.securityContext.capabilities.drop) ? [] : {drops}) \
             : {capabilities})).flatten() : [])"
        )
    };
    let at_pod = |field: &str, value: &str| {
        format!(
            "(has(object.spec.securityContext) && has(object.spec.securityContext.{field}) ? [] : \
             [JSONPatch{{op: \"add\", path: \"/spec/securityContext/{field}\", value: {value}}}])"
        )
    };
    let pod = [
        at_pod("runAsNonRoot", "true"),
        at_pod("runAsUser", "10001"),
        at_pod("fsGroup", "10001"),
        at_pod("seccompProfile", "{\"type\": \"RuntimeDefault\"}"),
    ]
    .join(" + ");
    let expression = [pod, containers("initContainers"), containers("containers")].join(" + ");
    let name = "bench-in-tree";
    vec![
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [pods_created()]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
            },
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "matchResources": {"namespaceSelector": only(namespace)}},
        }),
    ]
}

fn pods_created() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]})
}

fn only(namespace: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}})
}

fn registration(
    competitor: &Competitor,
    server: &Running,
    condition: Option<&str>,
) -> Result<Value> {
    let conditions: Vec<Value> = condition
        .iter()
        .map(|expression| json!({"name": "something-is-open", "expression": expression}))
        .collect();
    Ok(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": format!("bench-{}", competitor.namespace)},
        "webhooks": [{
            "name": "pods.bench.example",
            "clientConfig": {
                "url": format!("https://{}/mutate", server.address),
                "caBundle": BASE64.encode(server.ca()?),
            },
            "rules": [pods_created()],
            "namespaceSelector": only(competitor.namespace),
            "matchConditions": conditions,
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 3,
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }],
    }))
}

// === the API server ===

/// Calls, as bytes: nothing that the client does with them is measured.
#[derive(Clone)]
pub(crate) struct Api(pub(crate) Client);

impl Api {
    pub(crate) async fn create(&self, path: &str, body: Vec<u8>) -> Result<String> {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body)
            .context("make a request")?;
        let answer = self.0.request_text(request).await;
        answer.with_context(|| format!("create at {path}"))
    }

    pub(crate) async fn create_object(&self, object: &Value) -> Result<()> {
        let path = match object.get("kind").and_then(Value::as_str) {
            Some("Namespace") => "/api/v1/namespaces".to_owned(),
            Some("ServiceAccount") => {
                let namespace = object
                    .pointer("/metadata/namespace")
                    .and_then(Value::as_str);
                format!(
                    "/api/v1/namespaces/{}/serviceaccounts",
                    namespace.unwrap_or_default()
                )
            }
            Some(kind) => {
                let version = object.get("apiVersion").and_then(Value::as_str);
                let plural = match kind.strip_suffix('y') {
                    Some(stem) => format!("{stem}ies"),
                    None => format!("{kind}s"),
                };
                format!(
                    "/apis/{}/{}",
                    version.unwrap_or_default(),
                    plural.to_lowercase()
                )
            }
            None => return Err(anyhow!("an object without a kind: {object}")),
        };
        self.create(&path, object.to_string().into_bytes()).await?;
        Ok(())
    }

    /// A namespace, and the service account without which no pod can be created in it.
    pub(crate) async fn create_namespace(&self, name: &str) -> Result<()> {
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}),
        ] {
            self.create_object(&object).await?;
        }
        Ok(())
    }

    /// A pod created as a dry run; as it would be admitted.
    async fn try_pod(&self, namespace: &str, pod: Vec<u8>) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        self.create(&path, pod).await
    }

    /// Seconds of CPU time that the API server has used, as it tells itself.
    async fn cpu(&self) -> Result<f64> {
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .context("make a request")?;
        let page = self.0.request_text(request).await.context("get /metrics")?;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        let value = value.context("the API server does not tell its CPU time")?;
        value.parse().context("read the API server's CPU time")
    }
}

// === measuring ===

/// A competitor that is set up.
struct Ready {
    competitor: Competitor,
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
    let options = ControlPlaneOptions {
        controller_manager: false,
        ..ControlPlaneOptions::default()
    };
    let control_plane = ControlPlane::start(options).await?;
    let api = Api(control_plane.client()?);
    let mut everybody = Vec::new();
    for competitor in competitors() {
        everybody.push(set_up(&api, competitor).await?);
    }
    for ready in &everybody {
        until_at_work(&api, ready).await?;
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
                    let turn = turn(&api, ready, &body, callers, pods).await?;
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
    control_plane.stop().await?;
    Ok(rows)
}

async fn set_up(api: &Api, competitor: Competitor) -> Result<Ready> {
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
    Ok(Ready { competitor, server })
}

/// Waits until pods come out of it as they shall.
async fn until_at_work(api: &Api, ready: &Ready) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let fills_in = match ready.competitor.setup {
        Setup::None | Setup::Webhook(Contender::Noop, _) => false,
        Setup::Webhook(..) | Setup::Objects(_) => true,
    };
    let body = as_posted(pod(Size::Typical, Written::Nothing)?).to_string();
    loop {
        let answer = api
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

/// The pod as its author sends it: without what the API server adds before it asks a webhook.
pub(crate) fn as_posted(mut pod: Value) -> Value {
    let remove = |object: Option<&mut Value>, keys: &[&str]| {
        if let Some(object) = object.and_then(Value::as_object_mut) {
            keys.iter().for_each(|key| drop(object.remove(*key)));
        }
    };
    remove(Some(&mut pod), &["status"]);
    remove(
        pod.get_mut("metadata"),
        &["managedFields", "ownerReferences", "namespace"],
    );
    remove(
        pod.get_mut("spec"),
        &["volumes", "tolerations", "priority", "preemptionPolicy"],
    );
    for list in ["containers", "initContainers"] {
        let containers = pod.pointer_mut("/spec").and_then(|spec| spec.get_mut(list));
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            remove(Some(container), &["volumeMounts"]);
        }
    }
    pod
}

async fn turn(api: &Api, ready: &Ready, body: &[u8], callers: usize, pods: usize) -> Result<Sum> {
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

// === the tables ===

/// What the webhook is held to end to end, and how it does.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    use Limit::{AtLeast, AtMost};
    use Written::{Everything, Nothing};
    let find = |name: &str, written, callers| {
        rows.iter()
            .find(|row| (&*row.name, row.written, row.callers) == (name, written, callers))
    };
    let throughput = |with: &str, limit| {
        let (ours, other) = (find(OURS, Nothing, 16)?, find(with, Nothing, 16)?);
        Some(Ratio {
            what: format!("16 callers: pods per second by those of {with}"),
            ratio: ours.per_second / other.per_second,
            limit,
        })
    };
    let added = |name: &str| {
        let (row, base) = (find(name, Everything, 1)?, find(BASELINE, Everything, 1)?);
        Some(row.p50 - base.p50)
    };
    let added = || {
        Some(Ratio {
            what: format!("needs nothing, 1 caller: added p50 by that of {IN_TREE}"),
            ratio: added(OURS)? / added(IN_TREE)?,
            limit: AtMost(0.5),
        })
    };
    [
        throughput(FIXED, AtLeast(0.95)),
        throughput(IN_TREE, AtLeast(1.1)),
        added(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The figures of everybody.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n| pod | callers | filled in by | pods per second | p50 ms | p99 ms | added p50 ms | added p99 ms \
         | API server's CPU µs per pod | webhook's |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let base = rows.iter().find(|base| {
            base.name == BASELINE && (base.written, base.callers) == (row.written, row.callers)
        });
        let added = |of: fn(&Row) -> f64| {
            base.map_or(String::new(), |base| {
                format!("{:+.2}", (of(row) - of(base)) / 1000.0)
            })
        };
        let pod = match row.written {
            Written::Nothing => "typical",
            Written::Everything => "typical, needs nothing",
        };
        let webhook = row
            .webhook_cpu
            .map_or(String::new(), |cpu| format!("{cpu:.0}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {pod} | {} | {} | {:.0} | {:.2} | {:.2} | {} | {} | {:.0} | {webhook} |",
            row.callers,
            row.name,
            row.per_second,
            row.p50 / 1000.0,
            row.p99 / 1000.0,
            added(|row| row.p50),
            added(|row| row.p99),
            row.apiserver_cpu,
        );
    }
    out
}
