//! A disk in memory that fails as disks do, below the real SQL.
//!
//! It knows of each file what a sync has made last, and what was written since. When its power is cut,
//! what was written since survives in part: some sectors of it, in no order. A sync that fails forgets
//! what it covered, as a kernel does: it reads as written and is lost at the cut. SQLite reaches it
//! through `layer`; the store's own questions come through [`Disk`]. Everything here is decided by a seed.

mod layer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::ffi;

use crate::broker::tests::random::Random;
use crate::store::disk::{Disk, Reading};
use crate::store::open::with_suffix;

/// The disk, for whoever holds it: a test, the store, SQLite.
#[derive(Clone)]
pub(crate) struct FaultyDisk {
    number: u64,
    state: Arc<Mutex<State>>,
}

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    /// This sync of the kind fails, once: 0 is the next one.
    pub(crate) sync: Option<(Kind, u32)>,
    /// No sync succeeds.
    pub(crate) no_sync: bool,
    /// No file gets another name.
    pub(crate) no_renaming: bool,
    /// So many writes fail.
    pub(crate) writes: u32,
    /// So many reads fail.
    pub(crate) reads: u32,
    /// This page of the database that was there then cannot be read, ever; 0: none.
    pub(crate) bad_page: usize,
    /// The same of its log.
    pub(crate) bad_log_page: usize,
    /// Nothing can be changed.
    pub(crate) read_only: bool,
    /// Of the changes of names that are not synced a cut leaves the last one alone.
    pub(crate) last_name: bool,
    /// Says that it has synced, and has not.
    pub(crate) lies: bool,
    /// Bytes that fit on it; 0: any number.
    pub(crate) capacity: u64,
}

/// What a file is to SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A database.
    Database,
    /// A write-ahead log.
    Wal,
    /// Any.
    Any,
}

/// How a sync is held up: called before it, on the thread that syncs, while the disk does other things.
pub(crate) type Hold = Box<dyn FnMut(&Path) + Send>;

#[derive(Default)]
struct State {
    /// By number; one that has no name any more is kept for who has it open.
    files: Vec<Contents>,
    /// Names as they are seen.
    names: BTreeMap<PathBuf, usize>,
    /// Names as a cut would leave them, at least.
    kept_names: BTreeMap<PathBuf, usize>,
    /// What happened to names since.
    renamings: Vec<Renaming>,
    faults: Faults,
    /// The files that have bad pages: a database that takes over lies elsewhere.
    spotted: [Option<usize>; 2],
    /// The power is cut at the change after so many.
    cut_in: Option<u64>,
    off: bool,
    /// Who opened a file under an earlier one has lost it.
    generation: u64,
    hold: Option<Hold>,
    /// Syncs that were asked for, and that have come to an end.
    syncs: u64,
    syncs_done: u64,
    /// A clock that goes on by so much with each read.
    slow: Option<(Arc<AtomicU64>, u64)>,
    /// Reads of bad pages.
    refused: u64,
    /// How often each file had been changed when a sync failed first.
    changes_at_failure: Vec<u64>,
}

#[derive(Debug, Default)]
struct Contents {
    kept: Vec<u8>,
    seen: Vec<u8>,
    changes: Vec<Change>,
    /// Changes so far.
    count: u64,
}

#[derive(Debug)]
enum Change {
    Wrote { at: usize, bytes: Vec<u8> },
    CutTo(usize),
}

#[derive(Debug)]
enum Renaming {
    Made(PathBuf, usize),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
}

/// A file that SQLite has open.
struct Opened {
    disk: FaultyDisk,
    file: usize,
    path: PathBuf,
    generation: u64,
    writable: bool,
}

/// How much of what was not synced a cut leaves.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Nothing,
    Everything,
    /// Each sector by itself, so many of eight.
    Some(usize),
}

impl FaultyDisk {
    /// An empty disk.
    pub(crate) fn new() -> FaultyDisk {
        layer::register(FaultyDisk { number: 0, state: Arc::default() })
    }

