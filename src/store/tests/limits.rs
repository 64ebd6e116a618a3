//! Bounds of routes and policies of a full store: who loses what, who is told, and what is counted.
//!
//! Each end is looked at after a kill as well, since a count that is not in the transaction of its drop
//! would be lost there. At last every single counter is left out once, and conservation must break.

use super::cuts::{Rig, SIZES};
use super::disk::FaultyDisk;
use super::faults::{ROUTE, rows, seqs};
use super::*;
use crate::record::{DropReason, Keep, Policy};
use crate::store::reader::{Fate, REASONS};

fn bounded(bounds: Bounds) -> Terms {
    Terms { bounds: vec![("up", bounds)], ..Terms::default() }
}

/// The same route after a kill, and what it then has.
fn killed(trial: &Trial, bounds: Bounds) -> (Trial, ReaderStatus) {
    let again = Terms { bounds: vec![("up", bounds)], ..trial.killed() }.open();
    let line = again.assert_conserved().readers[&again.route()].clone();
    (again, line)
}

fn dropped(line: &ReaderStatus, reason: DropReason) -> u64 {
    line.dropped.get(&reason).copied().unwrap_or(0)
}

fn on_topic(seq: u64, topic: &str, readers: &[ReaderId]) -> Write {
    wanted(seq, message(seq, topic), readers)
}

fn large(seq: u64, readers: &[ReaderId]) -> Write {
    sized(seq, 4_000, readers)
}

/// Settles rows as a route does it, and waits until the commit that was due by then has taken place.
fn settle(trial: &Trial, reader: ReaderId, seqs: Vec<Seq>) {
    trial.opened.handle.settle(reader, seqs);
    // The first answer may come before the commit of its turn, the second comes after.
    trial.status();
    trial.status();
}

#[test]
fn the_newest_of_a_route_goes_where_that_is_its_policy() {
    let bounds = Bounds { max_messages: Some(3), when_full: Policy::DropNewest, ..Bounds::default() };
    let mut trial = bounded(bounds).open();
    let route = trial.route();
    trial.commit((1..=5).map(|seq| put(seq, &[route])).collect());
    assert_eq!(trial.wanted(route), [1, 2, 3]);
    // What is settled in the same commit makes room.
    trial.commit(vec![Write::Settled { reader: route, seq: Seq(1) }, put(6, &[route]), put(7, &[route])]);
    assert_eq!(trial.wanted(route), [2, 3, 6]);
    let (again, line) = killed(&trial, bounds);
    assert_eq!((line.received, line.delivered, line.queued), (7, 1, 3));
    assert_eq!(dropped(&line, DropReason::QueueFull), 3);
    let numbers: Vec<u64> = again.read(route, 0, 9).rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, [2, 3, 4], "what never had a row has no number");
}

#[test]
fn a_route_that_drops_what_comes_is_called_full() {
    let check = |bounds: Bounds, sizes: &[usize], full: bool| {
        let bounds = Bounds { when_full: Policy::DropNewest, ..bounds };
        let mut trial = bounded(bounds).open();
        let route = trial.route();
        for (seq, bytes) in (1..).zip(sizes) {
            trial.commit(vec![sized(seq, *bytes, &[route])]);
        }
        let before = trial.status();
        assert_eq!(before.readers[&route].full, full, "{bounds:?}, {sizes:?}");
        assert!(before.full.is_nobody(), "nobody is refused anything");
        trial.opened.handle.settle(route, vec![Seq(1)]);
        // Once it has come in, a second may pass.
        trial.status();
        trial.turn_clock(1_000);
        assert!(!trial.status().readers[&route].full, "it has room again");
    };
    let three = Bounds { max_messages: Some(3), ..Bounds::default() };
    check(three, &[9; 2], false);
    check(three, &[9; 3], true);
    check(three, &[9; 5], true);
    let bytes = Bounds { max_bytes: Some(10_000), ..Bounds::default() };
    check(bytes, &[4_000; 2], false);
    // None of this size fits, though a smaller one may.
    check(bytes, &[4_000; 3], true);
    check(bytes, &[4_000, 4_000, 4_000, 9], false);
    // It was not for want of room.
    check(bytes, &[20_000], false);
    check(Bounds { when_full: Policy::DropNewest, ..Bounds::default() }, &[9; 5], false);
}

