//! What somebody keeps of what goes a known way: a row like any other, in the same order, answered no sooner.
//!
//! Two publishers say a few things again and again, while those who keep it come and go, fall behind, and lose what is
//! over their limits; the store is now and then slow, and now and then full.

use std::sync::Arc;

use super::super::random::{Random, fresh_seed};
use super::super::script::with_route;
use super::pair::Pair;
use crate::access::Rules;
use crate::broker::{Config, Event, WhenFull};
use crate::codec::{QoS, Word};
use crate::record::Policy;

#[test]
fn whatever_happens_what_is_kept_is_what_would_have_been_kept() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    let (mut kept, mut both, mut rows, mut known) = (0, 0, 0, 0);
    for seed in (0..40).chain(fresh..fresh + 30) {
        let pair = run(seed);
        (kept, both, rows) = (kept + pair.kept, both + pair.both, rows + pair.rows_sent);
        known += pair.known - pair.kept;
    }
    println!("measured: {kept} were kept, {both} of them sent to others too, and {rows} to their readers");
    assert!(kept > 10_000 && both > 3_000 && rows > 2_000 && known > 5_000, "{kept} {both} {rows} {known}");
}

fn run(seed: u64) -> Pair {
    let mut random = Random(seed);
    let mut pair = Pair::new(&configured(&mut random));
    pair.lines.push(format!("seed {seed}"));
    if random.below(2) == 0 {
        let (tail, uncommitted) = (random.below(20) + 1, random.below(20) + 5);
        pair.plain.broker.ledger.bound(tail, uncommitted);
        pair.straight.broker.ledger.bound(tail, uncommitted);
    }
    (1..=CLIENTS).for_each(|client| arrive(&mut random, &mut pair, client));
    let mut said = 0;
    for _ in 0..STEPS {
        if random.below(3) > 0 {
            happen(&mut random, &mut pair);
        }
        talk(&mut random, &mut pair, &mut said);
        pair.compare();
    }
    pair
}

fn configured(random: &mut Random) -> Config {
    let mut config = with_route(true);
    config.limits.max_inflight = [3, 20][random.below(2)];
    config.limits.max_queued_messages = [1, 4, 10_000][random.below(3)];
    config.limits.max_queued_bytes = [500, 100_000][random.below(2)];
    let is_newest = random.below(8) == 0;
    config.limits.when_queue_full = if is_newest { WhenFull::DropNewest } else { WhenFull::DropOldest };
    config.refusals.policy = [Policy::DropOldest, Policy::Refuse][random.below(2)];
    config.rules = (random.below(3) == 0).then(|| rules(random));
    config
}

fn rules(random: &mut Random) -> Arc<Rules> {
    let text = RULES[random.below(RULES.len())];
    Arc::new(Rules::parse(text).expect("right"))
}

/// A client comes, each in its own place most often, and wants something if it is none of those who speak.
fn arrive(random: &mut Random, pair: &mut Pair, client: usize) {
    let slot = if random.below(8) == 0 { random.below(SLOTS) + 1 } else { client };
    let version = ["v5", "v311", "v31"][random.below(3)];
    let is_kept = random.below(8) < [1, 7][usize::from((FIRST_KEPT..FIRST_LIVE).contains(&client))];
    let session = match (version, is_kept) {
        ("v5", true) => " expiry=1000",
        (_, true) => "",
        (_, false) => " clean",
    };
    let size = if version == "v5" { ["", "", " window=1", " size=40"][random.below(4)] } else { "" };
    let size = if client < FIRST_KEPT { "" } else { size };
    pair.run(&format!("open {slot}"));
    pair.run(&format!("{slot} connect c{client} {version}{session}{size}"));
    if random.below(4) > 0 {
        pair.run("commit");
    }
    if client >= FIRST_KEPT && random.below(4) > 0 {
        subscribe(random, pair, slot);
    }
}

fn subscribe(random: &mut Random, pair: &mut Pair, slot: usize) {
    let filter = FILTERS[random.below(FILTERS.len())];
    let sid = if random.below(12) == 0 { " sid=9" } else { "" };
    let other = ["", "", " rap", " nl"][random.below(4)];
    let other = if filter.starts_with("$share") { "" } else { other };
    pair.run(&format!("{slot} subscribe 1 {filter} q{}{other}{sid}", random.below(3)));
}

