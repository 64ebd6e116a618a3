//! A file apart that the disk does not read whole: the rows in the bad place are lost, and no other.
//!
//! Which those are is found from the file's pages, row by row, so that one row more that is lost is seen. The store
//! meets the place at a start or at work, and its power goes at any change while it goes round it.

use std::collections::{BTreeMap, BTreeSet};

use super::cuts::{Rig, SIZES, content};
use super::disk::{FaultyDisk, Kind};
use super::faults::{ROUTE, apart, read_all, rows};
use super::unreadable::absent;
use super::*;
use crate::broker::tests::random::Random;
use crate::record::DropReason;
use crate::store::btree;
use crate::store::disk::Disk;
use crate::store::handle::Ask;

/// Of several pages each.
const LONG: Sizes = Sizes { segment_rows: 60, segment_bytes: 60_000, ..SIZES };

/// Wants every row too, and has had none.
const SESSION: ReaderId = ReaderId(9);

/// The route has had so many.
const SETTLED: u64 = 100;

/// And so many rows there are.
const ROWS: u64 = 720;

fn start(disk: &FaultyDisk) -> Result<Rig, OpenError> {
    Rig::start(disk, LONG, &["up".into()])
}

/// A store at work that was closed once, with every row for both; the route has had the first.
fn filled(disk: &FaultyDisk) -> Rig {
    let mut rig = start(disk).unwrap_or_else(|error| panic!("cannot {error}"));
    assert!(rig.commit(vec![session(SESSION)]));
    let both = |seq| wanted(seq, content(seq), &[ROUTE, SESSION]);
    for block in 0..ROWS / 40 {
        assert!(rig.commit((block * 40 + 1..=block * 40 + 40).map(both).collect()));
    }
    rig.worker.close();
    let mut rig = start(disk).unwrap_or_else(|error| panic!("cannot {error}"));
    rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: (1..=SETTLED).map(Seq).collect() }]);
    assert!(rig.commit(Vec::new()));
    rig
}

/// A store that has set its file apart and was closed.
struct Whole {
    disk: FaultyDisk,
    path: PathBuf,
    /// The rows of each segment that is read from there.
    segments: Vec<Vec<u64>>,
    /// The rows that need each page of the file.
    pages: BTreeMap<usize, BTreeSet<u64>>,
}

impl Whole {
    fn new() -> Whole {
        let disk = FaultyDisk::new();
        let mut rig = filled(&disk);
        disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
        rig.hand_over(Vec::new());
        assert!(rig.settle_down());
        let path = apart(&rig).pop().expect("it was set apart");
        let connection = rig.worker.database.connection.as_ref().unwrap();
        let rows = |id: &u32| -> Vec<u64> {
            let sql = format!("SELECT seq FROM log_{id} WHERE seq > 0 ORDER BY seq");
            let mut statement = connection.prepare(&sql).unwrap();
            let seqs = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
            seqs.map(|seq| seq.unwrap() as u64).collect()
        };
        let segments: Vec<Vec<u64>> = rig.worker.database.apart[0].segments.iter().map(rows).collect();
        rig.worker.close();
        let pages = pages(&disk, &path);
        let there: BTreeSet<u64> = pages.values().flatten().copied().collect();
        assert!(segments.len() > 4 && segments.iter().flatten().all(|seq| there.contains(seq)));
        Whole { disk, path, segments, pages }
    }

    /// A copy in which this page of the file is never read again.
    fn spoilt(&self, page: usize) -> FaultyDisk {
        let disk = self.disk.copied();
        disk.spoil(&disk.dir().join(self.path.file_name().unwrap()), page);
        disk
    }

    /// The rows that are lost with a page: those in it, and those whose topic or audience is in one of these.
    fn lost_with(&self, page: usize) -> BTreeSet<u64> {
        let none = BTreeSet::new();
        let bad = self.pages.get(&page).unwrap_or(&none);
        let mut lost = BTreeSet::new();
        for segment in &self.segments {
            let mut topics = BTreeMap::new();
            for seq in segment {
                let first_of_topic = *topics.entry(content(*seq).topic.clone()).or_insert(*seq);
                if [*seq, segment[0], first_of_topic].iter().any(|needed| bad.contains(needed)) {
                    lost.insert(*seq);
                }
            }
        }
        lost
    }

