//! Power cuts on the real SQL: at any change of the disk, also while it starts, moves its WAL, or takes over.
//!
//! A script of writes, settles, leases, sessions, routes and retained messages runs on a disk in memory
//! until its power is cut. After each cut the store must start, and have what it had at the last commit
//! that was told, or at the one that was under way: whole, in order, byte for byte. Syncs fail in between.

mod picture;

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::{Faults, FaultyDisk, Kind};
use super::*;
use crate::broker::tests::random::{Random, fresh_seed};
use crate::record::{DropReason, LeaseState};
use crate::store::handle::Ask;
use crate::store::thread::Course;
use picture::Picture;
pub(in crate::store::tests) use picture::content;

/// A store on a faulty disk, without a thread of its own: one seed gives one run.
pub(super) struct Rig {
    pub(super) disk: FaultyDisk,
    pub(super) worker: Worker,
    pub(super) handle: Handle,
    pub(super) restored: Restored,
    pub(super) put_aside: Option<PathBuf>,
    /// The last ticket that was told.
    told: Arc<AtomicU64>,
    handed: u64,
    time: Arc<AtomicU64>,
    /// Pieces of long work that were done.
    pub(super) steps: Arc<AtomicU64>,
}

impl Rig {
    pub(in crate::store::tests) fn start(
        disk: &FaultyDisk,
        sizes: Sizes,
        routes: &[String],
    ) -> Result<Rig, OpenError> {
        Rig::start_bounded(disk, sizes, routes, &[])
    }

    /// The same with bounds of routes by their names.
    pub(in crate::store::tests) fn start_bounded(
        disk: &FaultyDisk,
        sizes: Sizes,
        routes: &[String],
        bounds: &[(&str, Bounds)],
    ) -> Result<Rig, OpenError> {
        let mut config = Config { min_free_disk: "0B".into(), ..Config::default() }.check().unwrap();
        config.routes = bounds.iter().map(|(name, bounds)| ((*name).to_owned(), *bounds)).collect();
        let (told, time) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(WALL)));
        let steps = Arc::new(AtomicU64::new(0));
        let (tell, clock, step) = (told.clone(), time.clone(), steps.clone());
        let surroundings = Surroundings {
            resume: Box::new(|_| ()),
            clock: Box::new(move || {
                let wall = clock.load(Ordering::SeqCst);
                Now::steady(wall - WALL, wall)
            }),
            on_commit: Box::new(move |ticket| tell.store(ticket.0, Ordering::SeqCst)),
            on_full: Box::new(|_| ()),
            progress: Progress::new(move || {
                step.fetch_add(1, Ordering::SeqCst);
            }),
            gate: None,
        };
        let files = Files::on(Arc::new(disk.clone()), &disk.dir());
        let begun = begin(files, &config, sizes, routes, surroundings)?;
        let Begun { worker, handle, restored, put_aside, .. } = begun;
        Ok(Rig { disk: disk.clone(), worker, handle, restored, put_aside, told, handed: 0, time, steps })
    }

    /// Hands writes over, in a hurry, with one that somebody waits for.
    pub(super) fn hand_over(&mut self, mut batch: Vec<Write>) {
        batch.push(Write::InwardReleased { reader: ReaderId(1), packet_id: 1 });
        self.handed += batch.len() as u64;
        assert_eq!(self.worker.turn(vec![Ask::Writes { batch, hurry: true }]), Course::On);
    }

    /// Lets time pass until everything is committed or the power is off. Says whether all was told.
    pub(super) fn settle_down(&mut self) -> bool {
        for _ in 0..PATIENCE_TURNS {
            if self.all_told() || self.disk.is_off() {
                return self.all_told();
            }
            self.wait(3_000);
        }
        panic!("the store is stuck: {:?}", self.status());
    }

    /// Whether all is told within a few turns.
    pub(super) fn is_soon_told(&mut self) -> bool {
        (0..8).any(|_| {
            self.wait(3_000);
            self.all_told()
        })
    }

    pub(super) fn commit(&mut self, batch: Vec<Write>) -> bool {
        self.hand_over(batch);
        self.settle_down()
    }

    pub(super) fn all_told(&self) -> bool {
        self.told.load(Ordering::SeqCst) >= self.handed
    }

    /// Lets so many milliseconds pass.
    pub(super) fn wait(&mut self, millis: u64) {
        self.time.fetch_add(millis, Ordering::SeqCst);
        assert_eq!(self.worker.turn(Vec::new()), Course::On);
    }

    /// Each read of its disk takes so long from now on.
    pub(super) fn slow_reads(&self, millis: u64) {
        self.disk.slow(self.time.clone(), millis);
    }

    /// Milliseconds since it began.
    pub(super) fn elapsed(&self) -> u64 {
        self.time.load(Ordering::SeqCst) - WALL
    }

    pub(super) fn status(&mut self) -> StoreStatus {
        let (sender, receiver) = channel();
        self.worker.turn(vec![Ask::Status { reply: Box::new(move |status| sender.send(status).unwrap()) }]);
        receiver.try_recv().expect("the store answers")
    }

    /// One read; `None` where the store holds it back.
    pub(super) fn read(&mut self, reader: ReaderId, after: u64, limit: u32) -> Option<Rows> {
        let (sender, receiver) = channel();
        let reply = Box::new(move |rows| drop(sender.send(rows)));
        self.worker.turn(vec![Ask::Read { reader, after: Seq(after), limit: limit.into(), reply }]);
        receiver.try_recv().ok()
    }
}

