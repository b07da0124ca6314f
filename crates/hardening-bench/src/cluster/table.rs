//! What was measured, as ratios and as a table.

use std::fmt::Write as _;

use super::{BASELINE, COMPILED_GROUP, CROWD, CROWD_BASELINE, FIXED, IN_TREE, OURS, Row};
use crate::Written;
use crate::report::{Limit, Ratio};

/// What the webhook is held to end to end, and how it does.
#[must_use]
pub fn ratios(rows: &[Row]) -> Vec<Ratio> {
    use Limit::{AtLeast, AtMost};
    use Written::{Everything, Nothing};
    let find = |name: &str, written, callers| {
        rows.iter()
            .find(|row| (&*row.name, row.written, row.callers) == (name, written, callers))
    };
    let throughput = |with: &str, limit| {
        let (ours, other) = (find(OURS, Nothing, 16)?, find(with, Nothing, 16)?);
        Some(Ratio {
            what: format!("16 callers: pods per second by those of {with}"),
            ratio: ours.per_second / other.per_second,
            limit,
        })
    };
    let added = |name: &str, written| {
        let row = find(name, written, 1)?;
        Some(row.p50 - find(baseline(name), written, 1)?.p50)
    };
    let needs_nothing = || {
        Some(Ratio {
            what: format!("needs nothing, 1 caller: added p50 by that of {IN_TREE}"),
            ratio: added(OURS, Everything)? / added(IN_TREE, Everything)?,
            limit: AtMost(0.5),
        })
    };
    let crowd = || {
        Some(Ratio {
            what: format!("1 caller: added p50 of {CROWD} by that of {COMPILED_GROUP}"),
            ratio: added(CROWD, Nothing)? / added(COMPILED_GROUP, Nothing)?,
            limit: AtMost(1.2),
        })
    };
    let crowd_cpu = || {
        let [crowd, group] =
            [CROWD, COMPILED_GROUP].map(|name| Some(find(name, Nothing, 16)?.apiserver_cpu));
        Some(Ratio {
            what: format!("16 callers: API server's CPU of {CROWD} by that of {COMPILED_GROUP}"),
            ratio: crowd? / group?,
            limit: AtMost(1.2),
        })
    };
    [
        throughput(FIXED, AtLeast(0.95)),
        throughput(IN_TREE, AtLeast(1.1)),
        needs_nothing(),
        crowd(),
        crowd_cpu(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a row is compared with: nothing at all, on the same control plane.
fn baseline(name: &str) -> &'static str {
    match name {
        CROWD | CROWD_BASELINE => CROWD_BASELINE,
        _ => BASELINE,
    }
}

/// The figures of everybody.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "\n| pod | callers | filled in by | pods per second | p50 ms | p99 ms | added p50 ms | added p99 ms \
         | API server's CPU µs per pod | webhook's |\n|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let base = rows.iter().find(|base| {
            base.name == baseline(&row.name)
                && (base.written, base.callers) == (row.written, row.callers)
        });
        let added = |of: fn(&Row) -> f64| {
            base.map_or(String::new(), |base| {
                format!("{:+.2}", (of(row) - of(base)) / 1000.0)
            })
        };
        let pod = match row.written {
            Written::Nothing => "typical",
            Written::Everything => "typical, needs nothing",
        };
        let webhook = row
            .webhook_cpu
            .map_or(String::new(), |cpu| format!("{cpu:.0}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| {pod} | {} | {} | {:.0} | {:.2} | {:.2} | {} | {} | {:.0} | {webhook} |",
            row.callers,
            row.name,
            row.per_second,
            row.p50 / 1000.0,
            row.p99 / 1000.0,
            added(|row| row.p50),
            added(|row| row.p99),
            row.apiserver_cpu,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, written: Written, callers: usize, p50: f64) -> Row {
        Row {
            name: name.to_owned(),
            written,
            callers,
            per_second: 1e6 / p50,
            p50,
            p99: 2.0 * p50,
            apiserver_cpu: p50,
            webhook_cpu: (name == OURS).then_some(100.0),
        }
    }

    fn rows() -> Vec<Row> {
        let names = [
            BASELINE,
            FIXED,
            OURS,
            IN_TREE,
            COMPILED_GROUP,
            CROWD_BASELINE,
            CROWD,
        ];
        let p50 = [1000.0, 2000.0, 2000.0, 3000.0, 3000.0, 1100.0, 3300.0];
        let mut rows = Vec::new();
        for written in [Written::Nothing, Written::Everything] {
            for callers in [1, 16] {
                rows.extend(
                    names
                        .iter()
                        .zip(p50)
                        .map(|(name, p50)| row(name, written, callers, p50)),
                );
            }
        }
        rows
    }

    #[test]
    fn ratios_are_of_what_each_adds_where_it_is() {
        let ratios = ratios(&rows());
        let measured: Vec<String> = ratios
            .iter()
            .map(|ratio| format!("{:.2}", ratio.ratio))
            .collect();
        assert_eq!(measured, ["1.00", "1.50", "0.50", "1.10", "1.10"]);
    }

    #[test]
    fn what_was_not_measured_makes_no_ratio() {
        let only_ours: Vec<Row> = rows().into_iter().filter(|row| row.name == OURS).collect();
        assert_eq!(ratios(&only_ours), []);
        assert_eq!(ratios(&[]), []);
    }

    #[test]
    fn a_row_tells_what_it_adds_to_nothing_on_the_same_control_plane() {
        let table = table(&rows());
        let find = |name: &str| {
            let line = table
                .lines()
                .find(|line| line.contains(&format!("| 16 | {name} |")));
            line.unwrap().to_owned()
        };
        assert_eq!(
            find(CROWD),
            format!("| typical | 16 | {CROWD} | 303 | 3.30 | 6.60 | +2.20 | +4.40 | 3300 |  |")
        );
        assert!(find(OURS).ends_with("| 2000 | 100 |"));
    }
}
