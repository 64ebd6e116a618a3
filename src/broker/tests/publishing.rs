//! Scripts of PUBLISH and its answers, QoS 0 to 2, towards clients that are there.
//!
//! What outlives a connection is in `keeping`.

use bytes::Bytes;
use bytestring::ByteString;

use super::script::{Script, check, check_with, config, with_route};
use super::speech::packet;
use crate::broker::{Effect, Event};
use crate::codec::{Packet, Publish};
use crate::record::{DropReason, Seq};

const PAIR: [&str; 5] =
    ["open 1", "1 connect pub v5 clean", "open 2", "2 connect sub v5 clean", "2 subscribe 1 t/+ q2"];

fn pair(events: &[&'static str], expected: &str) {
    let mut all = PAIR.to_vec();
    all.push("--");
    all.extend(events);
    check(&all, expected);
}

// [MQTT5-4.3.1-1] [MQTT5-3.3.1-2]
#[test]
fn qos_0_goes_straight_through() {
    pair(&["1 publish t/a hi"], "2 < publish t/a hi");
}

// [MQTT5-4.3.2-2] [MQTT5-4.3.2-4] [MQTT5-2.2.1-5] [MQTT5-3.3.4-1]
#[test]
fn qos_1_is_answered_at_once_where_nobody_durable_wants_it() {
    pair(&["1 publish t/a hi q1 id=5"], "2 < publish t/a hi q1 id=1\n1 < puback 5");
}

#[test]
fn nobody_wanting_it_is_said_in_the_answer() {
    pair(&["1 publish x hi q1 id=5", "1 publish x hi q2 id=6"], "1 < puback 5 0x10\n1 < pubrec 6 0x10");
}

// [MQTT5-4.3.3-2] [MQTT5-4.3.3-4] [MQTT5-4.3.3-8] [MQTT5-4.3.3-10] [MQTT5-4.3.3-11] [MQTT5-2.2.1-5]
// [MQTT5-3.3.4-1]
#[test]
fn qos_2_is_exactly_once_on_both_sides() {
    pair(
        &[
            "1 publish t/a hi q2 id=5",
            "1 publish t/a hi q2 id=5 dup",
            "1 pubrel 5",
            "2 pubrec 1",
            "2 pubcomp 1",
        ],
        "2 < publish t/a hi q2 id=1
         1 < pubrec 5
         1 < pubrec 5
         1 < pubcomp 5
         2 < pubrel 1",
    );
}

// [MQTT5-4.3.3-12]
#[test]
fn a_released_packet_id_is_a_new_message() {
    pair(
        &["1 publish t/a one q2 id=5", "1 pubrel 5", "1 publish t/a two q2 id=5"],
        "2 < publish t/a one q2 id=1
         1 < pubrec 5
         1 < pubcomp 5
         2 < publish t/a two q2 id=2
         1 < pubrec 5",
    );
}

#[test]
fn an_unknown_packet_id_is_answered_as_such() {
    pair(&["1 pubrel 9", "2 pubrec 9", "2 puback 9", "2 pubcomp 9"], "1 < pubcomp 9 0x92\n2 < pubrel 9 0x92");
}

#[test]
fn a_refusing_pubrec_ends_the_exchange() {
    pair(
        &["1 publish t/a hi q2 id=5", "2 pubrec 1 0x97", "2 pubrec 1"],
        "2 < publish t/a hi q2 id=1
         1 < pubrec 5
         sub refuses a message: 0x97
         2 < pubrel 1 0x92",
    );
}

// [MQTT5-3.8.4-8] [MQTT311-3.8.4-6]
#[test]
fn qos_is_the_lower_of_both() {
    for version in ["v31", "v311", "v5"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 subscribe 1 t q1",
                "--",
                "1 publish t x q2 id=1",
                "1 publish t y",
            ],
            "1 < publish t x q1 id=1
             1 < pubrec 1
             1 < publish t y",
        );
    }
}

