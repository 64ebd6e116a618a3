//! Rows of a shared subscription that only members who are away may read.
//!
//! They are set aside so that those behind them go on, within the limits of a queue, and are drawn again
//! once a member comes, joins or leaves. Their place in the log is theirs meanwhile.

use std::collections::BTreeMap;

use super::{Broker, Turn, WhenFull};
use crate::record::{DropReason, Seq, Write};
use crate::session::GroupId;

/// The rows and what they weigh.
#[derive(Debug, Default)]
pub(super) struct Aside {
    rows: BTreeMap<Seq, u64>,
    bytes: u64,
}

impl Aside {
    fn put(&mut self, seq: Seq, weight: u64) {
        self.bytes += weight;
        self.bytes -= self.rows.insert(seq, weight).unwrap_or(0);
    }

    fn is_over(&self, messages: u64, bytes: u64) -> bool {
        self.rows.len() as u64 > messages || self.bytes > bytes
    }

    fn lose(&mut self, when: WhenFull) -> Option<Seq> {
        let (seq, weight) = match when {
            WhenFull::DropOldest => self.rows.pop_first(),
            WhenFull::DropNewest => self.rows.pop_last(),
        }?;
        self.bytes -= weight;
        Some(seq)
    }
}

impl Broker {
    /// The row waits for a member that is away.
    pub(super) fn set_aside(&mut self, id: GroupId, seq: Seq, weight: u64, turn: &mut Turn<'_>) {
        let limits = &self.config.limits;
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(reader) = group.backlog.as_ref().map(|backlog| backlog.reader) else { return };
        group.aside.put(seq, weight);
        while group.aside.is_over(limits.max_queued_messages, limits.max_queued_bytes)
            && let Some(seq) = group.aside.lose(limits.when_queue_full)
        {
            self.counters.drop(DropReason::QueueFull, 1);
            self.ledger.write(Write::Dropped { reader, seq, reason: DropReason::QueueFull }, turn.effects);
        }
    }

    /// Who is a member or here has changed: the rows are looked at again.
    pub(super) fn recall(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(id) {
            group.again.extend(std::mem::take(&mut group.aside).rows.into_keys());
        }
    }
}
