//! CONNECT and CONNACK to bytes.
//!
//! Flags are what the packet's fields say; a will, user name or password that is not there sets none.

use crate::codec::writer::{Unwritable, put_data, put_two};
use crate::codec::{ConnAck, Connect, Version};

use super::put_properties;

/// Writes a CONNECT of `version`, whatever the packet itself says.
pub(super) fn put(out: &mut Vec<u8>, packet: &Connect, version: Version) -> Result<(), Unwritable> {
    let (name, level): (&[u8], u8) = match version {
        Version::V31 => (b"MQIsdp", 3),
        Version::V311 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    };
    put_data(out, name)?;
    out.push(level);
    out.push(flags(packet));
    put_two(out, packet.keep_alive);
    put_properties(out, &packet.properties, version)?;
    put_data(out, packet.client_id.as_bytes())?;
    if let Some(will) = &packet.will {
        put_properties(out, &will.properties, version)?;
        put_data(out, will.topic.as_bytes())?;
        put_data(out, &will.payload)?;
    }
    if let Some(username) = &packet.username {
        put_data(out, username.as_bytes())?;
    }
    if let Some(password) = &packet.password {
        put_data(out, password)?;
    }
    Ok(())
}

fn flags(packet: &Connect) -> u8 {
    let will =
        packet.will.as_ref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    u8::from(packet.clean_start) << 1
        | will
        | u8::from(packet.password.is_some()) << 6
        | u8::from(packet.username.is_some()) << 7
}

pub(super) fn put_ack(out: &mut Vec<u8>, packet: &ConnAck, version: Version) -> Result<(), Unwritable> {
    // In 3.1 the byte is unused and stays 0.
    out.push(u8::from(packet.session_present && version != Version::V31));
    out.push(match version {
        Version::V5 => packet.reason.code(),
        Version::V31 | Version::V311 => packet.reason.return_code(),
    });
    put_properties(out, &packet.properties, version)
}
