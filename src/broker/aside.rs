//! Rows of a shared subscription that only members who are away may read.
//!
//! They are set aside so that those behind them go on, within the limits of a queue and within what all
//! groups may know of such rows, and are drawn again once a member comes who may read them, or nobody may
//! any more. They are kept by topic, each with one member that it waits for, so that who comes or leaves
//! costs a look at each topic and not at each row. Their place in the log is theirs meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;

use super::client::ClientKey;
use super::{Broker, Turn, WhenFull};
use crate::record::{DropReason, Message, Seq, Write};
use crate::session::GroupId;

/// The rows and what they weigh.
#[derive(Debug, Default)]
pub(super) struct Aside {
    rows: BTreeMap<Seq, Row>,
    bytes: u64,
    topics: BTreeMap<ByteString, Waiting>,
    topic_bytes: usize,
    /// Rows of topics that there was no room for; they are drawn again whoever comes or leaves.
    unnamed: BTreeSet<Seq>,
}

#[derive(Debug)]
struct Row {
    weight: u64,
    topic: Option<ByteString>,
}

/// The rows of one topic.
#[derive(Debug)]
struct Waiting {
    rows: BTreeSet<Seq>,
    /// A member that may read them.
    reader: ClientKey,
}

impl Aside {
    fn put(&mut self, seq: Seq, message: &Message, reader: ClientKey) {
        self.take(seq);
        let weight = message.weight() as u64;
        self.bytes += weight;
        let named = self.topics.contains_key(&*message.topic)
            || self.topic_bytes + message.topic.len() <= TOPIC_BYTES_MAX;
        // A copy, so that nothing of the message is held with it.
        let topic = named.then(|| ByteString::from(&*message.topic));
        match &topic {
            Some(topic) => {
                let waiting = self.topics.entry(topic.clone()).or_insert_with(|| {
                    self.topic_bytes += topic.len();
                    Waiting { rows: BTreeSet::new(), reader }
                });
                waiting.rows.insert(seq);
                waiting.reader = reader;
            }
            None => drop(self.unnamed.insert(seq)),
        }
        self.rows.insert(seq, Row { weight, topic });
    }

    fn take(&mut self, seq: Seq) {
        let Some(row) = self.rows.remove(&seq) else { return };
        self.bytes -= row.weight;
        self.unnamed.remove(&seq);
        if let Some(topic) = row.topic
            && let Some(waiting) = self.topics.get_mut(&topic)
        {
            waiting.rows.remove(&seq);
            if waiting.rows.is_empty() {
                self.topics.remove(&topic);
                self.topic_bytes -= topic.len();
            }
        }
    }

    /// Bytes that are held to know of the rows, about.
    pub(super) fn weight(&self) -> usize {
        self.rows.len() * ROW_BYTES + self.topics.len() * WAITING_BYTES + self.topic_bytes
    }

    fn is_over(&self, messages: u64, bytes: u64) -> bool {
        self.rows.len() as u64 > messages || self.bytes > bytes
    }

    fn lose(&mut self, when: WhenFull) -> Option<Seq> {
        let seq = match when {
            WhenFull::DropOldest => self.rows.first_key_value(),
            WhenFull::DropNewest => self.rows.last_key_value(),
        };
        let seq = seq.map(|(seq, _)| *seq)?;
        self.take(seq);
        Some(seq)
    }
}

impl Broker {
    /// The row waits for a member that is away.
    pub(super) fn set_aside(
        &mut self,
        id: GroupId,
        seq: Seq,
        message: &Message,
        reader: ClientKey,
        turn: &mut Turn<'_>,
    ) {
        let (limits, most) = (&self.config.limits, self.aside_most());
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(backlog) = &group.backlog else { return };
        let others = self.memory.aside - group.aside.weight();
        group.aside.put(seq, message, reader);
        loop {
            let reason = if group.aside.is_over(limits.max_queued_messages, limits.max_queued_bytes) {
                DropReason::QueueFull
            } else if others + group.aside.weight() > most {
                DropReason::MemoryFull
            } else {
                break;
            };
            let Some(seq) = group.aside.lose(limits.when_queue_full) else { break };
            self.counters.drop(reason, 1);
            self.ledger.write(Write::Dropped { reader: backlog.reader, seq, reason }, turn.effects);
        }
        self.memory.aside = others + group.aside.weight();
    }

    /// A client has joined, is back, or has left: the rows that it may read now, or that nobody may any
    /// more, are looked at again.
    pub(super) fn recall(&mut self, id: GroupId, key: ClientKey) {
        let Broker { groups, clients, memory, .. } = self;
        let Some(group) = groups.get_mut(id) else { return };
        let share = &group.filter;
        let may_read = |key: ClientKey, topic: &str| {
            let client = clients.get(key).filter(|_| group.members.contains_key(&key));
            client.is_some_and(|client| client.may_draw(share, topic))
        };
        let mut due: Vec<Seq> = group.aside.unnamed.iter().copied().collect();
        for (topic, waiting) in &mut group.aside.topics {
            #[cfg(test)]
            group.looks.set(group.looks.get() + 1);
            if !may_read(waiting.reader, topic) {
                match group.members.keys().find(|member| may_read(**member, topic)) {
                    Some(other) => waiting.reader = *other,
                    None => due.extend(&waiting.rows),
                }
            }
            // Who waits for a connection is looked for again once he has it.
            let is_here = clients.get(key).is_some_and(|client| client.outlet.is_some());
            if is_here && may_read(key, topic) {
                due.extend(&waiting.rows);
            }
        }
        memory.aside -= group.aside.weight();
        for seq in due {
            group.aside.take(seq);
            group.again.insert(seq);
        }
        memory.aside += group.aside.weight();
    }

    /// Who may read what has changed: every row is looked at again.
    pub(super) fn recall_all(&mut self, turn: &mut Turn<'_>) {
        for id in self.groups.ids() {
            if let Some(group) = self.groups.get_mut(id) {
                self.memory.aside -= group.aside.weight();
                group.again.extend(std::mem::take(&mut group.aside).rows.into_keys());
            }
            self.pump_group(id, turn);
        }
    }
}

/// What a row takes in both places where it stands.
const ROW_BYTES: usize = 96;

/// What a topic takes beside its text and its rows.
const WAITING_BYTES: usize = 224;

/// Bytes of the topics of one group's rows that are known by their topics.
const TOPIC_BYTES_MAX: usize = 65_536;
