//! Whole tables of the standards, tried value by value: the flags of a fixed header, the reason codes of a
//! packet.
//!
//! A golden packet shows that one wrong value is refused; a bit that is not looked at, or one code too many,
//! is seen only where every value is tried.

use bytes::Bytes;

use super::*;

/// Packets by the first byte that the standard gives them, as somebody sends them to this side.
fn packets(side: Side) -> Vec<(u8, Packet)> {
    let ack = || Ack { packet_id: 1, reason: Reason::Success, properties: Properties::new() };
    let end = Disconnect { reason: Reason::Success, properties: Properties::new() };
    let method = Properties::from_list(&[Property::AuthenticationMethod("m".into())]);
    let auth = Auth { reason: Reason::ContinueAuthentication, properties: method };
    let mut list = vec![
        (0x40, Packet::PubAck(ack())),
        (0x50, Packet::PubRec(ack())),
        (0x62, Packet::PubRel(ack())),
        (0x70, Packet::PubComp(ack())),
        (0xE0, Packet::Disconnect(end)),
        (0xF0, Packet::Auth(auth)),
    ];
    match side {
        Side::Server => {
            let options = SubscriptionOptions {
                qos: QoS::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            };
            let filters = vec![Subscription { filter: "a".into(), options }];
            let subscribe = Subscribe { packet_id: 1, properties: Properties::new(), filters };
            let filters = vec!["a".into()];
            let unsubscribe = Unsubscribe { packet_id: 1, properties: Properties::new(), filters };
            list.push((0x82, Packet::Subscribe(subscribe)));
            list.push((0xA2, Packet::Unsubscribe(unsubscribe)));
            list.push((0xC0, Packet::PingReq));
        }
        Side::Client => {
            let reason = Reason::Success;
            let properties = Properties::new();
            let answer = ConnAck { session_present: false, reason, properties: properties.clone() };
            let reasons = vec![reason];
            let suback = SubAck { packet_id: 1, properties: properties.clone(), reasons: reasons.clone() };
            list.push((0x20, Packet::ConnAck(answer)));
            list.push((0x90, Packet::SubAck(suback)));
            list.push((0xB0, Packet::UnsubAck(UnsubAck { packet_id: 1, properties, reasons })));
            list.push((0xD0, Packet::PingResp));
        }
    }
    list
}

/// Who reads the packet, what stands before the code and after it, and the codes that may stand there.
type Row<'a> = (Side, &'a [u8], &'a [u8], &'a [u8]);

fn decode(side: Side, version: Option<Version>, bytes: &[u8]) -> Result<Option<Packet>, Malformed> {
    let mut decoder = Decoder::new(side, 1_000);
    if let Some(version) = version {
        decoder.set_version(version);
    }
    decoder.feed(Bytes::copy_from_slice(bytes));
    decoder.decode()
}

// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1]
// [MQTT311-2.2.2-1] [MQTT311-2.2.2-2] [MQTT311-3.6.1-1] [MQTT311-3.8.1-1] [MQTT311-3.10.1-1]
// [MQTT311-3.14.1-1]
#[test]
fn flags_have_the_listed_value_and_no_other() {
    for side in [Side::Server, Side::Client] {
        for version in [Version::V311, Version::V5] {
            for (first, packet) in packets(side) {
                let mut bytes = Vec::new();
                let no_such_packet = encode(&packet, version, &mut bytes).is_err();
                // Before MQTT 5 a server says no goodbye.
                if no_such_packet || (first == 0xE0 && side == Side::Client && version != Version::V5) {
                    continue;
                }
                assert_eq!(bytes[0], first, "{packet:?}");
                for flags in 0..16 {
                    bytes[0] = first & 0xF0 | flags;
                    let expected = if bytes[0] == first {
                        Ok(Some(packet.clone()))
                    } else {
                        Err(Malformed::HeaderFlags)
                    };
                    let found = decode(side, Some(version), &bytes);
                    assert_eq!(found.is_ok(), expected.is_ok(), "{flags:#06b} {version:?} {packet:?}");
                    assert_eq!(found.err(), expected.err(), "{flags:#06b} {version:?} {packet:?}");
                }
            }
        }
    }
    for level in [4, 5] {
        for flags in 1..16 {
            let bytes = [0x10 | flags, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 0, 0];
            assert_eq!(
                decode(Side::Server, None, &bytes).err(),
                Some(Malformed::HeaderFlags),
                "{flags:#06b}"
            );
        }
    }
}

