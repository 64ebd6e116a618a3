//! What the rows that wait for one session weigh, without remembering each row.
//!
//! Rows come at one end and leave at the other, so neighbours are kept as one heap with their number and
//! their bytes together; a row that leaves takes its heap's average with it. The whole is right at every
//! heap's end, and never off by more than one heap. The number of heaps is bounded.

use std::collections::VecDeque;

/// The rows that wait, by number and bytes.
#[derive(Debug, Default)]
pub struct Weights {
    heaps: VecDeque<Heap>,
    rows: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Heap {
    rows: u64,
    bytes: u64,
}

impl Weights {
    /// So many rows of so many bytes together.
    pub fn of(rows: u64, bytes: u64) -> Weights {
        let heaps = (rows > 0).then_some(Heap { rows, bytes }).into_iter().collect();
        Weights { heaps, rows, bytes: if rows > 0 { bytes } else { 0 } }
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A row comes last.
    pub fn add(&mut self, weight: u64) {
        self.rows += 1;
        self.bytes += weight;
        match self.heaps.back_mut() {
            Some(heap) if heap.rows < HEAP_ROWS && heap.bytes + weight <= HEAP_BYTES => {
                heap.rows += 1;
                heap.bytes += weight;
            }
            _ => self.heaps.push_back(Heap { rows: 1, bytes: weight }),
        }
        if self.heaps.len() > HEAPS_MAX {
            self.join();
        }
    }

    /// So many of the oldest rows leave.
    pub fn take(&mut self, mut count: u64) {
        while count > 0
            && let Some(heap) = self.heaps.front_mut()
        {
            let rows = count.min(heap.rows);
            let bytes = share(*heap, rows);
            heap.rows -= rows;
            heap.bytes -= bytes;
            if heap.rows == 0 {
                self.heaps.pop_front();
            }
            self.rows -= rows;
            self.bytes -= bytes;
            count -= rows;
        }
    }

    /// So many rows wait in truth: what is too much has left at the old end.
    pub fn recount(&mut self, rows: u64) {
        match self.rows.checked_sub(rows) {
            Some(gone) => self.take(gone),
            None => *self = Weights::of(rows, self.bytes / self.rows.max(1) * rows),
        }
    }

    /// Nothing waits.
    pub fn clear(&mut self) {
        *self = Weights::default();
    }

    /// How many of the oldest rows must leave until at most so many bytes are left.
    pub fn over(&self, most: u64) -> u64 {
        let (mut rows, mut left) = (0, self.bytes);
        for heap in &self.heaps {
            if left <= most {
                return rows;
            }
            if left - heap.bytes >= most {
                rows += heap.rows;
                left -= heap.bytes;
                continue;
            }
            // Within this heap: as many as bring it down by what is too much.
            let too_much = u128::from(left - most) * u128::from(heap.rows);
            let within = too_much.div_ceil(u128::from(heap.bytes.max(1)));
            return rows + u64::try_from(within).unwrap_or(heap.rows).min(heap.rows);
        }
        rows
    }

    /// Makes one heap of each two neighbours.
    fn join(&mut self) {
        let mut joined = VecDeque::with_capacity(HEAPS_MAX + 1);
        for pair in self.heaps.make_contiguous().chunks(2) {
            let rows = pair.iter().map(|heap| heap.rows).sum();
            let bytes = pair.iter().map(|heap| heap.bytes).sum();
            joined.push_back(Heap { rows, bytes });
        }
        self.heaps = joined;
    }
}

/// What so many rows of a heap weigh.
fn share(heap: Heap, rows: u64) -> u64 {
    let whole = u128::from(heap.bytes) * u128::from(rows) / u128::from(heap.rows.max(1));
    u64::try_from(whole).unwrap_or(heap.bytes)
}

/// Rows of a new heap.
const HEAP_ROWS: u64 = 32;
/// Bytes of a new heap, unless one row alone has more.
const HEAP_BYTES: u64 = 65_536;
/// Heaps of one session; at the limit neighbours are joined.
const HEAPS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_too_much_is_counted_from_the_oldest() {
        let mut weights = Weights::default();
        for weight in [100, 100, 100, 100] {
            weights.add(weight);
        }
        let over = [400, 399, 300, 299, 0].map(|most| weights.over(most));
        assert_eq!(over, [0, 1, 1, 2, 4]);
        assert_eq!(Weights::of(3, 300).over(150), 2);
        assert_eq!(Weights::of(0, 5).bytes(), 0);
    }

    #[test]
    fn a_long_queue_takes_little_memory_and_is_counted_to_the_end() {
        let mut weights = Weights::default();
        for row in 0..1_000_000_u64 {
            weights.add(row % 1_000);
            assert!(weights.heaps.len() <= HEAPS_MAX);
        }
        weights.take(1_000_000);
        assert_eq!((weights.rows(), weights.bytes(), weights.heaps.len()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn rows_are_exact_and_bytes_are_off_by_one_heap_at_most(
            steps in proptest::collection::vec((any::<bool>(), 1_u64..5_000), 0..600),
        ) {
            let mut weights = Weights::default();
            let mut exact: VecDeque<u64> = VecDeque::new();
            for (comes, number) in steps {
                if comes {
                    weights.add(number);
                    exact.push_back(number);
                } else {
                    let count = number % 8;
                    weights.take(count);
                    exact.drain(..usize::try_from(count).unwrap().min(exact.len()));
                }
                let bytes: u64 = exact.iter().sum();
                prop_assert_eq!(weights.rows(), exact.len() as u64);
                prop_assert!(weights.bytes().abs_diff(bytes) <= HEAP_BYTES);
                prop_assert_eq!(weights.bytes(), weights.heaps.iter().map(|heap| heap.bytes).sum::<u64>());
                let most = weights.bytes() / 2;
                let over = weights.over(most);
                let mut after = Weights { heaps: weights.heaps.clone(), ..weights };
                after.take(over);
                prop_assert!(after.bytes() <= most + 1, "{} {}", after.bytes(), most);
            }
        }
    }
}
