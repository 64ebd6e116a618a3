//! Scripts of QoS 1 and 2 by the letter: when is a packet id a new message, what is sent again and when,
//! what a full window may not hold up.
//!
//! Each test carries the statements of the standards that it shows; `docs/conformance.md` lists them.

use super::script::{Script, check, check_with, config};
use crate::record::DropReason;

/// A publisher and a subscriber, both without a session that is kept.
const PAIR: [&str; 5] =
    ["open 1", "1 connect pub v5 clean", "open 2", "2 connect sub v5 clean", "2 subscribe 1 t/+ q2"];

/// As before, and the subscriber keeps its session.
const KEPT: [&str; 7] = [
    "open 1",
    "1 connect pub v5 clean",
    "open 2",
    "2 connect sub v5 keep=9 expiry=1000000",
    "commit",
    "2 subscribe 1 t/+ q2",
    "commit",
];

fn script(start: &[&'static str], events: &[&'static str], expected: &str) {
    let mut all = start.to_vec();
    if !events.contains(&"--") {
        all.push("--");
    }
    all.extend(events);
    check(&all, expected);
}

// [MQTT5-4.3.2-5] [MQTT311-4.3.2-2]
#[test]
fn after_puback_the_packet_id_is_a_new_message_whatever_dup_says() {
    script(
        &PAIR,
        &["1 publish t/a x q1 id=5", "1 publish t/a y q1 id=5 dup"],
        "2 < publish t/a x q1 id=1
         1 < puback 5
         2 < publish t/a y q1 id=2
         1 < puback 5",
    );
}

// [MQTT5-3.3.1-3] [MQTT311-3.3.1-3] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2]
#[test]
fn dup_of_a_publisher_reaches_no_subscriber() {
    script(
        &PAIR,
        &["1 publish t/a x q1 id=5 dup", "1 publish t/a y q2 id=6 dup"],
        "2 < publish t/a x q1 id=1
         1 < puback 5
         2 < publish t/a y q2 id=2
         1 < pubrec 6",
    );
    script(
        &KEPT,
        &["1 publish t/a x q1 id=5 dup", "1 publish t/a y q2 id=6 dup", "commit"],
        "write message 1 t/a x for [r1 q1]
         2 < publish t/a x q1 id=1
         write message 2 t/a y for [r1 q2]
         write leased r1/2 id=2
         1 < puback 5
         1 < pubrec 6
         2 < publish t/a y q2 id=2",
    );
}

// [MQTT5-4.3.3-9]
#[test]
fn after_a_refusing_pubrec_the_packet_id_is_a_new_message() {
    script(
        &PAIR,
        &["1 publish tidegate/x y q2 id=5", "1 publish t/a x q2 id=5 dup", "1 pubrel 5"],
        "1 < pubrec 5 0x87
         2 < publish t/a x q2 id=1
         1 < pubrec 5
         1 < pubcomp 5",
    );
}

// [MQTT5-4.3.3-13] [MQTT5-4.3.3-10]
#[test]
fn the_answers_of_qos_2_go_on_though_the_message_has_expired() {
    script(
        &PAIR,
        &[
            "1 publish t/a x q2 id=5 expiry=1",
            "after 5000",
            "1 publish t/a x q2 id=5 dup expiry=1",
            "1 pubrel 5",
            "2 pubrec 1",
            "2 pubcomp 1",
        ],
        "2 < publish t/a x q2 id=1 expiry=1
         1 < pubrec 5
         1 < pubrec 5
         1 < pubcomp 5
         2 < pubrel 1",
    );
}

// [MQTT5-4.4.0-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5]
#[test]
fn nothing_is_sent_again_while_the_connection_stands() {
    for start in [&PAIR[..], &KEPT[..]] {
        let mut all = start.to_vec();
        all.extend([
            "1 publish t/a x q1 id=5",
            "1 publish t/a y q2 id=6",
            "1 publish t/a z q2 id=7",
            "commit",
            "2 pubrec 3",
            "commit",
            "--",
            "after 9000",
            "2 ping",
            "after 9000",
            "2 ping",
        ]);
        check(&all, "2 < pong\n2 < pong");
    }
}

// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.3.3-7]
#[test]
fn at_a_reconnect_what_is_unacknowledged_is_sent_again_though_it_has_expired() {
    script(
        &KEPT,
        &[
            "1 publish t/a x q1 id=5 expiry=5",
            "1 publish t/a y q2 id=6 expiry=5",
            "1 publish t/a z q2 id=7",
            "commit",
            "2 pubrec 3",
            "commit",
            "2 lost",
            "after 9000",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "--",
            "commit",
        ],
        "2 < connack present
         2 < pubrel 3
         2 < publish t/a x q1 id=1 dup expiry=0
         2 < publish t/a y q2 id=2 dup expiry=0",
    );
}

// [MQTT5-4.4.0-2]
#[test]
fn what_a_client_refused_is_not_sent_again() {
    script(
        &KEPT,
        &[
            "1 publish t/a x q1 id=5",
            "1 publish t/a y q2 id=6",
            "1 publish t/a z q1 id=7",
            "commit",
            "2 puback 1 0x87",
            "2 pubrec 2 0x97",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "--",
            "commit",
        ],
        "2 < connack present
         2 < publish t/a z q1 id=3 dup",
    );
}

// [MQTT5-4.3.3-6] [MQTT5-4.3.3-5] [MQTT5-4.3.3-4] [MQTT5-2.2.1-5] [MQTT311-4.3.3-1]
#[test]
fn after_pubrec_pubrel_alone_is_sent_again_until_pubcomp() {
    script(
        &KEPT,
        &[
            "1 publish t/a y q2 id=6",
            "commit",
            "2 pubrec 1",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "--",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "commit",
            "2 pubcomp 1",
            "commit",
            "2 lost",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "commit",
        ],
        "2 < connack present
         2 < pubrel 1
         write session sub r1 [t/+] ended
         write session sub r1 [t/+]
         2 < connack present
         2 < pubrel 1
         write settled r1/1
         write session sub r1 [t/+] ended
         write session sub r1 [t/+]
         2 < connack present",
    );
}

// [MQTT5-2.2.1-5] [MQTT5-4.3.3-4]
#[test]
fn every_pubrec_is_answered_under_its_packet_id() {
    // One that comes again, and one of an exchange that nobody knows, too.
    for start in [&PAIR[..], &KEPT[..]] {
        let mut script = Script::new(config());
        script.run(start);
        script.run(&["1 publish t/a x q2 id=5", "1 publish t/a y q2 id=6", "commit"]);
        script.run(&["--", "2 pubrec 2", "commit", "2 pubrec 2", "2 pubrec 9"]);
        script.said.retain(|line| line.starts_with("2 < "));
        assert_eq!(script.said, ["2 < pubrel 2", "2 < pubrel 2", "2 < pubrel 9 0x92"]);
    }
}

// [MQTT5-3.3.4-10] [MQTT5-4.9.0-2] [MQTT5-4.9.0-3] [MQTT5-3.12.4-1]
#[test]
fn a_full_window_holds_up_nothing_but_publish() {
    check(
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub v5 clean window=2",
            "2 subscribe 1 t/+ q2",
            "1 publish t/a 1 q1 id=1 ; publish t/a 2 q2 id=2 ; publish t/a 3 q2 id=3",
            "--",
            "2 ping",
            "2 subscribe 2 x",
            "2 unsubscribe 3 x",
            "2 publish y z q1 id=1 ; publish y z q2 id=2 ; pubrel 2",
            "2 pubrec 2",
            "1 publish t/b 0",
            "2 pubcomp 2",
        ],
        "2 < pong
         2 < suback 2 0x00
         2 < unsuback 3 0x00
         2 < puback 1 0x10
         2 < pubrec 2 0x10
         2 < pubcomp 2
         2 < pubrel 2
         2 < publish t/b 0
         2 < publish t/a 3 q2 id=3",
    );
}

// [MQTT5-4.9.0-1]
#[test]
fn the_send_quota_starts_within_the_receive_maximum_and_above_nothing() {
    for (window, sent) in [("window=1", 1), ("window=3", 3), ("", 5)] {
        let mut script = Script::new(config());
        script.run(&[
            "open 1",
            &format!("1 connect a v5 clean {window}"),
            "1 subscribe 1 t q1",
            "open 2",
            "2 connect b clean",
            "--",
        ]);
        for number in 1..=5 {
            script.run(&[&format!("2 publish t x q1 id={number}")]);
        }
        assert_eq!(script.said.iter().filter(|line| line.starts_with("1 < publish")).count(), sent);
    }
}

