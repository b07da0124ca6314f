//! The webhook under load, beside the servers that do less, and the ratios that it is held to.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::load::{Client, Extent, Figures, Protocol};
use crate::report::{Limit, Ratio};
use crate::{Size, Written, review};

/// A load that all contenders are put under in turn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// How large the pod is.
    pub size: Size,
    /// Whether there is anything to fill in.
    pub written: Written,
    /// How the client speaks.
    pub protocol: Protocol,
    /// Requests under way at any time.
    pub callers: u32,
}

/// What one contender does under one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The load.
    #[serde(flatten)]
    pub cell: Cell,
    /// Who.
    pub contender: Contender,
    /// How it did: of each figure the median over the rounds.
    #[serde(flatten)]
    pub figures: Figures,
    /// How it did in each round, in their order.
    pub rounds: Vec<Figures>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The server's CPU time for a request.
    Cpu,
    /// Requests in a second.
    Throughput,
    /// The median of the requests' times.
    Median,
}

// === the loads ===

impl Cell {
    /// Every load.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::pods().flat_map(|(size, written)| {
            Protocol::ALL.into_iter().flat_map(move |protocol| {
                [1, 16, 64].into_iter().map(move |callers| Self {
                    size,
                    written,
                    protocol,
                    callers,
                })
            })
        })
    }

    /// The pods that are reviewed.
    fn pods() -> impl Iterator<Item = (Size, Written)> {
        [Size::Typical, Size::Large]
            .into_iter()
            .flat_map(|size| [Written::Nothing, Written::Everything].map(|written| (size, written)))
    }

    /// A pod that needs nothing has no patch that could be made beforehand.
    fn contenders(self) -> &'static [Contender] {
        match self.written {
            Written::Nothing => &[Contender::Noop, Contender::Fixed, Contender::Hardening],
            Written::Everything => &[Contender::Noop, Contender::Hardening],
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs = match self.written {
            Written::Nothing => "",
            Written::Everything => ", needs nothing",
        };
        let (size, protocol) = (self.size.name(), self.protocol.name());
        write!(f, "{size}{needs}, {protocol} x {}", self.callers)
    }
}

// === measuring ===

/// Measures all of it, contenders taking turns within each load, so that whatever else the machine does
/// hits all of them.
///
/// # Errors
///
/// Where a server or the client fails.
pub fn measure(extent: Extent) -> Result<Vec<Row>> {
    let cells: Vec<Cell> = Cell::all().collect();
    let turns = cells
        .iter()
        .map(|cell| cell.contenders().len() * extent.rounds);
    let progress = progress(turns.sum());
    let folder = tempfile::tempdir().context("make a folder")?;
    let mut rows = Vec::new();
    for (size, written) in Cell::pods() {
        let body = folder.path().join("review.json");
        fs::write(&body, review(size, written)?).context("write the review")?;
        for cell in cells
            .iter()
            .filter(|cell| (cell.size, cell.written) == (size, written))
        {
            rows.extend(measure_cell(*cell, extent, &body, &progress)?);
        }
    }
    progress.finish_and_clear();
    Ok(rows)
}

fn measure_cell(
    cell: Cell,
    extent: Extent,
    body: &Path,
    progress: &ProgressBar,
) -> Result<Vec<Row>> {
    let started = cell.contenders().iter().map(|contender| {
        let server = contender.start(cell.size, cell.written)?;
        let client = Client::start(&server, body, (cell.protocol, cell.callers))?;
        // The client ends first.
        anyhow::Ok((*contender, client, server, Vec::new()))
    });
    let mut servers = started.collect::<Result<Vec<_>>>()?;
    for _ in 0..extent.rounds {
        for (contender, client, _, rounds) in &mut servers {
            progress.set_message(format!(
                "{} {} {contender}",
                cell.size.name(),
                cell.protocol.name()
            ));
            rounds.push(client.turn(extent.turn)?);
            progress.inc(1);
        }
    }
    let rows = servers
        .into_iter()
        .map(|(contender, .., rounds)| Row::new(cell, contender, rounds));
    rows.collect()
}

