//! Rows of a route, appended to the log: what the store's thread does for each of them.
//!
//! The thread is counted from its start to its end, here where nobody else starts one. What the kernel does for a
//! sync is not counted. Time stands still, so that a commit is due when its rows are there, and at no other time.

use std::path::Path;
use std::sync::mpsc;

use tidegate::codec::QoS;
use tidegate::record::{Identifiers, Now, ReaderId, Seq, Ticket, Want, Write};
use tidegate::store::{Config, Opened, Progress, Surroundings, open};

use crate::TIMES;

/// Appends so many rows a commit.
pub(crate) fn append(rows_a_commit: usize) {
    let (store, commits) = open_here(rows_a_commit);
    fill(&store, &commits, TIMES, rows_a_commit);
    close(store);
}

/// A store in the working directory, and what tells of its commits.
pub(crate) fn open_here(commit_messages: usize) -> (Opened, mpsc::Receiver<Ticket>) {
    let (on_commit, commits) = mpsc::channel();
    let surroundings = Surroundings {
        resume: Box::new(|_| ()),
        clock: Box::new(|| Now::steady(1_000, 1_800_000_000_000)),
        on_commit: Box::new(move |ticket: Ticket| on_commit.send(ticket).unwrap()),
        on_full: Box::new(|_| ()),
        progress: Progress::default(),
        gate: None,
    };
    let config = Config {
        commit_messages: u32::try_from(commit_messages).unwrap(),
        commit_bytes: "4MB".into(),
        max_size: "4GB".into(),
        flash_budget: "none".into(),
        min_free_disk: "0B".into(),
        ..Config::default()
    };
    let opened = open(Path::new("."), &config.check().unwrap(), &["cloud".into()], surroundings).unwrap();
    (opened, commits)
}

/// So many rows, each of them committed.
pub(crate) fn fill(store: &Opened, commits: &mpsc::Receiver<Ticket>, rows: usize, rows_a_commit: usize) {
    for commit in 0..rows / rows_a_commit {
        let first = commit * rows_a_commit;
        let rows = (first..first + rows_a_commit).map(|row| self::row(row as u64 + 1, store.routes[0]));
        store.handle.write(rows.collect(), false);
        assert_eq!(commits.recv().unwrap(), Ticket((first + rows_a_commit) as u64));
    }
}

/// Returns once the thread has ended.
pub(crate) fn close(store: Opened) {
    store.handle.close();
    store.thread.join().unwrap();
}

fn row(seq: u64, reader: ReaderId) -> Write {
    let want =
        Want { reader, qos: QoS::AtLeastOnce, retain: false, subscription_ids: Identifiers::default() };
    Write::Message {
        seq: Seq(seq),
        message: crate::message(),
        audience: [want].into(),
        retained: false,
        inward: None,
    }
}
