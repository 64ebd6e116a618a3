//! A disk that does not read: what SQLite calls damage and is none.
//!
//! SQLite's own layer turns EIO into an error that SQLite then calls damage, and so does the disk of these tests.
//! Nothing may be given up for it at once, and whoever needs nothing of that place goes on.

use super::cuts::{Rig, SIZES, content};
use super::disk::FaultyDisk;
use super::faults::{ROUTE, read_all, rows, seqs, start};
use super::*;
use crate::record::{DropReason, Keep};
use crate::store::btree::{self, Kind};
use crate::store::disk::Disk;
use crate::store::handle::Ask;

/// A closed store with 200 rows for the route.
pub(super) fn filled() -> FaultyDisk {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(vec![session(ReaderId(9))]));
    assert!(rig.commit(rows(1..=200)));
    rig.worker.close();
    disk
}

/// The page in which a row lies.
pub(super) fn page_of(disk: &FaultyDisk, seq: u64) -> usize {
    let payload = &content(seq).payload;
    let begin = &payload[..payload.len().min(100)];
    let all = pages(disk);
    let is_leaf = |(number, page): &&(u32, Box<btree::Page>)| btree::kind(*number, page) == Some(Kind::Leaf);
    let has_it = |page: &&(u32, Box<btree::Page>)| {
        page.1.windows(begin.len()).any(|window| window == begin)
            && rows_in(disk, page.0 as usize).contains(&seq)
    };
    all.iter().filter(is_leaf).find(has_it).expect("it is there").0 as usize
}

/// The pages of the database, each with its number.
fn pages(disk: &FaultyDisk) -> Vec<(u32, Box<btree::Page>)> {
    let bytes = disk.bytes(&disk.dir().join("tidegate.db")).unwrap();
    let page = |bytes: &[u8]| Box::new(<btree::Page>::try_from(bytes).unwrap());
    (1u32..).zip(bytes.chunks_exact(4_096).map(page)).collect()
}

/// The rows that lie in a page, as far as it is a leaf.
fn rows_in(disk: &FaultyDisk, page: usize) -> Vec<u64> {
    let (number, page) = pages(disk).swap_remove(page - 1);
    let cells = btree::cells(number, &page, btree::kind(number, &page).unwrap());
    cells.filter_map(|cell| u64::try_from(cell.id).ok()).collect()
}

pub(super) fn settle(rig: &mut Rig, range: std::ops::RangeInclusive<u64>) {
    rig.worker.turn(vec![Ask::Settle { reader: ROUTE, seqs: range.map(Seq).collect() }]);
}

/// Every row of the route is accounted for. Returns how many are lost.
pub(super) fn lost(rig: &mut Rig) -> u64 {
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!(line.received, line.delivered + line.queued + line.expired + dropped, "{line:?}");
    let lost = line.dropped.get(&DropReason::Damaged).copied().unwrap_or(0);
    assert_eq!(dropped, lost, "{line:?}");
    lost
}

#[test]
fn a_finished_segment_that_cannot_be_read_stops_no_commit() {
    let disk = filled();
    let page = page_of(&disk, 50);
    for life in 0..2 {
        let mut rig = start(&disk);
        if life == 0 {
            assert!(rig.read(ROUTE, 0, 60).is_some());
            rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
            disk.fail(|faults| faults.bad_page = page);
        }
        settle(&mut rig, 1..=60);
        rig.hand_over(rows(201 + life..=201 + life));
        rig.wait(500);
        assert!(rig.all_told(), "{:?}", rig.status().trouble);
        assert_eq!(rig.status().trouble, None);
        assert_eq!(read_all(&mut rig), seqs(61..=201 + life));
        assert_eq!(lost(&mut rig), 0);
        rig.worker.close();
    }
    assert!(asides(&disk).is_empty());
}

