//! Tables that stay behind because the disk does not read all that dropping them takes.
//!
//! With each table that goes SQLite moves the last root page of the file into the gap, so that a place which nobody
//! else needs may stand in the way of every drop.

use super::apart::taken;
use super::cuts::{Rig, SIZES, content};
use super::disk::{FaultyDisk, Kind};
use super::faults::{ROUTE, closed_with_960_rows, cut, read_all, rows, seqs, start};
use super::unreadable::{LONG, filled, lost, page_of, settle, wait_until_read};
use super::*;
use crate::record::{DropReason, Policy};
use crate::store::disk::Disk;

/// Tables of segments, and segments.
fn tables(rig: &Rig) -> (i64, i64) {
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    (
        count("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'log_%'"),
        count("SELECT count(*) FROM segments"),
    )
}

/// A store at work with so many segments of the route, all read: the last root page but one cannot be read any more.
fn with_a_bad_root(blocks: u64) -> Rig {
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit(vec![session(ReaderId(9))]));
    for block in 0..blocks {
        // The last ones are an absent session's, too, so that they stay.
        let readers: &[ReaderId] = if block + 4 >= blocks { &[ROUTE, ReaderId(9)] } else { &[ROUTE] };
        let row = |seq| wanted(seq, content(seq), readers);
        assert!(rig.commit((block * 12 + 1..=block * 12 + 12).map(row).collect()));
    }
    rig.worker.close();
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=blocks * 12));
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let sql =
        "SELECT rootpage FROM sqlite_schema WHERE name LIKE 'log_%' ORDER BY rootpage DESC LIMIT 1 OFFSET 1";
    let root: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    disk.fail(|faults| faults.bad_page = root as usize);
    rig
}

#[test]
fn a_place_that_only_the_drop_of_others_meets_is_gone_round_and_costs_no_message() {
    let mut rig = with_a_bad_root(80);
    rig.worker.config.max_size = rig.status().size + 150_000;
    let mut last = 960;
    for block in 0..72 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        rig.hand_over(rows(last + 1..=last + 8));
        assert!(rig.all_told(), "block {block} waits: {:?}", rig.status().trouble);
        last += 8;
        rig.wait(10_000);
    }
    let lost = lost(&mut rig);
    assert!(lost <= 12, "no row goes but those in the place itself, if it has any: {lost}");
    let (there, listed) = tables(&rig);
    assert_eq!(there, listed);
    assert_eq!(read_all(&mut rig).len() as u64, last - 864 - lost);
}

#[test]
fn tables_that_stayed_behind_go_once_the_disk_reads_again() {
    let mut rig = with_a_bad_root(40);
    for block in 0..10 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        assert!(rig.commit(rows(481 + block..=481 + block)));
    }
    let (there, listed) = tables(&rig);
    assert!(there > listed + 4, "{there} tables of {listed} segments");
    rig.disk.fail(|faults| faults.bad_page = 0);
    (0..10).for_each(|_| rig.wait(3_000));
    let (there, listed) = tables(&rig);
    assert_eq!(there, listed);
    // And from then on they go with the last of their rows.
    settle(&mut rig, 121..=180);
    assert!(rig.commit(rows(491..=491)));
    let (there, after) = tables(&rig);
    assert!(there == after && after < listed, "{there} tables of {after} segments, {listed} before");
    assert_eq!(read_all(&mut rig), seqs(181..=491));
    assert_eq!(lost(&mut rig), 0);
}

#[test]
fn a_table_that_cannot_be_dropped_undoes_one_commit_however_late_the_next_try_is() {
    let disk = filled();
    let page = page_of(&disk, 50);
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=200));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    disk.fail(|faults| faults.bad_page = page);
    let ended: Vec<Seq> = (1..=60).map(Seq).collect();
    let (config, mut now) = (rig.worker.config.clone(), rig.worker.database.now);
    let mut done = Vec::new();
    for _ in 0..2 {
        let database = &mut rig.worker.database;
        let result = database.transact(&config, None, |log, connection| {
            log.end_all(connection, ROUTE, &ended, Fate::Delivered)
        });
        if let Err(fault) = &result {
            database.is_hopeless(fault, now.mono);
            database.unread.rest(now.mono);
            database.go_back(&now).unwrap();
        }
        done.push(result.is_ok());
        // Longer than anything rests.
        now.mono += 10_000;
        database.now = now;
    }
    assert_eq!(done, [false, true]);
}

