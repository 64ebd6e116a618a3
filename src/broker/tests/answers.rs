//! What the broker may say in its answers: reason codes that the packet has, nothing that is too large, no
//! words where a client wants none.
//!
//! That a client of its version can decode what it is sent holds in every script; here each answer is
//! brought about once.

use std::collections::BTreeSet;

use super::script::{Script, check, config, with_route};
use crate::codec::{Packet, Properties, Reason};

/// Every answer that an MQTT 5 client can bring about, as it decodes them.
fn answers(connect: &str) -> Vec<Packet> {
    let mut narrow = config();
    (narrow.limits.max_inflight, narrow.limits.retain) = (2, false);
    let mut heard = Vec::new();
    for lines in ANSWERS {
        let mut script = Script::new(narrow.clone());
        script.run(&["open 1"]);
        let connect = format!("1 connect a v5 clean keep=9 {connect}");
        for line in std::iter::once(&*connect).chain(lines.iter().copied()) {
            // What waits for a commit is said after it.
            for step in [line, "commit"] {
                script.run(&[step]);
                heard.append(&mut script.heard);
            }
        }
    }
    heard
}

/// What brings them about.
const ANSWERS: &[&[&str]] = &[
    &["1 publish t x q1 id=1", "1 publish tidegate/x y q1 id=1"],
    &["1 publish t x q2 id=1", "1 pubrel 1", "1 pubrel 1", "1 publish $SYS/x y q2 id=1"],
    &["1 subscribe 1 t q2", "1 publish t x q2 id=1", "1 pubrec 1", "1 pubcomp 1", "1 pubrec 9"],
    &["1 subscribe 1 a q0, b q1, c q2, d#", "1 unsubscribe 2 a d d#"],
    &["1 ping"],
    &["1 malformed 0x81"],
    &["1 malformed 0x95"],
    &["1 connect a v5"],
    &["1 auth"],
    &["1 publish t x alias=11"],
    &["1 publish t/+ x"],
    &["1 publish t x retain"],
    &["1 publish t x q2 id=1 ; publish t x q2 id=2 ; publish t x q2 id=3"],
    &["after 13500"],
    &["open 2", "2 connect a v5 clean keep=9"],
    &["stop"],
];

fn properties(packet: &Packet) -> Option<&Properties> {
    match packet {
        Packet::ConnAck(answer) => Some(&answer.properties),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            Some(&ack.properties)
        }
        Packet::SubAck(answer) => Some(&answer.properties),
        Packet::UnsubAck(answer) => Some(&answer.properties),
        Packet::Disconnect(answer) => Some(&answer.properties),
        _ => None,
    }
}

fn codes(heard: &[Packet], of: impl Fn(&Packet) -> Vec<Reason>) -> BTreeSet<u8> {
    heard.iter().flat_map(of).map(Reason::code).collect()
}

// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.9.3-2] [MQTT5-3.11.3-2]
// [MQTT5-3.14.2-1] [MQTT5-3.2.2-8]
#[test]
fn every_answer_has_a_reason_code_that_its_packet_may_have() {
    // A code of another packet is nothing that the clients of these scripts decode.
    let heard = answers("");
    let of = |wanted: fn(&Packet) -> Vec<Reason>| codes(&heard, wanted);
    let puback = of(|packet| if let Packet::PubAck(ack) = packet { vec![ack.reason] } else { vec![] });
    assert_eq!(puback, BTreeSet::from([0x10, 0x87]));
    let pubrec = of(|packet| if let Packet::PubRec(ack) = packet { vec![ack.reason] } else { vec![] });
    assert_eq!(pubrec, BTreeSet::from([0x00, 0x10, 0x87]));
    let pubrel = of(|packet| if let Packet::PubRel(ack) = packet { vec![ack.reason] } else { vec![] });
    assert_eq!(pubrel, BTreeSet::from([0x00, 0x92]));
    let pubcomp = of(|packet| if let Packet::PubComp(ack) = packet { vec![ack.reason] } else { vec![] });
    assert_eq!(pubcomp, BTreeSet::from([0x00, 0x92]));
    let suback = of(|packet| if let Packet::SubAck(ack) = packet { ack.reasons.clone() } else { vec![] });
    assert_eq!(suback, BTreeSet::from([0x00, 0x01, 0x02, 0x8F]));
    let unsuback = of(|packet| if let Packet::UnsubAck(ack) = packet { ack.reasons.clone() } else { vec![] });
    assert_eq!(unsuback, BTreeSet::from([0x00, 0x11, 0x8F]));
    let disconnect =
        of(|packet| if let Packet::Disconnect(end) = packet { vec![end.reason] } else { vec![] });
    let expected = [0x81, 0x82, 0x8B, 0x8D, 0x8E, 0x90, 0x93, 0x94, 0x95, 0x9A];
    assert_eq!(disconnect, BTreeSet::from(expected));
    let connack =
        of(|packet| if let Packet::ConnAck(answer) = packet { vec![answer.reason] } else { vec![] });
    assert_eq!(connack, BTreeSet::from([0x00]));
}

