//! Sending: one write for each connection that has something, and who is gone by then.
//!
//! What those who say little have caused leaves at once. The rest gathers while others speak at length, and
//! then leaves some at a time. A connection that cannot take all of it is written on when the kernel says that
//! it can.

use super::outbox::Flushed;
use super::socket::Farewell;
use super::turn::Engine;
use super::work;
use crate::broker::{ConnectionId, Event};
use crate::record::Now;

/// Flushing those who wait for it, some in each turn.
#[derive(Debug)]
pub(super) struct Round {
    /// So many are left: one for each who waited when it began, and as many more as what they were to be sent may
    /// take.
    flushes: usize,
    /// Bytes that had gathered by then.
    gathered: usize,
}

impl Engine {
    /// Has a connection flushed when the turn ends.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(socket) = self.table.socket(id)
            && socket.mark_dirty()
        {
            self.courier.dirty.push(id);
        }
    }

    /// Flushes every connection that has something to send, whatever it takes: memory is what counts.
    pub(super) fn flush_all(&mut self) {
        self.put_off();
        while let Some(id) = self.courier.put_off.pop_front() {
            self.flush(id, usize::MAX);
        }
        self.courier.round = None;
        self.courier.gathered = 0;
    }

    /// Flushes those for whom something was said just now; beyond some dozens they wait.
    pub(super) fn flush_promptly(&mut self) {
        let most = self.work + PROMPTLY_MAX * work::FLUSH;
        let mut dirty = std::mem::take(&mut self.courier.dirty);
        for id in dirty.drain(..) {
            if self.work < most {
                self.flush(id, FLUSH_BYTES_MAX);
            } else {
                self.courier.put_off.push_back(id);
            }
        }
        self.courier.dirty = dirty;
    }

    /// Those who are to be flushed stand behind those who wait for that.
    pub(super) fn put_off(&mut self) {
        self.courier.put_off.extend(self.courier.dirty.drain(..));
    }

    /// Whether it is time to flush those who wait for it.
    pub(super) fn is_flush_due(&self) -> bool {
        let courier = &self.courier;
        courier.round.is_some()
            || courier.gathered >= self.gathered_max()
            || courier.unsent_work >= UNSENT_WORK_MAX
            || !self.intake.is_long()
    }

    /// Bytes that may gather for everybody together before they leave.
    pub(super) fn gathered_max(&self) -> usize {
        (self.limits.max_memory / 16).min(GATHERED_BYTES_MAX)
    }

    /// Flushes some of those who wait for it. Nobody speaks at length until all have been flushed who wait now;
    /// who comes to them meanwhile waits for the next round, which may be as long.
    pub(super) fn flush_some(&mut self) {
        let round = self.courier.round.take();
        let mut round = round.unwrap_or_else(|| Round {
            flushes: self.courier.put_off.len() + self.table.held() / FLUSH_BYTES_MAX,
            gathered: self.courier.gathered,
        });
        let most = self.work + SOME * work::FLUSH;
        while self.work < most && round.flushes > 0 {
            let Some(id) = self.courier.put_off.pop_front() else { break };
            self.flush(id, FLUSH_BYTES_MAX);
            round.flushes -= 1;
        }
        if self.courier.put_off.is_empty() {
            self.courier.gathered = 0;
        } else if round.flushes > 0 {
            self.courier.round = Some(round);
            return;
        } else {
            self.courier.gathered = self.courier.gathered.saturating_sub(round.gathered);
        }
        self.courier.unsent_work = 0;
    }

    fn flush(&mut self, id: ConnectionId, most: usize) {
        let before = self.counters.bytes_out;
        self.flush_one(id, most);
        self.table.weigh(id);
        let written = usize::try_from(self.counters.bytes_out - before).unwrap_or(usize::MAX);
        self.work += work::FLUSH + work::of_bytes(written);
    }

    fn flush_one(&mut self, id: ConnectionId, most: usize) {
        let Some(socket) = self.table.socket(id) else { return };
        let written = &mut self.counters.bytes_out;
        let flushed = socket.flush(id, self.inbox.poll.registry(), &mut self.courier.pool, most, written);
        if flushed == Flushed::Part && socket.mark_dirty() {
            self.courier.put_off.push_back(id);
        }
        match flushed {
            Flushed::Gone if socket.is_open() => {
                self.events.push(Event::Lost { connection: id });
                self.table.remove(id);
            }
            Flushed::Gone => self.table.remove(id),
            Flushed::All if socket.is_closing() => match socket.say_farewell() {
                Farewell::Done => self.table.remove(id),
                Farewell::Linger => self.intake.list(&mut self.table, id),
            },
            Flushed::All | Flushed::Part | Flushed::Blocked => {
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

/// So many are flushed as soon as something was said for them, or fewer with more to send; the others wait.
const PROMPTLY_MAX: usize = 128;

/// So many of those who wait are flushed in one turn, or fewer with more to send.
const SOME: usize = 8;

/// What those who speak at length cause leaves after so many bytes or so much work at the latest, which is some
/// thousands of packets: a write for each of them would cost more than they do.
const GATHERED_BYTES_MAX: usize = 4 << 20;
const UNSENT_WORK_MAX: usize = 1 << 17;

/// What is written for one of them at once, as far as the stream lets us choose.
const FLUSH_BYTES_MAX: usize = 64 << 10;
