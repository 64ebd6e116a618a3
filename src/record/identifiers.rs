//! The subscription identifiers that go with a copy.
//!
//! Nearly every copy has none or one, and takes no allocation for it. A client whose filters overlap may
//! have thousands: they stand in one list, which all that hold the copy share, and which weighs with each.

use std::ops::Deref;
use std::sync::Arc;

/// Subscription identifiers that matched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identifiers(List);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
enum List {
    #[default]
    None,
    One(u32),
    /// At least two.
    Many(Arc<Vec<u32>>),
}

impl Identifiers {
    /// One more.
    pub fn push(&mut self, identifier: u32) {
        match &mut self.0 {
            List::None => self.0 = List::One(identifier),
            List::One(first) => self.0 = List::Many(Arc::new(vec![*first, identifier])),
            List::Many(list) => Arc::make_mut(list).push(identifier),
        }
    }

    /// Bytes that they take beside their own place.
    pub fn weight(&self) -> usize {
        match &self.0 {
            List::None | List::One(_) => 0,
            List::Many(list) => list.capacity() * size_of::<u32>() + LIST_BYTES,
        }
    }
}

impl Deref for Identifiers {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            List::None => &[],
            List::One(identifier) => std::slice::from_ref(identifier),
            List::Many(list) => list,
        }
    }
}

impl FromIterator<u32> for Identifiers {
    fn from_iter<I: IntoIterator<Item = u32>>(identifiers: I) -> Identifiers {
        let mut list = Identifiers::default();
        identifiers.into_iter().for_each(|identifier| list.push(identifier));
        list
    }
}

/// What a list takes beside its numbers: its counts, its length, and the allocator's part of two places.
const LIST_BYTES: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_take_no_allocation_and_many_are_shared() {
        let of = |count: u32| (1..=count).collect::<Identifiers>();
        for count in 0..5 {
            assert_eq!(*of(count), (1..=count).collect::<Vec<_>>());
            assert_eq!(of(count), of(count));
            assert_eq!(of(count).weight() == 0, count < 2, "{count}");
        }
        let many = of(1_000);
        assert!(many.weight() >= 4_000 && many.clone().as_ptr() == many.as_ptr());
        assert!(size_of::<Identifiers>() <= 16);
    }
}
