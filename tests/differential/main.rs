//! Random sessions, played against tidegate and against Debian's mosquitto, and what the clients got.
//!
//! Both get the same packets, step by step. Every difference is explained by the clause that allows or
//! demands ours ([`excused::EXCUSES`]); any other fails and is shown with the smallest session that still
//! has it. `TIDEGATE_SIZE=proof` plays more and goes on where an interrupted run ended.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks should say where")]
#![allow(clippy::cast_possible_truncation, reason = "numbers of a dice, all small")]

#[path = "../stand/mod.rs"]
mod stand;

mod event;
mod excused;
mod peer;
mod play;
mod session;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use event::{Event, canonical, shared, sorted, told_in_the_end};
use excused::{comparable, excuse};
use play::Record;
use session::Session;
use stand::{Cloud, Gateway, Security, proof};

/// A client for which the servers differ in a step, beyond what is excused.
struct Difference {
    step: usize,
    client: usize,
    ours: Vec<Event>,
    theirs: Vec<Event>,
}

/// The two servers, and how often each excuse was needed.
struct Pair {
    ours: u16,
    theirs: u16,
    /// So that no name is used twice.
    names: AtomicU64,
    /// Messages that were compared in the end of their session alone.
    late: AtomicU64,
    needed: Mutex<BTreeMap<&'static str, u64>>,
}

#[test]
fn tidegate_and_mosquitto_give_their_clients_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "allow_anonymous = true\n[limits]\nmax_inflight = 100\n[store]\ncommit_interval = \"1ms\"\nflash_budget = \"none\"\n";
    let gateway = Gateway::start(Path::new(env!("CARGO_BIN_EXE_tidegate")), folder.path(), limits);
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let pair = Pair {
        ours: gateway.port(),
        theirs: cloud.port,
        names: AtomicU64::new(0),
        late: AtomicU64::new(0),
        needed: Mutex::default(),
    };
    let each = if proof() { 10_000 } else { 200 };
    play_all(&pair, FIXED, each);
    play_all(&pair, stand::seed(), each);
    let needed = pair.needed.lock().unwrap();
    let (count, late) = (2 * each, pair.late.load(Ordering::Relaxed));
    let words = format!(
        "measured: {count} sessions alike on both, {late} messages of unfinished exchanges and kept groups; \
         excuses needed: {needed:?}\n"
    );
    assert!(late > 0, "nothing was compared in the end of a session");
    std::io::stdout().write_all(words.as_bytes()).unwrap();
}

/// Plays so many sessions from a seed.
fn play_all(pair: &Pair, seed: u64, count: u64) {
    let next = AtomicU64::new(resumed(seed));
    let (stop, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let session = Session::random(seed.wrapping_add(number));
                    if let Some(difference) = pair.difference(&session) {
                        let mut failed = failed.lock().unwrap();
                        failed.push((number, session, difference));
                        stop.fetch_or(failed.len() >= SHOWN, Ordering::Relaxed);
                    } else if proof() && number.is_multiple_of(100) {
                        note(seed, number.saturating_sub(LANES));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let shown = failed.into_iter().map(|(number, session, difference)| {
        let (session, difference) = shrink(pair, session, difference);
        format!("session {number} of seed {seed}:\n{}", show(&session, &difference))
    });
    let shown: Vec<String> = shown.collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    let _ = fs::remove_file(place(seed));
}

impl Pair {
    fn difference(&self, session: &Session) -> Option<Difference> {
        let name = format!("x{}", self.names.fetch_add(1, Ordering::Relaxed));
        let (mut ours, mut theirs) = thread::scope(|scope| {
            let ours = scope.spawn(|| play::play(self.ours, &name, session));
            let theirs = play::play(self.theirs, &name, session);
            (ours.join().unwrap(), theirs)
        });
        let (of_ours, of_theirs) = (take_late(session, &mut ours), take_late(session, &mut theirs));
        self.late.fetch_add(of_ours.len() as u64, Ordering::Relaxed);
        if of_ours != of_theirs {
            let step = session.steps.len() - 1;
            return Some(Difference { step, client: 0, ours: of_ours, theirs: of_theirs });
        }
        for (step, (ours, theirs)) in ours.iter().zip(&theirs).take(comparable(session)).enumerate() {
            let acting = session.steps[step].client;
            let [mut ours, mut theirs] = [ours, theirs].map(|got| got.each_ref().map(|got| canonical(got)));
            let (of_ours, of_theirs) = (shared(&mut ours), shared(&mut theirs));
            if of_ours != of_theirs {
                return Some(Difference { step, client: acting, ours: of_ours, theirs: of_theirs });
            }
            for (client, (mut ours, mut theirs)) in ours.into_iter().zip(theirs).enumerate() {
                for name in excuse(session, step, client, &mut ours, &mut theirs) {
                    *self.needed.lock().unwrap().entry(name).or_default() += 1;
                }
                if ours != theirs {
                    return Some(Difference { step, client, ours, theirs });
                }
            }
        }
        None
    }
}

/// What is compared in the end alone, once nothing is under way any more.
fn take_late(session: &Session, record: &mut Record) -> Vec<Event> {
    if !session.theme.is_told_in_the_end() {
        return Vec::new();
    }
    let taken = record.iter_mut().flat_map(|got| told_in_the_end(got)).collect();
    if session.comes_to_rest() { sorted(taken) } else { Vec::new() }
}

/// Leaves out whatever the difference does not need.
fn shrink(pair: &Pair, mut session: Session, mut difference: Difference) -> (Session, Difference) {
    session.steps.truncate(difference.step + 1);
    let mut place = session.steps.len();
    while place > 0 {
        place -= 1;
        let mut smaller = session.clone();
        smaller.steps.remove(place);
        if let Some(still) = pair.difference(&smaller) {
            smaller.steps.truncate(still.step + 1);
            place = place.min(smaller.steps.len());
            (session, difference) = (smaller, still);
        }
    }
    (session, difference)
}

fn show(session: &Session, difference: &Difference) -> String {
    let steps = session.steps.iter().enumerate();
    let steps: String =
        steps.map(|(place, step)| format!("  {place}: {} {:?}\n", step.client, step.act)).collect();
    let Difference { step, client, ours, theirs } = difference;
    let lines = |events: &[Event]| events.iter().map(|event| format!("    {event:?}\n")).collect::<String>();
    format!(
        "{:?}, versions {:?}\n{steps}in step {step} client {client} got of tidegate\n{}of mosquitto\n{}",
        session.theme,
        session.versions,
        lines(ours),
        lines(theirs)
    )
}

/// Where a run of full size notes how far it is.
fn place(seed: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/differential-{seed}"))
}

fn resumed(seed: u64) -> u64 {
    if !proof() {
        return 0;
    }
    fs::read_to_string(place(seed)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn note(seed: u64, number: u64) {
    fs::write(place(seed), number.to_string()).unwrap();
}

/// So many sessions that differ are made small and shown.
const SHOWN: usize = 5;

/// The seed that is always played.
const FIXED: u64 = 1883;

/// Sessions at a time, so that one's wait for a commit is another's turn.
const LANES: u64 = 8;
