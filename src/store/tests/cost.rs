//! What a message costs in bytes written, by the kernel's count for the store's thread.
//!
//! Bytes and rows are counted, not seconds.

#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

use super::*;

/// Bytes written for each message of 100 bytes, inserted for these readers, settled and removed.
fn bytes_a_message(per_commit: u64, messages: u64, sessions: u32) -> u64 {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut trial = Terms { dir, ..Terms::default() }.open();
    let route = trial.route();
    let absent: Vec<ReaderId> = (100..100 + sessions).map(ReaderId).collect();
    trial.commit(absent.iter().copied().map(session).collect());
    let readers: Vec<ReaderId> = [route].into_iter().chain(absent).collect();
    let before = trial.status();
    for start in (1..=messages).step_by(per_commit as usize) {
        let seqs = start..start + per_commit;
        trial.write(seqs.clone().map(|seq| sized(seq, &readers)).collect());
        trial.opened.handle.write(Vec::new(), true);
        trial.wait_committed();
        trial.opened.handle.settle(route, seqs.map(Seq).collect());
    }
    let after = trial.assert_conserved();
    let bytes = (after.written - before.written) / messages;
    let commits = after.commits - before.commits;
    println!("{per_commit} a commit, {sessions} sessions: {bytes} bytes a message, {commits} commits");
    bytes
}

fn sized(seq: u64, readers: &[ReaderId]) -> Write {
    let mut message = Message::clone(&message(seq, "sensors/one/temperature"));
    message.payload = vec![b'x'; 100].into();
    let audience: Vec<Want> = readers.iter().copied().map(want).collect();
    Write::Message {
        seq: Seq(seq),
        message: Arc::new(message),
        audience: audience.into(),
        retained: false,
        inward: None,
    }
}

#[test]
fn a_message_for_a_route_costs_little_flash() {
    let ten = bytes_a_message(10, 8_000, 0);
    let hundred = bytes_a_message(100, 20_000, 0);
    assert!(ten <= 2_400, "{ten} at ten a commit");
    assert!(hundred <= 700, "{hundred} at a hundred a commit");
}

#[test]
fn more_sessions_of_one_filter_cost_little_more() {
    let one = bytes_a_message(10, 3_000, 1);
    let many = bytes_a_message(10, 3_000, 100);
    assert!(many <= one * 2, "{many} for a hundred sessions, {one} for one");
}
