//! Whatever can be said is read back as it was said, and whatever comes in is read alike in any pieces.
//!
//! Random packets from one fixed seed and from a fresh one, which is printed: set `CODEC_SEED` to it to
//! see a failure again.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const SIDES: [Side; 2] = [Side::Server, Side::Client];

#[test]
fn a_packet_is_read_back_as_it_was_written() {
    for_all(packet_lines(), |(side, version, packets)| {
        let mut bytes = Vec::new();
        for packet in &packets {
            let start = bytes.len();
            encode(packet, version, &mut bytes).unwrap();
            if let Packet::Publish(publish) = packet {
                let size = publish_size(version, &PublishParts::from(publish));
                assert_eq!(bytes.len() - start, size);
            }
        }
        let mut decoder = opened(side, version);
        assert_eq!(decode_in(&mut decoder, &[&bytes]), (packets, None));
        assert!(decoder.is_empty());
    });
}

#[test]
fn a_connect_is_read_back_as_it_was_written() {
    let connect = prop::sample::select(&VERSIONS[..]).prop_flat_map(connect);
    for_all(connect, |connect| {
        let version = connect.version;
        let packet = Packet::Connect(Box::new(connect));
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes).unwrap();
        let mut decoder = Decoder::new(Side::Server, 100_000);
        assert_eq!(decode_in(&mut decoder, &[&bytes]), (vec![packet], None));
        assert_eq!(decoder.version(), Some(version));
    });
}

#[test]
fn a_stream_is_read_alike_in_any_pieces() {
    let pieces = vec(1_usize..40, 1..30);
    for_all((packet_lines(), pieces), |((side, version, packets), pieces)| {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| encode(packet, version, &mut bytes).unwrap());
        let whole = decode_in(&mut opened(side, version), &[&bytes]);
        let (mut left, mut chunks) = (&*bytes, Vec::new());
        for size in pieces.iter().cycle() {
            let (chunk, rest) = left.split_at((*size).min(left.len()));
            chunks.push(chunk);
            left = rest;
            if left.is_empty() {
                break;
            }
        }
        assert_eq!(decode_in(&mut opened(side, version), &chunks), whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(decode_in(&mut opened(side, version), &single), whole);
    });
}

#[test]
fn garbage_ends_in_an_error_or_a_wait_and_never_in_a_panic() {
    let flips = vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    for_all((packet_lines(), flips, vec(any::<u8>(), 0..200)), |((side, version, packets), flips, noise)| {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| encode(packet, version, &mut bytes).unwrap());
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        for stream in [&bytes, &noise] {
            let whole = decode_in(&mut opened(side, version), &[stream]);
            let single: Vec<_> = stream.chunks(1).collect();
            assert_eq!(decode_in(&mut opened(side, version), &single), whole);
            decode_in(&mut Decoder::new(side, 1_000), &[stream]);
        }
    });
}

#[test]
fn what_travels_is_what_a_server_hands_on() {
    let block = vec(property(Carrier::ServerPublish), 0..8);
    for_all(block, |list| {
        let properties = Properties::from_list(&list);
        let stays: Vec<_> = list
            .into_iter()
            .filter(|property| {
                use Property::*;
                !matches!(property, MessageExpiryInterval(_) | TopicAlias(_) | SubscriptionIdentifier(_))
            })
            .collect();
        assert_eq!(properties.travelling(), Properties::from_list(&stays));
        assert_eq!(properties.travelling().iter().collect::<Vec<_>>(), stays);
    });
}