#[test]
fn the_oldest_of_a_route_goes_where_that_is_its_policy() {
    let bounds = Bounds { max_messages: Some(3), ..Bounds::default() };
    let mut trial = bounded(bounds).open();
    let route = trial.route();
    trial.commit(vec![session(ReaderId(9))]);
    trial.commit((1..=5).map(|seq| put(seq, &[route, ReaderId(9)])).collect());
    assert_eq!(trial.wanted(route), [3, 4, 5]);
    assert_eq!(trial.wanted(ReaderId(9)), [1, 2, 3, 4, 5], "its bounds are the route's alone");
    let (_, line) = killed(&trial, bounds);
    assert_eq!((line.received, line.queued, dropped(&line, DropReason::QueueFull)), (5, 3, 2));
}

#[test]
fn a_route_s_bytes_are_bounded_by_either_policy() {
    for when_full in [Policy::DropOldest, Policy::DropNewest] {
        let bounds = Bounds { max_bytes: Some(20_000), when_full, ..Bounds::default() };
        let mut trial = bounded(bounds).open();
        let route = trial.route();
        for seq in 1..=10 {
            trial.commit(vec![large(seq, &[route])]);
        }
        let kept: Vec<u64> =
            if when_full == Policy::DropOldest { (7..=10).collect() } else { (1..=4).collect() };
        assert_eq!(trial.wanted(route), kept, "{when_full:?}");
        let (_, line) = killed(&trial, bounds);
        assert_eq!((line.received, line.queued, dropped(&line, DropReason::QueueFull)), (10, 4, 6));
    }
}

#[test]
fn a_route_that_refuses_says_when_it_is_full_and_drops_nothing() {
    let bounds = Bounds { max_messages: Some(16), when_full: Policy::Refuse, ..Bounds::default() };
    let mut trial = bounded(bounds).open();
    let route = trial.route();
    let is_full = |trial: &Trial| trial.full.lock().unwrap().routes.contains(&route);
    trial.commit((1..=15).map(|seq| put(seq, &[route])).collect());
    assert!(!is_full(&trial));
    trial.commit(vec![put(16, &[route])]);
    assert!(is_full(&trial));
    // What was under way when it became full is kept too.
    trial.commit(vec![put(17, &[route])]);
    // A start knows it before anything comes.
    let again = Terms { bounds: vec![("up", bounds)], ..trial.killed() }.open();
    again.status();
    assert!(is_full(&again));
    // It is full until a good part is free, and then at once: no second passes.
    for settled in 1..=2 {
        settle(&trial, route, vec![Seq(settled)]);
        assert!(is_full(&trial), "{settled} are settled");
    }
    settle(&trial, route, vec![Seq(3), Seq(4)]);
    assert!(!is_full(&trial));
    let (again, line) = killed(&trial, bounds);
    assert_eq!((line.received, line.delivered, line.queued), (17, 4, 13));
    assert!(line.dropped.is_empty());
    assert!(!is_full(&again));
}

#[test]
fn what_is_too_old_for_a_route_is_never_read_and_is_counted_without_any_traffic() {
    let bounds = Bounds { max_age: Some(60_000), ..Bounds::default() };
    let mut trial = bounded(bounds).open();
    let (route, client) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(client), put(1, &[route, client]), put(2, &[route])]);
    trial.turn_clock(30_000);
    let mut later = Message::clone(&message(3, "sensors/one"));
    later.received = WALL + 30_000;
    trial.commit(vec![Write::Message {
        seq: Seq(3),
        message: Arc::new(later),
        audience: vec![want(route)].into(),
        retained: false,
        inward: None,
    }]);
    trial.turn_clock(29_999);
    assert_eq!(trial.wanted(route), [1, 2, 3]);
    trial.turn_clock(1);
    assert_eq!(trial.wanted(route), [3]);
    assert_eq!(trial.wanted(client), [1], "its age is the route's alone");
    let (again, line) = killed(&trial, bounds);
    assert_eq!((line.received, line.queued, line.expired), (3, 1, 2));
    again.turn_clock(30_000);
    again.status();
    let line = again.assert_conserved().readers[&route].clone();
    assert_eq!((line.queued, line.expired), (0, 3));
}

