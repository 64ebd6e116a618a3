//! Peers that mean harm and do not stop, and what those beside them wait meanwhile.
//!
//! What one waits for is counted at every size: work of others, of which a turn of the gateway's loop takes
//! so much and no more. At full size it is timed too, beside the same waits in peace, and there the program
//! is the optimised one: the other is ten times as slow at the same work, and nobody runs it. Attackers are
//! to be other machines, so the gateway has a processor of its own, their threads step back where the other
//! is short, and he who is measured rests between two messages. An echo beside the gateway says what remains
//! of this machine's own delays.

mod attacks;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate::codec::QoS;

use crate::optimised;
use crate::stand::{Client, Gateway, MemoryWatch, Options, monotonic, proof, wait_for};
use attacks::ATTACKS;

/// What is done, by how many clients, to a gateway with which `[limits]` and what follows them.
struct Attack {
    what: &'static str,
    clients: u64,
    configuration: fn(&Path) -> String,
    run: fn(&Siege),
}

/// An attack that goes on until it is told to stop.
struct Siege {
    port: u16,
    over: AtomicBool,
    /// How often it has done its worst.
    rounds: AtomicU64,
}

/// Ends the attack, also where the test fails.
struct Relief<'a>(&'a Siege);

/// Somebody who only wants his messages, and what an echo takes at the same time.
struct Honest {
    client: Client,
    echo: TcpStream,
    sent: u32,
}

/// How long all but one in a hundred took at most.
#[derive(Clone, Copy)]
struct Waits {
    gateway: Duration,
    echo: Duration,
}

/// How long others waited in one try.
struct Try {
    quiet: Waits,
    besieged: Waits,
    /// How often the attackers did their worst meanwhile.
    rounds: u64,
}

/// What came of an attack.
struct Outcome {
    what: &'static str,
    best: Try,
    /// Of its memory, in KB.
    growth: u64,
    allowed: u64,
    /// Work of the largest turn.
    turn: u64,
}

#[test]
fn whatever_others_do_one_is_served() {
    println!(
        "measured: others' p99 quiet and besieged, an echo's, KB more at most and allowed, work of a turn"
    );
    let mut faults = Vec::new();
    for attack in &ATTACKS {
        let outcome = endure(attack);
        println!("measured: {outcome}");
        faults.extend(outcome.faults());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Runs one attack; at full size up to three times, since this machine has others to serve.
fn endure(attack: &Attack) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let configuration = (attack.configuration)(folder.path());
    let configuration = format!("[limits]\nmax_memory = \"{MAX_MEMORY}KB\"\n{configuration}");
    let gateway = Gateway::start(optimised(), folder.path(), &configuration);
    let mut honest = Honest::new(gateway.port());
    if proof() {
        keep_apart(gateway.pid());
    }
    let memory = MemoryWatch::start(&gateway);
    let mut best: Option<Try> = None;
    for _ in 0..if proof() { 3 } else { 1 } {
        let quiet = honest.waits(|| true);
        let (besieged, rounds) = honest.waits_during(attack, gateway.port());
        assert!(rounds > 0, "{}: nobody attacked while it was measured", attack.what);
        let found = Try { quiet, besieged, rounds };
        if best.as_ref().is_none_or(|best| found.factor() < best.factor()) {
            best = Some(found);
        }
        if best.as_ref().is_some_and(|best| best.factor() <= FACTOR) {
            break;
        }
    }
    Outcome {
        what: attack.what,
        best: best.expect("one try at least"),
        // However often it was tried.
        growth: memory.growth(),
        allowed: 2 * attack.clients + MAX_MEMORY,
        turn: gateway.status()["engine"]["most_work"].as_u64().unwrap(),
    }
}

impl Try {
    /// How many times as long others waited.
    fn factor(&self) -> f64 {
        self.besieged.gateway.as_secs_f64() / self.quiet.gateway.as_secs_f64()
    }
}

impl Outcome {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.growth > self.allowed {
            faults.push(format!("{}: {} KB more, allowed are {}", self.what, self.growth, self.allowed));
        }
        if self.turn > TURN_WORK_MAX {
            faults.push(format!("{}: a turn of {}, allowed are {TURN_WORK_MAX}", self.what, self.turn));
        }
        // Twice the bound, since the machine is not the test's alone.
        let factor = self.best.factor();
        if proof() && factor > FACTOR * 2.0 {
            faults.push(format!("{}: others waited {factor:.1} times as long", self.what));
        }
        faults
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { what, best, growth, allowed, turn } = self;
        let Try { quiet, besieged, rounds } = best;
        let micros = |wait: Duration| wait.as_micros();
        write!(
            formatter,
            "{what:40} {:5} -> {:5} us ({:.1}x), echo {:4} -> {:4} us, {growth:5} of {allowed:5} KB, turn {turn:5}, {rounds} rounds",
            micros(quiet.gateway),
            micros(besieged.gateway),
            best.factor(),
            micros(quiet.echo),
            micros(besieged.echo),
        )
    }
}

