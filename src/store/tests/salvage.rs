//! Bits that flip anywhere in the file, and files that end too early: what a start makes of them.
//!
//! It always starts. What it reads is what was written, to the byte, and what it cannot read any more is
//! counted as damaged. Places come from a fixed seed and from a fresh one, which is printed.

use std::collections::{BTreeMap, BTreeSet};

use super::apart::{SEGMENTS, taken};
use super::cuts::{Rig, SIZES, content};
use super::disk::FaultyDisk;
use super::*;
use crate::broker::tests::random::{Random, fresh_seed};
use crate::record::DropReason;
use crate::store::disk::Disk;
use crate::store::handle::Ask;
use crate::store::kept;
use crate::store::salvage::{self, Legible};

const READERS: [ReaderId; 3] = [ReaderId(1), ReaderId(9), ReaderId(10)];

fn start(disk: &FaultyDisk) -> Rig {
    start_sized(disk, SIZES)
}

fn start_sized(disk: &FaultyDisk, sizes: Sizes) -> Rig {
    Rig::start(disk, sizes, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"))
}

/// How a store came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

/// A store with 300 rows for a route and two sessions; the route has its first 30.
fn filled(end: End) -> FaultyDisk {
    filled_sized(end, SIZES)
}

fn filled_sized(end: End, sizes: Sizes) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let mut rig = start_sized(&disk, sizes);
    assert!(rig.commit(vec![session(READERS[1]), session(READERS[2])]));
    let audience: Arc<[Want]> = READERS.map(want).into();
    for block in 0..15 {
        let row = |seq| {
            let message = content(seq);
            let retained = message.retain;
            Write::Message { seq: Seq(seq), message, audience: audience.clone(), retained, inward: None }
        };
        assert!(rig.commit((block * 20 + 1..=block * 20 + 20).map(row).collect()));
    }
    rig.worker.turn(vec![Ask::Settle { reader: READERS[0], seqs: (1..=30).map(Seq).collect() }]);
    assert!(rig.commit(Vec::new()));
    match end {
        End::Closed => {
            rig.worker.close();
            disk
        }
        End::Killed => disk.copied(),
    }
}

/// The rows that a reader has, each as it was written.
fn read_all(rig: &mut Rig, reader: ReaderId) -> BTreeSet<u64> {
    let (mut found, mut after, mut waits) = (BTreeSet::new(), 0, 0);
    loop {
        let Some(read) = rig.read(reader, after, 50) else {
            // A part of the store was given up, and the question is asked again.
            waits += 1;
            assert!(waits < 200, "the store is stuck: {:?}", rig.status().trouble);
            rig.wait(3_000);
            continue;
        };
        for row in &read.rows {
            assert_eq!((&row.message, &row.want), (&content(row.seq.0), &want(reader)), "a wrong byte");
            assert!(row.seq.0 > after);
            after = row.seq.0;
            found.insert(after);
        }
        if read.through == read.newest {
            return found;
        }
        after = read.through.0;
    }
}

/// What became of the rows of one harmed store.
#[derive(Debug, Default)]
struct Tally {
    read: u64,
    damaged: u64,
    received: u64,
    put_aside: u64,
    runs: u64,
}

/// Starts on a harmed disk, and looks at everything that it has.
fn check(disk: &FaultyDisk, tally: &mut Tally) {
    let mut rig = start(disk);
    tally.runs += 1;
    tally.put_aside += u64::from(rig.put_aside.is_some());
    for message in &rig.restored.retained {
        let text = std::str::from_utf8(&message.payload).unwrap();
        let seq = text.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(**message, *content(seq), "a wrong byte");
    }
    let read: BTreeMap<ReaderId, BTreeSet<u64>> =
        READERS.into_iter().map(|reader| (reader, read_all(&mut rig, reader))).collect();
    // What a read has found to be damaged is counted in the next commit, and this works.
    assert!(rig.commit(vec![session(ReaderId(90))]));
    let still: BTreeMap<ReaderId, BTreeSet<u64>> =
        READERS.into_iter().map(|reader| (reader, read_all(&mut rig, reader))).collect();
    rig.wait(1_000);
    let status = rig.status();
    assert_eq!(status.trouble, None);
    for (reader, rows) in still {
        assert!(rows.is_subset(&read[&reader]), "nothing comes back");
        let Some(line) = status.readers.get(&reader) else { continue };
        let damaged = line.dropped.get(&DropReason::Damaged).copied().unwrap_or(0);
        assert_eq!(line.received, line.delivered + line.queued + damaged, "{line:?}");
        assert_eq!(line.queued, rows.len() as u64);
        if line.received == 300 {
            assert_eq!(damaged + line.delivered + rows.len() as u64, 300);
        }
        tally.read += rows.len() as u64;
        tally.received += line.received;
        tally.damaged += damaged;
    }
}

fn proof() -> bool {
    std::env::var("TIDEGATE_SIZE").is_ok_and(|size| size == "proof")
}

fn database(disk: &FaultyDisk) -> PathBuf {
    disk.dir().join("tidegate.db")
}

