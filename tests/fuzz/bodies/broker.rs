//! What must hold for the whole broker, whatever several clients send in whatever order.
//!
//! The bytes are a script: clients come, send any packet, break off; the store commits and answers when it
//! likes, time passes, the power goes. A client here knows only what MQTT tells it. Held at every step: packet
//! ids are unique among what is under way, Receive Maximum and Maximum Packet Size are kept, nothing is
//! said to who is gone. In the end: whoever is there is answered, what waits arrives, and when all
//! have gone and their time is over, nothing of them is left.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use bytestring::ByteString;
use tidegate::broker::{
    Broker, Config, ConnectionId, Effect, Event, LimitsConfig, Passwords, Peer, Route, Terms, Trust, WhenFull,
};
use tidegate::codec::{
    Ack, Alias, Connect, Disconnect, Packet, Properties, Property, Publish, QoS, Reason, RetainHandling,
    Subscribe, Subscription, SubscriptionOptions, Unsubscribe, Version, Will, encode, publish_size,
};
use tidegate::record::{Now, Portion, Presence, ReaderId, Restored, Seq};

#[allow(dead_code, reason = "the broker's own tests use more of it")]
#[path = "../../../src/broker/tests/model.rs"]
mod model;

use model::Model;

/// Panics where a promise of the broker is broken.
pub(crate) fn run(data: &[u8]) {
    let mut script = Script { bytes: data };
    let mut world = World::new(script.byte());
    for _ in 0..STEPS_MAX {
        if script.bytes.is_empty() {
            break;
        }
        world.step(&mut script);
    }
    world.handle();
    world.everybody_is_answered();
    world.what_waits_arrives();
    world.nothing_is_left();
}

/// The bytes that are left; zeros beyond their end.
struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn one_of<V>(&mut self, of: &BTreeMap<u16, V>) -> Option<u16> {
        let nth = usize::from(self.byte()) % of.len().max(1);
        of.keys().nth(nth).copied()
    }

    fn is(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn qos(&mut self) -> QoS {
        self.one(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }
}

/// Who sits at a connection, and what he has been told.
#[derive(Default)]
struct Client {
    generation: u32,
    /// Its version, while it is connected.
    version: Option<Version>,
    is_open: bool,
    window: usize,
    largest: usize,
    /// What is under way to it.
    under_way: BTreeMap<u16, Stage>,
    /// A message of QoS 1 or 2 has come on this connection.
    has_begun: bool,
    pings: u32,
    /// It has broken the rules, so that what is under way is nobody's guess.
    is_rude: bool,
}

/// What is next for a message on its way to a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its PUBACK.
    Ack,
    /// Its PUBREC.
    Received,
    /// The broker's PUBREL.
    Release,
    /// Its PUBCOMP.
    Completed,
}

struct World {
    broker: Broker,
    config: Config,
    presence: Presence,
    model: Model,
    now: Now,
    clients: Vec<Client>,
    events: Vec<Event>,
    /// Whose link has broken, which the broker will hear with the next events.
    broken: BTreeSet<ConnectionId>,
    asked: Vec<(ReaderId, Seq, Portion)>,
    serial: u32,
}

impl World {
    fn new(choice: u8) -> World {
        let mut limits = LimitsConfig::default().check().expect("the defaults are valid");
        limits.max_inflight = 3;
        if choice & 1 == 1 {
            (limits.max_queued_messages, limits.max_queued_bytes) = (4, 2_000);
        }
        if choice & 2 == 2 {
            limits.when_queue_full = WhenFull::DropNewest;
        }
        if choice & 4 == 4 {
            (limits.max_memory, limits.max_send_buffer) = (6_000, 1_500);
        }
        let presence = if choice & 24 == 24 { Presence::Absent } else { Presence::There };
        let route = |reader, filter: &str, store| Route {
            reader: ReaderId(reader),
            filter: filter.into(),
            store,
            name: filter.into(),
        };
        let config = Config {
            limits,
            gateway: "fuzz".into(),
            routes: vec![route(1, "a/#", true), route(2, "b", false)],
            passwords: Passwords::Absent,
            rules: None,
            set_topics: Vec::new(),
            refusals: Default::default(),
        };
        let now = Now::steady(0, 1_000_000_000);
        let mut model = Model::default();
        (model.disk.last_reader, model.view.last_reader) = (ROUTES, ROUTES);
        let restored = Restored { store: presence, last_reader: ROUTES, ..Restored::default() };
        World {
            broker: Broker::new(config.clone(), u64::from(choice), restored, now),
            config,
            presence,
            model,
            now,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            events: Vec::new(),
            broken: BTreeSet::new(),
            asked: Vec::new(),
            serial: 0,
        }
    }

