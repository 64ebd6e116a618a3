//! The guard of a serial line, where nothing in a frame tells a late answer from the one awaited.
//!
//! After a poll was given up its unit is in quarantine: it is not asked again before its late answer has
//! been seen, or could no longer come. Seeing it ends the quarantine only where nobody else was asked since
//! then, nor for as long before, because what another question provoked might bear this unit's number.
//! Other units can be asked meanwhile: their answers carry another number.
//!
//! We assume: what a question provokes comes within the limit that its poll was given up with.

use std::time::Duration;

use super::crc::is_whole;
use super::{Asked, Debt, EXCEPTION, Event, Quarantined};

/// See the file's header.
#[derive(Debug, Default)]
pub struct Rtu {
    asked: Option<(Asked, Duration)>,
    /// The unit asked last, and when.
    last: Option<(u8, Duration)>,
    /// The last unit that was not that one, and when it was asked.
    other: Option<(u8, Duration)>,
    /// The question as it went out, to know its echo.
    request: Vec<u8>,
    /// At most one a unit.
    debts: Vec<Owed>,
    /// Bytes that may still become a frame, at most [`FRAME_MAX`].
    buffer: Vec<u8>,
    /// Whether the last byte dropped was part of the run that was already reported.
    in_noise: bool,
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    debt: Debt,
    /// Whether the late answer was seen, so that a second one is foreign.
    is_paid: bool,
    /// Whether another unit was asked since, or as long before.
    is_mixed: bool,
}

/// What the bytes at some place are.
enum Found {
    Frame(usize),
    Incomplete,
    Nothing,
}

impl Rtu {
    pub(super) fn ask(
        &mut self,
        asked: Asked,
        now: Duration,
        events: &mut Vec<Event>,
    ) -> Result<(), Quarantined> {
        self.debts.retain(|owed| owed.debt.until > now);
        if self.debts.iter().any(|owed| owed.debt.asked.unit == asked.unit) {
            return Err(Quarantined);
        }
        for owed in &mut self.debts {
            owed.is_mixed = true;
        }
        if !self.buffer.is_empty() {
            self.drop_first(self.buffer.len(), events);
        }
        self.in_noise = false;
        self.request.clear();
        self.asked = Some((asked, now));
        self.other = self.last.filter(|(unit, _)| *unit != asked.unit).or(self.other);
        self.last = Some((asked.unit, now));
        Ok(())
    }

    pub(super) fn sent(&mut self, bytes: &[u8]) {
        self.request.extend(bytes.iter().take(FRAME_MAX.saturating_sub(self.request.len())));
    }

    pub(super) fn give_up(&mut self, until: Duration) {
        if let Some((asked, since)) = self.asked.take() {
            let span = until.saturating_sub(since);
            let is_mixed = self.other.is_some_and(|(_, when)| since.saturating_sub(when) < span);
            let debt = Debt { asked, since, until };
            self.debts.push(Owed { debt, is_paid: false, is_mixed });
        }
    }

    pub(super) fn quarantine(&self, unit: u8, now: Duration) -> Option<Duration> {
        let owed = self.debts.iter().find(|owed| owed.debt.asked.unit == unit)?;
        Some(owed.debt.until).filter(|until| *until > now)
    }

    pub(super) fn take(&mut self, bytes: &[u8], now: Duration, events: &mut Vec<Event>) {
        for piece in bytes.chunks(FRAME_MAX) {
            self.buffer.extend_from_slice(piece);
            while self.step(now, events) {}
        }
    }

    /// Takes one frame or one byte of noise off the buffer; false where it has to wait for more.
    fn step(&mut self, now: Duration, events: &mut Vec<Event>) -> bool {
        match find(&self.buffer) {
            Found::Frame(length) => {
                let frame: Vec<u8> = self.buffer.drain(..length).collect();
                self.in_noise = false;
                events.push(self.judge(frame, now));
                true
            }
            Found::Nothing => {
                self.drop_first(1, events);
                true
            }
            Found::Incomplete => match self.awaited_behind_noise() {
                Some(start) => {
                    self.drop_first(start, events);
                    true
                }
                None => false,
            },
        }
    }

    /// Whose a frame is.
    fn judge(&mut self, frame: Vec<u8>, now: Duration) -> Event {
        if self.asked.is_some_and(|(asked, _)| answers(asked, &frame)) {
            self.asked = None;
            return Event::Answer(frame);
        }
        let late = self.debts.iter_mut().find(|owed| !owed.is_paid && answers(owed.debt.asked, &frame));
        if let Some(owed) = late {
            owed.is_paid = true;
            let event =
                Event::Late { unit: owed.debt.asked.unit, after: now.saturating_sub(owed.debt.since) };
            self.debts.retain(|owed| !owed.is_paid || owed.is_mixed);
            return event;
        }
        if frame == self.request {
            return Event::Echo;
        }
        Event::Foreign { unit: frame.first().copied().unwrap_or(0) }
    }

