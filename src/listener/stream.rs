//! One accepted stream as the poll loop sees it: TCP, TLS or Unix, and WebSocket over each.
//!
//! Never blocks; what it cannot do now it says with `WouldBlock`.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use super::{Protocol, Secured, WebSocket};

/// A non-blocking stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<Secured>),
    /// WebSocket over one of the others.
    WebSocket(Box<WebSocket>),
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that were taken from the kernel: under TLS perhaps none, or more than the buffer holds.
    pub wire: usize,
    /// Bytes of MQTT, at the front of the buffer.
    pub plain: usize,
}

/// The other end, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPeer {
    /// Its address.
    Tcp(SocketAddr),
    /// A program on this machine.
    Unix,
}

impl Stream {
    /// The same stream as a listener of this protocol understands it; the origins are those of pages that
    /// are welcome.
    pub(super) fn speaking(self, protocol: Protocol, origins: &Arc<[String]>) -> Stream {
        match protocol {
            Protocol::Mqtt => self,
            Protocol::WebSocket => Stream::WebSocket(Box::new(WebSocket::new(self, origins.clone()))),
        }
    }

    /// Reads once; `None` where the peer has ended the stream.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; `InvalidData` where what came is none of what is spoken here.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let count = match self {
            Stream::Tcp(stream) => stream.read(buffer)?,
            Stream::Unix(stream) => stream.read(buffer)?,
            Stream::Tls(stream) => return stream.receive(buffer),
            Stream::WebSocket(stream) => return stream.receive(buffer),
        };
        Ok((count > 0).then_some(Received { wire: count, plain: count }))
    }

    /// Reads what nobody will understand any more, below TLS and WebSocket; no bytes at the end.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.stream.read(buffer),
            Stream::WebSocket(stream) => stream.inner.discard(buffer),
        }
    }

    /// Says in the words of TLS and WebSocket that nothing more will be written, where they are spoken.
    pub fn say_goodbye(&mut self) {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => {}
            Stream::Tls(stream) => stream.say_goodbye(),
            Stream::WebSocket(stream) => stream.say_goodbye(),
        }
    }

    /// Whether the peer answers that in the same words, and would rather not find nobody there.
    pub fn answers_goodbye(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(_) | Stream::WebSocket(_) => true,
        }
    }

    /// Says to the kernel that nothing more will be written.
    pub fn end_writing(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.stream.shutdown(Shutdown::Write),
            Stream::WebSocket(stream) => stream.inner.end_writing(),
        }
    }

    /// Whether a read that fills less than its buffer has emptied the kernel's, so that what comes later is
    /// told anew. Otherwise only `WouldBlock` says so.
    pub fn ends_with_a_short_read(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => true,
            Stream::Tls(_) | Stream::WebSocket(_) => false,
        }
    }

    /// Bytes that wait within TLS and WebSocket, on their way in or out.
    pub fn held(&self) -> usize {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => 0,
            Stream::Tls(stream) => stream.held(),
            Stream::WebSocket(stream) => stream.held(),
        }
    }

    /// What TLS takes for as long as the connection stands.
    pub fn resting(&self) -> usize {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => 0,
            Stream::Tls(stream) => stream.resting(),
            Stream::WebSocket(stream) => stream.inner.resting(),
        }
    }

    /// Whether bytes that nobody has written wait to leave: see [`Write::flush`].
    pub fn wants_write(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(stream) => stream.wants_write(),
            Stream::WebSocket(stream) => stream.wants_write(),
        }
    }
}

impl StreamPeer {
    /// Where it comes from; nowhere for a program on this machine.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            StreamPeer::Tcp(address) => Some(address.ip()),
            StreamPeer::Unix => None,
        }
    }
}

/// The kernel may have room for megabytes, and to copy them would keep others waiting.
fn at_once(bytes: &[u8]) -> &[u8] {
    bytes.get(..WRITE_BYTES_MAX).unwrap_or(bytes)
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(at_once(bytes)),
            Stream::Unix(stream) => stream.write(at_once(bytes)),
            Stream::Tls(stream) => stream.write(bytes),
            Stream::WebSocket(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(parts),
            Stream::Unix(stream) => stream.write_vectored(parts),
            Stream::Tls(stream) => stream.write_vectored(parts),
            Stream::WebSocket(stream) => stream.write_vectored(parts),
        }
    }

    /// Sends what was written and has not left: `WouldBlock` while the kernel does not take all of it.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
            Stream::Tls(stream) => stream.flush(),
            Stream::WebSocket(stream) => stream.flush(),
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
            Stream::Tls(stream) => stream.stream.register(registry, token, interests),
            Stream::WebSocket(stream) => stream.inner.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
            Stream::Tls(stream) => stream.stream.reregister(registry, token, interests),
            Stream::WebSocket(stream) => stream.inner.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
            Stream::Tls(stream) => stream.stream.deregister(registry),
            Stream::WebSocket(stream) => stream.inner.deregister(registry),
        }
    }
}

impl fmt::Display for StreamPeer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamPeer::Tcp(address) => address.fmt(out),
            StreamPeer::Unix => out.write_str("unix"),
        }
    }
}

/// What one write hands to the kernel at most.
const WRITE_BYTES_MAX: usize = 64 << 10;
