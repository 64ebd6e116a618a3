//! Promises of enhanced authentication: who may say what, when, and what becomes of it.
//!
//! What the words mean is not looked at here: "first" and "proof" stand for the client's, "salt" and "sign"
//! for ours.

use super::super::*;
use super::script::{Script, check, check_with, config};
use crate::access::Rules;
use crate::codec::Property;

const METHOD: &str = "method=SCRAM-SHA-256";
const CONNECT: &str = "1 connect a v5 clean keep=9 method=SCRAM-SHA-256 data=first";

fn with_passwords() -> Config {
    Config { passwords: Passwords::File, ..config() }
}

/// One client's words, until what is looked at.
fn hear(before: &[&str], events: &[&str], expected: &str) {
    let script = [&["open 1 password"], before, &["--"], events].concat();
    check_with(with_passwords(), &script, expected);
}

fn auth(code: &str, data: &str) -> String {
    format!("1 auth {code} {METHOD} data={data}")
}

/// The words of a client that has come in as anna.
fn login() -> Vec<String> {
    let words = [CONNECT, "1 challenged salt", &auth("0x18", "proof"), "1 proven anna sign"];
    words.map(str::to_owned).to_vec()
}

/// The same in a script of its own.
fn logged_in() -> Script {
    let mut script = Script::new(with_passwords());
    let login = login();
    let words: Vec<&str> = ["open 1 password"].into_iter().chain(login.iter().map(String::as_str)).collect();
    script.run(&words);
    script.run(&["--"]);
    script
}

// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-3.2.0-1]
#[test]
fn auth_goes_back_and_forth_before_connack_and_every_packet_names_the_method() {
    hear(&[], &[CONNECT], "authenticate 1 first");
    hear(&[CONNECT], &["1 challenged salt"], &format!("1 < auth 0x18 {METHOD} data=salt"));
    hear(&[CONNECT, "1 challenged salt"], &[&auth("0x18", "proof")], "authenticate 1 first / salt / proof");
    hear(
        &[CONNECT, "1 challenged salt", &auth("0x18", "proof")],
        &["1 proven anna sign"],
        &format!("1 < connack {METHOD} data=sign"),
    );
}

// [MQTT5-4.12.0-2] [MQTT5-4.12.0-5]
#[test]
fn a_client_may_leave_its_first_word_to_be_asked_for() {
    let connect = format!("1 connect a v5 clean keep=9 {METHOD}");
    hear(&[], &[&connect], &format!("1 < auth 0x18 {METHOD}"));
    hear(&[&connect], &[&auth("0x18", "first")], "authenticate 1 first");
    hear(&[&connect], &[&format!("1 auth 0x18 {METHOD}")], "authenticate 1 -");
}

// [MQTT5-4.12.0-4] [MQTT5-4.12.0-5]
#[test]
fn a_rejected_authentication_ends_the_connection_at_every_step() {
    for (word, reason) in [("unproven", "0x87"), ("busy", "0x97"), ("shunned", "0x9f")] {
        let refused = format!("1 < connack {reason}\nclose 1");
        hear(&[CONNECT], &[&format!("1 {word}")], &refused);
        let proof = auth("0x18", "proof");
        hear(&[CONNECT, "1 challenged salt", &proof], &[&format!("1 {word}")], &refused);
    }
}

// [MQTT5-4.12.0-1]
#[test]
fn a_method_that_is_not_there_is_refused() {
    let refused = "1 < connack 0x8c\nclose 1";
    hear(&[], &["1 connect a v5 clean method=SCRAM-SHA-1 data=first"], refused);
    hear(&[], &["1 connect a v5 clean method=scram-sha-256 data=first"], refused);
    // Without a password file there is nobody whom it could name.
    check(&["open 1", CONNECT], refused);
    check(&["open 1 password", CONNECT], refused);
    check_with(with_passwords(), &["open 1", CONNECT], "authenticate 1 first");
    let mut script = Script::new(with_passwords());
    let trust = Trust::Certificate { user: "anna".into() };
    let connection = ConnectionId { slot: 1, generation: 0 };
    let peer = Peer { name: "peer-1".into(), trust, terms: Terms::default() };
    script.handle(vec![Event::Opened { connection, peer }]);
    script.run(&[CONNECT]);
    assert_eq!(script.said, ["1 < connack 0x8c", "close 1"], "a certificate says it already");
    check_with(with_passwords(), &["open 1 port", CONNECT], refused);
}

