//! The client's side of WebSocket, as far as a bench needs it (RFC 6455).
//!
//! Every packet goes in a masked frame of its own, as the clients in use send them. What comes may be cut
//! into frames in any way; only binary data is expected.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Frames of one connection, both ways.
#[derive(Default)]
pub(crate) struct Frames {
    /// Frames that have not gone yet.
    pub(crate) out: Vec<u8>,
    /// A header whose end has not come.
    begun: Vec<u8>,
    /// What is to come of the payload of the frame that has begun.
    left: usize,
}

/// Asks for the upgrade to MQTT over WebSocket and reads the answer.
pub(crate) fn upgrade(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(REQUEST.as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    // Byte by byte, since frames may follow at once.
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    let accepted = answer.starts_with("http/1.1 101") && answer.contains(&ACCEPT.to_lowercase());
    if accepted { Ok(()) } else { Err(io::Error::other(format!("no upgrade but {answer}"))) }
}

impl Frames {
    /// Puts each packet in its frame, behind what has not gone yet.
    pub(crate) fn wrap(&mut self, mut packets: &[u8]) {
        while let Ok(Some((length, used))) = super::packet::remaining(packets.get(1..).unwrap_or_default()) {
            let (packet, rest) = packets.split_at(1 + used + length);
            self.out.push(0x82);
            match packet.len() {
                short @ 0..=125 => self.out.push(MASKED | short as u8),
                long => {
                    self.out.push(MASKED | 126);
                    self.out.extend_from_slice(&u16::try_from(long).expect("small packets").to_be_bytes());
                }
            }
            self.out.extend_from_slice(&MASK);
            let start = self.out.len();
            self.out.extend_from_slice(packet);
            for piece in self.out[start..].chunks_mut(MASK.len()) {
                piece.iter_mut().zip(MASK).for_each(|(byte, mask)| *byte ^= mask);
            }
            packets = rest;
        }
    }

    /// The payloads of these frames; says how long they are together.
    pub(crate) fn unwrap(&mut self, mut raw: &[u8], plain: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let (here, rest) = raw.split_at(self.left.min(raw.len()));
            plain[at..at + here.len()].copy_from_slice(here);
            at += here.len();
            self.left -= here.len();
            let Some((byte, rest)) = rest.split_first() else { return Ok(at) };
            self.begun.push(*byte);
            raw = rest;
            if let Some(length) = header(&self.begun)? {
                self.left = length;
                self.begun.clear();
            }
        }
    }
}

/// The length of the payload behind this header; `None` where its end has not come.
fn header(bytes: &[u8]) -> io::Result<Option<usize>> {
    // A message's first or further part, the last or not.
    if !matches!(bytes[0], 0x82 | 0x02 | 0x80 | 0x00) {
        return Err(io::Error::other(format!("a frame that begins with {:#04x}", bytes[0])));
    }
    Ok(match *bytes {
        [_, MASKED..=u8::MAX, ..] => return Err(io::Error::other("a masked frame from a server")),
        [_, length @ 0..=125] => Some(usize::from(length)),
        [_, 126, high, low] => Some(usize::from(u16::from_be_bytes([high, low]))),
        [_, 127, _, _, _, _, a, b, c, d] => Some(u32::from_be_bytes([a, b, c, d]) as usize),
        _ => None,
    })
}

const MASKED: u8 = 0x80;
/// Any will do: whoever unmasks has the same work.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x96];
const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";
/// What the sample key of RFC 6455, section 1.3, is answered with.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
