//! Sending: one write for each connection that has something, and who is gone by then.
//!
//! What those who say little have caused leaves at once. The rest gathers while others speak at length, and
//! then leaves some at a time. A connection that cannot take all of it is written on when the kernel says that
//! it can.

use super::due::Due;
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
    /// Has a connection flushed that was answered something.
    pub(super) fn mark_answered(&mut self, id: ConnectionId) {
        if let Some(socket) = self.table.socket(id) {
            self.courier.mark_answered(id, socket);
        }
    }

    /// Flushes every connection that has something to send, whatever it takes: memory is what counts.
    pub(super) fn flush_all(&mut self) {
        while let Some(id) = self.courier.answered.pop().or_else(|| self.courier.dirty.pop()) {
            self.flush(id, usize::MAX);
        }
        while let Some(id) = self.next_put_off() {
            self.flush(id, usize::MAX);
        }
        self.courier.round = None;
        self.courier.gathered = 0;
    }

    /// Flushes those for whom something was said just now; beyond some dozens they wait.
    pub(super) fn flush_promptly(&mut self) {
        let most = self.work + PROMPTLY_MAX * work::FLUSH;
        let mut answered = std::mem::take(&mut self.courier.answered);
        let mut dirty = std::mem::take(&mut self.courier.dirty);
        for id in answered.drain(..) {
            self.flush_within(id, most);
        }
        let mut left = PROMPT_LARGE_WORK;
        for id in dirty.drain(..) {
            let before = self.work;
            match self.table.socket(id).map(|socket| (socket.waiting() > PROMPT_BYTES_MAX, *socket.due())) {
                // One message to many who are flooded would take what waits for all of them into this turn.
                Some((true, Due::NowAndLater)) => self.put_off(id),
                // One that is large is much where it is for many.
                Some((true, _)) => {
                    self.flush_within(id, before + left);
                    left = left.saturating_sub(self.work - before);
                }
                Some((false, _)) | None => self.flush_within(id, most),
            }
        }
        (self.courier.answered, self.courier.dirty) = (answered, dirty);
    }

    /// Flushes one while less than so much was done in this turn; otherwise it waits.
    fn flush_within(&mut self, id: ConnectionId, most: usize) {
        if self.work >= most {
            self.put_off(id);
        }
        // What he is answered stands behind all else that waits for him.
        while self.work < most && self.flush(id, FLUSH_BYTES_MAX) == Flushed::Part {}
    }

    /// Has a connection flushed behind those who wait for that.
    fn put_off(&mut self, id: ConnectionId) {
        if let Some(socket) = self.table.socket(id) {
            self.courier.put_off(id, socket);
        }
    }

    /// Who has waited longest.
    fn next_put_off(&mut self) -> Option<ConnectionId> {
        let id = self.courier.put_off.pop_front()?;
        if let Some(socket) = self.table.socket(id) {
            socket.due().take_up();
        }
        Some(id)
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
            let Some(id) = self.next_put_off() else { break };
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

    fn flush(&mut self, id: ConnectionId, most: usize) -> Flushed {
        if !self.table.socket(id).is_some_and(|socket| socket.due().is_open()) {
            // It is gone, or was flushed before its time came.
            self.work += work::EFFECT;
            return Flushed::All;
        }
        let before = self.counters.bytes_out;
        let flushed = self.flush_one(id, most);
        self.table.weigh(id);
        let written = usize::try_from(self.counters.bytes_out - before).unwrap_or(usize::MAX);
        self.work += work::FLUSH + work::of_bytes(written);
        flushed
    }

    fn flush_one(&mut self, id: ConnectionId, most: usize) -> Flushed {
        let Some(socket) = self.table.socket(id) else { return Flushed::Gone };
        let written = &mut self.counters.bytes_out;
        let flushed = socket.flush(id, self.inbox.poll.registry(), &mut self.courier.pool, most, written);
        if flushed == Flushed::Part {
            self.courier.put_off(id, socket);
        }
        match flushed {
            Flushed::Gone if socket.deafen() => self.intake.list(&mut self.table, id),
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
        flushed
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

/// Who is to be sent more than this is sent much, and has what is not an answer when his time comes where he waits
/// already.
const PROMPT_BYTES_MAX: usize = 4 << 10;

/// What those who are sent much may take before anything else is done; the others of them wait.
const PROMPT_LARGE_WORK: usize = 512;

/// So many of those who wait are flushed in one turn, or fewer with more to send.
const SOME: usize = 8;

/// What those who speak at length cause leaves after so many bytes or so much work at the latest, which is some
/// thousands of packets: a write for each of them would cost more than they do.
const GATHERED_BYTES_MAX: usize = 4 << 20;
const UNSENT_WORK_MAX: usize = 1 << 17;

/// What is written for one of them at once, as far as the stream lets us choose.
const FLUSH_BYTES_MAX: usize = 64 << 10;
