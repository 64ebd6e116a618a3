//! What a start and a drain read, by the kernel's count of bytes, whatever the backlog.
//!
//! Bytes are counted, not seconds. Both sizes end in an open segment of as many rows, since a start reads
//! that one whole and no other.

#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

use super::*;

/// Rows in the open segment of every store here.
const OPEN_ROWS: u64 = 1_000;
const SEGMENT_ROWS: u64 = 4_096;

#[test]
fn a_start_reads_as_much_with_few_rows_as_with_many() {
    let (few, many) = (started_after(0), started_after(48));
    println!("bytes read at a start: {few} with {OPEN_ROWS} rows, {many} with 48 segments more");
    // Of each segment a start reads its header and its place in the schema: a few hundred bytes, where its
    // rows are more than half a million.
    assert!(many <= few + 48 * 512, "{many} bytes with 48 segments more than {few}");
}

#[test]
fn a_drain_reads_each_row_once_however_many_wait() {
    let (few, many) = (drained_of(12_000), drained_of(120_000));
    println!("bytes read for each row drained: {few} of 12,000, {many} of 120,000");
    // A row takes some 150 bytes of a page; its page is read when it is drained, and again when its
    // segment is dropped.
    assert!(many <= 350, "{many} bytes for each row");
    assert!(many * 10 <= few * 11, "{many} bytes for each of 120,000 rows, {few} for each of 12,000");
}

/// Bytes read by a start on this many closed segments and an open one.
fn started_after(segments: u64) -> u64 {
    let trial = filled(segments * SEGMENT_ROWS + OPEN_ROWS);
    let terms = trial.close();
    let before = read_by_this_thread();
    let trial = terms.open();
    let bytes = read_by_this_thread() - before;
    assert_eq!(trial.assert_conserved().readers[&trial.route()].queued, segments * SEGMENT_ROWS + OPEN_ROWS);
    bytes
}

/// Bytes that the store's thread reads for each of the first rows of so many, read and settled as a bridge does.
fn drained_of(queued: u64) -> u64 {
    const DRAINED: u64 = 12_000;
    const PAGE: u64 = 250;
    let trial = filled(queued).close().open();
    let route = trial.route();
    let before = read_by_the_store(&trial);
    let mut after = 0;
    while after < DRAINED {
        let rows = trial.read(route, after, PAGE as u32).rows;
        let seqs: Vec<Seq> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (after + 1..=after + PAGE).map(Seq).collect::<Vec<_>>());
        after += PAGE;
        trial.opened.handle.settle(route, seqs);
    }
    // A thousand settles make a commit, so these are all behind one.
    let bytes = read_by_the_store(&trial) - before;
    assert_eq!(trial.assert_conserved().readers[&route].delivered, DRAINED);
    bytes / DRAINED
}

/// A store whose route has this many messages of 100 bytes.
fn filled(rows: u64) -> Trial {
    let mut trial = Terms::default().open();
    let route = trial.route();
    for first in (1..=rows).step_by(1_000) {
        trial.commit((first..=rows.min(first + 999)).map(|seq| sized(seq, 100, &[route])).collect());
    }
    trial
}

fn read_by_the_store(trial: &Trial) -> u64 {
    let (sender, receiver) = channel();
    // The reply runs on the store's thread.
    trial.opened.handle.status(move |_| sender.send(read_by_this_thread()).unwrap_or_default());
    receiver.recv_timeout(PATIENCE).expect("the store answers")
}

/// Bytes that the calling thread has read so far, wherever they came from.
fn read_by_this_thread() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let figure = text.lines().find_map(|line| line.strip_prefix("rchar:")).unwrap();
    figure.trim().parse().unwrap()
}