#[test]
fn a_table_whose_header_is_lost_is_no_table_that_was_left_behind() {
    let disk = filled();
    let rig = start(&disk);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let id: i64 = connection.query_row("SELECT min(id) FROM segments", [], |row| row.get(0)).unwrap();
    connection.execute("DELETE FROM segments WHERE id = ?", [id]).unwrap();
    rig.worker.close();
    // No room for a salvage at first.
    let taken = taken(&disk);
    disk.fail(|faults| faults.capacity = taken + 300_000);
    let mut rig = start(&disk);
    assert_eq!(rig.put_aside, None);
    (0..5).for_each(|_| rig.wait(3_000));
    assert!(rig.commit(rows(201..=201)));
    assert!(lost(&mut rig) > 0, "they are counted");
    rig.worker.close();
    disk.fail(|faults| faults.capacity = 0);
    // A salvage finds its rows.
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[0] ^= 1);
    assert_eq!(read_all(&mut start(&disk)), seqs(1..=201));
}

/// A store that an earlier run has left so many tables in; the disk reads again. And what it took with all of them in use.
fn left_by_an_earlier_run() -> (Rig, i64, u64) {
    let mut rig = with_a_bad_root(80);
    let most = rig.status().size;
    let disk = rig.disk.clone();
    for block in 0..70 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        assert!(rig.commit(rows(961 + block..=961 + block)));
    }
    let (there, listed) = tables(&rig);
    assert!(there > listed + 50, "{there} tables of {listed} segments");
    rig.worker.close();
    disk.fail(|faults| faults.bad_page = 0);
    (start(&disk), there - listed, most)
}

#[test]
fn tables_that_an_earlier_run_left_behind_cost_no_message() {
    let (mut rig, left, most) = left_by_an_earlier_run();
    rig.worker.config.max_size = most + 150_000;
    // One with each.
    (0..left).for_each(|_| rig.wait(3_000));
    let (there, listed) = tables(&rig);
    assert_eq!(there, listed);
    let mut last = 1_030;
    for _ in 0..40 {
        assert!(rig.commit(rows(last + 1..=last + 12)));
        last += 12;
    }
    // No more waits than did with all of the tables in use.
    let line = rig.status().readers[&ROUTE].clone();
    assert!(line.dropped.is_empty(), "{:?} {line:?}", tables(&rig));
    assert_eq!(read_all(&mut rig), seqs(841..=last));
}

#[test]
fn a_start_reads_no_table_that_an_earlier_run_left_behind() {
    let (rig, ..) = left_by_an_earlier_run();
    let disk = rig.disk.clone();
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name LIKE 'log_%' AND substr(name, 5) + 0 NOT IN
               (SELECT id FROM segments) ORDER BY substr(name, 5) + 0 LIMIT 1";
    let root: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    rig.worker.close();
    disk.fail(|faults| faults.bad_page = root as usize);
    let before = disk.refused();
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1_031..=1_031)));
    assert_eq!(disk.refused(), before);
    rig.wait(3_000);
    assert!(disk.refused() > before, "then it is looked at");
    let (there, listed) = tables(&rig);
    assert!(there > listed + 40);
    assert_eq!(read_all(&mut rig), seqs(841..=1_031));
}

#[test]
fn a_table_that_was_given_up_goes_once_it_is_read_and_nobody_wants_a_row_of_it() {
    let disk = filled();
    let page = page_of(&disk, 50);
    let mut rig = start(&disk);
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| (faults.bad_page, faults.capacity) = (page, all + 400_000));
    wait_until_read(&mut rig);
    assert!(rig.commit(rows(201..=201)));
    let given_up = lost(&mut rig);
    assert!(given_up > 0, "there was no room to go round it");
    let (there, listed) = tables(&rig);
    assert_eq!(there, listed + 1);
    (0..5).for_each(|_| rig.wait(3_000));
    assert_eq!(tables(&rig), (there, listed), "nobody knows whose its rows are");
    disk.fail(|faults| faults.bad_page = 0);
    settle(&mut rig, 1..=190);
    assert!(rig.commit(rows(202..=202)));
    for _ in 0..3 {
        rig.wait(3_600_000);
        assert!(rig.commit(Vec::new()));
    }
    let (there, listed) = tables(&rig);
    assert_eq!(there, listed);
    assert_eq!((read_all(&mut rig), lost(&mut rig)), (seqs(191..=202), given_up));
}

