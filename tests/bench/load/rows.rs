//! The loads, in the order of the page: what each is called, how it travels, and what is measured of it.
//!
//! A table alone: nothing here is run.

use std::time::Duration;

use tidegate::codec::Version;

/// One load.
pub(crate) struct Row {
    /// As `ROWS` names it: words between dashes.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) part: Part,
    pub(crate) load: Load,
}

/// Rows of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Tcp,
    Tls,
    WebSocket,
    Mqtt5,
    Durable,
    Acknowledged,
    Latency,
    Idle,
    Clients,
}

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Messages in a closed loop.
    Stream(Shape, u8),
    /// Messages for a session that is away, which then comes for them.
    Durable,
    /// The same from so many publishers with so few under way each, where a sync takes so long at least.
    Acknowledged { publishers: usize, window: usize, sync: Duration },
    /// A thousand messages a second, by the clock.
    Latency,
    /// Nothing.
    Idle,
    /// Nothing, ten thousand times.
    Clients,
}

/// Who publishes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many publishers, each to a subscriber of its own.
    Pipe(usize),
    /// One publisher to so many subscribers.
    FanOut(usize),
    /// So many publishers to one subscriber.
    FanIn(usize),
    /// One publisher to ten subscribers that have so many filters.
    Filters(usize),
    /// So many publishers to nobody.
    Ingest(usize),
}

/// What is told of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

impl Part {
    pub(crate) const ALL: [Part; 9] = [
        Part::Tcp,
        Part::Tls,
        Part::WebSocket,
        Part::Mqtt5,
        Part::Durable,
        Part::Acknowledged,
        Part::Latency,
        Part::Idle,
        Part::Clients,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Part::Tcp => "Messages of 64 bytes, MQTT 3.1.1 over TCP",
            Part::Tls => "The same messages, MQTT 3.1.1 over TLS",
            Part::WebSocket => "The same messages, MQTT 3.1.1 over WebSocket, a packet in each frame",
            Part::Mqtt5 => "The same messages, MQTT 5 over TCP, with two user properties",
            Part::Durable => {
                "QoS 1 for a session that is away: 10 publishers, 100 under way each, then the drain"
            }
            Part::Acknowledged => "QoS 1 for a session that is away, so many under way for each publisher",
            Part::Latency => "1,000 messages a second by the clock, 10 topics",
            Part::Idle => "Nothing to do, for 10 s",
            Part::Clients => "Idle clients, with a subscription each",
        }
    }

    /// The first is the one that is drawn.
    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Part::Tcp | Part::Tls | Part::WebSocket | Part::Mqtt5 => &STREAM,
            Part::Durable => &DURABLE,
            Part::Acknowledged => &ACKNOWLEDGED,
            Part::Latency => &LATENCY,
            Part::Idle => &IDLE,
            Part::Clients => &CLIENTS,
        }
    }

    pub(crate) fn version(self) -> Version {
        if self == Part::Mqtt5 { Version::V5 } else { Version::V311 }
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for (part, prefix) in
        [(Part::Tcp, "tcp"), (Part::Tls, "tls"), (Part::WebSocket, "websocket"), (Part::Mqtt5, "mqtt5")]
    {
        for (name, title, shape, qos) in STREAMS {
            let (name, title) = (format!("{prefix}-{name}"), title.into());
            rows.push(Row { name, title, part, load: Load::Stream(shape, qos) });
        }
    }
    for (suffix, sync, note) in [("", Duration::ZERO, ""), ("-card", CARD, ", 20 ms a sync")] {
        for (publishers, window) in ACKNOWLEDGERS {
            rows.push(Row {
                name: format!("acknowledged-{publishers}-{window}{suffix}"),
                title: format!("publishers: {publishers}, under way: {window}{note}"),
                part: Part::Acknowledged,
                load: Load::Acknowledged { publishers, window, sync },
            });
        }
    }
    for (name, title, part, load) in OTHERS {
        rows.push(Row { name: name.into(), title: title.into(), part, load });
    }
    rows
}

impl Row {
    /// Whether one of these words, or several with dashes between them, is in the name.
    pub(crate) fn is_named(&self, words: &[&str]) -> bool {
        let name = format!("-{}-", self.name);
        words.is_empty() || words.iter().any(|word| name.contains(&format!("-{word}-")))
    }
}

const STREAMS: [(&str, &str, Shape, u8); 10] = [
    ("pipe-1", "pipe 1:1, QoS 0", Shape::Pipe(1), 0),
    ("pipe-50", "pipe 50:50, QoS 0", Shape::Pipe(50), 0),
    ("pipe-qos1", "pipe 50:50, QoS 1", Shape::Pipe(50), 1),
    ("pipe-qos2", "pipe 50:50, QoS 2", Shape::Pipe(50), 2),
    ("fan-out", "fan-out 1:1000, QoS 0", Shape::FanOut(1_000), 0),
    ("fan-in", "fan-in 100:1, QoS 0", Shape::FanIn(100), 0),
    ("filters-1000", "1,000 filters", Shape::Filters(1_000), 0),
    ("filters-10000", "10,000 filters", Shape::Filters(10_000), 0),
    ("filters-100000", "100,000 filters", Shape::Filters(100_000), 0),
    ("ingest", "10 publishers, QoS 1, to nobody", Shape::Ingest(10), 1),
];

const OTHERS: [(&str, &str, Part, Load); 4] = [
    ("durable", "500,000 messages", Part::Durable, Load::Durable),
    ("latency", "due to arrived", Part::Latency, Load::Latency),
    ("idle", "no client", Part::Idle, Load::Idle),
    ("clients", "10,000 clients", Part::Clients, Load::Clients),
];

/// Publishers of what is acknowledged, and how many each has under way.
pub(crate) const ACKNOWLEDGERS: [(usize, usize); 8] =
    [(1, 1), (1, 20), (10, 1), (10, 10), (10, 20), (10, 100), (100, 1), (100, 20)];

/// As an SD card syncs.
const CARD: Duration = Duration::from_millis(20);

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit }
}

const STREAM: [Figure; 4] = [
    figure("the broker's processor time", "µs a message"),
    figure("the broker's and the generator's", "µs a message"),
    figure("throughput", "messages a second"),
    figure("resident at the end", "MB"),
];
const DURABLE: [Figure; 8] = [
    figure("the broker's processor time, taking in", "µs a message"),
    figure("the broker's and the generator's, taking in", "µs a message"),
    figure("taken in", "messages a second"),
    figure("written to disk, taking in", "bytes a message"),
    figure("the broker's processor time, draining", "µs a message"),
    figure("the broker's and the generator's, draining", "µs a message"),
    figure("drained", "messages a second"),
    figure("written to disk, draining", "bytes a message"),
];
const ACKNOWLEDGED: [Figure; 6] = [
    figure("acknowledged", "messages a second"),
    figure("half are acknowledged within", "µs"),
    figure("99 of 100 are acknowledged within", "µs"),
    figure("syncs", "a message"),
    figure("written to disk", "bytes a message"),
    figure("the broker's processor time", "µs a message"),
];
const LATENCY: [Figure; 5] = [
    figure("half arrive within", "µs"),
    figure("99 of 100 arrive within", "µs"),
    figure("99 of 100 arrive within, from their sending", "µs"),
    figure("the broker's processor time", "µs a message"),
    figure("99 of 100 are sent late by no more than", "µs"),
];
const IDLE: [Figure; 2] = [figure("resident", "KB"), figure("times that it woke", "in 10 s")];
const CLIENTS: [Figure; 2] = [figure("resident", "bytes a client"), figure("times that it woke", "in 10 s")];
