//! What gives way at a limit, and who is at one.
//!
//! The words that configuration, broker and store share. A destination is a route, a session that outlives
//! its connection, or the retained store; routes have bounds of their own, the others what `[store]` says.

use std::collections::BTreeSet;

use super::ReaderId;

/// What gives way where a destination is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// What has waited longest; it is dropped and counted.
    #[default]
    DropOldest,
    /// What comes; it is dropped and counted.
    DropNewest,
    /// Nobody: what comes is not accepted, and its publisher keeps it.
    Refuse,
}

/// Which messages of a topic wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// The latest; it supersedes the one before.
    Latest,
}

/// The bounds of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Milliseconds after which a message is worth nothing.
    pub max_age: Option<u64>,
    /// Messages that may wait.
    pub max_messages: Option<u64>,
    /// What they may take on disk, in bytes, about.
    pub max_bytes: Option<u64>,
    /// What gives way where it, or the store, is full.
    pub when_full: Policy,
    /// Which messages of a topic wait.
    pub keep: Keep,
}

/// Who takes nothing more for now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Full {
    /// Everybody who does not let the oldest go: the store is full.
    pub store: bool,
    /// Routes that refuse and have reached bounds of their own.
    pub routes: BTreeSet<ReaderId>,
}

impl Policy {
    /// The policy by its word in the configuration.
    pub fn named(word: &str) -> Option<Policy> {
        [Policy::DropOldest, Policy::DropNewest, Policy::Refuse]
            .into_iter()
            .find(|policy| policy.as_str() == word)
    }

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::DropOldest => "drop-oldest",
            Policy::DropNewest => "drop-newest",
            Policy::Refuse => "refuse",
        }
    }
}

impl Full {
    /// Whether nobody is.
    pub fn is_nobody(&self) -> bool {
        !self.store && self.routes.is_empty()
    }
}
