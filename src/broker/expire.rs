//! Retained messages that run out of time.
//!
//! They go when that is so, not when somebody next asks for them: until then they would take room in RAM
//! and on disk that others are refused. Few at a time, so that a call stays short. What a start finds that
//! has run out meanwhile goes the same way.

use bytestring::ByteString;

use super::publish::is_volatile;
use super::timers::Timer;
use super::{Broker, Turn};
use crate::record::{Now, Presence, Write};

impl Broker {
    /// Lets the next one that runs out of time be watched.
    pub(super) fn arm_retained(&mut self, now: Now) {
        let Some(due) = self.retained.next_due() else { return };
        let left = due.saturating_sub(now.house);
        // A call looks at some; the others have their turn a little later.
        let due = now.mono.saturating_add(if left == 0 { PAUSE } else { left });
        if due < self.retained_due {
            self.retained_due = due;
            self.remind(due, Timer::Retained);
        }
    }

    pub(super) fn on_retained_due(&mut self, armed: u64, turn: &mut Turn<'_>) {
        if self.retained_due != armed {
            return;
        }
        self.retained_due = u64::MAX;
        for _ in 0..EXPIRED_MAX {
            if self.ledger.is_busy() {
                break;
            }
            let Some(topic) = self.retained.next_expired(turn.now.house) else { break };
            self.expire_retained(topic, turn);
        }
        self.arm_retained(turn.now);
    }

    /// A topic's retained message has run out of time: it is forgotten, here and on disk.
    pub(super) fn expire_retained(&mut self, topic: ByteString, turn: &mut Turn<'_>) {
        self.retained.clear(&topic);
        self.counters.expired += 1;
        if self.store == Presence::There && !is_volatile(&topic) {
            // A copy, so that nothing of the message is held with it.
            let topic = ByteString::from(&*topic);
            self.ledger.write(Write::Unretained { topic }, turn.effects);
        }
    }
}

/// So many go in one call.
const EXPIRED_MAX: u32 = 512;

/// Milliseconds to the next ones.
const PAUSE: u64 = 20;
