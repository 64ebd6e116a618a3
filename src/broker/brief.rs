//! A client's words on exchanges, taken without an event.
//!
//! They mean what they mean elsewhere. Only who waits for nothing is heard so, and to whom no more than the next
//! message of a queue can be due.

use super::client::Client;
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::{Ack, Brief, Properties, QoS, Reason, Word};
use crate::record::Now;
use crate::session::Stage;

/// What comes of a word that is taken without an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// What its speaker is answered, before anything else is done.
    pub answer: Option<Brief>,
}

impl<'a> Turn<'a> {
    /// One in which no walk goes on.
    pub(super) fn of_words(now: &Now, effects: &'a mut Vec<Effect>) -> Turn<'a> {
        Turn { now: *now, effects, walks: 0, looks: 0, heard: None }
    }

    /// Answers the speaker with a packet id alone; false where that is to be an effect like any other.
    pub(super) fn answer(&mut self, answer: Brief) -> bool {
        match &mut self.heard {
            Some(heard) if heard.answer.is_none() && self.effects.is_empty() => {
                heard.answer = Some(answer);
                true
            }
            _ => false,
        }
    }
}

impl Client {
    /// Ends the exchange that has been under way longest, if this word does that, and nothing else is due by it but
    /// what waits in its publisher's words.
    #[inline]
    fn ends_oldest(&mut self, Brief { word, packet_id }: Brief) -> bool {
        let (qos, stage) = match word {
            Word::PubAck => (QoS::AtLeastOnce, Stage::Sent),
            Word::PubComp => (QoS::ExactlyOnce, Stage::Released),
            Word::PubRec | Word::PubRel => return false,
        };
        let Client { session, outlet: Some(outlet), .. } = self else { return false };
        let is_all = outlet.pings == 0 && (session.line.is_empty() || session.line.is_next_verbatim());
        is_all && session.backlog.is_none() && session.flight.end_oldest(packet_id, qos, stage)
    }
}

impl Broker {
    /// Takes a client's word. `None` where it is to be handled like any other packet: nothing is done then. After PUBACK
    /// and PUBCOMP [`Broker::take_waiting`] is to be asked for what may be sent next.
    pub fn take_word(
        &mut self,
        id: ConnectionId,
        brief: Brief,
        now: &Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Heard> {
        let connection = self.connections.get_mut(id).filter(|connection| connection.is_at_ease())?;
        let client = self.clients.get_mut(connection.client?)?;
        let is_plain = client.session.walks.is_empty() && client.groups.is_empty();
        // It would wait for a commit, and who waits is to be known to have said all that he may.
        let would_wait = brief.word == Word::PubRel && client.session.backlog.is_some();
        if !is_plain || would_wait || !connection.answers.is_empty() {
            return None;
        }
        connection.heard = now.mono;
        if client.ends_oldest(brief) {
            return Some(Heard::default());
        }
        let mut turn = Turn { heard: Some(Heard::default()), ..Turn::of_words(now, effects) };
        let Brief { word, packet_id } = brief;
        let ack = Ack { packet_id, reason: Reason::Success, properties: Properties::new() };
        match word {
            Word::PubAck => self.on_puback(id, &ack, &mut turn),
            Word::PubRec => self.on_pubrec(id, &ack, &mut turn),
            Word::PubRel => self.on_pubrel(id, packet_id, &mut turn),
            Word::PubComp => self.on_pubcomp(id, packet_id, &mut turn),
        }
        turn.heard
    }
}
