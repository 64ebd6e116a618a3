//! All connections of one run, served by one thread and one poll.
//!
//! A [`Handler`] gets the packets of every connection as they come and says what to answer. One read takes
//! what is there, and the answers to all of it leave in one write.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tidegate::codec::{
    Connect, Properties, Property, QoS, Reason, RetainHandling, Side, Subscribe, Subscription,
    SubscriptionOptions, Version, encode,
};

use super::Outcome;
use super::brokers::Broker;
use super::packet::{self, Packet, decoded, hear};
use super::patience::Patience;
use super::wire::{Dial, Filled, Sent, Wire};
use crate::stand::monotonic;

/// Receives what the connections bring.
pub(crate) trait Handler {
    /// A packet for this connection, so long after the hub's start; what it is answered goes into `out`.
    fn on(&mut self, connection: usize, packet: Packet<'_>, out: &mut Vec<u8>, now: Duration) -> Outcome<()>;
}

/// Nobody says anything to idle clients.
pub(crate) struct Silence;

impl Handler for Silence {
    fn on(&mut self, connection: usize, packet: Packet<'_>, _: &mut Vec<u8>, _: Duration) -> Outcome<()> {
        Err(format!("client {connection} hears {packet:?}"))
    }
}

/// Whom to connect.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) session: Session,
    pub(crate) filters: Vec<String>,
}

/// How long its session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// It ends with the connection.
    Brief,
    /// It outlives the connection.
    Kept,
}

/// One of them, connected.
pub(crate) struct Connection {
    wire: Wire,
    /// Packets to send; [`Hub::flush`] sends them.
    pub(crate) out: Vec<u8>,
    sent: Sent,
    /// What has come of a packet whose end has not.
    begun: Vec<u8>,
    /// Whether anything came since the kernel was told to acknowledge.
    heard: bool,
    /// What CONNACK has said.
    pub(crate) present: bool,
    pub(crate) receive_maximum: u16,
}

/// The connections.
pub(crate) struct Hub {
    pub(crate) version: Version,
    port: u16,
    dial: Dial,
    stall: Duration,
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    start: Instant,
    pub(crate) connections: Vec<Connection>,
    /// Those that brought more than their handshake, which nobody has handled yet.
    unread: Vec<usize>,
    /// PINGRESPs so far.
    pongs: usize,
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Hub {
    pub(crate) fn new(version: Version, broker: &Broker) -> Hub {
        let poll = Poll::new().unwrap();
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .unwrap();
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE).unwrap();
        Hub {
            version,
            port: broker.port,
            dial: broker.dial.clone(),
            stall: broker.stall,
            poll,
            events: Events::with_capacity(1_024),
            timer,
            start: monotonic(),
            connections: Vec::new(),
            unread: Vec::new(),
            pongs: 0,
            raw: vec![0; READ],
            plain: vec![0; BEGUN_MAX + READ + RECORD_MAX],
        }
    }

