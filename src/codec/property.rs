//! One property of MQTT 5, and the rules for each: its form, its range, and the packets that have it.
//!
//! The table [`rule`] is section 2.2.2.2 of the standard, and [`check`] holds a block of bytes against
//! it. Whoever walks a block that was checked needs no second look.

use bytes::Bytes;
use bytestring::ByteString;

use super::Malformed;
use super::reader::split_variable;
use super::writer::{Unwritable, put_data, put_four, put_two, put_variable};

/// One property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// 0x01, byte.
    PayloadFormatIndicator(u8),
    /// 0x02, seconds.
    MessageExpiryInterval(u32),
    /// 0x03.
    ContentType(ByteString),
    /// 0x08.
    ResponseTopic(ByteString),
    /// 0x09.
    CorrelationData(Bytes),
    /// 0x0B, 1 to 268,435,455.
    SubscriptionIdentifier(u32),
    /// 0x11, seconds.
    SessionExpiryInterval(u32),
    /// 0x12.
    AssignedClientIdentifier(ByteString),
    /// 0x13, seconds.
    ServerKeepAlive(u16),
    /// 0x15.
    AuthenticationMethod(ByteString),
    /// 0x16.
    AuthenticationData(Bytes),
    /// 0x17.
    RequestProblemInformation(u8),
    /// 0x18, seconds.
    WillDelayInterval(u32),
    /// 0x19.
    RequestResponseInformation(u8),
    /// 0x1A.
    ResponseInformation(ByteString),
    /// 0x1C.
    ServerReference(ByteString),
    /// 0x1F.
    ReasonString(ByteString),
    /// 0x21, at least 1.
    ReceiveMaximum(u16),
    /// 0x22.
    TopicAliasMaximum(u16),
    /// 0x23, at least 1.
    TopicAlias(u16),
    /// 0x24, 0 or 1.
    MaximumQoS(u8),
    /// 0x25.
    RetainAvailable(u8),
    /// 0x26.
    UserProperty(ByteString, ByteString),
    /// 0x27, at least 1.
    MaximumPacketSize(u32),
    /// 0x28.
    WildcardSubscriptionAvailable(u8),
    /// 0x29.
    SubscriptionIdentifierAvailable(u8),
    /// 0x2A.
    SharedSubscriptionAvailable(u8),
}

/// A packet, or a part of one, that has properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// CONNECT.
    Connect,
    /// The will in a CONNECT.
    Will,
    /// CONNACK.
    ConnAck,
    /// PUBLISH towards a server.
    ClientPublish,
    /// PUBLISH towards a client.
    ServerPublish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// SUBACK.
    SubAck,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// UNSUBACK.
    UnsubAck,
    /// DISCONNECT towards a server.
    ClientDisconnect,
    /// DISCONNECT towards a client.
    ServerDisconnect,
    /// AUTH.
    Auth,
}

/// How a value is written, and what range it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One byte, 0 or 1.
    Flag,
    /// Two bytes.
    Two,
    /// Two bytes, not 0.
    TwoNotZero,
    /// Four bytes.
    Four,
    /// Four bytes, not 0.
    FourNotZero,
    /// Variable Byte Integer, not 0.
    Variable,
    /// UTF-8.
    Text,
    /// UTF-8 without wildcards.
    Topic,
    /// Bytes.
    Data,
    /// Two texts.
    Pair,
}

