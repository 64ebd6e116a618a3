//! A disk that is short where a part of the store lies in a file apart.
//!
//! What lies there gives the disk nothing back before the whole file goes.

use super::apart::{large, large_retained, set_large_apart, settle, taken};
use super::cuts::{Rig, SIZES};
use super::disk::{FaultyDisk, Kind};
use super::faults::{ROUTE, apart, closed_with_960_rows, cut, rows, seqs, start};
use super::*;
use crate::record::Policy;

/// 30 MB in a file apart, of which two thirds are wanted no more.
fn hardly_wanted_apart(bounds: Bounds) -> Rig {
    let disk = FaultyDisk::new();
    let mut rig =
        Rig::start_bounded(&disk, SIZES, &["up".into()], &[("up", bounds)]).unwrap_or_else(|_| panic!());
    set_large_apart(&disk, &mut rig, 30);
    settle(&mut rig, 1..=2_000);
    assert_eq!(apart(&rig).len(), 1);
    let all = taken(&disk);
    disk.fail(|faults| faults.capacity = all + 60_000_000);
    rig
}

/// Commits more than a disk has that is to stay as free as it nearly is.
fn fill_to_the_floor(rig: &mut Rig, blocks: u64) {
    let free = |rig: &Rig| rig.worker.database.files.free_disk().unwrap();
    rig.worker.config.min_free_disk = free(rig) - 1_000_000;
    for block in 0..blocks {
        if rig.status().full.store {
            break;
        }
        let last = 3_001 + block * 100;
        assert!(rig.commit(large(last + 1..=last + 100)));
        rig.wait(3_000);
    }
    let (free, floor) = (free(rig), rig.worker.config.min_free_disk);
    // What the store keeps anyway, and a little.
    assert!(free + 9_000_000 >= floor, "{free} bytes are free of {floor}");
}

#[test]
fn a_file_apart_is_no_leave_to_take_what_is_to_stay_free_of_a_disk() {
    fill_to_the_floor(&mut hardly_wanted_apart(Bounds::default()), 25);
}

#[test]
fn a_store_that_refuses_leaves_free_beside_a_file_apart_what_is_to_stay_free() {
    let refuse = Bounds { when_full: Policy::Refuse, ..Bounds::default() };
    fill_to_the_floor(&mut hardly_wanted_apart(refuse), 35);
}

/// What a reader is still to have.
fn waiting(rig: &mut Rig, reader: ReaderId) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let read = rig.read(reader, after, 50).expect("the store answers");
        found.extend(read.rows.iter().map(|row| row.seq.0));
        if read.through == read.newest {
            return found;
        }
        after = read.through.0;
    }
}

/// What a reader has lost, after a look whether its line adds up.
fn dropped(rig: &mut Rig, reader: ReaderId) -> u64 {
    let line = rig.status().readers[&reader].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!(line.received, line.delivered + line.queued + dropped, "{line:?}");
    dropped
}

#[test]
fn a_short_disk_takes_of_the_database_first_and_only_from_who_lets_it() {
    let session_of_all = ReaderId(9);
    let disk = FaultyDisk::new();
    let refuse = Bounds { when_full: Policy::Refuse, ..Bounds::default() };
    let routes = ["up".to_owned(), "keep".to_owned()];
    let start = |disk: &FaultyDisk| {
        Rig::start_bounded(disk, SIZES, &routes, &[("keep", refuse)]).unwrap_or_else(|_| panic!())
    };
    let mut rig = start(&disk);
    let keep = ReaderId(2);
    assert!(rig.commit(vec![session(session_of_all)]));
    // Each fiftieth is the other route's, too.
    let row = |seq: u64| match seq % 50 {
        0 => sized(seq, 10_000, &[ROUTE, keep, session_of_all]),
        _ => sized(seq, 10_000, &[ROUTE, session_of_all]),
    };
    // The last of these are copied into the new database.
    for block in 0..4 {
        assert!(rig.commit((block * 100 + 1..=block * 100 + 100).map(row).collect()));
    }
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(vec![row(401)]));
    settle(&mut rig, 1..=7);
    let all = taken(&disk);
    disk.fail(|faults| faults.capacity = all + 60_000_000);
    rig.worker.config.min_free_disk = rig.worker.database.files.free_disk().unwrap() - 9_000_000;
    for block in 0..15 {
        assert!(rig.commit((block * 100 + 402..=block * 100 + 501).map(row).collect()));
        rig.wait(3_000);
    }
    assert_eq!(apart(&rig).len(), 1);
    for again in [false, true] {
        if again {
            disk.cut();
            disk.lose_what_is_not_synced();
            rig = start(&disk);
        }
        assert_eq!((waiting(&mut rig, keep).len(), dropped(&mut rig, keep)), (1_901 / 50, 0));
        for (reader, first) in [(ROUTE, 8), (session_of_all, 1)] {
            let found = waiting(&mut rig, reader);
            let lost = dropped(&mut rig, reader);
            assert_eq!(found.len() as u64 + lost, 1_901 + 1 - first);
            assert!((100..1_400).contains(&lost), "{lost}");
            assert!(found.starts_with(&seqs(first..=300)), "what lies apart stays: {lost}");
            assert!(found.ends_with(&seqs(1_850..=1_901)), "and what is new: {lost}");
        }
    }
}

