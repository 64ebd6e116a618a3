//! What a message costs: the gateway and Debian's mosquitto, in turns, under one load.
//!
//! The figure is the broker's own processor time per delivered message, from `/proc`, since the
//! machine's speed is not ours; each load is run on both in turns and the median told. Nothing is
//! asserted here but that every message arrived.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tidegate::codec::{Packet, Properties, Publish, QoS, Version, encode};

use crate::process::{median, processor_time};
use crate::stand::{Client, Cloud, Gateway, Options, Security};

struct Load {
    name: &'static str,
    publishers: usize,
    subscribers: usize,
    /// Every subscriber has a topic of its own, with its publisher; else all share one.
    paired: bool,
    qos: QoS,
    messages: usize,
}

const LOADS: [Load; 5] = [
    Load {
        name: "pipe 50:50 QoS 0",
        publishers: 50,
        subscribers: 50,
        paired: true,
        qos: QoS::AtMostOnce,
        messages: 10_000,
    },
    Load {
        name: "pipe 50:50 QoS 1",
        publishers: 50,
        subscribers: 50,
        paired: true,
        qos: QoS::AtLeastOnce,
        messages: 2_000,
    },
    Load {
        name: "fan-out 1:100",
        publishers: 1,
        subscribers: 100,
        paired: false,
        qos: QoS::AtMostOnce,
        messages: 5_000,
    },
    Load {
        name: "fan-out 1:1000",
        publishers: 1,
        subscribers: 1_000,
        paired: false,
        qos: QoS::AtMostOnce,
        messages: 500,
    },
    Load {
        name: "fan-in 100:1",
        publishers: 100,
        subscribers: 1,
        paired: false,
        qos: QoS::AtMostOnce,
        messages: 5_000,
    },
];
const ROUNDS: usize = 5;
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// Publishes of QoS 1 that one publisher has under way.
const WINDOW: usize = 20;

/// All loads, on both.
pub(crate) fn run(program: &Path) {
    println!(
        "microseconds of the broker's processor time per delivered message, medians of {ROUNDS} rounds in turns"
    );
    println!("{:<20} {:>10} {:>10} {:>8}", "load", "mosquitto", "tidegate", "ratio");
    for load in &LOADS {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().unwrap();
            let cloud = Cloud::start(folder.path(), &Security::Plain);
            theirs.push(measure(load, cloud.port, cloud.pid()));
            drop(cloud);
            let gateway = Gateway::start(program, folder.path(), "");
            ours.push(measure(load, gateway.port(), gateway.pid()));
        }
        let (theirs, ours) = (median(theirs), median(ours));
        println!("{:<20} {theirs:>10.3} {ours:>10.3} {:>8.3}", load.name, ours / theirs);
    }
}

/// One run: microseconds per delivered message.
fn measure(load: &Load, port: u16, pid: u32) -> f64 {
    let topic = |number: usize| if load.paired { format!("bench/{number}") } else { "bench/all".into() };
    let each = if load.paired { load.messages } else { load.messages * load.publishers };
    let subscribers: Vec<Client> = (0..load.subscribers)
        .map(|number| {
            let mut client = Client::connect(port, &Options::new(&format!("sub-{number}")));
            client.subscribe(&topic(number), QoS::AtMostOnce.max(load.qos));
            client
        })
        .collect();
    let publishers: Vec<Client> = (0..load.publishers)
        .map(|number| Client::connect(port, &Options::new(&format!("pub-{number}"))))
        .collect();
    let before = processor_time(pid);
    thread::scope(|scope| {
        let receiving: Vec<_> = subscribers
            .into_iter()
            .map(|client| scope.spawn(move || receive(client, load.qos, each)))
            .collect();
        for (number, client) in publishers.into_iter().enumerate() {
            let topic = topic(number);
            scope.spawn(move || publish(client, &topic, load));
        }
        for thread in receiving {
            assert_eq!(thread.join().unwrap(), each, "{}: messages are missing", load.name);
        }
    });
    let delivered = each * load.subscribers;
    (processor_time(pid) - before).as_secs_f64() * 1e6 / f64::from(u32::try_from(delivered).unwrap())
}

fn publish(mut client: Client, topic: &str, load: &Load) {
    if load.qos == QoS::AtMostOnce {
        let mut one = Vec::new();
        let publish = Publish {
            dup: false,
            qos: load.qos,
            retain: false,
            topic: topic.into(),
            packet_id: 0,
            properties: Properties::new(),
            payload: Bytes::from_static(&PAYLOAD),
        };
        encode(&Packet::Publish(publish), Version::V311, &mut one).unwrap();
        let chunk = one.repeat(50);
        for _ in 0..load.messages / 50 {
            client.socket().write_all(&chunk).unwrap();
        }
    } else {
        let mut under_way = 0;
        for _ in 0..load.messages {
            client.publish(topic, &PAYLOAD[..], load.qos);
            under_way += 1;
            while under_way >= WINDOW {
                client.next().expect("PUBACK");
                under_way -= 1;
            }
        }
        for _ in 0..under_way {
            client.next().expect("PUBACK");
        }
    }
    client.disconnect();
}

/// Counts what arrives, until all did or none came for long.
fn receive(mut client: Client, qos: QoS, expected: usize) -> usize {
    if qos != QoS::AtMostOnce {
        for _ in 0..expected {
            client.message();
        }
        return expected;
    }
    let socket: &mut TcpStream = client.socket();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = vec![0; 65_536];
    let (mut bytes, mut length) = (0, None);
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        // All messages are of one length, which the first one tells.
        let length = *length.get_or_insert_with(|| usize::from(buffer[1]) + 2);
        bytes += count;
        if bytes >= expected * length {
            return bytes / length;
        }
    }
    bytes / length.unwrap_or(1)
}
