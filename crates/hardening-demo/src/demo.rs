//! The steps. Each shows something and makes sure that it is so.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    narrator::Narrator,
    pods,
    stage::{Controller, Stage},
};

const NAMESPACE: &str = "shop";
/// The policies of examples/policies that a plain pod of the namespace gets something from.
const POLICIES: [&str; 3] = ["internet-facing@1", "shop/restricted@1", "baseline@1"];

/// `make demo`.
pub(crate) async fn demo() -> anyhow::Result<()> {
    let mut narrator = Narrator::new();
    narrator.title("Pod Hardening for Kubernetes, on a real control plane")?;
    let stage = start(&mut narrator).await?;
    let before = refused_without_us(&mut narrator, &stage).await?;
    let controller = harden(&mut narrator, &stage).await?;
    let result = shown(&mut narrator, &stage, &before).await;
    if result.is_err() {
        let log = std::fs::read_to_string(controller.log_path()).unwrap_or_default();
        narrator.say("The controller's log:")?;
        narrator.quote(&log)?;
    }
    result?;
    end(&mut narrator, stage, controller).await?;
    Ok(narrator.end()?)
}

/// `make playground`.
pub(crate) async fn playground() -> anyhow::Result<()> {
    let mut narrator = Narrator::new();
    narrator.title("A control plane to try Pod Hardening for Kubernetes on")?;
    let stage = start(&mut narrator).await?;
    narrator.step("Namespaces")?;
    apply(&narrator, &stage, "examples/namespaces.yaml").await?;
    let controller = harden(&mut narrator, &stage).await?;
    narrator.step("Yours")?;
    invite(&narrator, &stage, &controller)?;
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    end(&mut narrator, stage, controller).await
}

async fn start(narrator: &mut Narrator) -> anyhow::Result<Stage> {
    narrator.step("A control plane of its own")?;
    narrator.say("Starting etcd, kube-apiserver and kube-controller-manager on loopback ...")?;
    let stage = Stage::start().await?;
    let version = stage
        .client
        .apiserver_version()
        .await
        .context("ask the API server its version")?;
    narrator.say(&format!(
        "Kubernetes {} runs. It has no node, so pods are created and admitted but not started.",
        version.git_version
    ))?;
    Ok(stage)
}

