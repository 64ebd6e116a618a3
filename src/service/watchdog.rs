//! What systemd is told: ready, alive, stopping.
//!
//! "Alive" is said only when the engine has turned and the store's thread has answered since it was said
//! last: a thread that hangs takes the service down, and systemd starts it again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use crate::engine::Heartbeat;
use crate::store::Handle;

/// Says that clients are served.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// Says that the end has begun.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// The engine's heartbeat, which beats by itself only where a watchdog listens.
pub(super) fn heartbeat() -> Heartbeat {
    Heartbeat { every: sd_notify::watchdog_enabled().map(|limit| limit / BEATS), ..Heartbeat::default() }
}

/// Says "alive" as long as all threads are; does nothing where nobody listens.
pub(super) async fn feed(heartbeat: Heartbeat, store: Handle) {
    let Some(every) = heartbeat.every else { return std::future::pending().await };
    let mut seen = heartbeat.turns.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(every).await;
        let turns = heartbeat.turns.load(Ordering::Relaxed);
        if turns != seen && answers(&store, every).await {
            tell(NotifyState::Watchdog);
        }
        seen = turns;
    }
}

async fn answers(store: &Handle, limit: Duration) -> bool {
    let (reply, answer) = oneshot::channel();
    store.status(move |_| {
        // Whoever asked may have given up.
        let _ = reply.send(());
    });
    matches!(tokio::time::timeout(limit, answer).await, Ok(Ok(())))
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

/// Beats within the watchdog's limit.
const BEATS: u32 = 4;
