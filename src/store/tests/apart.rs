//! What was set apart after a failed sync, or put aside, and what takes over from it.
//!
//! Each test takes the one detail that a plain failed sync does not meet: much beside the log, a disk that is full,
//! names that a power cut leaves half changed, numbers that only memory has.

use super::cuts::{Rig, SIZES};
use super::disk::{FaultyDisk, Kind};
use super::faults::{ROUTE, apart, cut, read_all, rows, seqs, start};
use super::unreadable::{absent, wait_until_read};
use super::*;
use crate::broker::tests::random::Random;
use crate::record::{DropReason, Policy};
use crate::store::disk::Disk;
use crate::store::handle::Ask;

/// Retained messages of 100 KB that nobody wants.
pub(super) fn large_retained(seqs: std::ops::RangeInclusive<u64>) -> Vec<Write> {
    let row = |seq: u64| {
        let mut message = Message::clone(&message(seq, &format!("state/{seq}")));
        (message.payload, message.retain) = (vec![b'r'; 100_000].into(), true);
        let (message, audience) = (Arc::new(message), Vec::new().into());
        Write::Message { seq: Seq(seq), message, audience, retained: true, inward: None }
    };
    seqs.map(row).collect()
}

/// Messages of 10 KB.
pub(super) fn large(seqs: std::ops::RangeInclusive<u64>) -> Vec<Write> {
    seqs.map(|seq| sized(seq, 10_000, &[ROUTE])).collect()
}

/// Commits so many hundreds of them, and one more at which a sync fails.
pub(super) fn set_large_apart(disk: &FaultyDisk, rig: &mut Rig, hundreds: u64) {
    for hundred in 0..hundreds {
        assert!(rig.commit(large(hundred * 100 + 1..=hundred * 100 + 100)));
    }
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(large(hundreds * 100 + 1..=hundreds * 100 + 1)));
}

pub(super) fn settle(rig: &mut Rig, range: std::ops::RangeInclusive<u64>) {
    rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: range.map(Seq).collect() }]);
    assert!(rig.commit(Vec::new()));
}

pub(super) fn taken(disk: &FaultyDisk) -> u64 {
    disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum()
}

#[test]
fn a_failed_sync_beside_much_that_is_retained_loses_nothing() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    for block in 0..10 {
        assert!(rig.commit(large_retained(block * 10 + 1..=block * 10 + 10)));
    }
    assert!(rig.commit(rows(101..=160)));
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(161..=170)));
    assert_eq!(apart(&rig).len(), 1);
    let mut rig = cut(rig);
    let wanted = |rig: &mut Rig| -> Vec<u64> {
        let rows = rig.read(ROUTE, 0, 200).expect("the store answers").rows;
        rows.iter().map(|row| row.seq.0).collect()
    };
    assert_eq!(wanted(&mut rig), seqs(101..=170));
    assert_eq!(rig.restored.retained.len(), 100);
    assert!(rig.commit(rows(171..=180)));
    assert_eq!(wanted(&mut cut(rig)), seqs(101..=180));
}

#[test]
fn names_that_a_cut_leaves_half_changed_lose_nothing() {
    [false, true].into_iter().for_each(cut_at_each_change);
}

/// There may be a log of a file that was let go of, where the next one gets its name.
fn cut_at_each_change(is_orphan: bool) {
    for changes in 0..300 {
        let disk = FaultyDisk::new();
        let mut rig = start(&disk);
        if is_orphan {
            disk.put(&disk.dir().join("tidegate.db.unsynced-000001-wal"), vec![7; 9_000]);
        }
        assert!(rig.commit(rows(1..=55)));
        // These are in the WAL alone.
        assert!(rig.commit(rows(56..=60)));
        disk.fail(|faults| (faults.sync, faults.last_name) = (Some((Kind::Wal, 0)), true));
        // What is under way may be there or not.
        disk.cut_in(changes);
        rig.hand_over(rows(61..=62));
        rig.settle_down();
        let told = if rig.all_told() { 62 } else { 60 };
        let met = disk.faults().sync.is_none();
        let mut rig = cut(rig);
        assert_eq!(rig.put_aside, None, "cut at change {changes}");
        let found = read_all(&mut rig);
        assert!(found == seqs(1..=62) || found == seqs(1..=told), "cut at change {changes}: {found:?}");
        assert!(rig.commit(rows(63..=63)));
        if told == 62 && met {
            assert!(changes > 20, "it takes over by more changes than that");
            return;
        }
    }
    panic!("it does not take over by so many changes");
}

