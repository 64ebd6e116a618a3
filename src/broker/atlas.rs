//! The ways that are known, in two pieces of memory however many they are.
//!
//! One is a table of marks, of which a bucket is what the processor fetches at once; the other has what is known of
//! each way, one behind the other. A topic gets a way when it is seen a second time, so that one that is seen once
//! takes nothing. Where all is full, all begins anew once what is known is of no use, or most of it is copies that ways
//! have outgrown.

use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;

use super::ConnectionId;
use super::ways::{End, Ends, Leg, Stop, Way};
use crate::codec::{Plain, QoS};
use crate::record::ReaderId;

/// The ways that are known.
pub(super) struct Atlas {
    buckets: Vec<Bucket>,
    /// What is known of each way; behind one byte, so that no way begins at 0.
    text: Vec<u8>,
    hash: FixedState,
    closed: u64,
    /// Topics that were seen where no place was left, since there last were more buckets.
    crowded: usize,
    /// Bytes that both may take: buckets a quarter of it.
    most: usize,
    /// Ways in the text.
    known: usize,
    /// Bytes of the text that no bucket leads to any more.
    dead: usize,
    /// Messages that went a known way, and ways that found no room, since there last was a look at both.
    gone: usize,
    turned_away: usize,
    /// How often that look has left all as it was since it last began anew.
    spared: usize,
    /// Ways whose ends were or were not looked up where all was full.
    looks: usize,
}

/// Where a way may stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    mark: u32,
    /// At the end of the text, or where a former one with its mark stands.
    at: usize,
    /// For so many ends.
    room: u16,
}

/// Places for ways whose marks end alike. The oldest of them makes room for one more.
#[derive(Debug, Default, Clone)]
#[repr(align(64))]
struct Bucket {
    marks: [u32; PLACES],
    /// Where in the text; 0: there is none, but its topic was seen.
    at: [u32; PLACES],
    /// The topic that was seen last where no place was left.
    seen: u32,
}

/// Who says what how: all that a way depends on beside the state of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) publisher: ConnectionId,
    pub(super) qos: QoS,
    pub(super) topic: &'a [u8],
}

impl<'a> Origin<'a> {
    #[inline]
    pub(super) fn of(publisher: ConnectionId, plain: &Plain<'a>) -> Origin<'a> {
        Origin { publisher, qos: plain.qos, topic: plain.topic }
    }

    /// Its publisher in one number.
    #[inline]
    fn speaker(&self) -> u64 {
        u64::from(self.publisher.slot) << 32 | u64::from(self.publisher.generation)
    }

    /// What stands before the topic in the text.
    #[inline]
    fn head(&self, as_of: u64) -> [u8; HEAD] {
        // Two bits of as many changes as nobody lives to see.
        let state = as_of << 2 | self.qos as u64;
        let mut head = [0; HEAD];
        let (first, second) = head.split_at_mut(8);
        first.copy_from_slice(&state.to_le_bytes());
        second.copy_from_slice(&self.speaker().to_le_bytes());
        head
    }
}

impl Bucket {
    /// Where its way is that has this mark; 0 where its topic was seen alone.
    #[inline]
    fn at(&self, mark: u32) -> Option<u32> {
        // All are looked at: which of them it is the processor could not guess.
        let places = self.marks.iter().zip(self.at);
        let found =
            places.fold(u64::MAX, |found, (known, at)| if *known == mark { u64::from(at) } else { found });
        u32::try_from(found).ok()
    }
}

impl Atlas {
    /// None is known yet; they never take more bytes than that.
    pub(super) fn new(seed: u64, most: usize) -> Atlas {
        let most = most.min(BYTES_MAX);
        let hash = FixedState::with_seed(seed);
        Atlas {
            buckets: Vec::new(),
            text: Vec::new(),
            hash,
            closed: 0,
            crowded: 0,
            most,
            known: 0,
            dead: 0,
            gone: 0,
            turned_away: 0,
            spared: 0,
            looks: 0,
        }
    }

    /// What a message finds may be something else from now on.
    pub(super) fn close(&mut self) {
        self.closed += 1;
    }

    /// How often that was said.
    pub(super) fn closed(&self) -> u64 {
        self.closed
    }

