//! Scripts of CONNECT and what follows it: who may, which session, when is a client dead.
//!
//! Take-over, assigned client ids and the limits that CONNACK announces are here too.

use super::script::{Script, check, check_with, config};
use crate::broker::{Config, Effect, Note, Passwords};
use crate::codec::{Packet, Reason};

// [MQTT5-3.1.4-5] [MQTT5-3.2.2-2] [MQTT311-3.1.4-4] [MQTT311-3.2.2-1] [MQTT31-1]
#[test]
fn a_clean_client_is_accepted_at_once_in_every_version() {
    for version in ["v31", "v311", "v5"] {
        check(&["open 1", &format!("1 connect a {version} clean keep=9")], "1 < connack");
    }
}

#[test]
fn the_version_is_said_before_anything_is_sent() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 clean size=100"]);
    assert!(matches!(script.effects[0], Effect::Speak { maximum_packet_size: Some(100), .. }));
    assert!(matches!(script.effects[1], Effect::Send { packet: Packet::ConnAck(_), .. }));
}

// [MQTT5-3.2.2-9]
#[test]
fn what_a_client_must_know_of_the_limits_stands_in_connack() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 clean"]);
    let Effect::Send { packet: Packet::ConnAck(connack), .. } = &script.effects[1] else {
        panic!("no CONNACK")
    };
    let properties = &connack.properties;
    assert_eq!(properties.receive_maximum(), Some(20));
    assert_eq!(properties.maximum_packet_size(), Some(256_000));
    assert_eq!(properties.topic_alias_maximum(), Some(10));
    assert_eq!(properties.shared_subscription_available(), None);
    assert_eq!(properties.retain_available(), None);
    assert_eq!(properties.maximum_qos(), None);
}

// [MQTT5-3.1.2-6] [MQTT5-3.2.2-3] [MQTT311-3.1.2-4] [MQTT311-3.2.2-3]
#[test]
fn a_kept_session_is_committed_before_connack() {
    check(&["open 1", "1 connect a"], "write session a r1");
    check(&["open 1", "1 connect a", "--", "commit"], "1 < connack");
    check(&["open 1", "1 connect a v5 expiry=60", "--", "commit"], "1 < connack keep=64800");
}

// [MQTT5-3.2.0-1] [MQTT311-3.2.0-1] [MQTT5-3.12.4-1] [MQTT311-3.12.4-1]
#[test]
fn packets_before_connack_wait_for_it() {
    for version in ["v31", "v311", "v5 keep=9 expiry=60"] {
        check(
            &["open 1", &format!("1 connect a {version} ; publish t x q1 id=1 ; ping"), "--", "commit"],
            "1 < connack
             1 < puback 1 0x10
             1 < pong",
        );
        check_with(
            Config { passwords: Passwords::File, ..config() },
            &[
                "open 1 password",
                "--",
                &format!("1 connect a {version} user=bob pass=x ; publish t x q1 id=1 ; ping"),
                "1 verified",
                "commit",
            ],
            "verify 1 bob x
             write session a r1
             1 < connack
             1 < puback 1 0x10
             1 < pong",
        );
    }
}

// [MQTT5-3.2.2-3] [MQTT5-3.1.2-5] [MQTT5-3.1.2-23] [MQTT5-3.1.4-4] [MQTT311-3.2.2-2] [MQTT311-3.1.2-4]
// [MQTT311-3.1.4-3]
#[test]
fn a_kept_session_is_present_at_the_next_connect() {
    check(
        &["open 1", "1 connect a", "commit", "1 disconnect", "open 1", "1 connect a", "--", "commit"],
        "1 < connack present",
    );
    check(
        &[
            "open 1",
            "1 connect a v5 clean expiry=9",
            "commit",
            "1 lost",
            "open 1",
            "1 connect a v5",
            "--",
            "commit",
        ],
        "1 < connack present keep=64800",
    );
}

