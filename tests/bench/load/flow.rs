//! The closed loop: publishers that keep a window of messages under way, and subscribers that check.
//!
//! A publisher sends on once its messages have arrived wherever they should, so nothing has to be dropped.
//! It writes half a window at a time, as a busy network delivers, and looks away between two looks for a
//! part of the time that the broker needs in any case: then it reads much at once and costs little.

use std::time::Duration;

use super::gauge::{Gauge, Taken};
use super::hub::{Handler, Hub};
use super::packet::{self, Packet, Publish, Template, user_properties};
use super::patience::Patience;
use super::tracker::{Order, Stamp, Tracker, judge};
use super::{Outcome, Span};

/// What is under way. The first connections of the hub are the publishers, those after them the
/// subscribers.
pub(crate) struct Flow {
    qos: u8,
    publishers: Vec<Publisher>,
    subscribers: usize,
    streams: Streams,
    /// Subscribers that each message should reach.
    readers: u64,
    properties: Vec<u8>,
    trackers: Vec<Tracker>,
    order: Order,
    /// Publishers that may have room to send.
    ready: Vec<usize>,
    sent: u64,
    acknowledged: u64,
    delivered: u64,
    spoiled: u64,
    /// Of each acknowledgement within the measured span, in microseconds.
    pub(crate) waits: Vec<f64>,
    measuring: bool,
}

/// Which arrivals are one stream in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// A subscriber has one publisher.
    OfSubscribers,
    /// A publisher's messages all go to one subscriber.
    OfPublishers,
}

/// What a flow consists of.
pub(crate) struct Plan {
    /// For each publisher what it sends in turn.
    pub(crate) templates: Vec<Vec<Template>>,
    pub(crate) qos: u8,
    pub(crate) readers: u64,
    pub(crate) streams: Streams,
    pub(crate) order: Order,
    pub(crate) window: usize,
}

struct Publisher {
    templates: Vec<Template>,
    next: u64,
    /// Every message before this one has arrived wherever it should.
    base: u64,
    /// Arrivals of each message under way, where several subscribers should have it.
    arrivals: Vec<u64>,
    /// When the message of each packet id was sent; `None` where it is free.
    ids: Vec<Option<Duration>>,
    unacknowledged: usize,
    window: usize,
    limit: u64,
    ready: bool,
}

impl Flow {
    pub(crate) fn new(hub: &Hub, plan: Plan) -> Flow {
        let count = plan.templates.len();
        let publishers: Vec<Publisher> = plan
            .templates
            .into_iter()
            .zip(&hub.connections)
            .map(|(templates, connection)| {
                let allowed = if plan.qos > 0 { connection.receive_maximum.into() } else { usize::MAX };
                let window = plan.window.min(allowed);
                Publisher {
                    templates,
                    next: 0,
                    base: 0,
                    arrivals: vec![0; if plan.readers > 1 { window } else { 0 }],
                    ids: vec![None; if plan.qos > 0 { window } else { 0 }],
                    unacknowledged: 0,
                    window,
                    limit: u64::MAX,
                    ready: false,
                }
            })
            .collect();
        let subscribers = hub.connections.len() - count;
        let streams = if plan.streams == Streams::OfSubscribers { subscribers } else { count };
        Flow {
            qos: plan.qos,
            publishers,
            subscribers,
            streams: plan.streams,
            readers: plan.readers,
            properties: user_properties(hub.version).as_bytes().to_vec(),
            trackers: (0..streams).map(|_| Tracker::default()).collect(),
            order: plan.order,
            ready: Vec::new(),
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            spoiled: 0,
            waits: Vec::new(),
            measuring: false,
        }
    }

    /// How many messages each publisher has sent.
    pub(crate) fn sent(&self) -> Vec<u64> {
        self.publishers.iter().map(|publisher| publisher.next).collect()
    }

