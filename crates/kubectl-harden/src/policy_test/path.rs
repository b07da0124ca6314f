//! Paths into a pod: `spec.containers[app].securityContext.runAsUser`. In brackets stands the name of a
//! list's item, its place from 0, or a key that has dots in it.

use anyhow::bail;
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    Item(String),
}

pub(super) fn parse(path: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((item, after)) = inner.split_once(']') else {
                bail!("a bracket is not closed");
            };
            steps.push(Step::Item(item.to_owned()));
            rest = after;
        } else {
            let name = match steps.is_empty() {
                true => rest,
                false => match rest.strip_prefix('.') {
                    Some(name) => name,
                    None => bail!("a dot or a bracket is to follow a bracket"),
                },
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (member, after) = name.split_at(end);
            if member.is_empty() {
                bail!("a name is missing");
            }
            steps.push(Step::Member(member.to_owned()));
            rest = after;
        }
    }
    if steps.is_empty() {
        bail!("it is empty");
    }
    Ok(steps)
}

/// What stands there; null is as good as nothing.
pub(super) fn at<'v>(pod: &'v Value, path: &[Step]) -> Option<&'v Value> {
    let found = path.iter().try_fold(pod, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Item(item) => match value {
            Value::Array(items) => items
                .iter()
                .find(|one| one.get("name").and_then(Value::as_str) == Some(item))
                .or_else(|| items.get(item.parse::<usize>().ok()?)),
            other => other.get(item),
        },
    });
    found.filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_where_it_reads() {
        let pod = json!({
            "metadata": {"annotations": {"example.com/a": "x"}},
            "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 80}]}, {"name": "0"}], "hostname": null},
        });
        for (path, expected) in [
            ("spec.containers[app].ports[0].containerPort", json!(80)),
            ("spec.containers[1].name", json!("0")),
            // A name goes before a place.
            ("spec.containers[0].name", json!("0")),
            ("metadata.annotations[example.com/a]", json!("x")),
            ("spec.containers[absent].name", json!(null)),
            ("spec.hostname", json!(null)),
        ] {
            let found = at(&pod, &parse(path).unwrap()).cloned();
            assert_eq!(found.unwrap_or(Value::Null), expected, "{path}");
        }
        for path in ["", "spec.", ".spec", "spec..a", "spec[a", "spec.a[0]b"] {
            assert!(parse(path).is_err(), "{path}");
        }
    }
}
