//! `kubectl harden man`.

use std::fs;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::args::{Args, ManArgs};
use crate::output::Report;

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<Report> {
    let folder = &args.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Args::command(), folder))
        .with_context(|| format!("{}: cannot be written to", folder.display()))?;
    Ok(Report::default())
}
