//! What a message costs: tidegate, Debian's mosquitto and whoever else is named, in turns, under one load.
//!
//! One thread with one poll is publisher and subscriber of all; it checks every message. A round starts
//! each broker afresh for each row, one after the other, so that what else the machine does falls on all
//! of them. The table goes to the terminal, and with a drawing into a page.

#![allow(clippy::cast_possible_truncation, reason = "what is counted here is small")]

mod brokers;
pub(crate) mod floor;
mod flow;
mod frames;
mod gauge;
mod hub;
mod idle;
mod kept;
mod packet;
mod paced;
mod page;
mod patience;
mod results;
mod rows;
mod streams;
mod tracker;
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brokers::{Broker, Contender, Ground, Missing};
use results::{Cell, Results};
use rows::{Load, Row};

/// What a broker did wrong, in place of a figure.
pub(crate) type Outcome<T> = Result<T, String>;

/// Figures of one run, in the order of the part's.
pub(crate) type Sample = Vec<f64>;

/// How large the loads are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As the page names them; a closed loop is measured for so long.
    Whole(Duration),
    /// As a test can bear.
    Small,
}

/// How long a closed loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// So many messages of all publishers together.
    Count(u64),
    /// Ends earlier where the broker has taken `most`; the warm-up ends at a fifth of them then.
    Time { warm_up: Duration, measured: Duration, most: u64 },
}

/// What the user asks for.
struct Asked {
    rows: Vec<Row>,
    rounds: usize,
    size: Size,
    contenders: Vec<Contender>,
}

/// Everything that `ROWS`, `ROUNDS`, `SECS` and `BESIDE` ask for; the page goes to `target/bench`.
pub(crate) fn run(program: &Path) {
    let folder = PathBuf::from("target/bench");
    fs::create_dir_all(&folder).unwrap();
    let variable = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.into());
    let words = variable("ROWS", "");
    let words: Vec<&str> = words.split_whitespace().collect();
    let seconds: f64 = variable("SECS", "2").parse().expect("SECS is a number");
    let mut contenders = contenders(program);
    if let Ok(beside) = std::env::var("BESIDE") {
        let (name, command) = beside.split_once('=').expect("BESIDE is NAME=COMMAND");
        contenders.push(Contender::Beside(name.into(), command.into()));
    }
    let asked = Asked {
        rows: rows::all().into_iter().filter(|row| row.is_named(&words)).collect(),
        rounds: variable("ROUNDS", "5").parse().expect("ROUNDS is a number"),
        size: Size::Whole(Duration::from_secs_f64(seconds)),
        contenders,
    };
    assert!(!asked.rows.is_empty(), "no row has one of the words {words:?} in its name");
    let results = measure(asked, &folder);
    print!("{}", results.text());
    println!("the page: {}", folder.join("index.html").display());
    if !results.faults("tidegate").is_empty() {
        std::process::exit(1);
    }
}

/// All loads at a size fit for a test: every message must arrive, once and in order.
pub(crate) fn check(program: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let asked = Asked { rows: rows::all(), rounds: 1, size: Size::Small, contenders: contenders(program) };
    let results = measure(asked, folder.path());
    for contender in &results.brokers {
        let faults = results.faults(contender);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
    let page = fs::read_to_string(folder.path().join("index.html")).unwrap();
    for row in rows::all() {
        assert!(page.contains(&row.title), "the page lacks {}", row.title);
    }
    let behind =
        |round| in_turn(vec![0, 1, 2], round).windows(2).map(|two| (two[0], two[1])).collect::<Vec<_>>();
    let pairs: BTreeSet<_> = (1..=6).flat_map(behind).collect();
    assert_eq!(pairs.len(), 6, "each of three comes after each other one");
    assert_ne!(in_turn(vec![0, 1], 1), in_turn(vec![0, 1], 2));
    println!("measured: {} loads: every message came, once and in order", rows::all().len());
}

fn contenders(program: &Path) -> Vec<Contender> {
    let tidegate = Contender::Tidegate(program.to_path_buf());
    vec![Contender::Mosquitto, Contender::MosquittoSaving, tidegate, Contender::Floor]
}

/// Who takes part in a row, in the order of this round: each begins in some, and in every second round they go the
/// other way about, so that what one has left the disk to do does not fall on the same one each time.
fn in_turn(mut places: Vec<usize>, round: usize) -> Vec<usize> {
    let first = (round - 1) / 2 % places.len();
    places.rotate_left(first);
    if round.is_multiple_of(2) {
        places.reverse();
    }
    places
}

/// Runs all rounds; the page is written anew after each.
fn measure(asked: Asked, folder: &Path) -> Results {
    be_punctual();
    let ground = Ground::new(&fs::canonicalize(folder).unwrap());
    let names = asked.contenders.iter().map(|contender| contender.name().to_string()).collect();
    let mut results = Results::new(asked.rows, names);
    for round in 1..=asked.rounds {
        for number in 0..results.rows.len() {
            let mut line = format!("{round}/{} {:<24}", asked.rounds, results.rows[number].name);
            let places = 0..asked.contenders.len();
            let takes_part = |place: &usize| asked.contenders[*place].takes_part(&results.rows[number]);
            for place in in_turn(places.filter(takes_part).collect(), round) {
                let (row, contender) = (&results.rows[number], &asked.contenders[place]);
                let cell = one(contender, row, &ground, asked.size);
                line += &format!("  {} {}", contender.name(), results::said(&cell));
                results.add(number, place, cell);
            }
            println!("{line}");
        }
        fs::write(folder.join("index.html"), page::page(&results)).unwrap();
    }
    results
}

/// One broker under one load.
fn one(contender: &Contender, row: &Row, ground: &Ground, size: Size) -> Cell {
    let broker = match contender.start(row, ground) {
        Ok(broker) => broker,
        Err(Missing::Unable) => return Cell::Unable,
        Err(Missing::Failed(reason)) => return Cell::Void(reason),
    };
    match load(&broker, row, size) {
        Ok(sample) => Cell::Sample(sample),
        Err(reason) => {
            let ended = if broker.has_ended() { "it has ended: " } else { "" };
            Cell::Void(format!("{ended}{reason}\n{}", ground.log()).trim_end().to_string())
        }
    }
}

fn load(broker: &Broker, row: &Row, size: Size) -> Outcome<Sample> {
    match row.load {
        Load::Stream(shape, qos) => streams::measure(broker, row.part, shape, qos, size),
        Load::Durable => kept::drained(broker, size),
        Load::Acknowledged { publishers, window, sync } => {
            kept::acknowledged(broker, publishers, window, sync, size)
        }
        Load::Latency => paced::measure(broker, size),
        Load::Idle => idle::alone(broker, size),
        Load::Clients => idle::clients(broker, size),
    }
}

/// Wakes from short waits on time, and opens as many files as it may.
fn be_punctual() {
    // Without it the figures are a little worse, not wrong.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
}