fn wal(disk: &FaultyDisk) -> PathBuf {
    disk.dir().join("tidegate.db-wal")
}

/// One of the store's files, the larger ones more often, and a place in it.
fn place(disk: &FaultyDisk, random: &mut Random) -> (PathBuf, Vec<u8>, usize) {
    let log = disk.bytes(&wal(disk)).unwrap_or_default();
    let bytes = disk.bytes(&database(disk)).unwrap();
    let at = random.below(bytes.len() + log.len());
    match at.checked_sub(bytes.len()) {
        None => (database(disk), bytes, at),
        Some(at) => (wal(disk), log, at),
    }
}

fn flip(seed: u64, end: End, count: u64) {
    println!("seed {seed}, {end:?}, {count} flips");
    let (whole, mut random, mut tally) = (filled(end), Random(seed), Tally::default());
    for _ in 0..count {
        let disk = whole.copied();
        let (path, mut bytes, at) = place(&disk, &mut random);
        bytes[at] ^= 1 << random.below(8);
        disk.put(&path, bytes);
        check(&disk, &mut tally);
    }
    println!("measured: {tally:?}");
    // One flip costs little.
    assert!(tally.read > tally.runs * 800, "{tally:?}");
}

fn truncate(seed: u64, end: End, count: u64) {
    println!("seed {seed}, {end:?}, {count} truncations");
    let (whole, mut random, mut tally) = (filled(end), Random(seed), Tally::default());
    let mut before = 0;
    for _ in 0..count {
        let disk = whole.copied();
        let (path, mut bytes, at) = place(&disk, &mut random);
        before += 900 * at / bytes.len();
        bytes.truncate(at);
        disk.put(&path, bytes);
        check(&disk, &mut tally);
    }
    println!("measured: {tally:?}");
    // Rows lie in the file nearly as they came, and what lies before the cut is had.
    assert!(tally.read * 10 > before as u64 * 9, "{before} before the places: {tally:?}");
    // Half of the rows lie before the middle; how many before a few places is those places' luck.
    if count >= 100 || seed == 2 {
        assert!(tally.read > tally.runs * 300, "{tally:?}");
    }
}

#[test]
fn a_bit_that_flips_anywhere_costs_rows_and_never_a_wrong_byte() {
    let count = if proof() { 1_000 } else { 60 };
    for seed in [1, fresh_seed()] {
        flip(seed, End::Closed, count);
        flip(seed, End::Killed, count / 2);
    }
}

#[test]
fn a_file_that_ends_anywhere_is_salvaged() {
    let count = if proof() { 100 } else { 15 };
    for seed in [2, fresh_seed()] {
        truncate(seed, End::Closed, count);
        truncate(seed, End::Killed, count);
    }
}

/// Everything that a store has, after this was done to its database.
fn harmed(end: End, harm: impl FnOnce(&mut Vec<u8>)) -> (Rig, [usize; 3]) {
    let disk = filled(end);
    let mut bytes = disk.bytes(&database(&disk)).unwrap();
    harm(&mut bytes);
    disk.put(&database(&disk), bytes);
    let mut rig = start(&disk);
    let rows = READERS.map(|reader| read_all(&mut rig, reader).len());
    (rig, rows)
}

const ALL: [usize; 3] = [270, 300, 300];

/// Topics that have a retained message.
const RETAINED: usize = 6;

