//! What may differ between tidegate and mosquitto 2.0.11, each with its clause and its reason.
//!
//! An excuse is narrow: it names what of the session makes it apply, and takes only that out of both
//! records.

use std::collections::BTreeMap;

use tidegate::codec::{QoS, Reason, SubscriptionOptions, Version};

use crate::event::{Event, Message};
use crate::session::{Act, Begin, CLIENTS, Post, Session};

/// A difference that is allowed.
struct Excuse {
    name: &'static str,
    /// Takes what it excuses out of both; tells whether there was something.
    take: fn(&Place, &mut Vec<Event>, &mut Vec<Event>) -> bool,
}

/// Where in a session.
struct Place<'a> {
    session: &'a Session,
    step: usize,
    client: usize,
}

const EXCUSES: &[Excuse] = &[
    Excuse {
        // [MQTT5-3.1.4-3] Who is taken over is told so; mosquitto 2.0.11 hangs up without a word.
        name: "taken over",
        take: |place, ours, _| {
            matches!(place.act(), Act::Connect(_) | Act::Doze(_))
                && drain(ours, |event| *event == Event::Disconnected(Reason::SessionTakenOver))
        },
    },
    Excuse {
        // [MQTT5-3.1.2-22] Either hangs up on who falls silent; ours says why, as MQTT 5 lets it (3.14.2.1, 0x8D).
        name: "silent",
        take: |place, ours, _| {
            matches!(place.act(), Act::Doze(_))
                && drain(ours, |event| *event == Event::Disconnected(Reason::KeepAliveTimeout))
        },
    },
    Excuse {
        // [MQTT5-3.1.4-3] [MQTT311-3.1.4-2] A session that is taken over and does not go on has ended with its
        // connection; mosquitto publishes its will first, so that it may get its own.
        name: "own will",
        take: |place, _, theirs| {
            let Some(will) = place.taken_over().and_then(|old| old.will.as_ref()) else { return false };
            let own = |message: &Message| {
                (&*message.topic, &*message.payload) == (&*will.topic, will.payload.as_bytes())
            };
            drain(theirs, |event| matches!(event, Event::Message(message) if own(message)))
        },
    },
    Excuse {
        // [MQTT5-3.8.4-3] Who subscribes again with other options has those; mosquitto 2.0.11 changes QoS
        // and identifier, and keeps No Local and Retain As Published.
        name: "options of the first SUBSCRIBE",
        take: first_options,
    },
    Excuse {
        // [MQTT5-3.3.4-4] A single copy names every subscription that matches; mosquitto sends one for each, and
        // keeps none of QoS 0 for who is away.
        name: "identifiers of QoS 0",
        take: |place, ours, theirs| identifiers_of_qos_0(place, ours, theirs),
    },
    Excuse {
        // [MQTT5-3.8.3.1] Retain As Published is each subscription's own, and a single copy is of several; the copy
        // of mosquitto that was repeated or kept is of one.
        name: "Retain As Published of another subscription",
        take: |place, ours, theirs| retained_as_another_wants(place, ours, theirs),
    },
];

fn retained_as_another_wants(place: &Place, ours: &[Event], theirs: &mut [Event]) -> bool {
    let mut needed = false;
    let as_published = |wanted: bool| place.options().any(|options| options.retain_as_published == wanted);
    if !(as_published(true) && as_published(false)) {
        return false;
    }
    for message in messages(ours).filter(|message| message.retain && message.qos > QoS::AtMostOnce) {
        for other in theirs.iter_mut() {
            if let Event::Message(other) = other
                && (&other.topic, &other.payload) == (&message.topic, &message.payload)
            {
                needed |= !other.retain;
                other.retain = true;
            }
        }
    }
    needed
}

