//! CONNECT and CONNACK.
//!
//! 3.1 is read as its clients write it and not as later versions define it: its reserved flags are
//! ignored, client ids may be longer than 23 characters, and user name and password may be missing
//! though their flags are set.

use bytes::Bytes;
use bytestring::ByteString;

use crate::codec::reader::Reader;
use crate::codec::{Carrier, ConnAck, Connect, Malformed, Properties, QoS, Reason, Version, Will};

/// Reads protocol name and level.
pub(in crate::codec) fn read_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let name = reader.data()?;
    // [MQTT5-3.1.2-1] [MQTT5-3.1.2-2] [MQTT311-3.1.2-2]. A bridge of mosquitto sets the level's upper
    // bit; it tries again without it once that is refused.
    match (&*name, reader.byte()?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(Malformed::ProtocolVersion),
    }
}

/// Reads what follows the protocol level.
pub(super) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Connect, Malformed> {
    let flags = Flags::read(reader.byte()?, version)?;
    let keep_alive = reader.two()?;
    let properties = match version {
        Version::V5 => reader.properties(Carrier::Connect)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    // [MQTT5-3.1.3-1]: the fields come in this order.
    let client_id = reader.text()?;
    let will = match flags.will {
        Some((qos, retain)) => Some(read_will(reader, version, qos, retain)?),
        None => None,
    };
    let username = read_username(reader, version, flags)?;
    let password = read_password(reader, version, flags)?;
    let clean_start = flags.clean_start;
    Ok(Connect { version, clean_start, keep_alive, client_id, will, username, password, properties })
}

#[derive(Clone, Copy)]
struct Flags {
    clean_start: bool,
    will: Option<(QoS, Retain)>,
    username: bool,
    password: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retain {
    Yes,
    No,
}

impl Flags {
    fn read(bits: u8, version: Version) -> Result<Flags, Malformed> {
        let is_set = |bit: u8| bits & bit != 0;
        let strict = version != Version::V31;
        // [MQTT5-3.1.2-3] [MQTT311-3.1.2-3]
        if is_set(0x01) && strict {
            return Err(Malformed::ConnectFlagReserved);
        }
        let retain = if is_set(0x20) { Retain::Yes } else { Retain::No };
        let will = if is_set(0x04) {
            // [MQTT5-3.1.2-12] [MQTT311-3.1.2-14]
            Some((QoS::from_bits((bits >> 3) & 0b11).ok_or(Malformed::WillQoS)?, retain))
        } else if bits & 0x38 != 0 && strict {
            // [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT311-3.1.2-13] [MQTT311-3.1.2-15]
            return Err(Malformed::WillFlags);
        } else {
            None
        };
        let (username, password) = (is_set(0x80), is_set(0x40));
        // [MQTT311-3.1.2-22]; MQTT 5 allows it.
        if password && !username && version != Version::V5 {
            return Err(Malformed::PasswordAlone);
        }
        Ok(Flags { clean_start: is_set(0x02), will, username, password })
    }
}

fn read_will(reader: &mut Reader<'_>, version: Version, qos: QoS, retain: Retain) -> Result<Will, Malformed> {
    let properties = match version {
        Version::V5 => reader.properties(Carrier::Will)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    let topic = reader.topic_name()?;
    // [MQTT5-4.7.3-1] [MQTT311-4.7.3-1]
    if topic.is_empty() {
        return Err(Malformed::TopicMissing);
    }
    let payload = reader.data()?;
    Ok(Will { qos, retain: retain == Retain::Yes, topic, payload, properties })
}

fn read_username(
    reader: &mut Reader<'_>,
    version: Version,
    flags: Flags,
) -> Result<Option<ByteString>, Malformed> {
    if flags.username && !is_left_out(reader, version) { reader.text().map(Some) } else { Ok(None) }
}

fn read_password(
    reader: &mut Reader<'_>,
    version: Version,
    flags: Flags,
) -> Result<Option<Bytes>, Malformed> {
    if flags.password && !is_left_out(reader, version) { reader.data().map(Some) } else { Ok(None) }
}

/// In 3.1 the remaining length takes precedence over the flags (section 3.1).
fn is_left_out(reader: &Reader<'_>, version: Version) -> bool {
    version == Version::V31 && reader.remaining() == 0
}

pub(super) fn read_ack(reader: &mut Reader<'_>, version: Version) -> Result<ConnAck, Malformed> {
    let flags = reader.byte()?;
    let code = reader.byte()?;
    let reason = match version {
        Version::V5 => Reason::from_code(code).filter(|reason| is_of_connack(*reason)),
        Version::V31 | Version::V311 => Reason::from_return_code(code),
    };
    let reason = reason.ok_or(Malformed::ReasonForeign)?;
    // In 3.1 the byte is unused. [MQTT5-3.2.2-1] [MQTT311-3.2.2-1]
    if flags > 1 && version != Version::V31 {
        return Err(Malformed::ConnAckFlags);
    }
    let session_present = flags == 1 && version != Version::V31;
    // [MQTT5-3.2.2-6] [MQTT311-3.2.2-4]
    if session_present && reason != Reason::Success {
        return Err(Malformed::ConnAckFlags);
    }
    let properties = match version {
        Version::V5 => reader.properties(Carrier::ConnAck)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    Ok(ConnAck { session_present, reason, properties })
}

/// Table 3-1 of the standard.
fn is_of_connack(reason: Reason) -> bool {
    matches!(
        reason.code(),
        0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
    )
}
