//! A store of the test: rows in memory behind the real [`Handle`], with a witness of every settlement.
//!
//! It answers as late as the test wants, and in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use super::upstream::Saw;
use crate::codec::{Properties, QoS};
use crate::record::{DropReason, Identifiers, Message, ReaderId, Row, Rows, Seq, Want};
use crate::store::{Ask, Handle, Inbox};

/// The test's end.
pub(super) struct Shelf {
    pub(super) handle: Handle,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    task: Option<JoinHandle<()>>,
}

#[derive(Default)]
pub(super) struct State {
    /// Unsettled rows, by reader.
    pub(super) rows: BTreeMap<ReaderId, BTreeMap<Seq, Arc<Message>>>,
    pub(super) settled: Vec<Seq>,
    pub(super) dropped: Vec<(DropReason, Seq)>,
    /// Rows that were settled before upstream had confirmed them.
    pub(super) too_early: usize,
    pub(super) settles: usize,
    newest: u64,
}

/// How rows leave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// When they are settled, as they must.
    AtSettle,
    /// When they are read: a store that would lose what is under way. It shows that the checks see it.
    AtRead,
}

impl Shelf {
    pub(super) fn new(leaves: Leaves, witness: Arc<Mutex<Saw>>) -> Shelf {
        let (handle, inbox) = Handle::channel();
        let state = Arc::new(Mutex::new(State::default()));
        let changed = watch::channel(0).0;
        let worker = Worker { inbox, state: state.clone(), leaves, witness, changed: changed.clone() };
        let task = std::thread::spawn(move || worker.run());
        Shelf { handle, state, changed, task: Some(task) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts messages on the shelf, as one commit. The bridge hears of it by its next look.
    pub(super) fn put(&self, reader: ReaderId, messages: impl IntoIterator<Item = Message>) {
        let mut state = self.state();
        for message in messages {
            state.newest += 1;
            let seq = Seq(state.newest);
            state.rows.entry(reader).or_default().insert(seq, Arc::new(message));
        }
        drop(state);
        // The worker announces: only it holds the sender.
        self.handle.write(Vec::new(), true);
    }

    /// Puts messages on the shelf, and waits until the bridge may know it.
    pub(super) fn commit(&self, reader: ReaderId, messages: impl IntoIterator<Item = Message>) {
        self.put(reader, messages);
        let (newest, committed) = (Seq(self.state().newest), self.handle.committed());
        while *committed.borrow() < newest {
            std::thread::yield_now();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().rows.values().all(BTreeMap::is_empty)
    }

    /// Waits until no row is left.
    pub(super) async fn until_empty(&self) {
        let mut changed = self.changed.subscribe();
        let empty = changed.wait_for(|_| self.is_empty());
        if timeout(super::PATIENCE, empty).await.is_err() {
            panic!("rows are left: {:?}", self.state().rows.values().map(BTreeMap::len).collect::<Vec<_>>());
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(task) = self.task.take() {
            let _ = task.join();
        }
    }
}

struct Worker {
    inbox: Inbox,
    state: Arc<Mutex<State>>,
    leaves: Leaves,
    witness: Arc<Mutex<Saw>>,
    changed: watch::Sender<u64>,
}

impl Worker {
    fn run(self) {
        loop {
            for ask in self.inbox.take(None) {
                if matches!(ask, Ask::Close) {
                    return;
                }
                self.serve(ask);
                self.changed.send_modify(|changes| *changes += 1);
            }
        }
    }

    fn serve(&self, ask: Ask) {
        let mut state = self.state.lock().unwrap();
        if let Ask::Settle { reader, seqs } | Ask::Drop { reader, seqs, .. } = &ask {
            self.inbox.wrote(&BTreeMap::from([(*reader, seqs.len())]));
            self.inbox.announce(Seq(state.newest));
        }
        match ask {
            Ask::Writes { .. } => self.inbox.announce(Seq(state.newest)),
            Ask::Read { reader, after, limit, reply } => {
                let rows = self.read(&mut state, reader, after, limit.rows as usize);
                drop(state);
                reply(rows);
            }
            Ask::Settle { reader, seqs } => self.settle(&mut state, reader, &seqs),
            Ask::Drop { reader, seqs, reason } => {
                for seq in seqs {
                    assert!(state.rows.entry(reader).or_default().remove(&seq).is_some());
                    state.dropped.push((reason, seq));
                }
            }
            Ask::Status { .. } | Ask::Close => {}
        }
    }

    fn read(&self, state: &mut State, reader: ReaderId, after: Seq, limit: usize) -> Rows {
        let through = Seq(state.newest);
        let shelf = state.rows.entry(reader).or_default();
        let found: Vec<(Seq, Arc<Message>)> = shelf
            .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
            .take(limit)
            .map(|(seq, message)| (*seq, message.clone()))
            .collect();
        if self.leaves == Leaves::AtRead {
            for (seq, _) in &found {
                shelf.remove(seq);
            }
        }
        let full = found.len() == limit;
        let last = found.last().map_or(after, |(seq, _)| *seq);
        let want =
            Want { reader, qos: QoS::AtLeastOnce, retain: false, subscription_ids: Identifiers::default() };
        let rows = found
            .into_iter()
            .map(|(seq, message)| Row { seq, number: seq.0, message, want: want.clone() })
            .collect();
        Rows { reader, rows, through: if full { last } else { through }, newest: through, left: 0 }
    }

    fn settle(&self, state: &mut State, reader: ReaderId, seqs: &[Seq]) {
        let witness = self.witness.lock().unwrap();
        state.settles += 1;
        for seq in seqs {
            let Some(message) = state.rows.entry(reader).or_default().remove(seq) else {
                assert!(self.leaves == Leaves::AtRead, "{seq:?} is settled twice");
                continue;
            };
            if message.qos != QoS::AtMostOnce && !witness.confirmed.contains(&message.payload) {
                state.too_early += 1;
            }
            state.settled.push(*seq);
        }
    }
}

/// A message of QoS 1.
pub(in crate::bridge) fn reading(topic: &str, payload: impl Into<Bytes>) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::new(),
        expiry: None,
        received: 0,
        unclocked: false,
    }
}