/// One thing happens, or nothing.
fn happen(random: &mut Random, pair: &mut Pair) {
    let reader = random.below(SLOTS - FIRST_KEPT + 1) + FIRST_KEPT;
    match random.below(20) {
        0..3 => {
            let client = random.below(CLIENTS) + 1;
            arrive(random, pair, client);
        }
        3 => subscribe(random, pair, reader),
        4 => pair.run(&format!("{reader} unsubscribe 2 {}", FILTERS[random.below(FILTERS.len())])),
        5..7 => pair.run(&format!("{reader} {}", ["lost", "disconnect"][random.below(2)])),
        7 => fill(pair, ["full", "full", "full store", "full r1"][random.below(4)]),
        8 => fill(pair, "full"),
        9..11 => pair.run("rows"),
        11 => pair.run(&format!("after {}", random.below(500))),
        12 => pair.run(&format!("{} publish {} x retain q1 id=9", reader, TOPICS[random.below(4)])),
        13 if random.below(4) == 0 => {
            pair.lines.push("other rules".to_owned());
            let rules = rules(random);
            pair.plain.handle(vec![Event::Rules(rules.clone())]);
            pair.straight.handle(vec![Event::Rules(rules)]);
        }
        14 => pair.run(&format!("{} lost", random.below(FIRST_KEPT - 1) + 1)),
        _ => {}
    }
    for client in 1..FIRST_KEPT {
        // Who speaks is seldom away for long.
        if random.below(2) == 0 && !pair.is_connected(client) {
            arrive(random, pair, client);
        }
    }
}

/// Others take nothing more, or do again: what was held of publishers is then routed. Nothing of what they have said is
/// unread by then, which is not told of what goes from hand to hand.
fn fill(pair: &mut Pair, full: &str) {
    (1..FIRST_KEPT).for_each(|slot| pair.run(&format!("{slot} drained")));
    pair.run(full);
}

/// Both publishers speak, some are answered, and some of what was written is committed.
fn talk(random: &mut Random, pair: &mut Pair, said: &mut u16) {
    let answered = [30, 80, 100][random.below(3)];
    let committed = random.below(4);
    for _ in 0..PUBLISHES {
        let slot = u32::try_from(random.below(FIRST_KEPT - 1) + 1).expect("small");
        let topic = TOPICS[random.below(TOPICS.len())];
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let qos = qos[random.below(qos.len())];
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { *said % 50 + 1 };
        let payload = ["m", "a-message-of-many-letters"][random.below(2)];
        pair.publish_at(qos, packet_id, slot, topic, &format!("{payload}{said}"));
        *said = said.wrapping_add(1);
        if random.below(6) == 0 {
            pair.run(&format!("{slot} drained"));
        }
        match (random.below(8), committed) {
            (0, 1) => pair.run("commit"),
            (0..4, 2) => pair.run(&format!("commit {}", random.below(3) + 1)),
            _ => {}
        }
        while !pair.due.is_empty() && random.below(100) < answered {
            let place = if random.below(4) > 0 { 0 } else { random.below(pair.due.len()) };
            let due = pair.due.remove(place);
            pair.say(due);
        }
    }
    if random.below(2) == 0 {
        pair.run("commit");
    }
}

/// A publisher, and an absent session that keeps what is said in `t/#`. Its topic is known.
fn kept_while_away(config: &Config, publisher: &str) -> Pair {
    let mut pair = Pair::new(config);
    for line in ["open 1", publisher, "open 2", "2 connect b v5 expiry=1000 window=2", "commit"] {
        pair.run(line);
    }
    for line in ["2 subscribe 1 t/# q1", "commit", "2 lost", "commit"] {
        pair.run(line);
    }
    for packet_id in 1..3 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    pair.run("commit");
    pair
}

#[test]
fn who_publishes_what_is_kept_is_answered_once_it_is_committed() {
    for publisher in ["1 connect a v5 clean", "1 connect a v311 clean", "1 connect a v31 clean"] {
        let mut pair = kept_while_away(&with_route(true), publisher);
        for packet_id in 3..6 {
            pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
            assert_eq!(pair.straight.said, [format!("write message {packet_id} t/1 x for [r2 q1]")]);
        }
        assert_eq!(pair.kept, 3);
        pair.run("commit 2");
        assert_eq!(pair.straight.said, ["1 < puback 3", "1 < puback 4"]);
        pair.run("commit");
        assert_eq!(pair.straight.said, ["1 < puback 5"]);
        pair.compare();
    }
}

