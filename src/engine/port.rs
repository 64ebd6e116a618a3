//! One in-process client, as the broker sees it: a connection that speaks MQTT 5.
//!
//! Requests of the adapter become packets, packets of the broker become its answers. The adapter names
//! its requests by numbers of its own; packet ids are given and remembered here. A QoS 1 or 2 publish
//! waits here while as many are under way as the broker's CONNACK allows; `field` bounds how many
//! requests a port can have without an answer, so what waits is bounded too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use adapter_api::{Acknowledgement, Delivery, FromPort, Hello, Qos, Refusal, ToPort};
use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::mpsc;

use crate::broker::{ConnectionId, Copy, Event, Peer, Terms, Trust};
use crate::codec::{
    Ack, Carrier, Connect, Disconnect, Packet, Properties, Property, Publish, QoS, Reason, RetainHandling,
    Subscribe, Subscription, SubscriptionOptions, Unsubscribe, Version, Will,
};

/// An in-process client.
#[derive(Debug)]
pub(super) struct Port {
    number: u64,
    id: ConnectionId,
    outward: mpsc::Sender<ToPort>,
    /// Requests without an answer, by packet id.
    asked: BTreeMap<u16, Asked>,
    last_packet_id: u16,
    /// QoS 1 and 2 publishes that may be under way; none before CONNACK.
    window: usize,
    /// How many are.
    publishing: usize,
    /// Publishes that wait for the window, in order.
    held: VecDeque<Held>,
    /// QoS 2 deliveries to the adapter that have not ended.
    exactly_once: BTreeSet<u16>,
    /// What the broker gave as reason for the end.
    goodbye: Option<Refusal>,
    /// The adapter has asked for the end itself.
    leaving: bool,
    overrun: bool,
}

/// A request that is to be answered, by the adapter's number.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Publish(u64),
    Subscribe(u64),
    Unsubscribe(u64),
}

#[derive(Debug)]
struct Held {
    id: u64,
    publish: Publish,
}

impl Port {
    /// A port and the events that make the broker know it.
    pub(super) fn open(
        number: u64,
        id: ConnectionId,
        hello: Hello,
        outward: mpsc::Sender<ToPort>,
        events: &mut Vec<Event>,
    ) -> Port {
        let trust = Trust::Port {
            user: hello.user.as_deref().map(ByteString::from),
            credit: hello.credit,
            waits: hello.waits,
        };
        events.push(Event::Opened {
            connection: id,
            peer: Peer { name: "port".to_owned(), trust, terms: Terms::default() },
        });
        let packet = Packet::Connect(Box::new(connect(hello)));
        events.push(Event::Packet { connection: id, packet });
        Port {
            number,
            id,
            outward,
            asked: BTreeMap::new(),
            last_packet_id: 0,
            window: 0,
            publishing: 0,
            held: VecDeque::new(),
            exactly_once: BTreeSet::new(),
            goodbye: None,
            leaving: false,
            overrun: false,
        }
    }

