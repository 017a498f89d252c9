//! The writing half of a session: its queue, in order, for as long as somebody reads.

use super::session::{Shared, Stop};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};

/// How long the last words to a worker may take after the handle was dropped, in milliseconds.
const FLUSH_MS: u64 = 1000;

/// Ends the session for this reason, if it has none.
pub(super) fn lose(stop: &watch::Sender<Stop>, why: String) {
    stop.send_if_modified(|state| {
        let first = *state == Stop::Running;
        if first {
            *state = Stop::Lost(why);
        }
        first
    });
}

/// Writes the queue. Ends when the handle is dropped and all is written, or when the worker cannot be written to.
pub(super) async fn write_all(
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    stop: watch::Sender<Stop>,
) {
    let mut stopped = stop.subscribe();
    loop {
        let bytes = tokio::select! {
            bytes = queue.recv() => bytes,
            _ = stopped.wait_for(|state| *state != Stop::Running) => return,
        };
        let Some(bytes) = bytes else { return };
        let write = write_one(&mut write, &bytes, &queue);
        let written = tokio::select! {
            written = write => written,
            _ = stopped.wait_for(|state| *state != Stop::Running) => return,
        };
        shared.out_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        match written {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return lose(&stop, format!("the worker cannot be written to: {error}")),
        }
    }
}

/// Writes one frame for as long as it takes, but only [`FLUSH_MS`] once the handle is gone; `Ok(false)`: it took longer.
async fn write_one(write: &mut OwnedWriteHalf, bytes: &[u8], queue: &mpsc::Receiver<Vec<u8>>) -> io::Result<bool> {
    let writing = write.write_all(bytes);
    tokio::pin!(writing);
    loop {
        match tokio::time::timeout(Duration::from_millis(FLUSH_MS), &mut writing).await {
            Ok(written) => return written.map(|()| true),
            Err(_) if queue.is_closed() => return Ok(false),
            Err(_) => {}
        }
    }
}
