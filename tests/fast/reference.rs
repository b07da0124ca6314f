//! The pages below docs/reference, made of what the programs themselves are made of: the table of fields,
//! the guards, the profiles, the CRDs' schema, the metrics, and what the programs say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;

use hardening_api::policy::Profile;
use hardening_api::{PolicyKind, crds};
use hardening_engine::{FIELDS, FieldRow, Guard, PolicySet, Shape, UnknownNamespaces, profile};
use hardening_webhook::metrics::PREFIX;
use hardening_webhook::{
    CERTIFICATE_INTERVAL, Certificates, Engine, Limits, Readiness, Shutdown, Webhook,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::Value;
use tokio::sync::watch;

use crate::support::{expect_file, program};

#[test]
fn the_page_of_fields_guards_and_profiles_is_up_to_date() {
    let mut page = page("Fields, guards and profiles");
    page.push_str(
        "What a policy can give a default for, when a default is held back, and what the profiles stand for.\n",
    );

    page.push_str("\n## Fields\n\n");
    page.push_str("A field is filled in where the pod's author left it out. ");
    page.push_str(
        "Where a field exists for pods and for containers, what counts is what takes effect in a ",
    );
    page.push_str("container: its own value, else the pod's.\n\n");
    page.push_str("*since* is the first version of Kubernetes whose API server keeps the field with its default ");
    page.push_str("feature gates; where none is given, every version from 1.24 on does. In a cluster that is ");
    page.push_str("older than a field the guard `kubernetes-version` holds the field back.\n\n");
    page.push_str(
        "| field | below `spec.pod` of a policy | below `spec.containers` | since | what it does |\n",
    );
    page.push_str("|---|---|---|---|---|\n");
    for row in &FIELDS {
        let FieldRow {
            field,
            pod,
            container,
            shape,
            linux_only: _,
            since,
            guards: _,
            doc,
        } = row;
        let list = match shape {
            Shape::Single => "",
            Shape::List | Shape::Paths => " A list: combined over the policies.",
        };
        let cell = |path: &Option<&str>| path.map_or(String::new(), |path| format!("`{path}`"));
        let (pod, container) = (cell(pod), cell(container));
        let since = since.map_or(String::new(), |since| since.to_string());
        writeln!(
            page,
            "| `{}` | {pod} | {container} | {since} | {doc}{list} |",
            field.name()
        )
        .unwrap();
    }

    page.push_str("\n## Guards\n\n");
    page.push_str("A default is never filled in where it would make the API server refuse the pod, or keep a ");
    page.push_str("container from starting because of a contradiction that the pod's spec shows. What holds it ");
    page.push_str(
        "back has a name, which stands in the annotation `podhardening.dev/withheld`, in the API ",
    );
    page.push_str("server's audit log and in the metrics. Where a guard leaves the pod weaker than its policy ");
    page.push_str("asks for, the client gets a warning.\n\n");
    page.push_str("| guard | why the default is held back | fields | warns |\n|---|---|---|---|\n");
    for guard in Guard::ALL {
        let warns = if guard.leaves_pod_below_policy() {
            "yes"
        } else {
            ""
        };
        let (name, why) = (guard.name(), guard.explanation());
        writeln!(page, "| `{name}` | {why} | {} | {warns} |", guarded(guard)).unwrap();
    }

    page.push_str("\n## Profiles\n\n");
    page.push_str("`profile: Restricted` is short for what is written below, and so is `profile: Hardened`. A ");
    page.push_str("profile's contents never change within an API version. What a policy spells out itself goes ");
    page.push_str("before what its profile says.\n");
    for (name, profile) in [
        ("Restricted", Profile::Restricted),
        ("Hardened", Profile::Hardened),
    ] {
        let yaml = serde_saphyr::to_string(&profile::spec(profile)).unwrap();
        writeln!(page, "\n### {name}\n\n```yaml\n{}\n```", yaml.trim_end()).unwrap();
    }
    expect_file("docs/reference/fields.md", &page);
}

/// The fields that a guard holds back.
fn guarded(guard: Guard) -> String {
    match guard {
        Guard::WindowsPod => {
            let everywhere = FIELDS.iter().filter(|row| !row.linux_only);
            format!("all but {}", names(everywhere))
        }
        Guard::RunningPod => "all at pod level, and `writablePaths`".to_owned(),
        Guard::KubernetesVersion => names(FIELDS.iter().filter(|row| row.since.is_some())),
        guard => names(FIELDS.iter().filter(|row| row.guards.contains(&guard))),
    }
}

fn names<'a>(rows: impl Iterator<Item = &'a FieldRow>) -> String {
    let names: Vec<String> = rows.map(|row| format!("`{}`", row.field.name())).collect();
    assert!(!names.is_empty(), "a guard that guards nothing");
    names.join(", ")
}

