//! Files that released versions of the schema left behind, opened by this program.
//!
//! `tests/golden/store-N.sql` is what the store of version N wrote, by its own code, as SQL; all hold the same but
//! for what only the later ones know. Whoever raises the version adds the file of the version before.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;

use super::*;
use crate::codec::Property;
use crate::record::machine::Clock;
use crate::record::{DropReason, LeaseState};

/// A folder with the database of a version.
fn folder_of(version: i64) -> (tempfile::TempDir, PathBuf) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/store-{version}.sql"));
    let dir = folder();
    let path = dir.path().join("tidegate.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&std::fs::read_to_string(golden).unwrap()).unwrap();
    (dir, path)
}

/// The store in it, a minute after it was left, or with no clock at all.
fn open(version: i64, clock: Clock) -> (Trial, Arc<Mutex<Machine>>) {
    let (dir, _) = folder_of(version);
    let machine = Arc::new(Mutex::new(Machine::new(WALL, clock)));
    let terms = Terms {
        dir: Arc::new(dir),
        routes: vec!["up".into(), "spare".into()],
        machine: Some(machine.clone()),
        ..Terms::default()
    };
    (terms.open(), machine)
}

const CLOCKS: [Clock; 2] = [Clock::Set, Clock::Lost];
const FIVE: ReaderId = ReaderId(5);
const SIX: ReaderId = ReaderId(6);

#[test]
fn rows_cursors_and_counters_of_each_version_are_as_they_were() {
    for (version, clock) in VERSIONS.into_iter().flat_map(|version| CLOCKS.map(|clock| (version, clock))) {
        let (trial, _) = open(version, clock);
        assert_eq!(trial.opened.put_aside, None, "version {version}");
        assert_eq!(trial.opened.routes, [ReaderId(1), ReaderId(2)]);
        assert_eq!(trial.opened.epoch, WALL);
        assert_eq!(trial.opened.restored.last_seq, Seq(24));
        let wanted: Vec<u64> = [7, 9].into_iter().chain(11..=20).collect();
        assert_eq!(trial.wanted(ReaderId(1)), wanted);
        let rows = trial.read(ReaderId(1), 0, 100).rows;
        let numbers: Vec<u64> = rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, wanted, "each message was the route's");
        for row in &rows {
            assert_eq!(row.message.payload, format!("payload {}", row.seq.0));
            assert_eq!(row.message.topic, format!("sensors/{}", row.seq.0 % 3));
            assert_eq!(row.message.expiry, (row.seq == Seq(11)).then_some(60));
            assert!(!row.message.unclocked);
        }
        let twelve = &rows[3].message;
        assert_eq!((twelve.qos, twelve.retain), (QoS::ExactlyOnce, true));
        assert_eq!(twelve.properties, Properties::from_list(&[Property::ContentType("text".into())]));
        assert_eq!(trial.wanted(FIVE), [5, 7, 9, 11, 13, 15, 17, 19]);
        assert_eq!(trial.wanted(SIX), [3, 5, 7, 9, 11, 13, 15, 17, 19]);
        let status = trial.assert_conserved();
        let up = &status.readers[&ReaderId(1)];
        assert_eq!((up.received, up.delivered, up.queued, up.expired), (20, 7, 12, 0));
        assert_eq!(up.dropped, BTreeMap::from([(DropReason::TooLarge, 1)]));
        let five = &status.readers[&FIVE];
        assert_eq!((five.received, five.delivered, five.queued), (10, 2, 8));
    }
}

