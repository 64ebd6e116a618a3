//! How other threads speak to the store.
//!
//! A [`Handle`] only queues and never waits: the broker's own limit bounds what can be queued (4 MB or
//! 8,192 messages that are not yet committed), readers have one question open each. Replies run on the
//! store's thread, so they must only hand the answer on. What routes tell of their rows is counted until a
//! commit holds it: so much would be sent again after a crash, and at its limit they send no more.

use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::record::{DropReason, Full, Portion, ReaderId, ReaderStatus, Rows, Seq, Survey, Write};

/// A question or an order to the store.
pub enum Ask {
    /// Apply these writes in order; the broker's stream, counted for tickets.
    Writes {
        /// In order.
        batch: Vec<Write>,
        /// Whether to commit as soon as possible.
        hurry: bool,
    },
    /// Rows of a reader, committed and not settled, in order.
    Read {
        /// Whose.
        reader: ReaderId,
        /// After this one.
        after: Seq,
        /// How much at most.
        limit: Portion,
        /// Takes the answer.
        reply: Box<dyn FnOnce(Rows) + Send>,
    },
    /// A route's messages have arrived upstream, in any order (lazy).
    Settle {
        /// Whose.
        reader: ReaderId,
        /// Which.
        seqs: Vec<Seq>,
    },
    /// A route gives messages up (lazy).
    Drop {
        /// Whose.
        reader: ReaderId,
        /// Which.
        seqs: Vec<Seq>,
        /// Why.
        reason: DropReason,
    },
    /// How the store does.
    Status {
        /// Takes the answer.
        reply: Box<dyn FnOnce(StoreStatus) + Send>,
    },
    /// Commit what is there and end the thread.
    Close,
}

/// A way to the store, for any thread.
#[derive(Clone)]
pub struct Handle {
    queue: Arc<Queue>,
    committed: watch::Receiver<Seq>,
}

/// The store's end of the queue.
pub struct Inbox {
    queue: Arc<Queue>,
    committed: watch::Sender<Seq>,
}

#[derive(Default)]
struct Queue {
    asks: Mutex<Vec<Ask>>,
    filled: Condvar,
    /// Memory of a list that was served, for the next one.
    spare: Mutex<Vec<Write>>,
    ends: Mutex<Ends>,
}

/// Rows that have ended, and of which no commit knows.
#[derive(Default)]
struct Ends {
    by_reader: BTreeMap<ReaderId, usize>,
    /// Whether the store cannot commit.
    halted: bool,
}

impl Handle {
    /// A handle and the end that the store (or a test in its place) serves.
    pub fn channel() -> (Handle, Inbox) {
        let queue = Arc::new(Queue::default());
        let (sender, committed) = watch::channel(Seq(0));
        (Handle { queue: queue.clone(), committed }, Inbox { queue, committed: sender })
    }

    /// An empty list for writes, in memory that was used before if there is some.
    pub fn list(&self) -> Vec<Write> {
        mem::take(&mut *self.queue.spare())
    }

    /// Queues writes.
    pub fn write(&self, batch: Vec<Write>, hurry: bool) {
        self.queue.push(Ask::Writes { batch, hurry });
    }

    /// Reads a reader's rows.
    pub fn read(
        &self,
        reader: ReaderId,
        after: Seq,
        limit: impl Into<Portion>,
        reply: impl FnOnce(Rows) + Send + 'static,
    ) {
        self.queue.push(Ask::Read { reader, after, limit: limit.into(), reply: Box::new(reply) });
    }

    /// Marks a route's messages as arrived.
    pub fn settle(&self, reader: ReaderId, seqs: Vec<Seq>) {
        self.queue.ended(reader, seqs.len());
        self.queue.push(Ask::Settle { reader, seqs });
    }

    /// Gives a route's messages up.
    pub fn drop_rows(&self, reader: ReaderId, seqs: Vec<Seq>, reason: DropReason) {
        self.queue.ended(reader, seqs.len());
        self.queue.push(Ask::Drop { reader, seqs, reason });
    }

    /// How many more rows of a route may end before a commit holds some of those that have. None while the
    /// store cannot commit and has not written all: what a crash repeats would grow, and grow older.
    pub fn room_for_ends(&self, reader: ReaderId) -> usize {
        let ends = self.queue.ends();
        match ends.by_reader.get(&reader) {
            Some(_) if ends.halted => 0,
            unwritten => ENDS_MAX.saturating_sub(unwritten.copied().unwrap_or(0)),
        }
    }

