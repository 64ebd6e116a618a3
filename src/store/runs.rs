//! A set of order numbers, kept as runs of neighbours.
//!
//! Which rows of a segment are a reader's, and which rows ahead of its cursor are settled, are both
//! such sets: mostly unbroken, so that a run costs the same however long it is. Pure.

use super::pack::{Unpack, put_number};

/// A set of numbers. Runs are sorted, not empty, and never touch each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Runs {
    /// First and last of each run.
    runs: Vec<(u64, u64)>,
}

impl Runs {
    /// The empty set.
    pub(super) const fn new() -> Runs {
        Runs { runs: Vec::new() }
    }

    /// Adds one number; cheap at the end.
    pub(super) fn insert(&mut self, number: u64) {
        match self.runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            Some((_, last)) if *last < number => self.runs.push((number, number)),
            None => self.runs.push((number, number)),
            Some(_) => self.insert_range(number, number),
        }
    }

    /// Adds every number from `first` to `last`.
    pub(super) fn insert_range(&mut self, first: u64, last: u64) {
        // Runs that overlap or touch the new one become part of it.
        let from = self.runs.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.runs.partition_point(|(start, _)| *start <= last.saturating_add(1)).max(from);
        let taken = self.runs.get(from..to).unwrap_or_default();
        let first = taken.first().map_or(first, |run| run.0.min(first));
        let last = taken.last().map_or(last, |run| run.1.max(last));
        self.runs.splice(from..to, [(first, last)]);
    }

    /// Whether it holds the number.
    pub(super) fn contains(&self, number: u64) -> bool {
        let at = self.runs.partition_point(|(_, last)| *last < number);
        self.runs.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// The smallest number above `after`.
    pub(super) fn next_after(&self, after: u64) -> Option<u64> {
        let next = after.checked_add(1)?;
        let at = self.runs.partition_point(|(_, last)| *last < next);
        self.runs.get(at).map(|(first, _)| (*first).max(next))
    }

    /// The smallest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.first().map(|run| run.0)
    }

    /// The largest number.
    pub(super) fn last(&self) -> Option<u64> {
        self.runs.last().map(|run| run.1)
    }

    /// How many numbers.
    pub(super) fn count(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many runs: what it weighs.
    pub(super) fn weight(&self) -> usize {
        self.runs.len()
    }

    /// The runs, sorted.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.runs.iter().copied()
    }

    /// The run that holds the number.
    pub(super) fn run_of(&self, number: u64) -> Option<(u64, u64)> {
        let at = self.runs.partition_point(|(_, last)| *last < number);
        self.runs.get(at).copied().filter(|(first, _)| *first <= number)
    }

    /// Takes out everything up to `through`.
    pub(super) fn remove_through(&mut self, through: u64) {
        let gone = self.runs.partition_point(|(_, last)| *last <= through);
        self.runs.drain(..gone);
        if let Some(run) = self.runs.first_mut() {
            run.0 = run.0.max(through.saturating_add(1));
        }
    }

    /// Appends it, packed.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, self.runs.len() as u64);
        let mut before = 0;
        for (first, last) in &self.runs {
            put_number(out, first - before);
            put_number(out, last - first);
            before = *last;
        }
    }

    /// Reads what [`Runs::pack`] wrote.
    pub(super) fn unpack(unpack: &mut Unpack<'_>) -> Option<Runs> {
        let mut set = Runs::default();
        let mut before = 0u64;
        for index in 0..unpack.number()? {
            let first = before.checked_add(unpack.number()?)?;
            let last = first.checked_add(unpack.number()?)?;
            if index > 0 && first <= before.checked_add(1)? {
                return None;
            }
            set.runs.push((first, last));
            before = last;
        }
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_is_the_same_set_however_it_was_filled() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            let (mut runs, mut model) = (Runs::default(), BTreeSet::new());
            for _ in 0..60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let first = (state >> 33) % 64 + 1;
                let length = (state >> 50) % 5;
                match (state >> 60) % 8 {
                    0 => {
                        runs.remove_through(first / 4);
                        model.retain(|number| *number > first / 4);
                    }
                    1..=4 => {
                        runs.insert(first);
                        model.insert(first);
                    }
                    _ => {
                        runs.insert_range(first, first + length);
                        model.extend(first..=first + length);
                    }
                }
                for number in 0..72 {
                    assert_eq!(runs.contains(number), model.contains(&number));
                    assert_eq!(runs.next_after(number), model.range(number + 1..).next().copied());
                }
                assert_eq!(runs.count(), model.len() as u64);
                assert_eq!((runs.first(), runs.last()), (model.first().copied(), model.last().copied()));
                let mut packed = Vec::new();
                runs.pack(&mut packed);
                assert_eq!(Runs::unpack(&mut Unpack::new(&packed)), Some(runs.clone()));
                assert!(runs.iter().zip(runs.iter().skip(1)).all(|(one, two)| one.1 + 1 < two.0));
            }
        }
    }

    #[test]
    fn packed_runs_that_touch_are_damage() {
        let mut packed = Vec::new();
        for number in [2, 5, 1, 0, 1] {
            put_number(&mut packed, number);
        }
        assert_eq!(Runs::unpack(&mut Unpack::new(&packed)), None);
    }
}
