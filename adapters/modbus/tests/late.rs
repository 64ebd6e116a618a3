//! Late and foreign answers are counted and never published, over TCP and over a pty.
//!
//! A third of the server's answers come half a timeout to three timeouts after the question, some come for
//! another unit. Which of them are late in the end the machine's speed decides; that each is accounted for
//! does not depend on it: every true answer either became its poll's reading or was counted as late.
//! `TIDEGATE_SIZE=proof` runs 10,000 polls.

#![allow(clippy::indexing_slicing, reason = "a test that panics has failed, as it should")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use adapter_api::Adapter;
use adapter_modbus::wire::Wire;
use adapter_modbus::{Bus, Config, Modbus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_modbus::Slave;
use tokio_modbus::client::Reader;
use tokio_serial::SerialStream;

use world::Random;
use world::broker::Broker;
use world::server::{Account, Frame, Framing, Kind, Question, Reading, Server, random_delay};
use world::wires::{Noted, Sent, Wires};

#[tokio::test]
async fn over_tcp_no_late_or_foreign_answer_is_published() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a connection");
    let (server, _) = listener.accept().await.expect("a connection");
    client.set_nodelay(true).expect("a socket");
    server.set_nodelay(true).expect("a socket");
    guarded("tcp", Framing::Tcp, r#""tcp": "test:1""#, client, server).await;
}

#[tokio::test]
async fn over_rtu_no_late_or_foreign_answer_is_published() {
    let (server, client) = SerialStream::pair().expect("a pty");
    let line = r#""serial": {"device": "pty", "baud": 115200}"#;
    guarded("rtu", Framing::Rtu, line, client, server).await;
}

/// What the guard is for: the same server, the same polls, tokio-modbus alone.
#[tokio::test]
async fn over_rtu_plain_tokio_modbus_publishes_wrong_values() {
    let (server_end, client_end) = SerialStream::pair().expect("a pty");
    let (publish, published) = std::sync::mpsc::channel();
    let seed = Random::fresh_seed();
    let server = Server {
        framing: Framing::Rtu,
        decide: decide(Random(seed), Framing::Rtu),
        take: || published.try_iter().collect(),
        polls: polls(),
        span: Duration::from_secs(3_600),
        limit: None,
    };
    let client = tokio::spawn(async move {
        let mut client = tokio_modbus::client::rtu::attach_slave(client_end, Slave(3));
        for index in 0..polls() + 1_000 {
            let register = REGISTERS[usize::try_from(index).expect("small") % REGISTERS.len()];
            let reading = client.read_holding_registers(register, 2);
            if let Ok(Ok(Ok(words))) = tokio::time::timeout(TIMEOUT, reading).await {
                let value = (u32::from(words[0]) << 16) | u32::from(words[1]);
                if publish.send(Reading { register, value }).is_err() {
                    return;
                }
            }
        }
    });
    let account = server.serve(server_end).await;
    client.abort();
    let (good, wrong) = (account.good.len(), account.wrong.len());
    println!(
        "plain tokio-modbus over rtu, seed {seed}: {} polls, {good} good readings, {wrong} wrong",
        polls()
    );
    assert!(wrong > 0, "without the guard wrong values are published, else this test proves nothing");
}

/// Polls through the adapter and accounts for every answer.
async fn guarded<C, S>(name: &str, framing: Framing, link: &str, client: C, server_end: S)
where
    Noted<C>: Wire,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broker = Broker::new();
    let sent = Sent::default();
    let seed = Random::fresh_seed();
    println!("{name}: seed {seed}");
    let server = Server {
        framing,
        decide: decide(Random(seed), framing),
        take: || world::readings(&broker),
        polls: polls(),
        // Half the limit stays for the machine to be slow in.
        span: Duration::from_secs(3_600),
        limit: Some((Arc::clone(&sent), LATE_LIMIT / 2)),
    };
    let (stop, stopped) = watch::channel(false);
    let wire = Noted { wire: client, sent };
    let adapter = Box::new(Modbus::over(bus(link), Wires([wire].into())));
    let running = tokio::spawn(adapter.run(broker.clone(), stopped));
    let account = server.serve(server_end).await;
    stop.send(true).expect("the adapter listens");
    running.await.expect("the adapter ends");
    reconcile(name, &account, &broker);
}