// [MQTT5-3.3.4-9] [MQTT5-4.9.0-2] [MQTT5-4.3.2-3]
#[test]
fn the_receive_maximum_of_the_client_is_kept() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean window=2",
            "1 subscribe 1 t q1",
            "--",
            "1 publish t 1 q1 id=1 ; publish t 2 q1 id=2 ; publish t 3 q1 id=3 ; publish t 4",
            "1 puback 2",
        ],
        "1 < publish t 1 q1 id=1
         1 < puback 1
         1 < publish t 2 q1 id=2
         1 < puback 2
         1 < puback 3
         1 < publish t 4
         1 < publish t 3 q1 id=3",
    );
}

// [MQTT5-3.3.4-7]
#[test]
fn who_exceeds_our_receive_maximum_is_disconnected() {
    let mut narrow = config();
    narrow.limits.max_inflight = 2;
    check_with(
        narrow,
        &[
            "open 1",
            "1 connect a v5 clean",
            "--",
            "1 publish t 1 q2 id=1 ; publish t 2 q2 id=2 ; publish t 3 q2 id=3",
        ],
        "1 < pubrec 1 0x10
         1 < pubrec 2 0x10
         1 < disconnect 0x93
         close 1",
    );
}

#[test]
fn an_older_client_may_have_more_under_way_than_it_could_be_told() {
    let mut narrow = config();
    narrow.limits.max_inflight = 1;
    check_with(
        narrow,
        &["open 1", "1 connect a clean", "--", "1 publish t 1 q2 id=1 ; publish t 2 q2 id=2"],
        "1 < pubrec 1 0x10
         1 < pubrec 2 0x10",
    );
}

/// What was read lies in one buffer: a message that waits would keep all of it.
#[test]
fn what_waits_in_ram_has_bytes_of_its_own_however_many_it_waits_for() {
    for subscribers in 1..=3 {
        let mut script = Script::new(config());
        script.run(&["open 9", "9 connect pub clean"]);
        for slot in 1..=subscribers {
            script.run(&[&format!("open {slot}"), &format!("{slot} connect sub{slot} v5 clean window=1")]);
            script.run(&[&format!("{slot} subscribe 1 t q1")]);
        }
        let read = Bytes::from(b"tone,two,three".to_vec());
        let mut expected = Vec::new();
        for (packet_id, payload) in [(1, 1..4), (2, 5..8), (3, 9..14)] {
            let payload = read.slice(payload);
            expected.push(payload.to_vec());
            let topic = ByteString::try_from(read.slice(0..1)).unwrap();
            let publish = Publish { topic, payload, packet_id, ..publish() };
            let connection = script.connection(9);
            script.handle(vec![Event::Packet { connection, packet: Packet::Publish(publish) }]);
            script.effects.clear();
        }
        assert!(read.is_unique(), "{subscribers}");
        let mut sent = Vec::new();
        for packet_id in 1..=2 {
            for slot in 1..=subscribers {
                script.run(&[&format!("{slot} puback {packet_id}")]);
                sent.extend(script.effects.drain(..).filter_map(|effect| match effect {
                    Effect::Deliver(copy) => {
                        Some((slot, copy.message.topic.to_string(), copy.message.payload.to_vec()))
                    }
                    _ => None,
                }));
            }
        }
        let all = expected[1..]
            .iter()
            .flat_map(|payload| (1..=subscribers).map(|slot| (slot, "t".to_owned(), payload.clone())));
        assert_eq!(sent, all.collect::<Vec<_>>(), "{subscribers}");
    }
}

