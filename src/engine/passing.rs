//! Tests of what goes straight: it is what would have come otherwise.
//!
//! To the same readers, in their words and in the same order.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::Input;
use super::stepped::Stepped;
use super::testing::{Client, connect, puback, publish, subscribe};
use crate::access::Rules;
use crate::broker::tests::random::{Random, fresh_seed};
use crate::codec::{Ack, Packet, Properties, Property, Publish, QoS, Reason, Version};

/// A reader of QoS 0 that says such a CONNECT.
fn reader(
    stepped: &mut Stepped,
    version: Version,
    name: &str,
    properties: &[Property],
) -> Client<UnixStream> {
    reader_of(QoS::AtMostOnce, stepped, version, name, properties)
}

fn reader_of(
    qos: QoS,
    stepped: &mut Stepped,
    version: Version,
    name: &str,
    properties: &[Property],
) -> Client<UnixStream> {
    let Packet::Connect(mut hello) = connect(version, name) else { panic!("CONNECT") };
    hello.properties = Properties::from_list(properties);
    let mut client = stepped.greet_in(version, &Packet::Connect(hello));
    client.send(&subscribe("t/#", qos));
    assert!(matches!(stepped.answer(&mut client), Packet::SubAck(_)));
    client
}

fn messages(packets: Vec<Packet>) -> Vec<Publish> {
    let messages = packets.into_iter().map(|packet| match packet {
        Packet::Publish(publish) => publish,
        other => panic!("a PUBLISH, not {other:?}"),
    });
    messages.collect()
}

#[test]
fn each_is_sent_the_same_message_in_his_own_words() {
    for publisher in [Version::V31, Version::V311, Version::V5] {
        let mut stepped = Stepped::start(|_| {});
        let aliases = [Property::TopicAliasMaximum(2)];
        let mut readers = [
            reader(&mut stepped, Version::V311, "older", &[]),
            reader(&mut stepped, Version::V31, "oldest", &[]),
            reader(&mut stepped, Version::V5, "newer", &[]),
            reader(&mut stepped, Version::V5, "aliased", &aliases),
        ];
        let mut speaker = stepped.greet_in(publisher, &connect(publisher, "speaker"));
        let payloads = [&b""[..], b"x", &[7; 200], b"y", b"z"];
        for payload in payloads {
            speaker.publish("t/temperature", payload, QoS::AtMostOnce);
            stepped.turn();
        }
        for (number, reader) in readers.iter_mut().enumerate() {
            let got = messages(reader.take_now());
            let found: Vec<&[u8]> = got.iter().map(|message| &*message.payload).collect();
            assert_eq!(found, payloads, "{publisher:?}, {number}");
            for (place, message) in got.iter().enumerate() {
                // Who takes aliases is told the topic once.
                let topic = if number == 3 && place > 0 { "" } else { "t/temperature" };
                assert_eq!((&*message.topic, message.qos, message.retain), (topic, QoS::AtMostOnce, false));
            }
        }
        assert_eq!(stepped.engine.counters.passed, 3, "two show the way");
        let counters = stepped.engine.counters;
        assert_eq!(counters.packets_in, 4 * 2 + 1 + 5);
        assert_eq!(counters.packets_out, 4 * 2 + 1 + 4 * 5);
        let counted = stepped.engine.broker.counters();
        assert_eq!((counted.received, counted.sent), (5, 20));
        assert_eq!((counted.received_bytes, counted.sent_bytes), (203, 4 * 203));
    }
}

/// What a client says to each of these packets, and the messages among them.
fn answer_all(client: &mut Client<UnixStream>, packets: Vec<Packet>) -> Vec<Publish> {
    let mut messages = Vec::new();
    for packet in packets {
        let ack = |packet_id| Ack { packet_id, reason: Reason::Success, properties: Properties::new() };
        let answer = match packet {
            Packet::Publish(publish) => {
                let answer = match publish.qos {
                    QoS::AtMostOnce => None,
                    QoS::AtLeastOnce => Some(Packet::PubAck(ack(publish.packet_id))),
                    QoS::ExactlyOnce => Some(Packet::PubRec(ack(publish.packet_id))),
                };
                messages.push(publish);
                answer
            }
            Packet::PubRec(known) => Some(Packet::PubRel(ack(known.packet_id))),
            Packet::PubRel(known) => Some(Packet::PubComp(ack(known.packet_id))),
            Packet::PubAck(_) | Packet::PubComp(_) => None,
            other => panic!("{other:?}"),
        };
        answer.iter().for_each(|answer| client.send(answer));
    }
    messages
}

