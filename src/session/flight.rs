//! Exchanges of QoS 1 and 2 towards one client, in the order of their first sending.
//!
//! The packet id of a QoS 2 exchange of a kept session stays taken until the commit that ends it, even
//! when the client has already completed it, and also when its message is gone. What is under way on the
//! present connection is counted: that count is what Receive Maximum bounds.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::codec::QoS;
use crate::record::{Lease, LeaseState, Message, Seq, Want};

/// The exchanges of one session.
#[derive(Debug, Default)]
pub struct Flight {
    exchanges: VecDeque<Exchange>,
    /// Packet ids given so far.
    given: u64,
    last_id: u16,
    /// Exchanges under way on the present connection.
    under_way: u16,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    /// Its packet id.
    pub packet_id: u16,
    /// Its row; 0 where the message is in no log.
    pub seq: Seq,
    /// The group that the message was drawn from; `None` where it is the session's own.
    pub group: Option<GroupId>,
    /// 1 or 2.
    pub qos: QoS,
    /// How far it is.
    pub stage: Stage,
    /// Whether its PUBLISH was sent.
    pub sending: Sending,
    /// Whether it counts against the window of the present connection.
    under_way: bool,
    /// The message of an exchange in [`Stage::Leasing`], until it is sent; of one that was drawn from a
    /// group and is in no log, until it ends.
    pub parcel: Option<Box<Held>>,
    /// Its number among the packet ids given; 0 where it was given before a restart.
    number: u64,
}

/// A message and how it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The message.
    pub message: Arc<Message>,
    /// The wish.
    pub want: Want,
}

/// A message that an exchange holds.
#[derive(Debug)]
pub struct Held {
    /// The message.
    pub parcel: Parcel,
    /// What it takes, where nobody else has it in memory.
    pub burden: Option<Burden>,
}

/// Bytes that count in a sum for as long as this stands.
#[derive(Debug)]
pub struct Burden {
    bytes: usize,
    sum: Arc<AtomicUsize>,
}

impl Burden {
    /// So many bytes more in that sum.
    pub fn new(bytes: usize, sum: &Arc<AtomicUsize>) -> Burden {
        sum.fetch_add(bytes, Relaxed);
        Burden { bytes, sum: sum.clone() }
    }
}

impl Drop for Burden {
    fn drop(&mut self) {
        self.sum.fetch_sub(self.bytes, Relaxed);
    }
}

impl Parcel {
    /// Bytes that it weighs where it waits.
    pub fn weight(&self) -> usize {
        self.message.weight() + self.want.subscription_ids.weight()
    }
}

/// A group of clients that share a subscription; not used again while an exchange names it.
/// In tests every comparison is counted, as those of [`Sought`](super::Sought).
#[derive(Debug, Clone, Copy, Eq)]
pub struct GroupId(pub u32);

