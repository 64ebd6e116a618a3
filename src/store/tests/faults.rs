//! A disk that fails while the store is at work: what the operator reads, and that nothing told is lost.
//!
//! The faults come from [`FaultyDisk`], below the real SQL. After each the power is cut, with the worst of
//! luck, and the store starts from what the disk has.

use super::cuts::{Rig, SIZES, content};
use super::disk::{FaultyDisk, Kind};
use super::*;
use crate::record::DropReason;
use crate::store::disk::Disk;
use crate::store::handle::Ask;
use crate::store::successor;

pub(super) fn start(disk: &FaultyDisk) -> Rig {
    Rig::start(disk, SIZES, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"))
}

pub(super) const ROUTE: ReaderId = ReaderId(1);

pub(super) fn rows(seqs: std::ops::RangeInclusive<u64>) -> Vec<Write> {
    let audience: Arc<[Want]> = vec![want(ROUTE)].into();
    let row = |seq| Write::Message {
        seq: Seq(seq),
        message: content(seq),
        audience: audience.clone(),
        retained: false,
        inward: None,
    };
    seqs.map(row).collect()
}

/// The rows that the route has, each with its number and as it was written.
pub(super) fn read_all(rig: &mut Rig) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let read = rig.read(ROUTE, after, 50).expect("the store answers");
        for row in &read.rows {
            assert_eq!((&row.message, row.number), (&content(row.seq.0), row.seq.0));
            found.push(row.seq.0);
        }
        if read.through == read.newest {
            return found;
        }
        after = read.through.0;
    }
}

pub(super) fn seqs(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.collect()
}

/// Cuts the power with the worst of luck, and starts again.
pub(super) fn cut(rig: Rig) -> Rig {
    let disk = rig.disk.clone();
    disk.cut();
    drop(rig);
    disk.lose_what_is_not_synced();
    start(&disk)
}

/// What is set apart.
pub(super) fn apart(rig: &Rig) -> Vec<PathBuf> {
    successor::paths(&Files::on(Arc::new(rig.disk.clone()), &rig.disk.dir()))
}

/// A store that was closed with the rows up to 960, twelve a commit.
pub(super) fn closed_with_960_rows() -> FaultyDisk {
    let disk = FaultyDisk::new();
    disk.fail(|faults| faults.capacity = 10_000_000);
    let mut rig = start(&disk);
    for block in 0..80 {
        assert!(rig.commit(rows(block * 12 + 1..=block * 12 + 12)));
    }
    rig.worker.close();
    disk
}

#[test]
fn after_a_failed_sync_nothing_is_told_and_the_file_is_never_written_again() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=100)));
    disk.fail(|faults| faults.no_sync = true);
    rig.hand_over(rows(101..=110));
    assert!(!rig.all_told(), "no sync, no acknowledgement");
    rig.wait(5_000);
    let status = rig.status();
    assert_eq!(status.trouble.as_deref(), Some("the disk refused to sync"));
    assert!(!rig.all_told());
    disk.fail(|faults| faults.no_sync = false);
    assert!(rig.settle_down());
    assert_eq!(rig.status().trouble, None);
    let apart = apart(&rig);
    assert_eq!(apart.len(), 1);
    assert_eq!(disk.changes_since_failure(&apart[0]), 0);
    assert_eq!(disk.changes_since_failure(&open::with_suffix(&apart[0], "-wal")), 0);
    assert!(rig.commit(rows(111..=120)));
    assert_eq!(read_all(&mut rig), seqs(1..=120));
    let mut rig = cut(rig);
    assert_eq!(read_all(&mut rig), seqs(1..=120));
    let line = &rig.status().readers[&ROUTE];
    assert_eq!((line.received, line.queued), (120, 120));
}

#[test]
fn pages_that_a_failed_sync_has_forgotten_are_not_relied_on() {
    for kind in [Kind::Wal, Kind::Database] {
        for which in 0..3 {
            let disk = FaultyDisk::new();
            let mut rig = start(&disk);
            assert!(rig.commit(rows(1..=60)));
            disk.fail(|faults| faults.sync = Some((kind, which)));
            // Enough to move the WAL into the database, so that its sync is met too.
            for block in 3..=10 {
                assert!(rig.commit(rows(block * 20 + 1..=block * 20 + 20)), "{kind:?} {which}");
            }
            assert_eq!(disk.faults().sync, None, "it was met");
            let mut rig = cut(rig);
            assert_eq!(read_all(&mut rig), seqs(1..=220), "{kind:?} {which}");
        }
    }
}

