//! A random session: what a few clients do, as a list of steps that a seed replays.
//!
//! Every step is valid on its own, whatever was left out before it, so that a failing session can be made
//! smaller. Topics are few, so that filters overlap and retained messages meet. Payloads are all different.
//! What leaves a server a choice is a theme of its own, in which the rest is kept from depending on it.

use crate::stand::Dice;
use tidegate::codec::{QoS, RetainHandling, SubscriptionOptions, Version};

/// How many clients a session has.
pub(crate) const CLIENTS: usize = 3;

/// What the clients of one session do.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) theme: Theme,
    /// Of each client.
    pub(crate) versions: [Version; CLIENTS],
    /// In their order.
    pub(crate) steps: Vec<Step>,
}

/// What a session is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Whatever is no theme of its own.
    Any,
    /// Shared subscriptions of sessions that end with their connections: who of a group gets a message is the
    /// server's choice, and so would be what waits for whom.
    Groups,
    /// Shared subscriptions of sessions that are kept: by the end somebody has got each message.
    KeptGroups,
    /// Publishers who leave QoS 2 unfinished. Whether a message goes on at its PUBLISH or at its PUBREL is the
    /// server's choice (MQTT 5 and 3.1.1, figure 4.3), so one client wants them from the beginning, and by
    /// the end it has got each once.
    Unfinished,
    /// As any, with clients who fall silent, which takes seconds.
    Silence,
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
    /// PUBLISH at QoS 2 up to PUBREC; where that is lost, the socket ends as well.
    Start {
        post: Post,
        lost: bool,
    },
    /// PUBREL for what was started.
    Finish,
    /// The same as to connect, and then not a word.
    Doze(Begin),
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
/// Who wants what is unfinished.
const READER: usize = CLIENTS - 1;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

impl Theme {
    /// Whether some messages are compared in the end alone.
    pub(crate) fn is_told_in_the_end(self) -> bool {
        matches!(self, Theme::KeptGroups | Theme::Unfinished)
    }

    fn has_groups(self) -> bool {
        matches!(self, Theme::Groups | Theme::KeptGroups)
    }
}

impl Session {
    /// The session with this seed.
    pub(crate) fn random(seed: u64) -> Session {
        // Neighbouring seeds begin alike.
        let mut dice = Dice::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.below(2);
        let theme = match dice.below(32) {
            0..4 => Theme::Groups,
            4..7 => Theme::KeptGroups,
            7..11 => Theme::Unfinished,
            11 => Theme::Silence,
            _ => Theme::Any,
        };
        let versions = [(); CLIENTS].map(|()| if dice.below(2) == 0 { Version::V311 } else { Version::V5 });
        let mut maker = Maker { dice, theme, connected: [false; CLIENTS], messages: 0 };
        let mut steps = maker.beginning();
        let count = 6 + maker.dice.below(14);
        steps.extend((0..count).map(|_| maker.step()));
        // In the end everybody comes and takes what is left.
        steps.extend((0..CLIENTS).map(|client| Step { client, act: Act::Connect(last(theme)) }));
        steps.extend((0..CLIENTS).map(|client| Step { client, act: Act::Finish }));
        Session { theme, versions, steps }
    }

    /// Whether everybody has come in the end, and has finished.
    pub(crate) fn comes_to_rest(&self) -> bool {
        let connects = |step: &Step| matches!(&step.act, Act::Connect(begin) if !begin.clean);
        let finishes = |step: &Step| matches!(step.act, Act::Finish);
        let end: Vec<&Step> = self.steps.iter().rev().take(2 * CLIENTS).collect();
        end.len() == 2 * CLIENTS
            && end[..CLIENTS].iter().all(|step| finishes(step))
            && end[CLIENTS..].iter().all(|step| connects(step))
            && end.chunks(CLIENTS).all(|steps| steps.iter().map(|step| step.client).eq((0..CLIENTS).rev()))
    }
}

fn last(theme: Theme) -> Begin {
    let clean = theme == Theme::Groups;
    Begin { clean, expiry: Some(3600), will: None, will_delay: None, answers: Answers::All }
}

impl Act {
    /// Whether the client may be connected otherwise behind it than before.
    pub(crate) fn connects_or_ends(&self) -> bool {
        matches!(
            self,
            Act::Connect(_) | Act::Doze(_) | Act::Leave { .. } | Act::Cut | Act::Start { lost: true, .. }
        )
    }

    /// What waits for a member goes with its subscription.
    fn without_kept_groups(mut self, theme: Theme) -> Act {
        if theme == Theme::KeptGroups
            && let Act::Unsubscribe { filters } = &mut self
        {
            filters
                .iter_mut()
                .filter(|filter| filter.starts_with('$'))
                .for_each(|filter| *filter = "u".into());
        }
        self
    }
}

struct Maker {
    dice: Dice,
    theme: Theme,
    connected: [bool; CLIENTS],
    messages: u64,
}

