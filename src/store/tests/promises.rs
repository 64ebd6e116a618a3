//! What the store promises, by name, through its thread and its handle.
//!
//! Each is checked after the store was opened anew, too.

use super::*;
use crate::record::{DropReason, Lease, LeaseState};

#[test]
fn what_was_committed_is_there_after_a_kill() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit((1..=10).map(|seq| put(seq, &[route])).collect());
    trial.write(vec![put(11, &[route])]);
    let again = trial.killed().open();
    assert_eq!(again.opened.restored.last_seq, Seq(10));
    assert_eq!(again.opened.routes, [route]);
    assert_eq!(again.wanted(route), (1..=10).collect::<Vec<_>>());
    again.assert_conserved();
}

#[test]
fn a_row_comes_back_as_it_went_in() {
    let mut trial = Terms::default().open();
    let (route, client) = (trial.route(), ReaderId(9));
    let mut full = Message::clone(&message(1, "a/b"));
    full.qos = QoS::ExactlyOnce;
    full.retain = true;
    full.expiry = Some(60);
    full.properties = Properties::from_kept(Bytes::from_static(&[1, 1]));
    let full = Arc::new(full);
    let wants = [
        want(route),
        Want {
            qos: QoS::ExactlyOnce,
            retain: true,
            subscription_ids: [3, 300].into_iter().collect(),
            ..want(client)
        },
    ];
    let write = |seq, message: &Arc<Message>| Write::Message {
        seq: Seq(seq),
        message: message.clone(),
        audience: wants.clone().into(),
        retained: false,
        inward: None,
    };
    trial.commit(vec![session(client), write(1, &full), write(2, &message(2, "a/b"))]);
    for trial in [&trial, &trial.killed().open()] {
        let rows = trial.read(client, 0, 10).rows;
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0].message, &rows[0].want, rows[0].number), (&full, &wants[1], 0));
        let rows = trial.read(route, 0, 10).rows;
        assert_eq!((&rows[1].message, &rows[1].want, rows[1].number), (&message(2, "a/b"), &wants[0], 2));
    }
}

#[test]
fn settled_rows_are_gone_and_counted_once() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit((1..=5).map(|seq| put(seq, &[route])).collect());
    trial.opened.handle.settle(route, vec![Seq(4), Seq(1), Seq(2), Seq(4)]);
    // What the open batch settles is not read again, though it is not committed.
    assert_eq!(trial.wanted(route), [3, 5]);
    trial.turn_clock(1_000);
    trial.opened.handle.settle(route, vec![Seq(2)]);
    trial.status();
    trial.turn_clock(1_000);
    let status = trial.assert_conserved();
    assert_eq!((status.readers[&route].delivered, status.readers[&route].queued), (3, 2));
    assert_eq!(trial.killed().open().wanted(route), [3, 5]);
}

#[test]
fn when_a_session_was_found_to_have_ended_is_kept_and_makes_none_that_is_gone() {
    let mut trial = Terms::default().open();
    let (one, two) = (ReaderId(5), ReaderId(6));
    trial.commit(vec![session(one), session(two)]);
    let ended = |reader| Write::SessionEnded { reader, ended: WALL };
    trial.commit(vec![ended(one), Write::SessionRemoved { reader: two }, ended(two), put(1, &[one])]);
    let again = trial.killed().open();
    let Write::Session(record) = session(one) else { panic!("a session") };
    let expected = [SessionRecord { ended: Some(WALL), ..SessionRecord::clone(&record) }];
    let records: Vec<_> = again.opened.restored.sessions.iter().map(|found| found.record.clone()).collect();
    assert_eq!(records, expected);
}