#[test]
fn what_ran_out_of_time_while_nobody_was_here_is_counted_at_the_start() {
    let bounds = Bounds { max_age: Some(60_000), ..Bounds::default() };
    let mut trial = bounded(bounds).open();
    let route = trial.route();
    for start in (1..=2_500).step_by(500) {
        trial.commit((start..start + 500).map(|seq| put(seq, &[route])).collect());
    }
    trial.time.fetch_add(60_000, Ordering::SeqCst);
    let again = Terms { bounds: vec![("up", bounds)], ..trial.killed() }.open();
    // Each turn of its loop ends a thousand.
    let mut turns = 0;
    while again.assert_conserved().readers[&route].queued > 0 {
        turns += 1;
        assert!(turns < 100, "they stay");
    }
    assert_eq!(again.status().readers[&route].expired, 2_500);
}

#[test]
fn a_route_that_has_caught_up_does_not_hold_up_what_another_has_to_end() {
    let old = Bounds { max_age: Some(60_000), ..Bounds::default() };
    let (bounds, routes) = (vec![("up", old), ("down", old)], vec!["up".into(), "down".into()]);
    let mut trial = Terms { routes: routes.clone(), ..Terms::default() }.open();
    let (up, down) = (trial.opened.routes[0], trial.opened.routes[1]);
    for start in (1..=2_500).step_by(500) {
        let readers: &[ReaderId] = if start < 1_000 { &[up, down] } else { &[up] };
        trial.commit((start..start + 500).map(|seq| put(seq, readers)).collect());
    }
    trial.time.fetch_add(60_000, Ordering::SeqCst);
    let again = Terms { bounds, routes, ..trial.killed() }.open();
    let mut turns = 0;
    while again.assert_conserved().readers[&up].queued > 0 {
        turns += 1;
        assert!(turns < 100, "they stay");
    }
    assert_eq!(again.status().readers[&down].expired, 1_000);
}

#[test]
fn only_the_latest_of_a_topic_waits_where_that_is_wanted() {
    let bounds = Bounds {
        keep: Keep::Latest,
        max_messages: Some(2),
        when_full: Policy::DropNewest,
        ..Bounds::default()
    };
    let mut trial = bounded(bounds).open();
    let (route, client) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(client)]);
    trial.commit(vec![
        on_topic(1, "a", &[route, client]),
        on_topic(2, "b", &[route]),
        on_topic(3, "a", &[route, client]),
        on_topic(4, "c", &[route]),
    ]);
    assert_eq!(trial.wanted(route), [2, 3], "a takes the place of a; c finds none");
    assert_eq!(trial.wanted(client), [1, 3]);
    // After a kill the latest are found again.
    let (mut again, line) = killed(&trial, bounds);
    assert_eq!((line.received, line.queued), (4, 2));
    assert_eq!((dropped(&line, DropReason::Superseded), dropped(&line, DropReason::QueueFull)), (1, 1));
    again.commit(vec![on_topic(5, "b", &[route])]);
    assert_eq!(again.wanted(route), [3, 5]);
    // What has arrived is not superseded.
    again.commit(vec![Write::Settled { reader: route, seq: Seq(3) }, on_topic(6, "a", &[route])]);
    let (again, line) = killed(&again, bounds);
    assert_eq!(again.wanted(route), [5, 6]);
    assert_eq!((line.delivered, dropped(&line, DropReason::Superseded)), (1, 2));
}

#[test]
fn a_backlog_of_before_is_thinned_out_once_only_the_latest_are_wanted() {
    let mut trial = Terms { sizes: Some(short_segments()), ..Terms::default() }.open();
    let route = trial.route();
    for seq in 1..=60 {
        trial.commit(vec![on_topic(seq, ["a", "b", "c"][seq as usize % 3], &[route])]);
    }
    let bounds = Bounds { keep: Keep::Latest, ..Bounds::default() };
    let sizes = Some(short_segments());
    let mut again = Terms { bounds: vec![("up", bounds)], sizes, ..trial.killed() }.open();
    again.commit(vec![on_topic(61, "d", &[route])]);
    assert_eq!(again.wanted(route), [58, 59, 60, 61]);
    let line = &again.assert_conserved().readers[&route];
    assert_eq!((line.received, dropped(line, DropReason::Superseded)), (61, 57));
}

fn short_segments() -> Sizes {
    Sizes { segment_rows: 7, segment_bytes: 25_000, copy_below: 2, checkpoint_frames: 16, reserve: 0 }
}

