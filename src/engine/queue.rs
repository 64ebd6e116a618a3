//! A short queue in which no address keeps the others from their turn.
//!
//! Each address has a line of its own, and the lines are served in turn. Where the queue is full, the last
//! of the longest line makes room for whoever comes from an address with a shorter one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::listener::Address;

/// Lines, by address; programs on this machine stand in one.
#[derive(Debug)]
pub(super) struct Queue<T> {
    lines: BTreeMap<Option<Address>, VecDeque<T>>,
    waiting: usize,
    most: usize,
    /// Whose turn it was last.
    last: Option<Address>,
}

impl<T> Queue<T> {
    /// An empty one for so many.
    pub(super) fn new(most: usize) -> Queue<T> {
        Queue { lines: BTreeMap::new(), waiting: 0, most, last: None }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Lets one wait. Whoever finds no room, he or another, comes back.
    pub(super) fn push(&mut self, address: Option<Address>, item: T) -> Option<T> {
        let mut turned_away = None;
        if self.waiting >= self.most {
            let own = self.lines.get(&address).map_or(0, VecDeque::len);
            let longest = self.lines.values_mut().max_by_key(|line| line.len());
            // With one less it must still not be the shorter one.
            match longest.filter(|line| line.len() > own + 1) {
                Some(line) => turned_away = line.pop_back(),
                None => return Some(item),
            }
            self.waiting -= 1;
        }
        self.waiting += 1;
        self.lines.entry(address).or_default().push_back(item);
        turned_away
    }

    /// The next one, of the line behind that of the one before.
    pub(super) fn pop(&mut self) -> Option<T> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let next = self.lines.range(behind).next().or_else(|| self.lines.first_key_value());
        let address = next.map(|(address, _)| *address)?;
        let line = self.lines.get_mut(&address)?;
        let item = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&address);
        }
        self.waiting -= 1;
        self.last = address;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(host: u8) -> Option<Address> {
        Some(Address::of(IpAddr::from([192, 0, 2, host])))
    }

    #[test]
    fn lines_are_served_in_turn_and_each_in_its_order() {
        let mut queue = Queue::new(10);
        for (host, item) in [(1, "a1"), (1, "a2"), (1, "a3"), (3, "c1"), (2, "b1"), (2, "b2")] {
            assert_eq!(queue.push(address(host), item), None);
        }
        assert_eq!(queue.push(None, "local"), None);
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "local", "a2", "b2", "a3"]);
        assert!(queue.is_empty() && queue.lines.is_empty());
    }

    #[test]
    fn the_longest_line_makes_room_and_a_single_one_may_fill_it() {
        let mut queue = Queue::new(4);
        assert_eq!((0..5).filter_map(|item| queue.push(address(1), item)).collect::<Vec<_>>(), [4]);
        assert_eq!(queue.push(address(2), 10), Some(3));
        assert_eq!(queue.push(address(2), 11), Some(2));
        assert_eq!(queue.push(address(2), 12), Some(12), "both have the same");
        assert_eq!(queue.push(address(3), 20), Some(11), "one of the two longest");
        assert_eq!(queue.push(address(4), 30), Some(1));
        assert_eq!(queue.push(None, 40), Some(40), "everybody has one");
        assert_eq!(queue.waiting, 4);
    }
}
