//! Killed again and again under a mixed load.
//!
//! Publishers of every QoS, kept sessions, a group at QoS 1 and one at QoS 2, retained messages and wills;
//! the gateway is killed with -9 after a random number of steps, whatever is under way then, and starts again. At the
//! end everything that was acknowledged has arrived, in order, and what is of QoS 2 only once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate::codec::{Ack, Packet, Properties, Publish, QoS, Reason, Version};

use crate::program;
use crate::stand::{Client, Dice, Gateway, Options, proof, seed};

#[test]
fn every_promise_holds_over_kills_under_a_mixed_load() {
    let rounds = if proof() { 200 } else { 5 };
    for seed in [7, seed()] {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(Gateway::start(program(), folder.path(), ""), seed);
        for round in 0..rounds {
            world.round(round);
        }
        world.come_to_rest();
        world.check();
        let counts = world.publisher.acknowledged.values().map(BTreeSet::len).sum::<usize>();
        println!("measured: seed {seed}: {rounds} kills, {counts} messages acknowledged, none missing");
    }
}

/// Everybody, and the gateway between them.
struct World {
    gateway: Gateway,
    dice: Dice,
    publisher: Publisher,
    readers: Vec<Reader>,
    /// The wills whose clients were there when the gateway was killed.
    wills: BTreeSet<String>,
    /// Those whose clients took leave, which a kill may have come before.
    withdrawn: BTreeSet<String>,
}

/// Publishes numbers, and keeps what is not answered to send it again.
struct Publisher {
    client: Option<Client>,
    next: u64,
    next_id: u16,
    /// In the order of their sending; with what is next for each.
    under_way: VecDeque<(Publish, Stage)>,
    /// Numbers that were acknowledged, by topic and QoS.
    acknowledged: BTreeMap<(String, QoS), BTreeSet<u64>>,
    /// Numbers that were sent to be retained, by topic: acknowledged up to, sent up to.
    retained: BTreeMap<String, (u64, u64)>,
}

/// What a publish waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// PUBACK or PUBREC.
    Kept,
    /// PUBCOMP.
    Freed,
}

/// A session that is kept, and what has come to it.
struct Reader {
    options: Options,
    filter: &'static str,
    qos: QoS,
    client: Option<Client>,
    knows_us: bool,
    /// QoS 2 packet ids that the gateway has not released.
    held: BTreeSet<u16>,
    /// Acknowledgements that it has not sent.
    owed: VecDeque<Packet>,
    /// QoS, topic and payload, in the order of their first arrival.
    got: Vec<(QoS, String, String)>,
    /// How often each topic and payload came.
    times: BTreeMap<(String, String), u32>,
}

impl World {
    fn new(gateway: Gateway, seed: u64) -> World {
        let (once, twice) = (QoS::AtLeastOnce, QoS::ExactlyOnce);
        let readers = vec![
            Reader::new("plain", Version::V311, "k/#", once),
            Reader::new("exact", Version::V5, "k/#", twice),
            Reader::new("old", Version::V31, "k/1", twice),
            Reader::new("mourner", Version::V311, "wills/#", once),
            Reader::new("g-1", Version::V5, "$share/g/g/#", once),
            Reader::new("g-2", Version::V311, "$share/g/g/#", once),
            Reader::new("h-1", Version::V5, "$share/h/h/#", twice),
            Reader::new("h-2", Version::V5, "$share/h/h/#", twice),
        ];
        let publisher = Publisher {
            client: None,
            next: 0,
            next_id: 0,
            under_way: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            retained: BTreeMap::new(),
        };
        let mut world = World {
            gateway,
            dice: Dice::new(seed),
            publisher,
            readers,
            wills: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
        };
        // Everybody is known before anything is promised to him.
        let port = world.gateway.port();
        world.readers.iter_mut().for_each(|reader| reader.come(port));
        world
    }

