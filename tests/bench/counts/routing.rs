//! Who wants a topic, and what the broker makes of a publish: handed over in calls of sixteen, as the engine
//! does, or one for a thousand subscribers; or sent the way of one before it.
//!
//! Clients are told of by events alone; what the broker says is let go of, as the engine does once it is sent.

use std::hint::black_box;

use bytes::Bytes;
use bytestring::ByteString;
use tidegate::broker::{
    Broker, Config, ConnectionId, Effect, Event, LimitsConfig, Passwords, Peer, Refusals, Terms, Trust, Way,
};
use tidegate::codec::{
    Ack, Brief, Connect, Packet, Plain, Properties, Publish, QoS, Reason, RetainHandling, Subscribe,
    Subscription, SubscriptionOptions, Version, Word, encode,
};
use tidegate::record::{Now, Restored, Ticket};
use tidegate::router::{Interest, Match, Router, Subscriber};

use crate::{PAYLOAD, TIMES, TOPIC, measured};

/// A filter a subscriber, half of them with a wildcard; topics all over them, each for one of them.
pub(crate) fn find(filters: usize) {
    let mut router = Router::new(7);
    let interest = Interest {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        dollar_at: 0,
    };
    for number in 0..filters {
        let last = if number % 2 == 0 { "speed" } else { "+" };
        let filter = format!("plant/{}/{}/{last}", number / 100, number % 100);
        router.subscribe(&filter.into(), Subscriber(u32::try_from(number).unwrap()), interest);
    }
    let topic = |time: usize| {
        let number = time * 7_919 % filters;
        format!("plant/{}/{}/speed", number / 100, number % 100)
    };
    let topics: Vec<String> = (0..TIMES).map(topic).collect();
    let mut found: Vec<Match> = Vec::new();
    measured(|| {
        for topic in &topics {
            router.matches(black_box(topic), None, &mut found);
            assert_eq!(black_box(&found).len(), 1);
        }
    });
}

pub(crate) fn route(qos: QoS) {
    let mut broker = broker_with(1, qos);
    let publishes = publishes(qos, TIMES);
    let mut calls: Vec<Vec<Event>> = publishes.chunks(PUBLISHES_A_CALL).map(<[Event]>::to_vec).collect();
    drop(publishes);
    let (mut effects, mut acks) = (Vec::new(), Vec::new());
    let mut delivered = 0;
    measured(|| {
        for events in &mut calls {
            events.splice(0..0, acks.drain(..));
            broker.handle(events, now(), &mut effects);
            for effect in black_box(&effects) {
                delivered += usize::from(matches!(effect, Effect::Deliver(_)));
                acks.extend(ack_of(effect));
            }
            effects.clear();
        }
    });
    assert_eq!(delivered, TIMES);
}

/// A message that goes the way of those before it, from its bytes to those that its readers are sent, counted for each
/// of these; at QoS 1 and 2 with the words that both sides say and are answered.
pub(crate) fn pass(qos: QoS, readers: usize) {
    let mut broker = broker_with(readers, qos);
    (0..2).for_each(|number| know(&mut broker, vec![publish_of(TOPIC, qos, number)]));
    let bytes = bytes_of(TOPIC, qos).repeat(TIMES / readers);
    let (sent, rows) = set_out(broker, &bytes, Way::Straight, Rows::default());
    // PUBACK; or PUBREC, PUBREL and PUBCOMP.
    let answers = TIMES * Brief::BYTES * [0, 1, 3][qos as usize];
    assert_eq!((sent.len(), rows.answered), (bytes.len() * readers + answers, 0));
}

