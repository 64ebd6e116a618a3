//! One client's session: what MQTT says must be remembered for it, and by which rules.
//!
//! A session knows no connection and sends nothing: it says what is under way, what waits and which
//! packet id is next. One that outlives its connection has a [`Backlog`], a place in the log; one that
//! does not has a [`Line`] in RAM. Invariant: a packet id is given to one exchange at a time.

mod backlog;
mod weights;
mod flight;
mod inward;
mod line;
mod queue;
mod sought;

pub use backlog::{Backlog, Next, Reading};
pub use flight::{Burden, Exchange, Flight, GroupId, Held, Parcel, Sending, Stage};
pub use inward::Inward;
pub use line::{Line, Verbatim, weight_of};
pub use queue::Queue;
#[cfg(test)]
pub(crate) use sought::COMPARED;
pub use sought::Sought;
pub use weights::Weights;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytestring::ByteString;

use crate::codec::SubscriptionOptions;
use crate::record::{StoredSubscription, Ticket};

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Client id.
    pub client_id: ByteString,
    /// User name at its last connection.
    pub user: Option<ByteString>,
    /// Seconds that it outlives its connection; 0 ends with it, `u32::MAX` never ends.
    pub expiry: u32,
    /// Subscriptions, in the order of their making.
    pub subscriptions: Vec<StoredSubscription>,
    /// Exchanges of QoS 1 and 2 towards the client.
    pub flight: Flight,
    /// QoS 2 packet ids from the client, not yet released.
    pub inward: Inward,
    /// Where it stands in the log; `None` for a session that ends with its connection.
    pub backlog: Option<Box<Backlog>>,
    /// What waits in RAM for a session without a backlog.
    pub line: Line,
    /// Retained messages that a subscription still brings.
    pub walks: VecDeque<RetainedWalk>,
}

/// Retained messages on their way to a new subscription, sent as the window allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedWalk {
    /// The subscription's filter.
    pub filter: ByteString,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its identifier.
    pub identifier: Option<u32>,
    /// The topic of the last message sent, or the place that was come to since.
    pub after: Option<ByteString>,
    /// The write that its SUBACK waits for; 0 where it waits for none.
    pub behind: Ticket,
}

impl Session {
    /// A session without subscriptions.
    pub fn new(client_id: ByteString, user: Option<ByteString>, expiry: u32) -> Session {
        Session {
            client_id,
            user,
            expiry,
            subscriptions: Vec::new(),
            flight: Flight::default(),
            inward: Inward::default(),
            backlog: None,
            line: Line::default(),
            walks: VecDeque::new(),
        }
    }

    /// Messages that wait for its client, and their bytes.
    pub fn waiting(&self) -> (u64, u64) {
        let line = (self.line.len() as u64, self.line.weight() as u64);
        self.backlog.as_ref().map_or(line, |log| (line.0 + log.waiting(), line.1 + log.waiting_bytes()))
    }

    /// Whether it is over once its connection is.
    pub fn ends_with_connection(&self) -> bool {
        self.expiry == 0 || self.backlog.is_none()
    }

    /// Puts subscriptions, by their filters, in place of those with the same.
    pub fn replace_subscriptions(&mut self, mut sought: BTreeMap<Sought, StoredSubscription>) {
        if sought.is_empty() {
            return;
        }
        for known in &mut self.subscriptions {
            if let Some(subscription) = sought.remove(&Sought(known.filter.clone())) {
                *known = subscription;
            }
        }
        self.subscriptions.extend(sought.into_values());
    }

    /// Adds walks in place of those of their filters; of several with one filter the last counts.
    pub fn add_walks(&mut self, walks: Vec<RetainedWalk>) {
        let mut sought = BTreeSet::new();
        let mut fresh: Vec<RetainedWalk> =
            walks.into_iter().rev().filter(|walk| sought.insert(Sought(walk.filter.clone()))).collect();
        if fresh.is_empty() {
            return;
        }
        self.walks.retain(|walk| !sought.contains(&Sought(walk.filter.clone())));
        fresh.reverse();
        self.walks.extend(fresh);
    }

    /// The oldest walk is at its end. Few subscriptions are made, so what the last one took is given back.
    pub fn end_walk(&mut self) {
        self.walks.pop_front();
        if self.walks.is_empty() {
            self.walks = VecDeque::new();
        }
    }

    /// Adds a subscription. Most sessions have few: room is made for one.
    pub fn add_subscription(&mut self, subscription: StoredSubscription) {
        if self.subscriptions.len() < FEW {
            self.subscriptions.reserve_exact(1);
        }
        self.subscriptions.push(subscription);
    }

    /// Forgets subscriptions; those that there were.
    pub fn remove_subscriptions(&mut self, filters: &BTreeSet<Sought>) -> Vec<StoredSubscription> {
        let is_sought = |filter: &ByteString| filters.contains(&Sought(filter.clone()));
        self.walks.retain(|walk| !is_sought(&walk.filter));
        self.subscriptions.extract_if(.., |known| is_sought(&known.filter)).collect()
    }

    /// The connection is gone: what belonged to it alone is forgotten.
    pub fn detach(&mut self) {
        self.flight.detach();
        if let Some(backlog) = &mut self.backlog {
            backlog.rewind(self.flight.oldest_unanswered());
        }
    }
}

/// Subscriptions of a session whose list grows one by one.
const FEW: usize = 4;
