//! One open line: a question through tokio-modbus, and its answer or the lack of one.
//!
//! tokio-modbus makes requests of numbers and numbers of answers. It has neither timeouts nor silence
//! between questions, and takes whatever comes for the answer: those are here and in the guard below it.

use std::io;
use std::time::Duration;

use tokio::time::timeout_at;
use tokio_modbus::ExceptionCode;
use tokio_modbus::client::{Context, Reader, rtu, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};

use crate::guard::{Asked, Guard};
use crate::line::{Busy, Line};
use crate::plan::Request;
use crate::register::{Kind, Register};
use crate::timer::Timer;
use crate::wire::Wire;

/// One open line.
pub(crate) struct Session<W> {
    pub(crate) line: Line<W>,
    client: Context,
    timer: Timer,
    /// Bytes of a question on this kind of line.
    question: usize,
    /// Polls since something was last heard.
    silent: u32,
    pub(crate) has_answered: bool,
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Registers, or bits as 0 and 1, as many as were asked for.
    Words(Vec<u16>),
    /// It refused.
    Exception {
        /// What and why.
        text: String,
        /// Whether a gateway speaks for a device that it cannot reach.
        is_absent: bool,
    },
}

/// Whether a question may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// It may; the guard awaits the answer.
    Allowed,
    /// The unit still owes an earlier answer.
    Quarantined,
}

impl<W: Wire> Session<W> {
    pub(crate) fn new(wire: W, guard: Guard, timer: Timer) -> Session<W> {
        let is_rtu = matches!(guard, Guard::Rtu(_));
        let line = Line::new(wire, guard, timer);
        let (client, question) = if is_rtu {
            (rtu::attach(line.clone()), RTU_QUESTION)
        } else {
            (tcp::attach(line.clone()), TCP_QUESTION)
        };
        Session { line, client, timer, question, silent: 0, has_answered: false }
    }

    /// Waits for the silence that the line has before a question; beyond `limit` a line that was
    /// interrupted again and again is held for broken.
    pub(crate) async fn ask(
        &mut self,
        unit: u8,
        request: &Request,
        quiet: Duration,
        limit: Duration,
    ) -> io::Result<Asking> {
        let asked = Asked { unit, function: request.kind.function(), bytes: request.answer_bytes() };
        let never = self.timer.now() + limit;
        let mut interrupted = 0;
        loop {
            match self.line.ask(asked, quiet)? {
                Ok(()) => return Ok(Asking::Allowed),
                Err(Busy::Quarantined) => return Ok(Asking::Quarantined),
                Err(Busy::Until(_)) if interrupted >= INTERRUPTIONS_MAX && self.timer.now() >= never => {
                    return Err(io::Error::other("the line is never silent"));
                }
                Err(Busy::Until(until)) => self.line.listen(until).await?,
            }
            interrupted += 1;
        }
    }

    /// Sends the request and waits for its answer until `deadline`; `None` where none came.
    pub(crate) async fn call(
        &mut self,
        unit: u8,
        request: &Request,
        deadline: Duration,
    ) -> io::Result<Option<Answer>> {
        self.client.set_slave(Slave(unit));
        let read = timeout_at(self.timer.at(deadline), read(&mut self.client, request)).await;
        match read {
            Err(_) if self.line.written() < self.question => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the question does not go out"))
            }
            Err(_) => Ok(None),
            Ok(Err(tokio_modbus::Error::Transport(error))) => Err(error),
            Ok(Err(tokio_modbus::Error::Protocol(error))) => Err(io::Error::other(error)),
            Ok(Ok(answer)) => {
                self.silent = 0;
                self.has_answered = true;
                Ok(Some(match answer {
                    Ok(words) => Answer::Words(words),
                    Err(code) => exception(code, request),
                }))
            }
        }
    }

    /// A connection on which nothing at all is heard any more may be dead without saying so: over TCP it is
    /// made anew. A poll sent at `sent` has just ended in silence.
    pub(crate) fn check_silence(&mut self, sent: Duration, late_limit: Duration) -> io::Result<()> {
        let heard_at = self.line.heard_at();
        self.silent = if heard_at >= sent { 0 } else { self.silent + 1 };
        let is_tcp = self.question == TCP_QUESTION;
        let for_long = self.timer.now().saturating_sub(heard_at) >= late_limit * 3;
        if is_tcp && self.silent >= SILENT_POLLS_MAX && for_long {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing is heard any more"));
        }
        Ok(())
    }

    /// The guard, for the next wire of the same line.
    pub(crate) fn into_guard(self) -> Guard {
        self.line.into_guard().for_a_new_wire()
    }
}

impl Request {
    /// How many bytes of values its answer carries.
    pub(crate) fn answer_bytes(&self) -> u8 {
        let bytes = if self.kind.is_bit() { self.quantity.div_ceil(8) } else { self.quantity * 2 };
        u8::try_from(bytes).expect("the plan keeps within 125 registers or 2,000 bits")
    }
}

async fn read(client: &mut Context, request: &Request) -> tokio_modbus::Result<Vec<u16>> {
    let (address, quantity) = (request.address, request.quantity);
    match request.kind {
        Kind::Coil => client.read_coils(address, quantity).await.map(words_of_bits),
        Kind::Discrete => client.read_discrete_inputs(address, quantity).await.map(words_of_bits),
        Kind::Input => client.read_input_registers(address, quantity).await,
        Kind::Holding => client.read_holding_registers(address, quantity).await,
    }
}

fn words_of_bits(bits: Result<Vec<bool>, ExceptionCode>) -> Result<Vec<u16>, ExceptionCode> {
    bits.map(|bits| bits.into_iter().map(u16::from).collect())
}

fn exception(code: ExceptionCode, request: &Request) -> Answer {
    let register = Register { kind: request.kind, address: request.address };
    let number = u8::from(code);
    let count = request.quantity;
    let text = format!("exception {number} ({code}) to a read of {count} from {register}");
    let is_absent =
        matches!(code, ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice);
    Answer::Exception { text, is_absent }
}

/// Unit, function, address, quantity, checksum.
const RTU_QUESTION: usize = 8;

/// Header of seven bytes, function, address, quantity.
const TCP_QUESTION: usize = 12;

/// Silent polls in a row before a TCP connection can be held for dead.
const SILENT_POLLS_MAX: u32 = 3;

/// So often something is heard in a silence that was waited for, before the line is held for broken.
const INTERRUPTIONS_MAX: u32 = 100;
