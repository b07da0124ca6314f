//! Generated PodSecurityPolicies.

use serde_json::{Map, Value, json};

use super::{
    APP_ARMOR, CAPABILITIES, CSI_DRIVERS, DRIVERS, Generator, HOST_PATHS, IDS, LEVELS,
    RUNTIME_CLASSES, SECCOMP, put,
};
use crate::psp::{APP_ARMOR_ALLOWED, APP_ARMOR_DEFAULT, SECCOMP_ALLOWED, SECCOMP_DEFAULT};
use crate::volumes;

impl Generator {
    fn strict(&mut self) -> bool {
        let percent = self.strictness;
        self.chance(percent)
    }

    pub(super) fn psp(&mut self) -> Value {
        let mut spec = Map::new();
        for flag in ["privileged", "hostNetwork", "hostPID", "hostIPC"] {
            if !self.strict() {
                put(&mut spec, flag, true);
            }
        }
        if self.strict() {
            put(&mut spec, "readOnlyRootFilesystem", true);
        }
        self.psp_escalation(&mut spec);
        self.psp_capabilities(&mut spec);
        self.psp_ids(&mut spec);
        self.psp_volumes(&mut spec);
        self.psp_rest(&mut spec);
        let api_version = self.pick(&["policy/v1beta1", "policy/v1beta1", "extensions/v1beta1"]);
        json!({"apiVersion": api_version, "kind": "PodSecurityPolicy",
            "metadata": {"name": "generated", "annotations": self.psp_annotations()}, "spec": spec})
    }

    fn psp_escalation(&mut self, spec: &mut Map<String, Value>) {
        let allowed = match self.strict() {
            true => Some(false),
            false => self.pick(&[None, Some(true)]),
        };
        if let Some(allowed) = allowed {
            put(spec, "allowPrivilegeEscalation", allowed);
        }
        if self.strict() {
            let default = self.pick(&[false, false, true]);
            // The API server refuses such a pair; a few of them are of interest nevertheless.
            if !(default && allowed == Some(false)) || self.chance(5) {
                put(spec, "defaultAllowPrivilegeEscalation", default);
            }
        }
    }

    /// The API server refuses capabilities that are both to be dropped and allowed; a few such policies are of
    /// interest nevertheless.
    fn psp_capabilities(&mut self, spec: &mut Map<String, Value>) {
        let mut free = CAPABILITIES.to_vec();
        let mut any = !self.strict();
        if self.strict() {
            let required = self.subset(&CAPABILITIES, 25);
            if !self.chance(5) {
                any = any && required.as_array().is_none_or(Vec::is_empty);
                free.retain(|name| {
                    !required
                        .as_array()
                        .is_some_and(|list| list.contains(&json!(name)))
                });
            }
            put(spec, "requiredDropCapabilities", required);
        }
        if free.is_empty() {
            return;
        }
        if self.strict() {
            let added = self.some(&free, 2);
            put(spec, "defaultAddCapabilities", added);
        }
        let allowed = match any {
            true => json!(["*"]),
            false => self.subset(&free, 40),
        };
        put(spec, "allowedCapabilities", allowed);
    }

    fn range(&mut self) -> Value {
        let (a, b) = (self.pick(&IDS), self.pick(&IDS));
        match self.chance(2) {
            true => json!({"min": a.max(b), "max": a.min(b)}),
            false => json!({"min": a.min(b), "max": a.max(b)}),
        }
    }

    fn ids(&mut self, rules: &[&str]) -> Value {
        let rule = match self.strict() {
            true => self.pick(rules),
            false => "RunAsAny",
        };
        let ranged = rule != "RunAsAny" && rule != "MustRunAsNonRoot";
        // Without ranges the policy is dead.
        if !ranged || self.chance(2) {
            return match self.chance(1) {
                true => json!({"rule": "MustRun"}),
                false => json!({"rule": rule}),
            };
        }
        let ranges: Vec<Value> = (0..self.random.usize(1..=2))
            .map(|_| self.range())
            .collect();
        json!({"rule": rule, "ranges": ranges})
    }

    fn psp_ids(&mut self, spec: &mut Map<String, Value>) {
        let user = self.ids(&["MustRunAs", "MustRunAsNonRoot"]);
        put(spec, "runAsUser", user);
        if self.strict() {
            let group = self.ids(&["MustRunAs", "MayRunAs"]);
            put(spec, "runAsGroup", group);
        }
        for field in ["fsGroup", "supplementalGroups"] {
            let groups = self.ids(&["MustRunAs", "MayRunAs"]);
            put(spec, field, groups);
        }
        let se_linux = match (self.strict(), self.chance(3)) {
            (false, _) => json!({"rule": "RunAsAny"}),
            (true, true) => json!({"rule": "MustRunAs"}),
            (true, false) => json!({"rule": "MustRunAs", "seLinuxOptions": self.labels()}),
        };
        put(spec, "seLinux", se_linux);
    }

