//! Wires for tests: each notes when a question goes out, before it does.
//!
//! The note is how the server knows how old a question is for the one who asked it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use adapter_modbus::wire::{Connect, Wire};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_serial::SerialStream;

/// When each question went out, at the earliest; the first is poll 1.
pub(crate) type Sent = Arc<Mutex<Vec<Instant>>>;

/// A wire that notes questions.
#[derive(Debug)]
pub(crate) struct Noted<W> {
    pub(crate) wire: W,
    pub(crate) sent: Sent,
}

/// What can be read without waiting.
pub(crate) trait ReadNow {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl ReadNow for SerialStream {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Wire::read_now(self, buffer)
    }
}

impl ReadNow for TcpStream {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Wire::read_now(self, buffer)
    }
}

impl ReadNow for DuplexStream {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(self).poll_read(&mut context, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<W> Wire for Noted<W>
where
    W: ReadNow + AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug + 'static,
{
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read_now(buffer)
    }
}

impl<W: AsyncRead + Unpin> AsyncRead for Noted<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(context, buffer)
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Noted<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            assert_eq!(count, bytes.len(), "a question goes out whole");
            self.sent.lock().expect("no test panics with it").push(now);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

/// Hands out the wires that are there already, one after another.
pub(crate) struct Wires<W>(pub(crate) VecDeque<W>);

impl<W: Wire> Connect for Wires<W> {
    type Wire = W;

    async fn connect(&mut self) -> io::Result<W> {
        self.0.pop_front().ok_or_else(|| io::Error::other("the test has no more wires"))
    }
}
