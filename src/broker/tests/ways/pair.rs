//! Two brokers that hear the same, of which one uses ways.
//!
//! Whatever one of them says the other must have said, word for word and in that order.

use super::super::script::Script;
use super::super::speech::packet;
use crate::broker::client::Client;
use crate::broker::{Broker, Config, Due, Way};
use crate::codec::{Brief, Plain, QoS, Version, Word, encode};

/// Both brokers, and how often a way was known.
pub(super) struct Pair {
    pub(super) plain: Script,
    pub(super) straight: Script,
    pub(super) known: u64,
    /// How many of them went at QoS 1 or 2, and how many words on exchanges were taken at once.
    pub(super) sure: u64,
    pub(super) words: u64,
    /// How many were kept, how many of them were sent to others at once, and how many to who keeps them.
    pub(super) kept: u64,
    pub(super) both: u64,
    pub(super) rows_sent: u64,
    /// How many messages have waited and gone straight then.
    pub(super) waited: u64,
    /// What clients have to say next on exchanges.
    pub(super) due: Vec<(u32, Word, u16)>,
    /// What both have heard.
    pub(super) lines: Vec<String>,
}

impl Pair {
    pub(super) fn new(config: &Config) -> Pair {
        let script = || Script::new(config.clone());
        Pair {
            plain: script(),
            straight: script(),
            known: 0,
            sure: 0,
            words: 0,
            kept: 0,
            both: 0,
            rows_sent: 0,
            waited: 0,
            due: Vec::new(),
            lines: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, line: &str) {
        self.lines.push(line.to_owned());
        self.plain.run(&["--", line]);
        self.straight.run(&["--", line]);
        self.note(line);
    }

    /// Both have said the same.
    fn note(&mut self, line: &str) {
        assert_eq!(self.plain.said, self.straight.said, "{line}");
        for said in &self.plain.said {
            let words: Vec<&str> = said.split(' ').collect();
            let [slot, "<", packet, ..] = words[..] else { continue };
            let id = words.iter().rev().find_map(|word| word.trim_start_matches("id=").parse().ok());
            let word = match packet {
                "publish" if words.contains(&"q1") => Word::PubAck,
                "publish" if words.contains(&"q2") => Word::PubRec,
                "pubrec" => Word::PubRel,
                "pubrel" => Word::PubComp,
                _ => continue,
            };
            self.due.extend(id.map(|id| (slot.parse().expect("a slot"), word, id)));
        }
    }

    /// The same publish, which the one broker sends straight if it knows how.
    pub(super) fn publish(&mut self, slot: u32, topic: &str, payload: &str) {
        self.publish_at(QoS::AtMostOnce, 0, slot, topic, payload);
    }

    pub(super) fn publish_at(&mut self, qos: QoS, packet_id: u16, slot: u32, topic: &str, payload: &str) {
        let said = as_published(topic, payload, qos, packet_id);
        let line = format!("{slot} {said}");
        self.lines.push(line.clone());
        self.plain.run(&["--", &line]);
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let mut bytes = Vec::new();
        let version = if self.straight.has_spoken(slot) { self.straight.speaks(slot) } else { Version::V311 };
        encode(&packet(&said), version, &mut bytes).unwrap();
        let plain = Plain::read(&bytes, version, bytes.len()).expect("it is plain");
        let (mut legs, mut effects) = (Vec::new(), Vec::new());
        let knows = self.straight.broker.knows_way(id, &plain);
        let Some(way) = self.straight.broker.set_out(id, &plain, &now, &mut legs, &mut effects) else {
            assert!(effects.is_empty(), "{line}");
            self.straight.run(&["--", &line]);
            return self.note(&line);
        };
        assert!(knows, "{line}");
        self.straight.said.clear();
        for leg in legs.iter().filter(|leg| leg.is_sent()) {
            let taker = leg.connection;
            assert_eq!(taker, self.plain.connection(taker.slot), "{line}");
            let as_sent = as_published(topic, payload, leg.qos, leg.packet_id);
            self.straight.said.push(format!("{} < {as_sent}", taker.slot));
        }
        let answer = ["", "puback", "pubrec"][qos as usize];
        if way == Way::Kept {
            self.straight.carry_out(effects);
            self.kept += 1;
            self.both += u64::from(!legs.is_empty());
            let sent = self.straight.said.iter().filter(|said| said.contains(" < ")).count();
            self.rows_sent += u64::from(sent > legs.iter().filter(|leg| leg.is_sent()).count());
            // Who is sent a copy and who a row is sent it at the same time.
            for script in [&mut self.plain, &mut self.straight] {
                script.said.sort_by_key(|said| said.contains(" < ").then(|| said.clone()));
            }
        } else if qos > QoS::AtMostOnce {
            // Only MQTT 5 has a word for nobody.
            let nobody = if self.plain.speaks(slot) == Version::V5 { "" } else { " 0x10" };
            let told = self.plain.said.last_mut().expect("an answer");
            *told = told.trim_end_matches(nobody).to_owned();
            self.straight.said.push(format!("{slot} < {answer} {packet_id}"));
        }
        self.straight.handle(Vec::new());
        self.note(&line);
        self.known += 1;
        self.sure += u64::from(qos > QoS::AtMostOnce && way == Way::Straight);
    }

    /// The same word on an exchange, which the one broker takes at once if it can.
    pub(super) fn say(&mut self, (slot, word, packet_id): (u32, Word, u16)) {
        let line = format!("{slot} {word:?} {packet_id}").to_lowercase();
        self.lines.push(line.clone());
        self.plain.run(&["--", &line]);
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let mut effects = Vec::new();
        if let Some(heard) = self.straight.broker.take_word(id, Brief { word, packet_id }, &now, &mut effects)
        {
            self.straight.said.clear();
            let answer =
                heard.answer.map(|answer| format!("{slot} < {:?} {}", answer.word, answer.packet_id));
            self.straight.said.extend(answer.map(|answer| answer.to_lowercase()));
            self.straight.carry_out(effects);
            self.send_waiting(slot);
            self.straight.handle(Vec::new());
            self.words += 1;
        } else {
            assert!(effects.is_empty(), "{line}");
            self.straight.run(&["--", &line]);
        }
        self.note(&line);
    }

    /// Sends what has waited in its publisher's words.
    fn send_waiting(&mut self, slot: u32) {
        let (id, now) = (self.straight.connection(slot), self.straight.now);
        let mut effects = Vec::new();
        while let Some(due) = self.straight.broker.take_waiting(id, &now, &mut effects) {
            let Due { plain, received, leg, .. } = due;
            assert!(leg.connection == id && (now.house - 2_000..=now.house).contains(&received));
            let [topic, payload] =
                [plain.topic, plain.payload].map(|bytes| std::str::from_utf8(bytes).unwrap());
            let as_sent = as_published(topic, payload, leg.qos, leg.packet_id);
            self.straight.said.push(format!("{slot} < {as_sent}"));
            self.waited += 1;
        }
        self.straight.carry_out(effects);
    }

    /// Whether somebody has this slot.
    pub(super) fn is_here(&self, slot: u32) -> bool {
        self.plain.broker.connections.get(self.plain.connection(slot)).is_some()
    }

    /// The session of the client with this number.
    fn session(&self, client: usize) -> Option<&Client> {
        let clients = &self.plain.broker.clients;
        clients.named(&format!("c{client}")).and_then(|key| clients.get(key))
    }

    pub(super) fn is_known(&self, client: usize) -> bool {
        self.session(client).is_some()
    }

    pub(super) fn is_connected(&self, client: usize) -> bool {
        self.session(client).is_some_and(|client| client.connection.is_some())
    }

    /// Whose its session is.
    pub(super) fn owner(&self, client: usize) -> Option<String> {
        self.session(client)?.session.user.as_ref().map(ToString::to_string)
    }

    pub(super) fn compare(&self) {
        assert_eq!(self.plain.broker.counters(), self.straight.broker.counters());
        let [plain, straight] = [&self.plain, &self.straight].map(|script| {
            let Broker { memory, ledger, pace, .. } = &script.broker;
            let weights = (memory.queues, memory.inward, memory.held, ledger.weight(), ledger.uncommitted());
            (weights, ledger.newest(), ledger.last_seq(), format!("{pace:?}"))
        });
        assert_eq!(plain, straight);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = &self.lines[self.lines.len().saturating_sub(LINES_SHOWN)..];
            let first = self.lines.first().map_or("nothing was said", String::as_str);
            println!("{first}, and at the end:\n{}", last.join("\n"));
        }
    }
}

/// As a script names it.
fn as_published(topic: &str, payload: &str, qos: QoS, packet_id: u16) -> String {
    let exchange = match qos {
        QoS::AtMostOnce => String::new(),
        qos => format!(" q{} id={packet_id}", qos as u8),
    };
    format!("publish {topic} {payload}{exchange}")
}

/// Lines that are shown of what both have heard where they differ.
const LINES_SHOWN: usize = 60;
