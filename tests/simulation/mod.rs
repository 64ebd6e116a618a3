//! The whole gateway in one thread, from one seed, with everything against it.
//!
//! Broker, store, bridge and SQLite are the real ones; clients, upstream, the clock and the moment at which
//! the power goes are drawn. Every promise is checked at every step, and a run that breaks one is printed as
//! the shortest log that still does, which `TIDEGATE_LOG=file` plays again. `TIDEGATE_SIZE=proof` is 100,000
//! cuts, and goes on where an interrupted run ended.

#![allow(clippy::indexing_slicing, reason = "a test that breaks should say where")]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a simulation are small")]

mod books;
mod cloud;
mod course;
mod promises;
mod world;
mod disk;
mod field;
mod uplink;

use std::cell::Cell;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use course::Script;
use world::{Tally, World};

/// A run that broke a promise.
struct Failure {
    script: Script,
    what: String,
    trace: Vec<String>,
}

impl Failure {
    /// What broke, without its particulars.
    fn kind(&self) -> String {
        self.what.chars().filter(|letter| !letter.is_ascii_digit()).take(KIND_LETTERS).collect()
    }
}

/// Plays a script to its end.
fn play(script: &Script, traced: bool) -> Result<(Tally, Vec<String>), Failure> {
    hush();
    let mut world = None;
    let mut at = 0;
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(script.seed, traced));
        for step in &script.steps {
            world.step(*step);
            at += 1;
        }
        world.drain();
        world.nothing_is_missing();
    }));
    IS_QUIET.set(false);
    let trace = world.as_mut().map(World::trace).unwrap_or_default();
    match result {
        Ok(()) => Ok((world.map(|world| world.tally).unwrap_or_default(), trace)),
        Err(thrown) => {
            let text = thrown.downcast_ref::<String>().cloned();
            let what = text.or_else(|| thrown.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let mut script = script.clone();
            script.steps.truncate(at + 1);
            Err(Failure { script, what: what.unwrap_or_else(|| "it panics".into()), trace })
        }
    }
}

/// Leaves out whatever the failure does not need.
fn shrink(mut failure: Failure) -> Failure {
    let mut left = SHRINK_PLAYS;
    let mut chunk = failure.script.steps.len() / 2;
    while chunk > 0 && left > 0 {
        let mut from = 0;
        while from < failure.script.steps.len() && left > 0 {
            let mut smaller = failure.script.clone();
            let to = (from + chunk).min(smaller.steps.len());
            smaller.steps.drain(from..to);
            left -= 1;
            match play(&smaller, false) {
                Err(still) if still.kind() == failure.kind() => failure = still,
                Err(_) | Ok(_) => from += chunk,
            }
        }
        chunk /= 2;
    }
    play(&failure.script, true).err().unwrap_or(failure)
}

fn tell(failure: Failure) -> ! {
    let failure = shrink(failure);
    let end = failure.trace.len().saturating_sub(TRACE_END);
    panic!(
        "seed {}: {}\nwhat happened at last:\n{}\nthe log, for TIDEGATE_LOG:\n{}",
        failure.script.seed,
        failure.what,
        failure.trace[end..].join("\n"),
        failure.script
    );
}

