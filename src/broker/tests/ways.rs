//! What goes a known way goes where it would have gone.
//!
//! Random scripts run against two brokers, of which one uses ways: each says what the other says, and counts the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::random::{Random, fresh_seed};
use super::script::{Script, config, with_route};
use super::speech::packet;
use crate::access::Rules;
use crate::broker::{Config, Due, Event, Passwords, Route, WhenFull};
use crate::codec::{Brief, Plain, QoS, Version, Word, encode};
use crate::record::{Policy, ReaderId};

const SLOTS: usize = 5;
const TOPICS: [&str; 7] = ["t", "t/a", "barn/t", "up/a", "down/a", "news", "$x/a"];
const FILTERS: [&str; 10] =
    ["t", "#", "t/+", "+/a", "up/#", "news", "$x/#", "$share/g/t/#", "$share/g/news", "down/a"];

fn two_routes() -> Config {
    let unstored = Route { reader: ReaderId(2), filter: "down/#".into(), store: false, name: "down".into() };
    let mut config = with_route(true);
    config.routes.push(unstored);
    config
}

/// Both brokers, and how often a way was known.
struct Pair {
    plain: Script,
    straight: Script,
    known: u64,
    /// How many of them went at QoS 1 or 2, and how many words on exchanges were taken at once.
    sure: u64,
    words: u64,
    /// How many messages have waited and gone straight then.
    waited: u64,
    /// What clients have to say next on exchanges.
    due: Vec<(u32, Word, u16)>,
}

impl Pair {
    fn new(config: &Config) -> Pair {
        let script = || Script::new(config.clone());
        Pair { plain: script(), straight: script(), known: 0, sure: 0, words: 0, waited: 0, due: Vec::new() }
    }

    fn run(&mut self, line: &str) {
        self.plain.run(&["--", line]);
        self.straight.run(&["--", line]);
        self.note(line);
    }

    /// Both have said the same.
    fn note(&mut self, line: &str) {
        assert_eq!(self.plain.said, self.straight.said, "{line}");
        for said in &self.plain.said {
            let words: Vec<&str> = said.split(' ').collect();
            let [slot, "<", packet, ..] = words[..] else { continue };
            let id = words.iter().rev().find_map(|word| word.trim_start_matches("id=").parse().ok());
            let word = match packet {
                "publish" if words.contains(&"q1") => Word::PubAck,
                "publish" if words.contains(&"q2") => Word::PubRec,
                "pubrec" => Word::PubRel,
                "pubrel" => Word::PubComp,
                _ => continue,
            };
            self.due.extend(id.map(|id| (slot.parse().expect("a slot"), word, id)));
        }
    }

    /// The same publish, which the one broker sends straight if it knows how.
    fn publish(&mut self, slot: u32, topic: &str, payload: &str) {
        self.publish_at(QoS::AtMostOnce, 0, slot, topic, payload);
    }

    fn publish_at(&mut self, qos: QoS, packet_id: u16, slot: u32, topic: &str, payload: &str) {
        let said = as_published(topic, payload, qos, packet_id);
        let line = format!("{slot} {said}");
        self.plain.run(&["--", &line]);
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let mut bytes = Vec::new();
        let version = if self.straight.has_spoken(slot) { self.straight.speaks(slot) } else { Version::V311 };
        encode(&packet(&said), version, &mut bytes).unwrap();
        let plain = Plain::read(&bytes, version, bytes.len()).expect("it is plain");
        let mut legs = Vec::new();
        if !self.straight.broker.set_out(id, &plain, &now, &mut legs) {
            self.straight.run(&["--", &line]);
            return self.note(&line);
        }
        self.straight.said.clear();
        for leg in legs.iter().filter(|leg| leg.is_sent()) {
            let taker = leg.connection;
            assert_eq!(taker, self.plain.connection(taker.slot), "{line}");
            let as_sent = as_published(topic, payload, leg.qos, leg.packet_id);
            self.straight.said.push(format!("{} < {as_sent}", taker.slot));
        }
        let answer = ["", "puback", "pubrec"][qos as usize];
        if qos > QoS::AtMostOnce {
            // Only MQTT 5 has a word for nobody.
            let nobody = if self.plain.speaks(slot) == Version::V5 { "" } else { " 0x10" };
            let told = self.plain.said.last_mut().expect("an answer");
            *told = told.trim_end_matches(nobody).to_owned();
            self.straight.said.push(format!("{slot} < {answer} {packet_id}"));
        }
        self.straight.handle(Vec::new());
        self.note(&line);
        self.known += 1;
        self.sure += u64::from(qos > QoS::AtMostOnce);
    }

