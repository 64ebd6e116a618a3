//! Scripts of what is retained by the letter, of what travels with a message, and of the retained flag.
//!
//! Each test carries the statements of the standards that it shows; `docs/conformance.md` lists them.

use super::script::{Script, check, check_with, config, with_route};

// [MQTT5-3.3.1-5] [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-7]
#[test]
fn the_last_retained_message_and_its_qos_await_the_subscriber() {
    for version in ["v31", "v311", "v5 keep=9"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 publish t one q2 id=1 retain",
                "commit",
                "1 publish t two q1 id=2 retain",
                "commit",
                "open 2",
                &format!("2 connect b {version} clean"),
                "--",
                "2 subscribe 1 t q2",
                "1 publish t three retain",
                "2 subscribe 2 t q2",
            ],
            "2 < suback 1 0x02
             2 < publish t two q1 id=1 retain
             write message 3 t three for [] retained
             2 < publish t three
             2 < suback 2 0x02
             2 < publish t three retain",
        );
    }
}

// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[test]
fn an_empty_retained_publish_is_delivered_and_leaves_nothing_behind() {
    for version in ["v311", "v5 keep=9"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 publish t one retain",
                "open 2",
                &format!("2 connect b {version} clean"),
                "2 subscribe 1 t q1",
                "--",
                "1 publish t - q1 id=1 retain",
                "commit",
                "2 subscribe 2 t",
                "1 publish t - q1 id=2 retain",
                "crash",
                "open 2",
                &format!("2 connect b {version} clean"),
                "2 subscribe 3 #",
            ],
            "write message 2 t - for [] retained
             2 < publish t - q1 id=1
             1 < puback 1
             2 < suback 2 0x00
             2 < publish t -
             1 < puback 2
             2 < connack
             2 < suback 3 0x00",
        );
    }
}

// [MQTT5-3.3.1-8] [MQTT311-3.3.1-12]
#[test]
fn a_publish_without_retain_leaves_what_is_retained_alone() {
    for version in ["v311", "v5"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 publish t one retain",
                "--",
                "1 publish t two",
                "1 publish t - q1 id=1",
                "1 publish u new",
                "1 subscribe 1 #",
            ],
            "1 < puback 1 0x10
             1 < suback 1 0x00
             1 < publish t one retain",
        );
    }
}

// [MQTT311-3.1.2-7]
#[test]
fn retained_messages_outlive_the_session_of_their_publisher() {
    for connect in ["1 connect a clean", "1 connect a"] {
        check(
            &[
                "open 1",
                connect,
                "commit",
                "1 publish t one retain",
                "commit",
                "1 disconnect",
                "open 1",
                "1 connect a clean",
                "1 disconnect",
                "commit",
                "open 1",
                "1 connect b clean",
                "--",
                "1 subscribe 1 t",
            ],
            "1 < suback 1 0x00
             1 < publish t one retain",
        );
    }
}

// [MQTT311-3.3.1-8] [MQTT311-3.3.1-9] [MQTT5-3.3.1-12]
#[test]
fn a_subscription_that_stands_gets_no_retained_flag() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "1 subscribe 1 t q1",
            "open 2",
            "2 connect b v311",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "--",
            "1 publish t x q1 id=1 retain",
            "commit",
            "2 subscribe 2 t q1",
            "commit",
        ],
        "write message 1 t x for [r1 q1] retained
         1 < publish t x q1 id=1
         2 < publish t x q1 id=1
         1 < puback 1
         write session b r1 [t]
         2 < suback 2 0x01
         write message 2 t x for [r1 q1 retain]
         2 < publish t x q1 id=2 retain",
    );
}

// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
#[test]
fn a_kept_session_has_the_flag_as_its_subscription_wishes() {
    check(
        &[
            "open 1",
            "1 connect a v5 keep=9 expiry=60",
            "commit",
            "1 subscribe 1 t q1 rap",
            "commit",
            "open 2",
            "2 connect b v5 keep=9 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "1 lost",
            "2 lost",
            "open 3",
            "3 connect c clean",
            "3 publish t x q1 id=1 retain",
            "3 publish t y q1 id=2",
            "commit",
            "open 1",
            "1 connect a v5 keep=9 expiry=60",
            "open 2",
            "2 connect b v5 keep=9 expiry=60",
            "--",
            "commit",
        ],
        "1 < connack present
         1 < publish t x q1 id=1 retain
         1 < publish t y q1 id=2
         2 < connack present
         2 < publish t x q1 id=1
         2 < publish t y q1 id=2",
    );
}

// [MQTT5-3.8.4-4] [MQTT311-3.8.4-3]
#[test]
fn a_replaced_subscription_brings_retained_messages_again_and_loses_none_that_wait() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 publish t kept retain",
            "open 2",
            "2 connect b v5 clean window=1",
            "2 subscribe 1 t q1",
            "1 publish t 1 q1 id=1 ; publish t 2 q1 id=2 ; publish t 3 q1 id=3",
            "--",
            "2 subscribe 2 t q1",
            "2 puback 1",
            "2 puback 2",
        ],
        "2 < suback 2 0x01
         2 < publish t kept retain
         2 < publish t 2 q1 id=2
         2 < publish t 3 q1 id=3",
    );
}

