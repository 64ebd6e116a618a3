//! A gateway whose store is full and refuses: nobody is told a lie, and nothing that was told is lost.
//!
//! A client of MQTT 5 and a sensor hear of it, an older client waits, who publishes nothing durable feels
//! nothing; it outlives a kill, and goes on once the uplink is there.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate::codec::{Packet, QoS, Reason, Version};

use crate::program;
use crate::stand::{Client, Cloud, Gateway, Link, Mote, Options, Proxy, Security, flag, kind, wait_for};

#[test]
fn a_full_gateway_refuses_and_keeps_what_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let mut inside = Client::connect(cloud.inside, &Options::kept("collector"));
    inside.subscribe("sites/#", QoS::AtLeastOnce);
    let uplink = Proxy::start(cloud.port, Link::Closed);
    let mut gateway = Gateway::start(
        program(),
        &folder.path().join("gateway"),
        &format!(
            "[store]\nmax_size = \"1MB\"\nmin_free_disk = \"0B\"\nwhen_full = \"refuse\"\n\
             [[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"sites/{{gateway}}/{{topic}}\"\n\
             [mqtt_sn]\nbind = \"127.0.0.1:0\"\n",
            uplink.port
        ),
    );
    let mut accepted = fill(&gateway);
    refuses(&gateway);
    gateway.kill();
    gateway.start_again();
    let status = gateway.until("a full store", |status| status["store"]["full"] == true);
    assert_line(&status["routes"][0], accepted.len());
    assert_eq!(status["routes"][0]["queued"], accepted.len(), "{status}");
    let size = status["store"]["size"].as_u64().unwrap();
    assert!(size <= 1_000_000, "{size}");
    refuses(&gateway);

    // What is held of an older client is taken once there is room.
    let mut older = Client::connect(gateway.port(), &Options::new("older"));
    let held = older.publish("sensors/older", text("held"), QoS::AtLeastOnce);
    gateway.until("a client that waits", |status| status["broker"]["waiting_for_room"] == 1);
    uplink.set(Link::Open);
    match older.next() {
        Some(Packet::PubAck(ack)) => assert_eq!(ack.packet_id, held),
        other => panic!("{other:?} in place of PUBACK"),
    }
    accepted.insert(text("held"));
    let mut arrived = BTreeSet::new();
    while arrived.len() < accepted.len() {
        let payload = inside.message().payload;
        arrived.insert(String::from_utf8(payload.to_vec()).unwrap());
    }
    assert_eq!(arrived, accepted, "all that was acknowledged and nothing that was refused");
    let status = gateway.until("an empty queue", |status| status["routes"][0]["queued"] == 0);
    assert_line(&status["routes"][0], accepted.len());
    assert_eq!(status["store"]["full"], false);
    assert!(gateway.stop().success());
}

/// A text of some size that is nobody else's.
fn text(name: &str) -> String {
    format!("{name} {}", "x".repeat(4_000))
}

/// Publishes until that is refused; gives what was acknowledged.
fn fill(gateway: &Gateway) -> BTreeSet<String> {
    let mut publisher = Client::connect(gateway.port(), &five("filler"));
    let mut accepted = BTreeSet::new();
    loop {
        let payload = text(&accepted.len().to_string());
        publisher.publish("sensors/many", payload.clone(), QoS::AtLeastOnce);
        match publisher.next() {
            Some(Packet::PubAck(ack)) if ack.reason == Reason::QuotaExceeded => return accepted,
            Some(Packet::PubAck(ack)) if !ack.reason.is_error() => drop(accepted.insert(payload)),
            other => panic!("{other:?} in place of PUBACK"),
        }
        assert!(accepted.len() < 300, "it is never full");
    }
}

/// Everybody is told what he can be told, and nobody else feels it.
fn refuses(gateway: &Gateway) {
    let before = gateway.route("sensors")["not_accepted"].as_u64().unwrap();
    let mut five = Client::connect(gateway.port(), &five("five"));
    five.publish("sensors/x", "no", QoS::AtLeastOnce);
    assert!(matches!(five.next(), Some(Packet::PubAck(ack)) if ack.reason == Reason::QuotaExceeded));
    let address = wait_for("the sensors' port", || {
        gateway.status()["adapters"]["mqtt-sn"]["counters"]["address"].as_str().map(str::to_owned)
    });
    let mut mote = Mote::new(&address);
    mote.connect("mote", flag::CLEAN);
    let topic = mote.register("sensors/mote");
    mote.publish(flag::QOS_1, topic, "no");
    assert_eq!(mote.expect(kind::PUBACK)[4], 1, "congestion");
    let mut older = Client::connect(gateway.port(), &Options::new("impatient"));
    older.publish("sensors/x", "no", QoS::AtLeastOnce);
    older.subscribe("local/#", QoS::AtLeastOnce);
    five.publish_acknowledged("local/x", "yes");
    match older.next() {
        Some(Packet::Publish(message)) => assert_eq!(&*message.payload, b"yes"),
        other => panic!("{other:?} came before the message that nobody refuses"),
    }
    older.send(&Packet::PingReq);
    assert_eq!(older.next(), Some(Packet::PingResp));
    older.disconnect();
    gateway.until("three that were refused", |status| {
        status["routes"][0]["not_accepted"].as_u64() == Some(before + 3)
    });
}

fn five(id: &str) -> Options {
    Options { version: Version::V5, ..Options::new(id) }
}

/// The route's line adds up, and nothing was dropped.
fn assert_line(route: &Value, received: usize) {
    let number = |name: &str| route[name].as_u64().unwrap();
    assert_eq!(number("received"), received as u64, "{route}");
    assert_eq!(number("received"), number("delivered") + number("queued"), "{route}");
    assert_eq!(route["dropped"], serde_json::json!({}), "{route}");
}
