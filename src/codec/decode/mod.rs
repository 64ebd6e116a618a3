//! The bodies of packets, after the fixed header.
//!
//! Each packet has one reading function; what all share (who sends it, which flags it has) is said of
//! its [`Kind`].

mod answer;
mod connect;
mod publish;
mod subscribe;

use super::reader::Reader;
use super::{Malformed, Packet, Side, Version};

pub(super) use connect::read_version;

/// The type of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl Kind {
    pub(super) fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            1 => Kind::Connect,
            2 => Kind::ConnAck,
            3 => Kind::Publish,
            4 => Kind::PubAck,
            5 => Kind::PubRec,
            6 => Kind::PubRel,
            7 => Kind::PubComp,
            8 => Kind::Subscribe,
            9 => Kind::SubAck,
            10 => Kind::Unsubscribe,
            11 => Kind::UnsubAck,
            12 => Kind::PingReq,
            13 => Kind::PingResp,
            14 => Kind::Disconnect,
            15 => Kind::Auth,
            _ => return None,
        })
    }

    /// Whether the other side of `reader` sends this packet at all.
    pub(super) fn check_sender(self, reader: Side, version: Option<Version>) -> Result<(), Malformed> {
        let five = version == Some(Version::V5);
        let sent = match self {
            Kind::Connect | Kind::Subscribe | Kind::Unsubscribe | Kind::PingReq => reader == Side::Server,
            Kind::ConnAck | Kind::SubAck | Kind::UnsubAck | Kind::PingResp => reader == Side::Client,
            Kind::Publish | Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => true,
            Kind::Disconnect => reader == Side::Server || five,
            Kind::Auth if version.is_some() && !five => return Err(Malformed::PacketType),
            Kind::Auth => true,
        };
        if sent { Ok(()) } else { Err(Malformed::WrongDirection) }
    }

    /// [MQTT5-2.1.3-1] [MQTT311-2.2.2-1]
    pub(super) fn check_flags(self, flags: u8, version: Option<Version>) -> Result<(), Malformed> {
        let fits = match self {
            // Its flags mean something and are read with it.
            Kind::Publish => true,
            // 3.1 calls these bits unused, and its clients set DUP when they repeat a packet.
            _ if version == Some(Version::V31) => true,
            // [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1]
            Kind::PubRel | Kind::Subscribe | Kind::Unsubscribe => flags == 0b0010,
            _ => flags == 0,
        };
        if fits { Ok(()) } else { Err(Malformed::HeaderFlags) }
    }
}

/// Reads what follows the fixed header; of CONNECT, what follows the protocol level.
#[inline]
pub(super) fn read_body(
    kind: Kind,
    flags: u8,
    reader: &mut Reader<'_>,
    side: Side,
    version: Version,
) -> Result<Packet, Malformed> {
    Ok(match kind {
        Kind::Publish => Packet::Publish(publish::read(flags, reader, side, version)?),
        Kind::PubAck => Packet::PubAck(answer::read_ack(kind, reader, version)?),
        Kind::PubRec => Packet::PubRec(answer::read_ack(kind, reader, version)?),
        Kind::PubRel => Packet::PubRel(answer::read_ack(kind, reader, version)?),
        Kind::PubComp => Packet::PubComp(answer::read_ack(kind, reader, version)?),
        Kind::Connect => Packet::Connect(Box::new(connect::read(reader, version)?)),
        Kind::ConnAck => Packet::ConnAck(connect::read_ack(reader, version)?),
        Kind::Subscribe => Packet::Subscribe(subscribe::read(reader, version)?),
        Kind::SubAck => Packet::SubAck(answer::read_suback(reader, version)?),
        Kind::Unsubscribe => Packet::Unsubscribe(subscribe::read_unsubscribe(reader, version)?),
        Kind::UnsubAck => Packet::UnsubAck(answer::read_unsuback(reader, version)?),
        Kind::PingReq => Packet::PingReq,
        Kind::PingResp => Packet::PingResp,
        Kind::Disconnect => Packet::Disconnect(answer::read_disconnect(reader, side, version)?),
        Kind::Auth => Packet::Auth(answer::read_auth(reader, side)?),
    })
}
