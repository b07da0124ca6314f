//! Figures as people read them: ratios first, raw figures after, in Markdown, so that a page can take them.

use std::fmt::Write as _;

use crate::webhook::{Cell, Limit, Ratio, Row};
use crate::{Size, Written};

/// The ratios and the figures that they are made of.
#[must_use]
pub fn webhook(rows: &[Row], ratios: &[Ratio]) -> String {
    let mut out = String::from("| load | | ratio | limit | |\n|---|---|---:|---:|---|\n");
    for ratio in ratios {
        let limit = match ratio.limit {
            Limit::AtMost(limit) => format!("at most {limit}"),
            Limit::AtLeast(limit) => format!("at least {limit}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} by the {}'s | {:.2} | {limit} | {} |",
            load(ratio.cell),
            ratio.what.name(),
            ratio.with,
            ratio.ratio,
            if ratio.is_met() { "met" } else { "**not met**" },
        );
    }
    out.push_str(
        "\n| load | server | requests per second | p50 µs | p99 µs | CPU µs per request | client's CPU µs |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let figures = row.figures;
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            load(row.cell),
            row.contender,
            figures.per_second,
            figures.p50,
            figures.p99,
            figures.server_cpu,
            figures.client_cpu,
        );
    }
    out
}

fn load(cell: Cell) -> String {
    let pod = match (cell.size, cell.written) {
        (Size::Small, Written::Nothing) => "small",
        (Size::Typical, Written::Nothing) => "typical",
        (Size::Large, Written::Nothing) => "large",
        (Size::Small, Written::Everything) => "small, needs nothing",
        (Size::Typical, Written::Everything) => "typical, needs nothing",
        (Size::Large, Written::Everything) => "large, needs nothing",
    };
    format!("{pod}, {} x {}", cell.protocol.name(), cell.callers)
}
