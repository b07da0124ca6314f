//! What the tests of the checks have in common.

use crate::check::{CHECKS, Exemption};
use crate::pod::Pod;
use crate::version::Version;

/// Runs one check on a pod with this spec, and compares what it says: the text, and the fields.
#[track_caller]
pub(super) fn check(id: &str, version: &str, spec: &str, expected: Option<(&str, &[&str])>) {
    check_pod(id, version, &format!("{{\"spec\": {spec}}}"), expected);
}

/// As [`check`], for a pod with metadata.
#[track_caller]
pub(super) fn check_pod(id: &str, version: &str, pod: &str, expected: Option<(&str, &[&str])>) {
    let row = CHECKS.iter().find(|row| row.id.name() == id).unwrap();
    let version: Version = version.parse().unwrap();
    let pod = Pod::from_json(pod).unwrap();
    let is_there = row.is_part_of(row.level, version);
    let found = is_there.then(|| row.run(version, &pod)).flatten();
    let found = found.map(|violation| {
        assert_eq!(violation.check, row.id);
        let fields = violation.fields.iter().map(|field| {
            let value = field.value.as_ref();
            let value = value.map_or_else(|| "not set".to_owned(), ToString::to_string);
            format!("{}: {value}, must be {}", field.path, field.allowed)
        });
        (violation.to_string(), fields.collect::<Vec<String>>())
    });
    let expected = expected.map(|(text, fields)| {
        let fields: Vec<String> = fields.iter().map(|&field| field.to_owned()).collect();
        (text.to_owned(), fields)
    });
    assert_eq!(found, expected);
}

/// Holds a check that this spec breaks against its exemption: before, since, and for other pods.
#[track_caller]
pub(super) fn exempt(id: &str, spec: &str, exemption: Exemption, since: u64) {
    let row = CHECKS.iter().find(|row| row.id.name() == id).unwrap();
    assert_eq!(row.exempt, Some((exemption, since)));
    let (this, other) = match exemption {
        Exemption::Windows => (
            r#""os": {"name": "windows"}"#,
            r#""nodeSelector": {"kubernetes.io/os": "windows"}, "os": {"name": "linux"}"#,
        ),
        Exemption::UserNamespace => (r#""hostUsers": false"#, r#""hostUsers": true"#),
    };
    let members = spec.trim_start().strip_prefix('{').unwrap();
    for (members, version, is_broken) in [
        (format!("{{{this}, {members}"), since - 1, true),
        (format!("{{{this}, {members}"), since, false),
        (format!("{{{other}, {members}"), since, true),
    ] {
        let pod = Pod::from_json(&format!("{{\"spec\": {members}}}")).unwrap();
        let found = row.run(Version::Minor(version), &pod);
        assert_eq!(found.is_some(), is_broken, "{version}: {members}");
    }
}