impl Maker {
    fn beginning(&mut self) -> Vec<Step> {
        if self.theme != Theme::Unfinished {
            return Vec::new();
        }
        self.connected[READER] = true;
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let wish = Act::Subscribe { filters: vec![("q/+".to_owned(), options)], identifier: None };
        [Act::Connect(self.begin()), wish].map(|act| Step { client: READER, act }).into()
    }

    fn step(&mut self) -> Step {
        let client = usize::try_from(self.dice.below(CLIENTS as u64)).unwrap();
        if !self.connected[client] {
            let begin = self.begin();
            if self.theme == Theme::Silence && self.dice.below(6) == 0 {
                return Step { client, act: Act::Doze(Begin { answers: Answers::None, ..begin }) };
            }
            self.connected[client] = true;
            return Step { client, act: Act::Connect(begin) };
        }
        let act = match self.dice.below(20) {
            0..9 if self.theme == Theme::Unfinished && client != READER => self.unfinished(),
            0..6 => self.subscribe(),
            6 => Act::Unsubscribe { filters: vec![self.filter()] }.without_kept_groups(self.theme),
            7..15 => Act::Publish(self.post()),
            15 => Act::Connect(self.begin()),
            16 | 17 => Act::Leave { with_will: self.dice.below(4) == 0 },
            _ => Act::Cut,
        };
        self.connected[client] = !matches!(act, Act::Leave { .. } | Act::Cut | Act::Start { lost: true, .. });
        Step { client, act }
    }

    fn unfinished(&mut self) -> Act {
        if self.dice.below(3) == 0 {
            return Act::Finish;
        }
        let topic = ["q/c", "q/d"][self.dice.below(2) as usize].to_owned();
        let (qos, retain, alias) = (QoS::ExactlyOnce, false, false);
        let post = Post { topic, qos, retain, alias, ..self.post() };
        let payload = format!("m{}", self.messages);
        Act::Start { post: Post { payload, ..post }, lost: self.dice.below(3) == 0 }
    }

    fn begin(&mut self) -> Begin {
        if self.theme.is_told_in_the_end() {
            return last(self.theme);
        }
        let shared = self.theme == Theme::Groups;
        // Whether a client still is of its group when its will is published is the server's choice.
        let will = (self.dice.below(3) == 0)
            .then(|| Post { alias: false, ..self.post() })
            .filter(|will| !will.topic.starts_with('s'));
        let kept = !shared && self.dice.below(3) > 0;
        Begin {
            clean: shared || self.dice.below(3) == 0,
            expiry: kept.then_some(3600),
            will,
            will_delay: (self.dice.below(4) == 0).then_some(3600),
            answers: match self.dice.below(6) {
                0 if !shared => Answers::None,
                1 if !shared => Answers::Half,
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
        if self.theme.has_groups() && self.dice.below(2) == 0 {
            let filters = match self.theme {
                // Of two groups one message is for one alone, or it would not be seen that the other misses it.
                Theme::KeptGroups => ["$share/one/s/a", "$share/two/s/c"],
                _ => ["$share/one/s/+", "$share/two/s/a"],
            };
            return filters[self.dice.below(2) as usize].to_owned();
        }
        FILTERS[self.dice.below(FILTERS.len() as u64) as usize].to_owned()
    }

    fn options(&mut self) -> SubscriptionOptions {
        let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        SubscriptionOptions {
            qos: self.qos(),
            no_local: !self.theme.has_groups() && self.dice.below(4) == 0,
            retain_as_published: self.dice.below(3) == 0,
            retain_handling: handling[self.dice.below(6).saturating_sub(3) as usize],
        }
    }

    fn post(&mut self) -> Post {
        self.messages += 1;
        let topic = if self.theme.has_groups() && self.dice.below(2) == 0 {
            ["s/a", "s/c"][self.dice.below(2) as usize]
        } else {
            TOPICS[self.dice.below(TOPICS.len() as u64) as usize]
        };
        let retain = !topic.starts_with('s') && self.dice.below(3) == 0;
        let empty = retain && self.dice.below(4) == 0;
        Post {
            topic: topic.to_owned(),
            qos: self.qos(),
            retain,
            payload: if empty { String::new() } else { format!("m{}", self.messages) },
            expiry: (self.dice.below(4) == 0).then_some(5000),
            pair: (self.dice.below(4) == 0).then(|| ("name".to_owned(), format!("v{}", self.messages))),
            alias: self.dice.below(4) == 0,
        }
    }

    /// What waits for a group at QoS 0 may be lost.
    fn qos(&mut self) -> QoS {
        match self.theme {
            Theme::KeptGroups => QOS[1 + self.dice.below(2) as usize],
            _ => QOS[self.dice.below(3) as usize],
        }
    }

    fn number(&mut self, end: u64) -> u32 {
        u32::try_from(self.dice.below(end)).unwrap()
    }
}
