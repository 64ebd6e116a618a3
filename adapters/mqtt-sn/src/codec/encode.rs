//! One message to one datagram.
//!
//! The counterpart of `decode`: what it writes, `decode` reads back as the same value. A message that
//! would be longer than the network carries is no datagram, since nothing is ever cut in pieces.

use bytes::{BufMut, Bytes, BytesMut};

use super::decode::{ENCAPSULATION_HEADER, LONG_FORM};
use super::message::{Connect, Message, Publish, QosField, ReturnCode, TopicFilter, TopicId, WillTopic};
use super::{flag, kind};

/// The message does not fit in a datagram of this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has {octets} octets, the network carries {limit}")]
pub struct TooLong {
    /// Octets of the message.
    pub octets: usize,
    /// Octets that a datagram may have.
    pub limit: usize,
}

/// Writes a message of at most `limit` octets.
pub fn encode(message: &Message, limit: usize) -> Result<Bytes, TooLong> {
    let mut body = BytesMut::new();
    let kind = write(message, &mut body);
    if let Message::Encapsulated { node, inner, .. } = message {
        return encapsulate(node.len(), inner, &body, limit);
    }
    let mut octets = body.len() + SHORT_HEADER;
    // [SN-5.2.1] The one-octet length reaches to 255.
    let short = u8::try_from(octets).ok();
    if short.is_none() {
        octets = body.len() + LONG_HEADER;
    }
    let long = u16::try_from(octets).map_err(|_| TooLong { octets, limit: limit.min(LENGTH_MAX) })?;
    if octets > limit {
        return Err(TooLong { octets, limit });
    }
    let mut datagram = BytesMut::with_capacity(octets);
    match short {
        Some(length) => datagram.put_u8(length),
        None => {
            datagram.put_u8(LONG_FORM);
            datagram.put_u16(long);
        }
    }
    datagram.put_u8(kind);
    datagram.put_slice(&body);
    Ok(datagram.freeze())
}

/// [SN-5.5] The length stops before the inner message.
fn encapsulate(node: usize, inner: &Bytes, body: &BytesMut, limit: usize) -> Result<Bytes, TooLong> {
    let header = node + ENCAPSULATION_HEADER;
    let octets = header + inner.len();
    let too_long = TooLong { octets, limit };
    let length = u8::try_from(header).map_err(|_| too_long)?;
    if octets > limit {
        return Err(too_long);
    }
    let mut datagram = BytesMut::with_capacity(octets);
    datagram.put_u8(length);
    datagram.put_u8(kind::ENCAPSULATED);
    datagram.put_slice(body);
    Ok(datagram.freeze())
}

/// Writes what follows the type, and says which type it is.
fn write(message: &Message, body: &mut BytesMut) -> u8 {
    match message {
        Message::Advertise { gateway_id, duration } => {
            body.put_u8(*gateway_id);
            body.put_u16(*duration);
            kind::ADVERTISE
        }
        Message::SearchGw { radius } => octets(kind::SEARCHGW, &[*radius], &[], body),
        Message::GwInfo { gateway_id, address } => octets(kind::GWINFO, &[*gateway_id], address, body),
        Message::Connect(connect) => write_connect(connect, body),
        Message::ConnAck(code) => octets(kind::CONNACK, &[code.octet()], &[], body),
        Message::WillTopicReq => kind::WILLTOPICREQ,
        Message::WillTopic(topic) => write_will_topic(kind::WILLTOPIC, topic.as_ref(), body),
        Message::WillMsgReq => kind::WILLMSGREQ,
        Message::WillMsg(payload) => octets(kind::WILLMSG, &[], payload, body),
        Message::Register(register) => {
            body.put_u16(register.topic_id);
            body.put_u16(register.msg_id);
            octets(kind::REGISTER, &[], register.topic.as_bytes(), body)
        }
        Message::RegAck { topic_id, msg_id, code } => {
            acknowledgement(kind::REGACK, *topic_id, *msg_id, *code, body)
        }
        Message::Publish(publish) => write_publish(publish, body),
        Message::PubAck { topic_id, msg_id, code } => {
            acknowledgement(kind::PUBACK, *topic_id, *msg_id, *code, body)
        }
        Message::PubRec(msg_id) => octets(kind::PUBREC, &msg_id.to_be_bytes(), &[], body),
        Message::PubRel(msg_id) => octets(kind::PUBREL, &msg_id.to_be_bytes(), &[], body),
        Message::PubComp(msg_id) => octets(kind::PUBCOMP, &msg_id.to_be_bytes(), &[], body),
        Message::Subscribe(subscribe) => {
            let mut flags = qos_bits(subscribe.qos);
            set(&mut flags, flag::DUP, subscribe.dup);
            write_filter(kind::SUBSCRIBE, flags, subscribe.msg_id, &subscribe.topic, body)
        }
        Message::SubAck { qos, topic_id, msg_id, code } => {
            body.put_u8(qos_bits(*qos));
            acknowledgement(kind::SUBACK, *topic_id, *msg_id, *code, body)
        }
        Message::Unsubscribe { topic, msg_id } => write_filter(kind::UNSUBSCRIBE, 0, *msg_id, topic, body),
        Message::UnsubAck(msg_id) => octets(kind::UNSUBACK, &msg_id.to_be_bytes(), &[], body),
        Message::PingReq(client_id) => {
            octets(kind::PINGREQ, client_id.as_deref().unwrap_or_default().as_bytes(), &[], body)
        }
        Message::PingResp => kind::PINGRESP,
        Message::Disconnect(None) => kind::DISCONNECT,
        Message::Disconnect(Some(seconds)) => octets(kind::DISCONNECT, &seconds.to_be_bytes(), &[], body),
        Message::WillTopicUpd(topic) => write_will_topic(kind::WILLTOPICUPD, topic.as_ref(), body),
        Message::WillTopicResp(code) => octets(kind::WILLTOPICRESP, &[code.octet()], &[], body),
        Message::WillMsgUpd(payload) => octets(kind::WILLMSGUPD, &[], payload, body),
        Message::WillMsgResp(code) => octets(kind::WILLMSGRESP, &[code.octet()], &[], body),
        Message::Encapsulated { control, node, inner } => {
            body.put_u8(*control);
            octets(kind::ENCAPSULATED, node, inner, body)
        }
    }
}

