//! Takes the payload out of messages that are too large, as they come from upstream. Pure.
//!
//! To the engine such a message is an error that ends the connection, and a kept session would send it
//! again at every connect. So its bytes are passed over as they come, whatever size MQTT allows, and the
//! engine gets an empty message with its packet id in its place, to be acknowledged like any other.
//!
//! Invariant: of a message that is cut nothing is held but its topic, while that is read.

use crate::codec::Version;

/// Follows one stream from its beginning.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Bytes of the largest packet that is passed on whole.
    limit: usize,
    version: Version,
    place: Place,
    /// PUBLISH packets so far.
    messages: u64,
}

/// A message that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which PUBLISH of the connection it is, counted from 1.
    pub(super) message: u64,
    /// The beginning of its topic, at most [`TOPIC_SHOWN`] bytes.
    pub(super) topic: String,
    /// Bytes of the whole packet.
    pub(super) size: usize,
}

#[derive(Debug)]
enum Place {
    /// In the fixed header: the bytes of it so far.
    Header(Vec<u8>),
    /// In a packet that is passed on, with so many bytes left.
    Pass(usize),
    /// In the topic and packet id of one that is cut.
    Head { first: u8, size: usize, left: usize, head: Vec<u8> },
    /// In the rest of one that is cut, with so many bytes left.
    Skip(usize),
    /// Beyond what MQTT allows: the engine may say what is wrong.
    Lost,
}

impl Cutter {
    /// For packets of this version.
    pub(super) fn new(limit: usize, version: Version) -> Cutter {
        Cutter { limit, version, place: Place::Header(Vec::new()), messages: 0 }
    }

    /// These bytes have come: what the engine shall get is put behind `out`, and what was cut behind
    /// `cuts`.
    pub(super) fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, cuts: &mut Vec<Cut>) {
        while !bytes.is_empty() {
            bytes = match &mut self.place {
                Place::Header(_) => self.header(bytes, out),
                Place::Head { .. } => self.head(bytes, out, cuts),
                Place::Pass(left) => {
                    let (now, later) = split(bytes, *left);
                    out.extend_from_slice(now);
                    *left -= now.len();
                    later
                }
                Place::Skip(left) => {
                    let (now, later) = split(bytes, *left);
                    *left -= now.len();
                    later
                }
                Place::Lost => {
                    out.extend_from_slice(bytes);
                    return;
                }
            };
            if let Place::Pass(0) | Place::Skip(0) = self.place {
                self.place = Place::Header(Vec::new());
            }
        }
    }

    fn header<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let (Place::Header(header), Some((byte, later))) = (&mut self.place, bytes.split_first()) else {
            return bytes;
        };
        header.push(*byte);
        let Some((first, length)) = header.split_first() else { return later };
        let goes_on = length.last().is_none_or(|last| last & 0x80 != 0);
        if goes_on && length.len() < LENGTH_BYTES_MAX {
            return later;
        }
        let left = length.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7F));
        let (first, size) = (*first, header.len() + left);
        let is_message = first >> 4 == PUBLISH;
        self.messages += u64::from(is_message);
        if is_message && size > self.limit && !goes_on {
            self.place = Place::Head { first, size, left, head: Vec::new() };
        } else {
            out.append(header);
            self.place = if goes_on { Place::Lost } else { Place::Pass(left) };
        }
        later
    }

    fn head<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>, cuts: &mut Vec<Cut>) -> &'a [u8] {
        let (Place::Head { first, size, left, head }, Some((byte, later))) =
            (&mut self.place, bytes.split_first())
        else {
            return bytes;
        };
        head.push(*byte);
        let [high, low, rest @ ..] = head.as_slice() else { return later };
        let topic = usize::from(u16::from_be_bytes([*high, *low]));
        let packet_id = if *first & QOS == 0 { 0 } else { 2 };
        let wanted = 2 + topic + packet_id;
        if wanted > *left {
            // A topic that is longer than its packet: no packet is of type 0 either.
            out.extend([0, 0]);
            self.place = Place::Lost;
        } else if let Some((topic, packet_id)) = rest.split_at_checked(topic)
            && head.len() == wanted
        {
            let shown = topic.get(..TOPIC_SHOWN).unwrap_or(topic);
            let topic = String::from_utf8_lossy(shown).into_owned();
            cuts.push(Cut { message: self.messages, topic, size: *size });
            let properties: &[u8] = if self.version == Version::V5 { &[0] } else { &[] };
            let body = [STAND_IN, packet_id, properties].concat();
            out.push(*first);
            out.extend(u8::try_from(body.len()));
            out.extend(body);
            self.place = Place::Skip(*left - wanted);
        }
        later
    }
}

