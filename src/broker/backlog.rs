//! What a client has not yet been sent: from the log, from RAM, from the retained store.
//!
//! [`Broker::pump`] is called whenever there may be room. A kept session reads the tail of the log where
//! that reaches back far enough, and asks the store where it does not; one question is open at a time.

use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;

use super::client::{Client, ClientKey};
use super::fan::{NOBODY, Offered};
use super::ledger::{Ledger, Step};
use super::memory::Memory;
use super::outlet::{Ahead, Label};
use super::ways::next_of;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::{Ack, Packet, Properties, QoS, Reason};
use crate::record::{DropReason, Message, Portion, Row, Rows, Seq, Want, Write};
use crate::router::Found;
use crate::session::{Backlog, Next, Parcel, Reading, RetainedWalk, Sending, Stage};

impl Broker {
    /// Sends what waits for the client, as far as it can take it.
    pub(super) fn pump(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        if client.outlet.is_none() {
            return;
        }
        if client.session.backlog.is_some() {
            self.pump_log(key, turn);
        } else {
            self.pump_line(key, turn);
        }
        self.pump_walks(key, turn);
        let mut place = Bound::Unbounded;
        while let Some(client) = self.clients.get(key)
            && let Some(id) = client.groups.range((place, Bound::Unbounded)).next().copied()
        {
            self.groups.may_take(id, key);
            self.pump_group(id, turn);
            place = Bound::Excluded(id);
        }
        self.answer_pings(key, turn);
    }

    /// A network client hears at once that it is heard; a port, when nothing waits for it any more.
    pub(super) fn on_pingreq(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(id) else { return };
        if !connection.is_port() {
            return turn.effects.push(Effect::Send { connection: id, packet: Packet::PingResp });
        }
        let Some(key) = connection.client else { return };
        if let Some(outlet) = self.clients.get_mut(key).and_then(|client| client.outlet.as_mut()) {
            outlet.pings += 1;
        }
        self.pump(key, turn);
    }

    fn answer_pings(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        if outlet.pings == 0 {
            return;
        }
        let read = session.backlog.as_ref().is_none_or(|backlog| backlog.caught_up());
        if read && session.flight.is_empty() && session.line.is_empty() && session.walks.is_empty() {
            let pings = std::mem::take(&mut outlet.pings);
            let answer = Effect::Send { connection: outlet.connection, packet: Packet::PingResp };
            turn.effects.extend((0..pings).map(|_| answer.clone()));
        }
    }

    fn has_room(&self, key: ClientKey) -> bool {
        self.clients
            .get(key)
            .and_then(|client| client.outlet.as_ref().map(|outlet| outlet.has_room(&client.session.flight)))
            .unwrap_or(false)
    }

    /// Sends what waits in RAM, as far as there is room; but what waits in its publisher's words only where it is not
    /// asked for in those.
    fn pump_line(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        while self.has_room(key)
            && let Some(client) = self.clients.get_mut(key)
            && !(turn.heard.is_some() && client.session.line.is_next_verbatim())
            && let Some(parcel) = next_of(&mut client.session.line)
        {
            self.memory.queues -= parcel.weight();
            if parcel.message.remaining(&turn.now) == Some(0) {
                self.counters.expired += 1;
                continue;
            }
            self.start_live(key, parcel, turn);
        }
    }

    fn pump_log(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        while self.has_room(key) {
            let Some(client) = self.clients.get_mut(key) else { return };
            let Client { session, outlet: Some(_), .. } = client else { return };
            let Some(backlog) = &mut session.backlog else { return };
            if backlog.caught_up() || backlog.reading() != Reading::Idle {
                return;
            }
            let reader = backlog.reader;
            let after = backlog.cursor();
            if !self.ledger.tail_covers(after) {
                return self.ask_for_rows(key, turn);
            }
            if backlog.shortened() && after >= backlog.taken() {
                for seq in backlog.survive(self.ledger.seqs(reader, after)) {
                    let write = Write::Dropped { reader, seq, reason: DropReason::QueueFull };
                    self.ledger.write(write, turn.effects);
                }
            }
            match self.ledger.next_row(reader, after) {
                Some((seq, parcel)) => self.take_row(key, seq, parcel, turn),
                None => backlog.advance(self.ledger.last_seq()),
            }
            if self.has_caught_up(key) {
                return self.forget_vanished(key, turn);
            }
        }
    }

