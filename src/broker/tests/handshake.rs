//! Scripts of CONNECT by the letter: client ids, refusals, what CONNACK may say and when it leaves.
//!
//! Each test carries the statements of the standards that it shows; `docs/conformance.md` lists them.

use super::pacing::flooded;
use super::script::{Script, check, check_with, config};
use crate::broker::{Config, ConnectionId, Event, Passwords, Verdict};
use crate::codec::{Packet, Reason};

fn with_passwords() -> Config {
    Config { passwords: Passwords::File, ..config() }
}

// [MQTT5-3.1.3-5] [MQTT311-3.1.3-5] [MQTT31-3]
#[test]
fn client_ids_of_1_to_23_letters_and_digits_are_accepted() {
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in ["v31", "v311", "v5"] {
        for letter in letters.chars() {
            check(&["open 1", &format!("1 connect {letter} {version} clean keep=9")], "1 < connack");
        }
        for start in 0..=letters.len() - 23 {
            let id = &letters[start..start + 23];
            check(&["open 1", &format!("1 connect {id} {version} clean keep=9")], "1 < connack");
        }
        let long = letters.repeat(20);
        check(&["open 1", &format!("1 connect {long} {version} clean keep=9")], "1 < connack");
    }
}

// [MQTT5-3.1.3-8]
#[test]
fn no_client_id_that_is_a_text_is_refused_over_mqtt_5() {
    for id in ["$SYS", "#", "a/b/+", "\u{feff}tür", "%u", "tidegate"] {
        check(&["open 1", &format!("1 connect {id} v5 clean keep=9")], "1 < connack");
    }
}

// [MQTT311-3.1.3-8] [MQTT311-3.1.3-9] [MQTT311-3.2.2-5]
#[test]
fn a_refused_client_id_is_return_code_2_and_the_end() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect - v311 ; publish t x ; ping"]);
    assert_eq!(script.said, ["1 < connack 0x85", "close 1"]);
    assert_eq!(script.heard, [connack(Reason::ClientIdentifierNotValid)]);
}

// [MQTT5-3.1.3-2] [MQTT311-3.1.3-2]
#[test]
fn a_session_is_found_by_its_client_id_and_by_nothing_else() {
    for version in ["v311", "v5 keep=9 expiry=60"] {
        check(
            &[
                "open 1",
                &format!("1 connect pump user=joe {version}"),
                "commit",
                "1 disconnect",
                "open 1",
                &format!("1 connect Pump user=joe {version}"),
                "--",
                "commit",
                "open 2",
                &format!("2 connect pump user=ann {version}"),
                "commit",
            ],
            "1 < connack
             write session pump r1
             2 < connack present",
        );
    }
}

// [MQTT5-3.1.4-6] [MQTT5-3.1.4-2] [MQTT5-3.2.2-7] [MQTT311-3.1.4-5] [MQTT311-3.2.2-5]
#[test]
fn after_a_refused_connect_nothing_is_processed() {
    for version in ["v311", "v5"] {
        check_with(
            with_passwords(),
            &[
                "open 2",
                "2 connect b clean",
                "2 subscribe 1 #",
                "open 1 password",
                "--",
                &format!("1 connect a {version} clean user=bob pass=x will=w:gone ; publish t x ; ping"),
                "1 rejected",
                "1 publish t y",
            ],
            "verify 1 bob x
             1 < connack 0x86
             close 1",
        );
    }
}

// [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]
#[test]
fn a_refusal_says_that_no_session_is_present() {
    for version in ["v311", "v5 expiry=60 keep=9"] {
        check_with(
            with_passwords(),
            &[
                "open 1 password",
                &format!("1 connect a {version} user=bob pass=x"),
                "1 verified",
                "commit",
                "1 disconnect",
                "open 1 password",
                &format!("1 connect a {version} user=bob pass=y"),
                "--",
                "1 rejected",
            ],
            "1 < connack 0x86
             close 1",
        );
    }
}

// [MQTT311-3.2.2-6]
#[test]
fn where_no_return_code_fits_the_connection_ends_without_connack() {
    let deep = "w/".repeat(200);
    check(&["open 1", &format!("1 connect a v311 clean will={deep}:gone")], "close 1");
    check(&["open 1", &format!("1 connect a v31 clean will={deep}:gone")], "close 1");
    check(&["open 1", &format!("1 connect a v5 clean will={deep}:gone")], "1 < connack 0x90\nclose 1");
}