/// What is kept or retained, as what waits.
#[test]
fn what_is_held_for_long_has_bytes_of_its_own() {
    for (retain, rows) in [(false, 3), (true, 4)] {
        let mut script = Script::new(config());
        script.run(&["open 9", "9 connect pub clean", "open 1", "1 connect sub v5 expiry=60", "commit"]);
        script.run(&["1 subscribe 1 +/kept q1", "commit", "1 lost", "commit"]);
        let read = Bytes::from(b"a/kept,b/kept,none,one".to_vec());
        // The same topic again, another, and one that nobody wants.
        for (packet_id, topic) in (1..).zip([0..6, 0..6, 7..13, 19..22]) {
            let topic = ByteString::try_from(read.slice(topic)).unwrap();
            let payload = read.slice(14..18);
            let publish = Publish { topic, payload, packet_id, retain, ..publish() };
            let connection = script.connection(9);
            script.handle(vec![Event::Packet { connection, packet: Packet::Publish(publish) }]);
        }
        assert_eq!(script.broker.ledger.last_seq(), Seq(rows));
        assert_eq!(script.broker.retained.len(), if retain { 3 } else { 0 });
        script.run(&["commit"]);
        assert!(read.is_unique(), "{retain}");
    }
}

fn publish() -> Publish {
    let Packet::Publish(publish) = packet("publish t - q1 id=1") else { panic!("a PUBLISH") };
    publish
}

#[test]
fn a_window_that_is_full_lets_the_rest_wait_in_ram_until_that_is_full() {
    let mut small = config();
    small.limits.max_send_buffer = 250;
    check_with(
        small,
        &[
            "open 1",
            "1 connect pub clean",
            "open 2",
            "2 connect sub v5 clean window=1",
            "2 subscribe 1 t q1",
            "--",
            "1 publish t 1 q1 id=1",
            "1 publish t 2 q1 id=2",
            "1 publish t 3 q1 id=3",
            "1 publish t 4 q1 id=4",
        ],
        "2 < publish t 1 q1 id=1
         1 < puback 1
         1 < puback 2
         1 < puback 3
         2 < disconnect 0x97
         close 2
         1 < puback 4",
    );
}

// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
#[test]
fn a_message_too_large_for_one_client_is_skipped_for_it_alone() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean keep=9 size=40",
            "1 subscribe 1 t q1",
            "open 2",
            "2 connect b v5 clean",
            "2 subscribe 1 t q1",
            "--",
            "2 publish t thirty-two-bytes-are-just-enough q1 id=1",
            "2 publish t this-is-thirty-three-and-too-long q1 id=2",
        ],
        "1 < publish t thirty-two-bytes-are-just-enough q1 id=1
         2 < publish t thirty-two-bytes-are-just-enough q1 id=1
         2 < puback 1
         2 < publish t this-is-thirty-three-and-too-long q1 id=2
         2 < puback 2",
    );
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    pair(
        &[
            "1 publish t/a one alias=3",
            "1 publish - two alias=3",
            "1 publish t/b three alias=3",
            "1 publish - four alias=3",
        ],
        "2 < publish t/a one
         2 < publish t/a two
         2 < publish t/b three
         2 < publish t/b four",
    );
}

// [MQTT5-3.2.2-17] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
#[test]
fn a_wrong_topic_alias_ends_the_connection() {
    pair(&["1 publish t/a x alias=11"], "1 < disconnect 0x94\nclose 1");
    pair(&["1 publish t/a x alias=0"], "1 < disconnect 0x94\nclose 1");
    pair(&["1 publish - x alias=1"], "1 < disconnect 0x82\nclose 1");
    pair(&["1 publish - x"], "1 < disconnect 0x82\nclose 1");
}

// [MQTT5-3.3.2-7]
#[test]
fn a_topic_alias_ends_with_its_connection() {
    pair(
        &[
            "1 publish t/a x alias=1",
            "1 lost",
            "open 1",
            "1 connect pub v5 clean keep=9",
            "1 publish - x alias=1",
        ],
        "2 < publish t/a x
         1 < connack
         1 < disconnect 0x82
         close 1",
    );
}

// [MQTT5-3.3.2-2] [MQTT5-3.3.2-14] [MQTT5-3.3.4-6] [MQTT5-4.7.0-1]
#[test]
fn what_a_client_may_not_say_in_publish_ends_the_connection() {
    for topic in ["t/+", "t/a+", "#", "t#/a"] {
        let mut all = PAIR.to_vec();
        let publish = format!("1 publish {topic} x");
        all.extend(["--", &publish]);
        check(&all, "1 < disconnect 0x90\nclose 1");
    }
    pair(&["1 publish t/a x sid=1"], "1 < disconnect 0x82\nclose 1");
    pair(&["1 publish t/a x answer=b/#"], "1 < disconnect 0x82\nclose 1");
}

