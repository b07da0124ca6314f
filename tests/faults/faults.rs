//! The faults. Each is a row: what is done, how it is undone, and what must hold meanwhile.
//!
//! A row that is added here is run, printed and judged like the others.

use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::cluster::Cluster;

/// Something that is done to a cluster.
pub(crate) type Step = for<'a> fn(&'a mut Cluster) -> LocalBoxFuture<'a, ()>;

/// One thing that goes wrong.
pub(crate) struct Fault {
    /// As it is called in the table and on the command line.
    pub(crate) name: &'static str,
    /// Whether it is also in the short selection.
    pub(crate) is_short: bool,
    /// Brings it about.
    pub(crate) inject: Step,
    /// Makes it good again, where that does not come by itself.
    pub(crate) heal: Step,
    /// What must hold from the injection until everything is well again.
    pub(crate) holds: Holds,
}

/// What must hold under a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    /// How many calls must be made for it to count: the fault is repeated until then. The short selection has each
    /// fault once.
    pub(crate) calls: u64,
    /// How many pods are created in a second, where the machine can.
    pub(crate) per_second: u32,
    /// How many calls may fail each time, as the mean of all times.
    pub(crate) failed: u64,
    /// How many calls may fail in any one of the times.
    pub(crate) failed_at_once: u64,
    /// How long calls may fail after the injection, whatever their number.
    pub(crate) failing_for: Duration,
    /// Whether pods may be created as their authors wrote them: where there is no webhook any more.
    pub(crate) unhardened: bool,
    /// Whether the API server itself may be away, so that it answers nothing.
    pub(crate) api_server: ApiServer,
    /// How long it may take, once healed, until every replica is ready and answers by a policy that was changed then.
    pub(crate) recovered_in: Duration,
    /// Whether containers may have been started again.
    pub(crate) restarts: bool,
}

/// Whether the API server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiServer {
    /// All the time; anything else is a failure of the suite's.
    Answers,
    /// Not all the time.
    MayBeAway,
}

const NONE: Duration = Duration::ZERO;

/// Nothing fails, nothing is missed, and nothing is started again.
const NOTHING_SEEN: Holds = Holds {
    calls: 5_000,
    per_second: 100,
    failed: 0,
    failed_at_once: 0,
    failing_for: NONE,
    unhardened: false,
    api_server: ApiServer::Answers,
    recovered_in: Duration::from_secs(120),
    restarts: false,
};

/// A replica dies without a word. What it was answering is lost, and its address goes on being one of three until the
/// kubelet has noticed, which no replica can change: each connection that the API server makes meanwhile has a chance of
/// one third to be refused. So a kill costs a call, where one is made at a time, and as many as are made at once, and
/// connect anew, where they are a crowd.
const REPLICA_DEAD: Holds = Holds {
    failed: 8,
    failed_at_once: 32,
    failing_for: Duration::from_secs(5),
    restarts: true,
    ..NOTHING_SEEN
};

/// A replica no longer answers, and calls find the others. A process that hangs is started again by its liveness.
const REPLICA_SILENT: Holds = Holds {
    failed: u64::MAX,
    failed_at_once: u64::MAX,
    failing_for: Duration::from_secs(15),
    restarts: true,
    ..NOTHING_SEEN
};

/// As [`NOTHING_SEEN`], for what is long enough when it is done once.
const ONCE: Holds = Holds {
    calls: 500,
    ..NOTHING_SEEN
};

/// The API server is away meanwhile, and no replica minds.
const API_SERVER_AWAY: Holds = Holds {
    api_server: ApiServer::MayBeAway,
    recovered_in: Duration::from_secs(10),
    ..ONCE
};

/// Nothing to make good.
const BY_ITSELF: Step = |_| Box::pin(async {});

