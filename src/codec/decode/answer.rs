//! The packets that are little more than a reason: acknowledgements, DISCONNECT, AUTH.
//!
//! Each has a table of the reason codes that it may carry.

use crate::codec::reader::Reader;
use crate::codec::{
    Ack, Auth, Carrier, Disconnect, Malformed, Properties, Reason, Side, SubAck, UnsubAck, Version,
};

use super::Kind;

pub(super) fn read_ack(kind: Kind, reader: &mut Reader<'_>, version: Version) -> Result<Ack, Malformed> {
    let packet_id = reader.packet_id()?;
    let mut ack = Ack { packet_id, reason: Reason::Success, properties: Properties::new() };
    // [MQTT5-3.4.2.1]: a reason that is left out is success; [MQTT5-3.4.2.2.1]: so are properties.
    if version == Version::V5 && reader.remaining() > 0 {
        ack.reason = read_reason(reader, |code| is_of_ack(kind, code))?;
        if reader.remaining() > 0 {
            ack.properties = reader.properties(Carrier::Ack)?;
        }
    }
    Ok(ack)
}

pub(super) fn read_suback(reader: &mut Reader<'_>, version: Version) -> Result<SubAck, Malformed> {
    let packet_id = reader.packet_id()?;
    let properties = match version {
        Version::V5 => reader.properties(Carrier::SubAck)?,
        Version::V31 | Version::V311 => Properties::new(),
    };
    let reasons = read_reasons(reader, |code| match version {
        Version::V5 => matches!(code, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2),
        // [MQTT311-3.9.3-2]
        Version::V31 | Version::V311 => matches!(code, 0..=2 | 0x80),
    })?;
    Ok(SubAck { packet_id, properties, reasons })
}

pub(super) fn read_unsuback(reader: &mut Reader<'_>, version: Version) -> Result<UnsubAck, Malformed> {
    let packet_id = reader.packet_id()?;
    if version != Version::V5 {
        return Ok(UnsubAck { packet_id, properties: Properties::new(), reasons: Vec::new() });
    }
    let properties = reader.properties(Carrier::UnsubAck)?;
    let reasons =
        read_reasons(reader, |code| matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91))?;
    Ok(UnsubAck { packet_id, properties, reasons })
}

pub(super) fn read_disconnect(
    reader: &mut Reader<'_>,
    side: Side,
    version: Version,
) -> Result<Disconnect, Malformed> {
    let mut disconnect = Disconnect { reason: Reason::Success, properties: Properties::new() };
    // [MQTT5-3.14.2.1] [MQTT5-3.14.2.2.1]: both may be left out.
    if version == Version::V5 && reader.remaining() > 0 {
        disconnect.reason = read_reason(reader, |code| is_of_disconnect(side, code))?;
        if reader.remaining() > 0 {
            let carrier = match side {
                Side::Server => Carrier::ClientDisconnect,
                Side::Client => Carrier::ServerDisconnect,
            };
            disconnect.properties = reader.properties(carrier)?;
        }
    }
    Ok(disconnect)
}

pub(super) fn read_auth(reader: &mut Reader<'_>, side: Side) -> Result<Auth, Malformed> {
    // [MQTT5-3.15.2.1]: an empty body is success without properties.
    if reader.remaining() == 0 {
        return Ok(Auth { reason: Reason::Success, properties: Properties::new() });
    }
    let reason = read_reason(reader, |code| match side {
        Side::Server => matches!(code, 0x18 | 0x19),
        Side::Client => matches!(code, 0x00 | 0x18),
    })?;
    let properties = reader.properties(Carrier::Auth)?;
    Ok(Auth { reason, properties })
}

fn read_reason(reader: &mut Reader<'_>, is_allowed: impl Fn(u8) -> bool) -> Result<Reason, Malformed> {
    let code = reader.byte()?;
    Reason::from_code(code).filter(|_| is_allowed(code)).ok_or(Malformed::ReasonForeign)
}

fn read_reasons(reader: &mut Reader<'_>, is_allowed: impl Fn(u8) -> bool) -> Result<Vec<Reason>, Malformed> {
    let mut reasons = Vec::with_capacity(reader.remaining());
    while reader.remaining() > 0 {
        reasons.push(read_reason(reader, &is_allowed)?);
    }
    // [MQTT5-3.9.3-1] [MQTT5-3.11.3-1] [MQTT311-3.9.3-1]: one for each filter, of which there is one.
    if reasons.is_empty() { Err(Malformed::NoReason) } else { Ok(reasons) }
}

/// Tables 3-4 to 3-7 of the standard.
fn is_of_ack(kind: Kind, code: u8) -> bool {
    match kind {
        Kind::PubAck | Kind::PubRec => {
            matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        _ => matches!(code, 0x00 | 0x92),
    }
}

/// Table 3-10 of the standard.
fn is_of_disconnect(reader: Side, code: u8) -> bool {
    match reader {
        Side::Server => {
            matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
        }
        Side::Client => {
            matches!(code, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B | 0x8D..=0x90 | 0x93..=0xA2)
        }
    }
}