#[test]
fn what_a_route_stores_and_a_panel_shows_goes_to_both() {
    let mut pair = Pair::new(&with_route(true));
    for line in ["open 1", "1 connect a v5 clean", "open 2", "2 connect b v5 clean", "2 subscribe 1 up/# q0"]
    {
        pair.run(line);
    }
    for (packet_id, qos) in [(0, QoS::AtMostOnce), (1, QoS::AtLeastOnce)] {
        let word = ["", " q1"][usize::from(packet_id)];
        for _ in 0..3 {
            pair.publish_at(qos, packet_id, 1, "up/a", "x");
        }
        let row = pair.straight.broker.ledger.last_seq().0;
        assert_eq!(
            pair.straight.said,
            [format!("write message {row} up/a x for [r1{word}]"), "2 < publish up/a x".to_owned()]
        );
        pair.run("commit");
    }
    assert_eq!((pair.kept, pair.both), (2, 2));
    pair.compare();
}

#[test]
fn who_comes_back_has_what_was_kept_for_him_and_then_what_is_said() {
    let mut pair = kept_while_away(&with_route(true), "1 connect a v5 clean");
    pair.publish_at(QoS::AtLeastOnce, 3, 1, "t/1", "y");
    for line in ["open 3", "3 connect b v5 expiry=1000 window=2", "commit", "rows"] {
        pair.run(line);
    }
    for number in 4..9 {
        pair.publish_at(QoS::AtLeastOnce, number, 1, "t/1", &format!("z{number}"));
    }
    let mut got = Vec::new();
    while !pair.due.is_empty() {
        let due = pair.due.remove(0);
        pair.say(due);
        for line in ["commit", "rows"] {
            got.extend(pair.plain.said.iter().filter(|said| said.starts_with("3 < publish")).cloned());
            pair.run(line);
        }
    }
    pair.compare();
    assert_eq!(pair.straight.broker.counters().queued, 0);
    assert!(pair.kept > 3, "{}", pair.kept);
}

#[test]
fn over_the_limit_of_a_queue_the_oldest_goes_each_time() {
    let mut config = with_route(true);
    config.limits.max_queued_messages = 3;
    let mut pair = kept_while_away(&config, "1 connect a v5 clean");
    for packet_id in 3..9 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
        pair.compare();
    }
    assert_eq!(pair.kept, 6);
    assert_eq!(pair.straight.said.len(), 2, "{:?}", pair.straight.said);
    assert_eq!(pair.straight.broker.counters().queued, 3);
}

#[test]
fn where_the_newest_is_not_taken_each_is_looked_at_anew() {
    let mut config = with_route(true);
    config.limits.max_queued_messages = 3;
    config.limits.when_queue_full = WhenFull::DropNewest;
    let mut pair = kept_while_away(&config, "1 connect a v5 clean");
    for packet_id in 3..9 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
        pair.compare();
    }
    assert_eq!(pair.kept, 0);
    assert_eq!(pair.straight.broker.counters().queued, 3);
}

#[test]
fn while_the_store_is_busy_who_publishes_what_is_kept_is_paused() {
    let mut pair = kept_while_away(&with_route(true), "1 connect a v311 clean");
    pair.plain.broker.ledger.bound(2, 4);
    pair.straight.broker.ledger.bound(2, 4);
    for packet_id in 3..7 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    assert_eq!(pair.kept, 4);
    pair.publish_at(QoS::AtLeastOnce, 7, 1, "t/1", "x");
    assert_eq!(pair.straight.said, ["pause 1"]);
    pair.publish_at(QoS::AtLeastOnce, 8, 1, "t/1", "x");
    assert_eq!((pair.straight.said.len(), pair.kept), (0, 4));
    pair.run("commit");
    assert!(pair.straight.said.contains(&"resume 1".to_owned()));
    pair.publish_at(QoS::AtLeastOnce, 9, 1, "t/1", "x");
    assert_eq!(pair.kept, 5);
    pair.compare();
}

#[test]
fn of_one_client_so_many_answers_wait_and_no_more() {
    let mut config = with_route(true);
    config.limits.max_inflight = u16::MAX;
    let mut pair = kept_while_away(&config, "1 connect a v311 clean");
    for number in 0..4_096 {
        pair.publish_at(QoS::AtLeastOnce, number + 1, 1, "t/1", "x");
    }
    assert_eq!(pair.kept, 4_096);
    pair.publish_at(QoS::AtLeastOnce, 5_000, 1, "t/1", "x");
    assert_eq!(pair.straight.said, ["pause 1"]);
    pair.compare();
}

