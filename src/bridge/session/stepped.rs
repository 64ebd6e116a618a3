//! A bridge without tasks: a test takes the steps of its loop, one by one.
//!
//! Link, routes and loop are the real ones. Below the [`Uplink`] stands a small engine with the ways of
//! rumqttc: it gives packet ids in turn from a ring twice the window wide, holds a message back while its
//! id is taken, and sends nothing after it until that is free.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use super::*;
use crate::bridge::Config;
use crate::bridge::routes::Supply;
use crate::bridge::status::Status;
use crate::bridge::uplink::{Arrival, Receipt};
use crate::record::ReaderId;
use crate::store::Handle;

/// A bridge that stands still between two calls.
pub(crate) struct Stepped {
    config: Checked,
    pace: Pace,
    clock: Clock,
    routes: Routes,
    board: Board,
    memory: Memory,
    kept: Option<Kept>,
    engine: Arc<Mutex<Engine>>,
}

/// A packet to upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Up {
    Publish { packet_id: u16, topic: String, payload: Bytes },
    Subscribe { filter: String },
    PubAck { packet_id: u16 },
}

/// A packet from upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Down {
    PubAck {
        packet_id: u16,
        reason: Reason,
    },
    SubAck,
    Publish {
        packet_id: u16,
        topic: String,
        payload: Bytes,
    },
    /// Any other sign of life.
    Heard,
}

/// A message from upstream that is to be published here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// On which connection it came.
    pub(crate) connection: u64,
    pub(crate) packet_id: u16,
    pub(crate) topics: Vec<String>,
    pub(crate) payload: Bytes,
}

#[derive(Default)]
struct Engine {
    requests: VecDeque<Request>,
    happenings: VecDeque<Happening>,
    /// Packet ids of what is on the wire.
    taken: BTreeSet<u16>,
    last_id: u16,
    held: Option<(u16, Outbound)>,
    ring: u16,
}

enum Request {
    Publish(Outbound),
    Subscribe(String),
    Acknowledge(Receipt),
}

struct Wire(Arc<Mutex<Engine>>);

impl Wire {
    fn ask(&mut self, request: Request) -> Result<(), Overrun> {
        lock(&self.0).requests.push_back(request);
        Ok(())
    }
}

impl Uplink for Wire {
    fn publish(&mut self, outbound: Outbound) -> Result<(), Overrun> {
        self.ask(Request::Publish(outbound))
    }

    fn subscribe(&mut self, filter: &str, _qos: QoS) -> Result<(), Overrun> {
        self.ask(Request::Subscribe(filter.to_owned()))
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), Overrun> {
        panic!("{filter} is of no earlier configuration")
    }

    fn acknowledge(&mut self, receipt: Receipt) -> Result<(), Overrun> {
        self.ask(Request::Acknowledge(receipt))
    }

    fn disconnect(&mut self) -> Result<(), Overrun> {
        Ok(())
    }
}

impl Stepped {
    /// A bridge of this configuration; its routes are these readers.
    pub(crate) fn new(config: &Config, readers: &[ReaderId], store: Handle) -> Stepped {
        Stepped::supplied(config, readers.iter().copied().map(Supply::Stored).collect(), store)
    }

    /// Its routes are supplied so.
    pub(crate) fn supplied(config: &Config, supplies: Vec<Supply>, store: Handle) -> Stepped {
        let config = config.check("sim").expect("the simulation's bridge is valid");
        let clock = Clock::start();
        Stepped {
            routes: Routes::new(&config.forwards, supplies, store),
            board: Board::new(&config, clock.now().wall),
            config,
            pace: Pace::default(),
            clock,
            memory: Memory::default(),
            kept: None,
            engine: Arc::default(),
        }
    }

    /// What is shown of it.
    pub(crate) fn shown(&self) -> Status {
        self.board.watch().borrow().clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.kept.is_some()
    }

    /// Upstream has accepted a connection.
    pub(crate) fn connect(&mut self, session_present: bool) {
        let ring = self.config.window * 2 + 1;
        self.engine = Arc::new(Mutex::new(Engine { ring, ..Engine::default() }));
        self.memory.number += 1;
        let welcome = Welcome {
            session_present,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            maximum_qos: QoS::ExactlyOnce,
            retain: Retain::Available,
            keepalive: None,
        };
        let wire = Box::new(Wire(self.engine.clone()));
        let mut work = Loop::new(self.session(), wire, Cuts::new(mpsc::channel(1).1), &welcome)
            .expect("upstream allows a window");
        work.subscribe(session_present).expect("the engine takes it");
        self.kept = Some(work.kept);
    }

    /// The loop takes so many happenings and does what it does before it waits. An error is the end of the
    /// connection.
    pub(crate) fn turn(&mut self, most: usize) -> Result<(), String> {
        let Some(kept) = self.kept.take() else { return Ok(()) };
        let happenings: Vec<Happening> = {
            let mut engine = lock(&self.engine);
            let count = if kept.backlog.is_empty() { most.min(engine.happenings.len()) } else { 0 };
            engine.happenings.drain(..count).collect()
        };
        let mut work = Loop { session: self.session(), kept };
        let result = work.step(happenings);
        match result {
            Ok(()) => self.kept = Some(work.kept),
            Err(trouble) => {
                work.close();
                self.engine = Arc::default();
                return Err(trouble.to_string());
            }
        }
        self.take_answers();
        Ok(())
    }

