//! One message to everybody who wants it: the log, routes, retained store, sessions.
//!
//! A copy of QoS 0 costs one effect. A kept session that has caught up gets its copy at once, from RAM;
//! one that has not only counts it. A message is made compact before anything holds it for long.

use std::sync::Arc;

use bytestring::ByteString;

use super::client::{Client, ClientKey};
use super::depart::Cause;
use super::ledger::Ledger;
use super::ledger::Step;
use super::limits::Limits;
use super::outlet::Label;
use super::publish::is_volatile;
use super::{Broker, Effect, Taker, Turn, WhenFull};
use crate::codec::{QoS, Reason};
use crate::record::{DropReason, Identifiers, Message, Now, Presence, ReaderId, Seq, Ticket, Want, Write};
use crate::router::Match;
use crate::session::{Backlog, Parcel, Reading, Stage};

/// What a publish does while the store is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    /// It waits, if it is of QoS 1 or 2, and is refused where somebody is full who refuses.
    Wait,
    /// It waits, and nobody refuses it.
    Insist,
    /// It goes on: there is nobody who could wait.
    Force,
}

/// What became of a publish.
#[derive(Debug)]
pub(super) enum Routed {
    /// The store is busy and nothing was done.
    Busy(Arc<Message>),
    /// Somebody who wants it is full and refuses it, and nothing was done.
    Refused(Arc<Message>),
    /// There is no store: whoever is here has it, and whoever is not may want it and does not.
    Unkept,
    /// It is on its way.
    Done {
        /// The write that holds it, if anybody durable wants it.
        ticket: Option<Ticket>,
        /// Whether anybody wants it.
        wanted: bool,
    },
}

/// Who was found for a message; the memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// All who want it.
    matches: Vec<Match>,
    /// The durable ones among them.
    pub(super) audience: Vec<Want>,
}

/// The write that holds a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) seq: Seq,
    ticket: Ticket,
}

impl Broker {
    /// Routes a message that was checked.
    pub(super) fn route(
        &mut self,
        message: Arc<Message>,
        source: Option<u32>,
        inward: Option<(ReaderId, u16)>,
        pressure: Pressure,
        turn: &mut Turn<'_>,
    ) -> Routed {
        let mut found = std::mem::take(&mut self.found);
        self.find_matches(&message, source, &mut found.matches);
        let routed = self.route_to(&mut found, message, source, inward, pressure, turn);
        found.audience.clear();
        self.found = found;
        routed
    }

    fn route_to(
        &mut self,
        found: &mut Found,
        message: Arc<Message>,
        source: Option<u32>,
        inward: Option<(ReaderId, u16)>,
        pressure: Pressure,
        turn: &mut Turn<'_>,
    ) -> Routed {
        let Found { matches, audience } = found;
        let wanted = !matches.is_empty();
        let full = self.full_queues(&message, matches);
        self.find_audience(&message, matches, audience);
        if audience.is_empty() && !message.retain && self.store == Presence::There {
            // It goes from hand to hand, and is kept nowhere.
            if full.is_empty() {
                self.learn_way(source, &message, matches, 0);
            }
            self.count_full(&full, turn);
            self.fan_out(message, matches, None, turn);
            return Routed::Done { ticket: None, wanted };
        }
        let volatile = is_volatile(&message.topic);
        let mut retains = message.retain && self.changes_retained(&message);
        // The house's own figures are few, and always of the same names.
        let mut lack = if retains && !volatile { self.lacks_to_retain(&message) } else { None };
        retains &= lack.is_none();
        let mut durable = (retains && !volatile) || !audience.is_empty();
        let unkept = self.store == Presence::Absent && !volatile;
        let asks = message.qos > QoS::AtMostOnce && pressure != Pressure::Force;
        if !unkept && durable && pressure == Pressure::Wait && self.is_refused(&message, audience, retains) {
            return Routed::Refused(message);
        }
        if unkept {
            // Who is not answered sends it again, so for him nothing is lost.
            if durable && !asks {
                self.counters.drop(DropReason::StoreBusy, 1);
                lack = None;
            }
            retains &= self.has_room_to_retain(&message);
            durable = false;
        } else if durable && pressure != Pressure::Force && self.ledger.is_busy() {
            if message.qos > QoS::AtMostOnce {
                return Routed::Busy(message);
            }
            self.counters.drop(DropReason::StoreBusy, 1);
            (retains, durable, lack) = (false, false, None);
            for want in audience.drain(..) {
                *self.shed.entry((want.reader, DropReason::StoreBusy)).or_default() += 1;
            }
        }
        if let Some(reason) = lack {
            self.counters.drop(reason, 1);
        }
        self.count_full(&full, turn);
        if durable && full.is_empty() && !message.retain {
            self.learn_way(source, &message, matches, audience.len());
        }
        let message = if durable || retains { keep(message, self.ledger.newest_topic()) } else { message };
        let kept = durable.then(|| {
            let (seq, ticket) = self.ledger.append(message.clone(), audience, retains, inward, turn.effects);
            Kept { seq, ticket }
        });
        if retains {
            self.retain(message.clone(), turn.now);
        }
        self.fan_out(message, matches, kept, turn);
        if unkept && asks {
            return Routed::Unkept;
        }
        Routed::Done { ticket: kept.map(|kept| kept.ticket), wanted }
    }