/// Every answer that was sent is accounted for, by what became of its poll.
fn reconcile(name: &str, account: &Account, broker: &Broker) {
    let count = |counter| broker.counter("modbus/line", counter);
    let asked = account.asked.len() as u64;
    let good = account.good.len() as u64;
    let late = account.answered.difference(&account.good).count() as u64;
    println!(
        "{name}: {asked} polls, {good} good readings, {} wrong; late {late} by the server, {} by the adapter; \
         foreign {} and {}; {} lost to a slow machine",
        account.wrong.len(),
        count("late"),
        account.foreign,
        count("foreign"),
        account.lost
    );
    assert_eq!(account.wrong, [""; 0], "no wrong value is published");
    assert_eq!(count("opened"), 1, "the line stays open: {:?}", broker.health("modbus/line"));
    assert!(good >= good_at_least(), "most polls are good");
    assert!(account.foreign > 0 && late > 0, "the server did what this test is about");
    assert_eq!(count("late"), late, "each answer to a poll that was given up is counted");
    assert_eq!(count("foreign"), account.foreign, "each answer for another unit is counted");
    assert_eq!(count("good"), good, "each good poll published its reading");
    // The server ends on a question that it does not answer: it may have been given up or not.
    let unanswered = asked - count("polls");
    assert!(unanswered <= 1, "each question is a poll");
    assert_eq!(count("timeouts"), asked - good - unanswered, "what was not good was a timeout");
    for counter in ["crc_errors", "exceptions", "dropped", "refused"] {
        assert_eq!(count(counter), 0, "{counter}");
    }
}

/// A third late, one in forty for another unit; of those one in ten in place of the true answer.
fn decide(mut random: Random, framing: Framing) -> impl FnMut(&Question) -> Vec<Frame> {
    move |question| {
        let mut frames = Vec::new();
        let is_foreign = random.once_in(40) || question.poll == 5;
        if is_foreign {
            let delay = random_delay(&mut random, TIMEOUT);
            frames.push(Frame { bytes: question.answer(framing, STRANGER), kind: Kind::Foreign, delay });
        }
        if !is_foreign || !random.once_in(10) {
            let delay = random_delay(&mut random, TIMEOUT);
            let kind = Kind::True(question.poll);
            frames.push(Frame { bytes: question.answer(framing, UNIT), kind, delay });
        }
        frames
    }
}

/// Five registers far apart: five requests of one shape.
fn bus(link: &str) -> Bus {
    let points = REGISTERS.map(|register| {
        format!(
            r#"{{"name": "{register}", "register": "holding:{register}", "type": "u32", "every": "5ms"}}"#
        )
    });
    let text = format!(
        r#"{{"name": "line", {link}, "timeout": "{}ms", "late_limit": "{}ms",
            "device": [{{"name": "device", "unit": {UNIT}, "point": [{}]}}]}}"#,
        TIMEOUT.as_millis(),
        LATE_LIMIT.as_millis(),
        points.join(", ")
    );
    let config: Config = serde_json::from_str(&text).expect("a configuration");
    config.check().expect("a good configuration")
}

fn polls() -> u64 {
    match std::env::var("TIDEGATE_SIZE").as_deref() {
        Ok("proof") => 10_000,
        _ => 400,
    }
}

/// Half of the polls at full size; in a small run beside other work the machine may be slower than that.
fn good_at_least() -> u64 {
    if polls() == 10_000 { polls() / 2 } else { polls() / 4 }
}

const REGISTERS: [u16; 5] = [0, 10, 20, 30, 40];

const UNIT: u8 = 3;

/// A unit that is not asked.
const STRANGER: u8 = 9;

const TIMEOUT: Duration = Duration::from_millis(20);

/// Far more than three timeouts, so that only a stop of a second could make the server break its word.
const LATE_LIMIT: Duration = Duration::from_secs(2);