    /// Runs to the end; an error where anything was lost, doubled, reordered or spoiled.
    pub(crate) fn run(&mut self, hub: &mut Hub, pid: u32, span: Span) -> Outcome<Taken> {
        let publishers = self.publishers.len();
        for number in 0..publishers {
            if let Span::Count(count) = span {
                self.publishers[number].limit = count / publishers as u64;
            }
            self.touch(number);
        }
        let (nap, mut gauge) = (self.nap(), Gauge::new(pid, hub.now(), span));
        let mut patience = Patience::new(hub.now());
        self.measuring = gauge.open(hub.now(), self.counts());
        self.fill(hub)?;
        loop {
            self.measuring = gauge.open(hub.now(), self.counts());
            // Before the nap, so that the broker has something to do in it.
            hub.poll(patience.wait(), self)?;
            self.fill(hub)?;
            if gauge.is_over(hub.now(), self.counts()) || self.has_ended() {
                self.publishers.iter_mut().for_each(|publisher| publisher.limit = publisher.next);
                self.close(&mut gauge, hub)?;
            }
            if gauge.taken.is_some() && self.is_complete() {
                break;
            }
            patience.look(hub.now(), self.delivered + self.acknowledged, hub)?;
            if !nap.is_zero() {
                std::thread::park_timeout(nap);
            }
        }
        // What comes now is a double.
        let quiet = hub.now() + QUIET;
        while hub.now() < quiet {
            hub.poll(QUIET / 5, self)?;
        }
        if self.readers > 0 {
            let sent = |stream: usize| {
                let publisher = if self.publishers.len() == 1 { 0 } else { stream };
                self.publishers[publisher].next
            };
            let streams = self.trackers.iter().enumerate();
            judge(streams.map(|(stream, tracker)| (tracker, sent(stream))), self.spoiled, self.order)?;
        }
        Ok(gauge.taken.expect("taken above"))
    }

    /// Ends the measured span. At QoS 0 that is amid the flow, as it began. Otherwise all is done first: a
    /// broker may leave the acknowledgements of subscribers unread for long, and would seem to save their
    /// cost.
    fn close(&mut self, gauge: &mut Gauge, hub: &mut Hub) -> Outcome<()> {
        let answered = self.qos > 0 && self.subscribers > 0;
        if gauge.taken.is_some() || (answered && !self.is_complete()) {
            return Ok(());
        }
        if answered {
            let first = self.publishers.len();
            hub.barrier(first..first + self.subscribers, self)?;
        }
        gauge.close(self.counts());
        self.measuring = false;
        Ok(())
    }

    fn touch(&mut self, number: usize) {
        if !self.publishers[number].ready {
            self.publishers[number].ready = true;
            self.ready.push(number);
        }
    }

    /// Publishers with room for half a window send it.
    fn fill(&mut self, hub: &mut Hub) -> Outcome<()> {
        for number in std::mem::take(&mut self.ready) {
            self.publishers[number].ready = false;
            if hub.is_full(number) {
                self.touch(number);
                continue;
            }
            let now = hub.now();
            let publisher = &mut self.publishers[number];
            let room = publisher.room(self.readers);
            let out = &mut hub.connections[number].out;
            let before = publisher.next;
            for _ in 0..room {
                if !publisher.write(out, number, now) {
                    break;
                }
            }
            self.sent += publisher.next - before;
            hub.flush(number)?;
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.next == publisher.limit) && self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.delivered >= self.sent * self.readers && (self.qos == 0 || self.acknowledged == self.sent)
    }

    /// Messages that the broker took (acknowledged, where it acknowledges), and those that it delivered.
    fn counts(&self) -> (u64, u64) {
        (if self.qos > 0 { self.acknowledged } else { self.sent }, self.delivered)
    }

    /// A quarter of what is under way, at 1 µs each, which few brokers beat. Where subscribers acknowledge,
    /// no longer than half of what a broker sends them before it waits takes at 3 µs each.
    fn nap(&self) -> Duration {
        let windows: u64 = self.publishers.iter().map(|publisher| publisher.window as u64).sum();
        let mut micros = windows.saturating_mul(self.readers.max(1)) / 4;
        if self.qos > 0 && self.subscribers > 0 {
            micros = micros.min(self.subscribers as u64 * UNACKNOWLEDGED * 3 / 2);
        }
        // To sleep for less costs more than it saves.
        Duration::from_micros(if micros < 20 { 0 } else { micros.min(32_000) })
    }

    fn acknowledged(&mut self, number: usize, id: u16, now: Duration) -> Outcome<()> {
        let publisher = &mut self.publishers[number];
        let slot = publisher.ids.get_mut(usize::from(id).wrapping_sub(1));
        let Some(sent) = slot.and_then(Option::take) else {
            return Err(format!("acknowledges packet id {id}, which is not in use"));
        };
        publisher.unacknowledged -= 1;
        self.acknowledged += 1;
        if self.measuring && self.subscribers == 0 {
            self.waits.push(now.saturating_sub(sent).as_secs_f64() * 1e6);
        }
        self.touch(number);
        Ok(())
    }

