//! What a reader costs, and what it pays for: its own rows, not its neighbours' and not what is retained.
//!
//! Bounds in bytes judge a reader by what it wants itself; who wants little does not lose it because
//! others want much; what is on its way to upstream is not taken back.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::record::{DropReason, Keep};

/// What a message of [`sized`] weighs in a limit.
fn weight(bytes: usize) -> u64 {
    let Write::Message { message, .. } = sized(1, bytes, &[]) else { panic!("a message") };
    message.weight() as u64
}

fn dropped(trial: &Trial, reader: ReaderId) -> u64 {
    trial.assert_conserved().readers[&reader].dropped.values().sum()
}

fn retained(seq: u64, bytes: usize) -> Write {
    let mut message = Message::clone(&message(seq, &format!("state/{seq}")));
    message.payload = vec![b'r'; bytes].into();
    let message = Arc::new(message);
    Write::Message { seq: Seq(seq), message, audience: Vec::new().into(), retained: true, inward: None }
}

#[test]
fn a_reader_s_bytes_are_its_own_whatever_stands_between_them() {
    let bounds = Bounds { max_bytes: Some(400 * weight(10)), ..Bounds::default() };
    let terms = Terms { bounds: vec![("up", bounds)], ..Terms::default() };
    let mut trial = terms.open();
    let (up, light, heavy) = (trial.route(), ReaderId(8), ReaderId(9));
    trial.commit(vec![session(light), session(heavy)]);
    // More than one segment's worth, so that some are closed and one is open.
    for seq in (1..=600).step_by(2) {
        trial.commit(vec![sized(seq, 10, &[up, light]), sized(seq + 1, 20_000, &[heavy])]);
    }
    assert_eq!(trial.assert_conserved().readers[&up].queued, 300, "all fit many times");
    trial.commit((1..=50).map(|at| Write::Settled { reader: light, seq: Seq(at * 2 - 1) }).collect());
    for terms in [trial.killed(), trial.close()] {
        let again = Terms { bounds: vec![("up", bounds)], ..terms }.open();
        let bytes: Vec<u64> =
            again.opened.restored.sessions.iter().map(|session| session.queued_bytes).collect();
        assert_eq!(bytes, [250 * weight(10), 300 * weight(20_000)]);
        assert_eq!(dropped(&again, up), 0);
    }
}

#[test]
fn rows_that_ended_before_their_segment_did_make_the_others_no_lighter() {
    let mut trial = Terms::default().open();
    let (light, heavy) = (ReaderId(8), ReaderId(9));
    trial.commit(vec![session(light), session(heavy)]);
    trial.commit((1..=40).map(|seq| sized(seq, 10, &[light])).collect());
    trial.commit((1..=30).map(|seq| Write::Settled { reader: light, seq: Seq(seq) }).collect());
    // More than one segment's worth, so that the first is closed.
    for seq in 41..=280 {
        trial.commit(vec![sized(seq, 20_000, &[heavy])]);
    }
    let again = trial.killed().open();
    let bytes: Vec<u64> = again.opened.restored.sessions.iter().map(|session| session.queued_bytes).collect();
    assert_eq!(bytes, [10 * weight(10), 240 * weight(20_000)]);
}

#[test]
fn who_wants_few_rows_of_many_keeps_them_while_the_others_fill_the_store() {
    let config = Config { min_free_disk: "0B".into(), max_size: "1MB".into(), ..Config::default() };
    let mut trial = Terms { config, ..Terms::default() }.open();
    let (up, sparse) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(sparse)]);
    for start in (1..=3_000).step_by(10) {
        let row = |seq: u64| if seq % 20 == 1 { vec![up, sparse] } else { vec![up] };
        trial.commit((start..start + 10).map(|seq| sized(seq, 1_000, &row(seq))).collect());
        trial.opened.handle.settle(up, (start..start + 10).map(Seq).collect());
    }
    assert_eq!(dropped(&trial, sparse), 0);
    assert_eq!(trial.wanted(sparse), (1..=3_000).step_by(20).collect::<Vec<u64>>());
    assert!(trial.status().size <= 1_150_000, "{}", trial.status().size);
}

