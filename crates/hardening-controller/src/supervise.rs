//! The program's tasks: each has a name, none is left behind, and one that ends before its time ends the
//! program.

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tasks that live and end together.
#[derive(Debug)]
pub(crate) struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: Vec<(Id, &'static str)>,
    shutdown: CancellationToken,
}

/// SIGTERM and SIGINT, from now on.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Tasks {
    /// No tasks; `shutdown` will tell them to end.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self {
            set: JoinSet::new(),
            names: Vec::new(),
            shutdown,
        }
    }

    /// A task that ends in its own time after `shutdown`.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.names.push((self.set.spawn(task).id(), name));
    }

    /// A task that has nothing to finish: it is dropped at `shutdown`, once `last` is cancelled.
    pub(crate) fn spawn_until(
        &mut self,
        name: &'static str,
        last: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, async move {
            match last.run_until_cancelled(task).await {
                Some(()) if !last.is_cancelled() => bail!("it ended by itself"),
                // What it lives on may be dropped a moment before itself.
                Some(()) | None => Ok(()),
            }
        });
    }

    /// Runs until a signal, or until a task ends before its time, and then until all have ended. A second
    /// signal cuts that short.
    pub(crate) async fn run(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let mut result = Ok(());
        loop {
            tokio::select! {
                signal = signals.next() => {
                    if self.shutdown.is_cancelled() {
                        result = result.and(Err(anyhow!("{signal} again: ending without waiting")));
                        break;
                    }
                    tracing::info!(signal, "ending");
                    self.shutdown.cancel();
                }
                ended = self.set.join_next_with_id() => {
                    let Some(ended) = ended else { break };
                    let (id, ended) = match ended {
                        Ok((id, ended)) => (id, ended),
                        Err(error) => (error.id(), Err(error.into())),
                    };
                    let name = self.name(id);
                    let ended = ended.with_context(|| format!("the task {name} failed"));
                    let early = || Err(anyhow!("the task {name} ended before its time"));
                    let ended = if self.shutdown.is_cancelled() { ended } else { ended.and_then(|()| early()) };
                    if ended.is_err() {
                        // The program does not live on with a part of it missing, and nothing is worth
                        // waiting for.
                        result = ended;
                        break;
                    }
                }
            }
        }
        self.shutdown.cancel();
        self.set.shutdown().await;
        result
    }

    fn name(&self, id: Id) -> &'static str {
        self.names
            .iter()
            .find(|(known, _)| *known == id)
            .map_or("", |(_, name)| name)
    }
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::error::one_line;

    /// How the program ends with these tasks, of which one ends before its time.
    async fn ends(spawn: impl FnOnce(&mut Tasks, CancellationToken)) -> String {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("other", async { pending().await });
        spawn(&mut tasks, shutdown);
        let error = tasks.run(Signals::new().unwrap()).await.unwrap_err();
        one_line(&error)
    }

    #[tokio::test]
    async fn a_task_that_ends_before_its_time_ends_the_program_with_its_name() {
        let last = CancellationToken::new;
        assert_eq!(
            ends(|tasks, _| tasks.spawn("watch", async { Ok(()) })).await,
            "the task watch ended before its time"
        );
        assert_eq!(
            ends(|tasks, _| tasks.spawn("watch", async { Err(anyhow!("no memory")) })).await,
            "the task watch failed: no memory"
        );
        assert_eq!(
            ends(|tasks, _| tasks.spawn_until("watch", last(), async {})).await,
            "the task watch failed: it ended by itself"
        );
        let panicked =
            ends(|tasks, _| tasks.spawn("watch", async { panic!("at the disco") })).await;
        assert!(
            panicked.starts_with("the task watch failed: "),
            "{panicked}"
        );
        assert!(panicked.contains("panicked"), "{panicked}");
    }

    #[tokio::test]
    async fn tasks_that_end_after_shutdown_end_the_program_well() {
        let shutdown = CancellationToken::new();
        let last = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn_until("watch", last.clone(), pending());
        tasks.spawn_until("readiness", last.clone(), {
            let last = last.clone();
            async move { last.cancelled().await }
        });
        tasks.spawn("webhook", {
            let shutdown = shutdown.clone();
            async move {
                shutdown.cancelled().await;
                last.cancel();
                Ok(())
            }
        });
        shutdown.cancel();
        tasks.run(Signals::new().unwrap()).await.unwrap();
    }
}