#[test]
fn what_is_set_apart_is_read_until_nobody_wants_it_and_then_goes() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=200)));
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(201..=210)));
    assert_eq!(apart(&rig).len(), 1);
    let mut rig = cut(rig);
    assert_eq!(read_all(&mut rig), seqs(1..=210));
    assert_eq!(apart(&rig).len(), 1);
    let settle = |rig: &mut Rig, range: std::ops::RangeInclusive<u64>| {
        rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: range.map(Seq).collect() }]);
        assert!(rig.commit(Vec::new()));
    };
    settle(&mut rig, 1..=100);
    assert_eq!(apart(&rig).len(), 1);
    settle(&mut rig, 101..=200);
    assert!(apart(&rig).is_empty());
    assert!(disk.names(&disk.dir()).iter().all(|path| !path.to_string_lossy().contains("unsynced")));
    assert_eq!(read_all(&mut rig), seqs(201..=210));
    let line = &rig.status().readers[&ROUTE];
    assert_eq!((line.received, line.delivered, line.queued), (210, 200, 10));
}

#[test]
fn a_disk_whose_syncs_fail_again_and_again_is_served_from_a_few_files() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    let mut last = 0;
    for _ in 0..9 {
        assert!(rig.commit(rows(last + 1..=last + 80)));
        disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        assert!(rig.commit(rows(last + 81..=last + 90)));
        last += 90;
        assert!(apart(&rig).len() <= 5, "{:?}", apart(&rig));
    }
    assert_eq!(read_all(&mut rig), seqs(1..=last));
    let mut rig = cut(rig);
    assert_eq!(read_all(&mut rig), seqs(1..=last));
}

#[test]
fn a_commit_that_is_found_after_its_sync_failed_is_told_once() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=5)));
    // The file cannot even be set apart for a while: whether the commit took place stays open.
    disk.fail(|faults| {
        faults.sync = Some((Kind::Wal, 0));
        faults.no_renaming = true;
    });
    rig.hand_over(rows(6..=8));
    rig.wait(5_000);
    assert!(!rig.all_told());
    let trouble = rig.status().trouble.expect("it is said");
    assert_eq!(trouble, "the disk does not let the store at its files: the disk does not rename");
    // What comes meanwhile waits behind it.
    rig.hand_over(rows(9..=9));
    disk.fail(|faults| faults.no_renaming = false);
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(1..=9));
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((line.received, line.queued), (9, 9), "no row was written twice");
    assert_eq!(read_all(&mut cut(rig)), seqs(1..=9));
}

#[test]
fn a_commit_that_is_found_at_the_close_alone_keeps_nothing_from_what_came_behind_it() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=5)));
    disk.fail(|faults| {
        faults.sync = Some((Kind::Wal, 0));
        faults.no_renaming = true;
    });
    rig.hand_over(rows(6..=8));
    rig.hand_over(rows(9..=9));
    assert!(!rig.all_told());
    disk.fail(|faults| faults.no_renaming = false);
    rig.worker.close();
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=9));
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((line.received, line.queued), (9, 9), "no row was written twice");
}

#[test]
fn a_disk_that_cannot_be_written_says_so_and_loses_nothing() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=50)));
    disk.fail(|faults| faults.writes = u32::MAX);
    rig.hand_over(rows(51..=60));
    rig.wait(5_000);
    assert_eq!(rig.status().trouble.as_deref(), Some("the disk cannot be written"));
    assert!(!rig.all_told());
    assert_eq!(read_all(&mut rig), seqs(1..=50), "reads are answered all the same");
    disk.fail(|faults| faults.writes = 0);
    assert!(rig.settle_down());
    assert_eq!(rig.status().trouble, None);
    assert!(apart(&rig).is_empty(), "no sync has failed");
    assert_eq!(read_all(&mut cut(rig)), seqs(1..=60));
}

#[test]
fn a_disk_that_cannot_be_read_for_a_while_loses_nothing() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=200)));
    rig.worker.close();
    let mut rig = start(&disk);
    disk.fail(|faults| faults.reads = u32::MAX);
    assert!(rig.read(ROUTE, 0, 50).is_none(), "it is held back");
    let trouble = rig.status().trouble.expect("it is said");
    assert_eq!(trouble, "the disk cannot be read");
    disk.fail(|faults| faults.reads = 0);
    rig.wait(5_000);
    assert_eq!(read_all(&mut rig), seqs(1..=200));
    assert!(rig.commit(rows(201..=201)));
    let status = rig.status();
    assert_eq!((status.trouble, status.readers[&ROUTE].queued), (None, 201));
    assert_eq!(status.readers[&ROUTE].dropped.len(), 0, "nothing is taken for damaged");
}

