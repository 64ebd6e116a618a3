//! A store that could not be opened, so that the field is served all the same.
//!
//! It answers every question and keeps nothing. The broker is told at its making that there is no store:
//! it answers no publish of QoS 1 or 2, because nobody knows which sessions want it. Now and then it is
//! tried whether a start would succeed; then the service has to start afresh with it, because order and
//! reader numbers of this one mean nothing there. What the disk has not read for about a minute is gone round.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Ask, Inbox, StoreStatus};
use super::image::Health;
use super::patience::{Patience, Tries};
use super::room::{Files, Sizes};
use super::salvage::Legible;
use super::{Checked, OpenError, find, open, schema, successor};
use crate::record::{Now, Rows};

/// What the thread owns.
pub(super) struct Absent {
    pub(super) files: Files,
    pub(super) config: Checked,
    pub(super) inbox: Inbox,
    pub(super) clock: Box<dyn Fn() -> Now + Send>,
    /// Why there is no store.
    pub(super) trouble: String,
    /// Starts that were tried in vain.
    pub(super) tries: Tries,
    /// Why a start failed although the disk reads everything: for this it is not asked to do that again.
    pub(super) readable: Option<String>,
    /// Told once, when it could be opened.
    pub(super) on_available: Option<Box<dyn FnOnce() + Send>>,
}

impl Absent {
    /// Serves until it is told to close.
    pub(super) fn run(mut self) {
        self.tries.rest((self.clock)().mono);
        loop {
            let wait = self.tries.next().saturating_sub((self.clock)().mono);
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
            self.look_if_due();
        }
    }

    /// Looks whether the store can be opened, and when to look again.
    pub(super) fn look_if_due(&mut self) {
        let now = (self.clock)();
        if now.mono >= self.tries.next() {
            self.look(now.wall);
            self.tries.rest((self.clock)().mono);
        }
    }

    /// Tries whether the store can be opened now.
    fn look(&mut self, wall: u64) {
        if self.on_available.is_none() {
            return;
        }
        let found = match open::lock(&self.files.dir) {
            Ok(lock) => {
                let found = self.attempt(Sizes::of(&self.config), wall);
                drop(lock);
                found
            }
            Err(error) => {
                // No try of what the disk reads: that is not gone round for it.
                self.tries.rest_long((self.clock)().mono);
                Err(error)
            }
        };
        match found {
            Ok(()) => {
                tracing::info!("the store can be opened now");
                self.on_available.take().into_iter().for_each(|tell| tell());
            }
            Err(error) => self.trouble = format!("cannot {error}"),
        }
    }

    /// Does what a start does, and lets go of it.
    pub(super) fn attempt(&mut self, sizes: Sizes, wall: u64) -> Result<(), OpenError> {
        let rules = Arc::new(self.config.clone());
        let look = |patience| find(&self.files.with(patience), sizes, &rules, wall).map(drop);
        let Err(error) = look(Patience::Some) else { return Ok(()) };
        let is_new = self.readable.as_ref() != Some(&error.to_string());
        let is_over = self.tries.count() == Patience::None;
        if !is_over || !is_new || !matches!(error, OpenError::Unavailable { .. }) {
            return Err(error);
        }
        let health = Health::of_store(&self.files);
        if health == Health::Lost {
            return Err(error);
        }
        // It may lie in what is set apart.
        let mut found = look(Patience::None);
        if found.is_err() && health == Health::Spotted {
            let files = self.files.with(Patience::None);
            open::replace_damaged(&files, &sizes, wall, &schema::unread().into(), Legible::Not)
                .map_err(|fault| open::unavailable(&files, &fault))?;
            found = look(Patience::None);
        }
        // What is set apart still, and not read whole, waits for room on the disk.
        let is_whole = |path: &PathBuf| Health::of(&self.files, path) == Health::Whole;
        if let Err(error) = &found
            && health == Health::Whole
            && successor::paths(&self.files).iter().all(is_whole)
        {
            self.readable = Some(error.to_string());
        }
        found
    }
}
