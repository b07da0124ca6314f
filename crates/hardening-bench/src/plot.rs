//! Figures as pictures, for the page that keeps them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use crate::load::Protocol;
use crate::scale;
use crate::webhook::{Cell, Row};
use crate::{Size, Written};

/// A line: what it is called, and its points.
pub type Line = (String, Vec<(f64, f64)>);

/// Latency against load: the median and the slowest of a hundred, for the webhook and the fixed patch.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn latency(rows: &[Row], path: &Path) -> Result<()> {
    use crate::contender::Contender::{Fixed, Hardening};
    let lines = [(Fixed, "fixed patch"), (Hardening, "webhook")];
    let lines = lines.into_iter().flat_map(|(contender, name)| {
        [("p50", false), ("p99", true)].map(|(percentile, slow)| {
            let of_load = |row: &&Row| {
                let Cell {
                    size,
                    written,
                    protocol,
                    ..
                } = row.cell;
                row.contender == contender
                    && (size, written, protocol)
                        == (Size::Typical, Written::Nothing, Protocol::Http2)
            };
            let points = rows.iter().filter(of_load).map(|row| {
                let time = if slow {
                    row.figures.p99
                } else {
                    row.figures.p50
                };
                (f64::from(row.cell.callers), time / 1000.0)
            });
            (format!("{name}, {percentile}"), points.collect())
        })
    });
    draw(
        ("Reviews at once (typical, HTTP/2)", "ms"),
        &lines.collect::<Vec<_>>(),
        path,
    )
}

/// Cost against policies: CPU time of a review.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn policies(rows: &[scale::Row], path: &Path) -> Result<()> {
    let points = rows
        .iter()
        .map(|row| (f64::from(row.count), row.review_cpu));
    let line = ("a review".to_owned(), points.collect());
    draw(
        ("Policies, and as many namespaces", "µs of CPU"),
        &[line],
        path,
    )
}

/// Draws lines over a logarithmic axis of numbers from 1 on.
///
/// # Errors
///
/// Where the file cannot be written.
pub fn draw((x, y): (&str, &str), lines: &[Line], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (720, 400)).into_drawing_area();
    let drawn = || -> Result<(), DrawingAreaErrorKind<_>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d((1.0..most(|p| p.0)).log_scale(), 0.0..most(|p| p.1) * 1.1)?;
        chart.configure_mesh().x_desc(x).y_desc(y).draw()?;
        for (i, (name, points)) in lines.iter().enumerate() {
            let colour = Palette99::pick(i).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour))?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
        root.present()
    };
    drawn().with_context(|| format!("draw {}", path.display()))
}
