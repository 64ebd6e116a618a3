//! The guard on a wire: what tokio-modbus reads and writes through.
//!
//! A [`Line`] and its clones share one wire: tokio-modbus owns one and sees only answers, the bus keeps
//! another to listen between polls. All bytes pass the [`Guard`], whoever reads them. No rule of Modbus
//! stands here.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use adapter_api::clock::{Wall, wall};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::guard::{Asked, Event, Guard, Quarantined};
use crate::timer::Timer;
use crate::wire::Wire;

/// A guarded wire.
#[derive(Debug)]
pub(crate) struct Line<W> {
    shared: Arc<Mutex<Shared<W>>>,
}

#[derive(Debug)]
struct Shared<W> {
    wire: W,
    timer: Timer,
    guard: Guard,
    /// An answer on its way to tokio-modbus, at most one frame.
    answer: BytesMut,
    /// When the last byte of the last answer was there.
    answered: Option<Wall>,
    /// When a byte was last read or written.
    active: Duration,
    /// When a byte was last read.
    heard_at: Duration,
    /// Bytes of the question written, and when the last of them was.
    written: usize,
    sent_at: Duration,
    heard: Heard,
}

/// What was on the line besides answers, since it was last looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Late answers by unit: how many, and how long after its question the last one came.
    pub(crate) late: BTreeMap<u8, (u64, Duration)>,
    /// Frames that answer nothing we asked.
    pub(crate) foreign: u64,
    /// Runs of bytes that are no frame.
    pub(crate) corrupt: u64,
}

impl<W: Wire> Line<W> {
    pub(crate) fn new(wire: W, guard: Guard, timer: Timer) -> Line<W> {
        let now = timer.now();
        let shared = Shared {
            wire,
            timer,
            guard,
            answer: BytesMut::new(),
            answered: None,
            active: now,
            heard_at: now,
            written: 0,
            sent_at: now,
            heard: Heard::default(),
        };
        Line { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Begins a question, on a line that has been silent for `quiet`; says when to try again where it was not.
    pub(crate) fn ask(&self, asked: Asked, quiet: Duration) -> io::Result<Result<(), Busy>> {
        let mut shared = self.lock();
        shared.read_all()?;
        let now = shared.timer.now();
        let silent_from = shared.active + quiet;
        if silent_from > now {
            return Ok(Err(Busy::Until(silent_from)));
        }
        let mut events = Vec::new();
        let asking = shared.guard.ask(asked, now, &mut events);
        shared.note(events);
        shared.answer.clear();
        shared.answered = None;
        (shared.written, shared.sent_at) = (0, now);
        Ok(asking.map_err(|Quarantined| Busy::Quarantined))
    }

    /// Ends a question without an answer, which may still come for `span` after the question went out.
    /// Returns until when.
    pub(crate) fn give_up(&self, span: Duration) -> Duration {
        let mut shared = self.lock();
        let until = shared.sent_at + span;
        shared.guard.give_up(until);
        until
    }

    /// Until when this unit must not be asked.
    pub(crate) fn quarantine(&self, unit: u8) -> Option<Duration> {
        let shared = self.lock();
        shared.guard.quarantine(unit, shared.timer.now())
    }

    /// When the last byte of the last answer was there.
    pub(crate) fn answered(&self) -> Option<Wall> {
        self.lock().answered
    }

    /// Bytes of the question that are out.
    pub(crate) fn written(&self) -> usize {
        self.lock().written
    }

    /// When a byte last came in.
    pub(crate) fn heard_at(&self) -> Duration {
        self.lock().heard_at
    }

    /// What else was heard since the last call.
    pub(crate) fn heard(&self) -> Heard {
        std::mem::take(&mut self.lock().heard)
    }

    /// Listens until then, or until a late answer came.
    pub(crate) async fn listen(&self, until: Duration) -> io::Result<()> {
        let time = self.lock().timer;
        let timer = tokio::time::sleep_until(time.at(until));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                read = std::future::poll_fn(|context| self.lock().poll_wire(context)) => read?,
                () = &mut timer => return self.lock().read_all(),
            }
            // The time is looked at here as well: who never stops talking would keep the timer waiting.
            if time.now() >= until || !self.lock().heard.late.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends the use of this wire: the guard lives on, for the next one.
    pub(crate) fn into_guard(self) -> Guard {
        std::mem::replace(&mut self.lock().guard, Guard::tcp())
    }

    fn lock(&self) -> MutexGuard<'_, Shared<W>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a question cannot go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The line has to be silent first, at the earliest until then.
    Until(Duration),
    /// The unit still owes an answer.
    Quarantined,
}

impl<W: Wire> Shared<W> {
    fn poll_wire(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.wire).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.take(buffer.filled())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// All that is there now, save where it does not end: then the line is not silent either.
    fn read_all(&mut self) -> io::Result<()> {
        let mut bytes = [0; CHUNK];
        for _ in 0..CHUNKS_MAX {
            match self.wire.read_now(&mut bytes) {
                Ok(count) => self.take(bytes.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut events = Vec::new();
        let now = self.timer.now();
        (self.active, self.heard_at) = (now, now);
        let taken = self.guard.take(bytes, now, &mut events);
        self.note(events);
        taken.map_err(io::Error::other)
    }

    fn note(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Answer(frame) => {
                    self.answered = Some(wall());
                    self.answer.extend_from_slice(&frame);
                }
                Event::Late { unit, after } => {
                    let late = self.heard.late.entry(unit).or_default();
                    *late = (late.0 + 1, after);
                }
                Event::Foreign { .. } => self.heard.foreign += 1,
                Event::Corrupt => self.heard.corrupt += 1,
                Event::Echo => {}
            }
        }
    }
}

impl<W> Clone for Line<W> {
    fn clone(&self) -> Line<W> {
        Line { shared: Arc::clone(&self.shared) }
    }
}

impl<W: Wire> AsyncRead for Line<W> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.lock();
        while shared.answer.is_empty() {
            match shared.poll_wire(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = shared.answer.len().min(buffer.remaining());
        buffer.put_slice(shared.answer.get(..count).unwrap_or_default());
        shared.answer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire> AsyncWrite for Line<W> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let written = Pin::new(&mut shared.wire).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            shared.guard.sent(bytes.get(..count).unwrap_or_default());
            shared.written += count;
            let now = shared.timer.now();
            (shared.active, shared.sent_at) = (now, now);
        }
        written
    }

    /// The kernel sends by itself. Flushing a serial device would stop this thread, and with it every other
    /// adapter, until the last bit is out.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// More than a frame.
const CHUNK: usize = 512;

/// More than the buffers of a serial device or a TCP connection in one go would be an endless talker.
const CHUNKS_MAX: usize = 1_024;