#[test]
fn the_page_of_the_resources_is_up_to_date() {
    let mut page = page("The resources");
    page.push_str(
        "Every field of `PodHardeningPolicy` and `ClusterPodHardeningPolicy`, API version ",
    );
    writeln!(
        page,
        "`{}`, with what the API server refuses.",
        hardening_api::API_VERSION
    )
    .unwrap();
    page.push_str("What a field left out means is said with the field; the schema sets no defaults, so what is ");
    page.push_str("stored is what was applied.\n");

    let [namespaced, cluster] = crds();
    for (kind, crd) in PolicyKind::ALL.iter().zip([&namespaced, &cluster]) {
        let names = &crd["spec"]["names"];
        writeln!(page, "\n## {}\n", kind.name()).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        writeln!(page, "{}\n", schema["description"].as_str().unwrap()).unwrap();
        let (plural, short) = (
            names["plural"].as_str().unwrap(),
            names["shortNames"][0].as_str().unwrap(),
        );
        writeln!(page, "`kubectl get {plural}`, or `{short}` for short.\n").unwrap();
        page.push_str("| field | value | what it means |\n|---|---|---|\n");
        let spec = &schema["properties"]["spec"];
        // What both kinds have is written down once.
        let known = match kind {
            PolicyKind::Namespaced => &Value::Null,
            PolicyKind::Cluster => {
                &namespaced["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            }
        };
        fields(&mut page, spec, known, "spec");
        if *kind == PolicyKind::Cluster {
            page.push_str("\nAnd every field that `PodHardeningPolicy` has.\n");
        }
        page.push_str("\nRefused, besides what does not fit the types above:\n\n");
        page.push_str("| field | rule |\n|---|---|\n");
        rules(&mut page, spec, "spec");
    }
    expect_file("docs/reference/resources.md", &page);
}

/// A row for each field below a schema that `known` has not.
fn fields(page: &mut String, schema: &Value, known: &Value, path: &str) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if !known["properties"][name].is_null() {
            continue;
        }
        let path = format!("{path}.{name}");
        let doc = field["description"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} has no description"));
        let doc = doc.replace('|', "\\|").replace('\n', " ");
        writeln!(page, "| `{path}` | {} | {doc} |", value(field)).unwrap();
        let is_selector = path.ends_with("Selector");
        if !is_selector {
            fields(page, field, &Value::Null, &path);
            fields(page, &field["items"], &Value::Null, &format!("{path}[]"));
        }
    }
}

/// What a field takes.
fn value(schema: &Value) -> String {
    let allowed = schema["enum"].as_array();
    if let Some(allowed) = allowed {
        let allowed: Vec<String> = allowed
            .iter()
            .map(|value| format!("`{}`", plain(value)))
            .collect();
        return allowed.join(", ");
    }
    match schema["type"].as_str().unwrap() {
        "integer" => match (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
            (Some(least), Some(most)) => format!("integer from {least} to {most}"),
            _ => "integer".to_owned(),
        },
        "array" => format!("list, {}", value(&schema["items"])),
        other => other.to_owned(),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A row for each CEL rule at a schema or below it.
fn rules(page: &mut String, schema: &Value, path: &str) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let field = rule["fieldPath"].as_str().unwrap_or_default();
        let message = rule["message"].as_str().unwrap().replace('|', "\\|");
        writeln!(page, "| `{path}{field}` | {message} |").unwrap();
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        rules(page, field, &format!("{path}.{name}"));
    }
    if !schema["items"].is_null() {
        rules(page, &schema["items"], &format!("{path}[]"));
    }
}