    fn id(&self, slot: usize) -> ConnectionId {
        let slot_number = u32::try_from(slot).expect("few clients");
        ConnectionId { slot: slot_number, generation: self.clients[slot].generation }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let slot = usize::from(script.below(CLIENTS));
        match choice & 31 {
            0..=2 => self.come(slot, script),
            3 => self.lose(slot),
            4 => self.pass(script.one(&[1, 1_000, 20_000, 100_000_000])),
            5..=7 => self.commit(usize::from(script.below(6))),
            8..=9 => self.answer_reads(),
            10 => self.crash(),
            11 => {
                let connection = self.id(slot);
                let reason = script.one(&[Reason::MalformedPacket, Reason::PacketTooLarge]);
                self.say_event(slot, Event::Malformed { connection, reason });
            }
            12..=15 => self.acknowledge(slot, script),
            _ => {
                let packet = self.packet(slot, choice & 31, script);
                self.say(slot, packet);
            }
        }
        // Several things may happen before the broker is asked.
        if choice & 96 != 96 {
            self.handle();
        }
    }

    fn say_event(&mut self, slot: usize, event: Event) {
        if self.clients[slot].version.is_some() {
            self.events.push(event);
        }
    }

    fn say(&mut self, slot: usize, packet: Packet) {
        let connection = self.id(slot);
        if matches!(packet, Packet::PingReq) {
            self.clients[slot].pings += 1;
        }
        self.say_event(slot, Event::Packet { connection, packet });
    }

    fn come(&mut self, slot: usize, script: &mut Script<'_>) {
        self.lose(slot);
        let version = script.one(&[Version::V31, Version::V311, Version::V5]);
        let client_id = script.one(&["one", "two", "three", ""]);
        let clean_start = script.is();
        let (window, largest) = (script.one(&[1_u16, 2, 9]), script.one(&[47_u32, 49, 56, 200, 1_000_000]));
        let mut list = vec![];
        if version == Version::V5 {
            list.push(Property::SessionExpiryInterval(script.one(&[0, 10, 1_000_000, u32::MAX])));
            list.push(Property::ReceiveMaximum(window));
            list.push(Property::MaximumPacketSize(largest));
            list.push(Property::TopicAliasMaximum(u16::from(script.below(3))));
            list.push(Property::RequestProblemInformation(script.below(2)));
        }
        let will = script.is().then(|| Will {
            qos: script.qos(),
            retain: script.is(),
            topic: script.one(TOPICS).into(),
            payload: Bytes::from_static(b"gone"),
            properties: match version {
                Version::V5 => {
                    Properties::from_list(&[Property::WillDelayInterval(script.one(&[0, 5, 500]))])
                }
                _ => Properties::new(),
            },
        });
        let own = usize::from(self.config.limits.max_inflight);
        let client = &mut self.clients[slot];
        let v5 = version == Version::V5;
        *client = Client {
            generation: client.generation + 1,
            version: Some(version),
            window: if v5 { own.min(usize::from(window)) } else { own },
            largest: if v5 { largest as usize } else { usize::MAX },
            ..Client::default()
        };
        let connection = self.id(slot);
        let peer = Peer { name: "peer".into(), trust: Trust::Anonymous, terms: Terms::default() };
        self.events.push(Event::Opened { connection, peer });
        let connect = Connect {
            version,
            clean_start,
            keep_alive: script.one(&[0, 5, 600]),
            client_id: client_id.into(),
            will,
            username: None,
            password: None,
            properties: Properties::from_list(&list),
        };
        self.say(slot, Packet::Connect(Box::new(connect)));
    }

    fn lose(&mut self, slot: usize) {
        let connection = self.id(slot);
        if self.clients[slot].version.take().is_some() {
            self.clients[slot].is_open = false;
            self.broken.insert(connection);
            self.events.push(Event::Lost { connection });
        }
    }

    /// One of the acknowledgements that this client owes.
    fn acknowledge(&mut self, slot: usize, script: &mut Script<'_>) {
        let client = &self.clients[slot];
        let Some(id) = script.one_of(&client.under_way) else { return };
        // A refusal ends an exchange of QoS 2 at once.
        let refuses = client.version == Some(Version::V5) && script.below(8) == 0;
        self.answer(slot, id, if refuses { Reason::UnspecifiedError } else { Reason::Success });
    }

