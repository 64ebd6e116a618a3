//! One datagram to one message.
//!
//! Strict in the frame (a length that is not the datagram's, a field that is missing, an octet too many),
//! liberal where the standard says that a value is not used. Payloads and names stay slices or become
//! text; nothing is held beyond the datagram.

use bytes::{Buf, Bytes};

use super::message::{
    Connect, Message, Publish, QosField, Register, ReturnCode, Subscribe, TopicFilter, TopicId, WillTopic,
};
use super::{flag, kind};

/// Why a datagram is no message; it is discarded, counted and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length field is not the datagram's length.
    #[error("the length field is not the length of the datagram")]
    Length,
    /// It ends before its last field.
    #[error("the message ends too early")]
    Short,
    /// It goes on after its last field.
    #[error("the message has octets too many")]
    Trailing,
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    Text,
    /// A type that the standard reserves.
    #[error("message type {0:#04x} is reserved")]
    ReservedType(u8),
}

/// Reads the one message of a datagram.
pub fn decode(datagram: &Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader { rest: datagram.clone() };
    let first = reader.octet()?;
    // [SN-5.2.1] 0x01 announces a length of two more octets, whatever its value.
    let length = if first == LONG_FORM { usize::from(reader.number()?) } else { usize::from(first) };
    let kind = reader.octet()?;
    if kind == kind::ENCAPSULATED && first != LONG_FORM {
        return encapsulated(length, reader);
    }
    if length != datagram.len() {
        return Err(Malformed::Length);
    }
    let message = body(kind, &mut reader)?;
    reader.end()?;
    Ok(message)
}

fn body(kind: u8, reader: &mut Reader) -> Result<Message, Malformed> {
    Ok(match kind {
        kind::ADVERTISE => Message::Advertise { gateway_id: reader.octet()?, duration: reader.number()? },
        kind::SEARCHGW => Message::SearchGw { radius: reader.octet()? },
        kind::GWINFO => Message::GwInfo { gateway_id: reader.octet()?, address: reader.rest() },
        kind::CONNECT => connect(reader)?,
        kind::CONNACK => Message::ConnAck(reader.code()?),
        kind::WILLTOPICREQ => Message::WillTopicReq,
        kind::WILLTOPIC => Message::WillTopic(will_topic(reader)?),
        kind::WILLMSGREQ => Message::WillMsgReq,
        kind::WILLMSG => Message::WillMsg(reader.rest()),
        kind::REGISTER => Message::Register(Register {
            topic_id: reader.number()?,
            msg_id: reader.number()?,
            topic: reader.text()?,
        }),
        kind::REGACK => {
            Message::RegAck { topic_id: reader.number()?, msg_id: reader.number()?, code: reader.code()? }
        }
        kind::PUBLISH => publish(reader)?,
        kind::PUBACK => {
            Message::PubAck { topic_id: reader.number()?, msg_id: reader.number()?, code: reader.code()? }
        }
        kind::PUBCOMP => Message::PubComp(reader.number()?),
        kind::PUBREC => Message::PubRec(reader.number()?),
        kind::PUBREL => Message::PubRel(reader.number()?),
        kind::SUBSCRIBE => {
            let flags = reader.octet()?;
            let msg_id = reader.number()?;
            let topic = topic_filter(flags, reader)?;
            Message::Subscribe(Subscribe { dup: flags & flag::DUP != 0, qos: qos(flags), msg_id, topic })
        }
        kind::SUBACK => Message::SubAck {
            qos: qos(reader.octet()?),
            topic_id: reader.number()?,
            msg_id: reader.number()?,
            code: reader.code()?,
        },
        kind::UNSUBSCRIBE => {
            let flags = reader.octet()?;
            let msg_id = reader.number()?;
            Message::Unsubscribe { topic: topic_filter(flags, reader)?, msg_id }
        }
        kind::UNSUBACK => Message::UnsubAck(reader.number()?),
        kind::PINGREQ if reader.is_empty() => Message::PingReq(None),
        kind::PINGREQ => Message::PingReq(Some(reader.text()?)),
        kind::PINGRESP => Message::PingResp,
        kind::DISCONNECT if reader.is_empty() => Message::Disconnect(None),
        kind::DISCONNECT => Message::Disconnect(Some(reader.number()?)),
        kind::WILLTOPICUPD => Message::WillTopicUpd(will_topic(reader)?),
        kind::WILLTOPICRESP => Message::WillTopicResp(reader.code()?),
        kind::WILLMSGUPD => Message::WillMsgUpd(reader.rest()),
        kind::WILLMSGRESP => Message::WillMsgResp(reader.code()?),
        // [SN-5.5] The frame of a forwarder has no long form, so a long one is no known type.
        reserved => return Err(Malformed::ReservedType(reserved)),
    })
}