#[test]
fn tables_that_an_earlier_run_left_behind_stop_no_commit_on_a_full_disk() {
    let (rig, ..) = left_by_an_earlier_run();
    let disk = rig.disk.clone();
    rig.worker.close();
    let taken = || disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum::<u64>();
    let all = taken();
    disk.fail(|faults| faults.capacity = all + 1_000_000);
    let mut rig = start(&disk);
    assert!(rig.commit(rows(1_031..=1_031)));
    assert!(rig.worker.database.reserve.size() > 0);
    rig.worker.close();
    let all = taken();
    disk.fail(|faults| faults.capacity = all);
    let mut rig = start(&disk);
    (0..5).for_each(|_| rig.wait(3_000));
    let mut last = 1_031;
    for _ in 0..40 {
        assert!(rig.commit(rows(last + 1..=last + 12)));
        last += 12;
    }
}

#[test]
fn a_damaged_page_that_there_is_no_room_to_salvage_stops_no_commit() {
    // Of a page each, and of several.
    for sizes in [SIZES, LONG] {
        let start = |disk: &FaultyDisk, max_age| {
            let bounds = [("up", Bounds { max_age, ..Bounds::default() })];
            Rig::start_bounded(disk, sizes, &["up".into()], &bounds).unwrap_or_else(|_| panic!())
        };
        let whole = FaultyDisk::new();
        let mut rig = start(&whole, None);
        assert!(rig.commit(rows(1..=240)));
        rig.worker.close();
        // With the one each commit asks how old the first row is.
        for (seq, max_age) in [30, 90, 150].into_iter().flat_map(|seq| [(seq, None), (seq, Some(1 << 40))]) {
            let disk = whole.copied();
            let page = page_of(&disk, seq);
            let mut rig = start(&disk, max_age);
            rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
            let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
            disk.fail(|faults| faults.capacity = all + 250_000);
            // Its cells lie where there is no page.
            disk.harm(&disk.dir().join("tidegate.db"), |bytes| {
                bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff);
            });
            for block in 0..8 {
                // A few of each segment stay, and are copied on.
                settle(&mut rig, block * 30 + 1..=block * 30 + 29);
                rig.hand_over(rows(241 + block..=241 + block));
                rig.wait(500);
                assert!(rig.all_told(), "row {seq}, block {block}: {:?}", rig.status().trouble);
            }
            let found = read_all(&mut rig).len() as u64;
            assert!(rig.commit(Vec::new()));
            let (lost, delivered) = (lost(&mut rig), rig.status().readers[&ROUTE].delivered);
            assert!(lost <= 12, "row {seq}: {lost} lost");
            assert_eq!(found + lost + delivered, 248, "row {seq}");
        }
    }
}

#[test]
fn a_damaged_page_where_the_next_table_is_to_begin_stops_no_commit_on_a_disk_that_is_nearly_full() {
    let disk = filled();
    let mut rig = start(&disk);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    // SQLite moves what is there, and believes it.
    let sql = "SELECT max(rootpage) + 1 FROM sqlite_schema";
    let page = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = all + 250_000);
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[(page - 1) * 4_096..][..4_096].fill(0xa5));
    for block in 0..24 {
        settle(&mut rig, block * 4 + 1..=block * 4 + 3);
        assert!(rig.commit(rows(block * 4 + 201..=block * 4 + 204)), "block {block}");
    }
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!((line.received, line.delivered + line.queued + dropped), (296, 296), "{line:?}");
}

