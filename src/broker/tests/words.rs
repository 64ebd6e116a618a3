//! Scripts of what is said beside the codes: reason strings, response information, and their limits.
//!
//! Effects are looked at whole here, since scripts print no reason strings.

use super::script::{Script, config};
use crate::broker::Effect;
use crate::codec::{Packet, Properties, Reason};

/// The properties of the first packet that the last line made leave, and whether it closed anybody.
fn last(events: &[&str]) -> (Option<Packet>, bool) {
    let mut script = Script::new(config());
    script.run(events);
    let sent = script.effects.iter().find_map(|effect| match effect {
        Effect::Send { packet, .. } => Some(packet.clone()),
        _ => None,
    });
    (sent, script.effects.iter().any(|effect| matches!(effect, Effect::Close { .. })))
}

fn properties(packet: &Packet) -> &Properties {
    match packet {
        Packet::ConnAck(ack) => &ack.properties,
        Packet::Disconnect(disconnect) => &disconnect.properties,
        Packet::PubAck(ack) | Packet::PubRec(ack) => &ack.properties,
        Packet::SubAck(ack) => &ack.properties,
        other => panic!("{other:?}"),
    }
}

fn reason_string(events: &[&str]) -> Option<String> {
    let packet = last(events).0.expect("a packet leaves");
    properties(&packet).reason_string().map(|text| text.to_string())
}

#[test]
fn what_fails_is_told_in_words() {
    for (line, words) in [
        ("1 subscribe 1 a/#/b q0", "Topic Filter invalid"),
        ("1 publish $SYS/x y q1 id=1", "Not authorized"),
        ("1 publish $SYS/x y q2 id=1", "Not authorized"),
        ("1 malformed 0x95", "Packet too large"),
        ("1 publish a x alias=11", "Topic Alias invalid"),
    ] {
        assert_eq!(reason_string(&["open 1", "1 connect a v5 clean", line]).as_deref(), Some(words));
    }
    let refused = reason_string(&["open 1", "1 connect a v5 method=NTLM"]);
    assert_eq!(refused.as_deref(), Some("Bad authentication method"));
}

#[test]
fn what_is_well_needs_no_words() {
    for line in ["1 subscribe 1 a q0", "1 publish a y q1 id=1", "1 publish a y q2 id=1"] {
        assert_eq!(reason_string(&["open 1", "1 connect a v5 clean", line]), None, "{line}");
    }
}

#[test]
fn older_versions_are_told_no_words() {
    assert_eq!(reason_string(&["open 1", "1 connect a clean", "1 subscribe 1 a/#/b q0"]), None);
    assert_eq!(reason_string(&["open 1", "1 connect - v311"]), None);
}

// [MQTT5-3.1.2-29]
#[test]
fn who_wants_no_problem_information_gets_words_at_connack_and_disconnect_alone() {
    let without = |line| reason_string(&["open 1", "1 connect a v5 clean problem=0", line]);
    assert_eq!(without("1 subscribe 1 a/#/b q0"), None);
    assert_eq!(without("1 publish $SYS/x y q1 id=1"), None);
    assert_eq!(without("1 publish $SYS/x y q2 id=1"), None);
    assert_eq!(without("1 malformed 0x81").as_deref(), Some("Malformed Packet"));
    let with = reason_string(&["open 1", "1 connect a v5 clean problem=1", "1 subscribe 1 a/#/b q0"]);
    assert!(with.is_some());
}

#[test]
fn words_that_are_too_long_for_the_client_are_left_out() {
    let script = |size: u32| {
        last(&["open 1", &format!("1 connect a v5 clean keep=9 size={size}"), "1 subscribe 1 a/#/b q0"])
    };
    // SUBACK of 6 bytes, with words of 29.
    let (packet, closed) = script(29);
    assert!(properties(&packet.expect("an answer")).reason_string().is_some() && !closed);
    let (packet, closed) = script(28);
    assert!(properties(&packet.expect("an answer")).is_empty() && !closed);
}

#[test]
fn who_takes_no_packet_as_large_as_its_answer_is_let_go() {
    let (packet, closed) = last(&["open 1", "1 connect a v5 clean size=8"]);
    let Some(Packet::ConnAck(refusal)) = packet else { panic!("{packet:?}") };
    assert_eq!((refusal.reason, refusal.properties.is_empty()), (Reason::PacketTooLarge, true));
    assert!(closed, "there is no CONNACK of 8 bytes");
}

// [MQTT5-3.1.2-28]
#[test]
fn response_information_is_told_to_who_asks() {
    let told = |line: &str| {
        let packet = last(&["open 1", line]).0.expect("CONNACK");
        properties(&packet).response_information().map(|text| text.to_string())
    };
    assert_eq!(told("1 connect a v5 clean response=1").as_deref(), Some("replies/a"));
    assert_eq!(told("1 connect a v5 clean response=0"), None);
    assert_eq!(told("1 connect a v5 clean"), None);
    assert_eq!(told("1 connect a+ v5 clean response=1"), None);
    let assigned = told("1 connect - v5 clean response=1").expect("it has a client id by then");
    assert!(assigned.starts_with("replies/barn-"), "{assigned}");
    let mut silent = config();
    silent.limits.response_information = String::new();
    let mut script = Script::new(silent);
    script.run(&["open 1", "1 connect a v5 clean response=1"]);
    let said = script.effects.iter().any(|effect| {
        matches!(effect, Effect::Send { packet, .. } if properties(packet).response_information().is_some())
    });
    assert!(!said);
}

#[test]
fn the_engine_learns_how_many_aliases_a_client_takes() {
    for (line, expected) in [
        ("1 connect a v5 clean aliases=4", 4),
        ("1 connect a v5 clean aliases=400", 10),
        ("1 connect a v5 clean", 0),
    ] {
        let mut script = Script::new(config());
        script.run(&["open 1", line]);
        let Effect::Speak { topic_alias_maximum, .. } = script.effects[0] else { panic!("{line}") };
        assert_eq!(topic_alias_maximum, expected, "{line}");
    }
}
