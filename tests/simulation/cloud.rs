//! Upstream: a broker that takes what comes, answers late, loses links, and keeps its session or does not.
//!
//! What it was sent is checked at once: a row that nobody wanted any more, a packet id that is taken, a
//! window that is too wide, a message that overtook another of its topic.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::bridge::{Down, Up};
use crate::broker::tests::random::Random;
use crate::codec::Reason;

#[derive(Default)]
pub(super) struct Cloud {
    /// What was sent on this connection and is not answered, oldest first.
    open: VecDeque<(u16, Parcel)>,
    /// Answers to subscriptions that it owes.
    subacks: u32,
    /// How often each message has arrived, by route.
    pub(super) got: BTreeMap<Parcel, u32>,
    /// Of which upstream's acknowledgement has come to the bridge.
    pub(super) confirmed: BTreeSet<Parcel>,
    /// Which it has refused at some time: their place in the order does not count.
    refused: BTreeSet<Parcel>,
    newest: BTreeMap<(usize, String), u64>,
    /// What came again.
    pub(super) repeats: u64,
    session: Session,
    commands: u64,
}

/// A message of a route.
pub(super) type Parcel = (usize, String);

/// The bridge's session there.
#[derive(Default)]
struct Session {
    kept: bool,
    subscribed: bool,
    /// Commands that are not acknowledged, oldest first.
    queue: VecDeque<String>,
    /// Packet ids of those that are under way on this connection.
    under_way: BTreeMap<u16, String>,
    last_id: u16,
}

impl Cloud {
    /// A connection is made; whether the session was kept.
    pub(super) fn connect(&mut self) -> bool {
        self.lost();
        let kept = self.session.kept;
        if !kept {
            self.session = Session { kept: true, ..Session::default() };
        }
        kept
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.open.clear();
        self.subacks = 0;
        self.session.under_way.clear();
    }

    pub(super) fn forget(&mut self) {
        self.session = Session::default();
    }

    /// Somebody there sends a command.
    pub(super) fn command(&mut self) {
        if self.session.subscribed {
            self.commands += 1;
            self.session.queue.push_back(format!("k-{}", self.commands));
        }
    }

    /// The next command that may be sent.
    pub(super) fn next_command(&mut self) -> Option<Down> {
        let session = &mut self.session;
        if session.under_way.len() >= COMMANDS_UNDER_WAY {
            return None;
        }
        let payload = session.queue.get(session.under_way.len())?.clone();
        session.last_id = session.last_id % 60 + 1;
        session.under_way.insert(session.last_id, payload.clone());
        Some(Down::Publish { packet_id: session.last_id, topic: "down/9".into(), payload: payload.into() })
    }

    /// A packet has come; a command that it acknowledges.
    pub(super) fn take(&mut self, packet: Up, window: usize, row: impl Fn(&Parcel) -> Row) -> Option<String> {
        match packet {
            Up::Publish { packet_id, topic, payload } => {
                self.on_publish(packet_id, &topic, &payload, window, row)
            }
            Up::Subscribe { .. } => {
                self.subacks += 1;
                self.session.subscribed = true;
            }
            Up::PubAck { packet_id } => {
                let payload =
                    self.session.under_way.remove(&packet_id).expect("a command is acknowledged once");
                self.session.queue.retain(|known| *known != payload);
                return Some(payload);
            }
        }
        None
    }

    fn on_publish(
        &mut self,
        packet_id: u16,
        topic: &str,
        payload: &Bytes,
        window: usize,
        row: impl Fn(&Parcel) -> Row,
    ) {
        let (route, topic) = topic.split_once('/').expect("a route gives its prefix");
        let parcel = (usize::from(route == "two"), String::from_utf8_lossy(payload).into_owned());
        let twice = self.open.iter().any(|(known, _)| *known == packet_id);
        assert!(!twice, "packet id {packet_id} is under way twice on the uplink");
        let row = row(&parcel);
        assert!(row.wanted, "{parcel:?} is sent again though its acknowledgement was written");
        self.open.push_back((packet_id, parcel.clone()));
        assert!(self.open.len() <= window, "{} are under way, the window is {window}", self.open.len());
        let times = self.got.entry(parcel.clone()).or_default();
        *times += 1;
        if *times > 1 {
            self.repeats += 1;
            return;
        }
        if let Some(seq) = row.seq.filter(|_| !self.refused.contains(&parcel)) {
            let newest = self.newest.entry((parcel.0, topic.to_owned())).or_default();
            assert!(*newest < seq, "{parcel:?} overtook on the uplink: row {seq} after {newest}");
            *newest = seq;
        }
    }

    /// Answers something that it owes: the oldest, or, as clusters do, another one.
    pub(super) fn answer(&mut self, random: &mut Random, mood: Mood) -> Option<Down> {
        if self.subacks > 0 {
            self.subacks -= 1;
            return Some(Down::SubAck);
        }
        let at = if random.below(4) == 0 { random.below(self.open.len()) } else { 0 };
        let (packet_id, parcel) = self.open.remove(at)?;
        let reason = match random.below(24) {
            0 if mood == Mood::Any => Reason::QuotaExceeded,
            1 if mood == Mood::Any => Reason::PayloadFormatInvalid,
            2 => Reason::NoMatchingSubscribers,
            _ => Reason::Success,
        };
        if reason.is_error() {
            // It did not take it after all.
            self.got.remove(&parcel);
            self.refused.insert(parcel);
        } else {
            self.confirmed.insert(parcel);
        }
        Some(Down::PubAck { packet_id, reason })
    }

    /// A crash gives order numbers again.
    pub(super) fn forget_rows_after(&mut self, last: u64) {
        for newest in self.newest.values_mut() {
            *newest = (*newest).min(last);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.subacks == 0 && self.session.queue.is_empty()
    }
}

/// What is known here of a message that comes.
pub(super) struct Row {
    /// Whether its route still had it to send.
    pub(super) wanted: bool,
    /// Its place in the order, where it has one.
    pub(super) seq: Option<u64>,
}

/// How it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// Refusals are among it.
    Any,
    /// It takes everything.
    Kind,
}

/// As many as the bridge allows.
const COMMANDS_UNDER_WAY: usize = 20;
