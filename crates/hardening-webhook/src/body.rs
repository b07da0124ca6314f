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

/// Collects a body of at most `limit` bytes, taking its memory from `share`.
///
/// Most reviews arrive as one piece, which is then the body as it is; others are copied once, into a buffer
/// of the size that the request announces.
pub(crate) async fn collect<B>(
    mut body: Pin<&mut B>,
    limit: usize,
    share: &mut Share<'_>,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let announced = body.size_hint();
    if announced.lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(Refusal::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::BrokenBody(error.into()))?;
        // Trailers say nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > limit.saturating_sub(first.len().max(rest.len())) {
            return Err(Refusal::TooLarge { limit });
        }
        if !share.grow(data.len()) {
            return Err(Refusal::Overload);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                let announced = usize::try_from(announced.lower()).unwrap_or(limit);
                rest.reserve_exact(announced.max(first.len() + data.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
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
    /// Takes more, if there is more.
    fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.budget.limit
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
