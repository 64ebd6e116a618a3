//! A client that keeps the rules of MQTT, and notices when the broker does not.
//!
//! It holds its own account of what was sent and acknowledged, and compares.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{ConnectionId, Copy};
use super::random::Random;
use super::speech;
use crate::codec::{Packet, Publish, QoS};
use crate::record::Seq;

/// What a client does beside the plain.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// Where it publishes; what begins with `r/` is to be retained.
    pub(crate) topics: &'static [&'static str],
    /// What it subscribes to beside its own filter.
    pub(crate) also: Option<&'static str>,
    /// Whether its link leaves a will.
    pub(crate) will: bool,
    /// Whether some of its messages run out of time.
    pub(crate) expires: bool,
    /// Whether it refuses some of what it is sent at QoS 2, always the same, where its version knows a refusal.
    pub(crate) refuses: bool,
}

impl Default for Habits {
    fn default() -> Habits {
        let topics = &["t/0", "t/1", "t/2", "s/0", "s/1"];
        Habits { topics, also: None, will: false, expires: false, refuses: false }
    }
}

pub(crate) struct Client {
    habits: Habits,
    slot: u32,
    generation: u32,
    pub(crate) id: String,
    version: &'static str,
    pub(crate) kept: bool,
    window: u16,
    qos: &'static str,
    /// The QoS of its part in the group, if it is a member.
    shares: Option<&'static str>,
    state: State,
    /// Nothing that is sent on this link arrives.
    pub(crate) deaf: bool,
    /// Its link breaks in this batch of events.
    pub(crate) leaving: bool,
    subscribed: bool,
    serial: u32,
    next_id: u16,
    /// Our publishes that are not answered, oldest first.
    outward: VecDeque<Outward>,
    /// QoS 2 ids from the broker that it has not released.
    inward: BTreeMap<u16, String>,
    /// What we say at once.
    pub(crate) replies: Vec<Packet>,
    /// Answers that we owe.
    owed: VecDeque<Packet>,
    /// What is under way to us on this connection, by packet id.
    open: BTreeMap<u16, String>,
    /// Packet ids under way before this connection.
    before: BTreeMap<u16, String>,
    pub(crate) got: BTreeMap<String, u32>,
    /// What of QoS 2 has arrived in this session.
    seen: BTreeSet<String>,
    newest: BTreeMap<(String, QoS), Seq>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Away,
    Coming,
    Open,
}

struct Outward {
    publish: Publish,
    released: bool,
}

/// What a packet of the broker claims.
pub(crate) enum Duty {
    /// A publish of ours is kept; with its packet id where that must be kept too.
    Acknowledged(String, Option<u16>),
    /// A packet id of ours is free.
    Freed(u16),
    /// PUBREL.
    Released(u16),
    /// CONNACK.
    Stands,
    /// SUBACK.
    Subscribed,
    /// Nothing that must be on disk.
    Nothing,
}

impl Client {
    pub(crate) fn new(slot: u32, group_qos: &'static str, random: &mut Random) -> Client {
        let kept = slot < 4;
        Client {
            habits: Habits::default(),
            slot,
            generation: 0,
            id: format!("c{slot}"),
            version: ["v31", "v311", "v5"][random.below(3)],
            kept,
            window: if random.below(2) == 0 { 2 } else { 8 },
            qos: ["q1", "q2", "q2"][random.below(3)],
            shares: [1, 3, 4].contains(&slot).then_some(group_qos),
            state: State::Away,
            deaf: false,
            leaving: false,
            subscribed: false,
            serial: 0,
            next_id: 0,
            outward: VecDeque::new(),
            inward: BTreeMap::new(),
            replies: Vec::new(),
            owed: VecDeque::new(),
            open: BTreeMap::new(),
            before: BTreeMap::new(),
            got: BTreeMap::new(),
            seen: BTreeSet::new(),
            newest: BTreeMap::new(),
        }
    }