    /// Bytes that all of it takes.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Puts the ends of the way from there into `ends`, of one from hand to hand into its legs alone; `None` where none is
    /// known that is as the house is now.
    #[inline]
    pub(super) fn find(&mut self, origin: Origin<'_>, as_of: u64, ends: Ends<'_>) -> Option<Way> {
        let Ends { legs, stops } = ends;
        legs.clear();
        let mut text = self.ends(origin, as_of)?;
        let way = way_of(text);
        if way == Way::Kept {
            text = read_stops(text, stops);
        }
        while let Some((leg, rest)) = text.split_first_chunk() {
            legs.push(leg_of(leg));
            text = rest;
        }
        Some(way)
    }

    /// A message went a way that was found.
    #[inline]
    pub(super) fn count_gone(&mut self) {
        self.gone += 1;
    }

    /// The way from there, if it is known.
    pub(super) fn way(&self, origin: Origin<'_>, as_of: u64) -> Option<Way> {
        self.ends(origin, as_of).map(way_of)
    }

    #[inline]
    fn ends(&self, origin: Origin<'_>, as_of: u64) -> Option<&[u8]> {
        if self.buckets.is_empty() {
            return None;
        }
        let mark = self.mark(origin);
        let at = self.buckets.get(self.place(mark))?.at(mark)?;
        self.read(at, origin, as_of)
    }

    /// The ends of the way that stands there, if it is this one.
    #[inline]
    fn read(&self, at: u32, origin: Origin<'_>, as_of: u64) -> Option<&[u8]> {
        let (head, rest) = self.text.get(at as usize..)?.split_first_chunk()?;
        let (sizes, rest) = rest.split_first_chunk()?;
        let [topic, ends, _] = sizes_of(*sizes).map(usize::from);
        let (topic, rest) = rest.split_at_checked(topic)?;
        (at > 0 && *head == origin.head(as_of) && topic == origin.topic).then(|| rest.get(..ends * END))?
    }

    #[inline]
    fn mark(&self, origin: Origin<'_>) -> u32 {
        let mut hasher = self.hash.build_hasher();
        hasher.write_u64(origin.speaker() ^ (origin.qos as u64) << 62);
        hasher.write(origin.topic);
        // Half of it is as good, and 0 stands for none.
        (hasher.finish() >> 32) as u32 | 1
    }

    #[inline]
    fn place(&self, mark: u32) -> usize {
        (mark >> 1) as usize & self.buckets.len().wrapping_sub(1)
    }

    /// Whether a topic that has no way is to get one: it was seen before. From now on it was.
    pub(super) fn is_due(&mut self, origin: Origin<'_>, as_of: u64) -> bool {
        if self.buckets.is_empty() && self.has_room_for(BUCKETS_MIN) {
            self.buckets.resize_with(BUCKETS_MIN, Bucket::default);
        }
        let mark = self.mark(origin);
        let place = self.place(mark);
        let Some(bucket) = self.buckets.get_mut(place) else { return false };
        if let Some(at) = bucket.at(mark) {
            return self.read(at, origin, as_of).is_none();
        }
        if bucket.seen == mark {
            return true;
        }
        if let Some(free) = bucket.marks.iter_mut().find(|known| **known == 0) {
            *free = mark;
            return false;
        }
        bucket.seen = mark;
        self.crowded += 1;
        if self.crowded > self.buckets.len() && self.has_room_for(self.buckets.len() * 2) {
            self.grow();
        }
        false
    }

    /// Where a way of so many ends may stand, if there is room: where a former one with its mark stands if that has it,
    /// since all is found anew again and again where people come and go.
    pub(super) fn place_for(&mut self, origin: Origin<'_>, ends: usize) -> Option<Place> {
        let (topic, count) = (u16::try_from(origin.topic.len()).ok()?, u16::try_from(ends).ok()?);
        let mark = self.mark(origin);
        if let Some(former) = self.former(mark, topic, count) {
            return Some(former);
        }
        if !self.make_room(length(topic, count)) {
            return None;
        }
        // Those who take it come one by one, and not each of them is to leave a dead copy behind.
        let ample = count.checked_next_power_of_two().unwrap_or(count);
        let room = if self.fits(length(topic, ample)) { ample } else { count };
        self.reserve(length(topic, room));
        Some(Place { mark, at: self.text.len(), room })
    }

