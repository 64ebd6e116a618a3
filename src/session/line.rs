//! Messages that wait in RAM for the window of a session that ends with its connection.
//!
//! One that goes straight to its taker waits in the words in which it came, one behind the other in one piece of
//! memory, and is read where it stands. Bounded in bytes by the caller (`max_send_buffer`), whose policy at the limit
//! is to end the session.
//! Invariant: `words` from `gone` on are those of the messages in `waiting` that have theirs there, in the same order.
//! An empty line takes no memory.

use std::collections::VecDeque;

use super::Parcel;
use crate::codec::{Plain, QoS, Version};
use crate::record::Message;

/// The waiting messages of one session.
#[derive(Debug, Default)]
pub struct Line {
    /// Nothing does in most of them.
    queue: Option<Box<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    words: Vec<u8>,
    /// The first so many of them have gone.
    gone: usize,
    weight: usize,
}

#[derive(Debug)]
enum Waiting {
    /// Few wait so: for most it is only to take no room.
    Parcel(Box<Parcel>),
    Verbatim(Verbatim),
}

/// A message that waits in its publisher's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbatim {
    /// The version that they are said in.
    pub version: Version,
    /// How surely its taker is sent it.
    pub qos: QoS,
    /// When it came, on the house's clock.
    pub received: u64,
}

/// What has waited longest.
#[derive(Debug)]
pub enum Waited<'a> {
    /// A message as any other.
    Parcel(Parcel),
    /// One in its publisher's words.
    Verbatim(Plain<'a>, Verbatim),
}

impl Line {
    /// Bytes that wait.
    pub fn weight(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.weight)
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.waiting.len())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Whether what has waited longest waits in its publisher's words.
    pub fn is_next_verbatim(&self) -> bool {
        let next = self.queue.as_ref().and_then(|queue| queue.waiting.front());
        matches!(next, Some(Waiting::Verbatim(_)))
    }

    /// The message that will have waited shortest, where it is taken apart.
    pub fn last(&self) -> Option<&Parcel> {
        match self.queue.as_ref()?.waiting.back()? {
            Waiting::Parcel(parcel) => Some(parcel),
            Waiting::Verbatim(_) => None,
        }
    }

    /// Lets a message wait behind the others. Returns what it weighs.
    pub fn push(&mut self, parcel: Parcel) -> usize {
        let weight = parcel.weight();
        self.queue.get_or_insert_default().push(Waiting::Parcel(Box::new(parcel)), weight);
        weight
    }

    /// The same for one that waits as it stands there.
    pub fn push_verbatim(&mut self, plain: &Plain<'_>, verbatim: Verbatim) -> usize {
        let weight = weight_of(plain);
        let queue = self.queue.get_or_insert_default();
        queue.append(plain.bytes);
        queue.push(Waiting::Verbatim(verbatim), weight);
        weight
    }

    /// Takes the message that has waited longest, and says what it weighs. Where it waits in its publisher's words they
    /// are lent; those of the last one are put in place of `last` for that.
    pub fn pop<'a>(&'a mut self, last: &'a mut Vec<u8>) -> Option<(Waited<'a>, usize)> {
        if self.len() == 1 {
            let Queue { mut waiting, words, gone, weight } = *self.queue.take()?;
            *last = words;
            return Some((waiting.pop_front()?.read(last.get(gone..)?)?, weight));
        }
        let queue = self.queue.as_deref_mut()?;
        // Before it is looked at: what is lent stays where it is.
        queue.give_back();
        let Queue { waiting, words, gone, weight } = queue;
        let waited = waiting.pop_front()?.read(words.get(*gone..)?)?;
        let (bytes, its_weight) = match &waited {
            Waited::Parcel(parcel) => (0, parcel.weight()),
            Waited::Verbatim(plain, _) => (plain.bytes.len(), weight_of(plain)),
        };
        *gone += bytes;
        *weight -= its_weight;
        Some((waited, its_weight))
    }
}

impl Queue {
    fn push(&mut self, waiting: Waiting, weight: usize) {
        self.weight += weight;
        self.waiting.push_back(waiting);
    }

    fn append(&mut self, words: &[u8]) {
        let is_full = self.words.len() + words.len() > self.words.capacity();
        // No more is moved than has gone since the last time.
        if is_full && self.gone >= self.words.len() / 2 {
            self.close_gap();
        }
        self.words.extend_from_slice(words);
    }

    /// Keeps about as much memory as what waits takes: no more than that is counted.
    fn give_back(&mut self) {
        let left = self.words.len() - self.gone;
        if self.words.capacity() > (4 * left).max(WORDS_KEPT) {
            self.close_gap();
            self.words.shrink_to(2 * left);
        }
        if self.waiting.capacity() > (4 * self.waiting.len()).max(WAITING_KEPT) {
            self.waiting.shrink_to(2 * self.waiting.len());
        }
    }

