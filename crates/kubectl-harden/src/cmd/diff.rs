//! `kubectl harden diff`.

use super::render::render_as;
use crate::args::{DiffArgs, RenderFormat};
use crate::output::Report;

pub(crate) fn run(args: &DiffArgs) -> anyhow::Result<Report> {
    let mut report = render_as(RenderFormat::Diff, &args.input)?;
    report.failed = !report.stdout.is_empty();
    Ok(report)
}