    /// The same word on an exchange, which the one broker takes at once if it can.
    fn say(&mut self, (slot, word, packet_id): (u32, Word, u16)) {
        let line = format!("{slot} {word:?} {packet_id}").to_lowercase();
        self.plain.run(&["--", &line]);
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let mut effects = Vec::new();
        if let Some(heard) = self.straight.broker.take_word(id, Brief { word, packet_id }, &now, &mut effects)
        {
            self.straight.said.clear();
            let answer =
                heard.answer.map(|answer| format!("{slot} < {:?} {}", answer.word, answer.packet_id));
            self.straight.said.extend(answer.map(|answer| answer.to_lowercase()));
            self.straight.carry_out(effects);
            self.send_waiting(slot);
            self.straight.handle(Vec::new());
            self.words += 1;
        } else {
            assert!(effects.is_empty(), "{line}");
            self.straight.run(&["--", &line]);
        }
        self.note(&line);
    }

    /// Sends what has waited in its publisher's words.
    fn send_waiting(&mut self, slot: u32) {
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let (mut words, mut effects) = (Vec::new(), Vec::new());
        while let Some(due) = self.straight.broker.take_waiting(id, &mut words, &now, &mut effects) {
            let Due { plain, received, leg, .. } = due;
            assert!(leg.connection == id && (now.house - 2_000..=now.house).contains(&received));
            let [topic, payload] =
                [plain.topic, plain.payload].map(|bytes| std::str::from_utf8(bytes).unwrap());
            let as_sent = as_published(topic, payload, leg.qos, leg.packet_id);
            self.straight.said.push(format!("{slot} < {as_sent}"));
            self.waited += 1;
        }
        self.straight.carry_out(effects);
    }

    fn compare(&self) {
        assert_eq!(self.plain.broker.counters(), self.straight.broker.counters());
        let [plain, straight] = [&self.plain, &self.straight].map(|script| &script.broker.memory);
        assert_eq!((plain.queues, plain.inward), (straight.queues, straight.inward));
    }
}

/// As a script names it.
fn as_published(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> String {
    let exchange = match qos {
        QoS::AtMostOnce => String::new(),
        qos => format!(" q{} id={packet_id}", qos as u8),
    };
    format!("publish {topic} {payload}{exchange}")
}

/// Opens a connection in place of whoever has the slot.
fn arrival(random: &mut Random, slot: usize) -> [String; 2] {
    let terms = ["", "", "", " mount=barn/", " port credit=3"][random.below(5)];
    let clean = ["clean", "clean", "clean", "clean", "", "expiry=1000"][random.below(6)];
    let version = ["v5", "v311", "v31"][random.below(3)];
    let (clean, size) = if version == "v5" {
        (clean, ["", "", " size=30", " window=2"][random.below(4)])
    } else {
        (clean.trim_start_matches("expiry=1000"), "")
    };
    [format!("open {slot}{terms}"), format!("{slot} connect c{slot} {version} {clean}{size}")]
}

fn subscription(random: &mut Random, slot: usize) -> String {
    let filter = FILTERS[random.below(FILTERS.len())];
    let nl = if filter.starts_with("$share") { "" } else { [" nl", ""][random.below(2)] };
    let options = format!(" q{}{nl}{}", random.below(3), ["", "", " sid=9"][random.below(3)]);
    format!("{slot} subscribe 1 {filter}{options}")
}

const RULES: [&str; 3] = [
    "topic readwrite #\ntopic readwrite $x/#\n",
    "topic readwrite t/#\ntopic read news\n",
    "topic write #\npattern readwrite t/#\n",
];

/// What may be under way is little, and what may wait.
fn narrow() -> Config {
    let mut config = two_routes();
    (config.limits.max_inflight, config.limits.max_send_buffer) = (4, 700);
    config
}

fn run(seed: u64, steps: usize) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new(&if seed.is_multiple_of(2) { narrow() } else { two_routes() });
    for _ in 0..steps {
        let slot = random.below(SLOTS) + 1;
        match random.below(12) {
            0 => arrival(&mut random, slot).iter().for_each(|line| pair.run(line)),
            1..4 => pair.run(&subscription(&mut random, slot)),
            4 => pair.run(&format!("{slot} unsubscribe 2 {}", FILTERS[random.below(FILTERS.len())])),
            5 => pair.run(&format!("{slot} {}", ["lost", "disconnect"][random.below(2)])),
            6 => pair.run(&format!("{slot} publish {} x retain", TOPICS[random.below(TOPICS.len())])),
            // Whatever waits for a commit waits for no more.
            7 => (0..3).for_each(|_| pair.run("commit")),
            8 if random.below(10) == 0 => {
                let rules = Arc::new(Rules::parse(RULES[random.below(RULES.len())]).expect("right"));
                pair.plain.handle(vec![Event::Rules(rules.clone())]);
                pair.straight.handle(vec![Event::Rules(rules)]);
            }
            _ => talk(&mut random, &mut pair),
        }
        pair.compare();
    }
    pair
}