fn identifiers_of_qos_0(place: &Place, ours: &[Event], theirs: &mut [Event]) -> bool {
    let mut needed = false;
    for message in messages(ours).filter(|message| message.qos > QoS::AtMostOnce) {
        for other in theirs.iter_mut() {
            if let Event::Message(other) = other
                && (&other.topic, &other.payload) == (&message.topic, &message.payload)
                && other.identifiers.is_subset(&message.identifiers)
                && message.identifiers.difference(&other.identifiers).all(|id| place.wants_once_by(*id))
            {
                needed |= other.identifiers != message.identifiers;
                other.identifiers = message.identifiers.clone();
            }
        }
    }
    needed
}

fn first_options(place: &Place, ours: &mut Vec<Event>, theirs: &mut Vec<Event>) -> bool {
    if !place.subscribed_otherwise() {
        return false;
    }
    let mut needed = false;
    for message in messages(ours) {
        for other in theirs.iter_mut() {
            if let Event::Message(other) = other
                && (&other.topic, &other.payload) == (&message.topic, &message.payload)
            {
                needed |= other.retain != message.retain;
                other.retain = message.retain;
            }
        }
    }
    let own = |event: &Event, others: &[Event]| {
        matches!(event, Event::Message(message) if place.published(message)) && !others.contains(event)
    };
    // What one of them alone has sent back to its publisher at QoS 2, it alone releases when he comes again.
    let may_release = matches!(place.act(), Act::Connect(_) | Act::Doze(_)) && place.gets_own_exactly_once();
    let released =
        |event: &Event, others: &[Event]| *event == Event::Released && may_release && !others.contains(event);
    let (of_ours, of_theirs) = (ours.clone(), theirs.clone());
    needed
        | drain(ours, |event| own(event, &of_theirs) || released(event, &of_theirs))
        | drain(theirs, |event| own(event, &of_ours) || released(event, &of_ours))
}

impl Place<'_> {
    /// Whether the client has subscribed to a filter again with other options.
    fn subscribed_otherwise(&self) -> bool {
        let own = self.session.steps[..=self.step].iter().filter(|step| step.client == self.client);
        let mut first = BTreeMap::new();
        own.filter_map(|step| match &step.act {
            Act::Subscribe { filters, .. } => Some(filters),
            _ => None,
        })
        .flatten()
        .any(|(filter, options)| {
            let kept = (options.no_local, options.retain_as_published);
            *first.entry(filter).or_insert(kept) != kept
        }) && self.session.versions[self.client] == Version::V5
    }

    /// The options of every subscription that the client has made.
    fn options(&self) -> impl Iterator<Item = &SubscriptionOptions> {
        let own = self.session.steps[..=self.step].iter().filter(|step| step.client == self.client);
        own.filter_map(|step| match &step.act {
            Act::Subscribe { filters, .. } => Some(filters),
            _ => None,
        })
        .flatten()
        .map(|(_, options)| options)
    }

    /// Whether the client has subscribed under this identifier at QoS 0.
    fn wants_once_by(&self, id: u32) -> bool {
        let own = self.session.steps[..=self.step].iter().filter(|step| step.client == self.client);
        own.filter_map(|step| match &step.act {
            Act::Subscribe { filters, identifier } if *identifier == Some(id) => Some(filters),
            _ => None,
        })
        .flatten()
        .any(|(_, options)| options.qos == QoS::AtMostOnce)
    }

    /// Whether the client itself has published it, or it is its will.
    fn published(&self, message: &Message) -> bool {
        self.posts().any(|post| post.topic == message.topic && post.payload.as_bytes() == message.payload)
    }

    /// Whether the client itself has published something at QoS 2, or has such a will, and once wanted to get its own
    /// and once not.
    fn gets_own_exactly_once(&self) -> bool {
        let no_local = |wanted: bool| self.options().any(|options| options.no_local == wanted);
        self.posts().any(|post| post.qos == QoS::ExactlyOnce) && no_local(true) && no_local(false)
    }

    /// What the client itself has published, and its wills.
    fn posts(&self) -> impl Iterator<Item = &Post> {
        let own = self.session.steps[..=self.step].iter().filter(|step| step.client == self.client);
        own.filter_map(|step| match &step.act {
            Act::Publish(post) | Act::Start { post, .. } => Some(post),
            Act::Connect(begin) | Act::Doze(begin) => begin.will.as_ref(),
            _ => None,
        })
    }

    /// How the connection began that the acting client takes over from itself in this step.
    fn taken_over(&self) -> Option<&Begin> {
        let own = self.session.steps[..self.step].iter().rev().filter(|step| step.client == self.client);
        let last = own.map(|step| &step.act).find(|act| act.connects_or_ends());
        let acting = self.session.steps[self.step].client == self.client;
        match (self.act(), last) {
            (Act::Connect(_) | Act::Doze(_), Some(Act::Connect(old))) if acting => Some(old),
            _ => None,
        }
    }

    fn act(&self) -> &Act {
        &self.session.steps[self.step].act
    }
}

