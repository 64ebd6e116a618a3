//! How a store begins: the lock, the pragmas, versions, damage, and a disk that is full.
//!
//! Each case is made on a real file, as a crash or an operator would leave it.

use std::cell::RefCell;
use std::sync::Once;

use rusqlite::Connection;
use tracing_subscriber::layer::SubscriberExt as _;

use super::disk::FaultyDisk;
use super::unreadable::absent as on_disk;
use super::*;
use crate::record::{DropReason, LeaseState};

#[test]
fn the_pragmas_are_in_force() {
    let dir = folder();
    let files = Files::within(dir.path());
    let sizes = Sizes::of(&Config::default().check().unwrap());
    let connection =
        open::database(&files, &sizes, WALL).unwrap_or_else(|error| panic!("cannot {error}")).connection;
    let number = |name: &str| -> i64 { connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    let word =
        |name: &str| -> String { connection.pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    assert_eq!(number("page_size"), 4_096);
    assert_eq!(number("auto_vacuum"), 2, "incremental");
    assert_eq!(number("secure_delete"), 0);
    assert_eq!(number("synchronous"), 2, "full");
    assert_eq!(number("temp_store"), 2, "memory");
    assert_eq!(number("cache_size"), -1_024);
    assert_eq!(number("wal_autocheckpoint"), 0);
    assert_eq!(word("journal_mode"), "wal");
    assert_eq!(word("locking_mode"), "exclusive");
    // The index of the WAL is in the heap: no shared memory file, which the lock mode set too late would make.
    assert!(!dir.path().join("tidegate.db-shm").exists());
    let sync_of_file = Connection::open(dir.path().join("tidegate.db")).unwrap();
    assert!(
        sync_of_file.query_row("SELECT count(*) FROM state", [], |row| row.get::<_, i64>(0)).is_err(),
        "locked"
    );
}

#[test]
fn a_second_instance_is_turned_away() {
    let trial = Terms::default().open();
    let second = Terms { dir: trial.dir.clone(), ..Terms::default() }.try_open();
    assert!(matches!(second.err(), Some(OpenError::Locked(dir)) if dir == trial.dir.path()));
    let terms = trial.close();
    terms.open();
}

#[test]
fn a_process_that_is_just_being_begun_keeps_nobody_out() {
    let dir = folder();
    let lock = open::lock(dir.path()).expect("nobody has it");
    // What a fork has of it until it becomes another program.
    let of_the_child = lock.0.try_clone().unwrap();
    drop(lock);
    assert!(open::lock(dir.path()).is_ok(), "it was let go of");
    drop(of_the_child);
}

#[test]
fn a_newer_version_is_refused_and_left_untouched() {
    let mut trial = Terms::default().open();
    let route = trial.route();
    trial.commit(vec![put(1, &[route])]);
    let terms = trial.close();
    let path = terms.dir.path().join("tidegate.db");
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    let mut ledger = schema::state(&newer, 0).unwrap().unwrap();
    // Behind it stands, in a byte, from which segment on the last commit wrote.
    let version = ledger.len() - 2;
    assert_eq!(i64::from(ledger[version]), schema::VERSION);
    ledger[version] = 99;
    schema::put_state(&newer, 0, ledger).unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    let refused = Terms { dir: terms.dir.clone(), ..Terms::default() }.try_open();
    assert!(matches!(refused.err(), Some(OpenError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_version_1_is_read_and_becomes_one_that_version_1_refuses() {
    let client = ReaderId(5);
    let leased = |seq| Write::Leased { reader: client, seq: Seq(seq), packet_id: 9, holder: None };
    let mut trial = Terms::default().open();
    trial.commit(vec![session(client)]);
    trial.commit(vec![put(1, &[client]), put(2, &[client])]);
    trial.commit(vec![leased(1), leased(2), Write::LeaseReceived { reader: client, seq: Seq(1) }]);
    let terms = trial.close();
    let path = terms.dir.path().join("tidegate.db");
    let version =
        |raw: &Connection| -> i64 { raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap() };
    // Where no exchange has a holder or is known to be sent, the file is byte for byte what version 1 wrote.
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    let trial = terms.open();
    assert_eq!(trial.opened.put_aside, None);
    let states: Vec<_> = trial.opened.restored.sessions[0].leases.iter().map(|lease| lease.state).collect();
    assert_eq!(states, [LeaseState::Received, LeaseState::Begun]);
    let terms = trial.close();
    assert_eq!(version(&Connection::open(terms.dir.path().join("tidegate.db")).unwrap()), 4);
}

#[test]
fn a_file_of_version_2_does_not_say_where_its_sessions_were_made() {
    let record = |number, mount| {
        let Write::Session(record) = session(ReaderId(number)) else { panic!("a session") };
        SessionRecord { mount, ..SessionRecord::clone(&record) }
    };
    let mut trial = Terms::default().open();
    let records = [
        record(5, Mount::Unknown),
        record(6, Mount::None),
        record(7, Mount::At("barn/".into())),
        record(8, Mount::At("".into())),
    ];
    trial.commit(records.iter().map(|record| Write::Session(Arc::new(record.clone()))).collect());
    let trial = trial.close().open();
    let found: Vec<_> = trial.opened.restored.sessions.iter().map(|found| found.record.clone()).collect();
    assert_eq!(found, records);
    let terms = trial.close();
    let path = terms.dir.path().join("tidegate.db");
    // Where no mount is known, the row is byte for byte what version 2 wrote.
    let raw = Connection::open(&path).unwrap();
    raw.execute("DELETE FROM sessions WHERE reader > 5", []).unwrap();
    raw.pragma_update(None, "user_version", 2).unwrap();
    drop(raw);
    let trial = terms.open();
    assert_eq!(trial.opened.put_aside, None);
    assert_eq!(trial.opened.restored.sessions[0].record, records[0]);
    let terms = trial.close();
    let raw = Connection::open(terms.dir.path().join("tidegate.db")).unwrap();
    let version: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 4);
}

#[test]
fn a_damaged_database_is_put_aside_and_a_new_one_serves() {
    type Harm = fn(&mut Vec<u8>);
    let harms: [Harm; 5] = [
        |bytes| bytes[..16].fill(b'x'),
        |bytes| bytes.truncate(100),
        |bytes| bytes[100..4_000].fill(0xff),
        |bytes| *bytes = b"not a database at all, but long enough to be looked at".repeat(200),
        |bytes| bytes.truncate(5_000),
    ];
    for harm in harms {
        let mut trial = Terms::default().open();
        let route = trial.route();
        trial.commit(vec![put(1, &[route])]);
        let terms = trial.close();
        let dir = terms.dir.clone();
        let path = dir.path().join("tidegate.db");
        let mut bytes = std::fs::read(&path).unwrap();
        std::fs::write(dir.path().join("tidegate.db-wal"), b"").unwrap();
        harm(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let mut again = terms.open();
        let aside = again.opened.put_aside.clone().expect("it was put aside");
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "as it was found");
        let (route, next) = (again.route(), again.opened.restored.last_seq.0 + 1);
        let salvaged = again.wanted(route);
        assert!(salvaged.is_empty() || salvaged == [1], "{salvaged:?}");
        again.commit(vec![put(next, &[route])]);
        assert_eq!(again.wanted(route), [salvaged, vec![next]].concat());
        again.assert_conserved();
    }
}

#[test]
fn only_a_few_damaged_databases_are_kept() {
    let mut terms = Terms::default();
    for second in 0..6 {
        let rubbish = format!("rubbish {second}").repeat(100);
        std::fs::write(terms.dir.path().join("tidegate.db"), rubbish).unwrap();
        let trial = terms.open();
        trial.turn_clock(1_000);
        terms = trial.close();
    }
    let names = std::fs::read_dir(terms.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let asides = names.filter(|name| name.contains("damaged") && !name.ends_with("-wal")).count();
    assert_eq!(asides, 3);
}

#[test]
fn a_start_reads_no_closed_segment() {
    let sizes = Sizes { segment_rows: 10, ..Sizes::of(&Config::default().check().unwrap()) };
    let mut trial = Terms { sizes: Some(sizes), ..Terms::default() }.open();
    let route = trial.route();
    trial.commit((1..=95).map(|seq| put(seq, &[route])).collect());
    let terms = trial.close();
    let connection = Connection::open(terms.dir.path().join("tidegate.db")).unwrap();
    for segment in 2..=9 {
        connection.execute_batch(&format!("DELETE FROM log_{segment}")).unwrap();
    }
    drop(connection);
    let again = Terms { sizes: Some(sizes), ..terms }.open();
    assert_eq!(again.status().readers[&route].queued, 95);
}

#[test]
fn the_epoch_changes_only_with_the_database() {
    let trial = Terms::default().open();
    let epoch = trial.opened.epoch;
    trial.turn_clock(5_000);
    let terms = trial.close();
    let again = terms.open();
    assert_eq!(again.opened.epoch, epoch);
    let terms = again.close();
    std::fs::write(terms.dir.path().join("tidegate.db"), b"rubbish".repeat(100)).unwrap();
    assert_ne!(terms.open().opened.epoch, epoch);
}

#[test]
fn without_a_store_it_answers_and_acknowledges_nothing_until_one_can_be_opened() {
    let dir = folder();
    let config = Config::default().check().unwrap();
    // A file where the data directory should be: nothing can be opened there.
    let data = dir.path().join("data");
    std::fs::write(&data, b"in the way").unwrap();
    let routes = ["up".to_string()];
    let time = Arc::new(AtomicU64::new(WALL));
    let now = |time: Arc<AtomicU64>| -> Box<dyn Fn() -> Now + Send> {
        Box::new(move || {
            let now = time.load(Ordering::SeqCst);
            Now::steady(now - WALL, now)
        })
    };
    let surroundings = Surroundings {
        resume: Box::new(|_| ()),
        clock: now(time.clone()),
        on_commit: Box::new(|_| panic!("a commit")),
        on_full: Box::new(|_| ()),
        progress: Progress::default(),
        gate: None,
    };
    let why = open(&data, &config, &routes, surroundings).err().expect("it cannot be opened");
    assert!(matches!(why, OpenError::Unavailable { .. }), "{why}");
    let (sender, available) = channel();
    let tell = Box::new(move || sender.send(()).unwrap());
    let opened = absent(&data, &config, &routes, &why, now(time.clone()), Progress::default(), tell).unwrap();
    opened.handle.write(vec![put(1, &opened.routes)], true);
    let (sender, receiver) = channel();
    let reply = sender.clone();
    opened.handle.read(opened.routes[0], Seq(0), 5, move |rows| reply.send(rows.rows.len()).unwrap());
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(0));
    opened.handle.status(move |status| sender.send(status.trouble.map_or(0, |text| text.len())).unwrap());
    assert!(receiver.recv_timeout(PATIENCE).unwrap() > 0);
    std::fs::remove_file(&data).unwrap();
    time.fetch_add(5_000, Ordering::SeqCst);
    opened.handle.status(|_| ());
    available.recv_timeout(PATIENCE).expect("it is told");
    opened.handle.close();
    opened.thread.join().unwrap();
    Terms { dir: Arc::new(dir), ..Terms::default() }.open();
}

#[test]
fn a_data_directory_that_cannot_be_taken_is_asked_for_every_3_s() {
    let dir = folder();
    let data = dir.path().join("data");
    std::fs::write(&data, b"in the way").unwrap();
    let time = Arc::new(AtomicU64::new(0));
    let clock = time.clone();
    let (tell, available) = channel();
    let mut stand_in = absent::Absent {
        files: Files::within(&data),
        clock: Box::new(move || Now::steady(clock.load(Ordering::SeqCst), WALL)),
        on_available: Some(Box::new(move || tell.send(()).unwrap())),
        ..on_disk(&FaultyDisk::new())
    };
    let (mut looks, mut due) = (0, 0);
    while time.fetch_add(50, Ordering::SeqCst) < 60_000 {
        stand_in.look_if_due();
        looks += u32::from(stand_in.tries.next() != due);
        due = stand_in.tries.next();
    }
    assert!((15..=25).contains(&looks), "{looks} times in a minute");
    assert!(stand_in.tries.is_new(), "the disk was not asked, so nothing of it is given up for that");
    std::fs::remove_file(&data).unwrap();
    time.fetch_add(3_000, Ordering::SeqCst);
    stand_in.look_if_due();
    available.try_recv().expect("it is told");
}

thread_local! {
    /// What is said on this thread, where somebody listens.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Hears every thread of the tests: one that nobody listens to would else settle for all that what it says first is
/// of no interest.
struct Ear;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        HEARD.with_borrow_mut(|heard| {
            let Some(heard) = heard else { return };
            let mut text = event.metadata().level().to_string();
            event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                text.push_str(&format!(" {field}={value:?}"));
            });
            heard.push(text);
        });
    }
}

/// What is said on this thread meanwhile.
fn heard<T>(act: impl FnOnce() -> T) -> (T, Vec<String>) {
    static EAR: Once = Once::new();
    EAR.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::Registry::default().with(Ear)).unwrap();
        tracing::callsite::rebuild_interest_cache();
    });
    HEARD.set(Some(Vec::new()));
    let done = act();
    (done, HEARD.take().unwrap())
}

#[test]
fn a_route_that_is_gone_is_named_with_what_it_takes_along() {
    let mut trial = Terms { routes: vec!["cloud:a/#".into(), "cloud:b/#".into()], ..Terms::default() }.open();
    let (gone, stays) = (trial.opened.routes[0], trial.opened.routes[1]);
    trial.commit((1..=7).map(|seq| put(seq, &[gone, stays])).collect());
    let terms = Terms { routes: vec!["cloud:b/#".into()], ..trial.close() };
    let (again, heard) = heard(|| terms.open());
    let warned = |text: &&String| text.starts_with("WARN") && text.contains("cloud:a/#");
    assert!(heard.iter().find(warned).is_some_and(|text| text.contains("messages=7")), "{heard:?}");
    assert!(!heard.iter().any(|text| text.contains("cloud:b/#")), "{heard:?}");
    // What went is counted where the route is known.
    let mut back = Terms { routes: vec!["cloud:a/#".into(), "cloud:b/#".into()], ..again.close() }.open();
    back.commit(vec![session(ReaderId(9))]);
    assert_eq!(back.status().readers[&gone].dropped, [(DropReason::Purged, 7)].into());
}
