//! How the members of a shared subscription get its messages.
//!
//! First what a member must be sent again, then what came back, then what is new; each to the next member
//! in turn that is connected, may read it, has room and takes a packet of that size.

use std::sync::Arc;

use super::client::{Client, ClientKey};
use super::fan::{Kept, NOBODY};
use super::ledger::Step;
use super::memory::Level;
use super::outlet::Label;
use super::share::{Ending, Question};
use super::{Broker, Effect, Turn};
use crate::codec::QoS;
use crate::record::{DropReason, Message, Row, Rows, Seq, Want, Write};
use crate::session::{GroupId, Next, Parcel, Stage};

/// Who takes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pick {
    /// This member.
    Member(usize),
    /// Nobody for now.
    Nobody,
    /// One that is away: none that is here may read it.
    Away,
    /// None of the members may read it.
    Barred,
    /// It is too large for each that is there.
    TooLarge,
}

/// A row that is looked for.
enum Fetched {
    Row(Parcel),
    /// It is not there any more.
    Gone,
    /// The store is asked.
    Later,
}

impl Broker {
    /// One message for a group.
    pub(super) fn offer_group(
        &mut self,
        id: GroupId,
        message: &Arc<Message>,
        qos: QoS,
        kept: Option<Kept>,
        turn: &mut Turn<'_>,
    ) {
        let level = self.level();
        let Some(group) = self.groups.get_mut(id) else { return };
        let reader = group.backlog.as_ref().map_or(NOBODY, |backlog| backlog.reader);
        let want = Want { reader, qos, retain: message.retain, subscription_ids: Vec::new() };
        if qos == QoS::AtMostOnce {
            return self.offer_group_once(id, message, &want, turn);
        }
        match (&mut group.backlog, kept) {
            (Some(backlog), Some(kept)) => {
                let parcel = Parcel { message: message.clone(), want };
                let at_once = backlog.caught_up()
                    && group.again.is_empty()
                    && group.queue.is_empty()
                    && group.question.is_none();
                let pick = self.pick(id, message, qos);
                if at_once && !matches!(pick, Pick::Nobody | Pick::Away) {
                    if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
                        backlog.pass(kept.seq);
                    }
                    self.hand_out(id, kept.seq, parcel, turn);
                } else if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut())
                {
                    backlog.want(kept.seq, message.weight() as u64);
                    self.limit_group(id, turn);
                    if pick == Pick::Away {
                        // Nothing else would clear the way for what comes behind it.
                        self.pump_group(id, turn);
                    }
                }
            }
            (Some(_), None) => {}
            // Nobody is let go for what a group holds, so it must not grow.
            (None, _) if level == Level::Full => self.counters.drop(DropReason::MemoryFull, 1),
            (None, _) => {
                // Its own bytes: it is held until it is answered.
                let message = Arc::new(message.compact());
                if group.queue.weight() + message.weight() > self.config.limits.max_send_buffer {
                    return self.counters.drop(DropReason::QueueFull, 1);
                }
                self.memory.queues += message.weight();
                group.queue.push(Parcel { message, want });
                self.pump_group(id, turn);
            }
        }
    }

    /// QoS 0: to a member that takes it now, or to nobody.
    fn offer_group_once(&mut self, id: GroupId, message: &Arc<Message>, want: &Want, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let count = group.members.len();
        let mut missed = None;
        for place in 0..count {
            let index = (group.next + place) % count;
            let Some(member) = group.members.get(index).copied() else { continue };
            let Some(client) = self.clients.get_mut(member.key) else { continue };
            if self.restricted && !client.may_read(&message.topic) {
                continue;
            }
            let Some(outlet) = &mut client.outlet else { continue };
            let want = member.want(want);
            if outlet.credit == Some(0) {
                missed = Some(DropReason::QueueFull);
            } else if !outlet.takes(message, QoS::AtMostOnce, &want.subscription_ids) {
                missed = Some(DropReason::TooLarge);
            } else {
                group.next = index + 1;
                let label = Label::of(&want, 0);
                outlet.deliver(message.clone(), label, turn.now.wall, &mut self.counters, turn.effects);
                return;
            }
        }
        if let Some(reason) = missed {
            self.counters.drop(reason, 1);
        }
    }

    /// Hands out what waits for a group, as far as its members can take it.
    pub(super) fn pump_group(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        if let Some(group) = self.groups.get_mut(id) {
            group.stuck = false;
        }
        self.draw(id, turn);
    }

    fn draw(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        while self.repeat_one(id, turn)
            || self.draw_from_queue(id, turn)
            || self.draw_again(id, turn)
            || self.draw_next(id, turn)
        {}
    }

    /// A client is back: what it must be sent again is looked for.
    pub(super) fn repeat_shared(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        let repeats = client.session.flight.shared_to_repeat();
        for id in client.groups.clone() {
            self.recall(id);
        }
        for (packet_id, id) in repeats {
            if let Some(group) = self.groups.get_mut(id) {
                group.repeats.push_back((key, packet_id));
            }
            self.pump_group(id, turn);
        }
    }

    /// The store has answered for a group.
    pub(super) fn on_group_rows(&mut self, id: GroupId, rows: Rows, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(question) = group.question.take() else { return };
        match question {
            Question::Row(seq) => {
                let found = rows.rows.into_iter().find(|row| row.seq == seq);
                self.on_row(id, seq, found.map(|row| Parcel { message: row.message, want: row.want }), turn);
            }
            Question::Next => self.on_next_rows(id, rows, turn),
        }
        self.limit_group(id, turn);
        self.draw(id, turn);
    }

    fn on_row(&mut self, id: GroupId, seq: Seq, found: Option<Parcel>, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.again.remove(&seq) {
            if let Some(parcel) = found
                && !self.hand_out(id, seq, parcel, turn)
                && let Some(group) = self.groups.get_mut(id)
            {
                group.again.insert(seq);
                group.stuck = true;
            }
            return;
        }
        // Meanwhile its member may have left, or have no room any more: then it is looked for again later.
        let holds = |(key, packet_id): &(ClientKey, u16)| {
            self.clients.get(*key).is_some_and(|client| {
                let flight = &client.session.flight;
                flight.shared_unsent(*packet_id, id) == Some(seq)
                    && client.outlet.as_ref().is_some_and(|outlet| outlet.has_room(flight))
            })
        };
        let Some(place) = group.repeats.iter().position(holds) else { return };
        let Some((key, packet_id)) = group.repeats.remove(place) else { return };
        match found {
            Some(parcel) => self.repeat(id, (key, packet_id), parcel, turn),
            None => self.end_exchange(key, packet_id, None, turn),
        }
    }

    fn on_next_rows(&mut self, id: GroupId, rows: Rows, turn: &mut Turn<'_>) {
        let (reader, through, newest, left) = (rows.reader, rows.through, rows.newest, rows.left);
        if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
            backlog.answered();
        }
        for Row { seq, message, want, .. } in rows.rows {
            if self.room_of_group(id) == 0 || self.groups.get(id).is_none_or(|group| group.stuck) {
                return;
            }
            self.take_group_row(id, seq, Parcel { message, want }, turn);
        }
        if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
            backlog.advance(through);
            if !backlog.caught_up() && backlog.taken() <= through && self.ledger.tail_covers(newest) {
                // The store has ended rows by itself.
                let later = self.ledger.seqs(reader, newest).len() as u64;
                backlog.recount(left + later);
            }
        }
    }

    /// One row that was read: in an exchange since before a restart, done since long, or new.
    fn take_group_row(&mut self, id: GroupId, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(backlog) = &mut group.backlog else { return };
        if group.leased.contains(&seq) {
            return backlog.skip(seq);
        }
        if backlog.read(seq) == Next::New
            && !self.hand_out(id, seq, parcel, turn)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.again.insert(seq);
            group.stuck = true;
        }
    }

    /// One exchange goes on with its member; false where there is none that can.
    fn repeat_one(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let Some(group) = self.groups.get_mut(id) else { return false };
        let mut place = 0;
        while let Some((key, packet_id)) = group.repeats.get(place).copied() {
            let client = self.clients.get(key);
            let waits = client.and_then(|client| {
                let outlet = client.outlet.as_ref()?;
                let seq = client.session.flight.shared_unsent(packet_id, id)?;
                Some((seq, outlet.has_room(&client.session.flight)))
            });
            match waits {
                None => drop(group.repeats.remove(place)),
                Some((_, false)) => place += 1,
                Some((seq, true)) => return self.repeat_from(id, place, (key, packet_id), seq, turn),
            }
        }
        false
    }

    fn repeat_from(
        &mut self,
        id: GroupId,
        place: usize,
        (key, packet_id): (ClientKey, u16),
        seq: Seq,
        turn: &mut Turn<'_>,
    ) -> bool {
        let fetched = if seq > Seq(0) {
            self.fetch(id, seq, turn)
        } else {
            let client = self.clients.get_mut(key);
            let exchange = client.and_then(|client| client.session.flight.find(packet_id));
            exchange
                .and_then(|exchange| exchange.parcel.as_deref().cloned())
                .map_or(Fetched::Gone, Fetched::Row)
        };
        if matches!(fetched, Fetched::Later) {
            return false;
        }
        if let Some(group) = self.groups.get_mut(id) {
            group.repeats.remove(place);
        }
        match fetched {
            Fetched::Row(parcel) => self.repeat(id, (key, packet_id), parcel, turn),
            _ => self.end_exchange(key, packet_id, None, turn),
        }
        true
    }

    /// Sends an exchange's message again. [MQTT5-4.8.2-4]
    fn repeat(
        &mut self,
        id: GroupId,
        (key, packet_id): (ClientKey, u16),
        parcel: Parcel,
        turn: &mut Turn<'_>,
    ) {
        let Parcel { message, want } = parcel;
        let members = self.groups.get(id).map(|group| group.members.as_slice()).unwrap_or_default();
        let member = members.iter().find(|member| member.key == key);
        let parcel = Parcel { message, want: member.map_or(want.clone(), |member| member.want(&want)) };
        let Some(client) = self.clients.get_mut(key) else { return };
        let readable = !self.restricted || client.may_read(&parcel.message.topic);
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Some(exchange) = session.flight.find(packet_id) else { return };
        if !readable {
            return self.end_exchange(key, packet_id, Some(DropReason::Denied), turn);
        }
        if !outlet.takes(&parcel.message, exchange.qos, &parcel.want.subscription_ids) {
            return self.end_exchange(key, packet_id, Some(DropReason::TooLarge), turn);
        }
        match exchange.stage {
            Stage::Leasing => exchange.parcel = Some(Box::new(parcel)),
            Stage::Sent => {
                let label = Label { dup: exchange.sent, ..Label::of(&parcel.want, packet_id) };
                let label = Label { qos: exchange.qos, ..label };
                exchange.sent = true;
                outlet.deliver(parcel.message, label, turn.now.wall, &mut self.counters, turn.effects);
            }
            Stage::Recording | Stage::Released | Stage::Ended => return,
        }
        session.flight.resume(packet_id);
    }

    fn draw_from_queue(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let Some(parcel) = self.groups.get(id).and_then(|group| group.queue.first()) else { return false };
        let (message, qos) = (parcel.message.clone(), parcel.want.qos);
        if self.pick(id, &message, qos) == Pick::Nobody {
            return false;
        }
        let Some(parcel) = self.groups.get_mut(id).and_then(|group| group.queue.pop()) else { return false };
        self.memory.queues -= message.weight();
        self.hand_out(id, Seq(0), parcel, turn);
        true
    }

    fn draw_again(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let Some(group) = self.groups.get(id).filter(|group| !group.stuck) else { return false };
        let Some(seq) = group.again.first().copied() else { return false };
        if self.room_of_group(id) == 0 {
            return false;
        }
        let fetched = self.fetch(id, seq, turn);
        let Some(group) = self.groups.get_mut(id) else { return false };
        match fetched {
            Fetched::Later => return false,
            Fetched::Gone => drop(group.again.remove(&seq)),
            Fetched::Row(parcel) => {
                let given = self.hand_out(id, seq, parcel, turn);
                let Some(group) = self.groups.get_mut(id) else { return false };
                if !given {
                    group.stuck = true;
                    return false;
                }
                group.again.remove(&seq);
            }
        }
        true
    }

    fn draw_next(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let room = self.room_of_group(id);
        let Some(group) = self.groups.get_mut(id) else { return false };
        let Some(backlog) = &mut group.backlog else { return false };
        if room == 0 || group.stuck || backlog.caught_up() || group.question.is_some() {
            return false;
        }
        let (reader, after) = (backlog.reader, backlog.cursor());
        if !self.ledger.tail_covers(after) {
            if self.ledger.is_committed(backlog.shortened_by()) {
                backlog.ask();
                group.question = Some(Question::Next);
                turn.effects.push(Effect::Read { reader, after, limit: room.min(ROWS_MAX) });
            }
            return false;
        }
        if backlog.shortened() && after >= backlog.taken() {
            for seq in backlog.survive(self.ledger.seqs(reader, after)) {
                let write = Write::Dropped { reader, seq, reason: DropReason::QueueFull };
                self.ledger.write(write, turn.effects);
            }
        }
        match self.ledger.next_row(reader, after) {
            Some((seq, parcel)) => {
                self.take_group_row(id, seq, parcel, turn);
                true
            }
            None => {
                backlog.advance(self.ledger.last_seq());
                false
            }
        }
    }

    /// A row of the group, from the tail or from the store.
    fn fetch(&mut self, id: GroupId, seq: Seq, turn: &mut Turn<'_>) -> Fetched {
        let Some(group) = self.groups.get_mut(id) else { return Fetched::Gone };
        let Some(backlog) = &group.backlog else { return Fetched::Gone };
        let (reader, after) = (backlog.reader, Seq(seq.0.saturating_sub(1)));
        if self.ledger.tail_covers(after) {
            return match self.ledger.next_row(reader, after) {
                Some((found, parcel)) if found == seq => Fetched::Row(parcel),
                _ => Fetched::Gone,
            };
        }
        if group.question.is_none() {
            group.question = Some(Question::Row(seq));
            turn.effects.push(Effect::Read { reader, after, limit: 1 });
        }
        Fetched::Later
    }

    /// Gives a message to a member, or drops it for good; false where nobody can take it now.
    fn hand_out(&mut self, id: GroupId, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) -> bool {
        // [MQTT5-3.3.2-5]
        let has_expired =
            parcel.message.remaining(turn.now.wall) == Some(0) && parcel.message.expiry != Some(0);
        let dropped = match self.pick(id, &parcel.message, parcel.want.qos) {
            _ if has_expired => DropReason::Expired,
            Pick::Member(index) => {
                self.assign(id, index, seq, parcel, turn);
                return true;
            }
            Pick::Nobody => return false,
            Pick::Away if seq > Seq(0) => {
                self.set_aside(id, seq, parcel.message.weight() as u64, turn);
                return true;
            }
            // What is in no log waits for nobody.
            Pick::Away | Pick::Barred => DropReason::Denied,
            Pick::TooLarge => DropReason::TooLarge,
        };
        let reader = self.groups.get(id).and_then(|group| group.backlog.as_ref()).map(|own| own.reader);
        if let Some(reader) = reader.filter(|_| seq > Seq(0)) {
            self.ledger.write(Write::Dropped { reader, seq, reason: dropped }, turn.effects);
        }
        match dropped {
            DropReason::Expired => self.counters.expired += 1,
            reason => self.counters.drop(reason, 1),
        }
        true
    }

    fn pick(&self, id: GroupId, message: &Message, qos: QoS) -> Pick {
        let Some(group) = self.groups.get(id) else { return Pick::Nobody };
        let count = group.members.len();
        let (mut there, mut takes, mut away, mut barred) = (false, false, false, false);
        for place in 0..count {
            let index = (group.next + place) % count;
            let Some(member) = group.members.get(index) else { continue };
            let Some(client) = self.clients.get(member.key) else { continue };
            if self.restricted && !client.may_read(&message.topic) {
                barred = true;
                continue;
            }
            let Some(outlet) = &client.outlet else {
                away = true;
                continue;
            };
            there = true;
            if !outlet.takes(message, qos.min(member.qos), member.identifier.as_slice()) {
                continue;
            }
            takes = true;
            if outlet.has_room(&client.session.flight) {
                return Pick::Member(index);
            }
        }
        match (there, takes) {
            (true, false) => Pick::TooLarge,
            (true, true) => Pick::Nobody,
            (false, _) if away && barred => Pick::Away,
            (false, _) if barred => Pick::Barred,
            (false, _) => Pick::Nobody,
        }
    }

    /// How many messages the members can take together.
    pub(super) fn room_of_group(&self, id: GroupId) -> u32 {
        let Some(group) = self.groups.get(id) else { return 0 };
        let rooms = group.members.iter().filter_map(|member| {
            let client = self.clients.get(member.key)?;
            Some(client.outlet.as_ref()?.room(&client.session.flight))
        });
        rooms.fold(0, u32::saturating_add)
    }

    fn assign(&mut self, id: GroupId, index: usize, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(member) = group.members.get(index).copied() else { return };
        group.next = index + 1;
        let Some(client) = self.clients.get_mut(member.key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Parcel { message, want } = parcel;
        let (reader, own) = (want.reader, member.want(&want));
        if own.qos == QoS::AtMostOnce {
            let label = Label::of(&own, 0);
            outlet.deliver(message, label, turn.now.wall, &mut self.counters, turn.effects);
            if seq > Seq(0) {
                self.ledger.write(Write::Settled { reader, seq }, turn.effects);
            }
            return;
        }
        group.drawn += 1;
        let leases = own.qos == QoS::ExactlyOnce && seq > Seq(0);
        let stage = if leases { Stage::Leasing } else { Stage::Sent };
        let Some(exchange) = session.flight.begin(seq, own.qos, stage) else { return };
        let packet_id = exchange.packet_id;
        exchange.group = Some(id);
        if leases {
            exchange.parcel = Some(Box::new(Parcel { message, want: own }));
            // Who does not outlive its connection can hold nothing over a restart.
            let holder = Some(session.backlog.as_ref().map_or(NOBODY, |backlog| backlog.reader));
            let ticket = self.ledger.write(Write::Leased { reader, seq, packet_id, holder }, turn.effects);
            return self.ledger.after(ticket, Step::Lease(member.key, packet_id));
        }
        if seq == Seq(0) {
            exchange.parcel = Some(Box::new(Parcel { message: message.clone(), want }));
        }
        let label = Label::of(&own, packet_id);
        outlet.deliver(message, label, turn.now.wall, &mut self.counters, turn.effects);
    }

    /// An exchange of a group's message is over.
    pub(super) fn end_shared(
        &mut self,
        key: ClientKey,
        id: GroupId,
        packet_id: u16,
        dropped: Option<DropReason>,
        turn: &mut Turn<'_>,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(exchange) = client.session.flight.find(packet_id) else { return };
        let (seq, qos) = (exchange.seq, exchange.qos);
        let Some(group) = self.groups.get_mut(id) else { return };
        group.drawn -= 1;
        let was_leased = group.leased.remove(&seq);
        let mut ends_later = false;
        if let Some(backlog) = group.backlog.as_mut().filter(|_| seq > Seq(0)) {
            if was_leased {
                backlog.finish(seq);
            }
            let reader = backlog.reader;
            let write = match dropped {
                None => Write::Settled { reader, seq },
                Some(reason) => Write::Dropped { reader, seq, reason },
            };
            let ticket = self.ledger.write(write, turn.effects);
            ends_later = qos == QoS::ExactlyOnce && client.session.backlog.is_some();
            if ends_later {
                client.session.flight.end(packet_id);
                self.ledger.after(ticket, Step::End(key, packet_id));
            }
        }
        if !ends_later {
            client.session.flight.remove(packet_id);
        }
        if let Some(reason) = dropped {
            self.counters.drop(reason, 1);
        }
        self.close_if_done(id, turn.effects);
    }

    fn limit_group(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) else { return };
        let (lost, ticket) = Broker::limit(backlog, &self.config.limits, &mut self.ledger, turn.effects);
        if let Some(ticket) = ticket {
            self.ledger.after(ticket, Step::PumpGroup(id));
        }
        if lost > 0 {
            self.counters.drop(DropReason::QueueFull, lost);
        }
    }

    /// A client leaves every group, and what it had drawn goes on without it.
    pub(super) fn leave_groups(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        self.release_shared(key, Ending::Session, turn);
        let Some(client) = self.clients.get(key) else { return };
        for id in client.groups.clone() {
            let Some(filter) = self.groups.get(id).map(|group| group.filter.clone()) else { continue };
            self.leave_group(key, &filter, turn.effects);
            self.pump_group(id, turn);
        }
    }
}

/// Rows of one question, so that an answer does not hold much RAM however many members there are.
const ROWS_MAX: u32 = 128;
