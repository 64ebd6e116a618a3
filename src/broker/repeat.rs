//! What members of a shared subscription have drawn and not acknowledged: to whom it goes next.
//!
//! QoS 1 goes to another member when its connection breaks. QoS 2 that was sent stays with its member, also
//! over restarts, and is over with its session; what was leased and not sent is the group's again.
//! [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]
//!
//! No order of disk and network can tell after a kill whether PUBLISH left just before it. So a kept
//! member's packet id is committed before PUBLISH, and that PUBLISH has left is written after it; of a
//! member that ends with its connection one write, which goes with PUBLISH, says both. Invariant: what
//! nobody was sent is never purged; a second member may get it only after a kill before that write.

use std::collections::BTreeSet;

use super::client::{Client, ClientKey};
use super::draw::Fetched;
use super::fan::NOBODY;
use super::ledger::Step;
use super::outlet::Label;
use super::share::log_parcel;
use super::{Broker, Effect, Turn};
use crate::codec::QoS;
use crate::record::{DropReason, LeaseState, RestoredSession, Seq, Write};
use crate::session::{Exchange, GroupId, Parcel, Sending, Stage};

/// What becomes of the exchanges of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its connection ends, its session goes on.
    Connection,
    /// Its session ends.
    Session,
}

impl Broker {
    /// A group has back what a client has drawn of it and was not sent.
    pub(super) fn return_drawn(&mut self, key: ClientKey, packet_id: u16, id: GroupId, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(exchange) = client.session.flight.remove(packet_id) else { return };
        self.memory.queues -= exchange.weight();
        let Some(group) = self.groups.get_mut(id) else { return };
        group.drawn -= 1;
        self.give_back(id, exchange, turn);
        self.close_if_done(id, turn.effects);
    }

    /// What a client has drawn and can no longer answer goes back, or ends with its session.
    pub(super) fn release_shared(&mut self, key: ClientKey, ending: Ending, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        // Each: who is away can no longer be waited for.
        let mut touched: BTreeSet<GroupId> = client.groups.clone();
        let shared = client.session.flight.shared();
        for id in &touched {
            if let Some(group) = self.groups.get_mut(*id) {
                group.miss(key);
            }
        }
        let mut to_memory = Vec::new();
        for (packet_id, id) in shared {
            let Some(client) = self.clients.get_mut(key) else { return };
            let Some(exchange) = client.session.flight.find(packet_id) else { continue };
            let goes_back = match (exchange.qos, exchange.stage, exchange.sending, ending) {
                (_, Stage::Ended, _, _) => continue,
                (QoS::AtMostOnce | QoS::AtLeastOnce, _, _, _) => true,
                (QoS::ExactlyOnce, Stage::Leasing, _, _) => true,
                (QoS::ExactlyOnce, _, _, Ending::Connection) => continue, // [MQTT5-4.8.2-4]
                (QoS::ExactlyOnce, Stage::Sent, Sending::Not | Sending::Perhaps, Ending::Session) => true,
                (QoS::ExactlyOnce, _, _, Ending::Session) => false, // [MQTT5-4.8.2-5]
            };
            let Some(exchange) = client.session.flight.remove(packet_id) else { continue };
            self.memory.queues -= exchange.weight();
            touched.insert(id);
            let Some(group) = self.groups.get_mut(id) else { continue };
            group.drawn -= 1;
            match (goes_back, &group.backlog) {
                (true, None) => to_memory.push((id, exchange)),
                (true, Some(_)) => self.give_back(id, exchange, turn),
                (false, _) => {
                    // Whoever has answered PUBREC has it, or has been found unable to take it, which was counted.
                    let dropped = (exchange.stage == Stage::Sent).then_some(DropReason::Purged);
                    self.end_sent(id, exchange.seq, dropped, turn.effects);
                }
            }
        }
        // The oldest comes to the front last.
        for (id, exchange) in to_memory.into_iter().rev() {
            self.give_back(id, exchange, turn);
        }
        for id in touched {
            self.close_if_done(id, turn.effects);
            self.pump_group(id, turn);
        }
    }

    /// A message is the group's again.
    fn give_back(&mut self, id: GroupId, exchange: Exchange, turn: &mut Turn<'_>) {
        let Exchange { seq, qos, parcel, .. } = exchange;
        let Some(group) = self.groups.get_mut(id) else { return };
        let was_leased = group.leased.remove(&seq);
        match (&mut group.backlog, parcel) {
            (Some(backlog), _) if seq > Seq(0) => {
                if qos == QoS::ExactlyOnce {
                    self.ledger.write(Write::Unleased { reader: backlog.reader, seq }, turn.effects);
                }
                // One that reading has not yet come to waits at its place, and would else be found twice.
                if !(was_leased && backlog.regain(seq)) {
                    group.again.insert(seq);
                }
            }
            (Some(_), Some(held)) => log_parcel(group, held.parcel, &mut self.ledger, turn.effects),
            (None, Some(held)) => {
                self.memory.queues += held.parcel.weight();
                group.queue.push_front(held.parcel);
            }
            (_, None) => {}
        }
    }

