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
    /// In a box, since few wait so.
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

    /// Takes the message that has waited longest, unless it waits in its publisher's words.
    pub fn pop_parcel(&mut self) -> Option<Parcel> {
        let queue = self.queue.as_deref_mut()?;
        let is_parcel = |next: &mut Waiting| matches!(next, Waiting::Parcel(_));
        let Waiting::Parcel(parcel) = queue.waiting.pop_front_if(is_parcel)? else { return None };
        queue.weight -= parcel.weight();
        if queue.waiting.is_empty() {
            self.queue = None;
        } else {
            queue.give_back();
        }
        Some(*parcel)
    }

    /// Takes the message that has waited longest, if it waits in its publisher's words. They are lent; where there is no
    /// other, they are what `emptied` then holds.
    // What it returns would otherwise be moved in other pieces than it was put together from, and the processor waits
    // for that longer than all else here takes.
    #[inline(always)]
    pub fn pop_verbatim<'a>(&'a mut self, emptied: &'a mut Line) -> Option<(Plain<'a>, Verbatim)> {
        if !self.is_next_verbatim() {
            return None;
        }
        let line = if self.len() > 1 {
            self
        } else {
            *emptied = std::mem::take(self);
            emptied
        };
        let queue = line.queue.as_deref_mut()?;
        let Waiting::Verbatim(verbatim) = queue.waiting.pop_front()? else { return None };
        // Before they are looked at: what is lent stays where it is.
        queue.give_back();
        let plain = Plain::read(queue.words.get(queue.gone..)?, verbatim.version, usize::MAX)?;
        queue.gone += plain.bytes.len();
        queue.weight -= weight_of(&plain);
        Some((plain, verbatim))
    }

    /// Lets only messages of such topics wait on. How many no longer do, and what they weighed.
    pub fn sift(&mut self, mut may_wait: impl FnMut(&str) -> bool) -> (u64, usize) {
        let Some(queue) = self.queue.take() else { return (0, 0) };
        let (count, weight) = (queue.waiting.len(), queue.weight);
        let mut words = queue.words.get(queue.gone..).unwrap_or_default();
        for waiting in queue.waiting {
            match waiting {
                Waiting::Parcel(parcel) => {
                    if may_wait(&parcel.message.topic) {
                        self.push(*parcel);
                    }
                }
                Waiting::Verbatim(verbatim) => {
                    let Some(plain) = Plain::read(words, verbatim.version, usize::MAX) else { continue };
                    words = words.get(plain.bytes.len()..).unwrap_or_default();
                    if std::str::from_utf8(plain.topic).is_ok_and(&mut may_wait) {
                        self.push_verbatim(&plain, verbatim);
                    }
                }
            }
        }
        ((count - self.len()) as u64, weight - self.weight())
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

    /// Keeps four times the memory that what waits takes at most, or a few KB; what waits alone is counted.
    #[inline]
    fn give_back(&mut self) {
        let words = (4 * (self.words.len() - self.gone)).max(WORDS_KEPT);
        let waiting = (4 * self.waiting.len()).max(WAITING_KEPT);
        if self.words.capacity() > words {
            self.close_gap();
            self.words.shrink_to(words / 2);
        }
        if self.waiting.capacity() > waiting {
            self.waiting.shrink_to(waiting / 2);
        }
    }

    /// Moves what waits to the front.
    fn close_gap(&mut self) {
        self.words.drain(..self.gone);
        self.gone = 0;
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
        let message = Arc::new(Message::of_plain(&plain, 5, None).unwrap());
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
        let mut emptied = Line::default();
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
                if line.is_empty() {
                    continue;
                }
                let (topic, before) = (format!("t/{left}"), line.weight());
                assert_eq!(line.is_next_verbatim(), left % 5 != 0);
                if left % 5 == 0 {
                    assert_eq!(line.pop_verbatim(&mut emptied), None);
                    assert_eq!(line.pop_parcel(), Some(parcel(&topic)));
                } else {
                    assert_eq!(line.pop_parcel(), None);
                    let (plain, verbatim) = line.pop_verbatim(&mut emptied).unwrap();
                    assert_eq!((verbatim, plain.bytes), (VERBATIM, &*words(&topic)));
                }
                assert_eq!(before - line.weight(), parcel(&topic).weight());
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
        assert!(most > 100 && !line.is_empty());
        while line.pop_parcel().is_some() || line.pop_verbatim(&mut emptied).is_some() {}
        assert!(line.queue.is_none(), "an empty line takes no memory");
    }

    #[test]
    fn what_is_sifted_out_is_of_the_topics_that_may_not_wait_in_whatever_form() {
        let mut line = Line::default();
        for number in 0..20 {
            let topic = format!("t/{}", number % 4);
            if number % 3 == 0 {
                line.push(parcel(&topic));
            } else {
                line.push_verbatim(&Plain::read(&words(&topic), Version::V311, 1_000).unwrap(), VERBATIM);
            }
        }
        let (whole, first) = (line.weight(), line.sift(|topic| topic != "t/0" && topic != "t/3"));
        assert_eq!((first, line.len()), ((10, whole / 2), 10));
        for number in (0..20).filter(|number| [1, 2].contains(&(number % 4))) {
            let topic = format!("t/{}", number % 4);
            let emptied = &mut Line::default();
            let found = line.pop_parcel().map(|parcel| parcel.message.topic.to_string());
            let found = found.or_else(|| {
                let (plain, _) = line.pop_verbatim(emptied)?;
                Some(String::from_utf8(plain.topic.to_vec()).unwrap())
            });
            assert_eq!(found, Some(topic), "in their order");
        }
        line.push(parcel("t/0"));
        assert_eq!((line.sift(|_| false).0, line.is_empty()), (1, true));
        assert_eq!(line.sift(|_| false), (0, 0));
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
                line.pop_verbatim(&mut Line::default());
            }
            let queue = line.queue.as_ref().unwrap();
            let kept = queue.words.capacity() + queue.waiting.capacity() * size_of::<Waiting>();
            assert!(kept < 10_000, "{kept} bytes for one that weighs {}", line.weight());
        }
    }
}