    fn count(&self) -> usize {
        self.disk.size(&self.path).unwrap() as usize / 4_096
    }

    /// Those with rows that are read from there.
    fn pages_with_rows(&self) -> Vec<usize> {
        (1..=self.count()).filter(|page| !self.lost_with(*page).is_empty()).collect()
    }

    /// What each reader has and has lost is what follows from the page.
    fn check(&self, rig: &mut Rig, page: usize) {
        let lost = self.lost_with(page);
        let after = |settled: u64| move |seq: &u64| *seq > settled;
        let there = |settled| -> Vec<u64> {
            (1..=ROWS).filter(after(settled)).filter(|seq| !lost.contains(seq)).collect()
        };
        for (found, expected) in [(read_all(rig), there(SETTLED)), (read_of_session(rig), there(0))] {
            let differ: Vec<&u64> = found
                .iter()
                .filter(|seq| !expected.contains(seq))
                .chain(expected.iter().filter(|seq| !found.contains(seq)))
                .collect();
            assert!(
                found == expected,
                "page {page}: not as expected: {differ:?}, {:?}",
                rig.status().readers
            );
        }
        assert!(rig.commit(Vec::new()), "page {page}");
        let status = rig.status();
        assert_eq!(status.trouble, None, "page {page}");
        for (reader, settled) in [(ROUTE, SETTLED), (SESSION, 0)] {
            let line = &status.readers[&reader];
            let damaged = lost.iter().copied().filter(|seq| after(settled)(seq)).count() as u64;
            let expected: BTreeMap<DropReason, u64> =
                [(DropReason::Damaged, damaged)].into_iter().filter(|(_, rows)| *rows > 0).collect();
            assert_eq!(line.dropped, expected, "page {page}: {line:?}");
            assert_eq!(line.received, line.delivered + line.queued + damaged, "page {page}: {line:?}");
        }
    }
}

fn read_of_session(rig: &mut Rig) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let read = rig.read(SESSION, after, 50).expect("the store answers");
        found.extend(read.rows.iter().map(|row| row.seq.0));
        assert!(read.rows.iter().all(|row| row.message == content(row.seq.0)));
        if read.through == read.newest {
            return found;
        }
        after = read.through.0;
    }
}

/// The rows that need each page of a database, in it or where it goes on.
fn pages(disk: &FaultyDisk, path: &Path) -> BTreeMap<usize, BTreeSet<u64>> {
    let bytes = disk.bytes(path).unwrap();
    let all: Vec<btree::Page> = bytes.chunks_exact(4_096).map(|page| page.try_into().unwrap()).collect();
    let mut found: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for (number, page) in (1u32..).zip(&all) {
        if btree::kind(number, page) != Some(btree::Kind::Leaf) {
            continue;
        }
        // A row of the log, and not of another table: its payload says which.
        let is_row = |cell: &btree::Cell<'_>| {
            let begin = format!("{} ", cell.id).into_bytes();
            cell.id > 0 && cell.local.windows(begin.len()).any(|window| window == begin)
        };
        for cell in btree::cells(number, page, btree::Kind::Leaf).filter(is_row) {
            let (mut at, mut next) = (number as usize, cell.overflow as usize);
            let mut left = cell.length - cell.local.len();
            found.entry(at).or_default().insert(cell.id as u64);
            while left > 0 {
                at = next;
                found.entry(at).or_default().insert(cell.id as u64);
                left = left.saturating_sub(4_092);
                next = u32::from_be_bytes(all[at - 1][..4].try_into().unwrap()) as usize;
            }
        }
    }
    found
}

/// The page of a database in which it says which rows of a segment are the route's.
fn index_of(disk: &FaultyDisk, path: &Path, segment: u32) -> usize {
    let bytes = disk.bytes(path).unwrap();
    let is_index = |cell: &btree::Cell<'_>| {
        let is_it = |at| segment::unpack_index(segment, ROUTE, &cell.local[at..]).is_some();
        cell.id == -i64::from(ROUTE.0) && (0..cell.local.len()).any(is_it)
    };
    let has_it = |(number, page): &(u32, btree::Page)| {
        btree::kind(*number, page) == Some(btree::Kind::Leaf)
            && btree::cells(*number, page, btree::Kind::Leaf).any(|cell| is_index(&cell))
    };
    let mut pages = (1u32..).zip(bytes.chunks_exact(4_096).map(|page| page.try_into().unwrap()));
    pages.find(has_it).expect("it is there").0 as usize
}

