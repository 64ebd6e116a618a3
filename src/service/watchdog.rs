//! What systemd is told: ready, alive, stopping.
//!
//! "Alive" is said only when the engine has turned and the store's thread has answered since it was said
//! last, or has come further with work that keeps it from answering: a thread that hangs takes the service
//! down, and systemd starts it again. A start that salvages a database takes as long as it comes further, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use crate::engine::Heartbeat;
use crate::store::{Handle, Progress};

/// How far the store has come with long work, over all houses of the process.
#[derive(Clone, Default)]
pub(super) struct Work(Arc<Steps>);

#[derive(Default)]
struct Steps {
    done: AtomicU64,
    /// Whether a house serves, and [`feed`] speaks for it.
    serving: AtomicBool,
    /// Whether one ever has: systemd's watchdog runs since.
    served: AtomicBool,
}

impl Work {
    /// A house is being made, and nobody feeds the watchdog.
    pub(super) fn making(&self) {
        self.0.serving.store(false, Ordering::Relaxed);
    }

    /// Says that clients are served.
    pub(super) fn ready(&self) {
        self.0.serving.store(true, Ordering::Relaxed);
        self.0.served.store(true, Ordering::Relaxed);
        tell(NotifyState::Ready);
    }

    /// Where the store tells of it.
    pub(super) fn progress(&self) -> Progress {
        let work = self.clone();
        Progress::new(move || work.step())
    }

    fn step(&self) {
        self.0.done.fetch_add(1, Ordering::Relaxed);
        if self.0.serving.load(Ordering::Relaxed) {
            return;
        }
        tell(NotifyState::ExtendTimeoutUsec(STEP_MICROS));
        if self.0.served.load(Ordering::Relaxed) {
            tell(NotifyState::Watchdog);
        }
    }

    fn done(&self) -> u64 {
        self.0.done.load(Ordering::Relaxed)
    }
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
pub(super) async fn feed(heartbeat: Heartbeat, store: Handle, work: Work) {
    let Some(every) = heartbeat.every else { return std::future::pending().await };
    let mut seen = heartbeat.turns.load(Ordering::Relaxed);
    loop {
        let done = work.done();
        tokio::time::sleep(every).await;
        let turns = heartbeat.turns.load(Ordering::Relaxed);
        if turns != seen && is_alive(&store, every, &work, done).await {
            tell(NotifyState::Watchdog);
        }
        seen = turns;
    }
}

/// Whether the store's thread answers, or has come further since so much was done.
async fn is_alive(store: &Handle, limit: Duration, work: &Work, done: u64) -> bool {
    answers(store, limit).await || work.done() != done
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

/// At a start, a step of long work may take so long.
const STEP_MICROS: u32 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_comes_further_is_alive_and_one_that_hangs_is_not() {
        // Nobody serves what is asked.
        let (store, _inbox) = Handle::channel();
        let (work, limit) = (Work::default(), Duration::from_millis(5));
        work.ready();
        assert!(!is_alive(&store, limit, &work, work.done()).await);
        let done = work.done();
        work.step();
        assert!(is_alive(&store, limit, &work, done).await);
        assert!(!is_alive(&store, limit, &work, work.done()).await, "one step is one sign of life");
    }
}
