//! What the process in a container sees, before and after, where a node can run.

use anyhow::ensure;

use crate::{demo::apply, narrator::Narrator, pods, stage::Stage};

const NAMESPACE: &str = "greeter";
const NAME: &str = "greeter";
/// The policies that the greeter gets something from.
const POLICIES: usize = 2;

/// What the greeter says in the end, line by line.
const AFTER: [(&str, &str); 8] = [
    ("user", "65532"),
    ("group", "65532"),
    ("capabilities", "0000000000000000"),
    ("no new privileges", "1"),
    ("seccomp", "2"),
    ("writes to /", "no"),
    ("writes to /tmp", "yes"),
    ("API token", "none"),
];

/// Starts the greeter as its author wrote it, and gives what it says.
pub(crate) async fn before(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<String> {
    narrator.step("Without us: what a process in a container sees")?;
    apply(
        narrator,
        stage,
        "crates/hardening-demo/manifests/greeter.yaml",
    )
    .await?;
    let said = greeting(narrator, stage).await?;
    narrator.quote(&said)?;
    narrator.say("It is root, with capabilities that it has no use for, and the key to the API in its hands.")?;
    // The images of the other examples are nowhere to be had, so their pods had better not be started.
    stage.run("kubectl cordon localhost").await?;
    Ok(said)
}

/// Hardens the greeter, and shows what has become different.
pub(crate) async fn after(
    narrator: &mut Narrator,
    stage: &Stage,
    before: &str,
) -> anyhow::Result<()> {
    narrator.step("With us: what the same process sees")?;
    stage.run("kubectl uncordon localhost").await?;
    apply(
        narrator,
        stage,
        "crates/hardening-demo/manifests/hardened.yaml",
    )
    .await?;
    pods::until_hardened(&stage.client, NAMESPACE, POLICIES).await?;
    let restart = format!("kubectl rollout restart deployment {NAME} -n {NAMESPACE}");
    narrator.command(&restart)?;
    stage.run(&restart).await?;
    let said = greeting(narrator, stage).await?;
    narrator.diff(before, &said, 9)?;
    for (what, expected) in AFTER {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let found = line.map(str::trim);
        ensure!(
            found == Some(expected),
            "{what} is {found:?}, not {expected}"
        );
    }
    Ok(())
}

/// What the one greeter says that is there once the Deployment is rolled out.
async fn greeting(narrator: &mut Narrator, stage: &Stage) -> anyhow::Result<String> {
    let status = format!("kubectl rollout status deployment {NAME} -n {NAMESPACE} --timeout 120s");
    stage.run(&status).await?;
    let pod = pods::only_one(&stage.client, NAMESPACE, NAME).await?;
    let logs = format!("kubectl logs {pod} -n {NAMESPACE}");
    narrator.command(&logs)?;
    stage.run(&logs).await
}