#[test]
fn whose_the_rows_of_a_segment_are_is_known_where_its_end_is_undone() {
    let disk = filled();
    let page = page_of(&disk, 50);
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=200));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    disk.fail(|faults| faults.bad_page = page);
    // With the last of its rows the segment is dropped.
    settle(&mut rig, 1..=200);
    rig.hand_over(rows(201..=201));
    rig.wait(500);
    assert!(rig.all_told(), "{:?}", rig.status().trouble);
    assert_eq!(rig.status().trouble, None);
    assert_eq!(lost(&mut rig), 0);
}

#[test]
fn whichever_page_cannot_be_read_the_store_goes_on_with_the_others() {
    let whole = filled();
    let count = pages(&whole).len();
    let mut most = 0;
    for page in 1..=count {
        let disk = whole.copied();
        let mut rig = start(&disk);
        let connection = rig.worker.database.connection.as_ref().unwrap();
        // It does not know any page any more.
        connection.execute_batch("PRAGMA shrink_memory").unwrap();
        disk.fail(|faults| faults.bad_page = page);
        for block in 0..8 {
            assert!(rig.commit(rows(201 + block * 20..=220 + block * 20)), "page {page}");
        }
        settle(&mut rig, 1..=100);
        assert!(rig.commit(Vec::new()), "page {page}");
        let there = (0..60).any(|_| {
            rig.wait(3_000);
            rig.read(ROUTE, 100, 500).is_some_and(|read| read.through == read.newest)
        });
        assert!(there, "page {page}: its reader waits for ever");
        assert!(rig.commit(Vec::new()), "page {page}");
        let found = read_all(&mut rig);
        let lost = lost(&mut rig);
        most = most.max(lost);
        assert_eq!(
            found.iter().filter(|seq| **seq > 200).count(),
            160,
            "page {page}: they are in none of it"
        );
        rig.wait(3_000);
        assert_eq!(rig.status().trouble, None, "page {page}");
        rig.worker.close();
        // Or it may be one that only a start needs.
        disk.fail(|faults| faults.bad_page = 0);
        assert_eq!(read_all(&mut start(&disk)), found, "page {page}");
    }
    println!("measured: at most {most} rows lost with one of {count} pages");
    assert!((1..=12).contains(&most), "{most}");
}

/// The page in which the segments are listed.
const SEGMENTS: usize = schema::ROOTS[4] as usize;

/// So large that a page is a small part of one.
const LARGE: Sizes = Sizes {
    segment_rows: 400,
    segment_bytes: 8 << 20,
    copy_below: 4,
    checkpoint_frames: 24,
    reserve: 70_000,
};