#[test]
fn what_is_retained_beyond_the_size_does_not_cost_every_queue_all_it_has() {
    let config = Config { min_free_disk: "0B".into(), max_size: "1MB".into(), ..Config::default() };
    let mut trial = Terms { config, ..Terms::default() }.open();
    let up = trial.route();
    trial.commit((1..=20).map(|seq| sized(seq, 100, &[up])).collect());
    for seq in 21..=60 {
        trial.commit(vec![retained(seq, 30_000)]);
    }
    assert!(trial.status().size > 1_200_000, "too much is retained, and nothing here can change that");
    trial.commit((61..=80).map(|seq| sized(seq, 100, &[up])).collect());
    assert_eq!(trial.wanted(up), (1..=20).chain(61..=80).collect::<Vec<u64>>());
    // But the queue does not grow without end for it.
    for seq in 81..=400 {
        trial.commit(vec![sized(seq, 4_000, &[up])]);
    }
    assert!(trial.status().size < 2_000_000, "{}", trial.status().size);
    assert!(trial.assert_conserved().readers[&up].dropped[&DropReason::StoreFull] > 0);
}

#[test]
fn what_was_handed_out_is_not_taken_back_for_a_bound() {
    let bounds = Bounds { max_messages: Some(5), ..Bounds::default() };
    let mut trial = Terms { bounds: vec![("up", bounds)], ..Terms::default() }.open();
    let up = trial.route();
    trial.commit((1..=5).map(|seq| put(seq, &[up])).collect());
    assert_eq!(trial.read(up, 0, 3).rows.len(), 3);
    trial.commit((6..=20).map(|seq| put(seq, &[up])).collect());
    // Three are on their way, and five wait behind them.
    assert_eq!(dropped(&trial, up), 12);
    trial.opened.handle.settle(up, vec![Seq(1), Seq(2)]);
    trial.opened.handle.drop_rows(up, vec![Seq(3)], DropReason::Refused);
    trial.commit(vec![put(21, &[up])]);
    let line = trial.assert_conserved().readers[&up].clone();
    assert_eq!((line.delivered, line.queued), (2, 5));
    assert_eq!(line.dropped[&DropReason::QueueFull], 13);
    // Who begins anew has nothing of what it was given before.
    assert_eq!(trial.read(up, 0, 9).rows.len(), 5);
    assert_eq!(trial.read(up, 0, 1).rows.len(), 1);
    trial.commit((22..=24).map(|seq| put(seq, &[up])).collect());
    assert_eq!(trial.wanted(up), [17, 20, 21, 22, 23, 24]);
}

#[test]
fn what_was_handed_out_is_so_after_a_commit_that_failed() {
    let fails = Arc::new(AtomicBool::new(false));
    let switch = fails.clone();
    let bounds = Bounds { max_messages: Some(5), keep: Keep::Latest, ..Bounds::default() };
    let mut trial = Terms {
        bounds: vec![("up", bounds)],
        gate: Some(Box::new(move |stage| match stage {
            Stage::BeforeSync if switch.swap(false, Ordering::SeqCst) => {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        })),
        ..Terms::default()
    }
    .open();
    let up = trial.route();
    trial.commit(vec![put(1, &[up])]);
    assert_eq!(trial.read(up, 0, 1).rows.len(), 1);
    // The second takes the place of the first, which ends twice: in the commit that fails, and in the next.
    fails.store(true, Ordering::SeqCst);
    trial.commit(vec![Write::DropOldest { reader: up, after: Seq(0), count: 1 }, put(2, &[up])]);
    assert!(!fails.load(Ordering::SeqCst));
    let line = trial.assert_conserved().readers[&up].clone();
    assert_eq!(line.dropped, [(DropReason::Superseded, 1)].into());
}
