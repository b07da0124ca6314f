//! Which volumes a PSP denied, as CEL.

use super::cel::{all, any, list, text};
use super::checks;
use crate::policy::{ANY, Policy};
use crate::psp::AllowedHostPath;
use crate::volumes::KINDS;

const VOLUMES: &str = "object.spec.?volumes.orValue([])";

/// Whether volume `v` holds nothing but what the API server mounts for the service account: allowed wherever
/// secrets are.
const IS_TOKEN: &str = r#"has(v.projected) && v.projected.?sources.orValue([]).all(s, (has(s.serviceAccountToken) || has(s.configMap) || has(s.downwardAPI)) && s.?serviceAccountToken.optMap(t, t.path == "token" && t.?audience.orValue("") == "").orValue(true) && s.?configMap.optMap(m, m.?name.orValue("") == "kube-root-ca.crt").orValue(true) && s.?downwardAPI.optMap(d, d.?items.orValue([]).all(i, i.path == "namespace" && i.?fieldRef.optMap(f, f.?apiVersion.orValue("") == "v1" && f.fieldPath == "metadata.namespace").orValue(false))).orValue(true))"#;

/// A message for each volume of which something bad is true; both are about `v`.
fn each(bad: &str, field: &str, message: &str) -> String {
    format!(
        r#"{VOLUMES}.filter(v, {bad}).map(v, "spec.volumes[" + v.name + "]{field}: " + {message})"#
    )
}

/// The kinds. A kind that is newer than PodSecurityPolicy is in no list, so only `*` allows it.
pub(super) fn kinds(policy: &Policy) -> Option<String> {
    if policy.volumes.contains(ANY) {
        return None;
    }
    let listed = KINDS
        .iter()
        .filter(|(_, kind)| policy.volumes.contains(*kind));
    let mut allowed: Vec<String> = listed.map(|(field, _)| format!("has(v.{field})")).collect();
    if policy.volumes.contains("secret") && !policy.volumes.contains("projected") {
        allowed.push(IS_TOKEN.to_owned());
    }
    let kind = KINDS.iter().rev().fold(
        text("of a kind that PodSecurityPolicy did not know"),
        |rest, (field, kind)| format!("has(v.{field}) ? {} : {rest}", text(kind)),
    );
    let kinds: Vec<&str> = policy.volumes.iter().map(String::as_str).collect();
    let allowed_text = match kinds.is_empty() {
        true => ": no volumes are allowed".to_owned(),
        false => format!(": allowed are {}", kinds.join(", ")),
    };
    Some(each(
        &format!("!{}", any(allowed)),
        "",
        &format!("({kind}) + {}", text(&allowed_text)),
    ))
}

/// Without a slash at its end, of which one is taken off.
fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

pub(super) fn host_paths(policy: &Policy) -> Option<String> {
    let prefixes = &policy.allowed_host_paths;
    let allowed = policy.volumes.contains(ANY) || policy.volumes.contains("hostPath");
    if !allowed || prefixes.is_empty() {
        return None;
    }
    // `t` is the volume's path, trimmed likewise.
    let below = |prefixes: &mut dyn Iterator<Item = &AllowedHostPath>| {
        any(prefixes.map(|allowed| {
            let prefix = trimmed(&allowed.path_prefix);
            let inside = text(&format!("{prefix}/"));
            format!("t == {} || t.startsWith({inside})", text(prefix))
        }))
    };
    let on_path = |condition: &str| {
        format!(
            r#"has(v.hostPath) && [v.hostPath.path].exists(p, [p.endsWith("/") ? p.substring(0, p.size() - 1) : p].exists(t, {condition}))"#
        )
    };
    let matching = below(&mut prefixes.iter());
    let writable = below(&mut prefixes.iter().filter(|allowed| !allowed.read_only));
    let names: Vec<String> = prefixes
        .iter()
        .map(|allowed| match allowed.read_only {
            true => format!("{} (read-only)", allowed.path_prefix),
            false => allowed.path_prefix.clone(),
        })
        .collect();
    let elsewhere = each(
        &on_path(&format!("!{matching}")),
        ".hostPath.path",
        &format!(
            "v.hostPath.path + {}",
            text(&format!(": allowed are {}", names.join(", ")))
        ),
    );
    if prefixes.iter().all(|allowed| !allowed.read_only) {
        return Some(elsewhere);
    }
    // The names of the volumes first, once: to look for each volume in each container costs too much in large pods.
    let volumes = format!(
        "{VOLUMES}.filter(v, {}).map(v, v.name)",
        on_path(&format!("{matching} && !{writable}"))
    );
    let written =
        "c.?volumeMounts.orValue([]).filter(m, !m.?readOnly.orValue(false) && m.name in names)";
    let read_only = checks::each(
        &format!("size({written}) > 0"),
        "volumeMounts.readOnly",
        &format!(
            r#""not set for " + {written}.map(m, m.name).join(", ") + {}"#,
            text(&format!(
                ": must be true, as allowed are {}",
                names.join(", ")
            ))
        ),
    );
    let read_only = format!("[{volumes}].map(names, {read_only})[0]");
    Some(all([elsewhere, read_only]))
}

/// Drivers of flex volumes, and of volumes that a CSI driver makes for the pod.
pub(super) fn drivers(policy: &Policy) -> Option<String> {
    let checks: Vec<String> = [
        ("flexVolume", &policy.allowed_flex_drivers),
        ("csi", &policy.allowed_csi_drivers),
    ]
    .into_iter()
    .filter(|(kind, drivers)| {
        !drivers.is_empty() && (policy.volumes.contains(ANY) || policy.volumes.contains(*kind))
    })
    .map(|(kind, drivers)| {
        let names: Vec<&str> = drivers.iter().map(String::as_str).collect();
        each(
            &format!("has(v.{kind}) && !(v.{kind}.driver in {})", list(drivers)),
            &format!(".{kind}.driver"),
            &format!(
                "v.{kind}.driver + {}",
                text(&format!(": allowed are {}", names.join(", ")))
            ),
        )
    })
    .collect();
    (!checks.is_empty()).then(|| all(checks))
}