/// Each of them, in the order in which they are run.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "rolling restart",
        is_short: true,
        inject: |cluster| Box::pin(cluster.roll()),
        heal: BY_ITSELF,
        holds: NOTHING_SEEN,
    },
    Fault {
        name: "scale 3-1-3",
        is_short: true,
        inject: |cluster| Box::pin(cluster.scale(1)),
        heal: |cluster| Box::pin(cluster.scale(3)),
        holds: NOTHING_SEEN,
    },
    Fault {
        name: "kill -9 of a replica",
        is_short: true,
        inject: |cluster| Box::pin(cluster.kill_replica()),
        heal: |cluster| Box::pin(cluster.replace_replica()),
        holds: REPLICA_DEAD,
    },
    Fault {
        name: "kill -9 of a replica, 10 calls/s",
        is_short: false,
        inject: |cluster| Box::pin(cluster.kill_replica()),
        heal: |cluster| Box::pin(cluster.replace_replica()),
        holds: Holds {
            calls: 2_000,
            per_second: 10,
            failed: 1,
            ..REPLICA_DEAD
        },
    },
    Fault {
        name: "SIGSTOP of a replica",
        is_short: true,
        inject: |cluster| Box::pin(cluster.freeze_replica()),
        heal: |cluster| Box::pin(cluster.signal_chosen("SIGCONT")),
        holds: REPLICA_SILENT,
    },
    Fault {
        name: "all that a replica sends is lost",
        is_short: false,
        inject: |cluster| Box::pin(cluster.isolate_replica()),
        heal: |cluster| Box::pin(cluster.reconnect_replica()),
        holds: REPLICA_SILENT,
    },
    Fault {
        name: "kill -9 of a manager",
        is_short: true,
        inject: |cluster| Box::pin(cluster.signal_manager("SIGKILL")),
        heal: BY_ITSELF,
        holds: Holds {
            restarts: true,
            ..ONCE
        },
    },
    Fault {
        name: "kubelet restarted",
        is_short: true,
        inject: |cluster| Box::pin(cluster.restart_kubelet()),
        heal: BY_ITSELF,
        holds: ONCE,
    },
    Fault {
        name: "API server killed and restarted",
        is_short: true,
        inject: |cluster| Box::pin(cluster.lose_api_server()),
        heal: |cluster| Box::pin(cluster.restore_api_server()),
        holds: API_SERVER_AWAY,
    },
    Fault {
        name: "etcd killed and restarted",
        is_short: true,
        inject: |cluster| Box::pin(cluster.restart_etcd()),
        heal: BY_ITSELF,
        holds: API_SERVER_AWAY,
    },
    Fault {
        name: "watch connections cut",
        is_short: true,
        inject: |cluster| Box::pin(cluster.cut_watches()),
        heal: BY_ITSELF,
        holds: Holds {
            recovered_in: Duration::from_secs(10),
            ..ONCE
        },
    },
    Fault {
        name: "watch connections black-holed for 30 s",
        is_short: false,
        inject: |cluster| Box::pin(cluster.silence_watches(Duration::from_secs(30))),
        heal: |cluster| Box::pin(cluster.heal_watches()),
        holds: Holds {
            recovered_in: Duration::from_secs(10),
            ..ONCE
        },
    },
    Fault {
        name: "leaf lives 1 min, CA 3 min, for 10 min",
        is_short: false,
        inject: |cluster| Box::pin(cluster.rotate(Duration::from_mins(10))),
        heal: |cluster| Box::pin(cluster.rotate_no_more()),
        holds: NOTHING_SEEN,
    },
    Fault {
        name: "certificate Secrets deleted",
        is_short: true,
        inject: |cluster| Box::pin(cluster.delete_certificates()),
        heal: BY_ITSELF,
        holds: NOTHING_SEEN,
    },
    Fault {
        name: "a CRD deleted and applied again",
        is_short: true,
        inject: |cluster| Box::pin(cluster.delete_namespaced_crd()),
        heal: |cluster| Box::pin(cluster.restore_namespaced_crd()),
        holds: ONCE,
    },
    Fault {
        name: "1 broken policy among 500",
        is_short: true,
        inject: |cluster| Box::pin(cluster.store_broken_policy_among(500)),
        heal: |cluster| Box::pin(cluster.delete_many_policies()),
        holds: ONCE,
    },
    Fault {
        name: "1,000 policies created at once in a namespace",
        is_short: true,
        inject: |cluster| Box::pin(cluster.create_policies(1_000)),
        heal: |cluster| Box::pin(cluster.delete_many_policies()),
        holds: ONCE,
    },
    Fault {
        name: "upgrade from the previous chart",
        is_short: true,
        inject: |cluster| Box::pin(cluster.downgrade()),
        heal: |cluster| Box::pin(cluster.upgrade()),
        holds: NOTHING_SEEN,
    },
    Fault {
        name: "uninstall under load",
        is_short: true,
        inject: |cluster| Box::pin(cluster.uninstall()),
        heal: |cluster| Box::pin(cluster.install()),
        holds: Holds {
            unhardened: true,
            restarts: true,
            recovered_in: Duration::from_secs(180),
            ..ONCE
        },
    },
    // The last, as it fills the cluster.
    Fault {
        name: "a policy changed every second, 10,000 pods",
        is_short: false,
        inject: |cluster| Box::pin(cluster.soak()),
        heal: BY_ITSELF,
        holds: Holds {
            per_second: 200,
            ..NOTHING_SEEN
        },
    },
];
