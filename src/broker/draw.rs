//! How the members of a shared subscription get its messages.
//!
//! First what a member must be sent again, then what came back, then what is new.

use std::sync::Arc;

use super::choice::Pick;
use super::client::{Client, ClientKey};
use super::fan::{Kept, NOBODY};
use super::ledger::Step;
use super::memory::Level;
use super::outlet::Label;
use super::share::Question;
use super::{Broker, Turn};
use crate::codec::QoS;
use crate::record::{DropReason, Identifiers, Message, Portion, Row, Rows, Seq, Want, Write};
use crate::session::{GroupId, Held, Next, Parcel, Reading, Stage};

/// A row that is looked for.
pub(super) enum Fetched {
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
        let want = Want { reader, qos, retain: message.retain, subscription_ids: Identifiers::default() };
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
                if at_once && !matches!(pick, Pick::Nobody | Pick::Away(_)) {
                    if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
                        backlog.pass(kept.seq);
                    }
                    self.hand_out(id, kept.seq, parcel, turn);
                } else if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut())
                {
                    backlog.want(kept.seq, message.weight() as u64);
                    self.limit_group(id, turn);
                    if matches!(pick, Pick::Away(_)) {
                        // Nothing else would clear the way for what comes behind it.
                        self.pump_group(id, turn);
                    }
                }
            }
            (Some(_), None) => {}
            // Its members are let go one after another, and until then it must not grow.
            (None, _) if level == Level::Full => self.counters.drop(DropReason::MemoryFull, 1),
            (None, _) => self.offer_group_live(id, message, want, turn),
        }
    }

    /// QoS 1 and 2 for a group of which nobody keeps his session: now, or from RAM when a member has room.
    fn offer_group_live(&mut self, id: GroupId, message: &Arc<Message>, want: Want, turn: &mut Turn<'_>) {
        // Its own bytes: it is held until it is answered.
        let parcel = Parcel { message: Arc::new(message.compact()), want };
        let Some(group) = self.groups.get(id) else { return };
        let at_once = group.queue.is_empty() && group.repeats.is_empty();
        if at_once && self.pick(id, &parcel.message, parcel.want.qos) != Pick::Nobody {
            self.hand_out(id, Seq(0), parcel, turn);
            return;
        }
        let Some(group) = self.groups.get_mut(id) else { return };
        let weight = parcel.weight();
        if group.queue.weight() + weight > self.config.limits.max_send_buffer {
            return self.counters.drop(DropReason::QueueFull, 1);
        }
        self.memory.queues += weight;
        group.queue.push(parcel);
        self.pump_group(id, turn);
    }

    /// QoS 0: to a member that takes it now, or to nobody.
    fn offer_group_once(&mut self, id: GroupId, message: &Arc<Message>, want: &Want, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let mut missed = None;
        let mut found = None;
        // Those who have room first: in a large group they are found soon.
        for key in group.in_turn().chain(group.present_in_turn()) {
            let Some(member) = group.members.get(&key) else { continue };
            let Some(client) = self.clients.get_mut(key) else { continue };
            if self.restricted && !client.may_draw(&group.filter, &message.topic) {
                continue;
            }
            let Some(outlet) = &mut client.outlet else { continue };
            let want = member.want(want);
            if outlet.credit == Some(0) {
                missed = Some(DropReason::QueueFull);
            } else if !outlet.takes(message, QoS::AtMostOnce, &want.subscription_ids) {
                missed = Some(DropReason::TooLarge);
            } else {
                let label = Label::of(&want, 0);
                outlet.deliver(message.clone(), label, &turn.now, &mut self.counters, turn.effects);
                found = Some(key);
                break;
            }
        }
        match (found, missed) {
            (Some(key), _) => group.last = key,
            (None, Some(reason)) => self.counters.drop(reason, 1),
            (None, None) => {}
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
            Question::Count => self.on_group_count(id, &rows, turn),
        }
        self.limit_group(id, turn);
        self.draw(id, turn);
    }

    fn on_row(&mut self, id: GroupId, seq: Seq, found: Option<Parcel>, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.again.remove(&seq) {
            if let Some(parcel) = found
                && !self.hand_on(id, seq, parcel, turn)
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
            None => self.abandon(key, packet_id, None, turn),
        }
    }

    fn on_next_rows(&mut self, id: GroupId, rows: Rows, turn: &mut Turn<'_>) {
        let (reader, through, newest, left) = (rows.reader, rows.through, rows.newest, rows.left);
        if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
            backlog.answered();
        }
        for Row { seq, message, want, .. } in rows.rows {
            if !self.has_room_in_group(id) || self.groups.get(id).is_none_or(|group| group.stuck) {
                return;
            }
            self.take_group_row(id, seq, Parcel { message, want }, turn);
        }
        if let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) {
            backlog.advance(through);
            if !backlog.caught_up() && backlog.taken() <= through && self.ledger.tail_covers(newest) {
                // The store has ended rows by itself.
                let later = self.ledger.seqs(reader, newest).len() as u64;
                backlog.recount(left + later, turn.now.mono);
            }
        }
    }

    fn on_group_count(&mut self, id: GroupId, rows: &Rows, turn: &Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if let Some(backlog) = &mut group.backlog
            && backlog.answered() == Reading::Counting
        {
            Broker::learn_count(backlog, rows, &self.ledger, turn.now.mono, |seq| {
                group.leased.contains(&seq)
            });
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
            && !self.hand_on(id, seq, parcel, turn)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.again.insert(seq);
            group.stuck = true;
        }
    }

    fn draw_from_queue(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let Some(parcel) = self.groups.get(id).and_then(|group| group.queue.first()) else { return false };
        let (message, qos) = (parcel.message.clone(), parcel.want.qos);
        if self.pick(id, &message, qos) == Pick::Nobody {
            return false;
        }
        let Some(parcel) = self.groups.get_mut(id).and_then(|group| group.queue.pop()) else { return false };
        self.memory.queues -= parcel.weight();
        self.hand_on(id, Seq(0), parcel, turn);
        true
    }

    fn draw_again(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
        let Some(group) = self.groups.get(id).filter(|group| !group.stuck) else { return false };
        let Some(seq) = group.again.first().copied() else { return false };
        if !self.has_room_in_group(id) {
            return false;
        }
        let fetched = self.fetch(id, seq, turn);
        let Some(group) = self.groups.get_mut(id) else { return false };
        match fetched {
            Fetched::Later => return false,
            Fetched::Gone => drop(group.again.remove(&seq)),
            Fetched::Row(parcel) => {
                let given = self.hand_on(id, seq, parcel, turn);
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
        let waits = self.groups.get(id).is_some_and(|group| {
            let reads = group.backlog.as_ref().is_some_and(|backlog| !backlog.caught_up());
            reads && !group.stuck && group.question.is_none()
        });
        if !waits || !self.has_room_in_group(id) {
            return false;
        }
        let most = self.portion();
        let limit = Portion { rows: self.room_of_group(id, most.rows), ..most };
        let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) else {
            return false;
        };
        let (reader, after) = (backlog.reader, backlog.cursor());
        if !self.ledger.tail_covers(after) {
            if self.ledger.is_committed(backlog.shortened_by()) {
                backlog.ask();
                turn.effects.push(self.memory.read(reader, after, limit));
                if let Some(group) = self.groups.get_mut(id) {
                    group.question = Some(Question::Next);
                }
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
    pub(super) fn fetch(&mut self, id: GroupId, seq: Seq, turn: &mut Turn<'_>) -> Fetched {
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
            turn.effects.push(self.memory.read(reader, after, Portion::from(1)));
        }
        Fetched::Later
    }

    /// Gives a message to a member, or drops it for good; false where nobody can take it now.
    fn hand_out(&mut self, id: GroupId, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) -> bool {
        let dropped = match self.pick(id, &parcel.message, parcel.want.qos) {
            Pick::Member(key) => {
                self.assign(id, key, seq, parcel, turn);
                return true;
            }
            Pick::Nobody => return false,
            Pick::Away(key) if seq > Seq(0) => {
                self.set_aside(id, seq, &parcel.message, key, turn);
                return true;
            }
            // What is in no log waits for nobody.
            Pick::Away(_) | Pick::Barred => DropReason::Denied,
            Pick::TooLarge => DropReason::TooLarge,
        };
        self.lose(id, seq, dropped, turn);
        true
    }

    /// Gives a message that has waited to a member, unless its time is over: what begins at once may have no
    /// time at all. [MQTT5-3.3.2-5]
    fn hand_on(&mut self, id: GroupId, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) -> bool {
        if parcel.message.remaining(&turn.now) == Some(0) {
            self.lose(id, seq, DropReason::Expired, turn);
            return true;
        }
        self.hand_out(id, seq, parcel, turn)
    }

    /// Nobody gets a message of the group.
    fn lose(&mut self, id: GroupId, seq: Seq, reason: DropReason, turn: &mut Turn<'_>) {
        let reader = self.groups.get(id).and_then(|group| group.backlog.as_ref()).map(|own| own.reader);
        if let Some(reader) = reader.filter(|_| seq > Seq(0)) {
            self.ledger.write(Write::Dropped { reader, seq, reason }, turn.effects);
        }
        match reason {
            DropReason::Expired => self.counters.expired += 1,
            reason => self.counters.drop(reason, 1),
        }
    }

    fn assign(&mut self, id: GroupId, key: ClientKey, seq: Seq, parcel: Parcel, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(member) = group.members.get(&key) else { return };
        group.last = key;
        let Some(client) = self.clients.get_mut(key) else { return };
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Parcel { message, want } = parcel;
        let (reader, own) = (want.reader, member.want(&want));
        if own.qos == QoS::AtMostOnce {
            let label = Label::of(&own, 0);
            outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
            if seq > Seq(0) {
                self.ledger.write(Write::Settled { reader, seq }, turn.effects);
            }
            return;
        }
        let is_leased = own.qos == QoS::ExactlyOnce && seq > Seq(0);
        let holder = session.backlog.as_ref().filter(|_| is_leased).map(|backlog| backlog.reader);
        let stage = if holder.is_some() { Stage::Leasing } else { Stage::Sent };
        let Some(exchange) = session.flight.begin(seq, own.qos, stage) else { return };
        let packet_id = exchange.packet_id;
        exchange.group = Some(id);
        group.drawn += 1;
        if holder.is_some() {
            exchange.parcel = Some(self.memory.hold(seq, Parcel { message, want: own }, &self.ledger));
            let ticket = self.ledger.write(Write::Leased { reader, seq, packet_id, holder }, turn.effects);
            return self.ledger.after(ticket, Step::Lease(key, packet_id));
        }
        if seq == Seq(0) {
            let parcel = Parcel { message: message.clone(), want };
            self.memory.queues += parcel.weight();
            exchange.parcel = Some(Box::new(Held { parcel, burden: None }));
        }
        let label = Label::of(&own, packet_id);
        outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
        if is_leased {
            // Its session is over with a kill, so a start only has to know whether it was sent; see `repeat`.
            let holder = Some(NOBODY);
            self.ledger.write(Write::Leased { reader, seq, packet_id, holder }, turn.effects);
        }
    }

    /// What a limit took is gone.
    pub(super) fn on_group_shortened(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        self.limit_group(id, turn);
        self.pump_group(id, turn);
    }

    /// Has the store count what waits for a group.
    pub(super) fn ask_group_count(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        let Some(group) = self.groups.get_mut(id).filter(|group| group.question.is_none()) else { return };
        if let Some(backlog) = &mut group.backlog
            && Broker::ask_count(backlog, &self.ledger, &mut self.memory, turn)
        {
            group.question = Some(Question::Count);
        }
    }

    /// Drops the oldest rows that wait for a group over the limits of a session's.
    fn limit_group(&mut self, id: GroupId, turn: &mut Turn<'_>) {
        let limits = &self.config.limits;
        let (rows, bytes) = (limits.max_queued_messages, limits.max_queued_bytes);
        let backlog = self.groups.get(id).and_then(|group| group.backlog.as_ref());
        if backlog.is_some_and(|backlog| backlog.is_nearly(rows, bytes)) {
            self.ask_group_count(id, turn);
        }
        let Some(backlog) = self.groups.get_mut(id).and_then(|group| group.backlog.as_mut()) else { return };
        let (lost, ticket) = Broker::limit(backlog, &self.config.limits, &mut self.ledger, turn);
        if let Some(ticket) = ticket {
            self.ledger.after(ticket, Step::PumpGroup(id));
        }
        if lost > 0 {
            self.counters.drop(DropReason::QueueFull, lost);
        }
    }
}