/// Flips a bit of what a database says of which rows of a segment are the route's.
fn spoil_index(disk: &FaultyDisk, path: &Path, segment: u32) {
    let number = index_of(disk, path, segment);
    let at = (number - 1) * 4_096;
    let page: btree::Page = disk.bytes(path).unwrap()[at..][..4_096].try_into().unwrap();
    let mut cells = btree::cells(number as u32, &page, btree::Kind::Leaf);
    let cell = cells.find(|cell| cell.id == -i64::from(ROUTE.0)).expect("it is there").local;
    let place = page.windows(cell.len()).position(|bytes| bytes == cell).expect("it is there");
    // The checksum.
    disk.harm(path, |bytes| bytes[at + place + cell.len() - 1] ^= 1);
}

/// The page of a database above this one.
fn above(disk: &FaultyDisk, path: &Path, page: usize) -> usize {
    let bytes = disk.bytes(path).unwrap();
    let is_above = |(number, above): &(u32, btree::Page)| {
        btree::kind(*number, above) == Some(btree::Kind::Inner)
            && btree::children(*number, above, btree::Kind::Inner)
                .iter()
                .any(|child| child.0 as usize == page)
    };
    let mut pages = (1u32..).zip(bytes.chunks_exact(4_096).map(|page| page.try_into().unwrap()));
    pages.find(is_above).expect("it is there").0 as usize
}

/// Damages these pages of a file, and its header.
fn damage(disk: &FaultyDisk, path: &Path, pages: &[usize]) {
    disk.harm(path, |bytes| {
        bytes[0] ^= 1;
        pages.iter().for_each(|page| bytes[(page - 1) * 4_096..][..4_096].fill(0xa5));
    });
}

/// Starts, after as many attempts as that takes.
fn start_in_the_end(disk: &FaultyDisk, stand_in: &mut absent::Absent) -> Rig {
    for _ in 0..2 * patience::TRIES {
        if let Ok(rig) = start(disk) {
            return rig;
        }
        let _ = stand_in.attempt(LONG, WALL);
    }
    panic!("it never starts");
}

fn put_aside(disk: &FaultyDisk) -> usize {
    let names = disk.names(&disk.dir()).into_iter();
    names
        .filter(|path| path.extension().is_some_and(|end| end.to_string_lossy().starts_with("damaged-")))
        .count()
}

/// Waits until both readers have been over all of it.
fn wait_for_both(rig: &mut Rig) {
    for reader in [ROUTE, SESSION] {
        let there = (0..60).any(|_| {
            let is_there = rig.read(reader, 0, 2_000).is_some();
            rig.wait(3_000);
            is_there
        });
        assert!(there, "{reader:?} waits for ever");
    }
}

#[test]
fn a_page_of_a_file_apart_that_is_bad_at_a_start_costs_the_rows_in_it_and_no_other() {
    let whole = Whole::new();
    let mut most = 0;
    // Of the tables that are always there, and of segments.
    for page in [1, 2, 3, 7].into_iter().chain(whole.pages_with_rows().into_iter().step_by(10)) {
        let disk = whole.spoilt(page);
        let mut rig = start_in_the_end(&disk, &mut absent(&disk));
        wait_for_both(&mut rig);
        whole.check(&mut rig, page);
        most = most.max(whole.lost_with(page).len());
        let aside = put_aside(&disk);
        assert!(
            aside > 0 || whole.lost_with(page).is_empty(),
            "page {page}: it is kept for who can read more"
        );
        assert_eq!(apart(&rig).is_empty(), aside > 0, "page {page}");
        assert!(rig.commit(rows(ROWS + 1..=ROWS + 1)), "page {page}");
    }
    println!("measured: at most {most} of {ROWS} rows lost with one of {} pages", whole.count());
    assert!(most > 0);
}

/// A store at work, of whose file apart this page is bad from now on.
fn at_work(whole: &Whole, disk: &FaultyDisk, page: usize) -> Rig {
    let rig = start(disk).unwrap_or_else(|error| panic!("cannot {error}"));
    let connection = rig.worker.database.connection.as_ref().unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    disk.spoil(&disk.dir().join(whole.path.file_name().unwrap()), page);
    rig
}