#[test]
fn no_bit_of_the_header_costs_a_row() {
    let step = if proof() { 1 } else { 11 };
    let mut put_aside = 0;
    for bit in (0..800).step_by(step).chain([248]) {
        let (rig, rows) = harmed(End::Closed, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert_eq!(rows, ALL, "bit {bit}");
        assert_eq!((rig.restored.sessions.len(), rig.restored.retained.len()), (2, RETAINED), "bit {bit}");
        put_aside += usize::from(rig.put_aside.is_some());
    }
    println!("{put_aside} were damage, the others are of no account");
    assert!(put_aside * step > 150);
}

/// Bits of a page that says where its cells are and in what order: its header, where they begin, and the number of each.
fn bits_of_order(bytes: &[u8], page: usize) -> Vec<usize> {
    let at = (page - 1) * 4_096;
    let number = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let cells = number(at + 3);
    let numbers = (0..cells).map(|cell| at + number(at + 8 + 2 * cell) + 1);
    (at..at + 8 + 2 * cells).chain(numbers).flat_map(|byte| byte * 8..byte * 8 + 8).collect()
}

#[test]
fn no_bit_of_the_order_of_a_page_goes_uncounted() {
    let whole = filled(End::Closed);
    let bytes = whole.bytes(&database(&whole)).unwrap();
    // SQLite lists a table with its name, twice, and its first page.
    let newest = b"log_29log_29";
    let open = bytes.windows(newest.len()).position(|text| text == newest).unwrap() + newest.len();
    let step = if proof() { 1 } else { 13 };
    let mut tally = Tally::default();
    for (page, rows) in [(SEGMENTS, 870), (usize::from(bytes[open]), 858)] {
        for bit in bits_of_order(&bytes, page).into_iter().step_by(step) {
            let (disk, before) = (whole.copied(), tally.read);
            disk.harm(&database(&disk), |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            check(&disk, &mut tally);
            // All, or all but those of the open segment.
            assert!(tally.read >= before + rows, "bit {bit}: {tally:?}");
        }
    }
    println!("measured: {tally:?}");
    assert_eq!(tally.received, tally.runs * 900, "nothing goes uncounted");
}

#[test]
fn a_page_of_the_open_segment_in_the_place_of_another_costs_no_row() {
    let sizes = Sizes { segment_rows: 10_000, segment_bytes: 10_000_000, ..SIZES };
    let disk = filled_sized(End::Closed, sizes);
    disk.harm(&database(&disk), |bytes| {
        let open = b"log_1log_1";
        let at = bytes.windows(open.len()).position(|text| text == open).unwrap() + open.len();
        let root = (usize::from(bytes[at]) - 1) * 4_096;
        assert_eq!(bytes[root], 5, "a page above others");
        // A cell begins with the number of the page below it.
        let cell = |number: usize| {
            let at = root + 12 + 2 * number;
            root + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
        };
        let (from, to) = (cell(0), cell(1));
        bytes.copy_within(from..from + 4, to);
    });
    let mut rig = start_sized(&disk, sizes);
    assert!(rig.put_aside.is_some());
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL);
}

/// Has the list of segments name one twice, and another not.
fn double_a_segment(bytes: &mut [u8]) {
    let numbers = bits_of_order(bytes, SEGMENTS).into_iter().filter(|bit| bit % 8 == 0).map(|bit| bit / 8);
    let at = numbers.rev().find(|at| bytes[*at] == 9).expect("one has the number 9");
    bytes[at] ^= 2;
}

#[test]
fn a_segment_that_is_listed_twice_is_found_at_a_start_and_at_work() {
    let whole = filled(End::Closed);
    // At a start, with room for a salvage and without.
    for has_room in [true, false] {
        let disk = whole.copied();
        disk.harm(&database(&disk), double_a_segment);
        if !has_room {
            let taken = taken(&disk);
            disk.fail(|faults| faults.capacity = taken + 200_000);
        }
        let mut tally = Tally::default();
        check(&disk, &mut tally);
        // Without it, nine rows of three readers.
        let expected = if has_room { (870, 1) } else { (870 - 27, 0) };
        assert_eq!((tally.read, tally.put_aside), expected);
        assert_eq!(tally.received, 900, "nothing goes uncounted");
        // What was found is found once.
        disk.fail(|faults| faults.capacity = 0);
        assert_eq!(start(&disk).put_aside, None);
    }
    // At work, when a transaction that failed has the log read again.
    let mut rig = start(&whole);
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    whole.harm(&database(&whole), double_a_segment);
    assert!(fails_to_commit_once(&mut rig));
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL);
    assert!(was_put_aside(&whole));
}

/// Has the log read again. Says whether what was to be committed is in the end.
fn fails_to_commit_once(rig: &mut Rig) -> bool {
    rig.disk.fail(|faults| faults.writes = 1);
    rig.hand_over(vec![session(ReaderId(90))]);
    (0..20).for_each(|_| rig.wait(3_000));
    rig.all_told()
}

#[test]
fn a_log_that_could_be_read_is_gone_on_with_where_its_salvage_fails() {
    let whole = filled(End::Closed);
    let mut rig = start(&whole.copied());
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    for disk in [&whole, &rig.disk] {
        disk.harm(&database(disk), double_a_segment);
        // What was salvaged does not come to its place.
        disk.fail(|faults| faults.no_renaming = true);
    }
    let mut tally = Tally::default();
    check(&whole, &mut tally);
    assert_eq!((tally.read, tally.received, tally.put_aside), (870 - 27, 900, 0));
    assert!(fails_to_commit_once(&mut rig), "{:?}", rig.status().trouble);
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL.map(|rows| rows - 9));
    assert!(!was_put_aside(&rig.disk));
}

#[test]
fn what_the_disk_may_read_yet_is_not_lost_to_a_salvage_of_what_could_be_read() {
    let disk = filled(End::Closed);
    let bytes = disk.bytes(&database(&disk)).unwrap();
    let payload = &content(200).payload;
    let at = bytes.windows(payload.len()).position(|window| window == payload).expect("it is there");
    disk.harm(&database(&disk), double_a_segment);
    disk.fail(|faults| faults.bad_page = at / 4_096 + 1);
    let mut rig = start(&disk);
    assert_eq!(rig.put_aside, None);
    disk.fail(|faults| faults.bad_page = 0);
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL.map(|rows| rows - 9));
}

/// Does this to a segment of which the route has had some: whoever reads the log finds that.
fn spoil(rig: &Rig, sql: &str) {
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let is_begun = |id: &u32| {
        let sql = format!("SELECT count(*) FROM log_{id} WHERE seq IN (30, 31)");
        connection.query_row(&sql, [], |row| row.get::<_, u32>(0)).unwrap() == 2
    };
    let id = (1..29).find(is_begun).expect("the route is in the midst of one");
    connection.execute_batch(&sql.replace('#', &id.to_string())).unwrap();
}

