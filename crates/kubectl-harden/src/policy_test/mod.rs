//! Tests of policies, as files that people keep beside them: what the pods of some manifests are to be, once
//! some policies have filled them in. They are read here and by nobody else; no cluster knows their kind.

mod file;
mod path;

use anyhow::{Context as _, anyhow};
use hardening_engine::plan;
use hardening_manifests::{Manifest, Source, objects, read};
use pod_security_standards::{Pod as StandardsPod, Version, standing};
use serde_json::Value;

use crate::diff;
use crate::explain::{Line, SetBy, Today, explain};
use crate::source::Policies;
use crate::workload::{Workload, workloads};
use file::{Case, FieldExpectation, File, SetByExpectation};

/// A file's tests, and how they went.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The file, and the test's name.
    pub(crate) name: String,
    pub(crate) cases: Vec<Outcome>,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// What is not as expected, as a diff; `None`: all is.
    pub(crate) failure: Option<String>,
}

/// Runs the tests among manifests; others are passed over.
pub(crate) fn run(manifests: &[Manifest]) -> anyhow::Result<Vec<Suite>> {
    let tests = objects(manifests).filter(|object| File::is_kind(object));
    tests
        .map(|object| {
            let title = format!("{}: {object}", object.source);
            let file = File::parse(object.value).with_context(|| title.clone())?;
            let cases = run_file(&file, &object.source).with_context(|| title)?;
            let name = object.name().unwrap_or_default();
            Ok(Suite {
                name: format!("{}: {name}", object.source),
                cases,
            })
        })
        .collect()
}

fn run_file(file: &File, source: &Source) -> anyhow::Result<Vec<Outcome>> {
    let policies = Policies::Files {
        paths: file.policies(source),
        manifests: read(&file.policies(source))?,
    };
    let mut manifests = read(&file.manifests(source))?;
    let inline = file.objects.iter().chain(&file.namespaces);
    manifests.extend(inline.map(|value| Manifest {
        source: source.clone(),
        value: value.clone(),
    }));
    let found = workloads(&manifests, policies.namespace());
    let known = policies.for_workloads(&found, &manifests, policies.namespace(), None)?;
    let outcome = |case: &Case| {
        let workload = pick(&found, case)?;
        let pod = workload.pod()?;
        let matching = workload.matching(&known.set, &pod)?;
        let plan = plan(&matching, &pod);
        let mut after = workload.pod.clone();
        json_patch::patch(&mut after, &plan.to_patch())?;
        let today = Today {
            set: &known.set,
            matching: &matching,
            plan: &plan,
            pod: &pod,
            namespace: &workload.namespace,
        };
        let lines = explain(workload.pod, &after, &today);
        let policies: Vec<String> = matching
            .policies()
            .map(|policy| unversioned(&policy.reference().to_string()))
            .collect();
        Hardened {
            before: workload.pod,
            after: &after,
            lines: &lines,
            policies: &policies,
        }
        .judge(case)
    };
    let outcomes = file.cases.iter().map(|case| {
        let failure = outcome(case).with_context(|| format!("case {:?}", case.name))?;
        Ok(Outcome {
            name: case.name.clone(),
            failure,
        })
    });
    outcomes.collect()
}