impl Ord for GroupId {
    fn cmp(&self, other: &GroupId) -> Ordering {
        #[cfg(test)]
        super::COMPARED.with(|count| count.set(count.get() + 1));
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for GroupId {
    fn partial_cmp(&self, other: &GroupId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for GroupId {
    fn eq(&self, other: &GroupId) -> bool {
        self.cmp(other).is_eq()
    }
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// QoS 2 of a kept session: the packet id is not yet committed, PUBLISH waits for it.
    Leasing,
    /// PUBLISH is sent, or must be sent again.
    Sent,
    /// QoS 2 of a kept session: PUBREC came, or PUBLISH can never be sent again; that is not yet committed, and
    /// PUBREL waits for it.
    Recording,
    /// PUBREL is sent, or must be sent again.
    Released,
    /// QoS 2 of a kept session: PUBCOMP came, the packet id is free once that is committed.
    Ended,
}

impl Exchange {
    /// What the message weighs, where it is in no log and held for a group.
    pub fn weight(&self) -> usize {
        let held = self.parcel.as_ref().filter(|_| self.seq == Seq(0));
        held.map_or(0, |held| held.parcel.weight())
    }
}

/// Whether the PUBLISH of an exchange was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// No connection has seen it.
    Not,
    /// Nobody knows: it was to be sent before a restart.
    Perhaps,
    /// It was handed to a connection.
    Surely,
}

impl Sending {
    /// Whether sending it now may be sending it again.
    pub fn repeats(self) -> bool {
        self != Sending::Not
    }
}

impl Flight {
    /// Exchanges under way on the present connection.
    pub fn under_way(&self) -> u16 {
        self.under_way
    }

    /// Whether one of them is of the session's own log.
    pub fn is_own_under_way(&self) -> bool {
        self.exchanges.iter().any(|exchange| exchange.under_way && exchange.group.is_none())
    }

    /// Messages of the session's own that were or are to be sent and may not have come.
    pub fn unanswered(&self) -> usize {
        let is_one = |exchange: &&Exchange| {
            matches!(exchange.stage, Stage::Leasing | Stage::Sent) && exchange.group.is_none()
        };
        self.exchanges.iter().filter(is_one).count()
    }

    /// Every exchange, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter()
    }

    /// Exchanges whose packet id is taken.
    pub fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether nothing is unanswered.
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Begins an exchange on the present connection; `None` while every packet id is taken.
    pub fn begin(&mut self, seq: Seq, qos: QoS, stage: Stage) -> Option<&mut Exchange> {
        let packet_id = self.free_id()?;
        self.last_id = packet_id;
        self.given += 1;
        self.under_way += 1;
        self.exchanges.push_back(Exchange {
            packet_id,
            seq,
            group: None,
            qos,
            stage,
            sending: if stage == Stage::Sent { Sending::Surely } else { Sending::Not },
            under_way: true,
            parcel: None,
            number: self.given,
        });
        self.exchanges.back_mut()
    }

    /// Takes up an exchange that was under way before a restart, in the order of their rows; how far it is.
    pub fn restore(&mut self, lease: &Lease, group: Option<GroupId>) -> Stage {
        let (stage, sending) = match (lease.state, lease.has_row) {
            (LeaseState::Received, _) => (Stage::Released, Sending::Surely),
            (_, false) => (Stage::Recording, Sending::Perhaps),
            (LeaseState::Begun, true) => (Stage::Sent, Sending::Perhaps),
            (LeaseState::Sent, true) => (Stage::Sent, Sending::Surely),
        };
        self.exchanges.push_back(Exchange {
            packet_id: lease.packet_id,
            seq: lease.seq,
            group,
            qos: QoS::ExactlyOnce,
            stage,
            sending,
            under_way: false,
            parcel: None,
            number: 0,
        });
        stage
    }

    /// The exchange with this packet id.
    pub fn find(&mut self, packet_id: u16) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.packet_id == packet_id)
    }

    /// The exchange of this row of the session's own, unless it has ended.
    pub fn of(&mut self, seq: Seq) -> Option<&mut Exchange> {
        self.exchanges.iter_mut().find(|exchange| exchange.seq == seq && exchange.group.is_none())
    }

    /// Counts an exchange against the present connection, as its packet is sent again.
    pub fn resume(&mut self, packet_id: u16) {
        if let Some(exchange) = self.exchanges.iter_mut().find(|known| known.packet_id == packet_id)
            && !std::mem::replace(&mut exchange.under_way, true)
        {
            self.under_way += 1;
        }
    }

    /// The client has completed the exchange; its packet id stays taken until [`Flight::remove`].
    pub fn end(&mut self, packet_id: u16) {
        if let Some(exchange) = self.exchanges.iter_mut().find(|known| known.packet_id == packet_id) {
            exchange.stage = Stage::Ended;
            if std::mem::replace(&mut exchange.under_way, false) {
                self.under_way -= 1;
            }
        }
    }

    /// The exchange is over and its packet id free.
    pub fn remove(&mut self, packet_id: u16) -> Option<Exchange> {
        let place = self.exchanges.iter().position(|exchange| exchange.packet_id == packet_id)?;
        // Answers mostly come in the order of the messages.
        let exchange = if place == 0 { self.exchanges.pop_front() } else { self.exchanges.remove(place) }?;
        if exchange.under_way {
            self.under_way -= 1;
        }
        Some(exchange)
    }

