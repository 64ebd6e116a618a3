//! Readings on their way to the broker.
//!
//! An in-process client like any other, which publishes at QoS 1. A reading is held until the broker has
//! acknowledged it, and sent again if the client had to be opened anew before: at least once, never lost
//! but by the limit. Reading the line never waits for the broker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Acknowledgement, FromPort, Hello, Host, Port, Qos, Refusal, ToPort};
use bytes::Bytes;
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, sleep_until, timeout};

/// The way to the broker.
pub(crate) struct Outbox {
    host: Arc<dyn Host>,
    name: String,
    topic: String,
    state: State,
    /// Readings in their order, until they are acknowledged. When full, the oldest that was not sent goes.
    held: VecDeque<Held>,
    /// Of them, how many were sent.
    sent: usize,
    /// Bytes of all payloads held.
    bytes: usize,
    next_id: u64,
    /// Nothing is sent before, since the broker has said that it is full.
    resume: Instant,
    /// Whether the log has said that the broker does not take this client.
    has_complained: bool,
    counts: Counts,
}

struct Held {
    id: u64,
    payload: Bytes,
    is_sent: bool,
}

/// What became of readings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Acknowledged by the broker.
    pub(crate) published: u64,
    /// The oldest where too many waited.
    pub(crate) dropped: u64,
    /// Refused by the broker for good: an access rule, a topic.
    pub(crate) refused: u64,
}

enum State {
    /// No port until then.
    Closed(Instant),
    /// The broker has not greeted yet.
    Opening(Port),
    Open(Port),
}

/// What came first.
enum Turn {
    /// A word of the broker; `None` where it is gone.
    Word(Option<ToPort>),
    /// Room for a reading; `None` where the broker is gone.
    Room(Option<OwnedPermit<FromPort>>),
}

impl Outbox {
    pub(crate) fn new(host: Arc<dyn Host>, name: String, topic: String) -> Outbox {
        let now = Instant::now();
        Outbox {
            host,
            name,
            topic,
            state: State::Closed(now),
            held: VecDeque::new(),
            sent: 0,
            bytes: 0,
            next_id: 0,
            resume: now,
            has_complained: false,
            counts: Counts::default(),
        }
    }

    /// Takes a reading; never waits.
    pub(crate) fn put(&mut self, payload: Bytes) {
        while !self.held.is_empty()
            && (self.held.len() >= READINGS_MAX || self.bytes + payload.len() > BYTES_MAX)
        {
            // Where all were sent, which no limit below allows, the oldest goes all the same.
            let oldest = self.held.iter().position(|held| !held.is_sent).unwrap_or(0);
            self.take(oldest);
            self.counts.dropped += 1;
        }
        self.bytes += payload.len();
        self.held.push_back(Held { id: self.next_id, payload, is_sent: false });
        self.next_id += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Readings that the broker has not acknowledged.
    pub(crate) fn waiting(&self) -> usize {
        self.held.len()
    }

    /// Does the next thing that is to be done towards the broker. Can be dropped at any time.
    pub(crate) async fn step(&mut self) {
        let to_send = if self.sent < WINDOW { self.held.iter().position(|held| !held.is_sent) } else { None };
        let port = match &mut self.state {
            State::Closed(until) => {
                sleep_until(*until).await;
                self.state = State::Opening(self.host.open(hello(&self.name)));
                return;
            }
            State::Opening(port) => {
                let word = port.receiver.recv().await;
                return self.hear(word);
            }
            State::Open(port) => port,
        };
        let sender = port.sender.clone();
        let room = async {
            sleep_until(self.resume).await;
            sender.reserve_owned().await
        };
        let turn = tokio::select! {
            biased;
            word = port.receiver.recv() => Turn::Word(word),
            room = room, if to_send.is_some() => Turn::Room(room.ok()),
        };
        match (turn, to_send.and_then(|index| self.held.get_mut(index))) {
            (Turn::Word(word), _) => self.hear(word),
            (Turn::Room(Some(room)), Some(held)) => {
                held.is_sent = true;
                self.sent += 1;
                let (id, topic, payload) = (held.id, self.topic.clone(), held.payload.clone());
                room.send(FromPort::Publish { id, topic, payload, qos: Qos::AtLeastOnce, retain: false });
            }
            (Turn::Room(_), _) => self.close(),
        }
    }

    /// Hands over what it can in a short time and leaves the broker cleanly.
    pub(crate) async fn leave(&mut self) {
        let handing_over = async {
            while !self.held.is_empty() {
                self.step().await;
            }
        };
        // What takes longer is given up with the process.
        let _ = timeout(LEAVE_LIMIT, handing_over).await;
        if let State::Open(port) = &self.state {
            // Without room the broker sees the port dropped, which without a will is the same.
            let _ = port.sender.try_send(FromPort::Close);
        }
    }

    fn hear(&mut self, word: Option<ToPort>) {
        match word {
            Some(ToPort::Connected { .. }) => {
                self.has_complained = false;
                let state = std::mem::replace(&mut self.state, State::Closed(Instant::now()));
                self.state = match state {
                    State::Opening(port) => State::Open(port),
                    other => other,
                };
            }
            Some(ToPort::Published(acknowledgement)) => self.settle(&acknowledgement),
            // Nothing is subscribed.
            Some(ToPort::Subscribed { .. } | ToPort::Unsubscribed { .. } | ToPort::Message(_)) => {}
            Some(ToPort::Closed(refusal)) => {
                if !self.has_complained {
                    tracing::warn!(client = %self.name, reason = %refusal, "the broker closed the adapter's session");
                    self.has_complained = true;
                }
                self.close();
            }
            None => self.close(),
        }
    }

    fn settle(&mut self, acknowledgement: &Acknowledgement) {
        let Some(index) = self.held.iter().position(|held| held.id == acknowledgement.id) else { return };
        match acknowledgement.result {
            Ok(()) => {
                self.counts.published += 1;
                self.take(index);
            }
            // It has room again at some time; then the reading goes in its place.
            Err(Refusal::QuotaExceeded | Refusal::ShuttingDown) => {
                self.resume = Instant::now() + RESUME;
                if let Some(held) = self.held.get_mut(index) {
                    self.sent -= usize::from(held.is_sent);
                    held.is_sent = false;
                }
            }
            Err(_) => {
                self.counts.refused += 1;
                self.take(index);
            }
        }
    }

    fn take(&mut self, index: usize) {
        if let Some(held) = self.held.remove(index) {
            self.sent -= usize::from(held.is_sent);
            self.bytes -= held.payload.len();
        }
    }

    /// What was sent and not acknowledged is sent again through the next port.
    fn close(&mut self) {
        self.state = State::Closed(Instant::now() + REOPEN);
        self.sent = 0;
        self.held.iter_mut().for_each(|held| held.is_sent = false);
    }
}

fn hello(name: &str) -> Hello {
    Hello {
        client_id: name.to_owned(),
        user: Some(name.to_owned()),
        clean_start: true,
        session_expiry: 0,
        will: None,
        credit: 0,
        waits: false,
    }
}

/// Readings held for the broker. Beyond: the oldest is dropped and counted.
const READINGS_MAX: usize = 1_000;

/// Bytes of readings held for the broker. Beyond: the oldest is dropped and counted.
const BYTES_MAX: usize = 1_000_000;

/// Readings sent and not acknowledged. Beyond: the next wait here.
const WINDOW: usize = 100;

/// Until a port that was closed is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Until a broker that was full is tried again.
const RESUME: Duration = Duration::from_secs(1);

/// How long the end may take for handing over.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);
