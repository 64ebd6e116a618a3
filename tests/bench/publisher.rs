//! Publishers of QoS 1 that keep a window full.
//!
//! A thread each: they believe nothing but the acknowledgements, which must come in order.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use tidegate::codec::{Packet, QoS};

use crate::stand::{Client, Options, monotonic};

/// What publishers do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) publishers: usize,
    /// Publishes that each has under way.
    pub(crate) window: usize,
    /// Publishes that each has acknowledged at the end.
    pub(crate) each: u64,
}

/// Runs them and says how long it took; number `n` publishes to `{topic}/n` messages of 100 bytes that begin
/// with their number.
pub(crate) fn run(port: u16, topic: &str, task: Task) -> Duration {
    let connect = |number| Client::connect(port, &Options::new(&format!("publisher-{number}")));
    let clients: Vec<Client> = (0..task.publishers).map(connect).collect();
    let start = monotonic();
    thread::scope(|scope| {
        for (number, client) in clients.into_iter().enumerate() {
            let topic = format!("{topic}/{number}");
            scope.spawn(move || publish(client, &topic, task));
        }
    });
    start.elapsed()
}

fn publish(mut client: Client, topic: &str, task: Task) {
    let mut under_way: VecDeque<u16> = VecDeque::new();
    let mut sent = 0;
    loop {
        if sent < task.each && under_way.len() < task.window {
            under_way.push_back(client.publish(topic, payload(sent), QoS::AtLeastOnce));
            sent += 1;
            continue;
        }
        let Some(id) = under_way.pop_front() else { break };
        match client.next() {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, id, "acknowledged in order"),
            other => panic!("{other:?} in place of PUBACK"),
        }
    }
    client.disconnect();
}

/// A hundred bytes that begin with a number.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut payload = format!("{number:>20}").into_bytes();
    payload.resize(100, b'x');
    payload
}

/// The number that a payload begins with.
pub(crate) fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(&payload[..20]).unwrap().trim().parse().unwrap()
}
