//! What is made of something else is up to date: values.yaml and the table in README.md of values.schema.json,
//! the chart's CRDs of those in crds/, and deploy/install.yaml of the chart.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::support::chart::{CHART, NAMESPACE, RELEASE, objects_of, render, text};
use crate::support::files::{expect_file, root};

/// What values.schema.json says of one value, or of a group of them.
#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    description: String,
    /// The default; absent for a group, and for what Helm or another chart passes.
    default: Option<Value>,
    #[serde(default)]
    r#enum: Vec<String>,
    /// In the schema's order, which is that of the documentation.
    #[serde(default)]
    properties: Properties,
}

#[derive(Default)]
struct Properties(Vec<(String, Schema)>);

/// How wide a comment may be.
const WIDTH: usize = 118;

// === impl Schema ===

impl Schema {
    fn read() -> Self {
        serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).unwrap()
    }

    /// Whether it stands in values.yaml.
    fn is_given(&self) -> bool {
        self.default.is_some() || self.is_group()
    }

    fn is_group(&self) -> bool {
        self.default.is_none() && !self.properties.0.is_empty()
    }

    /// What it means, in one line.
    fn meaning(&self) -> String {
        let one_of: Vec<String> = self
            .r#enum
            .iter()
            .map(|value| format!("`{value}`"))
            .collect();
        match one_of.is_empty() {
            true => self.description.clone(),
            false => format!("{} One of {}.", self.description, one_of.join(", ")),
        }
    }

    /// As it stands in values.yaml.
    fn write(&self, yaml: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        let given = self
            .properties
            .0
            .iter()
            .filter(|(_, schema)| schema.is_given());
        for (index, (name, schema)) in given.enumerate() {
            if depth == 0 && index > 0 {
                yaml.push('\n');
            }
            for line in wrapped(&schema.meaning(), WIDTH - indent.len()) {
                writeln!(yaml, "{indent}# {line}").unwrap();
            }
            match &schema.default {
                None => {
                    writeln!(yaml, "{indent}{name}:").unwrap();
                    schema.write(yaml, depth + 1);
                }
                Some(value) => {
                    let entry = Value::from_iter([(name.as_str(), value.clone())]);
                    for line in serde_saphyr::to_string(&entry).unwrap().lines() {
                        writeln!(yaml, "{indent}{line}").unwrap();
                    }
                }
            }
        }
    }

    /// Its rows of the table in README.md.
    fn rows(&self, prefix: &str, table: &mut String) {
        for (name, schema) in &self.properties.0 {
            let path = format!("{prefix}{name}");
            if let Some(default) = &schema.default {
                let meaning = schema.meaning().replace('|', "\\|");
                writeln!(table, "| `{path}` | `{default}` | {meaning} |").unwrap();
            } else if schema.is_group() {
                schema.rows(&format!("{path}."), table);
            }
        }
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Properties;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("schemas by name")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Properties, M::Error> {
                let mut properties = Vec::new();
                while let Some(property) = map.next_entry()? {
                    properties.push(property);
                }
                Ok(Properties(properties))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Words, in lines of at most that many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            write!(line, " {word}").unwrap();
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[test]
fn values_yaml_has_the_defaults_of_the_schema() {
    let mut yaml =
        "# Generated from values.schema.json by `make generate`. Do not edit.\n\n".to_owned();
    Schema::read().write(&mut yaml, 0);
    expect_file(&format!("{CHART}/values.yaml"), &yaml);
}

#[test]
fn the_readme_has_a_row_for_each_value() {
    let path = format!("{CHART}/README.md");
    let heading = "## Values\n\n";
    let readme = text(&path);
    let (by_hand, _) = readme.split_once(heading).unwrap();
    let mut table = format!("{by_hand}{heading}| value | default | meaning |\n|---|---|---|\n");
    Schema::read().rows("", &mut table);
    expect_file(&path, &table);
}

#[test]
fn the_chart_has_the_crds_of_this_version() {
    for entry in std::fs::read_dir(root().join("crds")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let crd = text(&format!("crds/{name}"));
        expect_file(&format!("{CHART}/files/crds/{name}"), &crd);
    }
    let in_chart = std::fs::read_dir(root().join(CHART).join("files/crds")).unwrap();
    assert_eq!(in_chart.count(), hardening_api::PolicyKind::ALL.len());
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart: Value = serde_saphyr::from_str(&text(&format!("{CHART}/Chart.yaml"))).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn install_yaml_is_what_the_chart_renders() {
    let namespace = text("deploy/namespace.yaml");
    assert_eq!(objects_of(&namespace)[0]["metadata"]["name"], NAMESPACE);
    let install = format!(
        "# Generated by `make generate`: deploy/namespace.yaml, and what\n\
         # `helm template {RELEASE} {CHART} --namespace {NAMESPACE}` prints. Do not edit.\n\
         {namespace}{}",
        render(&[]),
    );
    expect_file("deploy/install.yaml", &install);
}
