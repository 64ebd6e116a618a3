//! One network client: its stream, its decoder, what waits to leave, and how it stands.
//!
//! Edge-triggered: the kernel says once that there is something, so what it said is remembered here
//! until a read or a write comes back empty-handed.

use std::io;

use bytes::Bytes;
use mio::{Interest, Registry, Token};

use super::due::Due;
use super::intake::{Allowance, Lane, ReadBuffer, Said};
use super::outbox::{Flushed, Outbox, Pool};
use crate::broker::{ConnectionId, Event};
use crate::codec::{Alias, Aliases, Decoder, Packet, Reason, Side, Version};
use crate::listener::{Received, Stay, Stream};

/// A network client.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    decoder: Decoder,
    outbox: Outbox,
    stay: Stay,
    /// Of its CONNECT.
    pub(super) version: Version,
    /// What the client takes at most.
    pub(super) maximum_packet_size: u32,
    /// The topic aliases that it was given; `None` where it takes none.
    aliases: Option<Box<Aliases>>,
    phase: Phase,
    /// The kernel may have bytes for us.
    readable: bool,
    /// The peer has ended its half: a read will say so, however little came before.
    hung_up: bool,
    /// Packets were handed over since it was last said that nothing is left undecoded: what may be taken at
    /// once may have ended between the two.
    undrained: bool,
    standing: Standing,
    /// That into which it was put when it last stood in none.
    lane: Lane,
    /// What it has said since then, or before while it is not read on.
    said: Said,
    /// By the broker.
    paused: bool,
    /// Its outbox is full, so it is not read on: answers to what it sends would make it fuller.
    choked: bool,
    due: Due,
    /// The last write came back empty-handed.
    blocked: bool,
    /// The kernel tells us when it takes bytes again.
    watches_writable: bool,
    /// Something was sent since the last read that found nothing.
    spoken: bool,
}

/// How it stands in the lanes of those to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// In none; it said little when it was last served.
    Brief,
    /// In none; it said much then, or what meant much.
    Long,
    /// In one.
    Listed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// It has broken the rules: nothing is read, the broker has the last word.
    Silenced,
    /// It takes nothing more: what it said before is read to its end, and then it is lost.
    Deaf,
    /// What was sent is flushed, then the stream is ended.
    Closing,
    /// Ended on our side; what still comes is thrown away, so that the kernel does not answer it with a
    /// reset that would overtake our last words.
    Lingering,
}

/// What one read brought.
enum Got {
    Bytes(Received),
    Nothing,
    End,
    /// What is none of what is spoken here.
    Garbage,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Served {
    /// Nothing is left for now.
    Idle,
    /// There is more, for the next turn.
    Again,
    /// What comes next may go straight to others.
    Straight,
    /// So may what comes next of so many bytes that were just read, and that nobody has been fed.
    Fresh(usize),
    /// It has broken the rules.
    Malformed,
    /// The peer is gone, which the broker does not know.
    Lost,
    /// The peer is gone, as the broker wished.
    Ended,
}

/// What remains of a connection that the broker has closed and all of whose bytes have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Nothing: it can be forgotten.
    Done,
    /// The peer has to see our end first.
    Linger,
}

impl Socket {
    pub(super) fn new(stream: Stream, stay: Stay, max_packet_size: usize) -> Socket {
        Socket {
            stream,
            stay,
            decoder: Decoder::new(Side::Server, max_packet_size),
            outbox: Outbox::default(),
            version: Version::V311,
            maximum_packet_size: u32::MAX,
            aliases: None,
            phase: Phase::Open,
            readable: false,
            hung_up: false,
            undrained: false,
            standing: Standing::Long,
            lane: Lane::Long,
            said: Said::default(),
            paused: false,
            choked: false,
            due: Due::Never,
            blocked: false,
            watches_writable: false,
            spoken: false,
        }
    }

    /// It has just come, perhaps out of a handshake that bytes came with. Whether there are some to send.
    pub(super) fn arrive(&mut self) -> bool {
        self.readable = !self.stream.ends_with_a_short_read();
        self.stream.wants_write()
    }

    /// Whether the stream has to be flushed for its own sake.
    pub(super) fn wants_write(&self) -> bool {
        !matches!(self.phase, Phase::Lingering | Phase::Deaf) && self.stream.wants_write()
    }

