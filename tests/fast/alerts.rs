//! Alerts and dashboard: whoever is woken finds out what to do, and no query asks for a series that nobody has.
//!
//! Prometheus' own promtool, built from its module in tests/prometheus, reads every query, and shows when each
//! alert fires and when not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::{Value, json};

use crate::docs::anchors;
use crate::support::{go_tool, none_wrong, root, text};

const ALERTS: &str = "charts/pod-hardening/files/alerts.yaml";
const DASHBOARD: &str = "charts/pod-hardening/files/dashboard.json";
const ALERT_TESTS: &str = "tests/prometheus/alerts.yaml";
const RUNBOOKS: &str = "docs/operations.md";

/// Series of others, with their labels: the API server's, and what Prometheus itself says of whom it scrapes. That
/// a real API server has its own so is seen in tests/cluster/alerts.rs.
const OTHERS: &[(&str, &[&str])] = &[
    ("up", &[]),
    (
        "apiserver_request_total",
        &["code", "resource", "subresource", "verb"],
    ),
    ("apiserver_admission_webhook_request_total", &["name"]),
    ("apiserver_admission_webhook_fail_open_count", &["name"]),
    (
        "apiserver_admission_webhook_rejection_count",
        &["error_type", "name"],
    ),
    (
        "apiserver_admission_webhook_admission_duration_seconds_bucket",
        &["le", "name"],
    ),
];

/// Labels that Prometheus gives to what it scrapes.
const OF_THE_SCRAPE: &[&str] = &["instance", "job", "namespace"];

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&text(ALERTS)).unwrap();
    let groups = file["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: Vec<Value> = rules.cloned().collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

/// The dashboard's queries, as Grafana sends them, with what each is shown in.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "5m");
            (
                panel["title"].as_str().unwrap().to_owned(),
                query.replace("$namespace", ".*"),
            )
        })
    });
    let queries: Vec<_> = queries.collect();
    assert!(queries.len() > 10, "{queries:?}");
    queries
}

#[test]
fn each_alert_says_what_is_wrong_and_where_it_is_written_what_to_do() {
    let headings = anchors(&text(RUNBOOKS));
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "there are two alerts {name}");
        let severity = alert["labels"]["severity"].as_str();
        if !matches!(severity, Some("critical" | "warning")) {
            wrong.push(format!("{name}: severity {severity:?}"));
        }
        for annotation in ["summary", "description"] {
            if alert["annotations"][annotation].as_str().is_none() {
                wrong.push(format!("{name} has no {annotation}"));
            }
        }
        let anchor = name.to_lowercase();
        if alert["annotations"]["runbook"] != format!("{RUNBOOKS}#{anchor}") {
            wrong.push(format!("{name}: {}", alert["annotations"]["runbook"]));
        }
        if !headings.contains(&anchor) {
            wrong.push(format!("{RUNBOOKS} has no section {name}"));
        }
    }
    // And no section is left of an alert that is gone.
    let sections = text(RUNBOOKS);
    let sections = sections
        .lines()
        .filter_map(|line| line.strip_prefix("### PodHardening"));
    for section in sections {
        let name = format!("PodHardening{section}");
        if !names.contains(&name) && !name.ends_with("Policy") {
            wrong.push(format!("there is no alert {name}"));
        }
    }
    none_wrong(&wrong);
}

#[test]
fn every_series_that_a_query_names_is_there_with_its_labels() {
    let known = known_series();
    let alerts = alerts();
    let of_alerts = alerts.iter().map(|alert| {
        let string = |field: &str| alert[field].as_str().unwrap().to_owned();
        (string("alert"), string("expr"))
    });
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for (whose, query) in of_alerts.chain(dashboard_queries()) {
        let Asked { series, grouped_by } = Asked::by(&query);
        assert!(!series.is_empty(), "{whose}: {query}");
        let mut labels: BTreeSet<&str> = OF_THE_SCRAPE.iter().copied().collect();
        for (name, matchers) in series {
            let Some(has) = known.get(&name) else {
                wrong.push(format!("{whose}: there is no {name}"));
                continue;
            };
            let lacks = matchers
                .iter()
                .filter_map(|(label, value)| has.lacks(label, value));
            wrong.extend(lacks.map(|lacks| format!("{whose}: {name} has no {lacks}")));
            labels.extend(has.0.keys().map(String::as_str));
            named.insert(name);
        }
        let unknown = grouped_by
            .iter()
            .filter(|label| !labels.contains(label.as_str()));
        wrong.extend(unknown.map(|label| format!("{whose}: none of its series has {label}")));
    }
    // What is said of others is said because somebody needs it.
    let idle = OTHERS.iter().filter(|(name, _)| !named.contains(*name));
    wrong.extend(idle.map(|(name, _)| format!("nobody asks for {name}")));
    none_wrong(&wrong);
}

/// The labels of a metric, each with its values where they are known.
#[derive(Debug, Default)]
struct Labels(BTreeMap<String, Option<BTreeSet<String>>>);

