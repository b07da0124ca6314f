//! The steps. Each shows something and makes sure that it is so.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    inside,
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
    let greeting = match stage.has_node() {
        true => Some(inside::before(&mut narrator, &stage).await?),
        false => None,
    };
    let before = refused_without_us(&mut narrator, &stage).await?;
    let controller = install(&mut narrator, &stage).await?;
    let result = shown(&mut narrator, &stage, &before, greeting.as_deref()).await;
    with_log(&mut narrator, &controller, result)?;
    end(&mut narrator, stage, controller).await?;
    Ok(narrator.end()?)
}

/// `make playground`.
pub(crate) async fn playground() -> anyhow::Result<()> {
    let mut narrator = Narrator::new();
    narrator.title("A control plane to try Pod Hardening for Kubernetes on")?;
    let stage = start(&mut narrator).await?;
    narrator.step("Namespaces")?;
    apply(&mut narrator, &stage, "examples/namespaces.yaml").await?;
    let mut controller = install(&mut narrator, &stage).await?;
    let result = lent(&mut narrator, &stage, &mut controller).await;
    with_log(&mut narrator, &controller, result)?;
    end(&mut narrator, stage, controller).await
}

/// Waits until everything works, and then until Ctrl-C.
async fn lent(
    narrator: &mut Narrator,
    stage: &Stage,
    controller: &mut Controller,
) -> anyhow::Result<()> {
    in_force(narrator, stage).await?;
    narrator.step("Yours")?;
    invite(narrator, stage, controller)?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.context("wait for Ctrl-C"),
        ended = controller.until_it_ends() => Err(ended),
    }
}

/// Shows the controller's log where something went wrong.
fn with_log(
    narrator: &mut Narrator,
    controller: &Controller,
    result: anyhow::Result<()>,
) -> anyhow::Result<()> {
    if result.is_err() {
        // What went wrong is told in any case; this only adds to it.
        let log = fs::read_to_string(controller.log_path()).unwrap_or_default();
        narrator.say("")?;
        narrator.say("The controller's log:")?;
        narrator.quote(&log)?;
    }
    result
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
    narrator.say(&match stage.why_no_node() {
        None => format!(
            "Kubernetes {} runs, with a node: kubelet, containerd and kube-scheduler.",
            version.git_version
        ),
        Some(why) => format!(
            "Kubernetes {} runs, without a node: pods are created and admitted but not started, and what a \
             process in a container sees is not shown, because {why}.",
            version.git_version
        ),
    })?;
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
        .run("kubectl get deployment web -n shop -o json")
        .await?;
    let deployment = serde_json::from_str(&deployment).context("read the Deployment")?;
    let before = pods::stored_without_us(&stage.client, &deployment).await?;
    stage
        .run("kubectl delete -f examples/workloads/web.yaml")
        .await?;
    pods::until_gone(&stage.client, NAMESPACE, "web").await?;
    Ok(before)
}