#[test]
fn sessions_and_retained_messages_of_each_version_are_as_they_were() {
    for version in VERSIONS {
        let (trial, machine) = open(version, Clock::Set);
        let restored = &trial.opened.restored;
        let [five, six] = &restored.sessions[..] else { panic!("two sessions") };
        assert_eq!((five.record.reader, &*five.record.client_id, five.queued), (FIVE, "client-5", 8));
        assert_eq!((&five.record.user, five.record.ended, five.record.expiry), (&None, None, 3_600));
        assert_eq!(five.inward, [42, 77]);
        let leases: Vec<_> = five.leases.iter().map(|lease| (lease.seq.0, lease.packet_id)).collect();
        assert_eq!(leases, [(5, 11), (7, 12), (9, 13)]);
        let states: Vec<_> = five.leases.iter().map(|lease| (lease.state, lease.holder)).collect();
        let (last, holder) = match version {
            1 => (LeaseState::Begun, None),
            2 => (LeaseState::Begun, Some(SIX)),
            _ => (LeaseState::Sent, Some(SIX)),
        };
        assert_eq!(states, [(LeaseState::Received, None), (LeaseState::Begun, None), (last, holder)]);
        let subscription = &six.record.subscriptions[0];
        assert_eq!((&*subscription.filter, subscription.identifier), ("sensors/#", Some(7)));
        assert_eq!(six.record.user.as_deref(), Some("anna"));
        let will = six.record.will.as_ref().unwrap();
        assert_eq!((&*will.topic, &will.payload[..], will.retain), ("clients/six", &b"gone"[..], true));
        assert_eq!(will.properties.will_delay(), Some(1_800));
        let mounts = [&five.record.mount, &six.record.mount];
        match version {
            1 | 2 => assert_eq!(mounts, [&Mount::Unknown, &Mount::Unknown]),
            _ => assert_eq!(mounts, [&Mount::None, &Mount::At("barn/".into())]),
        }
        let retained: Vec<_> =
            restored.retained.iter().map(|message| (&*message.topic, message.expiry)).collect();
        assert_eq!(retained, [("state/a", None), ("state/b", Some(600))]);
        // Its clock was set: what it stamped is as old as it was.
        let now = machine.lock().unwrap().now();
        assert_eq!(now.age(six.record.ended.unwrap()) / 1_000, 49);
        assert_eq!(restored.retained[1].remaining(&now), Some(550));
    }
}

#[test]
fn a_file_of_any_version_goes_on_as_one_of_this() {
    for version in VERSIONS {
        let (mut trial, machine) = open(version, Clock::Set);
        trial.commit(vec![put(25, &[ReaderId(1), FIVE]), Write::SessionRemoved { reader: SIX }]);
        // A minute after it was received, row 11 is over.
        machine.lock().unwrap().pass(11_000);
        assert_eq!(trial.wanted(FIVE), [5, 7, 9, 13, 15, 17, 19, 25]);
        let last = trial.read(ReaderId(1), 24, 1).rows;
        assert_eq!((last[0].number, last[0].seq), (21, Seq(25)));
        trial.assert_conserved();
        let terms =
            Terms { machine: Some(machine), routes: vec!["up".into(), "spare".into()], ..trial.close() };
        let path = terms.dir.path().join("tidegate.db");
        let trial = terms.open();
        assert_eq!(trial.wanted(FIVE), [5, 7, 9, 13, 15, 17, 19, 25]);
        assert_eq!(trial.opened.restored.sessions.len(), 1);
        let _terms = trial.close();
        assert_eq!(stored_version(&path), schema::VERSION);
    }
}

#[test]
fn there_is_a_file_of_every_version_before_this() {
    assert_eq!(VERSIONS, std::array::from_fn(|index| schema::OLDEST + i64::try_from(index).unwrap()));
    assert_eq!(VERSIONS.last(), Some(&(schema::VERSION - 1)));
    for version in VERSIONS {
        assert_eq!(stored_version(&folder_of(version).1), version);
    }
}

#[test]
fn a_file_of_a_later_version_is_refused_by_name_and_stays_byte_for_byte() {
    let (dir, path) = folder_of(3);
    let later = schema::VERSION + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", later).unwrap();
    let before = std::fs::read(&path).unwrap();
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "tidegate.lock");
        names
    };
    let files = names();
    let terms = Terms { dir: Arc::new(tempfile::tempdir().unwrap()), ..Terms::default() };
    let config = terms.config.check().unwrap();
    let surroundings = Surroundings {
        resume: Box::new(|_| panic!("nothing is read of it")),
        clock: Box::new(|| Now::steady(0, WALL)),
        on_commit: Box::new(|_| panic!("nothing is committed")),
        on_full: Box::new(|_| ()),
        progress: Progress::default(),
        gate: None,
    };
    let refused = super::super::open(dir.path(), &config, &[], surroundings).err().unwrap().to_string();
    assert_eq!(
        refused,
        format!("read {}: its version is {later}, this program knows {}", path.display(), schema::VERSION)
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(names(), files);
}

fn stored_version(path: &Path) -> i64 {
    schema::version(&Connection::open(path).unwrap()).unwrap()
}

/// Every version of the schema that was released before this one.
const VERSIONS: [i64; 3] = [1, 2, 3];
