//! Runs a script against a broker and says what it did.
//!
//! Each line is an event; what is said after the last `--` is compared. Lines that start with a number
//! are a packet or a word of that connection. A commit is silent, unless it is to be said so that one sees
//! what came behind it.

use std::collections::BTreeMap;

use super::super::*;
use super::model::Model;
use super::speech::{self, Words};
use crate::codec::Version;
use crate::record::machine::{Clock, Machine};
use crate::record::{Full, HEARTBEAT, Kept, Message, Mount, Portion, Presence, Rows, Seq, Ticket};

/// What a script runs against.
pub(super) struct Script {
    pub(super) broker: Broker,
    pub(super) model: Model,
    pub(super) now: Now,
    machine: Machine,
    kept: Kept,
    pub(super) said: Vec<String>,
    pub(super) effects: Vec<Effect>,
    config: Config,
    generations: BTreeMap<u32, u32>,
    /// Version and Maximum Packet Size by slot.
    spoken: BTreeMap<u32, (Version, u32)>,
    /// What the clients decoded of the last effects.
    pub(super) heard: Vec<Packet>,
    reads: Vec<Rows>,
    asked: Vec<(ReaderId, Seq, Portion)>,
}

/// The events' effects, line by line.
pub(super) fn check(events: &[&str], expected: &str) {
    check_with(config(), events, expected);
}

/// The same with another configuration.
pub(super) fn check_with(config: Config, events: &[&str], expected: &str) {
    let mut script = Script::new(config);
    script.run(events);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(script.said, expected, "\nsaid:\n{}\n", script.said.join("\n"));
}

/// Defaults, and routes only where a test adds them.
pub(super) fn config() -> Config {
    Config {
        limits: LimitsConfig::default().check().expect("the defaults are valid"),
        gateway: "barn".into(),
        routes: Vec::new(),
        passwords: Passwords::Absent,
        rules: None,
        set_topics: Vec::new(),
        refusals: Default::default(),
    }
}

/// A route for `up/#`, reader 1.
pub(super) fn with_route(store: bool) -> Config {
    let route = Route { reader: ReaderId(1), filter: "up/#".into(), store, name: "up".into() };
    Config { routes: vec![route], ..config() }
}

impl Script {
    pub(super) fn new(config: Config) -> Script {
        Script::started(config, Presence::There)
    }

