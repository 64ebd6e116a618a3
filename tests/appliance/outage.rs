//! A reading crosses an outage.
//!
//! Publishers are acknowledged while the uplink is closed and then silent; the gateway is killed and the
//! link is cut, both in the middle of messages under way. Every message that was acknowledged arrives,
//! first arrivals are in order, repeats are bounded, and the route's conservation line is true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate::codec::{Packet, QoS};

use crate::program;
use crate::stand::{
    Certificates, Client, Cloud, Dice, Gateway, Link, Options, Proxy, Security, monotonic, proof, seed,
    wait_for,
};

struct Plan {
    messages: u64,
    kills_in_outage: u64,
    kills_in_drain: u64,
    cuts: u64,
    outage: Duration,
}

const BRIDGE_WINDOW: u64 = 50;
const PUBLISHER_WINDOW: usize = 20;
const TOPICS: u64 = 7;

#[test]
fn what_was_acknowledged_crosses_the_outage_in_order() {
    let plan = if proof() {
        Plan {
            messages: 100_000,
            kills_in_outage: 5,
            kills_in_drain: 5,
            cuts: 5,
            outage: Duration::from_secs(60),
        }
    } else {
        Plan { messages: 2_000, kills_in_outage: 1, kills_in_drain: 1, cuts: 2, outage: Duration::ZERO }
    };
    cross(&plan, &mut Dice::new(7), 5);
    cross(&plan, &mut Dice::new(seed()), 4);
}

#[test]
fn without_kills_the_conservation_line_is_equal_to_the_message() {
    let plan = Plan { messages: 500, kills_in_outage: 0, kills_in_drain: 0, cuts: 0, outage: Duration::ZERO };
    cross(&plan, &mut Dice::new(11), 5);
}

fn cross(plan: &Plan, dice: &mut Dice, protocol: u8) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificates::new(folder.path(), "authority");
    let cloud = Cloud::start(folder.path(), &Security::Tls(&authority.server("cloud.example")));
    let proxy = Proxy::start(cloud.port, Link::Closed);
    let collector = Collector::start(cloud.inside);
    let mut gateway = Gateway::start(
        program(),
        folder.path(),
        &format!(
            "[[bridge]]\nname = \"cloud\"\nurls = [\"mqtts://127.0.0.1:{}\"]\nprotocol = {protocol}\nwindow = {BRIDGE_WINDOW}\nkeepalive = \"5s\"\n\
             tls = {{ ca = {:?}, server_name = \"cloud.example\" }}\n\
             [[bridge.forward]]\nfilter = \"sensors/#\"\nto = \"sites/{{gateway}}/{{topic}}\"\nqos = 1\n",
            proxy.port,
            authority.ca(),
        ),
    );

    let mut publisher = Publisher::new(plan.messages);
    in_outage(plan, dice, &proxy, &mut gateway, &mut publisher);
    let before = gateway.route("sensors");
    let queued = before["queued"].as_u64().unwrap();
    assert!(queued >= plan.messages, "{queued} queued of {}", plan.messages);
    assert_eq!(before["delivered"], 0, "nothing can have left: {before}");
    in_drain(plan, dice, &proxy, &mut gateway);

    let acknowledged = plan.messages;
    wait_for("the last message in the cloud", || (collector.distinct() == acknowledged).then_some(()));
    gateway.until("an empty queue", |status| status["routes"][0]["queued"] == 0);
    let line = gateway.route("sensors");
    let cuts = proxy.cuts();
    let seen = collector.end();
    check_arrivals(plan, &seen, cuts, publisher.sent_again);
    check_conservation(plan, &line, &seen, &publisher);
    println!(
        "measured: protocol {protocol}: {acknowledged} acknowledged, {} arrived of {} distinct, {} sent again by the publisher, {cuts} cuts, {line}",
        seen.len(),
        distinct(&seen),
        publisher.sent_again
    );
}

fn in_outage(plan: &Plan, dice: &mut Dice, proxy: &Proxy, gateway: &mut Gateway, publisher: &mut Publisher) {
    let start = monotonic();
    let stops = plan.kills_in_outage + 1;
    for stop in 1..=stops {
        let last = stop == stops;
        let span = plan.messages / stops;
        let until = if last { plan.messages } else { span * (stop - 1) + 1 + dice.below(span) };
        if stop > stops / 2 {
            proxy.set(Link::Silent);
        }
        publisher.publish_until(gateway.port(), until, last);
        if !last {
            gateway.kill();
            gateway.start_again();
        }
    }
    while start.elapsed() < plan.outage {
        thread::park_timeout(Duration::from_millis(100));
    }
}

fn in_drain(plan: &Plan, dice: &mut Dice, proxy: &Proxy, gateway: &mut Gateway) {
    // A message is about sixty bytes under TLS; each act comes somewhere within its share of them.
    let share = plan.messages * 60 / (plan.kills_in_drain + plan.cuts + 2);
    let mut acts: Vec<bool> = Vec::new();
    acts.extend((0..plan.kills_in_drain).map(|_| true));
    acts.extend((0..plan.cuts).map(|_| false));
    for place in (1..acts.len()).rev() {
        acts.swap(place, usize::try_from(dice.below(place as u64 + 1)).unwrap());
    }
    // What the silence swallowed hangs until it is hung up.
    proxy.set(Link::Closed);
    let mut acts = acts.into_iter().peekable();
    let plan_next = |kill: Option<&bool>, dice: &mut Dice| {
        if kill.is_some() {
            // The first bytes are the handshake, with nothing to lose.
            proxy.hold_after(2_000 + dice.below(share));
        }
    };
    plan_next(acts.peek(), dice);
    proxy.set(Link::Open);
    while let Some(kill) = acts.next() {
        wait_for("bytes under way", || proxy.holds().then_some(()));
        if kill {
            gateway.kill();
        } else {
            proxy.cut();
        }
        plan_next(acts.peek(), dice);
        proxy.release();
        if kill {
            gateway.start_again();
        }
    }
}

