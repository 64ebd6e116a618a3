//! The loop: poll, gather, ask the broker, carry out, flush.
//!
//! A turn does all that a few words of anybody's ask for, and of everything else so much and no more: who has
//! little to say waits for no more than that.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Interest, Token};
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::carry::Courier;
use super::counters::Counters;
use super::inbox::WAKER;
use super::intake::{Intake, Lane, Share};
use super::notes::Limiter;
use super::port::Port;
use super::socket::Socket;
use super::status;
use super::table::{Link, Table};
use super::told::{Telling, Told};
use super::verify::{Effort, Verifier};
use super::work;
use super::{Heartbeat, Inbox, Input, Limits, Parts};
use crate::broker::{AuthOutcome, Broker, ConnectionId, Effect, Event, Leg, Peer, Terms, Verdict};
use crate::clock::Clock;
use crate::listener::{
    Accepted, Admitted, Board, Doors, Guests, Knock, Objection, Outcome, Stay, StreamPeer,
};
use crate::record::Now;

/// The engine; [`Engine::run`] is its thread.
pub struct Engine {
    pub(super) inbox: Inbox,
    pub(super) table: Table,
    pub(super) intake: Intake,
    pub(super) courier: Courier,
    /// What the next call of the broker will be told.
    pub(super) events: Vec<Event>,
    /// To whom a message goes, while it is sent.
    pub(super) legs: Vec<Leg>,
    pub(super) counters: Counters,
    /// What this turn took so far.
    pub(super) work: usize,
    /// The last turn took much, and has left its flush for this one.
    owes_flush: bool,
    pub(super) limits: Limits,
    clock: Clock,
    pub(super) broker: Broker,
    doors: Doors,
    /// Ports by their number; the order of their opening.
    ports: std::collections::BTreeMap<u64, ConnectionId>,
    /// Who waits for [`Input::Status`].
    asked: Vec<oneshot::Sender<Value>>,
    /// What is wrong with the files of passwords and rules: a line for each.
    file_troubles: Vec<String>,
    turned_away: Limiter,
    told: Told,
    heartbeat: Heartbeat,
    /// When to end at the latest; set once the service stops.
    stopping: Option<u64>,
}

impl Engine {
    /// Puts the parts together and opens the listeners; one that cannot be opened is tried again later.
    ///
    /// # Errors
    /// Where the kernel gives no thread for comparing passwords or for handshakes.
    pub fn new(parts: Parts) -> io::Result<Engine> {
        let Parts { inbox, clock, broker, store, listeners, limits, auth, unstored, heartbeat } = parts;
        let failures = limits.max_login_failures;
        let wanted = auth.passwords.is_some() || auth.rules.is_some();
        let verifier = wanted.then(|| Verifier::start(auth, failures, clock, inbox.inputs())).transpose()?;
        let of_doors = listeners.iter().map(|listener| listener.max_connections);
        let guests = Guests::new(limits.max_connections_per_address, limits.max_connect_rate, of_doors);
        let mut doors = Doors::open(listeners, inbox.poll.registry(), FIRST_DOOR, clock.now().mono);
        let inputs = inbox.inputs();
        doors.shake_hands(limits.handshakes, clock, move |outcome| {
            inputs.send_blocking(Input::Shaken(outcome)).is_ok()
        })?;
        Ok(Engine {
            courier: Courier::new(store, inbox.inputs(), verifier, unstored),
            inbox,
            table: Table::new(guests),
            intake: Intake::default(),
            events: Vec::new(),
            legs: Vec::new(),
            counters: Counters::default(),
            work: 0,
            owes_flush: false,
            limits,
            clock,
            broker,
            doors,
            ports: std::collections::BTreeMap::new(),
            asked: Vec::new(),
            file_troubles: Vec::new(),
            turned_away: Limiter::default(),
            told: Told::default(),
            heartbeat,
            stopping: None,
        })
    }

    /// How the listeners stand, for any thread.
    pub fn board(&self) -> Board {
        self.doors.board()
    }

