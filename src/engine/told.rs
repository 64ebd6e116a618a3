//! What the broker was last told of the memory that connections take, and whether it is to be told again.
//!
//! Who has most takes a look at everybody, which may be as dear as all else that a turn does.

use crate::broker::Level;

/// What it was told, and when everybody was last looked at.
#[derive(Debug, Default)]
pub(super) struct Told {
    held: usize,
    resting: usize,
    /// In milliseconds; `None` once memory is not short.
    looked: Option<u64>,
}

/// What it is to be told of the buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Nothing,
    /// How much they hold, and whoever was last found to have most.
    Bytes,
    /// How much they hold, and who has most.
    Heaviest,
}

impl Told {
    /// Whether it is told that so much is taken whatever connections do.
    pub(super) fn tell_resting(&mut self, bytes: usize) -> bool {
        let has_moved = bytes.abs_diff(self.resting) >= TOLD_BYTES;
        if has_moved {
            self.resting = bytes;
        }
        has_moved
    }

    /// What it is told where the buffers hold so much.
    pub(super) fn tell_buffers(&mut self, bytes: usize, memory: Level, now: u64) -> Telling {
        let has_moved = bytes.abs_diff(self.held) >= TOLD_BYTES;
        let is_look_due = match memory {
            Level::Ample => false,
            Level::Tight => self.looked.is_none_or(|looked| now >= looked + LOOK_PAUSE),
            Level::Full => true,
        };
        if is_look_due || memory == Level::Ample {
            self.looked = is_look_due.then_some(now);
        }
        if has_moved || is_look_due {
            self.held = bytes;
        }
        match (is_look_due, has_moved) {
            (true, _) => Telling::Heaviest,
            (false, true) => Telling::Bytes,
            (false, false) => Telling::Nothing,
        }
    }
}

/// It is told when so much has changed.
const TOLD_BYTES: usize = 64 << 10;

/// Milliseconds from one look at everybody to the next while memory is short, though not all is taken.
const LOOK_PAUSE: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told in so many turns of a tenth of a millisecond each: of bytes alone, and of who has most. Each
    /// turn brings so many bytes more.
    fn told(told: &mut Told, memory: Level, turns: u64, more: usize) -> (usize, usize) {
        let tellings: Vec<Telling> =
            (0..turns).map(|turn| told.tell_buffers(told.held + more, memory, 5_000 + turn / 10)).collect();
        let count = |which| tellings.iter().filter(|telling| **telling == which).count();
        (count(Telling::Bytes), count(Telling::Heaviest))
    }

    #[test]
    fn everybody_is_looked_at_only_now_and_then_while_memory_is_tight() {
        let check = |memory, more, expected| {
            assert_eq!(told(&mut Told::default(), memory, 2_000, more), expected, "{memory:?}, {more}");
        };
        check(Level::Ample, TOLD_BYTES - 1, (0, 0));
        check(Level::Ample, TOLD_BYTES, (2_000, 0));
        check(Level::Tight, 0, (0, 2));
        check(Level::Tight, TOLD_BYTES, (1_998, 2));
        check(Level::Full, 0, (0, 2_000));
    }

    #[test]
    fn everybody_is_looked_at_once_memory_becomes_short() {
        let mut told = Told::default();
        for memory in [Level::Tight, Level::Ample, Level::Tight, Level::Full] {
            let expected = if memory == Level::Ample { Telling::Nothing } else { Telling::Heaviest };
            assert_eq!(told.tell_buffers(0, memory, 7), expected, "{memory:?}");
        }
    }

    #[test]
    fn what_rests_is_told_where_it_has_moved() {
        let mut told = Told::default();
        let moves = [TOLD_BYTES - 1, TOLD_BYTES, TOLD_BYTES + 1, 0].map(|bytes| told.tell_resting(bytes));
        assert_eq!(moves, [false, true, false, true]);
    }
}