#[test]
fn a_disk_that_is_not_read_is_asked_at_its_time_for_one_read_of_each_reader() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=200)));
    rig.worker.close();
    let mut rig = start(&disk);
    disk.fail(|faults| faults.reads = u32::MAX);
    for _ in 0..10 {
        assert!(rig.read(ROUTE, 0, 50).is_none());
        rig.wait(1_000);
    }
    assert_eq!(rig.worker.held.len(), 1);
    // Whatever it was lost by.
    rig.worker.database.connection = None;
    rig.hand_over(rows(201..=201));
    assert!(rig.worker.database.connection.is_none() && !rig.all_told());
    let refused = disk.refused();
    for _ in 0..50 {
        assert!(rig.read(ROUTE, 0, 50).is_none());
    }
    assert_eq!(disk.refused(), refused, "it waits for its time");
    assert_eq!(rig.worker.held.len(), 1);
    disk.fail(|faults| faults.reads = 0);
    assert!(rig.settle_down());
    (0..20).for_each(|_| rig.wait(3_000));
    assert!(rig.worker.held.is_empty());
    assert_eq!(read_all(&mut rig), seqs(1..=201));
}

#[test]
fn what_runs_out_of_time_while_nothing_commits_is_not_all_remembered() {
    let disk = FaultyDisk::new();
    let sizes = Sizes { segment_rows: 4_096, segment_bytes: 4_000_000, checkpoint_frames: 1_000, ..SIZES };
    let mut rig = Rig::start(&disk, sizes, &["up".into()]).unwrap_or_else(|_| panic!());
    let row = |seq| {
        let mut message = Message::clone(&message(seq, "sensors/one"));
        message.expiry = Some(60);
        wanted(seq, Arc::new(message), &[ROUTE])
    };
    assert!(rig.commit((1..=6_000).map(row).collect()));
    rig.wait(120_000);
    disk.fail(|faults| faults.writes = u32::MAX);
    let mut after = 0;
    // On while there is progress, as the bridge.
    while let Some(read) = rig.read(ROUTE, after, 256).filter(|read| read.through.0 > after) {
        after = read.through.0;
    }
    assert_eq!(rig.worker.held.len(), 1, "it keeps its place");
    (0..5).for_each(|_| rig.wait(3_000));
    let waiting = rig.worker.batch.waiting().lazy;
    assert!((1_000..=2_000).contains(&waiting), "{waiting} ends");
    disk.fail(|faults| faults.writes = 0);
    (0..5).for_each(|_| rig.wait(3_000));
    assert!(rig.worker.held.is_empty(), "and is answered");
    while let Some(read) = rig.read(ROUTE, after, 256).filter(|read| read.through.0 > after) {
        after = read.through.0;
    }
    rig.wait(3_000);
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((after, line.queued, line.expired), (6_000, 0, 6_000));
}

#[test]
fn a_sector_that_cannot_be_read_ever_costs_its_rows_and_blocks_nobody() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=200)));
    rig.worker.close();
    let bytes = disk.bytes(&disk.dir().join("tidegate.db")).unwrap();
    let payload = &content(50).payload;
    let at = bytes.windows(payload.len()).position(|window| window == payload).expect("it is there");
    disk.fail(|faults| faults.bad_page = at / 4_096 + 1);
    let mut rig = start(&disk);
    let there = (0..60).any(|_| {
        rig.wait(3_000);
        rig.read(ROUTE, 0, 60).is_some_and(|read| read.rows.len() == 60)
    });
    assert!(there, "its readers are not kept waiting for ever");
    let found = read_all(&mut rig);
    assert!(!found.contains(&50) && found.len() >= 188, "{found:?}");
    assert!(rig.commit(rows(201..=201)));
    let status = rig.status();
    let line = &status.readers[&ROUTE];
    assert_eq!((status.trouble, line.queued), (None, found.len() as u64 + 1));
    assert_eq!(line.dropped[&DropReason::Damaged], 200 - found.len() as u64);
}