/// Publishes, and what clients say on the exchanges that come of it.
fn talk(random: &mut Random, pair: &mut Pair) {
    let (answered, most) = (50 + 20 * random.below(4), random.below(3));
    let (talkers, topics) = ([random.below(SLOTS), random.below(SLOTS)], random.below(TOPICS.len() - 2));
    pair.run("commit");
    for number in 0..60 {
        let slot = u32::try_from(talkers[random.below(2)] + 1).expect("small");
        // Some are too large for some.
        let payload = ["m", "a-message-of-many-letters"][random.below(2)];
        let own = if random.below(4) > 0 { most } else { random.below(3) };
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][own];
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { number % 7 + 1 };
        let topic = TOPICS[topics + random.below(3)];
        pair.publish_at(qos, packet_id, slot, topic, &format!("{payload}{number}"));
        while !pair.due.is_empty() && random.below(100) < answered {
            let place = if random.below(4) > 0 { 0 } else { random.below(pair.due.len()) };
            // Now and then it is said twice.
            let due = if random.below(20) > 0 { pair.due.remove(place) } else { pair.due[place] };
            pair.say(due);
        }
    }
}

#[test]
fn whatever_happens_a_known_way_leads_where_a_message_would_have_gone() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    let (mut known, mut sure, mut words) = (0, 0, 0);
    for seed in (0..50).chain(fresh..fresh + 30) {
        let pair = run(seed, 150);
        (known, sure, words) = (known + pair.known, sure + pair.sure, words + pair.words);
    }
    println!("measured: {known} have gone straight, {sure} of them at QoS 1 and 2, and {words} words");
    assert!(known - sure > 2_000 && sure > 2_000 && words > 5_000, "{known}, {sure}, {words}");
}

const ONE_READER: [&str; 5] =
    ["open 1", "1 connect a v5 clean keep=10", "open 2", "2 connect b v5 clean", "2 subscribe 1 t/#"];

fn learn(pair: &mut Pair, topic: &str) {
    for _ in 0..2 {
        pair.publish(1, topic, "x");
    }
    let known = pair.known;
    pair.publish(1, topic, "x");
    assert_eq!(pair.known, known + 1, "{topic}");
}

// [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
#[test]
fn who_sends_nothing_but_what_goes_straight_is_alive() {
    let mut pair = Pair::new(&config());
    ONE_READER.iter().for_each(|line| pair.run(line));
    learn(&mut pair, "t/1");
    for _ in 0..5 {
        pair.run("after 9000");
        pair.publish(1, "t/1", "x");
    }
    assert_eq!(pair.known, 6);
    pair.run("after 20000");
    assert!(!pair.straight.said.is_empty(), "it is expelled");
}

#[test]
fn who_waits_for_a_commit_is_heard() {
    let mut pair = Pair::new(&with_route(true));
    ONE_READER.iter().for_each(|line| pair.run(line));
    learn(&mut pair, "t/1");
    let known = pair.known;
    pair.run("1 publish up/a x q1 id=1");
    pair.publish(1, "t/1", "x");
    assert_eq!(pair.known, known, "it has more to say, so the commit waits for that");
    pair.run("commit");
    pair.publish(1, "t/1", "x");
    assert_eq!(pair.known, known + 1);
}