    fn round(&mut self, round: u32) {
        let port = self.gateway.port();
        self.publisher.come(port);
        let name = format!("will-{round}");
        let dying = Options {
            version: Version::V5,
            will: Some(("wills/all".into(), name.clone())),
            ..Options::kept(&name)
        };
        let dying = Client::connect(port, &dying);
        let leaves = self.dice.below(3) == 0;
        let steps = 20 + self.dice.below(80);
        for _ in 0..steps {
            self.step(port);
        }
        if leaves {
            dying.disconnect();
            self.withdrawn.insert(name);
        } else {
            self.wills.insert(name);
        }
        // What it is killed in the middle of.
        for _ in 0..self.dice.below(12) {
            self.publisher.publish(&mut self.dice);
        }
        self.gateway.kill();
        self.publisher.client = None;
        self.readers.iter_mut().for_each(Reader::go);
        self.gateway.start_again();
        self.retained_are_there();
    }

    fn step(&mut self, port: u16) {
        let nth = self.dice.below(self.readers.len() as u64) as usize;
        match self.dice.below(20) {
            0..=8 => self.publisher.publish(&mut self.dice),
            9..=11 => self.publisher.listen(),
            12..=15 => {
                self.readers[nth].listen();
                if self.dice.below(4) > 0 {
                    self.readers[nth].acknowledge();
                }
            }
            16..=18 => self.readers[nth].come(port),
            _ => self.readers[nth].go(),
        }
    }

    /// A new client finds of each topic what was acknowledged last, or something newer.
    fn retained_are_there(&mut self) {
        let mut fresh = Client::connect(self.gateway.port(), &Options::new("fresh"));
        for (topic, (acknowledged, sent)) in &self.publisher.retained {
            if *acknowledged == 0 {
                continue;
            }
            fresh.subscribe(topic, QoS::AtLeastOnce);
            let message = fresh.message();
            let number: u64 = String::from_utf8_lossy(&message.payload).parse().unwrap();
            assert!(message.retain && (acknowledged..=sent).contains(&&number), "{topic}: {number}");
        }
        fresh.disconnect();
    }

    /// Everybody is there and takes all.
    fn come_to_rest(&mut self) {
        let port = self.gateway.port();
        self.publisher.come(port);
        while !self.publisher.under_way.is_empty() {
            self.publisher.listen();
        }
        self.readers.iter_mut().for_each(|reader| reader.come(port));
        let mut quiet = 0;
        while quiet < 3 {
            let before: usize = self.readers.iter().map(|reader| reader.got.len()).sum();
            for reader in &mut self.readers {
                reader.listen();
                reader.acknowledge();
            }
            let moved = before != self.readers.iter().map(|reader| reader.got.len()).sum::<usize>();
            // Nothing is to be sent, nothing waits in the house.
            quiet = if moved { 0 } else { quiet + 1 };
        }
    }

    fn check(&self) {
        for ((topic, qos), numbers) in &self.publisher.acknowledged {
            let covering = |reader: &&Reader| reader.covers(topic);
            let single = self.readers.iter().filter(|reader| !reader.is_member());
            for reader in single.filter(covering) {
                let missing: Vec<_> =
                    numbers.iter().filter(|number| reader.times_of(topic, **number) == 0).collect();
                assert!(missing.is_empty(), "{}: {topic} at {qos:?} lacks {missing:?}", reader.options.id);
            }
            let members: Vec<&Reader> =
                self.readers.iter().filter(|reader| reader.is_member()).filter(covering).collect();
            if !members.is_empty() {
                let times =
                    |number: &u64| members.iter().map(|reader| reader.times_of(topic, *number)).sum::<u32>();
                let missing: Vec<_> = numbers.iter().filter(|number| times(number) == 0).collect();
                assert!(missing.is_empty(), "the group of {topic} at {qos:?} lacks {missing:?}");
                if topic.starts_with('h') && *qos == QoS::ExactlyOnce {
                    let twice: Vec<_> = numbers.iter().filter(|number| times(number) > 1).collect();
                    assert!(twice.is_empty(), "the group of {topic} got {twice:?} more than once");
                }
            }
        }
        let exact = self.readers.iter().find(|reader| reader.options.id == "exact").unwrap();
        for ((topic, qos), numbers) in &self.publisher.acknowledged {
            if *qos == QoS::ExactlyOnce && exact.covers(topic) {
                let twice: Vec<_> =
                    numbers.iter().filter(|number| exact.times_of(topic, **number) > 1).collect();
                assert!(twice.is_empty(), "{topic} of QoS 2 came more than once: {twice:?}");
            }
        }
        self.readers.iter().filter(|reader| !reader.is_member()).for_each(Reader::is_in_order);
        let mourner = self.readers.iter().find(|reader| reader.options.id == "mourner").unwrap();
        let heard: BTreeSet<String> = mourner.got.iter().map(|(.., name)| name.clone()).collect();
        let missing: Vec<_> = self.wills.difference(&heard).collect();
        assert!(missing.is_empty(), "wills of who was there at a kill: {missing:?}");
        assert!(
            heard.iter().all(|name| self.wills.contains(name) || self.withdrawn.contains(name)),
            "{heard:?}"
        );
    }
}

