//! Publishers of QoS 1 that keep a window full, and how long each acknowledgement took.
//!
//! A thread each: they believe nothing but the acknowledgements, which must come in order.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use tidegate::codec::{Packet, QoS};

use crate::stand::{Client, Options, monotonic};

/// What publishers do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub(crate) publishers: usize,
    /// Publishes that each has under way.
    pub(crate) window: usize,
    pub(crate) until: Until,
}

/// When they end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Each has had so many acknowledged.
    Count(u64),
    /// So long after the first publish.
    Elapsed(Duration),
}

/// What they have seen.
pub(crate) struct Seen {
    pub(crate) acknowledged: u64,
    pub(crate) took: Duration,
    /// Of each acknowledgement, in milliseconds.
    pub(crate) latencies: Vec<f64>,
}

/// Runs them; number `n` publishes to `{topic}/n` messages of 100 bytes that begin with their number.
pub(crate) fn run(port: u16, topic: &str, task: Task) -> Seen {
    let connect = |number| Client::connect(port, &Options::new(&format!("publisher-{number}")));
    let clients: Vec<Client> = (0..task.publishers).map(connect).collect();
    let start = monotonic();
    let latencies: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| {
                let topic = format!("{topic}/{number}");
                scope.spawn(move || publish(client, &topic, task, start))
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    Seen { acknowledged: latencies.len() as u64, took: start.elapsed(), latencies }
}

fn publish(mut client: Client, topic: &str, task: Task, start: Instant) -> Vec<f64> {
    let mut under_way: VecDeque<(u16, Instant)> = VecDeque::new();
    let mut latencies = Vec::new();
    let mut sent = 0;
    loop {
        let more = match task.until {
            Until::Count(count) => sent < count,
            Until::Elapsed(limit) => start.elapsed() < limit,
        };
        if more && under_way.len() < task.window {
            let id = client.publish(topic, payload(sent), QoS::AtLeastOnce);
            under_way.push_back((id, monotonic()));
            sent += 1;
            continue;
        }
        let Some((id, since)) = under_way.pop_front() else { break };
        match client.next() {
            Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, id, "acknowledged in order"),
            other => panic!("{other:?} in place of PUBACK"),
        }
        latencies.push(since.elapsed().as_secs_f64() * 1e3);
    }
    client.disconnect();
    latencies
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
