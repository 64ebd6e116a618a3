//! The end of a turn: one write for each connection that has something, and who is gone by then.
//!
//! A connection that cannot take all of it is written on when the kernel says that it can.

use super::outbox::Flushed;
use super::socket::Farewell;
use super::turn::Engine;
use crate::broker::{ConnectionId, Event};
use crate::record::Now;

impl Engine {
    /// Has a connection flushed when the turn ends.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(socket) = self.table.socket(id)
            && socket.mark_dirty()
        {
            self.courier.dirty.push(id);
        }
    }

    /// Flushes every connection that has something to send.
    pub(super) fn flush_all(&mut self) {
        self.courier.gathered = 0;
        let mut dirty = std::mem::take(&mut self.courier.dirty);
        for id in dirty.drain(..) {
            self.flush(id);
        }
        self.courier.dirty = dirty;
    }

    fn flush(&mut self, id: ConnectionId) {
        self.flush_one(id);
        self.table.weigh(id);
    }

    fn flush_one(&mut self, id: ConnectionId) {
        let Some(socket) = self.table.socket(id) else { return };
        let written = &mut self.counters.bytes_out;
        match socket.flush(id, self.inbox.poll.registry(), &mut self.courier.pool, written) {
            Flushed::Gone if socket.is_open() => {
                self.events.push(Event::Lost { connection: id });
                self.table.remove(id);
            }
            Flushed::Gone => self.table.remove(id),
            Flushed::All if socket.is_closing() => match socket.say_farewell() {
                Farewell::Done => self.table.remove(id),
                Farewell::Linger => self.intake.list(&mut self.table, id),
            },
            Flushed::All | Flushed::Blocked => {
                if socket.choke(self.limits.max_send_buffer) {
                    self.intake.list(&mut self.table, id);
                }
                if self.table.has_awaited_room(id, self.courier.memory) {
                    self.events.push(Event::Room { connection: id });
                }
            }
        }
    }

    /// Forgets closed connections whose time is over.
    pub(super) fn end_farewells(&mut self, now: Now) {
        while let Some(&(deadline, id)) = self.courier.farewells.front() {
            let gone = self.table.socket(id).is_none();
            if !gone && deadline > now.mono {
                break;
            }
            self.courier.farewells.pop_front();
            self.table.remove(id);
        }
    }

    /// When the next of them is over.
    pub(super) fn farewell_deadline(&self) -> Option<u64> {
        self.courier.farewells.front().map(|(deadline, _)| *deadline)
    }
}
