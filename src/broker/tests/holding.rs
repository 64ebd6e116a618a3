//! What waits has bytes of its own, so that it takes no more memory than is counted for it.
//!
//! A packet is cut out of what was read at once, of which a small one would keep all the rest.

use std::time::Duration;

use adapter_api::units::Rate;
use bytes::Bytes;
use bytestring::ByteString;

use super::refusing::refusing;
use super::script::{Script, config, with_route};
use super::speech::packet;
use crate::broker::{Config, Event, Passwords};
use crate::codec::{Packet, Properties, Property, QoS};

/// What the engine has read at once.
fn read(text: &str) -> Bytes {
    Bytes::from(format!("{text:60000}"))
}

fn cut(read: &Bytes, text: &str) -> ByteString {
    let at = read.windows(text.len()).position(|found| found == text.as_bytes()).expect("it was read");
    ByteString::try_from(read.slice(at..at + text.len())).expect("it is a text")
}

fn publish(read: &Bytes, topic: &str, qos: QoS) -> Packet {
    let Packet::Publish(mut publish) = packet("publish t x q1 id=9") else { panic!("it is one") };
    (publish.qos, publish.topic, publish.payload) = (qos, cut(read, topic), read.slice(50_000..50_100));
    publish.properties = Properties::from_list(&[Property::ContentType(cut(read, topic))]);
    Packet::Publish(publish)
}

/// Whether a packet of the first connection waits as `held` says, and nothing that was read with it.
#[track_caller]
fn check(config: Config, before: &[&str], read: &Bytes, held: Packet) -> Script {
    let mut script = Script::new(config);
    script.broker.ledger.bound(4, 1);
    script.run(before);
    let (before, connection) = (script.broker.memory.held, script.connection(1));
    script.handle(vec![Event::Packet { connection, packet: held }]);
    assert!(script.broker.memory.held > before, "it waits");
    assert!(read.is_unique(), "and nothing else does");
    script
}

#[test]
fn a_publish_that_waits_keeps_nothing_that_was_read_with_it() {
    let busy = ["open 1", "1 connect a clean", "1 publish up/0 x q1 id=1"];
    let read = read("up/1");
    let script = check(with_route(true), &busy, &read, publish(&read, "up/1", QoS::AtLeastOnce));
    let held = script.broker.memory.held;
    assert!((104..1_000).contains(&held), "{held}");
    let refused = ["open 1", "1 connect a clean", "full store"];
    check(refusing(), &refused, &read, publish(&read, "up/1", QoS::AtLeastOnce));
    let mut slow = config();
    slow.limits.max_publish_rate = Some(Rate { count: 1, per: Duration::from_secs(1) });
    let fast = ["open 1", "1 connect a clean", "1 publish t x"];
    check(slow, &fast, &read, publish(&read, "up/1", QoS::AtMostOnce));
    let opening = ["open 1", "1 connect a v5 expiry=9"];
    check(config(), &opening, &read, publish(&read, "up/1", QoS::AtMostOnce));
}

#[test]
fn whatever_else_waits_keeps_nothing_that_was_read_with_it() {
    let read = read("a/b why");
    let properties = || {
        let packet = Properties::from_list(&[Property::UserProperty(cut(&read, "why"), cut(&read, "a/b"))]);
        assert!(!packet.is_empty());
        packet
    };
    for line in ["subscribe 1 a/b", "unsubscribe 1 a/b", "puback 1", "auth", "disconnect"] {
        let mut packet = packet(line);
        match &mut packet {
            Packet::Subscribe(subscribe) => {
                subscribe.filters[0].filter = cut(&read, "a/b");
                subscribe.properties = properties();
            }
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters[0] = cut(&read, "a/b"),
            Packet::PubAck(ack) => ack.properties = properties(),
            Packet::Auth(auth) => auth.properties = properties(),
            Packet::Disconnect(disconnect) => disconnect.properties = properties(),
            other => panic!("{other:?}"),
        }
        check(config(), &["open 1", "1 connect a v5 expiry=9"], &read, packet);
    }
}

#[test]
fn who_waits_for_his_password_to_be_compared_keeps_nothing_that_was_read_with_it() {
    let read = read("name word will");
    let Packet::Connect(mut connect) = packet("connect a v5 clean user=u pass=x") else {
        panic!("it is one")
    };
    (connect.client_id, connect.username) = (cut(&read, "name"), Some(cut(&read, "name")));
    connect.password = Some(cut(&read, "word").into_bytes());
    let config = Config { passwords: Passwords::File, ..config() };
    check(config, &["open 1 password"], &read, Packet::Connect(connect));
}