#[test]
fn a_cut_while_a_database_is_put_aside_of_which_nothing_is_left_costs_nothing_of_what_is_set_apart() {
    let whole = FaultyDisk::new();
    // Its log has all of it.
    let sizes = Sizes { checkpoint_frames: 10_000, ..SIZES };
    let start = |disk: &FaultyDisk| Rig::start(disk, sizes, &["up".into()]);
    let mut rig = start(&whole).unwrap_or_else(|error| panic!("cannot {error}"));
    assert!(rig.commit(rows(1..=200)));
    whole.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(201..=210)));
    assert_eq!(apart(&rig).len(), 1);
    drop(rig);
    let database = whole.dir().join("tidegate.db");
    whole.harm(&database, |bytes| bytes.fill(0xa5));
    whole.put(&open::with_suffix(&database, "-wal"), vec![0xa5; 40_000]);
    for changes in 0..400 {
        let disk = whole.copied();
        disk.cut_in(changes);
        let first = start(&disk);
        let interrupted = disk.is_off();
        drop(first);
        disk.cut();
        disk.lose_what_is_not_synced();
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
        assert_eq!(read_all(&mut rig), seqs(1..=210), "cut at change {changes}");
        if !interrupted {
            assert!(changes > 20, "it changes more than that");
            return;
        }
    }
    panic!("it does not change so much");
}

#[test]
fn a_wal_whose_database_is_gone_is_kept() {
    let disk = FaultyDisk::new();
    start(&disk).worker.close();
    let orphan = disk.dir().join("tidegate.db.unsynced-000007-wal");
    disk.put(&orphan, b"what nobody else has".to_vec());
    let _rig = start(&disk);
    assert_eq!(disk.size(&orphan), None, "it is in nobody's way");
    let names = disk.names(&disk.dir());
    let kept =
        names.iter().any(|path| disk.bytes(path).is_some_and(|bytes| bytes == b"what nobody else has"));
    assert!(kept, "{names:?}");
}

#[test]
fn the_reserve_lets_a_store_of_an_older_version_start_on_a_full_disk() {
    let disk = FaultyDisk::new();
    disk.fail(|faults| faults.capacity = 2_000_000);
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=50)));
    rig.worker.close();
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[60..64].copy_from_slice(&2u32.to_be_bytes()));
    let taken = taken(&disk);
    disk.fail(|faults| faults.capacity = taken);
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=50));
}

#[test]
fn the_reserve_lets_a_new_database_take_over_on_a_full_disk() {
    let disk = FaultyDisk::new();
    disk.fail(|faults| faults.capacity = 2_000_000);
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=60)));
    settle(&mut rig, 1..=40);
    disk.fail(|faults| (faults.sync, faults.no_renaming) = (Some((Kind::Wal, 0)), true));
    rig.hand_over(rows(61..=63));
    let taken = taken(&disk);
    disk.fail(|faults| (faults.capacity, faults.no_renaming) = (taken, false));
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(41..=63));
    assert_eq!(read_all(&mut cut(rig)), seqs(41..=63));
}

#[test]
fn numbers_go_on_where_a_damaged_database_has_lost_them() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=200)));
    settle(&mut rig, 1..=200);
    rig.worker.close();
    let path = disk.dir().join("tidegate.db");
    let roots = roots(&disk.bytes(&path).unwrap());
    let mut rig = start(&disk);
    // From here on nothing on the disk says where it was, and no commit finds a free page.
    disk.harm(&path, |bytes| {
        let free = u32::from_be_bytes(bytes[32..36].try_into().unwrap()) as usize;
        bytes[(free - 1) * 4_096 + 4..][..4].fill(0xff);
        for root in &roots {
            bytes[(root - 1) * 4_096..][..4_096].fill(0);
        }
    });
    assert!(rig.commit(rows(201..=260)));
    let names = disk.names(&disk.dir());
    assert!(names.iter().any(|path| path.to_string_lossy().contains("damaged")), "{names:?}");
    let number = |rig: &mut Rig| rig.read(ROUTE, 259, 1).unwrap().rows[0].number;
    assert_eq!(number(&mut rig), 260);
    assert_eq!(number(&mut cut(rig)), 260);
}

