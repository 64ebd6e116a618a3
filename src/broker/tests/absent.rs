//! Scripts of a start without a store: what is served, and what nobody is told.
//!
//! `crash` stands for the new start once the store can be opened: only then is it known who wants what.

use super::script::{Script, with_route};
use crate::broker::Config;
use crate::record::{DropReason, Presence};

/// `pub` on connection 1 and a subscriber to everything on connection 2.
fn absent_with(config: Config, events: &[&str], expected: &[&str]) -> Script {
    let mut script = Script::started(config, Presence::Absent);
    script.run(&[
        "open 1",
        "1 connect pub v5 clean",
        "open 2",
        "2 connect sub v5 clean",
        "2 subscribe 1 # q2",
        "--",
    ]);
    script.run(events);
    assert_eq!(script.said, expected);
    script
}

fn absent(events: &[&str], expected: &[&str]) -> Script {
    absent_with(with_route(true), events, expected)
}

#[test]
fn without_a_store_no_publish_of_qos_1_or_2_is_answered_and_subscribers_get_it() {
    absent(
        &[
            "1 publish t x q1 id=1",
            "1 publish t y q2 id=2",
            "1 publish up/a z q1 id=3",
            "1 ping",
            "1 subscribe 4 none",
        ],
        &[
            "2 < publish t x q1 id=1",
            "2 < publish t y q2 id=2",
            "2 < publish up/a z q1 id=3",
            "1 < pong",
            "1 < suback 4 0x00",
        ],
    );
}

#[test]
fn without_a_store_a_repeat_is_neither_answered_nor_routed_twice_at_qos_2() {
    absent(
        &["1 publish t y q2 id=2", "1 publish t y q2 id=2 dup", "1 pubrel 2"],
        &["2 < publish t y q2 id=1"],
    );
}

#[test]
fn without_a_store_qos_0_is_served_and_counted_where_it_should_have_been_kept() {
    let script = absent(&["1 publish up/a x", "1 publish t y"], &["2 < publish up/a x", "2 < publish t y"]);
    assert_eq!(script.broker.counters().dropped[&DropReason::StoreBusy], 1);
}

#[test]
fn without_a_store_nothing_is_written_and_nothing_gathers() {
    let mut script = absent(&[], &[]);
    for _ in 0..10_000 {
        script.run(&["open 3", "3 connect c clean will=up/w:gone", "3 publish up/a x q1 id=1", "3 lost"]);
    }
    assert!(!script.said.iter().any(|line| line.starts_with("write") || line.starts_with("pause")));
    assert_eq!((script.broker.counters().uncommitted, script.broker.ledger.owed()), (0, 0));
}

#[test]
fn without_a_store_a_kept_session_is_sent_away_for_now() {
    // To be told that there is no session would make it forget what it still has to send.
    absent(
        &["open 3", "3 connect kept", "open 4", "4 connect kept5 v5 expiry=60"],
        &["3 < connack 0x88", "close 3", "4 < connack 0x88", "close 4"],
    );
}

#[test]
fn without_a_store_a_retained_message_is_retained_in_a_bounded_memory() {
    let mut script = absent(
        &["1 publish r/a x retain", "--", "1 subscribe 1 r/#"],
        &["1 < suback 1 0x00", "1 < publish r/a x retain"],
    );
    let large = "x".repeat(100_000);
    for topic in 0..100 {
        script.run(&[&format!("1 publish r/{topic} {large} retain"), "--"]);
    }
    assert_eq!(script.broker.counters().retained, 40);
    script.run(&["1 publish r/a - retain", "1 publish r/0 small retain", "1 publish r/99 small retain"]);
    assert_eq!(script.broker.counters().retained, 40);
}

#[test]
fn the_house_is_answered_without_a_store_so_that_its_states_go_on() {
    absent(
        &[
            "open 5 port user=tidegate",
            "5 connect tidegate:states v5 clean",
            "--",
            "5 publish tidegate/a/state up q1 retain id=1",
            "5 publish tidegate/a/state down q1 retain id=2",
        ],
        &[
            "2 < publish tidegate/a/state up q1 id=1",
            "5 < puback 1",
            "2 < publish tidegate/a/state down q1 id=2",
            "5 < puback 2",
        ],
    );
}

#[test]
fn once_the_store_is_there_what_was_not_answered_is_taken_and_answered() {
    absent(
        &[
            "1 publish up/a x q1 id=1",
            "crash",
            "open 1",
            "1 connect pub v5 clean",
            "--",
            "1 publish up/a x q1 id=1 dup",
            "commit",
        ],
        &["write message 1 up/a x for [r1 q1]", "1 < puback 1"],
    );
}