/// A run from one seed.
struct Script {
    random: Random,
    disk: FaultyDisk,
    /// As the disk must have it, if nothing else was committed.
    kept: Picture,
    /// With everything that was handed over.
    hoped: Picture,
    cuts: u64,
    faulty: Faulty,
    /// What is wrong with the disk all the time.
    sound: Faults,
}

/// What a script does to its disk beside the cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Faulty {
    /// Nothing.
    Never,
    /// Now and then a sync fails, or some writes and reads.
    Often,
}

impl Script {
    fn new(seed: u64, disk: FaultyDisk, faulty: Faulty) -> Script {
        let (kept, hoped) = (Picture::default(), Picture::default());
        let sound = disk.faults();
        Script { random: Random(seed), disk, kept, hoped, cuts: 0, faulty, sound }
    }

    /// One life of the store: from a start to the next cut. An error says what is not as promised.
    fn live(&mut self) -> Result<(), String> {
        let mut rig = self.start()?;
        let seen = Picture::of(&mut rig)?;
        if seen != self.kept && seen != self.hoped {
            let kept = self.kept.difference(&seen);
            return Err(format!("lost: {kept}; or, had it been committed: {}", self.hoped.difference(&seen)));
        }
        let made = if seen == self.hoped { &self.hoped } else { &self.kept };
        self.kept = seen.hiding(made, &self.hoped);
        self.hoped = self.kept.clone();
        self.hoped.name_routes();
        self.schedule(600);
        let steps = 40 + self.random.below(40);
        for _ in 0..steps {
            self.step(&mut rig);
            if rig.all_told() {
                self.kept = self.hoped.clone();
            }
            if self.disk.is_off() {
                break;
            }
            self.disk.fail(|faults| *faults = self.sound);
        }
        if !self.disk.is_off() && self.random.below(3) == 0 {
            rig.worker.close();
        } else {
            self.disk.cut();
            drop(rig);
        }
        self.power_on();
        Ok(())
    }

    /// Starts until no cut comes between.
    fn start(&mut self) -> Result<Rig, String> {
        loop {
            if self.random.below(3) == 0 {
                self.schedule(80);
            }
            let started = Rig::start(&self.disk, SIZES, &self.hoped.routes());
            if self.disk.is_off() {
                drop(started);
                self.power_on();
                continue;
            }
            self.disk.cut_in(u64::MAX);
            let rig = started.map_err(|error| format!("refused to start: cannot {error}"))?;
            return match &rig.put_aside {
                Some(_) => Err("a sound database was put aside".into()),
                None => Ok(rig),
            };
        }
    }

    /// The power goes somewhere below so many changes, more often soon.
    fn schedule(&mut self, most: usize) {
        let scale = [most / 30, most / 6, most][self.random.below(3)];
        self.disk.cut_in(self.random.below(scale + 1) as u64);
    }

    fn power_on(&mut self) {
        self.disk.power_on(&mut self.random);
        self.disk.fail(|faults| *faults = self.sound);
        self.cuts += 1;
    }

