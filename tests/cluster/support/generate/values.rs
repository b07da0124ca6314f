//! What pods and policies are made of.

use serde_json::{Value, json};

use super::Random;

pub(super) const USERS: [i64; 9] = [0, 0, 1, 1000, 1000, 10001, 65535, 65536, 2_147_483_647];
pub(super) const CAPABILITIES: [&str; 8] = [
    "ALL",
    "NET_RAW",
    "NET_BIND_SERVICE",
    "SYS_ADMIN",
    "SYS_TIME",
    "CHOWN",
    "KILL",
    "SYS_PTRACE",
];
/// Each with a namespace of its own kind, in both spellings.
pub(super) const SYSCTLS: [&str; 11] = [
    "net.ipv4.ip_unprivileged_port_start",
    "net/ipv4/ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net/ipv4/conf/eth0.100/rp_filter",
    "kernel.shm_rmid_forced",
    "kernel/shm_rmid_forced",
    "kernel.msgmax",
    "kernel.sem",
    "fs.mqueue.msg_max",
    "fs/mqueue/msg_max",
    "vm.swappiness",
];
/// Where things are mounted, and what policies keep writable.
pub(super) const PATHS: [&str; 11] = [
    "/tmp",
    "/tmp/cache",
    "/var",
    "/var/cache",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run",
    "/home/App User/.cache",
    "/data",
    "/opt/data/größe",
    "/a/very/long/path/that/alone/has/more/characters/than/the/name/of/a/volume/may/have",
    "/dev/xvda",
];
pub(super) const SERVICE_ACCOUNTS: [&str; 3] = ["default", "mounts-token", "no-token"];
/// `missing` is one that the cluster does not have.
pub(super) const RUNTIME_CLASSES: [&str; 3] = ["sandboxed", "on-gpu-nodes", "missing"];

pub(super) fn boolean(random: &mut Random) -> Value {
    random.flip().into()
}

pub(super) fn user(random: &mut Random) -> Value {
    (*random.pick(&USERS)).into()
}

pub(super) fn groups(random: &mut Random) -> Value {
    let mut groups = random.some(&USERS, 1..=3);
    groups.sort_unstable();
    groups.dedup();
    groups.into()
}

pub(super) fn seccomp_profile(random: &mut Random) -> Value {
    profile(random, &["audit.json", "profiles/block.json"])
}

pub(super) fn app_armor_profile(random: &mut Random) -> Value {
    profile(random, &["k8s-nginx", "k8s nginx//sub"])
}

fn profile(random: &mut Random, local: &[&str]) -> Value {
    match random.number(0..=3) {
        0 | 1 => json!({"type": "RuntimeDefault"}),
        2 => json!({"type": "Unconfined"}),
        _ => json!({"type": "Localhost", "localhostProfile": *random.pick(local)}),
    }
}

pub(super) fn se_linux_options(random: &mut Random) -> Value {
    let mut options = random.object(&[
        ("user", 0.3, |_| "system_u".into()),
        ("role", 0.3, |_| "system_r".into()),
        ("type", 0.3, |_| "container_t".into()),
    ]);
    options.insert("level".to_owned(), "s0:c1,c2".into());
    options.into()
}

pub(super) fn fs_group_change_policy(random: &mut Random) -> Value {
    (*random.pick(&["OnRootMismatch", "Always"])).into()
}

pub(super) fn supplemental_groups_policy(random: &mut Random) -> Value {
    (*random.pick(&["Merge", "Strict"])).into()
}

pub(super) fn proc_mount(random: &mut Random) -> Value {
    (*random.pick(&["Default", "Default", "Unmasked"])).into()
}

pub(super) fn sysctls(random: &mut Random) -> Value {
    let names = random.some(&SYSCTLS, 1..=3);
    names
        .into_iter()
        .map(|name| json!({"name": name, "value": "1"}))
        .collect()
}