    pub(crate) fn with(self, habits: Habits) -> Client {
        Client { habits, ..self }
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        ConnectionId { slot: self.slot, generation: self.generation }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(crate) fn is_here(&self) -> bool {
        self.state != State::Away && !self.leaving
    }

    pub(crate) fn unanswered(&self) -> usize {
        // Our Receive Maximum towards the broker is its max_inflight.
        if self.version == "v5" && self.outward.len() >= 8 { 99 } else { self.outward.len() }
    }

    /// CONNECT, if we are away.
    pub(crate) fn come(&mut self, random: &mut Random) -> Option<Packet> {
        if self.state != State::Away {
            return None;
        }
        self.generation += 1;
        self.state = State::Coming;
        self.deaf = false;
        // Now and then its session ends and another begins.
        let begins_anew = self.version == "v5" && random.below(8) == 0;
        if begins_anew {
            self.forget();
        }
        let more = match (self.version, self.kept) {
            ("v5", true) if begins_anew => format!("clean expiry=100000 window={}", self.window),
            ("v5", true) => format!("expiry=100000 window={}", self.window),
            ("v5", false) => format!("clean window={}", self.window),
            (_, true) => String::new(),
            (_, false) => "clean".into(),
        };
        let will = if self.habits.will {
            format!("will=w/{0}:{1}-w{2}:q1", self.slot, self.id, self.generation)
        } else {
            String::new()
        };
        Some(speech::packet(&format!("connect {} {} {more} {will}", self.id, self.version)))
    }

    /// The link is gone; false where there was none.
    pub(crate) fn go(&mut self) -> bool {
        let was = self.state != State::Away;
        self.state = State::Away;
        (self.deaf, self.leaving) = (false, false);
        self.owed.clear();
        self.replies.clear();
        if was {
            self.before.append(&mut self.open);
        }
        was
    }

    pub(crate) fn publish(&mut self, random: &mut Random) -> Packet {
        self.serial += 1;
        let qos = ["q0", "q1", "q2"][random.below(3)];
        let topic = self.habits.topics[random.below(self.habits.topics.len())];
        let retain = if topic.starts_with("r/") { "retain" } else { "" };
        let dies = self.habits.expires && self.version == "v5" && random.below(4) == 0;
        let expiry = if dies { format!("expiry={}", random.below(4) + 1) } else { String::new() };
        self.next_id = loop {
            self.next_id = self.next_id % 30 + 1;
            if !self.outward.iter().any(|known| known.publish.packet_id == self.next_id) {
                break self.next_id;
            }
        };
        let text = format!(
            "publish {topic} {}-{} {qos} id={} {retain} {expiry}",
            self.id, self.serial, self.next_id
        );
        let Packet::Publish(publish) = speech::packet(&text) else { panic!("not a publish") };
        if publish.qos > QoS::AtMostOnce {
            self.outward.push_back(Outward { publish: publish.clone(), released: false });
        }
        Packet::Publish(publish)
    }

    /// The answer that we have owed longest.
    pub(crate) fn next_answer(&mut self) -> Option<Packet> {
        let packet = self.owed.pop_front()?;
        match &packet {
            Packet::PubRec(ack) if !ack.reason.is_error() => {}
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
                self.open.remove(&ack.packet_id);
                self.before.remove(&ack.packet_id);
            }
            _ => {}
        }
        Some(packet)
    }

    /// What a crash took is forgotten by the order check too: its order numbers are given again.
    pub(crate) fn forget_rows_after(&mut self, last: Seq) {
        self.before.clear();
        for newest in self.newest.values_mut() {
            *newest = (*newest).min(last);
        }
    }

    pub(crate) fn on_copy(&mut self, copy: &Copy, payload: &str, row: Option<Seq>, seed: u64) {
        let who = &self.id;
        assert!(self.state == State::Open, "seed {seed}: {payload} to {who} before CONNACK");
        if copy.qos == QoS::AtMostOnce {
            assert_eq!(copy.packet_id, 0);
            if !self.deaf {
                *self.got.entry(payload.to_owned()).or_default() += 1;
            }
            return;
        }
        assert!(copy.packet_id > 0);
        let twice = self.open.insert(copy.packet_id, payload.to_owned());
        assert_eq!(twice, None, "seed {seed}: packet id {} to {who} is under way twice", copy.packet_id);
        let known = self.before.remove(&copy.packet_id);
        if self.kept
            && copy.dup
            && let Some(known) = known
        {
            assert_eq!(known, payload, "seed {seed}: another message under packet id {}", copy.packet_id);
        }
        let window = if self.version == "v5" { self.window } else { 8 };
        assert!(
            self.open.len() <= usize::from(window),
            "seed {seed}: {who} has {} under way",
            self.open.len()
        );
        if self.deaf {
            return;
        }
        let new = match copy.qos {
            QoS::ExactlyOnce if self.refuses(payload) => {
                let held = self.inward.get(&copy.packet_id);
                assert_eq!(held, None, "seed {seed}: {who} takes {payload} for a repeat");
                self.owed.push_back(speech::packet(&format!("pubrec {} 0x97", copy.packet_id)));
                false
            }
            QoS::ExactlyOnce => {
                let repeat = self.inward.insert(copy.packet_id, payload.to_owned());
                if let Some(repeat) = &repeat {
                    assert_eq!(repeat, payload, "seed {seed}: {who} takes {payload} for a repeat");
                }
                self.owed.push_back(speech::packet(&format!("pubrec {}", copy.packet_id)));
                repeat.is_none()
            }
            _ => {
                self.owed.push_back(speech::packet(&format!("puback {}", copy.packet_id)));
                true
            }
        };
        if new {
            self.arrived(copy, payload, row, seed);
        }
    }

    /// Whether it wants none of a message: of a few, whoever published them.
    fn refuses(&self, payload: &str) -> bool {
        let serial = payload.rsplit_once('-').and_then(|(_, serial)| serial.parse::<u32>().ok());
        self.habits.refuses && self.version == "v5" && serial.is_some_and(|serial| serial.is_multiple_of(6))
    }