    /// Whether it is worth while to look up so many ends of a way: where all is full only now and then is, since that
    /// costs more than the message.
    pub(super) fn is_worth_a_look(&mut self, origin: Origin<'_>, ends: usize) -> bool {
        let (Ok(topic), Ok(count)) = (u16::try_from(origin.topic.len()), u16::try_from(ends)) else {
            return false;
        };
        if self.fits(length(topic, count)) || self.former(self.mark(origin), topic, count).is_some() {
            return true;
        }
        self.looks += 1;
        // Which of them cannot be foreseen: topics that come in turns are all to have theirs.
        let chosen = self.hash.hash_one(self.looks / LOOK_EACH) % LOOK_EACH as u64;
        chosen == (self.looks % LOOK_EACH) as u64
    }

    fn fits(&self, bytes: usize) -> bool {
        self.text.len() + bytes < self.most_text()
    }

    /// Remembers a way, of whose ends those in the log come first, at a place that was just found for it.
    pub(super) fn keep(&mut self, place: Place, origin: Origin<'_>, as_of: u64, all: &[End]) {
        let Place { mark, at, room } = place;
        let (Ok(topic), Ok(count)) = (u16::try_from(origin.topic.len()), u16::try_from(all.len())) else {
            return;
        };
        let whole = length(topic, room);
        let mut way = Vec::with_capacity(whole);
        way.extend_from_slice(&origin.head(as_of));
        [topic, count, room].iter().for_each(|size| way.extend_from_slice(&size.to_le_bytes()));
        way.extend_from_slice(origin.topic);
        all.iter().for_each(|end| way.extend_from_slice(&bytes_of(end)));
        way.resize(whole, 0);
        if at < self.text.len() {
            if let Some(place) = self.text.get_mut(at..at + whole) {
                place.copy_from_slice(&way);
            }
        } else if let Ok(end) = u32::try_from(at) {
            self.text.extend_from_slice(&way);
            match self.settle(mark, end) {
                0 => self.known += 1,
                former => self.dead += self.length_at(former as usize),
            }
        }
    }

    /// Bytes of the way that stands there.
    fn length_at(&self, at: usize) -> usize {
        let sizes = self.text.get(at + HEAD..).and_then(|sizes| sizes.first_chunk());
        sizes.map_or(0, |sizes| {
            let [topic, _, room] = sizes_of(*sizes);
            length(topic, room)
        })
    }

    /// The place of a former way with this mark, where one with such a topic and so many ends may stand.
    fn former(&self, mark: u32, topic: u16, count: u16) -> Option<Place> {
        let at = self.buckets.get(self.place(mark))?.at(mark).filter(|at| *at > 0)? as usize;
        let [known, _, room] = sizes_of(*self.text.get(at + HEAD..)?.first_chunk()?);
        (known == topic && room >= count).then_some(Place { mark, at, room })
    }

    /// Whether there is room in the text for so many bytes more. Where it is full all may begin anew for them.
    fn make_room(&mut self, bytes: usize) -> bool {
        let most = self.most_text();
        // Before it stands one byte.
        if bytes + 1 >= most {
            return false;
        }
        if !self.fits(bytes) {
            if !self.is_to_begin_anew() {
                return false;
            }
            self.begin_anew();
        }
        if self.text.is_empty() {
            self.text.push(0);
        }
        self.fits(bytes)
    }

    /// For so many bytes more, of which there is room.
    fn reserve(&mut self, bytes: usize) {
        let wanted = self.text.len() + bytes;
        if wanted > self.text.capacity() {
            let capacity = (2 * wanted).min(self.most_text());
            self.text.reserve_exact(capacity.saturating_sub(self.text.len()));
        }
    }

    /// Whether all begins anew for one more that finds no room; not where the ways are of use: among a few topics more
    /// than there is room for each would else be forgotten before it comes again. But a few that are busy do not keep
    /// all for ever.
    fn is_to_begin_anew(&mut self) -> bool {
        // Of each that is looked at, so many were not.
        self.turned_away += LOOK_EACH;
        if self.dead > self.text.len() / 2 {
            return true;
        }
        // Each of those that are known is to have had its chance.
        if self.turned_away < 2 * self.known {
            return false;
        }
        let are_of_use = self.gone > self.turned_away / USED_BY && self.spared < SPARED_MAX;
        (self.gone, self.turned_away) = (0, 0);
        self.spared += 1;
        !are_of_use
    }