    /// The directory that it is mounted at.
    pub(crate) fn dir(&self) -> PathBuf {
        PathBuf::from(format!("/faulty/{}", self.number))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets this be wrong with it from now on.
    pub(crate) fn fail(&self, change: impl FnOnce(&mut Faults)) {
        let database = self.dir().join("tidegate.db");
        let mut state = self.lock();
        let before = state.faults;
        change(&mut state.faults);
        if (before.bad_page, before.bad_log_page) != (state.faults.bad_page, state.faults.bad_log_page) {
            let log = with_suffix(&database, "-wal");
            state.spotted = [&database, &log].map(|path| state.names.get(path).copied());
        }
    }

    /// A page of this file cannot be read any more, whatever its name will be.
    pub(crate) fn spoil(&self, path: &Path, page: usize) {
        let mut state = self.lock();
        state.spotted = [Some(state.names[path]), None];
        state.faults.bad_page = page;
    }

    /// Each read takes so long by this clock.
    pub(crate) fn slow(&self, clock: Arc<AtomicU64>, millis: u64) {
        self.lock().slow = Some((clock, millis));
    }

    /// How often a bad page was asked for.
    pub(crate) fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// What is (still) wrong with it.
    pub(crate) fn faults(&self) -> Faults {
        self.lock().faults
    }

    /// Cuts the power at the change after so many.
    pub(crate) fn cut_in(&self, changes: u64) {
        self.lock().cut_in = Some(changes);
    }

    /// Cuts the power now.
    pub(crate) fn cut(&self) {
        self.lock().off = true;
    }

    /// Whether the power is cut.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Holds up each sync.
    pub(crate) fn hold_syncs(&self, hold: Hold) {
        self.lock().hold = Some(hold);
    }

    /// Lets each sync take so long, as on an SD card.
    pub(crate) fn slow_syncs(&self, time: Duration) {
        let (keep, never) = channel::<()>();
        self.hold_syncs(Box::new(move |_| {
            let _ = (&keep, never.recv_timeout(time));
        }));
    }

    /// Syncs that were asked for so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Syncs that have come to an end.
    pub(crate) fn syncs_done(&self) -> u64 {
        self.lock().syncs_done
    }

    /// How often a file was changed since a sync failed first.
    pub(crate) fn changes_since_failure(&self, path: &Path) -> u64 {
        let state = self.lock();
        let file = state.names[path];
        state.files[file].count - state.changes_at_failure[file]
    }

    /// Power again, after a cut with the worst of luck.
    pub(crate) fn lose_what_is_not_synced(&self) {
        self.lock().power_on(Luck::Nothing, &mut Random(0));
    }

    /// Power again: what was synced, and by luck some of what was not.
    pub(crate) fn power_on(&self, random: &mut Random) {
        let luck = match random.below(5) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            2 => Luck::Some(1),
            3 => Luck::Some(7),
            _ => Luck::Some(4),
        };
        self.lock().power_on(luck, random);
    }

    /// A file's bytes, as they are read.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(path).map(|file| state.files[*file].seen.clone())
    }

    /// Puts other bytes in the place of a file's, synced.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        let file = state.files.len();
        state.files.push(Contents { kept: bytes.clone(), seen: bytes, ..Contents::default() });
        state.names.insert(path.into(), file);
        state.kept_names = state.names.clone();
        state.renamings.clear();
    }

    /// Changes a file's bytes behind everybody's back.
    pub(crate) fn harm(&self, path: &Path, change: impl Fn(&mut [u8])) {
        let mut state = self.lock();
        let file = state.names[path];
        change(&mut state.files[file].seen);
        change(&mut state.files[file].kept);
    }

    /// A copy of what is read now, as a kill of the process leaves it.
    pub(crate) fn copied(&self) -> FaultyDisk {
        let copy = FaultyDisk::new();
        let (from, to) = (self.dir(), copy.dir());
        let files: Vec<(PathBuf, Vec<u8>)> = {
            let state = self.lock();
            state.names.iter().map(|(path, file)| (path.clone(), state.files[*file].seen.clone())).collect()
        };
        for (path, bytes) in files {
            copy.put(&to.join(path.strip_prefix(&from).unwrap()), bytes);
        }
        copy
    }
}

