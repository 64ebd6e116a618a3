//! How many come in at each listener and from each address, and how fast.
//!
//! Knows numbers only: time is an argument. Who is one too many is taken in all the same, a few at a time,
//! so that the broker can refuse him in MQTT's own words; who comes beyond those finds the door shut, and
//! so does everybody whose refusal would first cost a handshake. Who shakes hands counts for his address
//! alone, and at the listener once that is done, so that silent strangers take nobody's place.
//!
//! Invariant: an address is remembered while somebody from it is inside, and of the others those
//! [`GONE_MAX`] that have used most of their rate, so that no crowd makes this grow nor forget an attacker.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use adapter_api::units::Rate;

use crate::access::Bucket;
use crate::codec::Reason;

/// Everybody who is inside, counted.
#[derive(Debug, Default)]
pub struct Guests {
    /// From one address; `None` as many as come.
    most: Option<u32>,
    /// From one address; `None` as fast as they come.
    rate: Option<Rate>,
    doors: Vec<Door>,
    addresses: BTreeMap<Address, Guest>,
    /// Addresses of which nobody is inside, by the moment at which nothing of them is worth remembering.
    gone: BTreeSet<(u64, Address)>,
    /// Everybody inside, refused or not, without those who shake hands.
    inside: usize,
}

/// One listener.
#[derive(Debug, Default)]
struct Door {
    most: Option<u32>,
    inside: u32,
    refused: u32,
}

/// One address.
#[derive(Debug, Default)]
struct Guest {
    inside: u32,
    refused: u32,
    bucket: Bucket,
}

/// Where somebody comes from: an IPv4 address, or the /64 that is one subscriber's in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(u64);

/// One who was let in, until he leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stay {
    /// Small, since every connection has one.
    door: u32,
    address: Option<Address>,
    /// What is before him.
    way: Way,
    /// Why it is to be refused, if it is.
    pub objection: Option<Objection>,
}

/// What it takes to tell somebody in MQTT's words that he is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// A packet.
    #[default]
    Open,
    /// A handshake first, which is just what the limits are to save.
    Handshake,
}

/// What is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// The listener's `max_connections` are there.
    Listener,
    /// `max_connections_per_address` are there.
    Address,
    /// They come faster than `max_connect_rate`.
    Rate,
}

impl Address {
    /// What this address belongs to.
    pub fn of(address: IpAddr) -> Address {
        match address.to_canonical() {
            // No address begins like this in IPv6.
            IpAddr::V4(address) => Address(u64::from(u32::from(address)) | 0xFFFF_FFFF << 32),
            IpAddr::V6(address) => Address(address.to_bits().to_be_bytes().into_iter().take(8).fold(0, join)),
        }
    }
}

fn join(bits: u64, byte: u8) -> u64 {
    bits << 8 | u64::from(byte)
}

impl Stay {
    /// Where he comes from; nowhere for a program on this machine.
    pub fn address(&self) -> Option<Address> {
        self.address
    }

    /// What he counts among those who are let in, and among those who are refused.
    fn weight(&self) -> (u32, u32) {
        if self.objection.is_none() { (1, 0) } else { (0, 1) }
    }
}

impl Objection {
    /// What CONNACK says.
    pub fn reason(self) -> Reason {
        match self {
            Objection::Listener | Objection::Address => Reason::QuotaExceeded,
            Objection::Rate => Reason::ConnectionRateExceeded,
        }
    }
}

impl Guests {
    /// Nobody yet; `doors` are the listeners' own limits.
    pub fn new(most: u32, rate: Option<Rate>, doors: impl Iterator<Item = Option<u32>>) -> Guests {
        let doors = doors.map(|most| Door { most, ..Door::default() }).collect();
        Guests { most: Some(most), rate, doors, ..Guests::default() }
    }

    /// How many are inside, refused or not; who shakes hands is not yet.
    pub fn inside(&self) -> usize {
        self.inside
    }

    /// Takes somebody in, perhaps to be refused where a refusal is cheap; `Err` shuts the door.
    pub fn admit(
        &mut self,
        door: usize,
        address: Option<Address>,
        way: Way,
        now: u64,
    ) -> Result<Stay, Objection> {
        self.forget(now);
        if let Some((address, guest)) =
            address.and_then(|address| Some((address, self.addresses.get(&address)?)))
        {
            self.gone.remove(&(guest.bucket.full_at(), address));
        }
        let objection = self.objection(door, address, now);
        if let Some(objection) = objection
            && (way == Way::Handshake || self.is_crowded(door, address))
        {
            self.note_departure(address);
            return Err(objection);
        }
        let stay = Stay { door: u32::try_from(door).unwrap_or(u32::MAX), address, way, objection };
        if let Some(address) = address {
            let guest = self.addresses.entry(address).or_default();
            let (inside, refused) = stay.weight();
            guest.inside += inside;
            guest.refused += refused;
        }
        if way == Way::Open {
            self.count_in(stay);
        }
        Ok(stay)
    }