    /// Forgets all ways; others are to have their room.
    fn begin_anew(&mut self) {
        self.text.clear();
        self.buckets.fill(Bucket::default());
        (self.known, self.dead, self.gone, self.turned_away, self.spared) = (0, 0, 0, 0, 0);
    }

    /// Forgets all, and gives its memory back.
    pub(super) fn forget(&mut self) {
        if self.text.capacity() == 0 && self.buckets.len() <= BUCKETS_MIN {
            return;
        }
        self.text = Vec::new();
        // Whoever asks for a place has found some buckets.
        self.buckets.truncate(BUCKETS_MIN);
        self.buckets.shrink_to_fit();
        self.crowded = 0;
        self.begin_anew();
    }

    /// Gives a way its place: that of a former one with its mark, or one without a way, or that of the oldest. Where the
    /// way stands that had it; 0 where none did.
    fn settle(&mut self, mark: u32, at: u32) -> u32 {
        let place = self.place(mark);
        let Some(Bucket { marks, at: all, .. }) = self.buckets.get_mut(place) else { return 0 };
        let places = marks.iter_mut().zip(all);
        let place = places.min_by_key(|(known, at)| (**known != mark, **known != 0, **at));
        place.map_or(0, |(known, place)| {
            *known = mark;
            std::mem::replace(place, at)
        })
    }

    /// Bytes that the text may take.
    fn most_text(&self) -> usize {
        self.most / 4 * 3
    }

    fn has_room_for(&self, buckets: usize) -> bool {
        buckets * size_of::<Bucket>() <= self.most / 4
    }

    /// Twice as many buckets.
    fn grow(&mut self) {
        let more = self.buckets.len() * 2;
        let former = std::mem::replace(&mut self.buckets, vec![Bucket::default(); more]);
        self.crowded = 0;
        for bucket in former {
            let known = bucket.marks.into_iter().zip(bucket.at);
            for (mark, at) in known.filter(|(mark, _)| *mark > 0) {
                // Each has room: of one bucket two are made.
                self.settle(mark, at);
            }
        }
    }
}

/// Bytes of a way with room for so many ends.
fn length(topic: u16, room: u16) -> usize {
    HEAD + SIZES + usize::from(topic) + usize::from(room) * END
}

#[inline]
fn sizes_of([a, b, c, d, e, f]: [u8; SIZES]) -> [u16; 3] {
    [[a, b], [c, d], [e, f]].map(u16::from_le_bytes)
}

/// What the first of its ends says.
#[inline]
fn way_of(ends: &[u8]) -> Way {
    match ends.get(END - 1) {
        Some(last) if last & STOP > 0 => Way::Kept,
        _ => Way::Straight,
    }
}

#[inline]
fn bytes_of(end: &End) -> [u8; END] {
    let (words, last) = match end {
        End::Leg(leg) => ([leg.connection.slot, leg.connection.generation, leg.client], leg.qos as u8),
        End::Stop(stop) => ([stop.reader.0, stop.client.unwrap_or(u32::MAX), 0], STOP | stop.qos as u8),
    };
    let mut bytes = [last; END];
    bytes.chunks_exact_mut(4).zip(words).for_each(|(place, word)| place.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// The stops that come first among these ends; the rest is legs.
fn read_stops<'a>(mut ends: &'a [u8], stops: &mut Vec<Stop>) -> &'a [u8] {
    stops.clear();
    while way_of(ends) == Way::Kept
        && let Some((stop, rest)) = ends.split_first_chunk()
    {
        stops.push(stop_of(stop));
        ends = rest;
    }
    ends
}

#[inline]
fn words_of(bytes: &[u8; END]) -> ([u32; 3], QoS) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, last] = *bytes;
    let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_le_bytes);
    (words, QoS::from_bits(last & !STOP).unwrap_or(QoS::AtMostOnce))
}

#[inline]
fn leg_of(bytes: &[u8; END]) -> Leg {
    let ([slot, generation, client], qos) = words_of(bytes);
    Leg { connection: ConnectionId { slot, generation }, client, packet_id: 0, qos }
}

fn stop_of(bytes: &[u8; END]) -> Stop {
    let ([reader, client, _], qos) = words_of(bytes);
    Stop { reader: ReaderId(reader), client: (client < u32::MAX).then_some(client), qos }
}

/// Ways in a bucket.
const PLACES: usize = 7;

/// Bytes before the lengths of a way's topic and ends.
const HEAD: usize = 16;

/// Bytes of those lengths.
const SIZES: usize = 6;

