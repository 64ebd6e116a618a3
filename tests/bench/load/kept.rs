//! QoS 1 for a session that is away, where an acknowledgement means that the message is kept.
//!
//! With many under way the throughput is measured, and the session comes for all of them: what is missing,
//! doubled or out of order then makes the round void. With few it is how long an acknowledgement takes.

use std::time::Duration;

use tidegate::codec::{QoS, Version};

use super::brokers::Broker;
use super::flow::{Flow, Plan, Streams, take};
use super::gauge::{Cost, Meter, Taken};
use super::hub::{Client, Handler, Hub, Session};
use super::packet::{Packet, Template};
use super::patience::Patience;
use super::tracker::{Order, PAYLOAD, Stamp, Tracker, judge};
use super::{Outcome, Sample, Size, Span};
use crate::process::{median, quantile};

/// Takes in, and drains.
pub(crate) fn drained(broker: &Broker, size: Size) -> Outcome<Sample> {
    let count = if matches!(size, Size::Small) { 2_000 } else { 500_000 };
    let (flow, taken) = ingest(broker, PUBLISHERS, 100, Span::Count(count))?;
    let drain = drain(broker, &flow.sent())?;
    let (messages, cost) = (taken.inward as f64, &taken.cost);
    Ok(vec![
        cost.broker / messages,
        cost.both / messages,
        messages / cost.seconds,
        cost.written / messages,
        drain.broker / messages,
        messages / drain.seconds,
    ])
}

/// Acknowledgements for so many publishers with so few under way each.
pub(crate) fn acknowledged(
    broker: &Broker,
    publishers: usize,
    window: usize,
    sync: Duration,
    size: Size,
) -> Outcome<Sample> {
    let span = match size {
        Size::Small => Span::Count(100),
        Size::Whole(measured) => Span::Time { warm_up: measured / 4, measured },
    };
    let disk = broker.disk.as_ref().expect("started with one");
    disk.slow_down(sync);
    let before = disk.syncs();
    let (flow, taken) = ingest(broker, publishers, window, span)?;
    let all: u64 = flow.sent().iter().sum();
    let syncs = (disk.syncs() - before) as f64 / all as f64;
    disk.slow_down(Duration::ZERO);
    let (messages, cost) = (taken.inward as f64, &taken.cost);
    Ok(vec![
        messages / cost.seconds,
        median(flow.waits.clone()),
        quantile(flow.waits, 99),
        syncs,
        cost.written / messages,
    ])
}

fn absent() -> Client {
    Client { id: "bench-absent".into(), session: Session::Kept, filters: Vec::new() }
}

fn ingest(broker: &Broker, publishers: usize, window: usize, span: Span) -> Outcome<(Flow, Taken)> {
    let connect = || Hub::new(Version::V311, broker.dial.clone(), broker.port);
    let mut hub = connect();
    let filters = vec!["bench/kept/#".into()];
    hub.connect(&[Client { filters, ..absent() }], QoS::AtLeastOnce)?;
    hub.leave()?;
    let mut hub = connect();
    let publisher = |number| Client {
        id: format!("bench-publisher-{number}"),
        session: Session::Brief,
        filters: Vec::new(),
    };
    let clients: Vec<Client> = (0..publishers).map(publisher).collect();
    hub.connect(&clients, QoS::AtLeastOnce)?;
    let template = |number| {
        let topic = format!("bench/kept/{number}/data");
        vec![Template::new(Version::V311, &topic, QoS::AtLeastOnce, &PAYLOAD)]
    };
    let plan = Plan {
        templates: (0..publishers).map(template).collect(),
        qos: 1,
        readers: 0,
        streams: Streams::OfPublishers,
        order: Order::Sent,
        window,
    };
    let mut flow = Flow::new(&hub, plan);
    let taken = flow.run(&mut hub, broker.pid, span)?;
    Ok((flow, taken))
}

/// The session comes for what was sent by each publisher.
fn drain(broker: &Broker, sent: &[u64]) -> Outcome<Cost> {
    let total: u64 = sent.iter().sum();
    let trackers = sent.iter().map(|_| Tracker::default()).collect();
    let mut drain = Drain { trackers, arrived: 0, spoiled: 0 };
    let mut hub = Hub::new(Version::V311, broker.dial.clone(), broker.port);
    let meter = Meter::start(broker.pid);
    hub.connect(&[absent()], QoS::AtLeastOnce)?;
    if !hub.connections[0].present {
        return Err("the session is lost".into());
    }
    let mut patience = Patience::new(hub.now());
    while drain.arrived < total {
        hub.poll(patience.wait(), &mut drain)?;
        patience.look(hub.now(), drain.arrived, &hub)?;
        std::thread::park_timeout(NAP);
    }
    hub.barrier(0..1, &mut drain)?;
    let cost = meter.stop();
    judge(drain.trackers.iter().zip(sent.iter().copied()), drain.spoiled, Order::Sent)?;
    Ok(cost)
}

struct Drain {
    trackers: Vec<Tracker>,
    arrived: u64,
    spoiled: u64,
}

impl Handler for Drain {
    fn on(&mut self, _: usize, packet: Packet<'_>, out: &mut Vec<u8>, _: Duration) -> Outcome<()> {
        let Packet::Publish(publish) = packet else { return Err(format!("sends {packet:?}")) };
        take(&publish, out);
        match Stamp::read(&publish, &[], 0) {
            Some(stamp) if publish.qos == 1 && stamp.publisher < self.trackers.len() => {
                self.arrived += u64::from(self.trackers[stamp.publisher].saw(stamp.number));
            }
            _ => self.spoiled += 1,
        }
        Ok(())
    }
}

const PUBLISHERS: usize = 10;
/// Between two looks at what was drained: as long as a broker surely has something to do.
const NAP: Duration = Duration::from_micros(24);