    /// Turns until [`Input::Stop`] has been obeyed.
    ///
    /// # Errors
    /// Where polling fails, which no peer can cause.
    pub fn run(mut self) -> io::Result<()> {
        let mut polled = Events::with_capacity(POLLED_MAX);
        let mut effects = Vec::new();
        while self.turn(&mut polled, &mut effects)? {}
        Ok(())
    }

    /// Turns once; whether there is to be another turn.
    pub(super) fn turn(&mut self, polled: &mut Events, effects: &mut Vec<Effect>) -> io::Result<bool> {
        let timeout = self.timeout();
        match self.inbox.poll.poll(polled, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.counters.turns += 1;
        self.work = 0;
        self.heartbeat.turns.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        self.gather(polled, now);
        self.tell_memory(now);
        self.serve_brief(effects, now);
        self.serve_long(effects, now);
        self.end_turn(effects);
        self.end_farewells(now);
        self.answer_status();
        let is_over = self.stopping.is_some_and(|deadline| now.mono >= deadline || self.table.sockets() == 0);
        Ok(!is_over)
    }

    /// Tells the broker what waits in the buffers and what connections take, where that has changed.
    fn tell_memory(&mut self, now: Now) {
        let resting = self.table.resting() + self.doors.resting();
        if self.told.tell_resting(resting) {
            self.events.push(Event::Resting { bytes: resting });
        }
        let bytes = self.table.held();
        let heaviest = match self.told.tell_buffers(bytes, self.courier.memory, now.mono) {
            Telling::Nothing => return,
            Telling::Bytes => self.table.known_heaviest(),
            Telling::Heaviest => self.table.find_heaviest(),
        };
        self.events.push(Event::Buffered { bytes, heaviest });
    }

    /// What has happened, and those who say little: what that causes leaves before anything else is done.
    fn serve_brief(&mut self, effects: &mut Vec<Effect>, now: Now) {
        self.serve(Lane::Brief, BRIEF_WORK_MAX, effects, now);
        // First, so that the disk works meanwhile.
        self.courier.hand_over();
        self.flush_promptly();
    }

    /// Some of what others want: to come in, to say more, to be sent what waits for them.
    fn serve_long(&mut self, effects: &mut Vec<Effect>, now: Now) {
        let before = self.work;
        if self.stopping.is_none() {
            self.let_in(now);
        }
        if std::mem::take(&mut self.owes_flush) {
            return self.flush_some();
        }
        // After each round some of it is served, however soon the next one is due.
        if self.courier.round.is_none() && self.intake.is_long() {
            let left = LONG_WORK_MAX.saturating_sub(self.work - before);
            self.serve(Lane::Long, left.max(LONG_WORK_MAX / 4), effects, now);
            self.courier.hand_over();
            self.courier.unsent_work += self.work - before;
        }
        if self.is_flush_due() {
            self.owes_flush = self.work - before > LONG_WORK_MAX && !self.courier.put_off.is_empty();
            if !self.owes_flush {
                self.flush_some();
            }
        }
    }

    /// Serves those of a lane, about so much. The first share is one packet, and the next are as large as what
    /// the one before took lets them be, so that it does not become much where little means much.
    fn serve(&mut self, lane: Lane, most: usize, effects: &mut Vec<Effect>, now: Now) {
        let mut share = Share::new(true, 1, most);
        let mut packets = 1;
        self.courier.lane = lane;
        loop {
            // What has happened beside is nobody's who is served now.
            let is_his = self.events.is_empty();
            self.serve_lane(lane, &mut share, effects, now);
            let said = self.ask_broker(effects, now);
            share.take(said);
            self.work += share.done;
            if is_his
                && share.done > LONG_WORK_MAX
                && let Some(socket) = share.only().and_then(|id| self.table.socket(id))
            {
                socket.step_back();
            }
            if share.left == 0 || share.packets > 0 {
                return;
            }
            let fit = share.left * packets / share.done.max(1);
            packets = fit.clamp(1, (packets * SHARE_GROWTH_MAX).min(SHARE_PACKETS_MAX));
            share = Share::new(false, packets, share.left);
        }
    }

    /// Tells the broker what has happened and does what it says; how much work that was.
    pub(super) fn ask_broker(&mut self, effects: &mut Vec<Effect>, now: Now) -> usize {
        self.broker.carried(self.counters.carried());
        self.broker.handle(&mut self.events, now, effects);
        self.do_as_told(effects, now)
    }

    /// The same while there is more to tell of the same time.
    pub(super) fn tell_broker(&mut self, effects: &mut Vec<Effect>, now: Now) -> usize {
        self.broker.catch_up(&mut self.events, now, effects);
        self.do_as_told(effects, now)
    }

    /// Carries out what the broker says; how much work that was.
    pub(super) fn do_as_told(&mut self, effects: &mut Vec<Effect>, now: Now) -> usize {
        let (said, gathered, readers) = (effects.len(), self.courier.gathered, self.courier.more_readers);
        self.carry_out(effects, now);
        let readers = self.courier.more_readers - readers;
        let bytes = self.courier.gathered.saturating_sub(gathered);
        said * work::EFFECT + readers * work::STRAIGHT + work::of_bytes(bytes)
    }

    fn end_turn(&mut self, effects: &mut Vec<Effect>) {
        self.counters.most_work = self.counters.most_work.max(self.work as u64);
        // One message to very many has made it large.
        effects.shrink_to(EFFECTS_KEPT);
    }

    /// How long the loop may sleep.
    fn timeout(&self) -> Option<Duration> {
        let busy = self.intake.is_ready()
            || !self.courier.put_off.is_empty()
            || !self.events.is_empty()
            || !self.inbox.is_empty()
            || (self.doors.is_knocked() && self.stopping.is_none());
        if busy {
            return Some(Duration::ZERO);
        }
        let deadlines =
            [self.broker.deadline(), self.doors.deadline(), self.farewell_deadline(), self.stopping];
        let next = deadlines.into_iter().flatten().min();
        let sleep = next.map(|at| Duration::from_millis(at.saturating_sub(self.clock.now().mono)));
        match (sleep, self.heartbeat.every) {
            (Some(sleep), Some(every)) => Some(sleep.min(every)),
            (sleep, every) => sleep.or(every),
        }
    }

    /// Turns everything that has happened into events, in the order in which it is to be told.
    fn gather(&mut self, polled: &Events, now: Now) {
        for event in polled {
            match event.token() {
                WAKER => {}
                Token(token) if token >= FIRST_DOOR => self.doors.knock(token - FIRST_DOOR),
                Token(slot) => self.socket_polled(slot, event),
            }
        }
        self.take_inputs(now);
        if self.broker.deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.events.push(Event::Tick);
        }
    }

