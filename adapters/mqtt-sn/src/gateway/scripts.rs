//! Scripts for the state machine: lines in, effects out as lines.
//!
//! `a: connect c1 clean` is a datagram from peer a, `3: published 1` the broker's word to port 3,
//! `wait 15s` is time. What goes out reads the same way: `a< connack accepted`, `ask 3 publish 1 …`.
//! Lines before `---` only set the scene. After every line the tables must agree.

use std::net::SocketAddr;
use std::time::Duration;

use adapter_api::{Acknowledgement, Delivery, FromPort, Hello, Refusal, ToPort, units};
use bytes::Bytes;

use super::outward::HELD_MAX;
use super::{Effect, Event, Gateway, Lost, Note, Peer, PortNumber};
use crate::codec::{
    Connect, Message, Publish, QosField, Register, ReturnCode, Subscribe, TopicFilter, TopicId, WillTopic,
    decode, encode,
};
use crate::{Checked, Config};

/// Plays a script to a gateway of the default configuration, with the predefined id 1.
pub(super) fn check(script: &[&str], expected: &str) {
    check_with(|_| (), script, expected);
}

/// The same with another configuration.
pub(super) fn check_with(change: impl Fn(&mut Checked), script: &[&str], expected: &str) {
    let said = play(change, script).0;
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(said, expected, "\nsaid:\n{}\nexpected:\n{}\n", said.join("\n"), expected.join("\n"));
}

/// What was said after `---`, and the gateway afterwards.
pub(super) fn play(change: impl Fn(&mut Checked), script: &[&str]) -> (Vec<String>, Gateway) {
    let mut settings = Config::default().check().unwrap();
    settings.predefined.insert(1, "pre/one".into());
    change(&mut settings);
    let mut gateway = Gateway::new(settings);
    let mut now = Duration::ZERO;
    let mut said = Vec::new();
    for line in script {
        if *line == "---" {
            said.clear();
            continue;
        }
        let event = match line.strip_prefix("wait ") {
            Some(duration) => {
                now += units::parse_duration(duration).unwrap();
                Event::Tick
            }
            None => event(line),
        };
        let mut effects = Vec::new();
        gateway.handle(event, now, &mut effects);
        assert!(gateway.is_consistent(), "after {line}");
        said.extend(effects.iter().map(effect_text));
    }
    (said, gateway)
}

fn event(line: &str) -> Event {
    if line == "stop" {
        return Event::Stop;
    }
    let (who, what) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    match who.parse() {
        Ok(number) if what == "gone" => Event::Gone { port: PortNumber(number) },
        Ok(number) => Event::Word { port: PortNumber(number), word: word(what) },
        Err(_) => {
            let octets = match what.strip_prefix("hex ") {
                Some(hex) => {
                    hex.split(' ').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect::<Bytes>()
                }
                None => encode(&message(what), 65_535).unwrap(),
            };
            Event::Datagram { from: peer(who), octets }
        }
    }
}

fn peer(name: &str) -> Peer {
    Peer { address: SocketAddr::from(([192, 0, 2, name.as_bytes()[0]], 10_000)) }
}

fn peer_name(peer: &Peer) -> char {
    match peer.address.ip() {
        std::net::IpAddr::V4(ip) => char::from(ip.octets()[3]),
        std::net::IpAddr::V6(_) => '?',
    }
}

/// The words of a line: plain ones in order, `name=value` ones and flags by name.
struct Words<'a> {
    plain: std::vec::IntoIter<&'a str>,
    all: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Words<'a> {
        let all: Vec<&str> = line.split(' ').collect();
        let special = |word: &&str| {
            word.contains('=')
                || ["qos0", "qos1", "qos2", "qos-1", "dup", "retain", "clean", "will"].contains(word)
        };
        let plain: Vec<&str> = all.iter().copied().filter(|word| !special(word)).collect();
        Words { plain: plain.into_iter(), all }
    }

    fn next(&mut self) -> &'a str {
        self.plain.next().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("{word} in {:?}", self.all))
    }

    fn has(&self, flag: &str) -> bool {
        self.all.contains(&flag)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.all.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn qos(&self) -> QosField {
        match self.all.iter().find(|word| word.starts_with("qos")) {
            Some(&"qos1") => QosField::AtLeastOnce,
            Some(&"qos2") => QosField::ExactlyOnce,
            Some(&"qos-1") => QosField::MinusOne,
            _ => QosField::AtMostOnce,
        }
    }

    fn code(&mut self) -> ReturnCode {
        match self.next() {
            "accepted" => ReturnCode::Accepted,
            "congestion" => ReturnCode::Congestion,
            "invalid-topic-id" => ReturnCode::InvalidTopicId,
            "not-supported" => ReturnCode::NotSupported,
            other => panic!("{other}"),
        }
    }

    fn will_topic(&mut self) -> Option<WillTopic> {
        let topic = self.plain.next()?.to_owned();
        Some(WillTopic { qos: self.qos(), retain: self.has("retain"), topic })
    }
}