#[test]
fn each_is_sent_it_as_surely_as_he_has_asked_and_its_publisher_is_answered() {
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for (publisher, sent) in [Version::V311, Version::V5].into_iter().flat_map(|of| all.map(|qos| (of, qos)))
    {
        let mut stepped = Stepped::start(|_| {});
        let aliases = [Property::TopicAliasMaximum(2)];
        let mut readers = Vec::new();
        for (number, asked) in all.into_iter().enumerate() {
            for (version, properties) in
                [(Version::V311, &[][..]), (Version::V5, &[]), (Version::V5, &aliases)]
            {
                let name = format!("{number} {version:?} {}", properties.len());
                let client = reader_of(asked, &mut stepped, version, &name, properties);
                readers.push((asked, client, Vec::new()));
            }
        }
        let mut speaker = stepped.greet_in(publisher, &connect(publisher, "speaker"));
        // More than may be under way at once: some wait.
        let (most, mut ended, mut next) = (200_u16, 0, 1);
        stepped.turn_until(2_000, |engine| {
            for packet in speaker.take_now() {
                ended += u16::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
                assert_eq!(answer_all(&mut speaker, vec![packet]), []);
            }
            if sent == QoS::AtMostOnce {
                ended = next - 1;
            }
            while next <= most && next - ended <= 20 {
                speaker.send(&publish("t/5", &next.to_be_bytes(), sent, next));
                next += 1;
            }
            let counted = engine.broker.counters();
            readers.iter_mut().for_each(|(_, client, got)| {
                // One word for many is seldom: it answers when some have come.
                let packets = client.take_now();
                got.extend(answer_all(client, packets));
            });
            ended == most && counted.sent == 9 * u64::from(most) && engine.events.is_empty()
        });
        (0..20).for_each(|_| stepped.turn());
        for (asked, client, got) in &mut readers {
            let packets = client.take_now();
            got.extend(answer_all(client, packets));
            let numbers: Vec<u16> = got
                .iter()
                .map(|message| u16::from_be_bytes(*message.payload.first_chunk().unwrap()))
                .collect();
            assert_eq!(numbers, (1..=most).collect::<Vec<u16>>(), "{publisher:?} {sent:?} {asked:?}");
            assert!(got.iter().all(|message| message.qos == sent.min(*asked) && !message.dup));
        }
        let counters = stepped.engine.counters;
        assert!(
            counters.passed > u64::from(most) / 2,
            "{} have gone straight: {publisher:?} {sent:?}",
            counters.passed
        );
        // At QoS 2 a reader is sent PUBREL, too, and its publisher two words.
        let words = |qos: QoS| [0_u64, 1, 2][qos as usize];
        let of_readers = readers.iter().map(|(asked, ..)| 1 + words(sent.min(*asked)).saturating_sub(1));
        let said = u64::from(most) * (of_readers.sum::<u64>() + words(sent));
        assert_eq!(counters.packets_out, 9 * 2 + 1 + said);
        assert_eq!(counters.malformed, 0);
        assert!(stepped.engine.broker.counters().dropped.is_empty());
    }
}

