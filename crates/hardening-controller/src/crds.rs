//! `hardening-controller crds`: what `crds/` holds.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// Prints both definitions, for `kubectl apply -f -`.
pub(crate) fn print() -> anyhow::Result<()> {
    let mut text = String::new();
    for crd in hardening_api::crds() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd).context("write a definition as YAML")?);
    }
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("print the definitions")
}