#[test]
fn a_topic_that_is_seen_once_takes_no_more_than_a_mark() {
    let mut pair = Pair::new(&config());
    ONE_READER.iter().for_each(|line| pair.run(line));
    for number in 0..10_000 {
        pair.publish(1, &format!("t/{number}"), "x");
    }
    assert_eq!(pair.known, 0);
    assert!(pair.straight.broker.atlas.bytes() <= config().limits.max_memory / 16 / 4);
}

#[test]
fn thousands_of_topics_have_ways_and_take_no_more_than_their_share() {
    let most = config().limits.max_memory / 16;
    for (topics, rounds) in [(5_000, 8), (30_000, 2)] {
        let mut pair = Pair::new(&config());
        ONE_READER.iter().for_each(|line| pair.run(line));
        let mut known = BTreeMap::new();
        for round in 0..rounds {
            let before = pair.known;
            for number in 0..topics {
                pair.publish(1, &format!("t/{number}"), "x");
            }
            known.insert(round, pair.known - before);
            assert!(pair.straight.broker.atlas.bytes() <= most);
        }
        if topics == 5_000 {
            println!("measured: {known:?}");
            assert!(known[&7] > 4_500, "{known:?}");
        }
    }
}

#[test]
fn where_memory_is_small_there_are_none() {
    let mut config = config();
    config.limits.max_memory = 100_000;
    let mut pair = Pair::new(&config);
    ONE_READER.iter().for_each(|line| pair.run(line));
    for _ in 0..10 {
        pair.publish(1, "t/1", "x");
    }
    assert_eq!(pair.known, 0);
}

#[test]
fn what_a_full_queue_does_not_take_shows_no_way_for_what_is_not_queued() {
    let mut config = config();
    config.limits.when_queue_full = WhenFull::DropNewest;
    config.limits.max_queued_messages = 1;
    let mut pair = Pair::new(&config);
    for line in ["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 expiry=1000 window=1", "commit"]
    {
        pair.run(line);
    }
    pair.run("2 subscribe 1 t/# q1");
    pair.run("commit");
    for number in 1..6 {
        pair.run(&format!("1 publish t/1 x q1 id={number}"));
    }
    for _ in 0..3 {
        pair.publish(1, "t/1", "x");
        assert_eq!(pair.plain.said, ["2 < publish t/1 x"]);
    }
}

/// A kept session with a message under way, one in its queue and no room for more, beside a reader who takes all; and
/// so many messages that would show a way past it.
fn full_session(publisher: &str) -> Pair {
    let mut config = config();
    config.limits.when_queue_full = WhenFull::DropNewest;
    config.limits.max_queued_messages = 1;
    let mut pair = Pair::new(&config);
    for line in ["open 1", publisher, "open 2", "2 connect b v5 expiry=1000 window=1", "commit"] {
        pair.run(line);
    }
    pair.run("2 subscribe 1 t/# q1");
    pair.run("commit");
    for line in ["open 3", "3 connect c v5 clean", "3 subscribe 1 t/# q1"] {
        pair.run(line);
    }
    for packet_id in 1..6 {
        pair.run(&format!("1 publish t/1 x q1 id={packet_id}"));
        pair.run("commit");
    }
    pair
}

#[test]
fn what_a_full_queue_does_not_take_is_counted_each_time() {
    for publisher in ["1 connect a v5 clean", "1 connect a v311 clean"] {
        let mut pair = full_session(publisher);
        pair.publish_at(QoS::AtLeastOnce, 6, 1, "t/1", "x");
        pair.compare();
    }
}

#[test]
fn who_was_full_is_not_passed_by_once_there_is_room() {
    for publisher in ["1 connect a v5 clean", "1 connect a v311 clean"] {
        let mut pair = full_session(publisher);
        pair.run("2 puback 1");
        pair.run("2 puback 2");
        pair.publish_at(QoS::AtLeastOnce, 6, 1, "t/1", "y");
        pair.run("commit");
        assert_eq!(pair.known, 0);
    }
}

