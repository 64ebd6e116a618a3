//! Which ways are known, and what closes them.
//!
//! What goes none is handled like any other message, so most of these tests count what goes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::script::{config, with_route};
use super::pair::Pair;
use crate::access::Rules;
use crate::broker::{Config, Passwords, WhenFull};
use crate::codec::QoS;
use crate::record::Policy;

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
        let broker = &pair.straight.broker;
        let (ways, held) = (broker.atlas.bytes() as u64, broker.counters().memory);
        assert!(
            ways > most as u64 / 16 && (ways..ways + 10_000).contains(&held),
            "{held} bytes, of which {ways}"
        );
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
fn what_changes_nothing_closes_no_way() {
    let mut pair = Pair::new(&config());
    ONE_READER.iter().for_each(|line| pair.run(line));
    ["open 3", "3 connect c v5 clean", "3 subscribe 1 other/+ q1"].iter().for_each(|line| pair.run(line));
    learn(&mut pair, "t/1");
    for line in ["3 unsubscribe 2 never", "3 unsubscribe 3 never/#", "3 subscribe 4 other/+ q1"] {
        let known = pair.known;
        pair.run(line);
        pair.publish(1, "t/1", "x");
        assert_eq!(pair.known, known + 1, "{line}");
    }
    let known = pair.known;
    pair.run("3 subscribe 5 other/+ q2");
    pair.publish(1, "t/1", "x");
    assert_eq!(pair.known, known, "it did so otherwise");
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
