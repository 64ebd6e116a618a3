//! What of a segment is still wanted: by whom, how many rows, and what these weigh.
//!
//! No row is read when one ends, so its weight is the mean of its reader's rows in that segment: the whole
//! is right for each reader and segment, whatever the others' rows weigh. The sums are kept, so that a
//! bound costs no walk over segments.

use std::collections::BTreeMap;

use crate::record::ReaderId;

/// Rows, and what they weigh in a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// How many.
    pub(super) rows: u64,
    /// As [`Message::weight`](crate::record::Message::weight) says.
    pub(super) bytes: u64,
}

impl Tally {
    /// More of both.
    pub(super) fn add(&mut self, more: Tally) {
        self.rows += more.rows;
        self.bytes += more.bytes;
    }

    /// Less of both.
    pub(super) fn take(&mut self, less: Tally) {
        self.rows = self.rows.saturating_sub(less.rows);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }

    /// So many of its rows, each as heavy as all are on the average.
    pub(super) fn share(self, rows: u64) -> Tally {
        self.grown(rows.min(self.rows))
    }

    /// So many rows, each as heavy as these are on the average.
    pub(super) fn grown(self, rows: u64) -> Tally {
        let bytes = u128::from(self.bytes) * u128::from(rows) / u128::from(self.rows.max(1));
        Tally { rows, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) }
    }
}

/// What readers still want of one segment.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    readers: BTreeMap<ReaderId, Part>,
    all: Tally,
}

/// One reader's rows; never none. A segment ends at some thousands of rows and one message beyond its
/// bytes, so that both numbers fit, and there may be a part for each reader and segment.
#[derive(Debug, Clone, Copy)]
struct Part {
    rows: u32,
    bytes: u32,
}

impl Wanted {
    /// What one reader wants.
    pub(super) fn of(&self, id: ReaderId) -> Tally {
        self.readers.get(&id).map_or(Tally::default(), |part| part.tally())
    }

    /// Who wants any.
    pub(super) fn readers(&self) -> impl Iterator<Item = ReaderId> + '_ {
        self.readers.keys().copied()
    }

    /// Whether a reader wants any.
    pub(super) fn contains(&self, id: ReaderId) -> bool {
        self.readers.contains_key(&id)
    }

    /// Whether nobody wants any.
    pub(super) fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// What all want; a row of two readers counts twice.
    pub(super) fn all(&self) -> Tally {
        self.all
    }

    /// Whether each reader wants fewer rows than this.
    pub(super) fn are_few(&self, few: u64) -> bool {
        self.readers.values().all(|part| u64::from(part.rows) < few)
    }

    /// A reader wants so much more. What was added is returned.
    pub(super) fn add(&mut self, id: ReaderId, more: Tally) -> Tally {
        let part = self.readers.entry(id).or_insert(Part { rows: 0, bytes: 0 });
        let before = part.tally();
        let mut tally = before;
        tally.add(more);
        *part = Part::of(tally);
        let mut added = part.tally();
        added.take(before);
        self.all.add(added);
        added
    }

    /// A reader wants so many rows less. What was taken is returned.
    pub(super) fn take(&mut self, id: ReaderId, rows: u64) -> Tally {
        let before = self.of(id);
        let taken = before.share(rows);
        let mut left = before;
        left.take(taken);
        if left.rows == 0 {
            self.readers.remove(&id);
        } else {
            self.readers.insert(id, Part::of(left));
        }
        self.all.take(taken);
        taken
    }
}

impl Part {
    fn of(tally: Tally) -> Part {
        let short = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Part { rows: short(tally.rows), bytes: short(tally.bytes) }
    }

    fn tally(self) -> Tally {
        Tally { rows: u64::from(self.rows), bytes: u64::from(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_what_is_left_are_what_was_there() {
        let (one, two) = (ReaderId(1), ReaderId(2));
        let mut wanted = Wanted::default();
        for bytes in [10, 11, 5_000_000_000, 12] {
            wanted.add(one, Tally { rows: 1, bytes });
        }
        assert_eq!(wanted.of(one), Tally { rows: 4, bytes: u64::from(u32::MAX) }, "it fits in any case");
        wanted.add(two, Tally { rows: 3, bytes: 100 });
        assert_eq!(wanted.take(two, 1), Tally { rows: 1, bytes: 33 });
        assert_eq!(wanted.take(two, 9), Tally { rows: 2, bytes: 67 });
        assert!(!wanted.contains(two) && !wanted.is_empty());
        assert_eq!(wanted.all(), wanted.of(one));
    }
}