    /// Has the store read on for a session.
    fn ask_for_rows(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let most = self.portion();
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Some(backlog) = &mut session.backlog else { return };
        // An answer that does not know what a limit took would bring it back.
        if !self.ledger.is_committed(backlog.shortened_by()) {
            return;
        }
        let room = outlet.room(&session.flight);
        let window = u32::from(outlet.window);
        let whole = outlet.credit.map_or(window, |credit| credit.min(window));
        // Not for every single acknowledgement: half a window at a time.
        let is_worth_it = most.rows > 1 && room * 2 >= whole;
        if is_worth_it || !session.flight.is_own_under_way() {
            backlog.ask();
            let limit = Portion { rows: room.min(most.rows), ..most };
            turn.effects.push(self.memory.read(backlog.reader, backlog.cursor(), limit));
        }
    }

    /// The store has answered.
    pub(super) fn on_rows(&mut self, rows: Rows, turn: &mut Turn<'_>) {
        self.memory.reads = self.memory.reads.saturating_sub(1);
        if let Some(id) = self.groups.reading(rows.reader) {
            return self.on_group_rows(id, rows, turn);
        }
        let Some(key) = self.clients.reading(rows.reader) else { return };
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(backlog) = &mut client.session.backlog else { return };
        let asked = backlog.answered();
        if asked == Reading::Counting {
            let flight = &mut client.session.flight;
            Broker::learn_count(backlog, &rows, &self.ledger, turn.now.mono, |seq| flight.of(seq).is_some());
            return self.on_shortened(key, turn);
        }
        if asked != Reading::Asked || client.outlet.is_none() {
            return self.on_shortened(key, turn);
        }
        let Rows { reader, rows, through, newest, left } = rows;
        for Row { seq, message, want, .. } in rows {
            if !self.has_room(key) {
                // What was asked for fits, save where a repeated PUBREL or a QoS 0 message has taken its
                // place meanwhile: the rest is read again later.
                return self.limit_backlog(key, turn);
            }
            self.take_row(key, seq, Parcel { message, want }, turn);
        }
        if let Some(backlog) = self.clients.get_mut(key).and_then(|client| client.session.backlog.as_mut()) {
            backlog.advance(through);
            if backlog.caught_up() {
                self.forget_vanished(key, turn);
            } else if backlog.taken() <= through && self.ledger.tail_covers(newest) {
                // The store has ended rows that were out of date, damaged or too old for its size.
                let later = self.ledger.seqs(reader, newest).len() as u64;
                backlog.recount(left + later, turn.now.mono);
            }
        }
        self.limit_backlog(key, turn);
        self.pump(key, turn);
    }

    /// What a limit took is gone, or what waits is counted, or may be.
    pub(super) fn on_shortened(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        self.limit_backlog(key, turn);
        self.pump(key, turn);
    }

    /// Asks the store how many rows wait in truth, if it is time to: it ends some by itself, and by looking for the
    /// oldest those before it that are out of date. Says whether it was asked.
    pub(super) fn ask_count(
        backlog: &mut Backlog,
        ledger: &Ledger,
        memory: &mut Memory,
        turn: &mut Turn<'_>,
    ) -> bool {
        let asks = backlog.reading() == Reading::Idle
            && backlog.is_count_due(turn.now.mono)
            && !backlog.caught_up()
            // What a limit took before must not be counted any more.
            && ledger.is_committed(backlog.shortened_by());
        if asks {
            backlog.count();
            turn.effects.push(memory.read(backlog.reader, backlog.taken(), Portion::from(1)));
        }
        asks
    }

    /// The store has been asked, and nothing was taken of the rows meanwhile.
    pub(super) fn learn_count(
        backlog: &mut Backlog,
        found: &Rows,
        ledger: &Ledger,
        now: u64,
        mut is_under_way: impl FnMut(Seq) -> bool,
    ) {
        if !ledger.tail_covers(found.newest) {
            return;
        }
        let waits = |row: &&Row| !is_under_way(row.seq) && !backlog.is_done(row.seq);
        let waiting = found.rows.iter().filter(waits).count() + ledger.seqs(found.reader, found.newest).len();
        let oldest = found.rows.first().map_or(Seq(found.through.0 + 1), |row| row.seq);
        backlog.learn(oldest, found.left + waiting as u64, now);
    }