#[test]
fn a_place_that_every_drop_meets_stops_no_commit_on_a_full_disk() {
    let mut rig = with_a_bad_root(80);
    rig.worker.database.reserve.keep(SIZES.reserve, Some(10_000_000));
    let all: u64 = rig.disk.names(&rig.disk.dir()).iter().filter_map(|path| rig.disk.size(path)).sum();
    rig.disk.fail(|faults| faults.capacity = all + 30_000);
    let mut last = 960;
    for _ in 0..60 {
        assert!(rig.commit(rows(last + 1..=last + 12)));
        last += 12;
    }
    let line = rig.status().readers[&ROUTE].clone();
    assert_eq!(line.dropped.keys().collect::<Vec<_>>(), [&DropReason::StoreFull], "{line:?}");
    assert_eq!((line.received, line.queued + line.dropped[&DropReason::StoreFull]), (last, last));
    assert!(line.queued > 500, "{line:?}");
    rig.disk.fail(|faults| faults.bad_page = 0);
    let first = last - line.queued + 1;
    assert_eq!(read_all(&mut cut(rig)), seqs(first..=last));
}

#[test]
fn a_damaged_place_that_every_drop_meets_costs_no_message_but_its_own() {
    let mut lost = Vec::new();
    for is_damaged in [false, true] {
        // It is read, but not as it was written.
        let mut rig = with_a_bad_root(80);
        let page = rig.disk.faults().bad_page;
        rig.disk.fail(|faults| faults.bad_page = 0);
        if is_damaged {
            rig.disk.harm(&rig.disk.dir().join("tidegate.db"), |bytes| {
                bytes[(page - 1) * 4_096..][..4_096].fill(0xa5);
            });
        }
        rig.worker.config.max_size = rig.status().size + 150_000;
        let mut last = 960;
        for block in 0..150 {
            rig.hand_over(rows(last + 1..=last + 12));
            assert!(rig.all_told(), "block {block} waits: {:?}", rig.status().trouble);
            last += 12;
            settle(&mut rig, block * 12 + 1..=block * 12 + 12);
            rig.wait(10_000);
        }
        let line = rig.status().readers[&ROUTE].clone();
        let dropped: u64 = line.dropped.values().sum();
        assert_eq!((line.received, line.delivered + line.queued + dropped), (last, last), "{line:?}");
        let (there, listed) = tables(&rig);
        assert!(there <= listed + 1, "{there} tables of {listed} segments");
        lost.push(dropped);
    }
    let [whole, damaged] = lost[..] else { panic!("both") };
    assert!(damaged <= whole + 12, "{lost:?}");
}

#[test]
fn what_is_too_old_goes_beside_a_damaged_page_that_there_is_no_room_to_salvage() {
    let bounds = [("up", Bounds { max_age: Some(100_000), ..Bounds::default() })];
    let start = |disk: &FaultyDisk| {
        Rig::start_bounded(disk, LONG, &["up".into()], &bounds).unwrap_or_else(|_| panic!())
    };
    let disk = FaultyDisk::new();
    let mut rig = start(&disk);
    assert!(rig.commit((1..=240).map(|seq| wanted(seq, content(seq), &[ROUTE])).collect()));
    settle(&mut rig, 1..=29);
    assert!(rig.commit(Vec::new()));
    rig.worker.close();
    let page = page_of(&disk, 30);
    let mut rig = start(&disk);
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = all + 250_000);
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff));
    for seq in 241..=244 {
        rig.wait(10_000);
        rig.hand_over(rows(seq..=seq));
        rig.wait(10_000);
        assert!(rig.all_told());
    }
    assert!(!rig.worker.database.log.spoilt.is_empty());
    for _ in 0..30 {
        rig.wait(10_000);
    }
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!(line.received, line.delivered + line.queued + line.expired + dropped, "{line:?}");
    // Nobody knows how old the last ones are that lie before no others.
    assert_eq!(line.queued, 0, "{line:?} {:?}", rig.worker.database.log.spoilt);
}

#[test]
fn damage_in_several_tables_that_go_from_a_full_disk_costs_no_more_than_those() {
    let disk = closed_with_960_rows();
    let places = [page_of(&disk, 5), page_of(&disk, 18), page_of(&disk, 40)];
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=960));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = all);
    for page in places {
        disk.harm(&disk.dir().join("tidegate.db"), |bytes| {
            bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff);
        });
    }
    rig.hand_over(rows(961..=972));
    assert!(rig.is_soon_told(), "{:?}", rig.status().trouble);
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!(line.received, line.delivered + line.queued + line.expired + dropped, "{line:?}");
    assert!(dropped <= 120, "{line:?}");
}