fn split(bytes: &[u8], at: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(at).unwrap_or((bytes, &[]))
}

/// The type of a PUBLISH, and the bits of its QoS.
const PUBLISH: u8 = 3;
const QOS: u8 = 0b0000_0110;
/// Bytes of a remaining length.
const LENGTH_BYTES_MAX: usize = 4;
/// The topic of an empty message that stands for one that was cut.
const STAND_IN: &[u8] = b"\0\x03cut";
/// Bytes of a topic that are told.
const TOPIC_SHOWN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Ack, Packet, Properties, Property, Publish, QoS, Reason, encode};

    fn publish(version: Version, topic: &str, packet_id: u16, payload: usize) -> Vec<u8> {
        let publish = Publish {
            dup: false,
            qos: if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            retain: true,
            topic: topic.into(),
            packet_id,
            properties: match version {
                Version::V5 => Properties::from_list(&[Property::ContentType("text".into())]),
                Version::V31 | Version::V311 => Properties::new(),
            },
            payload: vec![0x32; payload].into(),
        };
        let mut bytes = Vec::new();
        encode(&Packet::Publish(publish), version, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_too_large_leaves_an_empty_message_and_the_rest_is_untouched() {
        for version in [Version::V311, Version::V5] {
            let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            let length = |bytes: usize| u8::try_from(bytes + properties.len()).unwrap();
            let mut ack = Vec::new();
            let acked = Ack { packet_id: 0x3232, reason: Reason::Success, properties: Properties::new() };
            encode(&Packet::PubAck(acked), version, &mut ack).unwrap();
            let fits = (0..).find(|size| publish(version, "a/b", 1, size + 1).len() > 1_000).unwrap();
            let whole = publish(version, "a/b", 1, fits);
            let (large, huge) = (publish(version, "a/b", 7, fits + 1), publish(version, "large", 0, 70_000));
            let came = [&*whole, &large, &ack, &huge, &whole, &huge].concat();
            let seven = [&[0x33, length(7), 0, 3][..], b"cut", &[0, 7], properties].concat();
            let none = [&[0x31, length(5), 0, 3][..], b"cut", properties].concat();
            let passed = [&*whole, &seven, &ack, &none, &whole, &none].concat();
            let cut = |message, topic: &str, size| Cut { message, topic: topic.to_owned(), size };
            let told = [cut(2, "a/b", large.len()), cut(3, "large", huge.len()), cut(5, "large", huge.len())];
            for chunk in [1, 2, 3, 7, 100, 4_096, came.len()] {
                let mut cutter = Cutter::new(1_000, version);
                let (mut out, mut cuts) = (Vec::new(), Vec::new());
                for bytes in came.chunks(chunk) {
                    cutter.pass(bytes, &mut out, &mut cuts);
                    let held = match &cutter.place {
                        Place::Header(held) | Place::Head { head: held, .. } => held.len(),
                        _ => 0,
                    };
                    assert!(held <= 9, "{held} bytes are held");
                }
                assert_eq!((&out, &*cuts), (&passed, &told[..]), "chunks of {chunk}");
            }
        }
    }

    #[test]
    fn nonsense_is_the_engines_to_refuse() {
        for (came, passed) in [
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2][..], &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2][..]),
            (&[0x32, 0xD0, 0x0F, 0xFF, 0xFF, 9], &[0, 0, 9]),
        ] {
            let (mut out, mut cuts) = (Vec::new(), Vec::new());
            Cutter::new(1_000, Version::V311).pass(came, &mut out, &mut cuts);
            assert_eq!((&*out, cuts.len()), (passed, 0));
        }
    }
}
