//! Taking a request's body in, within limits.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes};

use crate::refusal::Refusal;

/// How many bytes of bodies are in memory, all requests together.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    limit: usize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

/// How many times a body counts that does not announce its length. It is copied as it grows, and what it has
/// grown out of is not free at once.
const UNANNOUNCED: usize = 4;

/// Collects a body of at most `limit` bytes, taking its memory from `share`.
///
/// API servers announce the length of what they send, so it can be taken, or sent away, as a whole. Most reviews
/// arrive as one piece, which is then the body as it is; others are copied once, into a buffer of the length
/// announced. A body that announces nothing may be a quarter as large, and counts as four.
pub(crate) async fn collect<B>(
    mut body: Pin<&mut B>,
    limit: usize,
    share: &mut Share<'_>,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let hint = body.size_hint();
    let announced = hint
        .exact()
        .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let (limit, counts) = match announced {
        Some(_) => (limit, 1),
        None => (limit / UNANNOUNCED, UNANNOUNCED),
    };
    if announced.is_some_and(|length| length > limit) {
        return Err(Refusal::TooLarge { limit });
    }
    if !share.covers(announced.unwrap_or(0)) {
        return Err(Refusal::Overload);
    }
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::BrokenBody(error.into()))?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = first.len().max(rest.len()).saturating_add(data.len());
        if length > limit {
            return Err(Refusal::TooLarge { limit });
        }
        if !share.covers(length * counts) {
            return Err(Refusal::Overload);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve_exact(announced.unwrap_or(length));
            rest.extend_from_slice(&first);
            first = Bytes::new();
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// Reads a body to its end, or to `limit`, and keeps nothing of it; whether the end was reached.
///
/// A server that answers and closes while the client is still sending makes the client see a reset in place
/// of the answer.
pub(crate) async fn discard<B: Body<Data = Bytes>>(mut body: Pin<&mut B>, limit: usize) -> bool {
    let mut left = limit;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let read = frame.data_ref().map_or(0, Bytes::len);
        if read > left {
            return false;
        }
        left -= read;
    }
    true
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    pub(crate) fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            bytes: 0,
        }
    }
}

// === impl Share ===

impl Share<'_> {
    /// Takes more, if there is more, until it is as many bytes.
    ///
    /// A body may be as large as what is left beside it. So a few bodies without an end never take all: the more
    /// of them there are the smaller they must stay, and reviews of ordinary size get through.
    fn covers(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        let used = before.saturating_add(more);
        let left = self.budget.limit.saturating_sub(used);
        self.bytes <= left
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