// [MQTT5-3.8.4-5] [MQTT5-3.3.1-9] [MQTT311-3.8.4-4] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.8.4-5]
// [MQTT5-3.10.4-6] [MQTT311-3.9.3-1] [MQTT311-2.3.1-7] [MQTT311-3.10.4-4] [MQTT311-3.10.4-6]
#[test]
fn many_filters_in_one_packet_are_many_subscriptions() {
    for version in ["v311", "v5 keep=9"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 publish t/a 1 retain",
                "1 publish t/b 2 retain",
                "--",
                // The last word on a filter that stands twice is the one that counts.
                "1 subscribe 1 t/a q1, t/b q0, t/c q0, t/c q2",
                "1 publish t/c 3 q2 id=1",
                "1 unsubscribe 2 t/a t/c",
                "1 publish t/a 4",
                "1 publish t/b 5",
                "1 publish t/c 6",
            ],
            "1 < suback 1 0x01 0x00 0x00 0x02
             1 < publish t/a 1 retain
             1 < publish t/b 2 retain
             1 < publish t/c 3 q2 id=1
             1 < pubrec 1
             1 < unsuback 2 0x00 0x00
             1 < publish t/b 5",
        );
    }
}

/// Of a client; as it is delivered.
const LOADED: &str = "note=b,a,b,c format=1 type=text/plain answer=re/ply data=4711";

// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn what_travels_with_a_message_arrives_as_it_was_sent() {
    let spoken = LOADED.replace("note=b,a,b,c", "note=b note=a note=b note=c");
    // At once, for one that is away, retained, and after a restart.
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 t q1",
            "open 2",
            "2 connect b v5 keep=9 expiry=60",
            "commit",
            "2 subscribe 1 t q1",
            "commit",
            "2 lost",
            "--",
            &format!("1 publish t x q1 id=1 retain {LOADED}"),
            "commit",
            "crash",
            "open 2",
            "2 connect b v5 keep=9 expiry=60",
            "commit",
            "rows",
            "2 subscribe 2 +",
        ],
        &format!(
            "write message 1 t x for [r1 q1] retained
             1 < publish t x q1 id=1 {spoken}
             1 < puback 1
             write session b r1 [t]
             2 < connack present
             read r1 after 0 limit 20
             2 < publish t x q1 id=1 dup {spoken}
             write session b r1 [t, +]"
        ),
    );
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            &format!("1 publish t x retain {LOADED}"),
            "--",
            "1 subscribe 1 t",
        ],
        &format!("1 < suback 1 0x00\n1 < publish t x retain {spoken}"),
    );
}

// [MQTT5-3.1.3-10] [MQTT5-3.3.2-4] [MQTT5-3.3.2-20]
#[test]
fn what_travels_with_a_will_arrives_as_it_was_left_and_its_delay_does_not() {
    let left: String = LOADED.split(' ').map(|word| format!("will-{word} ")).collect();
    let spoken = LOADED.replace("note=b,a,b,c", "note=b note=a note=b note=c");
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 w",
            "open 2",
            &format!("2 connect b v5 keep=9 expiry=60 delay=5 will=w:gone {left}"),
            "commit",
            "crash",
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 w",
            "--",
            "after 5000",
        ],
        &format!("1 < publish w gone {spoken}\nwrite session b r1 ended"),
    );
}

// [MQTT5-3.3.2-12] [MQTT5-3.3.2-9] [MQTT5-3.2.2-18]
#[test]
fn every_alias_up_to_the_maximum_is_taken_and_none_above() {
    for alias in 1..=10 {
        check(
            &[
                "open 1",
                "1 connect a v5 clean",
                "1 subscribe 1 #",
                "--",
                &format!("1 publish t/{alias} x alias={alias} ; publish - y alias={alias}"),
            ],
            &format!("1 < publish t/{alias} x\n1 < publish t/{alias} y"),
        );
    }
    let mut none = with_route(true);
    none.limits.max_topic_alias = 0;
    check_with(
        none,
        &["open 1", "1 connect a v5 clean", "--", "1 publish t x alias=1"],
        "1 < disconnect 0x94\nclose 1",
    );
}

// [MQTT5-3.10.4-1] [MQTT311-3.10.4-1]
#[test]
fn unsubscribe_takes_the_equal_filter_and_no_other_that_means_the_same() {
    for version in ["v311", "v5 keep=9"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 subscribe 1 t/+, t/a, t/#, T/a",
                "1 unsubscribe 2 t/+ t/A",
                "--",
                "1 publish t/a x",
                "1 unsubscribe 3 t/#",
                "1 publish t/a y",
                "1 publish t/b y",
                "1 unsubscribe 4 t/a",
                "1 publish t/a z",
                "1 publish T/a z",
            ],
            "1 < publish t/a x
             1 < unsuback 3 0x00
             1 < publish t/a y
             1 < unsuback 4 0x00
             1 < publish T/a z",
        );
    }
}