#[test]
fn a_publish_is_written_alike_from_parts_and_as_a_packet() {
    let parts = (publish(Side::Client, Version::V5), any::<Option<u32>>(), vec(1_u32..268_435_456, 0..4));
    for_all(parts, |(packet, expiry, subscription_ids)| {
        let travelling = packet.properties.travelling();
        let parts = PublishParts {
            properties: &travelling,
            expiry,
            subscription_ids: &subscription_ids,
            ..PublishParts::from(&packet)
        };
        for version in VERSIONS {
            let mut bytes = Vec::new();
            encode_publish(&mut bytes, version, &parts).unwrap();
            assert_eq!(bytes.len(), publish_size(version, &parts));
            let topic_alias = packet.topic.is_empty();
            match decode_in(&mut opened(Side::Client, version), &[&bytes]) {
                (packets, None) => {
                    let Some(Packet::Publish(read)) = packets.first() else { panic!("{packets:?}") };
                    assert_eq!((&read.topic, &read.payload), (&packet.topic, &packet.payload));
                    if version == Version::V5 {
                        assert_eq!(read.properties.message_expiry(), expiry);
                        let ids: Vec<_> = read.properties.subscription_identifiers().collect();
                        assert_eq!(ids, subscription_ids);
                        assert_eq!(read.properties.travelling(), travelling);
                    }
                }
                (_, fault) => assert!(topic_alias && fault == Some(Malformed::TopicMissing), "{fault:?}"),
            }
        }
    });
}

// [MQTT5-4.7.3-3] [MQTT311-4.7.3-3]
#[test]
fn what_mqtt_cannot_say_leaves_the_buffer_as_it_was() {
    let long = "x".repeat(65_536);
    let filters = vec![ByteString::from("a"), ByteString::from(long.as_str())];
    let packet = Packet::Unsubscribe(Unsubscribe { packet_id: 1, properties: Properties::new(), filters });
    let mut out = vec![7];
    assert_eq!(encode(&packet, Version::V5, &mut out), Err(Unwritable::TextTooLong));
    let parts = PublishParts { topic: &long, ..parts_of(b"") };
    assert_eq!(encode_publish(&mut out, Version::V311, &parts), Err(Unwritable::TextTooLong));
    let parts = PublishParts { subscription_ids: &[268_435_456], ..parts_of(b"") };
    assert_eq!(encode_publish(&mut out, Version::V5, &parts), Err(Unwritable::PacketTooLong));
    let auth = Packet::Auth(Auth { reason: Reason::Success, properties: Properties::new() });
    assert_eq!(encode(&auth, Version::V311, &mut out), Err(Unwritable::NotInVersion));
    assert_eq!(out, [7]);
    let said = Properties::new().with(Property::ReasonString(long.into())).with(Property::TopicAlias(1));
    assert_eq!(said, Properties::from_list(&[Property::TopicAlias(1)]));
}

#[test]
fn an_idle_decoder_is_small_and_pins_no_read_buffer() {
    assert!(size_of::<Decoder>() <= 64, "{} bytes", size_of::<Decoder>());
    let mut bytes = Vec::new();
    encode_publish(&mut bytes, Version::V311, &parts_of(b"payload")).unwrap();
    let buffer = Bytes::from(bytes);
    let mut decoder = opened(Side::Server, Version::V311);
    decoder.feed(buffer.clone());
    let packet = decoder.decode().unwrap().unwrap();
    assert_eq!(decoder.decode(), Ok(None));
    assert_eq!(decoder.held(), 0);
    assert!(!buffer.is_unique(), "the payload is a slice of the buffer");
    drop(packet);
    assert!(buffer.is_unique(), "and the decoder is none");

    // The begun packet is copied, and its copy grows with what comes.
    decoder.feed(buffer.slice(..5));
    assert_eq!(decoder.decode(), Ok(None));
    assert!(buffer.is_unique());
    assert_eq!(decoder.held(), 5);
}

#[test]
fn a_begun_packet_takes_no_more_room_than_came_twice_over() {
    let mut bytes = Vec::new();
    encode_publish(&mut bytes, Version::V311, &parts_of(&[7; 100_000])).unwrap();
    let mut decoder = opened(Side::Server, Version::V311);
    let mut fed = 0;
    let mut found = None;
    for chunk in bytes.chunks(700) {
        decoder.feed(Bytes::copy_from_slice(chunk));
        fed += chunk.len();
        found = decoder.decode().unwrap();
        assert!(decoder.held() <= (2 * fed).min(bytes.len()), "{} for {fed}", decoder.held());
    }
    assert!(found.is_some() && decoder.is_empty());
    assert_eq!(decoder.held(), 0);
}

