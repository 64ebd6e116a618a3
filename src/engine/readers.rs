//! Tests of readers that are slower than the broker: what waits for them, and what becomes of it.
//!
//! They read from a Unix socket, whose buffers are small, so that what is not read soon stands in ours.

use std::os::unix::net::UnixStream;

use super::testing::{Client, PATIENCE, Running, StoreMode, connect, publish};
use crate::codec::{Packet, QoS, Version};
use crate::listener::Config;

// [MQTT5-3.3.1-9] [MQTT311-3.3.1-6]
#[test]
fn retained_messages_wait_for_a_reader_that_is_slower_than_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let running = Running::start(StoreMode::Prompt, |parts| {
        // A Unix socket's buffers are small, so they are soon full.
        let bind = format!("unix:{}", path.display());
        parts.listeners.push(Config { bind, ..Config::default() }.check().unwrap());
    });
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    let (messages, payload) = (3_000, vec![7; 1_000]);
    for number in 0..messages {
        let topic = format!("r/{number}");
        let Packet::Publish(mut packet) = publish(&topic, &payload, QoS::AtMostOnce, 0) else {
            panic!("PUBLISH")
        };
        packet.retain = true;
        publisher.send(&Packet::Publish(packet));
    }
    publisher.ping();
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut slow = Client::over(stream, Version::V311);
    slow.send(&connect(Version::V311, "slow"));
    assert!(matches!(slow.next(), Packet::ConnAck(_)));
    slow.subscribe("r/#", QoS::AtMostOnce);
    // It reads on only once the broker has had time for many times all of them.
    let turns = running.count("turns");
    running.until(|status| status["engine"]["turns"].as_u64().unwrap() > turns + 200);
    let taken = running.count("bytes_out");
    assert!(taken < 2_000_000, "{taken} bytes are in the way of nobody");
    let mut topics = std::collections::BTreeSet::new();
    while topics.len() < messages {
        let message = slow.message();
        assert!(message.retain && message.payload.len() == payload.len());
        assert!(topics.insert(message.topic), "each once");
    }
    slow.ping();
    assert_eq!(running.count("dropped_send_buffer"), 0);
}