    /// Its number among ports.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether it did not read what it had granted, so that it must be closed.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// What the adapter wants.
    pub(super) fn request(&mut self, request: FromPort, events: &mut Vec<Event>) {
        match request {
            FromPort::Publish { id, topic, payload, qos, retain, properties } => {
                let publish = Publish {
                    dup: false,
                    qos: qos_inward(qos),
                    retain,
                    topic: ByteString::from(topic),
                    packet_id: 0,
                    properties: Properties::from_bytes(properties, Carrier::ClientPublish)
                        .unwrap_or_default(),
                    payload,
                };
                if qos == Qos::AtMostOnce {
                    self.push(Packet::Publish(publish), events);
                } else {
                    self.held.push_back(Held { id, publish });
                    self.publish_held(events);
                }
            }
            FromPort::Subscribe { id, filter, qos } => {
                let packet_id = self.next_packet_id(Asked::Subscribe(id));
                let filters = vec![subscription(filter, qos)];
                let properties = Properties::new();
                self.push(Packet::Subscribe(Subscribe { packet_id, properties, filters }), events);
            }
            FromPort::Unsubscribe { id, filter } => {
                let packet_id = self.next_packet_id(Asked::Unsubscribe(id));
                let filters = vec![ByteString::from(filter)];
                let properties = Properties::new();
                self.push(Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters }), events);
            }
            FromPort::Acknowledge { id } => {
                let ack = acknowledge(id);
                let twice = self.exactly_once.contains(&id);
                self.push(if twice { Packet::PubRec(ack) } else { Packet::PubAck(ack) }, events);
            }
            FromPort::Drain => self.push(Packet::PingReq, events),
            FromPort::Grant(messages) => events.push(Event::Granted { connection: self.id, messages }),
            FromPort::Close => {
                self.leaving = true;
                let disconnect = Disconnect { reason: Reason::Success, properties: Properties::new() };
                self.push(Packet::Disconnect(disconnect), events);
            }
        }
    }

    /// A packet of the broker, which is no PUBLISH.
    pub(super) fn answer(&mut self, packet: Packet, events: &mut Vec<Event>) {
        match packet {
            Packet::ConnAck(ack) if ack.reason.is_error() => self.goodbye = Some(refusal(ack.reason)),
            Packet::ConnAck(ack) => {
                self.window = receive_maximum(&ack.properties);
                self.tell(ToPort::Connected { session_present: ack.session_present });
                self.publish_held(events);
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.published(&ack, events),
            Packet::PubRec(ack) if ack.reason.is_error() => self.published(&ack, events),
            Packet::PubRec(ack) => self.push(Packet::PubRel(acknowledge(ack.packet_id)), events),
            Packet::PubRel(ack) => {
                self.exactly_once.remove(&ack.packet_id);
                self.push(Packet::PubComp(acknowledge(ack.packet_id)), events);
            }
            Packet::SubAck(ack) => {
                if let Some(Asked::Subscribe(id)) = self.asked.remove(&ack.packet_id) {
                    let reason = ack.reasons.first().copied().unwrap_or(Reason::UnspecifiedError);
                    self.tell(ToPort::Subscribed { id, result: granted(reason) });
                }
            }
            Packet::UnsubAck(ack) => {
                if let Some(Asked::Unsubscribe(id)) = self.asked.remove(&ack.packet_id) {
                    self.tell(ToPort::Unsubscribed { id });
                }
            }
            Packet::Disconnect(disconnect) => self.goodbye = Some(refusal(disconnect.reason)),
            // The broker answers a port's PINGREQ once nothing waits for it.
            Packet::PingResp => self.tell(ToPort::Drained),
            // A port sends no AUTH, and the others go the other way.
            _ => {}
        }
    }

    /// A message of the broker.
    pub(super) fn deliver(&mut self, copy: &Copy) {
        if copy.qos == QoS::ExactlyOnce {
            self.exactly_once.insert(copy.packet_id);
        }
        self.tell(ToPort::Message(Delivery {
            id: copy.packet_id,
            topic: copy.message.topic.to_string(),
            // Its own bytes: an adapter may keep them for long.
            payload: Bytes::copy_from_slice(&copy.message.payload),
            qos: qos_outward(copy.qos),
            retain: copy.retain,
            dup: copy.dup,
        }));
    }

    /// The broker has closed it: an adapter that did not ask for that hears why.
    pub(super) fn close(&mut self) {
        let refusal = self.goodbye.take().unwrap_or(refusal(Reason::UnspecifiedError));
        if !self.leaving {
            self.tell(ToPort::Closed(refusal));
        }
    }

    fn published(&mut self, ack: &Ack, events: &mut Vec<Event>) {
        if let Some(Asked::Publish(id)) = self.asked.remove(&ack.packet_id) {
            let result = if ack.reason.is_error() { Err(refusal(ack.reason)) } else { Ok(()) };
            self.publishing -= 1;
            self.tell(ToPort::Published(Acknowledgement { id, result }));
            self.publish_held(events);
        }
    }

    fn publish_held(&mut self, events: &mut Vec<Event>) {
        while self.publishing < self.window
            && let Some(Held { id, mut publish }) = self.held.pop_front()
        {
            publish.packet_id = self.next_packet_id(Asked::Publish(id));
            self.publishing += 1;
            self.push(Packet::Publish(publish), events);
        }
    }

    /// An id that no request has; there is one, since `field` lets far fewer be unanswered.
    fn next_packet_id(&mut self, asked: Asked) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if let std::collections::btree_map::Entry::Vacant(place) = self.asked.entry(self.last_packet_id) {
                place.insert(asked);
                return self.last_packet_id;
            }
        }
    }

    fn push(&self, packet: Packet, events: &mut Vec<Event>) {
        events.push(Event::Packet { connection: self.id, packet });
    }

    /// The queue is sized by what was granted and asked, so it overflows only for an adapter that grants
    /// what it has not taken.
    fn tell(&mut self, word: ToPort) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outward.try_send(word) {
            self.overrun = true;
        }
    }
}

