//! What is not carried over exactly, for people and for programs.

use std::fmt::Write as _;

use hardening_psp::migrate::Remark;
use hardening_psp::{Migration, Names, PodScope};
use serde_json::{Map, Value, json};

use crate::args::ConvertReport;
use crate::output::one_line;

/// The report, which ends with a line break where it says anything.
pub(crate) fn tell(migration: &Migration, format: ConvertReport) -> anyhow::Result<String> {
    Ok(match format {
        ConvertReport::Text => as_text(migration),
        ConvertReport::Json => serde_json::to_string_pretty(&as_json(migration))? + "\n",
        ConvertReport::Markdown => as_markdown(migration),
    })
}

fn as_text(migration: &Migration) -> String {
    let remarks = migration.remarks.iter();
    remarks
        .map(|remark| format!("note: {}\n", one_line(&remark.to_string())))
        .collect()
}

fn as_json(migration: &Migration) -> Value {
    let refused = migration.refused.iter().map(|refusal| {
        json!({
            "source": refusal.origin,
            "name": refusal.name,
            "reason": refusal.reason.to_string(),
        })
    });
    json!({
        "converted": migration.psps.keys().collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "notes": migration.remarks.iter().map(note).collect::<Vec<_>>(),
    })
}

fn note(remark: &Remark) -> Value {
    json!({
        "podSecurityPolicy": remark.psp,
        "pods": remark.scopes.iter().map(pods).collect::<Vec<_>>(),
        "field": remark.note.field,
        "why": remark.note.why,
        "advice": remark.note.advice,
    })
}

fn pods(scope: &PodScope) -> Value {
    let mut limits = Map::new();
    let mut limit = |what: &str, names: &Names| match names {
        Names::All => {}
        Names::Only(names) => {
            limits.insert(what.to_owned(), json!({"in": names}));
        }
        Names::AllBut(names) => {
            limits.insert(what.to_owned(), json!({"notIn": names}));
        }
    };
    limit("namespaces", &scope.namespaces);
    limit("serviceAccounts", &scope.service_accounts);
    limits.into()
}

fn as_markdown(migration: &Migration) -> String {
    let mut text = "# PodSecurityPolicies converted\n".to_owned();
    let mut line = |line: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    if !migration.refused.is_empty() {
        line("\n## Not converted\n");
        for refusal in &migration.refused {
            line(&format!("- {}", escape(&refusal.to_string())));
        }
    }
    for psp in migration.psps.keys() {
        line(&format!("\n## PodSecurityPolicy {psp}\n"));
        let mut remarks = about(migration, Some(psp)).peekable();
        if remarks.peek().is_none() {
            line("Carried over exactly.");
        }
        for remark in remarks {
            line(&item(remark));
        }
    }
    let mut general = about(migration, None).peekable();
    if general.peek().is_some() {
        line("\n## The cluster as a whole\n");
    }
    for remark in general {
        line(&item(remark));
    }
    text
}

fn about<'a>(migration: &'a Migration, psp: Option<&'a str>) -> impl Iterator<Item = &'a Remark> {
    let remarks = migration.remarks.iter();
    remarks.filter(move |remark| remark.psp.as_deref() == psp)
}

fn item(remark: &Remark) -> String {
    let Remark {
        psp: _,
        scopes,
        note,
    } = remark;
    let pods = match scopes.is_empty() {
        true => String::new(),
        false => {
            let general = Remark {
                psp: None,
                ..remark.clone()
            };
            let text = general.to_string();
            let pods = text.strip_suffix(&note.to_string()).unwrap_or_default();
            escape(pods)
        }
    };
    format!(
        "- `{}`: {pods}{}. *{}*",
        note.field.replace('`', "'"),
        escape(&note.why),
        escape(&note.advice)
    )
}

/// Text that Markdown shows as it is, on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in one_line(text).chars() {
        if matches!(c, '\\' | '*' | '_' | '`' | '<' | '[') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
