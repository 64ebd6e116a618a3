//! Packets to bytes, appended to a buffer.
//!
//! What a version does not have is left out: properties and reasons before MQTT 5. On an error the
//! buffer is as it was.

mod connect;
mod publish;

use super::writer::{Unwritable, put_data, put_packet, put_two, put_variable};
use super::{Ack, Packet, Properties, Reason, Subscribe, SubscriptionOptions, Unsubscribe, Version};

pub use publish::{PublishParts, encode_publish, publish_size};

/// Appends a packet as this version writes it.
pub fn encode(packet: &Packet, version: Version, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match packet {
        Packet::Publish(packet) => encode_publish(out, version, &PublishParts::from(packet)),
        Packet::PubAck(ack) => put_ack(out, 0x40, ack, version),
        Packet::PubRec(ack) => put_ack(out, 0x50, ack, version),
        // [MQTT5-3.6.1-1]
        Packet::PubRel(ack) => put_ack(out, 0x62, ack, version),
        Packet::PubComp(ack) => put_ack(out, 0x70, ack, version),
        Packet::Connect(packet) => put_packet(out, 0x10, |out| connect::put(out, packet, version)),
        Packet::ConnAck(packet) => put_packet(out, 0x20, |out| connect::put_ack(out, packet, version)),
        Packet::Subscribe(packet) => put_packet(out, 0x82, |out| put_subscribe(out, packet, version)),
        Packet::SubAck(packet) => put_packet(out, 0x90, |out| {
            put_two(out, packet.packet_id);
            put_properties(out, &packet.properties, version)?;
            out.extend(packet.reasons.iter().map(|reason| suback_code(*reason, version)));
            Ok(())
        }),
        Packet::Unsubscribe(packet) => put_packet(out, 0xA2, |out| put_unsubscribe(out, packet, version)),
        Packet::UnsubAck(packet) => put_packet(out, 0xB0, |out| {
            put_two(out, packet.packet_id);
            put_properties(out, &packet.properties, version)?;
            if version == Version::V5 {
                out.extend(packet.reasons.iter().map(|reason| reason.code()));
            }
            Ok(())
        }),
        Packet::PingReq => put_packet(out, 0xC0, |_| Ok(())),
        Packet::PingResp => put_packet(out, 0xD0, |_| Ok(())),
        Packet::Disconnect(packet) => {
            put_packet(out, 0xE0, |out| put_reason(out, packet.reason, &packet.properties, version))
        }
        Packet::Auth(_) if version != Version::V5 => Err(Unwritable::NotInVersion),
        Packet::Auth(packet) => put_packet(out, 0xF0, |out| {
            if packet.reason == Reason::Success && packet.properties.is_empty() {
                return Ok(());
            }
            out.push(packet.reason.code());
            put_properties(out, &packet.properties, version)
        }),
    }
}

fn put_ack(out: &mut Vec<u8>, first: u8, ack: &Ack, version: Version) -> Result<(), Unwritable> {
    put_packet(out, first, |out| {
        put_two(out, ack.packet_id);
        put_reason(out, ack.reason, &ack.properties, version)
    })
}

/// Reason and properties at the end of a packet, each left out where that says the same.
fn put_reason(
    out: &mut Vec<u8>,
    reason: Reason,
    properties: &Properties,
    version: Version,
) -> Result<(), Unwritable> {
    if version != Version::V5 || (reason == Reason::Success && properties.is_empty()) {
        return Ok(());
    }
    out.push(reason.code());
    if properties.is_empty() { Ok(()) } else { put_properties(out, properties, version) }
}

/// The block with its length; nothing before MQTT 5.
fn put_properties(out: &mut Vec<u8>, properties: &Properties, version: Version) -> Result<(), Unwritable> {
    if version == Version::V5 {
        put_variable(out, properties.as_bytes().len())?;
        out.extend_from_slice(properties.as_bytes());
    }
    Ok(())
}

fn put_subscribe(out: &mut Vec<u8>, packet: &Subscribe, version: Version) -> Result<(), Unwritable> {
    put_two(out, packet.packet_id);
    put_properties(out, &packet.properties, version)?;
    for subscription in &packet.filters {
        put_data(out, subscription.filter.as_bytes())?;
        out.push(options_bits(subscription.options, version));
    }
    Ok(())
}

fn put_unsubscribe(out: &mut Vec<u8>, packet: &Unsubscribe, version: Version) -> Result<(), Unwritable> {
    put_two(out, packet.packet_id);
    put_properties(out, &packet.properties, version)?;
    packet.filters.iter().try_for_each(|filter| put_data(out, filter.as_bytes()))
}

fn options_bits(options: SubscriptionOptions, version: Version) -> u8 {
    let qos = options.qos as u8;
    match version {
        Version::V31 | Version::V311 => qos,
        Version::V5 => {
            qos | u8::from(options.no_local) << 2
                | u8::from(options.retain_as_published) << 3
                | (options.retain_handling as u8) << 4
        }
    }
}

/// Before MQTT 5 every failure is 0x80. [MQTT311-3.9.3-2]
fn suback_code(reason: Reason, version: Version) -> u8 {
    match version {
        Version::V31 | Version::V311 if reason.is_error() => Reason::UnspecifiedError.code(),
        _ => reason.code(),
    }
}
