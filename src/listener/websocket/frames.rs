//! WebSocket frames of a client taken apart where they lie, and ours put around what we send (RFC 6455).
//!
//! Payloads are unmasked in place and pushed together, so that what is left is the stream of MQTT: a packet
//! may lie across frames, and a frame may hold several. A frame may be of any size, since nothing of it is
//! kept; the decoder behind limits the packets.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// What has come of the client's frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// A header whose end has not come: so many of these bytes.
    begun: ([u8; HEADER_MAX], usize),
    /// The frame whose payload is coming.
    open: Option<Open>,
    /// A message has begun whose last frame has not.
    within_message: bool,
    /// Payload of the control frame that is coming, or of the last ping that waits for its pong: 125 bytes
    /// at most.
    control: Vec<u8>,
    ping: Option<Vec<u8>>,
    closed: Option<Close>,
    /// The rule that the client has broken; nothing after it counts.
    broken: Option<Close>,
}

/// A frame whose payload has not come whole.
#[derive(Debug)]
struct Open {
    opcode: OpCode,
    last: bool,
    /// Turned so that its first byte is the next one's.
    mask: [u8; 4],
    left: u64,
}

/// The code by which a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// All is well.
    Normal,
    /// Against RFC 6455.
    Protocol,
    /// Text, which MQTT does not take. [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
    Unsupported,
    /// The client has ended it, with this code.
    Answer([u8; 2]),
    /// The client has ended it, without a code.
    Empty,
}

impl Frames {
    /// Takes the frames apart up to the first that breaks the rules; what is left of them lies at the
    /// front, and is this long.
    pub(super) fn unwrap(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while self.closed.is_none() && self.broken.is_none() {
            let Some(open) = &mut self.open else {
                match self.begin(bytes.get(at..).unwrap_or_default()) {
                    Ok(Some(used)) => at += used,
                    Ok(None) => break,
                    Err(close) => self.broken = Some(close),
                }
                continue;
            };
            let here = bytes.len() - at;
            let count = usize::try_from(open.left).map_or(here, |left| left.min(here));
            let Some(payload) = bytes.get_mut(at..at + count) else { break };
            open.unmask(payload);
            if matches!(open.opcode, OpCode::Control(_)) {
                self.control.extend_from_slice(payload);
            } else {
                bytes.copy_within(at..at + count, kept);
                kept += count;
            }
            at += count;
            if open.left > 0 {
                break;
            }
            self.broken = self.end_frame().err();
        }
        kept
    }

    /// Reads a header, and says how many of the bytes belong to it; `None` where its end has not come.
    fn begin(&mut self, bytes: &[u8]) -> Result<Option<usize>, Close> {
        let (mut begun, before) = self.begun;
        let rest = begun.get_mut(before..).unwrap_or_default();
        rest.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
        let known = HEADER_MAX.min(before + bytes.len());
        let mut cursor = Cursor::new(begun.get(..known).unwrap_or_default());
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Close::Protocol)? else {
            self.begun = (begun, known);
            return Ok(None);
        };
        let size = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        self.begun = Default::default();
        // [RFC6455-5.1] A client masks; [RFC6455-5.2] no extension was agreed on, and lengths have 63 bits.
        let mask = header.mask.ok_or(Close::Protocol)?;
        // Nor may a length be written longer than it has to be; the mask is 4 bytes.
        let shortest = match length {
            0..=125 => 6,
            126..=65_535 => 8,
            _ => HEADER_MAX,
        };
        if size != shortest || header.rsv1 || header.rsv2 || header.rsv3 || i64::try_from(length).is_err() {
            return Err(Close::Protocol);
        }
        match header.opcode {
            OpCode::Data(Data::Text) => return Err(Close::Unsupported),
            OpCode::Data(Data::Binary) if !self.within_message => {}
            OpCode::Data(Data::Continue) if self.within_message => {}
            // [RFC6455-5.5]
            OpCode::Control(_) if header.is_final && length <= 125 => {}
            _ => return Err(Close::Protocol),
        }
        self.open = Some(Open { opcode: header.opcode, last: header.is_final, mask, left: length });
        Ok(Some(size.saturating_sub(before)))
    }

    fn end_frame(&mut self) -> Result<(), Close> {
        let Some(open) = self.open.take() else { return Ok(()) };
        match open.opcode {
            OpCode::Data(_) => self.within_message = !open.last,
            OpCode::Control(Control::Ping) => self.ping = Some(std::mem::take(&mut self.control)),
            OpCode::Control(Control::Close) => self.closed = Some(answer(&self.control)?),
            OpCode::Control(_) => {}
        }
        self.control.clear();
        Ok(())
    }

    /// The pong that is owed: only the last ping is answered where several came. [RFC6455-5.5.3]
    pub(super) fn pong(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// Whether a pong is owed.
    pub(super) fn owes_pong(&self) -> bool {
        self.ping.is_some()
    }

    /// How to end the connection, where the client has broken the rules.
    pub(super) fn broken(&self) -> Option<Close> {
        self.broken
    }

    /// How the client has ended the connection, if it has.
    pub(super) fn closed(&self) -> Option<Close> {
        self.closed
    }
}

