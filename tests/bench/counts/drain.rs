//! Rows of a route, drained: what the store's thread does for each of those that are read and settled.
//!
//! What waits is put there by a process of its own, of which nothing is counted. More waits than is drained, whether
//! that is little or much. Nor is the store closed: what that takes is no part of a drain.

use std::sync::mpsc;

use tidegate::record::{Portion, Seq};

use crate::TIMES;
use crate::append::{close, fill, open_here};

/// Leaves so many rows in the store.
pub(crate) fn wait(rows: usize) {
    let (store, commits) = open_here(10_000);
    fill(&store, &commits, rows, 10_000);
    close(store);
}

/// Reads rows as a route does, page by page, and settles them as they arrive.
pub(crate) fn drain() {
    let (store, commits) = open_here(1_000);
    let reader = store.routes[0];
    let (reply, pages) = mpsc::channel();
    let read = |after, rows| {
        let reply = reply.clone();
        let most = Portion { rows, bytes: 256 * 1024 };
        store.handle.read(reader, after, most, move |rows| reply.send(rows).unwrap());
        pages.recv().unwrap()
    };
    let mut after = Seq(0);
    for _ in 0..TIMES / 250 {
        let page = read(after, 250);
        for some in page.rows.chunks(50) {
            store.handle.settle(reader, some.iter().map(|row| row.seq).collect());
        }
        after = page.through;
    }
    assert_eq!(after, Seq(TIMES as u64));
    // A thousand make a commit.
    for _ in 0..TIMES / 1_000 {
        commits.recv().unwrap();
    }
    // When it answers this, the thread is through with the last of them.
    read(after, 0);
    std::process::exit(0);
}
