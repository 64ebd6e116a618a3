//! The messages of MQTT-SN 1.2, as values.
//!
//! Fields stand in the order of the wire. Values that the standard reserves are kept where the gateway
//! must answer them, and are otherwise no message at all (see [`super::Malformed`]).

use adapter_api::Qos;
use bytes::Bytes;

/// One message of either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A gateway makes itself known.
    Advertise {
        /// Its number.
        gateway_id: u8,
        /// Seconds until the next one.
        duration: u16,
    },
    /// A client looks for a gateway.
    SearchGw {
        /// Hops that it may travel; 0 for the whole network.
        radius: u8,
    },
    /// Names a gateway.
    GwInfo {
        /// Its number.
        gateway_id: u8,
        /// Its address, where a client answers in its place; else empty.
        address: Bytes,
    },
    /// A client asks for a connection.
    Connect(Connect),
    /// Answers CONNECT.
    ConnAck(ReturnCode),
    /// Asks for the will's topic.
    WillTopicReq,
    /// The will's topic; `None` deletes the will.
    WillTopic(Option<WillTopic>),
    /// Asks for the will's payload.
    WillMsgReq,
    /// The will's payload.
    WillMsg(Bytes),
    /// Binds a topic name to a number.
    Register(Register),
    /// Answers REGISTER.
    RegAck {
        /// The number.
        topic_id: u16,
        /// As in REGISTER.
        msg_id: u16,
        /// Whether it was taken.
        code: ReturnCode,
    },
    /// A message for a topic.
    Publish(Publish),
    /// Answers PUBLISH of QoS 1, or any that is refused.
    PubAck {
        /// As in PUBLISH.
        topic_id: u16,
        /// As in PUBLISH.
        msg_id: u16,
        /// Whether it was taken.
        code: ReturnCode,
    },
    /// QoS 2: received.
    PubRec(u16),
    /// QoS 2: released.
    PubRel(u16),
    /// QoS 2: complete.
    PubComp(u16),
    /// Asks for a topic's messages.
    Subscribe(Subscribe),
    /// Answers SUBSCRIBE.
    SubAck {
        /// Granted QoS.
        qos: QosField,
        /// The number of the topic; 0 for a wildcard or a short name.
        topic_id: u16,
        /// As in SUBSCRIBE.
        msg_id: u16,
        /// Whether it was taken.
        code: ReturnCode,
    },
    /// Takes a subscription back.
    Unsubscribe {
        /// As in SUBSCRIBE.
        topic: TopicFilter,
        /// Comes back in the answer.
        msg_id: u16,
    },
    /// Answers UNSUBSCRIBE.
    UnsubAck(u16),
    /// Shows that one is alive; with a client id, that a sleeper is awake.
    PingReq(Option<String>),
    /// Answers PINGREQ.
    PingResp,
    /// Ends a connection; with a duration in seconds, for a sleep.
    Disconnect(Option<u16>),
    /// Changes the will's topic; `None` deletes the will.
    WillTopicUpd(Option<WillTopic>),
    /// Answers WILLTOPICUPD.
    WillTopicResp(ReturnCode),
    /// Changes the will's payload.
    WillMsgUpd(Bytes),
    /// Answers WILLMSGUPD.
    WillMsgResp(ReturnCode),
    /// A message that a forwarder carries for somebody without UDP.
    Encapsulated {
        /// The control octet; its two low bits are the radius.
        control: u8,
        /// Who is behind the forwarder.
        node: Bytes,
        /// A complete message.
        inner: Bytes,
    },
}

/// CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Whether the will is to be asked for.
    pub will: bool,
    /// Whether what is kept of an earlier connection is thrown away, and nothing kept of this one.
    pub clean_session: bool,
    /// 1 for MQTT-SN 1.2; others are reserved and refused by the gateway.
    pub protocol_id: u8,
    /// Keep alive in seconds; 0 for none.
    pub duration: u16,
    /// Client id; 1 to 23 characters by the standard.
    pub client_id: String,
}

