//! A disk that does not read: what SQLite calls damage and is none.
//!
//! SQLite's own layer turns EIO into an error that SQLite then calls damage, and so does the disk of these tests.
//! Nothing may be given up for it at once, and whoever needs nothing of that place goes on.

use super::cuts::{Rig, SIZES, content};
use super::disk::FaultyDisk;
use super::faults::{ROUTE, read_all, rows, seqs, start};
use super::*;
use crate::store::disk::Disk;

/// A closed store with 200 rows for the route.
fn filled() -> FaultyDisk {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(vec![session(ReaderId(9))]));
    assert!(rig.commit(rows(1..=200)));
    rig.worker.close();
    disk
}

/// The page in which a row's payload lies.
fn page_of(disk: &FaultyDisk, seq: u64) -> usize {
    let bytes = disk.bytes(&disk.dir().join("tidegate.db")).unwrap();
    let payload = &content(seq).payload;
    let at = bytes.windows(payload.len()).position(|window| window == payload);
    at.expect("it is there") / 4_096 + 1
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