#[test]
fn nothing_is_decoded_after_an_error() {
    let mut decoder = Decoder::new(Side::Server, 1_000);
    decoder.feed(Bytes::from_static(b"\x10\x0d\0\x04MQTT\x05\x03\0\0\0\0\0\xC0\0"));
    assert_eq!(decoder.decode(), Err(Malformed::ConnectFlagReserved));
    assert_eq!(decoder.version(), Some(Version::V5));
    decoder.feed(Bytes::from_static(b"\xC0\0"));
    assert_eq!(decoder.decode(), Ok(None));
    assert!(decoder.is_empty());
}

#[test]
fn a_connection_that_is_not_read_on_can_let_go_of_the_buffer() {
    let buffer = Bytes::from(b"\xC0\0\xC0\0".to_vec());
    let mut decoder = opened(Side::Server, Version::V5);
    decoder.feed(buffer.clone());
    assert_eq!(decoder.decode(), Ok(Some(Packet::PingReq)));
    decoder.compact();
    assert!(buffer.is_unique() && !decoder.is_empty());
    assert_eq!(decoder.decode(), Ok(Some(Packet::PingReq)));
}

fn for_all<S: Strategy>(strategy: S, test: impl Fn(S::Value)) {
    let fresh = std::env::var("CODEC_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = fresh.unwrap_or_else(|| RandomState::new().hash_one(0));
    for (seed, cases) in [(1, 200), (fresh, 200)] {
        println!("CODEC_SEED={seed}");
        let rng_seed = RngSeed::Fixed(seed);
        let config = Config { cases, rng_seed, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&strategy, |value| {
            test(value);
            Ok(())
        });
        if let Err(error) = result {
            panic!("CODEC_SEED={seed}: {error}");
        }
    }
}

fn opened(side: Side, version: Version) -> Decoder {
    let mut decoder = Decoder::new(side, 1_000_000);
    decoder.set_version(version);
    decoder
}

fn decode_in(decoder: &mut Decoder, chunks: &[&[u8]]) -> (Vec<Packet>, Option<Malformed>) {
    let mut packets = Vec::new();
    for chunk in chunks {
        decoder.feed(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.decode() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(fault) => return (packets, Some(fault)),
            }
        }
    }
    (packets, None)
}

fn parts_of(payload: &[u8]) -> PublishParts<'_> {
    static NONE: Properties = Properties::new();
    PublishParts {
        topic: "plant/line-1/speed/a",
        alias: None,
        payload,
        properties: &NONE,
        expiry: None,
        subscription_ids: &[],
        packet_id: 7,
        qos: QoS::AtLeastOnce,
        dup: false,
        retain: false,
    }
}

/// A side, a version, and packets that this side reads in this version.
fn packet_lines() -> impl Strategy<Value = (Side, Version, Vec<Packet>)> {
    (prop::sample::select(&SIDES[..]), prop::sample::select(&VERSIONS[..])).prop_flat_map(
        |(side, version)| vec(packet(side, version), 1..6).prop_map(move |packets| (side, version, packets)),
    )
}

fn packet(side: Side, version: Version) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        publish(side, version).prop_map(Packet::Publish),
        ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubAck),
        ack(version, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]).prop_map(Packet::PubRec),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubRel),
        ack(version, &[0x00, 0x92]).prop_map(Packet::PubComp),
    ];
    match side {
        Side::Server => prop_oneof![3 => both, 2 => from_client(version)].boxed(),
        Side::Client => prop_oneof![3 => both, 2 => from_server(version)].boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let will = (0_u8..3, any::<bool>(), topic(1), vec(any::<u8>(), 0..50), block(version, Carrier::Will));
    let will = will.prop_map(|(qos, retain, topic, payload, properties)| {
        let qos = QoS::from_bits(qos).unwrap();
        Will { qos, retain, topic, payload: payload.into(), properties }
    });
    let password = prop::option::of(vec(any::<u8>(), 0..20).prop_map(Bytes::from));
    let who = (text(0), prop::option::of(text(0)), password);
    let rest = (any::<bool>(), any::<u16>(), prop::option::of(will), block(version, Carrier::Connect));
    (who, rest).prop_map(move |(who, (clean_start, keep_alive, will, properties))| {
        let (client_id, username, password) = who;
        let password = password.filter(|_| version == Version::V5 || username.is_some());
        Connect { version, clean_start, keep_alive, client_id, will, username, password, properties }
    })
}

