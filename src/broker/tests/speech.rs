//! Packets and effects as words, both ways.
//!
//! `publish a/b hi q1 id=5 dup retain`: what is not said has its default. `-` is an empty topic or payload.

use bytes::Bytes;

use super::super::{Copy, Effect, Note};
use crate::codec::*;
use crate::record::{Message, SessionRecord, Want, Write};

/// The words after a packet's own: `q1`, `dup`, `id=5`.
pub(super) struct Words<'a>(pub(super) Vec<&'a str>);

impl<'a> Words<'a> {
    pub(super) fn of(text: &'a str) -> Words<'a> {
        Words(text.split_whitespace().collect())
    }

    pub(super) fn at(&self, place: usize) -> &'a str {
        self.0.get(place).copied().unwrap_or_else(|| panic!("word {place} is missing in {:?}", self.0))
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.value(name).map(|value| value.parse().ok().unwrap_or_else(|| panic!("{name}={value}")))
    }

    fn qos(&self) -> QoS {
        if self.has("q2") {
            QoS::ExactlyOnce
        } else if self.has("q1") {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        }
    }

    fn reason(&self) -> Reason {
        self.0.iter().find_map(|word| word.strip_prefix("0x")).map_or(Reason::Success, reason)
    }

    fn text(&self, place: usize) -> &'a str {
        match self.at(place) {
            "-" => "",
            text => text,
        }
    }
}

pub(super) fn reason(hex: &str) -> Reason {
    let code = u8::from_str_radix(hex.trim_start_matches("0x"), 16).expect("a hex code");
    Reason::from_code(code).expect("a reason code")
}

pub(crate) fn packet(text: &str) -> Packet {
    let words = Words::of(text);
    let ack = || Ack {
        packet_id: words.at(1).parse().expect("a packet id"),
        reason: words.reason(),
        properties: words
            .value("why")
            .map_or_else(Properties::new, |why| Properties::from_list(&[Property::ReasonString(why.into())])),
    };
    match words.at(0) {
        "connect" => Packet::Connect(Box::new(connect(&words))),
        "publish" => Packet::Publish(publish(&words)),
        "puback" => Packet::PubAck(ack()),
        "pubrec" => Packet::PubRec(ack()),
        "pubrel" => Packet::PubRel(ack()),
        "pubcomp" => Packet::PubComp(ack()),
        "subscribe" => Packet::Subscribe(subscribe(text)),
        "unsubscribe" => Packet::Unsubscribe(Unsubscribe {
            packet_id: words.at(1).parse().expect("a packet id"),
            properties: Properties::new(),
            filters: words.0.iter().skip(2).map(|filter| (*filter).into()).collect(),
        }),
        "ping" => Packet::PingReq,
        "disconnect" => {
            let expiry = words.number("expiry").map(Property::SessionExpiryInterval);
            Packet::Disconnect(Disconnect {
                reason: words.reason(),
                properties: Properties::from_list(expiry.as_slice()),
            })
        }
        "auth" => Packet::Auth(Auth {
            reason: words.reason(),
            properties: Properties::from_list(&authentication(&words)),
        }),
        other => panic!("no packet is called {other}"),
    }
}

fn connect(words: &Words<'_>) -> Connect {
    let mut list = Vec::new();
    list.extend(words.number("expiry").map(Property::SessionExpiryInterval));
    list.extend(words.number("window").map(Property::ReceiveMaximum));
    list.extend(words.number("size").map(Property::MaximumPacketSize));
    list.extend(words.number("aliases").map(Property::TopicAliasMaximum));
    list.extend(words.number("response").map(Property::RequestResponseInformation));
    list.extend(words.number("problem").map(Property::RequestProblemInformation));
    list.extend(authentication(words));
    let will = words.value("will").map(|will| {
        let parts: Vec<&str> = will.split(':').collect();
        let mut list = Vec::new();
        list.extend(words.number("delay").map(Property::WillDelayInterval));
        list.extend(travelling(words, "will-"));
        Will {
            qos: Words(parts.clone()).qos(),
            retain: parts.contains(&"retain"),
            topic: parts[0].into(),
            payload: Bytes::copy_from_slice(parts[1].as_bytes()),
            properties: Properties::from_list(&list),
        }
    });
    Connect {
        version: if words.has("v5") {
            Version::V5
        } else if words.has("v31") {
            Version::V31
        } else {
            Version::V311
        },
        clean_start: words.has("clean"),
        keep_alive: words.number("keep").unwrap_or(0),
        client_id: words.text(1).into(),
        will,
        username: words.value("user").map(Into::into),
        password: words.value("pass").map(|pass| Bytes::copy_from_slice(pass.as_bytes())),
        properties: Properties::from_list(&list),
    }
}

