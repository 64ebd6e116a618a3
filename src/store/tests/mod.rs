//! A store under test: a folder that vanishes, a clock that the test turns, answers that it waits for.
//!
//! The clock never moves by itself, so a commit takes place because of what the test did and not because
//! of the time that the machine took.

#![allow(clippy::cast_possible_truncation, reason = "the numbers of these tests are small")]

mod promises;
mod model;
mod pacing;
mod full;
mod limits;
mod own;
mod damage;
mod cost;
mod size;
mod opening;
mod versions;
mod times;
mod disk;
mod cuts;
mod faults;
mod apart;
mod short;
mod rescue;
mod unreadable;
mod left;
mod salvage;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::reader::Fate;
use super::*;
use crate::codec::{Properties, QoS};
use crate::record::machine::Machine;
use crate::record::{Bounds, Identifiers, Message, Mount, Portion, Rows, Seq, SessionRecord, Want, Write};

/// A store under test.
pub(super) struct Trial {
    pub(super) dir: Arc<tempfile::TempDir>,
    pub(super) opened: Opened,
    pub(super) time: Arc<AtomicU64>,
    /// Who takes nothing more, as the store told last.
    pub(super) full: Arc<Mutex<Full>>,
    tickets: Receiver<Ticket>,
    written: u64,
}

/// What a trial starts with.
pub(super) struct Terms {
    pub(super) dir: Arc<tempfile::TempDir>,
    pub(super) config: Config,
    pub(super) sizes: Option<Sizes>,
    /// Smaller than the configuration lets it be.
    pub(super) max_size: Option<u64>,
    pub(super) routes: Vec<String>,
    /// Of routes by their names.
    pub(super) bounds: Vec<(&'static str, Bounds)>,
    pub(super) gate: Option<Gate>,
    pub(super) time: Arc<AtomicU64>,
    /// A counter that the store's thread leaves as it is.
    pub(super) planted: Option<Option<Fate>>,
    /// Where there is one, its clocks are those of the store.
    pub(super) machine: Option<Arc<Mutex<Machine>>>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            dir: Arc::new(folder()),
            // The machine's own disk is not under test.
            config: Config { min_free_disk: "0B".into(), ..Config::default() },
            sizes: None,
            max_size: None,
            routes: vec!["up".into()],
            bounds: Vec::new(),
            gate: None,
            time: Arc::new(AtomicU64::new(WALL)),
            planted: None,
            machine: None,
        }
    }
}

impl Terms {
    pub(super) fn open(self) -> Trial {
        self.try_open().unwrap_or_else(|error| panic!("cannot {error}"))
    }

    pub(super) fn try_open(self) -> Result<Trial, OpenError> {
        let mut config = self.config.check().unwrap();
        config.max_size = self.max_size.unwrap_or(config.max_size);
        config.routes = self.bounds.iter().map(|(name, bounds)| ((*name).to_owned(), *bounds)).collect();
        let (sender, tickets): (Sender<Ticket>, _) = channel();
        let time = self.time.clone();
        let full = Arc::new(Mutex::new(Full::default()));
        let told = full.clone();
        let planted = self.planted;
        let (machine, start) = (self.machine.clone(), self.machine.clone());
        let surroundings = Surroundings {
            resume: Box::new(move |kept| {
                start.into_iter().for_each(|machine| machine.lock().unwrap().start(kept));
            }),
            clock: Box::new(move || {
                // The clock is asked on the store's thread, before anything is counted there.
                reader::fault::PLANTED.set(planted);
                match &machine {
                    Some(machine) => machine.lock().unwrap().now(),
                    None => {
                        let now = time.load(Ordering::SeqCst);
                        Now::steady(now - WALL, now)
                    }
                }
            }),
            on_commit: Box::new(move |ticket| sender.send(ticket).unwrap_or_default()),
            on_full: Box::new(move |full| *told.lock().unwrap() = full),
            progress: Progress::default(),
            gate: self.gate,
        };
        let sizes = self.sizes.unwrap_or(Sizes::of(&config));
        let opened = open_sized(self.dir.path(), &config, sizes, &self.routes, surroundings)?;
        Ok(Trial { dir: self.dir, opened, time: self.time, full, tickets, written: 0 })
    }
}

impl Trial {
    /// The reader of the first route.
    pub(super) fn route(&self) -> ReaderId {
        self.opened.routes[0]
    }

    /// Hands writes over and waits for the commit that holds the last of them.
    pub(super) fn commit(&mut self, batch: Vec<Write>) {
        let prompt = batch.iter().any(|write| !write.is_lazy());
        self.write(batch);
        self.opened.handle.write(Vec::new(), true);
        if !prompt {
            // Once it has come in, a second may pass.
            self.status();
            self.turn_clock(1_000);
        }
        self.wait_committed();
    }