// [MQTT5-3.1.2-30] [MQTT5-3.14.0-1]
#[test]
fn before_connack_only_auth_and_disconnect_may_come() {
    let wrong = "1 < connack 0x82\nclose 1";
    let proof = auth("0x18", "proof");
    for packet in ["publish t x", "ping", "subscribe 1 t", "connect a v5 clean", "puback 1"] {
        let packet = format!("1 {packet}");
        hear(&[CONNECT], &[&packet], wrong);
        hear(&[CONNECT, "1 challenged salt"], &[&packet], wrong);
        hear(&[CONNECT, "1 challenged salt", &proof], &[&packet], wrong);
    }
    hear(&[CONNECT, "1 challenged salt"], &["1 disconnect"], "close 1");
    hear(&[CONNECT, "1 challenged salt"], &["1 malformed 0x81"], "1 < connack 0x81\nclose 1");
    hear(&[CONNECT, "1 challenged salt"], &["1 lost", "1 proven anna sign"], "");
}

// [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn auth_out_of_turn_or_by_another_method_ends_the_connection() {
    let wrong = "1 < connack 0x82\nclose 1";
    // A question is out: it is not the client's turn.
    hear(&[CONNECT], &[&auth("0x18", "proof")], wrong);
    hear(&[CONNECT, "1 challenged salt"], &[&auth("0x19", "proof")], wrong);
    hear(&[CONNECT, "1 challenged salt"], &["1 auth 0x18 method=SCRAM-SHA-1 data=proof"], wrong);
    hear(&[CONNECT, "1 challenged salt"], &["1 auth"], wrong);
}

// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn without_a_method_in_connect_auth_ends_the_connection() {
    for packet in ["1 auth", &auth("0x18", "x"), &auth("0x19", "x")] {
        check(&["open 1", "1 connect a v5 clean", "--", packet], "1 < disconnect 0x82\nclose 1");
    }
    check(&["open 1", "1 auth 0x18 method=SCRAM-SHA-256"], "close 1");
}

#[test]
fn the_time_from_the_opening_to_connack_is_ten_seconds_whatever_comes_meanwhile() {
    let proof = auth("0x18", "proof");
    let words =
        ["after 6000", CONNECT, "after 2000", "1 challenged salt", "after 1999", &proof, "--", "after 1"];
    let script = [&["open 1 password"], &words[..]].concat();
    check_with(with_passwords(), &script, "1 < connack 0x87\nclose 1");
    // Who is in is measured by his keep alive again.
    let words = [CONNECT, "1 challenged salt", &proof, "after 9000", "1 proven anna sign"];
    hear(&words, &["after 13499", "after 1"], "1 < disconnect 0x8d\nclose 1");
}

#[test]
fn who_has_shown_who_he_is_is_that_user() {
    let named = |name: &str| CONNECT.replace("keep=9", &format!("keep=9 user={name} pass=x"));
    let proof = auth("0x18", "proof");
    for connect in [CONNECT, &named("anna")] {
        let rules = Rules::parse("user anna\ntopic write t\n").unwrap();
        let config = Config { rules: Some(rules.into()), ..with_passwords() };
        let mut script = Script::new(config);
        script.run(&["open 1 password", connect, "1 challenged salt", &proof, "1 proven anna sign", "--"]);
        script.run(&["1 publish t x q1 id=1", "1 publish u x q1 id=2"]);
        assert_eq!(script.said, ["1 < puback 1 0x10", "1 < puback 2 0x87"]);
    }
    // Another name beside it is a lie; the password beside it is not looked at.
    hear(
        &[&named("bert"), "1 challenged salt", &proof],
        &["1 proven anna sign"],
        "1 < connack 0x87\nclose 1",
    );
}

#[test]
fn what_forbids_a_client_to_come_is_asked_again_once_it_has_shown_who_it_is() {
    let mut one = with_passwords();
    one.limits.max_connections = 1;
    let words =
        ["open 1 password", CONNECT, "open 2", "2 connect b v5 clean keep=9", "--", "1 proven anna sign"];
    check_with(one.clone(), &words, "1 < connack 0x97\nclose 1");
    // Its own place is one that it takes over.
    let words =
        ["open 1 password", CONNECT, "open 2", "2 connect a v5 clean keep=9", "--", "1 proven anna sign"];
    let expected = format!("2 < disconnect 0x8e\nclose 2\n1 < connack {METHOD} data=sign");
    check_with(one, &words, &expected);
}