/// Such a store at work again, which has read all of it, with the pages of these rows damaged and so much of the disk free.
fn with_damaged_pages(of: &[u64], free: u64) -> Rig {
    let disk = closed_with_960_rows();
    let pages: Vec<usize> = of.iter().map(|seq| page_of(&disk, *seq)).collect();
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=960));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = all + free);
    for page in pages {
        disk.harm(&disk.dir().join("tidegate.db"), |bytes| {
            bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff);
        });
    }
    rig
}

#[test]
fn damage_in_several_tables_that_go_in_one_commit_costs_no_other_row() {
    // Of each the last row is settled.
    let mut rig = with_damaged_pages(&[5, 17, 29, 41, 53, 65], 250_000);
    settle(&mut rig, 1..=100);
    rig.hand_over(rows(961..=961));
    assert!(rig.all_told(), "{:?}", rig.status().trouble);
    assert_eq!(lost(&mut rig), 0);
    assert_eq!(read_all(&mut rig), seqs(101..=961));
}

#[test]
fn a_damaged_table_that_stays_behind_keeps_no_other() {
    // There is room for the log of what shrinks the file, and there is not.
    for free in [1_000_000, 250_000] {
        let mut rig = with_damaged_pages(&[5], free);
        for block in 0..60 {
            settle(&mut rig, block * 12 + 1..=block * 12 + 12);
            rig.hand_over(rows(961 + block..=961 + block));
            assert!(rig.all_told(), "{:?}", rig.status().trouble);
            rig.wait(5_000);
        }
        let (there, listed) = tables(&rig);
        assert!(there <= listed + 2, "{there} tables of {listed} segments, {free} free");
        assert_eq!(lost(&mut rig), 0);
    }
}

#[test]
fn a_salvage_for_a_table_that_nobody_needs_is_not_tried_for_ever() {
    let mut rig = with_damaged_pages(&[5], 100_000_000);
    rig.disk.fail(|faults| faults.no_renaming = true);
    settle(&mut rig, 1..=12);
    assert!(rig.commit(rows(961..=961)));
    let steps = |rig: &Rig| rig.steps.load(Ordering::SeqCst);
    (0..10).for_each(|_| rig.wait(3_000));
    let before = steps(&rig);
    assert!(before > 0, "it was tried");
    for seq in 962..=1_000 {
        assert!(rig.commit(rows(seq..=seq)));
        rig.wait(3_000);
    }
    assert_eq!(steps(&rig), before);
    rig.disk.fail(|faults| faults.no_renaming = false);
    rig.wait(3_600_000);
    (0..3).for_each(|_| rig.wait(3_000));
    let (there, listed) = tables(&rig);
    assert_eq!((there, read_all(&mut rig), lost(&mut rig)), (listed, seqs(13..=1_000), 0));
}

#[test]
fn a_salvage_that_is_refused_for_want_of_room_is_tried_less_and_less_often() {
    let sizes = Sizes { segment_rows: 200, segment_bytes: 10_000_000, reserve: 0, ..SIZES };
    let disk = FaultyDisk::new();
    let start = || Rig::start(&disk, sizes, &["up".into()]).unwrap_or_else(|error| panic!("cannot {error}"));
    let mut rig = start();
    assert!(rig.commit(rows(1..=200)));
    // Each is reckoned to fill a second page, of which it takes little.
    assert!(rig.commit((201..=400).map(|seq| sized(seq, 5_000, &[ROUTE])).collect()));
    rig.worker.close();
    let page = page_of(&disk, 50);
    let mut rig = start();
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff));
    let taken = taken(&disk);
    disk.fail(|faults| faults.capacity = taken + (taken + 300_000) / 3 * 4);
    let (mut tries, mut before) = (0, rig.steps.load(Ordering::SeqCst));
    settle(&mut rig, 1..=200);
    rig.hand_over(rows(401..=401));
    for _ in 0..48 {
        for _ in 0..3 {
            rig.wait(3_000);
        }
        let after = rig.steps.load(Ordering::SeqCst);
        tries += u64::from(after > before);
        before = after;
        rig.wait(3_600_000);
    }
    assert!((3..=7).contains(&tries), "{tries} tries in two days");
    assert_eq!((rig.status().trouble, tables(&rig)), (None, (3, 2)));
    disk.fail(|faults| faults.capacity = 0);
    rig.wait(86_400_000);
    (0..3).for_each(|_| rig.wait(3_000));
    assert_eq!((tables(&rig), rig.status().readers[&ROUTE].queued, lost(&mut rig)), ((2, 2), 201, 0));
}

