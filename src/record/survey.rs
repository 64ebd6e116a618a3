//! How the store and its readers do, in figures.
//!
//! Counted by the store, in its transactions, and shown by whoever is asked.

use std::collections::BTreeMap;

use super::{DropReason, ReaderId};

/// One reader's conservation line: `received = delivered + queued + expired + dropped`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReaderStatus {
    /// The route's name; the client id of a session.
    pub name: String,
    /// Whether it is a route.
    pub route: bool,
    /// Counted in the transaction that holds the message.
    pub received: u64,
    /// Settled.
    pub delivered: u64,
    /// Counted from the rows.
    pub queued: u64,
    /// Run out of time.
    pub expired: u64,
    /// By reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Whether it has reached bounds of its own, so that what comes is refused or dropped.
    pub full: bool,
}

/// What `$SYS` tells of the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// Pages in use and the WAL, in bytes.
    pub size: u64,
    /// `max_size`.
    pub max_size: u64,
    /// Whether it is full, for who does not let the oldest go.
    pub is_full: bool,
    /// The routes that it keeps, those of before too that the configuration names no more.
    pub routes: BTreeMap<ReaderId, ReaderStatus>,
    /// The routes that are kept in RAM alone.
    pub unstored: Vec<ReaderStatus>,
}