    /// One row that was read: under way since before, done since long, or new.
    fn take_row(&mut self, key: ClientKey, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let readable = !self.restricted || client.may_read(&parcel.message.topic);
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Some(backlog) = &mut session.backlog else { return };
        let Some(exchange) = session.flight.of(seq) else {
            if backlog.read(seq) == Next::Taken {
                return;
            }
            // What begins at once may have no time at all; what has waited may not. [MQTT5-3.3.2-5]
            if parcel.message.remaining(&turn.now) == Some(0) {
                let write = Write::Dropped { reader: backlog.reader, seq, reason: DropReason::Expired };
                self.ledger.write(write, turn.effects);
                self.counters.expired += 1;
                return;
            }
            return self.start_row(key, seq, parcel, turn);
        };
        backlog.skip(seq);
        let packet_id = exchange.packet_id;
        match exchange.stage {
            // The rules may have changed since, or the client came back through another listener.
            Stage::Sent | Stage::Leasing if !readable => {
                self.abandon(key, packet_id, Some(DropReason::Denied), turn);
            }
            // The client may have come back with a smaller Maximum Packet Size. [MQTT5-3.1.2-25]
            Stage::Sent if !outlet.takes(&parcel.message, exchange.qos, &parcel.want.subscription_ids) => {
                self.abandon(key, packet_id, Some(DropReason::TooLarge), turn);
            }
            // [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT311-4.4.0-1] [MQTT311-3.3.1-1]
            Stage::Sent => {
                let label = Label { dup: exchange.sending.repeats(), ..Label::of(&parcel.want, packet_id) };
                let label = Label { qos: exchange.qos, ..label };
                exchange.sending = Sending::Surely;
                session.flight.resume(packet_id);
                outlet.deliver(parcel.message, label, &turn.now, &mut self.counters, turn.effects);
            }
            Stage::Leasing => {
                exchange.parcel = Some(self.memory.hold(seq, parcel, &self.ledger));
                session.flight.resume(packet_id);
            }
            Stage::Recording | Stage::Released | Stage::Ended => {}
        }
    }

    fn has_caught_up(&self, key: ClientKey) -> bool {
        let backlog = self.clients.get(key).and_then(|client| client.session.backlog.as_ref());
        backlog.is_some_and(|backlog| backlog.caught_up())
    }

    /// Exchanges whose rows were not found again can never be sent.
    fn forget_vanished(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        for packet_id in client.session.flight.unread() {
            self.abandon(key, packet_id, None, turn);
        }
    }

    /// PUBREL is sent again for what was past PUBREC. [MQTT5-4.4.0-1] [MQTT311-4.4.0-1]
    pub(super) fn repeat_releases(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        for packet_id in session.flight.to_release() {
            session.flight.resume(packet_id);
            turn.effects.push(Effect::Send {
                connection: outlet.connection,
                packet: pubrel(packet_id, Reason::Success),
            });
        }
    }

    /// Goes on with the walks that an earlier call has broken off, in turn.
    pub(super) fn go_on_walking(&mut self, turn: &mut Turn<'_>) {
        while turn.walks > 0
            && turn.looks > 0
            && let Some(key) = self.next_walker()
        {
            self.pump(key, turn);
        }
    }

    fn next_walker(&mut self) -> Option<ClientKey> {
        let later = (Bound::Excluded(self.last_walker), Bound::Unbounded);
        let key = self.walkers.range(later).next().or_else(|| self.walkers.first()).copied()?;
        self.walkers.remove(&key);
        self.last_walker = key;
        Some(key)
    }