#[test]
fn user_properties_travel_and_aliases_do_not() {
    pair(&["1 publish t/a x note=hello alias=1"], "2 < publish t/a x note=hello");
}

// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn time_in_the_queue_is_taken_from_the_expiry() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean window=1",
            "1 subscribe 1 t q1",
            "1 publish t 1 q1 id=1",
            "1 publish t 2 q1 id=2 expiry=10",
            "1 publish t 3 q1 id=3 expiry=2",
            "1 publish t 4 q1 id=4",
            "after 3500",
            "--",
            "1 puback 1",
            "1 puback 2",
        ],
        "1 < publish t 2 q1 id=2 expiry=7
         1 < publish t 4 q1 id=3",
    );
}

// [MQTT311-3.3.5-2]
#[test]
fn the_house_alone_publishes_its_own_topics() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 subscribe 1 #",
            "--",
            "1 publish tidegate/x y q1 id=1",
            "1 publish $SYS/x y q2 id=2",
            "1 publish tidegate/x y",
        ],
        "1 < puback 1
         1 < pubrec 2",
    );
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "--",
            "1 publish tidegate/x y q1 id=1",
            "1 publish $SYS/x y q2 id=2",
        ],
        "1 < puback 1 0x87
         1 < pubrec 2 0x87",
    );
    check(
        &[
            "open 1 port user=tidegate:status",
            "1 connect a v5 clean",
            "1 subscribe 1 tidegate/#",
            "--",
            "1 publish tidegate/x y q1 id=1",
        ],
        "1 < publish tidegate/x y
         1 < puback 1",
    );
    check(
        &["open 1 port user=modbus:line", "1 connect a v5 clean", "--", "1 publish tidegate/x y q1 id=1"],
        "1 < puback 1 0x87",
    );
}

#[test]
fn sys_topics_are_never_stored() {
    check(
        &[
            "open 1 port user=tidegate:sys",
            "1 connect a v5 clean",
            "open 2",
            "2 connect b",
            "commit",
            "2 subscribe 1 $SYS/# q1",
            "commit",
            "--",
            "1 publish $SYS/load 5 q1 retain id=1",
        ],
        "2 < publish $SYS/load 5
         1 < puback 1",
    );
}

#[test]
fn a_route_that_stores_wants_every_qos() {
    check_with(
        with_route(true),
        &[
            "open 1",
            "1 connect a v5 clean",
            "--",
            "1 publish up/x 0",
            "1 publish up/x 1 q1 id=1",
            "1 publish up/x 2 q2 id=2",
            "commit 2",
            "commit",
        ],
        "write message 1 up/x 0 for [r1]
         write message 2 up/x 1 for [r1 q1]
         write message 3 up/x 2 for [r1 q2]
         1 < puback 1
         1 < pubrec 2",
    );
}

#[test]
fn a_route_that_stores_nothing_is_handed_the_message() {
    check_with(
        with_route(false),
        &["open 1", "1 connect a v5 clean", "--", "1 publish up/x 1 q1 id=1"],
        "forward 0 up/x 1
         1 < puback 1",
    );
}

#[test]
fn a_port_is_sent_no_more_than_its_credit() {
    check(
        &[
            "open 1 port credit=2",
            "1 connect p v5 clean",
            "1 subscribe 1 t q1",
            "open 2",
            "2 connect a clean",
            "--",
            "2 publish t 1 q1 id=1 ; publish t 2 ; publish t 3 ; publish t 4 q1 id=4",
            "1 puback 1",
            "1 granted 1",
        ],
        "1 < publish t 1 q1 id=1
         2 < puback 1
         1 < publish t 2
         2 < puback 4
         1 < publish t 4 q1 id=2",
    );
}