// [MQTT5-3.10.4-2] [MQTT5-3.10.4-3] [MQTT311-3.10.4-2] [MQTT311-3.10.4-3]
#[test]
fn after_unsubscribe_what_was_begun_is_completed_and_nothing_is_added() {
    check(
        &[
            "open 1",
            "1 connect a clean",
            "open 2",
            "2 connect b",
            "commit",
            "2 subscribe 1 t q2",
            "commit",
            "1 publish t x q2 id=1",
            "1 publish t y q1 id=2",
            "commit",
            "--",
            "2 unsubscribe 2 t",
            "1 publish t z q1 id=3",
            "commit",
            "2 pubrec 1",
            "2 lost",
            "open 2",
            "2 connect b",
            "commit",
            "2 pubcomp 1",
            "2 puback 2",
        ],
        "write session b r1
         1 < puback 3 0x10
         2 < unsuback 2 0x00
         write received r1/1
         write session b r1 ended
         write session b r1
         2 < connack present
         2 < pubrel 1
         2 < publish t y q1 id=2 dup
         write settled r1/1
         write settled r1/2",
    );
}

// [MQTT5-4.7.3-4] [MQTT311-4.7.3-4] [MQTT5-1.5.4-3] [MQTT311-1.5.3-3]
#[test]
fn topics_are_matched_as_they_are_written() {
    // Composed and decomposed, upper and lower case, with a byte order mark, with an empty level.
    let topics = ["t/\u{c5}", "t/A\u{30a}", "t/a\u{30a}", "\u{feff}t/\u{c5}", "t//\u{c5}", "/t/\u{c5}"];
    for filter in topics {
        let subscribe = format!("1 subscribe 1 {filter}");
        let publishes: Vec<String> = topics.iter().map(|topic| format!("1 publish {topic} x")).collect();
        let mut all = vec!["open 1", "1 connect a clean", &subscribe, "--"];
        all.extend(publishes.iter().map(String::as_str));
        check(&all, &format!("1 < publish {filter} x"));
    }
}

// [MQTT5-3.3.1-9] [MQTT311-3.3.1-6]
#[test]
fn retained_messages_come_with_a_subscription_and_not_with_a_connection() {
    for version in ["v311", "v5 keep=9 expiry=60"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version}"),
                "commit",
                "1 publish t x retain",
                "1 subscribe 1 t",
                "commit",
                "1 lost",
                "open 1",
                &format!("1 connect a {version}"),
                "--",
                "commit",
                "1 subscribe 2 t",
                "commit",
            ],
            "1 < connack present
             write session a r1 [t]
             1 < suback 2 0x00
             1 < publish t x retain",
        );
    }
}

// [MQTT5-3.3.1-9] [MQTT311-3.3.1-6]
#[test]
fn retained_messages_of_qos_0_are_sent_as_fast_as_the_client_takes_them() {
    let mut small = config();
    small.limits.max_send_buffer = 4_000;
    let mut script = Script::new(small);
    script.run(&["open 1", "1 connect pub clean", "open 2", "2 connect sub clean"]);
    for number in 10..30 {
        // Each weighs 300 bytes, and one nearly as much as the buffer has room for.
        let length = if number == 20 { 3_800 } else { 200 };
        script.run(&[&format!("1 publish r/{number} {} retain", "x".repeat(length)), "commit"]);
    }
    script.run(&["--", "2 subscribe 1 r/#"]);
    let mut said = std::mem::take(&mut script.said);
    assert_eq!(said.first().map(String::as_str), Some("2 < suback 1 0x00"));
    let (mut got, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (most, batch): (Vec<_>, Vec<_>) = said.into_iter().partition(|line| line.starts_with("await"));
        got.push(batch.iter().filter(|line| line.contains("< publish")).count());
        asked.extend(most);
        // Nothing else brings more, however often it may go on.
        script.run(&["--", "2 ping", "1 publish u live"]);
        assert_eq!(script.said, ["2 < pong"]);
        script.run(&["--", "2 room"]);
        said = std::mem::take(&mut script.said);
    }
    assert_eq!(got.iter().sum::<usize>(), 20);
    assert_eq!(got[..5], [3, 3, 3, 1, 1], "{got:?}");
    assert_eq!(asked[..4], ["await 2 2000", "await 2 2000", "await 2 2000", "await 2 100"]);
    assert!(script.broker.counters().dropped.is_empty());
}

#[test]
fn a_port_is_brought_retained_messages_of_qos_0_as_it_grants() {
    check(
        &[
            "open 1",
            "1 connect pub clean",
            "1 publish r/1 a retain",
            "1 publish r/2 b retain",
            "1 publish r/3 c retain",
            "commit",
            "open 2 port credit=1",
            "2 connect sub clean",
            "--",
            "2 subscribe 1 r/#",
            "2 granted 1",
            "2 granted 5",
        ],
        "2 < suback 1 0x00
         2 < publish r/1 a retain
         2 < publish r/2 b retain
         2 < publish r/3 c retain",
    );
}