    /// Takes him in who has shaken hands; `Err` where his place at the listener is another's by now, and
    /// then he has left.
    pub fn enter(&mut self, stay: Stay) -> Result<Stay, Objection> {
        if self.is_full(stay.door as usize) {
            self.leave(stay);
            return Err(Objection::Listener);
        }
        let stay = Stay { way: Way::Open, ..stay };
        self.count_in(stay);
        Ok(stay)
    }

    fn count_in(&mut self, stay: Stay) {
        self.inside += 1;
        if let Some(door) = self.doors.get_mut(stay.door as usize) {
            let (inside, refused) = stay.weight();
            door.inside += inside;
            door.refused += refused;
        }
    }

    fn is_full(&self, door: usize) -> bool {
        self.doors.get(door).is_some_and(|door| door.most.is_some_and(|most| door.inside >= most))
    }

    fn objection(&mut self, door: usize, address: Option<Address>, now: u64) -> Option<Objection> {
        if let Some(address) = address {
            let guest = self.addresses.entry(address).or_default();
            if self.rate.is_some_and(|rate| guest.bucket.take(rate, now).is_err()) {
                return Some(Objection::Rate);
            }
            if self.most.is_some_and(|most| guest.inside >= most) {
                return Some(Objection::Address);
            }
        }
        self.is_full(door).then_some(Objection::Listener)
    }

    /// Whether as many are waiting to be refused as may.
    fn is_crowded(&self, door: usize, address: Option<Address>) -> bool {
        let at_door = self.doors.get(door).is_some_and(|door| door.refused >= REFUSED_PER_DOOR);
        let guest = address.and_then(|address| self.addresses.get(&address));
        at_door || guest.is_some_and(|guest| guest.refused >= REFUSED_PER_ADDRESS)
    }

    /// He is gone.
    pub fn leave(&mut self, stay: Stay) {
        let (inside, refused) = stay.weight();
        if stay.way == Way::Open {
            self.inside -= 1;
            if let Some(door) = self.doors.get_mut(stay.door as usize) {
                door.inside -= inside;
                door.refused -= refused;
            }
        }
        if let Some(guest) = stay.address.and_then(|address| self.addresses.get_mut(&address)) {
            guest.inside -= inside;
            guest.refused -= refused;
        }
        self.note_departure(stay.address);
    }

    /// If nobody of that address is inside, it is remembered only for what it has used of its rate. Where
    /// too many are, he is forgotten first whose rate is whole again first.
    fn note_departure(&mut self, address: Option<Address>) {
        let Some(address) = address else { return };
        let Some(guest) = self.addresses.get(&address) else { return };
        if guest.inside + guest.refused > 0 {
            return;
        }
        self.gone.insert((guest.bucket.full_at(), address));
        if self.gone.len() > GONE_MAX {
            self.forget_first();
        }
    }

    /// Forgets those who have left and have nothing that must be remembered.
    fn forget(&mut self, now: u64) {
        while let Some((_, address)) = self.gone.first()
            && self.addresses.get(address).is_none_or(|guest| guest.bucket.is_full(now))
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, address)) = self.gone.pop_first() {
            self.addresses.remove(&address);
        }
    }
}

/// Addresses of which nobody is inside, remembered for their rate.
const GONE_MAX: usize = 4_096;

/// Who is refused has a few seconds to say CONNECT; so many of an address at a time.
const REFUSED_PER_ADDRESS: u32 = 8;