impl State {
    /// Counts a change. True where it is the one at which the power goes: it may be on disk in part.
    fn meets_cut(&mut self) -> bool {
        let Some(left) = self.cut_in else { return false };
        self.cut_in = left.checked_sub(1);
        self.off = left == 0;
        self.off
    }

    fn check_power(&self, generation: u64) -> Result<(), i32> {
        if self.off || generation != self.generation { Err(ffi::SQLITE_IOERR) } else { Ok(()) }
    }

    fn power_on(&mut self, luck: Luck, random: &mut Random) {
        for contents in &mut self.files {
            let changes = std::mem::take(&mut contents.changes);
            keep_by_luck(&mut contents.kept, changes, luck, random);
            contents.seen = contents.kept.clone();
        }
        // Names are changed in order: file systems keep a journal of them.
        let survive = match luck {
            Luck::Nothing => 0,
            Luck::Everything => self.renamings.len(),
            Luck::Some(_) => random.below(self.renamings.len() + 1),
        };
        if self.faults.last_name {
            self.renamings.drain(..self.renamings.len().saturating_sub(1));
        }
        let survive = if self.faults.last_name { self.renamings.len() } else { survive };
        self.keep_names(survive);
        self.renamings.clear();
        self.names = self.kept_names.clone();
        (self.off, self.cut_in) = (false, None);
        self.generation += 1;
    }

    /// A sync fails: the kernel takes the pages for clean, so that they are read as written, and never
    /// written again.
    fn forget(&mut self, file: usize) -> Result<(), i32> {
        self.files[file].changes.clear();
        if self.changes_at_failure.is_empty() {
            self.changes_at_failure = self.files.iter().map(|file| file.count).collect();
        }
        Err(ffi::SQLITE_IOERR_FSYNC)
    }

    /// The first changes of names are on disk.
    fn keep_names(&mut self, count: usize) {
        for renaming in self.renamings.drain(..count) {
            match renaming {
                Renaming::Made(path, file) => drop(self.kept_names.insert(path, file)),
                Renaming::Removed(path) => drop(self.kept_names.remove(&path)),
                Renaming::Renamed(from, to) => {
                    if let Some(file) = self.kept_names.remove(&from) {
                        self.kept_names.insert(to, file);
                    }
                }
            }
        }
    }

    fn taken(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].seen.len() as u64).sum()
    }

    fn free(&self) -> Option<u64> {
        (self.faults.capacity > 0).then(|| self.faults.capacity.saturating_sub(self.taken()))
    }

    fn make(&mut self, path: Option<&Path>) -> usize {
        let file = self.files.len();
        self.files.push(Contents::default());
        if let Some(path) = path {
            self.names.insert(path.into(), file);
            self.renamings.push(Renaming::Made(path.into(), file));
        }
        file
    }

    /// Changes names, unless the disk forbids it.
    fn change_names(&mut self, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        if self.off || self.meets_cut() {
            return Err(io::Error::other("the power is off"));
        }
        if self.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        change(self)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.change_names(|state| {
            state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            state.renamings.push(Renaming::Removed(path.into()));
            Ok(())
        })
    }
}