#[test]
fn what_still_waits_for_a_session_that_ends_is_purged_in_a_sum_that_lasts() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    let (one, two, three) = (ReaderId(5), ReaderId(6), ReaderId(7));
    trial.commit(vec![session(one), session(two), session(three)]);
    trial.commit((1..=4).map(|seq| put(seq, &[route, one, two, three])).collect());
    let settled = |reader, seq| Write::Settled { reader, seq: Seq(seq) };
    let dropped = Write::Dropped { reader: two, seq: Seq(2), reason: DropReason::TooLarge };
    trial.commit(vec![settled(one, 1), settled(two, 1), dropped, Write::SessionRemoved { reader: one }]);
    // Each of them had a message to itself, whoever else has it.
    let check = |trial: &Trial, delivered, purged| {
        let status = trial.assert_conserved();
        let past = &status.past;
        assert_eq!((past.delivered, past.dropped[&DropReason::Purged], past.queued), (delivered, purged, 0));
        assert_eq!(past.received, delivered + past.dropped.values().sum::<u64>());
        assert_eq!(status.readers[&three].queued, 4, "it has all of them");
        assert!(status.gone.is_empty() && status.readers[&route].dropped.is_empty());
    };
    check(&trial, 1, 3);
    trial.commit(vec![Write::SessionLapsed { reader: two }]);
    check(&trial, 2, 5);
    let mut again = trial.killed().open();
    check(&again, 2, 5);
    again.commit(vec![put(5, &[three]), settled(three, 5)]);
    check(&again.killed().open(), 2, 5);
}

#[test]
fn a_session_comes_back_whole() {
    let mut trial = Terms::default().open();
    let (one, two) = (ReaderId(5), ReaderId(6));
    trial.commit(vec![session(one), session(two)]);
    trial.commit((1..=4).map(|seq| put(seq, &[one, two])).collect());
    let holder = |packet_id| (packet_id == 12).then_some(two);
    let leased =
        |seq, packet_id| Write::Leased { reader: one, seq: Seq(seq), packet_id, holder: holder(packet_id) };
    trial.commit(vec![
        leased(1, 11),
        leased(2, 12),
        leased(4, 13),
        Write::LeaseReceived { reader: one, seq: Seq(2) },
        Write::LeaseSent { reader: one, seq: Seq(4) },
        Write::Inward { reader: one, packet_id: 77 },
        Write::Inward { reader: one, packet_id: 78 },
        Write::InwardReleased { reader: one, packet_id: 77 },
        Write::Settled { reader: one, seq: Seq(3) },
        Write::SessionRemoved { reader: two },
    ]);
    let again = trial.killed().open();
    let restored = &again.opened.restored;
    assert_eq!((restored.last_seq, restored.last_reader, restored.sessions.len()), (Seq(4), 6, 1));
    let session = &restored.sessions[0];
    assert_eq!(session.record.client_id, "client-5");
    assert_eq!((session.cursor, session.last, session.queued), (Seq(0), Seq(4), 3));
    assert_eq!(session.inward, [78]);
    assert_eq!(
        session.leases,
        [
            Lease { seq: Seq(1), packet_id: 11, state: LeaseState::Begun, holder: None, has_row: true },
            Lease {
                seq: Seq(2),
                packet_id: 12,
                state: LeaseState::Received,
                holder: Some(two),
                has_row: true
            },
            Lease { seq: Seq(4), packet_id: 13, state: LeaseState::Sent, holder: None, has_row: true },
        ]
    );
    assert_eq!(again.wanted(one), [1, 2, 4]);
}

#[test]
fn a_lease_that_was_taken_back_leaves_its_row_as_any_other() {
    let mut trial = Terms::default().open();
    let (group, holder) = (ReaderId(5), ReaderId(6));
    trial.commit(vec![session(group), session(holder), put(1, &[group]), put(2, &[group])]);
    let leased = |seq| Write::Leased { reader: group, seq: Seq(seq), packet_id: 1, holder: Some(holder) };
    let unleased = |seq| Write::Unleased { reader: group, seq: Seq(seq) };
    let dropped = Write::DropOldest { reader: group, after: Seq(0), count: 1 };
    // Before the commit that leased it, after it, and where nothing is leased.
    trial.commit(vec![leased(1), unleased(1), leased(2)]);
    trial.commit(vec![unleased(2), unleased(2), unleased(9), dropped]);
    assert_eq!(trial.assert_conserved().readers[&group].queued, 1);
    let again = trial.killed().open();
    let found = again.opened.restored.sessions.iter().find(|session| session.record.reader == group);
    assert_eq!(found.map(|session| (session.queued, session.leases.len())), Some((1, 0)));
    assert_eq!(again.wanted(group), [2]);
}

// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn the_last_retained_message_of_a_topic_is_kept_and_an_empty_one_clears() {
    let mut trial = Terms::default().open();
    let retain = |seq, topic: &str, payload: &'static str| Write::Message {
        seq: Seq(seq),
        message: Arc::new(Message {
            payload: payload.into(),
            retain: true,
            ..(*message(seq, topic)).clone()
        }),
        audience: Vec::new().into(),
        retained: true,
        inward: None,
    };
    trial.commit(vec![
        retain(1, "a", "old"),
        retain(2, "b", "stays"),
        retain(3, "a", "new"),
        retain(4, "c", "x"),
    ]);
    trial.commit(vec![retain(5, "c", "")]);
    let again = trial.killed().open();
    let found: Vec<_> = again.opened.restored.retained.iter().map(|m| (&*m.topic, &m.payload[..])).collect();
    assert_eq!(found, [("a", &b"new"[..]), ("b", &b"stays"[..])]);
    assert_eq!(again.opened.restored.last_seq, Seq(5));
}

#[test]
fn the_oldest_rows_are_dropped_save_those_in_an_exchange() {
    let mut trial = Terms::default().open();
    let client = ReaderId(5);
    trial.commit(vec![session(client)]);
    trial.commit((1..=6).map(|seq| put(seq, &[client])).collect());
    trial.commit(vec![
        Write::Leased { reader: client, seq: Seq(1), packet_id: 1, holder: None },
        Write::DropOldest { reader: client, after: Seq(0), count: 3 },
        Write::Settled { reader: client, seq: Seq(2) },
    ]);
    assert_eq!(trial.wanted(client), [1, 5, 6]);
    let status = trial.assert_conserved();
    assert_eq!(status.readers[&client].dropped[&DropReason::QueueFull], 3);
    assert_eq!(status.readers[&client].delivered, 0);
}

#[test]
fn what_an_access_rule_took_counts_as_received_and_dropped_and_has_no_number() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit(vec![
        put(1, &[route]),
        Write::Shed { reader: route, reason: DropReason::Denied, count: 3 },
        put(2, &[route]),
    ]);
    let again = trial.killed().open();
    let line = &again.assert_conserved().readers[&route];
    assert_eq!((line.received, line.queued, line.dropped[&DropReason::Denied]), (5, 2, 3));
    let rows = again.read(route, 0, 10).rows;
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_message_for_a_removed_session_is_not_its_own() {
    let mut trial = Terms::default().open();
    let (route, client) = (trial.route(), ReaderId(5));
    trial.commit(vec![session(client), put(1, &[route, client]), Write::SessionRemoved { reader: client }]);
    trial.commit(vec![put(2, &[route, client]), put(3, &[client])]);
    assert_eq!(trial.wanted(route), [1, 2]);
    assert!(trial.wanted(client).is_empty());
    assert_eq!(trial.assert_conserved().readers.len(), 1);
}

#[test]
fn what_has_run_out_of_time_is_counted_and_not_delivered() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    let expiring = Arc::new(Message { expiry: Some(10), ..(*message(1, "a")).clone() });
    let write = |seq, message| Write::Message {
        seq: Seq(seq),
        message,
        audience: vec![want(route)].into(),
        retained: false,
        inward: None,
    };
    trial.commit(vec![write(1, expiring), write(2, message(2, "a"))]);
    assert_eq!(trial.wanted(route), [1, 2]);
    trial.turn_clock(10_000);
    assert_eq!(trial.wanted(route), [2]);
    trial.turn_clock(1_000);
    assert_eq!(trial.assert_conserved().readers[&route].expired, 1);
}

