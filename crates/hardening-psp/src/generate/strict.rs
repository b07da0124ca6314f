//! Generated PodSecurityPolicies that are as strict as a Pod Security Standard, or miss it by one field.

use serde_json::{Map, Value, json};

use super::{APP_ARMOR, Generator, LEVELS, SECCOMP, put};
use crate::mutate::set;
use crate::psp::{APP_ARMOR_ALLOWED, APP_ARMOR_DEFAULT, SECCOMP_ALLOWED, SECCOMP_DEFAULT};
use crate::volumes;

/// What "baseline" lets containers add, among others.
const CAPABILITIES: [&str; 3] = ["CHOWN", "KILL", "NET_BIND_SERVICE"];

impl Generator {
    /// A policy whose fields are all as a level wants them, but for one in a few.
    pub(super) fn strict_psp(&mut self) -> Value {
        let restricted = self.chance(50);
        let mut psp = self.psp();
        let mut wanted = Map::new();
        for flag in ["privileged", "hostNetwork", "hostPID", "hostIPC"] {
            put(&mut wanted, flag, false);
        }
        put(&mut wanted, "hostPorts", json!([]));
        put(&mut wanted, "allowedProcMountTypes", json!(["Default"]));
        let sysctls = self.subset(&["net.ipv4.tcp_rmem", "net.ipv4.tcp_fin_timeout"], 50);
        put(&mut wanted, "allowedUnsafeSysctls", sysctls);
        put(&mut wanted, "forbiddenSysctls", json!([]));
        self.strict_capabilities(restricted, &mut wanted);
        self.strict_volumes(restricted, &mut wanted);
        let labels = json!({"level": self.pick(&LEVELS), "type": self.pick(&["", "container_t"])});
        let se_linux = json!({"rule": "MustRunAs", "seLinuxOptions": labels});
        put(&mut wanted, "seLinux", se_linux);
        if restricted {
            put(&mut wanted, "allowPrivilegeEscalation", false);
            put(&mut wanted, "defaultAllowPrivilegeEscalation", false);
            put(
                &mut wanted,
                "runAsUser",
                json!({"rule": "MustRunAsNonRoot"}),
            );
        }
        let all = self.chance(70);
        for (field, value) in wanted {
            if all || self.chance(95) {
                set(&mut psp, &["spec", &field], value);
            }
        }
        if all || self.chance(95) {
            let annotations = self.strict_annotations(restricted);
            set(&mut psp, &["metadata", "annotations"], annotations);
        }
        psp
    }

    fn strict_capabilities(&mut self, restricted: bool, wanted: &mut Map<String, Value>) {
        let allowed: &[&str] = match restricted {
            true => &["NET_BIND_SERVICE"],
            false => &CAPABILITIES,
        };
        let required = match restricted {
            true => json!(["ALL"]),
            false => self.subset(&["ALL", "NET_RAW"], 40),
        };
        let added = self.subset(allowed, 20);
        let allowed = self.subset(allowed, 60);
        put(wanted, "allowedCapabilities", allowed);
        put(wanted, "defaultAddCapabilities", added);
        put(wanted, "requiredDropCapabilities", required);
    }

    fn strict_volumes(&mut self, restricted: bool, wanted: &mut Map<String, Value>) {
        let restricted_kinds = ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"];
        let more = ["persistentVolumeClaim", "projected", "secret"];
        let kinds: Vec<&str> = match restricted {
            true => restricted_kinds.into_iter().chain(more).collect(),
            false => volumes::KINDS
                .iter()
                .map(|(_, kind)| *kind)
                .filter(|kind| *kind != "hostPath")
                .collect(),
        };
        let kinds = self.subset(&kinds, 85);
        put(wanted, "volumes", kinds);
        put(wanted, "allowedCSIDrivers", json!([]));
    }

    fn strict_annotations(&mut self, restricted: bool) -> Value {
        let mut annotations = Map::new();
        let confined = [SECCOMP[0], SECCOMP[1], SECCOMP[3], SECCOMP[4]];
        if restricted || self.chance(60) {
            let default = self.pick(&confined);
            let other = self.pick(&confined);
            put(
                &mut annotations,
                SECCOMP_ALLOWED,
                format!("{default},{other}"),
            );
            put(&mut annotations, SECCOMP_DEFAULT, default);
        }
        let confined = [APP_ARMOR[0], APP_ARMOR[2], APP_ARMOR[3]];
        let default = self.pick(&confined);
        let other = self.pick(&confined);
        put(
            &mut annotations,
            APP_ARMOR_ALLOWED,
            format!("{default},{other}"),
        );
        if self.chance(80) {
            put(&mut annotations, APP_ARMOR_DEFAULT, default);
        }
        annotations.into()
    }
}