fn from_client(version: Version) -> BoxedStrategy<Packet> {
    let subscribe = (1..=u16::MAX, block(version, Carrier::Subscribe), vec(subscription(version), 1..4))
        .prop_map(|(packet_id, properties, filters)| Subscribe { packet_id, properties, filters });
    let unsubscribe = (1..=u16::MAX, block(version, Carrier::Unsubscribe), vec(text(1), 1..4))
        .prop_map(|(packet_id, properties, filters)| Unsubscribe { packet_id, properties, filters });
    prop_oneof![
        subscribe.prop_map(Packet::Subscribe),
        unsubscribe.prop_map(Packet::Unsubscribe),
        Just(Packet::PingReq),
        disconnect(version, Carrier::ClientDisconnect, &[0x00, 0x04, 0x80, 0x93, 0x99]),
    ]
    .boxed()
}

fn from_server(version: Version) -> BoxedStrategy<Packet> {
    let five = version == Version::V5;
    let codes: &[u8] =
        if five { &[0x00, 0x80, 0x84, 0x97, 0x9F] } else { &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88] };
    let connack = (any::<bool>(), reason(codes), block(version, Carrier::ConnAck)).prop_map(
        move |(present, reason, properties)| {
            let session_present = present && reason == Reason::Success && version != Version::V31;
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        },
    );
    let codes: &[u8] = if five { &[0, 1, 2, 0x80, 0x87, 0xA2] } else { &[0, 1, 2, 0x80] };
    let suback = (1..=u16::MAX, block(version, Carrier::SubAck), vec(reason(codes), 1..4))
        .prop_map(|(packet_id, properties, reasons)| SubAck { packet_id, properties, reasons });
    let reasons = if five { 1..4 } else { 0..1 };
    let unsuback = (1..=u16::MAX, block(version, Carrier::UnsubAck), vec(reason(&[0, 0x11, 0x8F]), reasons))
        .prop_map(|(packet_id, properties, reasons)| UnsubAck { packet_id, properties, reasons });
    let common = prop_oneof![
        connack,
        suback.prop_map(Packet::SubAck),
        unsuback.prop_map(Packet::UnsubAck),
        Just(Packet::PingResp)
    ];
    if !five {
        return common.boxed();
    }
    prop_oneof![
        4 => common,
        1 => disconnect(version, Carrier::ServerDisconnect, &[0x00, 0x8B, 0x8E, 0xA2]),
    ]
    .boxed()
}

fn publish(side: Side, version: Version) -> impl Strategy<Value = Publish> + use<> {
    let carrier = if side == Side::Server { Carrier::ClientPublish } else { Carrier::ServerPublish };
    let flags = (any::<bool>(), 0_u8..3, any::<bool>(), 1..=u16::MAX);
    (flags, topic(0), block(version, carrier), vec(any::<u8>(), 0..300)).prop_map(
        |((dup, qos, retain, packet_id), topic, properties, payload)| {
            let qos = QoS::from_bits(qos).unwrap();
            let at_most_once = qos == QoS::AtMostOnce;
            let named = !topic.is_empty() || properties.topic_alias().is_some();
            Publish {
                dup: dup && !at_most_once,
                qos,
                retain,
                topic: if named { topic } else { "t".into() },
                packet_id: if at_most_once { 0 } else { packet_id },
                properties,
                payload: payload.into(),
            }
        },
    )
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack> {
    let codes = if version == Version::V5 { codes } else { &[0] };
    (1..=u16::MAX, reason(codes), block(version, Carrier::Ack))
        .prop_map(|(packet_id, reason, properties)| Ack { packet_id, reason, properties })
}

fn disconnect(version: Version, carrier: Carrier, codes: &'static [u8]) -> impl Strategy<Value = Packet> {
    let codes = if version == Version::V5 { codes } else { &[0] };
    (reason(codes), block(version, carrier))
        .prop_map(|(reason, properties)| Packet::Disconnect(Disconnect { reason, properties }))
}

fn subscription(version: Version) -> impl Strategy<Value = Subscription> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (text(1), 0_u8..3, any::<bool>(), any::<bool>(), handling).prop_map(
        move |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let qos = QoS::from_bits(qos).unwrap();
            let options = match version {
                Version::V5 => SubscriptionOptions { qos, no_local, retain_as_published, retain_handling },
                _ => SubscriptionOptions {
                    qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Send,
                },
            };
            Subscription { filter, options }
        },
    )
}