impl Property {
    /// Appends identifier and value. Nothing is appended on an error.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let start = out.len();
        out.push(self.identifier());
        let result = self.put_value(out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// The identifier on the wire.
    pub fn identifier(&self) -> u8 {
        match self {
            Property::PayloadFormatIndicator(_) => 0x01,
            Property::MessageExpiryInterval(_) => 0x02,
            Property::ContentType(_) => 0x03,
            Property::ResponseTopic(_) => 0x08,
            Property::CorrelationData(_) => 0x09,
            Property::SubscriptionIdentifier(_) => 0x0B,
            Property::SessionExpiryInterval(_) => 0x11,
            Property::AssignedClientIdentifier(_) => 0x12,
            Property::ServerKeepAlive(_) => 0x13,
            Property::AuthenticationMethod(_) => 0x15,
            Property::AuthenticationData(_) => 0x16,
            Property::RequestProblemInformation(_) => 0x17,
            Property::WillDelayInterval(_) => 0x18,
            Property::RequestResponseInformation(_) => 0x19,
            Property::ResponseInformation(_) => 0x1A,
            Property::ServerReference(_) => 0x1C,
            Property::ReasonString(_) => 0x1F,
            Property::ReceiveMaximum(_) => 0x21,
            Property::TopicAliasMaximum(_) => 0x22,
            Property::TopicAlias(_) => 0x23,
            Property::MaximumQoS(_) => 0x24,
            Property::RetainAvailable(_) => 0x25,
            Property::UserProperty(..) => 0x26,
            Property::MaximumPacketSize(_) => 0x27,
            Property::WildcardSubscriptionAvailable(_) => 0x28,
            Property::SubscriptionIdentifierAvailable(_) => 0x29,
            Property::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    fn put_value(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        use Property as P;
        match self {
            P::PayloadFormatIndicator(flag)
            | P::RequestProblemInformation(flag)
            | P::RequestResponseInformation(flag)
            | P::MaximumQoS(flag)
            | P::RetainAvailable(flag)
            | P::WildcardSubscriptionAvailable(flag)
            | P::SubscriptionIdentifierAvailable(flag)
            | P::SharedSubscriptionAvailable(flag) => out.push(*flag),
            P::ServerKeepAlive(value)
            | P::ReceiveMaximum(value)
            | P::TopicAliasMaximum(value)
            | P::TopicAlias(value) => put_two(out, *value),
            P::MessageExpiryInterval(value)
            | P::SessionExpiryInterval(value)
            | P::WillDelayInterval(value)
            | P::MaximumPacketSize(value) => put_four(out, *value),
            P::SubscriptionIdentifier(value) => return put_variable(out, *value as usize),
            P::ContentType(text)
            | P::ResponseTopic(text)
            | P::AssignedClientIdentifier(text)
            | P::AuthenticationMethod(text)
            | P::ResponseInformation(text)
            | P::ServerReference(text)
            | P::ReasonString(text) => return put_data(out, text.as_bytes()),
            P::CorrelationData(data) | P::AuthenticationData(data) => return put_data(out, data),
            P::UserProperty(name, value) => {
                put_data(out, name.as_bytes())?;
                return put_data(out, value.as_bytes());
            }
        }
        Ok(())
    }

    /// The property at `raw`, whose block was checked; its text and data are slices of `block`.
    pub(super) fn of_raw(raw: Raw<'_>, block: &Bytes) -> Option<Property> {
        use Property as P;
        let text = || ByteString::try_from(block.slice_ref(raw.value)).ok();
        let data = || block.slice_ref(raw.value);
        let flag = || raw.value.first().copied();
        let two = || raw.value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        let four = || raw.number();
        Some(match raw.identifier {
            0x01 => P::PayloadFormatIndicator(flag()?),
            0x02 => P::MessageExpiryInterval(four()?),
            0x03 => P::ContentType(text()?),
            0x08 => P::ResponseTopic(text()?),
            0x09 => P::CorrelationData(data()),
            0x0B => P::SubscriptionIdentifier(split_variable(raw.value).ok()?.0),
            0x11 => P::SessionExpiryInterval(four()?),
            0x12 => P::AssignedClientIdentifier(text()?),
            0x13 => P::ServerKeepAlive(two()?),
            0x15 => P::AuthenticationMethod(text()?),
            0x16 => P::AuthenticationData(data()),
            0x17 => P::RequestProblemInformation(flag()?),
            0x18 => P::WillDelayInterval(four()?),
            0x19 => P::RequestResponseInformation(flag()?),
            0x1A => P::ResponseInformation(text()?),
            0x1C => P::ServerReference(text()?),
            0x1F => P::ReasonString(text()?),
            0x21 => P::ReceiveMaximum(two()?),
            0x22 => P::TopicAliasMaximum(two()?),
            0x23 => P::TopicAlias(two()?),
            0x24 => P::MaximumQoS(flag()?),
            0x25 => P::RetainAvailable(flag()?),
            0x26 => {
                let (name, rest) = split_prefixed(raw.value)?;
                let (value, _) = split_prefixed(rest)?;
                let text = |part| ByteString::try_from(block.slice_ref(part)).ok();
                P::UserProperty(text(name)?, text(value)?)
            }
            0x27 => P::MaximumPacketSize(four()?),
            0x28 => P::WildcardSubscriptionAvailable(flag()?),
            0x29 => P::SubscriptionIdentifierAvailable(flag()?),
            0x2A => P::SharedSubscriptionAvailable(flag()?),
            _ => return None,
        })
    }
}

/// A property as it stands in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) identifier: u8,
    /// Without length prefix; of a pair both texts with theirs.
    pub(super) value: &'a [u8],
}

impl Raw<'_> {
    /// A number of one, two or four bytes.
    pub(super) fn number(&self) -> Option<u32> {
        if self.value.len() > 4 {
            return None;
        }
        Some(self.value.iter().fold(0, |number, &byte| (number << 8) | u32::from(byte)))
    }
}

/// Takes the first property off a block that was checked; `None` at its end.
pub(super) fn split_raw(block: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (&identifier, rest) = block.split_first()?;
    let (form, _) = rule(identifier)?;
    let (value, rest) = split_value(form, rest).ok()?;
    Some((Raw { identifier, value }, rest))
}

/// Holds a block against the rules of its carrier.
pub(super) fn check(block: &[u8], carrier: Carrier) -> Result<(), Malformed> {
    let mut seen = 0_u64;
    let mut left = block;
    while let Some((&identifier, rest)) = left.split_first() {
        // [MQTT5-2.2.2.2]: every identifier fits in one byte of a Variable Byte Integer.
        let (form, carriers) = rule(identifier).ok_or(Malformed::PropertyUnknown)?;
        if carriers & bit(carrier) == 0 {
            return Err(match (identifier, carrier) {
                (SUBSCRIPTION_IDENTIFIER, Carrier::ClientPublish) => Malformed::SubscriptionIdFromClient,
                _ => Malformed::PropertyForeign,
            });
        }
        let repeats = identifier == USER_PROPERTY
            || (identifier == SUBSCRIPTION_IDENTIFIER && carrier == Carrier::ServerPublish);
        if seen & (1 << identifier) != 0 && !repeats {
            return Err(Malformed::PropertyRepeated);
        }
        seen |= 1 << identifier;
        let (value, rest) = split_value(form, rest)?;
        check_value(identifier, form, value)?;
        left = rest;
    }
    let has = |identifier: u8| seen & (1 << identifier) != 0;
    // [MQTT5-3.1.2.11.10]: data without a method; [MQTT5-3.15.2.2.2]: AUTH always names the method.
    if !has(AUTHENTICATION_METHOD) && (has(AUTHENTICATION_DATA) || carrier == Carrier::Auth) {
        return Err(Malformed::AuthenticationMethod);
    }
    Ok(())
}

fn check_value(identifier: u8, form: Form, value: &[u8]) -> Result<(), Malformed> {
    let fits = match form {
        Form::Flag => matches!(value, [0 | 1]),
        Form::TwoNotZero | Form::FourNotZero | Form::Variable => value.iter().any(|&byte| byte != 0),
        Form::Two | Form::Four | Form::Data => true,
        Form::Text => return check_text(value),
        Form::Topic => {
            check_text(value)?;
            // [MQTT5-3.3.2-14]
            return if value.iter().any(|byte| matches!(byte, b'+' | b'#')) {
                Err(Malformed::ResponseTopic)
            } else {
                Ok(())
            };
        }
        Form::Pair => {
            let (name, rest) = split_prefixed(value).ok_or(Malformed::EndsEarly)?;
            let (text, _) = split_prefixed(rest).ok_or(Malformed::EndsEarly)?;
            check_text(name)?;
            return check_text(text);
        }
    };
    match (fits, identifier) {
        (true, _) => Ok(()),
        (false, TOPIC_ALIAS) => Err(Malformed::TopicAliasZero),
        (false, _) => Err(Malformed::PropertyValue),
    }
}

fn check_text(value: &[u8]) -> Result<(), Malformed> {
    if value.contains(&0) {
        return Err(Malformed::NullInText);
    }
    std::str::from_utf8(value).map(|_| ()).map_err(|_| Malformed::NotUtf8)
}

fn split_value(form: Form, bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let fixed = |length| bytes.split_at_checked(length);
    let split = match form {
        Form::Flag => fixed(1),
        Form::Two | Form::TwoNotZero => fixed(2),
        Form::Four | Form::FourNotZero => fixed(4),
        Form::Variable => {
            let (_, rest) = split_variable(bytes)?;
            fixed(bytes.len() - rest.len())
        }
        Form::Text | Form::Topic | Form::Data => split_prefixed(bytes),
        Form::Pair => {
            let (_, rest) = split_prefixed(bytes).ok_or(Malformed::EndsEarly)?;
            let (_, rest) = split_prefixed(rest).ok_or(Malformed::EndsEarly)?;
            fixed(bytes.len() - rest.len())
        }
    };
    split.ok_or(Malformed::EndsEarly)
}

fn split_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Form and carriers of an identifier: table 2-4 of the standard, with the direction of PUBLISH and
/// DISCONNECT kept apart where the text does.
fn rule(identifier: u8) -> Option<(Form, u16)> {
    use Carrier as C;
    const PUBLISH: u16 = bit(C::ClientPublish) | bit(C::ServerPublish) | bit(C::Will);
    const OPENING: u16 = bit(C::Connect) | bit(C::ConnAck);
    const CONNACK: u16 = bit(C::ConnAck);
    const AUTH: u16 = OPENING | bit(C::Auth);
    const DISCONNECT: u16 = bit(C::ClientDisconnect) | bit(C::ServerDisconnect);
    const ANSWER: u16 = CONNACK | bit(C::Ack) | bit(C::SubAck) | bit(C::UnsubAck) | DISCONNECT | bit(C::Auth);
    const ALL: u16 = u16::MAX;
    Some(match identifier {
        0x01 => (Form::Flag, PUBLISH),
        0x02 => (Form::Four, PUBLISH),
        0x03 => (Form::Text, PUBLISH),
        0x08 => (Form::Topic, PUBLISH),
        0x09 => (Form::Data, PUBLISH),
        SUBSCRIPTION_IDENTIFIER => (Form::Variable, bit(C::ServerPublish) | bit(C::Subscribe)),
        // [MQTT5-3.14.2-2]: a server's DISCONNECT has none.
        0x11 => (Form::Four, OPENING | bit(C::ClientDisconnect)),
        0x12 => (Form::Text, CONNACK),
        0x13 => (Form::Two, CONNACK),
        AUTHENTICATION_METHOD => (Form::Text, AUTH),
        AUTHENTICATION_DATA => (Form::Data, AUTH),
        0x17 => (Form::Flag, bit(C::Connect)),
        0x18 => (Form::Four, bit(C::Will)),
        0x19 => (Form::Flag, bit(C::Connect)),
        0x1A => (Form::Text, CONNACK),
        0x1C => (Form::Text, CONNACK | bit(C::ServerDisconnect)),
        0x1F => (Form::Text, ANSWER),
        0x21 => (Form::TwoNotZero, OPENING),
        0x22 => (Form::Two, OPENING),
        TOPIC_ALIAS => (Form::TwoNotZero, bit(C::ClientPublish) | bit(C::ServerPublish)),
        0x24 | 0x25 => (Form::Flag, CONNACK),
        USER_PROPERTY => (Form::Pair, ALL),
        0x27 => (Form::FourNotZero, OPENING),
        0x28..=0x2A => (Form::Flag, CONNACK),
        _ => return None,
    })
}

const fn bit(carrier: Carrier) -> u16 {
    1 << carrier as u16
}

const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
const AUTHENTICATION_METHOD: u8 = 0x15;
const AUTHENTICATION_DATA: u8 = 0x16;
const TOPIC_ALIAS: u8 = 0x23;
const USER_PROPERTY: u8 = 0x26;
