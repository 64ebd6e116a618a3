//! Carrying out what the broker says, in its order.
//!
//! Nothing is sent here: bytes gather in outboxes until the turn's end, and writes for the store in one
//! batch. What is said to somebody who has left is lost on purpose.

use std::collections::VecDeque;
use std::mem;

use tracing::warn;

use super::flush::Round;
use super::intake::Lane;
use super::notes::{Limiter, Notes};
use super::outbox::{Flushed, Pool};
use super::scram::Step;
use super::socket::Socket;
use super::table::Link;
use super::template::{Templates, size};
use super::turn::Engine;
use super::verify::{Question, Verifier};
use super::{Input, Inputs};
use crate::broker::{AuthOutcome, ConnectionId, Copy, Effect, Event, Level, Verdict};
use crate::codec::{Ack, Alias, Packet, Properties, QoS, Reason, encode};
use crate::record::{Now, Survey, Write};
use crate::store::Handle;
use crate::unstored::Inlet;

/// What effects need beside the connections themselves.
pub(super) struct Courier {
    pub(super) pool: Pool,
    /// Whose words are carried out.
    pub(super) lane: Lane,
    /// Connections to be flushed as soon as those who say little have been served: those who are answered, and
    /// then those who are sent messages.
    pub(super) answered: Vec<ConnectionId>,
    pub(super) dirty: Vec<ConnectionId>,
    /// Connections that wait to be flushed in a later turn, each once.
    pub(super) put_off: VecDeque<ConnectionId>,
    /// Set while it is their time.
    pub(super) round: Option<Round>,
    /// Work done for those who speak at length since it last was.
    pub(super) unsent_work: usize,
    /// Connections that the broker has closed and that are not yet gone, with the time at which they go
    /// in any case; in the order of that time.
    pub(super) farewells: VecDeque<(u64, ConnectionId)>,
    /// Bytes of messages put into outboxes since they were last flushed.
    pub(super) gathered: usize,
    /// Readers of the messages that are kept, beside the first of each.
    pub(super) more_readers: usize,
    /// How full the memory is, as the broker says.
    pub(super) memory: Level,
    templates: Templates,
    writes: Vec<Write>,
    hurry: bool,
    store: Handle,
    inputs: Inputs,
    verifier: Option<Verifier>,
    unstored: Vec<Option<Inlet>>,
    notes: Notes,
    unsayable: Limiter,
}

impl Courier {
    pub(super) fn new(
        store: Handle,
        inputs: Inputs,
        verifier: Option<Verifier>,
        unstored: Vec<Option<Inlet>>,
    ) -> Courier {
        Courier {
            pool: Pool::default(),
            lane: Lane::Brief,
            answered: Vec::new(),
            dirty: Vec::new(),
            put_off: VecDeque::new(),
            round: None,
            unsent_work: 0,
            farewells: VecDeque::new(),
            gathered: 0,
            more_readers: 0,
            memory: Level::Ample,
            templates: Templates::default(),
            writes: Vec::new(),
            hurry: false,
            store,
            inputs,
            verifier,
            unstored,
            notes: Notes::default(),
            unsayable: Limiter::default(),
        }
    }

    /// Has the files of passwords and rules looked at.
    pub(super) fn look(&self) {
        if let Some(verifier) = &self.verifier {
            verifier.look();
        }
    }

    /// Has a connection flushed that was answered something.
    pub(super) fn mark_answered(&mut self, id: ConnectionId, socket: &mut Socket) {
        match self.lane {
            Lane::Brief if socket.due().hurry() => self.answered.push(id),
            Lane::Brief => {}
            Lane::Long => self.put_off(id, socket),
        }
    }

    /// Has a connection flushed that was sent a message: at once where somebody who says little has caused that,
    /// though it may stand among those who wait.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId, socket: &mut Socket) {
        match self.lane {
            Lane::Brief if socket.due().hurry() => self.dirty.push(id),
            Lane::Brief => {}
            Lane::Long => self.put_off(id, socket),
        }
    }

    /// Has a connection flushed behind those who wait for that.
    pub(super) fn put_off(&mut self, id: ConnectionId, socket: &mut Socket) {
        if socket.due().put_off() {
            self.put_off.push_back(id);
        }
    }

    fn gather(&mut self, write: Write) {
        if let Write::Message { audience, .. } = &write {
            self.more_readers += audience.len().saturating_sub(1);
        }
        if self.writes.capacity() == 0 {
            self.writes = self.store.list();
        }
        self.writes.push(write);
    }

    /// Hands the turn's writes to the store in one piece.
    pub(super) fn hand_over(&mut self) {
        if !self.writes.is_empty() || self.hurry {
            self.store.write(mem::take(&mut self.writes), mem::take(&mut self.hurry));
        }
    }
}