#[test]
fn the_order_of_answers_is_that_of_requests() {
    check_with(
        with_route(true),
        &[
            "open 1",
            "1 connect a v5 clean",
            "--",
            "1 publish up/x 1 q1 id=1 ; publish z 2 q1 id=2 ; ping",
            "commit",
        ],
        "write message 1 up/x 1 for [r1 q1]
         1 < pong
         1 < puback 1
         1 < puback 2 0x10",
    );
}

#[test]
fn an_alias_is_no_way_around_the_other_rules() {
    let mut few = config();
    few.limits.max_inflight = 1;
    check_with(
        few,
        &[
            "open 1",
            "1 connect pub v5 expiry=9",
            "commit",
            "1 publish t/a x q2 id=1 alias=1",
            "--",
            "1 publish - y q2 id=2 alias=1",
        ],
        "1 < disconnect 0x93\nclose 1\nwrite session pub r1 ended",
    );
    let mut none = config();
    none.limits.retain = false;
    check_with(
        none,
        &["open 1", "1 connect pub v5 clean", "--", "1 publish t x retain alias=1"],
        "1 < disconnect 0x9a\nclose 1",
    );
}

#[test]
fn the_house_says_its_states_once_where_nothing_is_retained() {
    let mut none = config();
    none.limits.retain = false;
    check_with(
        none,
        &[
            "open 1 port user=tidegate:states",
            "1 connect tidegate:states v5 clean will=tidegate/status:offline:retain",
            "open 2",
            "2 connect panel v5 clean",
            "2 subscribe 1 tidegate/#",
            "--",
            "1 publish tidegate/status online retain",
            "2 subscribe 2 tidegate/status",
        ],
        "2 < publish tidegate/status online\n2 < suback 2 0x00",
    );
}

#[test]
fn user_properties_keep_their_order_and_repeats() {
    pair(&["1 publish t/a x note=b,a,b"], "2 < publish t/a x note=b note=a note=b");
}

#[test]
fn a_topic_of_too_many_levels_goes_nowhere_and_the_connection_stands() {
    for (version, refused, lost) in [("v31", 0, 3), ("v311", 0, 3), ("v5", 3, 1)] {
        // The mount point is a level, too.
        for (mount, levels) in [("", 129), ("mount=a/", 128)] {
            let topic = format!("up{}", "/".repeat(levels - 1));
            let mut script = Script::new(with_route(true));
            script.run(&[
                &format!("open 1 {mount}"),
                &format!("1 connect a {version} clean"),
                "--",
                &format!("1 publish {topic} x"),
                &format!("1 publish {topic} x q1 id=1"),
                &format!("1 publish {topic} x q2 id=2"),
                &format!("1 publish {topic} x q2 id=2 dup"),
                "1 pubrel 2",
                "1 publish x/y z",
            ]);
            let said = |start: &str| {
                let lines = script.said.iter().filter(|line| line.starts_with(start));
                lines.map(String::as_str).collect::<Vec<_>>()
            };
            let answers: &[&str] = if version == "v5" {
                &["1 < puback 1 0x90", "1 < pubrec 2 0x90", "1 < pubrec 2 0x90", "1 < pubcomp 2 0x92"]
            } else {
                &["1 < puback 1", "1 < pubrec 2", "1 < pubrec 2", "1 < pubcomp 2"]
            };
            assert_eq!(said("1 <"), answers, "{version} {mount}");
            let counters = script.broker.counters();
            let dropped = counters.dropped.get(&DropReason::TooLarge).copied().unwrap_or(0);
            assert_eq!((counters.not_accepted, dropped), (refused, lost), "{version} {mount}");
            assert_eq!(counters.received, 1);
            // The route that would have had it counts it, too.
            let of_route = if mount.is_empty() { lost } else { 0 };
            assert_eq!(said("write too_large 1 of r1").len() as u64, of_route, "{:?}", script.said);
        }
    }
}
