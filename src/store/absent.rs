//! A store that could not be opened, so that the field is served all the same.
//!
//! It answers every question and keeps nothing. The broker is told at its making that there is no store:
//! it answers no publish of QoS 1 or 2, because nobody knows which sessions want it. Now and then it is
//! tried whether the store can be opened; then the service has to start afresh with it, because order and
//! reader numbers of this one mean nothing there.

use std::time::Duration;

use super::handle::{Ask, Inbox, StoreStatus};
use super::room::{Files, Sizes};
use super::{Checked, open};
use crate::record::{Now, Rows};

/// What the thread owns.
pub(super) struct Absent {
    pub(super) files: Files,
    pub(super) config: Checked,
    pub(super) inbox: Inbox,
    pub(super) clock: Box<dyn Fn() -> Now + Send>,
    /// Why there is no store.
    pub(super) trouble: String,
    /// Told once, when it could be opened.
    pub(super) on_available: Option<Box<dyn FnOnce() + Send>>,
}

impl Absent {
    /// Serves until it is told to close.
    pub(super) fn run(mut self) {
        let mut next = (self.clock)().mono + RETRY_MILLIS;
        loop {
            let wait = next.saturating_sub((self.clock)().mono);
            for ask in self.inbox.take(self.on_available.is_some().then(|| Duration::from_millis(wait))) {
                match ask {
                    Ask::Writes { .. } | Ask::Settle { .. } | Ask::Drop { .. } => {}
                    Ask::Read { reader, after, reply, .. } => {
                        reply(Rows { reader, rows: Vec::new(), through: after, newest: after, left: 0 });
                    }
                    Ask::Status { reply } => reply(StoreStatus {
                        max_size: self.config.max_size,
                        trouble: Some(self.trouble.clone()),
                        ..StoreStatus::default()
                    }),
                    Ask::Close => return,
                }
            }
            let now = (self.clock)();
            if now.mono >= next {
                next = now.mono + RETRY_MILLIS;
                self.look(now.wall);
            }
        }
    }

    /// Tries whether the store can be opened now.
    fn look(&mut self, wall: u64) {
        if self.on_available.is_none() {
            return;
        }
        let sizes = Sizes::of(&self.config);
        let found = open::lock(&self.files.dir).and_then(|lock| {
            let database = open::database(&self.files, &sizes, wall)?;
            drop((database, lock));
            Ok(())
        });
        match found {
            Ok(()) => {
                tracing::info!("the store can be opened now");
                self.on_available.take().into_iter().for_each(|tell| tell());
            }
            Err(error) => self.trouble = format!("cannot {error}"),
        }
    }
}

/// How often it is tried.
const RETRY_MILLIS: u64 = 5_000;
