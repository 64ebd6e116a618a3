//! One client: who it is, where it speaks from, and what it is waiting for.
//!
//! What it publishes and subscribes is in `inward`, what it is sent in `outward`. Opening ports and
//! finding clients is the registry's (`clients`); a client only says what should become of it.

use std::time::Duration;

use adapter_api::{FromPort, Hello, Will};

use super::inward::Inward;
use super::outward::{HELD_MAX, Outward};
use super::topics::Topics;
use super::{Lost, Peer, PortNumber, Turn};
use crate::Checked;
use crate::codec::{Connect, Message, ReturnCode, WillTopic};

#[derive(Debug)]
pub(super) struct Client {
    /// Its last CONNECT; repeated word for word it is a repetition.
    pub(super) connect: Connect,
    /// Where it last connected from.
    pub(super) peer: Peer,
    pub(super) life: Life,
    /// When `life` began.
    pub(super) since: Duration,
    /// When it was last heard.
    pub(super) heard: Duration,
    /// Whether nothing but CONNECT has come since its CONNACK.
    pub(super) ears: Ears,
    acquaintance: Acquaintance,
    /// Its in-process client, from the request to open it.
    pub(super) port: Option<PortNumber>,
    /// The port of its last connection, while the broker has not yet confirmed its end. The next one is
    /// opened only then, since the two reach the broker by different ways.
    pub(super) leaving: Option<PortNumber>,
    /// Survives the connection unless CleanSession was set. // [SN-6.3]
    pub(super) will: Option<Will>,
    pub(super) topics: Topics,
    pub(super) inward: Inward,
    pub(super) outward: Outward,
    /// Its entry in the registry's alarms.
    pub(super) alarm: Option<Duration>,
}

/// Where a client stands. // [SN-6.14]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// It is asked for its will's topic.
    AskingTopic,
    /// It is asked for its will's payload.
    AskingMessage(WillTopic),
    /// The broker is asked for the session.
    Opening,
    /// Connected.
    Active,
    /// Its radio is off, for so many seconds at most; what comes for it waits.
    Asleep(u16),
    /// It listens for what waits, and then sleeps again as long.
    Awake(u16),
    /// Known, but not connected; not supervised.
    Disconnected,
}

/// Whether a CONNECT may be a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ears {
    /// It may: the client has not shown that it got the CONNACK.
    Quiet,
    /// It has gone on.
    Heard,
}

/// Whether this client was connected before, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acquaintance {
    New,
    Old,
}

/// What should become of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing changes.
    Stays,
    /// Its will is complete: open the session.
    Opens,
    /// Its CONNECT is refused.
    Refused(ReturnCode),
    /// It says goodbye.
    Leaves,
    /// It is lost.
    Lost(Lost),
    /// Its handshake has taken too long.
    GivesUp,
}

impl Client {
    pub(super) fn new(connect: Connect, peer: Peer, now: Duration) -> Client {
        Client {
            connect,
            peer,
            life: Life::Disconnected,
            since: now,
            heard: now,
            ears: Ears::Quiet,
            acquaintance: Acquaintance::New,
            port: None,
            leaving: None,
            will: None,
            topics: Topics::default(),
            inward: Inward::default(),
            outward: Outward::default(),
            alarm: None,
        }
    }

    pub(super) fn enter(&mut self, life: Life, now: Duration) {
        self.life = life;
        self.since = now;
    }

    /// Begins a connection: what is kept, and whether the will is asked for.
    pub(super) fn begin(&mut self, connect: Connect, peer: Peer, turn: &mut Turn<'_>) -> Fate {
        if connect.clean_session {
            // [SN-6.3] CleanSession deletes subscriptions and will.
            self.topics = Topics::default();
            self.inward = Inward::default();
            self.outward = Outward::default();
            self.will = None;
        } else {
            self.topics.forget_told();
        }
        self.connect = connect;
        self.peer = peer;
        self.heard = turn.now;
        if !self.connect.will {
            return Fate::Opens;
        }
        self.enter(Life::AskingTopic, turn.now);
        self.ask_again(turn);
        Fate::Stays
    }