fn authentication(words: &Words<'_>) -> Vec<Property> {
    let method = words.value("method").map(|method| Property::AuthenticationMethod(method.into()));
    let data = words.value("data").map(|data| Bytes::copy_from_slice(data.as_bytes()));
    method.into_iter().chain(data.map(Property::AuthenticationData)).collect()
}

/// Properties that a server hands on, in this order; several notes are parted by commas.
fn travelling(words: &Words<'_>, prefix: &str) -> Vec<Property> {
    let value = |name: &str| words.value(&format!("{prefix}{name}"));
    let notes = value("note").into_iter().flat_map(|notes| notes.split(','));
    let mut list: Vec<Property> =
        notes.map(|note| Property::UserProperty("note".into(), note.into())).collect();
    list.extend(value("format").map(|_| Property::PayloadFormatIndicator(1)));
    list.extend(value("type").map(|text| Property::ContentType(text.into())));
    list.extend(value("answer").map(|topic| Property::ResponseTopic(topic.into())));
    list.extend(value("data").map(|data| Property::CorrelationData(Bytes::copy_from_slice(data.as_bytes()))));
    list
}

fn publish(words: &Words<'_>) -> Publish {
    let mut list = Vec::new();
    list.extend(words.number("expiry").map(Property::MessageExpiryInterval));
    list.extend(words.number("alias").map(Property::TopicAlias));
    list.extend(words.number("sid").map(Property::SubscriptionIdentifier));
    list.extend(travelling(words, ""));
    Publish {
        dup: words.has("dup"),
        qos: words.qos(),
        retain: words.has("retain"),
        topic: words.text(1).into(),
        packet_id: words.number("id").unwrap_or(0),
        properties: Properties::from_list(&list),
        payload: Bytes::copy_from_slice(words.text(2).as_bytes()),
    }
}

fn subscribe(text: &str) -> Subscribe {
    let (head, _) = text.split_once(',').unwrap_or((text, ""));
    let words = Words::of(head);
    let identifier = words.number("sid").map(Property::SubscriptionIdentifier);
    let filters = text.splitn(3, ' ').nth(2).expect("a filter").split(',').map(|one| {
        let words = Words::of(one);
        Subscription {
            filter: words.text(0).into(),
            options: SubscriptionOptions {
                qos: words.qos(),
                no_local: words.has("nl"),
                retain_as_published: words.has("rap"),
                retain_handling: if words.has("rh2") {
                    RetainHandling::DoNotSend
                } else if words.has("rh1") {
                    RetainHandling::SendIfNew
                } else {
                    RetainHandling::Send
                },
            },
        }
    });
    Subscribe {
        packet_id: words.at(1).parse().expect("a packet id"),
        properties: Properties::from_list(identifier.as_slice()),
        filters: filters.collect(),
    }
}

/// An effect as a line; `None` for what scripts do not look at.
pub(crate) fn effect(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Speak { .. }
        | Effect::Survey
        | Effect::Note(
            Note::Connected { .. } | Note::Lost { .. } | Note::Disconnected { .. } | Note::Refused { .. },
        ) => {
            return None;
        }
        Effect::Note(Note::GaveWay { client_id }) => format!("gave way {client_id}"),
        Effect::Note(Note::Foreign { client_id, claimant, owner, .. }) => {
            format!("foreign {client_id}: {claimant}, not {owner}")
        }
        Effect::Note(Note::RefusedMessage { client_id, reason, words }) => {
            format!("{client_id} refuses a message: {:#04x} {words}", reason.code()).trim_end().to_owned()
        }
        Effect::AwaitRoom { connection, most } => format!("await {} {most}", connection.slot),
        Effect::Send { connection, packet } => format!("{} < {}", connection.slot, sent(packet)),
        Effect::Deliver(copy) => format!("{} < {}", copy.connection.slot, delivered(copy)),
        Effect::Close { connection } => format!("close {}", connection.slot),
        Effect::Pause { connection } => format!("pause {}", connection.slot),
        Effect::Resume { connection } => format!("resume {}", connection.slot),
        Effect::Verify { connection, username, password } => {
            format!("verify {} {username} {}", connection.slot, String::from_utf8_lossy(password))
        }
        Effect::Authenticate { connection, transcript } => {
            let said = transcript.iter().map(|said| match &**said {
                b"" => "-".into(),
                said => String::from_utf8_lossy(said),
            });
            format!("authenticate {} {}", connection.slot, said.collect::<Vec<_>>().join(" / "))
        }
        Effect::Write(write) => format!("write {}", written(write)),
        Effect::Memory(level) => format!("memory {level:?}").to_lowercase(),
        Effect::Hurry => "hurry".into(),
        Effect::Read { reader, after, limit } => {
            format!("read r{} after {} limit {}", reader.0, after.0, limit.rows)
        }
        Effect::Forward { route, message } => format!("forward {route} {}", named(message)),
    })
}

