//! The properties of an MQTT 5 packet: checked once, kept as bytes.
//!
//! A packet's properties are one slice of the read buffer, validated by the decoder (known identifiers
//! for that packet, no forbidden repeats, well-formed values), and read by walking it. Most packets
//! have none, and then this is an empty slice and costs nothing. Order and repeats are preserved.

use bytes::Bytes;
use bytestring::ByteString;

use super::property::{Raw, check, split_raw};
use super::reader::split_variable;
use super::{Carrier, Malformed, Property};

/// A validated property block, without its length prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties(Bytes);

impl Properties {
    /// No properties.
    pub const fn new() -> Properties {
        Properties(Bytes::new())
    }

    /// A block as it stands in a packet, without its length prefix; checked against the rules of the
    /// packet that carries it.
    #[inline]
    pub fn from_bytes(block: Bytes, carrier: Carrier) -> Result<Properties, Malformed> {
        check(&block, carrier)?;
        Ok(Properties(block))
    }

    /// These properties in this order. Which of them a packet may have is the caller's to know. A
    /// text over 65,535 bytes cannot be said in MQTT and is left out; nothing that was decoded has one.
    pub fn from_list(list: &[Property]) -> Properties {
        let mut block = Vec::new();
        for property in list {
            // What cannot be written leaves the block as it was.
            let _ = property.put(&mut block);
        }
        Properties(block.into())
    }

    /// One property more, at the end; see [`Properties::from_list`].
    pub fn with(self, property: Property) -> Properties {
        let mut block = Vec::from(self.0);
        // What cannot be written leaves the block as it was.
        let _ = property.put(&mut block);
        Properties(block.into())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The encoded block, without its length prefix.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, to be kept or handed on.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A copy whose bytes are its own.
    pub fn compact(&self) -> Properties {
        Properties(Bytes::copy_from_slice(&self.0))
    }

    /// The properties in their order.
    pub fn iter(&self) -> impl Iterator<Item = Property> + '_ {
        self.raw().map_while(|raw| Property::of_raw(raw, &self.0))
    }

    /// Those of a PUBLISH or a will that a server hands on unchanged: payload format, content type,
    /// response topic, correlation data, user properties. A slice of the same bytes where what stays
    /// lies together, else a copy.
    pub fn travelling(&self) -> Properties {
        if self.is_empty() {
            return Properties::new();
        }
        // [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-20]
        let travels = |identifier| matches!(identifier, 0x01 | 0x03 | 0x08 | 0x09 | 0x26);
        let mut parts = Parts::default();
        let mut left: &[u8] = &self.0;
        while let Some((raw, rest)) = split_raw(left) {
            let size = left.len() - rest.len();
            if travels(raw.identifier) {
                parts.keep(self.0.len() - left.len(), size);
            }
            left = rest;
        }
        parts.of(&self.0)
    }

    fn raw(&self) -> impl Iterator<Item = Raw<'_>> {
        let mut left: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (raw, rest) = split_raw(left)?;
            left = rest;
            Some(raw)
        })
    }

    fn find(&self, identifier: u8) -> Option<Raw<'_>> {
        self.raw().find(|raw| raw.identifier == identifier)
    }

    fn four(&self, identifier: u8) -> Option<u32> {
        self.find(identifier)?.number()
    }

    fn two(&self, identifier: u8) -> Option<u16> {
        u16::try_from(self.four(identifier)?).ok()
    }

    fn flag(&self, identifier: u8) -> Option<u8> {
        self.find(identifier)?.value.first().copied()
    }

    fn text(&self, identifier: u8) -> Option<ByteString> {
        ByteString::try_from(self.data(identifier)?).ok()
    }

    fn data(&self, identifier: u8) -> Option<Bytes> {
        Some(self.0.slice_ref(self.find(identifier)?.value))
    }
}

/// The values one by one, each `None` where the packet does not have it.
impl Properties {
    /// Payload Format Indicator: 1 is UTF-8.
    pub fn payload_format(&self) -> Option<u8> {
        self.flag(0x01)
    }

    /// Message Expiry Interval, seconds.
    pub fn message_expiry(&self) -> Option<u32> {
        self.four(0x02)
    }

    /// Content Type.
    pub fn content_type(&self) -> Option<ByteString> {
        self.text(0x03)
    }

    /// Response Topic.
    pub fn response_topic(&self) -> Option<ByteString> {
        self.text(0x08)
    }

    /// Correlation Data.
    pub fn correlation_data(&self) -> Option<Bytes> {
        self.data(0x09)
    }