/// Damages what says whose its rows are.
const INDEX: &str = "UPDATE log_# SET payload = x'00' WHERE seq = -1";

/// Damages all that does, but for the rows.
const INDEXES_AND_HEADER: &str =
    "UPDATE log_# SET payload = x'00' WHERE seq < 0; UPDATE segments SET data = x'00' WHERE id = #";

#[test]
fn a_segment_that_is_found_damaged_when_the_log_is_read_again_is_salvaged() {
    let disk = filled(End::Closed);
    let mut rig = start(&disk);
    spoil(&rig, INDEX);
    assert!(fails_to_commit_once(&mut rig));
    assert!(was_put_aside(&disk));
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL);
}

/// When a segment is found damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    AtAStart,
    AtWork,
}

#[test]
fn what_a_refused_salvage_would_have_had_is_kept_for_another() {
    let no_renaming = |disk: &FaultyDisk| disk.fail(|faults| faults.no_renaming = true);
    let no_room = |disk: &FaultyDisk| {
        let taken = taken(disk);
        disk.fail(|faults| faults.capacity = taken + 200_000);
    };
    let refusals: [&dyn Fn(&FaultyDisk); 2] = [&no_renaming, &no_room];
    for (refusal, refuse) in refusals.into_iter().enumerate() {
        let cases = [INDEX, INDEXES_AND_HEADER].map(|sql| [(sql, Found::AtAStart), (sql, Found::AtWork)]);
        for (sql, found) in cases.into_iter().flatten() {
            let disk = filled(End::Closed);
            let mut rig = start(&disk);
            spoil(&rig, sql);
            if found == Found::AtAStart {
                rig.worker.close();
                refuse(&disk);
                rig = start(&disk);
                assert!(rig.commit(vec![session(ReaderId(90))]));
            } else {
                refuse(&disk);
                assert!(fails_to_commit_once(&mut rig));
            }
            assert!(!was_put_aside(&disk));
            let count = |rig: &mut Rig| {
                let status = rig.status();
                READERS.map(|reader| {
                    let line = &status.readers[&reader];
                    let damaged = line.dropped.get(&DropReason::Damaged).copied().unwrap_or(0);
                    assert_eq!((line.received, line.delivered + line.queued + damaged), (300, 300));
                    damaged
                })
            };
            assert!(count(&mut rig).iter().all(|damaged| *damaged > 0), "what is not had is counted");
            (0..10).for_each(|_| rig.wait(3_000));
            rig.worker.close();
            disk.fail(|faults| (faults.no_renaming, faults.capacity) = (false, 0));
            disk.harm(&database(&disk), |bytes| bytes[0] ^= 1);
            let mut rig = start(&disk);
            assert!(was_put_aside(&disk));
            let rows = READERS.map(|reader| read_all(&mut rig, reader).len());
            assert_eq!((rows, count(&mut rig)), (ALL, [0; 3]), "refusal {refusal}, {found:?}: {sql}");
        }
    }
}

