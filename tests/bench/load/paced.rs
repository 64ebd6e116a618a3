//! Messages sent by the clock, whatever the broker does.
//!
//! Each carries the time at which it was due. How long it took counts from then, so a stall counts for
//! every message that was due in it, not only for the one that it hit. It carries as well when it was sent in
//! truth, which tells apart what the sender was late by.

use std::time::Duration;

use tidegate::codec::{QoS, Version};

use super::brokers::Broker;
use super::gauge::Meter;
use super::hub::{Client, Handler, Hub, Session};
use super::packet::{Packet, Template};
use super::tracker::{PAYLOAD, STAMP, Stamp, Tracker, judge};
use super::{Outcome, Sample, Size};
use crate::process::{median, quantile};

/// How long messages took.
pub(crate) fn measure(broker: &Broker, size: Size) -> Outcome<Sample> {
    let client = |role, number, filters| Client {
        id: format!("bench-{role}-{number}"),
        session: Session::Brief,
        filters,
    };
    let publishers: Vec<Client> = (0..TOPICS).map(|number| client("publisher", number, Vec::new())).collect();
    let subscribers: Vec<Client> =
        (0..TOPICS).map(|number| client("subscriber", number, vec![topic(number)])).collect();
    let mut hub = Hub::new(Version::V311, broker);
    hub.connect(&publishers, QoS::AtMostOnce)?;
    hub.connect(&subscribers, QoS::AtMostOnce)?;
    let (warm_up, measured) = match size {
        Size::Small => (100, 200),
        Size::Whole(measured) => (WARM_UP, 2 * measured.as_millis() as u64),
    };
    let mut pace = Pace::new(hub.now());
    pace.send(&mut hub, warm_up)?;
    pace.clear();
    let meter = Meter::start(broker.pid);
    pace.send(&mut hub, warm_up + measured)?;
    let cost = meter.stop();
    let mut patience = hub.patience();
    while pace.arrived < pace.sent {
        hub.poll(patience.wait(), &mut pace)?;
        patience.look(pace.arrived, &mut hub)?;
    }
    hub.await_doubles(&mut pace)?;
    let sent =
        |stream: usize| pace.sent / TOPICS as u64 + u64::from((stream as u64) < pace.sent % TOPICS as u64);
    let streams = pace.trackers.iter().enumerate().map(|(stream, tracker)| (tracker, sent(stream)));
    judge(streams, pace.spoiled)?;
    Ok(vec![
        median(pace.delays.clone()),
        quantile(pace.delays, 99),
        quantile(pace.ways, 99),
        cost.broker / measured as f64,
        quantile(pace.lags, 99),
    ])
}

fn topic(number: usize) -> String {
    format!("bench/latency/{number}/data")
}

struct Pace {
    begin: Duration,
    templates: Vec<Template>,
    sent: u64,
    arrived: u64,
    spoiled: u64,
    trackers: Vec<Tracker>,
    /// From due to arrived, from sent to arrived, and from due to sent, in microseconds.
    delays: Vec<f64>,
    ways: Vec<f64>,
    lags: Vec<f64>,
}

impl Pace {
    fn new(now: Duration) -> Pace {
        let template = |number| Template::new(Version::V311, &topic(number), QoS::AtMostOnce, &PAYLOAD);
        Pace {
            begin: now + PERIOD,
            templates: (0..TOPICS).map(template).collect(),
            sent: 0,
            arrived: 0,
            spoiled: 0,
            trackers: (0..TOPICS).map(|_| Tracker::default()).collect(),
            delays: Vec::new(),
            ways: Vec::new(),
            lags: Vec::new(),
        }
    }

    /// Forgets what it has measured.
    fn clear(&mut self) {
        self.delays.clear();
        self.ways.clear();
        self.lags.clear();
    }

    fn due(&self) -> Duration {
        self.begin + PERIOD * self.sent as u32
    }

    /// Sends until so many are sent in all.
    fn send(&mut self, hub: &mut Hub, end: u64) -> Outcome<()> {
        while self.sent < end {
            let (now, due) = (hub.now(), self.due());
            if due <= now {
                let (number, topic) = (self.sent / TOPICS as u64, (self.sent % TOPICS as u64) as usize);
                let mut head = [0; STAMP + TIMES];
                head[..STAMP].copy_from_slice(&Stamp { publisher: topic, number }.bytes());
                let (first, second) = head[STAMP..].split_at_mut(TIMES / 2);
                first.copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
                second.copy_from_slice(&(now.as_nanos() as u64).to_le_bytes());
                self.templates[topic].write(&mut hub.connections[topic].out, 0, &head);
                hub.flush(topic)?;
                self.lags.push(micros(due, now));
                self.sent += 1;
            }
            // A timer wakes us late, so the last stretch is spent awake.
            hub.poll(self.due().saturating_sub(hub.now() + AWAKE), self)?;
        }
        Ok(())
    }
}

impl Handler for Pace {
    fn on(&mut self, number: usize, packet: Packet<'_>, _: &mut Vec<u8>, now: Duration) -> Outcome<()> {
        let Packet::Publish(publish) = packet else { return Err(format!("sends {packet:?}")) };
        let stamp = Stamp::read(&publish, &[], TIMES).filter(|stamp| {
            let sent = (stamp.number.saturating_mul(TOPICS as u64)) < self.sent;
            sent && stamp.publisher + TOPICS == number
                && publish.topic == self.templates[stamp.publisher].topic()
        });
        let Some(stamp) = stamp else {
            self.spoiled += 1;
            return Ok(());
        };
        if self.trackers[stamp.publisher].saw(stamp.number) {
            self.arrived += 1;
            let (due, sent) = publish.payload[STAMP..][..TIMES].split_at(TIMES / 2);
            self.delays.push(micros(time(due), now));
            self.ways.push(micros(time(sent), now));
        }
        Ok(())
    }
}

fn time(nanos: &[u8]) -> Duration {
    Duration::from_nanos(u64::from_le_bytes(nanos.try_into().expect("eight bytes")))
}

fn micros(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64() * 1e6
}

const TOPICS: usize = 10;
const PERIOD: Duration = Duration::from_millis(1);
const WARM_UP: u64 = 1_000;
/// How long before a message is due nobody sleeps.
const AWAKE: Duration = Duration::from_micros(100);
/// Behind the stamp, when the message was due, and when it was sent.
const TIMES: usize = 16;