#[test]
fn damage_that_only_the_drop_of_the_oldest_meets_stops_no_commit_on_a_full_disk() {
    // What comes to the front of the one route may not go, since the other refuses more.
    let bounds = [
        ("up", Bounds { max_age: Some(1 << 40), ..Bounds::default() }),
        ("keep", Bounds { when_full: Policy::Refuse, ..Bounds::default() }),
    ];
    let routes = bounds.map(|(name, _)| name.to_owned());
    let start =
        |disk: &FaultyDisk| Rig::start_bounded(disk, SIZES, &routes, &bounds).unwrap_or_else(|_| panic!());
    let disk = FaultyDisk::new();
    disk.fail(|faults| faults.capacity = 10_000_000);
    let mut rig = start(&disk);
    for block in 0..80 {
        let readers: &[ReaderId] = if block == 0 { &[ROUTE] } else { &[ROUTE, ReaderId(2)] };
        let row = |seq| wanted(seq, content(seq), readers);
        assert!(rig.commit((block * 12 + 1..=block * 12 + 12).map(row).collect()));
    }
    rig.worker.close();
    let page = page_of(&disk, 18);
    let mut rig = start(&disk);
    assert!(rig.commit(Vec::new()));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    let all: u64 = disk.names(&disk.dir()).iter().filter_map(|path| disk.size(path)).sum();
    disk.fail(|faults| faults.capacity = all);
    disk.harm(&disk.dir().join("tidegate.db"), |bytes| bytes[(page - 1) * 4_096 + 3..][..2].fill(0xff));
    rig.hand_over(rows(961..=972));
    assert!(rig.all_told() || rig.is_soon_told(), "{:?}", rig.status().trouble);
    for line in rig.status().readers.values() {
        let dropped: u64 = line.dropped.values().sum();
        assert_eq!(line.received, line.delivered + line.queued + dropped, "{line:?}");
        assert!(dropped <= 36, "{line:?}");
    }
}

#[test]
fn a_segment_that_is_given_up_costs_no_other_on_a_full_disk() {
    let mut rig = with_damaged_pages(&[5], 250_000);
    // Whose the rows are is not remembered.
    rig.worker.database.log.index = Default::default();
    rig.worker.database.log.index.open_id = rig.worker.database.log.ledger.last_segment;
    let all: u64 = rig.disk.names(&rig.disk.dir()).iter().filter_map(|path| rig.disk.size(path)).sum();
    rig.disk.fail(|faults| faults.capacity = all);
    assert!(rig.read(ROUTE, 0, 50).is_some());
    rig.hand_over(rows(961..=972));
    assert!(rig.all_told() || rig.is_soon_told(), "{:?}", rig.status().trouble);
    let line = rig.status().readers[&ROUTE].clone();
    let dropped: u64 = line.dropped.values().sum();
    assert_eq!(line.received, line.delivered + line.queued + dropped, "{line:?}");
    assert!(dropped <= 60, "{line:?}");
}

/// Lets so much of the disk be free.
fn leave_free(rig: &Rig, free: u64) {
    let all: u64 = rig.disk.names(&rig.disk.dir()).iter().filter_map(|path| rig.disk.size(path)).sum();
    rig.disk.fail(|faults| faults.capacity = all + free);
}

#[test]
fn reads_that_fail_once_cost_no_row_beside_a_place_that_only_drops_meet() {
    let mut rig = with_a_bad_root(80);
    leave_free(&rig, 250_000);
    let mut failed = 0;
    for block in 0..72 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
        rig.disk.fail(|faults| faults.reads = 1);
        rig.hand_over(rows(961 + block..=961 + block));
        failed += u64::from(rig.disk.faults().reads == 0);
        rig.disk.fail(|faults| faults.reads = 0);
        assert!(rig.all_told() || rig.is_soon_told(), "block {block}: {:?}", rig.status().trouble);
        rig.wait(3_000);
    }
    assert!(failed > 60, "{failed}");
    assert_eq!((lost(&mut rig), rig.status().readers[&ROUTE].queued), (0, 168));
}