fn named(message: &Message) -> String {
    let payload =
        if message.payload.is_empty() { "-".into() } else { String::from_utf8_lossy(&message.payload) };
    format!("{} {payload}", message.topic)
}

fn qos(qos: QoS) -> &'static str {
    match qos {
        QoS::AtMostOnce => "",
        QoS::AtLeastOnce => " q1",
        QoS::ExactlyOnce => " q2",
    }
}

fn ids(list: &[u32]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let list: Vec<String> = list.iter().map(u32::to_string).collect();
    format!(" ids={}", list.join(","))
}

fn delivered(copy: &Copy) -> String {
    let seen = named(&copy.message).split_off(usize::from(copy.hidden));
    let mut line = format!("publish {seen}{}", qos(copy.qos));
    if copy.packet_id > 0 {
        line += &format!(" id={}", copy.packet_id);
    }
    if copy.dup {
        line += " dup";
    }
    if copy.retain {
        line += " retain";
    }
    if let Some(expiry) = copy.expiry {
        line += &format!(" expiry={expiry}");
    }
    for property in copy.message.properties.iter() {
        line += &match property {
            Property::UserProperty(_, note) => format!(" note={note}"),
            Property::PayloadFormatIndicator(format) => format!(" format={format}"),
            Property::ContentType(text) => format!(" type={text}"),
            Property::ResponseTopic(topic) => format!(" answer={topic}"),
            Property::CorrelationData(data) => format!(" data={}", String::from_utf8_lossy(&data)),
            other => panic!("{other:?} does not travel"),
        };
    }
    line + &ids(&copy.subscription_ids)
}

/// What a client decodes of an effect, in its version; `None` where nothing is sent.
pub(super) fn heard(effect: &Effect, version: Version) -> Option<(Packet, usize)> {
    let mut bytes = Vec::new();
    match effect {
        Effect::Send { packet, .. } => encode(packet, version, &mut bytes).expect("a packet of this version"),
        Effect::Deliver(copy) => {
            let parts = copy.parts(Alias::None);
            encode_publish(&mut bytes, version, &parts).expect("a packet of this version");
        }
        _ => return None,
    }
    let size = bytes.len();
    let mut decoder = Decoder::new(Side::Client, usize::MAX);
    decoder.set_version(version);
    decoder.feed(bytes.into());
    match decoder.decode() {
        Ok(Some(packet)) => Some((packet, size)),
        other => panic!("no {version:?} client takes {effect:?}: {other:?}"),
    }
}