/// [SN-5.5] The length ends with the node id; a complete message follows it.
fn encapsulated(length: usize, mut reader: Reader) -> Result<Message, Malformed> {
    let control = reader.octet()?;
    let node_length = length.checked_sub(ENCAPSULATION_HEADER).ok_or(Malformed::Length)?;
    if node_length > reader.rest.len() {
        return Err(Malformed::Length);
    }
    let node = reader.rest.split_to(node_length);
    if reader.is_empty() {
        return Err(Malformed::Short);
    }
    Ok(Message::Encapsulated { control, node, inner: reader.rest() })
}

fn connect(reader: &mut Reader) -> Result<Message, Malformed> {
    let flags = reader.octet()?;
    Ok(Message::Connect(Connect {
        will: flags & flag::WILL != 0,
        clean_session: flags & flag::CLEAN_SESSION != 0,
        protocol_id: reader.octet()?,
        duration: reader.number()?,
        client_id: reader.text()?,
    }))
}

/// [SN-5.4.7] Without flags and topic it deletes the will; flags without a topic are neither.
fn will_topic(reader: &mut Reader) -> Result<Option<WillTopic>, Malformed> {
    if reader.is_empty() {
        return Ok(None);
    }
    let flags = reader.octet()?;
    if reader.is_empty() {
        return Err(Malformed::Short);
    }
    Ok(Some(WillTopic { qos: qos(flags), retain: flags & flag::RETAIN != 0, topic: reader.text()? }))
}

fn publish(reader: &mut Reader) -> Result<Message, Malformed> {
    let flags = reader.octet()?;
    let number = reader.number()?;
    let topic = match flags & flag::TOPIC_ID_TYPE {
        0b00 => TopicId::Normal(number),
        0b01 => TopicId::Predefined(number),
        0b10 => TopicId::Short(number.to_be_bytes()),
        _ => TopicId::Reserved(number),
    };
    Ok(Message::Publish(Publish {
        dup: flags & flag::DUP != 0,
        qos: qos(flags),
        retain: flags & flag::RETAIN != 0,
        topic,
        msg_id: reader.number()?,
        payload: reader.rest(),
    }))
}

fn topic_filter(flags: u8, reader: &mut Reader) -> Result<TopicFilter, Malformed> {
    Ok(match flags & flag::TOPIC_ID_TYPE {
        0b00 => TopicFilter::Name(reader.text()?),
        0b01 => TopicFilter::Predefined(reader.number()?),
        0b10 => TopicFilter::Short(reader.number()?.to_be_bytes()),
        _ => TopicFilter::Reserved(reader.rest()),
    })
}

fn qos(flags: u8) -> QosField {
    match (flags & flag::QOS) >> 5 {
        0b00 => QosField::AtMostOnce,
        0b01 => QosField::AtLeastOnce,
        0b10 => QosField::ExactlyOnce,
        _ => QosField::MinusOne,
    }
}

/// What is left of the datagram.
struct Reader {
    rest: Bytes,
}

impl Reader {
    fn octet(&mut self) -> Result<u8, Malformed> {
        self.rest.try_get_u8().map_err(|_| Malformed::Short)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        self.rest.try_get_u16().map_err(|_| Malformed::Short)
    }

    fn code(&mut self) -> Result<ReturnCode, Malformed> {
        self.octet().map(ReturnCode::from)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        std::str::from_utf8(&self.rest()).map(str::to_owned).map_err(|_| Malformed::Text)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }
}

/// The first octet of a length of three octets.
pub(super) const LONG_FORM: u8 = 0x01;

/// Length, type and control of a forwarder's frame.
pub(super) const ENCAPSULATION_HEADER: usize = 3;