    fn socket_polled(&mut self, slot: usize, event: &mio::event::Event) {
        let Some((id, socket)) = self.table.polled(slot) else { return };
        let was_blocked = socket.is_blocked();
        socket.polled(event);
        if was_blocked && !socket.is_blocked() {
            self.courier.put_off(id, socket);
        }
        self.intake.list(&mut self.table, id);
    }

    fn let_in(&mut self, now: Now) {
        self.doors.try_again(self.inbox.poll.registry(), FIRST_DOOR, now.mono);
        for _ in 0..TURN_ACCEPTED_MAX {
            let Some(knock) = self.doors.accept(now.mono) else { return };
            self.work += work::ACCEPT;
            if !self.is_room_for(knock.peer(), now) {
                continue;
            }
            let Some(stay) = self.count_in(&knock, now) else { continue };
            match self.doors.admit(knock, stay) {
                Admitted::In(accepted) => self.take_in(*accepted),
                Admitted::Shaking => {}
                Admitted::Dropped(stay) => self.table.withdraw(stay),
            }
        }
    }

    /// Counts him who knocks as inside; `None` where the door stays shut.
    fn count_in(&mut self, knock: &Knock, now: Now) -> Option<Stay> {
        let admitted = self.table.admit(knock.door(), knock.address(), knock.way(), now.mono);
        if let Some(objection) = admitted.map_or_else(Some, |stay| stay.objection) {
            self.count_objection(objection);
        }
        admitted.ok()
    }

