//! Pods and names in words.

use std::collections::BTreeSet;

use crate::scope::{Names, PodScope, Requesters};

/// How many names are listed before the rest is only counted.
const LISTED: usize = 12;

/// Names with commas between; of very many the first ones.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let listed: Vec<&str> = names.iter().copied().take(LISTED).collect();
    match names.len().checked_sub(LISTED) {
        None | Some(0) => listed.join(", "),
        Some(more) => format!("{} and {more} more", listed.join(", ")),
    }
}

/// `pods in shop, bank`, for several scopes with semicolons between.
pub(crate) fn pods(scopes: &[PodScope]) -> String {
    let all: Vec<String> = scopes.iter().map(one).collect();
    all.join("; ")
}

fn one(scope: &PodScope) -> String {
    let accounts = match &scope.service_accounts {
        Names::All => String::new(),
        Names::Only(names) => format!(" of {} {}", account(names), list(names)),
        Names::AllBut(names) => format!(" of every service account but {}", list(names)),
    };
    let namespaces = match &scope.namespaces {
        Names::All => " in every namespace".to_owned(),
        Names::Only(names) if names.len() == 1 => format!(" in namespace {}", list(names)),
        Names::Only(names) => format!(" in namespaces {}", list(names)),
        Names::AllBut(names) => format!(" in every namespace but {}", list(names)),
    };
    format!("pods{accounts}{namespaces}")
}

fn account(names: &BTreeSet<String>) -> &'static str {
    match names.len() {
        1 => "service account",
        _ => "service accounts",
    }
}

pub(crate) fn requesters(requesters: &Requesters) -> String {
    let Requesters {
        users,
        groups,
        own_accounts,
    } = requesters;
    let mut parts = Vec::new();
    for (one, several, names) in [
        ("user", "users", users),
        ("group", "groups", groups),
        (
            "the namespace's service account",
            "the namespace's service accounts",
            own_accounts,
        ),
    ] {
        match names.len() {
            0 => {}
            1 => parts.push(format!("{one} {}", list(names))),
            _ => parts.push(format!("{several} {}", list(names))),
        }
    }
    parts.join(" and ")
}