    /// The peer has ended the stream: answers it in the words of TLS and WebSocket, unless half a packet
    /// has left.
    pub(super) fn answer_end(&mut self) {
        if !self.is_sending() {
            self.stream.say_goodbye();
        }
    }

    /// Where it came in and from.
    pub(super) fn stay(&self) -> Stay {
        self.stay
    }

    /// Notes what the kernel says.
    pub(super) fn polled(&mut self, event: &mio::event::Event) {
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.readable = true;
        }
        if event.is_read_closed() || event.is_error() {
            self.hung_up = true;
        }
        if event.is_writable() {
            self.blocked = false;
        }
    }

    /// In which lane it now has to be put, if it has to be served.
    pub(super) fn enlist(&mut self) -> Option<Lane> {
        let is_brief = match self.standing {
            Standing::Listed => return None,
            // Who has said which version he speaks has said something whole.
            Standing::Brief => self.decoder.version().is_some() && !self.hung_up,
            Standing::Long => false,
        };
        if !self.is_read() {
            return None;
        }
        self.standing = Standing::Listed;
        self.lane = if is_brief && self.phase == Phase::Open { Lane::Brief } else { Lane::Long };
        Some(self.lane)
    }

    /// What it said was little, and meant much: what comes after it comes behind those whose words do not.
    pub(super) fn step_back(&mut self) {
        match self.standing {
            Standing::Brief => self.standing = Standing::Long,
            Standing::Listed => self.said = Said::MUCH,
            Standing::Long => {}
        }
    }

    /// Something was taken without an event, and more may come with it.
    pub(super) fn leave_undrained(&mut self) {
        self.undrained = true;
    }

    fn is_read(&self) -> bool {
        match self.phase {
            Phase::Open => !self.paused && !self.choked,
            Phase::Deaf => !self.paused,
            Phase::Silenced | Phase::Closing => false,
            Phase::Lingering => true,
        }
    }

    /// Decodes and reads, up to the limits of a turn.
    pub(super) fn serve(
        &mut self,
        id: ConnectionId,
        buffer: &mut ReadBuffer,
        left: &mut Allowance,
        events: &mut Vec<Event>,
    ) -> Served {
        let served = match self.phase {
            Phase::Open if self.is_read() => self.read_and_decode(id, buffer, left, events),
            Phase::Deaf if self.is_read() => match self.read_and_decode(id, buffer, left, events) {
                Served::Idle => Served::Lost,
                served => served,
            },
            Phase::Lingering => self.discard(buffer, left),
            Phase::Open | Phase::Deaf | Phase::Silenced | Phase::Closing => Served::Idle,
        };
        if matches!(served, Served::Straight | Served::Fresh(_)) {
            return served;
        }
        self.said.add(left);
        if served == Served::Again {
            self.standing = Standing::Listed;
        } else {
            // What is much the first lane would cut in two each time, and answer by writes of their own. Who has said
            // nothing stays where he was.
            let is_long = self.said.is_much() || (self.said.is_nothing() && self.lane == Lane::Long);
            self.standing = if is_long { Standing::Long } else { Standing::Brief };
            if self.is_read() {
                self.said = Said::default();
            }
        }
        served
    }

    fn read_and_decode(
        &mut self,
        id: ConnectionId,
        buffer: &mut ReadBuffer,
        left: &mut Allowance,
        events: &mut Vec<Event>,
    ) -> Served {
        loop {
            if let Some(served) = self.decode(id, left, events) {
                return served;
            }
            if !self.readable {
                if self.decoder.is_empty() && std::mem::take(&mut self.undrained) {
                    events.push(Event::Drained { connection: id });
                }
                return Served::Idle;
            }
            if left.bytes == 0 {
                return Served::Again;
            }
            match self.read(buffer, left.bytes) {
                Got::Bytes(received) => {
                    // TLS reads as much as it likes.
                    left.take(received.wire);
                    let bytes = buffer.room(received.plain);
                    if left.packets > 0 && left.straight > 0 && self.decoder.would_be_plain(bytes) {
                        return Served::Fresh(received.plain);
                    }
                    // What the stream itself is made of leaves nothing to decode.
                    if received.plain > 0 {
                        self.decoder.feed(buffer.keep(0..received.plain));
                    }
                }
                Got::Nothing => {}
                Got::End => return Served::Lost,
                Got::Garbage => return self.silence(id, Reason::MalformedPacket, events),
            }
        }
    }

    /// Decodes what was fed, as much as is allowed; `None` once nothing whole is left.
    fn decode(&mut self, id: ConnectionId, left: &mut Allowance, events: &mut Vec<Event>) -> Option<Served> {
        while left.packets > 0 {
            if !std::mem::take(&mut left.is_missed) && left.straight > 0 && self.decoder.is_plain() {
                return Some(Served::Straight);
            }
            match self.decoder.decode() {
                Ok(Some(packet)) => {
                    let work = work(&packet);
                    left.packets = left.packets.saturating_sub(work);
                    left.done += work;
                    left.decoded += 1;
                    self.undrained = true;
                    events.push(Event::Packet { connection: id, packet });
                }
                Ok(None) => return None,
                Err(malformed) => return Some(self.silence(id, malformed.reason(), events)),
            }
        }
        // Who has said all that there was is not to be taken for one who has more.
        (self.readable || !self.decoder.is_empty()).then_some(Served::Again)
    }

    /// What is not decoded.
    pub(super) fn undecoded(&self) -> &[u8] {
        self.decoder.undecoded()
    }

    /// Gives what is not decoded out of hand for a while.
    pub(super) fn lend_undecoded(&mut self) -> Bytes {
        self.decoder.lend()
    }

    /// Takes the rest of it back.
    pub(super) fn give_undecoded_back(&mut self, rest: Bytes) {
        self.decoder.give_back(rest);
        self.let_go_unless_read();
    }

    /// Takes the rest of what was just read.
    pub(super) fn feed(&mut self, rest: Bytes) {
        self.decoder.feed(rest);
        self.let_go_unless_read();
    }

    /// What it said may have had it paused or choked while that was out of its hands.
    fn let_go_unless_read(&mut self) {
        if !self.is_read() {
            self.decoder.compact();
        }
    }

    /// Bytes of the largest packet that is taken.
    pub(super) fn max_packet(&self) -> usize {
        self.decoder.max_packet()
    }

    /// Whether so many bytes of a PUBLISH in this version can be sent to it as they are.
    pub(super) fn takes_as_it_is(&self, version: Version, bytes: usize, limit: usize) -> bool {
        self.is_open()
            && (self.version == Version::V5) == (version == Version::V5)
            && self.aliases.is_none()
            && bytes <= self.maximum_packet_size as usize
            && !self.is_full(bytes, limit)
    }

    /// Reads nothing more from a peer that has broken the rules, and tells the broker.
    fn silence(&mut self, id: ConnectionId, reason: Reason, events: &mut Vec<Event>) -> Served {
        self.phase = Phase::Silenced;
        events.push(Event::Malformed { connection: id, reason });
        Served::Malformed
    }

    fn read(&mut self, buffer: &mut ReadBuffer, most: usize) -> Got {
        let room = buffer.room(most);
        let asked = room.len();
        loop {
            match self.stream.receive(room) {
                Ok(None) => return Got::End,
                Ok(Some(received)) => {
                    // A short read has emptied the kernel's buffer; what comes later is told anew. An
                    // end that was told already is not.
                    if received.wire < asked && !self.hung_up && self.stream.ends_with_a_short_read() {
                        self.readable = false;
                        self.spoken = false;
                    }
                    return Got::Bytes(received);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    self.spoken = false;
                    return Got::Nothing;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Got::Garbage,
                Err(_) => return Got::End,
            }
        }
    }

    fn discard(&mut self, buffer: &mut ReadBuffer, left: &mut Allowance) -> Served {
        // Not taken apart: what has broken the rules would break them again, and end the wait.
        match self.stream.discard(buffer.room(left.bytes)) {
            Ok(count) if count > 0 => {
                left.take(count);
                Served::Again
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Served::Again,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Served::Idle,
            Ok(_) | Err(_) => Served::Ended,
        }
    }

    /// The broker wants nothing more from it for now.
    pub(super) fn pause(&mut self) {
        self.paused = true;
        // It may stay so for long, and must not keep the shared buffer from being used again.
        self.decoder.compact();
    }

    /// The broker takes more again; the caller lists it.
    pub(super) fn resume(&mut self) {
        self.paused = false;
    }

    /// Whether anything may be sent to it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Silenced)
    }

    /// Whether so many bytes more would be over the limit of what may wait.
    pub(super) fn is_full(&self, more: usize, limit: usize) -> bool {
        self.outbox.waiting() + more > limit
    }

    /// Whether the peer takes no bytes for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Bytes that wait to leave.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.waiting()
    }

    /// What it holds in memory: nothing once the broker has let it go, since it soon goes.
    pub(super) fn held(&self) -> usize {
        if matches!(self.phase, Phase::Closing | Phase::Lingering) {
            return 0;
        }
        let aliases = self.aliases.as_ref().map_or(0, |aliases| aliases.held());
        self.outbox.held() + self.decoder.held() + self.stream.held() + aliases
    }

    /// What it takes in memory whatever it does.
    pub(super) fn resting(&self) -> usize {
        self.stream.resting()
    }

    /// Whether something waits that has not left.
    pub(super) fn is_sending(&self) -> bool {
        self.outbox.waiting() > 0
    }

    /// Lets the client be given so many topic aliases.
    pub(super) fn give_aliases(&mut self, most: u16) {
        self.aliases = (most > 0).then(|| Box::new(Aliases::new(most)));
    }

    /// How the next message names this topic.
    pub(super) fn alias_of(&self, topic: &str) -> Alias {
        self.aliases.as_ref().map_or(Alias::None, |aliases| aliases.look(topic))
    }

    /// A message that names its topic so was appended.
    pub(super) fn named(&mut self, topic: &str, alias: Alias) {
        if let Some(aliases) = &mut self.aliases {
            aliases.sent(topic, alias);
        }
    }

    /// Where to append what is to be sent.
    pub(super) fn buffer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        self.outbox.buffer(pool)
    }

    /// When it is flushed.
    pub(super) fn due(&mut self) -> &mut Due {
        &mut self.due
    }

    /// Sends what waits, not much more than `most`. Adds to `written` what has left.
    pub(super) fn flush(
        &mut self,
        id: ConnectionId,
        registry: &Registry,
        pool: &mut Pool,
        most: usize,
        written: &mut u64,
    ) -> Flushed {
        self.due.flushed();
        if self.phase == Phase::Deaf {
            return Flushed::Gone;
        }
        if self.blocked {
            return Flushed::Blocked;
        }
        self.spoken |= self.is_sending();
        let flushed = self.outbox.flush(&mut self.stream, pool, most, written);
        if flushed == Flushed::Blocked {
            self.blocked = true;
            if !self.watches_writable && self.watch_writable(id, registry).is_err() {
                return Flushed::Gone;
            }
        }
        flushed
    }

    /// Once it was blocked the interest stays: edge-triggered, it costs nothing more.
    fn watch_writable(&mut self, id: ConnectionId, registry: &Registry) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.reregister(&mut self.stream, Token(id.slot as usize), both)?;
        self.watches_writable = true;
        Ok(())
    }

    /// Reads no more from a peer whose outbox is over the limit, and reads on once half of it has left.
    /// Whether it is to be listed.
    pub(super) fn choke(&mut self, limit: usize) -> bool {
        let waiting = self.outbox.waiting();
        if waiting > limit {
            self.choked = true;
            self.decoder.compact();
        } else if self.choked && waiting <= limit / 2 {
            self.choked = false;
            return true;
        }
        false
    }

    /// It takes nothing more. Whether what it said before is still to be read: its end may be among that, and the
    /// kernel keeps it.
    pub(super) fn deafen(&mut self) -> bool {
        if !matches!(self.phase, Phase::Open | Phase::Deaf) {
            return false;
        }
        self.outbox.discard();
        self.phase = Phase::Deaf;
        (self.readable, self.hung_up) = (true, true);
        true
    }

    /// The broker has done with it.
    pub(super) fn close(&mut self) {
        if self.is_open() || self.phase == Phase::Deaf {
            self.phase = Phase::Closing;
        }
    }

    /// What waits for it is not worth its memory: the peer finds the connection ended.
    pub(super) fn fall_silent(&mut self) {
        self.outbox.discard();
    }

    /// Whether the broker has done with it and bytes may still have to leave.
    pub(super) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Everything has left: ends our side of the stream.
    pub(super) fn say_farewell(&mut self) -> Farewell {
        self.stream.say_goodbye();
        let unread = self.readable || self.spoken || self.stream.answers_goodbye();
        if self.hung_up || !unread || self.stream.end_writing().is_err() {
            return Farewell::Done;
        }
        self.phase = Phase::Lingering;
        Farewell::Linger
    }
}

