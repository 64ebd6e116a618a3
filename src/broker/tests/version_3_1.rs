//! Scripts of MQTT 3.1 as its clients speak it, where it differs from 3.1.1 or is said for it alone.
//!
//! Its statements are numbered in `tests/conformance/mqtt-3.1.txt`.

use super::script::{Script, check, check_with, config};
use crate::broker::{Config, Passwords};
use crate::codec::{Packet, Reason};

// [MQTT31-1] [MQTT31-5] [MQTT31-10]
#[test]
fn a_kept_session_goes_on_and_connack_says_nothing_of_it() {
    check(
        &[
            "open 2",
            "2 connect b clean",
            "open 1",
            "1 connect a v31",
            "commit",
            "1 subscribe 1 t q2",
            "commit",
            "1 disconnect",
            "2 publish t x q1 id=1",
            "2 publish t y q2 id=2",
            "commit",
            "open 1",
            "1 connect a v31",
            "--",
            "commit",
            "commit",
            "1 puback 1",
            "1 pubrec 2",
            "commit",
            "1 pubcomp 2",
        ],
        "1 < connack
         1 < publish t x q1 id=1
         write leased r1/2 id=2
         1 < publish t y q2 id=2
         write settled r1/1
         write received r1/2
         1 < pubrel 2
         write settled r1/2",
    );
}

// [MQTT31-11]
#[test]
fn a_clean_session_keeps_nothing() {
    check(
        &[
            "open 2",
            "2 connect b clean",
            "open 1",
            "1 connect a v31 clean",
            "1 subscribe 1 t q1",
            "1 lost",
            "--",
            "2 publish t x q1 id=1",
            "open 1",
            "1 connect a v31 clean",
            "2 publish t x q1 id=2",
        ],
        "2 < puback 1 0x10
         1 < connack
         2 < puback 2 0x10",
    );
    // Nor what was kept before it.
    check(
        &["open 1", "1 connect a v31", "commit", "1 lost", "open 1", "--", "1 connect a v31 clean", "commit"],
        "write removed r1
         1 < connack",
    );
}

// [MQTT31-2]
#[test]
fn an_unknown_level_is_return_code_1_and_the_end() {
    let mut script = Script::new(config());
    script.run(&["open 1", "1 malformed 0x84"]);
    let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
    assert_eq!(answer.reason, Reason::UnsupportedProtocolVersion);
    assert_eq!(script.said, ["1 < connack 0x84", "close 1"]);
}

// [MQTT31-4]
#[test]
fn an_empty_client_id_is_return_code_2_and_the_end() {
    for clean in ["", "clean"] {
        let mut script = Script::new(config());
        script.run(&["open 1", &format!("1 connect - v31 {clean}")]);
        let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
        assert_eq!(answer.reason, Reason::ClientIdentifierNotValid);
        assert_eq!(script.said[1..], ["close 1"]);
    }
}

// [MQTT31-12]
#[test]
fn a_will_is_published_at_a_loss_and_not_after_disconnect() {
    check(
        &[
            "open 2",
            "2 connect b v31 clean",
            "2 subscribe 1 w q1",
            "open 1",
            "1 connect a v31 clean will=w:gone:q1",
            "open 3",
            "3 connect c v31 clean will=w:left:q1",
            "--",
            "1 lost",
            "3 disconnect",
        ],
        "2 < publish w gone q1 id=1
         close 3",
    );
}

// [MQTT31-13] [MQTT311-3.3.4-1] [MQTT311-2.3.1-6] [MQTT311-4.3.1-1] [MQTT311-4.3.2-2] [MQTT311-4.3.3-1]
// [MQTT311-4.3.3-2] [MQTT311-3.3.1-2]
#[test]
fn each_qos_has_its_answers() {
    for version in ["v31", "v311"] {
        check(
            &[
                "open 1",
                &format!("1 connect a {version} clean"),
                "1 subscribe 1 t q2",
                "--",
                "1 publish t 0 dup",
                "1 publish t 1 q1 id=1",
                "1 publish t 1 q1 id=1 dup",
                "1 publish t 2 q2 id=2",
                "1 publish t 2 q2 id=2 dup",
                "1 pubrel 2",
                "1 publish t 3 q2 id=2",
                "1 pubrec 3",
                "1 pubcomp 3",
            ],
            "1 < publish t 0
             1 < publish t 1 q1 id=1
             1 < puback 1
             1 < publish t 1 q1 id=2
             1 < puback 1
             1 < publish t 2 q2 id=3
             1 < pubrec 2
             1 < pubrec 2
             1 < pubcomp 2
             1 < publish t 3 q2 id=4
             1 < pubrec 2
             1 < pubrel 3",
        );
    }
}

// [MQTT31-15]
#[test]
fn a_wrong_password_is_return_code_4_and_a_missing_one_5() {
    for (words, answer, expected) in [
        ("user=bob pass=x", "1 rejected", Reason::BadUserNameOrPassword),
        ("", "1 ping", Reason::NotAuthorized),
    ] {
        let mut script = Script::new(Config { passwords: Passwords::File, ..config() });
        script.run(&["open 1 password"]);
        script.run(&[&format!("1 connect a v31 clean {words}")]);
        if script.heard.is_empty() {
            script.run(&[answer]);
        }
        let [Packet::ConnAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
        assert_eq!(answer.reason, expected);
        assert_eq!(script.said.last().map(String::as_str), Some("close 1"));
    }
}

// [MQTT31-16]
#[test]
fn one_and_a_half_keep_alives_of_silence_are_the_end() {
    check_with(
        config(),
        &["open 1", "1 connect a v31 clean keep=10", "after 14999", "1 ping", "--", "after 14999", "after 1"],
        "close 1",
    );
}