/// What a client says.
fn message(line: &str) -> Message {
    let mut words = Words::new(line);
    match words.next() {
        "connect" => Message::Connect(Connect {
            will: words.has("will"),
            clean_session: words.has("clean"),
            protocol_id: words.value("protocol").map_or(1, |value| value.parse().unwrap()),
            duration: words.value("keep").map_or(0, |value| value.parse().unwrap()),
            client_id: words.next().to_owned(),
        }),
        "willtopic" => Message::WillTopic(words.will_topic()),
        "willmsg" => Message::WillMsg(words.next().to_owned().into()),
        "willtopicupd" => Message::WillTopicUpd(words.will_topic()),
        "willmsgupd" => Message::WillMsgUpd(words.next().to_owned().into()),
        "register" => Message::Register(Register {
            topic_id: 0,
            msg_id: words.number(),
            topic: words.next().to_owned(),
        }),
        "regack" => Message::RegAck { topic_id: words.number(), msg_id: words.number(), code: words.code() },
        "publish" => Message::Publish(Publish {
            dup: words.has("dup"),
            qos: words.qos(),
            retain: words.has("retain"),
            topic: topic_id(words.next()),
            msg_id: words.number(),
            payload: words.next().to_owned().into(),
        }),
        "puback" => Message::PubAck { topic_id: words.number(), msg_id: words.number(), code: words.code() },
        "pubrec" => Message::PubRec(words.number()),
        "pubrel" => Message::PubRel(words.number()),
        "pubcomp" => Message::PubComp(words.number()),
        "subscribe" => Message::Subscribe(Subscribe {
            dup: words.has("dup"),
            qos: words.qos(),
            msg_id: words.number(),
            topic: topic_filter(words.next()),
        }),
        "unsubscribe" => Message::Unsubscribe { msg_id: words.number(), topic: topic_filter(words.next()) },
        "pingreq" => Message::PingReq(words.plain.next().map(str::to_owned)),
        "pingresp" => Message::PingResp,
        "disconnect" => Message::Disconnect(words.value("sleep").map(|value| value.parse().unwrap())),
        "searchgw" => Message::SearchGw { radius: 0 },
        "connack" => Message::ConnAck(words.code()),
        other => panic!("{other}"),
    }
}

fn topic_id(word: &str) -> TopicId {
    let (kind, topic) = word.split_once(':').unwrap();
    match kind {
        "normal" => TopicId::Normal(topic.parse().unwrap()),
        "predefined" => TopicId::Predefined(topic.parse().unwrap()),
        "reserved" => TopicId::Reserved(topic.parse().unwrap()),
        _ => TopicId::Short(topic.as_bytes().try_into().unwrap()),
    }
}

fn topic_filter(word: &str) -> TopicFilter {
    match word.split_once(':') {
        Some(("predefined", id)) => TopicFilter::Predefined(id.parse().unwrap()),
        Some(("reserved", _)) => TopicFilter::Reserved(Bytes::new()),
        Some(("short", name)) => TopicFilter::Short(name.as_bytes().try_into().unwrap()),
        _ => TopicFilter::Name(word.to_owned()),
    }
}

/// What the broker says.
fn word(line: &str) -> ToPort {
    let mut words = Words::new(line);
    match words.next() {
        "connected" => ToPort::Connected { session_present: words.next() == "present" },
        "published" => {
            let id = words.number().into();
            ToPort::Published(Acknowledgement { id, result: refusal(words.next()).map_or(Ok(()), Err) })
        }
        "subscribed" => {
            let id = words.number().into();
            let qos = words.qos().connected().unwrap();
            ToPort::Subscribed { id, result: refusal(words.next()).map_or(Ok(qos), Err) }
        }
        "unsubscribed" => ToPort::Unsubscribed { id: words.number().into() },
        "message" => ToPort::Message(Delivery {
            id: words.value("id").map_or(0, |value| value.parse().unwrap()),
            topic: words.next().to_owned(),
            payload: words.next().to_owned().into(),
            qos: words.qos().connected().unwrap(),
            retain: words.has("retain"),
            dup: words.has("dup"),
        }),
        "drained" => ToPort::Drained,
        "closed" => ToPort::Closed(refusal(words.next()).unwrap()),
        other => panic!("{other}"),
    }
}

fn refusal(word: &str) -> Option<Refusal> {
    Some(match word {
        "" => return None,
        "denied" => Refusal::NotAuthorized,
        "quota" => Refusal::QuotaExceeded,
        "invalid" => Refusal::TopicInvalid,
        "taken-over" => Refusal::TakenOver,
        "stopping" => Refusal::ShuttingDown,
        other => panic!("{other}"),
    })
}