#[test]
fn a_disk_that_is_really_full_costs_little_more_for_a_file_apart() {
    let mut lost = Vec::new();
    for is_apart in [false, true] {
        let disk = FaultyDisk::new();
        let mut rig = start(&disk);
        for block in 0..30 {
            assert!(rig.commit(large(block * 100 + 1..=block * 100 + 100)));
        }
        if is_apart {
            disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        }
        assert!(rig.commit(large(3_001..=3_001)));
        assert_eq!(apart(&rig).len(), usize::from(is_apart));
        let all = taken(&disk);
        disk.fail(|faults| faults.capacity = all + 300_000);
        for seq in 3_002..=3_101 {
            assert!(rig.commit(large(seq..=seq)));
        }
        lost.push(dropped(&mut rig, ROUTE));
    }
    let [without, beside] = lost[..] else { panic!("both") };
    assert!(beside <= without * 2 + 100, "{lost:?}");
}

#[test]
fn a_file_apart_goes_at_once_where_the_database_has_nothing_to_give_and_stops_no_commit() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    set_large_apart(&disk, &mut rig, 10);
    let all = taken(&disk);
    disk.fail(|faults| faults.capacity = all + 300_000);
    let mut beside = 0;
    // Of these nothing can be dropped.
    for seq in 1_002..=1_041 {
        assert!(rig.commit(large_retained(seq..=seq)), "{seq}");
        let lost = dropped(&mut rig, ROUTE);
        if apart(&rig).is_empty() {
            assert_eq!(lost, 1_000, "all that lay there, and no more at once");
        } else {
            assert!(lost <= 101, "of the database alone: {lost}");
            beside = lost;
        }
    }
    assert!(apart(&rig).is_empty() && beside > 0, "{beside}");
    assert_eq!(waiting(&mut rig, ROUTE), [1_001]);
    assert_eq!(waiting(&mut cut(rig), ROUTE), [1_001]);
}

#[test]
fn what_comes_in_waits_however_short_the_disk_is_beside_what_cannot_go() {
    for is_apart in [false, true] {
        let disk = FaultyDisk::new();
        let refuse = Bounds { when_full: Policy::Refuse, ..Bounds::default() };
        let routes = ["up".to_owned(), "keep".to_owned()];
        let mut rig =
            Rig::start_bounded(&disk, SIZES, &routes, &[("keep", refuse)]).unwrap_or_else(|_| panic!());
        for block in 0..10 {
            let row = |seq| sized(seq, 10_000, &[ReaderId(2)]);
            assert!(rig.commit((block * 100 + 1..=block * 100 + 100).map(row).collect()));
        }
        if is_apart {
            disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        }
        // Of these nothing can be dropped, either.
        assert!(rig.commit(large_retained(1_001..=1_100)));
        assert_eq!(apart(&rig).len(), usize::from(is_apart));
        let all = taken(&disk);
        disk.fail(|faults| faults.capacity = all + 60_000_000);
        // Something else takes the most of the disk.
        rig.worker.config.min_free_disk = 100_000_000;
        for block in 0..50 {
            assert!(rig.commit(large(1_101 + block * 10..=1_110 + block * 10)));
            rig.wait(3_000);
        }
        let found = waiting(&mut rig, ROUTE);
        let lost = dropped(&mut rig, ROUTE);
        assert_eq!(found.len() as u64 + lost, 500);
        assert!(found.len() >= 100 && lost > 0, "some wait, and no more than that: {}", found.len());
        assert_eq!(dropped(&mut rig, ReaderId(2)), 0);
    }
}

/// The rows up to 960, on a disk that has no more room than for what is there.
fn without_a_byte_left() -> Rig {
    let disk = closed_with_960_rows();
    let rig = start(&disk);
    assert!(rig.worker.database.reserve.size() > 0);
    let all = taken(&disk);
    disk.fail(|faults| faults.capacity = all);
    rig
}

#[test]
fn a_disk_without_a_byte_left_lets_the_oldest_go_without_a_wait() {
    let mut rig = without_a_byte_left();
    for block in 80..180 {
        // All of them at once need more of the WAL than it has.
        rig.hand_over(rows(block * 12 + 1..=block * 12 + 12));
        assert!(rig.is_soon_told(), "block {block}: {:?}", rig.status());
    }
    let lost = dropped(&mut rig, ROUTE);
    assert_eq!(waiting(&mut rig, ROUTE), seqs(lost + 1..=180 * 12));
}

#[test]
fn a_disk_without_a_byte_left_takes_no_more_for_many_orders_than_for_few() {
    let mut lost = Vec::new();
    for count in [1, 2_000] {
        let mut rig = without_a_byte_left();
        // These take nothing of the disk.
        let topic = |number| Write::Unretained { topic: format!("none/{number}").into() };
        rig.hand_over((1..count).map(topic).chain(rows(961..=961)).collect());
        assert!(rig.is_soon_told(), "{:?}", rig.status());
        lost.push(dropped(&mut rig, ROUTE));
    }
    assert_eq!(lost, [12, 12], "a segment each");
}