/// The first pages of the tables that say where the store was, and of the log.
fn roots(bytes: &[u8]) -> Vec<usize> {
    let dir = folder();
    let path = dir.path().join("copy.db");
    std::fs::write(&path, bytes).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name IN ('state', 'mirror') OR name LIKE 'log%'";
    let mut statement = connection.prepare(sql).unwrap();
    let roots = statement.query_map([], |row| row.get::<_, u32>(0)).unwrap();
    roots.map(|root| root.unwrap() as usize).collect()
}

#[test]
fn space_that_nobody_uses_is_given_back_while_nothing_is_written() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    for block in 0..20 {
        assert!(rig.commit(rows(block * 100 + 1..=block * 100 + 100)));
    }
    settle(&mut rig, 1..=2_000);
    rig.worker.close();
    let path = disk.dir().join("tidegate.db");
    let before = disk.size(&path).unwrap();
    let mut rig = start(&disk);
    let mut sizes = Vec::new();
    for _ in 0..15 {
        rig.wait(1_000);
        sizes.push(disk.size(&path).unwrap());
    }
    assert!(disk.size(&path).unwrap() <= before / 2, "{before}, then {sizes:?}, {:?}", rig.status());
    // Nothing is left to do: the disk is left alone.
    let (synced, commits) = (disk.syncs(), rig.status().commits);
    (0..10).for_each(|_| rig.wait(1_000));
    assert_eq!((disk.syncs(), rig.status().commits), (synced, commits));
}

#[test]
fn a_segment_that_an_older_program_has_left_in_a_file_apart_takes_rows_again() {
    let mut trial = Terms { sizes: Some(SIZES), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit((1..=30).map(|seq| put(seq, &[route])).collect());
    let terms = Terms { sizes: Some(SIZES), ..trial.close() };
    let path = terms.dir.path().join("tidegate.db");
    std::fs::copy(&path, terms.dir.path().join("tidegate.db.unsynced-000001")).unwrap();
    // Of 12 rows each, so that the third is open.
    rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE log_3").unwrap();
    let mut trial = terms.open();
    assert_eq!(trial.opened.put_aside, None);
    trial.commit(vec![put(31, &[route])]);
    assert_eq!(trial.wanted(route), seqs(1..=31));
    trial.assert_conserved();
}

/// A store whose file is to be set apart, which does not come about yet: 60 rows are told, two more are on their way.
fn with_a_failed_sync(disk: &FaultyDisk) -> Rig {
    let mut rig = start(disk);
    assert!(rig.commit(rows(1..=60)));
    disk.fail(|faults| (faults.sync, faults.no_renaming) = (Some((Kind::Wal, 0)), true));
    rig.hand_over(rows(61..=62));
    assert!(!rig.all_told());
    rig
}

/// The page that the table of retained messages begins with: nothing has changed it since it was made.
const RETAINED_PAGE: usize = 8;

fn harm_retained(bytes: &mut [u8]) {
    bytes[(RETAINED_PAGE - 1) * 4_096..][..100].fill(0xff);
}

fn are_put_aside(disk: &FaultyDisk) -> usize {
    disk.names(&disk.dir()).iter().filter(|path| path.to_string_lossy().contains(".damaged-")).count()
}

#[test]
fn a_file_that_is_set_apart_and_damaged_is_salvaged() {
    let disk = FaultyDisk::new();
    let mut rig = with_a_failed_sync(&disk);
    disk.harm(&disk.dir().join("tidegate.db"), harm_retained);
    disk.fail(|faults| faults.no_renaming = false);
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(1..=62));
    assert_eq!((apart(&rig), are_put_aside(&disk)), (Vec::new(), 2), "the database and its WAL");
    assert!(rig.commit(rows(63..=63)));
    assert_eq!(read_all(&mut cut(rig)), seqs(1..=63));
}