/// Who has not said all that he has to say is not taken for stuck.
#[test]
fn a_release_that_waits_for_a_commit_hastens_nothing_before_all_is_read() {
    let mut pair = Pair::new(&config());
    for line in
        ["open 1", "1 connect a v5 expiry=1000", "commit", "1 publish t/1 x q2 id=1 ; drained", "commit"]
    {
        pair.run(line);
    }
    pair.say((1, Word::PubRel, 1));
    pair.run("1 drained");
    assert_eq!(pair.plain.said, ["hurry"]);
}

#[test]
fn nothing_overtakes_what_is_held_of_its_publisher() {
    let mut config = with_route(true);
    config.refusals.policy = Policy::Refuse;
    let mut pair = Pair::new(&config);
    for line in ["open 1", "1 connect a v311 clean", "open 2", "2 connect b v5 clean", "2 subscribe 1 # q1"] {
        pair.run(line);
    }
    for packet_id in 1..4 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    assert_eq!(pair.known, 1);
    pair.run("full store");
    pair.publish_at(QoS::AtLeastOnce, 4, 1, "up/a", "held");
    pair.publish_at(QoS::AtLeastOnce, 5, 1, "t/1", "behind it");
    assert_eq!((&*pair.plain.said, pair.known), (&[][..], 1));
    pair.run("full");
    pair.run("commit");
    pair.compare();
}

/// Two may be under way, and little may wait. The publisher is of that version, and so has the reader subscribed.
fn few_under_way(version: &str, reader: &str, subscription: &str) -> Pair {
    let mut config = config();
    (config.limits.max_inflight, config.limits.max_send_buffer) = (2, 700);
    let mut pair = Pair::new(&config);
    for line in ["open 1", &format!("1 connect a {version} clean"), "open 2"] {
        pair.run(line);
    }
    pair.run(&format!("2 connect b {reader} clean"));
    pair.run(&format!("2 subscribe 1 t/# {subscription}"));
    pair
}

// [MQTT5-3.3.4-9]
#[test]
fn who_has_more_under_way_than_he_may_is_expelled() {
    let mut pair = few_under_way("v5", "v5", "q0");
    for packet_id in 1..5 {
        pair.publish_at(QoS::ExactlyOnce, packet_id, 1, "t/1", "x");
        pair.say((1, Word::PubRel, packet_id));
    }
    let known = pair.known;
    pair.publish_at(QoS::ExactlyOnce, 5, 1, "t/1", "x");
    pair.publish_at(QoS::ExactlyOnce, 6, 1, "t/1", "x");
    assert_eq!(pair.known, known + 2);
    pair.publish_at(QoS::ExactlyOnce, 7, 1, "t/1", "x");
    assert_eq!(pair.known, known + 2);
    pair.publish_at(QoS::ExactlyOnce, 8, 1, "t/1", "x");
    assert_eq!(pair.plain.said, [""; 0], "it is gone");
    pair.compare();
}

#[test]
fn what_waits_for_one_who_answers_nothing_is_no_more_than_may_wait() {
    let mut pair = few_under_way("v311", "v311", "q1");
    let mut queued = 0;
    for packet_id in 1..30 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "a-message-of-many-letters");
        pair.compare();
        queued = queued.max(pair.straight.broker.memory.queues);
    }
    assert!(pair.sure > 2 && (300..=700).contains(&queued), "{queued}");
    assert_eq!(pair.straight.broker.memory.queues, 0, "it is expelled");
}

#[test]
fn what_has_waited_is_sent_as_surely_as_it_was_asked_for() {
    let mut pair = few_under_way("v311", "v5 window=1", "q1");
    for packet_id in 1..6 {
        pair.publish_at(QoS::ExactlyOnce, packet_id, 1, "t/1", "x");
        pair.say((1, Word::PubRel, packet_id));
    }
    for packet_id in 1..5 {
        pair.say((2, Word::PubAck, packet_id));
        assert_eq!(pair.plain.said, [format!("2 < publish t/1 x q1 id={}", packet_id + 1)]);
    }
    pair.compare();
}