#[test]
fn who_counts_a_session_s_rows_ends_those_at_their_front_that_are_out_of_date() {
    let mut trial = Terms::default().open();
    let reader = ReaderId(trial.route().0 + 1);
    trial.commit(vec![session(reader)]);
    let write = |seq| {
        let expiry = (seq <= 5).then_some(10);
        let message = Arc::new(Message { expiry, ..(*message(seq, "a")).clone() });
        let audience = vec![want(reader)].into();
        Write::Message { seq: Seq(seq), message, audience, retained: false, inward: None }
    };
    trial.commit((1..=8).map(write).collect());
    trial.turn_clock(10_000);
    let count = trial.read(reader, 0, 1);
    assert_eq!((count.rows[0].seq, count.rows.len(), count.left), (Seq(6), 1, 2));
    trial.turn_clock(1_000);
    let line = &trial.assert_conserved().readers[&reader];
    assert_eq!((line.expired, line.queued), (5, 3));
}

#[test]
fn a_route_that_goes_is_purged_and_numbers_on_when_it_returns() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit((1..=3).map(|seq| put(seq, &[route])).collect());
    let mut other = Terms { routes: vec!["other".into()], ..trial.close() }.open();
    assert_ne!(other.route(), route);
    let second = other.route();
    other.commit(vec![put(4, &[second])]);
    let status = other.assert_conserved();
    assert_eq!(status.readers.keys().copied().collect::<Vec<_>>(), [second]);
    let gone = |trial: &Trial| {
        let line = trial.status().gone.remove(&route).expect("its last line");
        (line.name, line.received, line.queued, line.dropped)
    };
    let last = ("up".to_owned(), 3, 0, [(DropReason::Purged, 3)].into());
    assert_eq!(gone(&other), last);
    // A kill and a further start leave it counted.
    assert_eq!(gone(&Terms { routes: vec!["other".into()], ..other.killed() }.open()), last);
    let other = Terms { routes: vec!["other".into()], ..other.close() }.open();
    assert_eq!(gone(&other), last);
    let mut back = Terms { routes: vec!["up".into()], ..other.close() }.open();
    assert_eq!(back.route(), route);
    back.commit(vec![put(5, &[route])]);
    assert!(!back.status().gone.contains_key(&route), "it is back");
    let rows = back.read(route, 0, 10).rows;
    assert_eq!(rows.iter().map(|row| (row.seq.0, row.number)).collect::<Vec<_>>(), [(5, 4)]);
    let line = &back.assert_conserved().readers[&route];
    assert_eq!((line.received, line.dropped[&DropReason::Purged]), (4, 3));
}

#[test]
fn a_read_says_how_many_rows_are_left_for_a_session() {
    let sizes = Sizes { segment_rows: 10, ..Sizes::of(&Config::default().check().unwrap()) };
    let mut trial = Terms { sizes: Some(sizes), ..Terms::default() }.open();
    let reader = ReaderId(trial.route().0 + 1);
    trial.commit(vec![session(reader)]);
    trial.commit((1..=35).map(|seq| put(seq, &[reader])).collect());
    let left = |trial: &Trial, after, limit| {
        let rows = trial.read(reader, after, limit);
        (rows.through.0, rows.newest.0, rows.left)
    };
    assert_eq!(left(&trial, 0, 4), (4, 35, 31));
    assert_eq!(left(&trial, 17, 13), (30, 35, 5));
    assert_eq!(left(&trial, 17, 18), (35, 35, 0));
    // What has ended does not count, nor what is in an exchange.
    let settled = |seq| Write::Settled { reader, seq: Seq(seq) };
    trial.commit(vec![
        settled(6),
        settled(33),
        Write::Leased { reader, seq: Seq(34), packet_id: 1, holder: None },
    ]);
    assert_eq!(left(&trial, 0, 4), (4, 35, 28));
    assert_eq!(left(&trial, 0, 31), (32, 35, 1));
    let route = trial.route();
    trial.commit((36..=40).map(|seq| put(seq, &[route])).collect());
    assert_eq!(trial.read(route, 0, 2).left, 0, "a route does not ask");
}

