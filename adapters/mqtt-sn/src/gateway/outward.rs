//! What one client is sent: one message at a time, registered first, repeated until it is answered.
//!
//! The broker hands out [`HELD_MAX`] messages and the next only when we grant it, so that little piles up
//! here; while the client sleeps nothing leaves. A message of QoS 1 or 2 keeps the broker's packet id on the
//! air, which stays the same when the broker sends it again: a client can tell a repetition even across
//! connections.

use std::collections::VecDeque;
use std::time::Duration;

use adapter_api::{Delivery, FromPort, Qos};

use super::client::{Client, Fate, Life};
use super::topics::Route;
use super::{Effect, Lost, Note, Turn};
use crate::codec::{Message, Publish, Register, ReturnCode, TopicId};

#[derive(Debug, Default)]
pub(super) struct Outward {
    /// Handed out by the broker, not yet begun; the credit keeps it short.
    waiting: VecDeque<Delivery>,
    flight: Option<Flight>,
    /// A QoS 2 message that the client has taken, and whose end it has not confirmed; survives a
    /// connection without CleanSession.
    unconfirmed: Option<u16>,
    last_register: u16,
    /// How often the broker was asked whether nothing more waits, and has not answered.
    asked: u32,
    /// Whether the log was told of a message that is too long.
    told_too_long: bool,
}

/// What the client has to answer.
#[derive(Debug)]
struct Flight {
    stage: Stage,
    /// How often it was sent again.
    repeats: u32,
    /// When it is sent again.
    due: Duration,
}

#[derive(Debug)]
enum Stage {
    /// REGACK is awaited. // [SN-6.10]
    Registering { delivery: Delivery, topic_id: u16, msg_id: u16, trust: Trust },
    /// PUBACK or PUBREC is awaited.
    Publishing { delivery: Delivery, topic: TopicId, trust: Trust },
    /// PUBCOMP is awaited; the broker is owed this much credit then.
    Releasing { msg_id: u16, credit: u32 },
}

/// Whether the client has said of this message that it does not know the topic id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Whole,
    Shaken,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Delivered,
    TooLong,
    Declined,
    NoTopicId,
}

impl Outward {
    pub(super) fn due(&self) -> Option<Duration> {
        self.flight.as_ref().map(|flight| flight.due)
    }

    /// What is unanswered is the broker's to send again, save at QoS 0: so many are lost.
    pub(super) fn end(&mut self) -> u64 {
        let lost = self.waiting.drain(..).filter(|delivery| delivery.qos == Qos::AtMostOnce).count();
        let registering = |flight: &Flight| matches!(&flight.stage, Stage::Registering { delivery, .. } if delivery.qos == Qos::AtMostOnce);
        let lost = lost + usize::from(self.flight.as_ref().is_some_and(registering));
        self.flight = None;
        self.asked = 0;
        self.told_too_long = false;
        u64::try_from(lost).unwrap_or(u64::MAX)
    }

    fn next_register(&mut self) -> u16 {
        self.last_register = self.last_register.checked_add(1).unwrap_or(1);
        self.last_register
    }
}

impl Client {
    /// The broker hands out a message.
    pub(super) fn deliver(&mut self, delivery: Delivery, turn: &mut Turn<'_>) {
        let octets = delivery.payload.len() + PUBLISH_HEADER;
        if octets > turn.settings.max_packet {
            return self.abort(&delivery, octets, turn);
        }
        self.outward.waiting.push_back(delivery);
        self.advance(Trust::Whole, turn);
    }

