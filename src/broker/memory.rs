//! How much is held in RAM for clients, and what goes when it is too much (`max_memory`).
//!
//! The broker knows what it holds itself: queues of sessions, packets that wait, the log's tail, retained
//! messages, wills. What waits in the connections' buffers the engine tells it. Three levels: below three
//! quarters nothing happens; above, the engine is told to spare the slowest readers QoS 0; at the limit
//! nobody new is taken, and whoever holds most is let go, one at a turn.

use super::depart::Cause;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::Reason;
use crate::record::{Message, SessionWill};

/// How full the memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// There is room.
    #[default]
    Ample,
    /// Three quarters are taken.
    Tight,
    /// All is taken.
    Full,
}

impl Level {
    /// Where so much is held of what may be.
    pub fn of(held: usize, most: usize) -> Level {
        if held >= most {
            Level::Full
        } else if held >= most - most / 4 {
            Level::Tight
        } else {
            Level::Ample
        }
    }
}

/// What is held, in bytes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// In the buffers of connections, as the engine says.
    pub(super) buffers: usize,
    /// The connection with the largest buffer, and what is in it.
    pub(super) heaviest: Option<(ConnectionId, usize)>,
    /// In the queues of sessions that end with their connection.
    pub(super) queues: usize,
    /// In packets that wait for the store.
    pub(super) held: usize,
    /// In wills.
    pub(super) wills: usize,
    /// As the engine was told last.
    told: Level,
}

impl Broker {
    /// Bytes that are held for clients.
    pub(super) fn memory_held(&self) -> usize {
        let Memory { buffers, queues, held, wills, .. } = &self.memory;
        buffers + queues + held + wills + self.ledger.weight() + self.retained.weight()
    }

    /// What stays counts up to its half: a database of before, or a limit that was lowered, may bring more,
    /// and nobody could come in to take it away.
    pub(super) fn level(&self) -> Level {
        let most = self.config.limits.max_memory;
        let Memory { buffers, queues, held, wills, .. } = &self.memory;
        let stays = (wills + self.ledger.weight() + self.retained.weight()).min(most / 2);
        Level::of(buffers + queues + held + stays, most)
    }

    /// Whether retained messages and wills may take so much more. They have half of the memory, so that
    /// nobody can fill all of it with what stays.
    pub(super) fn may_stay(&self, more: usize) -> bool {
        self.retained.weight() + self.memory.wills + more <= self.config.limits.max_memory / 2
    }

    /// Whether a message may become its topic's retained one.
    pub(super) fn may_retain(&self, message: &Message) -> bool {
        let former = self.retained.of(&message.topic).map_or(0, |former| former.weight());
        message.payload.is_empty() || former >= message.weight() || self.may_stay(message.weight() - former)
    }

    /// At the end of a call: the engine is told how it stands, and somebody is let go if need be.
    pub(super) fn relieve(&mut self, turn: &mut Turn<'_>) {
        if self.level() == Level::Full
            && let Some(id) = self.holds_most()
        {
            self.part(id, Cause::Expelled(Reason::QuotaExceeded), turn);
        }
        let level = self.level();
        if std::mem::replace(&mut self.memory.told, level) != level {
            turn.effects.push(Effect::Memory(level));
        }
    }

    /// The connection for which most is held, if it is worth anything.
    fn holds_most(&mut self) -> Option<ConnectionId> {
        let queued = self.clients.keys().into_iter().filter_map(|key| {
            let client = self.clients.get(key)?;
            Some((client.connection?, client.session.queue.weight()))
        });
        let buffered = self.memory.heaviest.filter(|(id, _)| self.connections.get(*id).is_some());
        let (id, weight) = queued.chain(buffered).max_by_key(|(_, weight)| *weight)?;
        if weight < WORTH_LETTING_GO {
            return None;
        }
        if buffered.is_some_and(|(heaviest, _)| heaviest == id) {
            // Until the engine says otherwise its buffer is gone with it.
            let (_, buffer) = self.memory.heaviest.take().unwrap_or((id, 0));
            self.memory.buffers = self.memory.buffers.saturating_sub(buffer);
        }
        Some(id)
    }
}

/// What a will weighs.
pub(super) fn will_weight(will: &SessionWill) -> usize {
    will.topic.len() + will.payload.len() + will.properties.as_bytes().len() + WILL_OVERHEAD
}

/// What a will weighs beside its own bytes.
const WILL_OVERHEAD: usize = 96;

/// A connection that holds less is not let go: that would not help.
const WORTH_LETTING_GO: usize = 4_096;