#[test]
fn a_page_of_a_file_apart_that_becomes_bad_costs_the_rows_in_it_and_no_other() {
    let whole = Whole::new();
    let pages = whole.pages_with_rows();
    assert!(pages.len() > 20, "{}", pages.len());
    for page in pages.into_iter().step_by(9) {
        let disk = whole.disk.copied();
        let mut rig = at_work(&whole, &disk, page);
        assert!(rig.read(SESSION, 0, 2_000).is_none(), "page {page}");
        (0..5).for_each(|_| rig.wait(3_000));
        assert!(rig.commit(Vec::new()), "page {page}: nobody else waits");
        assert_eq!(put_aside(&disk), 0, "page {page}: perhaps it will be read");
        wait_for_both(&mut rig);
        whole.check(&mut rig, page);
        assert!(put_aside(&disk) > 0 && apart(&rig).is_empty(), "page {page}");
    }
}

#[test]
fn a_cut_while_a_file_apart_is_copied_on_loses_no_more() {
    let whole = Whole::new();
    let pages = whole.pages_with_rows();
    let mut cuts = 0;
    'pages: for page in [pages[0], pages[pages.len() / 2]] {
        for changes in (0..4_000).step_by(31) {
            let disk = whole.disk.copied();
            let mut rig = at_work(&whole, &disk, page);
            assert!(rig.read(SESSION, 0, 2_000).is_none(), "page {page}");
            disk.cut_in(changes);
            let ended = (0..40).any(|_| {
                rig.wait(3_000);
                disk.is_off() || put_aside(&disk) > 0
            });
            assert!(ended, "page {page}");
            let interrupted = disk.is_off();
            disk.cut();
            drop(rig);
            disk.power_on(&mut Random(changes));
            let mut rig = start_in_the_end(&disk, &mut absent(&disk));
            wait_for_both(&mut rig);
            whole.check(&mut rig, page);
            if !interrupted {
                continue 'pages;
            }
            cuts += 1;
        }
        panic!("it does not change so much");
    }
    println!("measured: cut {cuts} times");
    assert!(cuts > 4, "{cuts}");
}

#[test]
fn a_file_apart_that_is_damaged_costs_no_row_that_can_be_read() {
    let whole = Whole::new();
    let disk = whole.disk.copied();
    disk.harm(&disk.dir().join(whole.path.file_name().unwrap()), |bytes| bytes[0] ^= 1);
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    whole.check(&mut rig, 0);
    assert!(put_aside(&disk) > 0 && apart(&rig).is_empty());
}

#[test]
fn a_segment_of_a_file_apart_that_nothing_holds_together_costs_no_row_that_can_be_read() {
    let whole = Whole::new();
    for segment in [2, 5] {
        let disk = whole.disk.copied();
        let path = disk.dir().join(whole.path.file_name().unwrap());
        let root = above(&disk, &path, index_of(&disk, &path, segment));
        // The first page of the pointer map, and the one that lists the segment's pages.
        damage(&disk, &path, &[2, root]);
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
        whole.check(&mut rig, 0);
        assert!(put_aside(&disk) > 0 && apart(&rig).is_empty());
    }
}

#[test]
fn an_index_that_was_read_and_is_lost_with_a_file_apart_counts_no_row_twice() {
    let (whole, segment) = (Whole::new(), 3);
    let disk = whole.disk.copied();
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    assert!(read_all(&mut rig).into_iter().eq(SETTLED + 1..=ROWS));
    assert!(read_of_session(&mut rig).into_iter().eq(1..=ROWS));
    let path = disk.dir().join(whole.path.file_name().unwrap());
    spoil_index(&disk, &path, segment);
    // And with it some rows of the segment, but not those that name the others' topics.
    let is_of = |page: &usize| {
        let lost = whole.lost_with(*page);
        let rows = &whole.segments[segment as usize - 1];
        lost.iter().all(|seq| rows.contains(seq)) && lost.len() < rows.len() / 2
    };
    let page = whole.pages_with_rows().into_iter().find(is_of).expect("it is there");
    damage(&disk, &path, &[page]);
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(Vec::new()));
    assert_eq!(disk.faults().sync, None, "it was met");
    whole.check(&mut rig, page);
    assert!(put_aside(&disk) > 0);
}