// [MQTT5-3.1.2-4] [MQTT5-3.1.4-4] [MQTT5-3.2.2-2] [MQTT311-3.1.2-6] [MQTT311-3.1.4-3] [MQTT311-3.2.2-1]
#[test]
fn clean_start_throws_a_kept_session_away() {
    for version in ["v311", "v5 keep=9 expiry=60"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version}"),
                "commit",
                "1 subscribe 1 t q1",
                "commit",
                "1 lost",
                "open 1",
                "--",
                &format!("1 connect a clean {}", version.trim_end_matches(" expiry=60")),
                "1 publish t x q1 id=1",
                "commit",
            ],
            "write removed r1
             1 < connack
             1 < puback 1 0x10",
        );
    }
}

#[test]
fn a_session_without_expiry_writes_nothing() {
    check(
        &["open 1", "1 connect a v5", "1 subscribe 1 t q1", "1 publish t x q1 id=1", "1 lost"],
        "1 < connack keep=64800
         1 < suback 1 0x01
         1 < publish t x q1 id=1
         1 < puback 1",
    );
}

// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16] [MQTT311-3.1.3-6] [MQTT311-3.1.3-7] [MQTT311-3.1.3-8]
// [MQTT31-4]
#[test]
fn an_empty_client_id_gets_one_where_the_version_allows_it() {
    check(&["open 1", "1 connect - v5 clean"], "1 < connack id-of-29-characters keep=64800");
    check(&["open 1", "1 connect - v311 clean"], "1 < connack");
    check(&["open 1", "1 connect - v311"], "1 < connack 0x85\nclose 1");
    check(&["open 1", "1 connect - v31 clean"], "1 < connack 0x85\nclose 1");
}

// [MQTT5-3.1.3-6] [MQTT5-3.2.2-16] [MQTT311-3.1.3-6]
#[test]
fn assigned_ids_differ_from_each_other() {
    // Were they alike, the second would take the first one's session over.
    check(
        &["open 1", "1 connect - clean", "open 2", "--", "2 connect - clean", "1 ping"],
        "2 < connack\n1 < pong",
    );
}

// [MQTT5-3.1.0-2] [MQTT311-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    check(&["open 1", "1 connect a v5 clean", "--", "1 connect a v5 clean"], "1 < disconnect 0x82\nclose 1");
    check(&["open 1", "1 connect a clean", "--", "1 connect a clean"], "close 1");
}

// [MQTT5-3.1.0-1] [MQTT311-3.1.0-1]
#[test]
fn the_first_packet_must_be_connect() {
    check(&["open 1", "1 ping"], "close 1");
}

#[test]
fn who_sends_no_connect_is_closed_after_ten_seconds() {
    check(&["open 1", "after 9999", "--", "after 1"], "close 1");
}

// [MQTT5-3.1.4-3] [MQTT311-3.1.4-2] [MQTT5-3.14.4-2]
#[test]
fn the_same_client_id_takes_the_session_over() {
    check(
        &["open 1", "1 connect a v5 clean", "open 2", "--", "2 connect a v5 clean"],
        "1 < disconnect 0x8e
         close 1
         2 < connack keep=64800",
    );
    check(
        &["open 1", "1 connect a", "commit", "open 2", "--", "2 connect a", "commit"],
        "close 1
         write session a r1 ended
         write session a r1
         2 < connack present",
    );
    check(&["open 1", "1 connect a clean", "open 2", "--", "2 connect a clean"], "close 1\n2 < connack");
}

#[test]
fn a_session_taken_over_before_its_connack_stands_once() {
    check(&["open 1", "1 connect a", "open 2", "2 connect a", "--", "commit"], "2 < connack present");
}

// [MQTT5-3.1.2-22] [MQTT5-3.2.2-22] [MQTT311-3.1.2-24]
#[test]
fn a_silent_client_is_dead_after_one_and_a_half_keep_alives() {
    check(
        &["open 1", "1 connect a v5 clean keep=4", "--", "after 5999", "after 1"],
        "1 < disconnect 0x8d\nclose 1",
    );
    check(
        &["open 1", "1 connect a clean keep=20", "after 29999", "1 ping", "--", "after 29999", "after 1"],
        "close 1",
    );
}

