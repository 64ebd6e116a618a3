//! Scripts of shared subscriptions: who gets a message, what becomes of it when its member leaves.
//!
//! `pub` publishes on connection 1. In `live` groups a (2) and b (3) end with their connections; in
//! `kept` ones their sessions stay, and the group is reader 3 of the log.

use super::script::{Script, check, check_with, config};
use crate::broker::{Config, WhenFull};
use crate::record::DropReason;

pub(super) const LIVE: [&str; 8] = [
    "open 1",
    "1 connect pub v5 clean",
    "open 2",
    "2 connect a v5 clean",
    "2 subscribe 1 $share/g/t/# q2",
    "open 3",
    "3 connect b v5 clean",
    "3 subscribe 1 $share/g/t/# q2",
];

pub(super) const KEPT: [&str; 11] = [
    "open 1",
    "1 connect pub v5 clean",
    "open 2",
    "2 connect a",
    "commit",
    "open 3",
    "3 connect b",
    "commit",
    "2 subscribe 1 $share/g/t/# q2",
    "3 subscribe 1 $share/g/t/# q2",
    "commit",
];

fn with(config: Config, group: &[&str], events: &[&str], expected: &str) {
    let mut all = group.to_vec();
    if !events.contains(&"--") {
        all.push("--");
    }
    all.extend(events);
    check_with(config, &all, expected);
}

pub(super) fn live(events: &[&str], expected: &str) {
    with(config(), &LIVE, events, expected);
}

pub(super) fn kept(events: &[&str], expected: &str) {
    with(config(), &KEPT, events, expected);
}

pub(super) fn narrow(max_inflight: u16) -> Config {
    let mut narrow = config();
    narrow.limits.max_inflight = max_inflight;
    narrow
}

#[test]
fn each_message_goes_to_one_member_in_turn() {
    live(
        &["1 publish t/a 1", "1 publish t/a 2", "1 publish t/a 3 q1 id=1", "1 publish t/a 4 q1 id=2"],
        "2 < publish t/a 1
         3 < publish t/a 2
         2 < publish t/a 3 q1 id=1
         1 < puback 1
         3 < publish t/a 4 q1 id=1
         1 < puback 2",
    );
}

#[test]
fn a_group_is_granted_as_it_is_wished_and_brings_nothing_retained() {
    check(
        &[
            "open 1",
            "1 connect a v5 clean",
            "1 publish t x retain",
            "--",
            "1 subscribe 1 $share/g/t q1,$share//t q1,$share/g q0",
            "1 unsubscribe 2 $share/g/t $share/g/t",
            "1 publish t y",
        ],
        "1 < suback 1 0x01 0x8f 0x8f
         1 < unsuback 2 0x00 0x11",
    );
}

#[test]
fn groups_and_plain_subscriptions_each_get_their_own() {
    live(
        &["3 subscribe 2 t/a q0", "3 subscribe 3 $share/other/t/# q0", "--", "1 publish t/a x"],
        "3 < publish t/a x
         2 < publish t/a x
         3 < publish t/a x",
    );
}

// [MQTT5-4.8.2-3] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
#[test]
fn a_member_has_its_own_qos_identifier_and_retain_flag() {
    check(
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect a v5 clean",
            "2 subscribe 1 $share/g/t q1 rap sid=7",
            "open 3",
            "3 connect b v5 clean",
            "3 subscribe 1 $share/g/t q0 sid=8",
            "--",
            "1 publish t x q2 id=1 retain",
            "1 publish t y q2 id=2 retain",
        ],
        "write message 1 t x for [] retained
         2 < publish t x q1 id=1 retain ids=7
         write message 2 t y for [] retained
         3 < publish t y ids=8",
    );
}

#[test]
fn a_member_without_room_is_passed_over() {
    with(
        narrow(1),
        &LIVE,
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "3 puback 1",
            "1 publish t/a 3 q1 id=3",
            "--",
            "1 publish t/a 4 q1 id=4",
            "3 puback 2",
        ],
        "1 < puback 4
         3 < publish t/a 4 q1 id=3",
    );
}

