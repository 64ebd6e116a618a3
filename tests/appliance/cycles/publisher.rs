//! Who publishes numbers, remembers what it was told of each, and sends again what it was told nothing of.
//!
//! A number that is refused is not tried again: the publisher knows that nobody has it. So the numbers of one
//! publisher are sent, and sent again, in their order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::codec::{Packet, Properties, Publish, QoS, Reason, Version};

use super::Door;
use crate::stand::{Client, Options, monotonic};

/// One that comes back as long as the door is open.
pub(super) struct Publisher {
    id: usize,
    options: Options,
    window: usize,
    weight: u64,
    next_id: u16,
    knows_us: bool,
    /// In the order of their numbers.
    under_way: VecDeque<Sent>,
    /// Numbers that are kept, says the gateway.
    pub(super) acknowledged: BTreeSet<u64>,
    /// Numbers that it has refused, and cannot have kept before.
    pub(super) refused: BTreeSet<u64>,
    /// Numbers that were sent more than once.
    pub(super) repeated: BTreeSet<u64>,
    /// What others may know of it while it works.
    pub(super) told: Arc<Told>,
}

/// Counts of one publisher.
#[derive(Default)]
pub(super) struct Told {
    /// Numbers that were sent.
    pub(super) sent: AtomicU64,
    /// Numbers that were acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// Numbers that wait for an answer.
    pub(super) under_way: AtomicU64,
    /// Sendings whose connection ended before their answer came.
    pub(super) unanswered: AtomicU64,
}

