//! How often wrong passwords may be tried from one address.
//!
//! A comparison takes one from its address's bucket and gives it back when the password fits, so only
//! failures count. Bounded: where too many addresses have failed, all further ones share one bucket. Reads
//! no clock.

use std::collections::BTreeMap;

use adapter_api::units::Rate;

use crate::access::Bucket;

/// The buckets of the addresses from which wrong passwords came.
#[derive(Debug)]
pub struct Failures<A> {
    /// `None`: as many as come.
    rate: Option<Rate>,
    addresses: BTreeMap<A, Bucket>,
    /// Of those for whom there is no place.
    crowd: Bucket,
}

impl<A: Ord + Copy> Failures<A> {
    /// No failures yet.
    pub fn new(rate: Option<Rate>) -> Failures<A> {
        Failures { rate, addresses: BTreeMap::new(), crowd: Bucket::default() }
    }

    /// Whether one more password from there may be compared; `now` in milliseconds.
    pub fn begin(&mut self, address: Option<A>, now: u64) -> bool {
        let Some((rate, address)) = self.rate.zip(address) else { return true };
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, bucket| !bucket.is_full(now));
        }
        self.bucket(address).take(rate, now).is_ok()
    }

    /// It fitted: that one does not count.
    pub fn succeeded(&mut self, address: Option<A>) {
        if let Some((rate, address)) = self.rate.zip(address) {
            self.bucket(address).give_back(rate);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const THREE: Option<Rate> = Some(Rate { count: 3, per: Duration::from_secs(60) });

    #[test]
    fn only_failures_count_and_each_address_has_its_own() {
        let mut failures = Failures::new(THREE);
        for _ in 0..100 {
            assert!(failures.begin(Some(1), 0));
            failures.succeeded(Some(1));
        }
        assert_eq!((0..10).filter(|_| failures.begin(Some(1), 0)).count(), 3);
        assert!(failures.begin(Some(2), 0));
        assert!(!failures.begin(Some(1), 19_999) && failures.begin(Some(1), 20_000));
        assert!((0..100).all(|_| failures.begin(None, 0)), "a unix socket has no address");
        let mut unlimited = Failures::new(None);
        assert!((0..100).all(|_| unlimited.begin(Some(1), 0)));
    }

    #[test]
    fn a_crowd_of_addresses_shares_one_bucket() {
        let mut failures = Failures::new(THREE);
        let tried = (0..10_000).filter(|address| failures.begin(Some(*address), 0)).count();
        assert_eq!((tried, failures.addresses.len()), (ADDRESSES_MAX + 3, ADDRESSES_MAX));
        assert!(failures.begin(Some(20_000), 60_000), "those that are over make room");
        assert_eq!(failures.addresses.len(), 1);
    }
}
