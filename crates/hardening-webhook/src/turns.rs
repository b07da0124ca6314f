//! Handshakes go on by turns.
//!
//! A step of a handshake computes for some tenths of a millisecond, and whoever reaches the port can have any number of
//! them computed. Were all that are ready to go on at once, a review that arrives would wait until all of them have. So each
//! step needs a turn, and the next turn is given when whatever else is ready has gone on.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::ready;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::PollSemaphore;

/// The turns of one server.
#[derive(Debug)]
pub(crate) struct Turns {
    /// At most one turn, for whoever has waited longest.
    free: Arc<Semaphore>,
    /// Told of each turn that is over.
    over: Notify,
}

// === impl Turns ===

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(1)),
            over: Notify::new(),
        }
    }

    /// Gives turns, for as long as it is waited for; without it each future gets no further than the first turn.
    pub(crate) async fn give(&self) -> Infallible {
        loop {
            self.over.notified().await;
            tokio::task::yield_now().await;
            self.free.add_permits(1);
        }
    }

    /// Completes the future, each step of it in a turn of its own.
    pub(crate) async fn take<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut free = PollSemaphore::new(Arc::clone(&self.free));
        poll_fn(|context| {
            if let Some(turn) = ready!(free.poll_acquire(context)) {
                turn.forget();
            }
            // Given back even where the step panics.
            let _turn = Turn(&self.over);
            future.as_mut().poll(context)
        })
        .await
    }
}

/// A turn that is being taken.
struct Turn<'t>(&'t Notify);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use futures::future::{FutureExt as _, join_all};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// Runs futures of so many steps each by turns, beside `reviews` that are ready all the time for as many steps; what
    /// went on, in order: `h` a step of the futures, `r` of a review.
    fn check(handshakes: &[usize], reviews: &[usize], expected: &str) {
        let seen = Rc::new(RefCell::new(String::new()));
        let steps = |count: usize, name: char| {
            let seen = Rc::clone(&seen);
            async move {
                for step in 0..count {
                    if step > 0 {
                        yield_now().await;
                    }
                    seen.borrow_mut().push(name);
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let turns = Rc::new(Turns::new());
        let tasks = LocalSet::new();
        tasks.block_on(&runtime.unwrap(), async {
            let giving = Rc::clone(&turns);
            let giving = spawn_local(async move { giving.give().await });
            let mut all = Vec::new();
            for count in handshakes {
                let (turns, steps) = (Rc::clone(&turns), steps(*count, 'h'));
                all.push(spawn_local(async move { turns.take(steps).await }));
            }
            all.extend(reviews.iter().map(|count| spawn_local(steps(*count, 'r'))));
            for ended in join_all(all).await {
                ended.unwrap();
            }
            giving.abort();
        });
        assert_eq!(*seen.borrow(), expected);
    }

    #[test]
    fn between_two_steps_of_handshakes_whatever_else_is_ready_goes_on() {
        check(&[1], &[], "h");
        check(&[1, 1, 1], &[3, 3], "hrrrrhrrh");
        check(&[2], &[2], "hrrh");
    }

    #[tokio::test]
    async fn a_step_that_panics_takes_no_turn_with_it() {
        let turns = Turns::new();
        let work = async {
            let broken = turns.take(async { panic!("a defect, for this test") });
            let ended: Result<(), _> = std::panic::AssertUnwindSafe(broken).catch_unwind().await;
            assert!(ended.is_err());
            turns.take(async { "done" }).await
        };
        tokio::select! {
            biased;
            done = work => assert_eq!(done, "done"),
            never = turns.give() => match never {},
        }
    }
}