    /// Hands writes over.
    pub(super) fn write(&mut self, batch: Vec<Write>) {
        self.written += batch.len() as u64;
        self.opened.handle.write(batch, false);
    }

    /// Waits until everything that was handed over is committed.
    pub(super) fn wait_committed(&mut self) {
        let all = Ticket(self.written);
        while self.next_ticket() < all {}
    }

    /// The next ticket that the store tells.
    pub(super) fn next_ticket(&mut self) -> Ticket {
        match self.tickets.recv_timeout(PATIENCE) {
            Ok(ticket) => ticket,
            Err(_) => panic!("the store does not commit: {:?}", self.status()),
        }
    }

    /// Lets time pass, and wakes the store so that it sees it.
    pub(super) fn turn_clock(&self, millis: u64) {
        self.time.fetch_add(millis, Ordering::SeqCst);
        self.status();
    }

    pub(super) fn read(&self, reader: ReaderId, after: u64, limit: impl Into<Portion>) -> Rows {
        let (sender, receiver) = channel();
        self.opened.handle.read(reader, Seq(after), limit, move |rows| drop(sender.send(rows)));
        receiver.recv_timeout(PATIENCE).expect("the store answers")
    }

    /// The order numbers of everything that a reader still wants.
    pub(super) fn wanted(&self, reader: ReaderId) -> Vec<u64> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let read = self.read(reader, after, 7);
            found.extend(read.rows.iter().map(|row| row.seq.0));
            if read.through.0 >= self.last_seq() {
                return found;
            }
            after = read.through.0;
        }
    }

    fn last_seq(&self) -> u64 {
        self.opened.handle.committed().borrow().0
    }

    pub(super) fn status(&self) -> StoreStatus {
        let (sender, receiver) = channel();
        self.opened.handle.status(move |status| drop(sender.send(status)));
        receiver.recv_timeout(PATIENCE).expect("the store answers")
    }

    /// Checks that every row is accounted for.
    pub(super) fn assert_conserved(&self) -> StoreStatus {
        let status = self.status();
        for reader in status.readers.values() {
            let dropped: u64 = reader.dropped.values().sum();
            let accounted = reader.delivered + reader.queued + reader.expired + dropped;
            assert_eq!(reader.received, accounted, "{reader:?}");
        }
        status
    }

    /// Ends the store in good order; what it takes to open it again.
    pub(super) fn close(self) -> Terms {
        self.opened.handle.close();
        self.opened.thread.join().unwrap();
        Terms { dir: self.dir, time: self.time, ..Terms::default() }
    }

    /// What a kill at this moment would leave: a copy of the files.
    pub(super) fn killed(&self) -> Terms {
        self.status();
        let copy = folder();
        copy_files(self.dir.path(), copy.path());
        Terms { dir: Arc::new(copy), time: self.time.clone(), ..Terms::default() }
    }
}

/// A folder that vanishes, in memory where that is to be had: a kill leaves what was written either way.
pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A message whose payload names its number.
pub(super) fn message(seq: u64, topic: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: Bytes::from(format!("payload {seq}")),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::new(),
        expiry: None,
        received: WALL,
        unclocked: false,
    })
}

pub(super) fn want(reader: ReaderId) -> Want {
    Want { reader, qos: QoS::AtLeastOnce, retain: false, subscription_ids: Identifiers::default() }
}

/// A write of a message of so many bytes that these readers want.
pub(super) fn sized(seq: u64, bytes: usize, readers: &[ReaderId]) -> Write {
    let mut message = Message::clone(&message(seq, "sensors/one/temperature"));
    message.payload = vec![b'x'; bytes].into();
    wanted(seq, Arc::new(message), readers)
}

/// A write of a message that these readers want.
pub(super) fn put(seq: u64, readers: &[ReaderId]) -> Write {
    wanted(seq, message(seq, "sensors/one"), readers)
}

/// A write of this message, which these readers want.
pub(super) fn wanted(seq: u64, message: Arc<Message>, readers: &[ReaderId]) -> Write {
    let audience: Vec<Want> = readers.iter().copied().map(want).collect();
    Write::Message { seq: Seq(seq), message, audience: audience.into(), retained: false, inward: None }
}

pub(super) fn session(reader: ReaderId) -> Write {
    Write::Session(Arc::new(SessionRecord {
        reader,
        client_id: format!("client-{}", reader.0).into(),
        user: None,
        expiry: u32::MAX,
        ended: None,
        subscriptions: Vec::new(),
        will: None,
        mount: Mount::Unknown,
    }))
}

/// The wall clock at a trial's start, in milliseconds.
pub(super) const WALL: u64 = 1_800_000_000_000;

/// A store that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(20);
