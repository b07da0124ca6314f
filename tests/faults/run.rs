//! One fault after another, each under load.

use std::time::{Duration, Instant};

use crate::{
    Selection,
    cluster::Cluster,
    faults::{FAULTS, Fault, Holds},
    loader::Loader,
    report::{Report, Seen, failing_for},
};

/// How many seconds' worth of calls is made at least each time that a fault is brought about, so that what comes late is
/// seen too.
const SECONDS_EACH: u32 = 5;
const SECONDS_EACH_IN_SHORT: u32 = 2;
/// How many pods are created in a second, at most, where the machine may be slow.
const PER_SECOND_IN_SHORT: u32 = 50;
/// How often the calls are counted.
const POLL: Duration = Duration::from_millis(50);

/// Installs the product, and does to it whatever was selected.
pub(crate) async fn run(selection: &Selection) -> Report {
    let mut report = Report::default();
    let mut cluster = Cluster::start(selection).await;
    cluster.until_whole().await;
    for fault in FAULTS.iter().filter(|fault| selection.has(fault)) {
        println!("--- {}", fault.name);
        let seen = suffer(fault, selection.is_short, &mut cluster).await;
        report.add(fault, selection.is_short, seen);
    }
    cluster.stop().await;
    report
}

/// Brings a fault about, as often as is needed for enough calls, and notes what is seen.
async fn suffer(fault: &Fault, is_short: bool, cluster: &mut Cluster) -> Seen {
    let Holds {
        calls, per_second, ..
    } = fault.holds;
    let (seconds, per_second) = match is_short {
        true => (SECONDS_EACH_IN_SHORT, per_second.min(PER_SECOND_IN_SHORT)),
        false => (SECONDS_EACH, per_second),
    };
    let calls_each = u64::from(seconds * per_second);
    let loader = Loader::start(cluster.client(), per_second);
    let restarts = cluster.restarts().await;
    let mut seen = Seen::default();
    loop {
        let before = loader.counts();
        let injected = Instant::now();
        (fault.inject)(cluster).await;
        (fault.heal)(cluster).await;
        let healed = Instant::now();
        cluster.until_whole().await;
        seen.times += 1;
        seen.recovered_in = seen.recovered_in.max(healed.elapsed());
        seen.memory = seen.memory.max(cluster.memory());
        while loader.counts().calls < before.calls + calls_each {
            tokio::time::sleep(POLL).await;
        }
        seen.counts = loader.counts();
        let failed = seen.counts.failed - before.failed;
        seen.failed_at_once = seen.failed_at_once.max(failed);
        seen.failing_for = seen.failing_for.max(failing_for(injected, &seen.counts));
        if is_short || seen.counts.calls >= calls {
            break;
        }
    }
    seen.restarts = cluster.restarts().await.saturating_sub(restarts);
    seen.inside = cluster.take_seen();
    seen
}
