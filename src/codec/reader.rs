//! A place in a packet, moving forward as fields are taken.
//!
//! Every taking is checked against the packet's end, so a length that lies is an error and never a
//! panic. What is taken as text or data shares the bytes that were fed.

use bytes::Bytes;
use bytestring::ByteString;

use super::octets::is_no_topic_name;
use super::{Carrier, Malformed, Properties};

pub(super) struct Reader<'a> {
    /// What slices are taken of.
    source: &'a Bytes,
    /// What of it is not yet read; lies within `source`.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Bytes, rest: &'a [u8]) -> Reader<'a> {
        Reader { source, rest }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed::EndsEarly)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn two(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::EndsEarly)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.two()? {
            // [MQTT5-2.2.1-3] [MQTT311-2.3.1-1]
            0 => Err(Malformed::PacketIdZero),
            id => Ok(id),
        }
    }

    /// Two bytes of length and as many of data.
    pub(super) fn data(&mut self) -> Result<Bytes, Malformed> {
        let part = self.prefixed()?;
        Ok(self.source.slice_ref(part))
    }

    pub(super) fn text(&mut self) -> Result<ByteString, Malformed> {
        let part = self.prefixed()?;
        // [MQTT5-1.5.4-2] [MQTT311-1.5.3-2]
        if part.contains(&0) {
            return Err(Malformed::NullInText);
        }
        self.utf8(part)
    }

    /// A text without wildcards; may be empty.
    #[inline]
    pub(super) fn topic_name(&mut self) -> Result<ByteString, Malformed> {
        let part = self.prefixed()?;
        if is_no_topic_name(part) {
            // [MQTT5-3.3.2-2] [MQTT5-3.1.3-11] [MQTT311-3.3.2-2]
            return Err(if part.contains(&0) { Malformed::NullInText } else { Malformed::WildcardInTopic });
        }
        self.utf8(part)
    }

    #[inline]
    pub(super) fn properties(&mut self, carrier: Carrier) -> Result<Properties, Malformed> {
        let (length, rest) = split_variable(self.rest)?;
        let (part, rest) = rest.split_at_checked(length as usize).ok_or(Malformed::EndsEarly)?;
        self.rest = rest;
        Properties::from_bytes(self.source.slice_ref(part), carrier)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        let part = std::mem::take(&mut self.rest);
        self.source.slice_ref(part)
    }

    /// The packet's last field was read.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }

    #[inline]
    fn prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.two()?);
        let (part, rest) = self.rest.split_at_checked(length).ok_or(Malformed::EndsEarly)?;
        self.rest = rest;
        Ok(part)
    }

    #[inline]
    fn utf8(&self, part: &[u8]) -> Result<ByteString, Malformed> {
        // [MQTT5-1.5.4-1] [MQTT311-1.5.3-1]; the standard library knows no surrogates either.
        ByteString::try_from(self.source.slice_ref(part)).map_err(|_| Malformed::NotUtf8)
    }
}

/// Takes a Variable Byte Integer of MQTT 5 off the front.
pub(super) fn split_variable(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    match read_variable(bytes)? {
        Some((_, read)) if !read.minimal => Err(Malformed::LengthNotMinimal),
        Some((value, read)) => Ok((value, bytes.get(read.bytes..).unwrap_or_default())),
        None => Err(Malformed::EndsEarly),
    }
}

/// How a Variable Byte Integer was written.
pub(super) struct Variable {
    /// In how many bytes, 1 to 4.
    pub(super) bytes: usize,
    /// Whether fewer would not have done.
    pub(super) minimal: bool,
}

/// Reads a Variable Byte Integer; `None` where more bytes are needed.
pub(super) fn read_variable(bytes: &[u8]) -> Result<Option<(u32, Variable)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(VARIABLE_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let minimal = byte != 0 || index == 0;
            return Ok(Some((value, Variable { bytes: index + 1, minimal })));
        }
    }
    if bytes.len() < VARIABLE_BYTES_MAX { Ok(None) } else { Err(Malformed::LengthTooLong) }
}

/// A Variable Byte Integer ends after four bytes.
const VARIABLE_BYTES_MAX: usize = 4;