    /// Retained messages for new subscriptions, while there is room for them and the call is not too long.
    fn pump_walks(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        while let Some(client) = self.clients.get(key)
            && let Some(walk) = client.session.walks.front()
            && self.ledger.is_committed(walk.behind)
            && client.outlet.as_ref().is_some_and(|outlet| outlet.ahead != Ahead::ASKED)
        {
            if turn.walks == 0 || turn.looks == 0 {
                self.walkers.insert(key);
                return;
            }
            turn.walks -= 1;
            let found = self.retained.find(&walk.filter, walk.after.as_deref(), &mut turn.looks);
            let message = match found {
                Found::Message(message) => message,
                Found::Pause(place) => {
                    self.walk_on(key, place);
                    continue;
                }
                Found::Nothing => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.session.end_walk();
                    }
                    continue;
                }
            };
            if message.remaining(&turn.now) == Some(0) {
                self.expire_retained(message.topic.clone(), turn);
                continue;
            }
            let want = retained_want(walk, &message);
            let topic = message.topic.clone();
            let is_hidden = self.restricted && client.is_hidden(&walk.filter, &topic);
            if !is_hidden && !self.bring_retained(key, message, want, turn) {
                return;
            }
            self.walk_on(key, topic);
        }
    }

    /// The oldest walk of a client has come to this place.
    fn walk_on(&mut self, key: ClientKey, place: ByteString) {
        if let Some(walk) = self.clients.get_mut(key).and_then(|client| client.session.walks.front_mut()) {
            walk.after = Some(place);
        }
    }

    /// Sends one retained message; false where the client must first take others.
    fn bring_retained(
        &mut self,
        key: ClientKey,
        message: Arc<Message>,
        want: Want,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(client) = self.clients.get(key) else { return false };
        if self.restricted && !client.may_read(&message.topic) {
            return true;
        }
        if want.qos == QoS::AtMostOnce {
            return self.bring_once(key, &message, want, turn);
        }
        let Some(backlog) = &client.session.backlog else {
            let ready = self.has_room(key) && client.session.line.is_empty();
            if ready {
                let offered = self.offer_live(key, Parcel { message, want }, &mut None, turn);
                debug_assert_eq!(offered, Offered::Taken, "there is room");
            }
            return ready;
        };
        let ready = backlog.caught_up() && self.has_room(key);
        if ready && self.ledger.is_busy() {
            self.ledger.after(self.ledger.newest(), Step::Pump(key));
            return false;
        }
        if ready {
            let want = Want { reader: backlog.reader, ..want };
            let audience = std::slice::from_ref(&want);
            let (seq, _) = self.ledger.append(message.clone(), audience, false, None, turn.effects);
            self.offer_kept(key, seq, Parcel { message, want }, turn);
        }
        ready
    }
}

impl Broker {
    /// Sends one retained message of QoS 0. None is lost because there are many: of what a network client has not
    /// yet taken there is never more than its buffer holds. [MQTT5-3.3.1-9]
    fn bring_once(
        &mut self,
        key: ClientKey,
        message: &Arc<Message>,
        want: Want,
        turn: &mut Turn<'_>,
    ) -> bool {
        let (full, buffer) = (self.config.limits.ahead(), self.config.limits.max_send_buffer);
        let Some(outlet) = self.clients.get_mut(key).and_then(|client| client.outlet.as_mut()) else {
            return false;
        };
        let weight = message.weight();
        match outlet.credit {
            Some(0) => return false,
            Some(_) => {}
            None if outlet.ahead.take(weight, full) => {}
            None => {
                let most = (buffer / 2).min(buffer.saturating_sub(weight));
                turn.effects.push(Effect::AwaitRoom { connection: outlet.connection, most });
                return false;
            }
        }
        self.offer_once(key.slot, message.clone(), Label::of(&want, 0), turn);
        true
    }

    /// A client has taken most of what it was sent.
    pub(super) fn on_room(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        let Some(key) = self.connections.get(id).and_then(|connection| connection.client) else { return };
        let outlet = self.clients.get_mut(key).and_then(|client| client.outlet.as_mut());
        if let Some(outlet) = outlet
            && outlet.ahead == Ahead::ASKED
        {
            outlet.ahead = Ahead::GRANTED;
            self.pump(key, turn);
        }
    }
}

fn retained_want(walk: &RetainedWalk, message: &Message) -> Want {
    Want {
        reader: NOBODY,
        qos: walk.options.qos.min(message.qos),
        retain: true, // [MQTT311-3.3.1-8]
        subscription_ids: walk.identifier.into_iter().collect(),
    }
}

/// PUBREL.
pub(super) fn pubrel(packet_id: u16, reason: Reason) -> Packet {
    Packet::PubRel(Ack { packet_id, reason, properties: Properties::new() })
}

/// Retained messages that one call looks for, whoever subscribes to how much: what they take until they are
/// sent is bounded so. The rest comes with the next calls, which follow at once.
pub(super) const WALKS_MAX: u32 = 64;

/// Places of the tree of retained messages that one call looks at, whoever subscribes to what matches little.
pub(super) const LOOKS_MAX: u32 = 512;
