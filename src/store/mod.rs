//! Keeps messages on disk until their readers have them.
//!
//! One thread owns the database and commits in batches, so that one sync serves many messages.
//! We assume: what SQLite has committed with `synchronous = FULL` survives loss of power, and what a
//! failed sync covered does not; a write leaves its neighbours alone; the disk may be full at any time and
//! says so; `fdatasync` brings all that a read needs: what was written, a new size, and in a folder its names.

mod handle;
mod config;
mod thread;
mod patience;
mod unread;
mod batch;
mod pace;
mod commit;
mod tend;
mod numbers;
mod log;
mod cursor;
mod reader;
mod read;
mod turnover;
mod segment;
mod tally;
mod index;
mod audience;
mod runs;
mod room;
mod progress;
mod bounds;
mod disk;
mod layer;
mod reserve;
mod load;
mod kept;
mod open;
mod aside;
mod successor;
mod rescue;
mod salvage;
mod found;
mod trees;
mod image;
mod wal;
mod btree;
mod schema;
mod pack;
mod times;
mod written;
mod absent;
#[cfg(test)]
mod tests;

pub use crate::record::ReaderStatus;
pub use commit::{Gate, Stage};
pub use config::{Checked, Config, KEYS};
pub use handle::{Ask, Handle, Inbox, StoreStatus};
pub use open::OpenError;
pub use progress::Progress;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::record::{Full, Kept, Now, Presence, ReaderId, Restored, Seq, Ticket};
use absent::Absent;
use batch::Batch;
use commit::{Database, Recovery, Sync};
use kept::Standing;
use log::{Log, Order};
use numbers::Given;
use patience::Tries;
use reserve::Reserve;
use room::{Files, Sizes};
use salvage::{Legible, Odds};
use schema::Fault;
use tend::Spare;
use thread::Worker;
#[cfg(test)]
pub(crate) use thread::{GivenUp, Scale, Stepped};
use unread::Unread;

/// A store at work.
pub struct Opened {
    /// The way to it.
    pub handle: Handle,
    /// Ends after [`Handle::close`].
    pub thread: JoinHandle<()>,
    /// What it had.
    pub restored: Restored,
    /// The readers of the routes, in the order in which they were named.
    pub routes: Vec<ReaderId>,
    /// When the database was made, wall clock in milliseconds; changes only when it is lost or put aside.
    pub epoch: u64,
    /// Where a damaged database was put.
    pub put_aside: Option<PathBuf>,
}

/// What the store is given of the world.
pub struct Surroundings {
    /// Told before anything else what was kept of the house's time: the clock goes on from there.
    pub resume: Box<dyn FnOnce(&Kept) + Send>,
    /// The time.
    pub clock: Box<dyn Fn() -> Now + Send>,
    /// Told after each commit how far the broker's writes are on disk; runs on the store's thread.
    pub on_commit: Box<dyn Fn(Ticket) + Send>,
    /// Told who takes nothing more, whenever that changes; at first nobody is full. On the store's thread.
    pub on_full: Box<dyn Fn(Full) + Send>,
    /// Told while it does what takes long, as far as that goes on: at a start, or on the store's thread.
    pub progress: Progress,
    /// `None` but in tests: called before and after each sync.
    pub gate: Option<Gate>,
}

/// Opens the store in a data directory, for the routes of these names, and starts its thread.
pub fn open(
    dir: &Path,
    config: &Checked,
    routes: &[String],
    surroundings: Surroundings,
) -> Result<Opened, OpenError> {
    open_sized(dir, config, Sizes::of(config), routes, surroundings)
}