fn sent(packet: &Packet) -> String {
    let coded = |name: &str, ack: &Ack| match ack.reason {
        Reason::Success => format!("{name} {}", ack.packet_id),
        reason => format!("{name} {} {:#04x}", ack.packet_id, reason.code()),
    };
    let codes = |reasons: &[Reason]| {
        let list: Vec<String> = reasons.iter().map(|reason| format!("{:#04x}", reason.code())).collect();
        list.join(" ")
    };
    match packet {
        Packet::ConnAck(connack) => {
            let mut line = match (connack.reason, connack.session_present) {
                (Reason::Success, false) => "connack".to_owned(),
                (Reason::Success, true) => "connack present".to_owned(),
                (reason, _) => format!("connack {:#04x}", reason.code()),
            };
            if let Some(id) = connack.properties.assigned_client_identifier() {
                line += &format!(" id-of-{}-characters", id.len());
            }
            if let Some(expiry) = connack.properties.session_expiry() {
                line += &format!(" expiry={expiry}");
            }
            if let Some(keep) = connack.properties.server_keep_alive() {
                line += &format!(" keep={keep}");
            }
            line + &authenticated(&connack.properties)
        }
        Packet::PubAck(ack) => coded("puback", ack),
        Packet::PubRec(ack) => coded("pubrec", ack),
        Packet::PubRel(ack) => coded("pubrel", ack),
        Packet::PubComp(ack) => coded("pubcomp", ack),
        Packet::SubAck(ack) => format!("suback {} {}", ack.packet_id, codes(&ack.reasons)),
        Packet::UnsubAck(ack) => format!("unsuback {} {}", ack.packet_id, codes(&ack.reasons)),
        Packet::PingResp => "pong".into(),
        Packet::Disconnect(disconnect) => format!("disconnect {:#04x}", disconnect.reason.code()),
        Packet::Auth(auth) => {
            format!("auth {:#04x}{}", auth.reason.code(), authenticated(&auth.properties))
        }
        other => panic!("a server does not send {other:?}"),
    }
}

fn authenticated(properties: &Properties) -> String {
    let method = properties.authentication_method().map(|method| format!(" method={method}"));
    let data = properties.authentication_data();
    let data = data.map(|data| format!(" data={}", String::from_utf8_lossy(&data)));
    method.unwrap_or_default() + &data.unwrap_or_default()
}

fn wanted(want: &Want) -> String {
    let retain = if want.retain { " retain" } else { "" };
    format!("r{}{}{retain}{}", want.reader.0, qos(want.qos), ids(&want.subscription_ids))
}

fn written(write: &Write) -> String {
    match write {
        Write::Message { seq, message, audience, retained, inward } => {
            let audience: Vec<String> = audience.iter().map(wanted).collect();
            let mut line = format!("message {} {} for [{}]", seq.0, named(message), audience.join(", "));
            if *retained {
                line += " retained";
            }
            if let Some((reader, packet_id)) = inward {
                line += &format!(" inward r{}/{packet_id}", reader.0);
            }
            line
        }
        Write::Inward { reader, packet_id } => format!("inward r{}/{packet_id}", reader.0),
        Write::InwardReleased { reader, packet_id } => format!("released r{}/{packet_id}", reader.0),
        Write::Unretained { topic } => format!("unretained {topic}"),
        Write::Session(record) => session(record),
        Write::SessionEnded { reader, .. } => format!("ended r{}", reader.0),
        Write::SessionLapsed { reader } => format!("lapsed r{}", reader.0),
        Write::SessionRemoved { reader } => format!("removed r{}", reader.0),
        Write::Leased { reader, seq, packet_id, holder } => {
            let holder = holder.map_or(String::new(), |holder| format!(" of r{}", holder.0));
            format!("leased r{}/{} id={packet_id}{holder}", reader.0, seq.0)
        }
        Write::LeaseSent { reader, seq } => format!("sent r{}/{}", reader.0, seq.0),
        Write::Unleased { reader, seq } => format!("unleased r{}/{}", reader.0, seq.0),
        Write::LeaseReceived { reader, seq } => format!("received r{}/{}", reader.0, seq.0),
        Write::Settled { reader, seq } => format!("settled r{}/{}", reader.0, seq.0),
        Write::Dropped { reader, seq, reason } => {
            format!("dropped r{}/{} {}", reader.0, seq.0, reason.as_str())
        }
        Write::Shed { reader, reason, count } => format!("{} {count} of r{}", reason.as_str(), reader.0),
        Write::DropOldest { reader, after, count } => {
            format!("oldest {count} of r{} after {}", reader.0, after.0)
        }
    }
}

fn session(record: &SessionRecord) -> String {
    let mut line = format!("session {} r{}", record.client_id.replace('\0', "0"), record.reader.0);
    if !record.subscriptions.is_empty() {
        let filters: Vec<&str> = record.subscriptions.iter().map(|known| &*known.filter).collect();
        line += &format!(" [{}]", filters.join(", "));
    }
    if record.will.is_some() {
        line += " will";
    }
    if record.ended.is_some() {
        line += " ended";
    }
    line
}