    /// Ends the oldest exchange, if it has this packet id, is under way, of this QoS and as far as that, and there is
    /// nothing to do but forget it.
    #[inline]
    pub fn end_oldest(&mut self, packet_id: u16, qos: QoS, stage: Stage) -> bool {
        let is_it = self.exchanges.front().is_some_and(|oldest| {
            oldest.packet_id == packet_id
                && (oldest.qos, oldest.stage) == (qos, stage)
                && (oldest.seq, oldest.group, oldest.under_way) == (Seq(0), None, true)
        });
        if is_it {
            self.exchanges.pop_front();
            self.under_way -= 1;
        }
        is_it
    }

    /// The connection is gone: nothing is under way, messages are read again when there is a new one.
    pub fn detach(&mut self) {
        self.under_way = 0;
        for exchange in &mut self.exchanges {
            exchange.under_way = false;
            if exchange.group.is_none() || exchange.seq > Seq(0) {
                exchange.parcel = None;
            }
        }
    }

    /// The oldest row whose PUBLISH has no answer.
    pub fn oldest_unanswered(&self) -> Option<Seq> {
        let unanswered = |exchange: &&Exchange| {
            exchange.group.is_none() && matches!(exchange.stage, Stage::Leasing | Stage::Sent)
        };
        self.exchanges.iter().filter(unanswered).map(|exchange| exchange.seq).min()
    }

    /// Packet ids whose PUBLISH was to be read and sent again and was not.
    pub fn unread(&self) -> Vec<u16> {
        if usize::from(self.under_way) == self.exchanges.len() {
            return Vec::new();
        }
        let unread = |exchange: &&Exchange| {
            let waits = matches!(exchange.stage, Stage::Leasing | Stage::Sent);
            exchange.group.is_none() && waits && !exchange.under_way
        };
        self.exchanges.iter().filter(unread).map(|exchange| exchange.packet_id).collect()
    }

    /// Packet ids whose PUBREL must be sent again, in the order of their PUBRECs' rows.
    pub fn to_release(&self) -> Vec<u16> {
        let released = |exchange: &&Exchange| exchange.stage == Stage::Released && !exchange.under_way;
        self.exchanges.iter().filter(released).map(|exchange| exchange.packet_id).collect()
    }

    /// Bytes of the messages that are nowhere else.
    pub fn weight(&self) -> usize {
        self.exchanges.iter().map(Exchange::weight).sum()
    }

    /// The exchanges that were drawn from groups.
    pub fn shared(&self) -> Vec<(u16, GroupId)> {
        self.exchanges.iter().filter_map(|exchange| Some((exchange.packet_id, exchange.group?))).collect()
    }

    /// Those of them whose PUBLISH must be sent again, oldest first.
    pub fn shared_to_repeat(&self) -> Vec<(u16, GroupId)> {
        let waits = |exchange: &&Exchange| exchange.stage == Stage::Sent && !exchange.under_way;
        let group = |exchange: &Exchange| Some((exchange.packet_id, exchange.group?));
        self.exchanges.iter().filter(waits).filter_map(group).collect()
    }

    /// The row of an exchange of this group whose PUBLISH must be sent again.
    pub fn shared_unsent(&self, packet_id: u16, group: GroupId) -> Option<Seq> {
        let exchange = self.exchanges.iter().find(|exchange| exchange.packet_id == packet_id)?;
        let waits = exchange.group == Some(group) && exchange.stage == Stage::Sent && !exchange.under_way;
        waits.then_some(exchange.seq)
    }

    fn free_id(&self) -> Option<u16> {
        if self.exchanges.len() >= usize::from(u16::MAX) {
            return None;
        }
        let mut candidate = self.last_id;
        loop {
            candidate = candidate.checked_add(1).unwrap_or(1);
            if self.surely_free() || !self.exchanges.iter().any(|exchange| exchange.packet_id == candidate) {
                return Some(candidate);
            }
        }
    }

