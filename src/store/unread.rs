//! Segments that the disk could not read, and when each is tried again.
//!
//! Only their readers wait. Each is put off longer each time, and given up after about a minute: it would keep
//! its readers waiting for ever.

use std::collections::BTreeMap;

use super::commit::backoff;

/// By segment.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<u32, Tries>);

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    times: u32,
    /// Before that it is not tried again.
    next: u64,
}

/// Whether something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Some,
    None,
}

impl Unread {
    /// Puts a segment off that was tried in vain.
    pub(super) fn put_off(&mut self, id: u32, now: u64) -> Patience {
        let tries = self.0.entry(id).or_default();
        if tries.next > now {
            return Patience::Some;
        }
        if tries.times == 0 {
            tracing::error!(segment = id, "the disk cannot read a part of the store: its readers wait");
        }
        tries.next = now + backoff(tries.times);
        tries.times += 1;
        if tries.times < READ_ATTEMPTS {
            return Patience::Some;
        }
        self.0.remove(&id);
        Patience::None
    }

    /// Until when a segment is put off.
    pub(super) fn until(&self, id: u32) -> u64 {
        self.0.get(&id).map_or(0, |tries| tries.next)
    }

    /// A segment could be read.
    pub(super) fn forget(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// The database is another.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// So often a segment that the disk cannot read is tried: for about a minute.
pub(super) const READ_ATTEMPTS: u32 = 24;