// [MQTT5-3.1.2-29]
#[test]
fn who_wants_no_problem_information_gets_none() {
    for wish in ["problem=0", "problem=1", ""] {
        for packet in answers(wish) {
            let Some(properties) = properties(&packet) else { continue };
            assert_eq!(properties.user_properties().count(), 0, "{packet:?}");
            let may = wish != "problem=0" || matches!(packet, Packet::ConnAck(_) | Packet::Disconnect(_));
            assert!(may || properties.reason_string().is_none(), "{packet:?}");
        }
    }
}

// [MQTT5-3.2.2-19] [MQTT5-3.2.2-20] [MQTT5-3.4.2-2] [MQTT5-3.4.2-3] [MQTT5-3.5.2-2] [MQTT5-3.5.2-3]
// [MQTT5-3.6.2-2] [MQTT5-3.6.2-3] [MQTT5-3.7.2-2] [MQTT5-3.7.2-3] [MQTT5-3.9.2-1] [MQTT5-3.9.2-2]
// [MQTT5-3.11.2-1] [MQTT5-3.11.2-2] [MQTT5-3.14.2-3] [MQTT5-3.14.2-4]
#[test]
fn no_words_make_an_answer_larger_than_its_client_takes() {
    // The largest answer here without words is CONNACK. Who sends more is caught by the scripts themselves.
    let heard = answers("size=20");
    let kinds: BTreeSet<_> =
        heard.iter().map(std::mem::discriminant).map(|kind| format!("{kind:?}")).collect();
    assert_eq!(kinds.len(), 10, "every packet that a server sends, save AUTH");
}

// [MQTT5-3.14.2-2]
#[test]
fn no_disconnect_of_ours_has_a_session_expiry() {
    let ends = answers("expiry=60");
    assert!(ends.iter().any(|packet| matches!(packet, Packet::Disconnect(_))));
    for packet in ends {
        let Packet::Disconnect(end) = &packet else { continue };
        assert_eq!(end.properties.session_expiry(), None);
    }
}

// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT311-3.14.4-1] [MQTT311-3.14.4-2]
#[test]
fn nothing_follows_a_disconnect_in_either_direction() {
    for version in ["v311", "v5"] {
        let mut script = Script::new(with_route(true));
        script.run(&[
            "open 2",
            "2 connect b v5 clean",
            "open 1",
            &format!("1 connect a {version} clean"),
            "1 subscribe 1 # q1",
            // An answer is still owed, and stays so.
            "1 publish up/x y q1 id=1",
            "--",
            "1 disconnect ; publish t x ; ping",
            "commit",
            "2 publish t x",
        ]);
        assert_eq!(script.said, ["close 1"]);
    }
    check(
        &[
            "open 2",
            "2 connect b v5 clean",
            "open 1",
            "1 connect a v5 clean",
            "1 subscribe 1 #",
            "--",
            "1 malformed 0x81 ; ping ; publish t x q1 id=1",
            "2 publish t x",
        ],
        "1 < disconnect 0x81
         close 1",
    );
}

// [MQTT311-3.9.3-2] [MQTT31-14]
#[test]
fn before_mqtt_5_a_refused_filter_is_0x80() {
    for version in ["v31", "v311"] {
        let mut script = Script::new(config());
        script.run(&["open 1", &format!("1 connect a {version} clean"), "1 subscribe 1 a q2, b#, c q0"]);
        let [Packet::SubAck(answer)] = &*script.heard else { panic!("{:?}", script.heard) };
        assert_eq!(answer.reasons, [Reason::GrantedQoS2, Reason::UnspecifiedError, Reason::Success]);
    }
}
