//! Octets to MQTT-SN messages and back, one datagram at a time.
//!
//! Every message type of the standard in both directions, so that the gateway, its tests and a client
//! written for them speak through one codec. Knows no client and no state; what a peer sends is either
//! a [`Message`] or a reason to discard it, never a panic.

mod message;
mod decode;
mod encode;

pub use decode::{Malformed, decode};
pub use encode::{TooLong, encode};
pub use message::{
    Connect, Message, Publish, QosField, Register, ReturnCode, Subscribe, TopicFilter, TopicId, WillTopic,
};

/// The type octet of each message. // [SN-5.2.2]
mod kind {
    pub(super) const ADVERTISE: u8 = 0x00;
    pub(super) const SEARCHGW: u8 = 0x01;
    pub(super) const GWINFO: u8 = 0x02;
    pub(super) const CONNECT: u8 = 0x04;
    pub(super) const CONNACK: u8 = 0x05;
    pub(super) const WILLTOPICREQ: u8 = 0x06;
    pub(super) const WILLTOPIC: u8 = 0x07;
    pub(super) const WILLMSGREQ: u8 = 0x08;
    pub(super) const WILLMSG: u8 = 0x09;
    pub(super) const REGISTER: u8 = 0x0A;
    pub(super) const REGACK: u8 = 0x0B;
    pub(super) const PUBLISH: u8 = 0x0C;
    pub(super) const PUBACK: u8 = 0x0D;
    pub(super) const PUBCOMP: u8 = 0x0E;
    pub(super) const PUBREC: u8 = 0x0F;
    pub(super) const PUBREL: u8 = 0x10;
    pub(super) const SUBSCRIBE: u8 = 0x12;
    pub(super) const SUBACK: u8 = 0x13;
    pub(super) const UNSUBSCRIBE: u8 = 0x14;
    pub(super) const UNSUBACK: u8 = 0x15;
    pub(super) const PINGREQ: u8 = 0x16;
    pub(super) const PINGRESP: u8 = 0x17;
    pub(super) const DISCONNECT: u8 = 0x18;
    pub(super) const WILLTOPICUPD: u8 = 0x1A;
    pub(super) const WILLTOPICRESP: u8 = 0x1B;
    pub(super) const WILLMSGUPD: u8 = 0x1C;
    pub(super) const WILLMSGRESP: u8 = 0x1D;
    pub(super) const ENCAPSULATED: u8 = 0xFE;
}

/// The bits of the flags octet. // [SN-5.3.4]
mod flag {
    pub(super) const DUP: u8 = 0b1000_0000;
    pub(super) const QOS: u8 = 0b0110_0000;
    pub(super) const RETAIN: u8 = 0b0001_0000;
    pub(super) const WILL: u8 = 0b0000_1000;
    pub(super) const CLEAN_SESSION: u8 = 0b0000_0100;
    pub(super) const TOPIC_ID_TYPE: u8 = 0b0000_0011;
}

#[cfg(test)]
mod golden;