/// Plays runs from this seed on until they have had so many cuts.
fn play_all(name: &str, seed: u64, cuts: u64) {
    let (first, done) = resumed(name, seed);
    let (next, cut) = (AtomicU64::new(first), AtomicU64::new(done));
    let sum = Mutex::new(Tally::default());
    let stop = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while cut.load(Ordering::Relaxed) < cuts && !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match play(&Script::random(seed.wrapping_add(number), STEPS), false) {
                        Ok((tally, _)) => {
                            let all = cut.fetch_add(tally.cuts, Ordering::Relaxed) + tally.cuts;
                            sum.lock().expect("nobody dies with it").add(tally);
                            if proof() && number.is_multiple_of(50) {
                                note(name, seed, number.saturating_sub(LANES), all);
                            }
                        }
                        Err(failure) => {
                            stop.store(true, Ordering::Relaxed);
                            failures.lock().expect("nobody dies with it").push((number, failure));
                        }
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("nobody dies with it");
    failures.sort_by_key(|(number, _)| *number);
    if let Some((number, failure)) = failures.into_iter().next() {
        println!("found in run {} of seed {seed}", number + 1);
        tell(failure);
    }
    let sum = sum.into_inner().expect("nobody dies with it");
    // Runs in which nothing is ever full, over or repeated would show little.
    assert!(cuts < 500 || done > 0 || (sum.full > 0 && sum.expired > 0 && sum.repeats > 0), "{sum:?}");
    let words = format!(
        "measured: simulation, {name} seed {seed}: {} runs, {} cuts, {:?}: 0 lost, 0 refusals to start, 0 \
         conservation errors\n",
        next.load(Ordering::Relaxed),
        cut.load(Ordering::Relaxed),
        sum,
    );
    std::io::stdout().write_all(words.as_bytes()).expect("stdout takes a line");
    let _ = std::fs::remove_file(place(name));
}

/// Cuts from each of the two seeds.
fn cuts() -> u64 {
    let asked = std::env::var("TIDEGATE_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    asked.unwrap_or(if proof() { 50_000 } else { 500 })
}

fn proof() -> bool {
    std::env::var("TIDEGATE_SIZE").is_ok_and(|size| size == "proof")
}

/// Where a proof notes how far it is.
fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("target/suites/simulation.{name}"))
}

fn note(name: &str, seed: u64, number: u64, cuts: u64) {
    let place = place(name);
    let _ = std::fs::create_dir_all(place.parent().expect("it stands in a folder"));
    let _ = std::fs::write(place, format!("{seed} {number} {cuts}"));
}

/// The run to go on with and the cuts that were made before it.
fn resumed(name: &str, seed: u64) -> (u64, u64) {
    let text = if proof() { std::fs::read_to_string(place(name)).unwrap_or_default() } else { String::new() };
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [of, number, cuts] if of == seed => (number, cuts),
        _ => (0, 0),
    }
}

/// A fresh seed, or the one that is asked for.
fn fresh() -> u64 {
    if let Some(seed) = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed;
    }
    let noted =
        if proof() { std::fs::read_to_string(place("fresh")).unwrap_or_default() } else { String::new() };
    let noted = noted.split_whitespace().next().and_then(|word| word.parse().ok());
    noted.unwrap_or_else(|| getrandom::u64().expect("the system gives a seed") >> 16)
}

/// Failures of a run are caught and told once, at the end.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                loud(info);
            }
        }));
    });
}

#[test]
fn no_promise_is_broken_from_a_fixed_seed() {
    play_all("fixed", FIXED, cuts());
}

#[test]
fn no_promise_is_broken_from_a_fresh_seed() {
    let seed = fresh();
    println!("seed {seed}");
    play_all("fresh", seed, cuts());
}

#[test]
fn a_log_is_played_again() {
    let Some(path) = std::env::var_os("TIDEGATE_LOG") else {
        // Without one: the same script does the same.
        let script = Script::parse(&Script::random(FIXED + 1, STEPS).to_string());
        let [one, two] = [(); 2].map(|()| play(&script, true).unwrap_or_else(|failure| tell(failure)).1);
        assert!(one.len() > STEPS, "something happened");
        assert_eq!(one, two);
        return;
    };
    let text = std::fs::read_to_string(path).expect("the log can be read");
    if let Err(failure) = play(&Script::parse(&text), true) {
        tell(failure);
    }
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Where the fixed seed begins.
const FIXED: u64 = 5_000;

/// Steps of a run.
const STEPS: usize = 700;

/// Runs at a time.
const LANES: u64 = 2;

/// How often a failure is played to make it smaller.
const SHRINK_PLAYS: u32 = 800;

/// Letters of what broke that say which promise it was.
const KIND_LETTERS: usize = 30;

/// Lines that a failure shows of what happened.
const TRACE_END: usize = 120;