    /// Moves what waits to the front.
    fn close_gap(&mut self) {
        self.words.drain(..self.gone);
        self.gone = 0;
    }
}

impl Waiting {
    /// The message, whose words begin these if it waits in its publisher's.
    fn read(self, words: &[u8]) -> Option<Waited<'_>> {
        match self {
            Waiting::Parcel(parcel) => Some(Waited::Parcel(*parcel)),
            Waiting::Verbatim(verbatim) => {
                let plain = Plain::read(words, verbatim.version, usize::MAX)?;
                Some(Waited::Verbatim(plain, verbatim))
            }
        }
    }
}

/// What a message weighs where it waits, in whatever form.
pub fn weight_of(plain: &Plain<'_>) -> usize {
    Message::weight_of(plain.topic.len() + plain.payload.len())
}

/// So many bytes are not worth being given back.
const WORDS_KEPT: usize = 4 << 10;

/// Nor are places for so many messages.
const WAITING_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Identifiers, ReaderId, Want};

    fn words(topic: &str) -> Vec<u8> {
        let length = u8::try_from(topic.len()).unwrap();
        [&[0x32, length + 4, 0, length], topic.as_bytes(), &[0, 7]].concat()
    }

    fn parcel(topic: &str) -> Parcel {
        let bytes = words(topic);
        let plain = Plain::read(&bytes, Version::V311, 1_000).unwrap();
        let message = Arc::new(Message::of_plain(&plain, 5).unwrap());
        let subscription_ids = Identifiers::default();
        Parcel {
            message,
            want: Want { reader: ReaderId(0), qos: plain.qos, retain: false, subscription_ids },
        }
    }

    const VERBATIM: Verbatim = Verbatim { version: Version::V311, qos: QoS::AtLeastOnce, received: 5 };

    #[test]
    fn all_leave_in_their_order_and_weigh_what_they_did() {
        let (mut line, mut came, mut left, mut most) = (Line::default(), 0, 0, 0);
        let mut last = vec![9; 3];
        for round in 0..2_000_u32 {
            // It grows and shrinks, and is empty now and then.
            for _ in 0..round % 7 * (1 + round / 200 % 2) {
                let topic = format!("t/{came}");
                let weight = if came % 5 == 0 {
                    line.push(parcel(&topic))
                } else {
                    line.push_verbatim(&Plain::read(&words(&topic), Version::V311, 1_000).unwrap(), VERBATIM)
                };
                assert_eq!(weight, parcel(&topic).weight());
                came += 1;
            }
            for _ in 0..4 {
                let is_verbatim = line.is_next_verbatim();
                let Some((waited, weight)) = line.pop(&mut last) else { continue };
                let topic = format!("t/{left}");
                match waited {
                    Waited::Parcel(waited) => assert_eq!(waited, parcel(&topic)),
                    Waited::Verbatim(plain, verbatim) => {
                        assert_eq!((verbatim, plain.bytes), (VERBATIM, &*words(&topic)));
                    }
                }
                assert_eq!((is_verbatim, weight), (left % 5 != 0, parcel(&topic).weight()));
                left += 1;
            }
            most = most.max(line.len());
            assert_eq!(line.len(), came - left);
            let queue = line.queue.as_ref();
            let [kept, waiting] = queue.map_or([0; 2], |queue| {
                let is_verbatim = |number: &usize| !number.is_multiple_of(5);
                let numbers = (left..came).filter(is_verbatim);
                let waiting: usize = numbers.map(|number| words(&format!("t/{number}")).len()).sum();
                assert_eq!(queue.words.len() - queue.gone, waiting);
                [queue.words.capacity(), waiting]
            });
            assert!(
                kept <= 4 * (waiting + 16).max(WORDS_KEPT / 4),
                "what has gone is given back: {kept} for {waiting}"
            );
            assert_eq!(line.weight() == 0, line.is_empty());
        }
        assert!(most > 100 && line.pop(&mut last).is_some());
        while line.pop(&mut last).is_some() {}
        assert!(line.queue.is_none(), "an empty line takes no memory");
    }

    #[test]
    fn what_has_gone_takes_no_memory_though_the_last_one_waits() {
        for is_verbatim in [true, false] {
            let mut line = Line::default();
            let bytes = words("a/topic/of/some/length");
            let plain = Plain::read(&bytes, Version::V311, 1_000).unwrap();
            for _ in 0..10_000 {
                line.push_verbatim(&plain, VERBATIM);
            }
            if !is_verbatim {
                line.push(parcel("t"));
            }
            while line.len() > 1 {
                line.pop(&mut Vec::new());
            }
            let queue = line.queue.as_ref().unwrap();
            let kept = queue.words.capacity() + queue.waiting.capacity() * size_of::<Waiting>();
            assert!(kept < 10_000, "{kept} bytes for one that weighs {}", line.weight());
        }
    }
}
