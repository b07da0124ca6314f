//! What a replay has shown, for people, for programs and for a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Field, Outcome, Replayed, reasons};
use crate::output::one_line;

const FIELDS: [&str; 4] = ["FIELD", "PSP", "CONVERTED", "WHY"];
const SUMMARY: [&str; 6] = [
    "NAMESPACE",
    "WORKLOADS",
    "SAME",
    "FIELDS DIFFER",
    "VERDICT DIFFERS",
    "BOTH DENY",
];

/// How many of a namespace's workloads there are, and how many of each outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    same: usize,
    fields: usize,
    verdict: usize,
    both_deny: usize,
}

impl Count {
    fn add(&mut self, outcome: Outcome) {
        self.all += 1;
        match outcome {
            Outcome::Same => self.same += 1,
            Outcome::Fields => self.fields += 1,
            Outcome::Verdict => self.verdict += 1,
            Outcome::BothDeny => self.both_deny += 1,
        }
    }

    fn columns(self) -> [String; 5] {
        [
            self.all,
            self.same,
            self.fields,
            self.verdict,
            self.both_deny,
        ]
        .map(|n| n.to_string())
    }
}

/// By namespace, and of all.
fn counts(replayed: &[Replayed]) -> (BTreeMap<&str, Count>, Count) {
    let mut total = Count::default();
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for one in replayed {
        let outcome = one.outcome();
        counts.entry(&one.namespace).or_default().add(outcome);
        total.add(outcome);
    }
    (counts, total)
}

/// The workloads that have something to tell.
fn telling(replayed: &[Replayed]) -> impl Iterator<Item = &Replayed> {
    let tells = |one: &&Replayed| one.outcome() != Outcome::Same || !one.notes.is_empty();
    replayed.iter().filter(tells)
}

fn verdicts(one: &Replayed) -> [String; 2] {
    let before = match &one.before {
        Ok(by) => format!("PSP: admitted by {by}"),
        Err(denied) if denied.is_empty() => "PSP: denied, as none was usable".to_owned(),
        Err(denied) => format!(
            "PSP: denied: {}",
            reasons(denied).collect::<Vec<_>>().join("; ")
        ),
    };
    let after = match one.refusals.as_slice() {
        [] => "converted: admitted".to_owned(),
        refusals => format!("converted: denied: {}", refusals.join("; ")),
    };
    [before, after]
}

fn cells(Field { difference, why }: &Field) -> [String; 4] {
    let value = |value: &Option<Value>| match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => one_line(text),
        Some(value) => one_line(&value.to_string()),
    };
    [
        one_line(&difference.field),
        value(&difference.stored),
        value(&difference.hardened),
        why.as_deref().map(one_line).unwrap_or_default(),
    ]
}

// --- text ---

pub(crate) fn as_text(replayed: &[Replayed]) -> String {
    let mut text = String::new();
    for one in telling(replayed) {
        text += &one_line(&format!("{} ({})", one.name, one.source));
        text.push('\n');
        let notes = one.notes.iter().map(|note| format!("note: {note}"));
        for line in verdicts(one).into_iter().chain(notes) {
            text += &format!("  {}\n", one_line(&line));
        }
        if !one.fields.is_empty() {
            let mut table = table(&FIELDS);
            for field in &one.fields {
                table.add_row(cells(field));
            }
            for line in table.trim_fmt().lines() {
                text += &format!("  {line}\n");
            }
        }
        text.push('\n');
    }
    text + &summary(replayed) + "\n"
}

fn summary(replayed: &[Replayed]) -> String {
    let (counts, total) = counts(replayed);
    let mut table = table(&SUMMARY);
    for (namespace, count) in counts.into_iter().chain([("all", total)]) {
        table.add_row([one_line(namespace)].into_iter().chain(count.columns()));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match terminal_size::terminal_size() {
        Some((width, _)) => {
            table
                .set_width(width.0.saturating_sub(2))
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        // One line each, for grep.
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

// --- markdown ---

pub(crate) fn as_markdown(replayed: &[Replayed]) -> String {
    let (counts, total) = counts(replayed);
    let mut text = row(&SUMMARY.map(str::to_owned));
    text += &format!("|{}\n", "---|".repeat(SUMMARY.len()));
    for (namespace, count) in counts.into_iter().chain([("all", total)]) {
        let columns = [namespace.to_owned()].into_iter().chain(count.columns());
        text += &row(&columns.collect::<Vec<_>>());
    }
    for one in telling(replayed) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n### {}\n\n", escaped(&one.name));
        text += &format!("In {}.\n\n", escaped(&one.source));
        for line in verdicts(one) {
            text += &format!("- {}\n", escaped(&line));
        }
        for note in &one.notes {
            text += &format!("- note: {}\n", escaped(note));
        }
        if !one.fields.is_empty() {
            text += &format!(
                "\n{}|{}\n",
                row(&FIELDS.map(str::to_owned)),
                "---|".repeat(4)
            );
            for field in &one.fields {
                text += &row(&cells(field));
            }
        }
    }
    text
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn escaped(text: &str) -> String {
    one_line(text).replace('|', "\\|").replace('<', "&lt;")
}

// --- json ---

pub(crate) fn as_json(replayed: &[Replayed]) -> Value {
    let (counts, total) = counts(replayed);
    let count = |count: Count| {
        json!({
            "workloads": count.all, "same": count.same, "fieldsDiffer": count.fields,
            "verdictDiffers": count.verdict, "bothDeny": count.both_deny,
        })
    };
    let namespaces = counts
        .into_iter()
        .map(|(name, one)| (name.to_owned(), count(one)));
    json!({
        "workloads": replayed.iter().map(workload).collect::<Vec<_>>(),
        "namespaces": namespaces.collect::<BTreeMap<_, _>>(),
        "total": count(total),
    })
}

fn workload(one: &Replayed) -> Value {
    let outcome = match one.outcome() {
        Outcome::Same => "Same",
        Outcome::Fields => "FieldsDiffer",
        Outcome::Verdict => "VerdictDiffers",
        Outcome::BothDeny => "BothDeny",
    };
    let fields = one.fields.iter().map(|Field { difference, why }| {
        json!({
            "field": difference.field, "psp": difference.stored,
            "converted": difference.hardened, "why": why,
        })
    });
    json!({
        "source": one.source,
        "workload": one.name,
        "outcome": outcome,
        "psp": match &one.before {
            Ok(by) => json!({"admittedBy": by}),
            Err(denied) => json!({"denied": reasons(denied).collect::<Vec<_>>()}),
        },
        "converted": {"denied": one.refusals},
        "fields": fields.collect::<Vec<_>>(),
        "notes": one.notes,
    })
}