impl Publisher {
    fn come(&mut self, port: u16) {
        let options = Options { version: Version::V5, ..Options::kept("publisher") };
        let mut client = Client::connect(port, &options);
        assert!(client.session_present || self.next == 0, "the publisher's session is gone");
        for (publish, stage) in &mut self.under_way {
            publish.dup = true;
            client.send(&match stage {
                Stage::Kept => Packet::Publish(publish.clone()),
                Stage::Freed => Packet::PubRel(ack(publish.packet_id)),
            });
        }
        self.client = Some(client);
    }

    fn publish(&mut self, dice: &mut Dice) {
        if self.under_way.len() >= WINDOW {
            return self.listen();
        }
        self.next += 1;
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][dice.below(3) as usize];
        let topic = ["k/1", "k/2", "g/1", "h/1", "r/1", "r/2"][dice.below(6) as usize];
        while self.under_way.iter().any(|(publish, _)| publish.packet_id == self.next_id) || self.next_id == 0
        {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let publish = Publish {
            dup: false,
            qos,
            retain: topic.starts_with('r'),
            topic: topic.into(),
            packet_id: if qos == QoS::AtMostOnce { 0 } else { self.next_id },
            properties: Properties::new(),
            payload: Bytes::from(self.next.to_string()),
        };
        if publish.retain {
            self.retained.entry(topic.into()).or_default().1 = self.next;
        }
        self.client.as_mut().unwrap().send(&Packet::Publish(publish.clone()));
        if qos > QoS::AtMostOnce {
            self.under_way.push_back((publish, Stage::Kept));
        }
    }

    fn listen(&mut self) {
        let client = self.client.as_mut().unwrap();
        while let Ok(Some(packet)) = client.next_within(A_MOMENT) {
            match packet {
                Packet::PubAck(answer) => {
                    let publish = take(&mut self.under_way, answer.packet_id);
                    keep(&mut self.acknowledged, &mut self.retained, &publish, answer.reason);
                }
                Packet::PubRec(answer) => {
                    let place =
                        self.under_way.iter_mut().find(|(publish, _)| publish.packet_id == answer.packet_id);
                    let (publish, stage) = place.expect("PUBREC of what is under way");
                    keep(&mut self.acknowledged, &mut self.retained, publish, answer.reason);
                    *stage = Stage::Freed;
                    client.send(&Packet::PubRel(ack(answer.packet_id)));
                }
                Packet::PubComp(answer) => drop(take(&mut self.under_way, answer.packet_id)),
                other => panic!("{other:?} to the publisher"),
            }
        }
    }
}

impl Reader {
    fn new(id: &str, version: Version, filter: &'static str, qos: QoS) -> Reader {
        Reader {
            options: Options { version, ..Options::kept(id) },
            filter,
            qos,
            client: None,
            knows_us: false,
            held: BTreeSet::new(),
            owed: VecDeque::new(),
            got: Vec::new(),
            times: BTreeMap::new(),
        }
    }