/// The same at QoS 0 where the ways of so many topics are known, which come in no order.
pub(crate) fn pass_among(topics: usize) {
    let mut broker = broker_with(1, QoS::AtMostOnce);
    let topic = |number: usize| format!("plant/line-{number:06}/a");
    for _ in 0..ROUNDS {
        know(&mut broker, (0..topics).map(|number| publish_of(&topic(number), QoS::AtMostOnce, 0)).collect());
    }
    let messages = (0..TIMES).map(|time| bytes_of(&topic(time * 7_919 % topics), QoS::AtMostOnce));
    let known = messages.filter(|bytes| {
        let plain = Plain::read(bytes, Version::V311, 1_000).unwrap();
        broker.knows_way(PUBLISHER, &plain)
    });
    let known = known.collect::<Vec<_>>();
    // The table of ways grows as places are missed in it; a few topics have none yet.
    assert!(known.len() >= TIMES / 100 * 95, "only {} of {TIMES} would go a known way", known.len());
    let bytes = known.iter().cycle().take(TIMES).flatten().copied().collect::<Vec<u8>>();
    let (sent, _) = set_out(broker, &bytes, Way::Straight, Rows::default());
    assert_eq!(sent.len(), bytes.len());
}

/// Publishes these, and says what is to be said to them: their ways are known once that was done twice.
fn know(broker: &mut Broker, mut publishes: Vec<Event>) {
    let (mut effects, mut words) = (Vec::new(), Vec::new());
    for event in &publishes {
        if let Event::Packet { connection, packet: Packet::Publish(publish) } = event
            && publish.qos == QoS::ExactlyOnce
        {
            words.push((*connection, Word::PubRel.on(publish.packet_id)));
        }
    }
    broker.handle(&mut publishes, now(), &mut effects);
    for effect in effects.drain(..) {
        if let Effect::Deliver(copy) = effect {
            let said = words_of_reader(copy.qos).iter();
            words.extend(said.map(|word| (copy.connection, word.on(copy.packet_id))));
        }
    }
    let mut answers = Vec::new();
    words.into_iter().for_each(|(id, word)| hear(broker, id, word, &mut answers, &mut effects));
}

/// A message of QoS 1 that is kept for a session which is away, from its bytes to its publisher's PUBACK. A commit has a
/// hundred of them.
pub(crate) fn keep() {
    let mut broker = broker_with(0, QoS::AtLeastOnce);
    let reader = ConnectionId { slot: 1, ..PUBLISHER };
    let mut known = vec![
        Event::Opened { connection: reader, peer: peer() },
        Event::Packet { connection: reader, packet: connect(1, false) },
        Event::Packet { connection: reader, packet: subscribe(QoS::AtLeastOnce) },
        Event::Lost { connection: reader },
    ];
    known.extend(publishes(QoS::AtLeastOnce, 2));
    let (mut rows, mut effects) = (Rows::default(), Vec::new());
    broker.handle(&mut known, now(), &mut effects);
    (0..2).for_each(|_| rows.commit(&mut broker, &mut effects));
    let before = rows.answered;
    let bytes = bytes_of(TOPIC, QoS::AtLeastOnce).repeat(TIMES);
    let (sent, rows) = set_out(broker, &bytes, Way::Kept, rows);
    assert_eq!((sent.len(), rows.answered - before), (0, TIMES));
}