    /// Subscription Identifiers in their order.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + '_ {
        self.raw()
            .filter(|raw| raw.identifier == 0x0B)
            .filter_map(|raw| Some(split_variable(raw.value).ok()?.0))
    }

    /// Session Expiry Interval, seconds; `u32::MAX` never expires.
    pub fn session_expiry(&self) -> Option<u32> {
        self.four(0x11)
    }

    /// Assigned Client Identifier.
    pub fn assigned_client_identifier(&self) -> Option<ByteString> {
        self.text(0x12)
    }

    /// Server Keep Alive, seconds.
    pub fn server_keep_alive(&self) -> Option<u16> {
        self.two(0x13)
    }

    /// Authentication Method.
    pub fn authentication_method(&self) -> Option<ByteString> {
        self.text(0x15)
    }

    /// Authentication Data.
    pub fn authentication_data(&self) -> Option<Bytes> {
        self.data(0x16)
    }

    /// Request Problem Information: with 0 only PUBLISH, CONNACK and DISCONNECT may carry reason
    /// strings and user properties. [MQTT5-3.1.2-29]
    pub fn request_problem_information(&self) -> Option<u8> {
        self.flag(0x17)
    }

    /// Will Delay Interval, seconds.
    pub fn will_delay(&self) -> Option<u32> {
        self.four(0x18)
    }

    /// Request Response Information.
    pub fn request_response_information(&self) -> Option<u8> {
        self.flag(0x19)
    }

    /// Response Information.
    pub fn response_information(&self) -> Option<ByteString> {
        self.text(0x1A)
    }

    /// Server Reference.
    pub fn server_reference(&self) -> Option<ByteString> {
        self.text(0x1C)
    }

    /// Reason String.
    pub fn reason_string(&self) -> Option<ByteString> {
        self.text(0x1F)
    }

    /// Receive Maximum, at least 1.
    pub fn receive_maximum(&self) -> Option<u16> {
        self.two(0x21)
    }

    /// Topic Alias Maximum.
    pub fn topic_alias_maximum(&self) -> Option<u16> {
        self.two(0x22)
    }

    /// Topic Alias, at least 1.
    pub fn topic_alias(&self) -> Option<u16> {
        self.two(0x23)
    }

    /// Maximum QoS, 0 or 1.
    pub fn maximum_qos(&self) -> Option<u8> {
        self.flag(0x24)
    }

    /// Retain Available.
    pub fn retain_available(&self) -> Option<u8> {
        self.flag(0x25)
    }

    /// User Properties in their order.
    pub fn user_properties(&self) -> impl Iterator<Item = (ByteString, ByteString)> + '_ {
        self.raw().filter(|raw| raw.identifier == 0x26).filter_map(|raw| {
            match Property::of_raw(raw, &self.0)? {
                Property::UserProperty(name, value) => Some((name, value)),
                _ => None,
            }
        })
    }

    /// Maximum Packet Size, at least 1.
    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.four(0x27)
    }

    /// Wildcard Subscription Available.
    pub fn wildcard_subscription_available(&self) -> Option<u8> {
        self.flag(0x28)
    }

    /// Subscription Identifier Available.
    pub fn subscription_identifier_available(&self) -> Option<u8> {
        self.flag(0x29)
    }

    /// Shared Subscription Available.
    pub fn shared_subscription_available(&self) -> Option<u8> {
        self.flag(0x2A)
    }
}

/// The parts of a block that stay, joined where they touch.
#[derive(Default)]
struct Parts {
    /// The first part: where it starts and ends.
    first: (usize, usize),
    /// Further ones; empty in nearly every block, since senders write what they add at one end.
    others: Vec<(usize, usize)>,
}

impl Parts {
    fn keep(&mut self, start: usize, size: usize) {
        let end = start + size;
        let last = self.others.last_mut().unwrap_or(&mut self.first);
        if last.0 == last.1 {
            *last = (start, end);
        } else if last.1 == start {
            last.1 = end;
        } else {
            self.others.push((start, end));
        }
    }

    fn of(&self, block: &Bytes) -> Properties {
        if self.others.is_empty() {
            // An empty range takes no share of the buffer, so nothing is pinned by it.
            return Properties(block.slice(self.first.0..self.first.1));
        }
        let parts = std::iter::once(&self.first).chain(&self.others);
        let bytes = parts.flat_map(|&(start, end)| block.get(start..end).unwrap_or_default());
        Properties(bytes.copied().collect())
    }
}

impl Properties {
    /// A block that this process has validated and kept before, such as a row of the store whose
    /// checksum holds; it is not checked again.
    pub fn from_kept(block: Bytes) -> Properties {
        Properties(block)
    }
}
