//! docs/security.md: each threat has a test that exists, or an accepted risk.

use std::collections::BTreeSet;

use regex::Regex;

use crate::support::{none_wrong, text};

const PAGE: &str = "docs/security.md";

#[test]
fn each_threat_has_a_test_that_exists_or_is_accepted() {
    let page = text(PAGE);
    let test = Regex::new(r"`([a-z_/-]+\.rs)::([a-z0-9_]+)`").unwrap();
    let mut wrong = Vec::new();
    let mut threats = BTreeSet::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| ")) {
        let Ok(number) = row.split(' ').next().unwrap_or_default().parse::<u32>() else {
            continue;
        };
        assert!(threats.insert(number), "threat {number} stands there twice");
        let tests: Vec<_> = test.captures_iter(row).collect();
        let accepted = row.contains("(#accepted)");
        if tests.is_empty() && !accepted {
            wrong.push(format!("threat {number} has no test and is not accepted"));
        }
        if accepted && !accepts(&page, number) {
            wrong.push(format!("nothing says why threat {number} is accepted"));
        }
        for captures in tests {
            let (file, name) = (&captures[1], &captures[2]);
            let declared = Regex::new(&format!(r"#\[(tokio::)?test[^\n]*\]\n(async )?fn {name}\("));
            if !declared.unwrap().is_match(&text(file)) {
                wrong.push(format!("threat {number}: {file} has no test {name}"));
            }
        }
    }
    assert_eq!(threats, (1..=18).collect());
    none_wrong(&wrong);
}

/// Whether a paragraph below the heading says something of the threat: its number stands in parentheses.
fn accepts(page: &str, number: u32) -> bool {
    let (_, below) = page.split_once("\n## Accepted\n").unwrap();
    let (accepted, _) = below.split_once("\n## ").unwrap();
    let groups = Regex::new(r"\(([0-9, ]+)\)").unwrap();
    groups
        .captures_iter(accepted)
        .any(|group| group[1].split(", ").any(|n| n == number.to_string()))
}
