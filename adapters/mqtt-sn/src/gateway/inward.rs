//! What one client asks of the broker: topic ids, publishes, subscriptions.
//!
//! A request waits here for the broker's word and is answered then, not before. A client may have
//! [`REQUESTS_MAX`] of them open; beyond that it is told "congestion", so that what a client can make us
//! hold has a limit.

use std::collections::{BTreeMap, BTreeSet};

use adapter_api::{Acknowledgement, FromPort, Qos, Refusal};
use bytes::Bytes;

use super::client::Client;
use super::topics::{Form, Origin};
use super::{Turn, is_topic_name};
use crate::Checked;
use crate::codec::{Message, Publish, QosField, Register, ReturnCode, Subscribe, TopicFilter, TopicId};

#[derive(Debug, Default)]
pub(super) struct Inward {
    /// By the number that the broker's answer repeats.
    requests: BTreeMap<u64, Request>,
    /// Message ids of QoS 2 that the broker holds and the client has not released; survives a
    /// connection without CleanSession.
    unreleased: BTreeSet<u16>,
    last_request: u64,
}

/// What the broker was asked, and how the client is to be answered.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Publish { topic_id: u16, msg_id: u16, qos: Qos },
    Subscribe { msg_id: u16, topic: TopicFilter, topic_id: u16 },
    Unsubscribe { msg_id: u16 },
}

impl Inward {
    fn is_full(&self) -> bool {
        self.requests.len() + self.unreleased.len() >= REQUESTS_MAX
    }

    fn wait_for(&mut self, request: Request) -> u64 {
        self.last_request += 1;
        self.requests.insert(self.last_request, request);
        self.last_request
    }

    /// What the broker has not answered is asked again by the client.
    pub(super) fn end(&mut self) {
        self.requests.clear();
    }
}

impl Client {
    /// REGISTER. // [SN-6.5]
    pub(super) fn register(&mut self, register: &Register, turn: &mut Turn<'_>) {
        let assigned = if is_topic_name(&register.topic) {
            let limit = turn.settings.max_topics;
            self.topics.assign(&register.topic, Origin::Client, limit).ok_or(ReturnCode::Congestion)
        } else {
            // [SN-6.5] A wildcard has no id.
            Err(ReturnCode::NotSupported)
        };
        let (topic_id, code) = match assigned {
            Ok(topic_id) => {
                self.topics.tell(topic_id);
                (topic_id, ReturnCode::Accepted)
            }
            Err(code) => {
                turn.counters.refused_requests += 1;
                (0, code)
            }
        };
        turn.answer(&self.peer, &Message::RegAck { topic_id, msg_id: register.msg_id, code });
    }

    /// PUBLISH of QoS 0, 1 or 2. // [SN-6.6]
    pub(super) fn publish(&mut self, publish: Publish, turn: &mut Turn<'_>) {
        let Some(qos) = publish.qos.connected() else { return };
        let (topic_id, msg_id) = (publish.topic.number(), publish.msg_id);
        let topic = match publish.topic {
            TopicId::Normal(id) => self.topics.name(id).map(str::to_owned).ok_or(ReturnCode::InvalidTopicId),
            other => unregistered_topic(other, turn.settings),
        };
        let topic = match topic {
            Ok(topic) => topic,
            // [SN-5.4.13] A PUBLISH of any QoS may be refused so.
            Err(code) => return self.refuse_publish(topic_id, msg_id, code, turn),
        };
        if self.is_repeated(&publish, qos, turn) {
            return;
        }
        if qos != Qos::AtMostOnce && self.inward.is_full() {
            return self.refuse_publish(topic_id, msg_id, ReturnCode::Congestion, turn);
        }
        let id = if qos == Qos::AtMostOnce {
            turn.counters.published += 1;
            0
        } else {
            self.inward.wait_for(Request::Publish { topic_id, msg_id, qos })
        };
        let Publish { payload, retain, .. } = publish;
        self.ask(FromPort::Publish { id, topic, payload, qos, retain, properties: Bytes::new() }, turn);
    }

    /// [SN-5.3.4] Whether the publish is under way already; what can be answered is answered again.
    fn is_repeated(&mut self, publish: &Publish, qos: Qos, turn: &mut Turn<'_>) -> bool {
        let same = Request::Publish { topic_id: publish.topic.number(), msg_id: publish.msg_id, qos };
        let waits = self.inward.requests.values().any(|request| *request == same);
        let repeated = match qos {
            Qos::AtMostOnce => false,
            Qos::AtLeastOnce => publish.dup && waits,
            Qos::ExactlyOnce if self.inward.unreleased.contains(&publish.msg_id) => {
                turn.answer(&self.peer, &Message::PubRec(publish.msg_id));
                true
            }
            Qos::ExactlyOnce => waits,
        };
        turn.counters.repeated += u64::from(repeated);
        repeated
    }