#[test]
fn a_page_that_can_never_be_read_costs_the_rows_in_it_and_no_other() {
    let disk = FaultyDisk::new();
    let start = || Rig::start(&disk, LARGE, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"));
    let mut rig = start();
    assert!(rig.commit(rows(1..=900)));
    rig.worker.close();
    // Not the page in which the segment's topics are named.
    let page =
        (160..180).map(|seq| page_of(&disk, seq)).find(|page| rows_in(&disk, *page).len() > 5).unwrap();
    let bad = rows_in(&disk, page);
    assert!(bad[0] > 100, "{bad:?}");
    disk.fail(|faults| faults.bad_page = page);
    let mut rig = start();
    let there = (0..60).any(|_| {
        rig.wait(3_000);
        rig.read(ROUTE, 100, 60).is_some_and(|read| read.rows.len() == 60)
    });
    assert!(there, "its readers are not kept waiting for ever");
    assert!(rig.commit(rows(901..=901)));
    let rest: Vec<u64> = (1..=901).filter(|seq| !bad.contains(seq)).collect();
    assert_eq!(read_all(&mut rig), rest);
    assert_eq!(lost(&mut rig), bad.len() as u64);
    assert_eq!(rig.status().trouble, None);
    assert_eq!(read_all(&mut super::faults::cut(rig)), rest);
}

#[test]
fn a_place_without_which_nothing_can_be_opened_is_gone_round_however_long_each_try_takes() {
    let disk = filled();
    let mut rig = start(&disk);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    disk.fail(|faults| (faults.bad_page, faults.writes) = (SEGMENTS, 1));
    rig.slow_reads(60_000);
    rig.hand_over(rows(201..=201));
    assert!(rig.worker.database.connection.is_none(), "it is lost with the place");
    let began = rig.elapsed();
    rig.wait(3_000);
    assert!(rig.elapsed() - began > 64_000, "a try takes longer than any rest");
    let told = (0..40).any(|_| {
        rig.wait(3_000);
        rig.all_told()
    });
    assert!(told, "{:?}", rig.status().trouble);
    assert_eq!(read_all(&mut rig), seqs(1..=201));
    assert_eq!(lost(&mut rig), 0);
    assert!(!asides(&disk).is_empty());
}

#[test]
fn a_place_that_cannot_be_read_stops_no_commit_where_rows_are_dropped_for_their_age() {
    let disk = filled();
    let page = page_of(&disk, 1);
    disk.fail(|faults| faults.bad_page = page);
    let bounds = [("up", Bounds { max_age: Some(600_000), ..Bounds::default() })];
    let mut rig = Rig::start_bounded(&disk, SIZES, &["up".into()], &bounds).unwrap_or_else(|_| panic!());
    for seq in 201..=220 {
        rig.hand_over(rows(seq..=seq));
        assert!(rig.all_told(), "row {seq} waits for nobody");
        rig.wait(500);
        assert_eq!(rig.status().trouble, None);
    }
    disk.fail(|faults| faults.bad_page = 0);
    rig.wait(700_000);
    rig.wait(20_000);
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((line.queued, line.expired), (0, 220), "and they are once it can");
}

#[test]
fn of_a_place_that_can_be_read_again_the_latest_of_each_topic_wait_and_no_other() {
    let disk = filled();
    let page = page_of(&disk, 50);
    disk.fail(|faults| faults.bad_page = page);
    let bounds = [("up", Bounds { keep: Keep::Latest, ..Bounds::default() })];
    let mut rig = Rig::start_bounded(&disk, SIZES, &["up".into()], &bounds).unwrap_or_else(|_| panic!());
    assert!(rig.commit(rows(201..=240)));
    disk.fail(|faults| faults.bad_page = 0);
    rig.wait(3_000);
    assert!(rig.commit(rows(241..=241)));
    let is_latest = |seq: &u64| (seq + 1..=241).all(|later| content(later).topic != content(*seq).topic);
    assert_eq!(read_all(&mut rig), (201..=241).filter(is_latest).collect::<Vec<u64>>());
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!((line.received, line.dropped[&DropReason::Superseded]), (241, 241 - line.queued));
}

#[test]
fn a_place_that_cannot_be_read_stops_no_commit_however_long_the_way_back_takes() {
    let disk = filled();
    let page = page_of(&disk, 1);
    disk.fail(|faults| faults.bad_page = page);
    // Each commit asks how old the first row is.
    let bounds = [("up", Bounds { max_age: Some(1 << 40), ..Bounds::default() })];
    let mut rig = Rig::start_bounded(&disk, SIZES, &["up".into()], &bounds).unwrap_or_else(|_| panic!());
    // So that a log is loaded from the disk.
    let connection = rig.worker.database.connection.as_ref().unwrap();
    connection.execute_batch("PRAGMA cache_size = 1; PRAGMA shrink_memory").unwrap();
    rig.slow_reads(150);
    let (refused, mut took) = (disk.refused(), Vec::new());
    for seq in 201..=220 {
        let began = rig.elapsed();
        rig.hand_over(rows(seq..=seq));
        assert!(rig.all_told(), "row {seq} waits for the disk: {:?}", rig.status().trouble);
        took.push(rig.elapsed() - began);
    }
    took.sort_unstable();
    assert!(took[19] - took[0] > 3_000, "{took:?}: the way back is longer than any rest");
    let tries = disk.refused() - refused;
    assert!((3..=15).contains(&tries), "{tries} tries in 20 commits: {took:?}");
    assert_eq!(rig.status().trouble, None);
    rig.slow_reads(0);
    disk.fail(|faults| faults.bad_page = 0);
    rig.wait(3_000);
    assert_eq!(read_all(&mut rig), seqs(1..=220));
    assert_eq!(lost(&mut rig), 0);
}

/// Of several pages each.
pub(super) const LONG: Sizes =
    Sizes { segment_rows: 60, segment_bytes: 60_000, checkpoint_frames: 90, ..SIZES };

/// Lets three minutes pass in such steps; nobody reads. Says how often it was in trouble in the last one.
fn pass(rig: &mut Rig, step: u64, mut turn: impl FnMut(&mut Rig)) -> u64 {
    let (began, mut troubled) = (rig.elapsed(), 0);
    while rig.elapsed() < began + 180_000 {
        rig.wait(step);
        turn(rig);
        let is_late = rig.elapsed() >= began + 120_000;
        troubled += u64::from(is_late && rig.status().trouble.is_some());
    }
    troubled
}

#[test]
fn a_place_that_only_the_shrinking_of_the_file_meets_is_gone_round() {
    for step in [1_000, 100] {
        let disk = FaultyDisk::new();
        let start = || Rig::start(&disk, LONG, &["up".into()]).unwrap_or_else(|_| panic!());
        let mut rig = start();
        for block in 0..12 {
            assert!(rig.commit(rows(block * 60 + 1..=block * 60 + 60)));
        }
        rig.worker.close();
        let page = (610..640).map(|seq| page_of(&disk, seq)).max().unwrap();
        let bad = rows_in(&disk, page);
        let before = disk.size(&disk.dir().join("tidegate.db")).unwrap();
        let mut rig = start();
        disk.fail(|faults| faults.bad_page = page);
        settle(&mut rig, 1..=540);
        assert!(rig.commit(Vec::new()));
        let troubled = pass(&mut rig, step, |_| ());
        assert_eq!(troubled, 0, "every {step} ms: it is tried for ever");
        let after = disk.size(&disk.dir().join("tidegate.db")).unwrap();
        assert!(after < before * 2 / 3, "every {step} ms: {after} of {before} bytes");
        let rest: Vec<u64> = (541..=720).filter(|seq| !bad.contains(seq)).collect();
        assert_eq!(read_all(&mut rig), rest, "every {step} ms");
    }
}

#[test]
fn a_place_that_only_the_moving_of_the_log_meets_is_gone_round() {
    for step in [1_000, 100] {
        let disk = FaultyDisk::new();
        let mut rig = Rig::start(&disk, LONG, &["up".into()]).unwrap_or_else(|_| panic!());
        assert!(rig.commit(rows(1..=60)));
        assert!(rig.commit(rows(61..=62)));
        let log = disk.dir().join("tidegate.db-wal");
        let (bytes, payload) = (disk.bytes(&log).unwrap(), &content(30).payload);
        let begin = &payload[..payload.len().min(100)];
        let at = bytes.windows(begin.len()).position(|window| window == begin).expect("it is not moved yet");
        disk.fail(|faults| faults.bad_log_page = at / 4_096 + 1);
        let (mut last, mut largest) = (62, 0);
        let troubled = pass(&mut rig, step, |rig| {
            last += 1;
            rig.hand_over(rows(last..=last));
            largest = largest.max(disk.size(&log).unwrap());
        });
        assert_eq!(troubled, 0, "every {step} ms: it is tried for ever");
        assert!(rig.settle_down());
        println!("measured: every {step} ms, up to {largest} bytes of log");
        assert!(disk.size(&log).unwrap() < 2 * LONG.checkpoint_frames * 4_120, "every {step} ms");
        let found = read_all(&mut rig);
        assert!(found.len() as u64 >= last - 15, "every {step} ms: {} of {last} rows", found.len());
        assert_eq!(found.len() as u64 + lost(&mut rig), last);
    }
}

#[test]
fn a_damaged_inner_page_costs_no_row() {
    let disk = FaultyDisk::new();
    let sizes = Sizes { segment_rows: 900, ..LARGE };
    let start = || Rig::start(&disk, sizes, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"));
    let mut rig = start();
    for block in 0..20 {
        let large = |seq| sized(seq, 3_000, &[ROUTE]);
        assert!(rig.commit((block * 50 + 1..=block * 50 + 50).map(large).collect()));
    }
    rig.worker.close();
    let all = pages(&disk);
    let inner = |(number, page): &&(u32, Box<btree::Page>)| btree::kind(*number, page) == Some(Kind::Inner);
    let children = |(number, page): &(u32, Box<btree::Page>)| btree::children(*number, page, Kind::Inner);
    let below: Vec<u32> = all.iter().filter(inner).flat_map(children).map(|child| child.0).collect();
    let is_late = |page: &&(u32, Box<btree::Page>)| {
        below.contains(&page.0) && (200..800).contains(&children(page).first().map_or(0, |child| child.1))
    };
    let damaged = all.iter().filter(inner).find(is_late).expect("a tree of three levels").0;
    let mut bytes = disk.bytes(&disk.dir().join("tidegate.db")).unwrap();
    bytes[(damaged as usize - 1) * 4_096..][..64].fill(0xa5);
    disk.put(&disk.dir().join("tidegate.db"), bytes);
    let mut rig = start();
    let (mut found, mut after) = (Vec::new(), 0);
    while after < 1_000 {
        let read = rig.read(ROUTE, after, 100).expect("the store answers");
        found.extend(read.rows.iter().map(|row| row.seq.0));
        after = read.through.0;
    }
    assert!(rig.commit(vec![sized(1_001, 3_000, &[ROUTE])]));
    assert!(found == seqs(1..=1_000), "{} rows", found.len());
    assert_eq!(lost(&mut rig), 0);
}

fn asides(disk: &FaultyDisk) -> Vec<PathBuf> {
    let mut names = disk.names(&disk.dir());
    names.retain(|path| path.to_string_lossy().contains("damaged"));
    names
}

#[test]
fn a_place_that_cannot_be_read_stops_no_commit() {
    let disk = filled();
    let mut rig = start(&disk);
    let page = page_of(&disk, 50);
    disk.fail(|faults| faults.bad_page = page);
    assert!(rig.read(ROUTE, 0, 60).is_none(), "it is held back");
    for seq in 201..=220 {
        rig.hand_over(rows(seq..=seq));
        assert!(rig.all_told(), "row {seq} waits for nobody");
        rig.wait(500);
        assert_eq!(rig.read(ROUTE, 200, 60).map(|read| read.rows.len() as u64), Some(seq - 200));
    }
    assert!(rig.read(ROUTE, 0, 60).is_none(), "whoever asks for it again waits again");
    let status = rig.status();
    assert_eq!(status.trouble.as_deref(), Some("the disk cannot be read"));
    assert_eq!(status.readers[&ROUTE].queued, 220);
    disk.fail(|faults| faults.bad_page = 0);
    rig.wait(3_000);
    assert_eq!(read_all(&mut rig), seqs(1..=220));
    let status = rig.status();
    assert_eq!((status.trouble, status.readers[&ROUTE].dropped.len()), (None, 0));
    assert!(asides(&disk).is_empty());
}

/// Stands in for the store on this disk.
pub(super) fn absent(disk: &FaultyDisk) -> absent::Absent {
    absent::Absent {
        files: Files::on(Arc::new(disk.clone()), &disk.dir()),
        config: Config { min_free_disk: "0B".into(), ..Config::default() }.check().unwrap(),
        inbox: Handle::channel().1,
        clock: Box::new(|| Now::steady(0, WALL)),
        trouble: String::new(),
        tries: Tries::default(),
        readable: None,
        on_available: None,
    }
}

/// Reads until everything is there that will be.
pub(super) fn wait_until_read(rig: &mut Rig) {
    for _ in 0..40 {
        rig.wait(3_000);
        if rig.read(ROUTE, 0, 500).is_some_and(|read| read.through == read.newest) {
            break;
        }
    }
}

/// Starts without this bad place; before it is given up it is tried for long. Returns the rows that are there.
fn start_in_the_end(disk: &FaultyDisk, what: &str) -> Vec<u64> {
    let mut stand_in = absent(disk);
    let mut refused = 0;
    let mut rig = loop {
        let could = stand_in.attempt(SIZES, WALL).is_ok();
        let started = Rig::start(disk, SIZES, &["up".into()]);
        assert_eq!(started.is_ok(), could, "{what}: the house is only built anew where that helps");
        match started {
            Ok(rig) => break rig,
            Err(_) => refused += 1,
        }
        assert!(refused < patience::TRIES, "{what}: it never starts");
    };
    assert!(refused == 0 || refused == patience::TRIES - 1, "{what}: after {refused} attempts");
    assert_eq!(asides(disk).is_empty(), refused == 0, "{what}: {:?}", asides(disk));
    assert!(rig.commit(rows(201..=201)), "{what}");
    wait_until_read(&mut rig);
    assert_eq!(rig.restored.sessions.len(), 1, "{what}");
    assert!(rig.commit(rows(202..=202)), "{what}");
    let found = read_all(&mut rig);
    assert_eq!((found.len() as u64 + lost(&mut rig), rig.status().trouble), (202, None), "{what}");
    found
}

#[test]
fn whichever_page_cannot_be_read_a_start_succeeds_in_the_end() {
    let whole = filled();
    for page in 1..=pages(&whole).len() {
        let disk = whole.copied();
        disk.fail(|faults| faults.bad_page = page);
        let found = start_in_the_end(&disk, &format!("page {page}"));
        assert!(found.len() >= 190, "page {page}: {} rows", found.len());
    }
}

#[test]
fn whichever_part_of_the_log_cannot_be_read_a_start_succeeds_in_the_end() {
    let whole = filled();
    let mut rig = Rig::start(&whole, Sizes { checkpoint_frames: 10_000, ..SIZES }, &["up".into()])
        .unwrap_or_else(|error| panic!("cannot {error}"));
    for _ in 0..3 {
        assert!(rig.commit(vec![session(ReaderId(9))]));
    }
    let whole = whole.copied();
    let log = whole.size(&whole.dir().join("tidegate.db-wal")).unwrap() as usize;
    assert!(log > 8 * 4_096, "{log} bytes of log");
    for page in 1..=log.div_ceil(4_096) {
        let disk = whole.copied();
        disk.fail(|faults| faults.bad_log_page = page);
        let found = start_in_the_end(&disk, &format!("part {page} of the log"));
        assert!(found.len() >= 190, "part {page}: {} rows", found.len());
    }
}

#[test]
fn whichever_part_of_the_log_cannot_be_read_at_work_the_store_goes_on() {
    let whole = filled();
    let (mut part, mut count, mut before) = (0, 1, Vec::new());
    while part < count {
        part += 1;
        let disk = whole.copied();
        let mut rig = start(&disk);
        let log = |disk: &FaultyDisk| disk.bytes(&disk.dir().join("tidegate.db-wal")).unwrap();
        let mut last = 200;
        // Until it has begun anew, before what is left of what was moved on.
        while last < 203 || log(&disk)[..24] == before[..] {
            last += 1;
            before = log(&disk).get(..24).unwrap_or_default().to_vec();
            assert!(rig.commit(rows(last..=last)));
        }
        count = log(&disk).len().div_ceil(4_096);
        disk.fail(|faults| faults.bad_log_page = part);
        // Whatever it was lost by.
        rig.worker.database.connection = None;
        last += 1;
        rig.hand_over(rows(last..=last));
        if let Some(trouble) = rig.status().trouble {
            assert_eq!(trouble, "the disk cannot be read", "part {part}");
        }
        let told = (0..60).any(|_| {
            rig.wait(3_000);
            rig.all_told()
        });
        assert!(told, "part {part} of {count}: it stands still for ever");
        wait_until_read(&mut rig);
        let found = read_all(&mut rig);
        // A last transaction that is not read cannot be told from one that a loss of power has torn.
        let accounted = found.len() as u64 + lost(&mut rig);
        assert!((last - 1..=last).contains(&accounted), "part {part}: {accounted}");
        assert!(found.contains(&last) && found.len() >= 200, "part {part}: {found:?}");
        assert_eq!(rig.status().trouble, None, "part {part}");
    }
    assert!(count > 8, "{count} parts of a log");
}

#[test]
fn a_disk_that_reads_nothing_for_long_is_waited_for() {
    let disk = filled();
    let mut stand_in = absent(&disk);
    disk.fail(|faults| faults.reads = u32::MAX);
    for _ in 0..3 * patience::TRIES {
        assert!(stand_in.attempt(SIZES, WALL).is_err());
    }
    disk.fail(|faults| faults.reads = 0);
    let mut rig = start(&disk);
    disk.fail(|faults| faults.reads = u32::MAX);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    assert!(rig.read(ROUTE, 0, 50).is_none());
    rig.hand_over(rows(201..=201));
    for _ in 0..100 {
        rig.wait(3_000);
    }
    disk.fail(|faults| faults.reads = 0);
    assert!(rig.settle_down());
    assert_eq!(read_all(&mut rig), seqs(1..=201));
    assert_eq!(lost(&mut rig), 0);
    assert!(asides(&disk).is_empty());
}

#[test]
fn a_page_that_cannot_be_read_at_a_start_is_not_taken_for_damage() {
    read_without_any_page(&filled());
}

#[test]
fn a_page_that_cannot_be_read_is_not_taken_for_damage_where_there_is_some() {
    let whole = filled();
    let database = whole.dir().join("tidegate.db");
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&outside, whole.bytes(&database).unwrap()).unwrap();
    let connection = rusqlite::Connection::open(&outside).unwrap();
    connection.execute_batch("UPDATE segments SET data = x'00'; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    whole.put(&database, std::fs::read(&outside).unwrap());
    read_without_any_page(&whole);
}

/// Starts once for each page, with that one unreadable; all rows are there once it can be read.
fn read_without_any_page(whole: &FaultyDisk) {
    let pages = whole.size(&whole.dir().join("tidegate.db")).unwrap() as usize / 4_096;
    let mut refused = 0;
    for page in 1..=pages {
        let disk = whole.copied();
        disk.fail(|faults| faults.bad_page = page);
        match Rig::start(&disk, SIZES, &["up".into()]) {
            Ok(mut rig) => {
                assert_eq!(rig.put_aside, None, "page {page}");
                rig.hand_over(rows(201..=201));
                rig.wait(500);
            }
            Err(OpenError::Unavailable { .. }) => refused += 1,
            Err(error) => panic!("page {page}: cannot {error}"),
        }
        assert!(asides(&disk).is_empty(), "page {page}: {:?}", asides(&disk));
        disk.fail(|faults| faults.bad_page = 0);
        let mut rig = start(&disk);
        assert_eq!(rig.restored.sessions.len(), 1, "page {page}");
        let found = read_all(&mut rig);
        assert!(found == seqs(1..=200) || found == seqs(1..=201), "page {page}: {found:?}");
    }
    println!("measured: {refused} of {pages} pages are needed at a start");
    assert!(refused > 4, "{refused}");
}
