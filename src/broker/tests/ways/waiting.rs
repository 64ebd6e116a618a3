//! Exchanges that begin on a known way, and what waits for a taker at its end.
//!
//! What clients say on them is taken at once where it can be.

use std::sync::Arc;

use super::super::random::{Random, fresh_seed};
use super::super::script::config;
use super::pair::Pair;
use crate::access::Rules;
use crate::broker::Event;
use crate::codec::{QoS, Word};
use crate::record::DropReason;

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

#[test]
fn what_waits_in_whatever_form_is_dropped_by_rules_that_forbid_it() {
    let mut pair = few_under_way("v311", "v311", "q1");
    for packet_id in 1..4 {
        pair.publish_at(QoS::AtLeastOnce, packet_id, 1, "t/1", "x");
    }
    assert!(pair.sure > 0, "the last waits in its words");
    pair.run("1 publish t/2 x q1 id=4");
    pair.run("1 publish t/3 x q1 id=5");
    let rules = Arc::new(Rules::parse("pattern write #\ntopic read t/3\n").expect("right"));
    for script in [&mut pair.plain, &mut pair.straight] {
        assert!(script.broker.memory.queues > 0);
        script.handle(vec![Event::Rules(rules.clone())]);
    }
    pair.compare();
    assert_eq!(pair.plain.broker.counters().dropped.get(&DropReason::Denied), Some(&2));
    pair.say((2, Word::PubAck, 1));
    assert_eq!(pair.plain.said, ["2 < publish t/3 x q1 id=3"]);
    pair.say((2, Word::PubAck, 2));
    pair.compare();
    assert_eq!((pair.plain.said.len(), pair.plain.broker.memory.queues), (0, 0));
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