fn connect(hello: Hello) -> Connect {
    let mut properties = Properties::new();
    if hello.session_expiry > 0 {
        properties = properties.with(Property::SessionExpiryInterval(hello.session_expiry));
    }
    Connect {
        version: Version::V5,
        clean_start: hello.clean_start,
        keep_alive: 0,
        client_id: ByteString::from(hello.client_id),
        will: hello.will.map(|will| Will {
            qos: qos_inward(will.qos),
            retain: will.retain,
            topic: ByteString::from(will.topic),
            payload: will.payload,
            properties: Properties::new(),
        }),
        username: None,
        password: None,
        properties,
    }
}

fn subscription(filter: String, qos: Qos) -> Subscription {
    Subscription {
        filter: ByteString::from(filter),
        options: SubscriptionOptions {
            qos: qos_inward(qos),
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        },
    }
}

fn acknowledge(packet_id: u16) -> Ack {
    Ack { packet_id, reason: Reason::Success, properties: Properties::new() }
}

/// [MQTT5-3.2.2.3.3]: 65,535 where the broker says nothing.
fn receive_maximum(properties: &Properties) -> usize {
    let stated = properties.iter().find_map(|property| match property {
        Property::ReceiveMaximum(most) => Some(most),
        _ => None,
    });
    usize::from(stated.unwrap_or(u16::MAX))
}

fn granted(reason: Reason) -> Result<Qos, Refusal> {
    match reason {
        Reason::Success => Ok(Qos::AtMostOnce),
        Reason::GrantedQoS1 => Ok(Qos::AtLeastOnce),
        Reason::GrantedQoS2 => Ok(Qos::ExactlyOnce),
        other => Err(refusal(other)),
    }
}

fn refusal(reason: Reason) -> Refusal {
    match reason {
        Reason::NotAuthorized => Refusal::NotAuthorized,
        Reason::QuotaExceeded => Refusal::QuotaExceeded,
        Reason::TopicNameInvalid | Reason::TopicFilterInvalid => Refusal::TopicInvalid,
        Reason::SessionTakenOver => Refusal::TakenOver,
        Reason::ServerShuttingDown => Refusal::ShuttingDown,
        other => Refusal::Other(other.code()),
    }
}

fn qos_inward(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn qos_outward(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Property;

    /// The publish that the broker is given for these bytes.
    fn published(properties: &[u8]) -> Publish {
        let hello = Hello {
            client_id: "bridge:cloud".into(),
            user: Some("bridge:cloud".into()),
            clean_start: true,
            session_expiry: 0,
            will: None,
            credit: 0,
            waits: false,
        };
        let (outward, _) = mpsc::channel(1);
        let mut events = Vec::new();
        let mut port = Port::open(1, ConnectionId { slot: 0, generation: 0 }, hello, outward, &mut events);
        events.clear();
        let request = FromPort::Publish {
            id: 1,
            topic: "commands/valve".into(),
            payload: Bytes::from_static(b"open"),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: Bytes::copy_from_slice(properties),
        };
        port.request(request, &mut events);
        match events.pop() {
            Some(Event::Packet { packet: Packet::Publish(publish), .. }) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn properties_pass_through_a_port_and_what_is_none_is_left_out() {
        let list = [Property::MessageExpiryInterval(60), Property::ContentType("text".into())];
        let block = Properties::from_list(&list);
        assert_eq!(published(block.as_bytes()).properties, block);
        assert_eq!(published(&[]).properties, Properties::new());
        assert_eq!(published(b"\x02\x00").properties, Properties::new(), "cut off");
        assert_eq!(published(b"\x11\x00\x00\x00\x01").properties, Properties::new(), "not of a PUBLISH");
    }
}