fn messages(events: &[Event]) -> impl Iterator<Item = &Message> {
    events.iter().filter_map(|event| match event {
        Event::Message(message) => Some(message),
        _ => None,
    })
}

fn drain(events: &mut Vec<Event>, excused: impl Fn(&Event) -> bool) -> bool {
    let before = events.len();
    events.retain(|event| !excused(event));
    events.len() < before
}

/// Takes out whatever is excused, and names the excuses that were needed.
pub(crate) fn excuse(
    session: &Session,
    step: usize,
    client: usize,
    ours: &mut Vec<Event>,
    theirs: &mut Vec<Event>,
) -> Vec<&'static str> {
    let place = Place { session, step, client };
    let mut needed = Vec::new();
    for excuse in EXCUSES {
        if ours == theirs {
            break;
        }
        if (excuse.take)(&place, ours, theirs) {
            needed.push(excuse.name);
        }
    }
    needed
}

/// How many steps of a session can be compared: after one that leaves the two servers with different
/// messages, the rest tells nothing.
pub(crate) fn comparable(session: &Session) -> usize {
    let mut connected: [Option<&Begin>; CLIENTS] = [None; CLIENTS];
    // Whose will may wait.
    let mut gone: [Option<&Begin>; CLIENTS] = [None; CLIENTS];
    for (place, step) in session.steps.iter().enumerate() {
        let version = session.versions[step.client];
        let old = connected[step.client].take();
        match &step.act {
            Act::Connect(begin) => {
                let waiting = gone[step.client].take().or(old);
                connected[step.client] = Some(begin);
                if old.is_some_and(|old| is_forgotten(version, old, begin))
                    || waiting.is_some_and(|old| waits_in_vain(version, old, begin.clean))
                {
                    return place;
                }
            }
            // A connection that takes over, and ends.
            Act::Doze(begin) => {
                let waiting = gone[step.client].take().or(old);
                if old.is_some_and(|old| is_forgotten(version, old, begin))
                    || waiting.is_some_and(|old| waits_in_vain(version, old, begin.clean))
                    || waits_in_vain(version, begin, false)
                {
                    return place;
                }
                gone[step.client] = Some(begin);
            }
            Act::Leave { with_will: false } => gone[step.client] = None,
            Act::Leave { with_will: true } | Act::Cut | Act::Start { lost: true, .. } => {
                if old.is_some_and(|old| waits_in_vain(version, old, false)) {
                    return place;
                }
                gone[step.client] = old;
            }
            _ => connected[step.client] = old,
        }
    }
    session.steps.len()
}

/// [MQTT5-3.1.2-8] [MQTT311-3.1.2-8] The will of a connection that is taken over is published, since it
/// ended without DISCONNECT; mosquitto forgets it where the session goes on.
fn is_forgotten(version: Version, old: &Begin, new: &Begin) -> bool {
    let kept = if version == Version::V5 { old.expiry.is_some() } else { !old.clean };
    old.will.is_some() && kept && !new.clean
}

/// [MQTT5-3.1.3-9] A will with a delay waits no longer than its session lasts; mosquitto has it wait for its
/// delay, and forgets it where the client comes again.
fn waits_in_vain(version: Version, old: &Begin, ends: bool) -> bool {
    version == Version::V5 && old.will.is_some() && old.will_delay.is_some() && (ends || old.expiry.is_none())
}