#[test]
fn what_a_leaving_member_has_not_acknowledged_goes_to_another() {
    live(
        &["1 publish t/a 1 q1 id=1", "--", "2 lost", "1 publish t/a 2", "3 puback 1"],
        "3 < publish t/a 1 q1 id=1
         3 < publish t/a 2",
    );
}

// [MQTT5-4.8.2-5]
#[test]
fn qos_2_that_was_sent_goes_to_no_other_member() {
    let mut script = Script::new(config());
    script.run(&LIVE);
    script.run(&["1 publish t/a 1 q2 id=1", "--", "2 lost", "3 ping"]);
    assert_eq!(script.said, ["3 < pong"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::Purged), Some(&1));
}

// [MQTT5-4.8.2-6]
#[test]
fn what_a_member_refuses_is_given_to_no_other() {
    live(
        &["1 publish t/a 1 q1 id=1", "--", "2 puback 1 0x83", "2 lost", "3 ping"],
        "a refuses a message: 0x83\n3 < pong",
    );
    kept(
        &["1 publish t/a 1 q1 id=1", "commit", "--", "2 puback 1 0x83", "2 lost", "3 ping"],
        "a refuses a message: 0x83
         write dropped r3/1 refused_by_subscriber
         write session a r1 [$share/g/t/#] ended
         3 < pong",
    );
    // The same by PUBREC.
    live(
        &["1 publish t/a 1 q2 id=1", "--", "2 pubrec 1 0x83", "2 lost", "3 ping"],
        "a refuses a message: 0x83\n3 < pong",
    );
    kept(
        &["1 publish t/a 1 q2 id=1", "commit", "--", "2 pubrec 1 0x83", "2 lost", "commit", "3 ping"],
        "a refuses a message: 0x83
         write dropped r3/1 refused_by_subscriber
         write settled r3/1
         write session a r1 [$share/g/t/#] ended
         3 < pong",
    );
}

#[test]
fn the_last_member_takes_the_group_with_it() {
    let mut script = Script::new(narrow(1));
    script.run(&LIVE);
    for id in 1..=4 {
        script.run(&[&format!("1 publish t/a {id} q1 id={id}")]);
    }
    script.run(&[
        "2 lost",
        "3 lost",
        "open 3",
        "3 connect b v5 clean",
        "3 subscribe 1 $share/g/t/# q1",
        "--",
        "1 publish t/a 5 q1 id=5",
    ]);
    assert_eq!(script.said, ["3 < publish t/a 5 q1 id=1", "1 < puback 5"]);
    assert_eq!(script.broker.counters().shared_subscriptions, 1);
    script.run(&["3 puback 1"]);
    assert_eq!(script.broker.memory.queues, 0);
}

#[test]
fn a_group_that_outlives_connections_is_a_reader_of_the_log() {
    check(
        &[
            "open 2",
            "2 connect a",
            "commit",
            "--",
            "2 subscribe 1 $share/g/t/# q2",
            "commit",
            "2 unsubscribe 2 $share/g/t/#",
        ],
        "write session 0$share/g/t/# r2 [t/#]
         write session a r1 [$share/g/t/#]
         2 < suback 1 0x02
         write lapsed r2
         write session a r1",
    );
}

#[test]
fn a_message_for_it_is_acknowledged_once_committed_and_sent_at_once() {
    kept(
        &["1 publish t/a 1 q1 id=1", "commit said", "1 publish t/a 2 q1 id=2", "2 puback 1", "3 puback 1"],
        "write message 1 t/a 1 for [r3 q1]
         2 < publish t/a 1 q1 id=1
         commit
         1 < puback 1
         write message 2 t/a 2 for [r3 q1]
         3 < publish t/a 2 q1 id=1
         write settled r3/1
         write settled r3/2",
    );
}

#[test]
fn while_all_are_away_messages_wait_for_whoever_comes_first() {
    kept(
        &[
            "2 lost",
            "3 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "crash",
            "open 3",
            "3 connect b",
            "--",
            "commit",
            "rows",
        ],
        "3 < connack present
         read r3 after 0 limit 20
         3 < publish t/a 1 q1 id=1
         3 < publish t/a 2 q1 id=2",
    );
}

#[test]
fn a_member_that_is_away_holds_nothing_up() {
    kept(
        &["2 lost", "commit", "1 publish t/a 1 q1 id=1", "1 publish t/a 2 q1 id=2", "--", "commit"],
        "1 < puback 1\n1 < puback 2",
    );
    kept(
        &["2 lost", "commit", "--", "1 publish t/a 1 q1 id=1", "1 publish t/a 2 q1 id=2"],
        "write message 1 t/a 1 for [r3 q1]
         3 < publish t/a 1 q1 id=1
         write message 2 t/a 2 for [r3 q1]
         3 < publish t/a 2 q1 id=2",
    );
}

#[test]
fn a_kept_member_s_unacknowledged_messages_go_over_in_order() {
    kept(
        &[
            "3 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "open 3",
            "3 connect b",
            "commit",
            "--",
            "2 lost",
            "3 puback 2",
        ],
        "3 < publish t/a 1 q1 id=1
         3 < publish t/a 2 q1 id=2
         write session a r1 [$share/g/t/#] ended
         write settled r3/2",
    );
}

// [MQTT5-4.8.2-4]
#[test]
fn qos_2_stays_with_its_member_until_that_is_back() {
    kept(
        &[
            "1 publish t/a 1 q2 id=1",
            "commit",
            "2 lost",
            "3 ping",
            "commit",
            "open 2",
            "2 connect a",
            "commit",
            "2 pubrec 1",
            "commit",
            "2 pubcomp 1",
        ],
        "write message 1 t/a 1 for [r3 q2]
         write leased r3/1 id=1 of r1
         1 < pubrec 1
         2 < publish t/a 1 q2 id=1
         write sent r3/1
         write session a r1 [$share/g/t/#] ended
         3 < pong
         write session a r1 [$share/g/t/#]
         2 < connack present
         2 < publish t/a 1 q2 id=1 dup
         write received r3/1
         2 < pubrel 1
         write settled r3/1",
    );
}

// [MQTT5-4.3.3-6]
#[test]
fn qos_2_goes_on_with_its_member_after_a_restart() {
    let before = [
        "1 publish t/a 1 q2 id=1",
        "1 publish t/a 2 q2 id=2",
        "1 publish t/a 3 q2 id=3",
        "commit",
        "2 pubrec 1",
        "commit",
        "crash",
    ];
    let mut script = Script::new(config());
    script.run(&KEPT);
    script.run(&before);
    // The other member is first, and gets nothing of it.
    script.run(&["open 3", "3 connect b", "--", "commit", "rows", "rows"]);
    assert_eq!(
        script.said,
        [
            "3 < connack present",
            "read r3 after 1 limit 1",
            "3 < publish t/a 2 q2 id=1 dup",
            "read r3 after 0 limit 19"
        ]
    );
    script.run(&["open 2", "2 connect a", "--", "commit", "rows", "rows", "2 pubcomp 1"]);
    assert_eq!(
        script.said,
        [
            "2 < connack present",
            "2 < pubrel 1",
            "read r3 after 2 limit 1",
            "2 < publish t/a 3 q2 id=2 dup",
            "write settled r3/1",
        ]
    );
}

#[test]
fn a_session_that_ends_gives_its_qos_1_back_and_its_qos_2_up() {
    kept(
        &[
            "3 lost",
            "1 publish t/a 1 q2 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "open 3",
            "3 connect b",
            "commit",
            "2 lost",
            "commit",
            "open 2",
            "--",
            "2 connect a clean",
            "commit",
        ],
        "write dropped r3/1 purged
         write settled r3/1
         write removed r1
         2 < connack",
    );
}

#[test]
fn a_member_that_ends_with_its_connection_may_share_with_one_that_stays() {
    let script = |events: &[&str], expected: &str| {
        let group = [
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect a",
            "commit",
            "2 subscribe 1 $share/g/t/# q2",
            "open 3",
            "3 connect b v5 clean",
            "3 subscribe 1 $share/g/t/# q2",
            "commit",
            "2 lost",
            "commit",
        ];
        with(config(), &group, events, expected);
    };
    // Its unacknowledged QoS 1 waits for the other; what it was sent of QoS 2 is gone with it.
    script(
        &["1 publish t/a 1 q1 id=1", "3 lost", "commit", "open 2", "2 connect a", "commit"],
        "write message 1 t/a 1 for [r2 q1]
         3 < publish t/a 1 q1 id=1
         1 < puback 1
         write session a r1 [$share/g/t/#]
         2 < connack present
         2 < publish t/a 1 q1 id=1",
    );
    script(
        &["1 publish t/a 1 q2 id=1", "commit", "3 lost"],
        "write message 1 t/a 1 for [r2 q2]
         3 < publish t/a 1 q2 id=1
         write leased r2/1 id=1 of r0
         1 < pubrec 1
         write dropped r2/1 purged
         write settled r2/1",
    );
    script(
        &["1 publish t/a 1 q2 id=1", "commit", "crash", "open 2", "--", "2 connect a", "commit", "rows"],
        "write session a r1 [$share/g/t/#]
         2 < connack present
         read r2 after 0 limit 20",
    );
}

#[test]
fn what_waits_in_memory_becomes_rows_when_a_member_is_to_stay() {
    with(
        narrow(1),
        &LIVE,
        &[
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "1 publish t/a 3 q1 id=3",
            "open 4",
            "4 connect c",
            "commit",
            "--",
            "4 subscribe 1 $share/g/t/# q2",
            "commit",
            "2 lost",
        ],
        "write session 0$share/g/t/# r2 [t/#]
         write message 1 t/a 3 for [r2 q1]
         write session c r1 [$share/g/t/#]
         4 < suback 1 0x02
         4 < publish t/a 3 q1 id=1
         write message 2 t/a 1 for [r2 q1]",
    );
}

#[test]
fn a_message_too_large_for_one_member_goes_to_another() {
    let large = "x".repeat(60);
    let mut script = Script::new(config());
    script.run(&[
        "open 1",
        "1 connect pub v5 clean",
        "open 2",
        "2 connect a v5 clean size=40",
        "2 subscribe 1 $share/g/t q1",
    ]);
    script.run(&["open 3", "3 connect b v5 clean", "3 subscribe 1 $share/g/t q1", "--"]);
    script.run(&[&format!("1 publish t {large}"), &format!("1 publish t {large} q1 id=1"), "1 publish t x"]);
    assert_eq!(
        script.said,
        [
            format!("3 < publish t {large}"),
            format!("3 < publish t {large} q1 id=1"),
            "1 < puback 1".to_owned(),
            "2 < publish t x".to_owned(),
        ]
    );
    script.run(&["3 lost", "--", &format!("1 publish t {large} q1 id=2")]);
    assert_eq!(script.said, ["1 < puback 2"]);
    assert_eq!(script.broker.counters().dropped.get(&DropReason::TooLarge), Some(&2));
}

#[test]
fn an_expired_message_is_given_to_nobody() {
    kept(
        &[
            "2 lost",
            "3 lost",
            "1 publish t/a 1 q1 id=1 expiry=5",
            "commit",
            "after 6000",
            "open 2",
            "--",
            "2 connect a",
            "commit",
        ],
        "write session a r1 [$share/g/t/#]
         2 < connack present
         write dropped r3/1 expired",
    );
}

// [MQTT5-4.3.3-7]
#[test]
fn what_a_member_was_sent_of_qos_2_is_sent_again_though_it_has_expired() {
    kept(
        &[
            "1 publish t/a 1 q2 id=1 expiry=5",
            "commit",
            "commit",
            "2 lost",
            "after 9000",
            "open 2",
            "--",
            "2 connect a",
            "commit",
        ],
        "write session a r1 [$share/g/t/#]
         2 < connack present
         2 < publish t/a 1 q2 id=1 dup expiry=0",
    );
}

#[test]
fn a_group_s_queue_has_the_limits_of_a_session_s() {
    for (policy, expected) in [
        (
            WhenFull::DropOldest,
            ["write message 3 t/a 3 for [r3 q1]", "write dropped r3/1 queue_full", "1 < puback 3"].as_slice(),
        ),
        (WhenFull::DropNewest, ["1 < puback 3", "write queue_full 1 of r3"].as_slice()),
    ] {
        let mut few = config();
        (few.limits.max_queued_messages, few.limits.when_queue_full) = (2, policy);
        let mut script = Script::new(few);
        script.run(&KEPT);
        script.run(&[
            "2 lost",
            "3 lost",
            "1 publish t/a 1 q1 id=1",
            "1 publish t/a 2 q1 id=2",
            "commit",
            "--",
        ]);
        script.run(&["1 publish t/a 3 q1 id=3", "commit"]);
        assert_eq!(script.said, expected);
    }
}

#[test]
fn a_group_whose_members_are_gone_after_a_restart_is_ended() {
    let mut script = Script::new(config());
    script.run(&KEPT);
    script.run(&["2 lost", "3 lost", "commit"]);
    for reader in [1, 2] {
        script.model.disk.sessions.remove(&crate::record::ReaderId(reader));
    }
    script.run(&["--", "crash"]);
    assert_eq!(script.said, ["write lapsed r3"]);
}

#[test]
fn a_row_that_waits_for_one_member_is_not_read_again_and_again() {
    let large = "x".repeat(60);
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect pub v5 clean"]);
    for lines in [["open 2", "2 connect a v5 expiry=60"], ["open 3", "3 connect b v5 expiry=60 window=1"]] {
        script.run(&lines);
        script.run(&["commit"]);
    }
    script.run(&["2 subscribe 1 $share/g/t/# q1", "3 subscribe 1 $share/g/t/# q1", "commit"]);
    script.run(&["2 disconnect", "3 disconnect", "commit"]);
    for id in 1..4 {
        script.run(&[&format!("1 publish t/a {large} q1 id={id}"), "commit"]);
    }
    // One takes nothing that large, the other one at a time.
    script.run(&["crash", "open 3", "3 connect b v5 expiry=60 window=1", "commit", "rows"]);
    script.run(&[
        "open 2",
        "2 connect a v5 expiry=60 size=40",
        "commit",
        "rows",
        "rows",
        "--",
        "rows",
        "rows",
    ]);
    assert_eq!(script.said, Vec::<String>::new());
    script.run(&["3 puback 1", "rows", "3 puback 2", "rows", "3 puback 3", "rows"]);
    let given = script.said.iter().filter(|line| line.starts_with("3 < publish")).count();
    assert_eq!(given, 2, "{:?}", script.said);
}

// [MQTT5-3.3.4-5]
#[test]
fn a_copy_from_a_share_and_one_of_one_s_own_have_each_its_identifier() {
    check(
        &[
            "open 1",
            "1 connect pub v5 clean",
            "open 2",
            "2 connect a v5 clean",
            "2 subscribe 1 $share/g/t/# q0 sid=7",
            "2 subscribe 2 t/a q0 sid=8",
            "--",
            "1 publish t/a x",
        ],
        "2 < publish t/a x ids=8
         2 < publish t/a x ids=7",
    );
}