    fn step(&mut self, rig: &mut Rig) {
        if self.faulty == Faulty::Often && self.random.below(12) == 0 {
            let kind = [Kind::Any, Kind::Wal, Kind::Database][self.random.below(3)];
            let (which, few) = (self.random.below(3) as u32, self.random.below(4) as u32);
            match self.random.below(4) {
                0 => self.disk.fail(|faults| faults.writes = few),
                1 => self.disk.fail(|faults| faults.reads = few),
                _ => self.disk.fail(|faults| faults.sync = Some((kind, which))),
            }
        }
        for (reader, seqs, fate) in self.hoped.route_ends(&mut self.random) {
            let seqs = seqs.into_iter().map(Seq).collect();
            let ask = match fate {
                None => Ask::Settle { reader, seqs },
                Some(reason) => Ask::Drop { reader, seqs, reason },
            };
            rig.worker.turn(vec![ask]);
        }
        let batch = self.hoped.batch(&mut self.random);
        rig.hand_over(batch);
        rig.settle_down();
        if self.random.below(4) == 0 {
            rig.wait(1_000);
        }
        if self.random.below(8) == 0 && self.kept.knows_both_routes() {
            self.hoped.change_routes(&mut self.random);
        }
    }
}

/// Runs scripts of some lives each until there were so many cuts.
fn cut_often(seed: u64, faulty: Faulty, cuts: u64, disk: impl Fn() -> FaultyDisk) -> Result<u64, String> {
    let (mut done, mut number) = (0, 0);
    while done < cuts {
        let script_seed = Random(seed.wrapping_add(number)).next();
        let mut script = Script::new(script_seed, disk(), faulty);
        for life in 0..LIVES {
            script.live().map_err(|what| {
                format!("seed {seed}, script {number}, life {life}, {} cuts: {what}", done + script.cuts)
            })?;
        }
        done += script.cuts;
        number += 1;
    }
    Ok(done)
}

fn proof() -> bool {
    std::env::var("TIDEGATE_SIZE").is_ok_and(|size| size == "proof")
}

/// Cuts of the proof, in parts of which those that are done are remembered.
fn prove(faulty: Faulty) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/proof-of-cuts-{faulty:?}"));
    let mut state: Vec<u64> = std::fs::read_to_string(&path)
        .unwrap_or_default()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    if state.len() != 3 || state[1] >= PROOF_CUTS {
        state = vec![fresh_seed(), 0, 0];
    }
    while state[1] < PROOF_CUTS {
        println!("seed {}, {} cuts so far", state[0], state[1]);
        let seed = state[0].wrapping_add(state[2] << 32);
        state[1] += cut_often(seed, faulty, 500, FaultyDisk::new).unwrap_or_else(|what| panic!("{what}"));
        state[2] += 1;
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{} {} {}", state[0], state[1], state[2])).unwrap();
    }
    println!("measured: {} cuts on the real SQL (faults: {faulty:?}): nothing lost", state[1]);
}

fn check(seed: u64, faulty: Faulty) {
    // A planted fault has a thousand cuts to be found in.
    let cuts = std::env::var("TIDEGATE_CUTS").map_or(CI_CUTS, |text| text.parse().unwrap());
    println!("seed {seed}, faults: {faulty:?}");
    let done = cut_often(seed, faulty, cuts, FaultyDisk::new).unwrap_or_else(|what| panic!("{what}"));
    println!("{done} cuts, nothing lost");
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut() {
    check(1, Faulty::Never);
    if proof() { prove(Faulty::Never) } else { check(fresh_seed(), Faulty::Never) }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_power_cut_on_a_disk_that_fails() {
    check(2, Faulty::Often);
    if proof() { prove(Faulty::Often) } else { check(fresh_seed(), Faulty::Often) }
}

#[test]
fn a_disk_that_says_it_has_synced_and_has_not_is_found_by_the_cuts() {
    let lying = || {
        let disk = FaultyDisk::new();
        disk.fail(|faults| faults.lies = true);
        disk
    };
    let found = cut_often(3, Faulty::Never, 1_000, lying);
    println!("{}", found.expect_err("the cuts must find it"));
}

/// Small, so that segments end, are copied on and go, and the WAL is moved, many times in a script.
pub(super) const SIZES: Sizes =
    Sizes { segment_rows: 12, segment_bytes: 12_000, copy_below: 4, checkpoint_frames: 24, reserve: 70_000 };

/// Starts in one script.
const LIVES: usize = 12;

/// Cuts of one seed in a test.
const CI_CUTS: u64 = 150;

/// And in the proof, for each kind of fault.
const PROOF_CUTS: u64 = 10_000;

/// A store that needs more turns is stuck.
const PATIENCE_TURNS: u32 = 40;
