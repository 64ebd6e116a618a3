//! Fields of a packet, appended to a buffer.
//!
//! The counterpart of the reader. What MQTT cannot say (a text over 65,535 bytes, a packet over 256 MiB)
//! is an error of ours, not of a peer.

/// A value that has no form in MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// A text or datum is longer than 65,535 bytes.
    #[error("encode the packet: a text is longer than 65,535 bytes")]
    TextTooLong,
    /// The packet is longer than 268,435,455 bytes.
    #[error("encode the packet: it is longer than 268,435,455 bytes")]
    PacketTooLong,
    /// The version has no such packet.
    #[error("encode the packet: this protocol version does not have it")]
    NotInVersion,
}

pub(super) fn put_two(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_four(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Two bytes of length, then the bytes themselves.
pub(super) fn put_data(out: &mut Vec<u8>, data: &[u8]) -> Result<(), Unwritable> {
    let length = u16::try_from(data.len()).map_err(|_| Unwritable::TextTooLong)?;
    put_two(out, length);
    out.extend_from_slice(data);
    Ok(())
}

/// A Variable Byte Integer in as few bytes as it needs. [MQTT5-1.5.5-1]
pub(super) fn put_variable(out: &mut Vec<u8>, value: usize) -> Result<(), Unwritable> {
    if value > VARIABLE_MAX {
        return Err(Unwritable::PacketTooLong);
    }
    let mut rest = value;
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low);
            return Ok(());
        }
        out.push(low | 0x80);
    }
}

/// Bytes that a Variable Byte Integer takes.
pub(super) fn variable_size(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a packet: first byte, length, and what `body` appends. On an error nothing was appended.
pub(super) fn put_packet(
    out: &mut Vec<u8>,
    first: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), Unwritable>,
) -> Result<(), Unwritable> {
    let start = out.len();
    out.push(first);
    let result = body(out).and_then(|()| put_length_at(out, start + 1));
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Puts the length of what follows `at` in front of it.
fn put_length_at(out: &mut Vec<u8>, at: usize) -> Result<(), Unwritable> {
    let end = out.len();
    put_variable(out, end - at)?;
    let shift = out.len() - end;
    if let Some(tail) = out.get_mut(at..) {
        tail.rotate_right(shift);
    }
    Ok(())
}

/// The largest Variable Byte Integer.
pub(super) const VARIABLE_MAX: usize = 268_435_455;