#[test]
fn no_bit_of_what_a_table_is_made_of_costs_a_row() {
    let whole = filled(End::Closed);
    let bytes = whole.bytes(&database(&whole)).unwrap();
    let place = |text: &str| bytes.windows(text.len()).position(|found| found == text.as_bytes());
    let [columns, _] = schema::SEGMENT;
    // Those that are always there, a segment that is closed, and the last, which is open.
    let tables = schema::TABLES.into_iter().chain([("log_7", columns), ("log_29", columns)]);
    assert_eq!(place("TABLE log_30("), None);
    let step = if proof() { 1 } else { 37 };
    let bits = tables.flat_map(|(name, columns)| {
        let at = place(&format!("CREATE TABLE {name}{columns}")).unwrap();
        let end = at + "CREATE TABLE ".len() + name.len() + columns.len();
        (at * 8..end * 8).step_by(step)
    });
    // With another word it is no key, and SQLite finds no row by it.
    let word = place(&format!("TABLE log_29{columns}")).unwrap() + "TABLE log_29(seq INTEGER ".len();
    for bit in bits.chain(word * 8..(word + "PRIMARY".len()) * 8) {
        let (rig, rows) = harmed(End::Closed, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        assert_eq!(rows, ALL, "bit {bit}");
        assert_eq!((rig.restored.sessions.len(), rig.restored.retained.len()), (2, RETAINED), "bit {bit}");
    }
}

#[test]
fn what_somebody_has_had_sqlite_note_is_no_damage() {
    let disk = filled(End::Closed);
    let rig = start(&disk);
    rig.worker.database.connection.as_ref().unwrap().execute_batch("ANALYZE").unwrap();
    rig.worker.close();
    assert_eq!(start(&disk).put_aside, None);
}

#[test]
fn a_table_that_is_not_as_it_was_made_loses_no_row() {
    let (_, rows) = harmed(End::Closed, |bytes| {
        let places: Vec<usize> = (0..bytes.len() - 20)
            .filter(|at| bytes[*at..].starts_with(b"log_") && bytes[*at + 6..].starts_with(b"(seq INTEGER"))
            .collect();
        assert!(places.len() > 5, "{} tables", places.len());
        for at in places {
            bytes[at + 7] = b'r';
        }
    });
    assert_eq!(rows, ALL);
}

#[test]
fn a_header_that_says_newer_than_its_ledger_is_damaged() {
    let (rig, rows) = harmed(End::Closed, |bytes| bytes[62] ^= 1);
    assert!(rig.put_aside.is_some());
    assert_eq!(rows, ALL);
}

#[test]
fn a_database_without_its_list_of_tables_is_read_all_the_same() {
    for end in [End::Closed, End::Killed] {
        let disk = filled(end);
        if end == End::Killed {
            // Otherwise the log has the first page once more.
            disk.put(&wal(&disk), Vec::new());
        }
        let whole = disk.bytes(&database(&disk)).unwrap();
        if whole.is_empty() {
            continue;
        }
        let before = disk.copied();
        let expected = read_all(&mut start(&before), READERS[1]);
        let mut bytes = whole;
        bytes[..4_096].fill(0xa5);
        disk.put(&database(&disk), bytes);
        let mut rig = start(&disk);
        assert!(rig.put_aside.is_some());
        assert_eq!(read_all(&mut rig, READERS[1]), expected, "{end:?}");
    }
}

/// Frames of the log, each with the end of its transaction.
fn transactions(log: &[u8]) -> Vec<usize> {
    let frames = log[32..].chunks_exact(4_120);
    let salts = &log[16..24];
    let commits = frames.enumerate().filter(|(_, frame)| &frame[8..16] == salts && frame[4..8] != [0; 4]);
    commits.map(|(place, _)| place).collect()
}

#[test]
fn a_flip_in_the_log_is_named_unless_it_may_be_a_torn_tail() {
    // Nothing was moved out of the log yet.
    let whole = filled_sized(End::Killed, Sizes { checkpoint_frames: 10_000, ..SIZES });
    let log = whole.bytes(&wal(&whole)).unwrap();
    let commits = transactions(&log);
    let [.., before_last, _] = commits[..] else { panic!("the log has {} commits", commits.len()) };
    let durable = 32 + (before_last + 1) * 4_120;
    let (mut random, mut tally) = (Random(7), Tally::default());
    for _ in 0..if proof() { 1_000 } else { 40 } {
        let disk = whole.copied();
        let mut bytes = log.clone();
        let at = random.below(durable);
        bytes[at] ^= 1 << random.below(8);
        disk.put(&wal(&disk), bytes);
        check(&disk, &mut tally);
    }
    println!("measured: {tally:?}");
    assert_eq!(tally.put_aside, tally.runs, "each is named");
    assert_eq!(tally.received, tally.runs * 900, "nothing goes uncounted");
    // Nothing was begun behind the last transaction, so that it may never have been synced.
    let mut torn = Tally::default();
    for _ in 0..10 {
        let disk = whole.copied();
        let mut bytes = log.clone();
        let at = durable + random.below(bytes.len() - durable);
        bytes[at] ^= 1 << random.below(8);
        disk.put(&wal(&disk), bytes);
        check(&disk, &mut torn);
    }
    assert_eq!(torn.put_aside, 0, "no alarm");
}

#[test]
fn a_torn_frame_with_the_commit_of_an_older_log_is_no_damage() {
    let whole = filled_sized(End::Killed, Sizes { checkpoint_frames: 10_000, ..SIZES });
    let log = whole.bytes(&wal(&whole)).unwrap();
    let commits = transactions(&log);
    let torn = commits.windows(2).filter_map(|two| {
        let [before, last] = *two else { return None };
        // The border of two sectors lies behind the first eight bytes of its frame.
        let place = (before + 1..last).find(|place| place % 64 == 41)?;
        Some((before, last, 32 + place * 4_120))
    });
    let mut found = 0;
    for (before, last, at) in torn {
        assert_eq!((at + 8) % 512, 0);
        let mut bytes = log[..32 + (last + 1) * 4_120].to_vec();
        bytes[at..at + 8].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 90]);
        let [kept, cut] = [bytes, log[..32 + (before + 1) * 4_120].to_vec()].map(|bytes| {
            let disk = whole.copied();
            disk.put(&wal(&disk), bytes);
            let mut rig = start_sized(&disk, SIZES);
            assert_eq!(rig.put_aside, None, "frame at {at}");
            READERS.map(|reader| read_all(&mut rig, reader))
        });
        assert_eq!(kept, cut, "frame at {at}");
        found += 1;
    }
    assert!(found > 0, "{commits:?}");
}

