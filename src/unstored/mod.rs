//! The queue in RAM of a route that keeps nothing (`store = false`).
//!
//! The engine puts in and never waits; the bridge takes out. Beyond its limit in bytes the newest message
//! is dropped and counted. The counts obey the law of conservation at every moment:
//! received = delivered + queued + dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::record::{DropReason, Message, ReaderStatus};

/// The queue of the route of this name, which holds messages of at most so many bytes together.
pub fn queue(name: &str, limit: usize) -> (Inlet, Outlet) {
    let name = name.to_owned();
    let shared = Arc::new(Shared { name, limit, state: Mutex::default(), filled: Notify::new() });
    (Inlet(shared.clone()), Outlet(shared))
}

/// The engine's end.
#[derive(Debug, Clone)]
pub struct Inlet(Arc<Shared>);

/// The bridge's end.
#[derive(Debug)]
pub struct Outlet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    limit: usize,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    counts: Counts,
}

/// What became of the route's messages since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Counted at entry.
    pub received: u64,
    /// Said by [`Outlet::delivered`].
    pub delivered: u64,
    /// In the queue, or taken and not yet accounted for.
    pub queued: u64,
    /// By reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

impl Inlet {
    /// Puts a message in, or drops it where there is no room. What waits does not pin a read buffer.
    pub fn put(&self, message: &Message) {
        let weight = message.weight();
        let mut state = self.0.lock();
        state.counts.received += 1;
        if state.bytes + weight > self.0.limit {
            state.counts.drop(DropReason::QueueFull, 1);
            return;
        }
        state.bytes += weight;
        state.counts.queued += 1;
        state.messages.push_back(Arc::new(message.compact()));
        drop(state);
        self.0.filled.notify_one();
    }

    /// The counts.
    pub fn counts(&self) -> Counts {
        self.0.lock().counts.clone()
    }

    /// The route's conservation line. Nothing in it runs out of time, and it is never called full: what finds no
    /// room is dropped as it is wherever the link is down.
    pub fn line(&self) -> ReaderStatus {
        let Counts { received, delivered, queued, dropped } = self.counts();
        let name = self.0.name.clone();
        ReaderStatus { name, route: true, received, delivered, queued, expired: 0, dropped, full: false }
    }
}

impl Outlet {
    /// The next messages in order, waiting for at least one; never more than `most`.
    pub async fn take(&mut self, most: usize) -> Vec<Arc<Message>> {
        loop {
            let taken = self.take_now(most);
            if !taken.is_empty() {
                return taken;
            }
            // What was put in meanwhile has left a permit, so that this returns at once.
            self.0.filled.notified().await;
        }
    }

    /// The next messages in order, as many as there are; never more than `most`.
    pub fn take_now(&mut self, most: usize) -> Vec<Arc<Message>> {
        let mut state = self.0.lock();
        let count = most.min(state.messages.len());
        let taken: Vec<_> = state.messages.drain(..count).collect();
        state.bytes -= taken.iter().map(|message| message.weight()).sum::<usize>();
        taken
    }

    /// So many of those taken have reached upstream.
    pub fn delivered(&mut self, count: u64) {
        let mut state = self.0.lock();
        state.counts.queued = state.counts.queued.saturating_sub(count);
        state.counts.delivered += count;
    }

    /// So many of those taken are given up.
    pub fn dropped(&mut self, reason: DropReason, count: u64) {
        let mut state = self.0.lock();
        state.counts.queued = state.counts.queued.saturating_sub(count);
        state.counts.drop(reason, count);
    }

    /// The counts.
    pub fn counts(&self) -> Counts {
        self.0.lock().counts.clone()
    }
}

impl Counts {
    fn drop(&mut self, reason: DropReason, count: u64) {
        if count > 0 {
            *self.dropped.entry(reason).or_default() += count;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a route of the product may hold: 1 MB.
pub const LIMIT: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use bytestring::ByteString;

    use super::*;
    use crate::codec::{Properties, QoS};

    fn message(payload: usize) -> Message {
        Message {
            topic: ByteString::from_static("t"),
            payload: Bytes::from(vec![0; payload]),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::new(),
            expiry: None,
            received: 0,
            unclocked: false,
        }
    }

    fn conserved(counts: &Counts) -> bool {
        counts.received == counts.delivered + counts.queued + counts.dropped.values().sum::<u64>()
    }

    #[test]
    fn beyond_the_limit_the_newest_is_dropped_and_counted() {
        let (inlet, mut outlet) = queue("r", 3 * message(203).weight());
        for _ in 0..5 {
            inlet.put(&message(203));
        }
        let counts = inlet.counts();
        assert_eq!((counts.received, counts.queued), (5, 3));
        assert_eq!(counts.dropped, BTreeMap::from([(DropReason::QueueFull, 2)]));
        assert!(conserved(&counts));

        assert_eq!(outlet.take_now(2).len(), 2);
        assert_eq!(outlet.counts().queued, 3, "taken is not yet delivered");
        outlet.delivered(1);
        outlet.dropped(DropReason::LinkDown, 1);
        assert!(conserved(&outlet.counts()));
        inlet.put(&message(203));
        assert_eq!(outlet.take_now(9).len(), 2);
        assert!(conserved(&outlet.counts()));
    }

    #[test]
    fn the_bridge_waits_without_missing_a_message() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (inlet, mut outlet) = queue("r", LIMIT);
        let engine = std::thread::spawn(move || (0..1_000).for_each(|_| inlet.put(&message(1))));
        let mut seen = 0;
        while seen < 1_000 {
            seen += runtime.block_on(outlet.take(64)).len();
        }
        engine.join().unwrap();
        assert_eq!(seen, 1_000);
    }
}