#[test]
fn will_session_and_takeover_are_those_of_the_connect() {
    let connect = "1 connect a v5 keep=9 expiry=60 will=w:gone method=SCRAM-SHA-256 data=first";
    let proof = auth("0x18", "proof");
    let words = ["open 2", "2 connect a v5 clean keep=9", "open 1 password", connect, "1 challenged salt"];
    let mut script = Script::new(with_passwords());
    script.run(&words);
    script.run(&["--", "2 ping"]);
    assert_eq!(script.said, ["2 < pong"], "who is not yet known takes nothing over");
    script.run(&["--", &proof, "1 proven anna sign", "commit"]);
    let expected = [
        "authenticate 1 first / salt / proof",
        "2 < disconnect 0x8e",
        "close 2",
        "write session a r1 will",
        &format!("1 < connack {METHOD} data=sign"),
    ];
    assert_eq!(script.said, expected);
    script.run(&["open 3", "3 connect c v5 clean keep=9", "3 subscribe 1 w", "--", "1 lost"]);
    assert!(script.said.contains(&"3 < publish w gone".to_owned()), "{:?}", script.said);
}

// [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
#[test]
fn a_client_may_show_again_who_it_is_while_other_packets_flow() {
    let mut script = logged_in();
    script.run(&[&auth("0x19", "first"), "1 ping", "1 challenged salt", "1 publish t x q1 id=1"]);
    script.run(&[&auth("0x18", "proof"), "1 ping", "1 proven anna sign", "1 ping"]);
    let expected = [
        "authenticate 1 first",
        "1 < pong",
        &format!("1 < auth 0x18 {METHOD} data=salt"),
        "1 < puback 1 0x10",
        "authenticate 1 first / salt / proof",
        "1 < pong",
        &format!("1 < auth 0x00 {METHOD} data=sign"),
        "1 < pong",
    ];
    assert_eq!(script.said, expected);
    // And again, from the beginning; the first word may be asked for.
    script.run(&["--", &format!("1 auth 0x19 {METHOD}"), &auth("0x18", "second")]);
    assert_eq!(script.said, [&format!("1 < auth 0x18 {METHOD}"), "authenticate 1 second"]);
}

// [MQTT5-4.12.1-2]
#[test]
fn a_failed_re_authentication_ends_the_connection() {
    for (word, reason) in [
        ("unproven", "0x87"),
        ("busy", "0x97"),
        ("shunned", "0x9f"),
        // Who is here stays who he is.
        ("proven bert sign", "0x87"),
    ] {
        let mut script = logged_in();
        script.run(&[&auth("0x19", "first"), "1 challenged salt", &auth("0x18", "proof")]);
        script.run(&["--", &format!("1 {word}")]);
        assert_eq!(script.said, [&format!("1 < disconnect {reason}"), "close 1"]);
    }
}

// [MQTT5-4.12.1-1]
#[test]
fn a_re_authentication_out_of_turn_or_by_another_method_ends_the_connection() {
    for words in [
        vec!["1 auth 0x19 method=SCRAM-SHA-1 data=first".to_owned()],
        vec!["1 auth".to_owned()],
        // Nothing is under way.
        vec![auth("0x18", "proof")],
        // Something is.
        vec![auth("0x19", "first"), auth("0x19", "first")],
        vec![auth("0x19", "first"), "1 challenged salt".to_owned(), auth("0x19", "first")],
    ] {
        let mut script = logged_in();
        script.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(script.said[script.said.len() - 2..], ["1 < disconnect 0x82", "close 1"], "{words:?}");
    }
}

