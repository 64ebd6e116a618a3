//! The plainest of packets, read without being taken apart: a PUBLISH of QoS 0 that is a topic and a payload.
//!
//! Most messages are. Its bytes are the same for each who takes it, in every connection of the same wording.

use super::Version;
use super::reader::read_variable;

/// A whole packet of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'a> {
    /// All of its bytes.
    pub bytes: &'a [u8],
    /// The topic as it stands there: what no other packet has shown to be one may be none.
    pub topic: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Plain<'a> {
    /// Whether one may begin here.
    #[inline]
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        bytes.first() == Some(&PUBLISH)
    }

    /// The one at the start of `bytes`, of at most so many bytes; `None` where something else is there, or only its
    /// begin.
    #[inline]
    pub fn read(bytes: &'a [u8], version: Version, max_packet: usize) -> Option<Plain<'a>> {
        let (&first, rest) = bytes.split_first()?;
        if first != PUBLISH {
            return None;
        }
        let (remaining, variable) = read_variable(rest).ok()??;
        let total = 1 + variable.bytes + remaining as usize;
        if !variable.minimal || total > max_packet {
            return None;
        }
        let bytes = bytes.get(..total)?;
        let (length, body) = bytes.get(1 + variable.bytes..)?.split_first_chunk()?;
        let (topic, body) = body.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let payload = match version {
            Version::V31 | Version::V311 => body,
            // It has no properties.
            Version::V5 => body.strip_prefix(&[0])?,
        };
        Some(Plain { bytes, topic, payload })
    }
}

/// PUBLISH of QoS 0, not retained.
const PUBLISH: u8 = 0x30;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{Decoder, Packet, Properties, Publish, QoS, Side, encode};

    /// What the decoder makes of the same bytes.
    fn decoded(bytes: &[u8], version: Version) -> Option<(String, Vec<u8>, bool)> {
        let mut decoder = Decoder::new(Side::Client, MAX);
        decoder.set_version(version);
        decoder.feed(Bytes::copy_from_slice(bytes));
        let Ok(Some(Packet::Publish(publish))) = decoder.decode() else { return None };
        let is_plain = publish.qos == QoS::AtMostOnce && !publish.retain && publish.properties.is_empty();
        Some((publish.topic.to_string(), publish.payload.to_vec(), is_plain))
    }

    const MAX: usize = 200;

    #[test]
    fn it_is_what_the_decoder_makes_of_it() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for (topic, size) in [("a", 0), ("a", 150), ("sensors/1/temperature", 100), ("a", 250)] {
                let publish = Publish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic: topic.into(),
                    packet_id: 0,
                    properties: Properties::new(),
                    payload: vec![7; size].into(),
                };
                let mut bytes = Vec::new();
                encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
                let whole = bytes.len();
                bytes.extend([PUBLISH, 3]);
                let plain = Plain::read(&bytes, version, MAX);
                assert_eq!(plain.is_some(), whole <= MAX, "{version:?} {size}");
                let Some(plain) = plain else { continue };
                assert_eq!(plain.bytes.len(), whole);
                let read = String::from_utf8(plain.topic.to_vec()).unwrap();
                assert_eq!(decoded(&bytes, version), Some((read, plain.payload.to_vec(), true)));
                for end in 0..whole {
                    assert_eq!(Plain::read(&bytes[..end], version, MAX), None, "its begin alone");
                }
            }
        }
    }

    #[test]
    fn whatever_else_is_there_is_left_to_the_decoder() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for first in 0..=255_u8 {
                for rest in [
                    &[4, 0, 1, b'a', 0][..],
                    &[0x84, 0, 0, 1, b'a', 0],
                    &[4, 0, 9, b'a', 0],
                    &[5, 0, 1, b'a', 1, 2],
                    &[1, 0],
                    &[0xFF, 0xFF, 0xFF, 0xFF, 1],
                ] {
                    let bytes = [&[first], rest].concat();
                    let Some(plain) = Plain::read(&bytes, version, MAX) else { continue };
                    let (topic, payload, is_plain) = decoded(&bytes, version).unwrap();
                    assert!(is_plain, "{version:?} {bytes:?}");
                    assert_eq!((topic.as_bytes(), &*payload), (plain.topic, plain.payload));
                }
            }
        }
    }
}