// [MQTT5-3.14.0-1]
#[test]
fn no_disconnect_comes_before_connack() {
    // Nothing was said yet, a password is being checked, the session is being committed.
    check_with(
        with_passwords(),
        &[
            "open 1",
            "open 2",
            "2 connect b v5 user=bob pass=x",
            "open 3",
            "3 connect c v5 expiry=60",
            "--",
            "stop",
        ],
        "close 1
         close 2
         close 3
         write session c r1 ended",
    );
    check(
        &["open 1", "1 connect a v5 expiry=60", "open 2", "--", "2 connect a v5 clean keep=9", "commit"],
        "close 1
         write session a r1 ended
         write removed r1
         2 < connack",
    );
}

// [MQTT5-3.2.0-2]
#[test]
fn one_connack_a_connection_is_all() {
    for version in ["v311", "v5"] {
        let mut script = Script::new(config());
        let again = format!("1 connect a {version} clean keep=9 ; connect a {version} clean keep=9 ; ping");
        script.run(&["open 1", &again]);
        let connacks = script.said.iter().filter(|line| line.contains("connack")).count();
        assert_eq!((connacks, script.said.last().map(String::as_str)), (1, Some("close 1")));
    }
}

// [MQTT5-3.1.2-24] [MQTT5-3.2.2-19] [MQTT5-3.2.2-20]
#[test]
fn a_connack_that_is_too_large_for_its_client_is_not_sent() {
    // As large as it is, it fits; one byte less, and the client is refused, in words that it takes if any.
    check(&["open 1", "1 connect a v5 clean keep=9 size=16"], "1 < connack");
    check(&["open 1", "1 connect a v5 clean keep=9 size=15"], "1 < connack 0x95\nclose 1");
    check(&["open 1", "1 connect a v5 clean keep=9 size=5"], "1 < connack 0x95\nclose 1");
    check(&["open 1", "1 connect a v5 clean keep=9 size=4"], "close 1");
    // A session that was there is left as it was.
    check(
        &[
            "open 1",
            "1 connect a v5 expiry=60 keep=9",
            "commit",
            "open 2",
            "--",
            "2 connect a v5 clean keep=9 size=15",
            "1 ping",
        ],
        "2 < connack 0x95
         close 2
         1 < pong",
    );
}

// [MQTT5-3.1.2-28]
#[test]
fn response_information_is_not_sent_to_who_wants_none() {
    for wish in ["", "response=0"] {
        let mut script = Script::new(config());
        script.run(&["open 1", &format!("1 connect a v5 clean keep=9 {wish}")]);
        let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
        assert_eq!(answer.properties.response_information(), None);
    }
}

// [MQTT5-4.12.0-6]
#[test]
fn without_a_method_in_connect_there_is_none_in_connack_and_no_auth() {
    let mut script = Script::new(with_passwords());
    script.run(&["open 1 password", "1 connect a v5 clean keep=9 user=bob pass=x", "1 verified"]);
    let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
    assert_eq!(answer.properties.authentication_method(), None);
    assert_eq!(answer.properties.authentication_data(), None);
}

// [MQTT5-3.2.2-9] [MQTT5-3.2.2-10] [MQTT5-3.2.2-12]
#[test]
fn every_qos_is_supported_in_publish_subscribe_and_wills() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 connect a v5 clean keep=9 will=w:gone:q2"]);
    let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
    assert_eq!((answer.reason, answer.properties.maximum_qos()), (Reason::Success, None));
    script.run(&[
        "open 2",
        "2 connect b v5 clean keep=9",
        "--",
        "2 subscribe 1 w q2, x q1, y q0",
        "1 publish w x q2 id=1",
        "1 publish x x q1 id=2",
        "1 publish y x",
        "1 lost",
    ]);
    let expected = [
        "2 < suback 1 0x02 0x01 0x00",
        "2 < publish w x q2 id=1",
        "1 < pubrec 1",
        "2 < publish x x q1 id=2",
        "1 < puback 2",
        "2 < publish y x",
        "2 < publish w gone q2 id=3",
    ];
    assert_eq!(script.said, expected);
}

// [MQTT5-3.2.2-22]
#[test]
fn a_client_s_own_keep_alive_holds_where_connack_names_no_other() {
    // The longest that is allowed is not lowered.
    check(
        &["open 1", "1 connect a v5 clean keep=64800", "after 97199999", "after 1"],
        "1 < connack
         1 < disconnect 0x8d
         close 1",
    );
}