    /// A message that was sent is over with the session that it was sent to, and lost unless that had it.
    fn end_sent(&mut self, id: GroupId, seq: Seq, dropped: Option<DropReason>, effects: &mut Vec<Effect>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let was_leased = group.leased.remove(&seq);
        if let Some(backlog) = group.backlog.as_mut().filter(|_| seq > Seq(0)) {
            if was_leased {
                // An answer of the store that is under way may still have it.
                backlog.finish(seq);
            }
            self.ledger.end_row((backlog.reader, seq), QoS::ExactlyOnce, dropped, effects);
        }
        if let Some(reason) = dropped {
            self.counters.drop(reason, 1);
        }
    }

    /// The exchanges of a group that was found go on with those who have them. Where there is nobody, what
    /// was sent is over, and what perhaps was not is the group's again.
    pub(super) fn restore_leases(&mut self, restored: &RestoredSession, effects: &mut Vec<Effect>) {
        let reader = restored.record.reader;
        let Some(id) = self.groups.reading(reader) else { return };
        let mut leases = restored.leases.clone();
        leases.sort_by_key(|lease| lease.seq);
        for lease in leases {
            let seq = lease.seq;
            let Some(group) = self.groups.get_mut(id) else { return };
            let holder = lease.holder.and_then(|holder| self.clients.reading(holder));
            if let Some(key) = holder
                && let Some(client) = self.clients.get_mut(key)
            {
                group.drawn += 1;
                if client.session.flight.restore(&lease, Some(id)) == Stage::Recording {
                    self.record_release(key, lease.packet_id, (reader, seq), effects);
                }
            } else if !lease.has_row {
                self.ledger.write(Write::Settled { reader, seq }, effects);
            } else if lease.holder == Some(NOBODY) || lease.state > LeaseState::Begun {
                let dropped = (lease.state < LeaseState::Received).then_some(DropReason::Purged);
                self.end_sent(id, seq, dropped, effects); // [MQTT5-4.8.2-5]
            } else if let Some(backlog) = &mut group.backlog {
                group.leased.remove(&seq);
                self.ledger.write(Write::Unleased { reader, seq }, effects);
                backlog.regain(seq);
            }
        }
    }

    /// A client is back: what it must be sent again is looked for.
    pub(super) fn repeat_shared(&mut self, key: ClientKey, turn: &mut Turn<'_>) {
        let Some(client) = self.clients.get(key) else { return };
        let repeats = client.session.flight.shared_to_repeat();
        for id in client.groups.clone() {
            self.recall(id, key);
        }
        for (packet_id, id) in repeats {
            if let Some(group) = self.groups.get_mut(id) {
                group.repeats.push_back((key, packet_id));
            }
            self.pump_group(id, turn);
        }
    }

    /// One exchange goes on with its member; false where there is none that can.
    pub(super) fn repeat_one(&mut self, id: GroupId, turn: &mut Turn<'_>) -> bool {
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
                .and_then(|exchange| exchange.parcel.as_deref().map(|held| held.parcel.clone()))
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
            _ => self.abandon(key, packet_id, None, turn),
        }
        true
    }

    /// Sends an exchange's message again. [MQTT5-4.8.2-4]
    pub(super) fn repeat(
        &mut self,
        id: GroupId,
        (key, packet_id): (ClientKey, u16),
        parcel: Parcel,
        turn: &mut Turn<'_>,
    ) {
        let Parcel { message, want } = parcel;
        let member = self.groups.get(id).and_then(|group| group.members.get(&key));
        let want = member.map_or(want.clone(), |member| member.want(&want));
        let Some(client) = self.clients.get_mut(key) else { return };
        let readable = !self.restricted || client.may_read(&message.topic);
        let Client { session, outlet: Some(outlet), .. } = client else { return };
        let Some(exchange) = session.flight.find(packet_id) else { return };
        if !readable {
            return self.abandon(key, packet_id, Some(DropReason::Denied), turn);
        }
        if !outlet.takes(&message, exchange.qos, &want.subscription_ids) {
            return self.abandon(key, packet_id, Some(DropReason::TooLarge), turn);
        }
        if exchange.stage != Stage::Sent {
            return;
        }
        let (seq, former) = (exchange.seq, std::mem::replace(&mut exchange.sending, Sending::Surely));
        let label = Label { dup: former.repeats(), qos: exchange.qos, ..Label::of(&want, packet_id) };
        session.flight.resume(packet_id);
        outlet.deliver(message, label, &turn.now, &mut self.counters, turn.effects);
        if former == Sending::Perhaps {
            self.note_sent(id, seq, turn);
        }
    }

    /// PUBLISH of a row of the group has left.
    pub(super) fn note_sent(&mut self, id: GroupId, seq: Seq, turn: &mut Turn<'_>) {
        if let Some(backlog) = self.groups.get(id).and_then(|group| group.backlog.as_ref()) {
            self.ledger.write(Write::LeaseSent { reader: backlog.reader, seq }, turn.effects);
        }
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
            let ticket = self.ledger.end_row((backlog.reader, seq), qos, dropped, turn.effects);
            ends_later = qos == QoS::ExactlyOnce && client.session.backlog.is_some();
            if ends_later {
                client.session.flight.end(packet_id);
                self.ledger.after(ticket, Step::End(key, packet_id));
            }
        }
        if !ends_later && let Some(exchange) = client.session.flight.remove(packet_id) {
            self.memory.queues -= exchange.weight();
        }
        if let Some(reason) = dropped {
            self.counters.drop(reason, 1);
        }
        self.close_if_done(id, turn.effects);
    }
}