/// A store of a few segments whose routes and sessions have this policy.
fn small(policy: Policy) -> Terms {
    let config = Config {
        min_free_disk: "0B".into(),
        max_size: "1MB".into(),
        when_full: policy.as_str().into(),
        ..Config::default()
    };
    Terms { config, ..Terms::default() }
}

#[test]
fn a_full_store_that_refuses_says_so_keeps_all_and_stays_below_its_size() {
    let mut trial = small(Policy::Refuse).open();
    let route = trial.route();
    let mut last = 0;
    while !trial.full.lock().unwrap().store {
        last += 1;
        trial.commit(vec![large(last, &[route])]);
        assert!(last < 1_000, "it is never full");
    }
    // What may be under way then still fits.
    for _ in 0..10 {
        last += 1;
        trial.commit(vec![large(last, &[route])]);
    }
    assert!(trial.status().size <= 1_000_000, "{}", trial.status().size);
    assert_eq!(trial.wanted(route), (1..=last).collect::<Vec<_>>());
    // A start finds it full before anything comes.
    let again = Terms { config: small(Policy::Refuse).config, ..trial.killed() }.open();
    again.status();
    assert!(again.full.lock().unwrap().store);
    // What makes room is committed at once, and is told once a whole segment has gone.
    let mut settled = 0;
    while trial.full.lock().unwrap().store {
        settled += 1;
        settle(&trial, route, vec![Seq(settled)]);
        assert!(settled <= last, "it is full for ever");
    }
    assert!(settled > 20, "{settled} rows are not yet a segment");
    let line = &trial.assert_conserved().readers[&route];
    assert_eq!((line.received, line.delivered), (last, settled));
    assert!(line.dropped.is_empty(), "{line:?}");
}

#[test]
fn a_full_store_turns_the_newest_away_where_that_is_the_policy() {
    let mut trial = small(Policy::DropNewest).open();
    let (route, client) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(client)]);
    for seq in 1..=400 {
        trial.commit(vec![large(seq, &[route, client])]);
    }
    let status = trial.assert_conserved();
    assert!(status.size <= 1_000_000, "{}", status.size);
    for reader in [route, client] {
        let line = &status.readers[&reader];
        assert!(line.queued > 100, "{line:?}");
        assert_eq!(dropped(line, DropReason::StoreFull), 400 - line.queued);
        assert_eq!(trial.wanted(reader), (1..=line.queued).collect::<Vec<_>>());
    }
    let again = trial.killed().open();
    assert_eq!(again.assert_conserved().readers, status.readers);
}

#[test]
fn who_lets_the_oldest_go_makes_room_for_who_keeps_what_it_has() {
    let bounds = Bounds { when_full: Policy::Refuse, ..Bounds::default() };
    let mut trial = Terms { bounds: vec![("up", bounds)], ..small(Policy::DropOldest) }.open();
    let (route, client) = (trial.route(), ReaderId(9));
    trial.commit(vec![session(client)]);
    // A session alone never makes the store full for the route.
    for seq in 1..=300 {
        trial.commit(vec![large(seq, &[client])]);
        assert!(!trial.full.lock().unwrap().store);
    }
    let before = trial.assert_conserved().readers[&client].clone();
    assert!(dropped(&before, DropReason::StoreFull) > 100);
    let mut last = 300;
    while !trial.full.lock().unwrap().store {
        last += 1;
        trial.commit(vec![large(last, &[route, client])]);
        assert!(last < 1_000, "it is never full");
    }
    let status = trial.assert_conserved();
    let line = &status.readers[&route];
    assert_eq!((line.queued, line.dropped.len()), (last - 300, 0));
    // The session goes on, at its own cost: what is kept free for the route it may use meanwhile.
    for seq in last + 1..=last + 300 {
        trial.commit(vec![large(seq, &[client])]);
    }
    let status = trial.assert_conserved();
    // Like every store that lets the oldest go, by the state that is written after the look.
    assert!(status.size <= 1_000_000 + 150_000, "{}", status.size);
    assert_eq!(status.readers[&route].queued, last - 300);
    assert_eq!(trial.wanted(client).last(), Some(&(last + 300)));
}

