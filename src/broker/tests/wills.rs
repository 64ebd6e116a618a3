//! Scripts of wills: published at loss, taken back by a goodbye, delayed, stored.
//!
//! Connection 9 is a witness that is subscribed to the will topic.

use super::script::{Script, check, check_with, config, with_route};

/// A witness on connection 9.
const WITNESS: [&str; 3] = ["open 9", "9 connect witness clean", "9 subscribe 1 w q1"];

fn witnessed(events: &[&str], expected: &str) {
    let mut all = WITNESS.to_vec();
    if !events.contains(&"--") {
        all.push("--");
    }
    all.extend(events);
    check(&all, expected);
}

// [MQTT5-3.1.2-8] [MQTT311-3.1.2-8]
#[test]
fn a_will_is_published_when_the_connection_is_lost() {
    witnessed(&["open 1", "1 connect a clean will=w:gone", "--", "1 lost"], "9 < publish w gone");
    witnessed(
        &["open 1", "1 connect a clean keep=2 will=w:gone", "--", "after 3000"],
        "close 1\n9 < publish w gone",
    );
    witnessed(
        &["open 1", "1 connect a clean will=w:gone", "--", "1 malformed 0x81"],
        "close 1\n9 < publish w gone",
    );
    // It does not wait for the end of a session that is kept.
    witnessed(
        &["open 1", "1 connect a will=w:gone", "commit", "--", "1 lost"],
        "9 < publish w gone\nwrite session a r1 ended",
    );
}

// [MQTT5-3.1.2-8] [MQTT5-3.14.4-3] [MQTT311-3.1.2-8] [MQTT311-3.14.4-3]
#[test]
fn a_goodbye_takes_the_will_back() {
    for version in ["v31", "v311", "v5", "v5 expiry=60 delay=5"] {
        let connect = format!("1 connect a {version} will=w:gone");
        let events = ["open 1", &connect, "commit", "1 disconnect", "--", "after 2592000000"];
        let mut script = Script::new(config());
        script.run(&WITNESS);
        script.run(&events);
        assert!(!script.said.iter().any(|line| line.contains("gone")), "{:?}", script.said);
    }
    witnessed(&["open 1", "1 connect a clean will=w:gone", "--", "1 disconnect"], "close 1");
}

// [MQTT5-3.1.2-8]
#[test]
fn a_goodbye_may_ask_for_the_will() {
    witnessed(
        &["open 1", "1 connect a v5 clean will=w:gone", "--", "1 disconnect 0x04"],
        "close 1
         9 < publish w gone",
    );
}

#[test]
fn a_will_may_be_retained() {
    witnessed(
        &["open 1", "1 connect a clean will=w:gone:q1:retain", "--", "1 lost", "9 subscribe 2 w q1"],
        "write message 1 w gone for [] retained
         9 < publish w gone q1 id=1
         9 < suback 2 0x01
         9 < publish w gone q1 id=2 retain",
    );
}

// [MQTT5-3.1.2-8]
#[test]
fn a_will_waits_for_its_delay() {
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=5 will=w:gone",
            "commit",
            "1 lost",
            "commit",
            "--",
            "after 4999",
            "after 1",
        ],
        "9 < publish w gone
         write session a r1 ended",
    );
}

// [MQTT5-3.1.2-8]
#[test]
fn a_will_does_not_wait_longer_than_its_session() {
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=3 delay=5 will=w:gone",
            "commit",
            "1 lost",
            "commit",
            "--",
            "after 2999",
            "after 1",
        ],
        "9 < publish w gone
         write lapsed r1",
    );
    witnessed(&["open 1", "1 connect a v5 clean delay=5 will=w:gone", "--", "1 lost"], "9 < publish w gone");
}

// [MQTT5-3.1.3-9] [MQTT5-3.1.2-8]
#[test]
fn who_is_back_in_time_has_no_will_published() {
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=5 will=w:gone",
            "commit",
            "1 lost",
            "--",
            "open 1",
            "1 connect a v5 expiry=60",
            "commit",
            "after 6000",
        ],
        "write session a r1
         1 < connack present keep=64800",
    );
}

// [MQTT5-3.1.2-8]
#[test]
fn a_take_over_publishes_the_will_unless_it_is_delayed() {
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 will=w:gone",
            "commit",
            "open 2",
            "--",
            "2 connect a v5 expiry=60",
        ],
        "1 < disconnect 0x8e
         close 1
         9 < publish w gone
         write session a r1 ended
         write session a r1",
    );
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=9 will=w:gone",
            "commit",
            "open 2",
            "--",
            "2 connect a v5 expiry=60",
        ],
        "1 < disconnect 0x8e
         close 1
         write session a r1 will ended
         write session a r1",
    );
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=9 will=w:gone",
            "commit",
            "open 2",
            "--",
            "2 connect a v5 clean keep=9",
            "commit",
        ],
        "1 < disconnect 0x8e
         close 1
         write session a r1 will ended
         9 < publish w gone
         write removed r1
         2 < connack",
    );
}

// [MQTT5-3.1.2-7]
#[test]
fn a_will_outlives_a_crash_and_keeps_its_delay() {
    check(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=5 will=w:gone:retain",
            "commit",
            "1 lost",
            "commit",
            "after 2000",
            "crash",
            "--",
            "after 2999",
            "after 1",
        ],
        "write message 1 w gone for [] retained
         write session a r1 ended",
    );
}