    /// After a start with or without a store; one that crashes finds its store again.
    pub(super) fn started(config: Config, store: Presence) -> Script {
        let machine = Machine::new(1_800_000_000_000, Clock::Set);
        let now = machine.now();
        let last_reader = u32::try_from(config.routes.len()).unwrap();
        let restored = Restored { store, last_reader, ..Restored::default() };
        let mut model = Model::default();
        model.disk.last_reader = restored.last_reader;
        model.view.last_reader = restored.last_reader;
        Script {
            broker: Broker::new(config.clone(), 7, restored, now),
            model,
            now,
            machine,
            kept: Kept::default(),
            said: Vec::new(),
            effects: Vec::new(),
            config,
            generations: BTreeMap::new(),
            spoken: BTreeMap::new(),
            heard: Vec::new(),
            reads: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// What the next start finds in the configuration.
    pub(super) fn configure(&mut self, config: Config) {
        self.config = config;
    }

    pub(super) fn run(&mut self, events: &[&str]) {
        for line in events {
            self.step(line);
        }
    }

    fn step(&mut self, line: &str) {
        let words = Words::of(line);
        match words.at(0) {
            "--" => self.said.clear(),
            "open" => self.open(&words),
            "buffered" => {
                let bytes = words.at(1).parse().expect("bytes");
                let heaviest = words.number("of").map(|slot| (self.connection(slot), bytes));
                self.handle(vec![Event::Buffered { bytes, heaviest }]);
            }
            "commit" => {
                if words.has("said") {
                    self.said.push("commit".to_owned());
                }
                let count = words.0.get(1).filter(|word| **word != "said");
                let count = count.map_or(usize::MAX, |count| count.parse().expect("a count"));
                let through = self.model.commit(count);
                self.handle(vec![Event::Committed { through }]);
            }
            "ask" => {
                for (reader, after, limit) in std::mem::take(&mut self.asked) {
                    self.reads.push(self.model.read(reader, after, limit));
                }
            }
            "rows" => {
                self.step("ask");
                let reads = std::mem::take(&mut self.reads).into_iter().map(Event::Rows).collect();
                self.handle(reads);
            }
            "after" => {
                let millis: u64 = words.at(1).parse().expect("milliseconds");
                self.turn_clocks(|machine| machine.pass(millis));
            }
            // The wall clock is stepped by so many seconds, which may be fewer than none.
            "step" => {
                let seconds: i64 = words.at(1).parse().expect("seconds");
                self.turn_clocks(|machine| machine.error += seconds * 1_000);
            }
            // And set right after a start without it.
            "set" => self.turn_clocks(Machine::set_clock),
            // The power goes for so many milliseconds, right after a commit.
            "off" => self.switch_off(&words),
            "crash" => {
                let mut restored = self.model.crash();
                // As a store of version 2 has it.
                if words.has("old") {
                    restored.sessions.iter_mut().for_each(|found| found.record.mount = Mount::Unknown);
                }
                self.broker = Broker::new(self.config.clone(), 7, restored, self.now);
                self.asked.clear();
                self.reads.clear();
                self.handle(vec![Event::Tick]);
            }
            "lose" => {
                let (reader, seq) = words.at(1).trim_start_matches('r').split_once('/').expect("r1/2");
                self.model.lose(ReaderId(reader.parse().unwrap()), Seq(seq.parse().unwrap()));
            }
            "full" => {
                let readers = words.0.iter().filter_map(|word| word.strip_prefix('r')?.parse().ok());
                let full = Full { store: words.has("store"), routes: readers.map(ReaderId).collect() };
                self.handle(vec![Event::Full(full)]);
            }
            "stop" => self.handle(vec![Event::Stop]),
            slot => {
                let connection =
                    self.connection(slot.parse().unwrap_or_else(|_| panic!("what is {line:?}?")));
                let rest = line.split_once(' ').expect("a word").1;
                // Several packets of one read.
                let events = rest.split(" ; ").map(|one| event(connection, one)).collect();
                self.handle(events);
            }
        }
    }

    /// Rows in answers of the store that the broker has not been given.
    pub(super) fn rows_in_answers(&self) -> usize {
        self.reads.iter().map(|answer| answer.rows.len()).sum()
    }

    fn turn_clocks(&mut self, turn: impl FnOnce(&mut Machine)) {
        turn(&mut self.machine);
        self.now = self.machine.now();
        self.handle(vec![Event::Tick]);
    }

    fn switch_off(&mut self, words: &Words<'_>) {
        let millis = words.at(1).parse().expect("milliseconds");
        self.kept.keep(&self.now);
        self.machine.switch_off(millis, if words.has("unset") { Clock::Lost } else { Clock::Set });
        self.machine.start(&self.kept);
        self.now = self.machine.now();
        let mut restored = self.model.crash();
        for found in &mut restored.sessions {
            let ended = &mut found.record.ended;
            *ended = ended.map(|ended| self.kept.mended(ended, &self.now).0);
        }
        for message in &mut restored.retained {
            let received = self.kept.mended(message.received, &self.now).0;
            *message = Message { received, ..Message::clone(message) }.into();
        }
        restored.alive = self.kept.time + HEARTBEAT;
        self.broker = Broker::new(self.config.clone(), 7, restored, self.now);
        self.asked.clear();
        self.reads.clear();
        self.handle(vec![Event::Tick]);
    }

    fn open(&mut self, words: &Words<'_>) {
        let slot: u32 = words.at(1).parse().expect("a slot");
        *self.generations.entry(slot).or_default() += 1;
        let trust = if words.has("port") {
            Trust::Port {
                user: words.value("user").map(Into::into),
                credit: words.number("credit").unwrap_or(100),
                waits: words.has("waits"),
            }
        } else if words.has("password") {
            Trust::Password
        } else {
            Trust::Anonymous
        };
        let connection = self.connection(slot);
        let refusal = words.value("refused").map(speech::reason);
        let terms = Terms { mount: words.value("mount").map(Into::into), refusal };
        let peer = Peer { name: format!("peer-{slot}"), trust, terms };
        self.handle(vec![Event::Opened { connection, peer }]);
    }

    pub(super) fn connection(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.generations.get(&slot).copied().unwrap_or(0) }
    }

    /// The version that whoever has this slot has named last.
    pub(super) fn has_spoken(&self, slot: u32) -> bool {
        self.spoken.contains_key(&slot)
    }

    pub(super) fn speaks(&self, slot: u32) -> Version {
        self.spoken[&slot].0
    }

    pub(super) fn handle(&mut self, mut events: Vec<Event>) {
        let mut effects = Vec::new();
        self.broker.handle(&mut events, self.now, &mut effects);
        assert!(events.is_empty(), "events are drained");
        self.carry_out(effects);
    }

    /// Does what the broker says.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            match effect {
                Effect::Speak { connection, version, maximum_packet_size, .. } => {
                    self.spoken.insert(connection.slot, (*version, maximum_packet_size.unwrap_or(u32::MAX)));
                }
                Effect::Write(write) => {
                    let _: Ticket = self.model.write(write);
                }
                Effect::Read { reader, after, limit } => self.asked.push((*reader, *after, *limit)),
                _ => {}
            }
        }
        self.heard = effects.iter().filter_map(|effect| self.listen(effect)).collect();
        self.said.extend(effects.iter().filter_map(speech::effect));
        self.effects = effects;
    }

    /// Whatever is sent, in every script, is what a client of that version may be sent.
    fn listen(&self, effect: &Effect) -> Option<Packet> {
        let connection = match effect {
            Effect::Send { connection, .. } => connection,
            Effect::Deliver(copy) => &copy.connection,
            _ => return None,
        };
        let (version, most) = self.spoken[&connection.slot];
        let (packet, size) = speech::heard(effect, version)?;
        assert!(size <= most as usize, "{size} bytes for a client that takes {most}: {packet:?}");
        Some(packet)
    }
}

