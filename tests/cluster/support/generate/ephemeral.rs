//! Ephemeral containers, as `kubectl debug` adds them.

use serde_json::{Value, json};

use super::Random;
use super::pod::{Linux, security_context};

/// Some ephemeral containers; the numbers in their names start at `first`.
pub(crate) fn containers(random: &mut Random, first: usize) -> Vec<Value> {
    (first..first + random.number(1..=3))
        .map(|i| {
            let mut container =
                json!({"name": format!("debug-{i}"), "image": "registry.example/tools"});
            if random.chance(0.5) {
                container["securityContext"] = security_context(random, Linux::Yes).into();
            }
            if random.chance(0.3) {
                container["stdin"] = true.into();
            }
            container
        })
        .collect()
}
