//! The broker's tests: scripts in one text language, and a random simulation with its invariants.
//!
//! Nothing here waits or reads a clock; only the fresh seed of the simulation comes from outside.

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
}