#[test]
fn keep_alive_zero_is_silent_for_ever_before_mqtt_5() {
    check(&["open 1", "1 connect a clean", "--", "after 999999999"], "");
}

#[test]
fn a_long_keep_alive_is_lowered() {
    check(&["open 1", "1 connect a v5 clean keep=65535"], "1 < connack keep=64800");
}

#[test]
fn a_long_session_expiry_is_lowered() {
    check(
        &["open 1", "1 connect a v5 clean keep=9 expiry=4294967295", "--", "commit"],
        "1 < connack expiry=2592000",
    );
}

// [MQTT5-3.1.4-2]
#[test]
fn a_password_is_checked_where_one_must_be_shown() {
    let file = || Config { passwords: Passwords::File, ..config() };
    check_with(file(), &["open 1 password", "1 connect a clean user=bob pass=x"], "verify 1 bob x");
    check_with(
        file(),
        &["open 1 password", "1 connect a clean user=bob pass=x ; ping", "--", "1 verified"],
        "1 < connack
         1 < pong",
    );
    check_with(
        file(),
        &["open 1 password", "1 connect a clean user=bob ; ping", "--", "1 rejected"],
        "1 < connack 0x86
         close 1",
    );
    check_with(file(), &["open 1 password", "1 connect a clean"], "1 < connack 0x87\nclose 1");
}

#[test]
fn an_anonymous_listener_checks_a_name_that_is_given() {
    let file = Config { passwords: Passwords::File, ..config() };
    check_with(file.clone(), &["open 1", "1 connect a clean user=bob pass=x"], "verify 1 bob x");
    check_with(file, &["open 1", "1 connect a clean"], "1 < connack");
    check(&["open 1", "1 connect a clean user=bob"], "1 < connack");
}

#[test]
fn a_connection_that_is_lost_while_its_password_is_checked_leaves_nothing() {
    let file = Config { passwords: Passwords::File, ..config() };
    check_with(file, &["open 1", "1 connect a user=bob pass=x", "--", "1 lost", "1 verified", "commit"], "");
}

#[test]
fn one_client_too_many_is_refused() {
    let mut one = config();
    one.limits.max_connections = 1;
    check_with(
        one.clone(),
        &["open 1", "1 connect a clean", "open 2", "--", "2 connect b clean"],
        "2 < connack 0x97\nclose 2",
    );
    check_with(
        one,
        &["open 1", "1 connect a clean", "1 lost", "open 2", "--", "2 connect b clean"],
        "2 < connack",
    );
}

// [MQTT5-4.13.1-1] [MQTT5-4.13.2-1] [MQTT5-3.1.4-1] [MQTT5-3.1.2-1] [MQTT5-3.1.2-2] [MQTT311-4.8.0-1]
// [MQTT311-3.1.4-1] [MQTT311-3.1.2-2] [MQTT311-2.2.2-2]
#[test]
fn garbage_ends_the_connection_with_its_reason() {
    check(&["open 1", "1 connect a v5 clean", "--", "1 malformed 0x81"], "1 < disconnect 0x81\nclose 1");
    check(&["open 1", "1 connect a clean", "--", "1 malformed 0x81"], "close 1");
    check(&["open 1", "1 malformed 0x81"], "close 1");
    check(&["open 1", "1 malformed 0x84"], "1 < connack 0x84\nclose 1");
}

// [MQTT5-4.1.0-2]
#[test]
fn a_session_ends_with_its_expiry() {
    check(
        &["open 1", "1 connect a v5 clean expiry=60", "commit", "1 lost", "after 59999", "--", "after 1"],
        "write lapsed r1",
    );
    check(
        &[
            "open 1",
            "1 connect a v5 expiry=60",
            "commit",
            "1 lost",
            "commit",
            "crash",
            "after 59999",
            "--",
            "after 1",
        ],
        "write lapsed r1",
    );
}

