//! The plainest of packets, read without being taken apart: a PUBLISH that is a topic and a payload.
//!
//! Most messages are. Its bytes are the same for each who takes it, in every connection of the same wording, but for
//! the packet id and how surely it is sent.

use super::reader::read_variable;
use super::writer::put_variable;
use super::{QoS, Version};

/// A whole packet of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'a> {
    /// All of its bytes.
    pub bytes: &'a [u8],
    /// How surely it is sent.
    pub qos: QoS,
    /// Its packet id; 0 at QoS 0.
    pub packet_id: u16,
    /// The topic as it stands there: what no other packet has shown to be one may be none.
    pub topic: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Where its topic begins with its length.
    head: usize,
}

impl<'a> Plain<'a> {
    /// Whether one may begin with this byte.
    #[inline]
    pub(super) fn may_begin(first: u8) -> bool {
        qos_of(first).is_some()
    }

    /// The one at the start of `bytes`, of at most so many bytes; `None` where something else is there, or only its
    /// begin.
    #[inline]
    pub fn read(bytes: &'a [u8], version: Version, max_packet: usize) -> Option<Plain<'a>> {
        let (&first, rest) = bytes.split_first()?;
        let qos = qos_of(first)?;
        let (remaining, variable) = read_variable(rest).ok()??;
        let head = 1 + variable.bytes;
        let total = head + remaining as usize;
        if !variable.minimal || total > max_packet {
            return None;
        }
        let bytes = bytes.get(..total)?;
        let (length, body) = bytes.get(head..)?.split_first_chunk()?;
        let (topic, mut body) = body.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let mut packet_id = 0;
        if qos > QoS::AtMostOnce {
            let (id, rest) = body.split_first_chunk()?;
            (packet_id, body) = (u16::from_be_bytes(*id), rest);
            if packet_id == 0 {
                return None;
            }
        }
        let payload = match version {
            Version::V31 | Version::V311 => body,
            // It has no properties.
            Version::V5 => body.strip_prefix(&[0])?,
        };
        Some(Plain { bytes, qos, packet_id, topic, payload, head })
    }

    /// Appends it as it is sent at this QoS, its own or a lower one, under the packet id of that exchange.
    #[inline]
    pub fn put(&self, qos: QoS, packet_id: u16, out: &mut Vec<u8>) {
        if self.qos == QoS::AtMostOnce {
            return out.extend_from_slice(self.bytes);
        }
        let id = self.head + 2 + self.topic.len();
        let first = PUBLISH | (qos as u8) << 1;
        if qos == QoS::AtMostOnce {
            let (head, rest) = (self.bytes.get(self.head..id), self.bytes.get(id + 2..));
            let (head, rest) = (head.unwrap_or_default(), rest.unwrap_or_default());
            out.push(first);
            // It can be said, since it is less than was read.
            let _ = put_variable(out, head.len() + rest.len());
            out.extend_from_slice(head);
            return out.extend_from_slice(rest);
        }
        let start = out.len();
        out.extend_from_slice(self.bytes);
        let put = out.get_mut(start..).unwrap_or_default();
        put.first_mut().into_iter().for_each(|place| *place = first);
        put.get_mut(id..id + 2).into_iter().for_each(|place| place.copy_from_slice(&packet_id.to_be_bytes()));
    }
}

/// How surely a PUBLISH is sent that begins so, is not retained and is no repeat.
#[inline]
fn qos_of(first: u8) -> Option<QoS> {
    match first {
        PUBLISH => Some(QoS::AtMostOnce),
        0x32 => Some(QoS::AtLeastOnce),
        0x34 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}

/// PUBLISH of QoS 0, not retained.
const PUBLISH: u8 = 0x30;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{Decoder, Packet, Properties, Publish, QoS, Side, encode};

    const ALL: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

    /// What the decoder makes of the same bytes, where that is a message that is nothing more.
    fn decoded(bytes: &[u8], version: Version) -> Option<Publish> {
        let mut decoder = Decoder::new(Side::Client, MAX);
        decoder.set_version(version);
        decoder.feed(Bytes::copy_from_slice(bytes));
        let Ok(Some(Packet::Publish(publish))) = decoder.decode() else { return None };
        (!publish.dup && !publish.retain && publish.properties.is_empty()).then_some(publish)
    }

    fn message(topic: &str, size: usize, qos: QoS) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.into(),
            packet_id: if qos == QoS::AtMostOnce { 0 } else { 0x1234 },
            properties: Properties::new(),
            payload: vec![7; size].into(),
        }
    }

    fn encoded(publish: &Publish, version: Version) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&Packet::Publish(publish.clone()), version, &mut bytes).unwrap();
        bytes
    }

    const MAX: usize = 200;

    #[test]
    fn it_is_what_the_decoder_makes_of_it() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for (topic, size) in [("a", 0), ("a", 150), ("sensors/1/temperature", 100), ("a", 250)] {
                for qos in ALL {
                    let publish = message(topic, size, qos);
                    let mut bytes = encoded(&publish, version);
                    let whole = bytes.len();
                    bytes.extend([PUBLISH, 3]);
                    let plain = Plain::read(&bytes, version, MAX);
                    assert_eq!(plain.is_some(), whole <= MAX, "{version:?} {size}");
                    let Some(plain) = plain else { continue };
                    assert_eq!((plain.bytes.len(), plain.qos), (whole, qos));
                    assert_eq!(decoded(&bytes, version), Some(publish.clone()));
                    let said = (plain.topic, plain.payload, plain.packet_id);
                    assert_eq!(said, (topic.as_bytes(), &*publish.payload, publish.packet_id));
                    for end in 0..whole {
                        assert_eq!(Plain::read(&bytes[..end], version, MAX), None, "its begin alone");
                    }
                }
            }
        }
    }

    #[test]
    fn it_is_sent_as_it_would_be_encoded() {
        for version in [Version::V31, Version::V311, Version::V5] {
            // Some whose length takes a byte less without a packet id.
            for (topic, size) in
                [("a", 0), ("sensors/1/temperature", 100), ("t", 123), ("t", 122), ("t", 300)]
            {
                for (qos, own) in ALL.into_iter().flat_map(|qos| ALL.map(|own| (qos, own))) {
                    if qos > own {
                        continue;
                    }
                    let bytes = encoded(&message(topic, size, own), version);
                    let plain = Plain::read(&bytes, version, 1_000).unwrap();
                    let mut out = b"before".to_vec();
                    plain.put(qos, 0xABCD, &mut out);
                    let packet_id = if qos == QoS::AtMostOnce { 0 } else { 0xABCD };
                    let expected = encoded(&Publish { packet_id, ..message(topic, size, qos) }, version);
                    assert_eq!(out.strip_prefix(b"before"), Some(&*expected), "{version:?} {own:?} {qos:?}");
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
                    &[6, 0, 1, b'a', 0, 9, 0],
                    &[6, 0, 1, b'a', 0, 0, 0],
                    &[4, 0, 1, b'a', 9],
                    &[1, 0],
                    &[0xFF, 0xFF, 0xFF, 0xFF, 1],
                ] {
                    let bytes = [&[first], rest].concat();
                    let Some(plain) = Plain::read(&bytes, version, MAX) else { continue };
                    let publish = decoded(&bytes, version).unwrap();
                    assert_eq!((publish.qos, publish.packet_id), (plain.qos, plain.packet_id), "{bytes:?}");
                    assert_eq!(
                        (&**publish.topic.as_bytes(), &*publish.payload),
                        (plain.topic, plain.payload)
                    );
                }
            }
        }
    }

    #[test]
    fn what_has_just_come_may_be_one_where_nothing_was_begun_or_broken_before() {
        let bytes = encoded(&message("a", 9, QoS::AtLeastOnce), Version::V311);
        let (begin, end) = bytes.split_at(3);
        assert!(!Decoder::new(Side::Server, MAX).would_be_plain(&bytes), "CONNECT is to come first");
        let mut decoder = Decoder::new(Side::Client, MAX);
        assert!(decoder.would_be_plain(&bytes) && !decoder.would_be_plain(&[]));
        assert!(!decoder.would_be_plain(&[PUBLISH | 1]) && !decoder.is_plain());
        decoder.feed(Bytes::copy_from_slice(&[begin, end].concat()));
        assert!(decoder.is_plain() && !decoder.would_be_plain(&bytes), "what was fed is decoded first");
        decoder.set_version(Version::V311);
        assert!(decoder.decode().unwrap().is_some());
        decoder.feed(Bytes::copy_from_slice(begin));
        assert_eq!(decoder.decode(), Ok(None));
        assert!(!decoder.would_be_plain(end) && !decoder.would_be_plain(&bytes));
        decoder.feed(Bytes::copy_from_slice(end));
        assert!(decoder.decode().unwrap().is_some() && decoder.would_be_plain(&bytes));
        decoder.feed(Bytes::from_static(&[0x3F, 0]));
        assert!(decoder.decode().is_err() && !decoder.would_be_plain(&bytes));
    }
}