// Who says more than a packet id is heard like any other.
#[test]
fn what_waits_in_its_words_is_sent_as_well_where_it_is_not_asked_for_in_those() {
    let mut pair = few_under_way("v311", "v5 window=1", "q1");
    for packet_id in 1..6 {
        pair.publish_at(QoS::ExactlyOnce, packet_id, 1, "t/1", "x");
        pair.say((1, Word::PubRel, packet_id));
    }
    assert!(pair.sure > 2, "they wait in their words");
    for packet_id in 1..5 {
        pair.run(&format!("2 puback {packet_id}"));
        assert_eq!(pair.plain.said, [format!("2 < publish t/1 x q1 id={}", packet_id + 1)]);
        pair.compare();
    }
}

#[test]
fn what_waits_in_its_words_is_sent_where_what_was_before_it_has_expired() {
    let mut pair = few_under_way("v5", "v5 window=1", "q1");
    for packet_id in 1..4 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
        pair.say((2, Word::PubAck, packet_id));
    }
    pair.publish_at(QoS::AtLeastOnce, 4, 1, "t/1", "x");
    pair.run("1 publish t/1 x q1 id=5 expiry=1");
    for packet_id in 6..8 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    pair.run("after 2000");
    for packet_id in 4..6 {
        pair.say((2, Word::PubAck, packet_id));
        assert_eq!(pair.plain.said, [format!("2 < publish t/1 x q1 id={}", packet_id + 1)]);
        pair.compare();
    }
    assert_eq!((pair.straight.broker.counters().expired, pair.straight.broker.memory.queues), (1, 0));
}

#[test]
fn what_waits_in_whatever_form_leaves_in_its_order() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    let mut waited = 0;
    for seed in (0..20).chain(fresh..fresh + 20) {
        let mut random = Random(seed);
        let mut config = config();
        config.limits.max_inflight = 20;
        let mut pair = Pair::new(&config);
        let [publisher, reader] = [0; 2].map(|_| ["v31", "v311", "v5"][random.below(3)]);
        let window = if reader == "v5" { " window=2" } else { "" };
        let wanted = random.below(2) + 1;
        for line in [
            "open 1".to_owned(),
            format!("1 connect a {publisher} clean"),
            "open 2".to_owned(),
            format!("2 connect b {reader} clean{window}"),
            format!("2 subscribe 1 t/# q{wanted}"),
        ] {
            pair.run(&line);
        }
        for number in 0..600 {
            let packet_id = number % 1_000 + 1;
            // Most of them wait as they stand, some since they are like none before, some since they are long.
            let (topic, long) = match random.below(8) {
                0 => (format!("t/{number}"), 0),
                1 => ("t/long".to_owned(), 600),
                _ => (format!("t/{}", random.below(2)), 0),
            };
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2)];
            pair.publish_at(qos, packet_id, 1, &topic, &format!("m{number}{}", "l".repeat(long)));
            let own = |due: &(u32, Word, u16)| due.0 == 1;
            while let Some(place) = pair.due.iter().position(own) {
                let due = pair.due.remove(place);
                pair.say(due);
            }
            while !pair.due.is_empty() && random.below(100) < if pair.due.len() > 20 { 95 } else { 50 } {
                let place = if random.below(4) > 0 { 0 } else { random.below(pair.due.len()) };
                let due = pair.due.remove(place);
                pair.say(due);
            }
            pair.compare();
        }
        waited += pair.waited;
    }
    println!("measured: {waited} have waited in their publisher's words");
    assert!(waited > 1_000, "{waited}");
}

// [MQTT5-3.1.2-22] [MQTT311-3.1.2-24]
#[test]
fn who_sends_nothing_but_answers_is_alive() {
    let mut pair = few_under_way("v311", "v5 keep=10", "q1");
    for packet_id in 1..6 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
        pair.run("after 9000");
        pair.say((2, Word::PubAck, packet_id));
    }
    assert_eq!(pair.words, 5);
    pair.run("after 20000");
    assert!(!pair.straight.said.is_empty(), "it is expelled");
}

#[test]
fn who_gives_a_filter_up_is_sent_nothing_more() {
    let mut pair = Pair::new(&config());
    ONE_READER.iter().for_each(|line| pair.run(line));
    learn(&mut pair, "t/1");
    pair.run("2 unsubscribe 2 t/#");
    pair.publish(1, "t/1", "x");
    assert_eq!(pair.plain.said, [""; 0]);
}