// [MQTT31-2] [MQTT311-3.1.2-1] [MQTT311-3.1.2-2] [MQTT5-3.1.2-1] [MQTT5-3.1.2-2]
#[test]
fn a_name_has_the_levels_of_its_versions_and_no_other() {
    let others =
        ["", "MQT", "MQTTX", "mqtt", "MQTS", "MQIsd", "MQIsdpX", "mqisdp"].map(|name| (name, &[][..]));
    for (name, levels) in [("MQIsdp", &[3][..]), ("MQTT", &[4, 5])].into_iter().chain(others) {
        for level in 0..=u8::MAX {
            let length = u8::try_from(name.len()).unwrap();
            let rest = [level, 2, 0, 0, 0, 0, 0];
            let bytes = [&[0x10, 9 + length, 0, length], name.as_bytes(), &rest].concat();
            let refused = decode(Side::Server, None, &bytes).err() == Some(Malformed::ProtocolVersion);
            assert_eq!(refused, !levels.contains(&level), "{name} {level:#04x}");
        }
    }
}

// [MQTT311-3.9.3-2] [MQTT31-14]
#[test]
fn before_mqtt_5_suback_has_four_codes() {
    for version in [Version::V31, Version::V311] {
        for code in 0..=u8::MAX {
            let found = decode(Side::Client, Some(version), &[0x90, 3, 0, 1, code]);
            let expected = if matches!(code, 0..=2 | 0x80) { None } else { Some(Malformed::ReasonForeign) };
            assert_eq!(found.err(), expected, "{code:#04x}");
            // Whatever the refusal is, it is written as the one that there is.
            let Some(reason) = Reason::from_code(code).filter(|reason| reason.is_error()) else { continue };
            let answer = SubAck { packet_id: 1, properties: Properties::new(), reasons: vec![reason] };
            let mut bytes = Vec::new();
            encode(&Packet::SubAck(answer), version, &mut bytes).unwrap();
            assert_eq!(bytes, [0x90, 3, 0, 1, 0x80], "{reason:?}");
        }
    }
}

// [MQTT5-3.2.2-8] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] [MQTT5-3.9.3-2]
// [MQTT5-3.11.3-2] [MQTT5-3.14.2-1] [MQTT5-3.15.2-1]
#[test]
fn a_packet_has_the_reason_codes_of_its_table_and_no_other() {
    let taken: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let released: &[u8] = &[0x00, 0x92];
    let connack: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
        0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    let suback: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    let unsuback: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    let of_clients: &[u8] =
        &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let of_servers: &[u8] = &[
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
        0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    let auth = [4, 0x15, 0, 1, b'm'];
    let table: &[Row<'_>] = &[
        (Side::Client, &[0x20, 3, 0], &[0], connack),
        (Side::Server, &[0x40, 3, 0, 1], &[], taken),
        (Side::Client, &[0x40, 3, 0, 1], &[], taken),
        (Side::Server, &[0x50, 3, 0, 1], &[], taken),
        (Side::Client, &[0x50, 3, 0, 1], &[], taken),
        (Side::Server, &[0x62, 3, 0, 1], &[], released),
        (Side::Client, &[0x62, 3, 0, 1], &[], released),
        (Side::Server, &[0x70, 3, 0, 1], &[], released),
        (Side::Client, &[0x70, 3, 0, 1], &[], released),
        (Side::Client, &[0x90, 4, 0, 1, 0], &[], suback),
        (Side::Client, &[0xB0, 4, 0, 1, 0], &[], unsuback),
        (Side::Server, &[0xE0, 1], &[], of_clients),
        (Side::Client, &[0xE0, 1], &[], of_servers),
        (Side::Server, &[0xF0, 6], &auth, &[0x18, 0x19]),
        (Side::Client, &[0xF0, 6], &auth, &[0x00, 0x18]),
    ];
    for (side, before, after, codes) in table {
        for code in 0..=u8::MAX {
            let found = decode(*side, Some(Version::V5), &[*before, &[code], *after].concat());
            let expected = if codes.contains(&code) { None } else { Some(Malformed::ReasonForeign) };
            assert_eq!(found.err(), expected, "{code:#04x} in {before:x?} for {side:?}");
        }
    }
}