/// The workload that a case is about.
fn pick<'f, 'm>(found: &'f [Workload<'m>], case: &Case) -> anyhow::Result<&'f Workload<'m>> {
    let names = || {
        found
            .iter()
            .map(Workload::name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (&case.object, found) {
        (None, [one]) => Ok(one),
        (None, []) => Err(anyhow!(
            "there is no pod in the manifests, and nothing that makes pods"
        )),
        (None, _) => Err(anyhow!("object: say which one it is about: {}", names())),
        (Some(name), _) => found
            .iter()
            .find(|workload| workload.name() == *name)
            .ok_or_else(|| anyhow!("object: there is no {name} among {}", names())),
    }
}

/// A pod before and after, and all that is known of it.
struct Hardened<'h> {
    before: &'h Value,
    after: &'h Value,
    lines: &'h [Line],
    policies: &'h [String],
}

impl Hardened<'_> {
    /// What is not as a case has it.
    fn judge(&self, case: &Case) -> anyhow::Result<Option<String>> {
        let (mut expected, mut actual) = (String::new(), String::new());
        let mut compare = |wanted: &str, found: &str| {
            expected += &format!("{wanted}\n");
            actual += &format!("{found}\n");
        };
        if let Some(policies) = &case.policies {
            let line = |policies: &[String]| format!("policies: {}", policies.join(", "));
            compare(&line(policies), &line(self.policies));
        }
        if let Some(levels) = &case.pod_security {
            let version = levels.version.as_deref().unwrap_or("latest");
            let version: Version = version.parse().context("podSecurity.version")?;
            for (when, level, pod) in [
                ("before", &levels.before, self.before),
                ("after", &levels.after, self.after),
            ] {
                let Some(level) = level else { continue };
                let level: pod_security_standards::Level = level
                    .parse()
                    .with_context(|| format!("podSecurity.{when}"))?;
                let pod = StandardsPod::from_value(pod)?;
                let standing = standing(version, &pod);
                let line = |level| format!("podSecurity.{when}: {level}");
                let mut found = line(standing.level);
                if let Some(next) = standing.next.filter(|_| standing.level < level) {
                    found += &format!("  # {}", next.denial().unwrap_or_default());
                }
                compare(&line(level), &found);
            }
        }
        for field in &case.fields {
            let (wanted, found) = self.field(field)?;
            compare(&wanted, &found);
        }
        let is_as_expected = expected == actual;
        let diff = || diff::unified(&expected, &actual, "expected", "as admitted");
        Ok((!is_as_expected).then(diff))
    }

    /// What is expected of a field, and what is there.
    fn field(&self, expectation: &FieldExpectation) -> anyhow::Result<(String, String)> {
        let FieldExpectation {
            path,
            value,
            absent,
            set_by,
            withheld,
        } = expectation;
        let place = path::parse(path).with_context(|| format!("fields: {path}"))?;
        let line = self.line_of(path);
        let (mut wanted, mut found) = (Vec::new(), Vec::new());
        if *absent || value.is_some() {
            let made_up = line.filter(|line| line.is(path) && line.path == "writablePaths");
            let there = match made_up {
                Some(line) => line.value.as_ref(),
                None => path::at(self.after, &place),
            };
            wanted.push(shown(value.as_ref()));
            found.push(shown(there));
        }
        if set_by.is_some() || withheld.is_some() {
            let line = line.with_context(|| {
                format!("fields: {path}: no policy can give a default for it, so who set it is not known")
            })?;
            if let Some(set_by) = set_by {
                wanted.push(format!("set by {}", set_by.names().join(", ")));
                found.push(format!("set by {}", who(line).join(", ")));
            }
            if let Some(guard) = withheld {
                let guards: Vec<&str> = line.withheld.iter().map(|held| held.guard).collect();
                wanted.push(format!("withheld by {guard}"));
                found.push(match guards.as_slice() {
                    [] => "withheld by nobody".to_owned(),
                    guards if guards.contains(&guard.as_str()) => format!("withheld by {guard}"),
                    guards => format!("withheld by {}", guards.join(", ")),
                });
            }
        }
        let text = |parts: Vec<String>| format!("{path}: {}", parts.join(", "));
        Ok((text(wanted), text(found)))
    }

    /// What is explained of the field that a path leads to or into.
    fn line_of(&self, path: &str) -> Option<&Line> {
        let full = |line: &&Line| {
            let rest = path.strip_prefix(&line.full_path());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.lines.iter().find(full)
    }
}

/// A value as the diff has it: what is more than one value on lines of its own.
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value @ (Value::Object(_) | Value::Array(_))) => {
            serde_json::to_string_pretty(value).unwrap_or_default()
        }
        Some(value) => value.to_string(),
    }
}

fn who(line: &Line) -> Vec<String> {
    if line.set_by.is_empty() {
        return vec![SetByExpectation::NOBODY.to_owned()];
    }
    let name = |set_by: &SetBy| match set_by {
        SetBy::Author => "author".to_owned(),
        SetBy::Pod => "pod".to_owned(),
        SetBy::Policy { policy, .. } => unversioned(policy),
    };
    line.set_by.iter().map(name).collect()
}

/// A policy's name without its generation, which a file in Git does not have.
fn unversioned(reference: &str) -> String {
    let name = reference.rsplit_once('@');
    name.map_or(reference, |(name, _)| name).to_owned()
}