impl Open {
    fn unmask(&mut self, payload: &mut [u8]) {
        for four in payload.chunks_mut(4) {
            four.iter_mut().zip(self.mask).for_each(|(byte, key)| *byte ^= key);
        }
        self.mask.rotate_left(payload.len() % 4);
        self.left -= payload.len() as u64;
    }
}

/// [RFC6455-5.5.1] The answer to a close is a close with the same code, where it is one that may be sent
/// [RFC6455-7.4].
fn answer(payload: &[u8]) -> Result<Close, Close> {
    match payload {
        [] => Ok(Close::Empty),
        [_] => Err(Close::Protocol),
        [high, low, ..] => match u16::from_be_bytes([*high, *low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(Close::Answer([*high, *low])),
            _ => Err(Close::Protocol),
        },
    }
}

/// Appends the header of a binary frame with so long a payload. [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
pub(super) fn begin_binary(length: usize, out: &mut Vec<u8>) {
    header(OpCode::Data(Data::Binary), length, out);
}

/// Appends a pong.
pub(super) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    header(OpCode::Control(Control::Pong), payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close.
pub(super) fn close(close: Close, out: &mut Vec<u8>) {
    let code = match close {
        Close::Normal => Some(1000_u16.to_be_bytes()),
        Close::Protocol => Some(1002_u16.to_be_bytes()),
        Close::Unsupported => Some(1003_u16.to_be_bytes()),
        Close::Answer(code) => Some(code),
        Close::Empty => None,
    };
    let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
    header(OpCode::Control(Control::Close), payload.len(), out);
    out.extend_from_slice(payload);
}

fn header(opcode: OpCode, length: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(length as u64, out).expect("a vector takes everything");
}

/// Bytes of the longest header of a client.
const HEADER_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        let mut bytes = vec![first];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ 0..126), _) => bytes.push(0x80 | short),
            (_, Ok(long)) => {
                bytes.push(0xFE);
                bytes.extend_from_slice(&long.to_be_bytes());
            }
            _ => {
                bytes.push(0xFF);
                bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        bytes
    }

    /// What is left of the bytes when they come in pieces of this size.
    fn in_pieces(bytes: &[u8], size: usize) -> (Vec<u8>, Frames, Option<Close>) {
        let (mut frames, mut left) = (Frames::default(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let kept = frames.unwrap(&mut piece);
            left.extend_from_slice(&piece[..kept]);
        }
        let broken = frames.broken();
        (left, frames, broken)
    }

    #[test]
    fn payloads_come_out_in_order_whatever_pieces_they_come_in() {
        let payloads = [vec![1; 5], vec![], vec![2; 125], vec![3; 126], vec![4; 70_000], b"end".to_vec()];
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame(0x82, payload)).collect();
        for size in [1, 2, 3, 7, 1_000, 65_536, bytes.len()] {
            let (left, frames, close) = in_pieces(&bytes, size);
            assert!(left == payloads.concat() && close.is_none() && frames.begun.1 == 0, "{size}");
        }
    }

    #[test]
    fn a_message_in_fragments_with_control_frames_between_is_put_together() {
        let bytes = [
            frame(0x02, b"ebb"),
            frame(0x89, b"first"),
            frame(0x00, b" and "),
            frame(0x8A, b"unasked"),
            frame(0x89, b"second"),
            frame(0x80, b"flow"),
            frame(0x82, b"."),
        ]
        .concat();
        for size in [1, 4, bytes.len()] {
            let (left, mut frames, close) = in_pieces(&bytes, size);
            assert_eq!((&left[..], close), (&b"ebb and flow."[..], None));
            assert_eq!(frames.pong().as_deref(), Some(&b"second"[..]));
            assert!(!frames.owes_pong());
        }
    }

    #[test]
    fn what_breaks_the_rules_is_found() {
        let unmasked = vec![0x82, 1, b'x'];
        let huge = [vec![0x82, 0xFF], vec![0xFF; 8], vec![0; 4]].concat();
        for (bytes, expected) in [
            (frame(0x81, b"text"), Close::Unsupported),
            (unmasked, Close::Protocol),
            (huge, Close::Protocol),
            (frame(0x80, b"continues nothing"), Close::Protocol),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), Close::Protocol),
            (frame(0xC2, b"compressed"), Close::Protocol),
            (frame(0x83, b"reserved"), Close::Protocol),
            (frame(0x09, b"a ping in fragments"), Close::Protocol),
            (frame(0x89, &[0; 126]), Close::Protocol),
            (frame(0x88, &[3]), Close::Protocol),
            (frame(0x88, &1005_u16.to_be_bytes()), Close::Protocol),
            (frame(0x88, &999_u16.to_be_bytes()), Close::Protocol),
            (frame(0x88, &2999_u16.to_be_bytes()), Close::Protocol),
            (vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0], Close::Protocol),
            (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], Close::Protocol),
        ] {
            for size in [1, bytes.len()] {
                assert_eq!(in_pieces(&bytes, size).2, Some(expected), "{bytes:02x?}");
            }
        }
    }

    #[test]
    fn a_close_is_answered_with_its_code_and_nothing_after_it_counts() {
        let bytes =
            [frame(0x82, b"before"), frame(0x88, &[0x03, 0xE9, b'!']), frame(0x82, b"after")].concat();
        let (left, frames, _) = in_pieces(&bytes, bytes.len());
        assert_eq!((&left[..], frames.closed()), (&b"before"[..], Some(Close::Answer([0x03, 0xE9]))));
        let mut out = Vec::new();
        close(Close::Answer([0x03, 0xE9]), &mut out);
        assert_eq!(out, [0x88, 2, 0x03, 0xE9]);
        assert_eq!(in_pieces(&frame(0x88, b""), 100).1.closed(), Some(Close::Empty));
    }

    // [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
    #[test]
    fn our_frames_are_whole_binary_and_unmasked() {
        for (length, expected) in [
            (5, &[0x82, 5][..]),
            (300, &[0x82, 126, 1, 44]),
            (70_000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ] {
            let mut out = Vec::new();
            begin_binary(length, &mut out);
            assert_eq!(out, expected);
        }
    }
    proptest::proptest! {
        #[test]
        fn any_bytes_mean_the_same_in_any_pieces(
            frames in proptest::collection::vec(
                (0_u8..=255, 0_u8..=255, proptest::collection::vec(0_u8..=255, 0..140)),
                0..6,
            ),
            size in 1_usize..40,
        ) {
            // Mostly what begins like a frame, so that more than the first header is reached.
            let bytes: Vec<u8> = frames
                .into_iter()
                .flat_map(|(first, odd, payload)| match odd {
                    0..16 => payload,
                    16..128 => frame(0x82, &payload),
                    _ => frame(first, &payload),
                })
                .collect();
            let (whole, pieces) = (in_pieces(&bytes, bytes.len().max(1)), in_pieces(&bytes, size));
            proptest::prop_assert_eq!(whole.2, pieces.2);
            proptest::prop_assert_eq!(whole.1.closed(), pieces.1.closed());
            proptest::prop_assert_eq!(whole.0, pieces.0);
        }
    }
}