    fn arrived(&mut self, subscriber: usize, publish: &Publish<'_>) -> Outcome<()> {
        if publish.qos != self.qos {
            return Err(format!("delivers with QoS {}", publish.qos));
        }
        let stamp = Stamp::read(publish, &self.properties, 0).filter(|stamp| {
            let known = self.publishers.get(stamp.publisher);
            let its_own = self.streams == Streams::OfPublishers
                || self.publishers.len() == 1
                || stamp.publisher == subscriber;
            its_own && known.is_some_and(|publisher| stamp.number < publisher.next)
        });
        let Some(stamp) = stamp else {
            self.spoiled += 1;
            return Ok(());
        };
        let stream = if self.streams == Streams::OfSubscribers { subscriber } else { stamp.publisher };
        if self.trackers[stream].saw(stamp.number) {
            self.delivered += 1;
            self.publishers[stamp.publisher].arrived(stamp.number, self.readers);
            self.touch(stamp.publisher);
        }
        Ok(())
    }
}

impl Publisher {
    /// Messages that it may send now: none until half a window is free.
    fn room(&self, readers: u64) -> u64 {
        let under_way = if readers > 0 { self.next - self.base } else { 0 };
        let used = under_way.max(self.unacknowledged as u64);
        let left = self.limit - self.next;
        let room = (self.window as u64).saturating_sub(used).min(left);
        let half = (self.window as u64 / 2).max(1).min(left);
        if used > 0 && room < half { 0 } else { room }
    }

    /// Appends its next message; not where an older one still has the packet id.
    fn write(&mut self, out: &mut Vec<u8>, number: usize, now: Duration) -> bool {
        let mut id = 0;
        if !self.ids.is_empty() {
            let slot = (self.next % self.ids.len() as u64) as usize;
            if self.ids[slot].is_some() {
                return false;
            }
            self.ids[slot] = Some(now);
            self.unacknowledged += 1;
            id = slot as u16 + 1;
        }
        let stamp = Stamp { publisher: number, number: self.next };
        let template = (self.next % self.templates.len() as u64) as usize;
        self.templates[template].write(out, id, &stamp.bytes());
        self.next += 1;
        true
    }

    fn arrived(&mut self, number: u64, readers: u64) {
        if readers == 1 {
            self.base = self.base.max(number + 1);
            return;
        }
        let ring = self.arrivals.len() as u64;
        self.arrivals[(number % ring) as usize] += 1;
        while self.arrivals[(self.base % ring) as usize] == readers {
            self.arrivals[(self.base % ring) as usize] = 0;
            self.base += 1;
        }
    }
}

impl Handler for Flow {
    fn on(&mut self, number: usize, packet: Packet<'_>, out: &mut Vec<u8>, now: Duration) -> Outcome<()> {
        let subscriber = number.checked_sub(self.publishers.len());
        match (packet, subscriber) {
            (Packet::Publish(publish), Some(subscriber)) => {
                take(&publish, out);
                self.arrived(subscriber, &publish)
            }
            (Packet::Ack(packet::PUBREL, id, _), Some(_)) => {
                packet::answer(out, packet::PUBCOMP, id);
                Ok(())
            }
            (Packet::Ack(packet::PUBACK, id, 0..=0x7f), None) if self.qos == 1 => {
                self.acknowledged(number, id, now)
            }
            (Packet::Ack(packet::PUBREC, id, 0..=0x7f), None) if self.qos == 2 => {
                packet::answer(out, packet::PUBREL, id);
                Ok(())
            }
            (Packet::Ack(packet::PUBCOMP, id, 0..=0x7f), None) if self.qos == 2 => {
                self.acknowledged(number, id, now)
            }
            (other, _) => Err(format!("sends {other:?}")),
        }
    }
}

/// Answers a message as its QoS asks.
pub(crate) fn take(publish: &Publish<'_>, out: &mut Vec<u8>) {
    match publish.qos {
        1 => packet::answer(out, packet::PUBACK, publish.id),
        2 => packet::answer(out, packet::PUBREC, publish.id),
        _ => {}
    }
}

/// What a broker surely sends a subscriber before it waits for acknowledgements.
const UNACKNOWLEDGED: u64 = 16;
/// How long doubles are waited for.
const QUIET: Duration = Duration::from_millis(50);
