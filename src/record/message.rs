//! A message as it is kept and routed, free of any one connection.
//!
//! What belongs to a connection (packet id, DUP, topic alias, subscription ids) is not here.

use adapter_api::reading;
use bytes::Bytes;
use bytestring::ByteString;

use super::{Identifiers, Mend, Now, ReaderId};
use crate::codec::{Plain, Properties, QoS};

/// A published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: ByteString,
    /// Payload.
    pub payload: Bytes,
    /// QoS of the publisher.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Only properties that travel: payload format, content type, response topic, correlation data, user
    /// properties. Message expiry, topic alias and subscription ids are taken out.
    pub properties: Properties,
    /// Message Expiry Interval in seconds from `received`.
    pub expiry: Option<u32>,
    /// When the broker took it: a stamp of the house's time, in milliseconds.
    pub received: u64,
    /// Whether its payload is a reading of ours that was taken before the clock was set.
    pub unclocked: bool,
}

/// One reader's wish for a message, fixed at its commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Want {
    /// Who.
    pub reader: ReaderId,
    /// QoS of the delivery: the lower of the publish's and the subscription's.
    pub qos: QoS,
    /// RETAIN of the delivery (Retain As Published).
    pub retain: bool,
    /// Subscription identifiers that matched.
    pub subscription_ids: Identifiers,
}

impl Message {
    /// One that is a topic and a payload, with bytes of its own; its topic may be that of a former one.
    pub fn of_plain(plain: &Plain<'_>, received: u64, former: Option<&ByteString>) -> Option<Message> {
        Some(Message {
            topic: match former {
                Some(former) if former.as_bytes() == plain.topic => former.clone(),
                _ => ByteString::try_from(plain.topic).ok()?,
            },
            payload: Bytes::copy_from_slice(plain.payload),
            qos: plain.qos,
            retain: false,
            properties: Properties::new(),
            expiry: None,
            received,
            unclocked: false,
        })
    }

    /// A copy whose bytes are its own, so that it does not pin a read buffer.
    pub fn compact(&self) -> Message {
        let mut own = self.clone();
        own.own_bytes(None);
        own
    }

    /// Gives it bytes of its own, so that it does not pin a read buffer; its topic may be that of a former one which
    /// has.
    pub fn own_bytes(&mut self, former: Option<&ByteString>) {
        self.topic = match former {
            Some(former) if *former == self.topic => former.clone(),
            _ => ByteString::from(&*self.topic),
        };
        self.payload = Bytes::copy_from_slice(&self.payload);
        self.properties = self.properties.compact();
    }

    /// Bytes that it weighs in a queue or a limit.
    pub fn weight(&self) -> usize {
        Message::weight_of(self.topic.len() + self.payload.len() + self.properties.as_bytes().len())
    }

    /// The same, of one whose topic, payload and properties have so many bytes.
    pub fn weight_of(bytes: usize) -> usize {
        bytes + MESSAGE_OVERHEAD
    }

    /// Bytes that it takes on disk while it is retained, about: a long one has pages of its own.
    pub fn size_retained(&self) -> usize {
        let bytes = self.weight();
        if bytes < LONG { bytes + bytes / 2 } else { bytes.div_ceil(PAGE) * PAGE + LONG }
    }

    /// Seconds of its expiry that are left; `Some(0)` has expired, `None` never does.
    pub fn remaining(&self, now: &Now) -> Option<u32> {
        let expiry = self.expiry?;
        let passed = u32::try_from(now.age(self.received) / 1_000).unwrap_or(u32::MAX);
        Some(expiry.saturating_sub(passed))
    }

    /// Its payload with the time mended, where it is a reading that needs it and the clock was set since.
    pub fn mended(&self, mend: &Mend) -> Option<Bytes> {
        if !self.unclocked || !mend.covers(self.received) {
            return None;
        }
        let mended =
            if self.received < mend.exact { reading::Mended::Nearly } else { reading::Mended::Exactly };
        reading::mend(&self.payload, mend.shift, mended).map(Bytes::from)
    }
}

/// What does not stand among others in a page of the disk has pages of its own.
const LONG: usize = 1_000;

/// Bytes of a page.
const PAGE: usize = 4_096;

/// What a message weighs beside its own bytes.
const MESSAGE_OVERHEAD: usize = 96;
