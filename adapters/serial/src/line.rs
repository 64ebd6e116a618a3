//! The device: opened, read, closed at the first error, and opened again.
//!
//! A device that is absent or unplugged is nothing special: it is tried again, at first after half a second,
//! then ever less often. Its file is closed at once when it fails, since an open one would keep its name
//! from the device that is plugged in again.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until};
use tokio_serial::{DataBits, SerialPortBuilder, SerialStream, StopBits};

use crate::checked::{Checked, Parity};

/// A device that may be absent.
pub(crate) struct Line {
    builder: SerialPortBuilder,
    state: State,
    /// How long the next attempt waits if the device does not open or says nothing.
    pause: Duration,
    /// What one read brought.
    buffer: Box<[u8]>,
}

enum State {
    /// Not before then.
    Closed(Instant),
    Open(SerialStream),
}

/// What happened on the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The device is open.
    Opened,
    /// So many bytes came; [`Line::bytes`] has them.
    Heard(usize),
    /// The device is closed, and why.
    Lost(String),
}

impl Line {
    pub(crate) fn new(line: &Checked) -> Line {
        let parity = match line.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        };
        let data_bits = match line.data_bits {
            5 => DataBits::Five,
            6 => DataBits::Six,
            7 => DataBits::Seven,
            _ => DataBits::Eight,
        };
        let stop_bits = if line.stop_bits == 2 { StopBits::Two } else { StopBits::One };
        let builder = tokio_serial::new(&line.device, line.baud)
            .parity(parity)
            .data_bits(data_bits)
            .stop_bits(stop_bits);
        let buffer = vec![0; READ_MAX].into_boxed_slice();
        Line { builder, state: State::Closed(Instant::now()), pause: PAUSE_MIN, buffer }
    }

    /// Waits for what happens next. Can be dropped at any time.
    pub(crate) async fn next(&mut self) -> Event {
        match &mut self.state {
            State::Closed(until) => {
                sleep_until(*until).await;
                match SerialStream::open(&self.builder) {
                    Ok(stream) => {
                        self.state = State::Open(stream);
                        Event::Opened
                    }
                    Err(error) => self.lose(&error.into()),
                }
            }
            State::Open(stream) => match stream.read(&mut self.buffer).await {
                Ok(0) => self.lose(&io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.pause = PAUSE_MIN;
                    Event::Heard(count)
                }
                Err(error) => self.lose(&error),
            },
        }
    }

    /// What the last read brought.
    pub(crate) fn bytes(&self, count: usize) -> &[u8] {
        self.buffer.get(..count).unwrap_or_default()
    }

    fn lose(&mut self, error: &io::Error) -> Event {
        let reason = match (&self.state, error.kind()) {
            (State::Open(_), io::ErrorKind::UnexpectedEof) => "the device was unplugged".to_owned(),
            (State::Open(_), _) => format!("the device was lost: {error}"),
            (State::Closed(_), _) => format!("cannot open the device: {error}"),
        };
        self.state = State::Closed(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Event::Lost(reason)
    }
}

/// Bytes of one read.
const READ_MAX: usize = 1_024;

/// Between two attempts, at first.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// And at most: a device that is plugged in again is found within this.
const PAUSE_MAX: Duration = Duration::from_secs(10);