impl Labels {
    /// What a matcher asks for and there is not.
    fn lacks(&self, label: &str, value: &str) -> Option<String> {
        match self.0.get(label) {
            _ if OF_THE_SCRAPE.contains(&label) => None,
            None => Some(format!("label {label}")),
            Some(None) => None,
            Some(Some(values)) => value
                .split('|')
                .find(|value| !values.contains(*value))
                .map(|value| format!("{label} {value}")),
        }
    }
}

/// Every series that there can be: those of docs/reference/metrics.md, which is generated, and [`OTHERS`].
fn known_series() -> BTreeMap<String, Labels> {
    let mut known: BTreeMap<String, Labels> = OTHERS
        .iter()
        .map(|(name, labels)| {
            let labels = labels.iter().map(|label| ((*label).to_owned(), None));
            ((*name).to_owned(), Labels(labels.collect()))
        })
        .collect();
    let page = text("docs/reference/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `podhardening_"));
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = format!("podhardening_{}", cells[0].trim_end_matches('`'));
        let mut labels = Labels::default();
        for described in cells[2].split("; ").filter(|label| !label.is_empty()) {
            let (label, values) = described.split_once(": ").unwrap();
            let values = match values {
                // The page leaves it to another one to list them.
                values if values.contains("as in") => None,
                values if values == values.to_uppercase() => None,
                values => Some(values.split(", ").map(str::to_owned).collect()),
            };
            labels.0.insert(label.trim_matches('`').to_owned(), values);
        }
        if cells[1] == "histogram" {
            labels.0.insert("le".to_owned(), None);
            known.insert(format!("{name}_bucket"), labels);
        } else {
            known.insert(name, labels);
        }
    }
    assert!(known.len() > OTHERS.len() + 10, "{known:?}");
    known
}

/// What a query asks for.
#[derive(Debug)]
struct Asked {
    /// The series by name, each with the labels that are matched, and with what.
    series: Vec<(String, Vec<(String, String)>)>,
    /// The labels by which it groups or joins.
    grouped_by: Vec<String>,
}

impl Asked {
    /// Series are whatever is no function, keyword, number or list of labels. That the query is one at all is
    /// promtool's to say.
    fn by(query: &str) -> Self {
        let find = |pattern: &str| Regex::new(pattern).unwrap();
        let grouping = find(r"\b(?:by|without|on)\s*\(([^)]*)\)");
        let grouped_by = grouping
            .captures_iter(query)
            .flat_map(|captures| {
                captures[1]
                    .split(',')
                    .map(|l| l.trim().to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        let query = grouping.replace_all(query, " ");
        let times = find(r"\[[^\]]*\]|\boffset\s+\w+");
        let query = times.replace_all(&query, " ");
        let selector = find(r"([a-z_][a-z_0-9]*)\s*(\(|\{[^}]*\})?");
        let matcher = find(r#"(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)""#);
        let mut series = Vec::new();
        for captures in selector.captures_iter(&query) {
            let after = captures.get(2).map_or("", |after| after.as_str());
            if after == "(" || ["and", "or", "unless"].contains(&&captures[1]) {
                continue;
            }
            let matchers = matcher
                .captures_iter(after)
                .map(|matcher| (matcher[1].to_owned(), matcher[2].to_owned()));
            series.push((captures[1].to_owned(), matchers.collect()));
        }
        Self { series, grouped_by }
    }
}

// === promtool ===

fn promtool(arguments: &[&str], in_folder: &Path) {
    let promtool = go_tool(
        "tests/prometheus",
        "promtool",
        "github.com/prometheus/prometheus/cmd/promtool",
        // Without what finds machines at two dozen vendors.
        &["-tags", "remove_all_sd"],
    );
    let output = Command::new(promtool)
        .args(arguments)
        .current_dir(in_folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", ALERTS],
        root(),
    );
    promtool(&["test", "rules", ALERT_TESTS], root());

    // No alert is left out: each is seen firing, and seen silent.
    let file: Value = serde_saphyr::from_str(&text(ALERT_TESTS)).unwrap();
    let tests = file["tests"].as_array().unwrap();
    let seen = tests
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap());
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for test in seen {
        let alert = test["alertname"].as_str().unwrap().to_owned();
        let fires = test["exp_alerts"]
            .as_array()
            .is_some_and(|alerts| !alerts.is_empty());
        if fires { &mut firing } else { &mut silent }.insert(alert);
    }
    let all: BTreeSet<String> = alerts()
        .iter()
        .map(|alert| alert["alert"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(firing, all, "seen firing");
    assert_eq!(silent, all, "seen silent");
}

#[test]
fn every_query_of_the_dashboard_is_one_that_prometheus_reads() {
    let rules: Vec<Value> = dashboard_queries()
        .into_iter()
        .enumerate()
        .map(|(number, (_, query))| json!({"record": format!("dashboard:{number}"), "expr": query}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    // JSON is YAML.
    fs::write(folder.path().join("rules.yaml"), file.to_string()).unwrap();
    promtool(&["check", "rules", "rules.yaml"], folder.path());
}