fn reason(codes: &'static [u8]) -> impl Strategy<Value = Reason> {
    prop::sample::select(codes).prop_map(|code| Reason::from_code(code).unwrap())
}

/// Properties that `carrier` may have, none of them twice unless it may be.
fn block(version: Version, carrier: Carrier) -> BoxedStrategy<Properties> {
    if version != Version::V5 {
        return Just(Properties::new()).boxed();
    }
    let list = vec(property(carrier), 0..5);
    prop_oneof![Just(Vec::new()), list]
        .prop_map(move |list| {
            list.into_iter().fold(Properties::new(), |properties, property| {
                let more = properties.clone().with(property);
                match Properties::from_bytes(Bytes::copy_from_slice(more.as_bytes()), carrier) {
                    Ok(more) => more,
                    Err(_) => properties,
                }
            })
        })
        .boxed()
}

fn property(carrier: Carrier) -> BoxedStrategy<Property> {
    use Property as P;
    let flag = || 0_u8..2;
    let data = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let user = (text(0), text(0)).prop_map(|(name, value)| P::UserProperty(name, value));
    let publish = prop_oneof![
        flag().prop_map(P::PayloadFormatIndicator),
        any::<u32>().prop_map(P::MessageExpiryInterval),
        text(0).prop_map(P::ContentType),
        topic(0).prop_map(P::ResponseTopic),
        data().prop_map(P::CorrelationData),
        (1..=u16::MAX).prop_map(P::TopicAlias),
        (1_u32..268_435_456).prop_map(P::SubscriptionIdentifier),
    ];
    let opening = prop_oneof![
        any::<u32>().prop_map(P::SessionExpiryInterval),
        text(0).prop_map(P::AssignedClientIdentifier),
        any::<u16>().prop_map(P::ServerKeepAlive),
        text(0).prop_map(P::AuthenticationMethod),
        data().prop_map(P::AuthenticationData),
        (1..=u16::MAX).prop_map(P::ReceiveMaximum),
        any::<u16>().prop_map(P::TopicAliasMaximum),
        flag().prop_map(P::MaximumQoS),
        flag().prop_map(P::RetainAvailable),
        (1..=u32::MAX).prop_map(P::MaximumPacketSize),
    ];
    let flags = prop_oneof![
        flag().prop_map(P::WildcardSubscriptionAvailable),
        flag().prop_map(P::SubscriptionIdentifierAvailable),
        flag().prop_map(P::SharedSubscriptionAvailable),
        text(0).prop_map(P::ResponseInformation),
        text(0).prop_map(P::ServerReference),
        text(0).prop_map(P::ReasonString),
    ];
    match carrier {
        Carrier::ServerPublish | Carrier::ClientPublish => prop_oneof![publish, user].boxed(),
        Carrier::Will => prop_oneof![publish, any::<u32>().prop_map(P::WillDelayInterval), user].boxed(),
        _ => prop_oneof![opening, flags, user].boxed(),
    }
}

fn text(least: usize) -> impl Strategy<Value = ByteString> {
    vec(any::<char>().prop_filter("U+0000 is no text", |char| *char != '\0'), least..12)
        .prop_map(|chars| chars.into_iter().collect::<String>().into())
        .prop_filter("No Local has no meaning there", |text: &ByteString| !text.starts_with("$share/"))
}

fn topic(least: usize) -> impl Strategy<Value = ByteString> {
    text(least).prop_map(|text| text.replace(['+', '#'], "/").into())
}
