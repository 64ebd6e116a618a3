//! The shortest words on an exchange of QoS 1 or 2: those that are a packet id, and all is well.
//!
//! They are the same in every version.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brief {
    /// What it says.
    pub word: Word,
    /// Of which exchange.
    pub packet_id: u16,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// PUBACK.
    PubAck = 0x40,
    /// PUBREC.
    PubRec = 0x50,
    /// PUBREL.
    PubRel = 0x62,
    /// PUBCOMP.
    PubComp = 0x70,
}

impl Brief {
    /// Bytes of each.
    pub const BYTES: usize = 4;

    /// Whether one may begin with this byte.
    #[inline]
    pub(super) fn may_begin(first: u8) -> bool {
        Word::of(first).is_some()
    }

    /// The one at the start of `bytes`; `None` where something else is there, or only its begin.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Brief> {
        let [first, 2, high, low] = *bytes.first_chunk::<{ Brief::BYTES }>()? else { return None };
        let packet_id = u16::from_be_bytes([high, low]);
        let word = Word::of(first).filter(|_| packet_id > 0)?;
        Some(Brief { word, packet_id })
    }

    /// Its bytes.
    #[inline]
    pub fn bytes(self) -> [u8; Brief::BYTES] {
        let [high, low] = self.packet_id.to_be_bytes();
        [self.word as u8, 2, high, low]
    }
}

impl Word {
    /// The word on this exchange.
    pub fn on(self, packet_id: u16) -> Brief {
        Brief { word: self, packet_id }
    }

    #[inline]
    fn of(first: u8) -> Option<Word> {
        match first {
            0x40 => Some(Word::PubAck),
            0x50 => Some(Word::PubRec),
            0x62 => Some(Word::PubRel),
            0x70 => Some(Word::PubComp),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{Ack, Decoder, Packet, Reason, Side, Version, encode};

    #[test]
    fn it_is_what_the_decoder_makes_of_the_same_bytes() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for first in 0..=255_u8 {
                for rest in
                    [&[2, 1, 7][..], &[2, 0, 0], &[3, 1, 7, 0], &[3, 1, 7, 16], &[0x82, 0, 1], &[2, 1]]
                {
                    let bytes = [&[first], rest].concat();
                    let Some(brief) = Brief::read(&bytes) else { continue };
                    let mut decoder = Decoder::new(Side::Server, 100);
                    decoder.set_version(version);
                    decoder.feed(Bytes::copy_from_slice(&bytes));
                    let packet = decoder.decode().unwrap().unwrap();
                    let (word, ack) = match &packet {
                        Packet::PubAck(ack) => (Word::PubAck, ack),
                        Packet::PubRec(ack) => (Word::PubRec, ack),
                        Packet::PubRel(ack) => (Word::PubRel, ack),
                        Packet::PubComp(ack) => (Word::PubComp, ack),
                        other => panic!("{other:?}"),
                    };
                    let Ack { packet_id, reason, properties } = ack;
                    assert_eq!(brief, Brief { word, packet_id: *packet_id });
                    assert_eq!((*reason, properties.is_empty()), (Reason::Success, true));
                    let mut again = Vec::new();
                    encode(&packet, version, &mut again).unwrap();
                    assert_eq!(again, brief.bytes());
                }
            }
        }
    }

    #[test]
    fn each_is_known_once_it_is_whole() {
        for word in [Word::PubAck, Word::PubRec, Word::PubRel, Word::PubComp] {
            let brief = Brief { word, packet_id: 0x1234 };
            let bytes = [&brief.bytes()[..], &[0x30]].concat();
            assert!(Brief::may_begin(bytes[0]));
            assert_eq!(Brief::read(&bytes), Some(brief));
            (0..Brief::BYTES).for_each(|end| assert_eq!(Brief::read(&bytes[..end]), None));
        }
    }
}