#[test]
fn a_place_that_only_shrinking_meets_stops_no_commit_and_costs_no_row() {
    let disk = closed_with_960_rows();
    let page = (900..=940).map(|seq| page_of(&disk, seq)).max().unwrap();
    let mut rig = start(&disk);
    assert_eq!(read_all(&mut rig), seqs(1..=960));
    rig.worker.database.connection.as_ref().unwrap().execute_batch("PRAGMA shrink_memory").unwrap();
    disk.fail(|faults| faults.bad_page = page);
    leave_free(&rig, 250_000);
    for block in 0..70 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        rig.hand_over(rows(961 + block..=961 + block));
        assert!(rig.all_told(), "block {block}: {:?}", rig.status().trouble);
        assert_eq!(rig.status().trouble, None, "block {block}");
        rig.wait(3_000);
    }
    (0..80).for_each(|_| rig.wait(3_000));
    assert!(disk.refused() > 2, "{}", disk.refused());
    assert_eq!((rig.status().trouble, lost(&mut rig)), (None, 0));
}

#[test]
fn an_emptied_table_that_turns_out_to_be_damaged_keeps_no_other() {
    let mut rig = with_damaged_pages(&[5], 250_000);
    // All in one second: none of them goes yet.
    settle(&mut rig, 1..=48);
    rig.hand_over(rows(961..=961));
    assert!(rig.all_told());
    let emptied: Vec<u32> =
        rig.worker.database.log.left.iter().filter(|(_, bytes)| **bytes == 0).map(|(id, _)| *id).collect();
    assert!(emptied.len() > 1, "{:?}", rig.worker.database.log.left);
    let connection = rig.worker.database.connection.as_ref().unwrap();
    let sql = format!("SELECT rootpage FROM sqlite_schema WHERE name = 'log_{}'", emptied[0]);
    let root = connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize;
    commit::checkpoint(connection).unwrap();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    rig.disk.harm(&rig.disk.dir().join("tidegate.db"), |bytes| {
        bytes[(root - 1) * 4_096..][..4_096].fill(0xa5);
    });
    for block in 4..60 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        rig.hand_over(rows(958 + block..=958 + block));
        assert!(rig.all_told(), "{:?}", rig.status().trouble);
        rig.wait(5_000);
    }
    let (there, listed) = tables(&rig);
    assert!(there <= listed + 3, "{there} tables of {listed} segments");
    assert_eq!(lost(&mut rig), 0);
}

#[test]
fn a_sync_that_fails_beside_a_damaged_table_costs_no_sound_database_its_place() {
    let mut rig = with_damaged_pages(&[5], 100_000_000);
    // So many pages are free that the file is to be shrunk.
    settle(&mut rig, 1..=600);
    rig.hand_over(rows(961..=961));
    assert!(rig.all_told());
    // The damaged one is the only one that is left.
    rig.worker.database.log.left.retain(|_, bytes| *bytes > 0);
    assert_eq!(rig.worker.database.log.left.len(), 1);
    rig.disk.fail(|faults| faults.sync = Some((Kind::Wal, 0)));
    rig.wait(1_000);
    assert_eq!(rig.disk.faults().sync, None, "it was met");
    assert!(rig.commit(rows(962..=962)));
    assert!(rig.worker.database.sync == commit::Sync::Trusted, "this one has not failed");
    assert_eq!((read_all(&mut rig), lost(&mut rig)), (seqs(601..=962), 0));
    assert_eq!(read_all(&mut cut(rig)), seqs(601..=962));
}

#[test]
fn of_a_sync_that_fails_where_a_table_goes_the_operator_is_told() {
    let mut rig = with_a_bad_root(40);
    for block in 0..4 {
        settle(&mut rig, block * 12 + 1..=block * 12 + 12);
        assert!(rig.commit(rows(481 + block..=481 + block)));
    }
    rig.disk.fail(|faults| (faults.bad_page, faults.sync) = (0, Some((Kind::Wal, 0))));
    for _ in 0..4 {
        rig.wait(3_000);
        if rig.disk.faults().sync.is_none() {
            break;
        }
    }
    assert_eq!(rig.disk.faults().sync, None, "it was met");
    assert_eq!(rig.status().trouble.as_deref(), Some("the disk refused to sync"));
    assert!(rig.commit(rows(485..=485)));
    assert_eq!(read_all(&mut cut(rig)), seqs(49..=485));
}
