//! An audit, for people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::CellAlignment;

use super::model::{Audit, Counts, Found, Level, Namespace, Workload};
use crate::output::{one_line, table};

const FINDINGS: [&str; 4] = ["WHAT", "FIELD", "VALUE", "WHY"];
const SUMMARY: [&str; 8] = [
    "NAMESPACE",
    "WORKLOADS",
    "PODS",
    "LACK FIELDS",
    "AT RISK",
    "ENFORCES",
    "COULD TODAY",
    "COULD AFTER",
];

/// Workload by workload what was found, then the namespaces, then what could not be seen.
pub(crate) fn write_text(audit: &Audit, out: &mut dyn Write) -> io::Result<()> {
    for workload in audit.workloads.iter().filter(|workload| tells(workload)) {
        out.write_all(title(workload).as_bytes())?;
        let mut table = table(&FINDINGS);
        for row in rows(workload) {
            table.add_row(row.map(|cell| one_line(&cell)));
        }
        for line in table.trim_fmt().lines() {
            writeln!(out, "  {line}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "{}", summary(audit))?;
    // Here too: standard error is not where this ends up when it is kept.
    if !audit.complete {
        writeln!(out, "\nThis is not all:")?;
        for notice in &audit.notices {
            writeln!(out, "  {}", one_line(&notice.text))?;
        }
    }
    Ok(())
}

fn tells(workload: &Workload) -> bool {
    !(workload.missing.is_empty()
        && workload.audited.is_empty()
        && workload.withheld.is_empty()
        && workload.obstacles.is_empty()
        && workload.risks.is_empty())
}

fn title(workload: &Workload) -> String {
    let Workload {
        namespace,
        kind,
        name,
        ..
    } = workload;
    let pods = match workload.pods {
        0 => "no pods yet".to_owned(),
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    };
    let by_name = if workload.owner_by_name {
        " (owner told by its name)"
    } else {
        ""
    };
    let name = one_line(&format!("{kind} {namespace}/{name}{by_name}: {pods}"));
    let (today, after) = (painted(workload.level_today), painted(workload.level_after));
    format!("{name}, {today} today, {after} after hardening\n")
}

fn painted(level: Level) -> String {
    let colour = match level {
        Level::Privileged => AnsiColor::Red,
        Level::Baseline => AnsiColor::Yellow,
        Level::Restricted => AnsiColor::Green,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", level.name())
}

fn rows(workload: &Workload) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    for found in &workload.missing {
        let fill = &found.what.fill;
        let why = format!("{}: {}", fill.policy, found.what.reason.text());
        rows.push(row(
            "missing",
            &fill.path,
            &fill.value,
            why,
            found,
            workload,
        ));
    }
    for found in &workload.audited {
        let fill = &*found.what;
        let why = format!("{}, in mode Audit, would fill it in", fill.policy);
        rows.push(row(
            "audited",
            &fill.path,
            &fill.value,
            why,
            found,
            workload,
        ));
    }
    for found in &workload.withheld {
        let held = &*found.what;
        let why = format!("{}, {}: {}", held.policy, held.guard, held.reason);
        rows.push(row("held back", &held.path, "-", why, found, workload));
    }
    for found in &workload.obstacles {
        let obstacle = &*found.what;
        let next = workload.next_level.map_or("", Level::name);
        let what = format!("not {next}");
        let value = match obstacle.value.as_str() {
            "null" => "-",
            value => value,
        };
        let why = format!("{}: must be {}", obstacle.check, obstacle.allowed);
        rows.push(row(&what, &obstacle.path, value, why, found, workload));
    }
    for found in &workload.risks {
        let risk = &*found.what;
        let what = format!("risk {}", risk.id);
        let why = risk.text.to_owned();
        rows.push(row(&what, &risk.path, &risk.evidence, why, found, workload));
    }
    rows
}

fn row<T>(
    what: &str,
    path: &str,
    value: &str,
    mut why: String,
    found: &Found<T>,
    workload: &Workload,
) -> [String; 4] {
    if found.pods < workload.pods {
        why += &format!(" ({} of {} pods)", found.pods, workload.pods);
    }
    [what.to_owned(), path.to_owned(), value.to_owned(), why]
}

fn summary(audit: &Audit) -> String {
    let mut table = table(&SUMMARY);
    for namespace in &audit.namespaces {
        let Namespace {
            name,
            enforced,
            level_today,
            level_after,
            counts,
        } = namespace;
        let levels = [
            enforced.as_deref().unwrap_or("-").to_owned(),
            level_today.name().to_owned(),
            level_after.name().to_owned(),
        ];
        table.add_row(
            [one_line(name)]
                .into_iter()
                .chain(columns(counts))
                .chain(levels),
        );
    }
    let all = [String::from("all")]
        .into_iter()
        .chain(columns(&audit.total));
    table.add_row(all.chain([const { String::new() }; 3]));
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn columns(counts: &Counts) -> [String; 4] {
    [
        counts.workloads,
        counts.pods,
        counts.workloads_missing,
        counts.workloads_at_risk,
    ]
    .map(|count| count.to_string())
}
