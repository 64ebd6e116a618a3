//! Messages in a closed loop, from publishers to subscribers of every shape.
//!
//! Topics, filters and windows stand here; the loop itself is in `flow`.

use std::time::Duration;

use tidegate::codec::{QoS, Version};

use super::brokers::Broker;
use super::flow::{Flow, Look, Plan, Streams};
use super::hub::{Client, Hub, Session};
use super::packet::Template;
use super::rows::{Part, Shape};
use super::tracker::PAYLOAD;
use super::{Outcome, Sample, Size, Span};

/// The cost of a message, as a subscriber gets it or, where nobody does, as the broker takes it.
pub(crate) fn measure(broker: &Broker, part: Part, shape: Shape, qos: u8, size: Size) -> Outcome<Sample> {
    let shape = shape.cut(size);
    let version = part.version();
    let mut hub = Hub::new(version, broker);
    let (publishers, subscribers) = shape.clients();
    hub.connect(&publishers, level(qos))?;
    hub.connect(&subscribers, level(qos))?;
    let mut flow = Flow::new(&hub, shape.plan(version, qos));
    let taken = flow.run(&mut hub, broker.pid, size.span(shape))?;
    let messages = if shape.readers() > 0 { taken.outward } else { taken.inward } as f64;
    let cost = &taken.cost;
    Ok(vec![cost.broker / messages, cost.both / messages, messages / cost.seconds, cost.resident / 1_024.0])
}

/// The QoS of this number.
pub(crate) fn level(qos: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)]
}

impl Shape {
    /// A test's size has few clients.
    fn cut(self, size: Size) -> Shape {
        match self {
            Shape::Pipe(count) => Shape::Pipe(size.cut(count, 5)),
            Shape::FanOut(count) => Shape::FanOut(size.cut(count, 20)),
            Shape::FanIn(count) => Shape::FanIn(size.cut(count, 10)),
            Shape::Filters(count) => Shape::Filters(size.cut(count, 300)),
            Shape::Ingest(count) => Shape::Ingest(size.cut(count, 5)),
        }
    }

    /// Messages that are enough for a test.
    fn few(self) -> u64 {
        if matches!(self, Shape::FanOut(_)) { 100 } else { 1_000 }
    }

    /// What is remembered of a topic should count, and not that it is met for the first time.
    fn warm_up(self) -> Duration {
        if matches!(self, Shape::Filters(_)) { WARM_UP_OF_FILTERS } else { WARM_UP }
    }

    fn readers(self) -> u64 {
        match self {
            Shape::FanOut(count) => count as u64,
            Shape::Ingest(_) => 0,
            _ => 1,
        }
    }

    fn clients(self) -> (Vec<Client>, Vec<Client>) {
        let (publishers, subscribers) = match self {
            Shape::Pipe(count) => (count, count),
            Shape::FanOut(count) => (1, count),
            Shape::FanIn(count) => (count, 1),
            Shape::Filters(_) => (1, SUBSCRIBERS_OF_FILTERS),
            Shape::Ingest(count) => (count, 0),
        };
        let client = |role: &str, number: usize, filters| Client {
            id: format!("bench-{role}-{number}"),
            session: Session::Brief,
            filters,
        };
        let publisher = |number| client("publisher", number, Vec::new());
        let subscriber = |number| client("subscriber", number, self.filters(number));
        ((0..publishers).map(publisher).collect(), (0..subscribers).map(subscriber).collect())
    }

    fn filters(self, subscriber: usize) -> Vec<String> {
        match self {
            Shape::FanIn(_) => vec!["bench/stream/#".into()],
            Shape::FanOut(_) => vec![topic(0)],
            Shape::Filters(count) => {
                (subscriber..count).step_by(SUBSCRIBERS_OF_FILTERS).map(|number| pair(number).0).collect()
            }
            Shape::Pipe(_) | Shape::Ingest(_) => vec![topic(subscriber)],
        }
    }

    fn plan(self, version: Version, qos: u8) -> Plan {
        let template = |topic: &str| Template::new(version, topic, level(qos), &PAYLOAD);
        let own = |count: usize| (0..count).map(|number| vec![template(&topic(number))]).collect();
        let (templates, streams, window) = match self {
            Shape::Pipe(count) => (own(count), Streams::Subscribers, (10_000 / count).clamp(32, 512)),
            Shape::FanOut(count) => (own(1), Streams::Subscribers, (131_072 / count).clamp(16, 256)),
            Shape::FanIn(count) => (own(count), Streams::Publishers, (16_384 / count).clamp(16, 512)),
            Shape::Filters(count) => {
                let numbers = shuffled(count);
                let templates = numbers.iter().map(|number| template(&pair(*number).1)).collect();
                let takers = numbers.iter().map(|number| number % SUBSCRIBERS_OF_FILTERS).collect();
                (vec![templates], Streams::Topics(takers), 2_000)
            }
            Shape::Ingest(count) => (own(count), Streams::Publishers, 100),
        };
        // Over MQTT 5 a broker says how many it takes at once; all are asked for as few.
        let window = if version == Version::V5 && qos > 0 { window.min(RECEIVE_MAXIMUM) } else { window };
        Plan { templates, qos, readers: self.readers(), streams, look: Look::Leisurely, window }
    }
}

fn topic(number: usize) -> String {
    format!("bench/stream/{number}/data")
}

/// A filter, and a topic that matches it and no other: of four two are plain, one has a `+` and one a `#`.
fn pair(number: usize) -> (String, String) {
    let group = number % 97;
    match number % 8 {
        0 | 2 | 4 | 6 => {
            let topic = format!("bench/plain/{group}/device/{number}/state");
            (topic.clone(), topic)
        }
        1 => (format!("bench/any/+/device/{number}"), format!("bench/any/{group}/device/{number}")),
        5 => (format!("bench/of/{number}/+/state"), format!("bench/of/{number}/{group}/state")),
        _ => (format!("bench/tree/{number}/#"), format!("bench/tree/{number}/{group}/state")),
    }
}

/// The numbers below `end` in an order that nothing can foresee, the same each time.
fn shuffled(end: usize) -> Vec<usize> {
    let mut dice = crate::stand::Dice::new(0x9e37_79b9_7f4a_7c15);
    let mut numbers: Vec<usize> = (0..end).collect();
    for last in (1..end).rev() {
        numbers.swap(last, dice.below(last as u64 + 1) as usize);
    }
    numbers
}

impl Size {
    fn cut(self, count: usize, small: usize) -> usize {
        if matches!(self, Size::Small) { count.min(small) } else { count }
    }

    fn span(self, shape: Shape) -> Span {
        match self {
            Size::Small => Span::Count(shape.few()),
            Size::Whole(measured) => Span::Time { warm_up: shape.warm_up(), measured, most: u64::MAX },
        }
    }
}

const WARM_UP: Duration = Duration::from_millis(500);
const WARM_UP_OF_FILTERS: Duration = Duration::from_secs(2);
const SUBSCRIBERS_OF_FILTERS: usize = 10;
const RECEIVE_MAXIMUM: usize = 20;