    fn refuse_publish(&mut self, topic_id: u16, msg_id: u16, code: ReturnCode, turn: &mut Turn<'_>) {
        turn.counters.refused_publishes += 1;
        turn.answer(&self.peer, &Message::PubAck { topic_id, msg_id, code });
    }

    /// The broker holds a publish, or does not.
    pub(super) fn published(&mut self, acknowledgement: &Acknowledgement, turn: &mut Turn<'_>) {
        let Some(request) = self.inward.requests.remove(&acknowledgement.id) else { return };
        let Request::Publish { topic_id, msg_id, qos } = request else { return };
        match acknowledgement.result {
            Err(refusal) => self.refuse_publish(topic_id, msg_id, code_of(refusal), turn),
            Ok(()) if qos == Qos::ExactlyOnce => {
                turn.counters.published += 1;
                self.inward.unreleased.insert(msg_id);
                turn.answer(&self.peer, &Message::PubRec(msg_id));
            }
            Ok(()) => {
                turn.counters.published += 1;
                turn.answer(&self.peer, &Message::PubAck { topic_id, msg_id, code: ReturnCode::Accepted });
            }
        }
    }

    /// PUBREL: the client will not send this message again.
    pub(super) fn released(&mut self, msg_id: u16, turn: &mut Turn<'_>) {
        self.inward.unreleased.remove(&msg_id);
        turn.answer(&self.peer, &Message::PubComp(msg_id));
    }

    /// SUBSCRIBE. // [SN-6.9]
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, turn: &mut Turn<'_>) {
        let Subscribe { msg_id, topic, .. } = subscribe;
        if self.inward.requests.values().any(
            |request| matches!(request, Request::Subscribe { msg_id: id, topic: waiting, .. } if *id == msg_id && *waiting == topic),
        ) {
            turn.counters.repeated += 1;
            return;
        }
        match self.prepare_subscription(subscribe.qos, &topic, turn.settings) {
            Ok(Subscription { filter, qos, topic_id }) => {
                let id = self.inward.wait_for(Request::Subscribe { msg_id, topic, topic_id });
                self.ask(FromPort::Subscribe { id, filter, qos }, turn);
            }
            Err(code) => self.refuse_subscribe(msg_id, code, turn),
        }
    }

    fn prepare_subscription(
        &mut self,
        qos: QosField,
        topic: &TopicFilter,
        settings: &Checked,
    ) -> Result<Subscription, ReturnCode> {
        let qos = qos.connected().ok_or(ReturnCode::NotSupported)?;
        let filter = filter(topic, settings)?;
        if self.inward.is_full() {
            return Err(ReturnCode::Congestion);
        }
        let limit = settings.max_topics;
        let (form, topic_id) = match topic {
            // [SN-6.9] A wildcard has no id; each topic that it brings gets one.
            TopicFilter::Name(name) if is_wildcard(name) => {
                return Ok(Subscription { filter, qos, topic_id: 0 });
            }
            TopicFilter::Name(name) => {
                let assigned = self.topics.assign(name, Origin::Client, limit);
                (Form::Name, assigned.ok_or(ReturnCode::Congestion)?)
            }
            TopicFilter::Predefined(id) => (Form::Predefined(*id), *id),
            TopicFilter::Short(_) | TopicFilter::Reserved(_) => (Form::Short, 0),
        };
        // The form holds from now on: messages may follow the broker's word at once.
        self.topics.subscribe(&filter, form, limit).map_err(|_| ReturnCode::Congestion)?;
        Ok(Subscription { filter, qos, topic_id })
    }

    fn refuse_subscribe(&mut self, msg_id: u16, code: ReturnCode, turn: &mut Turn<'_>) {
        turn.counters.refused_subscribes += 1;
        let qos = QosField::AtMostOnce;
        turn.answer(&self.peer, &Message::SubAck { qos, topic_id: 0, msg_id, code });
    }

    /// The broker has taken a subscription, or has not.
    pub(super) fn subscribed(&mut self, id: u64, result: Result<Qos, Refusal>, turn: &mut Turn<'_>) {
        let Some(request) = self.inward.requests.remove(&id) else { return };
        let Request::Subscribe { msg_id, topic, topic_id } = request else { return };
        match result {
            Ok(qos) => {
                if let TopicFilter::Name(_) = topic {
                    self.topics.tell(topic_id);
                }
                let code = ReturnCode::Accepted;
                turn.answer(&self.peer, &Message::SubAck { qos: qos.into(), topic_id, msg_id, code });
            }
            Err(refusal) => {
                if let Ok(filter) = filter(&topic, turn.settings) {
                    self.topics.unsubscribe(&filter);
                }
                if let TopicFilter::Name(_) = topic {
                    self.topics.retract(topic_id);
                }
                self.refuse_subscribe(msg_id, code_of(refusal), turn);
            }
        }
    }

    /// UNSUBSCRIBE: always answered, since its answer has no return code. // [SN-6.9]
    pub(super) fn unsubscribe(&mut self, topic: &TopicFilter, msg_id: u16, turn: &mut Turn<'_>) {
        let Ok(filter) = filter(topic, turn.settings) else {
            return turn.answer(&self.peer, &Message::UnsubAck(msg_id));
        };
        if self.inward.is_full() {
            // It cannot be told to wait, but it asks again.
            turn.counters.refused_requests += 1;
            return;
        }
        self.topics.unsubscribe(&filter);
        let id = self.inward.wait_for(Request::Unsubscribe { msg_id });
        self.ask(FromPort::Unsubscribe { id, filter }, turn);
    }

    /// The broker has taken a subscription back.
    pub(super) fn unsubscribed(&mut self, id: u64, turn: &mut Turn<'_>) {
        if let Some(Request::Unsubscribe { msg_id }) = self.inward.requests.remove(&id) {
            turn.answer(&self.peer, &Message::UnsubAck(msg_id));
        }
    }
}