    /// Who wants a message and may have it.
    fn find_matches(&mut self, message: &Message, source: Option<u32>, matches: &mut Vec<Match>) {
        self.router.matches(&message.topic, source.map(|slot| self.subscriber(slot)), matches);
        if self.restricted {
            self.hold_back(&message.topic, matches);
        }
    }

    /// Takes from the matches the kept sessions and groups whose queue is full, where the newest goes.
    fn full_queues(&self, message: &Message, matches: &mut Vec<Match>) -> Vec<Taker> {
        let mut full = Vec::new();
        let limits = &self.config.limits;
        if limits.when_queue_full != WhenFull::DropNewest || message.qos == QoS::AtMostOnce {
            return full;
        }
        matches.retain(|found| {
            let taker = self.taker(found.subscriber);
            let (backlog, has_room) = match taker {
                Taker::Route(_) => return true,
                Taker::Group(id) => {
                    let backlog = self.groups.get(id).and_then(|group| group.backlog.as_ref());
                    (backlog, self.room_of_group(id, 1) > 0)
                }
                Taker::Client(slot) => {
                    let Some(client) = self.clients.in_slot(slot) else { return true };
                    let flight = &client.session.flight;
                    let outlet = client.outlet.as_ref();
                    (client.session.backlog.as_deref(), outlet.is_some_and(|outlet| outlet.has_room(flight)))
                }
            };
            let Some(backlog) = backlog else { return true };
            let goes_now = backlog.caught_up() && has_room;
            let fits = backlog.waiting() < limits.max_queued_messages
                && backlog.waiting_bytes() + message.weight() as u64 <= limits.max_queued_bytes;
            let stays = goes_now || fits || found.qos == QoS::AtMostOnce;
            if !stays {
                full.push(taker);
            }
            stays
        });
        full
    }

    fn count_full(&mut self, full: &[Taker], turn: &mut Turn<'_>) {
        for taker in full {
            self.counters.drop(DropReason::QueueFull, 1);
            if let Some(reader) = self.reader_of(*taker) {
                *self.shed.entry((reader, DropReason::QueueFull)).or_default() += 1;
            }
            match taker {
                Taker::Route(_) => {}
                Taker::Group(id) => self.ask_group_count(*id, turn),
                Taker::Client(slot) => {
                    let Some(client) = self.clients.in_slot_mut(*slot) else { continue };
                    client.lost += 1;
                    if let Some(backlog) = &mut client.session.backlog {
                        Broker::ask_count(backlog, &self.ledger, &mut self.memory, turn);
                    }
                }
            }
        }
    }

    /// Its place in the log, if it has one.
    fn reader_of(&self, taker: Taker) -> Option<ReaderId> {
        let backlog = match taker {
            Taker::Route(place) => {
                let route = self.config.routes.get(place).filter(|route| route.store);
                return route.map(|route| route.reader);
            }
            Taker::Client(slot) => self.clients.in_slot(slot)?.session.backlog.as_deref(),
            Taker::Group(id) => self.groups.get(id)?.backlog.as_ref(),
        };
        backlog.map(|backlog| backlog.reader)
    }

