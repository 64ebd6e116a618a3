//! The field never feels the disk: what a QoS 0 message between local clients costs, by counts.
//!
//! A message costs the engine as many turns as when all is quiet while a sync hangs, while the disk is
//! full, and while a backlog goes upstream. An engine that waited for the store would hang here; one that
//! kept asking it would turn more often. Times are measured by the bench.

use tidegate::codec::{Packet, QoS};

use crate::program;
use crate::stand::{Client, Cloud, Disk, Gateway, Link, Options, Proxy, Security};
use crate::sync::Sync;

const EXCHANGES: u64 = 300;

/// Two local clients, of which one writes to the other.
struct Field {
    from: Client,
    to: Client,
}

impl Field {
    fn new(gateway: &Gateway) -> Field {
        let mut to = Client::connect(gateway.port(), &Options::new("to"));
        to.subscribe("local", QoS::AtMostOnce);
        Field { from: Client::connect(gateway.port(), &Options::new("from")), to }
    }

    /// Turns of the engine for so many messages, one at a time.
    fn turns(&mut self, gateway: &Gateway) -> u64 {
        let turns = || gateway.status()["engine"]["turns"].as_u64().unwrap();
        let before = turns();
        for number in 0..EXCHANGES {
            self.from.publish("local", number.to_string(), QoS::AtMostOnce);
            assert_eq!(self.to.message().payload, number.to_string().as_bytes());
        }
        turns() - before
    }
}

/// Publishers of what must be kept, each with messages that are not acknowledged.
fn waiting(gateway: &Gateway) -> Vec<Client> {
    let connect = |number| Client::connect(gateway.port(), &Options::new(&format!("kept-{number}")));
    let mut clients: Vec<Client> = (0..10).map(connect).collect();
    for client in &mut clients {
        for number in 0..WINDOW {
            client.publish("kept/x", number.to_string(), QoS::AtLeastOnce);
        }
        client.send(&Packet::PingReq);
        assert_eq!(client.next(), Some(Packet::PingResp), "nothing is acknowledged, all is read");
    }
    clients
}

fn all_acknowledged(clients: &mut [Client]) {
    for client in clients {
        for _ in 0..WINDOW {
            assert!(matches!(client.next(), Some(Packet::PubAck(_))));
        }
    }
}

fn absent(gateway: &Gateway) {
    let mut absent = Client::connect(gateway.port(), &Options::kept("absent"));
    absent.subscribe("kept/#", QoS::AtLeastOnce);
    absent.disconnect();
    // Takes with it what the absent one left behind.
    Client::connect(gateway.port(), &Options::new("first")).publish_acknowledged("kept/x", "first");
}

#[test]
fn a_sync_that_hangs_costs_the_field_no_turn_more() {
    let folder = tempfile::tempdir().unwrap();
    let sync = Sync::within(folder.path());
    let wrapper = sync.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let gateway = Gateway::start_under(program(), folder.path(), "", &wrapper);
    absent(&gateway);
    let mut field = Field::new(&gateway);
    let quiet = field.turns(&gateway);
    sync.hold();
    let mut first = Client::connect(gateway.port(), &Options::new("holding"));
    first.publish("kept/x", "held", QoS::AtLeastOnce);
    sync.wait_begun();
    let mut publishers = waiting(&gateway);
    let held = field.turns(&gateway);
    sync.release();
    all_acknowledged(&mut publishers);
    check("while a sync hangs", held, quiet);
}

#[test]
fn a_full_disk_costs_the_field_no_turn_more() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::within(folder.path());
    let wrapper = disk.wrapper();
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let gateway = Gateway::start_under(program(), folder.path(), "", &wrapper);
    absent(&gateway);
    let mut field = Field::new(&gateway);
    let quiet = field.turns(&gateway);
    disk.fill();
    let mut publishers = waiting(&gateway);
    gateway.until("a full disk", |status| status["store"]["trouble"].is_string());
    let full = field.turns(&gateway);
    disk.empty();
    all_acknowledged(&mut publishers);
    check("with a full disk", full, quiet);
}

#[test]
fn a_drain_costs_the_field_few_turns_more() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Cloud::start(folder.path(), &Security::Plain);
    let proxy = Proxy::start(cloud.port, Link::Closed);
    let gateway = Gateway::start(
        program(),
        folder.path(),
        &format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtt://127.0.0.1:{}\"]\n\
             [[bridge.forward]]\nfilter = \"kept/#\"\nto = \"{{topic}}\"\nqos = 1\n",
            proxy.port
        ),
    );
    let mut publisher = Client::connect(gateway.port(), &Options::new("publisher"));
    for _ in 0..BACKLOG / WINDOW {
        for number in 0..WINDOW {
            publisher.publish("kept/x", number.to_string(), QoS::AtLeastOnce);
        }
        all_acknowledged(std::slice::from_mut(&mut publisher));
    }
    let mut field = Field::new(&gateway);
    let quiet = field.turns(&gateway);
    proxy.set(Link::Open);
    let delivered = |status: &serde_json::Value| status["routes"][0]["delivered"].as_u64().unwrap();
    gateway.until("the drain", |status| delivered(status) > 0);
    let (mut turns, mut rounds) = (0, 0);
    while rounds == 0 || delivered(&gateway.status()) < BACKLOG {
        turns += field.turns(&gateway);
        rounds += 1;
    }
    check("while a backlog goes upstream", turns, quiet * rounds);
}

fn check(when: &str, turns: u64, quiet: u64) {
    println!("measured: {turns} turns of the engine {when}, {quiet} in quiet");
    assert!(turns <= quiet * 2, "{turns} turns {when}, {quiet} in quiet");
    assert!(turns > 0, "the engine was not asked");
}

/// Messages that one publisher has under way.
const WINDOW: u64 = 20;
const BACKLOG: u64 = 10_000;
