//! Keeps a client that sends nothing but rubbish from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// Lets so many lines through each second. What it holds back is counted, and the metrics count everything.
#[derive(Debug)]
pub(crate) struct LogLimit {
    started: Instant,
    /// The second that is counted for, since the start.
    second: AtomicU64,
    lines: AtomicU64,
    held_back: AtomicU64,
}

const LINES_PER_SECOND: u64 = 20;

impl LogLimit {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now, and how many were held back before it.
    pub(crate) fn admit(&self) -> Option<u64> {
        let now = self.started.elapsed().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_lines_a_second_and_the_rest_are_counted() {
        let limit = LogLimit::new();
        let burst = || (0..50).filter_map(|_| limit.admit()).collect::<Vec<_>>();
        assert_eq!(burst(), vec![0; 20]);
        tokio::time::advance(Duration::from_secs(1)).await;
        let next = burst();
        assert_eq!((next.len(), next[0], next[1]), (20, 30, 0));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(limit.admit(), Some(30));
        assert_eq!(limit.admit(), Some(0));
    }
}
