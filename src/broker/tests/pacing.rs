//! Scripts of commits that are hastened, and of a store that does not keep up.
//!
//! `hurry` stands at the end of a turn or not at all.

use super::script::{Script, check, check_with, with_route};
use crate::record::DropReason;

fn stored(events: &[&str], expected: &str) {
    check_with(with_route(true), events, expected);
}

#[test]
fn a_publisher_with_a_window_of_one_waits_for_a_sync_and_no_timer() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "--",
            "1 publish up/a x q1 id=1 ; drained",
            "commit",
            "1 publish up/a y q1 id=2 ; drained",
        ],
        "write message 1 up/a x for [r1 q1]
         hurry
         1 < puback 1
         write message 2 up/a y for [r1 q1]
         hurry",
    );
}

#[test]
fn a_publisher_that_has_more_to_send_hastens_nothing() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "--",
            "1 publish up/a x q1 id=1",
            "1 publish up/a y q1 id=2 ; drained",
        ],
        "write message 1 up/a x for [r1 q1]
         write message 2 up/a y for [r1 q1]
         hurry",
    );
}

#[test]
fn a_window_that_is_half_full_hastens_nothing() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "1 publish up/a 1 q1 id=1 ; publish up/a 2 q1 id=2 ; drained",
            "commit",
            "--",
            "1 publish up/a 3 q1 id=3 ; drained",
            "1 publish up/a 4 q1 id=4 ; drained",
        ],
        "write message 3 up/a 3 for [r1 q1]
         write message 4 up/a 4 for [r1 q1]
         hurry",
    );
}

#[test]
fn everybody_who_waits_must_be_stuck() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "open 2",
            "2 connect b clean",
            "2 publish up/a 1 q1 id=1 ; publish up/a 2 q1 id=2 ; drained",
            "commit",
            "--",
            "2 publish up/a 3 q1 id=3 ; drained",
            "1 publish up/a 4 q1 id=1 ; drained",
            "2 publish up/a 5 q1 id=4 ; drained",
        ],
        "write message 3 up/a 3 for [r1 q1]
         write message 4 up/a 4 for [r1 q1]
         write message 5 up/a 5 for [r1 q1]
         hurry",
    );
}

#[test]
fn qos_0_and_what_is_not_durable_hasten_nothing() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "--",
            "1 publish up/a 1 ; drained",
            "1 publish x 2 q1 id=2 ; drained",
        ],
        "write message 1 up/a 1 for [r1]
         1 < puback 2 0x10",
    );
}

#[test]
fn a_port_behind_which_nobody_waits_hastens_nothing() {
    stored(
        &["open 1 port user=modbus:a", "1 connect a v5 clean", "--", "1 publish up/a 1 q1 id=1 ; drained"],
        "write message 1 up/a 1 for [r1 q1]",
    );
    stored(
        &["open 1 port user=sn waits", "1 connect a v5 clean", "--", "1 publish up/a 1 q1 id=1 ; drained"],
        "write message 1 up/a 1 for [r1 q1]
         hurry",
    );
}

#[test]
fn a_commit_is_hastened_once_for_what_waits() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "1 publish up/a 1 q1 id=1 ; drained",
            "open 2",
            "--",
            "2 connect b clean",
            "2 ping ; drained",
        ],
        "2 < connack
         2 < pong",
    );
}

#[test]
fn who_waits_for_connack_or_suback_looks_stuck() {
    check(
        &["open 1", "1 connect a ; drained", "commit", "1 subscribe 1 t ; drained"],
        "write session a r1
         hurry
         1 < connack
         write session a r1 [t]
         hurry",
    );
}

#[test]
fn who_leaves_holds_nobody_back() {
    stored(
        &[
            "open 1",
            "1 connect a clean",
            "open 2",
            "2 connect b clean",
            "1 publish up/a 1 q1 id=1",
            "2 publish up/a 2 q1 id=1 ; drained",
            "--",
            "1 lost",
        ],
        "hurry",
    );
}

pub(super) fn flooded() -> Script {
    let mut script = Script::new(with_route(true));
    script.run(&[
        "open 1",
        "1 connect a clean",
        "open 2",
        "2 connect b clean",
        "2 subscribe 1 #",
        "open 3",
        "3 connect c v5 clean",
    ]);
    for _ in 0..8_192 {
        script.run(&["1 publish up/a x"]);
    }
    script.run(&["--"]);
    script
}

