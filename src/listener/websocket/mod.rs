//! MQTT within WebSocket frames, as a stream of MQTT's own bytes.
//!
//! The upgrade request is answered here too. What is written together leaves in one write, headers and all,
//! each packet in frames of its own and of a bounded size, since a browser takes a frame in whole; answers of
//! WebSocket itself (pong, close) go between frames. Never blocks.
//!
//! Invariant: a frame that was begun is filled with exactly the bytes that it announced, since what is
//! written after a write that was cut short begins with its rest.

mod frames;
mod packets;
mod upgrade;

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use frames::{Close, Frames};
use packets::Packets;
use upgrade::{Answer, Upgrade};

use super::stream::{Received, Stream};

/// WebSocket over another stream.
#[derive(Debug)]
pub struct WebSocket {
    pub(super) inner: Stream,
    stage: Stage,
    frames: Frames,
    /// Bytes of WebSocket itself that leave before anything else.
    first: Vec<u8>,
    /// What the frame that was begun still announces of MQTT's bytes.
    owed: usize,
    /// Behind that frame.
    packets: Packets,
}

/// A frame that is to leave.
struct Frame<'a> {
    header: Vec<u8>,
    payload: &'a [u8],
    /// Behind it.
    packets: Packets,
}

#[derive(Debug)]
enum Stage {
    /// The request has not come whole.
    Upgrading(Upgrade),
    Open,
    /// The request is refused: MQTT has no word to say.
    Refused,
    /// Our close is sent, or about to be; with the code that was meant.
    Closing,
    /// As open, but the client has broken the rules, and is told by this code at the end.
    Broken(Close),
}

impl WebSocket {
    /// Over a stream on which the upgrade request is to come, perhaps from a page of these origins.
    pub(super) fn new(inner: Stream, origins: Arc<[String]>) -> WebSocket {
        let stage = Stage::Upgrading(Upgrade::new(origins));
        let (frames, packets) = (Frames::default(), Packets::default());
        WebSocket { inner, stage, frames, first: Vec::new(), owed: 0, packets }
    }