    fn answer(&mut self, slot: usize, id: u16, reason: Reason) {
        let client = &mut self.clients[slot];
        let Some(stage) = client.under_way.get(&id).copied() else { return };
        let packet = match stage {
            Stage::Ack => Packet::PubAck(ack(id, reason)),
            Stage::Received => Packet::PubRec(ack(id, reason)),
            Stage::Release => return,
            Stage::Completed => Packet::PubComp(ack(id, Reason::Success)),
        };
        if stage == Stage::Received && !reason.is_error() {
            client.under_way.insert(id, Stage::Release);
        } else {
            client.under_way.remove(&id);
        }
        self.say(slot, packet);
    }

    fn packet(&mut self, slot: usize, choice: u8, script: &mut Script<'_>) -> Packet {
        let v5 = self.clients[slot].version == Some(Version::V5);
        match choice {
            16..=22 => Packet::Publish(self.publish(v5, script)),
            23..=24 => Packet::Subscribe(subscribe(v5, script)),
            25 => Packet::Unsubscribe(Unsubscribe {
                packet_id: u16::from(script.below(4)) + 1,
                properties: Properties::new(),
                filters: vec![script.one(FILTERS).into()],
            }),
            26 => Packet::PubRel(ack(u16::from(script.below(4)) + 1, Reason::Success)),
            27..=28 => Packet::PingReq,
            29 => {
                let list = match v5 && script.is() {
                    true => vec![Property::SessionExpiryInterval(script.one(&[0, 10, u32::MAX]))],
                    false => vec![],
                };
                let reason = script.one(&[Reason::Success, Reason::DisconnectWithWill]);
                Packet::Disconnect(Disconnect { reason, properties: Properties::from_list(&list) })
            }
            30 => {
                // An answer to what nobody asked.
                self.clients[slot].is_rude = true;
                let of = ack(u16::from(script.below(6)), Reason::Success);
                match script.below(3) {
                    0 => Packet::PubAck(of),
                    1 => Packet::PubRec(of),
                    _ => Packet::PubComp(of),
                }
            }
            _ => script.one(&[&Packet::PingResp, &Packet::Disconnect(farewell())]).clone(),
        }
    }