fn outcome(connection: ConnectionId, outcome: AuthOutcome) -> Event {
    Event::Authenticated { connection, outcome }
}

fn event(connection: ConnectionId, text: &str) -> Event {
    let words = Words::of(text);
    match words.at(0) {
        "drained" => Event::Drained { connection },
        "lost" => Event::Lost { connection },
        "verified" => Event::Verified { connection, verdict: Verdict::Accepted },
        "rejected" => Event::Verified { connection, verdict: Verdict::Wrong },
        "unverified" => Event::Verified { connection, verdict: Verdict::Busy },
        "barred" => Event::Verified { connection, verdict: Verdict::TooManyFailures },
        "challenged" => outcome(connection, AuthOutcome::Challenge(words.at(1).to_owned().into())),
        "proven" => {
            let data = words.at(2).to_owned().into();
            outcome(connection, AuthOutcome::Proven { user: words.at(1).into(), data })
        }
        "unproven" => outcome(connection, AuthOutcome::Wrong),
        "busy" => outcome(connection, AuthOutcome::Busy),
        "shunned" => outcome(connection, AuthOutcome::TooManyFailures),
        "granted" => Event::Granted { connection, messages: words.at(1).parse().expect("a count") },
        "room" => Event::Room { connection },
        "malformed" => Event::Malformed { connection, reason: speech::reason(words.at(1)) },
        _ => Event::Packet { connection, packet: speech::packet(text) },
    }
}