#[test]
fn who_may_have_few_under_way_is_expelled_with_one_more() {
    let mut config = with_route(true);
    config.limits.max_inflight = 3;
    let mut pair = kept_while_away(&config, "1 connect a v5 clean");
    for packet_id in 3..6 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    assert_eq!(pair.kept, 3);
    pair.publish_at(QoS::AtLeastOnce, 6, 1, "t/1", "x");
    assert!(pair.straight.said.contains(&"close 1".to_owned()), "{:?}", pair.straight.said);
    pair.compare();
}

#[test]
fn a_full_store_that_refuses_is_asked_each_time() {
    for publisher in ["1 connect a v5 clean", "1 connect a v311 clean"] {
        let mut config = with_route(true);
        config.refusals.policy = Policy::Refuse;
        let mut pair = kept_while_away(&config, publisher);
        pair.run("full store");
        pair.publish_at(QoS::AtLeastOnce, 3, 1, "t/1", "x");
        pair.publish_at(QoS::AtLeastOnce, 4, 1, "t/1", "x");
        assert_eq!(pair.kept, 0);
        pair.run("full");
        pair.run("commit");
        pair.publish_at(QoS::AtLeastOnce, 5, 1, "t/1", "x");
        assert_eq!(pair.kept, 1);
        pair.compare();
    }
}

#[test]
fn who_has_said_all_that_he_may_hastens_the_commit() {
    let mut pair = kept_while_away(&with_route(true), "1 connect a v311 clean");
    pair.publish_at(QoS::AtLeastOnce, 3, 1, "t/1", "x");
    pair.publish_at(QoS::AtLeastOnce, 4, 1, "t/1", "x");
    assert_eq!(pair.kept, 2);
    pair.run("1 drained");
    assert_eq!(pair.straight.said, ["hurry"]);
    // One more shows that he was not stuck.
    pair.publish_at(QoS::AtLeastOnce, 5, 1, "t/1", "x");
    assert_eq!(pair.straight.said.len(), 1, "{:?}", pair.straight.said);
    pair.run("1 drained");
    assert_eq!(pair.straight.said, ["hurry"]);
}

#[test]
fn what_is_nobodys_any_more_is_kept_no_more() {
    let mut pair = kept_while_away(&with_route(true), "1 connect a v5 clean");
    for line in ["open 2", "2 connect b v5 expiry=1000 window=2", "commit", "rows"] {
        pair.run(line);
    }
    pair.due.clear();
    pair.run("2 unsubscribe 2 t/#");
    pair.run("commit");
    pair.publish_at(QoS::AtLeastOnce, 3, 1, "t/1", "x");
    assert_eq!((pair.kept, &*pair.plain.said), (0, &["1 < puback 3 0x10".to_owned()][..]));
}

#[test]
fn a_word_of_who_waits_for_a_commit_is_said_after_it() {
    // From hand to hand, it is answered behind what is not committed yet.
    let mut pair = kept_while_away(&with_route(true), "1 connect a v311 clean");
    for line in ["open 3", "3 connect c v311 clean", "3 subscribe 1 news q1"] {
        pair.run(line);
    }
    for packet_id in 3..6 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "news", "x");
    }
    for packet_id in 6..9 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    let (known, kept) = (pair.known, pair.kept);
    assert!(kept > 0, "a way that was found anew is known");
    pair.publish_at(QoS::AtLeastOnce, 9, 1, "news", "x");
    assert_eq!((pair.known, pair.straight.said.len()), (known, 1), "{:?}", pair.straight.said);
    pair.run("commit");
    assert_eq!(pair.straight.said.last().map(String::as_str), Some("1 < puback 9"));
    pair.due.retain(|due| due.1 != Word::PubAck);
}

/// Events of one run.
const STEPS: usize = 160;

/// Publishes after an event.
const PUBLISHES: usize = 20;

const CLIENTS: usize = 6;

/// More than clients, so that some come elsewhere than they were.
const SLOTS: usize = 7;

/// The first of those who mostly keep their sessions: before them are those who speak.
const FIRST_KEPT: usize = 3;

/// The first of those who mostly do not.
const FIRST_LIVE: usize = 5;

const TOPICS: [&str; 5] = ["t/1", "t/1", "t/2", "up/a", "news"];

const FILTERS: [&str; 8] = ["t/1", "t/#", "#", "+/a", "up/#", "news", "$share/g/t/#", "t/+"];

const RULES: [&str; 4] = [
    "pattern readwrite #\n",
    "pattern write #\npattern read t/#\n",
    "topic readwrite t/#\ntopic read news\n",
    "pattern write #\npattern read up/#\npattern read news\n",
];