/// Each sector of what was not synced is on disk or not.
fn keep_by_luck(kept: &mut Vec<u8>, changes: Vec<Change>, luck: Luck, random: &mut Random) {
    let mut lucky = || match luck {
        Luck::Nothing => false,
        Luck::Everything => true,
        Luck::Some(of_eight) => random.below(8) < of_eight,
    };
    for change in changes {
        match change {
            Change::CutTo(size) if lucky() => kept.truncate(size),
            Change::CutTo(_) => {}
            Change::Wrote { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let sector_end = (at + from) / SECTOR * SECTOR + SECTOR;
                    let to = bytes.len().min(sector_end - at);
                    if lucky() {
                        overwrite(kept, at + from, &bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

fn overwrite(contents: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if contents.len() < at + bytes.len() {
        contents.resize(at + bytes.len(), 0);
    }
    contents[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Opened {
    fn read(&self, at: usize, into: &mut [u8]) -> Result<(), i32> {
        let mut state = self.disk.lock();
        state.check_power(self.generation)?;
        if let Some((clock, millis)) = &state.slow {
            clock.fetch_add(*millis, Ordering::SeqCst);
        }
        // As SQLite's own layer says of EIO: SQLite takes it for damage.
        if state.faults.reads > 0 {
            state.faults.reads -= 1;
            return Err(ffi::SQLITE_IOERR_CORRUPTFS);
        }
        let pages = at / PAGE + 1..(at + into.len()).div_ceil(PAGE) + 1;
        let mut bad = state.spotted.iter().zip([state.faults.bad_page, state.faults.bad_log_page]);
        if bad.any(|(file, page)| *file == Some(self.file) && pages.contains(&page)) {
            state.refused += 1;
            return Err(ffi::SQLITE_IOERR_CORRUPTFS);
        }
        let seen = state.files[self.file].seen.get(at..).unwrap_or_default();
        let there = seen.len().min(into.len());
        into[..there].copy_from_slice(&seen[..there]);
        into[there..].fill(0);
        if there < into.len() { Err(ffi::SQLITE_IOERR_SHORT_READ) } else { Ok(()) }
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), i32> {
        let mut state = self.disk.lock();
        state.check_power(self.generation)?;
        self.check_change(&mut state)?;
        let grows = (at + bytes.len()).saturating_sub(state.files[self.file].seen.len());
        if state.free().is_some_and(|free| grows as u64 > free) {
            return Err(ffi::SQLITE_FULL);
        }
        let cut = state.meets_cut();
        let contents = &mut state.files[self.file];
        overwrite(&mut contents.seen, at, bytes);
        contents.changes.push(Change::Wrote { at, bytes: bytes.to_vec() });
        if cut { Err(ffi::SQLITE_IOERR_WRITE) } else { Ok(()) }
    }

    fn truncate(&self, size: usize) -> Result<(), i32> {
        let mut state = self.disk.lock();
        state.check_power(self.generation)?;
        self.check_change(&mut state)?;
        let cut = state.meets_cut();
        let contents = &mut state.files[self.file];
        contents.seen.truncate(size);
        contents.changes.push(Change::CutTo(size));
        if cut { Err(ffi::SQLITE_IOERR_TRUNCATE) } else { Ok(()) }
    }

    fn check_change(&self, state: &mut State) -> Result<(), i32> {
        if state.faults.read_only || !self.writable {
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        if state.faults.writes > 0 {
            state.faults.writes -= 1;
            return Err(ffi::SQLITE_IOERR_WRITE);
        }
        state.files[self.file].count += 1;
        Ok(())
    }

    fn sync(&self) -> Result<(), i32> {
        let hold = {
            let mut state = self.disk.lock();
            state.syncs += 1;
            state.hold.take()
        };
        if let Some(mut hold) = hold {
            hold(&self.path);
            self.disk.lock().hold.get_or_insert(hold);
        }
        let mut state = self.disk.lock();
        state.check_power(self.generation)?;
        state.syncs_done += 1;
        if state.meets_cut() {
            return Err(ffi::SQLITE_IOERR_FSYNC);
        }
        if state.faults.lies {
            return Ok(());
        }
        if state.faults.no_sync {
            return state.forget(self.file);
        }
        let fails = state.faults.sync.filter(|(kind, _)| *kind == Kind::Any || *kind == self.kind());
        if let Some((kind, left)) = fails {
            state.faults.sync = left.checked_sub(1).map(|left| (kind, left));
            if left == 0 {
                return state.forget(self.file);
            }
        }
        let contents = &mut state.files[self.file];
        let changes = std::mem::take(&mut contents.changes);
        keep_by_luck(&mut contents.kept, changes, Luck::Everything, &mut Random(0));
        let made = |renaming: &Renaming| matches!(renaming, Renaming::Made(_, file) if *file == self.file);
        if let Some(at) = state.renamings.iter().position(made) {
            // SQLite syncs the directory with the first sync of a WAL, and a new file's name goes with its
            // contents anyway; names before it go first.
            let count = if self.kind() == Kind::Wal { state.renamings.len() } else { at + 1 };
            state.keep_names(count);
        }
        Ok(())
    }

    fn kind(&self) -> Kind {
        if self.path.to_string_lossy().ends_with("-wal") { Kind::Wal } else { Kind::Database }
    }

    fn size(&self) -> Result<usize, i32> {
        let state = self.disk.lock();
        state.check_power(self.generation)?;
        Ok(state.files[self.file].seen.len())
    }
}

impl Reading for Opened {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let size = self.size().map_err(|_| io::Error::other("the power is off"))?;
        let there = size.saturating_sub(at as usize).min(into.len());
        match self.read(at as usize, &mut into[..there]) {
            Ok(()) => Ok(there),
            Err(_) => Err(io::Error::other("the disk cannot be read")),
        }
    }
}

impl FaultyDisk {
    /// Opens a file for SQLite. Says whether it may be written.
    fn open(&self, path: Option<&Path>, flags: i32) -> Result<(Opened, bool), i32> {
        let mut state = self.lock();
        if state.off {
            return Err(ffi::SQLITE_CANTOPEN);
        }
        let known = path.and_then(|path| state.names.get(path).copied());
        let file = match known {
            Some(file) => file,
            None if flags & ffi::SQLITE_OPEN_CREATE == 0 || state.faults.read_only => {
                return Err(ffi::SQLITE_CANTOPEN);
            }
            None if state.meets_cut() => return Err(ffi::SQLITE_CANTOPEN),
            None => state.make(path),
        };
        let writable = flags & ffi::SQLITE_OPEN_READONLY == 0 && !state.faults.read_only;
        let path = path.unwrap_or(Path::new("temporary")).into();
        let generation = state.generation;
        Ok((Opened { disk: self.clone(), file, path, generation, writable }, writable))
    }
}

impl std::fmt::Debug for FaultyDisk {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FaultyDisk({})", self.number)
    }
}

impl Disk for FaultyDisk {
    fn layer(&self) -> &'static str {
        layer::name()
    }

    fn layer_for_reading(&self) -> &'static str {
        layer::name()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Reading>> {
        let opened = FaultyDisk::open(self, Some(path), ffi::SQLITE_OPEN_READONLY);
        opened.map(|(opened, _)| Box::new(opened) as _).map_err(|_| io::ErrorKind::NotFound.into())
    }

    fn size(&self, path: &Path) -> Option<u64> {
        let state = self.lock();
        state.names.get(path).map(|file| state.files[*file].seen.len() as u64)
    }

    fn free(&self, _: &Path) -> Option<u64> {
        self.lock().free()
    }

    fn is_read_only(&self, _: &Path) -> bool {
        self.lock().faults.read_only
    }

    fn hold(&self, path: &Path, size: u64) -> io::Result<()> {
        self.lock().change_names(|state| {
            if state.free().is_some_and(|free| size > free) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = state.make(Some(path));
            state.files[file].seen = vec![0; size as usize];
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().change_names(|state| {
            if state.faults.no_renaming {
                return Err(io::Error::other("the disk does not rename"));
            }
            let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.into(), file);
            state.renamings.push(Renaming::Renamed(from.into(), to.into()));
            Ok(())
        })
    }

    fn names(&self, dir: &Path) -> Vec<PathBuf> {
        self.lock().names.keys().filter(|path| path.starts_with(dir)).cloned().collect()
    }

    fn sync_names(&self, _: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.off || state.meets_cut() {
            return Err(io::Error::other("the power is off"));
        }
        let all = state.renamings.len();
        state.keep_names(all);
        Ok(())
    }
}

/// A page of a database.
const PAGE: usize = 4_096;

/// What a disk writes whole.
const SECTOR: usize = 512;
