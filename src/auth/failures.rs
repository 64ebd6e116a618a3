//! How often wrong passwords may be tried from one address.
//!
//! A comparison takes one from its address's bucket and gives it back when the password fits, so only
//! failures count. A user who has come in from an address has a bucket of his own there, so that others
//! behind it who fail do not lock him out. Bounded: where too many addresses have failed, all further ones
//! share one bucket; of users, those who came in last are remembered. Reads no clock.

use std::collections::BTreeMap;

use adapter_api::units::Rate;

use crate::access::Bucket;

/// The buckets of the addresses from which wrong passwords came, and of users who came in from one.
#[derive(Debug)]
pub struct Failures<A> {
    /// `None`: as many as come.
    rate: Option<Rate>,
    addresses: BTreeMap<A, Bucket>,
    /// Of those for whom there is no place.
    crowd: Bucket,
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
            crowd: Bucket::default(),
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
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        self.bucket(address).take(rate, now).is_ok()
    }

    /// It fitted: that one does not count, and the user is known from now on.
    pub fn succeeded(&mut self, address: Option<A>, user: u64) {
        let Some((rate, address)) = self.rate.zip(address) else { return };
        match self.known.get_mut(&(address, user)) {
            Some(known) => {
                known.bucket.give_back(rate);
                self.order.remove(&known.last);
            }
            None => self.bucket(address).give_back(rate),
        }
        self.arrivals += 1;
        self.known.entry((address, user)).or_default().last = self.arrivals;
        self.order.insert(self.arrivals, (address, user));
        if self.order.len() > KNOWN_MAX
            && let Some((_, forgotten)) = self.order.pop_first()
        {
            self.known.remove(&forgotten);
        }
    }

    fn bucket(&mut self, address: A) -> &mut Bucket {
        let full = self.addresses.len() >= ADDRESSES_MAX;
        if full && !self.addresses.contains_key(&address) {
            return &mut self.crowd;
        }
        self.addresses.entry(address).or_default()
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
    fn a_crowd_of_addresses_shares_one_bucket() {
        let mut failures = Failures::new(THREE);
        let tried = (0..10_000).filter(|address| failures.begin(Some(*address), STRANGER, 0)).count();
        assert_eq!((tried, failures.addresses.len()), (ADDRESSES_MAX + 3, ADDRESSES_MAX));
        assert!(failures.begin(Some(20_000), STRANGER, 60_000), "those that are over make room");
        assert_eq!(failures.addresses.len(), 1);
    }
}
