//! `$SYS`: the broker's own figures as topics, for whoever reads them.
//!
//! They are computed when somebody subscribes and then every ten seconds for as long as anybody does; a
//! house in which nobody looks does no work for them. Only what has changed is published, retained and
//! never stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytestring::ByteString;

use super::client::{Client, ClientKey};
use super::fan::Pressure;
use super::publish::is_volatile;
use super::timers::Timer;
use super::{Broker, Counters, Effect, Taker, Turn};
use crate::codec::{Properties, QoS};
use crate::record::{DropReason, Message, ReaderId, ReaderStatus, Survey};
use crate::router::{Subscriber, filter};

/// What the engine has carried since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Packets decoded.
    pub packets_in: u64,
    /// Packets encoded.
    pub packets_out: u64,
    /// Network connections accepted.
    pub sockets: u64,
    /// Copies of QoS 0 that were handed to the engine and dropped there.
    pub unsent: Unsent,
}

/// What the engine has dropped, which the broker had counted as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unsent {
    /// Where the connection's send buffer was full.
    pub send_buffer: u64,
    /// Where memory was short.
    pub memory: u64,
    /// Where the client takes no packet that large.
    pub too_large: u64,
    /// Bytes of all their payloads.
    pub bytes: u64,
}

impl Unsent {
    /// Moves them from what was sent to what was dropped.
    fn correct(&self, counters: &mut Counters) {
        let reasons = [
            (DropReason::SendBufferFull, self.send_buffer),
            (DropReason::MemoryFull, self.memory),
            (DropReason::TooLarge, self.too_large),
        ];
        for (reason, count) in reasons {
            counters.drop(reason, count);
            counters.sent = counters.sent.saturating_sub(count);
        }
        counters.sent_bytes = counters.sent_bytes.saturating_sub(self.bytes);
    }
}

/// What lies between two publications.
#[derive(Debug, Default)]
pub(super) struct Sys {
    carried: Carried,
    /// Whether the next one is due some time.
    armed: bool,
    /// When the loads were brought up to date, monotonic.
    sampled: u64,
    loads: [Load; LOADS.len()],
    /// What the store said last.
    survey: Option<Survey>,
}

/// How much there was a minute, over the last one, five and fifteen.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    total: u64,
    per_minute: [f64; MINUTES.len()],
}

impl Load {
    /// Brings the means up to date after so many minutes, during which the growth was even.
    fn sample(&mut self, total: u64, minutes: f64) {
        let grown = total.saturating_sub(std::mem::replace(&mut self.total, total));
        for (mean, over) in self.per_minute.iter_mut().zip(MINUTES) {
            let kept = decayed(minutes / f64::from(over));
            *mean = grown as f64 / minutes * (1.0 - kept) + *mean * kept;
        }
    }
}

/// What is left after so many time constants: e to the power of minus that, to five digits. Nothing else asks
/// for the library of such functions, of which a gateway's memory would hold 320 KB.
fn decayed(times: f64) -> f64 {
    (1.0 - times / f64::from(STEPS)).max(0.0).powi(STEPS)
}

impl Broker {
    /// Learns what the engine has carried so far.
    pub fn carried(&mut self, carried: Carried) {
        self.sys.carried = carried;
    }

    /// Takes out of what was sent what the engine has dropped.
    pub(super) fn count_unsent(&self, counters: &mut Counters) {
        self.sys.carried.unsent.correct(counters);
    }

    /// Somebody subscribes: what he reads first is of now.
    pub(super) fn before_subscribing(&mut self, filter: &str, turn: &mut Turn<'_>) {
        if reads_sys(filter) && !self.sys.armed {
            self.arm_sys(turn.now.mono + EVERY);
            self.publish_sys(turn);
        }
    }