    /// What the store has answered, and what has come for routes that keep nothing.
    fn take_answers(&mut self) {
        let live = self.kept.as_ref().map_or(Live::Leave, Kept::live);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let changed = std::pin::pin!(self.routes.changed(live));
            if changed.poll(&mut context).is_pending() {
                return;
            }
        }
    }

    /// The engine passes on so many of its requests.
    pub(crate) fn pass_on(&mut self, most: usize) -> Vec<Up> {
        let mut engine = lock(&self.engine);
        let mut packets = Vec::new();
        for _ in 0..most {
            packets.extend(engine.pass_on());
        }
        packets
    }

    /// A packet of upstream has come.
    pub(crate) fn hear(&mut self, packet: Down) -> Option<Up> {
        lock(&self.engine).hear(packet)
    }

    /// The connection is gone.
    pub(crate) fn lose(&mut self) {
        self.engine = Arc::default();
        if let Some(kept) = self.kept.take() {
            Loop { session: self.session(), kept }.close();
        }
    }

    /// The oldest message from upstream that waits to be published here.
    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        let inbound = self.kept.as_mut()?.backlog.pop_front()?;
        Some(Arrived {
            connection: inbound.connection,
            packet_id: inbound.receipt.packet_id,
            topics: inbound.targets.into_iter().map(|(topic, _)| topic).collect(),
            payload: inbound.payload,
        })
    }

    /// The broker has it.
    pub(crate) fn took(&mut self, arrived: &Arrived) {
        let Some(kept) = self.kept.take() else { return };
        let receipt = Receipt { packet_id: arrived.packet_id, qos: QoS::AtLeastOnce };
        let done = Done { connection: arrived.connection, receipt, denied: Vec::new() };
        let mut work = Loop { session: self.session(), kept };
        work.acknowledge(done).expect("the engine takes it");
        self.kept = Some(work.kept);
    }

    /// Messages that were handed over and are not acknowledged.
    pub(crate) fn under_way(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.link.under_way())
    }

    /// Whether a connection has carried something.
    pub(crate) fn has_worked(&self) -> bool {
        self.memory.worked
    }

    /// Whether nothing is left to be done without a word from elsewhere.
    pub(crate) fn is_idle(&self) -> bool {
        let engine = lock(&self.engine);
        engine.requests.is_empty() && engine.happenings.is_empty() && self.under_way() == 0
    }

    fn session(&mut self) -> Session<'_> {
        Session {
            config: &self.config,
            pace: &self.pace,
            clock: self.clock,
            routes: &mut self.routes,
            downlink: None,
            board: &self.board,
            memory: &mut self.memory,
        }
    }
}

impl Loop<'_> {
    fn step(&mut self, happenings: Vec<Happening>) -> Result<(), Trouble> {
        self.kept.news.extend(happenings);
        self.catch_up()?;
        self.watch_over()?;
        self.open_gate()?;
        self.offer()?;
        self.session.routes.flush();
        self.session.routes.read_ahead();
        Ok(())
    }
}

impl Engine {
    fn pass_on(&mut self) -> Option<Up> {
        if self.held.is_some() {
            return None;
        }
        match self.requests.pop_front()? {
            Request::Publish(outbound) => {
                self.last_id = self.last_id % self.ring + 1;
                if self.taken.contains(&self.last_id) {
                    self.happenings.push_back(Happening::Held(self.last_id));
                    self.held = Some((self.last_id, outbound));
                    return None;
                }
                Some(self.publish(self.last_id, outbound))
            }
            Request::Subscribe(filter) => Some(Up::Subscribe { filter }),
            Request::Acknowledge(receipt) => Some(Up::PubAck { packet_id: receipt.packet_id }),
        }
    }

    fn publish(&mut self, packet_id: u16, outbound: Outbound) -> Up {
        self.taken.insert(packet_id);
        self.happenings.push_back(Happening::Sent(packet_id));
        Up::Publish { packet_id, topic: outbound.topic, payload: outbound.payload }
    }

    fn hear(&mut self, packet: Down) -> Option<Up> {
        let happening = match packet {
            Down::PubAck { packet_id, reason } => {
                assert!(self.taken.remove(&packet_id), "upstream acknowledges what it was sent");
                self.happenings.push_back(Happening::Acknowledged(packet_id, reason));
                // After a refusal rumqttc sends neither what it held nor anything after it.
                let freed = |(held, _): &mut (u16, Outbound)| *held == packet_id && !reason.is_error();
                let (held, outbound) = self.held.take_if(freed)?;
                return Some(self.publish(held, outbound));
            }
            Down::SubAck => Happening::Subscribed(Ok(QoS::AtLeastOnce)),
            Down::Publish { packet_id, topic, payload } => Happening::Arrived(Arrival {
                topic,
                payload,
                retain: false,
                properties: Properties::new(),
                receipt: Receipt { packet_id, qos: QoS::AtLeastOnce },
            }),
            Down::Heard => Happening::Heard,
        };
        self.happenings.push_back(happening);
        None
    }
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
