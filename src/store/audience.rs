//! Who wants a row, packed: the audience.
//!
//! A segment keeps each audience once, in the first row that has it. The dense numbers that routes give
//! to their messages stand in the row itself, one for each numbered member, in the audience's order.

use std::sync::Arc;

use super::pack::{Unpack, put_number};
use crate::codec::QoS;
use crate::record::{Identifiers, ReaderId, Want};

/// The members of an audience, sorted by reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Audience {
    /// Who, how, and whether it numbers its messages.
    pub(super) members: Arc<[Member]>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The wish.
    pub(super) want: Want,
    /// Whether the row carries a number for it: routes.
    pub(super) numbered: bool,
}

impl Audience {
    /// Appends the member that comes after this one, packed.
    pub(super) fn pack(before: Option<ReaderId>, want: &Want, numbered: bool, out: &mut Vec<u8>) {
        let before = before.map_or(0, |reader| reader.0);
        put_number(out, u64::from(want.reader.0.wrapping_sub(before)));
        let mut flags = pack_qos(want.qos);
        flags |= if want.retain { RETAIN } else { 0 };
        flags |= if numbered { NUMBERED } else { 0 };
        flags |= if want.subscription_ids.is_empty() { 0 } else { IDENTIFIED };
        out.push(flags);
        if !want.subscription_ids.is_empty() {
            put_number(out, want.subscription_ids.len() as u64);
            for id in want.subscription_ids.iter() {
                put_number(out, u64::from(*id));
            }
        }
    }

    /// Reads what [`Audience::pack`] wrote.
    pub(super) fn unpack(blob: &[u8]) -> Option<Audience> {
        let mut unpack = Unpack::new(blob);
        let mut members = Vec::new();
        let mut before = 0u32;
        while !unpack.is_empty() {
            let reader = before.wrapping_add(unpack.number32()?);
            before = reader;
            let flags = unpack.byte()?;
            let mut subscription_ids = Identifiers::default();
            if flags & IDENTIFIED != 0 {
                for _ in 0..unpack.number()? {
                    subscription_ids.push(unpack.number32()?);
                }
            }
            let want = Want {
                reader: ReaderId(reader),
                qos: unpack_qos(flags)?,
                retain: flags & RETAIN != 0,
                subscription_ids,
            };
            members.push(Member { want, numbered: flags & NUMBERED != 0 });
        }
        Some(Audience { members: members.into() })
    }

    /// The member, and its place among the numbered ones if it is one.
    pub(super) fn find(&self, reader: ReaderId) -> Option<(&Member, Option<usize>)> {
        let at = self.members.iter().position(|member| member.want.reader == reader)?;
        let member = self.members.get(at)?;
        let place = self.members.iter().take(at).filter(|member| member.numbered).count();
        Some((member, member.numbered.then_some(place)))
    }
}

/// The two bits of a QoS.
pub(super) fn pack_qos(qos: QoS) -> u8 {
    match qos {
        QoS::AtMostOnce => 0,
        QoS::AtLeastOnce => 1,
        QoS::ExactlyOnce => 2,
    }
}

/// The QoS in the two lowest bits.
pub(super) fn unpack_qos(bits: u8) -> Option<QoS> {
    match bits & 3 {
        0 => Some(QoS::AtMostOnce),
        1 => Some(QoS::AtLeastOnce),
        2 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}

const RETAIN: u8 = 4;
const NUMBERED: u8 = 8;
const IDENTIFIED: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_read_as_it_was_written() {
        let want = |reader, qos, retain, ids: &[u32]| Want {
            reader: ReaderId(reader),
            qos,
            retain,
            subscription_ids: ids.iter().copied().collect(),
        };
        let members = [
            (want(1, QoS::AtMostOnce, false, &[]), true),
            (want(7, QoS::AtLeastOnce, true, &[1, 268_435_455]), false),
            (want(900, QoS::ExactlyOnce, false, &[]), true),
        ];
        let mut blob = Vec::new();
        let mut before = None;
        for (want, numbered) in &members {
            Audience::pack(before, want, *numbered, &mut blob);
            before = Some(want.reader);
        }
        let audience = Audience::unpack(&blob).unwrap();
        for (member, (want, numbered)) in audience.members.iter().zip(&members) {
            assert_eq!((&member.want, member.numbered), (want, *numbered));
        }
        assert_eq!(audience.find(ReaderId(900)).map(|found| found.1), Some(Some(1)));
        assert_eq!(audience.find(ReaderId(7)).map(|found| found.1), Some(None));
        assert_eq!(audience.find(ReaderId(8)), None);
    }
}