#[test]
fn what_is_too_old_ends_in_time_where_the_log_was_read_anew_meanwhile() {
    let disk = FaultyDisk::new();
    let bounds = [("up", Bounds { max_age: Some(60_000), ..Bounds::default() })];
    let mut rig = Rig::start_bounded(&disk, SIZES, &["up".into()], &bounds).unwrap_or_else(|_| panic!());
    assert!(rig.commit(rows(1..=50)));
    let now = rig.worker.database.now;
    rig.worker.database.go_back(&now).unwrap();
    rig.wait(70_000);
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((line.queued, line.expired), (0, 50));
}

#[test]
fn a_file_system_that_is_mounted_read_only_is_named() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=50)));
    disk.fail(|faults| faults.read_only = true);
    rig.hand_over(rows(51..=60));
    rig.wait(5_000);
    assert_eq!(rig.status().trouble.as_deref(), Some("the file system is mounted read-only"));
    assert!(!rig.all_told());
    assert_eq!(read_all(&mut rig), seqs(1..=50), "reads are answered all the same");
    disk.fail(|faults| faults.read_only = false);
    assert!(rig.settle_down());
    assert_eq!(rig.status().trouble, None);
    assert_eq!(read_all(&mut cut(rig)), seqs(1..=60));
}

#[test]
fn a_full_disk_takes_the_oldest_counts_them_and_never_gets_stuck() {
    let disk = FaultyDisk::new();
    disk.fail(|faults| faults.capacity = 500_000);
    let mut rig = start(&disk);
    let mut last = 0;
    for _ in 0..60 {
        assert!(rig.commit(rows(last + 1..=last + 20)));
        last += 20;
    }
    let line = rig.status().readers[&ROUTE].clone();
    let dropped = line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
    assert!(dropped > 0, "it was full");
    assert_eq!((line.received, line.queued + dropped), (last, last));
    assert_eq!(read_all(&mut rig), seqs(dropped + 1..=last));
    assert_eq!(read_all(&mut cut(rig)), seqs(dropped + 1..=last));
}

#[test]
fn a_disk_without_a_byte_left_says_so_and_goes_on_when_there_is_room() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=4)));
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = taken);
    let large = |seq| {
        let mut message = Message::clone(&content(seq));
        message.payload = vec![b'x'; 200_000].into();
        let audience = vec![want(ROUTE)].into();
        Write::Message { seq: Seq(seq), message: Arc::new(message), audience, retained: false, inward: None }
    };
    rig.hand_over(vec![large(5)]);
    rig.wait(5_000);
    assert_eq!(rig.status().trouble.as_deref(), Some("the disk is full"));
    assert!(!rig.all_told());
    disk.fail(|faults| faults.capacity = 0);
    assert!(rig.settle_down());
    let mut rig = cut(rig);
    let line = rig.status().readers[&ROUTE].clone();
    let dropped = line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
    assert_eq!((line.received, line.queued + dropped), (5, 5));
}

#[test]
fn a_sync_that_is_held_up_holds_up_the_acknowledgement() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=4)));
    let (arrive, arrived) = channel();
    let (proceed, held) = channel::<()>();
    disk.hold_syncs(Box::new(move |_| {
        arrive.send(()).unwrap();
        held.recv().unwrap_or_default();
    }));
    let store = std::thread::spawn(move || {
        rig.hand_over(rows(5..=5));
        rig
    });
    arrived.recv_timeout(PATIENCE).expect("it comes to its sync");
    assert_eq!(disk.syncs_done(), disk.syncs() - 1, "it waits there");
    drop(proceed);
    let rig = store.join().unwrap();
    assert!(rig.all_told());
}

#[test]
fn a_disk_whose_syncs_take_long_shares_them() {
    let disk = FaultyDisk::new();
    let rig = start(&disk);
    disk.slow_syncs(Duration::from_millis(20));
    let before = disk.syncs();
    let (handle, worker) = (rig.handle, rig.worker);
    let store = std::thread::spawn(move || worker.run());
    for seq in 1..=500 {
        handle.write(rows(seq..=seq), true);
    }
    handle.close();
    store.join().unwrap();
    let syncs = disk.syncs() - before;
    println!("measured: {syncs} syncs of 20 ms for 500 messages, each in a hurry");
    assert!(syncs < 250, "{syncs} syncs");
    disk.slow_syncs(Duration::ZERO);
    disk.lose_what_is_not_synced();
    assert_eq!(read_all(&mut start(&disk)), seqs(1..=500));
}
