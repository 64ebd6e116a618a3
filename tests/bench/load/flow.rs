//! The closed loop: publishers that keep a window of messages under way, and subscribers that check.
//!
//! A publisher sends on once its messages have arrived wherever they should, so nothing has to be dropped.
//! It writes half a window at a time, as a busy network delivers, and looks away between two looks for a
//! part of the time that the broker needs in any case: then it reads much at once and costs little.

use std::time::Duration;

use super::gauge::{Gauge, Taken};
use super::hub::{Handler, Hub};
use super::packet::{self, Packet, Publish, Template, user_properties};
use super::tracker::{Stamp, Tracker, judge};
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
    look: Look,
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

/// Whose arrivals are one stream in order.
#[derive(Debug)]
pub(crate) enum Streams {
    /// A subscriber has one publisher.
    Subscribers,
    /// A publisher's messages all go to one subscriber.
    Publishers,
    /// Each of the one publisher's topics goes to one subscriber, to this one.
    Topics(Vec<usize>),
}

impl Streams {
    /// Of which stream a message is that came to this subscriber, and its number there; `None` where it should not
    /// have come to him.
    fn take(&self, publishers: usize, subscriber: usize, stamp: Stamp) -> Option<(usize, u64)> {
        match self {
            Streams::Subscribers => {
                let its_own = publishers == 1 || stamp.publisher == subscriber;
                its_own.then_some((subscriber, stamp.number))
            }
            Streams::Publishers => Some((stamp.publisher, stamp.number)),
            Streams::Topics(takers) => {
                let topics = takers.len() as u64;
                let topic = (stamp.number % topics) as usize;
                (takers[topic] == subscriber).then_some((topic, stamp.number / topics))
            }
        }
    }
}

/// How often what the broker says is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Now and then: it costs little, and what a message costs the broker is the figure.
    Leisurely,
    /// At once: how long the broker takes to answer is the figure.
    Eager,
}

/// What a flow consists of.
pub(crate) struct Plan {
    /// For each publisher what it sends in turn.
    pub(crate) templates: Vec<Vec<Template>>,
    pub(crate) qos: u8,
    pub(crate) readers: u64,
    pub(crate) streams: Streams,
    pub(crate) look: Look,
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
        let streams = match &plan.streams {
            Streams::Subscribers => subscribers,
            Streams::Publishers => count,
            Streams::Topics(takers) => takers.len(),
        };
        Flow {
            qos: plan.qos,
            publishers,
            subscribers,
            streams: plan.streams,
            readers: plan.readers,
            properties: user_properties(hub.version).as_bytes().to_vec(),
            trackers: (0..streams).map(|_| Tracker::default()).collect(),
            look: plan.look,
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
        let mut patience = hub.patience();
        if matches!(span, Span::Count(_)) {
            self.measuring = gauge.open(hub.now(), self.counts());
        }
        self.fill(hub)?;
        loop {
            // Before the nap, so that the broker has something to do in it.
            hub.poll(patience.wait(), self)?;
            self.fill(hub)?;
            // What came in the nap was paid for before, so it is taken first.
            self.measuring = gauge.open(hub.now(), self.counts());
            if gauge.is_over(hub.now(), self.counts()) || self.has_ended() {
                self.publishers.iter_mut().for_each(|publisher| publisher.limit = publisher.next);
                self.close(&mut gauge, hub)?;
            }
            if gauge.taken.is_some() && self.is_complete() {
                break;
            }
            patience.look(self.delivered + self.acknowledged, hub)?;
            if !nap.is_zero() {
                std::thread::park_timeout(nap);
            }
        }
        hub.await_doubles(self)?;
        if self.readers > 0 {
            let streams = self.trackers.iter().enumerate();
            judge(streams.map(|(stream, tracker)| (tracker, self.sent_to(stream))), self.spoiled)?;
        }
        Ok(gauge.taken.expect("taken above"))
    }

    /// How many messages a stream should have.
    fn sent_to(&self, stream: usize) -> u64 {
        match &self.streams {
            Streams::Topics(takers) => {
                self.publishers[0].next.saturating_sub(stream as u64).div_ceil(takers.len() as u64)
            }
            _ if self.publishers.len() == 1 => self.publishers[0].next,
            _ => self.publishers[stream].next,
        }
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
        if self.look == Look::Eager {
            return Duration::ZERO;
        }
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
            known.is_some_and(|publisher| publisher.has_sent(stamp.number, publish.topic))
        });
        let publishers = self.publishers.len();
        let Some((stamp, (stream, number))) =
            stamp.and_then(|stamp| Some((stamp, self.streams.take(publishers, subscriber, stamp)?)))
        else {
            self.spoiled += 1;
            return Ok(());
        };
        if self.trackers[stream].saw(number) {
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
        self.template(self.next).write(out, id, &stamp.bytes());
        self.next += 1;
        true
    }

    fn template(&self, number: u64) -> &Template {
        &self.templates[(number % self.templates.len() as u64) as usize]
    }

    fn has_sent(&self, number: u64, topic: &[u8]) -> bool {
        number < self.next && self.template(number).topic() == topic
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_to_another_than_its_subscriber_is_of_no_stream() {
        let stamp = |publisher, number| Stamp { publisher, number };
        for (streams, publishers, subscriber, stamp, taken) in [
            (Streams::Subscribers, 2, 1, stamp(1, 7), Some((1, 7))),
            (Streams::Subscribers, 2, 0, stamp(1, 7), None),
            (Streams::Subscribers, 1, 5, stamp(0, 7), Some((5, 7))),
            (Streams::Publishers, 2, 0, stamp(1, 7), Some((1, 7))),
            (Streams::Topics(vec![2, 0, 1]), 1, 0, stamp(0, 7), Some((1, 2))),
            (Streams::Topics(vec![2, 0, 1]), 1, 2, stamp(0, 7), None),
        ] {
            assert_eq!(streams.take(publishers, subscriber, stamp), taken, "{streams:?}, {stamp:?}");
        }
    }
}