/// What a SUBSCRIBE asks of the broker, and the id in its SUBACK.
struct Subscription {
    filter: String,
    qos: Qos,
    topic_id: u16,
}

/// The topic of a publish that needs no registration. // [SN-6.7]
pub(super) fn unregistered_topic(topic: TopicId, settings: &Checked) -> Result<String, ReturnCode> {
    match topic {
        TopicId::Predefined(id) => settings.predefined.get(&id).cloned().ok_or(ReturnCode::InvalidTopicId),
        TopicId::Short(octets) => short_name(octets).ok_or(ReturnCode::InvalidTopicId),
        TopicId::Normal(_) => Err(ReturnCode::InvalidTopicId),
        TopicId::Reserved(_) => Err(ReturnCode::NotSupported),
    }
}

fn filter(topic: &TopicFilter, settings: &Checked) -> Result<String, ReturnCode> {
    match topic {
        TopicFilter::Name(name) if name.is_empty() || name.contains('\0') => Err(ReturnCode::NotSupported),
        TopicFilter::Name(name) => Ok(name.clone()),
        TopicFilter::Predefined(id) => unregistered_topic(TopicId::Predefined(*id), settings),
        TopicFilter::Short(octets) => short_name(*octets).ok_or(ReturnCode::InvalidTopicId),
        TopicFilter::Reserved(_) => Err(ReturnCode::NotSupported),
    }
}

/// [SN-6.7] Two octets that are a topic name like any other, so not a wildcard.
fn short_name(octets: [u8; 2]) -> Option<String> {
    let name = std::str::from_utf8(&octets).ok()?;
    is_topic_name(name).then(|| name.to_owned())
}

/// Whether a filter may bring other topics than the one it spells.
fn is_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#']) || filter.starts_with("$share/")
}

/// [SN-5.3.10] has four codes; only "congestion" invites to try again.
fn code_of(refusal: Refusal) -> ReturnCode {
    match refusal {
        Refusal::QuotaExceeded | Refusal::ShuttingDown => ReturnCode::Congestion,
        Refusal::NotAuthorized | Refusal::TopicInvalid | Refusal::TakenOver | Refusal::Other(_) => {
            ReturnCode::NotSupported
        }
    }
}

pub(super) fn connack_code(refusal: Refusal) -> ReturnCode {
    code_of(refusal)
}

/// Requests of one client that the broker has not answered, or QoS 2 publishes that it has not released.
/// Beyond: "congestion". Half of the runner's queue for a port, so that these always find room in it.
pub(crate) const REQUESTS_MAX: usize = 16;
