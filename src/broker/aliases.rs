//! The topic aliases that one client has set, and what they weigh.
//!
//! How many there may be is the caller's limit; each may be as long as a topic can, so they are weighed.

use bytestring::ByteString;

use crate::codec::Reason;
use crate::router::filter;

/// Topics by alias.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// From 1; empty where not set.
    topics: Vec<ByteString>,
    /// Bytes of all of them.
    weight: usize,
}

impl Aliases {
    /// Bytes that they take.
    pub(super) fn weight(&self) -> usize {
        self.weight + self.topics.capacity() * size_of::<ByteString>()
    }

    /// Sets an alias, or reads it where the topic is empty. [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12]
    pub(super) fn topic(&mut self, alias: u16, most: u16, topic: &ByteString) -> Result<ByteString, Reason> {
        if alias == 0 || alias > most {
            return Err(Reason::TopicAliasInvalid);
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.topics.get(index).filter(|known| !known.is_empty());
            return known.cloned().ok_or(Reason::ProtocolError);
        }
        if matches!(filter::check_topic(topic), Err(filter::NotATopic::Empty | filter::NotATopic::Character))
        {
            return Err(Reason::TopicNameInvalid);
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, ByteString::new());
        }
        // Its own bytes: it must not keep the buffer in which the topic came.
        let topic = ByteString::from(&**topic);
        if let Some(place) = self.topics.get_mut(index) {
            self.weight += topic.len();
            self.weight -= std::mem::replace(place, topic.clone()).len();
        }
        Ok(topic)
    }
}