/// The same for a listener.
const REFUSED_PER_DOOR: u32 = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(number: u32) -> Option<Address> {
        Some(Address::of(IpAddr::from(number.to_be_bytes())))
    }

    fn guests(most: u32, rate: Option<u32>, doors: &[Option<u32>]) -> Guests {
        let rate = rate.map(|count| Rate { count, per: Duration::from_secs(1) });
        Guests::new(most, rate, doors.iter().copied())
    }

    fn refused(guests: &mut Guests, door: usize, address: Option<Address>, now: u64) -> Option<Objection> {
        guests.admit(door, address, Way::Open, now).map_or_else(Some, |stay| stay.objection)
    }

    #[test]
    fn one_address_has_its_share_and_others_have_theirs() {
        let mut guests = guests(2, None, &[None]);
        let stay = guests.admit(0, address(1), Way::Open, 0).unwrap();
        assert_eq!(refused(&mut guests, 0, address(1), 0), None);
        assert_eq!(refused(&mut guests, 0, address(1), 0), Some(Objection::Address));
        assert_eq!(refused(&mut guests, 0, address(2), 0), None);
        assert_eq!(refused(&mut guests, 0, None, 0), None, "a unix socket has no address");
        guests.leave(stay);
        assert_eq!(refused(&mut guests, 0, address(1), 0), None);
    }

    #[test]
    fn a_listener_has_its_own_limit() {
        let mut guests = guests(100, None, &[Some(1), None]);
        assert_eq!(refused(&mut guests, 0, address(1), 0), None);
        assert_eq!(refused(&mut guests, 0, address(2), 0), Some(Objection::Listener));
        assert_eq!(refused(&mut guests, 1, address(3), 0), None);
        assert_eq!(Objection::Listener.reason(), Reason::QuotaExceeded);
    }

    #[test]
    fn who_comes_too_fast_is_refused_until_time_has_passed_though_he_has_left() {
        let mut guests = guests(100, Some(2), &[None]);
        for _ in 0..2 {
            let stay = guests.admit(0, address(1), Way::Open, 0).unwrap();
            assert_eq!(stay.objection, None);
            guests.leave(stay);
        }
        assert_eq!(refused(&mut guests, 0, address(1), 0), Some(Objection::Rate));
        assert_eq!(refused(&mut guests, 0, address(2), 0), None);
        assert_eq!(refused(&mut guests, 0, address(1), 500), None);
        assert_eq!(Objection::Rate.reason(), Reason::ConnectionRateExceeded);
    }

    #[test]
    fn only_a_few_are_refused_politely() {
        let mut guests = guests(1, None, &[None]);
        guests.admit(0, address(1), Way::Open, 0).unwrap();
        let stays: Vec<_> = (0..20).map(|_| guests.admit(0, address(1), Way::Open, 0)).collect();
        assert_eq!(stays.iter().filter(|stay| stay.is_ok()).count(), 8);
        guests.leave(stays[0].unwrap());
        assert!(guests.admit(0, address(1), Way::Open, 0).is_ok());
    }

    #[test]
    fn nobody_is_refused_politely_where_that_costs_a_handshake() {
        let mut guests = guests(1, None, &[None]);
        let stay = guests.admit(0, address(1), Way::Handshake, 0).unwrap();
        assert_eq!(guests.admit(0, address(1), Way::Handshake, 0), Err(Objection::Address));
        let stay = guests.enter(stay).unwrap();
        assert_eq!(guests.inside(), 1);
        guests.leave(stay);
        assert!(guests.admit(0, address(1), Way::Handshake, 0).is_ok());
    }

    #[test]
    fn who_shakes_hands_takes_no_place_at_the_listener_before_he_is_done() {
        let mut guests = guests(10, None, &[Some(1)]);
        let shaking: Vec<_> =
            (0..5).map(|number| guests.admit(0, address(number), Way::Handshake, 0).unwrap()).collect();
        assert_eq!(guests.inside(), 0);
        let first = guests.enter(shaking[0]).unwrap();
        assert_eq!(guests.enter(shaking[1]), Err(Objection::Listener), "the place is taken");
        assert_eq!(guests.admit(0, address(9), Way::Handshake, 0), Err(Objection::Listener));
        guests.leave(shaking[2]);
        guests.leave(first);
        let last = guests.enter(shaking[3]).unwrap();
        assert_eq!(guests.inside(), 1);
        [last, shaking[4]].into_iter().for_each(|stay| guests.leave(stay));
        assert_eq!((guests.inside(), guests.doors[0].inside), (0, 0));
        guests.forget(0);
        assert!(guests.addresses.is_empty());
    }

    #[test]
    fn a_crowd_of_addresses_does_not_make_it_grow() {
        let mut guests = guests(1, Some(1), &[None]);
        for number in 0..20_000 {
            let stay = guests.admit(0, address(number), Way::Open, 0).unwrap();
            guests.leave(stay);
        }
        assert!(guests.addresses.len() <= GONE_MAX && guests.gone.len() <= GONE_MAX);
        assert_eq!(refused(&mut guests, 0, address(19_999), 0), Some(Objection::Rate), "the last are known");
        assert_eq!(refused(&mut guests, 0, address(0), 0), None, "the others are forgotten");
        let mut full =
            Guests::new(1, Some(Rate { count: 1, per: Duration::from_secs(1) }), [Some(0)].into_iter());
        let shut =
            (0..20_000).filter(|number| full.admit(0, address(*number), Way::Open, 0).is_err()).count();
        assert_eq!(shut, 20_000 - 64);
        assert!(full.addresses.len() <= GONE_MAX + 64, "{}", full.addresses.len());
        guests.forget(10_000);
        assert!(guests.gone.is_empty() && guests.addresses.len() <= 2, "what is over is forgotten");
    }

    #[test]
    fn whoever_used_most_of_his_rate_is_remembered_longest_whatever_a_crowd_does() {
        let rate = Some(Rate { count: 3, per: Duration::from_secs(3_600) });
        let mut guests = Guests::new(10, rate, [None].into_iter());
        for _ in 0..3 {
            let stay = guests.admit(0, address(1), Way::Open, 0).unwrap();
            guests.leave(stay);
        }
        // One who comes and goes without end, and many who come once.
        for number in (0..5_000).map(|_| 2).chain(10..6_000) {
            if let Ok(stay) = guests.admit(0, address(number), Way::Open, 0) {
                guests.leave(stay);
            }
        }
        assert_eq!(refused(&mut guests, 0, address(1), 0), Some(Objection::Rate));
        assert_eq!(refused(&mut guests, 0, address(2), 0), Some(Objection::Rate));
        assert!(guests.addresses.len() <= GONE_MAX + 2 && guests.gone.len() <= GONE_MAX);
    }

    #[test]
    fn an_address_is_what_one_subscriber_has() {
        let of = |text: &str| Address::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
    }
}