/// Applies the definitions and the policies, and starts the controller.
async fn install(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<Controller> {
    narrator.step("The controller, and policies")?;
    apply(narrator, stage, "crds").await?;
    stage
        .run("kubectl wait --for condition=Established --timeout 60s -f crds")
        .await?;
    apply(narrator, stage, "examples/policies").await?;
    let controller = stage.start_controller().await?;
    narrator.command(&controller.command_line())?;
    Ok(controller)
}

async fn in_force(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<()> {
    pods::until_hardened(&stage.client, NAMESPACE, POLICIES.len()).await?;
    narrator.say(
        "It has registered itself with the API server, which now asks it about each new pod.",
    )?;
    Ok(())
}

async fn shown(
    narrator: &mut Narrator,
    stage: &Stage,
    before: &Value,
    greeting: Option<&str>,
) -> anyhow::Result<()> {
    in_force(narrator, stage).await?;
    let after = accepted(narrator, stage, before).await?;
    explained(narrator, stage, &after).await?;
    left_alone(narrator, stage).await?;
    match greeting {
        Some(greeting) => inside::after(narrator, stage, greeting).await,
        None => Ok(()),
    }
}

/// The same Deployment again; gives the pod that arrived.
async fn accepted(narrator: &mut Narrator, stage: &Stage, before: &Value) -> anyhow::Result<Value> {
    narrator.step("With us: the same Deployment is accepted")?;
    apply(narrator, stage, "examples/workloads/web.yaml").await?;
    let pod = pods::of_deployment(&stage.client, NAMESPACE, "web").await?;
    narrator.say(&format!(
        "The ReplicaSet has made pod {}. How the API server stores it, against how it would without us:",
        name(&pod)?
    ))?;
    narrator.diff(&pods::yaml(before)?, &pods::yaml(&pod)?, 2)?;

    for (pointer, expected) in [
        ("/spec/securityContext/runAsNonRoot", json!(true)),
        ("/spec/securityContext/runAsUser", json!(10001)),
        (
            "/spec/securityContext/seccompProfile",
            json!({"type": "RuntimeDefault"}),
        ),
        ("/spec/automountServiceAccountToken", json!(false)),
        (
            "/spec/containers/0/securityContext/allowPrivilegeEscalation",
            json!(false),
        ),
        (
            "/spec/containers/0/securityContext/capabilities",
            json!({"drop": ["ALL"]}),
        ),
        (
            "/spec/containers/0/securityContext/readOnlyRootFilesystem",
            json!(true),
        ),
    ] {
        let found = pods::at(&pod, pointer);
        ensure!(*found == expected, "{pointer} is {found}, not {expected}");
    }
    let has_token = |pod| {
        pods::at(pod, "/spec")
            .to_string()
            .contains("kube-api-access-")
    };
    ensure!(has_token(before), "there was no API token to take out");
    ensure!(!has_token(&pod), "the API token is still in the pod");
    Ok(pod)
}

async fn explained(narrator: &mut Narrator, stage: &Stage, pod: &Value) -> anyhow::Result<()> {
    narrator.step("Who set each field")?;
    let command = format!("kubectl harden explain {} -n {NAMESPACE}", name(pod)?);
    narrator.command(&command)?;
    let explanation = stage.run(&command).await?;
    narrator.table(&set_rows(&explanation))?;
    narrator.say("(It also lists what nobody set, and what containers have from the pod.)")?;
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
        .run("kubectl get deployment worker -n shop -o json")
        .await?;
    let deployment: Value = serde_json::from_str(&deployment).context("read the Deployment")?;
    let template = pods::at(&deployment, "/spec/template");
    let before = pods::at(pods::container(template, "cache")?, "/securityContext");
    let after = pods::at(pods::container(&pod, "cache")?, "/securityContext");
    narrator.say("The policy for this pod says runAsUser: 10001. The author of its container cache knew better:")?;
    narrator.diff(
        &serde_saphyr::to_string(before)?,
        &serde_saphyr::to_string(after)?,
        9,
    )?;

    let pods_user = pods::at(&pod, "/spec/securityContext/runAsUser");
    ensure!(
        *pods_user == 10001,
        "the pod's user is {pods_user}, not 10001"
    );
    for (field, value) in before.as_object().context("the author wrote nothing")? {
        ensure!(after.get(field) == Some(value), "{field} was changed");
    }
    ensure!(
        before != after,
        "nothing was added beside what the author wrote"
    );
    Ok(())
}

async fn end(narrator: &mut Narrator, stage: Stage, controller: Controller) -> anyhow::Result<()> {
    narrator.step("The end")?;
    stage.end_controller(controller).await?;
    stage.end().await?;
    narrator.say("All programs have ended, the controller having taken its registration back, and their files are gone.")?;
    Ok(())
}

fn invite(narrator: &mut Narrator, stage: &Stage, controller: &Controller) -> anyhow::Result<()> {
    narrator.say("In another terminal, in this folder:")?;
    narrator.suggest(&format!(
        "export KUBECONFIG={}",
        stage.kubeconfig().display()
    ))?;
    narrator.suggest(&format!("export PATH={}:$PATH", stage.programs()))?;
    narrator.say("")?;
    narrator.say("Things to try:")?;
    let of_the_node = [
        "kubectl apply -f crates/hardening-demo/manifests/",
        "kubectl logs -n greeter deployment/greeter",
        "kubectl exec -n greeter deployment/greeter -- id",
    ];
    for command in of_the_node.iter().filter(|_| stage.has_node()) {
        narrator.suggest(command)?;
    }
    for command in [
        "kubectl apply -f examples/workloads/web.yaml",
        "kubectl get pods -n shop -o yaml",
        "kubectl harden explain -n shop POD",
        "kubectl harden render -f examples/workloads/worker.yaml -o diff",
        "kubectl get php,cphp -A",
        "kubectl explain php.spec",
        "kubectl edit php restricted -n shop",
    ] {
        narrator.suggest(command)?;
    }
    narrator.say("")?;
    narrator.say(&format!(
        "The controller logs to {}.",
        controller.log_path().display()
    ))?;
    narrator.say("Ctrl-C ends all of it.")?;
    Ok(())
}

pub(crate) async fn apply(
    narrator: &mut Narrator,
    stage: &Stage,
    path: &str,
) -> anyhow::Result<()> {
    let command = format!("kubectl apply -f {path}");
    narrator.command(&command)?;
    stage.run(&command).await.map(drop)
}

/// The rows of an explanation that say who set something, as cells.
fn set_rows(explanation: &str) -> Vec<Vec<String>> {
    let rows = explanation.lines().map(|line| {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let mut cells: Vec<String> = text.split("  ").map(str::trim).map(str::to_owned).collect();
        cells.retain(|cell| !cell.is_empty());
        if let Some(first) = cells.first_mut() {
            first.insert_str(0, &" ".repeat(indent));
        }
        cells
    });
    let says_nothing = |row: &Vec<String>| {
        row.last()
            .is_some_and(|setter| setter.starts_with("nobody") || setter == "the pod")
    };
    rows.filter(|row| !says_nothing(row)).collect()
}

fn name(pod: &Value) -> anyhow::Result<&str> {
    pods::at(pod, "/metadata/name")
        .as_str()
        .context("the pod has no name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_explanation_what_somebody_set_is_shown() {
        let explanation = "Pod shop/web (https://127.0.0.1:1/)\n\
            FIELD                      VALUE    SET BY\n\
            pod\n\
            \x20 securityContext.fsGroup  -        nobody; Kubernetes' default: none\n\
            \x20 hostUsers                false    shop/a@1\n\
            container web\n\
            \x20 securityContext.runAsUser  1      the pod\n";
        let expected = [
            vec!["Pod shop/web (https://127.0.0.1:1/)"],
            vec!["FIELD", "VALUE", "SET BY"],
            vec!["pod"],
            vec!["  hostUsers", "false", "shop/a@1"],
            vec!["container web"],
        ];
        assert_eq!(set_rows(explanation), expected);
    }
}