#[test]
fn a_file_that_is_set_apart_and_damaged_is_salvaged_whenever_that_is_interrupted() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=60)));
    rig.worker.close();
    let path = disk.dir().join("tidegate.db");
    let mut bytes = disk.bytes(&path).unwrap();
    harm_retained(&mut bytes);
    disk.remove(&path).unwrap();
    disk.put(&disk.dir().join("tidegate.db.unsynced-000001"), bytes);
    for changes in 0..400 {
        let disk = disk.copied();
        disk.cut_in(changes);
        let first = Rig::start(&disk, SIZES, &["up".into()]);
        let interrupted = disk.is_off();
        drop(first);
        disk.cut();
        disk.power_on(&mut Random(changes));
        let mut rig = start(&disk);
        assert_eq!(read_all(&mut rig), seqs(1..=60), "cut at change {changes}");
        if !interrupted {
            assert!(changes > 20, "a salvage changes more than that");
            return;
        }
    }
    panic!("a salvage does not change so much");
}

#[test]
fn a_file_that_is_set_apart_and_cannot_be_read_for_long_is_salvaged() {
    let disk = FaultyDisk::new();
    let mut rig = with_a_failed_sync(&disk);
    disk.spoil(&disk.dir().join("tidegate.db"), RETAINED_PAGE);
    disk.fail(|faults| faults.no_renaming = false);
    (0..5).for_each(|_| rig.wait(3_000));
    assert_eq!(rig.status().trouble.as_deref(), Some("the disk cannot be read"));
    assert_eq!(are_put_aside(&disk), 0, "perhaps it will be");
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(1..=62));
    assert_eq!(read_all(&mut cut(rig)), seqs(1..=62));
}

#[test]
fn a_disk_that_reads_nothing_of_what_is_set_apart_gives_nothing_up() {
    let disk = FaultyDisk::new();
    let mut rig = with_a_failed_sync(&disk);
    disk.fail(|faults| (faults.no_renaming, faults.reads) = (false, u32::MAX));
    (0..60).for_each(|_| rig.wait(3_000));
    assert_eq!((apart(&rig).len(), are_put_aside(&disk)), (1, 0));
    disk.fail(|faults| faults.reads = 0);
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(1..=62));
}

#[test]
fn the_oldest_that_were_put_aside_go_first_whatever_the_clock_has_said() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1..=60)));
    rig.worker.close();
    let path = disk.dir().join("tidegate.db");
    disk.harm(&path, |bytes| bytes[0] ^= 1);
    // As an older program has named them: by its clock, which was wrong for a while.
    let old = ["damaged-orphan-000001-wal", "damaged-unsynced-000002", "damaged-000000000007"];
    let old = old.into_iter().chain(["damaged-009999999998", "damaged-009999999999"]);
    old.for_each(|name| disk.put(&disk.dir().join(format!("tidegate.db.{name}")), vec![7; 100]));
    let rig = start(&disk);
    let aside = rig.put_aside.expect("it was put aside");
    assert!(disk.size(&aside).is_some(), "the last of all");
    let names = disk.names(&disk.dir()).into_iter();
    let names: Vec<String> = names.map(|path| path.to_string_lossy().into_owned()).collect();
    let left: Vec<&str> =
        names.iter().filter_map(|name| name.split_once(".damaged-")).map(|name| name.1).collect();
    assert_eq!(left, ["009999999998", "009999999999", "010000000000", "010000000000-wal"]);
}