    fn publish(&mut self, v5: bool, script: &mut Script<'_>) -> Publish {
        self.serial += 1;
        let qos = script.qos();
        let mut topic = script.one(TOPICS);
        let mut list = vec![];
        if v5 {
            match script.below(6) {
                0 => list.push(Property::MessageExpiryInterval(script.one(&[0, 1, 15, 1_000]))),
                1 => list.push(Property::TopicAlias(u16::from(script.below(4)))),
                2 => {
                    list.push(Property::TopicAlias(1));
                    topic = "";
                }
                3 => list.push(Property::UserProperty("k".into(), "v".into())),
                _ => {}
            }
        }
        let length = script.one(&[0_usize, 8, 8, 40, 300]);
        let mut payload = format!("{:08}", self.serial).into_bytes();
        payload.resize(length, b'.');
        Publish {
            dup: qos > QoS::AtMostOnce && script.below(4) == 0,
            qos,
            retain: script.below(4) == 0,
            topic: topic.into(),
            packet_id: if qos == QoS::AtMostOnce { 0 } else { u16::from(script.below(4)) + 1 },
            properties: Properties::from_list(&list),
            payload: payload.into(),
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now = Now::steady(self.now.mono + millis, self.now.wall + millis);
        self.events.push(Event::Tick);
    }

    fn commit(&mut self, count: usize) {
        let through = self.model.commit(count);
        self.events.push(Event::Committed { through });
    }

    fn answer_reads(&mut self) {
        for (reader, after, limit) in std::mem::take(&mut self.asked) {
            self.events.push(Event::Rows(self.model.read(reader, after, limit)));
        }
    }

    fn crash(&mut self) {
        if self.presence == Presence::Absent {
            return;
        }
        self.events.clear();
        self.broken.clear();
        self.asked.clear();
        for client in &mut self.clients {
            (client.version, client.is_open) = (None, false);
        }
        self.broker = Broker::new(self.config.clone(), 1, self.model.crash(), self.now);
    }

    /// The broker is told what has happened; what it wants done is done.
    fn handle(&mut self) {
        let mut effects = Vec::new();
        self.broker.handle(&mut self.events, self.now, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
        self.broken.clear();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write(write) => {
                assert_eq!(self.presence, Presence::There, "nothing is written where there is no store");
                self.model.write(&write);
            }
            Effect::Read { reader, after, limit } => {
                assert!(limit.rows > 0, "a question has an answer");
                self.asked.push((reader, after, limit));
            }
            Effect::Close { connection } => {
                if let Some(client) = self.client(connection) {
                    (client.version, client.is_open) = (None, false);
                }
            }
            Effect::Send { connection, packet } => {
                if let Some(client) = self.client(connection) {
                    client.hear(&packet);
                }
            }
            Effect::Deliver(copy) => {
                if let Some(client) = self.client(copy.connection) {
                    let version = client.version.expect("it is connected");
                    let size = publish_size(version, &copy.parts(Alias::None));
                    client.take(copy.packet_id, copy.qos, size);
                }
            }
            // Whoever is sent something takes it at once.
            Effect::AwaitRoom { connection, .. } => self.events.push(Event::Room { connection }),
            Effect::Forward { route, .. } => assert_eq!(route, 1, "only what keeps nothing"),
            _ => {}
        }
    }

    /// Who is at this connection, unless its link has just broken; nothing is said to who is gone by the
    /// broker's own knowledge.
    fn client(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        if self.broken.contains(&connection) {
            return None;
        }
        let client = &mut self.clients[connection.slot as usize];
        assert_eq!(client.generation, connection.generation, "said to who is gone");
        Some(client)
    }

    /// Everything is committed, read and acknowledged until nothing moves any more.
    fn rest(&mut self) {
        for _ in 0..RESTS_MAX {
            self.commit(usize::MAX);
            self.answer_reads();
            for slot in 0..self.clients.len() {
                let ids: Vec<u16> = self.clients[slot].under_way.keys().copied().collect();
                for id in ids {
                    self.answer(slot, id, Reason::Success);
                }
            }
            let idle = self.events.len() == 1;
            self.handle();
            let owes = self.clients.iter().any(Client::owes);
            if idle && !owes && self.asked.is_empty() && self.model.pending.is_empty() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn everybody_is_answered(&mut self) {
        self.rest();
        for slot in 0..self.clients.len() {
            self.say(slot, Packet::PingReq);
        }
        self.rest();
        for client in &self.clients {
            assert!(!client.is_open || client.pings == 0, "{} PINGREQs have no answer", client.pings);
        }
    }

    /// Whoever has a session on disk comes for it and takes what waits.
    fn what_waits_arrives(&mut self) {
        if self.presence == Presence::Absent {
            return;
        }
        for slot in 0..self.clients.len() {
            self.lose(slot);
        }
        self.handle();
        for name in ["one", "two", "three"] {
            self.rest();
            self.clients[0] = Client { generation: self.clients[0].generation + 1, ..Client::polite() };
            let connection = self.id(0);
            let peer = Peer { name: "peer".into(), trust: Trust::Anonymous, terms: Terms::default() };
            self.events.push(Event::Opened { connection, peer });
            let connect = Connect {
                version: Version::V311,
                clean_start: false,
                keep_alive: 0,
                client_id: name.into(),
                will: None,
                username: None,
                password: None,
                properties: Properties::new(),
            };
            self.say(0, Packet::Connect(Box::new(connect)));
            self.handle();
            self.rest();
            let tight = self.config.limits.max_memory < 10_000;
            assert!(self.clients[0].is_open || tight, "{name} is not let in");
            if self.clients[0].is_open {
                let session =
                    self.model.view.sessions.values().find(|record| *record.client_id == *name).cloned();
                let session = session.expect("it asked for one that is kept");
                let waiting = self.model.view.rows.get(&session.reader).map_or(0, BTreeMap::len);
                assert_eq!(waiting, 0, "rows of {name} never arrive");
            }
        }
    }

    /// When all have gone and their time is over, nobody has left anything.
    fn nothing_is_left(&mut self) {
        for slot in 0..self.clients.len() {
            self.lose(slot);
        }
        self.handle();
        for _ in 0..2 {
            self.pass(A_YEAR);
            self.handle();
            self.commit(usize::MAX);
            self.answer_reads();
            self.handle();
        }
        self.rest();
        let counters = self.broker.counters();
        let left = [
            counters.clients,
            counters.sessions,
            counters.subscriptions,
            counters.uncommitted,
            counters.paused,
        ];
        assert_eq!(left, [0; 5], "clients, sessions, subscriptions, uncommitted, paused");
        if self.presence == Presence::There {
            let view = &self.model.view;
            assert!(view.sessions.is_empty() && view.leases.is_empty() && view.inward.is_empty());
            assert!(view.rows.iter().all(|(reader, rows)| reader.0 <= ROUTES || rows.is_empty()));
        }
    }
}

impl Client {
    /// One that takes everything.
    fn polite() -> Client {
        Client { version: Some(Version::V311), window: 3, largest: usize::MAX, ..Client::default() }
    }

    /// Whether it has something to acknowledge.
    fn owes(&self) -> bool {
        self.version.is_some() && self.under_way.values().any(|stage| *stage != Stage::Release)
    }

    fn take(&mut self, packet_id: u16, qos: QoS, size: usize) {
        assert!(self.is_open, "a message before CONNACK");
        assert!(size <= self.largest, "{size} bytes to who takes {}", self.largest);
        assert_eq!(qos == QoS::AtMostOnce, packet_id == 0);
        if qos == QoS::AtMostOnce {
            return;
        }
        let stage = if qos == QoS::ExactlyOnce { Stage::Received } else { Stage::Ack };
        self.has_begun = true;
        let twice = self.under_way.insert(packet_id, stage);
        assert!(twice.is_none() || self.is_rude, "packet id {packet_id} is under way twice");
        let count = self.under_way.len();
        assert!(count <= self.window || self.is_rude, "{count} under way, {} are allowed", self.window);
    }

    fn hear(&mut self, packet: &Packet) {
        let version = self.version.expect("said to who is connected");
        let mut bytes = Vec::new();
        encode(packet, version, &mut bytes).expect("what is said can be written");
        assert!(bytes.len() <= self.largest, "{} bytes to who takes {}", bytes.len(), self.largest);
        match packet {
            Packet::ConnAck(connack) => {
                assert!(!self.is_open, "a second CONNACK");
                self.is_open = !connack.reason.is_error();
            }
            Packet::PingResp => self.pings = self.pings.checked_sub(1).expect("it has asked"),
            Packet::PubRel(ack) => {
                let known = self.under_way.insert(ack.packet_id, Stage::Completed);
                // What it has answered on a connection of before comes first, as much as it is: Receive Maximum is
                // for PUBLISH, and for this connection. Later on it ends what the client cannot be sent again.
                let count = self.under_way.len();
                let may_be = known.is_some() || !self.has_begun || count <= self.window;
                assert!(may_be || self.is_rude, "{count} under way, {} are allowed", self.window);
            }
            _ => assert!(self.is_open, "{packet:?} before CONNACK"),
        }
    }
}

fn subscribe(v5: bool, script: &mut Script<'_>) -> Subscribe {
    let list = match v5 && script.is() {
        true => vec![Property::SubscriptionIdentifier(u32::from(script.below(3)) + 1)],
        false => vec![],
    };
    let one = |script: &mut Script<'_>| Subscription {
        filter: ByteString::from(script.one(FILTERS)),
        options: SubscriptionOptions {
            qos: script.qos(),
            no_local: v5 && script.below(4) == 0,
            retain_as_published: v5 && script.is(),
            retain_handling: match v5 {
                true => {
                    script.one(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend])
                }
                false => RetainHandling::Send,
            },
        },
    };
    let count = script.below(2) + 1;
    Subscribe {
        packet_id: u16::from(script.below(4)) + 1,
        properties: Properties::from_list(&list),
        filters: (0..count).map(|_| one(script)).collect(),
    }
}

fn ack(packet_id: u16, reason: Reason) -> Ack {
    Ack { packet_id, reason, properties: Properties::new() }
}

fn farewell() -> Disconnect {
    Disconnect { reason: Reason::Success, properties: Properties::new() }
}

/// Connections that there may be at a time.
const CLIENTS: u8 = 4;

/// Readers that are routes.
const ROUTES: u32 = 2;

/// Topics, one of them forbidden and one that is none.
const TOPICS: &[&str] = &["a/b", "a/c", "b", "a/b", "c", "$SYS/x", "a/+"];

/// Filters, one of which is none.
const FILTERS: &[&str] =
    &["a/b", "a/+", "#", "b", "$share/g/a/#", "$share/g/b", "$share/h/#", "$SYS/broker/clients/#", "a/#/b"];

/// Steps of one script.
const STEPS_MAX: usize = 400;

/// Rounds after which somebody would be going round for ever.
const RESTS_MAX: usize = 2_000;

/// Milliseconds.
const A_YEAR: u64 = 366 * 86_400_000;
