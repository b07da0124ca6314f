//! Generated PodSecurityPolicies and pods: plausible ones, from small pools of values, so that the two meet.
//!
//! The same seed gives the same pair, on every machine.

mod pod;
mod psp;
mod strict;

use fastrand::Rng;
use serde_json::{Map, Value};

const CAPABILITIES: [&str; 8] = [
    "ALL",
    "CHOWN",
    "KILL",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_TIME",
];
const IDS: [i64; 8] = [0, 1, 5, 100, 1000, 1001, 65534, 65535];
const SYSCTLS: [&str; 7] = [
    "kernel.shm_rmid_forced",
    "kernel.msgmax",
    "kernel.sem",
    "net.core.somaxconn",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
];
const SECCOMP: [&str; 5] = [
    "runtime/default",
    "docker/default",
    "unconfined",
    "localhost/a.json",
    "localhost/b.json",
];
const APP_ARMOR: [&str; 4] = [
    "runtime/default",
    "unconfined",
    "localhost/a",
    "localhost/b",
];
const LEVELS: [&str; 5] = ["s0", "s0:c1,c2", "s0:c2,c1", "s0:c1.c3", "s1:c1,c2"];
const HOST_PATHS: [&str; 6] = ["/", "/var", "/var/log", "/var/log/", "/var/logs", "/etc/x"];
const RUNTIME_CLASSES: [&str; 3] = ["gvisor", "kata", "runc"];
const DRIVERS: [&str; 3] = ["example.com/lvm", "example.com/nfs", "example.com/x"];
const CSI_DRIVERS: [&str; 3] = ["secrets.example.com", "csi.example.com", "x.example.com"];

/// A policy and a pod that it is about.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The PodSecurityPolicy.
    pub psp: Value,
    /// The pod.
    pub pod: Value,
}

/// The pair of a seed.
#[must_use]
pub fn pair(seed: u64) -> Pair {
    let mut generator = Generator::of(seed);
    let psp = generator.psp();
    let pod = generator.pod();
    Pair { psp, pod }
}

/// As [`pair`], with a policy that is as strict as a Pod Security Standard, or nearly.
#[must_use]
pub fn strict_pair(seed: u64) -> Pair {
    let mut generator = Generator::of(seed);
    let psp = generator.strict_psp();
    let pod = generator.pod();
    Pair { psp, pod }
}

struct Generator {
    random: Rng,
    /// How likely, in percent, the policy restricts something.
    strictness: u8,
    /// How likely, in percent, the pod's author wrote something.
    diligence: u8,
}

impl Generator {
    fn of(seed: u64) -> Self {
        // Neighbouring seeds must not give similar pairs.
        let mut generator = Self {
            random: Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            strictness: 0,
            diligence: 0,
        };
        generator.strictness = generator.pick(&[5, 15, 35, 70]);
        generator.diligence = generator.pick(&[3, 10, 25, 60]);
        generator
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        #[expect(clippy::indexing_slicing, reason = "the index is one of the slice's")]
        from[self.random.usize(0..from.len())]
    }

    fn some<T: Copy + Into<Value>>(&mut self, from: &[T], most: usize) -> Value {
        let count = self.random.usize(0..=most);
        (0..count).map(|_| self.pick(from).into()).collect()
    }

    /// As [`Self::some`], each item once.
    fn subset<T: Copy + Into<Value>>(&mut self, from: &[T], percent: u8) -> Value {
        let chosen: Vec<T> = from
            .iter()
            .copied()
            .filter(|_| self.chance(percent))
            .collect();
        chosen.into_iter().map(Into::into).collect()
    }
}

fn put(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    object.insert(key.to_owned(), value.into());
}
