//! A control plane to try things on: runs until its standard input ends or a signal comes. With `--node`, also
//! a node, on which pods run.
//!
//! ```text
//! $ cargo run -p test-control-plane -- --node
//! export KUBECONFIG=/tmp/control-plane-8dAt3q/admin.kubeconfig
//! # the node is ready
//! ```

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::ensure;
use test_control_plane::{ControlPlane, ControlPlaneOptions, Node};

#[tokio::main]
async fn main() -> ExitCode {
    match hold().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If not even this can be written, the exit code says it.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn hold() -> anyhow::Result<()> {
    let mut with_node = false;
    for argument in env::args().skip(1) {
        ensure!(
            argument == "--node",
            "unknown argument {argument:?}; there is only --node"
        );
        with_node = true;
    }
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    writeln!(
        io::stdout(),
        "export KUBECONFIG={}",
        control_plane.kubeconfig_path().display()
    )?;
    let node = if with_node {
        let node = Node::start(&control_plane).await?;
        writeln!(io::stdout(), "# the node is ready")?;
        Some(node)
    } else {
        None
    };
    // Ctrl-C needs no care here: it ends this process, and with it the control plane.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    if let Some(node) = node {
        node.stop()?;
    }
    Ok(control_plane.stop().await?)
}
