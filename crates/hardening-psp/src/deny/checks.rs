//! What a PSP denied, rule by rule, as CEL: each rule an expression that lists what is wrong with a pod, empty
//! where nothing is. `today.rs` says the same in Rust, and tests hold the two against each other on a real API
//! server.
//!
//! Containers and volumes go by their names, which nobody has to count for. Ephemeral containers are not in a
//! pod that is created.

use super::cel::{all, list, text, when, within};
use crate::policy::{ANY, GroupRule, Policy, UserRule};
use crate::psp::SeLinuxOptions;
use crate::seccomp;
use crate::validate::SAFE_SYSCTLS;

use super::volumes;
use crate::capability;

/// A rule of a PSP.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// What the variable is called that holds what is wrong.
    pub(super) name: &'static str,
    /// A list of texts.
    pub(super) expression: String,
}

/// Init containers and containers: the only ones when a pod is created.
pub(super) const CONTAINERS: &str =
    "object.spec.?initContainers.orValue([]) + object.spec.containers";
/// The names of the init containers.
pub(super) const INIT_NAMES: &str = "object.spec.?initContainers.orValue([]).map(c, c.name)";

/// Where container `c` is.
const PATH: &str = r#"(c.name in variables.initNames ? "spec.initContainers[" : "spec.containers[") + c.name + "]"#;
const CONTEXT: &str = "object.spec.?securityContext";