    /// A client has come: it may have subscribed when it was last here.
    pub(super) fn watch_sys_of(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key).filter(|_| !self.sys.armed) else { return };
        if client.session.subscriptions.iter().any(|known| reads_sys(&known.filter)) {
            self.arm_sys(0);
        }
    }

    /// A route may want it.
    pub(super) fn watch_sys_of_routes(&mut self) {
        if self.config.routes.iter().any(|route| reads_sys(&route.filter)) {
            self.arm_sys(0);
        }
    }

    fn arm_sys(&mut self, due: u64) {
        self.sys.armed = true;
        self.timers.push(due, Timer::Sys);
    }

    /// Ten seconds are over: while anybody reads, there is a next time.
    pub(super) fn on_sys_due(&mut self, turn: &mut Turn<'_>) {
        self.sys.armed = false;
        if self.publish_sys(turn) {
            self.arm_sys(turn.now.mono + EVERY);
        }
    }

    /// Publishes what has changed; whether anybody reads.
    fn publish_sys(&mut self, turn: &mut Turn<'_>) -> bool {
        let counters = self.counters();
        self.sample_loads(&counters, turn.now.mono);
        let figures = self.figures(&counters, turn.now.mono);
        turn.effects.push(Effect::Survey);
        self.publish_figures(figures, turn)
    }

    /// The store says how it does: told at once, and again only where it has changed.
    pub(super) fn on_surveyed(&mut self, survey: Survey, turn: &mut Turn<'_>) {
        self.sys.survey = Some(survey);
        let figures = self.store_figures();
        self.publish_figures(figures, turn);
    }

    fn publish_figures(&mut self, figures: Vec<(String, String)>, turn: &mut Turn<'_>) -> bool {
        let mut read = false;
        let mut matches = Vec::new();
        for (name, value) in figures {
            let topic = ByteString::from(format!("$SYS/broker/{name}"));
            self.router.matches(&topic, None, &mut matches);
            read |= matches.iter().any(|found| self.is_read_by(found.subscriber));
            if self.retained.of(&topic).is_some_and(|former| former.payload == value) {
                continue;
            }
            let message = Message {
                topic,
                payload: value.into(),
                qos: QoS::AtMostOnce,
                retain: self.config.limits.retain,
                properties: Properties::new(),
                expiry: None,
                received: turn.now.house,
                unclocked: false,
            };
            self.route(Arc::new(message), None, None, Pressure::Force, turn);
        }
        read
    }

    /// Whether somebody is there who takes it.
    fn is_read_by(&self, subscriber: Subscriber) -> bool {
        let is_here = |client: Option<&Client>| client.is_some_and(|client| client.outlet.is_some());
        match self.taker(subscriber) {
            Taker::Route(place) => self.config.routes.get(place).is_some_and(|route| !route.store),
            Taker::Client(slot) => is_here(self.clients.in_slot(slot)),
            Taker::Group(id) => self
                .groups
                .get(id)
                .is_some_and(|group| group.members.keys().any(|key| is_here(self.clients.get(*key)))),
        }
    }

    fn sample_loads(&mut self, counters: &Counters, now: u64) {
        let millis = now.saturating_sub(self.sys.sampled);
        if millis == 0 {
            return;
        }
        self.sys.sampled = now;
        let carried = self.sys.carried;
        let totals: [u64; LOADS.len()] = [
            carried.packets_in,
            carried.packets_out,
            counters.dropped.values().sum(),
            counters.received,
            counters.sent,
            carried.bytes_in,
            carried.bytes_out,
            carried.sockets,
            counters.connections_accepted,
        ];
        for (load, total) in self.sys.loads.iter_mut().zip(totals) {
            load.sample(total, millis as f64 / 60_000.0);
        }
    }

    /// What the store counts, by its name below `$SYS/broker`: the conservation line of every route.
    fn store_figures(&self) -> Vec<(String, String)> {
        let Some(survey) = &self.sys.survey else { return Vec::new() };
        let mut figures = vec![
            ("store/bytes/used".to_owned(), survey.size.to_string()),
            ("store/bytes/maximum".to_owned(), survey.max_size.to_string()),
            ("store/full".to_owned(), u8::from(survey.is_full).to_string()),
        ];
        let stored = self.config.routes.iter().filter(|route| route.store);
        let stored: BTreeSet<ReaderId> = stored.map(|route| route.reader).collect();
        let refused = |reader: &ReaderId| self.not_accepted_by_route.get(reader).copied().unwrap_or(0);
        for (reader, line) in &survey.routes {
            match stored.contains(reader) {
                true => route_figures("routes", line, Some(refused(reader)), &mut figures),
                false => route_figures("routes_gone", line, None, &mut figures),
            }
        }
        for line in &survey.unstored {
            route_figures("routes", line, Some(0), &mut figures);
        }
        figures
    }

    /// Every figure by its name below `$SYS/broker`, as it is written.
    fn figures(&self, counters: &Counters, now: u64) -> Vec<(String, String)> {
        let Carried { bytes_in, bytes_out, packets_in, packets_out, .. } = self.sys.carried;
        let away = counters.sessions - counters.clients.min(counters.sessions);
        // The house is nobody's client.
        let here = counters.clients - counters.house_clients;
        let stored = counters.retained + counters.queued;
        let numbers = [
            ("clients/total", here + away),
            ("clients/connected", here),
            ("clients/active", here),
            ("clients/disconnected", away),
            ("clients/inactive", away),
            ("clients/maximum", counters.most_guests),
            ("clients/expired", counters.sessions_expired),
            ("messages/received", packets_in),
            ("messages/sent", packets_out),
            ("messages/stored", stored),
            ("store/messages/count", stored),
            ("store/messages/bytes", self.retained.weight() as u64 + counters.queued_bytes),
            ("publish/messages/received", counters.received),
            ("publish/messages/sent", counters.sent),
            ("publish/messages/dropped", counters.dropped.values().sum()),
            ("publish/bytes/received", counters.received_bytes),
            ("publish/bytes/sent", counters.sent_bytes),
            ("bytes/received", bytes_in),
            ("bytes/sent", bytes_out),
            ("subscriptions/count", counters.subscriptions),
            ("shared_subscriptions/count", counters.shared_subscriptions),
            ("retained messages/count", counters.retained),
        ];
        let version = concat!("tidegate version ", env!("CARGO_PKG_VERSION"));
        let mut figures = vec![
            ("version".into(), version.into()),
            ("uptime".into(), format!("{} seconds", now.saturating_sub(self.started) / 1_000)),
        ];
        figures.extend(numbers.map(|(name, number)| (name.to_owned(), number.to_string())));
        for (name, load) in LOADS.iter().zip(&self.sys.loads) {
            figures.extend(
                MINUTES
                    .iter()
                    .zip(load.per_minute)
                    .map(|(over, mean)| (format!("load/{name}/{over}min"), format!("{mean:.2}"))),
            );
        }
        figures
    }
}