    fn come(&mut self, port: u16) {
        if self.client.is_some() {
            return;
        }
        let mut client = Client::connect(port, &self.options);
        // 3.1 does not say.
        let known = client.session_present || self.options.version == Version::V31;
        assert!(known || !self.knows_us, "the session of {} is gone", self.options.id);
        if !std::mem::replace(&mut self.knows_us, true) {
            client.subscribe(self.filter, self.qos);
        }
        self.client = Some(client);
    }

    /// The link breaks; what was not said is never said.
    fn go(&mut self) {
        self.client = None;
        self.owed.clear();
    }

    fn listen(&mut self) {
        let Some(client) = &mut self.client else { return };
        while let Ok(Some(packet)) = client.next_within(A_MOMENT) {
            match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id;
                    let is_new = match publish.qos {
                        QoS::AtMostOnce => true,
                        QoS::AtLeastOnce => {
                            self.owed.push_back(Packet::PubAck(ack(id)));
                            true
                        }
                        QoS::ExactlyOnce => {
                            self.owed.push_back(Packet::PubRec(ack(id)));
                            self.held.insert(id)
                        }
                    };
                    if is_new {
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        let key = (publish.topic.to_string(), payload);
                        let times = self.times.entry(key.clone()).or_default();
                        *times += 1;
                        if *times == 1 {
                            self.got.push((publish.qos, key.0, key.1));
                        }
                    }
                }
                Packet::PubRel(answer) => {
                    self.held.remove(&answer.packet_id);
                    self.owed.push_back(Packet::PubComp(ack(answer.packet_id)));
                }
                other => panic!("{other:?} to {}", self.options.id),
            }
        }
    }

    fn acknowledge(&mut self) {
        let Some(client) = &mut self.client else { return };
        for packet in self.owed.drain(..) {
            client.send(&packet);
        }
    }

    fn is_member(&self) -> bool {
        self.filter.starts_with("$share")
    }

    fn covers(&self, topic: &str) -> bool {
        let filter = self.filter.rsplit_once("$share/").map_or(self.filter, |(_, group)| &group[2..]);
        match filter.strip_suffix('#') {
            Some(stem) => topic.starts_with(stem),
            None => topic == filter,
        }
    }

    fn times_of(&self, topic: &str, number: u64) -> u32 {
        self.times.get(&(topic.to_owned(), number.to_string())).copied().unwrap_or(0)
    }

    /// First arrivals of a topic and QoS are in the order of their publishing: the publisher sends on one link, in order, and
    /// again in that order.
    fn is_in_order(&self) {
        let mut newest: BTreeMap<(QoS, &str), u64> = BTreeMap::new();
        for (qos, topic, number) in &self.got {
            let Ok(number) = number.parse::<u64>() else { continue };
            let last = newest.entry((*qos, topic)).or_default();
            assert!(*last < number, "{}: {topic} {number} after {last}", self.options.id);
            *last = number;
        }
    }
}

fn take(under_way: &mut VecDeque<(Publish, Stage)>, packet_id: u16) -> Publish {
    let place = under_way.iter().position(|(publish, _)| publish.packet_id == packet_id);
    under_way.remove(place.expect("an answer to what is under way")).unwrap().0
}

/// It is on disk, says the gateway.
fn keep(
    acknowledged: &mut BTreeMap<(String, QoS), BTreeSet<u64>>,
    retained: &mut BTreeMap<String, (u64, u64)>,
    publish: &Publish,
    reason: Reason,
) {
    assert!(!reason.is_error(), "{}: {reason:?}", publish.topic);
    let topic = publish.topic.to_string();
    let number: u64 = String::from_utf8_lossy(&publish.payload).parse().unwrap();
    if publish.retain {
        let newest = &mut retained.entry(topic.clone()).or_default().0;
        *newest = number.max(*newest);
    }
    acknowledged.entry((topic, publish.qos)).or_default().insert(number);
}

fn ack(packet_id: u16) -> Ack {
    Ack { packet_id, reason: Reason::Success, properties: Properties::new() }
}

/// Publishes under way, below the gateway's own limit.
const WINDOW: usize = 15;

/// How long one looks for what has come.
const A_MOMENT: Duration = Duration::from_millis(2);