/// A message for each container of which something bad is true; both are about `c`.
pub(super) fn each(bad: &str, field: &str, message: &str) -> String {
    format!(r#"variables.containers.filter(c, {bad}).map(c, {PATH}.{field}: " + {message})"#)
}

/// What is in force in container `c`: its own value, else the pod's.
fn effective(field: &str) -> String {
    format!("c.?securityContext.?{field}.or({CONTEXT}.?{field})")
}

/// A value as text, which may be absent.
fn shown(optional: &str) -> String {
    format!(r#"{optional}.optMap(v, string(v)).orValue("not set")"#)
}

/// What a profile's fields say, as the text that a PSP compares.
fn profile(value: &str) -> String {
    format!(
        r#"({value}.type == "Localhost" ? "localhost/" + {value}.?localhostProfile.orValue("") : {value}.type == "RuntimeDefault" ? "runtime/default" : {value}.type == "Unconfined" ? "unconfined" : "")"#
    )
}

fn one_of<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names
        .into_iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    match names.is_empty() {
        true => "allowed is none".to_owned(),
        false => format!("allowed are {}", names.join(", ")),
    }
}

impl Policy {
    /// Every rule that can deny anything.
    pub(super) fn checks(&self) -> Vec<Check> {
        [
            ("privileged", self.privileged_check()),
            ("hostNamespaces", self.host_namespaces_check()),
            ("hostPorts", self.host_ports_check()),
            ("volumes", volumes::kinds(self)),
            ("hostPaths", volumes::host_paths(self)),
            ("drivers", volumes::drivers(self)),
            ("procMount", self.proc_mount_check()),
            ("sysctls", self.sysctls_check()),
            ("escalation", self.escalation_check()),
            ("capabilities", self.capabilities_check()),
            ("readOnlyRoot", self.read_only_root_check()),
            ("runAsUser", self.user_check()),
            ("runAsGroup", self.group_check()),
            ("fsGroup", self.fs_group_check()),
            ("supplementalGroups", self.supplemental_groups_check()),
            ("seLinux", self.se_linux.as_ref().map(se_linux)),
            ("runtimeClass", self.runtime_class_check()),
            ("seccomp", self.seccomp_check()),
            ("appArmor", self.app_armor_check()),
        ]
        .into_iter()
        .filter_map(|(name, expression)| {
            Some(Check {
                name,
                expression: expression?,
            })
        })
        .collect()
    }

    fn privileged_check(&self) -> Option<String> {
        let bad = "c.?securityContext.?privileged.orValue(false)";
        let message = text("true: not allowed");
        (!self.privileged).then(|| each(bad, "securityContext.privileged", &message))
    }

    fn host_namespaces_check(&self) -> Option<String> {
        let namespaces = [
            ("hostNetwork", self.host_network),
            ("hostPID", self.host_pid),
            ("hostIPC", self.host_ipc),
        ];
        let denied = namespaces.into_iter().filter(|(_, allowed)| !allowed);
        let checks: Vec<String> = denied
            .map(|(name, _)| {
                let message = text(&format!("spec.{name}: true: not allowed"));
                when(&format!("object.spec.?{name}.orValue(false)"), &message)
            })
            .collect();
        (!checks.is_empty()).then(|| all(checks))
    }

    fn host_ports_check(&self) -> Option<String> {
        let ranges = self
            .host_ports
            .iter()
            .map(|range| (i64::from(range.min), i64::from(range.max)));
        let allowed: Vec<String> = self.host_ports.iter().map(ToString::to_string).collect();
        let bad = format!(
            "c.?ports.orValue([]).filter(p, p.?hostPort.orValue(0) > 0 && !{})",
            within("p.hostPort", ranges)
        );
        let message = format!(
            r#"{bad}.map(p, string(p.hostPort)).join(", ") + {}"#,
            text(&format!(": {}", one_of(&allowed)))
        );
        Some(each(
            &format!("size({bad}) > 0"),
            "ports.hostPort",
            &message,
        ))
    }

    fn proc_mount_check(&self) -> Option<String> {
        let value = r#"c.?securityContext.?procMount.orValue("Default")"#;
        let bad = format!("!({value} in {})", list(&self.proc_mounts));
        let message = format!(
            "{value} + {}",
            text(&format!(": {}", one_of(&self.proc_mounts)))
        );
        Some(each(&bad, "securityContext.procMount", &message))
    }

    fn sysctls_check(&self) -> Option<String> {
        let covered = |patterns: &[String]| {
            super::cel::any(
                patterns
                    .iter()
                    .map(|pattern| match pattern.strip_suffix('*') {
                        Some(prefix) => format!("n.startsWith({})", text(prefix)),
                        None => format!("n == {}", text(pattern)),
                    }),
            )
        };
        let safe = SAFE_SYSCTLS.map(str::to_owned);
        let forbidden = covered(&self.forbidden_sysctls);
        let allowed = format!(
            "n in {} || {}",
            list(&safe),
            covered(&self.allowed_unsafe_sysctls)
        );
        // A name with slashes means the one with dots where the two change places.
        let name = r#"(s.name.contains("/") && !s.name.split("/")[0].contains(".") ? s.name.replace(".", " ").replace("/", ".").replace(" ", "/") : s.name)"#;
        let each = |bad: &str, message: &str| {
            format!(
                r#"{CONTEXT}.?sysctls.orValue([]).filter(s, [{name}].exists(n, {bad})).map(s, "spec.securityContext.sysctls[" + s.name + "]: " + {})"#,
                text(message)
            )
        };
        let unsafe_ones = match self.allowed_unsafe_sysctls.is_empty() {
            true => "not allowed: only safe ones are".to_owned(),
            false => format!(
                "not allowed: only safe ones are, and {}",
                self.allowed_unsafe_sysctls.join(", ")
            ),
        };
        let unsafe_ones = each(&format!("!({allowed}) && !{forbidden}"), &unsafe_ones);
        if self.forbidden_sysctls.is_empty() {
            return Some(unsafe_ones);
        }
        let message = format!("forbidden are {}", self.forbidden_sysctls.join(", "));
        Some(all([each(&forbidden, &message), unsafe_ones]))
    }

    fn escalation_check(&self) -> Option<String> {
        let value = "c.?securityContext.?allowPrivilegeEscalation";
        // Beside SYS_ADMIN the value is not filled in, because it would not be so; 1.24 did, and took the pod.
        let adds =
            r#"c.?securityContext.?capabilities.?add.orValue([]).exists(a, a == "SYS_ADMIN")"#;
        let privileged = "c.?securityContext.?privileged.orValue(false)";
        let bad = format!("{value}.orValue({privileged} || !{adds})");
        let message = format!("{} + {}", shown(value), text(": must be false"));
        (!self.allow_escalation)
            .then(|| each(&bad, "securityContext.allowPrivilegeEscalation", &message))
    }

    fn read_only_root_check(&self) -> Option<String> {
        let value = "c.?securityContext.?readOnlyRootFilesystem";
        let bad = format!("!{value}.orValue(false)");
        let message = format!("{} + {}", shown(value), text(": must be true"));
        self.read_only_root
            .then(|| each(&bad, "securityContext.readOnlyRootFilesystem", &message))
    }

    fn capabilities_check(&self) -> Option<String> {
        if self.allowed_capabilities.contains(ANY) {
            return None;
        }
        let of = |field: &str| format!("c.?securityContext.?capabilities.?{field}.orValue([])");
        let allowed = self.addable_capabilities();
        let bad = format!("{}.filter(a, !(a in {}))", of("add"), list(&allowed));
        let message = format!(
            r#"{bad}.join(", ") + {}"#,
            text(&format!(": {}", one_of(&allowed)))
        );
        let adds = each(
            &format!("size({bad}) > 0"),
            "securityContext.capabilities.add",
            &message,
        );
        let required: Vec<String> = self.droppable_capabilities().collect();
        if required.is_empty() {
            return Some(adds);
        }
        // Upper case and without `CAP_`: as the hardening policy writes them, and the runtime reads them. What
        // the container adds is not dropped; whether it may be added is the other rule's question.
        let dropped = format!(
            r#"({} + {}).map(d, d.upperAscii()).map(d, d.startsWith("CAP_") ? d.substring(4) : d)"#,
            of("drop"),
            of("add")
        );
        let missing = format!(
            "[{dropped}].map(names, {}.filter(r, !(r in names)))[0]",
            list(&required)
        );
        let message = format!(r#""must have " + {missing}.join(", ")"#);
        let drops = each(
            &format!("size({missing}) > 0"),
            "securityContext.capabilities.drop",
            &message,
        );
        Some(all([adds, drops]))
    }

    fn user_check(&self) -> Option<String> {
        let user = effective("runAsUser");
        match &self.user {
            UserRule::Any => None,
            UserRule::MustRunAs(ranges) => {
                // User 0 is not filled in beside runAsNonRoot: true, as the container would not start; 1.24 did,
                // and took the pod.
                let absent_is_well = match ranges.first.min {
                    0 => format!("{}.orValue(false)", effective("runAsNonRoot")),
                    _ => "false".to_owned(),
                };
                let bad = format!(
                    "!{user}.optMap(u, {}).orValue({absent_is_well})",
                    ranges.cel("u")
                );
                let message = format!(
                    "{} + {}",
                    shown(&user),
                    text(&format!(": must be in {ranges}"))
                );
                Some(each(&bad, "securityContext.runAsUser", &message))
            }
            UserRule::NonRoot => {
                let non_root = effective("runAsNonRoot");
                let unsaid = each(
                    &format!("!{non_root}.orValue({user}.hasValue())"),
                    "securityContext.runAsNonRoot",
                    &format!("{} + {}", shown(&non_root), text(": must be true")),
                );
                let root = each(
                    &format!("{user}.orValue(1) == 0"),
                    "securityContext.runAsUser",
                    &text("0: root is not allowed"),
                );
                Some(all([unsaid, root]))
            }
        }
    }

    fn group_check(&self) -> Option<String> {
        let group = effective("runAsGroup");
        let (ranges, absent_is_well) = self.group.ranges()?;
        // Without a user the group is not filled in; 1.24 did, and took the pod.
        let absent_is_well = match absent_is_well {
            true => "true".to_owned(),
            false => format!("!{}.hasValue()", effective("runAsUser")),
        };
        let bad = format!(
            "!{group}.optMap(g, {}).orValue({absent_is_well})",
            ranges.cel("g")
        );
        let message = format!(
            "{} + {}",
            shown(&group),
            text(&format!(": must be in {ranges}"))
        );
        Some(each(&bad, "securityContext.runAsGroup", &message))
    }

    fn fs_group_check(&self) -> Option<String> {
        let group = format!("{CONTEXT}.?fsGroup");
        let (ranges, absent_is_well) = self.fs_group.ranges()?;
        let bad = format!(
            "!{group}.optMap(g, {}).orValue({absent_is_well})",
            ranges.cel("g")
        );
        let message = format!(
            r#""spec.securityContext.fsGroup: " + {} + {}"#,
            shown(&group),
            text(&format!(": must be in {ranges}"))
        );
        Some(when(&bad, &message))
    }

    fn supplemental_groups_check(&self) -> Option<String> {
        let groups = format!("{CONTEXT}.?supplementalGroups.orValue([])");
        let (ranges, absent_is_well) = self.supplemental_groups.ranges()?;
        let field = "spec.securityContext.supplementalGroups";
        let outside = format!(
            r#"{groups}.filter(g, !{}).map(g, {} + string(g) + {})"#,
            ranges.cel("g"),
            text(&format!("{field}: ")),
            text(&format!(": must be in {ranges}"))
        );
        if absent_is_well {
            return Some(outside);
        }
        let absent = when(
            &format!("size({groups}) == 0"),
            &text(&format!("{field}: not set: must be in {ranges}")),
        );
        Some(all([absent, outside]))
    }

    fn runtime_class_check(&self) -> Option<String> {
        let allowed = self.runtime_classes.as_ref()?;
        if allowed.contains(ANY) {
            return None;
        }
        let class = "object.spec.?runtimeClassName";
        let bad = format!("!{class}.optMap(n, n in {}).orValue(true)", list(allowed));
        let message = format!(
            r#""spec.runtimeClassName: " + {class}.orValue("") + {}"#,
            text(&format!(": {}", one_of(allowed)))
        );
        Some(when(&bad, &message))
    }

    /// A container without a profile has the pod's, of which the pod level is the judge.
    fn seccomp_check(&self) -> Option<String> {
        let seccomp::Rule {
            any, ref allowed, ..
        } = self.seccomp;
        if any {
            return None;
        }
        let mut passing = allowed.clone();
        if allowed.is_empty() {
            passing.insert(String::new());
        }
        let allowed_text = text(&format!(": {}", one_of(&passing)));
        let of = |holder: &str| format!(r#"{holder}.optMap(p, {}).orValue("")"#, profile("p"));
        let of_pod = of(&format!("{CONTEXT}.?seccompProfile"));
        let own = "c.?securityContext.?seccompProfile";
        let of_container = of(own);
        let shown = |profile: &str| format!(r#"({profile} == "" ? "not set" : {profile})"#);
        let pod = when(
            &format!("!({of_pod} in {})", list(&passing)),
            &format!(
                r#""spec.securityContext.seccompProfile: " + {} + {allowed_text}"#,
                shown(&of_pod)
            ),
        );
        let containers = each(
            &format!(
                "{own}.hasValue() && !({of_container} in {})",
                list(&passing)
            ),
            "securityContext.seccompProfile",
            &format!("{} + {allowed_text}", shown(&of_container)),
        );
        Some(all([pod, containers]))
    }

    fn app_armor_check(&self) -> Option<String> {
        let rule = self.app_armor.as_ref()?;
        let in_force = effective("appArmorProfile");
        let value = format!(r#"{in_force}.optMap(p, {}).orValue("")"#, profile("p"));
        let mut allowed = rule.allowed.clone();
        allowed.remove("");
        let message = format!(
            r#"({value} == "" ? "not set" : {value}) + {}"#,
            text(&format!(": {}", one_of(&allowed)))
        );
        Some(each(
            &format!("!({value} in {})", list(&allowed)),
            "securityContext.appArmorProfile",
            &message,
        ))
    }

    /// Every name that a container may add, as the PSP spells it, and as the hardening policy does that fills
    /// in the default ones.
    pub(crate) fn addable_capabilities(&self) -> std::collections::BTreeSet<String> {
        let spelled = self
            .default_add
            .iter()
            .filter_map(|name| capability::spelled(name));
        let literal = self.allowed_capabilities.iter().chain(&self.default_add);
        literal.cloned().chain(spelled).collect()
    }

    /// What a container must drop, in the spelling of the hardening policy that fills it in.
    pub(crate) fn droppable_capabilities(&self) -> impl Iterator<Item = String> {
        self.required_drop
            .iter()
            .filter_map(|name| capability::spelled(name))
    }
}

impl GroupRule {
    /// The ranges, and whether no group at all is within them.
    fn ranges(&self) -> Option<(&crate::policy::Ranges, bool)> {
        match self {
            Self::Any => None,
            Self::MayRunAs(ranges) => Some((ranges, true)),
            Self::MustRunAs(ranges) => Some((ranges, false)),
        }
    }
}

/// The pod's labels are judged even where every container has its own.
fn se_linux(wanted: &SeLinuxOptions) -> String {
    let options = [
        ("level", &wanted.level),
        ("role", &wanted.role),
        ("type", &wanted.type_),
        ("user", &wanted.user),
    ];
    let differs = |option: &str, label: &str, wanted: &str| match option {
        "level" => format!("!{}", same_level(label, wanted)),
        _ => format!("{label} != {}", text(wanted)),
    };
    let field = "securityContext.seLinuxOptions";
    let mut checks = Vec::new();
    for (option, wanted) in options {
        let must = text(&format!(": must be \"{wanted}\""));
        let of_pod = format!(r#"{CONTEXT}.?seLinuxOptions.?{option}.orValue("")"#);
        checks.push(when(
            &differs(option, &of_pod, wanted),
            &format!(
                "{} + {of_pod} + {must}",
                text(&format!("spec.{field}.{option}: "))
            ),
        ));
        let own = "c.?securityContext.?seLinuxOptions";
        let of_container = format!(r#"{own}.?{option}.orValue("")"#);
        checks.push(each(
            &format!(
                "{own}.hasValue() && {}",
                differs(option, &of_container, wanted)
            ),
            &format!("{field}.{option}"),
            &format!("{of_container} + {must}"),
        ));
    }
    all(checks)
}

/// Whether a level is this one, its categories in whatever order.
fn same_level(label: &str, wanted: &str) -> String {
    let literal = text(wanted);
    let Some((sensitivity, categories)) = wanted.split_once(':') else {
        return format!("({label} == {literal})");
    };
    let categories: Vec<&str> = categories.split(',').collect();
    let of_label = format!(r#"{label}.split(":", 2)[1].split(",")"#);
    let mut counted: Vec<&str> = categories.clone();
    counted.sort_unstable();
    counted.dedup();
    let same = counted.into_iter().map(|category| {
        let count = categories.iter().filter(|one| **one == category).count();
        format!(
            "{of_label}.filter(k, k == {}).size() == {count}",
            text(category)
        )
    });
    let same: Vec<String> = same.collect();
    format!(
        r#"({label} == {literal} || {label}.contains(":") && {label}.split(":", 2)[0] == {} && {of_label}.size() == {} && {})"#,
        text(sensitivity),
        categories.len(),
        same.join(" && ")
    )
}