    /// An empty payload for a topic that retains nothing changes nothing.
    fn changes_retained(&self, message: &Message) -> bool {
        !message.payload.is_empty() || self.retained.of(&message.topic).is_some()
    }

    /// Whether a message that no store holds may be retained in RAM alone.
    fn has_room_to_retain(&self, message: &Message) -> bool {
        message.payload.is_empty() || self.retained_with(message) <= UNKEPT_RETAINED_BYTES_MAX
    }

    fn retain(&mut self, message: Arc<Message>, now: Now) {
        // [MQTT5-3.3.1-5] [MQTT5-3.3.1-6] [MQTT311-3.3.1-5] [MQTT311-3.3.1-10]
        if message.payload.is_empty() {
            self.retained.clear(&message.topic);
        } else {
            self.retained.set(message);
            self.arm_retained(now);
        }
    }

    /// The durable destinations, sorted by reader.
    fn find_audience(&self, message: &Message, matches: &[Match], audience: &mut Vec<Want>) {
        for found in matches {
            let qos = found.qos.min(message.qos);
            let want = |reader| Want {
                reader,
                qos,
                retain: found.retain_as_published && message.retain,
                subscription_ids: found.identifiers.clone(),
            };
            match self.taker(found.subscriber) {
                Taker::Route(place) => {
                    if let Some(route) = self.config.routes.get(place).filter(|route| route.store) {
                        audience.push(Want { qos: message.qos, ..want(route.reader) });
                    }
                }
                _ if qos == QoS::AtMostOnce => {}
                Taker::Client(slot) => {
                    let client = self.clients.in_slot(slot);
                    let backlog = client.and_then(|client| client.session.backlog.as_ref());
                    audience.extend(backlog.map(|backlog| want(backlog.reader)));
                }
                Taker::Group(id) => {
                    let backlog = self.groups.get(id).and_then(|group| group.backlog.as_ref());
                    audience.extend(backlog.map(|backlog| want(backlog.reader)));
                }
            }
        }
        if !audience.is_empty() && is_volatile(&message.topic) {
            audience.clear();
        }
        audience.sort_unstable_by_key(|want| want.reader);
    }

    /// Offers the message to each of the matches, which are drained. The last is given the message and no share of it:
    /// what nobody shares costs less from there on.
    fn fan_out(
        &mut self,
        message: Arc<Message>,
        matches: &mut Vec<Match>,
        kept: Option<Kept>,
        turn: &mut Turn<'_>,
    ) {
        let mut own: Option<Arc<Message>> = kept.map(|_| message.clone());
        let mut overfull = Vec::new();
        let mut left = matches.len();
        let mut message = Some(message);
        for found in matches.drain(..) {
            left -= 1;
            let share = if left == 0 { message.take() } else { message.clone() };
            let Some(message) = share else { break };
            let qos = found.qos.min(message.qos); // [MQTT311-3.8.4-6] [MQTT5-3.8.4-8]
            let slot = match self.taker(found.subscriber) {
                Taker::Client(slot) => slot,
                Taker::Group(id) => {
                    self.offer_group(id, &message, qos, kept, turn);
                    continue;
                }
                Taker::Route(route) => {
                    if self.config.routes.get(route).is_some_and(|route| !route.store) {
                        turn.effects.push(Effect::Forward { route, message });
                    }
                    continue;
                }
            };
            let retain = found.retain_as_published && message.retain;
            if qos == QoS::AtMostOnce {
                self.offer_once(slot, message, Label::once(retain, found.identifiers), turn);
                continue;
            }
            let want = |reader| Want { reader, qos, retain, subscription_ids: found.identifiers };
            let Some(key) = self.clients.key_of(slot) else { continue };
            let reader = self
                .clients
                .get(key)
                .and_then(|client| client.session.backlog.as_ref())
                .map(|own| own.reader);
            match (reader, kept) {
                (Some(reader), Some(kept)) => {
                    let parcel = Parcel { message, want: want(reader) };
                    self.offer_kept(key, kept.seq, parcel, turn);
                }
                (Some(_), None) => {}
                (None, _) => {
                    let parcel = Parcel { message, want: want(NOBODY) };
                    if self.offer_live(key, parcel, &mut own, turn) == Offered::Overfull {
                        // This message too.
                        self.counters.drop(DropReason::QueueFull, 1);
                        overfull.push(key);
                    }
                }
            }
        }
        for key in overfull {
            if let Some(id) = self.clients.get(key).and_then(|client| client.connection) {
                self.count_lost(key, DropReason::QueueFull);
                self.part(id, Cause::Expelled(Reason::QuotaExceeded), turn);
            }
        }
    }