/// The conservation line of one route, and how many publishes were refused that it would have had.
fn route_figures(
    folder: &str,
    line: &ReaderStatus,
    refused: Option<u64>,
    figures: &mut Vec<(String, String)>,
) {
    let name = as_level(&line.name);
    let numbers = [
        ("received", line.received),
        ("delivered", line.delivered),
        ("queued", line.queued),
        ("expired", line.expired),
        ("dropped", line.dropped.values().sum()),
    ];
    let numbers = numbers.into_iter().chain(refused.map(|refused| ("not_accepted", refused)));
    let named = |figure: &str| format!("store/{folder}/{name}/{figure}");
    figures.extend(numbers.map(|(figure, number)| (named(figure), number.to_string())));
    figures.extend(
        line.dropped
            .iter()
            .map(|(reason, number)| (named(&format!("dropped/{}", reason.as_str())), number.to_string())),
    );
}

/// A route's name as one level of a topic: it holds a filter.
fn as_level(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace('#', "%23")
}

/// Whether a filter covers anything of `$SYS`, alone or in a group.
fn reads_sys(filter: &str) -> bool {
    is_volatile(filter::of_share(filter).unwrap_or(filter))
}

/// The loads, by their names below `load`.
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

/// The times over which a load is a mean, in minutes.
const MINUTES: [u32; 3] = [1, 5, 15];

/// Multiplications that stand for a power of e, by squaring twenty.
const STEPS: i32 = 1 << 20;

/// Milliseconds from one publication to the next.
const EVERY: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_load_reads_the_same_over_every_time_however_often_it_is_looked_at() {
        let (mut often, mut rarely) = (Load::default(), Load::default());
        for minute in 1..=60 {
            for part in 1..=6 {
                often.sample((minute - 1) * 600 + part * 100, 1.0 / 6.0);
            }
            if minute % 20 == 0 {
                rarely.sample(minute * 600, 20.0);
            }
        }
        for load in [often, rarely] {
            assert!(load.per_minute.iter().all(|mean| (mean - 600.0).abs() < 20.0), "{load:?}");
        }
    }

    #[test]
    fn the_short_mean_follows_first() {
        let mut load = Load::default();
        load.sample(600, 1.0);
        let [one, five, fifteen] = load.per_minute;
        assert!(one > five && five > fifteen && fifteen > 0.0, "{load:?}");
    }

    #[test]
    fn loads_decay_by_powers_of_e() {
        for times in [0.0_f64, 1e-6, 0.011, 1.0 / 3.0, 1.0, 5.0, 12.0, 1e5, 1e9] {
            let (own, expected) = (decayed(times), (-times).exp());
            assert!((own - expected).abs() < 1e-6, "{times}: {own} and {expected}");
        }
    }
}