    /// Sends what the handshake last asked, or its answer. // [SN-6.2]
    pub(super) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        match self.life {
            Life::AskingTopic => turn.answer(&self.peer, &Message::WillTopicReq),
            Life::AskingMessage(_) => turn.answer(&self.peer, &Message::WillMsgReq),
            Life::Active => turn.answer(&self.peer, &Message::ConnAck(ReturnCode::Accepted)),
            Life::Opening | Life::Asleep(_) | Life::Awake(_) | Life::Disconnected => {}
        }
    }

    pub(super) fn hello(&self, settings: &Checked) -> Hello {
        let clean = self.connect.clean_session;
        Hello {
            client_id: self.connect.client_id.clone(),
            user: settings.user.clone(),
            clean_start: clean,
            session_expiry: if clean { 0 } else { settings.session_expiry },
            will: self.will.clone(),
            credit: HELD_MAX,
            waits: true,
        }
    }

    /// The broker has the session.
    pub(super) fn connected(&mut self, session_present: bool, turn: &mut Turn<'_>) {
        if !session_present {
            self.topics.forget_subscriptions();
        } else if self.acquaintance == Acquaintance::New {
            self.topics.memory_is_partial();
        }
        self.acquaintance = Acquaintance::Old;
        self.enter(Life::Active, turn.now);
        self.heard = turn.now;
        self.ears = Ears::Quiet;
        self.ask_again(turn);
        self.outward_resume(turn);
    }

    /// [SN-6.14] A sleeper that connects again keeps its session, port and all that waits, where none of it
    /// is to be changed.
    pub(super) fn is_roused_by(&self, connect: &Connect) -> bool {
        let is_kept = !connect.clean_session && !self.connect.clean_session;
        self.is_sleeping() && is_kept && !connect.will && self.port.is_some()
    }

    /// Its connection goes on, from this address.
    pub(super) fn rouse(&mut self, connect: Connect, peer: Peer, turn: &mut Turn<'_>) {
        self.topics.forget_told();
        self.put_back(turn);
        (self.connect, self.peer) = (connect, peer);
        self.connected(true, turn);
    }

    /// A message from the client's address.
    pub(super) fn receive(&mut self, message: Message, turn: &mut Turn<'_>) -> Fate {
        // [SN-6.11] Any message shows that the client lives.
        self.heard = turn.now;
        if let Message::Disconnect(duration) = message {
            return match duration {
                Some(seconds @ 1..) if self.is_connected() => self.fall_asleep(seconds, turn),
                _ => Fate::Leaves, // [SN-6.12]
            };
        }
        match &self.life {
            Life::AskingTopic | Life::AskingMessage(_) => self.receive_will(message, turn),
            Life::Active | Life::Asleep(_) | Life::Awake(_) => self.receive_connected(message, turn),
            Life::Opening | Life::Disconnected => self.unexpected(turn),
        }
    }

    fn receive_will(&mut self, message: Message, turn: &mut Turn<'_>) -> Fate {
        match (&self.life, message) {
            // [SN-6.3] An empty WILLTOPIC deletes the will, and no payload is asked for.
            (_, Message::WillTopic(None)) => {
                self.will = None;
                Fate::Opens
            }
            (_, Message::WillTopic(Some(topic))) => {
                if topic.qos.connected().is_none() || !super::is_topic_name(&topic.topic) {
                    return Fate::Refused(ReturnCode::NotSupported);
                }
                self.life = Life::AskingMessage(topic);
                self.ask_again(turn);
                Fate::Stays
            }
            (Life::AskingMessage(WillTopic { qos, retain, topic }), Message::WillMsg(payload)) => {
                let (topic, retain) = (topic.clone(), *retain);
                let qos = qos.connected().unwrap_or(adapter_api::Qos::AtMostOnce);
                self.will = Some(Will { topic, payload, qos, retain });
                Fate::Opens
            }
            _ => self.unexpected(turn),
        }
    }

    fn receive_connected(&mut self, message: Message, turn: &mut Turn<'_>) -> Fate {
        if let Message::WillMsg(_) = message
            && self.ears == Ears::Quiet
            && self.connect.will
        {
            // The CONNACK was lost.
            turn.counters.repeated += 1;
            self.ask_again(turn);
            return Fate::Stays;
        }
        self.ears = Ears::Heard;
        match message {
            Message::Register(register) => self.register(&register, turn),
            Message::Publish(publish) => self.publish(publish, turn),
            Message::PubRel(msg_id) => self.released(msg_id, turn),
            Message::Subscribe(subscribe) => self.subscribe(subscribe, turn),
            Message::Unsubscribe { topic, msg_id } => self.unsubscribe(&topic, msg_id, turn),
            Message::RegAck { topic_id, msg_id, code } => self.registered(topic_id, msg_id, code, turn),
            Message::PubAck { topic_id, msg_id, code } => self.acknowledged(topic_id, msg_id, code, turn),
            Message::PubRec(msg_id) => self.taken(msg_id, turn),
            Message::PubComp(msg_id) => self.completed(msg_id, turn),
            Message::PingReq(Some(_)) if self.is_sleeping() => self.wake(turn),
            // [SN-6.11]
            Message::PingReq(_) => turn.answer(&self.peer, &Message::PingResp),
            Message::PingResp => {}
            // A will can be changed only by the next CONNECT.
            Message::WillTopicUpd(_) => {
                turn.counters.refused_requests += 1;
                turn.answer(&self.peer, &Message::WillTopicResp(ReturnCode::NotSupported));
            }
            Message::WillMsgUpd(_) => {
                turn.counters.refused_requests += 1;
                turn.answer(&self.peer, &Message::WillMsgResp(ReturnCode::NotSupported));
            }
            _ => return self.unexpected(turn),
        }
        Fate::Stays
    }

    /// [SN-6.14] Answered without a duration; nothing more is sent.
    fn fall_asleep(&mut self, seconds: u16, turn: &mut Turn<'_>) -> Fate {
        turn.answer(&self.peer, &Message::Disconnect(None));
        self.put_back(turn);
        self.enter(Life::Asleep(seconds), turn.now);
        Fate::Stays
    }

    /// [SN-6.14] What waits is sent, and PINGRESP after it.
    fn wake(&mut self, turn: &mut Turn<'_>) {
        match self.life {
            Life::Asleep(seconds) => {
                self.enter(Life::Awake(seconds), turn.now);
                self.drain(turn);
            }
            // Its question was under way for longer than it waits.
            _ => turn.counters.repeated += 1,
        }
    }

    /// It turns its radio off again.
    pub(super) fn doze(&mut self, turn: &Turn<'_>) {
        if let Life::Awake(seconds) = self.life {
            self.enter(Life::Asleep(seconds), turn.now);
        }
    }

    pub(super) fn is_sleeping(&self) -> bool {
        matches!(self.life, Life::Asleep(_) | Life::Awake(_))
    }

    /// Whether it has got its CONNACK, and nobody has said goodbye.
    fn is_connected(&self) -> bool {
        self.life == Life::Active || self.is_sleeping()
    }

    /// Whether its CONNECT is not answered yet.
    pub(super) fn is_opening(&self) -> bool {
        self.life != Life::Disconnected && !self.is_connected()
    }

    fn unexpected(&mut self, turn: &mut Turn<'_>) -> Fate {
        turn.counters.ignored_unexpected += 1;
        Fate::Stays
    }

    pub(super) fn ask(&self, request: FromPort, turn: &mut Turn<'_>) {
        if let Some(port) = self.port {
            turn.ask(port, request);
        }
    }

    /// When time alone next changes something.
    pub(super) fn due(&self, settings: &Checked) -> Option<Duration> {
        match self.life {
            Life::Disconnected => None,
            Life::Active | Life::Asleep(_) | Life::Awake(_) => {
                let (first, second) = (self.silent_at(), self.outward.due());
                first.into_iter().chain(second).min()
            }
            // As long as a client would go on repeating itself.
            _ => Some(self.since + settings.retry_interval * (settings.retries + 1)),
        }
    }

    /// Does what is due.
    pub(super) fn overdue(&mut self, turn: &mut Turn<'_>) -> Fate {
        if self.due(turn.settings).is_none_or(|due| due > turn.now) {
            return Fate::Stays;
        }
        if self.is_opening() {
            return Fate::GivesUp;
        }
        if self.silent_at().is_some_and(|at| at <= turn.now) {
            return Fate::Lost(Lost::Silent);
        }
        self.repeat(turn)
    }

    /// [SN-6.14] [SN-7.2] Lost after its keep alive, or its sleep, and a tolerance; 0 is no supervision.
    fn silent_at(&self) -> Option<Duration> {
        let seconds = u64::from(match self.life {
            Life::Asleep(seconds) | Life::Awake(seconds) => seconds,
            _ => self.connect.duration,
        });
        let permille = if seconds > 60 { 1_100 } else { 1_500 };
        (seconds > 0).then(|| self.heard + Duration::from_millis(seconds * permille))
    }

    /// Whether nothing but memory is left of it.
    pub(super) fn is_away(&self) -> bool {
        self.life == Life::Disconnected && self.port.is_none() && self.leaving.is_none()
    }

    /// The connection is over; what belongs to it is forgotten.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        self.enter(Life::Disconnected, turn.now);
        self.inward.end();
        turn.counters.dropped_unsent += self.outward.end();
    }
}
