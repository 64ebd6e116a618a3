//! The guards under any bytes, for the fuzz target and for a plain test.
//!
//! The input is a script: questions, timeouts, frames whole and halved, and rubbish in any order. What must
//! hold is checked here, so that a finding is a panic: no answer unasked, none of another shape, none twice.

use std::time::Duration;

use super::crc::crc16;
use super::{Asked, EXCEPTION, Event, Guard};

/// Runs the script in `data` over both guards and panics where their invariant breaks.
pub fn guard(data: &[u8]) {
    Script::new(Guard::rtu()).run(data, Line::Rtu);
    Script::new(Guard::tcp()).run(data, Line::Tcp);
}

#[derive(Clone, Copy, PartialEq)]
enum Line {
    Rtu,
    Tcp,
}

struct Script {
    guard: Guard,
    now: Duration,
    asked: Option<Asked>,
    id: u16,
    /// The second half of a frame that has begun.
    half: Vec<u8>,
}

impl Script {
    fn new(guard: Guard) -> Script {
        Script { guard, now: Duration::ZERO, asked: None, id: 0, half: Vec::new() }
    }

    fn run(&mut self, mut data: &[u8], line: Line) {
        while let [verb, unit, length, rest @ ..] = data {
            let (piece, after) = rest.split_at(rest.len().min(usize::from(*length % 64)));
            data = after;
            let asked = Asked { unit: unit % 4, function: 3, bytes: 2 * (1 + length % 3) };
            let went_on = match verb % 8 {
                0 => self.ask(asked),
                1 => self.give_up(),
                2 => self.take(piece),
                3 => self.take(&frame(line, self.id, values(asked, piece))),
                4 => self.take(&frame(line, self.id.wrapping_sub(1), values(asked, piece))),
                5 => self.take(&frame(line, self.id, vec![asked.unit, asked.function | EXCEPTION, *length])),
                6 => self.take_half(frame(line, self.id, values(asked, piece))),
                _ => {
                    self.now += Duration::from_millis(u64::from(*length));
                    true
                }
            };
            if !went_on {
                return;
            }
        }
    }

    fn ask(&mut self, asked: Asked) -> bool {
        if self.asked.is_some() {
            return true;
        }
        let mut events = Vec::new();
        let barred = self.guard.quarantine(asked.unit, self.now).is_some();
        let allowed = self.guard.ask(asked, self.now, &mut events).is_ok();
        assert_eq!(allowed, !barred, "a unit is asked exactly where it owes nothing");
        if allowed {
            self.id = self.id.wrapping_add(1);
            self.guard.sent(&self.id.to_be_bytes());
            self.asked = Some(asked);
        }
        true
    }

    fn give_up(&mut self) -> bool {
        if self.asked.take().is_some() {
            self.guard.give_up(self.now + Duration::from_millis(100));
        }
        true
    }

    /// One half now; whatever happens before its turn comes again, the other then.
    fn take_half(&mut self, mut frame: Vec<u8>) -> bool {
        if self.half.is_empty() {
            self.half = frame.split_off(frame.len() / 2);
            self.take(&frame)
        } else {
            let half = std::mem::take(&mut self.half);
            self.take(&half)
        }
    }

    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut events = Vec::new();
        let on_the_way = self.guard.take(bytes, self.now, &mut events).is_ok();
        for event in events {
            if let Event::Answer(frame) = event {
                let asked = self.asked.take().expect("an answer only where one is awaited");
                self.check(asked, &frame);
            }
        }
        on_the_way
    }

    fn check(&self, asked: Asked, frame: &[u8]) {
        let body = match self.guard {
            Guard::Rtu(_) => {
                assert_eq!(crc16(frame), 0, "an answer is undamaged");
                frame.get(..frame.len() - 2).expect("a checksum")
            }
            Guard::Tcp(_) => {
                assert_eq!(
                    frame.get(..2),
                    Some(&self.id.to_be_bytes()[..]),
                    "an answer has the question's id"
                );
                frame.get(6..).expect("a header")
            }
        };
        let shape = [asked.unit, asked.function, asked.bytes];
        let values = body.len() == 3 + usize::from(asked.bytes) && body.starts_with(&shape);
        let exception = body.len() == 3 && body.starts_with(&[asked.unit, asked.function | EXCEPTION]);
        assert!(values || exception, "an answer has the shape asked for");
    }
}

fn values(asked: Asked, values: &[u8]) -> Vec<u8> {
    let mut body = vec![asked.unit, asked.function, asked.bytes];
    body.extend(values);
    body
}

/// A frame that may well be the answer, so that chance need not find a checksum.
fn frame(line: Line, id: u16, mut body: Vec<u8>) -> Vec<u8> {
    if line == Line::Rtu {
        body.extend(crc16(&body).to_le_bytes());
        return body;
    }
    let mut frame = id.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, u8::try_from(body.len()).unwrap_or(u8::MAX)]);
    frame.extend(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_the_guard_break_its_promise() {
        let mut seed = 3_u64;
        for _ in 0..3_000 {
            let script: Vec<u8> = (0..300)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8 & if seed >> 40 & 7 == 0 { 0xFF } else { 0x07 }
                })
                .collect();
            guard(&script);
        }
    }
}