#[test]
fn a_full_disk_takes_what_was_put_aside_before_it_stops_the_store() {
    let disk = FaultyDisk::new();
    // The WAL is moved only for want of room, and nothing is held back for that.
    let sizes = Sizes { checkpoint_frames: 10_000, reserve: 0, ..SIZES };
    let mut rig = Rig::start(&disk, sizes, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"));
    disk.put(&disk.dir().join("tidegate.db.damaged-000000000001"), vec![7; 1_000_000]);
    for block in 0..10 {
        assert!(rig.commit(rows(block * 20 + 1..=block * 20 + 20)));
    }
    let taken = taken(&disk);
    disk.fail(|faults| faults.capacity = taken + 2_000);
    assert!(rig.commit(rows(201..=260)));
    assert_eq!(are_put_aside(&disk), 0);
    assert_eq!(read_all(&mut rig), seqs(1..=260), "no message went");
}

#[test]
fn what_is_set_apart_may_have_a_bad_place_while_the_database_is_salvaged() {
    let whole = FaultyDisk::new();
    let mut rig = start(&whole);
    assert!(rig.commit(rows(1..=60)));
    whole.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    rig.hand_over(rows(61..=62));
    assert!(rig.settle_down());
    // Whose rows the rest of a segment is says its index, which lies in the file apart.
    settle(&mut rig, 1..=5);
    assert!(rig.commit(rows(63..=63)));
    let path = apart(&rig).pop().expect("it was set apart");
    rig.worker.close();
    whole.harm(&whole.dir().join("tidegate.db"), |bytes| bytes[0] ^= 1);
    for page in 1..=whole.size(&path).unwrap() as usize / 4_096 {
        let disk = whole.copied();
        disk.spoil(&disk.dir().join(path.file_name().unwrap()), page);
        drop(Rig::start(&disk, SIZES, &["up".into()]));
        disk.fail(|faults| faults.bad_page = 0);
        assert_eq!(read_all(&mut start(&disk)), seqs(6..=63), "page {page}");
        // And if it is never read again, what lies elsewhere is not lost.
        let disk = whole.copied();
        disk.spoil(&disk.dir().join(path.file_name().unwrap()), page);
        let mut stand_in = absent(&disk);
        assert!((0..40).any(|_| stand_in.attempt(SIZES, WALL).is_ok()), "page {page}");
        let mut rig = start(&disk);
        wait_until_read(&mut rig);
        let found = read_all(&mut rig);
        // What is missing of a segment is counted once it is met.
        assert!(rig.commit(Vec::new()));
        assert!(found.ends_with(&[61, 62, 63]) && found.len() >= 46, "page {page}: {found:?}");
        let damaged = rig.status().readers[&ROUTE].dropped.values().sum::<u64>();
        assert_eq!(found.len() as u64 + damaged, 58, "page {page}: {found:?}");
    }
}

#[test]
fn what_was_salvaged_is_not_written_again_after_a_failed_sync_where_it_cannot_be_set_apart() {
    let before = FaultyDisk::new();
    let mut rig = start(&before);
    assert!(rig.commit(rows(1..=100)));
    before.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(101..=102)));
    let Database { apart: files, log, .. } = &rig.worker.database;
    let last = files[0].segments.iter().map(|id| log.segments[id].last).max().unwrap();
    // Nothing is wanted but what is apart: the newest segment is then one of those, and is copied first of all.
    settle(&mut rig, last + 1..=102);
    rig.worker.close();
    let disk = before.copied();
    let mut rig = start(&disk);
    rig.worker.database.connection = None;
    // It is nobody's store by its header.
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[68..72].fill(0));
    let held = disk.clone();
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    disk.hold_syncs(Box::new(move |path| {
        let is_log = path.to_string_lossy().ends_with("-wal");
        held.fail(|faults| faults.no_renaming |= is_log && faults.sync.is_some());
    }));
    rig.hand_over(rows(103..=103));
    assert_eq!((disk.faults().sync, disk.faults().no_renaming), (None, true), "it was met");
    rig.wait(5_000);
    assert!(!rig.all_told(), "it is in a file whose sync has failed");
    let database = disk.dir().join("tidegate.db");
    assert_eq!(disk.changes_since_failure(&database), 0);
    assert_eq!(disk.changes_since_failure(&open::with_suffix(&database, "-wal")), 0);
    disk.fail(|faults| faults.no_renaming = false);
    assert!(rig.settle_down());
    let rest = [seqs(1..=last), vec![103]].concat();
    assert_eq!(read_all(&mut rig), rest);
    assert_eq!(read_all(&mut cut(rig)), rest);
}

/// A store whose older rows lie in a file apart, and how many lie there.
fn with_rows_apart(disk: &FaultyDisk) -> Rig {
    let mut rig = start(disk);
    assert!(rig.commit(rows(1..=200)));
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(201..=210)));
    assert_eq!(apart(&rig).len(), 1);
    rig
}

/// Where the segments are listed.
pub(super) const SEGMENTS: usize = schema::ROOTS[4] as usize;