#[test]
fn rows_that_end_at_once_take_none_with_them_that_lies_elsewhere() {
    let sizes = Sizes { segment_rows: 10, ..Sizes::of(&Config::default().check().unwrap()) };
    let mut trial = Terms { sizes: Some(sizes), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit((1..=40).map(|seq| put(seq, &[route])).collect());
    let mut settle = |seqs: Vec<u64>, new: u64| {
        trial.opened.handle.settle(route, seqs.into_iter().map(Seq).collect());
        trial.commit(vec![put(new, &[route])]);
        let line = &trial.assert_conserved().readers[&route];
        assert_eq!(line.queued, trial.wanted(route).len() as u64);
        (line.delivered, trial.wanted(route))
    };
    // The last row of its segment that waits is copied on, beside the newest.
    assert_eq!(settle((1..=9).collect(), 41), (9, (10..=41).collect()));
    assert_eq!(settle(vec![10, 41], 42), (11, (11..=40).chain([42]).collect()));
    // In no order, twice, and what has ended before.
    assert_eq!(settle(vec![40, 39, 38, 25, 26, 26, 27, 11, 7, 12, 41], 43).0, 19);
    // Of three that follow each other one has ended.
    assert_eq!(settle(vec![14], 44).0, 20);
    assert_eq!(settle(vec![13, 14, 15], 45).0, 22);
    let left = (16..=24).chain(28..=37).chain([42, 43]).collect::<Vec<u64>>();
    assert_eq!(settle(vec![], 46), (22, left.iter().copied().chain(44..=46).collect()));
    // Across segments, and over what lies between them settled.
    assert_eq!(settle(left, 47), (43, (44..=47).collect()));
}

#[test]
fn rows_that_end_at_once_take_none_with_them_of_a_segment_that_begins_before_them() {
    let sizes = Sizes { segment_rows: 10, ..Sizes::of(&Config::default().check().unwrap()) };
    let mut trial = Terms { sizes: Some(sizes), ..Terms::default() }.open();
    let (route, other) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(other)]);
    trial.commit((1..=20).map(|seq| put(seq, &[route])).collect());
    trial.commit((21..=30).map(|seq| put(seq, &[other])).collect());
    let mut settle = |seqs: Vec<u64>, new: Vec<u64>| {
        trial.opened.handle.settle(route, seqs.into_iter().map(Seq).collect());
        trial.commit(new.into_iter().map(|seq| put(seq, &[route])).collect());
        trial.assert_conserved();
        trial.wanted(route)
    };
    // The last row of the first segment is copied on, and so begins one of which the others are far younger.
    let all = [10].into_iter().chain(11..=20).chain(31..=39).collect::<Vec<u64>>();
    assert_eq!(settle((1..=9).collect(), (31..=39).collect()), all);
    // The same of the second one: between its two rows lie those of the one before.
    let all = [10, 20].into_iter().chain(31..=40).collect::<Vec<u64>>();
    assert_eq!(settle((11..=19).collect(), vec![40]), all);
    let left = [10].into_iter().chain(31..=39).chain([41]).collect::<Vec<u64>>();
    assert_eq!(settle(vec![20, 40], vec![41]), left);
}

#[test]
fn a_read_that_may_bring_few_bytes_or_none_brings_a_row_all_the_same() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit((1..=9).map(|seq| put(seq, &[route])).collect());
    for bytes in [0, 1] {
        let rows = trial.read(route, 3, Portion { rows: 5, bytes });
        assert_eq!((rows.rows.len(), rows.rows[0].seq, rows.through), (1, Seq(4), Seq(4)), "{bytes}");
    }
    let weight = trial.read(route, 3, 1).rows[0].message.weight() as u32;
    assert_eq!(trial.read(route, 3, Portion { rows: 5, bytes: weight + 1 }).rows.len(), 2);
}