/// Lets every counter of the store count: what a reader received, delivered, and lost for each reason.
fn everything(planted: Option<Option<Fate>>) -> Vec<ReaderStatus> {
    let bounds = Bounds { keep: Keep::Latest, max_age: Some(1_000_000), ..Bounds::default() };
    let terms = Terms {
        routes: vec!["up".into(), "down".into()],
        bounds: vec![("up", bounds)],
        planted,
        ..small(Policy::DropNewest)
    };
    let mut trial = terms.open();
    let (up, down, client) = (trial.opened.routes[0], trial.opened.routes[1], ReaderId(9));
    let mut batch = vec![session(client)];
    batch.extend((1..=30).map(|seq| on_topic(seq, &format!("t/{}", seq % 20), &[up, down, client])));
    batch.push(Write::DropOldest { reader: client, after: Seq(0), count: 2 });
    let shed = [DropReason::Denied, DropReason::StoreBusy, DropReason::MemoryFull, DropReason::LinkDown];
    for reason in shed.into_iter().chain([DropReason::SendBufferFull]) {
        batch.push(Write::Shed { reader: down, reason, count: 3 });
    }
    batch.push(Write::Dropped { reader: client, seq: Seq(7), reason: DropReason::TooLarge });
    batch.push(Write::Dropped { reader: client, seq: Seq(8), reason: DropReason::RefusedBySubscriber });
    trial.commit(batch);
    trial.opened.handle.settle(down, vec![Seq(1), Seq(2)]);
    trial.opened.handle.drop_rows(down, vec![Seq(3)], DropReason::Refused);
    trial.opened.handle.drop_rows(down, vec![Seq(4)], DropReason::Damaged);
    for seq in 31..=300 {
        trial.commit(vec![large(seq, &[down])]);
    }
    trial.turn_clock(1_000_001);
    trial.commit(vec![Write::Inward { reader: client, packet_id: 1 }]);
    let mut lines: Vec<ReaderStatus> = trial.status().readers.into_values().collect();
    // A route that goes and comes back tells what was purged of it.
    let gone = Terms { routes: vec!["up".into()], planted, ..trial.close() }.open();
    let mut back = Terms { routes: vec!["up".into(), "down".into()], planted, ..gone.close() }.open();
    back.commit(vec![session(client)]);
    lines.extend(back.status().readers.into_values());
    lines
}

fn is_conserved(line: &ReaderStatus) -> bool {
    let ended = line.delivered + line.expired + line.dropped.values().sum::<u64>();
    line.received == ended + line.queued
}

#[test]
fn a_build_that_skips_any_one_increment_does_not_add_up() {
    let lines = everything(None);
    assert!(lines.iter().all(is_conserved), "{lines:#?}");
    let fates = REASONS.map(|reason| Some(Fate::Dropped(reason)));
    for counter in [None, Some(Fate::Delivered)].into_iter().chain(fates) {
        let lines = everything(Some(counter));
        assert!(!lines.iter().all(is_conserved), "nothing counts {counter:?}, and nobody sees it");
    }
}

#[test]
fn what_a_full_store_drops_is_still_on_its_way_where_that_was_undone() {
    let disk = FaultyDisk::new();
    let bounds = [("up", Bounds { max_messages: Some(1_000), ..Bounds::default() })];
    let mut rig = Rig::start_bounded(&disk, SIZES, &["up".into()], &bounds).unwrap_or_else(|_| panic!());
    assert!(rig.commit(rows(1..=200)));
    assert!(rig.read(ROUTE, 0, 10).is_some());
    let handed =
        |rig: &Rig| -> Vec<u64> { rig.worker.database.log.readers[&ROUTE].handed.keys().copied().collect() };
    assert_eq!(handed(&rig), seqs(1..=10));
    let mut gate: Gate = Box::new(|_| Err(std::io::ErrorKind::StorageFull.into()));
    let config = rig.worker.config.clone();
    let database = &mut rig.worker.database;
    let undone = database
        .transact(&config, Some(&mut gate), |log, connection| log.drop_oldest_segment(connection).map(drop));
    assert!(undone.is_err_and(|fault| fault.is_full()));
    assert_ne!(handed(&rig), seqs(1..=10));
    let now = rig.worker.database.now;
    rig.worker.database.go_back(&now).unwrap();
    assert_eq!(handed(&rig), seqs(1..=10));
}