fn forget_segments(bytes: &mut [u8]) {
    bytes[(SEGMENTS - 1) * 4_096..][..4_096].fill(0xa5);
}

fn assert_lost(rig: &mut Rig, received: u64, lost: u64) {
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!((line.received, dropped), (received, lost), "{line:?}");
    assert_eq!(line.received, line.delivered + line.queued + dropped, "{line:?}");
}

#[test]
fn what_is_set_apart_outlives_the_list_of_segments() {
    for is_unread in [false, true] {
        let disk = FaultyDisk::new();
        with_rows_apart(&disk).worker.close();
        let path = disk.dir().join("tidegate.db");
        if is_unread {
            disk.spoil(&path, SEGMENTS);
            let mut stand_in = absent(&disk);
            assert!((0..60).any(|_| stand_in.attempt(SIZES, WALL).is_ok()));
        } else {
            disk.harm(&path, forget_segments);
        }
        let mut rig = start(&disk);
        assert!(rig.commit(rows(211..=211)));
        assert_eq!(read_all(&mut rig), seqs(1..=211));
        assert_eq!(apart(&rig).len(), 1, "where it was");
        assert_lost(&mut rig, 211, 0);
        assert_eq!(read_all(&mut cut(rig)), seqs(1..=211));
    }
}

#[test]
fn a_table_of_a_file_apart_that_has_lost_its_key_costs_no_row() {
    let disk = FaultyDisk::new();
    let rig = with_rows_apart(&disk);
    let path = apart(&rig).remove(0);
    rig.worker.close();
    disk.harm(&path, |bytes| {
        let key = b"TABLE log_2(seq INTEGER PRIMARY";
        let at = bytes.windows(key.len()).position(|text| text == key).unwrap();
        bytes[at + key.len() - 1] ^= 8;
    });
    // Where the disk has no room to copy it on, it is read where it is, and only that table is lost.
    let full = disk.copied();
    let taken = taken(&full);
    full.fail(|faults| faults.capacity = taken + 10_000);
    let mut rig = start(&full);
    assert_eq!((apart(&rig).len(), read_all(&mut rig)), (1, [seqs(1..=12), seqs(25..=210)].concat()));
    // It is kept for whoever can read more of it, with its log.
    full.fail(|faults| faults.capacity = 0);
    settle(&mut rig, 1..=210);
    assert_eq!((apart(&rig).len(), are_put_aside(&full)), (0, 2));
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=210));
    assert_lost(&mut rig, 210, 0);
}

#[test]
fn what_was_copied_on_from_a_file_apart_is_there_once_without_the_list_of_segments() {
    let disk = FaultyDisk::new();
    let mut rig = with_rows_apart(&disk);
    // A segment of which little is wanted goes on into the newest, and lies in the file apart all the same.
    settle(&mut rig, 13..=23);
    settle(&mut rig, 26..=36);
    let before = read_all(&mut rig);
    rig.worker.close();
    for is_lost in [false, true] {
        let disk = disk.copied();
        let path = disk.dir().join("tidegate.db");
        disk.harm(&path, |bytes| if is_lost { forget_segments(bytes) } else { bytes[0] ^= 1 });
        let mut rig = start(&disk);
        assert_eq!(read_all(&mut rig), before, "{is_lost}");
        assert_lost(&mut rig, 210, 0);
        let all = before.iter().copied().map(Seq).collect();
        rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: all }]);
        assert!(rig.commit(rows(211..=211)));
        assert_eq!((read_all(&mut rig), apart(&rig)), (seqs(211..=211), Vec::new()), "{is_lost}");
        assert_lost(&mut rig, 211, 0);
    }
}

/// A store that has come to so many bytes, of which nearly all lie in a file apart by now, and may have some more.
fn nearly_full(bounds: Bounds) -> (Rig, u64) {
    let disk = FaultyDisk::new();
    let mut rig =
        Rig::start_bounded(&disk, SIZES, &["up".into()], &[("up", bounds)]).unwrap_or_else(|_| panic!());
    for block in 0..40 {
        assert!(rig.commit(rows(block * 20 + 1..=block * 20 + 20)));
    }
    let most = rig.status().size + 200_000;
    rig.worker.config.max_size = most;
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(801..=820)));
    assert_eq!(apart(&rig).len(), 1);
    (rig, most)
}