#[test]
fn nothing_overtakes_what_the_same_client_said_before() {
    let fresh = fresh_seed();
    println!("seed {fresh}");
    for seed in [1, 2, fresh] {
        let mut random = Random(seed);
        let mut stepped = Stepped::start(|_| {});
        let mut panel = reader(&mut stepped, Version::V5, "panel", &[]);
        let mut speaker = stepped.connect("speaker");
        let (mut number, mut next) = (0_u32, 0_u32);
        for _ in 0..200 {
            let mut bytes = Vec::new();
            // A few words, and now and then more than may be said at once.
            for _ in 0..[3, 3, 3, 100][random.below(4)] {
                let topic = ["t/1", "t/2", "t/3"][random.below(3)];
                let Packet::Publish(mut packet) = publish(topic, &number.to_be_bytes(), QoS::AtMostOnce, 0)
                else {
                    panic!("PUBLISH")
                };
                packet.retain = random.below(8) == 0;
                bytes.extend(speaker.bytes(&Packet::Publish(packet)));
                if random.below(20) == 0 {
                    bytes.extend(speaker.bytes(&Packet::PingReq));
                }
                number += 1;
            }
            // The end of a packet may come later.
            let cut = bytes.len() - random.below(4);
            speaker.send_bytes(&bytes[..cut]);
            stepped.turn();
            speaker.send_bytes(&bytes[cut..]);
            stepped.turn();
            for message in messages(panel.take_now()) {
                assert_eq!(*message.payload, next.to_be_bytes(), "seed {seed}");
                next += 1;
            }
            speaker.take_now();
        }
        stepped.turn_until(1_000, |_| {
            for message in messages(panel.take_now()) {
                assert_eq!(*message.payload, next.to_be_bytes(), "seed {seed}");
                next += 1;
            }
            next == number
        });
        let passed = stepped.engine.counters.passed;
        assert!(passed > u64::from(number) / 4, "{passed} of {number} have gone straight");
    }
}