// [MQTT311-4.8.0-2]
#[test]
fn a_connect_that_a_busy_store_cannot_take_is_refused_and_nobody_else_is_hurt() {
    let mut script = flooded();
    // Every coming of a kept session is a write, and so is its going; none is committed.
    for _ in 0..40_000 {
        script.run(&["--", "open 4", "4 connect k v311"]);
        if script.said.contains(&"close 4".to_owned()) {
            break;
        }
    }
    assert_eq!(script.said[script.said.len() - 2..], ["4 < connack 0x88", "close 4"]);
    assert_eq!(script.heard, [connack(Reason::ServerUnavailable)]);
    script.run(&["--", "2 ping"]);
    assert_eq!(script.said, ["2 < pong"]);
}

fn connack(reason: Reason) -> Packet {
    Packet::ConnAck(crate::codec::ConnAck { session_present: false, reason, properties: Default::default() })
}

#[test]
fn what_came_behind_connect_is_taken_though_the_connection_is_gone() {
    let reader = ["open 2", "2 connect b clean", "2 subscribe 1 t"];
    for (end, closed) in [("disconnect ; lost", "close 1\n"), ("lost", "")] {
        let come = format!("1 connect a v5 expiry=60 ; publish t 1 ; publish t 2 ; {end}");
        let steps = [&reader[..], &["open 1", "--", &come, "commit"]].concat();
        let taken = "write session a r1\n2 < publish t 1\n2 < publish t 2\n";
        check(&steps, &format!("{taken}{closed}write session a r1 ended"));
    }
}

#[test]
fn what_came_behind_a_password_is_taken_once_it_is_found_right_though_the_connection_is_gone() {
    let old = ConnectionId { slot: 1, generation: 1 };
    for (session, end) in [
        ("clean", "disconnect ; lost"),
        ("clean", "lost"),
        ("expiry=60", "disconnect ; lost"),
        ("expiry=60", "lost"),
    ] {
        for verdict in [Verdict::Accepted, Verdict::Wrong] {
            let mut script = Script::new(with_passwords());
            let come = format!("1 connect a v5 {session} user=u pass=x ; publish t 1 ; publish t 2 ; {end}");
            // Another has its place in the table already.
            script.run(&[
                "open 2",
                "2 connect b clean",
                "2 subscribe 1 t",
                "open 1 password",
                &come,
                "open 1",
                "--",
            ]);
            assert!(script.broker.counters().memory > 0);
            script.handle(vec![Event::Verified { connection: old, verdict }]);
            script.run(&["commit"]);
            let got: Vec<&String> = script.said.iter().filter(|line| line.starts_with("2 <")).collect();
            let counters = script.broker.counters();
            if verdict == Verdict::Accepted {
                assert_eq!(got, ["2 < publish t 1", "2 < publish t 2"], "{session} {end}: {:?}", script.said);
                assert_eq!((counters.not_accepted, counters.received), (0, 2));
            } else {
                assert!(got.is_empty(), "{session} {end}: {:?}", script.said);
                assert_eq!((counters.not_accepted, counters.received), (2, 0));
            }
            let is_kept = session != "clean" && verdict == Verdict::Accepted;
            assert_eq!((counters.clients, counters.sessions), (1, 1 + u64::from(is_kept)), "{session} {end}");
            assert!(!script.said.iter().any(|line| line.starts_with("1 <")), "{:?}", script.said);
            assert_eq!(script.broker.memory.held, 0);
        }
    }
}

#[test]
fn who_is_gone_pushes_nobody_out_who_has_come_since() {
    let mut script = Script::new(with_passwords());
    script.run(&[
        "open 2",
        "2 connect b clean",
        "2 subscribe 1 t",
        "open 1 password",
        "1 connect a clean user=u pass=x ; publish t 1 ; lost",
        "open 3 password",
        "3 connect a clean user=u pass=x",
        "3 verified",
        "--",
        "1 verified",
        "3 publish t 3",
        "stop",
    ]);
    assert_eq!(script.said, ["2 < publish t 3", "close 2", "close 3"]);
    assert_eq!((script.broker.counters().not_accepted, script.broker.memory.held), (1, 0));
}

#[test]
fn who_is_gone_is_forgotten_when_the_service_stops() {
    let mut script = Script::new(with_passwords());
    script.run(&["open 1 password", "1 connect a clean user=u pass=x ; publish t 1 ; lost", "--", "stop"]);
    assert_eq!((script.broker.counters().not_accepted, script.broker.memory.held), (1, 0));
    script.run(&["1 verified"]);
    assert!(script.said.is_empty(), "{:?}", script.said);
}