    /// Where noise in front looks like the begin of a long frame, the awaited answer would be swallowed:
    /// it is known by its whole header and its checksum wherever it starts.
    fn awaited_behind_noise(&self) -> Option<usize> {
        let (asked, _) = self.asked?;
        (1..self.buffer.len()).find(|start| {
            let rest = self.buffer.get(*start..).unwrap_or_default();
            [usize::from(asked.bytes) + 5, EXCEPTION_LENGTH].into_iter().any(|length| {
                rest.get(..length).is_some_and(|frame| answers(asked, frame) && is_whole(frame))
            })
        })
    }

    /// Drops bytes that are no frame; a run of them is one event.
    fn drop_first(&mut self, count: usize, events: &mut Vec<Event>) {
        self.buffer.drain(..count.min(self.buffer.len()));
        if !self.in_noise {
            events.push(Event::Corrupt);
        }
        self.in_noise = true;
    }
}

/// The frame at the begin of `bytes`, by the lengths that its function code allows and its checksum.
fn find(bytes: &[u8]) -> Found {
    let Some(function) = bytes.get(1).copied() else { return Found::Incomplete };
    let mut waits = false;
    for length in [answer_length(function, bytes), question_length(function, bytes)] {
        let length = match length {
            Length::Of(length) if length <= FRAME_MAX => length,
            Length::Of(_) | Length::None => continue,
            Length::Later => {
                waits = true;
                continue;
            }
        };
        match bytes.get(..length) {
            Some(frame) if is_whole(frame) => return Found::Frame(length),
            Some(_) => {}
            None => waits = true,
        }
    }
    if waits { Found::Incomplete } else { Found::Nothing }
}

/// How long a frame would be.
enum Length {
    Of(usize),
    /// The byte that says so is not there yet.
    Later,
    /// No such frame.
    None,
}

fn answer_length(function: u8, bytes: &[u8]) -> Length {
    match function {
        1..=4 | 0x11 | 0x17 => match bytes.get(2) {
            Some(0) => Length::None,
            Some(count) => Length::Of(5 + usize::from(*count)),
            None => Length::Later,
        },
        5 | 6 | 0x0F | 0x10 => Length::Of(8),
        _ if function & EXCEPTION != 0 => Length::Of(EXCEPTION_LENGTH),
        _ => Length::None,
    }
}

/// Another master's question, or the echo of our own.
fn question_length(function: u8, bytes: &[u8]) -> Length {
    match function {
        1..=6 => Length::Of(8),
        0x0F | 0x10 => match bytes.get(6) {
            Some(count) => Length::Of(9 + usize::from(*count)),
            None => Length::Later,
        },
        _ => Length::None,
    }
}

fn answers(asked: Asked, frame: &[u8]) -> bool {
    match frame {
        [unit, pdu @ .., _, _] => *unit == asked.unit && asked.is_answered_by(pdu),
        _ => false,
    }
}

/// The longest RTU frame (Modbus over serial line 2.4).
const FRAME_MAX: usize = 256;