    /// Time since the hub was made.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// How long it waits for the broker, from now on.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.now(), self.stall)
    }

    /// Connects clients, which become the next connections in order; their filters are subscribed.
    pub(crate) fn connect(&mut self, clients: &[Client], qos: QoS) -> Outcome<()> {
        for some in clients.chunks(BURST) {
            let mut opened = Vec::new();
            for client in some {
                opened.push(self.open(client).map_err(|error| format!("cannot connect: {error}"))?);
            }
            for (client, mut connection) in some.iter().zip(opened) {
                self.welcome(&mut connection)?;
                for filters in client.filters.chunks(FILTERS) {
                    self.subscribe(&mut connection, filters, qos)?;
                }
                self.adopt(connection)?;
            }
        }
        Ok(())
    }

    fn open(&self, client: &Client) -> io::Result<Connection> {
        let mut wire = Wire::connect(&self.dial, self.port)?;
        let kept = client.session == Session::Kept;
        let properties = match (kept, self.version) {
            (true, Version::V5) => Properties::from_list(&[Property::SessionExpiryInterval(u32::MAX)]),
            _ => Properties::new(),
        };
        let connect = Connect {
            version: self.version,
            clean_start: !kept,
            // No run lasts so long, so no PINGREQ is ever due.
            keep_alive: 3_600,
            client_id: client.id.as_str().into(),
            will: None,
            username: None,
            password: None,
            properties,
        };
        let mut out = Vec::new();
        encode(&tidegate::codec::Packet::Connect(Box::new(connect)), self.version, &mut out).expect("small");
        wire.send(&mut out)?;
        Ok(Connection {
            wire,
            out,
            sent: Sent::All,
            begun: Vec::new(),
            heard: true,
            present: false,
            receive_maximum: u16::MAX,
        })
    }

    /// Waits for CONNACK.
    fn welcome(&mut self, connection: &mut Connection) -> Outcome<()> {
        match self.rare(connection)? {
            tidegate::codec::Packet::ConnAck(answer) if answer.reason == Reason::Success => {
                connection.present = answer.session_present;
                connection.receive_maximum = answer.properties.receive_maximum().unwrap_or(u16::MAX);
                Ok(())
            }
            other => Err(format!("{other:?} in place of CONNACK")),
        }
    }

    /// Subscribes and waits for SUBACK.
    fn subscribe(&mut self, connection: &mut Connection, filters: &[String], qos: QoS) -> Outcome<()> {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let one = |filter: &String| Subscription { filter: filter.as_str().into(), options };
        let subscribe = Subscribe {
            packet_id: 1,
            properties: Properties::new(),
            filters: filters.iter().map(one).collect(),
        };
        let packet = tidegate::codec::Packet::Subscribe(subscribe);
        encode(&packet, self.version, &mut connection.out).expect("small");
        connection.wire.send(&mut connection.out).map_err(|error| error.to_string())?;
        match self.rare(connection)? {
            tidegate::codec::Packet::SubAck(answer) => {
                match answer.reasons.iter().find(|reason| reason.is_error()) {
                    Some(reason) => Err(format!("a filter is refused: {reason:?}")),
                    None => Ok(()),
                }
            }
            other => Err(format!("{other:?} in place of SUBACK")),
        }
    }

    /// Waits for a packet of a handshake.
    fn rare(&mut self, connection: &mut Connection) -> Outcome<tidegate::codec::Packet> {
        let patience = self.patience();
        loop {
            patience.check(self.now())?;
            match hear(&connection.begun, self.version)? {
                Some((Packet::Rare(bytes), used)) => {
                    let packet = decoded(Side::Client, bytes, self.version)?;
                    connection.begun.drain(..used);
                    return Ok(packet);
                }
                Some((other, _)) => return Err(format!("{other:?} within the handshake")),
                None => {}
            }
            match connection.wire.fill(&mut self.raw, &mut self.plain) {
                Ok(Filled::Some(count) | Filled::All(count)) => {
                    connection.begun.extend_from_slice(&self.plain[..count]);
                }
                Ok(Filled::Closed) => return Err("closed within the handshake".into()),
                Err(error) => return Err(format!("cannot read the handshake: {error}")),
            }
        }
    }

    fn adopt(&mut self, connection: Connection) -> Outcome<()> {
        let number = self.connections.len();
        connection.wire.unblock().unwrap();
        let descriptor = connection.wire.descriptor();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&descriptor), Token(number), both).unwrap();
        // Whatever came before the socket was watched is looked for once.
        self.unread.push(number);
        self.connections.push(connection);
        Ok(())
    }

    /// Whether the socket takes no more for now.
    pub(crate) fn is_full(&self, connection: usize) -> bool {
        self.connections[connection].sent == Sent::Part
    }

    /// Sends what waits in `out`; what does not go now follows when there is room.
    pub(crate) fn flush(&mut self, number: usize) -> Outcome<()> {
        let connection = &mut self.connections[number];
        connection.sent = connection
            .wire
            .send(&mut connection.out)
            .map_err(|error| format!("client {number} cannot send: {error}"))?;
        Ok(())
    }

    /// Waits so long at most, and handles what has come.
    pub(crate) fn poll(&mut self, limit: Duration, handler: &mut impl Handler) -> Outcome<()> {
        for number in std::mem::take(&mut self.unread) {
            self.read(number, handler)?;
        }
        // Epoll as mio asks it counts in milliseconds, which is an age here.
        let wait = (limit.is_zero()).then_some(Duration::ZERO);
        if !limit.is_zero() {
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec::try_from(limit).expect("a short wait");
            let once = Itimerspec { it_interval: none, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).unwrap();
        }
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.unwrap(),
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != TIMER) {
            let number = event.token().0;
            if event.is_writable() && self.is_full(number) {
                self.flush(number)?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(number, handler)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Handles whatever comes within so long.
    pub(crate) fn linger(&mut self, time: Duration, handler: &mut impl Handler) -> Outcome<()> {
        let end = self.now() + time;
        while self.now() < end {
            self.poll(end.saturating_sub(self.now()), handler)?;
        }
        Ok(())
    }

    /// All has come: what comes now is a double.
    pub(crate) fn await_doubles(&mut self, handler: &mut impl Handler) -> Outcome<()> {
        self.linger(QUIET, handler)
    }

    /// Handles what the socket has, to its end.
    fn read(&mut self, number: usize, handler: &mut impl Handler) -> Outcome<()> {
        let (mut raw, mut plain) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.plain));
        let result = loop {
            let connection = &mut self.connections[number];
            connection.heard = true;
            let begun = connection.begun.len();
            if begun > BEGUN_MAX {
                break Err(format!("client {number} hears a packet of more than {BEGUN_MAX} bytes"));
            }
            plain[..begun].copy_from_slice(&connection.begun);
            let (count, more) = match connection.wire.fill(&mut raw, &mut plain[begun..]) {
                Ok(Filled::Some(count)) => (count, true),
                Ok(Filled::All(count)) => (count, false),
                Ok(Filled::Closed) => break Err(format!("client {number} was closed by the broker")),
                Err(error) => break Err(format!("client {number} cannot read: {error}")),
            };
            match self.handle(number, &plain[..begun + count], handler) {
                Ok(()) if more => {}
                result => break result,
            }
        };
        (self.raw, self.plain) = (raw, plain);
        result
    }

    fn handle(&mut self, number: usize, bytes: &[u8], handler: &mut impl Handler) -> Outcome<()> {
        let now = self.now();
        let connection = &mut self.connections[number];
        let mut at = 0;
        while let Some((packet, used)) = hear(&bytes[at..], self.version)? {
            match packet {
                Packet::PingResp => self.pongs += 1,
                packet => handler.on(number, packet, &mut connection.out, now)?,
            }
            at += used;
        }
        connection.begun.clear();
        connection.begun.extend_from_slice(&bytes[at..]);
        if connection.out.is_empty() { Ok(()) } else { self.flush(number) }
    }

    /// Waits until the broker has handled all that these have sent: it answers a PINGREQ after all that
    /// came before. That is the only way to see that it is done with acknowledgements.
    pub(crate) fn barrier(&mut self, these: Range<usize>, handler: &mut impl Handler) -> Outcome<()> {
        let wanted = self.pongs + these.len();
        for number in these {
            self.connections[number].out.extend_from_slice(&packet::PINGREQ);
            self.flush(number)?;
        }
        let mut patience = self.patience();
        while self.pongs < wanted {
            self.poll(patience.wait(), handler)?;
            patience.look(self.pongs as u64, self)?;
        }
        Ok(())
    }

    /// Acknowledges on the level of TCP what was received. A broker with Nagle's algorithm holds its last
    /// bytes back until then, while our kernel waits 40 ms for data to carry the acknowledgement.
    pub(crate) fn acknowledge(&mut self) {
        for connection in self.connections.iter_mut().filter(|connection| connection.heard) {
            connection.heard = false;
            connection.wire.acknowledge();
        }
    }

    /// Says DISCONNECT on all and waits until the broker has closed them.
    pub(crate) fn leave(mut self) -> Outcome<()> {
        let patience = self.patience();
        for connection in &mut self.connections {
            let failed = |error: io::Error| format!("a client cannot leave: {error}");
            connection.wire.block().map_err(failed)?;
            connection.out.extend_from_slice(&packet::DISCONNECT);
            connection.wire.send(&mut connection.out).map_err(failed)?;
            while connection.wire.fill(&mut self.raw, &mut self.plain).map_err(failed)? != Filled::Closed {
                patience.check(self.start.elapsed())?;
            }
        }
        Ok(())
    }
}

const TIMER: Token = Token(usize::MAX);
const READ: usize = 256 << 10;
/// What may wait: the begin of a packet, or what came with a handshake.
const BEGUN_MAX: usize = READ + RECORD_MAX;
/// What TLS may have kept of a record, besides what one read brings.
const RECORD_MAX: usize = 32 << 10;
/// Handshakes under way at once, below any broker's backlog.
const BURST: usize = 50;
/// Filters in one SUBSCRIBE.
const FILTERS: usize = 100;
/// How long doubles are waited for.
const QUIET: Duration = Duration::from_millis(50);