#[test]
fn a_sync_that_fails_while_a_damaged_file_apart_is_copied_on_loses_nothing() {
    let whole = Whole::new();
    for which in 0..100 {
        let disk = damaged(&whole);
        disk.fail(|faults| faults.sync = Some((Kind::Wal, which)));
        drop(start(&disk));
        let is_met = disk.faults().sync.is_none();
        drop(start(&disk).unwrap_or_else(|error| panic!("sync {which}: cannot {error}")));
        disk.cut();
        disk.lose_what_is_not_synced();
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("sync {which}: cannot {error}"));
        println!("sync {which}");
        whole.check(&mut rig, 0);
        if !is_met {
            assert!(which as usize > whole.segments.len(), "{which}");
            return;
        }
    }
    panic!("it does not sync so often");
}

#[test]
fn a_file_apart_that_cannot_be_opened_keeps_no_successor_from_being_made() {
    let whole = Whole::new();
    let disk = whole.disk.copied();
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    disk.spoil(&disk.dir().join(whole.path.file_name().unwrap()), 1);
    disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(rows(ROWS + 1..=ROWS + 1)));
    assert_eq!(put_aside(&disk), 2, "the file and its WAL");
    rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: vec![Seq(ROWS + 1)] }]);
    assert!(rig.commit(Vec::new()));
    assert!(read_all(&mut rig).into_iter().eq(SETTLED + 1..=ROWS));
    assert!(read_of_session(&mut rig).into_iter().eq(1..=ROWS));
}

#[test]
fn a_sync_that_fails_while_an_index_cannot_be_read_stops_the_store_for_no_longer_than_a_minute() {
    let disk = FaultyDisk::new();
    let mut rig = filled(&disk);
    // The route is in the midst of it.
    let (segment, rows) = (2, 61..=120);
    assert!(rows.contains(&SETTLED));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    let path = disk.dir().join("tidegate.db");
    let page = index_of(&disk, &path, segment);
    disk.spoil(&path, page);
    let pages = pages(&disk, &path);
    let whole = Whole { disk, path, segments: vec![rows.collect()], pages };
    whole.disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    assert!(rig.commit(Vec::new()), "it is stopped");
    assert_eq!(whole.disk.faults().sync, None, "it was met");
    wait_for_both(&mut rig);
    whole.check(&mut rig, page);
    assert!(rig.commit(super::faults::rows(ROWS + 1..=ROWS + 1)));
    assert!(put_aside(&whole.disk) > 0 && apart(&rig).is_empty(), "it is kept for who can read more");
}

/// Leaves so many bytes free on a disk from now on.
fn fill_up_to(disk: &FaultyDisk, free: u64) {
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = taken + free);
}

/// The reserve holds no room.
fn give_up_reserve(disk: &FaultyDisk) {
    let _ = disk.remove(&disk.dir().join("tidegate.reserve"));
}

/// A copy in which the file apart is damaged.
fn damaged(whole: &Whole) -> FaultyDisk {
    let disk = whole.disk.copied();
    disk.harm(&disk.dir().join(whole.path.file_name().unwrap()), |bytes| bytes[0] ^= 1);
    disk
}

#[test]
fn the_reserve_and_what_was_put_aside_make_room_for_what_a_damaged_file_apart_has() {
    let whole = Whole::new();
    let need = whole.disk.size(&whole.path).unwrap();
    for is_reserve in [true, false] {
        let disk = damaged(&whole);
        give_up_reserve(&disk);
        let name = if is_reserve { "tidegate.reserve" } else { "tidegate.db.damaged-000000000001" };
        disk.put(&disk.dir().join(name), vec![7; 3 * need as usize]);
        fill_up_to(&disk, 20_000);
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("{name}: cannot {error}"));
        whole.check(&mut rig, 0);
        assert!(put_aside(&disk) > 0 && apart(&rig).is_empty(), "{name}");
    }
}

#[test]
fn a_damaged_file_apart_keeps_no_store_from_starting_where_nothing_makes_room() {
    let whole = Whole::new();
    let disk = damaged(&whole);
    give_up_reserve(&disk);
    fill_up_to(&disk, 20_000);
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    assert!(put_aside(&disk) > 0 && apart(&rig).is_empty(), "it is kept for who can read more");
    let found = read_of_session(&mut rig).len() as u64;
    disk.fail(|faults| faults.capacity = 0);
    assert!(rig.commit(Vec::new()));
    let line = rig.status().readers[&SESSION].clone();
    assert!(line.dropped[&DropReason::Damaged] > 0, "{line:?}");
    assert_eq!((line.queued, line.queued + line.dropped[&DropReason::Damaged]), (found, ROWS), "{line:?}");
}