impl Engine {
    /// Carries out the effects of one call of the broker.
    pub(super) fn carry_out(&mut self, effects: &mut Vec<Effect>, now: Now) {
        for effect in effects.drain(..) {
            self.carry_out_one(effect, now);
        }
        self.courier.templates.release();
    }

    fn carry_out_one(&mut self, effect: Effect, now: Now) {
        match effect {
            Effect::Deliver(copy) => self.deliver(copy),
            Effect::Send { connection, packet } => self.send(connection, packet, now),
            Effect::Write(write) => self.courier.gather(write),
            Effect::Hurry => self.courier.hurry = true,
            Effect::Memory(level) => self.courier.memory = level,
            Effect::Speak { connection, version, maximum_packet_size, topic_alias_maximum } => {
                if let Some(socket) = self.table.socket(connection) {
                    socket.version = version;
                    socket.maximum_packet_size = maximum_packet_size.unwrap_or(u32::MAX);
                    socket.give_aliases(topic_alias_maximum);
                }
            }
            Effect::Close { connection } => self.close(connection, now),
            Effect::Pause { connection } => {
                if let Some(socket) = self.table.socket(connection) {
                    socket.pause();
                }
            }
            Effect::Resume { connection } => {
                if let Some(socket) = self.table.socket(connection) {
                    socket.resume();
                    self.intake.list(&mut self.table, connection);
                }
            }
            Effect::Verify { connection, username, password } => {
                let address = self.table.socket(connection).and_then(|socket| socket.stay().address());
                self.verify(Question { connection, address, username, password });
            }
            Effect::Authenticate { connection, transcript } => {
                let address = self.table.socket(connection).and_then(|socket| socket.stay().address());
                self.authenticate(Step { connection, address, transcript });
            }
            Effect::Read { reader, after, limit } => {
                let inputs = self.courier.inputs.clone();
                self.courier.store.read(reader, after, limit, move |rows| {
                    // An engine that is gone needs no rows.
                    let _ = inputs.send_blocking(Input::Rows(rows));
                });
            }
            Effect::AwaitRoom { connection, most } => {
                self.table.await_room(connection, most);
                // What has left is looked at when it is flushed.
                self.mark_answered(connection);
            }
            Effect::Survey => {
                let inputs = self.courier.inputs.clone();
                let unstored = self.courier.unstored.iter().flatten().map(Inlet::line).collect();
                self.courier.store.status(move |status| {
                    // An engine that is gone has nobody to tell.
                    let _ = inputs.send_blocking(Input::Surveyed(Survey { unstored, ..status.survey() }));
                });
            }
            Effect::Forward { route, message } => {
                if let Some(Some(inlet)) = self.courier.unstored.get(route) {
                    inlet.put(&message);
                }
            }
            Effect::Note(note) => self.courier.notes.write(&note, now.mono),
        }
    }

    fn send(&mut self, connection: ConnectionId, packet: Packet, now: Now) {
        let encoded = match self.table.link(connection) {
            Some(Link::Port(port)) => {
                port.answer(packet, &mut self.events);
                if port.is_overrun() {
                    self.lose_port(connection);
                }
                return;
            }
            Some(Link::Socket(socket)) if socket.is_open() => {
                encode(&packet, socket.version, socket.buffer(&mut self.courier.pool))
            }
            Some(Link::Socket(_)) | None => return,
        };
        self.counters.packets_out += u64::from(encoded.is_ok());
        self.mark_answered(connection);
        if let Err(error) = encoded
            && let Some(missed) = self.courier.unsayable.admit(now.mono)
        {
            warn!(missed, "cannot send a packet to a client: {error}");
        }
    }

