//! Cuts a stream of bytes into packets.
//!
//! Whole packets are read where they lie in the chunk that was fed; only a packet whose end has not
//! come is copied, and it grows as its bytes come, never ahead of them. An idle decoder holds nothing
//! on the heap. After an error nothing more is decoded.

use std::mem;

use bytes::{Buf, Bytes};

use super::decode::{self, Kind};
use super::reader::{Reader, read_variable};
use super::{Brief, Malformed, Packet, Plain, Version};

/// Whose packets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// A server reads what clients send.
    Server,
    /// A client reads what a server sends.
    Client,
}

/// Bytes in, packets out.
#[derive(Debug)]
pub struct Decoder {
    /// Fed and not yet decoded; shares the read buffer.
    pending: Bytes,
    /// The begun packet that lies before `pending`; its own bytes.
    partial: Vec<u8>,
    /// Largest packet in bytes, fixed header included. Beyond: [`Malformed::TooLarge`] as soon as the
    /// length is known.
    max_packet: u32,
    side: Side,
    stage: Stage,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// CONNECT alone.
    Connect,
    /// Packets of this version.
    Open(Version),
    /// Nothing: the peer broke the rules.
    Broken(Option<Version>),
}

/// A fixed header.
#[derive(Debug, Clone, Copy)]
struct Header {
    kind: Kind,
    flags: u8,
    /// Bytes of the fixed header.
    size: usize,
    /// Bytes of the whole packet.
    total: usize,
    /// Whether the length takes as few bytes as it can.
    minimal: bool,
}

impl Decoder {
    /// A decoder for one connection. On a server's side the first packet has to be CONNECT, which names
    /// the version; a client's side reads MQTT 5 until [`Decoder::set_version`] says otherwise.
    pub fn new(side: Side, max_packet: usize) -> Decoder {
        let stage = match side {
            Side::Server => Stage::Connect,
            Side::Client => Stage::Open(Version::V5),
        };
        let max_packet = u32::try_from(max_packet).unwrap_or(u32::MAX);
        Decoder { pending: Bytes::new(), partial: Vec::new(), max_packet, side, stage }
    }

    /// Says which version the peer speaks, where no CONNECT will.
    pub fn set_version(&mut self, version: Version) {
        self.stage = Stage::Open(version);
    }

    /// The version, once it is known; also where the rest of that CONNECT was malformed.
    pub fn version(&self) -> Option<Version> {
        match self.stage {
            Stage::Connect => None,
            Stage::Open(version) => Some(version),
            Stage::Broken(version) => version,
        }
    }

    /// Takes the next bytes of the stream. Call [`Decoder::decode`] until it has no more before feeding
    /// again: then nothing that is whole is ever copied.
    pub fn feed(&mut self, chunk: Bytes) {
        if matches!(self.stage, Stage::Broken(_)) {
            return;
        }
        if self.pending.is_empty() {
            self.pending = chunk;
        } else {
            self.pending = [&*self.pending, &*chunk].concat().into();
        }
    }

    /// The next packet; `None` until more bytes are fed.
    pub fn decode(&mut self) -> Result<Option<Packet>, Malformed> {
        if matches!(self.stage, Stage::Broken(_)) {
            return Ok(None);
        }
        let result = if self.partial.is_empty() { self.decode_pending() } else { self.decode_partial() };
        if result.is_err() {
            self.stage = Stage::Broken(self.version());
            self.pending = Bytes::new();
            self.partial = Vec::new();
        }
        result
    }

