//! What a message costs in bytes written, by the kernel's count for the store's thread.
//!
//! Bytes and rows are counted, not seconds: each message has 100 bytes, goes into the log with as many
//! others as a commit takes, and is settled for the route, so that its segment goes too. Sessions are
//! away, and what is kept for them stays.

#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

use super::*;

/// Who wants the messages.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// The route.
    Route,
    /// The route, and so many sessions that are away.
    RouteAnd(u32),
    /// So many sessions that are away.
    Sessions(u32),
    /// Of so many sessions that are away each one in turn, by a topic of its own.
    OneOf(u32),
}

/// Bytes written for each message.
fn bytes_a_message(per_commit: u64, messages: u64, wanted: Wanted) -> u64 {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let mut trial = Terms { dir, ..Terms::default() }.open();
    let route = trial.route();
    let sessions = match wanted {
        Wanted::Route => 0,
        Wanted::RouteAnd(count) | Wanted::Sessions(count) | Wanted::OneOf(count) => count,
    };
    let absent: Vec<ReaderId> = (100..100 + sessions).map(ReaderId).collect();
    trial.commit(absent.iter().copied().map(session).collect());
    let before = trial.status();
    for start in (1..=messages).step_by(per_commit as usize) {
        let seqs = start..start + per_commit;
        trial.write(seqs.clone().map(|seq| message_for(seq, route, &absent, wanted)).collect());
        trial.opened.handle.write(Vec::new(), true);
        trial.wait_committed();
        trial.opened.handle.settle(route, seqs.map(Seq).collect());
    }
    let after = trial.assert_conserved();
    let bytes = (after.written - before.written) / messages;
    let commits = after.commits - before.commits;
    println!("measured: {per_commit} a commit, {wanted:?}: {bytes} bytes a message, {commits} commits");
    bytes
}

fn message_for(seq: u64, route: ReaderId, absent: &[ReaderId], wanted: Wanted) -> Write {
    let readers: Vec<ReaderId> = match wanted {
        Wanted::Route => vec![route],
        Wanted::RouteAnd(_) => [route].into_iter().chain(absent.iter().copied()).collect(),
        Wanted::Sessions(_) => absent.to_vec(),
        Wanted::OneOf(_) => vec![absent[seq as usize % absent.len()]],
    };
    let mut write = sized(seq, 100, &readers);
    if let (Wanted::OneOf(_), Write::Message { message, .. }) = (wanted, &mut write) {
        Arc::make_mut(message).topic = format!("sensors/{}/temperature", readers[0].0).into();
    }
    write
}

#[test]
fn a_message_for_a_route_costs_little_flash() {
    let ten = bytes_a_message(10, 8_000, Wanted::Route);
    let hundred = bytes_a_message(100, 20_000, Wanted::Route);
    assert!(ten <= 2_400, "{ten} at ten a commit");
    assert!(hundred <= 700, "{hundred} at a hundred a commit");
}

#[test]
fn a_session_beside_a_route_costs_little_more() {
    for (per_commit, messages) in [(10, 6_000), (100, 20_000)] {
        let route = bytes_a_message(per_commit, messages, Wanted::Route);
        let both = bytes_a_message(per_commit, messages, Wanted::RouteAnd(1));
        assert!(both * 10 <= route * 14, "{both} with a session, {route} without, at {per_commit} a commit");
    }
}

#[test]
fn more_sessions_of_one_filter_cost_little_more() {
    for (per_commit, messages) in [(10, 4_000), (100, 12_000)] {
        let one = bytes_a_message(per_commit, messages, Wanted::Sessions(1));
        let ten = bytes_a_message(per_commit, messages, Wanted::Sessions(10));
        let hundred = bytes_a_message(per_commit, messages, Wanted::Sessions(100));
        assert!(ten * 10 <= one * 14, "{ten} for ten sessions, {one} for one, at {per_commit} a commit");
        assert!(hundred <= one * 2, "{hundred} for a hundred, {one} for one, at {per_commit} a commit");
    }
}

#[test]
fn a_hundred_sessions_with_a_topic_each_cost_little_more_than_one() {
    for (per_commit, messages) in [(10, 4_000), (100, 12_000)] {
        let one = bytes_a_message(per_commit, messages, Wanted::Sessions(1));
        let each = bytes_a_message(per_commit, messages, Wanted::OneOf(100));
        assert!(each <= one * 2, "{each} with a topic each, {one} for one, at {per_commit} a commit");
    }
}