#[test]
fn what_is_set_apart_counts_in_the_limit_and_goes_segment_by_segment() {
    let (mut rig, most) = nearly_full(Bounds::default());
    assert!(rig.status().readers[&ROUTE].dropped.is_empty(), "it takes no more for being in two files");
    for block in 41..76 {
        assert!(rig.commit(rows(block * 20 + 1..=block * 20 + 20)));
        let size = rig.status().size;
        assert!(size <= most + 100_000, "{size} bytes of {most}");
    }
    let line = rig.status().readers[&ROUTE].clone();
    let dropped = line.dropped.get(&DropReason::StoreFull).copied().unwrap_or(0);
    assert!(dropped > 100 && line.queued > 700, "{line:?}");
    assert_eq!(read_all(&mut rig), seqs(dropped + 1..=1_520));
}

#[test]
fn what_is_set_apart_fills_a_store_that_refuses_no_sooner_than_before() {
    let (mut rig, most) = nearly_full(Bounds { when_full: Policy::Refuse, ..Bounds::default() });
    assert!(!rig.status().full.store);
    let mut last = 820;
    while !rig.status().full.store {
        assert!(rig.commit(rows(last + 1..=last + 20)));
        last += 20;
        assert!(last < 2_000, "it is never full");
    }
    let status = rig.status();
    assert!(status.size <= most, "{} bytes of {most}", status.size);
    assert_eq!(status.readers[&ROUTE].queued, last);
}

#[test]
fn what_is_set_apart_gives_the_disk_nothing_back_segment_by_segment() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    set_large_apart(&disk, &mut rig, 30);
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = taken + 5_000_000);
    // A little is missing, and there is much that could go.
    rig.worker.config.min_free_disk = rig.worker.database.files.free_disk().unwrap() + 300_000;
    for seq in 3_002..=3_011 {
        assert!(rig.commit(large(seq..=seq)));
    }
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert!(dropped <= 300, "{line:?}");
}

/// Loses the list of segments, and all that was copied from the file apart.
fn lose_all_that_was_copied(disk: &FaultyDisk) {
    let copied = schema::ROOTS.map(|root| root as usize).into_iter().max().unwrap();
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| {
        forget_segments(bytes);
        bytes[copied * 4_096..].fill(0xa5);
    });
}

#[test]
fn what_was_open_when_it_was_set_apart_outlives_the_list_of_segments() {
    let disk = FaultyDisk::new();
    with_rows_apart(&disk).worker.close();
    lose_all_that_was_copied(&disk);
    let mut rig = start(&disk);
    let found = read_all(&mut rig);
    assert_eq!(found[..found.len().min(200)], seqs(1..=200), "what was synced before");
    assert_lost(&mut rig, 210, 210 - found.len() as u64);
    assert_eq!(read_all(&mut cut(rig)), found);
}

#[test]
fn a_damaged_page_of_a_file_apart_costs_no_other_where_the_list_of_segments_is_lost() {
    let whole = FaultyDisk::new();
    let rig = with_rows_apart(&whole);
    let path = apart(&rig)[0].clone();
    rig.worker.close();
    lose_all_that_was_copied(&whole);
    let all = schema::ROOTS.len() + 2..whole.size(&path).unwrap() as usize / 4_096;
    for page in all {
        let disk = whole.copied();
        let path = disk.dir().join(path.file_name().unwrap());
        disk.harm(&path, |bytes| bytes[page * 4_096..][..4_096].fill(0xa5));
        let mut rig = start(&disk);
        let found = read_all(&mut rig);
        let synced = found.iter().filter(|seq| **seq <= 200).count();
        assert!(synced >= 200 - 24, "page {page}: {synced} of what was synced before");
        // What only a read meets is counted with the next commit.
        assert!(rig.commit(rows(211..=211)));
        assert_lost(&mut rig, 211, 210 - found.len() as u64);
        assert_eq!(read_all(&mut cut(rig)), [found, vec![211]].concat(), "page {page}");
    }
}

