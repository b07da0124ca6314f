//! One fault after another, each under load.

use std::time::{Duration, Instant};

use crate::{
    Selection,
    cluster::Cluster,
    faults::{FAULTS, Fault},
    loader::{Counts, Loader},
    report::{Direct, Report, Seen, failing_for},
};

/// Installs the product, and does to it whatever was selected.
pub(crate) async fn run(selection: &Selection) -> Report {
    let mut report = Report::default();
    let mut cluster = Cluster::start().await;
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
    let loader = Loader::start(cluster.client(), fault.holds.per_second);
    let restarts = cluster.restarts().await;
    let mut seen = Seen {
        times: 0,
        counts: Counts::default(),
        failing_for: Duration::ZERO,
        recovered_in: Duration::ZERO,
        restarts: 0,
        direct: Direct::default(),
        memory: 0,
    };
    loop {
        let injected = Instant::now();
        (fault.inject)(cluster).await;
        (fault.heal)(cluster).await;
        let healed = Instant::now();
        cluster.until_whole().await;
        seen.times += 1;
        seen.recovered_in = seen.recovered_in.max(healed.elapsed());
        seen.counts = loader.counts();
        seen.failing_for = seen.failing_for.max(failing_for(injected, &seen.counts));
        seen.memory = seen.memory.max(cluster.memory());
        if is_short || seen.counts.calls >= fault.holds.calls {
            break;
        }
    }
    seen.restarts = cluster.restarts().await.saturating_sub(restarts);
    seen.direct = cluster.take_direct();
    seen
}
