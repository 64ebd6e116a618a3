//! The packets of MQTT 3.1, 3.1.1 and 5.0 as values.
//!
//! One type for all versions: what a version does not have is empty or false. Text and payloads are
//! slices of the read buffer, so who keeps a packet for long copies them first.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Properties, Reason};

/// The protocol level of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.1: `MQIsdp`, level 3.
    V31,
    /// 3.1.1: `MQTT`, level 4.
    V311,
    /// 5.0: `MQTT`, level 5.
    V5,
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of these two bits.
    pub fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// Any packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Client to server.
    Connect(Box<Connect>),
    /// Server to client.
    ConnAck(ConnAck),
    /// Both ways.
    Publish(Publish),
    /// Answers QoS 1.
    PubAck(Ack),
    /// Answers QoS 2.
    PubRec(Ack),
    /// Answers PUBREC.
    PubRel(Ack),
    /// Answers PUBREL.
    PubComp(Ack),
    /// Client to server.
    Subscribe(Subscribe),
    /// Server to client.
    SubAck(SubAck),
    /// Client to server.
    Unsubscribe(Unsubscribe),
    /// Server to client.
    UnsubAck(UnsubAck),
    /// Client to server.
    PingReq,
    /// Server to client.
    PingResp,
    /// Both ways in MQTT 5, else client to server.
    Disconnect(Disconnect),
    /// MQTT 5 alone.
    Auth(Auth),
}

/// CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Clean Start; Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 is off.
    pub keep_alive: u16,
    /// Client id; may be empty.
    pub client_id: ByteString,
    /// Will, if any.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// Properties (MQTT 5).
    pub properties: Properties,
}

/// The will of a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// QoS.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// Topic name.
    pub topic: ByteString,
    /// Payload.
    pub payload: Bytes,
    /// Will properties (MQTT 5).
    pub properties: Properties,
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Reason; written as the return code nearest to it before MQTT 5.
    pub reason: Reason,
    /// Properties (MQTT 5).
    pub properties: Properties,
}

/// PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// Retain.
    pub retain: bool,
    /// Topic name; empty in MQTT 5 where an alias stands for it.
    pub topic: ByteString,
    /// Packet id; 0 at QoS 0.
    pub packet_id: u16,
    /// Properties (MQTT 5).
    pub properties: Properties,
    /// Payload.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Packet id.
    pub packet_id: u16,
    /// Reason (MQTT 5).
    pub reason: Reason,
    /// Properties (MQTT 5).
    pub properties: Properties,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet id.
    pub packet_id: u16,
    /// Properties (MQTT 5).
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topic filter; its syntax is the router's to check.
    pub filter: ByteString,
    /// Options.
    pub options: SubscriptionOptions,
}

/// Subscription options; before MQTT 5 only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// Highest QoS wished.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// When a SUBSCRIBE brings the retained messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// Always.
    Send = 0,
    /// Only if the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// SUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Packet id.
    pub packet_id: u16,
    /// Properties (MQTT 5).
    pub properties: Properties,
    /// One for each filter.
    pub reasons: Vec<Reason>,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet id.
    pub packet_id: u16,
    /// Properties (MQTT 5).
    pub properties: Properties,
    /// At least one.
    pub filters: Vec<ByteString>,
}

/// UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Packet id.
    pub packet_id: u16,
    /// Properties (MQTT 5).
    pub properties: Properties,
    /// One for each filter; not written before MQTT 5.
    pub reasons: Vec<Reason>,
}

/// DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Reason (MQTT 5).
    pub reason: Reason,
    /// Properties (MQTT 5).
    pub properties: Properties,
}

/// AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Reason.
    pub reason: Reason,
    /// Properties.
    pub properties: Properties,
}
