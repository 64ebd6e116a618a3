//! What a client gets, with everything left out that a server is free to choose.
//!
//! Packet ids are gone, copies of one message are one, and order counts only where the standard gives it:
//! within a topic and a QoS.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::codec::{Publish, QoS, Reason};

/// One thing that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// CONNACK.
    Connected { present: bool, reason: Reason },
    /// SUBACK, UNSUBACK, PUBACK, PUBREC or PUBCOMP.
    Answer(&'static str, Vec<Reason>),
    /// A PUBREL for what an earlier connection received.
    Released,
    /// DISCONNECT.
    Disconnected(Reason),
    /// PUBLISH.
    Message(Message),
}

/// What of a PUBLISH matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) payload: Vec<u8>,
    /// Whether it has a Message Expiry Interval; how much is left of it depends on the clock.
    pub(crate) expires: bool,
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) identifiers: BTreeSet<u32>,
}

impl Message {
    pub(crate) fn of(publish: &Publish, prefix: &str) -> Message {
        let topic = publish.topic.strip_prefix(prefix).unwrap_or(&publish.topic).to_owned();
        let pairs = publish.properties.user_properties();
        Message {
            topic,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            payload: publish.payload.to_vec(),
            expires: publish.properties.message_expiry().is_some(),
            pairs: pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            identifiers: publish.properties.subscription_identifiers().collect(),
        }
    }
}

/// The same without what is free.
pub(crate) fn canonical(events: &[Event]) -> Vec<Event> {
    let mut rest = Vec::new();
    let mut messages: Vec<Message> = Vec::new();
    for event in events {
        match event {
            Event::Message(message) => {
                let same = |other: &&mut Message| {
                    (&other.topic, &other.payload) == (&message.topic, &message.payload)
                };
                // [MQTT5-3.3.4-2] [MQTT311-3.3.5-1] One copy for all subscriptions that overlap, or one for each.
                match messages.iter_mut().find(same) {
                    Some(other) => {
                        other.qos = other.qos.max(message.qos);
                        other.retain |= message.retain;
                        other.dup |= message.dup;
                        other.identifiers.extend(&message.identifiers);
                    }
                    None => messages.push(message.clone()),
                }
            }
            // Whether a server tells that nobody wanted a message is its own choice (MQTT 5, 3.4.2.1).
            Event::Answer(name, reasons) if *reasons == [Reason::NoMatchingSubscribers] => {
                rest.push(Event::Answer(name, vec![Reason::Success]));
            }
            // One for each copy.
            Event::Released if rest.contains(&Event::Released) => {}
            other => rest.push(other.clone()),
        }
    }
    // [MQTT5-4.6.0-6] [MQTT311-4.6.0-6]
    messages.sort_by(|one, other| (&one.topic, one.qos).cmp(&(&other.topic, other.qos)));
    rest.extend(messages.into_iter().map(Event::Message));
    rest
}

/// Takes out the messages that come when, or to whom, the server chooses: see the themes of a session.
pub(crate) fn told_in_the_end(got: &mut [Vec<Event>]) -> Vec<Event> {
    let is_of = |event: &Event, stem: &str| matches!(event, Event::Message(message) if message.topic.starts_with(stem));
    let mut taken = Vec::new();
    for events in got {
        taken.extend(events.extract_if(.., |event| is_of(event, "s/") || is_of(event, "q/")));
    }
    taken.into_iter().map(without_member).collect()
}

fn without_member(event: Event) -> Event {
    match event {
        Event::Message(message) if message.topic.starts_with("s/") => Event::Message(bare(&message)),
        other => other,
    }
}

/// In an order that says nothing.
pub(crate) fn sorted(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by_key(|event| match event {
        Event::Message(message) => (message.topic.clone(), message.payload.clone()),
        _ => Default::default(),
    });
    events
}

/// Without what depends on the member of a group that gets it.
fn bare(message: &Message) -> Message {
    Message {
        qos: QoS::AtMostOnce,
        pairs: Vec::new(),
        identifiers: BTreeSet::new(),
        expires: false,
        ..message.clone()
    }
}

/// Takes out the messages of shared subscriptions, whoever of a group got them: who does is the server's
/// choice, and with it the QoS (MQTT 5, 4.8.2). Each is there once, without what depends on the member.
pub(crate) fn shared(got: &mut [Vec<Event>]) -> Vec<Event> {
    let mut taken = BTreeMap::new();
    for events in got {
        events.retain(|event| {
            let Event::Message(message) = event else { return true };
            if message.topic.starts_with("s/") {
                let bare = Event::Message(bare(message));
                taken.insert((message.topic.clone(), message.payload.clone()), bare);
            }
            !message.topic.starts_with("s/")
        });
    }
    taken.into_values().collect()
}