#[test]
fn rows_of_a_damaged_database_go_before_those_of_a_damaged_file_apart_where_there_is_no_room_for_both() {
    let (whole, rows) = (Whole::new(), ROWS + 1..=ROWS + 120);
    let disk = whole.disk.copied();
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    assert!(rig.commit(rows.clone().map(|seq| wanted(seq, content(seq), &[SESSION])).collect()));
    rig.worker.close();
    let database = disk.dir().join("tidegate.db");
    let path = disk.dir().join(whole.path.file_name().unwrap());
    [&database, &path].into_iter().for_each(|path| disk.harm(path, |bytes| bytes[0] ^= 1));
    give_up_reserve(&disk);
    let need = disk.size(&database).unwrap();
    assert!(disk.size(&path).unwrap() > need, "together they do not fit");
    fill_up_to(&disk, need * 3 / 2);
    let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
    disk.fail(|faults| faults.capacity = 0);
    let found = read_of_session(&mut rig);
    let apart: BTreeSet<u64> = whole.segments.iter().flatten().copied().collect();
    let missing: Vec<u64> = (1..=*rows.end()).filter(|seq| !found.contains(seq)).collect();
    assert!(!missing.is_empty() && missing.iter().all(|seq| apart.contains(seq)), "{missing:?}");
    assert!(rig.commit(Vec::new()));
    let line = rig.status().readers[&SESSION].clone();
    assert_eq!(line.dropped, BTreeMap::from([(DropReason::Damaged, missing.len() as u64)]), "{line:?}");
    assert_eq!(line.queued, found.len() as u64, "{line:?}");
}

#[test]
fn a_stand_in_that_met_a_full_disk_tries_again_when_there_is_room() {
    let (whole, segment) = (Whole::new(), 2);
    // That page has an index which the log needs.
    let index = index_of(&whole.disk, &whole.path, segment);
    let disk = whole.spoilt(index);
    give_up_reserve(&disk);
    fill_up_to(&disk, 20_000);
    let mut stand_in = absent(&disk);
    for _ in 0..2 * patience::TRIES {
        assert!(stand_in.attempt(LONG, WALL).is_err(), "there is no room");
    }
    assert_eq!(put_aside(&disk), 0, "it waits for room");
    disk.fail(|faults| faults.capacity = 0);
    let mut rig = start_in_the_end(&disk, &mut stand_in);
    wait_for_both(&mut rig);
    whole.check(&mut rig, index);
    assert!(put_aside(&disk) > 0 && apart(&rig).is_empty());
}

#[test]
fn rows_that_are_damaged_in_the_database_are_had_from_a_file_apart_that_has_them_too() {
    let whole = Whole::new();
    let here = pages(&whole.disk, &whole.disk.dir().join("tidegate.db"));
    let in_rows: Vec<usize> = here.iter().filter(|(_, rows)| rows.len() > 1).map(|(page, _)| *page).collect();
    assert!(in_rows.len() > 10, "{in_rows:?}");
    for page in in_rows.into_iter().step_by(3) {
        let disk = whole.disk.copied();
        damage(&disk, &disk.dir().join("tidegate.db"), &[page]);
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
        whole.check(&mut rig, 0);
    }
}

#[test]
fn an_index_that_is_damaged_in_a_file_apart_costs_no_row_where_the_database_is_salvaged() {
    let (whole, segment) = (Whole::new(), 3);
    for is_older_there in [false, true] {
        let disk = whole.disk.copied();
        let path = disk.dir().join(whole.path.file_name().unwrap());
        if is_older_there {
            // It has the same segments, and is damaged.
            let older = disk.dir().join("tidegate.db.unsynced-000000");
            disk.put(&older, disk.bytes(&path).unwrap());
            damage(&disk, &older, &[]);
        }
        spoil_index(&disk, &path, segment);
        damage(&disk, &disk.dir().join("tidegate.db"), &[]);
        let mut rig = start(&disk).unwrap_or_else(|error| panic!("cannot {error}"));
        whole.check(&mut rig, 0);
    }
}