/// Messages whose way is known, as the engine takes them: what their readers are sent, and what became of those that
/// are kept.
fn set_out(mut broker: Broker, bytes: &[u8], way: Way, mut rows: Rows) -> (Vec<u8>, Rows) {
    let mut sent = Vec::with_capacity(1 << 20);
    let (mut legs, mut effects, mut kept) = (Vec::new(), Vec::new(), 0);
    measured(|| {
        let mut rest = bytes;
        while let Some(plain) = Plain::read(black_box(rest), Version::V311, 1_000) {
            assert_eq!(broker.set_out(PUBLISHER, &plain, &now(), &mut legs, &mut effects), Some(way));
            for leg in black_box(&legs) {
                plain.put(leg.qos, leg.packet_id, &mut sent);
                for word in words_of_reader(leg.qos) {
                    hear(&mut broker, leg.connection, word.on(leg.packet_id), &mut sent, &mut effects);
                }
            }
            match (way, plain.qos) {
                (Way::Kept, _) => {
                    kept += 1;
                    if kept % ROWS_A_COMMIT == 0 {
                        rows.commit(&mut broker, &mut effects);
                    }
                }
                (Way::Straight, QoS::AtMostOnce) => {}
                (Way::Straight, QoS::AtLeastOnce) => say(&mut sent, Word::PubAck.on(plain.packet_id)),
                (Way::Straight, QoS::ExactlyOnce) => {
                    say(&mut sent, Word::PubRec.on(plain.packet_id));
                    let word = Word::PubRel.on(plain.packet_id);
                    hear(&mut broker, PUBLISHER, word, &mut sent, &mut effects);
                }
            }
            rest = &rest[plain.bytes.len()..];
        }
    });
    assert!(effects.is_empty());
    (sent, rows)
}

/// Has the broker take a word, and answers it. [`Broker::take_word`] is called from here alone and inlined, as it is in
/// the engine.
#[inline(never)]
fn hear(broker: &mut Broker, id: ConnectionId, brief: Brief, sent: &mut Vec<u8>, effects: &mut Vec<Effect>) {
    let heard = broker.take_word(id, brief, &now(), effects).expect("a word like any other");
    if let Some(answer) = heard.answer {
        say(sent, answer);
    }
    if matches!(brief.word, Word::PubAck | Word::PubComp) {
        assert!(broker.take_waiting(id, &now(), effects).is_none(), "nothing waits");
    }
}

fn say(sent: &mut Vec<u8>, brief: Brief) {
    sent.extend_from_slice(&brief.bytes());
}

/// What a reader says to a message.
fn words_of_reader(qos: QoS) -> &'static [Word] {
    match qos {
        QoS::AtMostOnce => &[],
        QoS::AtLeastOnce => &[Word::PubAck],
        QoS::ExactlyOnce => &[Word::PubRec, Word::PubComp],
    }
}

/// What is kept and answered.
#[derive(Default)]
struct Rows {
    written: u64,
    answered: usize,
}

impl Rows {
    /// All that was written is committed.
    fn commit(&mut self, broker: &mut Broker, effects: &mut Vec<Effect>) {
        self.count(effects);
        let mut events = vec![Event::Committed { through: Ticket(self.written) }];
        broker.handle(&mut events, now(), effects);
        self.count(effects);
    }

    fn count(&mut self, effects: &mut Vec<Effect>) {
        for effect in black_box(effects).drain(..) {
            self.written += u64::from(matches!(effect, Effect::Write(_)));
            self.answered += usize::from(matches!(effect, Effect::Send { .. }));
        }
    }
}

/// Those of one message.
fn bytes_of(topic: &str, qos: QoS) -> Vec<u8> {
    let Event::Packet { packet, .. } = publish_of(topic, qos, 0) else { unreachable!("a packet") };
    let mut bytes = Vec::new();
    encode(&packet, Version::V311, &mut bytes).unwrap();
    bytes
}

/// What is counted is a copy for one of them.
pub(crate) fn fan_out(subscribers: usize) {
    let mut broker = broker_with(subscribers, QoS::AtMostOnce);
    let mut publishes = publishes(QoS::AtMostOnce, TIMES / subscribers);
    let (mut events, mut effects) = (Vec::new(), Vec::new());
    let mut delivered = 0;
    measured(|| {
        for publish in publishes.drain(..) {
            events.push(publish);
            broker.handle(&mut events, now(), &mut effects);
            let copies = black_box(&effects).iter().filter(|effect| matches!(effect, Effect::Deliver(_)));
            delivered += copies.count();
            effects.clear();
        }
    });
    assert_eq!(delivered, TIMES);
}

