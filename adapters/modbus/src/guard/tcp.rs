//! The guard of a TCP connection, where a transaction id says which question a frame answers.
//!
//! A late answer bears the id of a poll that was given up, so the next question need not wait for it and
//! the connection is kept. tokio-modbus would take it for a broken connection, which is why it is found
//! here, below it. Frames cannot be found again once their headers make no sense: [`Astray`].

use std::collections::VecDeque;
use std::time::Duration;

use super::{Asked, Astray, Debt, Event};

/// See the file's header.
#[derive(Debug, Default)]
pub struct Tcp {
    asked: Option<(Asked, Duration)>,
    /// The first bytes of the question as it went out: its transaction id.
    id: Vec<u8>,
    /// Polls that were given up, oldest first, at most [`DEBTS_MAX`]; beyond it the oldest is forgotten,
    /// and its answer would count as foreign.
    debts: VecDeque<([u8; 2], Debt)>,
    /// Bytes that may still become a frame, at most [`FRAME_MAX`] and a piece.
    buffer: Vec<u8>,
}

impl Tcp {
    pub(super) fn ask(&mut self, asked: Asked, now: Duration) {
        self.id.clear();
        self.asked = Some((asked, now));
    }

    pub(super) fn sent(&mut self, bytes: &[u8]) {
        self.id.extend(bytes.iter().take(2_usize.saturating_sub(self.id.len())));
        if let [high, low] = self.id[..] {
            // After 65,536 polls an id is used again; who owed it does not any more.
            self.debts.retain(|(id, _)| *id != [high, low]);
        }
    }

    pub(super) fn give_up(&mut self, until: Duration) {
        let Some((asked, since)) = self.asked.take() else { return };
        let [high, low] = self.id[..] else { return };
        if self.debts.len() >= DEBTS_MAX {
            self.debts.pop_front();
        }
        self.debts.push_back(([high, low], Debt { asked, since, until }));
    }

    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        now: Duration,
        events: &mut Vec<Event>,
    ) -> Result<(), Astray> {
        for piece in bytes.chunks(FRAME_MAX) {
            self.buffer.extend_from_slice(piece);
            while let Some(length) = whole_frame(&self.buffer)? {
                let frame: Vec<u8> = self.buffer.drain(..length).collect();
                events.push(self.judge(frame, now));
            }
        }
        Ok(())
    }

    fn judge(&mut self, frame: Vec<u8>, now: Duration) -> Event {
        let [high, low, _, _, _, _, unit, ref pdu @ ..] = frame[..] else { return Event::Corrupt };
        let fits = |asked: Asked| asked.unit == unit && asked.is_answered_by(pdu);
        if self.asked.is_some_and(|(asked, _)| fits(asked)) && self.id == [high, low] {
            self.asked = None;
            return Event::Answer(frame);
        }
        let late = self.debts.iter().position(|(id, debt)| *id == [high, low] && fits(debt.asked));
        match late.and_then(|place| self.debts.remove(place)) {
            Some((_, debt)) => Event::Late { unit, after: now.saturating_sub(debt.since) },
            None => Event::Foreign { unit },
        }
    }
}

/// The length of the frame at the begin, once it is all there.
fn whole_frame(bytes: &[u8]) -> Result<Option<usize>, Astray> {
    let [_, _, protocol_high, protocol_low, length_high, length_low, ..] = *bytes else {
        return Ok(None);
    };
    let rest = usize::from(u16::from_be_bytes([length_high, length_low]));
    // Unit, function and at least one byte more; at most a PDU of 253 and the unit (Modbus TCP 3.1.3).
    if protocol_high != 0 || protocol_low != 0 || !(3..=254).contains(&rest) {
        return Err(Astray);
    }
    Ok(Some(HEADER + rest).filter(|length| bytes.len() >= *length))
}

/// Transaction id, protocol id, length.
const HEADER: usize = 6;

/// The longest Modbus TCP frame.
const FRAME_MAX: usize = 260;

/// Polls given up whose late answers are still known as such.
const DEBTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Runs a script: `ask 3 7` asks unit 3 for one register with transaction id 7, `give-up`, anything
    /// else is a frame's bytes in hex.
    fn check(script: &[&str], expected: &str) {
        let now = Duration::ZERO;
        let mut guard = Tcp::default();
        let mut shown = Vec::new();
        for line in script {
            let words: Vec<&str> = line.split(' ').collect();
            let mut events = Vec::new();
            match words[..] {
                ["ask", unit, id] => {
                    guard.ask(Asked { unit: unit.parse().expect("a number"), function: 3, bytes: 2 }, now);
                    guard.sent(&[0]);
                    guard.sent(&[id.parse().expect("a number"), 0, 0]);
                }
                ["give-up"] => guard.give_up(now + Duration::from_secs(3)),
                [hex] => {
                    let bytes: Vec<u8> = (0..hex.len())
                        .step_by(2)
                        .map(|start| u8::from_str_radix(&hex[start..start + 2], 16).expect("hex"))
                        .collect();
                    if let Err(astray) = guard.take(&bytes, now, &mut events) {
                        shown.push(format!("cannot {astray}"));
                    }
                }
                _ => panic!("no such line: {line}"),
            }
            shown.extend(events.iter().map(|event| match event {
                Event::Answer(frame) => format!("answer of {} bytes", frame.len()),
                other => format!("{other:?}").to_lowercase(),
            }));
        }
        assert_eq!(shown.join("\n"), expected);
    }

    #[test]
    fn the_answer_gets_through_whole_or_in_pieces() {
        check(&["ask 3 7", "0007000000050303021234"], "answer of 11 bytes");
        check(&["ask 3 7", "000700", "000005030302", "1234"], "answer of 11 bytes");
        check(&["ask 3 7", "000700000003038302"], "answer of 9 bytes");
    }

    #[test]
    fn a_late_answer_is_known_by_its_id_and_the_connection_kept() {
        check(
            &["ask 3 7", "give-up", "ask 3 8", "0007000000050303021234", "0008000000050303025678"],
            "late { unit: 3, after: 0ns }\nanswer of 11 bytes",
        );
    }

    #[test]
    fn another_unit_function_length_or_id_is_foreign() {
        let foreign = "foreign { unit: 3 }";
        check(&["ask 3 7", "0009000000050303021234"], foreign);
        check(&["ask 3 7", "0007000000050304021234"], foreign);
        check(&["ask 3 7", "00070000000703030412345678"], foreign);
        check(&["ask 3 7", "00070000000503030212"], "");
        check(&["ask 3 7", "0007000000050403021234"], "foreign { unit: 4 }");
        check(&["ask 3 7", "00070000000403030212"], foreign);
    }

    #[test]
    fn nothing_is_an_answer_twice_or_unasked() {
        check(
            &["0007000000050303021234", "ask 3 7", "0007000000050303021234", "0007000000050303021234"],
            "foreign { unit: 3 }\nanswer of 11 bytes\nforeign { unit: 3 }",
        );
    }

    #[test]
    fn a_stream_without_frames_is_left() {
        check(&["ask 3 7", "485454502f31"], "cannot follow the frames: the peer does not speak Modbus TCP");
        check(&["ask 3 7", "000700000002"], "cannot follow the frames: the peer does not speak Modbus TCP");
        check(&["ask 3 7", "0007000000ff"], "cannot follow the frames: the peer does not speak Modbus TCP");
    }
}