    /// QoS 0: now or not at all.
    pub(super) fn offer_once(&mut self, slot: u32, message: Arc<Message>, label: Label, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.in_slot_mut(slot) else { return };
        let Some(outlet) = &mut client.outlet else { return };
        if outlet.credit == Some(0) {
            return self.counters.drop(DropReason::QueueFull, 1);
        }
        if !outlet.takes(&message, QoS::AtMostOnce, &label.subscription_ids) {
            return self.counters.drop(DropReason::TooLarge, 1);
        }
        outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
    }

    /// QoS 1 and 2 for a session that ends with its connection: now, or from RAM when there is room.
    /// `own` is a compact copy of the message, made once for all that must wait where several do.
    pub(super) fn offer_live(
        &mut self,
        key: ClientKey,
        parcel: Parcel,
        own: &mut Option<Arc<Message>>,
        turn: &mut Turn<'_>,
    ) -> Offered {
        let Some(client) = self.clients.get_mut(key) else { return Offered::Taken };
        let Some(outlet) = &client.outlet else { return Offered::Taken };
        if !client.session.line.is_empty() || !outlet.has_room(&client.session.flight) {
            let former = client.session.line.last().map(|parcel| &parcel.message.topic);
            let message = match own {
                Some(own) => own.clone(),
                None if Arc::strong_count(&parcel.message) == 1 => keep(parcel.message, former),
                None => own.insert(keep(parcel.message, former)).clone(),
            };
            let parcel = Parcel { message, want: parcel.want };
            let full = client.session.line.weight() + parcel.weight() > self.config.limits.max_send_buffer;
            if full {
                return Offered::Overfull;
            }
            self.memory.queues += client.session.line.push(parcel);
            return Offered::Taken;
        }
        self.start_live(key, parcel, turn);
        Offered::Taken
    }

    /// Begins the exchange of a message without a row.
    pub(super) fn start_live(&mut self, key: ClientKey, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Parcel { message, want } = parcel;
        if !outlet.takes(&message, want.qos, &want.subscription_ids) {
            return self.counters.drop(DropReason::TooLarge, 1);
        }
        let Some(exchange) = session.flight.begin(Seq(0), want.qos, Stage::Sent) else { return };
        let label = Label::of(&want, exchange.packet_id);
        outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
    }

    /// QoS 1 and 2 for a kept session: now if it has caught up, else its row waits in the log.
    pub(super) fn offer_kept(&mut self, key: ClientKey, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        if !self.falls_behind(key, seq, parcel.message.weight() as u64, turn) {
            self.start_row(key, seq, parcel, turn);
        }
    }