#[test]
fn a_port_that_has_asked_is_answered_with_the_last_of_its_words() {
    let mut pair = Pair::new(&config());
    for line in ["open 1", "1 connect a v5 clean", "open 2 port credit=9", "2 connect p v5 clean"] {
        pair.run(line);
    }
    pair.run("2 subscribe 1 t/# q1");
    pair.run("1 publish t/1 x q1 id=1");
    pair.run("2 ping");
    assert_eq!(pair.plain.said, [""; 0], "something is under way");
    pair.say((2, Word::PubAck, 1));
    assert_eq!(pair.plain.said, ["2 < pong"]);
}

#[test]
fn a_word_out_of_its_turn_ends_nothing() {
    let mut pair = few_under_way("v311", "v311", "q2");
    for packet_id in 1..5 {
        pair.publish_at(QoS::ExactlyOnce, packet_id, 1, "t/1", "x");
        pair.say((1, Word::PubRel, packet_id));
        for word in [Word::PubAck, Word::PubComp] {
            pair.say((2, word, packet_id));
        }
        pair.say((2, Word::PubRec, packet_id));
        assert_eq!(pair.plain.said, [format!("2 < pubrel {packet_id}")]);
        for word in [Word::PubAck, Word::PubComp] {
            pair.say((2, word, packet_id));
        }
        pair.compare();
    }
}

// Whoever leaves a group owes its words to the group all the same.
#[test]
fn who_has_left_a_group_ends_what_it_had_of_it() {
    let mut pair = Pair::new(&config());
    for line in ["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 clean window=1"] {
        pair.run(line);
    }
    pair.run("2 subscribe 1 $share/g/t/# q1");
    for packet_id in 1..4 {
        pair.run(&format!("1 publish t/1 x q1 id={packet_id}"));
    }
    pair.run("2 unsubscribe 2 $share/g/t/#");
    pair.say((2, Word::PubAck, 1));
    pair.compare();
    assert_eq!(pair.straight.broker.memory.queues, 0);
}

/// Who may read what, to be published by clients that may publish all.
fn ruled(rules: &str) -> Config {
    let rules = format!("topic write #\n{rules}");
    Config { rules: Some(Arc::new(Rules::parse(&rules).expect("right"))), ..config() }
}

#[test]
fn who_may_read_and_joins_a_group_of_those_who_may_not_is_sent_what_is_published() {
    for wanted in ["q0", "q1", "q2"] {
        let mut pair = Pair::new(&ruled("pattern read t/%c\n"));
        for line in ["open 1", "1 connect a v311 clean", "open 2", "2 connect b v5 clean", "open 3"] {
            pair.run(line);
        }
        pair.run(&format!("2 subscribe 1 $share/g/t/+ {wanted}"));
        learn(&mut pair, "t/c");
        assert_eq!(pair.plain.said, [""; 0], "it is nobody's");
        pair.run("3 connect c v5 clean");
        pair.run(&format!("3 subscribe 1 $share/g/t/+ {wanted}"));
        pair.publish(1, "t/c", "x");
        assert_eq!(pair.plain.said, ["3 < publish t/c x"]);
        pair.compare();
    }
}

#[test]
fn who_comes_back_as_somebody_who_may_read_misses_nothing_before_he_is_welcomed() {
    let mut pair = Pair::new(&Config {
        passwords: Passwords::File,
        ..ruled("topic read news\nuser anna\ntopic read t/#\n")
    });
    for line in ["open 1", "1 connect a v311 clean", "open 2", "2 connect b v5 expiry=1000", "commit"] {
        pair.run(line);
    }
    for line in ["2 subscribe 1 # q1", "commit", "2 lost", "commit"] {
        pair.run(line);
    }
    for packet_id in 1..4 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    assert_eq!(pair.known, 1, "past who may not read that");
    for line in ["open 3 password", "3 connect b v5 expiry=1000 user=anna pass=x", "3 verified"] {
        pair.run(line);
    }
    pair.publish_at(QoS::AtLeastOnce, 4, 1, "t/1", "y");
    pair.run("commit");
    assert!(pair.plain.said.contains(&"3 < publish t/1 y q1 id=1".to_owned()), "{:?}", pair.plain.said);
    pair.compare();
}
