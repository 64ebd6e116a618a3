//! Whether every message came, once, in order and whole.
//!
//! Each payload begins with the number of its publisher and its own; what is behind them is the same in
//! all. Whoever receives compares all of it, and the topic with the one that this number was sent to.

use std::collections::BTreeSet;

use super::Outcome;
use super::packet::Publish;

/// Whose message it is, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: usize,
    pub(crate) number: u64,
}

impl Stamp {
    pub(crate) fn bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&(self.publisher as u64).to_le_bytes());
        bytes[8..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// `None` where the message is not as it was sent. The first bytes behind the stamp may be the
    /// sender's own.
    pub(crate) fn read(publish: &Publish<'_>, properties: &[u8], own: usize) -> Option<Stamp> {
        let payload: &[u8; PAYLOAD.len()] = publish.payload.try_into().ok()?;
        let same = payload[STAMP + own..] == PAYLOAD[STAMP + own..];
        let (publisher, rest) = payload.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        let publisher = usize::try_from(u64::from_le_bytes(*publisher)).ok()?;
        (same && publish.properties == properties)
            .then_some(Stamp { publisher, number: u64::from_le_bytes(*number) })
    }
}

/// One stream of numbers that should come in order.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// The number that is next.
    next: u64,
    missing: BTreeSet<u64>,
    doubled: u64,
    reordered: u64,
}

impl Tracker {
    /// Takes note of an arrival; whether it is the first of its number.
    pub(crate) fn saw(&mut self, number: u64) -> bool {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return true;
        }
        let late = self.missing.remove(&number);
        if late {
            self.reordered += 1;
        } else {
            self.doubled += 1;
        }
        late
    }

    fn lost(&self, sent: u64) -> u64 {
        self.missing.len() as u64 + sent.saturating_sub(self.next)
    }
}

/// An error where anything is wrong: `streams` are trackers and what was sent to each.
pub(crate) fn judge<'a>(streams: impl Iterator<Item = (&'a Tracker, u64)>, spoiled: u64) -> Outcome<()> {
    let (mut lost, mut doubled, mut reordered) = (0, 0, 0);
    for (tracker, sent) in streams {
        lost += tracker.lost(sent);
        doubled += tracker.doubled;
        reordered += tracker.reordered;
    }
    match lost + doubled + reordered + spoiled {
        0 => Ok(()),
        _ => Err(format!("{lost} lost, {doubled} doubled, {reordered} reordered, {spoiled} spoiled")),
    }
}

/// The payload of every message, which its stamp is laid over.
pub(crate) const PAYLOAD: [u8; 64] = *b"0123456789abcdef a payload whose stamp lies over its first bytes";
pub(crate) const STAMP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_doubles_and_another_order_are_told() {
        let judged = |numbers: &[u64], sent| {
            let mut tracker = Tracker::default();
            numbers.iter().for_each(|number| _ = tracker.saw(*number));
            judge([(&tracker, sent)].into_iter(), 0)
        };
        assert_eq!(judged(&[0, 1, 2, 3], 4), Ok(()));
        for (numbers, finding) in [
            (&[0, 1, 3][..], "1 lost, 0 doubled, 0 reordered, 0 spoiled"),
            (&[0, 1, 2], "1 lost, 0 doubled, 0 reordered, 0 spoiled"),
            (&[0, 1, 2, 2, 3], "0 lost, 1 doubled, 0 reordered, 0 spoiled"),
            (&[0, 2, 1, 3], "0 lost, 0 doubled, 1 reordered, 0 spoiled"),
        ] {
            assert_eq!(judged(numbers, 4), Err(finding.into()));
        }
    }

    #[test]
    fn a_message_that_is_not_as_sent_is_told() {
        let stamp = Stamp { publisher: 3, number: 70_000 };
        let mut bytes = PAYLOAD;
        bytes[..STAMP].copy_from_slice(&stamp.bytes());
        let read = |payload: &[u8], properties: &[u8]| {
            Stamp::read(&Publish { topic: b"t", qos: 0, id: 0, properties, payload }, b"p", 0)
        };
        assert_eq!(read(&bytes, b"p"), Some(stamp));
        assert_eq!((read(&bytes, b""), read(&bytes[1..], b"p")), (None, None));
        bytes[63] ^= 1;
        assert_eq!(read(&bytes, b"p"), None);
    }
}