#[tokio::test]
async fn the_page_of_metrics_is_up_to_date() {
    let mut registry = Registry::default();
    let metrics = hardening_webhook::Metrics::register(&mut registry, "VERSION");
    let _index = hardening_index::Metrics::register(registry.sub_registry_with_prefix(PREFIX));
    // Some are there from the moment at which there is a certificate.
    let registry = Arc::new(registry);
    let any_port = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let (_policies, receiver) =
        watch::channel(Arc::new(PolicySet::new(UnknownNamespaces::OnlyNameLabel)));
    let webhook = Webhook {
        policies: receiver,
        decide: Arc::new(Engine),
        certificates: Certificates::self_signed(&["localhost".to_owned()]).unwrap(),
        callers: None,
        certificate_interval: CERTIFICATE_INTERVAL,
        readiness: Readiness::new(),
        metrics,
        registry: Arc::clone(&registry),
        span: None,
        limits: Limits::default(),
        shutdown: Shutdown::default(),
    };
    let _bound = webhook.bind(any_port, any_port).await.unwrap();

    let mut page = page("Metrics");
    page.push_str("What `/metrics` shows. Every series is there from the start, and their number is fixed: no ");
    page.push_str("label carries the name of a pod, a namespace or a policy. `serve` watches nothing, so it has ");
    page.push_str("no metrics of watches.\n\n");
    metrics_table(&mut page, &registry);

    let mut registry = Registry::default();
    hardening_webhook::metrics::register_build(&mut registry, "VERSION");
    let own = registry.sub_registry_with_prefix(PREFIX);
    let _certificates = hardening_status::certificates::Metrics::register(own);
    let _status = hardening_status::Metrics::register(own);
    let _index = hardening_index::Metrics::register(own);
    page.push_str("\n## Of `hardening-controller manage`\n\n");
    page.push_str("Those of watches are there for the search for missed pods. `podhardening_missed_pods` has the names ");
    page.push_str("of namespaces, at most 200; the rest is in `(others)`.\n\n");
    metrics_table(&mut page, &registry);
    expect_file("docs/reference/metrics.md", &page);
}

/// A row for each metric.
fn metrics_table(page: &mut String, registry: &Registry) {
    let mut exposed = String::new();
    encode(&mut exposed, registry).unwrap();
    page.push_str("| metric | kind | labels | what it tells |\n|---|---|---|---|\n");
    let mut metrics = 0;
    for line in exposed.lines() {
        let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        metrics += 1;
        let kind = exposed
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .unwrap();
        let full = match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        };
        writeln!(
            page,
            "| `{full}` | {kind} | {} | {help} |",
            labels(&exposed, name)
        )
        .unwrap();
    }
    assert!(metrics > 3, "{exposed}");
}

/// The labels of a metric's series, with their values where they are few.
fn labels(exposed: &str, metric: &str) -> String {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    // `a_total{…}` and `a_bucket{…}` are series of `a`, and `a_b_total{…}` is not.
    let is_of_metric = |line: &&str| {
        let rest = line.strip_prefix(metric);
        let suffix = rest.and_then(|rest| rest.split(['{', ' ']).next());
        suffix.is_some_and(|suffix| !suffix.trim_start_matches('_').contains('_'))
            && rest.is_some_and(|rest| rest.starts_with(['{', '_']))
    };
    for line in exposed.lines().filter(is_of_metric) {
        let series = line
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(inner, _)| inner);
        for (label, value) in series.split(',').filter_map(|pair| pair.split_once('=')) {
            if label != "le" {
                labels
                    .entry(label)
                    .or_default()
                    .insert(value.trim_matches('"'));
            }
        }
    }
    let described = labels.into_iter().map(|(label, values)| match label {
        "field" | "guard" => format!("`{label}`: its name, as in [fields.md](fields.md)"),
        _ => format!(
            "`{label}`: {}",
            values.into_iter().collect::<Vec<_>>().join(", ")
        ),
    });
    described.collect::<Vec<_>>().join("; ")
}

#[test]
fn the_page_of_commands_is_up_to_date() {
    let mut page = page("Commands");
    page.push_str("What the programs say of themselves with `--help`.\n");
    for (name, title) in [
        ("kubectl-harden", "kubectl harden"),
        ("hardening-controller", "hardening-controller"),
    ] {
        let all = help(name, &[]);
        writeln!(page, "\n## {title}\n\n```text\n{}\n```", all.trim_end()).unwrap();
        let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1);
        let commands: Vec<&str> = listed
            .take_while(|line| !line.is_empty())
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(commands.len() >= 3, "{all}");
        for command in commands {
            let text = help(name, &[command]);
            writeln!(
                page,
                "\n### {title} {command}\n\n```text\n{}\n```",
                text.trim_end()
            )
            .unwrap();
        }
    }
    expect_file("docs/reference/commands.md", &page);
}

fn help(name: &str, command: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(command)
        .arg("--help")
        // Flags show what the environment sets them to.
        .env_clear()
        // Where none of these is a terminal, the text is 100 columns wide.
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The head of a generated page.
fn page(title: &str) -> String {
    format!("<!-- Generated by `make generate`. Do not edit. -->\n\n# {title}\n\n")
}