/// The will's topic, of WILLTOPIC and WILLTOPICUPD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillTopic {
    /// QoS of the will.
    pub qos: QosField,
    /// Whether it is retained.
    pub retain: bool,
    /// Topic name, never empty.
    pub topic: String,
}

/// REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The number; 0 from a client, which asks for one.
    pub topic_id: u16,
    /// Comes back in the answer.
    pub msg_id: u16,
    /// Topic name.
    pub topic: String,
}

/// PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether it was sent before.
    pub dup: bool,
    /// QoS.
    pub qos: QosField,
    /// Whether it is retained, or comes from the retained store.
    pub retain: bool,
    /// The topic.
    pub topic: TopicId,
    /// 0 at QoS 0 and -1.
    pub msg_id: u16,
    /// Payload.
    pub payload: Bytes,
}

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Whether it was sent before.
    pub dup: bool,
    /// Highest QoS wished.
    pub qos: QosField,
    /// Comes back in the answer.
    pub msg_id: u16,
    /// Which topics.
    pub topic: TopicFilter,
}

/// The QoS bits of the flags octet. // [SN-5.3.4]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosField {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
    /// QoS -1: without a connection.
    MinusOne,
}

impl QosField {
    /// The same in the broker's words; `None` for QoS -1, which is no QoS of MQTT.
    pub fn connected(self) -> Option<Qos> {
        match self {
            QosField::AtMostOnce => Some(Qos::AtMostOnce),
            QosField::AtLeastOnce => Some(Qos::AtLeastOnce),
            QosField::ExactlyOnce => Some(Qos::ExactlyOnce),
            QosField::MinusOne => None,
        }
    }
}

impl From<Qos> for QosField {
    fn from(qos: Qos) -> QosField {
        match qos {
            Qos::AtMostOnce => QosField::AtMostOnce,
            Qos::AtLeastOnce => QosField::AtLeastOnce,
            Qos::ExactlyOnce => QosField::ExactlyOnce,
        }
    }
}

/// A topic in two octets, told apart by the topic id type of the flags. // [SN-5.3.4]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicId {
    /// A number that gateway and client agreed on by REGISTER or SUBACK.
    Normal(u16),
    /// A number that both know beforehand; a space of its own.
    Predefined(u16),
    /// The topic name itself.
    Short([u8; 2]),
    /// Type 0b11, which no version defines.
    Reserved(u16),
}

impl TopicId {
    /// The two octets as acknowledgements repeat them.
    pub fn number(self) -> u16 {
        match self {
            TopicId::Normal(number) | TopicId::Predefined(number) | TopicId::Reserved(number) => number,
            TopicId::Short(name) => u16::from_be_bytes(name),
        }
    }
}

/// What SUBSCRIBE and UNSUBSCRIBE name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicFilter {
    /// A topic name, with wildcards or without.
    Name(String),
    /// A number that both know beforehand.
    Predefined(u16),
    /// A topic name of two octets.
    Short([u8; 2]),
    /// Type 0b11, which no version defines.
    Reserved(Bytes),
}

/// How a request was taken. // [SN-5.3.10]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnCode {
    /// 0x00.
    Accepted,
    /// 0x01: later perhaps.
    Congestion,
    /// 0x02: the topic id is unknown.
    InvalidTopicId,
    /// 0x03.
    NotSupported,
    /// Reserved; read as a refusal.
    Reserved(u8),
}

impl ReturnCode {
    pub(super) fn octet(self) -> u8 {
        match self {
            ReturnCode::Accepted => 0x00,
            ReturnCode::Congestion => 0x01,
            ReturnCode::InvalidTopicId => 0x02,
            ReturnCode::NotSupported => 0x03,
            ReturnCode::Reserved(octet) => octet,
        }
    }
}

impl From<u8> for ReturnCode {
    fn from(octet: u8) -> ReturnCode {
        match octet {
            0x00 => ReturnCode::Accepted,
            0x01 => ReturnCode::Congestion,
            0x02 => ReturnCode::InvalidTopicId,
            0x03 => ReturnCode::NotSupported,
            other => ReturnCode::Reserved(other),
        }
    }
}
