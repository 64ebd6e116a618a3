//! Bits that flip on disk: found, counted, and never delivered.
//!
//! A wrong byte may cost a row, and never becomes a message.

use rusqlite::Connection;

use super::*;
use crate::record::DropReason;

const SIZES: Sizes =
    Sizes { segment_rows: 10, segment_bytes: 1 << 20, copy_below: 4, checkpoint_frames: 1_000, reserve: 0 };

/// A closed store with 35 rows for a route and a session.
fn filled() -> (Terms, ReaderId) {
    let mut trial = Terms { sizes: Some(SIZES), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit(vec![session(ReaderId(9))]);
    trial.commit((1..=35).map(|seq| put(seq, &[route, ReaderId(9)])).collect());
    (Terms { sizes: Some(SIZES), ..trial.close() }, route)
}

/// Does this to the closed store's file by SQL.
fn harm(terms: &Terms, sql: &str) {
    let connection = Connection::open(terms.dir.path().join("tidegate.db")).unwrap();
    connection.execute_batch(sql).unwrap();
}

fn check(sql: &str, lost: &[u64]) {
    let (terms, route) = filled();
    harm(&terms, sql);
    check_rest(sql, terms, route, lost);
}

fn check_rest(sql: &str, terms: Terms, route: ReaderId, lost: &[u64]) {
    let trial = terms.open();
    for reader in [route, ReaderId(9)] {
        let rest: Vec<u64> = (1..=35).filter(|seq| !lost.contains(seq)).collect();
        assert_eq!(trial.wanted(reader), rest, "{sql}");
    }
    trial.turn_clock(0);
    trial.turn_clock(1_000);
    let status = trial.assert_conserved();
    for reader in [route, ReaderId(9)] {
        let damaged = status.readers[&reader].dropped.get(&DropReason::Damaged).copied().unwrap_or(0);
        assert_eq!(damaged, lost.len() as u64, "{sql}");
    }
    let terms = Terms { sizes: Some(SIZES), ..trial.close() };
    let trial = terms.open();
    assert_eq!(trial.wanted(route).len(), 35 - lost.len());
    trial.assert_conserved();
}

#[test]
fn a_damaged_row_is_counted_and_never_delivered() {
    check("UPDATE log_1 SET payload = 'payload X' WHERE seq = 3", &[3]);
    check("UPDATE log_1 SET wall = wall + 1 WHERE seq = 4", &[4]);
    check("UPDATE log_2 SET crc = crc + 1 WHERE seq = 15", &[15]);
    check("DELETE FROM log_2 WHERE seq = 16", &[16]);
    check("UPDATE log_3 SET flags = 2, expiry = 1 WHERE seq = 22", &[22]);
}

#[test]
fn a_damaged_name_takes_the_rows_that_use_it() {
    check("UPDATE log_1 SET topic = 'sensors/two' WHERE seq = 1", &(1..=10).collect::<Vec<_>>());
}

#[test]
fn a_damaged_row_of_the_open_segment_is_counted() {
    check("UPDATE log_4 SET payload = x'00' WHERE seq = 33", &[33]);
    check("UPDATE log_4 SET audience = x'0102030405' WHERE seq = 31", &(31..=35).collect::<Vec<_>>());
}

#[test]
fn a_segment_without_its_table_is_given_up() {
    check("DROP TABLE log_2", &(11..=20).collect::<Vec<_>>());
}

#[test]
fn a_segment_whose_header_or_index_is_damaged_loses_no_row() {
    check("UPDATE segments SET data = x'00' WHERE id = 2", &[]);
    check("UPDATE log_2 SET payload = x'00' WHERE seq < 0", &[]);
    check("UPDATE segments SET data = x'00'; UPDATE log_2 SET payload = x'00' WHERE seq = 13", &[13]);
}

#[test]
fn a_segment_whose_header_and_index_are_damaged_loses_no_row() {
    let header = "UPDATE segments SET data = x'00' WHERE id = 2";
    check(&format!("{header}; UPDATE log_2 SET payload = x'00' WHERE seq < 0"), &[]);
    check(&format!("{header}; DELETE FROM log_2 WHERE seq = -1"), &[]);
}

#[test]
fn sessions_and_routes_survive_damage_in_either_place() {
    let copies = "reader > 4294967295";
    for sql in [
        "UPDATE sessions SET data = x'00'; UPDATE routes SET data = x'00'".to_string(),
        "DELETE FROM sessions; DELETE FROM routes".into(),
        format!("UPDATE mirror SET data = x'00' WHERE {copies}"),
        format!("DELETE FROM mirror WHERE {copies}"),
    ] {
        let (terms, route) = filled();
        harm(&terms, &sql);
        let trial = terms.open();
        let sessions = &trial.opened.restored.sessions;
        assert_eq!(sessions.iter().map(|session| session.record.reader.0).collect::<Vec<_>>(), [9], "{sql}");
        assert_eq!((trial.route(), trial.wanted(ReaderId(9)).len()), (route, 35));
        assert_eq!(trial.wanted(route).len(), 35);
        trial.assert_conserved();
    }
}

#[test]
fn a_session_that_was_removed_comes_back_from_no_copy() {
    let (terms, _) = filled();
    let mut trial = terms.open();
    trial.commit(vec![Write::SessionRemoved { reader: ReaderId(9) }]);
    let trial = trial.close().open();
    assert!(trial.opened.restored.sessions.is_empty());
}

#[test]
fn cursors_and_counters_survive_damage_in_either_place() {
    for table in ["state", "mirror"] {
        for sql in [format!("UPDATE {table} SET data = x'00'"), format!("DELETE FROM {table}")] {
            let (terms, route) = filled();
            let trial = terms.open();
            trial.opened.handle.settle(route, (1..=12).map(Seq).collect());
            let terms = Terms { sizes: Some(SIZES), ..trial.close() };
            harm(&terms, &sql);
            let trial = terms.open();
            let status = trial.assert_conserved();
            assert_eq!((status.readers[&route].delivered, status.readers[&route].queued), (12, 23), "{sql}");
            assert_eq!(trial.opened.restored.last_seq, Seq(35));
        }
    }
}

#[test]
fn with_both_places_damaged_everything_that_is_there_is_read_again() {
    let (terms, route) = filled();
    let trial = terms.open();
    trial.opened.handle.settle(route, (1..=12).map(Seq).collect());
    let terms = Terms { sizes: Some(SIZES), ..trial.close() };
    harm(&terms, "UPDATE state SET data = x'00'; UPDATE mirror SET data = x'00'");
    let mut trial = terms.open();
    trial.assert_conserved();
    let wanted = trial.wanted(route);
    assert_eq!(wanted.last(), Some(&35));
    assert!(wanted.len() >= 23, "{wanted:?}");
    trial.commit(vec![put(36, &[route])]);
    assert_eq!(trial.read(route, 35, 1).rows[0].number, 36);
}

#[test]
fn an_exchange_of_a_row_whose_segment_says_no_more_whose_its_rows_are_hinders_no_start() {
    let others = ["UPDATE log_4 SET crc = crc + 1 WHERE seq = 33", "DELETE FROM segments WHERE id = 3"];
    for (other, lost) in others.into_iter().zip([&[33][..], &[]]) {
        let mut trial = filled().0.open();
        let route = trial.route();
        trial.commit(vec![Write::Leased { reader: ReaderId(9), seq: Seq(13), packet_id: 7, holder: None }]);
        let terms = Terms { sizes: Some(SIZES), ..trial.close() };
        let sql = format!("UPDATE log_2 SET payload = x'00' WHERE seq = -9; {other}");
        harm(&terms, &sql);
        check_rest(&sql, terms, route, lost);
    }
}

#[test]
fn a_number_among_the_segments_that_nothing_vouches_for_costs_nothing() {
    for number in ["5", "4294967295", "4294967303", "-7"] {
        let (terms, route) = filled();
        harm(&terms, &format!("INSERT INTO segments VALUES ({number}, x'00')"));
        let mut trial = terms.open();
        trial.commit((36..=60).map(|seq| put(seq, &[route])).collect());
        assert_eq!(trial.wanted(route), (1..=60).collect::<Vec<_>>(), "{number}");
        trial.assert_conserved();
        let terms = Terms { sizes: Some(SIZES), ..trial.close() };
        assert_eq!(terms.open().wanted(route).len(), 60, "{number}");
    }
}

#[test]
fn no_number_is_given_again_where_only_what_was_settled_ahead_tells_of_it() {
    let (terms, route) = filled();
    let trial = terms.open();
    trial.opened.handle.settle(route, (31..=35).map(Seq).collect());
    let terms = trial.close();
    harm(&terms, "UPDATE state SET data = x'00' WHERE reader = 0; DELETE FROM segments WHERE id = 4");
    harm(&terms, "UPDATE mirror SET data = x'00' WHERE reader = 0; DROP TABLE log_4");
    assert_eq!(terms.open().opened.restored.last_seq, Seq(35));
}

#[test]
fn no_reader_is_believed_that_no_checksum_vouches_for() {
    let (terms, _) = filled();
    harm(
        &terms,
        "UPDATE state SET data = x'00' WHERE reader = 0; INSERT INTO state VALUES (4294967295, x'00')",
    );
    harm(&terms, "UPDATE mirror SET data = x'00' WHERE reader = 0");
    assert_eq!(terms.open().opened.restored.last_reader, 9);
}

#[test]
fn rows_that_are_copied_on_beside_a_damaged_one_still_wait() {
    let sizes = Sizes { segment_rows: 100, copy_below: 8, ..SIZES };
    let mut trial = Terms { sizes: Some(sizes), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit((1..=350).map(|seq| put(seq, &[route])).collect());
    let terms = Terms { sizes: Some(sizes), ..trial.close() };
    harm(&terms, "UPDATE log_1 SET payload = x'00' WHERE seq IN (10, 15)");
    let mut trial = terms.open();
    let left = [10, 15, 20, 30];
    trial.opened.handle.settle(route, (1..=350).filter(|seq| !left.contains(seq)).map(Seq).collect());
    trial.commit(vec![session(ReaderId(9))]);
    assert_eq!(trial.wanted(route), [20, 30]);
    let status = trial.assert_conserved();
    assert_eq!((status.readers[&route].delivered, status.readers[&route].queued), (346, 2));
}

#[test]
fn no_number_is_given_again_where_only_a_route_that_is_gone_tells_of_it() {
    let mut trial = Terms { sizes: Some(SIZES), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit((1..=35).map(|seq| put(seq, &[route])).collect());
    let mut gone = Terms { sizes: Some(SIZES), routes: Vec::new(), ..trial.close() }.open();
    gone.commit(vec![session(ReaderId(9))]);
    gone.commit(vec![Write::SessionRemoved { reader: ReaderId(9) }]);
    let terms = gone.close();
    harm(&terms, "UPDATE state SET data = x'00' WHERE reader = 0; DELETE FROM segments");
    harm(&terms, "UPDATE mirror SET data = x'00' WHERE reader = 0; DROP TABLE log_4");
    let mut back = Terms { sizes: Some(SIZES), routes: vec!["up".into()], ..terms }.open();
    let next = back.opened.restored.last_seq.0 + 1;
    back.commit(vec![put(next, &[route])]);
    assert_eq!(back.wanted(route), [next], "and it is had by a route that comes back");
    assert_eq!(next, 36);
}

#[test]
fn the_last_row_of_a_segment_that_is_damaged_hinders_no_commit_where_no_segment_is_open() {
    let (terms, route) = filled();
    // No other is known to be wanted, and the open segment has gone.
    harm(&terms, "UPDATE log_1 SET crc = crc + 1 WHERE seq = 5; DROP TABLE log_4");
    let mut trial = terms.open();
    trial.opened.handle.settle(route, (1..=10).map(Seq).collect());
    let settled = (1..=10).filter(|seq| *seq != 5);
    trial.commit(settled.map(|seq| Write::Settled { reader: ReaderId(9), seq: Seq(seq) }).collect());
    trial.commit(vec![session(ReaderId(10))]);
    trial.turn_clock(1_000);
    assert_eq!(trial.wanted(ReaderId(9)), (11..=30).collect::<Vec<_>>());
    let status = trial.assert_conserved();
    assert_eq!(status.trouble, None);
    assert_eq!(status.readers[&ReaderId(9)].dropped[&DropReason::Damaged], 6);
}