#[test]
fn disconnect_may_change_the_expiry() {
    check(
        &["open 1", "1 connect a v5 clean expiry=60", "commit", "--", "1 disconnect expiry=0"],
        "close 1
         write removed r1",
    );
    check(
        &["open 1", "1 connect a v5 clean", "--", "1 disconnect expiry=10"],
        "1 < disconnect 0x82
         close 1",
    );
}

#[test]
fn a_3_1_1_session_that_is_kept_ends_with_the_limit() {
    let mut short = config();
    short.limits.max_session_expiry = 10;
    check_with(
        short,
        &["open 1", "1 connect a", "commit", "1 disconnect", "after 9999", "--", "after 1"],
        "write lapsed r1",
    );
}

// [MQTT5-3.14.4-2]
#[test]
fn every_client_is_told_when_the_service_stops() {
    check(
        &["open 1", "1 connect a v5 clean", "open 2", "2 connect b", "commit", "open 3", "--", "stop"],
        "1 < disconnect 0x8b
         close 1
         close 2
         write session b r1 ended
         close 3",
    );
}

#[test]
fn events_of_a_former_connection_are_nobodys() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a clean"]);
    let former = crate::broker::ConnectionId { slot: 1, generation: 1 };
    script.run(&["1 lost", "open 1", "1 connect b clean", "--"]);
    script.handle(vec![crate::broker::Event::Lost { connection: former }]);
    script.run(&["1 ping"]);
    assert_eq!(script.said, ["1 < pong"]);
}

#[test]
fn a_port_is_never_dead_of_silence() {
    check(&["open 1 port", "1 connect a v5 clean", "--", "after 999999999", "1 ping"], "1 < pong");
}

#[test]
fn sessions_have_a_limit_and_those_that_stand_may_come_back() {
    let mut one = config();
    one.limits.max_connections = 1;
    let mut script = Script::new(one);
    for number in 0..10 {
        script.run(&["open 1", &format!("1 connect c{number}"), "commit", "1 subscribe 1 t q1", "commit"]);
        script.run(&["1 lost", "commit"]);
    }
    // Something waits in each, so none gives way.
    script.run(&["open 2 port", "2 connect pub v5 clean", "2 publish t x q1 id=1", "commit"]);
    script.run(&["open 1", "1 connect c10", "open 1", "1 connect c3", "--", "commit"]);
    assert_eq!(script.said, ["1 < connack present", "1 < publish t x q1 id=1"]);
    script.run(&["1 lost", "open 1", "--", "1 connect c10"]);
    assert_eq!(script.said, ["1 < connack 0x97", "close 1"]);
}

#[test]
fn a_port_takes_no_client_s_place() {
    let mut one = config();
    one.limits.max_connections = 1;
    check_with(
        one,
        &["open 1 port", "1 connect a v5 clean", "open 2", "2 connect b v5 clean", "--", "2 ping"],
        "2 < pong",
    );
}

#[test]
fn nobody_comes_in_by_the_name_of_a_part_of_the_house() {
    for name in ["bridge:cloud", "modbus:line-1", "serial:scale", "tidegate:states"] {
        check(&["open 1", "--", &format!("1 connect {name} v5 clean")], "1 < connack 0x85\nclose 1");
    }
}

#[test]
fn the_log_says_who_was_lost_without_a_disconnect() {
    let noted = |end: &str| {
        let mut script = Script::new(config());
        script.run(&["open 1", "1 connect a clean", end]);
        let notes = script.effects.into_iter().filter_map(|effect| match effect {
            Effect::Note(note) => Some(note),
            _ => None,
        });
        notes.collect::<Vec<_>>()
    };
    let (client_id, peer) = (bytestring::ByteString::from("a"), "peer-1".to_owned());
    assert_eq!(noted("1 lost"), [Note::Lost { client_id: client_id.clone(), peer: peer.clone() }]);
    let reason = Reason::Success;
    assert_eq!(noted("1 disconnect"), [Note::Disconnected { client_id, peer, reason }]);
}