#[test]
fn a_session_that_is_damaged_is_not_taken_for_another() {
    let whole = filled(End::Closed);
    let mut bytes = whole.bytes(&database(&whole)).unwrap();
    let name = b"client-10";
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name) {
            bytes[at] ^= 1;
        }
    }
    // The two are in the wrong order, so that SQLite hands out the one behind the other.
    let pointers = (schema::ROOTS[2] as usize - 1) * 4_096 + 8;
    bytes[pointers..pointers + 4].rotate_left(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.db");
    std::fs::write(&path, bytes).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(kept::session(&connection, READERS[2]).unwrap(), None);
}

/// The last eighth is lost, and the file knows that it was longer.
fn cut_short(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() * 7 / 8);
}

#[test]
fn a_file_of_which_little_more_than_a_state_is_left_counts_what_is_lost() {
    let whole = filled(End::Closed);
    let bytes = whole.bytes(&database(&whole)).unwrap();
    let (mut tally, first) = (Tally::default(), (schema::ROOTS[0] as usize - 1) * 4_096);
    for end in (first..first + 4 * 4_096).step_by(if proof() { 4 } else { 92 }) {
        let disk = whole.copied();
        disk.put(&database(&disk), bytes[..end].to_vec());
        check(&disk, &mut tally);
    }
    println!("measured: {tally:?}");
    assert!(tally.damaged > tally.runs * 200, "whose state is there has lost his rows: {tally:?}");
}

#[test]
fn what_can_be_read_of_a_damaged_database_is_in_the_new_one() {
    for eighths in [2, 4, 7] {
        let disk = filled(End::Closed);
        let mut bytes = disk.bytes(&database(&disk)).unwrap();
        bytes.truncate(bytes.len() * eighths / 8);
        disk.put(&database(&disk), bytes.clone());
        let mut rig = start(&disk);
        let aside = rig.put_aside.clone().expect("it was put aside");
        assert_eq!(disk.bytes(&aside), Some(bytes), "as it was found");
        let rows = read_all(&mut rig, READERS[0]);
        assert!(rows.len() > 20 * eighths, "{} rows", rows.len());
        let line = rig.status().readers[&READERS[0]].clone();
        assert_eq!((line.received, line.delivered), (300, 30));
        assert_eq!(line.dropped[&DropReason::Damaged], 270 - rows.len() as u64);
        rig.worker.close();
        let mut rig = start(&disk);
        assert_eq!((read_all(&mut rig, READERS[0]), rig.put_aside), (rows, None));
    }
}

#[test]
fn a_salvage_finds_all_rows_of_readers_whose_state_is_lost_in_both_places() {
    let (rig, [route, sessions @ ..]) = harmed(End::Closed, |bytes| {
        bytes[0] ^= 1;
        for root in &schema::ROOTS[..2] {
            bytes[(*root as usize - 1) * 4_096..][..4_096].fill(0xa5);
        }
    });
    assert!(rig.put_aside.is_some());
    assert_eq!(sessions, [300, 300]);
    assert!((270..=300).contains(&route), "{route} rows: what it had may come again");
}

#[test]
fn a_session_whose_newest_record_is_lost_in_one_place_is_as_the_other_says() {
    let sizes = Sizes { checkpoint_frames: 10_000, ..SIZES };
    let Write::Session(record) = session(READERS[1]) else { panic!("a session") };
    let disk = FaultyDisk::new();
    let mut rig = start_sized(&disk, sizes);
    assert!(rig.commit(vec![Write::Session(record.clone())]));
    rig.worker.close();
    let mut rig = start_sized(&disk, sizes);
    assert!(rig.commit(vec![Write::Session(Arc::new(SessionRecord { expiry: 7, ..(*record).clone() }))]));
    // What lies behind it shows that it was durable.
    assert!(rig.commit((1..=20).map(|seq| put(seq, &READERS)).collect()));
    assert!(rig.commit(Vec::new()));
    let disk = disk.copied();
    let mut log = disk.bytes(&wal(&disk)).unwrap();
    let page = schema::ROOTS[2].to_be_bytes();
    for frame in log[32..].chunks_exact_mut(4_120).filter(|frame| frame[..4] == page) {
        frame[4_100] ^= 1;
    }
    disk.put(&wal(&disk), log);
    let rig = start_sized(&disk, sizes);
    assert!(rig.put_aside.is_some());
    let expiries: Vec<u32> = rig.restored.sessions.iter().map(|session| session.record.expiry).collect();
    assert_eq!(expiries, [7]);
}

#[test]
fn a_salvage_that_is_interrupted_is_done_again() {
    let whole = filled(End::Closed);
    let mut bytes = whole.bytes(&database(&whole)).unwrap();
    cut_short(&mut bytes);
    whole.put(&database(&whole), bytes);
    let expected = read_all(&mut start(&whole.copied()), READERS[0]);
    assert!(expected.len() > 100, "{} rows", expected.len());
    let mut random = Random(4);
    for changes in 0..400 {
        let disk = whole.copied();
        disk.cut_in(changes);
        let first = Rig::start(&disk, SIZES, &["up".into()]);
        let interrupted = disk.is_off();
        drop(first);
        disk.cut();
        disk.power_on(&mut random);
        let mut rig = start(&disk);
        assert_eq!(read_all(&mut rig, READERS[0]), expected, "cut at change {changes}");
        if !interrupted {
            assert!(changes > 20, "a salvage changes more than that");
            return;
        }
    }
    panic!("a salvage does not change so much");
}

