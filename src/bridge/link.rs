//! What is under way on one connection: packet ids, the window, and when the link is stuck. Pure.
//!
//! The protocol engine gives packet ids itself and tells them only by the order of its events, so what
//! was handed over waits in a queue for its id. A message counts as arrived when its acknowledgement
//! comes and never earlier; what is under way when the connection ends is simply forgotten here, since
//! the store still has it.
//!
//! Invariant: at most `window` messages are handed over and not yet acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::backoff;
use crate::codec::Reason;
use crate::record::{Message, Seq};

/// The state of one connection's outward half.
#[derive(Debug)]
pub(super) struct Link {
    limits: LinkLimits,
    /// Handed to the engine, in order; it has not told their packet ids.
    handed: VecDeque<Parcel>,
    /// By packet id, on the wire.
    sent: BTreeMap<u16, Parcel>,
    /// One whose packet id is still taken by an older message that upstream has not acknowledged; the
    /// engine sends it once that acknowledgement comes.
    held: Option<(u16, Parcel)>,
    /// Refused for now, with the time to try again.
    resting: Vec<(u64, Parcel)>,
    /// Bytes of all of these.
    weight: usize,
    /// The engine will send nothing more.
    wedged: bool,
    /// When the last packet of upstream came.
    heard: u64,
    /// When the last acknowledgement came, or the first message after none was under way was handed over.
    progressed: u64,
}

/// What bounds a link. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkLimits {
    /// Messages handed over and not acknowledged.
    pub(super) window: usize,
    /// Bytes of these, so that large messages do not fill memory; one message may always go.
    pub(super) window_bytes: usize,
    /// Silence of upstream after which the connection is given up.
    pub(super) silence: u64,
    /// Time without an acknowledgement after which the link is not called connected.
    pub(super) stall: u64,
    /// Time without an acknowledgement after which the connection is given up.
    pub(super) renew: u64,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    /// Where it comes from.
    pub(super) origin: Origin,
    /// The message as it is here.
    pub(super) message: Arc<Message>,
    /// How often upstream has refused it for now.
    pub(super) refusals: u32,
}

/// Where a message comes from, so that its arrival is told there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A row of a route in the store.
    Row {
        /// Index of the route.
        route: usize,
        /// Its order number.
        seq: Seq,
    },
    /// A route that keeps nothing.
    Live {
        /// Index of the route.
        route: usize,
    },
    /// The bridge's own word on its status topic.
    Status,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Upstream has it.
    Arrived(Parcel),
    /// Upstream will never take it.
    Refused(Parcel, Reason),
    /// Upstream does not take it now; it is tried again on this connection.
    Later(Reason),
}

/// How the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Well.
    Flowing,
    /// Messages are under way and acknowledgements do not come.
    Stalled,
    /// Nothing came from upstream for too long.
    Silent,
    /// No acknowledgement came for so long that the connection must be renewed.
    Stuck,
}

/// The engine's events do not fit what was handed over, or upstream acknowledges what was not sent: this
/// connection can no longer tell what has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tell which messages have arrived")]
pub(super) struct Confused;

impl Link {
    /// A fresh connection.
    pub(super) fn new(limits: LinkLimits, now: u64) -> Link {
        Link {
            limits,
            handed: VecDeque::new(),
            sent: BTreeMap::new(),
            held: None,
            resting: Vec::new(),
            weight: 0,
            wedged: false,
            heard: now,
            progressed: now,
        }
    }

    /// Whether one more message of this weight may be handed over.
    pub(super) fn has_room(&self, weight: usize) -> bool {
        let under_way = self.under_way();
        under_way < self.limits.window
            && (under_way == 0 || self.weight.saturating_add(weight) <= self.limits.window_bytes)
    }

    /// Messages handed over and not acknowledged, those that rest among them.
    pub(super) fn under_way(&self) -> usize {
        self.unacknowledged() + self.resting.len()
    }

    fn unacknowledged(&self) -> usize {
        self.handed.len() + self.sent.len() + usize::from(self.held.is_some())
    }

    /// The parcel was handed to the engine.
    pub(super) fn hand_over(&mut self, parcel: Parcel, now: u64) {
        if self.unacknowledged() == 0 {
            self.progressed = now;
        }
        self.weight += parcel.message.weight();
        self.handed.push_back(parcel);
    }

    /// The engine has written a PUBLISH with this packet id; 0 is QoS 0, and then it has arrived as far
    /// as anybody will ever know.
    pub(super) fn on_sent(&mut self, packet_id: u16, now: u64) -> Result<Option<Outcome>, Confused> {
        if let Some((_, parcel)) = self.held.take_if(|(held, _)| *held == packet_id) {
            self.sent.insert(packet_id, parcel);
            return Ok(None);
        }
        let parcel = self.handed.pop_front().ok_or(Confused)?;
        if packet_id == 0 {
            self.progressed = now;
            self.weight = self.weight.saturating_sub(parcel.message.weight());
            return Ok(Some(Outcome::Arrived(parcel)));
        }
        match self.sent.insert(packet_id, parcel) {
            Some(_) => Err(Confused),
            None => Ok(None),
        }
    }