/// How much of a turn a packet is: what thousands of filters ask for in a few packets is as much.
fn work(packet: &Packet) -> usize {
    match packet {
        Packet::Subscribe(subscribe) => subscribe.filters.len().max(1),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.len().max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::codec::{QoS, encode};
    use crate::engine::testing::{connect, publish};

    const ID: ConnectionId = ConnectionId { slot: 1, generation: 1 };

    /// What one turn with this allowance of packets brings: packets, and whether all are drained.
    fn turn(socket: &mut Socket, packets: usize) -> (Served, usize, bool) {
        let (mut buffer, mut events) = (ReadBuffer::default(), Vec::new());
        let mut left = Allowance::new(65_536, packets, 0);
        let served = socket.serve(ID, &mut buffer, &mut left, &mut events);
        let drained = events.pop_if(|last| *last == Event::Drained { connection: ID }).is_some();
        (served, events.len(), drained)
    }

    #[test]
    fn each_filter_of_a_packet_counts_against_the_turn_s_allowance() {
        let (stream, mut peer) = mio::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream), Stay::default(), 1_000);
        let mut bytes = Vec::new();
        encode(&connect(Version::V311, "a"), Version::V311, &mut bytes).unwrap();
        for _ in 0..2 {
            let filters = ["a", "b", "c"].map(Into::into).into();
            let end = crate::codec::Unsubscribe { packet_id: 1, properties: Default::default(), filters };
            encode(&Packet::Unsubscribe(end), Version::V311, &mut bytes).unwrap();
        }
        encode(&Packet::PingReq, Version::V311, &mut bytes).unwrap();
        peer.write_all(&bytes).unwrap();
        socket.readable = true;
        assert_eq!(turn(&mut socket, 5), (Served::Again, 3, false), "1 and 3, and another is begun");
        assert_eq!(turn(&mut socket, 5), (Served::Idle, 1, true));
    }

    #[test]
    fn who_is_paused_while_his_bytes_are_out_of_his_hands_pins_no_shared_memory() {
        let (stream, _peer) = mio::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream), Stay::default(), 1_000);
        let shared = Bytes::from([0xC0, 0].repeat(3));
        socket.feed(shared.clone());
        assert!(!shared.is_unique(), "he is read on");
        let lent = socket.lend_undecoded();
        socket.pause();
        socket.give_undecoded_back(lent.slice(2..));
        drop(lent);
        assert!(shared.is_unique());
        assert_eq!(socket.undecoded(), [0xC0, 0, 0xC0, 0]);
    }

    #[test]
    fn who_said_little_when_he_was_last_served_is_served_first() {
        let (stream, mut peer) = mio::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream), Stay::default(), 10_000);
        let (mut hello, mut ping, mut large) = (Vec::new(), Vec::new(), Vec::new());
        encode(&connect(Version::V311, "a"), Version::V311, &mut hello).unwrap();
        encode(&Packet::PingReq, Version::V311, &mut ping).unwrap();
        encode(&publish("t", &[7; 9_000], QoS::AtMostOnce, 0), Version::V311, &mut large).unwrap();
        let mut comes = |socket: &mut Socket, bytes: &[u8], lane| {
            peer.write_all(bytes).unwrap();
            socket.readable = true;
            assert_eq!(socket.enlist(), lane, "{} bytes", bytes.len());
            assert_eq!(socket.enlist(), None, "it stands there already");
        };
        // A stranger, and half a word of his is none.
        comes(&mut socket, &hello[..5], Some(Lane::Long));
        assert_eq!(turn(&mut socket, 4).0, Served::Idle);
        comes(&mut socket, &hello[5..], Some(Lane::Long));
        assert_eq!(turn(&mut socket, 4).0, Served::Idle);
        // A few words, in however many servings; and more than a few.
        comes(&mut socket, &ping.repeat(16), Some(Lane::Brief));
        assert_eq!(turn(&mut socket, 10), (Served::Again, 10, false));
        assert_eq!(socket.enlist(), None, "it stands in the other lane");
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 6, true));
        comes(&mut socket, &ping.repeat(17), Some(Lane::Brief));
        assert_eq!(turn(&mut socket, 10), (Served::Again, 10, false));
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 7, true));
        // TLS says only when it is asked again that there was no more.
        comes(&mut socket, &ping.repeat(17), Some(Lane::Long));
        let mut left = Allowance::new(17 * ping.len(), 17, 0);
        assert_eq!(socket.serve(ID, &mut ReadBuffer::default(), &mut left, &mut Vec::new()), Served::Again);
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 0, true));
        // Nor has he said all who is told to wait.
        comes(&mut socket, &ping.repeat(17), Some(Lane::Long));
        assert_eq!(turn(&mut socket, 10), (Served::Again, 10, false));
        socket.pause();
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 0, false));
        socket.resume();
        comes(&mut socket, &[], Some(Lane::Brief));
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 7, true));
        // What has meant much is not forgotten while nothing is said.
        socket.step_back();
        socket.pause();
        socket.resume();
        for _ in 0..2 {
            comes(&mut socket, &[], Some(Lane::Long));
            assert_eq!(turn(&mut socket, 10), (Served::Idle, 0, false));
        }
        comes(&mut socket, &ping, Some(Lane::Long));
        assert_eq!(turn(&mut socket, 10), (Served::Idle, 1, true));
        comes(&mut socket, &ping.repeat(17), Some(Lane::Brief));
        assert_eq!(turn(&mut socket, 100), (Served::Idle, 17, true));
        for much in [&ping.repeat(17), &large] {
            comes(&mut socket, much, Some(Lane::Long));
            assert_eq!(turn(&mut socket, 100).0, Served::Idle);
        }
        comes(&mut socket, &ping, Some(Lane::Long));
        assert_eq!(turn(&mut socket, 100), (Served::Idle, 1, true));
        comes(&mut socket, &ping, Some(Lane::Brief));
        assert_eq!(turn(&mut socket, 100), (Served::Idle, 1, true));
        socket.hung_up = true;
        comes(&mut socket, &[], Some(Lane::Long));
    }

    #[test]
    fn who_takes_nothing_more_is_read_to_the_end_and_is_lost_then() {
        let (stream, mut peer) = mio::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream), Stay::default(), 1_000);
        let (mut hello, mut ping) = (Vec::new(), Vec::new());
        encode(&connect(Version::V311, "a"), Version::V311, &mut hello).unwrap();
        encode(&Packet::PingReq, Version::V311, &mut ping).unwrap();
        peer.write_all(&[hello, ping.repeat(3)].concat()).unwrap();
        socket.readable = true;
        assert_eq!(turn(&mut socket, 1), (Served::Again, 1, false));
        socket.buffer(&mut Pool::default()).extend_from_slice(&ping);
        assert!(socket.deafen() && !socket.is_open() && !socket.is_sending());
        assert_eq!(turn(&mut socket, 2), (Served::Again, 2, false));
        // The stream has no end, but nothing more is there.
        assert_eq!(turn(&mut socket, 9).0, Served::Lost);
    }

    #[test]
    fn who_has_said_all_that_there_was_is_drained_though_he_said_as_much_as_he_may() {
        let (stream, mut peer) = mio::net::UnixStream::pair().unwrap();
        let mut socket = Socket::new(Stream::Unix(stream), Stay::default(), 1_000);
        let mut pings = Vec::new();
        for _ in 0..3 {
            encode(&Packet::PingReq, Version::V311, &mut pings).unwrap();
        }
        let mut hello = Vec::new();
        encode(&connect(Version::V311, "a"), Version::V311, &mut hello).unwrap();
        peer.write_all(&[hello, pings.clone()].concat()).unwrap();
        socket.readable = true;
        assert_eq!(turn(&mut socket, 3), (Served::Again, 3, false));
        assert_eq!(turn(&mut socket, 1), (Served::Idle, 1, true));
        assert_eq!(turn(&mut socket, 4), (Served::Idle, 0, false), "once is enough");
        // A packet that has come in part is undecoded.
        peer.write_all(&pings[..3]).unwrap();
        socket.readable = true;
        assert_eq!(turn(&mut socket, 1), (Served::Again, 1, false));
        assert_eq!(turn(&mut socket, 1), (Served::Idle, 0, false));
        peer.write_all(&pings[3..4]).unwrap();
        socket.readable = true;
        assert_eq!(turn(&mut socket, 4), (Served::Idle, 1, true));
    }
}
