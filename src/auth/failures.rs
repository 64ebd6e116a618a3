//! How often wrong passwords may be tried from one address.
//!
//! A comparison takes one from its address's bucket and gives it back when the password fits, so only
//! failures count. A user who has come in from an address has a bucket of his own there, so that others
//! behind it who fail do not lock him out. Bounded: where too many addresses have failed, the next one takes
//! the place of the one with least to be forgiven, and that debt with it, so that a crowd neither locks out all
//! newcomers nor is let guess without end; of users, those who came in last are remembered. Reads no clock.

use std::collections::{BTreeMap, BTreeSet};

use adapter_api::units::Rate;

use crate::access::Bucket;

/// The buckets of the addresses from which wrong passwords came, and of users who came in from one.
#[derive(Debug)]
pub struct Failures<A> {
    /// `None`: as many as come.
    rate: Option<Rate>,
    addresses: BTreeMap<A, Bucket>,
    /// The same by when each is full again.
    debts: BTreeSet<(u64, A)>,
    known: BTreeMap<(A, u64), Known>,
    /// The known, in the order in which they last came in.
    order: BTreeMap<u64, (A, u64)>,
    arrivals: u64,
}

/// A user who has come in from an address.
#[derive(Debug, Default)]
struct Known {
    bucket: Bucket,
    /// The number of his last arrival.
    last: u64,
}

impl<A: Ord + Copy> Failures<A> {
    /// No failures yet.
    pub fn new(rate: Option<Rate>) -> Failures<A> {
        Failures {
            rate,
            addresses: BTreeMap::new(),
            debts: BTreeSet::new(),
            known: BTreeMap::new(),
            order: BTreeMap::new(),
            arrivals: 0,
        }
    }

    /// Whether one more password of this user may be compared from there; `now` in milliseconds.
    pub fn begin(&mut self, address: Option<A>, user: u64, now: u64) -> bool {
        let Some((rate, address)) = self.rate.zip(address) else { return true };
        if let Some(known) = self.known.get_mut(&(address, user)) {
            return known.bucket.take(rate, now).is_ok();
        }
        let mut bucket = self.take_out(address, now);
        let may = bucket.take(rate, now).is_ok();
        self.put_back(address, bucket);
        may
    }

    /// Whether this user has come in from there before.
    pub fn is_known(&self, address: Option<A>, user: u64) -> bool {
        address.is_some_and(|address| self.known.contains_key(&(address, user)))
    }

    /// It fitted: that one does not count, and the user is known from now on.
    pub fn succeeded(&mut self, address: Option<A>, user: u64) {
        let Some((rate, address)) = self.rate.zip(address) else { return };
        if let Some(known) = self.known.get_mut(&(address, user)) {
            known.bucket.give_back(rate);
        } else if let Some(mut bucket) = self.addresses.remove(&address) {
            self.debts.remove(&(bucket.full_at(), address));
            bucket.give_back(rate);
            self.put_back(address, bucket);
        }
        self.arrived(Some(address), user);
    }

    /// The user has come in, and none was begun for it.
    pub fn arrived(&mut self, address: Option<A>, user: u64) {
        let Some(address) = self.rate.and(address) else { return };
        self.arrivals += 1;
        let known = self.known.entry((address, user)).or_default();
        self.order.remove(&known.last);
        known.last = self.arrivals;
        self.order.insert(self.arrivals, (address, user));
        if self.order.len() > KNOWN_MAX
            && let Some((_, forgotten)) = self.order.pop_first()
        {
            self.known.remove(&forgotten);
        }
    }

    /// The bucket of an address; where there is no place for one more, that of another.
    fn take_out(&mut self, address: A, now: u64) -> Bucket {
        while let Some((_, first)) = self.debts.first()
            && self.addresses.get(first).is_none_or(|bucket| bucket.is_full(now))
        {
            self.take_first();
        }
        if let Some(bucket) = self.addresses.remove(&address) {
            self.debts.remove(&(bucket.full_at(), address));
            return bucket;
        }
        let is_crowded = self.addresses.len() >= ADDRESSES_MAX;
        is_crowded.then(|| self.take_first()).flatten().unwrap_or_default()
    }