/// Stands in for a store that could not be opened (`why`): it answers, keeps nothing and acknowledges
/// nothing. `on_available` is called once, on its thread, when the store could be opened after all: the
/// service then closes this one and starts afresh with [`open()`].
pub fn absent(
    dir: &Path,
    config: &Checked,
    routes: &[String],
    why: &OpenError,
    clock: Box<dyn Fn() -> Now + Send>,
    progress: Progress,
    on_available: Box<dyn FnOnce() + Send>,
) -> std::io::Result<Opened> {
    let (handle, inbox) = Handle::channel();
    let count = u32::try_from(routes.len()).unwrap_or(u32::MAX);
    let absent = Absent {
        files: Files::within(dir).telling(progress),
        config: config.clone(),
        inbox,
        clock,
        trouble: format!("cannot {why}"),
        tries: Tries::default(),
        readable: None,
        on_available: Some(on_available),
    };
    let thread = std::thread::Builder::new().name("store".into()).spawn(move || absent.run())?;
    let restored = Restored { store: Presence::Absent, last_reader: count, ..Restored::default() };
    let routes = (1..=count).map(ReaderId).collect();
    Ok(Opened { handle, thread, restored, routes, epoch: 0, put_aside: None })
}

fn open_sized(
    dir: &Path,
    config: &Checked,
    sizes: Sizes,
    routes: &[String],
    surroundings: Surroundings,
) -> Result<Opened, OpenError> {
    let lock = open::lock(dir)?;
    let Begun { worker, handle, restored, routes, epoch, put_aside } =
        begin(Files::within(dir), config, sizes, routes, surroundings)?;
    let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
        worker.run();
        drop(lock);
    });
    let thread =
        thread.map_err(|error| OpenError::Unavailable { path: dir.into(), reason: error.to_string() })?;
    Ok(Opened { handle, thread, restored, routes, epoch, put_aside })
}

/// A store that is open, before it has its thread.
struct Begun {
    worker: Worker,
    handle: Handle,
    restored: Restored,
    routes: Vec<ReaderId>,
    epoch: u64,
    put_aside: Option<PathBuf>,
}

fn begin(
    files: Files,
    config: &Checked,
    sizes: Sizes,
    routes: &[String],
    surroundings: Surroundings,
) -> Result<Begun, OpenError> {
    let files = files.telling(surroundings.progress);
    let now = (surroundings.clock)();
    let rules = Arc::new(config.clone());
    let (found, mut log, mut restored) = find(&files, sizes, &rules, now.wall)?;
    let unavailable = |fault: Fault| open::unavailable(&files, &fault);
    (surroundings.resume)(&log.ledger.times);
    let now = (surroundings.clock)();
    log.mend_restored(&mut restored, &now);
    log.find_unlisted(&found.connection).map_err(|error| unavailable(error.into()))?;
    let mut batch = Batch::default();
    let routes =
        name_routes(&found.connection, &mut log, routes, &mut batch, now.mono).map_err(unavailable)?;
    restored.last_reader = log.ledger.last_reader;
    let apart = successor::attached(&found.connection, &files).map_err(|error| unavailable(error.into()))?;
    let (handle, inbox) = Handle::channel();
    let epoch = if log.ledger.epoch == 0 { now.wall.max(1) } else { log.ledger.epoch };
    inbox.announce(Seq(log.ledger.last_seq));
    let mut reserve = Reserve::within(&files);
    reserve.keep(sizes.reserve, files.free_disk());
    let given = Given::of(&log);
    let worker = Worker {
        inbox,
        clock: surroundings.clock,
        on_commit: surroundings.on_commit,
        on_full: surroundings.on_full,
        full: Full::default(),
        trimmed_at: 0,
        config: config.clone(),
        database: Database {
            files,
            sizes,
            connection: Some(found.connection),
            log,
            given,
            reserve,
            epoch,
            suspects: BTreeMap::new(),
            unread: Unread::default(),
            shrunk_at: 0,
            spare: Spare::Perhaps,
            now,
            rules,
            sync: Sync::Trusted,
            odds: Odds::Salvage,
            apart,
        },
        names: read::Names::default(),
        batch,
        gate: surroundings.gate,
        recovery: Recovery::default(),
        meter: thread::Meter::begun(now.mono),
        last: pace::Last::default(),
        held: Vec::new(),
        beat_after: 0,
        ticket: 0,
        commits: 0,
    };
    Ok(Begun { worker, handle, restored, routes, epoch, put_aside: found.put_aside })
}

