//! A bus with several devices in virtual time: thousands of polls in a second, every order of events.
//!
//! What a real line gives seldom happens here all the time: slow devices beside quick ones, a dead one,
//! answers that bear the number of another device of the bus, damaged frames, noise. Runs from fixed seeds
//! and a fresh, printed one.

#![allow(clippy::indexing_slicing, reason = "a test that panics has failed, as it should")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Adapter, State};
use adapter_modbus::{Bus, Config, Modbus};
use tokio::sync::watch;

use world::Random;
use world::broker::Broker;
use world::server::{Account, Frame, Framing, Kind, Question, Server, random_delay};
use world::wires::{Noted, Sent, Wires};

#[tokio::test(start_paused = true)]
async fn over_rtu_every_late_and_foreign_answer_is_counted_and_none_published() {
    for seed in [1, 2, 3, Random::fresh_seed()] {
        let (account, broker) = run(Framing::Rtu, Random(seed), Line::Clean).await;
        check(seed, &account, &broker);
    }
}

#[tokio::test(start_paused = true)]
async fn over_tcp_every_late_and_foreign_answer_is_counted_and_none_published() {
    for seed in [1, 2, 3, Random::fresh_seed()] {
        let (account, broker) = run(Framing::Tcp, Random(seed), Line::Clean).await;
        check(seed, &account, &broker);
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_noisy_line_nothing_damaged_is_published() {
    for seed in [1, 2, 3, Random::fresh_seed()] {
        let (account, broker) = run(Framing::Rtu, Random(seed), Line::Noisy).await;
        assert_eq!(account.wrong, [""; 0], "seed {seed}");
        assert!(account.damaged > 50 && broker.counter("modbus/line", "crc_errors") > 50, "seed {seed}");
        assert!(account.good.len() > 500, "noise does not stop the bus; seed {seed}");
    }
}

fn check(seed: u64, account: &Account, broker: &Broker) {
    let count = |counter| broker.counter("modbus/line", counter);
    let late = account.answered.difference(&account.good).count() as u64;
    assert_eq!(account.wrong, [""; 0], "seed {seed}");
    assert!(late > 100 && account.foreign > 25, "seed {seed}: {late} late, {} foreign", account.foreign);
    // An answer that bears the number of a device which owes one is taken for that one, and the true one
    // that follows for a stranger's: apart they cannot be told, together they are all there.
    assert_eq!(count("late") + count("foreign"), late + account.foreign, "seed {seed}");
    assert_eq!(count("good"), account.good.len() as u64, "seed {seed}");
    assert_eq!(count("crc_errors"), 0, "seed {seed}");
    assert!(account.good.len() > 1_000, "a dead device does not stall the others; seed {seed}");
    let dead = broker.health("modbus/line/dead").expect("it is reported");
    assert_eq!(dead.state, State::Down, "seed {seed}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Clean,
    Noisy,
}

async fn run(framing: Framing, random: Random, line: Line) -> (Account, Arc<Broker>) {
    let broker = Broker::new();
    let sent = Sent::default();
    let (client, server_end) = tokio::io::duplex(4_096);
    let server = Server {
        framing,
        decide: decide(random, framing, line),
        take: || world::readings(&broker),
        polls: POLLS,
        span: Duration::from_secs(3_600),
        limit: None,
    };
    let (stop, stopped) = watch::channel(false);
    let adapter = Box::new(Modbus::over(bus(framing), Wires([Noted { wire: client, sent }].into())));
    let running = tokio::spawn(adapter.run(broker.clone(), stopped));
    let account = server.serve(server_end).await;
    stop.send(true).expect("the adapter listens");
    running.await.expect("the adapter ends");
    (account, broker)
}

fn decide(mut random: Random, framing: Framing, line: Line) -> impl FnMut(&Question) -> Vec<Frame> {
    move |question| {
        let mut frames = Vec::new();
        if line == Line::Noisy && random.once_in(10) {
            return damaged(question, &mut random);
        }
        // A stranger that came after the answer could meet the question to the very unit whose number it
        // bears: no guard can tell.
        let mut before = Duration::ZERO;
        if random.once_in(20) {
            let frame = stranger(question, &mut random, framing);
            before = frame.delay + Duration::from_millis(1);
            frames.push(frame);
        }
        if question.unit != DEAD {
            let bytes = question.answer(framing, question.unit);
            let delay = before + random_delay(&mut random, TIMEOUT);
            frames.push(Frame { bytes, kind: Kind::True(question.poll), delay });
        }
        frames
    }
}

/// An answer to somebody else's question of the same or another shape, while ours is waited for: of another
/// unit, on the bus or not, or of the right unit with another function or length.
fn stranger(question: &Question, random: &mut Random, framing: Framing) -> Frame {
    let units: Vec<u8> = [3, 4, 5, DEAD, 9].into_iter().filter(|unit| *unit != question.unit).collect();
    let unit = units[usize::try_from(random.below(4)).expect("small")];
    let bytes = match random.below(4) {
        0 => question.frame(framing, question.unit, &[4, 4, 1, 2, 3, 4]),
        1 => question.frame(framing, question.unit, &[3, 2, 1, 2]),
        _ => question.answer(framing, unit),
    };
    Frame { bytes, kind: Kind::Foreign, delay: Duration::from_micros(random.below(9_000)) }
}

/// A flipped bit, a frame cut short, or noise before the true answer.
fn damaged(question: &Question, random: &mut Random) -> Vec<Frame> {
    let truth = question.answer(Framing::Rtu, question.unit);
    let frame = |bytes, millis| Frame { bytes, kind: Kind::Damaged, delay: Duration::from_millis(millis) };
    let at = usize::try_from(random.below(truth.len() as u64 - 1)).expect("small");
    match random.below(3) {
        0 => {
            let mut bytes = truth;
            bytes[at] ^= 1 << random.below(8);
            vec![frame(bytes, 0)]
        }
        1 => vec![frame(truth[..=at].to_vec(), 0)],
        _ => {
            let noise = (0..=at).map(|_| u8::try_from(random.below(256)).expect("a byte")).collect();
            let delay = Duration::from_millis(1);
            vec![frame(noise, 0), Frame { bytes: truth, kind: Kind::True(question.poll), delay }]
        }
    }
}

/// Three devices with three registers each, and a dead one.
fn bus(framing: Framing) -> Bus {
    let device = |name: &str, unit: u8| {
        let points = [0, 10, 20].map(|register| {
            let register = register + u16::from(unit) * 100;
            format!(r#"{{"name": "{register}", "register": "holding:{register}", "type": "u32", "every": "50ms"}}"#)
        });
        format!(r#"{{"name": "{name}", "unit": {unit}, "point": [{}]}}"#, points.join(", "))
    };
    let link = match framing {
        Framing::Rtu => r#""serial": {"device": "pipe", "baud": 115200}"#,
        Framing::Tcp => r#""tcp": "pipe:1""#,
    };
    let devices = [device("3", 3), device("4", 4), device("5", 5), device("dead", DEAD)].join(", ");
    let text = format!(
        r#"{{"name": "line", {link}, "timeout": "20ms", "late_limit": "75ms", "device": [{devices}]}}"#
    );
    let config: Config = serde_json::from_str(&text).expect("a configuration");
    config.check().expect("a good configuration")
}

const POLLS: u64 = 2_000;

const DEAD: u8 = 6;

const TIMEOUT: Duration = Duration::from_millis(20);