// [MQTT311-3.1.2-8]
#[test]
fn a_client_that_was_there_when_the_power_failed_is_gone_after_it() {
    check(
        &["open 1", "1 connect a will=w:gone:retain", "commit", "--", "crash"],
        "write ended r1
         write message 1 w gone for [] retained
         write session a r1 ended",
    );
}

#[test]
fn a_will_for_a_route_is_stored() {
    check_with(
        with_route(true),
        &["open 1", "1 connect a clean will=up/w:gone:q1", "--", "1 lost"],
        "write message 1 up/w gone for [r1 q1]",
    );
}

#[test]
fn a_will_for_the_house_s_own_topics_is_denied() {
    witnessed(&["open 1", "1 connect a clean will=tidegate/status:offline", "--", "1 lost"], "");
}

#[test]
fn a_will_with_a_wrong_topic_is_refused_at_connect() {
    check(&["open 1", "1 connect a v5 clean will=w/#:gone"], "1 < connack 0x90\nclose 1");
}

#[test]
fn wills_are_published_when_the_service_stops() {
    check_with(
        config(),
        &[
            "open 1 port user=tidegate:status",
            "1 connect tidegate v5 clean will=tidegate/status:offline:q1:retain",
            "--",
            "stop",
        ],
        "write message 1 tidegate/status offline for [] retained
         1 < disconnect 0x8b
         close 1",
    );
}

// [MQTT5-3.1.2-10] [MQTT311-3.1.2-10]
#[test]
fn a_will_that_was_published_or_taken_back_is_gone_for_good() {
    witnessed(
        &[
            "open 1",
            "1 connect a v5 expiry=60 delay=5 will=w:gone",
            "commit",
            "1 lost",
            "after 5000",
            "--",
            "commit",
            "crash",
            "open 9",
            "9 connect witness clean",
            "9 subscribe 1 w q1",
            "after 60000",
        ],
        "9 < connack
         9 < suback 1 0x01
         write lapsed r1",
    );
    witnessed(
        &[
            "open 1",
            "1 connect a",
            "commit",
            "1 lost",
            "open 1",
            "1 connect a will=w:gone",
            "commit",
            "--",
            "1 disconnect",
            "after 2592000000",
        ],
        "close 1
         write session a r1 ended
         write lapsed r1",
    );
    witnessed(
        &[
            "open 1",
            "1 connect a will=w:gone",
            "commit",
            "1 lost",
            "open 1",
            "1 connect a",
            "commit",
            "--",
            "1 lost",
        ],
        "write session a r1 ended",
    );
}

// [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT311-3.1.2-16] [MQTT311-3.1.2-17]
#[test]
fn a_will_is_retained_where_it_says_so_and_nowhere_else() {
    for version in ["v311", "v5 keep=9"] {
        witnessed(
            &[
                "open 1",
                &format!("1 connect a {version} clean will=w:gone"),
                "open 2",
                &format!("2 connect b {version} clean will=w/r:left:retain"),
                "--",
                "1 lost",
                "2 lost",
                "9 subscribe 2 #",
            ],
            "9 < publish w gone
             write message 1 w/r left for [] retained
             9 < suback 2 0x00
             9 < publish w/r left retain",
        );
    }
    // Of a session that was found in the store, too.
    check(
        &["open 1", "1 connect a will=w:gone", "commit", "--", "crash"],
        "write ended r1\nwrite session a r1 ended",
    );
}

// [MQTT311-3.1.2-12]
#[test]
fn without_a_will_nothing_is_published_at_the_end() {
    check(
        &[
            "open 9",
            "9 connect witness clean",
            "9 subscribe 1 #",
            "open 1",
            "1 connect a clean will=w:gone",
            "1 disconnect",
            "open 1",
            "1 connect a clean",
            "--",
            "1 lost",
        ],
        "",
    );
}

#[test]
fn wills_do_not_pile_up_while_the_disk_stands_still_and_none_is_lost() {
    let large = "x".repeat(200_000);
    for (config, will) in [(config(), "w:q1:retain"), (with_route(true), "up/w:q0")] {
        let (topic, how) = will.split_once(':').unwrap();
        let connect = format!("1 connect a v5 clean keep=9 will={topic}:{large}:{how}");
        let mut script = Script::new(config);
        for _ in 0..100 {
            script.run(&["open 1", &connect, "1 lost"]);
        }
        let said = |word: &str| script.said.iter().filter(|line| line.starts_with(word)).count();
        let taken = script.said.iter().filter(|line| *line == "1 < connack").count();
        assert_eq!((said("1 < connack 0x88"), said("write message")), (100 - taken, taken), "{will}");
        assert!(script.broker.ledger.weight() < 5_500_000, "{will}: {}", script.broker.ledger.weight());
        // Who leaves nothing comes in, and the house, whose own are few; so does everybody after the commit.
        script.run(&["open 2", "--", "2 connect b v5 clean keep=9", "open 3 port user=tidegate:bus"]);
        script.run(&["3 connect c clean will=up/c:gone", "commit", "open 1", &connect]);
        assert_eq!(script.said, ["2 < connack", "3 < connack", "1 < connack"], "{will}");
    }
}