/// Opens the database and reads all that a start needs of it, after salvaging what is damaged.
fn find(
    files: &Files,
    sizes: Sizes,
    rules: &Arc<Checked>,
    wall: u64,
) -> Result<(open::Database, Log, Restored), OpenError> {
    let mut found = open::database(files, &sizes, wall)?;
    let mut loaded = load(&found.connection, sizes, rules);
    if let Some((why, legible)) = damage(&loaded, files, &found.connection) {
        drop(found.connection);
        let replaced = match open::replace_damaged(files, &sizes, wall, &why, legible) {
            // What is missing is counted.
            Err(_) if legible == Legible::AsFarAsItGoes => open::database(files, &sizes, wall)?,
            replaced => replaced.map_err(|fault| open::unavailable(files, &fault))?,
        };
        let put_aside = replaced.put_aside.or(found.put_aside);
        found = open::Database { put_aside, ..replaced };
        loaded = load(&found.connection, sizes, rules);
    }
    let unavailable = |fault: Fault| open::unavailable(files, &fault);
    let (mut log, restored) = loaded.map_err(unavailable)?;
    log.ledger.times = log.kept_time(&found.connection).map_err(unavailable)?;
    Ok((found, log, restored))
}

/// Why what was found is to be salvaged, and whether it could be gone on with as it is.
fn damage(
    loaded: &Result<(Log, Restored), Fault>,
    files: &Files,
    connection: &rusqlite::Connection,
) -> Option<(Fault, Legible)> {
    match loaded {
        Err(fault) => {
            let is_damage = fault.is_damage_at_start() || matches!(fault, Fault::Segment(_) | Fault::Page(_));
            is_damage.then(|| (Fault::Damaged(fault.to_string()), Legible::Not))
        }
        Ok((log, _)) => {
            let why = salvage::is_due(log, files, connection, &BTreeMap::new());
            why.map(|why| (why, Legible::AsFarAsItGoes))
        }
    }
}

fn load(
    connection: &rusqlite::Connection,
    sizes: Sizes,
    rules: &Arc<Checked>,
) -> Result<(Log, Restored), Fault> {
    let mut log = Log::load(connection, sizes, rules, &BTreeMap::new())?;
    let restored = log.restored(connection)?;
    Ok((log, restored))
}

/// Finds or gives each route its reader; what changes goes with the first commit, so that a full disk
/// does not hinder a start.
fn name_routes(
    connection: &rusqlite::Connection,
    log: &mut Log,
    routes: &[String],
    batch: &mut Batch,
    now: u64,
) -> Result<Vec<ReaderId>, Fault> {
    let mut stored = kept::routes(connection)?;
    for gone in
        stored.iter().filter(|route| route.standing == Standing::Active && !routes.contains(&route.name))
    {
        if let Ok(messages @ 1..) = log.queued(connection, gone.reader) {
            tracing::warn!(
                route = gone.name,
                messages,
                "the configuration has this route no more: what waited for it is dropped, and counted as purged"
            );
        }
        batch.push(Order::RouteRemoved { reader: gone.reader }, now);
    }
    let mut readers = Vec::new();
    for name in routes {
        let known = stored.iter().find(|route| route.name == *name);
        if let Some(route) = known {
            readers.push(route.reader);
            if route.standing == Standing::Removed {
                batch.push(Order::RouteAdded { reader: route.reader, name: name.clone() }, now);
            }
            continue;
        }
        log.ledger.last_reader += 1;
        let reader = ReaderId(log.ledger.last_reader);
        batch.push(Order::RouteAdded { reader, name: name.clone() }, now);
        stored.push(kept::StoredRoute { reader, name: name.clone(), standing: Standing::Active });
        readers.push(reader);
    }
    Ok(readers)
}
