//! Scripts of destinations that are full and refuse: who is told, who waits, and who feels nothing.
//!
//! `full store` is what the store says when it is full, `full r1` that a route has reached bounds of its
//! own, `full` that nobody is full any more.

use super::script::{Script, check_with, with_route};
use crate::broker::Config;
use crate::record::{DropReason, Policy, ReaderId};

/// A route for `up/#`; it, sessions and the retained store refuse.
pub(super) fn refusing() -> Config {
    let mut config = with_route(true);
    config.refusals.policy = Policy::Refuse;
    config.limits.max_inflight = 3;
    config
}

fn client(version: &str) -> [String; 4] {
    ["open 1".into(), format!("1 connect a {version} clean"), "full store".into(), "--".into()]
}

fn run(config: Config, version: &str, events: &[&str]) -> Script {
    let mut script = Script::new(config);
    let before = client(version);
    script.run(&before.each_ref().map(String::as_str));
    script.run(events);
    script
}

#[test]
fn mqtt_5_is_told_and_nobody_has_half_of_it() {
    let script = run(
        refusing(),
        "v5",
        &[
            "open 2",
            "2 connect b v5 clean",
            "2 subscribe 1 # q1",
            "--",
            "1 publish up/x 1 q1 id=5 ; publish up/x 2 q2 id=6",
            "full",
            "1 publish up/x 3 q1 id=5",
        ],
    );
    let expected = [
        "1 < puback 5 0x97",
        "1 < pubrec 6 0x97",
        "write message 1 up/x 3 for [r1 q1]",
        "2 < publish up/x 3 q1 id=1",
    ];
    assert_eq!(script.said, expected);
    let counters = script.broker.counters();
    assert_eq!((counters.not_accepted, counters.received), (2, 1));
    assert_eq!(counters.not_accepted_by_route.get("up"), Some(&2));
    assert!(counters.dropped.is_empty());
}

#[test]
fn who_publishes_nothing_durable_feels_nothing() {
    for version in ["v31", "v311", "v5"] {
        let script = run(
            refusing(),
            version,
            &["1 subscribe 1 t q1", "--", "1 publish t 1 q1 id=5 ; publish t 2 q2 id=6 ; publish t 3"],
        );
        let expected = [
            "1 < publish t 1 q1 id=1",
            "1 < puback 5",
            "1 < publish t 2 q1 id=2",
            "1 < pubrec 6",
            "1 < publish t 3",
        ];
        assert_eq!(script.said, expected, "{version}");
    }
}

#[test]
fn an_older_client_is_held_while_its_pings_and_answers_go_on_and_goes_on_once_there_is_room() {
    for version in ["v31", "v311"] {
        let script = run(
            refusing(),
            version,
            &[
                "1 subscribe 1 t q1",
                "open 2",
                "2 connect b clean",
                "--",
                "1 publish up/x 1 q1 id=5 ; publish up/x 2 q2 id=6 ; ping",
                "2 publish t hi q1 id=9",
                "1 puback 1",
                "full",
                "commit",
            ],
        );
        let expected = [
            "1 < pong",
            "1 < publish t hi q1 id=1",
            "2 < puback 9",
            "write message 1 up/x 1 for [r1 q1]",
            "write message 2 up/x 2 for [r1 q2]",
            "1 < puback 5",
            "1 < pubrec 6",
        ];
        assert_eq!(script.said, expected, "{version}");
        assert_eq!(script.broker.memory.held, 0);
        let counters = script.broker.counters();
        assert_eq!((counters.not_accepted, counters.waiting_for_room), (0, 0));
    }
}

#[test]
fn what_comes_behind_a_held_publish_keeps_its_place() {
    let script = run(
        refusing(),
        "v311",
        &[
            "1 subscribe 1 t q1",
            "--",
            "1 publish up/x 1 q1 id=5",
            // Answers leave in the order of publishes; what asks for none may pass.
            "1 publish t 2 q1 id=6 ; publish t 3",
            "full",
            "commit",
        ],
    );
    let expected = [
        "1 < publish t 3",
        "write message 1 up/x 1 for [r1 q1]",
        "1 < publish t 2 q1 id=1",
        "1 < puback 5",
        "1 < puback 6",
    ];
    assert_eq!(script.said, expected);
}