#[test]
fn what_is_copied_out_of_a_damaged_file_apart_hides_no_other_segment_there() {
    let whole = FaultyDisk::new();
    let mut rig = start(&whole);
    assert!(rig.commit(rows(1..=200)));
    whole.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    // So few that no further segment is begun.
    assert!(rig.commit(rows(201..=201)));
    let path = apart(&rig)[0].clone();
    rig.worker.close();
    lose_all_that_was_copied(&whole);
    let all = schema::ROOTS.len() + 2..whole.size(&path).unwrap() as usize / 4_096;
    let before = read_all(&mut start(&whole.copied()));
    for page in all {
        let disk = whole.copied();
        let path = disk.dir().join(path.file_name().unwrap());
        disk.harm(&path, |bytes| bytes[page * 4_096..][..4_096].fill(0xa5));
        let found = read_all(&mut start(&disk));
        let lost: Vec<u64> = before.iter().copied().filter(|seq| !found.contains(seq)).collect();
        let is_one_segment = lost.last().is_none_or(|last| last - lost[0] < SIZES.segment_rows);
        assert!(is_one_segment, "page {page}: {lost:?}");
    }
}

#[test]
fn a_disk_that_is_full_beside_a_file_apart_stops_no_commit() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    set_large_apart(&disk, &mut rig, 30);
    assert_eq!(apart(&rig).len(), 1);
    let all = taken(&disk);
    disk.fail(|faults| faults.capacity = all + 300_000);
    for seq in 3_002..=3_101 {
        assert!(rig.commit(large(seq..=seq)), "{seq}");
    }
    // It gives the disk nothing back before it goes.
    assert_eq!(apart(&rig).len(), 1);
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!((line.received, line.queued + dropped), (3_101, 3_101), "{line:?}");
}

#[test]
fn a_file_apart_that_the_disk_does_not_read_whole_outlives_the_list_of_segments() {
    let whole = FaultyDisk::new();
    let rig = with_rows_apart(&whole);
    let path = apart(&rig)[0].clone();
    rig.worker.close();
    whole.harm(&whole.dir().join("tidegate.db"), forget_segments);
    for page in (1..=whole.size(&path).unwrap() as usize / 4_096).step_by(3) {
        let disk = whole.copied();
        disk.spoil(&disk.dir().join(path.file_name().unwrap()), page);
        let mut stand_in = absent(&disk);
        assert!((0..60).any(|_| stand_in.attempt(SIZES, WALL).is_ok()), "page {page}");
        let mut rig = start(&disk);
        wait_until_read(&mut rig);
        let found = read_all(&mut rig);
        assert!(found.len() as u64 >= 210 - SIZES.segment_rows, "page {page}: {found:?}");
        assert!(rig.commit(rows(211..=211)));
        assert_lost(&mut rig, 211, 210 - found.len() as u64);
        assert_eq!(read_all(&mut cut(rig)), [found, vec![211]].concat(), "page {page}");
    }
}

#[test]
fn a_number_among_the_segments_that_nothing_vouches_for_costs_nothing_beside_a_file_apart() {
    for number in ["70000", "4294967295", "4294967303", "-7"] {
        let disk = FaultyDisk::new();
        let mut rig = start(&disk);
        assert!((0..10).all(|block| rig.commit(rows(block * 12 + 1..=block * 12 + 12))));
        disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        rig.hand_over(rows(121..=121));
        assert!(rig.settle_down());
        assert!(!apart(&rig).is_empty());
        let connection = rig.worker.database.connection.as_ref().unwrap();
        connection.execute_batch(&format!("INSERT INTO segments VALUES ({number}, x'00')")).unwrap();
        rig.worker.close();
        let mut rig = start(&disk);
        assert!(rig.commit(rows(122..=130)));
        assert_eq!(read_all(&mut rig), seqs(1..=130), "{number}");
        let connection = rig.worker.database.connection.as_ref().unwrap();
        connection.execute_batch(&format!("REPLACE INTO segments VALUES ({number}, x'00')")).unwrap();
        // And where the list is in one.
        disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        rig.hand_over(rows(131..=131));
        assert!(rig.settle_down(), "{number}");
        assert_eq!(read_all(&mut rig), seqs(1..=131), "{number}");
        assert!(rig.worker.database.log.ledger.last_segment < 100, "{number}");
    }
}
