//! Who wants a topic: filters to subscribers, topics to retained messages.
//!
//! [`Router`] answers for live messages, [`Retained`] for new subscriptions; both read filters as
//! [`filter`] defines them. Nothing here knows a session, a connection or the time. What is found comes
//! in an order that the subscriptions alone decide.

pub mod filter;
mod retained;
mod tree;

pub use filter::{NotAFilter, NotATopic};
pub use retained::{Found, Retained};
#[cfg(test)]
pub(crate) use tree::LOOKED;
pub use tree::{Interest, Match, Router, Subscriber};