    fn take_first(&mut self) -> Option<Bucket> {
        let (_, first) = self.debts.pop_first()?;
        self.addresses.remove(&first)
    }

    fn put_back(&mut self, address: A, bucket: Bucket) {
        self.debts.insert((bucket.full_at(), address));
        self.addresses.insert(address, bucket);
    }
}

/// Addresses with a bucket of their own.
const ADDRESSES_MAX: usize = 4_096;

/// Users with a bucket of their own at an address; who came in longest ago is forgotten first.
const KNOWN_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const THREE: Option<Rate> = Some(Rate { count: 3, per: Duration::from_secs(60) });

    /// A user who never came in.
    const STRANGER: u64 = 0;

    #[test]
    fn only_failures_count_and_each_address_has_its_own() {
        let mut failures = Failures::new(THREE);
        for _ in 0..100 {
            assert!(failures.begin(Some(1), 7, 0));
            failures.succeeded(Some(1), 7);
        }
        assert_eq!((0..10).filter(|_| failures.begin(Some(1), STRANGER, 0)).count(), 3);
        assert!(failures.begin(Some(2), STRANGER, 0));
        assert!(!failures.begin(Some(1), STRANGER, 19_999) && failures.begin(Some(1), STRANGER, 20_000));
        assert!((0..100).all(|_| failures.begin(None, STRANGER, 0)), "a unix socket has no address");
        let mut unlimited = Failures::new(None);
        assert!((0..100).all(|_| unlimited.begin(Some(1), STRANGER, 0)));
    }

    #[test]
    fn who_has_come_in_from_there_fails_for_himself_alone() {
        let mut failures = Failures::new(THREE);
        assert!(failures.begin(Some(1), 7, 0));
        failures.succeeded(Some(1), 7);
        assert_eq!((0..10).filter(|_| failures.begin(Some(1), STRANGER, 0)).count(), 3);
        assert_eq!((0..10).filter(|_| failures.begin(Some(1), 7, 0)).count(), 3);
        assert_eq!((0..10).filter(|_| failures.begin(Some(2), 7, 0)).count(), 3, "as anybody elsewhere");
        assert!(!failures.begin(Some(1), 7, 19_999) && failures.begin(Some(1), 7, 20_000));
    }

    #[test]
    fn of_the_known_those_who_came_in_last_are_remembered() {
        let mut failures = Failures::new(THREE);
        let known = u64::try_from(KNOWN_MAX).unwrap();
        for user in (1..=known).chain([1, known + 1]) {
            assert!(failures.begin(Some(1), user, 0));
            failures.succeeded(Some(1), user);
        }
        assert_eq!((failures.known.len(), failures.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert!(failures.known.contains_key(&(1, 1)) && !failures.known.contains_key(&(1, 2)));
    }

    #[test]
    fn a_crowd_of_addresses_neither_locks_out_newcomers_nor_guesses_without_end() {
        let mut failures = Failures::new(THREE);
        let crowd = 0..u32::try_from(ADDRESSES_MAX).unwrap();
        assert!((0..3).all(|_| failures.begin(Some(0), STRANGER, 0)));
        assert!(crowd.clone().skip(1).all(|address| failures.begin(Some(address), STRANGER, 0)));
        // Every newcomer takes the place of one that has failed once.
        assert!((10_000..10_100).all(|address| failures.begin(Some(address), STRANGER, 0)));
        assert!(!failures.begin(Some(0), STRANGER, 0), "who has failed most is remembered");
        // They cannot have more among them than all places have.
        let tried = (20_000..90_000).filter(|address| failures.begin(Some(*address), STRANGER, 0)).count();
        assert_eq!(tried, 3 * ADDRESSES_MAX - 3 - (ADDRESSES_MAX - 1) - 100);
        assert_eq!((failures.addresses.len(), failures.debts.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(failures.begin(Some(7), STRANGER, 60_000), "those that are over make room");
        assert_eq!((failures.addresses.len(), failures.debts.len()), (1, 1));
    }
}