    /// Whether a kept session has a row of this weight wait in the log; else it takes it now.
    pub(super) fn falls_behind(
        &mut self,
        key: ClientKey,
        seq: Seq,
        weight: u64,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return true };
        let ready = client.outlet.as_ref().is_some_and(|outlet| outlet.has_room(&client.session.flight));
        let Some(backlog) = &mut client.session.backlog else { return true };
        if ready && backlog.caught_up() {
            backlog.pass(seq);
            return false;
        }
        backlog.want(seq, weight);
        self.limit_backlog(key, turn);
        true
    }

    /// Drops the oldest rows that wait over `max_queued_messages` and `max_queued_bytes`. Not while rows are being read or
    /// counted, nor before a count that is due: nobody could say which of them the answer still has.
    pub(super) fn limit_backlog(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(backlog) = &mut client.session.backlog else { return };
        let limits = &self.config.limits;
        if backlog.is_nearly(limits.max_queued_messages, limits.max_queued_bytes) {
            Broker::ask_count(backlog, &self.ledger, &mut self.memory, turn);
        }
        let (lost, ticket) = Broker::limit(backlog, limits, &mut self.ledger, turn);
        if let Some(ticket) = ticket {
            self.ledger.after(ticket, Step::Pump(key));
        }
        if lost > 0 {
            client.lost += lost;
            self.counters.drop(DropReason::QueueFull, lost);
        }
    }

    /// The same for whoever reads the log: how many went, and the write that must be committed before
    /// the log is read again.
    pub(super) fn limit(
        backlog: &mut Backlog,
        limits: &Limits,
        ledger: &mut Ledger,
        turn: &mut Turn<'_>,
    ) -> (u64, Option<Ticket>) {
        let (reader, mut lost) = (backlog.reader, 0);
        loop {
            let over = backlog.over(limits.max_queued_messages, limits.max_queued_bytes);
            let is_asked = matches!(backlog.reading(), Reading::Asked | Reading::Counting);
            if over == 0 || is_asked || backlog.is_count_due(turn.now.mono) {
                return (lost, None);
            }
            let after = backlog.taken();
            let covered = ledger.tail_covers(after.max(backlog.cursor()));
            let oldest = ledger.next_row(reader, after).filter(|_| covered && !backlog.shortened());
            let Some((seq, _)) = oldest else {
                let ticket = ledger.write(Write::DropOldest { reader, after, count: over }, turn.effects);
                backlog.shorten(over, ticket);
                return (lost + over, Some(ticket));
            };
            backlog.lose(seq);
            ledger.write(Write::Dropped { reader, seq, reason: DropReason::QueueFull }, turn.effects);
            lost += 1;
        }
    }

    /// Begins the exchange of a row that the session has just taken.
    pub(super) fn start_row(&mut self, key: ClientKey, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Parcel { message, want } = parcel;
        // Rules may have changed since the row was made.
        let readable = !self.restricted || client.may_read(&message.topic);
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let reader = want.reader;
        let gone = if !readable {
            Some(DropReason::Denied)
        } else if !outlet.takes(&message, want.qos, &want.subscription_ids) {
            Some(DropReason::TooLarge) // [MQTT5-3.1.2-25]
        } else {
            None
        };
        if let Some(reason) = gone {
            self.ledger.write(Write::Dropped { reader, seq, reason }, turn.effects);
            return self.counters.drop(reason, 1);
        }
        if want.qos != QoS::ExactlyOnce {
            let Some(exchange) = session.flight.begin(seq, want.qos, Stage::Sent) else { return };
            // [MQTT5-3.3.1-1] [MQTT311-3.3.1-1]
            let dup = session.backlog.as_ref().is_some_and(|backlog| backlog.may_be_sent(seq));
            let label = Label { dup, ..Label::of(&want, exchange.packet_id) };
            outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
            return;
        }
        let Some(exchange) = session.flight.begin(seq, QoS::ExactlyOnce, Stage::Leasing) else { return };
        let packet_id = exchange.packet_id;
        exchange.parcel = Some(self.memory.hold(seq, Parcel { message, want }, &self.ledger));
        let ticket = self.ledger.write(Write::Leased { reader, seq, packet_id, holder: None }, turn.effects);
        self.ledger.after(ticket, Step::Lease(key, packet_id));
    }
}

impl Label {
    /// A copy of QoS 0.
    pub(super) fn once(retain: bool, subscription_ids: Identifiers) -> Label {
        Label { packet_id: 0, qos: QoS::AtMostOnce, dup: false, retain, subscription_ids }
    }

    /// A first copy as it is wanted.
    pub(super) fn of(want: &Want, packet_id: u16) -> Label {
        Label {
            packet_id,
            qos: want.qos,
            dup: false,
            retain: want.retain,
            subscription_ids: want.subscription_ids.clone(),
        }
    }
}

/// The message with bytes of its own, as whatever is held for long has. Where nobody else has it, it is given them.
fn keep(mut message: Arc<Message>, former: Option<&ByteString>) -> Arc<Message> {
    match Arc::get_mut(&mut message) {
        Some(alone) => {
            alone.own_bytes(former);
            message
        }
        None => Arc::new(message.compact()),
    }
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is sent, waits, or was not wanted after all.
    Taken,
    /// The client takes nothing and its queue is full.
    Overfull,
}

/// Retained messages in RAM while there is no store whose limits would bound them. Beyond, a message goes to
/// who is here and is not retained.
const UNKEPT_RETAINED_BYTES_MAX: usize = 4_000_000;

/// Stands for a session that has no place in the log.
pub(super) const NOBODY: ReaderId = ReaderId(0);