    /// Asks how the store does.
    pub fn status(&self, reply: impl FnOnce(StoreStatus) + Send + 'static) {
        self.queue.push(Ask::Status { reply: Box::new(reply) });
    }

    /// Asks the store to commit and end.
    pub fn close(&self) {
        self.queue.push(Ask::Close);
    }

    /// The newest committed order number; changes with every commit that holds messages.
    pub fn committed(&self) -> watch::Receiver<Seq> {
        self.committed.clone()
    }
}

impl Inbox {
    /// Takes what was asked, in order, waiting at most this long for something (`None`: for ever).
    pub fn take(&self, wait: Option<Duration>) -> Vec<Ask> {
        let asks = self.queue.asks.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = |asks: &mut Vec<Ask>| asks.is_empty();
        let mut asks = match wait {
            Some(wait) => {
                self.queue
                    .filled
                    .wait_timeout_while(asks, wait, empty)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self.queue.filled.wait_while(asks, empty).unwrap_or_else(PoisonError::into_inner),
        };
        std::mem::take(&mut *asks)
    }

    /// Keeps the memory of a list that was served, unless it is much.
    pub(super) fn give_back(&self, mut list: Vec<Write>) {
        list.clear();
        if (1..=LIST_KEPT_MAX).contains(&list.capacity()) {
            *self.queue.spare() = list;
        }
    }

    /// Rows have ended.
    pub fn ended(&self, reader: ReaderId, rows: usize) {
        self.queue.ended(reader, rows);
    }

    /// Whether so many rows have ended that a commit must hold some before more do.
    pub(super) fn has_no_room_for_ends(&self, reader: ReaderId) -> bool {
        self.queue.ends().by_reader.get(&reader).is_some_and(|unwritten| *unwritten >= ENDS_MAX)
    }

    /// A commit holds so many rows that have ended.
    pub fn wrote(&self, ends: &BTreeMap<ReaderId, usize>) {
        let mut unwritten = self.queue.ends();
        for (reader, rows) in ends {
            let Some(left) = unwritten.by_reader.get_mut(reader) else { continue };
            *left = left.saturating_sub(*rows);
            if *left == 0 {
                unwritten.by_reader.remove(reader);
            }
        }
    }

    /// The store cannot commit.
    pub fn halt(&self) {
        self.queue.ends().halted = true;
    }

    /// The store commits, and this is the newest committed order number.
    pub fn go_on(&self, newest: Seq) {
        self.queue.ends().halted = false;
        self.announce(newest);
    }

    /// Announces the newest committed order number.
    pub fn announce(&self, newest: Seq) {
        self.committed.send_replace(newest);
    }
}

impl Queue {
    fn push(&self, ask: Ask) {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).push(ask);
        self.filled.notify_one();
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Write>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, reader: ReaderId, rows: usize) {
        if rows > 0 {
            *self.ends().by_reader.entry(reader).or_default() += rows;
        }
    }
}

/// Places of a list of writes whose memory is used again.
const LIST_KEPT_MAX: usize = 1_024;

/// So many rows of a route may have ended without a commit that holds it.
pub(super) const ENDS_MAX: usize = 1_000;

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreStatus {
    /// What counts in `max_size`, in bytes: pages in use, the WAL, and segments in files that are set apart.
    pub size: u64,
    /// `max_size`.
    pub max_size: u64,
    /// Bytes of damaged databases that were put aside; they count in no limit.
    pub put_aside: u64,
    /// The newest of them.
    pub put_aside_as: Option<PathBuf>,
    /// Commits since the start.
    pub commits: u64,
    /// Bytes written to disk since the start.
    pub written: u64,
    /// Why it does not commit, if so.
    pub trouble: Option<String>,
    /// What the operator should know although all goes on.
    pub warning: Option<String>,
    /// Who takes nothing more for now.
    pub full: Full,
    /// Routes and sessions by their reader.
    pub readers: BTreeMap<ReaderId, ReaderStatus>,
    /// Routes that the configuration names no more: what waited for them is purged.
    pub gone: BTreeMap<ReaderId, ReaderStatus>,
    /// Sessions that are gone, their lines added up: what still waited for them is purged.
    pub past: ReaderStatus,
}

impl StoreStatus {
    /// What `$SYS` tells of it.
    pub fn survey(self) -> Survey {
        let StoreStatus { size, max_size, full, readers, gone, .. } = self;
        let routes = readers.into_iter().filter(|(_, reader)| reader.route).chain(gone).collect();
        Survey { size, max_size, is_full: full.store, routes, ..Survey::default() }
    }
}
