//! The store without its thread: a test takes its steps, one by one.
//!
//! All of it is real, down to SQLite and its files. What is asked is served when the test says so, and a
//! commit takes place in a turn or not at all. Dropped in the middle, it is a process that died.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::record::Restored;
use crate::store::handle::Handle;
use crate::store::room::{Files, Sizes};
use crate::store::{Begun, Config, Surroundings, begin, open};

/// A store that stands still between two calls.
pub(crate) struct Stepped {
    worker: Worker,
    /// Rows that the store itself has ended in the open batch, as far as they were told.
    told: BTreeSet<(ReaderId, Seq)>,
    /// The data directory is its own.
    _lock: open::Lock,
}

/// How large things are, and how soon a commit is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) segment_rows: u64,
    pub(crate) copy_below: u64,
    pub(crate) max_size: u64,
    pub(crate) commit_messages: u32,
}

/// Rows that the store has ended by itself, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub(crate) reader: ReaderId,
    pub(crate) seqs: Vec<Seq>,
    pub(crate) reason: DropReason,
}

impl Stepped {
    /// Opens it; also what it had and the readers of the routes.
    pub(crate) fn open(
        dir: &Path,
        scale: Scale,
        routes: &[String],
        surroundings: Surroundings,
    ) -> (Stepped, Handle, Restored, Vec<ReaderId>) {
        // The machine's own disk is not under test.
        let config = Config { min_free_disk: "0B".into(), ..Config::default() };
        let mut config = config.check().expect("the defaults are valid");
        (config.max_size, config.commit_messages) = (scale.max_size, scale.commit_messages);
        // What this thread has written is the business of many runs.
        config.flash_budget = None;
        let sizes = Sizes {
            segment_rows: scale.segment_rows,
            segment_bytes: 25_000,
            copy_below: scale.copy_below,
            checkpoint_frames: 16,
            reserve: 16_384,
        };
        let lock = open::lock(dir).unwrap_or_else(|error| panic!("it does not start: cannot {error}"));
        let begun = begin(Files::within(dir), &config, sizes, routes, surroundings);
        let Begun { worker, handle, restored, routes, put_aside, .. } =
            begun.unwrap_or_else(|error| panic!("it does not start: cannot {error}"));
        assert_eq!(put_aside, None, "a sound database was put aside");
        let store = Stepped { worker, told: BTreeSet::new(), _lock: lock };
        (store, handle, restored, routes)
    }

    /// What was asked since the last call, in order.
    pub(crate) fn asks(&self) -> Vec<Ask> {
        self.worker.inbox.take(Some(Duration::ZERO))
    }

    /// Serves one of them.
    pub(crate) fn serve(&mut self, ask: Ask) -> Vec<GivenUp> {
        assert!(self.worker.serve(ask) == Course::On, "only a test closes it");
        self.given_up()
    }

    /// Commits, if that is due.
    pub(crate) fn turn(&mut self) -> Vec<GivenUp> {
        self.worker.commit_if_due();
        self.given_up()
    }

    /// Orders that are not committed.
    pub(crate) fn waiting(&self) -> usize {
        self.worker.batch.len()
    }

    /// Whether it waits after a failure.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.worker.recovery.retry_at.is_some()
    }

    /// The conservation lines, as they are on disk.
    pub(crate) fn lines(&mut self) -> BTreeMap<ReaderId, ReaderStatus> {
        let mut status = StoreStatus::default();
        self.worker.fill(&mut status).expect("a sound database is read");
        status.readers
    }

    /// Ends it in good order; what it has not committed by then is lost.
    pub(crate) fn close(self) -> usize {
        let mut worker = self.worker;
        worker.recovery.retry_at = None;
        worker.commit();
        let left = worker.batch.len();
        worker.close();
        left
    }

    fn given_up(&mut self) -> Vec<GivenUp> {
        let mut found = Vec::new();
        for order in self.worker.batch.first(usize::MAX) {
            let Order::End { reader, seqs, fate: Fate::Dropped(reason) } = order else { continue };
            let own = matches!(reason, DropReason::Expired | DropReason::Damaged);
            if own && seqs.first().is_some_and(|first| self.told.insert((*reader, *first))) {
                found.push(GivenUp { reader: *reader, seqs: seqs.clone(), reason: *reason });
            }
        }
        found
    }
}