    fn arrived(&mut self, copy: &Copy, payload: &str, row: Option<Seq>, seed: u64) {
        let times = self.got.entry(payload.to_owned()).or_default();
        *times += 1;
        if copy.retain {
            // The retained store has given it, perhaps beside the log.
            return;
        }
        // A publisher's repeat of QoS 1 is a message of its own, of QoS 2 it is none.
        if copy.qos == QoS::ExactlyOnce && copy.message.qos == QoS::ExactlyOnce && self.kept {
            let new = self.seen.insert(payload.to_owned());
            assert!(new, "seed {seed}: {payload} of QoS 2 arrived again at {}", self.id);
        }
        if *times > 1 {
            return;
        }
        // A group's messages may come again, from another member.
        if let Some(row) = row.filter(|_| self.kept && !copy.message.topic.starts_with("s/")) {
            let newest = self.newest.entry((copy.message.topic.to_string(), copy.qos)).or_default();
            assert!(*newest < row, "seed {seed}: {payload} overtook at {}: {newest:?} {row:?}", self.id);
            *newest = row;
        }
    }

    pub(crate) fn duty(&self, packet: &Packet) -> Duty {
        let of = |packet_id: u16| {
            self.outward
                .iter()
                .find(|known| known.publish.packet_id == packet_id)
                .map(|known| String::from_utf8_lossy(&known.publish.payload).into_owned())
        };
        match packet {
            Packet::ConnAck(_) => Duty::Stands,
            Packet::SubAck(_) => Duty::Subscribed,
            // Refused: it is ours to send again, or to give up.
            Packet::PubAck(ack) | Packet::PubRec(ack) if ack.reason.is_error() => Duty::Nothing,
            Packet::PubAck(ack) => {
                of(ack.packet_id).map_or(Duty::Nothing, |payload| Duty::Acknowledged(payload, None))
            }
            Packet::PubRec(ack) => of(ack.packet_id)
                .map_or(Duty::Nothing, |payload| Duty::Acknowledged(payload, Some(ack.packet_id))),
            Packet::PubComp(ack) => Duty::Freed(ack.packet_id),
            Packet::PubRel(ack) => Duty::Released(ack.packet_id),
            _ => Duty::Nothing,
        }
    }

    /// Takes a packet, unless it is lost on the way.
    pub(crate) fn on_packet(&mut self, packet: &Packet, seed: u64) {
        if let Packet::ConnAck(_) = packet {
            self.state = State::Open;
        }
        if self.deaf {
            return;
        }
        match packet {
            Packet::ConnAck(connack) => self.opened(connack.session_present),
            Packet::PubAck(ack) => self.outward.retain(|known| known.publish.packet_id != ack.packet_id),
            Packet::PubRec(ack) if ack.reason.is_error() => {
                assert_eq!(self.version, "v5", "seed {seed}: {} knows no refusal", self.id);
                self.outward.retain(|known| known.publish.packet_id != ack.packet_id);
            }
            Packet::PubRec(ack) => {
                if let Some(known) =
                    self.outward.iter_mut().find(|known| known.publish.packet_id == ack.packet_id)
                {
                    known.released = true;
                    self.replies.push(speech::packet(&format!("pubrel {}", ack.packet_id)));
                }
            }
            Packet::PubComp(ack) => self.outward.retain(|known| known.publish.packet_id != ack.packet_id),
            Packet::PubRel(ack) => {
                assert!(!ack.reason.is_error(), "seed {seed}: {} does not know {}", self.id, ack.packet_id);
                self.inward.remove(&ack.packet_id);
                self.owed.push_back(speech::packet(&format!("pubcomp {}", ack.packet_id)));
            }
            _ => {}
        }
    }

    /// Its session is over.
    fn forget(&mut self) {
        self.outward.clear();
        self.inward.clear();
        self.before.clear();
        self.seen.clear();
    }

    fn opened(&mut self, present: bool) {
        // 3.1 is not told.
        let present = present || (self.version == "v31" && self.kept && self.subscribed);
        self.subscribed = true;
        if present {
            for known in &self.outward {
                self.replies.push(if known.released {
                    speech::packet(&format!("pubrel {}", known.publish.packet_id))
                } else {
                    Packet::Publish(Publish { dup: true, ..known.publish.clone() })
                });
            }
        } else {
            self.forget();
            let filter = ["t/+", "t/0", "t/#"][self.slot as usize % 3];
            let also = self.habits.also.map_or(String::new(), |also| format!(", {also} {}", self.qos));
            self.replies.push(speech::packet(&format!("subscribe 1 {filter} {}{also}", self.qos)));
            if let Some(qos) = self.shares {
                self.replies.push(speech::packet(&format!("subscribe 2 $share/g/s/+ {qos}")));
            }
        }
    }
}
