//! What somebody keeps of what goes a known way.
//!
//! A session that outlives its connection, or a stored route, has a row of such a message, whoever else is sent it at
//! once; and who is here may be sent the row itself. It is written, counted, limited and answered like any other that
//! is kept: only who wants it is known already.

use std::sync::Arc;

use super::connection::Answer;
use super::pace::Kind;
use super::ways::Stop;
use super::{Broker, ConnectionId, Effect, Taker, Turn};
use crate::codec::{Plain, QoS, Reason};
use crate::record::{Identifiers, Message, Now, Want};
use crate::router::Match;
use crate::session::Parcel;

impl Broker {
    /// Whether what a client publishes at such a QoS can be kept now, and nobody refuses it.
    #[inline]
    pub(super) fn may_keep(&self, id: ConnectionId, qos: QoS) -> bool {
        !self.ledger.is_busy()
            && self.full.is_nobody()
            && (qos == QoS::AtMostOnce
                || self.connections.get(id).is_some_and(|connection| !connection.owes_too_many()))
    }

    /// Who keeps a message of this QoS that was found for it, where it is one reader of the log that takes it as it is.
    pub(super) fn stop_of(&self, found: &Match, qos: QoS) -> Option<Stop> {
        match self.taker(found.subscriber) {
            Taker::Route(place) => {
                let route = self.config.routes.get(place).filter(|route| route.store)?;
                Some(Stop { reader: route.reader, client: None, qos })
            }
            Taker::Client(slot) => {
                let qos = found.qos.min(qos);
                let backlog = self.clients.in_slot(slot)?.session.backlog.as_ref()?;
                let is_plain = qos > QoS::AtMostOnce && found.identifiers.is_empty();
                is_plain.then_some(Stop { reader: backlog.reader, client: Some(slot), qos })
            }
            Taker::Group(_) => None,
        }
    }

    /// Writes a message for all at the stops of its way, and answers it once that is committed.
    pub(super) fn keep_at_stops(
        &mut self,
        id: ConnectionId,
        plain: &Plain<'_>,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) {
        let former = self.ledger.newest_topic();
        let Some(message) = Message::of_plain(plain, now.house, former).map(Arc::new) else { return };
        let weight = message.weight() as u64;
        let stops = std::mem::take(&mut self.stops);
        let mut audience = std::mem::take(&mut self.found.audience);
        audience.extend(stops.iter().map(Stop::want));
        audience.sort_unstable_by_key(|want| want.reader);
        let mut turn = Turn::of_words(now, effects);
        let (seq, ticket) = self.ledger.append(message.clone(), &audience, false, None, turn.effects);
        audience.clear();
        self.found.audience = audience;
        for stop in &stops {
            if let Some(key) = stop.client.and_then(|slot| self.clients.key_of(slot))
                && !self.falls_behind(key, seq, weight, &mut turn)
            {
                let parcel = Parcel { message: message.clone(), want: stop.want() };
                self.start_row(key, seq, parcel, &mut turn);
            }
        }
        self.stops = stops;
        let Some(connection) = self.connections.get_mut(id) else { return };
        self.pace.heard(&mut connection.rhythm);
        if plain.qos == QoS::AtLeastOnce {
            connection.unanswered += 1;
            let answer = Answer::PubAck(plain.packet_id, Reason::Success);
            self.answer(id, Some(ticket), Kind::Publish, answer, &mut turn);
        }
    }
}

impl Stop {
    fn want(&self) -> Want {
        let Stop { reader, qos, .. } = *self;
        Want { reader, qos, retain: false, subscription_ids: Identifiers::default() }
    }
}