/// A broker with one publisher and so many who want all that it says.
fn broker_with(subscribers: usize, qos: QoS) -> Broker {
    let config = Config {
        limits: LimitsConfig {
            max_queued_messages: 1_000_000,
            // So that the ways of 100,000 topics have room.
            max_memory: "256MB".into(),
            ..LimitsConfig::default()
        }
        .check()
        .unwrap(),
        gateway: "counts".into(),
        routes: Vec::new(),
        passwords: Passwords::Absent,
        rules: None,
        set_topics: Vec::new(),
        refusals: Refusals::default(),
    };
    let mut broker = Broker::new(config, 7, Restored::default(), now());
    let (mut events, mut effects) = (Vec::new(), Vec::new());
    for slot in 0..=u32::try_from(subscribers).unwrap() {
        let connection = ConnectionId { slot, ..PUBLISHER };
        events.push(Event::Opened { connection, peer: peer() });
        events.push(Event::Packet { connection, packet: connect(slot, true) });
        if slot > 0 {
            events.push(Event::Packet { connection, packet: subscribe(qos) });
        }
    }
    broker.handle(&mut events, now(), &mut effects);
    // Retained messages are looked for, for each of them: that takes more than one call.
    while broker.deadline() == Some(0) {
        broker.handle(&mut events, now(), &mut effects);
    }
    broker
}

/// Time stands still, so that no timer comes between.
fn now() -> Now {
    Now::steady(1_000, 1_800_000_000_000)
}

fn peer() -> Peer {
    Peer { name: "peer".into(), trust: Trust::Anonymous, terms: Terms::default() }
}

fn connect(number: u32, clean_start: bool) -> Packet {
    Packet::Connect(Box::new(Connect {
        version: Version::V311,
        clean_start,
        keep_alive: 0,
        client_id: format!("client-{number}").into(),
        will: None,
        username: None,
        password: None,
        properties: Properties::new(),
    }))
}

fn subscribe(qos: QoS) -> Packet {
    let options = SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    let filters = vec![Subscription { filter: "plant/#".into(), options }];
    Packet::Subscribe(Subscribe { packet_id: 1, properties: Properties::new(), filters })
}

fn publishes(qos: QoS, count: usize) -> Vec<Event> {
    let read = Bytes::from([TOPIC.as_bytes(), &PAYLOAD].concat());
    (0..count).map(|number| publish(&read, qos, number)).collect()
}

/// One to a topic of its own.
fn publish_of(topic: &str, qos: QoS, number: usize) -> Event {
    publish(&Bytes::from([topic.as_bytes(), &PAYLOAD].concat()), qos, number)
}

/// As it is decoded: topic and payload are slices of what was read, which lives on.
fn publish(read: &Bytes, qos: QoS, number: usize) -> Event {
    let (topic, payload) = (..read.len() - PAYLOAD.len(), read.len() - PAYLOAD.len()..);
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: ByteString::try_from(read.slice(topic)).unwrap(),
        packet_id: if qos == QoS::AtMostOnce { 0 } else { u16::try_from(number).unwrap() + 1 },
        properties: Properties::new(),
        payload: read.slice(payload),
    };
    Event::Packet { connection: PUBLISHER, packet: Packet::Publish(publish) }
}

/// What a reader says to a copy of QoS 1.
fn ack_of(effect: &Effect) -> Option<Event> {
    let Effect::Deliver(copy) = effect else { return None };
    let ack = Ack { packet_id: copy.packet_id, reason: Reason::Success, properties: Properties::new() };
    let packet = Packet::PubAck(ack);
    (copy.qos == QoS::AtLeastOnce).then_some(Event::Packet { connection: copy.connection, packet })
}

/// Subscribers have the slots after it.
const PUBLISHER: ConnectionId = ConnectionId { slot: 0, generation: 0 };

const PUBLISHES_A_CALL: usize = 16;

const ROWS_A_COMMIT: usize = 100;

/// So often is each of many topics seen before.
const ROUNDS: usize = 6;