#[test]
fn what_a_full_store_has_dropped_is_not_left_for_a_session() {
    let mut trial = Terms { max_size: Some(300_000), ..Terms::default() }.open();
    let reader = ReaderId(trial.route().0 + 1);
    trial.commit(vec![session(reader)]);
    for block in 0..40_u64 {
        trial.commit((1..=200).map(|seq| put(block * 200 + seq, &[reader])).collect());
    }
    let status = trial.assert_conserved();
    assert!(status.readers[&reader].dropped[&DropReason::StoreFull] > 0, "it was full");
    let rows = trial.read(reader, 0, 10);
    assert_eq!(rows.left, status.readers[&reader].queued - 10);
}

#[test]
fn an_exchange_outlives_its_row_and_is_counted_once() {
    let mut trial = Terms { max_size: Some(300_000), ..Terms::default() }.open();
    let reader = ReaderId(trial.route().0 + 1);
    let leased = |seq, packet_id| Write::Leased { reader, seq: Seq(seq), packet_id, holder: None };
    trial.commit(vec![session(reader)]);
    trial.commit((1..=4).map(|seq| put(seq, &[reader])).collect());
    trial.commit(vec![leased(1, 11), leased(2, 12), leased(3, 13)]);
    // A rule takes one row, and the full store all others.
    trial.commit(vec![Write::Dropped { reader, seq: Seq(2), reason: DropReason::Denied }]);
    for block in 1..=40_u64 {
        trial.commit((1..=200).map(|seq| put(block * 200 + seq, &[reader])).collect());
    }
    assert_eq!(trial.wanted(reader).iter().filter(|seq| **seq <= 4).count(), 0);
    // PUBLISH of a row that is gone is about to leave, PUBREC comes for another.
    trial.commit(vec![leased(4, 14), Write::LeaseReceived { reader, seq: Seq(3) }]);
    let mut again = trial.killed().open();
    let begun = Lease { seq: Seq(1), packet_id: 11, state: LeaseState::Begun, holder: None, has_row: false };
    let mut expected = vec![
        begun,
        Lease { seq: Seq(2), packet_id: 12, ..begun },
        Lease { seq: Seq(3), packet_id: 13, state: LeaseState::Received, ..begun },
        Lease { seq: Seq(4), packet_id: 14, ..begun },
    ];
    let found = &again.opened.restored.sessions[0];
    assert_eq!(found.leases, expected);
    assert_eq!(found.waiting().0, found.queued, "all rows wait");
    let before = again.assert_conserved().readers[&reader].clone();
    assert_eq!((before.delivered, before.dropped[&DropReason::Denied]), (0, 1));
    assert_eq!(again.read(reader, 0, 10).left, before.queued - 10);
    // PUBCOMP; and a group's row would be nobody's.
    again.commit(vec![Write::Settled { reader, seq: Seq(3) }, Write::Unleased { reader, seq: Seq(4) }]);
    assert_eq!(again.assert_conserved().readers[&reader], before);
    expected.truncate(2);
    assert_eq!(again.killed().open().opened.restored.sessions[0].leases, expected);
}

#[test]
fn a_row_that_found_no_room_has_an_exchange_without_a_row() {
    let mut trial = Terms::default().open();
    let (reader, other) = (ReaderId(5), ReaderId(6));
    trial.commit(vec![
        session(reader),
        session(other),
        put(1, &[reader]),
        put(2, &[other]),
        put(3, &[reader]),
    ]);
    trial.commit(vec![Write::Leased { reader, seq: Seq(2), packet_id: 7, holder: None }]);
    let again = trial.killed().open();
    let found = &again.opened.restored.sessions[0];
    let leases: Vec<_> = found.leases.iter().map(|lease| (lease.seq.0, lease.has_row)).collect();
    assert_eq!((leases, found.waiting().0), (vec![(2, false)], 2));
    assert_eq!(again.wanted(reader), [1, 3]);
}