#[test]
fn beyond_its_window_and_64_kilobytes_an_older_client_is_let_go() {
    let large = "x".repeat(40_000);
    let publish = |id: u32| format!("1 publish up/x {large} q1 id={id}");
    let within: Vec<String> = (1..=4).map(publish).collect();
    let mut script = run(refusing(), "v311", &within.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(script.said, [""; 0], "three are its window, and one packet may be of any size");
    assert!(script.broker.memory.held > 160_000);
    script.run(&["1 ping", &publish(5), "full"]);
    assert_eq!(script.said, ["1 < pong", "close 1"]);
    assert_eq!(script.broker.memory.held, 0);
    let counters = script.broker.counters();
    assert_eq!((counters.not_accepted, counters.waiting_for_room), (5, 0));
    assert_eq!(counters.not_accepted_by_route.get("up"), Some(&5));
    // Small ones may be many.
    let small: Vec<String> = (1..=100).map(|id| format!("1 publish up/x 1 q1 id={id}")).collect();
    let script = run(refusing(), "v311", &small.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(script.said, [""; 0]);
}

#[test]
fn an_older_client_waits_for_room_as_long_as_refuse_timeout() {
    let mut config = refusing();
    config.refusals.timeout = 7_000;
    let mut script = run(config, "v311", &["1 publish up/x 1 q1 id=5", "after 6999", "1 ping"]);
    assert_eq!(script.broker.deadline(), Some(7_000));
    // That there is room for somebody else gives it no more time.
    script.run(&["full store r1", "after 1", "full"]);
    assert_eq!(script.said, ["1 < pong", "close 1"]);
    assert_eq!(script.broker.counters().not_accepted, 1);
}

#[test]
fn what_is_lost_with_who_has_waited_for_room_too_long_is_counted() {
    let mut config = refusing();
    config.refusals.timeout = 7_000;
    let reads = "1 subscribe 1 t q1";
    let mut script = run(config, "v311", &[reads, "open 2", "2 connect b clean", "2 publish t x q1 id=1"]);
    script.run(&["1 publish up/x 1 q1 id=5", "--", "after 7000"]);
    assert_eq!(script.said, ["close 1"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::StoreFull), Some(&1));
}

#[test]
fn qos_0_is_dropped_for_everybody_and_counted() {
    for version in ["v311", "v5"] {
        let script =
            run(refusing(), version, &["1 subscribe 1 up/x", "--", "1 publish up/x 1 ; publish up/x 2"]);
        assert_eq!(script.said, ["write store_full 2 of r1"], "{version}");
        let counters = script.broker.counters();
        assert_eq!(counters.dropped.get(&DropReason::StoreFull), Some(&2));
        assert_eq!((counters.not_accepted, counters.received), (0, 0));
    }
}

#[test]
fn what_is_sent_again_meanwhile_is_stored_once() {
    let script = run(
        refusing(),
        "v31",
        &["1 publish up/x 1 q1 id=5", "1 publish up/x 1 q1 id=5 dup", "full", "commit"],
    );
    assert_eq!(script.said, ["write message 1 up/x 1 for [r1 q1]", "1 < puback 5"]);
}

#[test]
fn a_message_that_is_to_be_retained_is_refused_and_one_that_clears_is_not() {
    let events =
        ["1 publish t/r 1 q1 id=1 retain", "commit", "full store", "--", "1 publish t/r 2 q1 id=2 retain"];
    let mut script = run(refusing(), "v5", &["full"]);
    script.run(&events);
    script.run(&["1 publish t/r - q1 id=3 retain", "commit"]);
    let expected = ["1 < puback 2 0x97", "write message 2 t/r - for [] retained", "1 < puback 3 0x10"];
    assert_eq!(script.said, expected);
}

#[test]
fn the_house_s_own_states_and_wills_are_taken_all_the_same() {
    let script = run(
        refusing(),
        "v311",
        &[
            "open 3 port user=tidegate",
            "3 connect h v5 clean",
            "open 4",
            "4 connect w clean will=up/w:gone:q1",
            "--",
            "3 publish tidegate/x 1 q1 id=1 retain",
            "4 lost",
        ],
    );
    let expected = ["write message 1 tidegate/x 1 for [] retained", "write message 2 up/w gone for [r1 q1]"];
    assert_eq!(script.said, expected);
}

#[test]
fn each_destination_has_its_own_policy() {
    let session =
        ["open 2", "2 connect b", "commit", "2 subscribe 1 s q1", "commit", "2 lost", "commit", "--"];
    let both = ["1 publish s 1 q1 id=1", "commit", "1 publish up/x 2 q1 id=2", "commit"];
    // The route refuses, the session lets the oldest go.
    let mut config = with_route(true);
    config.refusals.routes = [(ReaderId(1), Policy::Refuse)].into();
    for full in ["full store", "full r1"] {
        let mut script = run(config.clone(), "v5", &session);
        script.run(&[full]);
        script.run(&both);
        let expected = ["write message 1 s 1 for [r2 q1]", "1 < puback 1", "1 < puback 2 0x97"];
        assert_eq!(script.said, expected, "{full}");
    }
    // The other way round; and a route's own bounds are nobody else's.
    config.refusals.policy = Policy::Refuse;
    config.refusals.routes = [(ReaderId(1), Policy::DropNewest)].into();
    let mut script = run(config.clone(), "v5", &session);
    script.run(&both);
    assert_eq!(script.said, ["1 < puback 1 0x97", "write message 1 up/x 2 for [r1 q1]", "1 < puback 2"]);
    let mut script = run(config, "v5", &session);
    script.run(&["full r1"]);
    script.run(&both);
    let expected = [
        "write message 1 s 1 for [r2 q1]",
        "1 < puback 1",
        "write message 2 up/x 2 for [r1 q1]",
        "1 < puback 2",
    ];
    assert_eq!(script.said, expected);
}

#[test]
fn where_the_store_is_busy_once_there_is_room_the_order_stays() {
    let mut script = run(refusing(), "v311", &[]);
    script.broker.ledger.bound(4, 1);
    script.run(&[
        "1 publish up/x 1 q1 id=1 ; publish up/x 2 q1 id=2 ; publish up/x 3 q1 id=3",
        "full",
        "1 publish up/x 4 q1 id=4",
        "commit",
        // It is full again before all were taken.
        "full store",
        "commit",
        "commit",
        "1 ping",
        "full",
        "commit",
        "commit",
    ]);
    let expected = [
        "write message 1 up/x 1 for [r1 q1]",
        "pause 1",
        "1 < puback 1",
        "write message 2 up/x 2 for [r1 q1]",
        "1 < puback 2",
        "resume 1",
        "1 < pong",
        "write message 3 up/x 3 for [r1 q1]",
        "pause 1",
        "1 < puback 3",
        "write message 4 up/x 4 for [r1 q1]",
        "resume 1",
        "1 < puback 4",
    ];
    assert_eq!(script.said, expected);
    assert_eq!(script.broker.memory.held, 0);
}

#[test]
fn a_client_that_leaves_while_it_is_held_takes_its_publishes_with_it() {
    for end in ["1 disconnect", "1 lost"] {
        let script = run(refusing(), "v311", &["1 publish up/x 1 q1 id=5", end, "full", "after 40000"]);
        assert!(!script.said.iter().any(|line| line.starts_with("write")), "{:?}", script.said);
        assert_eq!((script.broker.counters().not_accepted, script.broker.memory.held), (1, 0));
    }
}

#[test]
fn where_nobody_refuses_a_full_store_is_no_matter_of_the_broker() {
    for policy in [Policy::DropOldest, Policy::DropNewest] {
        let mut config = with_route(true);
        config.refusals.policy = policy;
        let events =
            ["open 1", "1 connect a v5 clean", "full store r1", "--", "1 publish up/x 1 q1 id=1", "commit"];
        check_with(config, &events, "write message 1 up/x 1 for [r1 q1]\n1 < puback 1");
    }
}