/// Bytes of an end.
const END: usize = 13;

/// Stands in the last of them beside the QoS where a message is kept.
const STOP: u8 = 4;

/// They are of use where one goes them for so many that find no room.
const USED_BY: usize = 8;

/// So often, and no more, for what is found anew then is as much work as one in so many of those that were turned away.
const SPARED_MAX: usize = 16;

/// Where all is full one of so many is looked at.
const LOOK_EACH: usize = 16;

/// Buckets at first, and at any time a power of two.
const BUCKETS_MIN: usize = 64;

/// Bytes that all take, however much memory there is.
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::broker::tests::random::{Random, fresh_seed};

    fn connection(slot: usize) -> ConnectionId {
        ConnectionId { slot: u32::try_from(slot).unwrap(), generation: 7 }
    }

    fn leg_to(slot: usize, qos: QoS) -> Leg {
        Leg { connection: connection(slot), client: 0x0102_0304, packet_id: 0, qos }
    }

    fn leg(slot: usize, qos: QoS) -> End {
        End::Leg(leg_to(slot, qos))
    }

    fn stop(slot: usize, qos: QoS) -> End {
        let slot = u32::try_from(slot).unwrap();
        // Some are routes.
        End::Stop(Stop { reader: ReaderId(slot + 1), client: (slot % 4 > 0).then_some(slot), qos })
    }

    fn found(atlas: &mut Atlas, origin: Origin<'_>, as_of: u64) -> Option<Vec<End>> {
        let (mut legs, mut stops) = (vec![leg_to(9, QoS::AtMostOnce)], Vec::new());
        let found = atlas.find(origin, as_of, Ends { legs: &mut legs, stops: &mut stops });
        found.iter().for_each(|_| atlas.count_gone());
        assert_eq!(found, atlas.way(origin, as_of));
        assert_eq!(found == Some(Way::Kept), found.is_some() && !stops.is_empty());
        let ends = stops.into_iter().map(End::Stop).chain(legs.into_iter().map(End::Leg));
        found.map(|_| ends.collect())
    }

    fn keep(atlas: &mut Atlas, origin: Origin<'_>, as_of: u64, all: &[End]) {
        if atlas.is_worth_a_look(origin, all.len())
            && let Some(place) = atlas.place_for(origin, all.len())
        {
            atlas.keep(place, origin, as_of, all);
        }
    }

    /// Whatever differs in one thing from that of the first connection at QoS 1 in `t/a`.
    fn others(origin: Origin<'_>) -> [Origin<'_>; 6] {
        [
            Origin { publisher: connection(2), ..origin },
            Origin { publisher: ConnectionId { slot: 1, generation: 8 }, ..origin },
            Origin { qos: QoS::AtMostOnce, ..origin },
            Origin { topic: b"t/b", ..origin },
            Origin { topic: b"t/", ..origin },
            Origin { topic: b"t/a/b", ..origin },
        ]
    }

    #[test]
    fn a_way_is_known_to_who_says_the_same_while_nothing_has_changed() {
        let mut atlas = Atlas::new(1, 1 << 20);
        let (publisher, qos) = (connection(1), QoS::AtLeastOnce);
        let origin = Origin { publisher, qos, topic: b"t/a" };
        assert_eq!((atlas.is_due(origin, 5), atlas.is_due(origin, 5)), (false, true));
        assert_eq!(found(&mut atlas, origin, 5), None);
        let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let stops = (0..300).map(|slot| stop(slot, all[slot % 3]));
        let legs: Vec<End> = stops.chain((0..300).map(|slot| leg(slot, all[slot % 3]))).collect();
        keep(&mut atlas, origin, 5, &legs);
        assert_eq!(found(&mut atlas, origin, 5), Some(legs));
        assert!(!atlas.is_due(origin, 5), "it has one");
        for other in others(origin) {
            assert_eq!(found(&mut atlas, other, 5), None, "{other:?}");
        }
        assert_eq!(found(&mut atlas, origin, 6), None);
        assert!(atlas.is_due(origin, 6), "another one");
        keep(&mut atlas, origin, 6, &[]);
        assert_eq!((found(&mut atlas, origin, 6), found(&mut atlas, origin, 5)), (Some(Vec::new()), None));
    }

    #[test]
    fn where_a_bucket_is_full_the_oldest_way_makes_room_for_what_is_seen_twice() {
        let mut atlas = Atlas::new(1, 1 << 20);
        let (publisher, qos) = (connection(1), QoS::AtMostOnce);
        assert!(!atlas.is_due(Origin { publisher, qos, topic: b"t" }, 5));
        let all: Vec<String> = (0..10_000).map(|number| format!("t/{number}")).collect();
        let alike = all.iter().map(|topic| Origin { publisher, qos, topic: topic.as_bytes() });
        let alike = alike.filter(|origin| atlas.place(atlas.mark(*origin)) == 9);
        let alike: Vec<Origin<'_>> = alike.take(PLACES + 2).collect();
        for origin in &alike {
            assert_eq!((atlas.is_due(*origin, 5), atlas.is_due(*origin, 5)), (false, true));
            keep(&mut atlas, *origin, 5, &[leg(2, qos)]);
        }
        let known: Vec<bool> = alike.iter().map(|origin| atlas.way(*origin, 5).is_some()).collect();
        assert_eq!(known, [[false; 2].as_slice(), &[true; PLACES]].concat());
    }

    #[test]
    fn what_stands_there_is_the_way_of_its_origin_whoever_has_the_same_mark() {
        let mut atlas = Atlas::new(1, 1 << 20);
        let (publisher, qos) = (connection(1), QoS::AtLeastOnce);
        let origin = Origin { publisher, qos, topic: b"t/a" };
        assert!(!atlas.is_due(origin, 5));
        keep(&mut atlas, origin, 5, &[leg(2, qos)]);
        let mark = atlas.mark(origin);
        let at = atlas.buckets[atlas.place(mark)].at(mark).unwrap();
        assert!(atlas.read(at, origin, 5).is_some());
        for other in others(origin) {
            assert_eq!(atlas.read(at, other, 5), None, "{other:?}");
        }
        assert_eq!(atlas.read(at, origin, 6), None);
    }

    #[test]
    fn however_many_come_what_is_found_is_what_was_kept_last() {
        let fresh = fresh_seed();
        println!("seed {fresh}");
        for seed in [3, fresh] {
            let (mut random, mut kept) = (Random(seed), HashMap::new());
            let most = 256 << 10;
            let (mut atlas, mut hits) = (Atlas::new(seed, most), 0);
            for as_of in 0..60_000_u64 {
                let as_of = as_of / 20_000;
                let topic = format!("a/topic/{}", random.below(3_000));
                let origin = Origin {
                    publisher: connection(random.below(2)),
                    qos: QoS::AtMostOnce,
                    topic: topic.as_bytes(),
                };
                let key = (origin.publisher.slot, topic.clone(), as_of);
                if let Some(legs) = found(&mut atlas, origin, as_of) {
                    assert_eq!(Some(&legs), kept.get(&key), "{key:?}");
                    hits += 1;
                } else if atlas.is_due(origin, as_of) {
                    let legs: Vec<End> =
                        (0..random.below(5)).map(|_| leg(random.below(99), QoS::AtMostOnce)).collect();
                    keep(&mut atlas, origin, as_of, &legs);
                    kept.insert(key, legs);
                }
                assert!(atlas.bytes() <= most, "{}", atlas.bytes());
                if random.below(100) == 0 {
                    let all = || atlas.buckets.iter().flat_map(|bucket| bucket.at);
                    assert!(all().all(|at| at == 0 || (at as usize) < atlas.text.len()), "as of now");
                }
            }
            assert!(hits > 8_000, "{hits}");
        }
    }

    #[test]
    fn a_way_that_is_larger_than_all_room_is_not_kept() {
        let mut atlas = Atlas::new(1, 64 << 10);
        let origin = Origin { publisher: connection(1), qos: QoS::AtMostOnce, topic: b"t" };
        let legs = vec![leg(1, QoS::AtMostOnce); 4_000];
        assert!(!atlas.is_due(origin, 0) && atlas.is_due(origin, 0));
        keep(&mut atlas, origin, 0, &legs);
        assert_eq!(found(&mut atlas, origin, 0), None);
        keep(&mut atlas, origin, 0, &legs[..3_000]);
        assert_eq!(found(&mut atlas, origin, 0).map(|legs| legs.len()), Some(3_000));
    }

    #[test]
    fn a_few_topics_more_than_there_is_room_for_leave_most_ways_known_and_others_get_theirs_later() {
        let mut atlas = Atlas::new(1, 256 << 10);
        let mut round = |topics: std::ops::Range<usize>| {
            let known = topics.clone().filter(|number| {
                let topic = format!("plant/{number}/state");
                let origin =
                    Origin { publisher: connection(1), qos: QoS::AtMostOnce, topic: topic.as_bytes() };
                let is_known = found(&mut atlas, origin, 0).is_some();
                if !is_known && atlas.is_due(origin, 0) {
                    keep(&mut atlas, origin, 0, &[leg(2, QoS::AtMostOnce)]);
                }
                is_known
            });
            known.count()
        };
        let fit = (0..20).map(|_| round(0..8_000)).last().unwrap();
        assert!((1_500..6_000).contains(&fit), "{fit}");
        for more in [11, 15] {
            let known = (0..20).map(|_| round(0..fit * more / 10)).last().unwrap();
            assert!(known * 10 > fit * 8, "{known} of {fit}");
        }
        let others = (0..20).map(|_| round(10_000..10_000 + fit)).last().unwrap();
        assert!(others * 10 > fit * 8, "{others} of {fit}");
    }

    #[test]
    fn a_way_that_is_found_anew_again_and_again_takes_no_more_memory() {
        let mut atlas = Atlas::new(1, 1 << 20);
        let origin = Origin { publisher: connection(1), qos: QoS::AtMostOnce, topic: b"t/a" };
        assert!(!atlas.is_due(origin, 0));
        for as_of in 0..20_000 {
            // As where somebody comes and goes.
            let legs = vec![leg(2, QoS::AtMostOnce); if as_of % 2 == 0 { 1 } else { 2 }];
            assert!(atlas.is_due(origin, as_of));
            keep(&mut atlas, origin, as_of, &legs);
            assert_eq!(found(&mut atlas, origin, as_of), Some(legs));
        }
        assert!(atlas.text.capacity() < 1_000, "{}", atlas.text.capacity());
    }

    #[test]
    fn where_more_and_more_take_what_is_said_ways_are_known_though_one_topic_is_busy() {
        let mut atlas = Atlas::new(1, 1 << 20);
        let publisher = connection(1);
        let topics: Vec<String> = (0..500).map(|number| format!("plant/{number}/state")).collect();
        let mut most = 0;
        for (as_of, takers) in (1..=40).enumerate() {
            let legs: Vec<End> = (0..takers).map(|slot| leg(slot, QoS::AtMostOnce)).collect();
            let mut known = 0;
            for _ in 0..8 {
                known = 0;
                for topic in &topics {
                    for topic in ["busy", "busy", topic] {
                        let origin = Origin { publisher, qos: QoS::AtMostOnce, topic: topic.as_bytes() };
                        let is_known = found(&mut atlas, origin, as_of as u64).is_some();
                        known += usize::from(is_known && topic != "busy");
                        if !is_known && atlas.is_due(origin, as_of as u64) {
                            keep(&mut atlas, origin, as_of as u64, &legs);
                        }
                    }
                }
            }
            assert!(known * 10 > topics.len() * 9, "{known} of {takers} takers");
            most = most.max(atlas.bytes());
        }
        assert!(most > 700_000, "it was full: {most}");
    }

    #[test]
    fn a_busy_topic_does_not_keep_ways_for_ever_that_nobody_goes_any_more() {
        let mut atlas = Atlas::new(1, 256 << 10);
        let (mut known, qos) = (0, QoS::AtMostOnce);
        for day in 0..2 {
            // He comes anew, so that none of his ways of before is his.
            let publisher = connection(day);
            for _ in 0..400 {
                known = 0;
                for number in 0..1_000 {
                    let topic = format!("a/longer/topic/that/fills/the/room/that/there/is/{number}");
                    let busy = Origin { publisher: connection(9), qos, topic: b"busy" };
                    let origin = Origin { publisher, qos, topic: topic.as_bytes() };
                    for (origin, count) in [(busy, 0), (origin, 1)] {
                        let is_known = found(&mut atlas, origin, 0).is_some();
                        known += if is_known { count } else { 0 };
                        if !is_known && atlas.is_due(origin, 0) {
                            keep(&mut atlas, origin, 0, &[leg(2, qos); 6]);
                        }
                    }
                }
                if known > 900 {
                    break;
                }
            }
        }
        assert!(known > 900, "{known}");
    }
}