    /// Reads once, and leaves what it held of MQTT at the front of the buffer; `None` at the end.
    ///
    /// # Errors
    /// `InvalidData` where the client breaks the rules of WebSocket: nothing more is to be read from it, and
    /// [`WebSocket::say_goodbye`] will tell it why.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.stage {
            Stage::Refused | Stage::Broken(_) => return Err(broken()),
            _ if self.frames.closed().is_some() => return Ok(None),
            _ => {}
        }
        let Some(received) = self.inner.receive(buffer)? else { return Ok(None) };
        let bytes = buffer.get_mut(..received.plain).unwrap_or_default();
        let plain = match &mut self.stage {
            Stage::Upgrading(_) => self.upgrade(bytes)?,
            _ => self.unwrap(bytes)?,
        };
        Ok(Some(Received { plain, ..received }))
    }

    fn upgrade(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Stage::Upgrading(upgrade) = &mut self.stage else { return Ok(0) };
        if bytes.is_empty() {
            return Ok(0);
        }
        match upgrade.take(bytes) {
            Answer::Wait => Ok(0),
            Answer::Granted(response, rest) => {
                self.first = response;
                self.stage = Stage::Open;
                bytes.copy_within(bytes.len() - rest.., 0);
                self.unwrap(bytes.get_mut(..rest).unwrap_or_default())
            }
            Answer::Refused(response) => {
                self.first = response;
                self.stage = Stage::Refused;
                Err(broken())
            }
        }
    }

    fn unwrap(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let kept = self.frames.unwrap(bytes);
        if let (Some(close), Stage::Open) = (self.frames.closed(), &self.stage) {
            self.stage = Stage::Closing;
            if self.owed == 0 {
                frames::close(close, &mut self.first);
            }
            // Whoever has closed is soon forgotten, so the answer leaves now or never.
            let _ = self.flush();
        }
        if let Some(close) = self.frames.broken() {
            self.stage = Stage::Broken(close);
            if kept == 0 {
                return Err(broken());
            }
            // What came before it is good; the next read says the rest.
        }
        Ok(kept)
    }

    /// Bytes that wait here and below.
    pub(super) fn held(&self) -> usize {
        let request = if let Stage::Upgrading(upgrade) = &self.stage { upgrade.held() } else { 0 };
        request + self.first.len() + self.inner.held()
    }

    /// Whether bytes of WebSocket itself wait to leave.
    pub(super) fn wants_write(&self) -> bool {
        !self.first.is_empty() || self.frames.owes_pong() || self.inner.wants_write()
    }

    /// Says in WebSocket's words, and in those below, that nothing more comes.
    pub(super) fn say_goodbye(&mut self) {
        let close = match &self.stage {
            Stage::Open => Some(Close::Normal),
            Stage::Broken(close) => Some(*close),
            Stage::Upgrading(_) | Stage::Refused | Stage::Closing => None,
        };
        if let Some(close) = close
            && self.owed == 0
        {
            self.stage = Stage::Closing;
            frames::close(close, &mut self.first);
            // All that was to leave has left, so these few bytes find room, or nobody will miss them.
            let _ = self.flush();
        }
        self.inner.say_goodbye();
    }

    /// Notes that so many bytes have left of a frame's payload and the frames behind it; how many of them
    /// were payload. A frame of which nothing has left is not begun.
    fn note(&mut self, left: usize, payload: &[u8], more: &[Frame<'_>]) -> usize {
        let mut taken = left.min(payload.len());
        self.owed -= taken;
        let mut left = left - taken;
        for Frame { header, payload, packets } in more {
            if left == 0 {
                break;
            }
            let of_header = left.min(header.len());
            self.first.extend_from_slice(header.get(of_header..).unwrap_or_default());
            let of_payload = (left - of_header).min(payload.len());
            self.owed = payload.len() - of_payload;
            self.packets = *packets;
            taken += of_payload;
            left -= of_header + of_payload;
        }
        taken
    }

    /// As many frames of these bytes as may leave in one write, behind the frame that was begun.
    fn frames_of<'a>(&self, mut bytes: &'a [u8]) -> Vec<Frame<'a>> {
        let (mut packets, mut frames, mut size) = (self.packets, Vec::new(), 0);
        while !bytes.is_empty() && frames.len() < MORE_FRAMES && size < MORE_BYTES {
            let (payload, rest) = bytes.split_at(packets.next_frame(bytes, PAYLOAD_MAX));
            let mut header = Vec::new();
            frames::begin_binary(payload.len(), &mut header);
            frames.push(Frame { header, payload, packets });
            size += payload.len();
            bytes = rest;
        }
        frames
    }

    /// Between two frames a pong may leave.
    fn add_pong(&mut self) {
        if self.owed == 0
            && self.first.is_empty()
            && let Some(payload) = self.frames.pong()
        {
            frames::pong(&payload, &mut self.first);
        }
    }
}

impl Write for WebSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if matches!(self.stage, Stage::Upgrading(_) | Stage::Refused | Stage::Closing) && self.owed == 0 {
            // Nobody would understand it.
            return Ok(bytes.len());
        }
        if self.owed == 0 {
            self.add_pong();
            self.owed = self.packets.next_frame(bytes, PAYLOAD_MAX);
            frames::begin_binary(self.owed, &mut self.first);
        }
        let (payload, rest) = bytes.split_at(bytes.len().min(self.owed));
        let more = self.frames_of(rest);
        loop {
            let mut parts = vec![IoSlice::new(&self.first), IoSlice::new(payload)];
            parts.extend(
                more.iter().flat_map(|frame| [IoSlice::new(&frame.header), IoSlice::new(frame.payload)]),
            );
            let written = self.inner.write_vectored(&parts)?;
            if written == 0 {
                return Ok(0);
            }
            let of_first = written.min(self.first.len());
            self.first.drain(..of_first);
            let taken = self.note(written - of_first, payload, &more);
            if taken > 0 {
                return Ok(taken);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.add_pong();
        // While a frame is open its header may be in here, and its payload is the caller's to write.
        while !self.first.is_empty() {
            let written = self.inner.write(&self.first)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.first.drain(..written);
        }
        // An idle connection keeps room for a header, and no more.
        self.first.shrink_to(FIRST_KEPT);
        self.inner.flush()
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "against the rules of WebSocket")
}

/// Bytes of MQTT in one frame: with a header of 4 bytes it fills one record of TLS.
const PAYLOAD_MAX: usize = (16 << 10) - 4;

/// So many frames may leave in one write behind its first, of two parts each, where the kernel takes 1,024.
const MORE_FRAMES: usize = 63;

/// Once they hold so much, it is enough for one write.
const MORE_BYTES: usize = 112 << 10;

/// Bytes of which a header takes at most 4.
const FIRST_KEPT: usize = 16;