#[test]
fn a_disk_without_room_for_all_of_the_salvage_keeps_the_newest() {
    let disk = filled(End::Closed);
    let mut bytes = disk.bytes(&database(&disk)).unwrap();
    bytes[0] ^= 1;
    disk.put(&database(&disk), bytes.clone());
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = taken + 160_000);
    let mut rig = start(&disk);
    let aside = rig.put_aside.clone().expect("it was put aside");
    assert_eq!(disk.bytes(&aside), Some(bytes), "what had no room is still there");
    let rows = read_all(&mut rig, READERS[1]);
    assert!((50..290).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(rows.last(), Some(&300));
    let line = rig.status().readers[&READERS[1]].clone();
    assert_eq!(line.dropped[&DropReason::Damaged], 300 - rows.len() as u64);
    assert!(rig.commit(vec![session(ReaderId(90))]));
}

#[test]
fn a_full_disk_leaves_the_damaged_database_for_later() {
    let disk = filled(End::Closed);
    let mut bytes = disk.bytes(&database(&disk)).unwrap();
    bytes[0] ^= 1;
    disk.put(&database(&disk), bytes.clone());
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    let held = disk.size(&disk.dir().join("tidegate.reserve")).unwrap_or(0);
    disk.fail(|faults| faults.capacity = taken - held + 8_000);
    let refused = Rig::start(&disk, SIZES, &["up".into()]);
    assert!(matches!(refused.err(), Some(OpenError::Unavailable { .. })));
    assert_eq!(disk.bytes(&database(&disk)), Some(bytes));
    disk.fail(|faults| faults.capacity = 0);
    let mut rig = start(&disk);
    assert_eq!(READERS.map(|reader| read_all(&mut rig, reader).len()), ALL);
}

#[test]
fn a_salvage_tells_that_it_goes_on_and_syncs_a_part_at_a_time() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert_eq!(rig.steps.load(Ordering::SeqCst), 0, "a sound start tells nothing");
    for block in 0..24_u64 {
        assert!(
            rig.commit((block * 10 + 1..=block * 10 + 10).map(|seq| sized(seq, 60_000, &READERS)).collect())
        );
    }
    rig.worker.close();
    let mut bytes = disk.bytes(&database(&disk)).unwrap();
    bytes[0] ^= 1;
    let megabytes = bytes.len() as u64 >> 20;
    assert!(megabytes > 12, "{megabytes} MB");
    disk.put(&database(&disk), bytes);
    let syncs = disk.syncs();
    let rig = start(&disk);
    assert!(rig.put_aside.is_some());
    // It reads each page once to know what it is, and once for its rows.
    let steps = rig.steps.load(Ordering::SeqCst);
    assert!((2 * megabytes..=4 * megabytes + 20).contains(&steps), "{steps} steps for {megabytes} MB");
    let parts = disk.syncs() - syncs;
    assert!(parts >= megabytes / 5, "{parts} syncs for {megabytes} MB");
}

/// Damages rows of the log, of a store that is at work.
fn harm_rows(disk: &FaultyDisk) {
    disk.harm(&database(disk), |bytes| {
        let leaves = (1..bytes.len() / 4_096).filter(|page| bytes[page * 4_096] == 0x0d);
        let leaves: Vec<usize> = leaves.collect();
        for page in leaves.iter().skip(leaves.len() / 2) {
            // Its cells lie where there is no page.
            bytes[page * 4_096 + 3..][..2].fill(0xff);
        }
    });
}

fn was_put_aside(disk: &FaultyDisk) -> bool {
    disk.names(&disk.dir()).iter().any(|path| path.to_string_lossy().contains(".damaged-"))
}