#[test]
fn a_publish_that_a_busy_store_cannot_take_waits_and_pauses_its_connection_alone() {
    let mut script = flooded();
    script.run(&[
        "3 publish up/a y q1 id=1",
        "3 publish z z q1 id=2",
        "2 ping",
        "1 publish z z",
        "commit 2000",
    ]);
    assert_eq!(script.said, ["pause 3", "2 < pong", "2 < publish z z"]);
    script.run(&["--", "commit 3000"]);
    assert_eq!(
        script.said,
        ["write message 8193 up/a y for [r1 q1]", "2 < publish up/a y", "2 < publish z z", "resume 3"]
    );
    script.run(&["--", "commit"]);
    assert_eq!(script.said, ["3 < puback 1", "3 < puback 2"]);
}

#[test]
fn a_busy_store_is_not_handed_qos_0_and_subscribers_get_it_all_the_same() {
    let mut script = flooded();
    script.run(&["3 publish up/a y"]);
    assert_eq!(script.said, ["2 < publish up/a y"]);
    assert_eq!(script.broker.counters().dropped[&DropReason::StoreBusy], 1);
}

// [MQTT5-3.14.4-3] [MQTT311-3.14.4-3]
#[test]
fn a_goodbye_that_waits_behind_a_publish_is_still_one() {
    let mut script = flooded();
    script.run(&[
        "3 lost",
        "open 3",
        "3 connect c clean will=w:gone",
        "3 publish up/a y q1 id=1 ; disconnect",
        "--",
        "3 lost",
        "commit",
    ]);
    assert_eq!(script.said, ["close 3"]);
}

#[test]
fn a_paused_client_is_not_dead() {
    let mut script = flooded();
    script.run(&[
        "3 lost",
        "open 3",
        "3 connect c clean keep=2",
        "3 publish up/a y q1 id=1",
        "--",
        "after 60000",
        "commit",
        "after 2999",
        "after 1",
    ]);
    assert_eq!(
        script.said,
        ["write message 8193 up/a y for [r1 q1]", "2 < publish up/a y", "resume 3", "close 3"]
    );
}

#[test]
fn a_client_that_is_owed_too_many_answers_is_not_read() {
    let mut script = Script::new(with_route(true));
    script.run(&["open 1", "1 connect a clean", "1 publish up/a x q1 id=1"]);
    for _ in 1..4_096 {
        script.run(&["1 publish x y q1 id=2"]);
    }
    script.run(&["--", "1 publish x y q1 id=3", "1 ping", "commit"]);
    assert_eq!(script.said[0], "pause 1");
    assert_eq!(script.said[4_097..], ["1 < puback 3 0x10", "1 < pong", "resume 1"]);
}

#[test]
fn retained_messages_for_a_kept_session_wait_for_a_busy_store() {
    let mut script = Script::new(with_route(true));
    script.run(&["open 1", "1 connect a", "commit", "1 publish t x q1 retain id=1", "commit"]);
    script.broker.ledger.bound(4, 2);
    script.run(&["1 publish up/a x", "1 publish up/a y", "--", "1 subscribe 1 t q1"]);
    script.run(&["commit said", "commit"]);
    assert_eq!(
        script.said,
        [
            "write session a r2 [t]",
            "commit",
            "1 < suback 1 0x01",
            "write message 4 t x for [r2 q1 retain]",
            "1 < publish t x q1 id=1 retain",
        ]
    );
}

#[test]
fn what_a_paused_port_may_lose_is_not_gathered_without_end() {
    let mut script = flooded();
    script.run(&["open 4 port user=modbus:a", "4 connect m v5 clean", "4 publish up/a y q1 id=1", "--"]);
    // The one that waits for the store is the first of 1,024.
    for _ in 0..1_030 {
        script.run(&["4 publish z z"]);
    }
    // Its QoS 1 is bounded by itself, and kept.
    script.run(&["4 publish z z q1 id=2"]);
    assert_eq!(script.said, [""; 0]);
    assert_eq!(script.broker.counters().dropped[&DropReason::StoreBusy], 7);
    script.run(&["commit"]);
    let count = |line: &str| script.said.iter().filter(|said| *said == line).count();
    assert_eq!(count("2 < publish z z"), 1_024);
    assert_eq!(count("resume 4"), 1);
}

#[test]
fn a_store_that_owes_too_many_commits_opens_no_more_kept_sessions() {
    let mut script = Script::new(with_route(true));
    // Each coming and each going is a write.
    for _ in 0..16_384 {
        script.run(&["open 1", "1 connect a", "1 lost", "--"]);
    }
    script.run(&["open 2", "2 connect b", "open 3", "3 connect c clean"]);
    assert_eq!(script.said, ["2 < connack 0x88", "close 2", "3 < connack"]);
    script.run(&["commit", "open 2", "--", "2 connect b", "commit"]);
    assert_eq!(script.said, ["write session b r3", "2 < connack"]);
}
