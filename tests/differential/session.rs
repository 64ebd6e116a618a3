//! A random session: what a few clients do, as a list of steps that a seed replays.
//!
//! Every step is valid on its own, whatever was left out before it, so that a failing session can be made
//! smaller. Topics are few, so that filters overlap and retained messages meet. Payloads are all different.

use crate::stand::Dice;
use tidegate::codec::{QoS, RetainHandling, SubscriptionOptions, Version};

/// How many clients a session has.
pub(crate) const CLIENTS: usize = 3;

/// What the clients of one session do.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Of each client.
    pub(crate) versions: [Version; CLIENTS],
    /// In their order.
    pub(crate) steps: Vec<Step>,
}

/// One act of one client. Who is not connected does nothing but connect.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) act: Act,
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Where the client is connected, the new connection takes the session over.
    Connect(Begin),
    Subscribe {
        filters: Vec<(String, SubscriptionOptions)>,
        identifier: Option<u32>,
    },
    Unsubscribe {
        filters: Vec<String>,
    },
    Publish(Post),
    /// DISCONNECT; MQTT 5 may ask for the will all the same.
    Leave {
        with_will: bool,
    },
    /// The socket ends without a word.
    Cut,
}

#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) clean: bool,
    /// Session Expiry Interval (MQTT 5).
    pub(crate) expiry: Option<u32>,
    pub(crate) will: Option<Post>,
    /// Seconds (MQTT 5).
    pub(crate) will_delay: Option<u32>,
    pub(crate) answers: Answers,
}

/// What a client answers to what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    All,
    /// No PUBCOMP.
    Half,
    None,
}

#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) payload: String,
    /// Message Expiry Interval, seconds (MQTT 5).
    pub(crate) expiry: Option<u32>,
    /// A user property (MQTT 5).
    pub(crate) pair: Option<(String, String)>,
    /// Whether the topic goes by an alias (MQTT 5).
    pub(crate) alias: bool,
}

/// Those that may be retained.
pub(crate) const TOPICS: [&str; 5] = ["t/a", "t/b", "t/a/x", "u/b", "u"];
const FILTERS: [&str; 10] = ["t/a", "t/b", "t/+", "t/#", "+/b", "t/a/#", "+/a/+", "u/#", "u", "+"];
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

impl Session {
    /// The session with this seed.
    pub(crate) fn random(seed: u64) -> Session {
        // Neighbouring seeds begin alike.
        let mut dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.below(2);
        let shared = dice.below(8) == 0;
        let versions = [(); CLIENTS].map(|()| if dice.below(2) == 0 { Version::V311 } else { Version::V5 });
        let mut maker = Maker { dice, shared, connected: [false; CLIENTS], messages: 0 };
        let count = 6 + maker.dice.below(14);
        let mut steps: Vec<Step> = (0..count).map(|_| maker.step()).collect();
        // In the end everybody comes and takes what is left.
        let answers = Answers::All;
        steps.extend((0..CLIENTS).map(|client| {
            let begin = Begin { clean: shared, expiry: Some(3600), will: None, will_delay: None, answers };
            Step { client, act: Act::Connect(begin) }
        }));
        Session { versions, steps }
    }
}

struct Maker {
    dice: Dice,
    /// Whether it is about shared subscriptions: then every session ends with its connection, since who of
    /// a group gets a message is the server's choice, and so would be what waits for whom.
    shared: bool,
    connected: [bool; CLIENTS],
    messages: u64,
}

impl Maker {
    fn step(&mut self) -> Step {
        let client = usize::try_from(self.dice.below(CLIENTS as u64)).unwrap();
        if !self.connected[client] {
            self.connected[client] = true;
            return Step { client, act: Act::Connect(self.begin()) };
        }
        let act = match self.dice.below(20) {
            0..6 => self.subscribe(),
            6 => Act::Unsubscribe { filters: vec![self.filter()] },
            7..15 => Act::Publish(self.post()),
            15 => Act::Connect(self.begin()),
            16 | 17 => Act::Leave { with_will: self.dice.below(4) == 0 },
            _ => Act::Cut,
        };
        self.connected[client] = !matches!(act, Act::Leave { .. } | Act::Cut);
        Step { client, act }
    }

    fn begin(&mut self) -> Begin {
        // Whether a client still is of its group when its will is published is the server's choice.
        let will = (self.dice.below(3) == 0)
            .then(|| Post { alias: false, ..self.post() })
            .filter(|will| !will.topic.starts_with('s'));
        let kept = !self.shared && self.dice.below(3) > 0;
        Begin {
            clean: self.shared || self.dice.below(3) == 0,
            expiry: kept.then_some(3600),
            will,
            will_delay: (self.dice.below(4) == 0).then_some(3600),
            answers: match self.dice.below(6) {
                0 if !self.shared => Answers::None,
                1 if !self.shared => Answers::Half,
                _ => Answers::All,
            },
        }
    }

    fn subscribe(&mut self) -> Act {
        let count = 1 + self.dice.below(3) / 2;
        let mut filters: Vec<_> = (0..count).map(|_| (self.filter(), self.options())).collect();
        // A filter that comes twice is one subscription in the end; whether its retained messages come twice
        // is not said.
        filters.dedup_by(|one, other| one.0 == other.0);
        Act::Subscribe { filters, identifier: (self.dice.below(2) == 0).then(|| 1 + self.number(5)) }
    }

    fn filter(&mut self) -> String {
        if self.shared && self.dice.below(2) == 0 {
            return ["$share/one/s/+", "$share/two/s/a"][self.dice.below(2) as usize].to_owned();
        }
        FILTERS[self.dice.below(FILTERS.len() as u64) as usize].to_owned()
    }

    fn options(&mut self) -> SubscriptionOptions {
        let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        SubscriptionOptions {
            qos: QOS[self.dice.below(3) as usize],
            no_local: !self.shared && self.dice.below(4) == 0,
            retain_as_published: self.dice.below(3) == 0,
            retain_handling: handling[self.dice.below(6).saturating_sub(3) as usize],
        }
    }

    fn post(&mut self) -> Post {
        self.messages += 1;
        let topic = if self.shared && self.dice.below(2) == 0 {
            ["s/a", "s/c"][self.dice.below(2) as usize]
        } else {
            TOPICS[self.dice.below(TOPICS.len() as u64) as usize]
        };
        let retain = !topic.starts_with('s') && self.dice.below(3) == 0;
        let empty = retain && self.dice.below(4) == 0;
        Post {
            topic: topic.to_owned(),
            qos: QOS[self.dice.below(3) as usize],
            retain,
            payload: if empty { String::new() } else { format!("m{}", self.messages) },
            expiry: (self.dice.below(4) == 0).then_some(5000),
            pair: (self.dice.below(4) == 0).then(|| ("name".to_owned(), format!("v{}", self.messages))),
            alias: self.dice.below(4) == 0,
        }
    }

    fn number(&mut self, end: u64) -> u32 {
        u32::try_from(self.dice.below(end)).unwrap()
    }
}