fn progress(turns: usize) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(turns).unwrap_or(u64::MAX));
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{pos}/{len} {bar:30} {eta} left, {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Row {
    fn new(cell: Cell, contender: Contender, rounds: Vec<Figures>) -> Result<Self> {
        Ok(Self {
            cell,
            contender,
            figures: Figures::median(&rounds)?,
            rounds,
        })
    }
}

// === the ratios ===

/// What the webhook is held to, and how it does.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let rounds = |cell: Cell, contender| {
        let row = rows
            .iter()
            .find(|row| row.cell == cell && row.contender == contender);
        row.map(|row| &row.rounds)
    };
    let held =
        Cell::all().flat_map(|cell| limits(cell).into_iter().map(move |limit| (cell, limit)));
    held.filter_map(|(cell, (what, with, limit))| {
        let (own, other) = (rounds(cell, Contender::Hardening)?, rounds(cell, with)?);
        Some(Ratio {
            what: format!("{cell}: {} by the {with}'s", what.name()),
            ratio: Figures::median_ratio(own, other, |figures| what.of(figures))?,
            limit,
        })
    })
    .collect()
}

fn limits(cell: Cell) -> Vec<(Measure, Contender, Limit)> {
    use Contender::{Fixed, Noop};
    use Limit::{AtLeast, AtMost};
    use Measure::{Cpu, Median, Throughput};
    if cell.written == Written::Everything {
        return vec![(Cpu, Noop, AtMost(1.15))];
    }
    let (fixed, noop) = match cell.size {
        Size::Small | Size::Typical => (1.12, 1.25),
        Size::Large => (1.15, 1.3),
    };
    let mut limits = vec![(Cpu, Fixed, AtMost(fixed)), (Cpu, Noop, AtMost(noop))];
    limits.push(if cell.callers == 1 {
        (Median, Fixed, AtMost(1.15))
    } else {
        (Throughput, Fixed, AtLeast(0.9))
    });
    limits
}

impl Measure {
    fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Cpu => figures.server_cpu,
            Self::Throughput => figures.per_second,
            Self::Median => figures.p50,
        }
    }

    /// What it is called in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU per request",
            Self::Throughput => "requests per second",
            Self::Median => "p50",
        }
    }
}

/// The figures of everybody.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n| load | server | requests per second | p50 µs | p99 µs | CPU µs per request | client's CPU µs |\n\
         |---|---|---:|---:|---:|---:|---:|\n",
    );
    for Row {
        cell,
        contender,
        figures,
        ..
    } in rows
    {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {cell} | {contender} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            figures.per_second, figures.p50, figures.p99, figures.server_cpu, figures.client_cpu,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tests::figures;

    #[test]
    fn a_ratio_is_of_what_was_measured_at_the_same_time() {
        let cell = Cell::all().next().unwrap();
        let row = |contender, cpu: [f64; 3]| {
            let rounds = cpu.map(|cpu| figures(100.0, cpu)).to_vec();
            Row::new(cell, contender, rounds).unwrap()
        };
        // The machine became slower in the third round, and in the second only while one of them was measured.
        let rows = [
            row(Contender::Fixed, [10.0, 10.0, 40.0]),
            row(Contender::Hardening, [11.0, 30.0, 44.0]),
        ];
        let cpu = ratios(&rows)
            .into_iter()
            .find(|ratio| ratio.what.contains(Measure::Cpu.name()));
        assert!((cpu.unwrap().ratio - 1.1).abs() < 1e-9);
    }

    #[test]
    fn every_load_is_held_to_limits_on_the_side_that_is_worse() {
        let slower = |contender| {
            figures(
                80.0,
                if contender == Contender::Hardening {
                    200.0
                } else {
                    100.0
                },
            )
        };
        let rows: Vec<Row> = Cell::all()
            .flat_map(|cell| {
                cell.contenders()
                    .iter()
                    .map(move |contender| (cell, *contender))
            })
            .map(|(cell, contender)| Row::new(cell, contender, vec![slower(contender)]).unwrap())
            .collect();
        let ratios = ratios(&rows);
        for cell in Cell::all() {
            let of_cell = format!("{cell}: ");
            assert!(
                ratios.iter().any(|ratio| ratio.what.starts_with(&of_cell)),
                "{cell}"
            );
        }
        for ratio in &ratios {
            let is_cpu = ratio.what.contains(Measure::Cpu.name());
            assert_eq!(ratio.is_met(), !is_cpu, "{ratio:?}");
        }
    }
}