    pub(super) fn labels(&mut self) -> Value {
        let mut labels = Map::new();
        if self.chance(70) {
            let level = self.pick(&LEVELS);
            put(&mut labels, "level", level);
        }
        for (label, values) in [
            ("user", ["system_u", "user_u"]),
            ("role", ["system_r", "object_r"]),
            ("type", ["container_t", "spc_t"]),
        ] {
            if self.chance(20) {
                let value = self.pick(&values);
                put(&mut labels, label, value);
            }
        }
        labels.into()
    }

    fn psp_volumes(&mut self, spec: &mut Map<String, Value>) {
        if self.strict() {
            let kinds: Vec<&str> = volumes::KINDS.iter().map(|(_, kind)| *kind).collect();
            let listed = self.subset(&kinds, 50);
            put(spec, "volumes", listed);
        } else {
            put(spec, "volumes", json!(["*"]));
        }
        if self.strict() {
            let paths: Vec<Value> = (0..self.random.usize(0..3))
                .map(|_| match self.chance(50) {
                    true => json!({"pathPrefix": self.pick(&HOST_PATHS), "readOnly": true}),
                    false => json!({"pathPrefix": self.pick(&HOST_PATHS)}),
                })
                .collect();
            put(spec, "allowedHostPaths", paths);
        }
        if self.strict() {
            put(
                spec,
                "allowedFlexVolumes",
                json!([{"driver": self.pick(&DRIVERS)}]),
            );
        }
        if self.strict() {
            put(
                spec,
                "allowedCSIDrivers",
                json!([{"name": self.pick(&CSI_DRIVERS)}]),
            );
        }
    }

    fn psp_rest(&mut self, spec: &mut Map<String, Value>) {
        if !self.strict() {
            put(spec, "hostPorts", json!([{"min": 0, "max": 65535}]));
        } else if self.chance(60) {
            let (min, max) = (self.pick(&[0, 80, 1000]), self.pick(&[80, 1000, 9000]));
            put(spec, "hostPorts", json!([{"min": min, "max": max}]));
        }
        let forbids = self.strict();
        if forbids {
            let forbidden = self.subset(&["kernel.msgmax", "kernel.s*", "net.core.*"], 40);
            put(spec, "forbiddenSysctls", forbidden);
        }
        let allowed = match (forbids, self.strict()) {
            (false, false) => json!(["*"]),
            // Now and then such as overlap with what is forbidden.
            (true, _) if self.chance(95) => self.subset(&["kernel.msgmn*", "net.ipv4.tcp_*"], 50),
            _ => self.subset(
                &["kernel.*", "kernel.msgmax", "net.*", "net.ipv4.tcp_*"],
                30,
            ),
        };
        put(spec, "allowedUnsafeSysctls", allowed);
        let mounts = match (self.strict(), self.chance(15)) {
            (false, _) => self
                .pick(&[["Default", "Unmasked"], ["Unmasked", "Default"]])
                .to_vec(),
            (true, true) => vec!["Unmasked"],
            (true, false) => self.pick(&[[].as_slice(), &["Default"]]).to_vec(),
        };
        put(spec, "allowedProcMountTypes", mounts);
        if self.strict() {
            let mut class = Map::new();
            let allowed: Vec<&str> = match self.chance(40) {
                true => vec!["*"],
                false => {
                    let mut names = RUNTIME_CLASSES.to_vec();
                    names.retain(|_| self.chance(50));
                    names
                }
            };
            if self.chance(60) {
                let listed = !allowed.is_empty() && allowed != ["*"] && !self.chance(5);
                let name = if listed {
                    self.pick(&allowed)
                } else {
                    self.pick(&RUNTIME_CLASSES)
                };
                put(&mut class, "defaultRuntimeClassName", name);
            }
            put(&mut class, "allowedRuntimeClassNames", allowed);
            put(spec, "runtimeClass", class);
        }
    }

    fn psp_annotations(&mut self) -> Value {
        let mut annotations = Map::new();
        if self.strict() {
            let profile = self.pick(&SECCOMP);
            put(&mut annotations, SECCOMP_DEFAULT, profile);
        }
        if !self.strict() {
            put(&mut annotations, SECCOMP_ALLOWED, "*");
        } else if self.chance(80) {
            let allowed = self.profiles(&SECCOMP);
            put(&mut annotations, SECCOMP_ALLOWED, allowed);
        }
        if self.strict() {
            let profile = self.pick(&APP_ARMOR);
            put(&mut annotations, APP_ARMOR_DEFAULT, profile);
        }
        if self.strict() && self.chance(70) {
            let allowed = self.profiles(&APP_ARMOR);
            put(&mut annotations, APP_ARMOR_ALLOWED, allowed);
        }
        annotations.into()
    }

    fn profiles(&mut self, from: &[&str]) -> String {
        let listed: Vec<&str> = (0..self.random.usize(0..=4))
            .map(|_| self.pick(from))
            .collect();
        listed.join(",")
    }
}
