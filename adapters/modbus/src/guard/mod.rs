//! Stands between the line and tokio-modbus: only the answer to the question asked gets through.
//!
//! Pure: bytes and the time, since a start of the caller's, go in, events come out. tokio-modbus takes the next frame that it reads for
//! the answer; over RTU, where a frame does not say which question it answers, that publishes the last
//! question's value after a timeout. Here a poll that was given up becomes a [debt](Debt): until the late
//! answer has been seen, or can no longer come, nothing is asked that it could be mistaken for.
//!
//! Invariant: of all bytes taken since an [`ask`](Guard::ask), at most one frame becomes an answer, and it
//! is whole, undamaged, of the asked unit and function, of exactly the asked length, and not owed earlier.

mod crc;
mod rtu;
mod tcp;
#[doc(hidden)]
pub mod fuzz;

use std::time::Duration;

/// The guard of one line.
#[derive(Debug)]
pub enum Guard {
    /// Frames with a CRC and without a transaction id.
    Rtu(rtu::Rtu),
    /// Frames with a transaction id, over a line that does not damage them.
    Tcp(tcp::Tcp),
}

/// What the answer to a read must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The unit that is asked.
    pub unit: u8,
    /// The function code, 1 to 4.
    pub function: u8,
    /// How many bytes of values the answer carries.
    pub bytes: u8,
}

/// Something that the guard found on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to the question asked, the frame as it came.
    Answer(Vec<u8>),
    /// The answer to a poll that was given up, so long after it was asked.
    Late {
        /// Whose.
        unit: u8,
        /// Since the question was sent.
        after: Duration,
    },
    /// A whole, undamaged frame that answers nothing we asked: another unit, function, length or
    /// transaction id, another master's question, or a second answer.
    Foreign {
        /// Whose, as the frame says.
        unit: u8,
    },
    /// A run of bytes that is no frame: damaged, cut short, or noise.
    Corrupt,
    /// Our own question, heard by a transceiver that does not mute itself.
    Echo,
}

/// The unit may still answer an earlier question, so that its next answer would mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined;

/// The stream has lost its frames and cannot find them again: the connection must be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("follow the frames: the peer does not speak Modbus TCP")]
pub struct Astray;

/// A poll that was given up while its answer may still come.
#[derive(Debug, Clone, Copy)]
struct Debt {
    asked: Asked,
    since: Duration,
    until: Duration,
}

impl Guard {
    /// The guard of a serial line.
    pub fn rtu() -> Guard {
        Guard::Rtu(rtu::Rtu::default())
    }

    /// The guard of a TCP connection.
    pub fn tcp() -> Guard {
        Guard::Tcp(tcp::Tcp::default())
    }

    /// The guard for the same line opened anew. Opening a serial line does not stop an answer that is owed,
    /// while what an old TCP connection owes cannot come on the new one.
    pub fn for_a_new_wire(self) -> Guard {
        match self {
            Guard::Rtu(guard) => Guard::Rtu(guard),
            Guard::Tcp(_) => Guard::tcp(),
        }
    }

    /// From now on an answer like this is awaited. What stands half read belongs to nobody and is dropped,
    /// so the line has to be silent when this is called.
    pub fn ask(&mut self, asked: Asked, now: Duration, events: &mut Vec<Event>) -> Result<(), Quarantined> {
        match self {
            Guard::Rtu(guard) => guard.ask(asked, now, events),
            Guard::Tcp(guard) => {
                guard.ask(asked, now);
                Ok(())
            }
        }
    }

    /// The question's bytes as they went out, in pieces or whole.
    pub fn sent(&mut self, bytes: &[u8]) {
        match self {
            Guard::Rtu(guard) => guard.sent(bytes),
            Guard::Tcp(guard) => guard.sent(bytes),
        }
    }

    /// The poll has waited long enough; its answer, which can come until `until`, is no answer any more.
    pub fn give_up(&mut self, until: Duration) {
        match self {
            Guard::Rtu(guard) => guard.give_up(until),
            Guard::Tcp(guard) => guard.give_up(until),
        }
    }

    /// Until when this unit must not be asked; `None` where it may.
    pub fn quarantine(&self, unit: u8, now: Duration) -> Option<Duration> {
        match self {
            Guard::Rtu(guard) => guard.quarantine(unit, now),
            Guard::Tcp(_) => None,
        }
    }

    /// Bytes from the line.
    pub fn take(&mut self, bytes: &[u8], now: Duration, events: &mut Vec<Event>) -> Result<(), Astray> {
        match self {
            Guard::Rtu(guard) => {
                guard.take(bytes, now, events);
                Ok(())
            }
            Guard::Tcp(guard) => guard.take(bytes, now, events),
        }
    }
}

impl Asked {
    /// Whether these bytes, from the function code on, answer it: values of the right length or an exception.
    fn is_answered_by(self, pdu: &[u8]) -> bool {
        match pdu {
            [function, _code] => *function == self.function | EXCEPTION,
            [function, count, values @ ..] => {
                *function == self.function && *count == self.bytes && values.len() == usize::from(self.bytes)
            }
            _ => false,
        }
    }
}

/// The function code's bit that marks an exception (Modbus application protocol 4.1).
const EXCEPTION: u8 = 0x80;