impl Honest {
    fn new(port: u16) -> Honest {
        let mut client = Client::connect(port, &Options::new("honest"));
        client.subscribe("honest", QoS::AtLeastOnce);
        Honest { client, echo: echo(), sent: 0 }
    }

    /// His waits while this attack goes on, and how often it did its worst meanwhile.
    fn waits_during(&mut self, attack: &Attack, port: u16) -> (Waits, u64) {
        let siege = Siege { port, over: AtomicBool::new(false), rounds: AtomicU64::new(0) };
        thread::scope(|scope| {
            let relief = Relief(&siege);
            let attacker = scope.spawn(|| {
                step_back();
                (attack.run)(&siege);
            });
            wait_for("the attack", || (siege.rounds() > 2 || attacker.is_finished()).then_some(()));
            let before = siege.rounds();
            // However slowly attackers get on who step back.
            let waits = self.waits(|| siege.rounds() > before || attacker.is_finished());
            let rounds = siege.rounds() - before;
            drop(relief);
            attacker.join().unwrap();
            (waits, rounds)
        })
    }

    /// His waits, some dozens or hundreds and as many more as it takes until there is `enough`.
    fn waits(&mut self, enough: impl Fn() -> bool) -> Waits {
        let count = if proof() { 2_000 } else { 20 };
        let mut times = Vec::new();
        while times.len() < count || !enough() {
            times.push(self.wait());
        }
        let mut most = |of: fn(&Waits) -> Duration| {
            times.sort_unstable_by_key(of);
            of(&times[times.len() * 99 / 100])
        };
        Waits { gateway: most(|waits| waits.gateway), echo: most(|waits| waits.echo) }
    }

    /// He gets what he sends.
    fn wait(&mut self) -> Waits {
        thread::park_timeout(A_MOMENT);
        self.sent += 1;
        let start = monotonic();
        self.client.publish("honest", self.sent.to_string(), QoS::AtLeastOnce);
        let message = self.client.message();
        let gateway = start.elapsed();
        assert_eq!(message.payload, self.sent.to_string().as_bytes());
        thread::park_timeout(A_MOMENT);
        let start = monotonic();
        let mut byte = [0];
        self.echo.write_all(&byte).unwrap();
        self.echo.read_exact(&mut byte).unwrap();
        Waits { gateway, echo: start.elapsed() }
    }
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// The gateway has the first processor; the calling thread, and those that it starts, have the others.
fn keep_apart(gateway: u32) {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let last = *PROCESSORS.get_or_init(|| thread::available_parallelism().unwrap().get()) - 1;
    let set = |options: &[&str]| {
        let set = Command::new("taskset").args(options).output();
        assert!(set.unwrap().status.success(), "{options:?}");
    };
    set(&["--all-tasks", "--cpu-list", "--pid", "0", &gateway.to_string()]);
    let others = format!("{}-{last}", last.min(1));
    set(&["--cpu-list", "--pid", &others, &this_thread()]);
}

/// The calling thread, and those that it starts, leave the processor to whoever else wants it.
fn step_back() {
    let idle = Command::new("chrt").args(["--idle", "--pid", "0", &this_thread()]).output();
    assert!(idle.unwrap().status.success());
}

/// The calling thread's number.
fn this_thread() -> String {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    thread.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Somebody at the other end who sends back what comes, a byte at a time.
fn echo() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    near
}

/// Others wait at most so many times as long.
const FACTOR: f64 = 2.0;

/// What a turn may take, in the engine's measure.
const TURN_WORK_MAX: u64 = 8_000;

/// KB.
const MAX_MEMORY: u64 = 16_000;

/// How long one rests, and looks for the end of the attack.
const A_MOMENT: Duration = Duration::from_millis(1);