    /// The engine holds the next PUBLISH back: its packet id is still taken. The older message keeps the
    /// id until its acknowledgement comes, or that would be taken for the younger's.
    pub(super) fn on_held(&mut self, packet_id: u16) -> Result<(), Confused> {
        let parcel = self.handed.pop_front().ok_or(Confused)?;
        match self.held.replace((packet_id, parcel)) {
            Some(_) => Err(Confused),
            None => Ok(()),
        }
    }

    /// PUBACK. `random` spreads the retries of what is refused for now.
    pub(super) fn on_acknowledged(
        &mut self,
        packet_id: u16,
        reason: Reason,
        now: u64,
        random: u64,
    ) -> Result<Outcome, Confused> {
        let mut parcel = self.sent.remove(&packet_id).ok_or(Confused)?;
        self.progressed = now;
        // After a refusal the engine no longer sends what it held for the same id, nor anything after it.
        let holds = self.held.as_ref().is_some_and(|(held, _)| *held == packet_id);
        self.wedged |= holds && reason.is_error();
        let weight = parcel.message.weight();
        let outcome = match verdict(reason) {
            Verdict::Taken => Outcome::Arrived(parcel),
            Verdict::Never => Outcome::Refused(parcel, reason),
            Verdict::Later => {
                let rest = backoff::rest(parcel.refusals, random);
                let due = now.saturating_add(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
                parcel.refusals = parcel.refusals.saturating_add(1);
                self.resting.push((due, parcel));
                return Ok(Outcome::Later(reason));
            }
        };
        self.weight = self.weight.saturating_sub(weight);
        Ok(outcome)
    }

    /// A packet of upstream came.
    pub(super) fn on_heard(&mut self, now: u64) {
        self.heard = now;
    }

    /// A message that was refused for now and may be sent again. It is handed over anew.
    pub(super) fn take_rested(&mut self, now: u64) -> Option<Parcel> {
        let index = self.resting.iter().position(|(due, _)| *due <= now)?;
        let (_, parcel) = self.resting.remove(index);
        self.weight = self.weight.saturating_sub(parcel.message.weight());
        Some(parcel)
    }

    /// How the link does.
    pub(super) fn pulse(&self, now: u64) -> Pulse {
        let waiting = self.unacknowledged() > 0;
        let stalled = now.saturating_sub(self.progressed);
        if now.saturating_sub(self.heard) >= self.limits.silence {
            Pulse::Silent
        } else if self.wedged || (waiting && stalled >= self.limits.renew) {
            Pulse::Stuck
        } else if waiting && stalled >= self.limits.stall {
            Pulse::Stalled
        } else {
            Pulse::Flowing
        }
    }

    /// Whether nothing waits for an acknowledgement.
    pub(super) fn is_quiet(&self) -> bool {
        self.unacknowledged() == 0
    }

    /// The limits that it was made with.
    pub(super) fn limits(&self) -> LinkLimits {
        self.limits
    }

    /// When the pulse may change by itself, or a rested message be sent.
    pub(super) fn deadline(&self, now: u64) -> u64 {
        if self.wedged {
            return now;
        }
        let mut deadline = self.heard.saturating_add(self.limits.silence);
        if self.unacknowledged() > 0 {
            for wait in [self.limits.stall, self.limits.renew] {
                let at = self.progressed.saturating_add(wait);
                if at > now {
                    deadline = deadline.min(at);
                }
            }
        }
        self.resting.iter().fold(deadline, |deadline, (due, _)| deadline.min(*due))
    }

    /// Ends the link: what came from routes that keep nothing is lost with it.
    pub(super) fn into_live(self) -> impl Iterator<Item = usize> {
        let held = self.held.into_iter().map(|(_, parcel)| parcel);
        let resting = self.resting.into_iter().map(|(_, parcel)| parcel);
        self.handed.into_iter().chain(self.sent.into_values()).chain(held).chain(resting).filter_map(
            |parcel| match parcel.origin {
                Origin::Live { route } => Some(route),
                Origin::Row { .. } | Origin::Status => None,
            },
        )
    }
}

enum Verdict {
    Taken,
    Later,
    Never,
}

/// What a PUBACK's reason means for the message.
fn verdict(reason: Reason) -> Verdict {
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Verdict::Taken,
        Reason::NotAuthorized
        | Reason::TopicNameInvalid
        | Reason::PacketTooLarge
        | Reason::PayloadFormatInvalid => Verdict::Never,
        // Quotas, upstream's own trouble, and what gives no reason: the message itself may be well.
        _ => Verdict::Later,
    }
}