fn check_arrivals(plan: &Plan, seen: &[(String, u64)], cuts: u64, sent_again: u64) {
    let distinct_seen: BTreeSet<u64> = seen.iter().map(|(_, number)| *number).collect();
    let lost: Vec<u64> = (0..plan.messages).filter(|number| !distinct_seen.contains(number)).collect();
    assert!(lost.is_empty(), "{} acknowledged messages are lost, {:?} first", lost.len(), lost.first());

    let mut first = BTreeSet::new();
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for (topic, number) in seen {
        assert_eq!(topic, &format!("sites/barn-7/sensors/{}", number % TOPICS));
        if first.insert(*number) {
            let before = newest.insert(topic, *number);
            assert!(before.is_none_or(|before| before < *number), "{topic}: {number} after {before:?}");
        }
    }
    let repeats = seen.len() as u64 - distinct_seen.len() as u64;
    let kills = plan.kills_in_outage + plan.kills_in_drain;
    let allowed = (kills + cuts) * (BRIDGE_WINDOW + 1_000) + sent_again;
    assert!(repeats <= allowed, "{repeats} repeats, {allowed} allowed");
    if kills + cuts == 0 {
        assert_eq!(repeats, 0);
    }
}

fn check_conservation(plan: &Plan, line: &serde_json::Value, seen: &[(String, u64)], publisher: &Publisher) {
    let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {line}"));
    let dropped: u64 =
        line["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let (received, delivered) = (number("received"), number("delivered"));
    assert_eq!(received, delivered + number("queued") + number("expired") + dropped, "{line}");
    assert_eq!(dropped + number("expired"), 0, "{line}");
    let kills = plan.kills_in_outage + plan.kills_in_drain;
    let most = plan.messages + kills * PUBLISHER_WINDOW as u64;
    assert!(
        (plan.messages..=most).contains(&received),
        "{received} received, {} acknowledged",
        plan.messages
    );
    assert!(received - plan.messages <= publisher.sent_again, "more was stored than was ever sent: {line}");
    assert!(delivered <= seen.len() as u64, "{delivered} delivered, the cloud saw {}", seen.len());
    if kills == 0 {
        assert_eq!((received, delivered), (plan.messages, distinct(seen)));
    }
}

fn distinct(seen: &[(String, u64)]) -> u64 {
    seen.iter().map(|(_, number)| number).collect::<BTreeSet<_>>().len() as u64
}

/// Publishes numbers in order, and sends again what was not acknowledged when the gateway went.
struct Publisher {
    messages: u64,
    next: u64,
    unacknowledged: VecDeque<u64>,
    sent_again: u64,
}

impl Publisher {
    fn new(messages: u64) -> Publisher {
        Publisher { messages, next: 0, unacknowledged: VecDeque::new(), sent_again: 0 }
    }

    /// Until so many were acknowledged; at the end everything is waited for, else up to a window stays
    /// under way, so that a kill meets it.
    fn publish_until(&mut self, port: u16, until: u64, last: bool) {
        let mut client = Client::connect(port, &Options::new("publisher"));
        let mut under_way = VecDeque::new();
        for number in std::mem::take(&mut self.unacknowledged) {
            self.sent_again += 1;
            under_way.push_back((send(&mut client, number), number));
        }
        let acknowledged = |next: u64, under_way: &VecDeque<(u16, u64)>| next - under_way.len() as u64;
        while acknowledged(self.next, &under_way) < until {
            while self.next < self.messages && under_way.len() < PUBLISHER_WINDOW {
                under_way.push_back((send(&mut client, self.next), self.next));
                self.next += 1;
            }
            let Some(Packet::PubAck(ack)) = client.next() else { panic!("PUBACK") };
            let at =
                under_way.iter().position(|(packet_id, _)| *packet_id == ack.packet_id).expect("under way");
            under_way.remove(at);
        }
        if last {
            assert!(under_way.is_empty() && self.next == self.messages);
        }
        self.unacknowledged = under_way.into_iter().map(|(_, number)| number).collect();
    }
}

fn send(client: &mut Client, number: u64) -> u16 {
    client.publish(&format!("sensors/{}", number % TOPICS), number.to_string(), QoS::AtLeastOnce)
}

/// The subscriber in the cloud; its session is kept there.
struct Collector {
    seen: Arc<Mutex<Vec<(String, u64)>>>,
    distinct: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(port: u16) -> Collector {
        let mut client = Client::connect(port, &Options::kept("collector"));
        client.subscribe("sites/#", QoS::AtLeastOnce);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (distinct, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (keep, count, end) = (seen.clone(), distinct.clone(), ended.clone());
        let thread = thread::spawn(move || {
            let mut numbers = BTreeSet::new();
            while !end.load(Ordering::SeqCst) {
                let Ok(Some(packet)) = client.next_within(Duration::from_millis(200)) else { continue };
                let Packet::Publish(publish) = packet else { continue };
                client.acknowledge(&publish);
                let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                keep.lock().unwrap().push((publish.topic.to_string(), number));
                numbers.insert(number);
                count.store(numbers.len() as u64, Ordering::SeqCst);
            }
        });
        Collector { seen, distinct, ended, thread: Some(thread) }
    }

    fn distinct(&self) -> u64 {
        self.distinct.load(Ordering::SeqCst)
    }

    fn end(mut self) -> Vec<(String, u64)> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}