/// Gives the pod as the API server would store it without us.
async fn refused_without_us(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<Value> {
    narrator.step("Without us: a Deployment as its author wrote it is refused")?;
    narrator.say(
        "The namespace enforces the Pod Security Standard \"restricted\". The author of the Deployment \
         wrote not a word about security.",
    )?;
    apply(narrator, stage, "examples/namespaces.yaml").await?;
    apply(narrator, stage, "examples/workloads/web.yaml").await?;
    let refusal = pods::refusal(&stage.client, NAMESPACE, "web").await?;
    narrator.say("The ReplicaSet cannot make its pod. Its event, FailedCreate, says:")?;
    narrator.quote(&refusal)?;
    ensure!(
        refusal.contains("violates PodSecurity \"restricted:latest\""),
        "the ReplicaSet failed for another reason"
    );

    // In a namespace that enforces nothing: the pod to compare with.
    let deployment = stage
        .run("kubectl get deployment web --namespace shop --output json")
        .await?;
    let deployment = serde_json::from_str(&deployment).context("read the Deployment")?;
    let before = pods::stored_without_us(&stage.client, &deployment).await?;
    stage
        .run("kubectl delete --filename examples/workloads/web.yaml")
        .await?;
    pods::until_gone(&stage.client, NAMESPACE, "web").await?;
    Ok(before)
}

async fn harden(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<Controller> {
    narrator.step("The controller, and policies")?;
    apply(narrator, stage, "crds").await?;
    stage
        .run("kubectl wait --for condition=Established --timeout 60s --filename crds")
        .await?;
    apply(narrator, stage, "examples/policies").await?;
    let controller = stage.start_controller().await?;
    narrator.command(&controller.command_line())?;
    pods::until_hardened(&stage.client, NAMESPACE, POLICIES.len()).await?;
    narrator.say(
        "It has registered itself with the API server, which now asks it about each new pod.",
    )?;
    Ok(controller)
}

async fn shown(narrator: &mut Narrator, stage: &Stage, before: &Value) -> anyhow::Result<()> {
    let after = accepted(narrator, stage, before).await?;
    explained(narrator, stage, &after).await?;
    left_alone(narrator, stage).await
}

/// The same Deployment again; gives the pod that arrived.
async fn accepted(narrator: &mut Narrator, stage: &Stage, before: &Value) -> anyhow::Result<Value> {
    narrator.step("With us: the same Deployment is accepted")?;
    apply(narrator, stage, "examples/workloads/web.yaml").await?;
    let pod = pods::of_deployment(&stage.client, NAMESPACE, "web").await?;
    narrator.say(&format!(
        "The ReplicaSet has made pod {}. What was filled in, by the API server's own account:",
        name(&pod)?
    ))?;
    narrator.diff(&pods::yaml(before)?, &pods::yaml(&pod)?)?;

    let context = &pod["spec"]["securityContext"];
    ensure!(
        context["runAsNonRoot"] == true,
        "runAsNonRoot was not filled in"
    );
    ensure!(
        context["seccompProfile"]["type"] == "RuntimeDefault",
        "seccompProfile was not filled in"
    );
    let web = &pods::container(&pod, "web")?["securityContext"];
    ensure!(
        web["allowPrivilegeEscalation"] == false,
        "allowPrivilegeEscalation was not filled in"
    );
    ensure!(
        web["readOnlyRootFilesystem"] == true,
        "readOnlyRootFilesystem was not filled in"
    );
    ensure!(
        web["capabilities"]["drop"][0] == "ALL",
        "the capabilities were not dropped"
    );
    ensure!(
        before["spec"].to_string().contains("kube-api-access-"),
        "there was no API token to take out"
    );
    ensure!(
        !pod["spec"].to_string().contains("kube-api-access-"),
        "the API token is still in the pod"
    );
    Ok(pod)
}

async fn explained(narrator: &mut Narrator, stage: &Stage, pod: &Value) -> anyhow::Result<()> {
    narrator.step("Who set each field")?;
    let command = format!(
        "kubectl harden explain {} --namespace {NAMESPACE}",
        name(pod)?
    );
    narrator.command(&command)?;
    let explanation = stage.run(&command).await?;
    narrator.output(&explanation)?;
    for policy in POLICIES {
        ensure!(explanation.contains(policy), "{policy} is not named");
    }
    Ok(())
}

async fn left_alone(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<()> {
    narrator.step("What an author wrote stays as it is")?;
    apply(narrator, stage, "examples/workloads/worker.yaml").await?;
    let pod = pods::of_deployment(&stage.client, NAMESPACE, "worker").await?;
    let deployment = stage
        .run("kubectl get deployment worker --namespace shop --output json")
        .await?;
    let deployment: Value = serde_json::from_str(&deployment).context("read the Deployment")?;
    let written = pods::container(&deployment["spec"]["template"], "cache")?;
    let stored = pods::container(&pod, "cache")?;
    narrator.say(
        "The pod's policies say runAsUser: 10001. The author of its container cache knew better:",
    )?;
    let (before, after) = (&written["securityContext"], &stored["securityContext"]);
    narrator.diff(
        &serde_saphyr::to_string(before)?,
        &serde_saphyr::to_string(after)?,
    )?;
    ensure!(
        pod["spec"]["securityContext"]["runAsUser"] == 10001,
        "the pod's user was not filled in"
    );
    for (field, value) in before.as_object().context("the author wrote nothing")? {
        ensure!(after[field] == *value, "{field} was changed");
    }
    Ok(())
}

async fn end(narrator: &mut Narrator, stage: Stage, controller: Controller) -> anyhow::Result<()> {
    narrator.step("The end")?;
    stage.end(controller).await?;
    narrator.say("The controller took its registration back. All programs have ended, and their files are gone.")?;
    Ok(())
}

fn invite(narrator: &Narrator, stage: &Stage, controller: &Controller) -> anyhow::Result<()> {
    narrator.say("In another terminal, in this folder:")?;
    narrator.command(&format!(
        "export KUBECONFIG={}",
        stage.kubeconfig().display()
    ))?;
    narrator.command(&format!("export PATH={}", stage.path().display()))?;
    narrator.say("")?;
    narrator.say("Things to try:")?;
    for command in [
        "kubectl apply -f examples/workloads/web.yaml",
        "kubectl get pods -n shop -o yaml",
        "kubectl harden explain -n shop POD",
        "kubectl harden render -f examples/workloads/worker.yaml -o diff",
        "kubectl get php,cphp -A",
        "kubectl explain php.spec",
        "kubectl edit php restricted -n shop",
    ] {
        narrator.command(command)?;
    }
    narrator.say("")?;
    narrator.say(&format!(
        "The controller logs to {}.",
        controller.log_path().display()
    ))?;
    narrator.say("Ctrl-C ends all of it.")?;
    Ok(())
}

async fn apply(narrator: &Narrator, stage: &Stage, path: &str) -> anyhow::Result<()> {
    let command = format!("kubectl apply --filename {path}");
    narrator.command(&command)?;
    Ok(narrator.quote(&stage.run(&command).await?)?)
}

fn name(pod: &Value) -> anyhow::Result<&str> {
    pod["metadata"]["name"]
        .as_str()
        .context("the pod has no name")
}
