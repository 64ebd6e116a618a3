//! Pairs of user and password that were compared a moment ago.
//!
//! A comparison takes a tenth of a second on purpose; when a hundred devices come back at once, or one
//! tries a wrong password every second, the same pairs are not worth it again. What has fitted is known for
//! longer, so that nobody's failures keep it from being compared. No password is kept: a pair is known by a
//! hash under a key that lives as long as the process. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha512};

/// What was found of the pairs, for a while.
pub struct Memory {
    key: [u8; 32],
    fits: Shelf,
    fails: Shelf,
}

/// How a pair turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is the user's password.
    Fits,
    /// It is not.
    Fails,
}

/// Stands for one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    user: u64,
    hash: [u8; 32],
}

impl Memory {
    /// An empty memory under this key.
    pub fn new(key: [u8; 32]) -> Memory {
        Memory { key, fits: Shelf::new(FITTED_MILLIS, FITS_MAX), fails: Shelf::new(FAILS_MILLIS, FAILS_MAX) }
    }

    /// What stands for a pair.
    pub fn pair(&self, user: &str, password: &[u8]) -> Pair {
        let length = (user.len() as u64).to_be_bytes();
        let hash = Sha512::new()
            .chain_update(self.key)
            .chain_update(length)
            .chain_update(user)
            .chain_update(password)
            .finalize();
        let mut pair = Pair { user: self.user(user), hash: [0; 32] };
        pair.hash.iter_mut().zip(hash).for_each(|(place, byte)| *place = byte);
        pair
    }

    /// What stands for a user alone.
    pub fn user(&self, user: &str) -> u64 {
        let hash = Sha512::new().chain_update(self.key).chain_update(user).finalize();
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// How the pair turned out, if that is not too long ago; `now` in milliseconds.
    pub fn recall(&mut self, pair: Pair, now: u64) -> Option<Known> {
        if self.fits.since(pair, now).is_some_and(|then| now - then < FITS_MILLIS) {
            return Some(Known::Fits);
        }
        self.fails.since(pair, now).map(|_| Known::Fails)
    }

    /// Whether it fitted when it was last compared, though that may be days ago.
    pub fn has_fitted(&mut self, pair: Pair, now: u64) -> bool {
        self.fits.since(pair, now).is_some()
    }

    /// Remembers how the pair has turned out.
    pub fn remember(&mut self, pair: Pair, known: Known, now: u64) {
        match known {
            Known::Fits => self.fits.put(pair, now),
            Known::Fails => {
                self.fits.forget(pair);
                self.fails.put(pair, now);
            }
        }
    }

    /// Forgets all pairs of these users: their passwords may be others now.
    pub fn forget(&mut self, users: &[String]) {
        let users: BTreeSet<u64> = users.iter().map(|user| self.user(user)).collect();
        [&mut self.fits, &mut self.fails].into_iter().for_each(|shelf| shelf.forget_users(&users));
    }
}

/// Pairs of one kind, each for so many milliseconds; the oldest go first where there are too many.
struct Shelf {
    since: BTreeMap<Pair, u64>,
    order: BTreeSet<(u64, Pair)>,
    millis: u64,
    most: usize,
}

impl Shelf {
    fn new(millis: u64, most: usize) -> Shelf {
        Shelf { since: BTreeMap::new(), order: BTreeSet::new(), millis, most }
    }

    fn put(&mut self, pair: Pair, now: u64) {
        self.forget(pair);
        self.since.insert(pair, now);
        self.order.insert((now, pair));
        if self.order.len() > self.most {
            self.drop_oldest();
        }
    }

    /// When it was put here.
    fn since(&mut self, pair: Pair, now: u64) -> Option<u64> {
        while self.order.first().is_some_and(|(since, _)| since + self.millis <= now) {
            self.drop_oldest();
        }
        self.since.get(&pair).copied()
    }

    fn forget(&mut self, pair: Pair) {
        if let Some(since) = self.since.remove(&pair) {
            self.order.remove(&(since, pair));
        }
    }

    fn forget_users(&mut self, users: &BTreeSet<u64>) {
        self.since.retain(|pair, _| !users.contains(&pair.user));
        self.order.retain(|(_, pair)| !users.contains(&pair.user));
    }

    fn drop_oldest(&mut self) {
        if let Some((_, pair)) = self.order.pop_first() {
            self.since.remove(&pair);
        }
    }
}

/// How long a password that fits is not compared again.
const FITS_MILLIS: u64 = 600_000;
/// How long it is known that it fitted: a device may come back once a week.
const FITTED_MILLIS: u64 = 8 * 86_400_000;
/// So many of them: `max_connections` as shipped, and some.
const FITS_MAX: usize = 16_384;
/// How long one that does not fit is not compared again.
const FAILS_MILLIS: u64 = 60_000;
/// So many of them.
const FAILS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_known_for_a_while() {
        let mut memory = Memory::new([7; 32]);
        let (right, wrong) = (memory.pair("anna", b"one"), memory.pair("anna", b"two"));
        assert_eq!(memory.recall(right, 0), None);
        memory.remember(right, Known::Fits, 0);
        memory.remember(wrong, Known::Fails, 0);
        assert_eq!(memory.recall(right, FITS_MILLIS - 1), Some(Known::Fits));
        assert_eq!(memory.recall(right, FITS_MILLIS), None);
        assert!(memory.has_fitted(right, FITTED_MILLIS - 1) && !memory.has_fitted(wrong, 0));
        assert!(!memory.has_fitted(right, FITTED_MILLIS));
        assert_eq!(memory.recall(wrong, FAILS_MILLIS), None);
        let other = memory.pair("bert", b"one");
        memory.remember(right, Known::Fits, 0);
        memory.remember(other, Known::Fits, 0);
        memory.forget(&["anna".to_owned()]);
        assert_eq!((memory.recall(right, 0), memory.recall(other, 0)), (None, Some(Known::Fits)));
        assert_eq!(memory.fits.since.len(), memory.fits.order.len());
    }

    #[test]
    fn pairs_that_join_to_the_same_text_differ() {
        let memory = Memory::new([7; 32]);
        assert_ne!(memory.pair("ab", b"c"), memory.pair("a", b"bc"));
        assert_ne!(memory.pair("a", b"b"), Memory::new([8; 32]).pair("a", b"b"));
        assert_eq!(memory.pair("a", b"b"), Memory::new([7; 32]).pair("a", b"b"));
    }

    #[test]
    fn its_size_has_a_limit() {
        let mut memory = Memory::new([7; 32]);
        let pair = |memory: &Memory, number: usize| memory.pair("anna", &number.to_be_bytes());
        for number in 0..FAILS_MAX + 10 {
            memory.remember(pair(&memory, number), Known::Fails, number as u64);
        }
        assert_eq!((memory.fails.since.len(), memory.fails.order.len()), (FAILS_MAX, FAILS_MAX));
        let (first, last) = (pair(&memory, 9), pair(&memory, FAILS_MAX + 9));
        assert_eq!((memory.recall(first, 2_000), memory.recall(last, 2_000)), (None, Some(Known::Fails)));
    }
}