/// Unit, function, code, checksum.
const EXCEPTION_LENGTH: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::crc::crc16;
    use std::time::Duration;

    /// Runs a script: `ask 3` asks unit 3 for one register (`ask 3 2` for two), `give-up 30` bars it until
    /// 30 ms after the start, `at 5` sets the time, anything else is a frame's bytes in hex, to which `+`
    /// appends the checksum.
    pub(super) fn check(script: &[&str], expected: &str) {
        let start = Duration::ZERO;
        let (mut guard, mut now) = (Rtu::default(), start);
        let mut shown = Vec::new();
        for line in script {
            let mut events = Vec::new();
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["at", millis] => now = start + millis_of(millis),
                ["ask", unit] => shown.extend(ask(&mut guard, unit, "1", now, &mut events)),
                ["ask", unit, count] => shown.extend(ask(&mut guard, unit, count, now, &mut events)),
                ["give-up", millis] => guard.give_up(start + millis_of(millis)),
                ["sent", hex] => guard.sent(&frame(hex)),
                [hex] => guard.take(&frame(hex), now, &mut events),
                _ => panic!("no such line: {line}"),
            }
            shown.extend(events.iter().map(show));
        }
        assert_eq!(shown.join("\n"), expected);
    }

    fn ask(
        guard: &mut Rtu,
        unit: &str,
        count: &str,
        now: Duration,
        events: &mut Vec<Event>,
    ) -> Option<String> {
        let count: u8 = count.parse().expect("a number");
        let asked = Asked { unit: unit.parse().expect("a number"), function: 3, bytes: count * 2 };
        guard.ask(asked, now, events).err().map(|_| format!("quarantined {unit}"))
    }

    fn show(event: &Event) -> String {
        match event {
            Event::Answer(frame) => {
                let body = frame.split_last_chunk::<2>().expect("a checksum").0;
                let hex: Vec<String> = body.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("answer {}", hex.concat())
            }
            Event::Late { unit, after } => format!("late {unit} after {}", after.as_millis()),
            Event::Foreign { unit } => format!("foreign {unit}"),
            Event::Corrupt => "corrupt".to_owned(),
            Event::Echo => "echo".to_owned(),
        }
    }

    fn millis_of(text: &str) -> Duration {
        Duration::from_millis(text.parse().expect("a number"))
    }

    fn frame(hex: &str) -> Vec<u8> {
        let digits = hex.trim_end_matches('+');
        let mut bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|start| u8::from_str_radix(&digits[start..start + 2], 16).expect("hex"))
            .collect();
        if hex.ends_with('+') {
            bytes.extend(crc16(&bytes).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn the_answer_gets_through_whole_or_in_pieces() {
        check(&["ask 3", "0303021234+"], "answer 0303021234");
        check(&["ask 3", "03", "0302", "1234", "ccf3"], "answer 0303021234");
        check(&["ask 3", "038302+"], "answer 038302");
    }

    #[test]
    fn a_second_answer_is_foreign() {
        check(&["ask 3", "0303021234+", "0303021234+"], "answer 0303021234\nforeign 3");
    }

    #[test]
    fn nothing_is_an_answer_unasked() {
        check(&["0303021234+"], "foreign 3");
    }

    #[test]
    fn another_unit_function_or_length_is_foreign() {
        check(&["ask 3", "0403021234+"], "foreign 4");
        check(&["ask 3", "0304021234+"], "foreign 3");
        check(&["ask 3", "03030412345678+"], "foreign 3");
        check(&["ask 3", "038402+"], "foreign 3");
        check(&["ask 3", "0903021234+", "0303021234+"], "foreign 9\nanswer 0303021234");
    }

    #[test]
    fn a_late_answer_is_never_the_next_ones() {
        check(
            &["ask 3", "at 10", "give-up 30", "ask 3", "at 25", "0303021234+", "ask 3", "0303025678+"],
            "quarantined 3\nlate 3 after 25\nanswer 0303025678",
        );
    }

    #[test]
    fn a_unit_that_never_answers_can_be_asked_after_the_limit() {
        check(
            &["ask 3", "at 10", "give-up 30", "at 29", "ask 3", "at 30", "ask 3", "0303021234+"],
            "quarantined 3\nanswer 0303021234",
        );
    }

    #[test]
    fn others_can_be_asked_while_one_owes_an_answer() {
        check(
            &["ask 3", "give-up 30", "ask 4", "at 5", "0303021234+", "0403025678+"],
            "late 3 after 5\nanswer 0403025678",
        );
    }

    #[test]
    fn a_quarantine_holds_where_another_question_may_have_provoked_the_late_answer() {
        check(
            &["ask 3", "give-up 30", "ask 4", "0303021234+", "ask 3", "0303025678+", "at 30", "ask 3"],
            "late 3 after 0\nquarantined 3\nforeign 3",
        );
    }

    #[test]
    fn what_an_earlier_question_provoked_ends_no_quarantine() {
        check(
            &["ask 4", "0403025678+", "at 9", "ask 3", "give-up 39", "0303021234+", "ask 3", "0303025678+"],
            "answer 0403025678\nlate 3 after 0\nquarantined 3\nforeign 3",
        );
        check(
            &["ask 4", "0403025678+", "at 30", "ask 3", "give-up 60", "0303021234+", "ask 3", "0303025678+"],
            "answer 0403025678\nlate 3 after 0\nanswer 0303025678",
        );
    }

    #[test]
    fn half_a_late_answer_and_half_an_answer_make_none() {
        check(
            &["ask 3", "030302", "give-up 30", "at 30", "ask 3", "1234ccf3", "0303025678+"],
            "corrupt\ncorrupt\nanswer 0303025678",
        );
    }

    #[test]
    fn a_late_answer_that_was_under_way_at_the_timeout_is_late() {
        check(&["ask 3", "030302", "give-up 30", "at 12", "1234ccf3"], "late 3 after 12");
    }

    #[test]
    fn damaged_and_cut_frames_are_no_answers() {
        check(&["ask 3 2", "03030412345679c3ab", "ask 3"], "corrupt");
        check(&["ask 3", "03030212", "give-up 9", "at 9", "ask 3"], "corrupt");
    }

    #[test]
    fn noise_before_the_answer_does_not_hide_it() {
        check(&["ask 3", "00ff", "0303021234+"], "corrupt\nanswer 0303021234");
        check(&["ask 3", "0103f0", "0303021234+"], "corrupt\nanswer 0303021234");
    }

    #[test]
    fn our_echo_and_other_masters_are_told_apart() {
        check(
            &["ask 3", "sent 030300000001+", "030300000001+", "050300000001+", "0303021234+"],
            "echo\nforeign 5\nanswer 0303021234",
        );
    }
}