fn effect_text(effect: &Effect) -> String {
    match effect {
        Effect::Send { to, octets } => {
            format!("{}< {}", peer_name(to), message_text(&decode(octets).unwrap()))
        }
        Effect::Open { port, hello } => format!("open {} {}", port.0, hello_text(hello)),
        Effect::Ask { port, request } => format!("ask {} {}", port.0, request_text(request)),
        Effect::Drop { port } => format!("drop {}", port.0),
        Effect::Note(Note::Lost { client_id, why }) => {
            let why = match why {
                Lost::Silent => "silent",
                Lost::Unanswered => "unanswered",
                Lost::Displaced => "displaced",
                Lost::Choked => "choked",
            };
            format!("note lost {client_id} {why}")
        }
        Effect::Note(Note::TooLong { client_id, topic, octets }) => {
            format!("note too-long {client_id} {topic} {octets}")
        }
    }
}

fn hello_text(hello: &Hello) -> String {
    let mut text = hello.client_id.clone();
    if hello.clean_start {
        text += " clean";
    }
    if let Some(user) = &hello.user {
        text += &format!(" user={user}");
    }
    match hello.session_expiry {
        0 => {}
        u32::MAX => text += " kept",
        seconds => text += &format!(" kept={seconds}"),
    }
    if let Some(will) = &hello.will {
        let retain = if will.retain { ":retain" } else { "" };
        text += &format!(" will={}:{}:{}{retain}", will.topic, payload(&will.payload), qos(will.qos.into()));
    }
    match (hello.waits, hello.credit) {
        (true, HELD_MAX) => text,
        (waits, credit) => format!("{text} waits={waits} credit={credit}"),
    }
}

fn request_text(request: &FromPort) -> String {
    match request {
        FromPort::Publish { id, topic, payload: octets, qos: level, retain, .. } => {
            let retain = if *retain { " retain" } else { "" };
            format!("publish {id} {topic} {} {}{retain}", payload(octets), qos((*level).into()))
        }
        FromPort::Subscribe { id, filter, qos: level } => {
            format!("subscribe {id} {filter} {}", qos((*level).into()))
        }
        FromPort::Unsubscribe { id, filter } => format!("unsubscribe {id} {filter}"),
        FromPort::Acknowledge { id } => format!("acknowledge {id}"),
        FromPort::Grant(messages) => format!("grant {messages}"),
        FromPort::Drain => "drain".into(),
        FromPort::Close => "close".into(),
    }
}

fn message_text(message: &Message) -> String {
    match message {
        Message::GwInfo { gateway_id, .. } => format!("gwinfo {gateway_id}"),
        Message::ConnAck(code) => format!("connack {}", code_text(*code)),
        Message::WillTopicReq => "willtopicreq".into(),
        Message::WillMsgReq => "willmsgreq".into(),
        Message::Register(Register { topic_id, msg_id, topic }) => {
            format!("register {topic_id} {msg_id} {topic}")
        }
        Message::RegAck { topic_id, msg_id, code } => {
            format!("regack {topic_id} {msg_id} {}", code_text(*code))
        }
        Message::Publish(publish) => {
            let topic = match publish.topic {
                TopicId::Normal(id) => format!("normal:{id}"),
                TopicId::Predefined(id) => format!("predefined:{id}"),
                TopicId::Short(name) => format!("short:{}", String::from_utf8_lossy(&name)),
                TopicId::Reserved(id) => format!("reserved:{id}"),
            };
            let dup = if publish.dup { " dup" } else { "" };
            let retain = if publish.retain { " retain" } else { "" };
            let (msg_id, octets, level) = (publish.msg_id, payload(&publish.payload), qos(publish.qos));
            format!("publish {topic} {msg_id} {octets} {level}{dup}{retain}")
        }
        Message::PubAck { topic_id, msg_id, code } => {
            format!("puback {topic_id} {msg_id} {}", code_text(*code))
        }
        Message::PubRec(msg_id) => format!("pubrec {msg_id}"),
        Message::PubRel(msg_id) => format!("pubrel {msg_id}"),
        Message::PubComp(msg_id) => format!("pubcomp {msg_id}"),
        Message::SubAck { qos: level, topic_id, msg_id, code } => {
            format!("suback {topic_id} {msg_id} {} {}", qos(*level), code_text(*code))
        }
        Message::UnsubAck(msg_id) => format!("unsuback {msg_id}"),
        Message::PingResp => "pingresp".into(),
        Message::Disconnect(None) => "disconnect".into(),
        Message::WillTopicResp(code) => format!("willtopicresp {}", code_text(*code)),
        Message::WillMsgResp(code) => format!("willmsgresp {}", code_text(*code)),
        other => format!("{other:?}"),
    }
}

fn code_text(code: ReturnCode) -> &'static str {
    match code {
        ReturnCode::Accepted => "accepted",
        ReturnCode::Congestion => "congestion",
        ReturnCode::InvalidTopicId => "invalid-topic-id",
        ReturnCode::NotSupported => "not-supported",
        ReturnCode::Reserved(_) => "reserved",
    }
}

fn qos(qos: QosField) -> &'static str {
    match qos {
        QosField::AtMostOnce => "qos0",
        QosField::AtLeastOnce => "qos1",
        QosField::ExactlyOnce => "qos2",
        QosField::MinusOne => "qos-1",
    }
}

fn payload(payload: &Bytes) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