    /// Whether what comes next may be [`Plain`] or [`Brief`], to judge by its first byte.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.partial.is_empty() && self.may_be_plain(&self.pending)
    }

    /// Whether it may be that once these bytes are fed, which they then need not be.
    #[inline]
    pub fn would_be_plain(&self, chunk: &[u8]) -> bool {
        self.is_empty() && self.may_be_plain(chunk)
    }

    #[inline]
    fn may_be_plain(&self, bytes: &[u8]) -> bool {
        let may_begin = |first: &u8| Plain::may_begin(*first) || Brief::may_begin(*first);
        bytes.first().is_some_and(may_begin) && matches!(self.stage, Stage::Open(_))
    }

    /// What was fed and not decoded, but for a packet that was begun before it.
    pub fn undecoded(&self) -> &[u8] {
        &self.pending
    }

    /// Gives what was fed and not decoded out of hand, so that others can be written to while it is looked at; what
    /// is left of it is given back.
    pub fn lend(&mut self) -> Bytes {
        mem::take(&mut self.pending)
    }

    /// Takes the rest back.
    pub fn give_back(&mut self, rest: Bytes) {
        self.pending = rest;
    }

    /// Bytes of the largest packet that is taken.
    pub fn max_packet(&self) -> usize {
        self.max_packet as usize
    }

    /// Whether nothing undecoded is left.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.partial.is_empty()
    }

    /// Bytes held: what was fed and not decoded, and room for the rest of a begun packet.
    pub fn held(&self) -> usize {
        self.pending.len() + self.partial.capacity()
    }

    /// Copies what is undecoded, so that a connection that is not read on pins no shared buffer.
    pub fn compact(&mut self) {
        self.pending = Bytes::copy_from_slice(&self.pending);
    }

    fn decode_pending(&mut self) -> Result<Option<Packet>, Malformed> {
        let header = match Header::read(&self.pending)? {
            Some(header) => {
                self.admit(header)?;
                header
            }
            None => return Ok(self.keep_begun()),
        };
        if self.pending.len() < header.total {
            return Ok(self.keep_begun());
        }
        // Left where it was read: packets are large, and each look into the result moves one.
        let packet = read(header, &self.pending, self.side, &mut self.stage);
        if packet.is_err() {
            return packet.map(Some);
        }
        if self.pending.len() == header.total {
            // Not merely advanced: an empty slice would still pin the read buffer.
            self.pending = Bytes::new();
        } else {
            self.pending.advance(header.total);
        }
        packet.map(Some)
    }

    fn keep_begun(&mut self) -> Option<Packet> {
        let begun = mem::take(&mut self.pending);
        self.partial = begun.to_vec();
        None
    }

    fn decode_partial(&mut self) -> Result<Option<Packet>, Malformed> {
        let header = loop {
            if let Some(header) = Header::read(&self.partial)? {
                break header;
            }
            match self.pending.try_get_u8() {
                Ok(byte) => self.partial.push(byte),
                Err(_) => return Ok(None),
            }
        };
        self.admit(header)?;
        self.take(header.total.saturating_sub(self.partial.len()));
        if self.partial.len() < header.total {
            return Ok(None);
        }
        let whole = Bytes::from(mem::take(&mut self.partial));
        read(header, &whole, self.side, &mut self.stage).map(Some)
    }

    /// Moves up to so many bytes into the begun packet, whose room at most doubles each time and never
    /// grows beyond what is missing.
    fn take(&mut self, missing: usize) {
        let taken = self.pending.split_to(missing.min(self.pending.len()));
        if self.partial.capacity() - self.partial.len() < taken.len() {
            self.partial.reserve_exact(missing.min(taken.len().max(self.partial.len())));
        }
        self.partial.extend_from_slice(&taken);
    }

    /// Checks what the fixed header alone gives away, before its packet is waited for.
    fn admit(&self, header: Header) -> Result<(), Malformed> {
        header.kind.check_sender(self.side, self.version())?;
        match (self.stage, header.kind) {
            (Stage::Open(_), Kind::Connect) => return Err(Malformed::SecondConnect),
            (Stage::Open(_), _) | (_, Kind::Connect) => {}
            _ => return Err(Malformed::ConnectExpected),
        }
        header.kind.check_flags(header.flags, self.version())?;
        if self.version() == Some(Version::V5) && !header.minimal {
            return Err(Malformed::LengthNotMinimal);
        }
        if header.total > self.max_packet as usize {
            return Err(Malformed::TooLarge);
        }
        Ok(())
    }
}

impl Header {
    /// The fixed header at the start of `bytes`; `None` where more bytes are needed.
    fn read(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let kind = Kind::from_code(first >> 4).ok_or(Malformed::PacketType)?;
        let Some((remaining, variable)) = read_variable(rest)? else { return Ok(None) };
        let size = 1 + variable.bytes;
        let total = size + remaining as usize;
        Ok(Some(Header { kind, flags: first & 0x0F, size, total, minimal: variable.minimal }))
    }
}

/// Reads the whole packet at the start of `bytes`.
#[inline]
fn read(header: Header, bytes: &Bytes, side: Side, stage: &mut Stage) -> Result<Packet, Malformed> {
    let body = bytes.get(header.size..header.total).ok_or(Malformed::EndsEarly)?;
    let mut reader = Reader::new(bytes, body);
    let version = match *stage {
        Stage::Open(version) => version,
        _ => {
            let version = decode::read_version(&mut reader)?;
            *stage = Stage::Open(version);
            if version == Version::V5 && !header.minimal {
                return Err(Malformed::LengthNotMinimal);
            }
            version
        }
    };
    // As in `Decoder::decode`, not looked into.
    let packet = decode::read_body(header.kind, header.flags, &mut reader, side, version);
    if packet.is_ok() {
        reader.finish()?;
    }
    packet
}
