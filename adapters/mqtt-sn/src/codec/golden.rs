//! Golden octets: every message as the standard's tables lay it out.
//!
//! Each is read and written, so that both directions are held to the same octets; the numbers are those
//! of the list of 143 requirements.

use bytes::Bytes;

use super::*;

/// Reads the octets, expects the message, writes it, expects the octets.
fn check(hex: &str, message: Message) {
    let octets = octets(hex);
    assert_eq!(decode(&octets), Ok(message.clone()), "reading {hex}");
    assert_eq!(encode(&message, 65_535), Ok(octets), "writing {hex}");
}

fn refused(hex: &str, why: Malformed) {
    assert_eq!(decode(&octets(hex)), Err(why), "reading {hex}");
}

fn octets(hex: &str) -> Bytes {
    hex.split_whitespace().map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

#[test]
fn discovery_messages_have_their_octets() {
    // [SN-5.4.1] [SN-5.4.2] [SN-5.4.3]: requirements 16, 19, 23, 24, 25
    check("05 00 07 03 84", Message::Advertise { gateway_id: 7, duration: 900 });
    check("03 01 02", Message::SearchGw { radius: 2 });
    check("03 02 07", Message::GwInfo { gateway_id: 7, address: Bytes::new() });
    check("07 02 07 0a 00 00 01", Message::GwInfo { gateway_id: 7, address: octets("0a 00 00 01") });
}

#[test]
fn connection_messages_have_their_octets() {
    // Requirements 11, 12, 18, 26, 27, 28, 42, 43
    let mut connect =
        Connect { will: true, clean_session: true, protocol_id: 1, duration: 0x0102, client_id: "ab".into() };
    check("08 04 0c 01 01 02 61 62", Message::Connect(connect.clone()));
    connect.will = false;
    connect.clean_session = false;
    check("08 04 00 01 01 02 61 62", Message::Connect(connect));
    check("03 05 00", Message::ConnAck(ReturnCode::Accepted));
    check("03 05 01", Message::ConnAck(ReturnCode::Congestion));
    check("03 05 02", Message::ConnAck(ReturnCode::InvalidTopicId));
    check("03 05 03", Message::ConnAck(ReturnCode::NotSupported));
    check("03 05 7f", Message::ConnAck(ReturnCode::Reserved(0x7f)));
    check("02 16", Message::PingReq(None));
    check("04 16 61 62", Message::PingReq(Some("ab".into())));
    check("02 17", Message::PingResp);
    check("02 18", Message::Disconnect(None));
    check("04 18 01 2c", Message::Disconnect(Some(300)));
}

#[test]
fn will_messages_have_their_octets() {
    // Requirements 28, 29, 30, 44, 45
    let topic = WillTopic { qos: QosField::AtLeastOnce, retain: true, topic: "w".into() };
    check("02 06", Message::WillTopicReq);
    check("04 07 30 77", Message::WillTopic(Some(topic.clone())));
    check("02 07", Message::WillTopic(None));
    check("02 08", Message::WillMsgReq);
    check("04 09 62 79", Message::WillMsg("by".into()));
    check("02 09", Message::WillMsg(Bytes::new()));
    check("04 1a 30 77", Message::WillTopicUpd(Some(topic)));
    check("02 1a", Message::WillTopicUpd(None));
    check("03 1b 03", Message::WillTopicResp(ReturnCode::NotSupported));
    check("04 1c 62 79", Message::WillMsgUpd("by".into()));
    check("03 1d 00", Message::WillMsgResp(ReturnCode::Accepted));
}

#[test]
fn registration_messages_have_their_octets() {
    // Requirements 17, 21, 31, 32
    let register = Register { topic_id: 0, msg_id: 0x0201, topic: "a/b".into() };
    check("09 0a 00 00 02 01 61 2f 62", Message::Register(register));
    let code = ReturnCode::Accepted;
    check("07 0b 00 05 02 01 00", Message::RegAck { topic_id: 5, msg_id: 0x0201, code });
}

#[test]
fn publish_messages_have_their_octets() {
    // Requirements 12, 13, 14, 33, 35, 37
    let plain = Publish {
        dup: false,
        qos: QosField::AtMostOnce,
        retain: false,
        topic: TopicId::Normal(5),
        msg_id: 0,
        payload: "hi".into(),
    };
    check("09 0c 00 00 05 00 00 68 69", Message::Publish(plain.clone()));
    let full = Publish { dup: true, qos: QosField::AtLeastOnce, retain: true, msg_id: 7, ..plain.clone() };
    check("09 0c b0 00 05 00 07 68 69", Message::Publish(full));
    let twice = Publish { qos: QosField::ExactlyOnce, topic: TopicId::Predefined(1), ..plain.clone() };
    check("09 0c 41 00 01 00 00 68 69", Message::Publish(twice));
    let minus = Publish { qos: QosField::MinusOne, topic: TopicId::Short(*b"tt"), ..plain.clone() };
    check("09 0c 62 74 74 00 00 68 69", Message::Publish(minus));
    let reserved = Publish { topic: TopicId::Reserved(5), ..plain };
    check("09 0c 03 00 05 00 00 68 69", Message::Publish(reserved));
    let code = ReturnCode::InvalidTopicId;
    check("07 0d 00 05 00 07 02", Message::PubAck { topic_id: 5, msg_id: 7, code });
    check("04 0e 00 07", Message::PubComp(7));
    check("04 0f 00 07", Message::PubRec(7));
    check("04 10 00 07", Message::PubRel(7));
}

#[test]
fn subscribe_messages_have_their_octets() {
    // Requirements 38, 39, 41
    let name = Subscribe {
        dup: true,
        qos: QosField::ExactlyOnce,
        msg_id: 9,
        topic: TopicFilter::Name("a/#".into()),
    };
    check("08 12 c0 00 09 61 2f 23", Message::Subscribe(name.clone()));
    let plain = Subscribe { dup: false, qos: QosField::AtMostOnce, ..name };
    let with = |topic| Message::Subscribe(Subscribe { topic, ..plain.clone() });
    check("07 12 01 00 09 00 01", with(TopicFilter::Predefined(1)));
    check("07 12 02 00 09 74 74", with(TopicFilter::Short(*b"tt")));
    check("06 12 03 00 09 00", with(TopicFilter::Reserved(octets("00"))));
    let (qos, code) = (QosField::AtLeastOnce, ReturnCode::Accepted);
    check("08 13 20 00 05 00 09 00", Message::SubAck { qos, topic_id: 5, msg_id: 9, code });
    check(
        "08 14 00 00 09 61 2f 23",
        Message::Unsubscribe { topic: TopicFilter::Name("a/#".into()), msg_id: 9 },
    );
    check("07 14 01 00 09 00 01", Message::Unsubscribe { topic: TopicFilter::Predefined(1), msg_id: 9 });
    check("04 15 00 09", Message::UnsubAck(9));
}

#[test]
fn a_forwarders_length_ends_with_the_node_id() {
    // [SN-5.5]: requirements 46, 47, 48, 49
    let inner = octets("03 01 00");
    check("05 fe 01 aa bb 03 01 00", Message::Encapsulated { control: 1, node: octets("aa bb"), inner });
    let long = octets("01 00 07 01 00 00 00");
    let message = Message::Encapsulated { control: 0, node: octets("aa"), inner: long };
    check("04 fe 00 aa 01 00 07 01 00 00 00", message);
    refused("05 fe 01 aa", Malformed::Length);
    refused("04 fe 01 aa", Malformed::Short);
    refused("02 fe 01", Malformed::Length);
    refused("01 00 05 fe 00", Malformed::ReservedType(0xfe));
}

#[test]
fn a_length_of_three_octets_is_read_for_any_message_and_written_from_256_on() {
    // [SN-5.2.1]: requirements 2, 3, 4, 5
    assert_eq!(decode(&octets("01 00 05 01 02")), Ok(Message::SearchGw { radius: 2 }));
    for (payload, octets) in [(253, 255), (254, 258)] {
        let message = Message::WillMsg(vec![0; payload].into());
        let datagram = encode(&message, 65_535).unwrap();
        assert_eq!(datagram.len(), octets);
        assert_eq!(datagram[0], if octets == 255 { 255 } else { 1 });
        assert_eq!(decode(&datagram), Ok(message));
    }
}

#[test]
fn a_message_longer_than_the_network_carries_is_not_written() {
    // [SN-5.2.1] [SN-6.10]: requirement 6
    let message = Message::WillMsg(vec![0; 58].into());
    assert_eq!(encode(&message, 59), Err(TooLong { octets: 60, limit: 59 }));
    assert_eq!(encode(&message, 60).map(|datagram| datagram.len()), Ok(60));
    let message = Message::WillMsg(vec![0; 70_000].into());
    assert_eq!(encode(&message, 100_000), Err(TooLong { octets: 70_004, limit: 65_535 }));
}

#[test]
fn what_is_no_message_is_refused() {
    // Requirements 8, 9, 22, 29
    for reserved in [0x03, 0x11, 0x19, 0x1e, 0x42, 0xfd, 0xff] {
        assert_eq!(decode(&vec![2, reserved].into()), Err(Malformed::ReservedType(reserved)));
    }
    refused("", Malformed::Short);
    refused("02", Malformed::Short);
    refused("01 00", Malformed::Short);
    refused("00 16", Malformed::Length);
    refused("03 16", Malformed::Length);
    refused("02 16 00", Malformed::Length);
    refused("01 00 02 16", Malformed::Length);
    refused("02 04", Malformed::Short);
    refused("05 04 00 01 00", Malformed::Short);
    refused("04 05 00 00", Malformed::Trailing);
    refused("03 06 00", Malformed::Trailing);
    refused("03 07 00", Malformed::Short);
    refused("03 18 00", Malformed::Short);
    refused("05 18 00 00 00", Malformed::Trailing);
    refused("06 0c 00 00 05 00", Malformed::Short);
    refused("08 12 01 00 09 00 01 00", Malformed::Trailing);
    refused("06 12 02 00 09 74", Malformed::Short);
    refused("07 0a 00 00 00 01 ff", Malformed::Text);
    refused("07 04 00 01 00 00 ff", Malformed::Text);
}

#[test]
fn flags_that_a_message_does_not_use_are_ignored() {
    // [SN-5.3.4]: requirement 15
    let connect =
        Connect { will: false, clean_session: true, protocol_id: 1, duration: 0, client_id: "a".into() };
    assert_eq!(decode(&octets("07 04 f7 01 00 00 61")), Ok(Message::Connect(connect)));
    let unsubscribe = Message::Unsubscribe { topic: TopicFilter::Name("a".into()), msg_id: 9 };
    assert_eq!(decode(&octets("06 14 fc 00 09 61")), Ok(unsubscribe));
}