/// Two runs of octets, of which either may be empty.
fn octets(kind: u8, first: &[u8], second: &[u8], body: &mut BytesMut) -> u8 {
    body.put_slice(first);
    body.put_slice(second);
    kind
}

fn acknowledgement(kind: u8, topic_id: u16, msg_id: u16, code: ReturnCode, body: &mut BytesMut) -> u8 {
    body.put_u16(topic_id);
    body.put_u16(msg_id);
    body.put_u8(code.octet());
    kind
}

fn write_connect(connect: &Connect, body: &mut BytesMut) -> u8 {
    let mut flags = 0;
    set(&mut flags, flag::WILL, connect.will);
    set(&mut flags, flag::CLEAN_SESSION, connect.clean_session);
    body.put_u8(flags);
    body.put_u8(connect.protocol_id);
    body.put_u16(connect.duration);
    octets(kind::CONNECT, &[], connect.client_id.as_bytes(), body)
}

fn write_will_topic(kind: u8, topic: Option<&WillTopic>, body: &mut BytesMut) -> u8 {
    if let Some(WillTopic { qos, retain, topic }) = topic {
        let mut flags = qos_bits(*qos);
        set(&mut flags, flag::RETAIN, *retain);
        body.put_u8(flags);
        body.put_slice(topic.as_bytes());
    }
    kind
}

fn write_publish(publish: &Publish, body: &mut BytesMut) -> u8 {
    let mut flags = qos_bits(publish.qos)
        | match publish.topic {
            TopicId::Normal(_) => 0b00,
            TopicId::Predefined(_) => 0b01,
            TopicId::Short(_) => 0b10,
            TopicId::Reserved(_) => 0b11,
        };
    set(&mut flags, flag::DUP, publish.dup);
    set(&mut flags, flag::RETAIN, publish.retain);
    body.put_u8(flags);
    body.put_u16(publish.topic.number());
    body.put_u16(publish.msg_id);
    octets(kind::PUBLISH, &[], &publish.payload, body)
}

fn write_filter(kind: u8, flags: u8, msg_id: u16, topic: &TopicFilter, body: &mut BytesMut) -> u8 {
    let id_type = match topic {
        TopicFilter::Name(_) => 0b00,
        TopicFilter::Predefined(_) => 0b01,
        TopicFilter::Short(_) => 0b10,
        TopicFilter::Reserved(_) => 0b11,
    };
    body.put_u8(flags | id_type);
    body.put_u16(msg_id);
    match topic {
        TopicFilter::Name(name) => body.put_slice(name.as_bytes()),
        TopicFilter::Predefined(id) => body.put_u16(*id),
        TopicFilter::Short(name) => body.put_slice(name),
        TopicFilter::Reserved(octets) => body.put_slice(octets),
    }
    kind
}

fn qos_bits(qos: QosField) -> u8 {
    match qos {
        QosField::AtMostOnce => 0b0000_0000,
        QosField::AtLeastOnce => 0b0010_0000,
        QosField::ExactlyOnce => 0b0100_0000,
        QosField::MinusOne => flag::QOS,
    }
}

fn set(flags: &mut u8, bit: u8, on: bool) {
    if on {
        *flags |= bit;
    }
}

/// Length and type.
const SHORT_HEADER: usize = 2;
const LONG_HEADER: usize = 4;

/// What the length field can say.
const LENGTH_MAX: usize = 65_535;