#[test]
fn a_salvage_on_the_thread_at_work_tells_that_it_goes_on() {
    let disk = filled(End::Closed);
    let mut rig = start(&disk);
    harm_rows(&disk);
    read_all(&mut rig, READERS[1]);
    assert!(was_put_aside(&disk));
    assert!(rig.steps.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_salvage_at_work_that_gives_up_the_reserve_is_followed_by_another_reserve() {
    let disk = filled(End::Closed);
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    let bytes = disk.size(&database(&disk)).unwrap();
    disk.fail(|faults| faults.capacity = taken + bytes / 10 * 16);
    let mut rig = start(&disk);
    let reserve = disk.dir().join("tidegate.reserve");
    assert!(disk.size(&reserve).is_some());
    harm_rows(&disk);
    read_all(&mut rig, READERS[1]);
    assert!(was_put_aside(&disk));
    disk.fail(|faults| faults.capacity *= 2);
    assert!(rig.commit(vec![session(ReaderId(90))]));
    rig.wait(5_000);
    assert_eq!(disk.size(&reserve), Some(SIZES.reserve), "there is one again");
    assert_eq!(rig.worker.database.reserve.size(), SIZES.reserve);
}

#[test]
fn what_was_counted_as_damaged_and_is_found_after_all_was_received_once() {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    let row = |seq| wanted(seq, content(seq), &[READERS[0]]);
    assert!(rig.commit((1..=200).map(row).collect()));
    rig.worker.close();
    let bytes = disk.bytes(&database(&disk)).unwrap();
    let payload = &content(50).payload;
    let at = bytes.windows(payload.len()).position(|window| window == payload).expect("it is there");
    let mut rig = start(&disk);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    // There is no room for a salvage: the segment is given up whole.
    let taken: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| (faults.bad_page, faults.capacity) = (at / 4_096 + 1, taken + 60_000));
    let lost = 200 - read_all(&mut rig, READERS[0]).len() as u64;
    assert!(lost > 1, "{lost} rows");
    assert!(rig.commit(vec![row(201)]));
    let damaged = |rig: &mut Rig| {
        let line = rig.status().readers[&READERS[0]].clone();
        let damaged = line.dropped.get(&DropReason::Damaged).copied().unwrap_or(0);
        assert_eq!(line.received, line.delivered + line.queued + damaged, "{line:?}");
        (line.received, damaged)
    };
    assert_eq!(damaged(&mut rig), (201, lost));
    rig.worker.close();
    disk.fail(|faults| (faults.bad_page, faults.capacity) = (0, 0));
    disk.harm(&database(&disk), |bytes| bytes[0] ^= 1);
    let mut rig = start(&disk);
    assert!(rig.commit(vec![row(202)]));
    assert_eq!(read_all(&mut rig, READERS[0]).len(), 202, "better than never");
    assert_eq!(damaged(&mut rig), (202, 0));
}

#[test]
fn what_only_the_log_has_is_found_however_short_the_file_is() {
    let disk = FaultyDisk::new();
    let sizes = Sizes { checkpoint_frames: 60, ..SIZES };
    let mut rig = start_sized(&disk, sizes);
    let row = |seq| wanted(seq, content(seq), &[READERS[0]]);
    for block in 0..40 {
        assert!(rig.commit((block * 20 + 1..=block * 20 + 20).map(row).collect()));
    }
    let disk = disk.copied();
    let (file, log) = (disk.size(&database(&disk)), disk.size(&wal(&disk)));
    let mut bytes = disk.bytes(&database(&disk)).unwrap();
    bytes.truncate(4_096);
    disk.put(&database(&disk), bytes);
    let mut rig = start_sized(&disk, sizes);
    let found = read_all(&mut rig, READERS[0]);
    assert!(found.len() > 30, "{} of {file:?} {log:?} {found:?}", found.len());
}

#[test]
fn a_broken_end_of_a_commit_before_a_torn_one_costs_no_more_than_its_own_page() {
    let disk = FaultyDisk::new();
    let sizes = Sizes { checkpoint_frames: 10_000, ..SIZES };
    let mut rig = start_sized(&disk, sizes);
    let row = |seq| wanted(seq, content(seq), &[READERS[0]]);
    assert!(rig.commit((1..=200).map(row).collect()));
    assert!(rig.commit((201..=300).map(row).collect()));
    assert!(rig.commit((301..=302).map(row).collect()));
    let disk = disk.copied();
    let mut log = disk.bytes(&wal(&disk)).unwrap();
    let [.., broken, torn] = transactions(&log)[..] else { panic!("it has some") };
    [broken, torn].into_iter().for_each(|frame| log[32 + frame * 4_120 + 2_000] ^= 1);
    disk.put(&wal(&disk), log);
    let mut rig = start_sized(&disk, sizes);
    assert!(rig.put_aside.is_some());
    let found = read_all(&mut rig, READERS[0]);
    assert!(found.len() as u64 >= 300 - SIZES.segment_rows, "{} rows", found.len());
}

#[test]
fn a_log_that_could_be_read_is_given_up_for_none_that_has_less() {
    let disk = filled(End::Closed);
    let rig = start(&disk);
    let taken = taken(&disk);
    disk.fail(|faults| faults.capacity = taken + 160_000);
    let build = |legible| salvage::build(&rig.worker.database.files, &SIZES, WALL, legible);
    assert!(build(Legible::AsFarAsItGoes).is_err_and(|fault| fault.is_full()));
    assert!(build(Legible::Not).is_ok(), "there is nothing else to go on with");
}

#[test]
fn what_the_disk_may_read_yet_is_waited_for_without_a_write() {
    let disk = filled(End::Closed);
    let rig = start(&disk);
    disk.fail(|faults| faults.bad_page = 20);
    let syncs = disk.syncs();
    let files = &rig.worker.database.files;
    let built = salvage::build(files, &SIZES, WALL, Legible::AsFarAsItGoes);
    assert!(built.is_err_and(|fault| fault.unread().is_some()));
    assert_eq!(disk.syncs(), syncs);
}