impl Told {
    /// Numbers that were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Whether everything is answered.
    pub(super) fn rests(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// How many numbers were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// A number that waits for its answer.
struct Sent {
    number: u64,
    packet_id: u16,
    times: u32,
}

/// So many messages a second, whoever sends them.
pub(super) struct Pace {
    began: Instant,
    granted: AtomicU64,
}

impl Pace {
    /// One that begins now.
    pub(super) fn new() -> Pace {
        Pace { began: monotonic(), granted: AtomicU64::new(0) }
    }

    /// Whether one more is due. What nobody could send for a while is not made up for.
    pub(super) fn grants(&self) -> bool {
        let due = u64::try_from(self.began.elapsed().as_micros()).unwrap() * RATE / 1_000_000;
        let next = |granted: u64| (granted < due).then(|| granted.max(due.saturating_sub(RATE / 10)) + 1);
        self.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok()
    }
}

impl Publisher {
    /// Those of a test: of both versions, with a session that is kept or a new one each time.
    /// Each message has so many bytes more than its own.
    pub(super) fn all(weight: u64) -> Vec<Publisher> {
        let (old, new) = (Version::V311, Version::V5);
        let kinds = [(new, true, 20), (new, false, 8), (old, true, 1), (old, false, 60)];
        kinds.iter().enumerate().map(|(id, kind)| Publisher::new(id, *kind, weight)).collect()
    }

    fn new(id: usize, (version, kept, window): (Version, bool, usize), weight: u64) -> Publisher {
        Publisher {
            id,
            options: Options { version, kept, ..Options::new(&format!("publisher-{id}")) },
            window,
            weight,
            next_id: 0,
            knows_us: false,
            under_way: VecDeque::new(),
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
            repeated: BTreeSet::new(),
            told: Arc::new(Told::default()),
        }
    }

    /// Publishes what is granted until the door is shut.
    pub(super) fn live(&mut self, door: &Door, grants: impl Fn() -> bool) {
        while !door.is_shut() {
            match Client::reach(door.port(), &self.options) {
                Ok(client) => self.talk(client, &grants),
                Err(_) => thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// One connection, up to its end.
    fn talk(&mut self, mut client: Client, grants: &impl Fn() -> bool) {
        let mut is_welcome = false;
        loop {
            while is_welcome && self.under_way.len() < self.window && grants() {
                self.publish(&mut client);
            }
            match client.next_within(A_MOMENT) {
                Err(()) => {}
                Ok(None) => break,
                Ok(Some(Packet::ConnAck(answer))) if answer.reason == Reason::Success => {
                    let is_kept = self.options.kept && self.knows_us;
                    assert_eq!(answer.session_present, is_kept, "the session of {}", self.options.id);
                    (is_welcome, self.knows_us) = (true, true);
                    self.send_again(&mut client);
                }
                // Without a store no session is kept; the end of the connection follows.
                Ok(Some(Packet::ConnAck(answer))) => {
                    let unavailable = [Reason::ServerUnavailable, Reason::ServerBusy];
                    assert!(unavailable.contains(&answer.reason), "{}: {answer:?}", self.options.id);
                }
                Ok(Some(Packet::PubAck(answer))) => self.hear(answer.packet_id, answer.reason),
                // It says why the end of the connection follows.
                Ok(Some(Packet::Disconnect(_))) => {}
                Ok(Some(other)) => panic!("{other:?} to {}", self.options.id),
            }
        }
        if is_welcome {
            self.told.unanswered.fetch_add(self.under_way.len() as u64, Ordering::SeqCst);
        }
    }

    fn publish(&mut self, client: &mut Client) {
        while self.next_id == 0 || self.under_way.iter().any(|sent| sent.packet_id == self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        // In this order, so that who sees the one sees the other.
        self.told.under_way.store(self.under_way.len() as u64 + 1, Ordering::SeqCst);
        let number = self.told.sent.fetch_add(1, Ordering::SeqCst);
        let sent = Sent { number, packet_id: self.next_id, times: 1 };
        self.next_id = self.next_id.wrapping_add(1);
        // Where the gateway is gone, the end of the connection is read next.
        let _ = client.try_send(&self.packet(&sent));
        self.under_way.push_back(sent);
    }

    fn send_again(&mut self, client: &mut Client) {
        for place in 0..self.under_way.len() {
            self.under_way[place].times += 1;
            self.repeated.insert(self.under_way[place].number);
            let _ = client.try_send(&self.packet(&self.under_way[place]));
        }
    }

    fn hear(&mut self, packet_id: u16, reason: Reason) {
        let place = self.under_way.iter().position(|sent| sent.packet_id == packet_id);
        let sent = self.under_way.remove(place.expect("PUBACK of what is under way")).unwrap();
        match reason {
            Reason::QuotaExceeded if sent.times == 1 => drop(self.refused.insert(sent.number)),
            // What was sent before and not answered may be kept since then.
            Reason::QuotaExceeded => {}
            reason => {
                assert!(!reason.is_error(), "{}: {reason:?}", self.options.id);
                self.acknowledged.insert(sent.number);
                self.told.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.told.under_way.store(self.under_way.len() as u64, Ordering::SeqCst);
    }

    fn packet(&self, sent: &Sent) -> Packet {
        Packet::Publish(Publish {
            dup: sent.times > 1,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic(sent.number).into(),
            packet_id: sent.packet_id,
            properties: Properties::new(),
            payload: Bytes::from(text(self.id, sent.number, own_length(sent.number) + self.weight)),
        })
    }
}

/// The topic of a number, whoever publishes it.
pub(super) fn topic(number: u64) -> String {
    format!("sensors/{}", number % TOPICS)
}

/// The payload of a number, which says how long it is.
pub(super) fn text(publisher: usize, number: u64, length: u64) -> String {
    format!("{publisher} {number} {length} {}", "x".repeat(usize::try_from(length).unwrap()))
}

/// Most messages are small.
fn own_length(number: u64) -> u64 {
    if number.is_multiple_of(97) { 2_000 } else { number % 80 }
}

/// Topics that all publishers share.
pub(super) const TOPICS: u64 = 7;

/// Messages a second that are offered, by all of them together.
const RATE: u64 = 2_000;

/// How long one looks for what has come.
const A_MOMENT: Duration = Duration::from_millis(1);