    pub(super) fn deliver(&mut self, copy: Copy) {
        let (connection, qos, packet_id) = (copy.connection, copy.qos, copy.packet_id);
        let payload = copy.message.payload.len() as u64;
        let limit = self.limits.max_send_buffer;
        if self.courier.gathered > 2 * self.gathered_max() {
            // One packet means so much; and what nobody takes shows only when it is tried.
            self.flush_all();
        }
        let heaviest = self.table.heaviest();
        let level = Level::of(self.table.held(), self.limits.max_memory);
        let courier = &mut self.courier;
        let socket = match self.table.link(connection) {
            Some(Link::Port(port)) => {
                port.deliver(&copy);
                if port.is_overrun() {
                    self.lose_port(connection);
                }
                return;
            }
            Some(Link::Socket(socket)) if socket.is_open() => socket,
            Some(Link::Socket(_)) | None => return,
        };
        let most = socket.maximum_packet_size as usize;
        let mut alias = socket.alias_of(copy.topic());
        if matches!(alias, Alias::Gives(_)) && size(socket.version, &copy, alias) > most {
            // It may fit by its name alone.
            alias = Alias::None;
        }
        let prepared = courier.templates.prepare(socket.version, &copy, alias);
        let sized = prepared.map(|prepared| (prepared.size(), prepared)).filter(|(bytes, _)| *bytes <= most);
        let Some((bytes, prepared)) = sized else {
            return self.discard(connection, qos, packet_id, payload);
        };
        if qos == QoS::AtMostOnce && socket.is_full(bytes, limit) {
            // Much may be sent in one turn; only what the peer does not take is over the limit.
            let written = &mut self.counters.bytes_out;
            let registry = self.inbox.poll.registry();
            let flushed = socket.flush(connection, registry, &mut courier.pool, usize::MAX, written);
            if flushed != Flushed::All && socket.is_full(bytes, limit) {
                self.counters.dropped_send_buffer += 1;
                self.counters.dropped_bytes += payload;
                return;
            }
        }
        // The broker's word is of the turn's beginning, and one turn may bring much to many.
        let memory = courier.memory.max(level);
        if qos == QoS::AtMostOnce && is_spared(socket, memory, heaviest) {
            self.counters.dropped_memory += 1;
            self.counters.dropped_bytes += payload;
            return;
        }
        if prepared.append(socket.buffer(&mut courier.pool)).is_err() {
            return self.discard(connection, qos, packet_id, payload);
        }
        courier.gathered += bytes;
        self.counters.packets_out += 1;
        socket.named(copy.topic(), alias);
        courier.mark_dirty(connection, socket);
    }

    /// A message that the client cannot be sent: its exchange is over. [MQTT5-3.1.2-25]
    fn discard(&mut self, connection: ConnectionId, qos: QoS, packet_id: u16, payload: u64) {
        let ack = Ack { packet_id, reason: Reason::PacketTooLarge, properties: Properties::new() };
        let packet = match qos {
            QoS::AtMostOnce => {
                self.counters.dropped_too_large += 1;
                self.counters.dropped_bytes += payload;
                return;
            }
            QoS::AtLeastOnce => Packet::PubAck(ack),
            QoS::ExactlyOnce => Packet::PubRec(ack),
        };
        self.events.push(Event::Packet { connection, packet });
    }

    fn verify(&mut self, question: Question) {
        // Without a password file no password fits.
        let (connection, verdict) = match &self.courier.verifier {
            None => (question.connection, Verdict::Wrong),
            Some(verifier) => {
                let Some(turned_away) = verifier.ask(question) else { return };
                self.counters.passwords_unchecked += 1;
                (turned_away, Verdict::Busy)
            }
        };
        self.events.push(Event::Verified { connection, verdict });
    }

    fn authenticate(&mut self, step: Step) {
        // Without a password file nobody has a password.
        let (connection, outcome) = match &self.courier.verifier {
            None => (step.connection, AuthOutcome::Wrong),
            Some(verifier) => {
                let Some(turned_away) = verifier.go_on(step) else { return };
                self.counters.passwords_unchecked += 1;
                (turned_away, AuthOutcome::Busy)
            }
        };
        self.events.push(Event::Authenticated { connection, outcome });
    }

    fn close(&mut self, connection: ConnectionId, now: Now) {
        match self.table.link(connection) {
            Some(Link::Port(port)) => {
                port.close();
                self.forget_port(connection);
            }
            Some(Link::Socket(socket)) => {
                socket.close();
                if self.courier.memory > Level::Ample && socket.is_blocked() {
                    // Last words that nobody takes are held for nobody.
                    socket.fall_silent();
                }
                self.courier.farewells.push_back((now.mono + FAREWELL, connection));
                self.mark_answered(connection);
            }
            None => {}
        }
    }
}

/// Whether a reader is so slow that it is sent no QoS 0 while memory is short: the slowest first, and at
/// the limit each that takes nothing.
fn is_spared(socket: &Socket, memory: Level, heaviest: usize) -> bool {
    let share = match memory {
        Level::Ample => return false,
        Level::Tight => heaviest / 2,
        Level::Full => 0,
    };
    socket.is_blocked() && socket.waiting() > share
}

/// Milliseconds that a closed connection has to take its last bytes and to see the end.
const FAREWELL: u64 = 2_000;