    /// Whether one more connection may be; otherwise he who wants it is turned away.
    fn is_room_for(&mut self, peer: StreamPeer, now: Now) -> bool {
        let room = self.table.guests() < self.limits.max_connections + TURNED_AWAY_POLITELY;
        if !room {
            self.counters.over_max_connections += 1;
            if let Some(missed) = self.turned_away.admit(now.mono) {
                warn!(peer = %peer, missed, "client turned away: max_connections are there");
            }
        }
        room
    }

    /// Others may have come in while he shook hands.
    fn take_in_shaken(&mut self, mut accepted: Accepted, now: Now) {
        if !self.is_room_for(accepted.peer, now) {
            return self.table.withdraw(accepted.stay);
        }
        match self.table.enter(accepted.stay) {
            Ok(stay) => {
                accepted.stay = stay;
                self.take_in(accepted);
            }
            Err(objection) => self.count_objection(objection),
        }
    }

    fn take_in(&mut self, accepted: Accepted) {
        let Accepted { mut stream, peer, stay, trust, mount, .. } = accepted;
        let token = Token(self.table.next_id().slot as usize);
        let registered = self.inbox.poll.registry().register(&mut stream, token, Interest::READABLE);
        if let Err(error) = registered {
            debug!("cannot poll a client: {error}");
            return self.table.withdraw(stay);
        }
        let socket = Socket::new(stream, stay, self.limits.max_packet_size);
        let connection = self.table.insert(Link::Socket(socket));
        self.counters.accepted += 1;
        let terms = Terms { mount, refusal: stay.objection.map(Objection::reason) };
        let peer = Peer { name: peer.to_string(), trust, terms };
        self.events.push(Event::Opened { connection, peer });
        // What came with the end of a handshake lies in the stream, where the kernel tells of nothing.
        if let Some(socket) = self.table.socket(connection)
            && socket.arrive()
        {
            self.courier.put_off(connection, socket);
        }
        self.intake.list(&mut self.table, connection);
    }

    fn count_objection(&mut self, objection: Objection) {
        let counter = match objection {
            Objection::Listener => &mut self.counters.over_listener_connections,
            Objection::Address => &mut self.counters.over_address_connections,
            Objection::Rate => &mut self.counters.over_connect_rate,
        };
        *counter += 1;
    }

    fn take_inputs(&mut self, now: Now) {
        self.inbox.rearm();
        for _ in 0..TURN_INPUTS_MAX {
            let Some(input) = self.inbox.next() else { break };
            self.work += work::PACKET;
            self.take_input(input, now);
        }
    }

    fn take_input(&mut self, input: Input, now: Now) {
        match input {
            Input::PortOpened { port, hello, outward } => {
                let id = self.table.next_id();
                let opened = Port::open(port, id, hello, outward, &mut self.events);
                self.table.insert(Link::Port(Box::new(opened)));
                self.ports.insert(port, id);
            }
            Input::FromPort { port, request } => {
                let Some(&id) = self.ports.get(&port) else { return };
                if let Some(port) = self.table.port(id) {
                    let drained = Event::Drained { connection: id };
                    // Several requests in a row are drained once.
                    self.events.pop_if(|last| *last == drained);
                    port.request(request, &mut self.events);
                    self.events.push(drained);
                }
            }
            Input::PortLost { port } => {
                if let Some(connection) = self.ports.remove(&port) {
                    self.events.push(Event::Lost { connection });
                    self.table.remove(connection);
                }
            }
            Input::Committed(through) => self.events.push(Event::Committed { through }),
            Input::Rows(rows) => self.events.push(Event::Rows(rows)),
            Input::Full(full) => self.events.push(Event::Full(full)),
            Input::Surveyed(survey) => self.events.push(Event::Surveyed(survey)),
            Input::Verified { connection, verdict, effort } => {
                self.count_verdict(verdict, effort);
                self.events.push(Event::Verified { connection, verdict });
            }
            Input::Authenticated { connection, outcome } => {
                self.count_outcome(&outcome);
                self.events.push(Event::Authenticated { connection, outcome });
            }
            Input::Shaken(Outcome::Done(accepted)) if self.stopping.is_none() => {
                self.take_in_shaken(*accepted, now);
            }
            Input::Shaken(Outcome::Done(accepted)) => self.table.withdraw(accepted.stay),
            Input::Shaken(Outcome::Over(stay)) => self.table.withdraw(stay),
            Input::Rules(rules) => {
                info!("the new access rules are in force, for those who are connected too");
                self.events.push(Event::Rules(rules));
            }
            Input::FileTroubles(troubles) => self.file_troubles = troubles,
            Input::Reread => {
                self.doors.look();
                self.courier.look();
            }
            Input::Status(reply) => self.asked.push(reply),
            Input::Stop => {
                self.doors.close();
                self.events.push(Event::Stop);
                self.stopping.get_or_insert(now.mono + STOP);
            }
        }
    }