    /// Ids are given round, so while the oldest exchange is younger than one round the next is free.
    fn surely_free(&self) -> bool {
        self.exchanges
            .front()
            .is_none_or(|oldest| oldest.number > 0 && self.given - oldest.number < u64::from(u16::MAX) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT311-2.3.1-1] [MQTT311-2.3.1-4] [MQTT311-4.3.2-1]
    // [MQTT311-4.3.3-1]
    #[test]
    fn a_packet_id_is_not_given_twice_over_a_whole_round() {
        let mut flight = Flight::default();
        let kept = flight
            .begin(Seq(1), QoS::ExactlyOnce, Stage::Leasing)
            .map(|exchange| exchange.packet_id)
            .unwrap();
        for round in 0..140_000_u64 {
            let id = flight
                .begin(Seq(round + 2), QoS::AtLeastOnce, Stage::Sent)
                .map(|exchange| exchange.packet_id)
                .unwrap();
            assert!(id != 0 && id != kept, "round {round}");
            flight.remove(id);
        }
        assert_eq!(flight.under_way(), 1);
    }

    // [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT311-2.3.1-4]
    #[test]
    fn every_packet_id_may_be_taken() {
        let mut flight = Flight::default();
        for seq in 1..=65_535 {
            assert!(flight.begin(Seq(seq), QoS::AtLeastOnce, Stage::Sent).is_some());
        }
        assert!(flight.begin(Seq(70_000), QoS::AtLeastOnce, Stage::Sent).is_none());
        let mut ids: Vec<u16> = flight.iter().map(|exchange| exchange.packet_id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 65_535);
    }

    // [MQTT5-2.2.1-4] [MQTT311-2.3.1-4]
    #[test]
    fn an_id_from_before_a_restart_is_left_out() {
        let mut flight = Flight::default();
        let begun = LeaseState::Begun;
        let lease = Lease { seq: Seq(1), packet_id: 2, state: begun, holder: None, has_row: true };
        flight.restore(&lease, None);
        let mut next =
            || flight.begin(Seq(9), QoS::AtLeastOnce, Stage::Sent).map(|exchange| exchange.packet_id);
        assert_eq!((next(), next()), (Some(1), Some(3)));
    }

    #[test]
    fn the_oldest_exchange_ends_by_its_own_word_alone() {
        let mut flight = Flight::default();
        let begun = [(QoS::AtLeastOnce, Stage::Sent), (QoS::ExactlyOnce, Stage::Sent)];
        let ids = begun.map(|(qos, stage)| flight.begin(Seq(0), qos, stage).unwrap().packet_id);
        let mut end = |place: usize, qos, stage| flight.end_oldest(ids[place], qos, stage);
        assert!(!end(1, QoS::ExactlyOnce, Stage::Sent), "it is not the oldest");
        assert!(!end(0, QoS::ExactlyOnce, Stage::Sent) && !end(0, QoS::AtLeastOnce, Stage::Released));
        assert!(end(0, QoS::AtLeastOnce, Stage::Sent) && !end(0, QoS::AtLeastOnce, Stage::Sent));
        assert_eq!((flight.len(), flight.under_way()), (1, 1));
        flight.find(ids[1]).unwrap().stage = Stage::Released;
        flight.detach();
        assert!(!flight.end_oldest(ids[1], QoS::ExactlyOnce, Stage::Released), "it was under way elsewhere");
        flight.resume(ids[1]);
        assert!(flight.end_oldest(ids[1], QoS::ExactlyOnce, Stage::Released));
        for (seq, group) in [(Seq(1), None), (Seq(0), Some(GroupId(0)))] {
            let exchange = flight.begin(seq, QoS::AtLeastOnce, Stage::Sent).unwrap();
            exchange.group = group;
            let id = exchange.packet_id;
            let ends = flight.end_oldest(id, QoS::AtLeastOnce, Stage::Sent);
            assert!(!ends, "its row or its group is to be told");
            assert_eq!((flight.len(), flight.under_way()), (1, 1));
            flight.remove(id);
        }
    }
}
