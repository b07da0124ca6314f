//! A control plane to try things on: runs until its standard input ends or a signal comes.
//!
//! ```text
//! $ cargo run -p test-control-plane
//! export KUBECONFIG=/tmp/control-plane-8dAt3q/admin.kubeconfig
//! ```

use std::{
    io::{self, Write},
    process::ExitCode,
};

use test_control_plane::{ControlPlane, ControlPlaneOptions};

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
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await?;
    writeln!(
        io::stdout(),
        "export KUBECONFIG={}",
        control_plane.kubeconfig_path().display()
    )?;
    // Ctrl-C needs no care here: it ends this process, and with it the control plane.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(control_plane.stop().await?)
}
