//! A Modbus server whose answers come late, for others, or not at all, and that keeps account of them.
//!
//! It does as the test decides for each question. What became of a poll it learns from the readings, not
//! from a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::Random;
use super::wires::Sent;

/// RTU or TCP frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Rtu,
    Tcp,
}

/// A question as it came.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The number of the poll, from 1.
    pub(crate) poll: u64,
    pub(crate) unit: u8,
    pub(crate) function: u8,
    pub(crate) register: u16,
    header: Vec<u8>,
}

/// A frame that the server will send.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: Kind,
    /// After the question came.
    pub(crate) delay: Duration,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The answer to this poll.
    True(u64),
    /// An answer for somebody else.
    Foreign,
    /// Rubbish.
    Damaged,
}

/// What was asked and sent.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Questions, by the number of the poll: the register asked for.
    pub(crate) asked: BTreeMap<u64, u16>,
    /// Polls whose true answer was sent.
    pub(crate) answered: BTreeSet<u64>,
    /// Frames sent for somebody else.
    pub(crate) foreign: u64,
    /// Frames sent damaged.
    pub(crate) damaged: u64,
    /// Frames not sent because the machine was too slow for the limit that the server promises.
    pub(crate) lost: u64,
    /// Polls that published the reading that they should.
    pub(crate) good: BTreeSet<u64>,
    /// Readings that belong to another poll or register.
    pub(crate) wrong: Vec<String>,
}

/// A reading as far as the server cares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// The register that the topic names.
    pub(crate) register: u16,
    pub(crate) value: u32,
}

/// What a server does.
pub(crate) struct Server<Decide, Take> {
    pub(crate) framing: Framing,
    /// What is sent for a question.
    pub(crate) decide: Decide,
    /// The readings published since the last question.
    pub(crate) take: Take,
    /// Questions that `decide` is asked about; later ones are answered at once, truly.
    pub(crate) polls: u64,
    /// How long it serves at most.
    pub(crate) span: Duration,
    /// When each question went out, and the age from which on nothing is sent for it.
    pub(crate) limit: Option<(Sent, Duration)>,
}

impl<Decide, Take> Server<Decide, Take>
where
    Decide: FnMut(&Question) -> Vec<Frame>,
    Take: FnMut() -> Vec<Reading>,
{
    /// Serves until all polls are done, all frames are out and one more poll has been good after them.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut stream: S) -> Account {
        let mut account = Account::default();
        let mut due: BTreeMap<(Instant, u64), (u64, Frame)> = BTreeMap::new();
        let (mut order, mut last_frame) = (0_u64, 0);
        let mut inbox = Vec::new();
        let end = Instant::now() + self.span;
        loop {
            let next = due.keys().next().map(|(at, _)| *at);
            let mut bytes = [0; 64];
            tokio::select! {
                biased;
                () = sleep_until(end) => break,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some((_, (poll, frame))) = due.pop_first() else { continue };
                    self.send(&mut stream, poll, &frame, &mut account).await;
                    if poll <= self.polls {
                        last_frame = account.asked.len() as u64;
                    }
                }
                read = stream.read(&mut bytes) => match read {
                    Ok(count) if count > 0 => inbox.extend_from_slice(&bytes[..count]),
                    _ => break,
                },
            }
            while let Some(question) = self.question(&mut inbox, account.asked.len() as u64 + 1) {
                self.judge(&mut account);
                account.asked.insert(question.poll, question.register);
                let is_over = question.poll > self.polls;
                if is_over && due.is_empty() && account.good.last().is_some_and(|good| *good > last_frame) {
                    return account;
                }
                let frames =
                    if is_over { vec![question.truth(self.framing)] } else { (self.decide)(&question) };
                for frame in frames {
                    order += 1;
                    due.insert((Instant::now() + frame.delay, order), (question.poll, frame));
                }
            }
        }
        self.judge(&mut account);
        account
    }

    async fn send<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        poll: u64,
        frame: &Frame,
        account: &mut Account,
    ) {
        if let Some((sent, limit)) = &self.limit {
            let index = usize::try_from(poll - 1).expect("polls fit");
            let sent = sent.lock().expect("no test panics with it")[index];
            if sent.elapsed() > *limit {
                account.lost += 1;
                return;
            }
        }
        if stream.write_all(&frame.bytes).await.is_err() {
            return;
        }
        match frame.kind {
            Kind::True(poll) => {
                account.answered.insert(poll);
            }
            Kind::Foreign => account.foreign += 1,
            Kind::Damaged => account.damaged += 1,
        }
    }

    /// What was published since the last question belongs to the poll counted last, or is wrong.
    fn judge(&mut self, account: &mut Account) {
        let poll = account.asked.len() as u64;
        for reading in (self.take)() {
            let is_true = reading.value == value(reading.register, poll)
                && account.asked.get(&poll) == Some(&reading.register);
            if is_true && account.good.insert(poll) {
                continue;
            }
            let (register, of) = (reading.value >> 20, reading.value & 0xF_FFFF);
            account.wrong.push(format!(
                "register {} of poll {poll} was published with the value of register {register}, poll {of}",
                reading.register
            ));
        }
    }

    fn question(&self, inbox: &mut Vec<u8>, poll: u64) -> Option<Question> {
        let (length, start) = match self.framing {
            Framing::Rtu => (8, 0),
            Framing::Tcp => (12, 6),
        };
        if inbox.len() < length {
            return None;
        }
        let bytes: Vec<u8> = inbox.drain(..length).collect();
        let register = u16::from_be_bytes([bytes[start + 2], bytes[start + 3]]);
        Some(Question {
            poll,
            unit: bytes[start],
            function: bytes[start + 1],
            register,
            header: bytes[..start].to_vec(),
        })
    }
}

impl Question {
    /// The true answer, at once.
    pub(crate) fn truth(&self, framing: Framing) -> Frame {
        let bytes = self.answer(framing, self.unit);
        Frame { bytes, kind: Kind::True(self.poll), delay: Duration::ZERO }
    }

    /// An answer with this poll's value, as if from `unit`.
    pub(crate) fn answer(&self, framing: Framing, unit: u8) -> Vec<u8> {
        let mut pdu = vec![self.function, 4];
        pdu.extend(value(self.register, self.poll).to_be_bytes());
        self.frame(framing, unit, &pdu)
    }

    /// A frame around a PDU.
    pub(crate) fn frame(&self, framing: Framing, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut body = vec![unit];
        body.extend(pdu);
        match framing {
            Framing::Rtu => {
                body.extend(crc16(&body).to_le_bytes());
                body
            }
            Framing::Tcp => {
                let length = u16::try_from(body.len()).expect("small");
                let mut frame = self.header[..2].to_vec();
                frame.extend([0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend(body);
                frame
            }
        }
    }
}

/// What register `register` holds for poll `poll`.
pub(crate) fn value(register: u16, poll: u64) -> u32 {
    (u32::from(register) << 20) | (u32::try_from(poll & 0xF_FFFF).expect("20 bits"))
}

/// The third that is late: between half a timeout and three.
pub(crate) fn random_delay(random: &mut Random, timeout: Duration) -> Duration {
    let millis = u64::try_from(timeout.as_millis()).expect("small");
    if random.once_in(3) {
        Duration::from_micros(millis * 500 + random.below(millis * 2_500))
    } else {
        Duration::ZERO
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    let mut sum = 0xFFFF_u16;
    for byte in bytes {
        sum ^= u16::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xA001 } else { sum >> 1 };
        }
    }
    sum
}