/// The most that is held for readers who do not read, where one message is large.
fn held_for_many(topic: &str) -> usize {
    let readers = 400;
    let mut stepped = Stepped::start(|parts| parts.limits.max_memory = 4 << 20);
    let subscribed = stepped.readers(readers, "t/#", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    for topic in ["n", "n", "t/big", "t/big", "n", "t/fill", "t/fill"] {
        speaker.publish(topic, b"x", QoS::AtMostOnce);
        stepped.turn_until(100, |engine| engine.courier.put_off.is_empty() && !engine.intake.is_ready());
    }
    let is_blocked = |engine: &mut super::Engine| {
        let sockets = 0..engine.table.sockets();
        let blocked =
            sockets.filter(|slot| engine.table.polled(*slot).is_some_and(|(_, it)| it.is_blocked()));
        blocked.count() == readers
    };
    while !is_blocked(&mut stepped.engine) {
        speaker.publish("t/fill", &[7; 2_000], QoS::AtMostOnce);
        (0..60).for_each(|_| stepped.turn());
    }
    // Into the lane of those who say much, and the large one whole in one read.
    let mut bytes = speaker.bytes(&publish("n", b"0123456789", QoS::AtMostOnce, 0)).repeat(540);
    bytes.extend(speaker.bytes(&publish(topic, &[7; 15_000], QoS::AtMostOnce, 0)));
    speaker.send_bytes(&bytes);
    let mut most = 0;
    for _ in 0..300 {
        stepped.turn();
        most = most.max(stepped.engine.table.held());
    }
    drop(subscribed);
    most
}

#[test]
fn one_large_message_to_many_who_do_not_read_does_not_take_all_memory() {
    for topic in ["t/other", "t/big"] {
        let held = held_for_many(topic);
        assert!(held < 5 << 20, "{held} bytes for {topic}");
    }
}

#[test]
fn a_few_words_are_a_few_though_one_of_them_goes_straight() {
    let mut stepped = Stepped::start(|_| {});
    let mut panel = stepped.reader("panel", "t/#", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    for _ in 0..3 {
        speaker.publish("t/5", b"x", QoS::AtMostOnce);
        stepped.turn();
    }
    let mut floods: Vec<_> = (0..20).map(|number| stepped.connect(&format!("flood-{number}"))).collect();
    for flood in &mut floods {
        let words = flood.bytes(&publish("nobody", &[7; 20], QoS::AtMostOnce, 0));
        flood.send_bytes(&words.repeat(3_000));
    }
    stepped.turn();
    stepped.turn();
    let passed = stepped.engine.counters.passed;
    let mut bytes = speaker.bytes(&publish("t/5", b"x", QoS::AtMostOnce, 0));
    bytes.extend(speaker.bytes(&Packet::PingReq).repeat(2));
    speaker.send_bytes(&bytes);
    stepped.turn();
    assert_eq!(speaker.take_now(), [Packet::PingResp, Packet::PingResp]);
    assert_eq!(panel.take_now().len(), 4);
    assert!(stepped.engine.counters.passed > passed);
}

#[test]
fn a_few_words_are_a_few_though_others_have_meant_much_by_theirs() {
    let mut stepped = Stepped::start(|_| {});
    let mut panel = stepped.reader("panel", "t/#", QoS::AtMostOnce);
    let _readers = stepped.readers(300, "w/#", QoS::AtMostOnce);
    let mut speaker = stepped.connect("speaker");
    let [mut first, mut other] = ["first", "other"].map(|name| stepped.connect(name));
    for _ in 0..3 {
        speaker.publish("t/5", b"x", QoS::AtMostOnce);
        first.publish("n", b"x", QoS::AtMostOnce);
        other.publish("n", b"x", QoS::AtMostOnce);
        stepped.turn();
    }
    stepped.turn_until(100, |engine| engine.courier.put_off.is_empty() && !engine.intake.is_ready());
    let passed = stepped.engine.counters.passed;
    assert_eq!(panel.take_now().len(), 3);
    first.send(&Packet::PingReq);
    other.publish("w/1", b"x", QoS::AtMostOnce);
    speaker.publish("t/5", b"y", QoS::AtMostOnce);
    stepped.turn();
    assert_eq!(stepped.engine.counters.passed, passed + 1);
    assert!(!stepped.engine.courier.put_off.is_empty(), "many wait for what the other one has said");
    speaker.publish("t/5", b"z", QoS::AtMostOnce);
    stepped.turn();
    assert_eq!(panel.take_now().len(), 2);
}

#[test]
fn a_few_words_for_which_large_messages_come_are_not_a_few() {
    let mut stepped = Stepped::start(|parts| parts.limits.max_send_buffer = 8 << 20);
    let mut panel = reader_of(QoS::AtLeastOnce, &mut stepped, Version::V5, "panel", &[]);
    let mut speaker = stepped.connect("speaker");
    let (under_way, waiting) = (20_u16, 16);
    let mut got = Vec::new();
    for _ in 0..under_way + waiting {
        speaker.send(&publish("t/1", &[7; 60_000], QoS::AtLeastOnce, 1));
        (0..5).for_each(|_| stepped.turn());
        got.extend(messages(panel.take_now()));
    }
    stepped.turn_until(100, |engine| {
        got.extend(messages(panel.take_now()));
        got.len() == usize::from(under_way) && engine.courier.put_off.is_empty()
    });
    for message in got.iter().take(16) {
        panel.send(&puback(message.packet_id));
    }
    let sent = stepped.engine.broker.counters().sent;
    stepped.turn();
    let more = stepped.engine.broker.counters().sent - sent;
    assert!((1..=12).contains(&more), "{more} in one turn");
}

#[test]
fn new_rules_hold_for_what_is_read_after_them() {
    let mut stepped = Stepped::start(|_| {});
    let mut panel = reader(&mut stepped, Version::V5, "panel", &[]);
    let mut speaker = stepped.connect("speaker");
    for _ in 0..3 {
        speaker.publish("t/1", b"x", QoS::AtMostOnce);
        stepped.turn();
    }
    assert_eq!((panel.take_now().len(), stepped.engine.counters.passed), (3, 1));
    stepped.say(Input::Rules(Arc::new(Rules::parse("topic read t/#\n").unwrap())));
    speaker.publish("t/1", b"y", QoS::AtMostOnce);
    stepped.turn();
    stepped.turn();
    assert_eq!(panel.take_now(), []);
}

#[test]
fn who_does_not_read_loses_what_is_beyond_his_buffer_and_it_is_counted() {
    let mut stepped = Stepped::start(|parts| parts.limits.max_send_buffer = 50_000);
    let mut panel = reader(&mut stepped, Version::V5, "panel", &[]);
    let mut speaker = stepped.connect("speaker");
    let (sent, size) = (1_500_u32, 1_000);
    for number in 0..sent {
        let mut payload = vec![7; size];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        speaker.publish("t/1", &payload, QoS::AtMostOnce);
        stepped.turn();
    }
    let dropped = stepped.engine.counters.dropped_send_buffer;
    assert!(dropped > 1_000 && stepped.engine.counters.passed > 1_400, "{dropped}");
    let (mut got, mut last) = (0, None);
    stepped.turn_until(1_000, |_| {
        for message in messages(panel.take_now()) {
            let number = u32::from_be_bytes(*message.payload.first_chunk().unwrap());
            assert!(last.is_none_or(|last| last < number), "in order");
            last = Some(number);
            got += 1;
        }
        got + dropped == u64::from(sent)
    });
}