    /// It listens again: all that waits is sent, here and at the broker.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        self.outward.asked += 1;
        self.ask(FromPort::Drain, turn);
        self.outward_resume(turn);
    }

    /// Nothing more waits at the broker.
    pub(super) fn drained(&mut self, turn: &mut Turn<'_>) {
        self.outward.asked = self.outward.asked.saturating_sub(1);
        self.advance(Trust::Whole, turn);
    }

    /// It does not listen any more: what is under way to it waits in its old place.
    pub(super) fn put_back(&mut self, turn: &mut Turn<'_>) {
        match self.outward.flight.take().map(|flight| flight.stage) {
            Some(Stage::Registering { delivery, .. }) => self.outward.waiting.push_front(delivery),
            Some(Stage::Publishing { delivery, .. }) => {
                self.outward.waiting.push_front(Delivery { dup: true, ..delivery });
            }
            Some(Stage::Releasing { credit: credit @ 1.., .. }) => self.ask(FromPort::Grant(credit), turn),
            Some(Stage::Releasing { credit: 0, .. }) | None => {}
        }
    }

    /// A new connection, or awake: the end of a QoS 2 message that it has taken is asked for first.
    pub(super) fn outward_resume(&mut self, turn: &mut Turn<'_>) {
        if let Some(msg_id) = self.outward.unconfirmed {
            self.fly(Stage::Releasing { msg_id, credit: 0 }, turn);
            turn.answer(&self.peer, &Message::PubRel(msg_id));
        }
        self.advance(Trust::Whole, turn);
    }

    /// Begins with the next message, unless one is under way.
    fn advance(&mut self, trust: Trust, turn: &mut Turn<'_>) {
        while self.outward.flight.is_none() && !matches!(self.life, Life::Asleep(_)) {
            let Some(delivery) = self.outward.waiting.pop_front() else {
                if self.outward.asked == 0 && self.is_sleeping() {
                    // [SN-6.14]
                    turn.answer(&self.peer, &Message::PingResp);
                    self.heard = turn.now;
                    self.doze(turn);
                }
                return;
            };
            match self.topics.route(&delivery.topic, &turn.settings.predefined, turn.settings.max_topics) {
                Route::Send(topic) => self.send_publish(delivery, topic, trust, turn),
                Route::Register(topic_id) => self.send_register(delivery, topic_id, trust, turn),
                Route::Declined => self.finish(&delivery, End::Declined, turn),
                Route::Full => self.finish(&delivery, End::NoTopicId, turn),
            }
        }
    }

    /// [SN-6.5] A topic is registered before its first message.
    fn send_register(&mut self, delivery: Delivery, topic_id: u16, trust: Trust, turn: &mut Turn<'_>) {
        let msg_id = self.outward.next_register();
        let message = Message::Register(Register { topic_id, msg_id, topic: delivery.topic.clone() });
        match turn.send(&self.peer, &message) {
            Ok(()) => self.fly(Stage::Registering { delivery, topic_id, msg_id, trust }, turn),
            Err(too_long) => self.abort(&delivery, too_long.octets, turn),
        }
    }

    fn send_publish(&mut self, delivery: Delivery, topic: TopicId, trust: Trust, turn: &mut Turn<'_>) {
        let message = publish_message(&delivery, topic);
        match turn.send(&self.peer, &message) {
            Ok(()) if delivery.qos == Qos::AtMostOnce => self.finish(&delivery, End::Delivered, turn),
            Ok(()) => self.fly(Stage::Publishing { delivery, topic, trust }, turn),
            Err(too_long) => self.abort(&delivery, too_long.octets, turn),
        }
    }

    /// [SN-6.10] What the network does not carry is given up without a word to the client.
    fn abort(&mut self, delivery: &Delivery, octets: usize, turn: &mut Turn<'_>) {
        if !std::mem::replace(&mut self.outward.told_too_long, true) {
            let (client_id, topic) = (self.connect.client_id.clone(), delivery.topic.clone());
            turn.effects.push(Effect::Note(Note::TooLong { client_id, topic, octets }));
        }
        self.finish(delivery, End::TooLong, turn);
    }

    fn fly(&mut self, stage: Stage, turn: &Turn<'_>) {
        let due = turn.now + turn.settings.retry_interval;
        self.outward.flight = Some(Flight { stage, repeats: 0, due });
    }

    /// The broker need not keep the message, and may hand out another.
    fn finish(&mut self, delivery: &Delivery, end: End, turn: &mut Turn<'_>) {
        let counter = match end {
            End::Delivered => &mut turn.counters.delivered,
            End::TooLong => &mut turn.counters.dropped_too_long,
            End::Declined => &mut turn.counters.dropped_declined,
            End::NoTopicId => &mut turn.counters.dropped_no_topic_id,
        };
        *counter += 1;
        if delivery.qos != Qos::AtMostOnce {
            self.ask(FromPort::Acknowledge { id: delivery.id }, turn);
        }
        self.ask(FromPort::Grant(1), turn);
    }

    /// REGACK.
    pub(super) fn registered(&mut self, topic_id: u16, msg_id: u16, code: ReturnCode, turn: &mut Turn<'_>) {
        let awaited = matches!(
            &self.outward.flight,
            Some(Flight { stage: Stage::Registering { topic_id: id, msg_id: register, .. }, .. })
                if *register == msg_id && (*id == topic_id || code != ReturnCode::Accepted)
        );
        if !awaited {
            turn.counters.ignored_unexpected += 1;
            return;
        }
        if code == ReturnCode::Congestion {
            // The timer asks again.
            return;
        }
        let Some(Flight { stage: Stage::Registering { delivery, topic_id, trust, .. }, .. }) =
            self.outward.flight.take()
        else {
            return;
        };
        if code == ReturnCode::Accepted {
            self.topics.tell(topic_id);
            self.send_publish(delivery, TopicId::Normal(topic_id), trust, turn);
        } else {
            // [SN-6.10] The client does not want this topic; a wildcard that brought it stays.
            self.topics.decline(topic_id);
            if self.topics.unsubscribe(&delivery.topic).is_some() {
                self.ask(FromPort::Unsubscribe { id: 0, filter: delivery.topic.clone() }, turn);
            }
            self.finish(&delivery, End::Declined, turn);
        }
        self.advance(Trust::Whole, turn);
    }

    /// PUBACK.
    pub(super) fn acknowledged(&mut self, topic_id: u16, msg_id: u16, code: ReturnCode, turn: &mut Turn<'_>) {
        let awaited = matches!(
            &self.outward.flight,
            Some(Flight { stage: Stage::Publishing { delivery, .. }, .. })
                if delivery.id == msg_id && (delivery.qos == Qos::AtLeastOnce || code != ReturnCode::Accepted)
        );
        if !awaited {
            if msg_id == 0 && code == ReturnCode::InvalidTopicId {
                // A QoS 0 message that we no longer have; the next one is registered first.
                self.topics.distrust(TopicId::Normal(topic_id), "");
            }
            turn.counters.ignored_unexpected += 1;
            return;
        }
        if code == ReturnCode::Congestion {
            // The timer sends it again.
            return;
        }
        let Some(Flight { stage: Stage::Publishing { delivery, topic, trust }, .. }) =
            self.outward.flight.take()
        else {
            return;
        };
        match code {
            ReturnCode::Accepted => self.finish(&delivery, End::Delivered, turn),
            // [SN-6.10] The client does not know the id: it is told, and the message sent once more.
            ReturnCode::InvalidTopicId if trust == Trust::Whole => {
                self.topics.distrust(topic, &delivery.topic);
                self.outward.waiting.push_front(delivery);
                return self.advance(Trust::Shaken, turn);
            }
            _ => self.finish(&delivery, End::Declined, turn),
        }
        self.advance(Trust::Whole, turn);
    }

    /// PUBREC: the client has the message, only its end is open.
    pub(super) fn taken(&mut self, msg_id: u16, turn: &mut Turn<'_>) {
        let awaited = matches!(
            &self.outward.flight,
            Some(Flight { stage: Stage::Publishing { delivery, .. }, .. })
                if delivery.id == msg_id && delivery.qos == Qos::ExactlyOnce
        );
        if awaited {
            self.outward.unconfirmed = Some(msg_id);
            self.fly(Stage::Releasing { msg_id, credit: 1 }, turn);
            turn.counters.delivered += 1;
            self.ask(FromPort::Acknowledge { id: msg_id }, turn);
        } else {
            turn.counters.repeated += 1;
        }
        // Also for a message id of long ago, so that the client comes to an end with it.
        turn.answer(&self.peer, &Message::PubRel(msg_id));
    }

    /// PUBCOMP.
    pub(super) fn completed(&mut self, msg_id: u16, turn: &mut Turn<'_>) {
        match self.outward.flight {
            Some(Flight { stage: Stage::Releasing { msg_id: awaited, credit }, .. }) if awaited == msg_id => {
                self.outward.flight = None;
                self.outward.unconfirmed = None;
                if credit > 0 {
                    self.ask(FromPort::Grant(credit), turn);
                }
                self.advance(Trust::Whole, turn);
            }
            _ => turn.counters.ignored_unexpected += 1,
        }
    }

    /// [SN-6.13] Sends again what was not answered in time, and gives the client up in the end.
    pub(super) fn repeat(&mut self, turn: &mut Turn<'_>) -> Fate {
        let Some(flight) = self.outward.flight.as_mut().filter(|flight| flight.due <= turn.now) else {
            return Fate::Stays;
        };
        if flight.repeats >= turn.settings.retries {
            if !self.is_sleeping() {
                return Fate::Lost(Lost::Unanswered);
            }
            // It went back to sleep without waiting for the end.
            self.put_back(turn);
            self.doze(turn);
            return Fate::Stays;
        }
        flight.repeats += 1;
        flight.due = turn.now + turn.settings.retry_interval;
        turn.counters.retransmitted += 1;
        if let Stage::Publishing { delivery, .. } = &mut flight.stage {
            // [SN-5.3.4]
            delivery.dup = true;
        }
        let message = match &flight.stage {
            Stage::Registering { delivery, topic_id, msg_id, .. } => Message::Register(Register {
                topic_id: *topic_id,
                msg_id: *msg_id,
                topic: delivery.topic.clone(),
            }),
            Stage::Publishing { delivery, topic, .. } => publish_message(delivery, *topic),
            Stage::Releasing { msg_id, .. } => Message::PubRel(*msg_id),
        };
        turn.answer(&self.peer, &message);
        Fate::Stays
    }
}

fn publish_message(delivery: &Delivery, topic: TopicId) -> Message {
    Message::Publish(Publish {
        dup: delivery.dup && delivery.qos != Qos::AtMostOnce,
        qos: delivery.qos.into(),
        retain: delivery.retain,
        topic,
        // [SN-5.4.12] 0 at QoS 0.
        msg_id: if delivery.qos == Qos::AtMostOnce { 0 } else { delivery.id },
        payload: delivery.payload.clone(),
    })
}

/// Messages of one client that the broker has handed out and that are not done. Beyond, it keeps those of
/// QoS 1 and 2 itself, and drops and counts those of QoS 0: so many are kept for a client that sleeps.
pub(crate) const HELD_MAX: u32 = 16;

/// Octets of a PUBLISH before its payload, at least. // [SN-5.4.12]
const PUBLISH_HEADER: usize = 7;
