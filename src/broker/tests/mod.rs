//! The broker's tests: scripts in one text language, and a random simulation with its invariants.
//!
//! Nothing here waits or reads a clock; only the fresh seed of the simulation comes from outside.

use crate::record::ReaderId;

mod model;
mod script;
pub(crate) mod speech;
mod connecting;
mod publishing;
mod ways;
mod subscribing;
mod keeping;
mod restarts;
mod clocks;
mod wills;
mod words;
mod limits;
mod counting;
mod refusing;
mod holding;
mod shares;
mod bounds;
mod crowds;
mod sharing;
mod leases;
mod members;
mod pacing;
mod absent;
mod handshake;
mod answers;
mod exchanges;
mod retaining;
mod expiring;
mod version_3_1;
mod rights;
mod authenticating;
mod mounts;
mod rates;
mod sys;
pub(crate) mod random;
pub(crate) mod client;
mod simulation;

impl super::Broker {
    /// Narrower limits on what waits for the store, so that few messages reach them.
    pub(crate) fn tighten(&mut self, tail_messages: usize, uncommitted_max: usize) {
        self.ledger.bound(tail_messages, uncommitted_max);
    }

    /// Whether the limit of a session waits for a commit, since what it has is to be counted after that.
    pub(crate) fn is_to_count(&self, reader: ReaderId, now: u64) -> bool {
        let client = self.clients.reading(reader).and_then(|key| self.clients.get(key));
        let backlog = client.and_then(|client| client.session.backlog.as_ref());
        backlog.is_some_and(|own| own.is_count_due(now) && !self.ledger.is_committed(own.shortened_by()))
    }
}