    fn count_verdict(&mut self, verdict: Verdict, effort: Effort) {
        let counter = match (verdict, effort) {
            (_, Effort::Compared) => &mut self.counters.passwords_compared,
            (_, Effort::Remembered) => &mut self.counters.passwords_remembered,
            (Verdict::TooManyFailures, Effort::Spared) => &mut self.counters.over_login_failures,
            (_, Effort::Spared) => &mut self.counters.passwords_unchecked,
        };
        *counter += 1;
    }

    fn count_outcome(&mut self, outcome: &AuthOutcome) {
        match outcome {
            AuthOutcome::Challenge(_) => {}
            AuthOutcome::Proven { .. } | AuthOutcome::Wrong => self.counters.scram_logins += 1,
            AuthOutcome::Busy => self.counters.passwords_unchecked += 1,
            AuthOutcome::TooManyFailures => self.counters.over_login_failures += 1,
        }
    }

    /// Forgets a port that the broker has closed or that has to go.
    pub(super) fn forget_port(&mut self, id: ConnectionId) {
        if let Some(port) = self.table.port(id) {
            let number = port.number();
            self.ports.remove(&number);
            self.table.remove(id);
        }
    }

    /// A port did not read what it had granted: it is lost.
    pub(super) fn lose_port(&mut self, id: ConnectionId) {
        self.counters.ports_overrun += 1;
        self.events.push(Event::Lost { connection: id });
        self.forget_port(id);
    }

    fn answer_status(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        self.counters.sockets = self.table.sockets() as u64;
        self.counters.ports = self.table.ports() as u64;
        self.doors.post();
        let (doors, handshakes) = (self.board().read(), self.doors.handshakes());
        self.broker.carried(self.counters.carried());
        let counters = self.broker.counters();
        let status = status::of(&self.counters, &counters, &doors, &handshakes, &self.file_troubles);
        for reply in self.asked.drain(..) {
            // Who has asked may have given up.
            let _ = reply.send(status.clone());
        }
    }
}

/// Doors are polled under numbers from here on, connections below.
const FIRST_DOOR: usize = 1 << 31;

/// What the kernel tells in one turn; more waits for the next.
const POLLED_MAX: usize = 256;

/// What those who say little may take of a turn: a crowd of more than a hundred.
const BRIEF_WORK_MAX: usize = 4_096;

/// What all others may take of it.
pub(super) const LONG_WORK_MAX: usize = 512;

/// Packets that the broker is told of at once: what it says of them is in memory all together.
const SHARE_PACKETS_MAX: usize = 16;

/// So many times as large as the share before it a share may be: the packets before may not have been the dear
/// ones.
const SHARE_GROWTH_MAX: usize = 8;

/// Clients let in in one turn; more waits for the next.
const TURN_ACCEPTED_MAX: usize = 2;

/// So many beyond `max_connections` are let in, for the broker to refuse them in MQTT's own words; who
/// comes beyond these finds the connection closed.
const TURNED_AWAY_POLITELY: usize = 64;

/// Room for so many effects is kept from one turn to the next.
const EFFECTS_KEPT: usize = 4_096;

/// Inputs taken in one turn; more waits for the next.
const TURN_INPUTS_MAX: usize = 128;

/// Milliseconds from [`Input::Stop`] to the end, at most.
const STOP: u64 = 1_000;
