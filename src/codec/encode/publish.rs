//! PUBLISH to bytes, from parts that need not be a packet.
//!
//! One message goes to many connections: what differs between them (packet id, flags, expiry,
//! subscription ids) is given beside what does not. The size is known before, so the buffer grows once
//! and a receiver's Maximum Packet Size can be kept without writing.

use crate::codec::writer::{
    Unwritable, VARIABLE_MAX, put_data, put_four, put_two, put_variable, variable_size,
};
use crate::codec::{Properties, Publish, QoS, Version};

/// What a PUBLISH is made of.
#[derive(Debug, Clone, Copy)]
pub struct PublishParts<'a> {
    /// Topic name; empty where `alias` stands for it.
    pub topic: &'a str,
    /// Topic Alias, written before every other property (MQTT 5).
    pub alias: Option<u16>,
    /// Payload.
    pub payload: &'a [u8],
    /// Written as they are (MQTT 5).
    pub properties: &'a Properties,
    /// Message Expiry Interval in seconds, written before `properties`, which then has none (MQTT 5).
    pub expiry: Option<u32>,
    /// Subscription Identifiers, written before `properties`; none is 0 (MQTT 5).
    pub subscription_ids: &'a [u32],
    /// Not written at QoS 0.
    pub packet_id: u16,
    /// QoS.
    pub qos: QoS,
    /// DUP.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
}

impl<'a> From<&'a Publish> for PublishParts<'a> {
    fn from(packet: &'a Publish) -> PublishParts<'a> {
        PublishParts {
            topic: &packet.topic,
            alias: None,
            payload: &packet.payload,
            properties: &packet.properties,
            expiry: None,
            subscription_ids: &[],
            packet_id: packet.packet_id,
            qos: packet.qos,
            dup: packet.dup,
            retain: packet.retain,
        }
    }
}

impl PublishParts<'_> {
    fn first_byte(&self) -> u8 {
        0x30 | u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    /// Bytes of the property block without its length.
    fn block_size(&self) -> usize {
        let expiry = if self.expiry.is_some() { 1 + 4 } else { 0 };
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + variable_size(id as usize)).sum();
        let alias = if self.alias.is_some() { 1 + 2 } else { 0 };
        alias + expiry + ids + self.properties.as_bytes().len()
    }

    /// Bytes after the fixed header.
    fn remaining(&self, version: Version) -> usize {
        let packet_id = if self.qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = match version {
            Version::V31 | Version::V311 => 0,
            Version::V5 => {
                let block = self.block_size();
                variable_size(block) + block
            }
        };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }
}

/// Bytes of the whole packet, as [`encode_publish`] writes it.
pub fn publish_size(version: Version, parts: &PublishParts<'_>) -> usize {
    let remaining = parts.remaining(version);
    1 + variable_size(remaining) + remaining
}

/// Appends a PUBLISH. On an error the buffer is as it was.
pub fn encode_publish(
    out: &mut Vec<u8>,
    version: Version,
    parts: &PublishParts<'_>,
) -> Result<(), Unwritable> {
    let remaining = parts.remaining(version);
    if parts.topic.len() > usize::from(u16::MAX) {
        return Err(Unwritable::TextTooLong);
    }
    if remaining > VARIABLE_MAX || parts.subscription_ids.iter().any(|&id| id as usize > VARIABLE_MAX) {
        return Err(Unwritable::PacketTooLong);
    }
    out.reserve(1 + variable_size(remaining) + remaining);
    out.push(parts.first_byte());
    put_variable(out, remaining)?;
    put_data(out, parts.topic.as_bytes())?;
    if parts.qos != QoS::AtMostOnce {
        put_two(out, parts.packet_id);
    }
    if version == Version::V5 {
        put_block(out, parts)?;
    }
    out.extend_from_slice(parts.payload);
    Ok(())
}

fn put_block(out: &mut Vec<u8>, parts: &PublishParts<'_>) -> Result<(), Unwritable> {
    put_variable(out, parts.block_size())?;
    if let Some(alias) = parts.alias {
        out.push(0x23);
        put_two(out, alias);
    }
    if let Some(seconds) = parts.expiry {
        out.push(0x02);
        put_four(out, seconds);
    }
    for &id in parts.subscription_ids {
        out.push(0x0B);
        put_variable(out, id as usize)?;
    }
    out.extend_from_slice(parts.properties.as_bytes());
    Ok(())
}