// [MQTT5-4.1.0-1]
#[test]
fn a_session_outlives_its_expiry_while_its_connection_stands() {
    check(
        &[
            "open 1",
            "1 connect a v5 keep=60 expiry=1",
            "commit",
            "1 subscribe 1 t q1",
            "commit",
            "after 50000",
            "1 ping",
            "after 50000",
            "1 lost",
            "after 500",
            "open 1",
            "1 connect a v5 keep=60 expiry=1",
            "--",
            "commit",
            "1 publish t x q1 id=1",
        ],
        "1 < connack present
         write message 1 t x for [r1 q1]
         1 < publish t x q1 id=1",
    );
}

// [MQTT311-4.1.0-1] [MQTT311-4.1.0-2]
#[test]
fn a_session_of_an_older_client_outlives_the_longest_expiry_while_its_connection_stands() {
    let mut short = config();
    short.limits.max_session_expiry = 1;
    check_with(
        short,
        &[
            "open 1",
            "1 connect a v311",
            "commit",
            "1 subscribe 1 t q1",
            "commit",
            "after 50000",
            "1 lost",
            "after 500",
            "open 1",
            "1 connect a v311",
            "--",
            "commit",
            "after 50000",
            "1 publish t x q1 id=1",
        ],
        "1 < connack present
         write message 1 t x for [r1 q1]
         1 < publish t x q1 id=1",
    );
}

// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6] [MQTT5-4.5.0-1] [MQTT5-3.1.2-23] [MQTT5-3.1.2-5]
#[test]
fn expiry_goes_on_over_a_restart() {
    script(
        &KEPT,
        &[
            "2 lost",
            "1 publish t/a old q1 id=1 expiry=5",
            "1 publish t/a new q1 id=2 expiry=50",
            "commit",
            "after 3000",
            "crash",
            "after 2000",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000",
            "commit",
            "--",
            "rows",
        ],
        "write dropped r1/1 expired
         2 < publish t/a new q1 id=1 dup expiry=45",
    );
}

// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
#[test]
fn one_topic_one_qos_one_publisher_is_one_order() {
    // Live, through a window, out of the log and after a reconnect.
    script(
        &KEPT,
        &[
            "1 publish t/a 1 q1 id=1 ; publish t/a 2 q1 id=2",
            "2 lost",
            "1 publish t/a 3 q1 id=3 ; publish t/a 4 q1 id=4",
            "commit",
            "open 2",
            "2 connect sub v5 keep=9 expiry=1000000 window=3",
            "--",
            "commit",
            "1 publish t/a 5 q1 id=5",
            "2 puback 2",
            "2 puback 1",
            "2 puback 3",
        ],
        "2 < connack present
         2 < publish t/a 1 q1 id=1 dup
         2 < publish t/a 2 q1 id=2 dup
         2 < publish t/a 3 q1 id=3
         write message 5 t/a 5 for [r1 q1]
         write settled r1/2
         2 < publish t/a 4 q1 id=4
         write settled r1/1
         2 < publish t/a 5 q1 id=5
         write settled r1/3",
    );
}

// [MQTT5-3.1.2-25] [MQTT5-3.1.2-24]
#[test]
fn what_is_too_large_takes_no_place_in_the_window() {
    for session in ["clean", "expiry=60"] {
        let connect = format!("2 connect sub v5 keep=9 size=20 window=1 {session}");
        let mut all = vec!["open 1", "1 connect pub v5 clean", "open 2", &connect, "commit"];
        all.extend(["2 subscribe 1 t q2", "commit", "--"]);
        all.extend(["1 publish t this-is-too-long q2 id=1", "1 publish t short q1 id=2"]);
        let mut script = Script::new(config());
        script.run(&all);
        let sent: Vec<_> = script.said.iter().filter(|line| line.starts_with("2 < ")).collect();
        assert_eq!(sent, ["2 < publish t short q1 id=1"], "{session}");
    }
}

// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[test]
fn an_answer_that_is_not_its_own_ends_no_exchange() {
    // QoS 2: neither PUBACK nor PUBCOMP stands for PUBREC, and PUBACK does not stand for PUBCOMP.
    script(
        &KEPT,
        &[
            "1 publish t/a x q2 id=6",
            "commit",
            "--",
            "2 puback 1",
            "2 pubcomp 1",
            "commit",
            "2 pubrec 1",
            "commit",
            "2 puback 1",
            "commit",
            "2 pubcomp 1",
        ],
        "write received r1/1
         2 < pubrel 1
         write settled r1/1",
    );
    // QoS 1: neither PUBREC nor PUBCOMP stands for PUBACK.
    script(
        &KEPT,
        &["1 publish t/a x q1 id=6", "commit", "--", "2 pubrec 1", "2 pubcomp 1", "commit", "2 puback 1"],
        "2 < pubrel 1 0x92
         write settled r1/1",
    );
    script(
        &PAIR,
        &["1 publish t/a x q2 id=6", "--", "2 puback 1", "2 pubcomp 1", "2 pubrec 1", "2 pubcomp 1"],
        "2 < pubrel 1",
    );
}

// [MQTT5-3.3.4-9]
#[test]
fn a_qos_2_message_has_its_place_in_the_window_until_pubcomp() {
    for expiry in ["clean keep=9", "keep=9 expiry=60"] {
        let mut script = Script::new(config());
        let connect = format!("2 connect sub v5 window=1 {expiry}");
        script.run(&["open 1", "1 connect pub v5 clean", "open 2", &connect, "commit", "2 subscribe 1 t q2"]);
        script.run(&["commit", "1 publish t x q2 id=6", "commit", "2 pubrec 1", "commit", "--"]);
        script.run(&["1 publish t y q1 id=7", "commit"]);
        assert!(!script.said.iter().any(|line| line.starts_with("2 <")), "{expiry}: {:?}", script.said);
        script.run(&["2 pubcomp 1", "commit"]);
        assert!(
            script.said.iter().any(|line| line == "2 < publish t y q1 id=2"),
            "{expiry}: {:?}",
            script.said
        );
    }
}

// [MQTT5-4.3.3-4] [MQTT5-4.4.0-2]
#[test]
fn what_a_client_refuses_is_not_delivered_and_counted_so() {
    for start in [&PAIR[..], &KEPT[..]] {
        let mut script = Script::new(config());
        script.run(start);
        script.run(&["1 publish t/a x q1 id=5", "1 publish t/a y q2 id=6", "commit", "--"]);
        script.run(&["2 puback 1 0x83 why=too-hot", "2 pubrec 2 0x97"]);
        let mut expected = vec!["sub refuses a message: 0x83 too-hot", "sub refuses a message: 0x97"];
        if start.len() == KEPT.len() {
            expected.insert(1, "write dropped r1/1 refused_by_subscriber");
            expected.push("write dropped r1/2 refused_by_subscriber");
            // And its packet id is free.
            expected.push("write settled r1/2");
        }
        assert_eq!(script.said, expected);
        let dropped = script.broker.counters().dropped;
        assert_eq!(dropped, [(DropReason::RefusedBySubscriber, 2)].into());
    }
}

// [MQTT5-4.3.3-4]
#[test]
fn of_what_a_client_refuses_nothing_is_left_after_a_crash() {
    for refusal in ["2 pubrec 1 0x97", "2 pubrec 1 0x95"] {
        let mut script = Script::new(config());
        script.run(&[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect sub v5 keep=9 expiry=60",
            "commit",
        ]);
        script.run(&["2 subscribe 1 t q2", "commit", "1 publish t x q2 id=6", "commit", refusal]);
        // The packet id is taken until the end of the exchange is committed.
        assert_eq!(script.model.view.leases.len(), 0, "{refusal}");
        script.run(&["--", "commit", "crash", "open 2", "2 connect sub v5 keep=9 expiry=60", "commit"]);
        let heard: Vec<&String> = script.said.iter().filter(|line| line.starts_with("2 <")).collect();
        assert_eq!(heard, ["2 < connack present"], "{refusal}");
        assert_eq!(script.model.disk.leases.len(), 0, "{refusal}");
    }
}
