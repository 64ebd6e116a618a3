//! Acknowledged means kept.
//!
//! A thousand messages for a session that is away, killed with -9 right after the last PUBACK: all of
//! them are there after the restart, in order. Mosquitto and its like, as shipped, give back none.

use std::collections::VecDeque;

use tidegate::codec::{Packet, QoS, Version};

use crate::program;
use crate::stand::{Client, Gateway, Options};

const MESSAGES: u64 = 1_000;

#[test]
fn acknowledged_messages_for_an_absent_session_survive_kill_9() {
    for window in [1, 20, 1_000] {
        let folder = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start(program(), folder.path(), "");
        let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
        absent.subscribe("kept/#", QoS::AtLeastOnce);
        absent.disconnect();

        publish(gateway.port(), window);
        gateway.kill();
        gateway.start_again();

        let mut back = Client::connect(gateway.port(), &Options::kept("absent"));
        assert!(back.session_present, "window {window}: the session is gone");
        for expected in 0..MESSAGES {
            let message = back.message();
            assert_eq!(message.payload, expected.to_string().as_bytes(), "window {window}");
        }
        println!("measured: window {window}: {MESSAGES} of {MESSAGES} after kill -9");
    }
}

#[test]
fn retained_messages_and_subscriptions_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(program(), folder.path(), "");
    let mut client =
        Client::connect(gateway.port(), &Options { version: Version::V5, ..Options::kept("keeper") });
    client.subscribe("a/+", QoS::ExactlyOnce);
    let status = std::process::Command::new("mosquitto_pub")
        .args(["-p", &gateway.port().to_string(), "-t", "a/b", "-m", "retained", "-r", "-q", "1"])
        .status()
        .unwrap();
    assert!(status.success());
    gateway.kill();
    gateway.start_again();

    let mut fresh = Client::connect(gateway.port(), &Options::new("fresh"));
    fresh.subscribe("a/#", QoS::AtLeastOnce);
    let message = fresh.message();
    assert!(message.retain);
    assert_eq!(&message.payload[..], b"retained");
    let mut back =
        Client::connect(gateway.port(), &Options { version: Version::V5, ..Options::kept("keeper") });
    assert!(back.session_present);
    assert_eq!(&back.message().payload[..], b"retained", "what came while it was connected and unread");
    fresh.publish("a/c", "to the old subscription", QoS::AtLeastOnce);
    assert_eq!(&back.message().payload[..], b"to the old subscription");
}

fn publish(port: u16, window: usize) {
    let mut client = Client::connect(port, &Options::new("publisher"));
    let mut under_way = VecDeque::new();
    let mut next = 0;
    while next < MESSAGES || !under_way.is_empty() {
        while next < MESSAGES && under_way.len() < window {
            under_way.push_back(client.publish("kept/x", next.to_string(), QoS::AtLeastOnce));
            next += 1;
        }
        let Some(Packet::PubAck(ack)) = client.next() else { panic!("PUBACK") };
        assert_eq!(under_way.pop_front(), Some(ack.packet_id), "acknowledged in order");
    }
}
