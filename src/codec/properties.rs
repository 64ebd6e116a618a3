//! The properties of an MQTT 5 packet: checked once, kept as bytes.
//!
//! A packet's properties are one slice of the read buffer, validated by the decoder (known identifiers
//! for that packet, no forbidden repeats, well-formed values), and read by walking it. Most packets
//! have none, and then this is an empty slice and costs nothing. Order and repeats are preserved.

use bytes::Bytes;
use bytestring::ByteString;

/// A validated property block, without its length prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Bytes);

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// 0x01, byte.
    PayloadFormatIndicator(u8),
    /// 0x02, seconds.
    MessageExpiryInterval(u32),
    /// 0x03.
    ContentType(ByteString),
    /// 0x08.
    ResponseTopic(ByteString),
    /// 0x09.
    CorrelationData(Bytes),
    /// 0x0B, 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// 0x11, seconds.
    SessionExpiryInterval(u32),
    /// 0x12.
    AssignedClientIdentifier(ByteString),
    /// 0x13, seconds.
    ServerKeepAlive(u16),
    /// 0x15.
    AuthenticationMethod(ByteString),
    /// 0x16.
    AuthenticationData(Bytes),
    /// 0x17.
    RequestProblemInformation(u8),
    /// 0x18, seconds.
    WillDelayInterval(u32),
    /// 0x19.
    RequestResponseInformation(u8),
    /// 0x1A.
    ResponseInformation(ByteString),
    /// 0x1C.
    ServerReference(ByteString),
    /// 0x1F.
    ReasonString(ByteString),
    /// 0x21, at least 1.
    ReceiveMaximum(u16),
    /// 0x22.
    TopicAliasMaximum(u16),
    /// 0x23, at least 1.
    TopicAlias(u16),
    /// 0x24, 0 or 1.
    MaximumQoS(u8),
    /// 0x25.
    RetainAvailable(u8),
    /// 0x26.
    UserProperty(ByteString, ByteString),
    /// 0x27, at least 1.
    MaximumPacketSize(u32),
    /// 0x28.
    WildcardSubscriptionAvailable(u8),
    /// 0x29.
    SubscriptionIdentifierAvailable(u8),
    /// 0x2A.
    SharedSubscriptionAvailable(u8),
}

impl Properties {
    /// No properties.
    pub const fn new() -> Properties {
        Properties(Bytes::new())
    }
}

impl Properties {
    /// The encoded block, without its length prefix.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A copy whose bytes are its own.
    pub fn compact(&self) -> Properties {
        Properties(Bytes::copy_from_slice(&self.0))
    }
}

impl Properties {
    /// A block that this process has validated and kept before, such as a row of the store whose
    /// checksum holds; it is not checked again.
    pub fn from_kept(block: Bytes) -> Properties {
        Properties(block)
    }
}
