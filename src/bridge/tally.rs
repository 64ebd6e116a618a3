//! Counts the QoS 0 messages in a stream of MQTT packets as their last bytes pass. Pure.
//!
//! QoS 0 has no acknowledgement, so a message has arrived as far as anybody knows when its bytes were
//! written to upstream's socket; only the relay sees that. No packet is kept or copied here.

/// Follows one stream from its beginning.
#[derive(Debug, Default)]
pub(super) struct Tally {
    place: Place,
}

#[derive(Debug, Default, Clone, Copy)]
enum Place {
    /// Between packets.
    #[default]
    Between,
    /// In the length of a packet.
    Length { kind: Kind, so_far: usize, shift: u32 },
    /// In a packet, with so many bytes left.
    Body { kind: Kind, left: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PublishQoS0,
    Other,
}

impl Tally {
    /// These bytes have passed; says how many QoS 0 messages ended in them.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while let Some((first, rest)) = bytes.split_first() {
            let kind = match self.place {
                Place::Between => {
                    let kind =
                        if first & 0b1111_0110 == 0b0011_0000 { Kind::PublishQoS0 } else { Kind::Other };
                    self.place = Place::Length { kind, so_far: 0, shift: 0 };
                    bytes = rest;
                    continue;
                }
                Place::Length { kind, so_far, shift } => {
                    bytes = rest;
                    let length = so_far | usize::from(first & 0x7F) << shift;
                    // Our own engine writes at most four bytes of length.
                    if first & 0x80 != 0 && shift < 21 {
                        self.place = Place::Length { kind, so_far: length, shift: shift + 7 };
                        continue;
                    }
                    self.place = Place::Body { kind, left: length };
                    kind
                }
                Place::Body { kind, left } => {
                    let taken = left.min(bytes.len());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    self.place = Place::Body { kind, left: left - taken };
                    kind
                }
            };
            if let Place::Body { left: 0, .. } = self.place {
                self.place = Place::Between;
                ended += u64::from(kind == Kind::PublishQoS0);
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Ack, Packet, Properties, Publish, QoS, Reason, Version, encode};

    #[test]
    fn messages_are_counted_when_their_last_byte_has_passed_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for (number, size) in [0_usize, 1, 120, 127, 128, 5_000, 16_384, 20_000].into_iter().enumerate() {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let publish = Publish {
                    dup: false,
                    qos,
                    retain: number % 2 == 0,
                    topic: "a/b".into(),
                    packet_id: u16::from(qos != QoS::AtMostOnce),
                    properties: Properties::new(),
                    payload: vec![0x30; size].into(),
                };
                encode(&Packet::Publish(publish), Version::V5, &mut stream).unwrap();
                if qos == QoS::AtMostOnce {
                    ends.push(stream.len());
                }
            }
            encode(&Packet::PingReq, Version::V5, &mut stream).unwrap();
            let ack = Ack { packet_id: 48, reason: Reason::Success, properties: Properties::new() };
            encode(&Packet::PubAck(ack), Version::V5, &mut stream).unwrap();
        }
        for chunk in [1, 2, 3, 7, 100, 4_096, stream.len()] {
            let (mut tally, mut passed, mut counted) = (Tally::default(), 0, 0);
            for bytes in stream.chunks(chunk) {
                counted += tally.pass(bytes);
                passed += bytes.len();
                let expected = ends.iter().filter(|end| **end <= passed).count();
                assert_eq!(counted, expected as u64, "chunks of {chunk}, {passed} bytes");
            }
        }
    }
}