// [MQTT5-3.15.2-2] [MQTT5-3.15.2-3]
#[test]
fn auth_has_no_words_and_no_user_properties_that_could_make_it_too_large() {
    let is_bare = |packet: &Packet| match packet {
        Packet::Auth(auth) => auth.properties.iter().all(|property| {
            matches!(property, Property::AuthenticationMethod(_) | Property::AuthenticationData(_))
        }),
        _ => panic!("{packet:?}"),
    };
    let mut script = Script::new(with_passwords());
    script.run(&["open 1 password", CONNECT, "1 challenged salt"]);
    assert!(matches!(&*script.heard, [packet] if is_bare(packet)), "{:?}", script.heard);
    let mut script = logged_in();
    script.run(&[&auth("0x19", "first"), "1 proven anna sign"]);
    assert!(matches!(&*script.heard, [packet] if is_bare(packet)), "{:?}", script.heard);
    // What is too large for the client all the same is not sent; it takes 27 bytes.
    let small = |size: u32| CONNECT.replace("keep=9", &format!("keep=9 size={size}"));
    let sent = format!("1 < auth 0x18 {METHOD} data=salt");
    hear(&[&small(27)], &["1 challenged salt"], &sent);
    hear(&[&small(26)], &["1 challenged salt"], "1 < connack 0x95\nclose 1");
}

#[test]
fn words_that_are_too_long_are_not_taken() {
    let (longest, longer) = ("x".repeat(1_024), "x".repeat(1_025));
    let connect = CONNECT.replace("first", &longer);
    hear(&[], &[&connect], "1 < connack 0x95\nclose 1");
    hear(&[], &[&CONNECT.replace("first", &longest)], &format!("authenticate 1 {longest}"));
    let mut script = logged_in();
    script.run(&[&auth("0x19", &longer)]);
    assert_eq!(script.said, ["1 < disconnect 0x95", "close 1"]);
}

#[test]
fn those_who_have_yet_to_show_who_they_are_hold_little_of_the_memory_and_give_it_back() {
    let mut small = with_passwords();
    small.limits.max_memory = 80_000;
    let mut script = Script::new(small);
    let come = |script: &mut Script, slot: u32| {
        let (name, will) = (format!("c{slot}{}", "n".repeat(1_000)), "x".repeat(2_000));
        let connect = format!("{slot} connect {name} v5 clean keep=9 will=w:{will} {METHOD} data=x");
        script.run(&["--", &format!("open {slot} password"), &connect]);
        script.said.clone()
    };
    assert_eq!(come(&mut script, 1), ["authenticate 1 x"]);
    assert_eq!(come(&mut script, 2), ["authenticate 2 x"]);
    assert!((6_000..9_000).contains(&script.broker.counters().memory));
    for slot in 3..6 {
        let refused = come(&mut script, slot);
        assert_eq!(refused, [format!("{slot} < connack 0x97"), format!("close {slot}")]);
    }
    // One comes in, one is turned away, one leaves, one takes too long: nothing is left of any.
    script.run(&["1 proven anna sign", "1 disconnect", "2 unproven"]);
    assert_eq!(script.broker.counters().memory, 0);
    come(&mut script, 1);
    script.run(&["1 lost"]);
    come(&mut script, 2);
    script.run(&["2 disconnect"]);
    come(&mut script, 3);
    script.run(&["after 10000"]);
    come(&mut script, 4);
    script.run(&["stop"]);
    assert_eq!(script.broker.counters().memory, 0);
}

#[test]
fn who_shows_again_who_he_is_has_ten_seconds_and_what_both_have_said_counts_as_memory() {
    let mut script = logged_in();
    let before = script.broker.counters().memory;
    let word = "x".repeat(1_000);
    for end in ["1 proven anna sign", "1 unproven", "1 lost"] {
        let mut script = logged_in();
        script.run(&[&auth("0x19", &word), &format!("1 challenged {word}"), &auth("0x18", &word)]);
        assert!((3_000..4_000).contains(&(script.broker.counters().memory - before)));
        script.run(&[end]);
        assert!(script.broker.counters().memory <= before, "{end}");
    }
    // Whatever else it says meanwhile.
    script.run(&[&auth("0x19", "first"), "1 challenged salt", "after 6000", "1 ping", "after 3999", "--"]);
    script.run(&["after 1"]);
    assert_eq!(script.said, ["1 < disconnect 0x87", "close 1"]);
    let mut script = logged_in();
    script.run(&[&auth("0x19", "first"), "1 proven anna sign", "after 9000", "1 ping", "--", "after 9000"]);
    assert!(script.said.is_empty(), "it has come to its end: {:?}", script.said);
}
