//! Filters that are looked for, many at a time.
//!
//! One packet may name ten thousand filters, so they are put into a tree before a list is gone through.
//! In tests every comparison is counted, so that a list within a list shows.

use std::cmp::Ordering;

use bytestring::ByteString;

/// A filter that is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought(pub ByteString);

impl Ord for Sought {
    fn cmp(&self, other: &Sought) -> Ordering {
        #[cfg(test)]
        COMPARED.with(|count| count.set(count.get() + 1));
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Sought {
    fn partial_cmp(&self, other: &Sought) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
thread_local! {
    /// Comparisons of this thread.
    pub(crate) static COMPARED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}
