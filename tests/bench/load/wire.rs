//! One connection's bytes: plain, within TLS, or within WebSocket.
//!
//! Packets go in and come out; what is around them is put on and taken off here, on buffers that the
//! caller lends. The handshakes block, everything after them does not wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::frames::{self, Frames};
use super::patience::STALL;

/// An open connection.
pub(crate) struct Wire {
    socket: TcpStream,
    form: Form,
}

enum Form {
    Plain,
    Tls(Box<ClientConnection>),
    WebSocket(Frames),
}

/// How to make one.
#[derive(Clone)]
pub(crate) enum Dial {
    Plain,
    Tls(Arc<ClientConfig>),
    WebSocket,
}

/// What a look at the socket has brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// So many bytes of packets; there may be more in the socket.
    Some(usize),
    /// So many, and the socket is empty.
    All(usize),
    /// The broker has closed it.
    Closed,
}

/// Whether all that was to be sent has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// The socket takes no more for now.
    Part,
}

impl Dial {
    /// TLS that trusts this authority.
    pub(crate) fn tls(authority: &Path) -> Dial {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Dial::Tls(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl Wire {
    /// Connects; the socket blocks until [`Wire::unblock`].
    pub(crate) fn connect(dial: &Dial, port: u16) -> io::Result<Wire> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(STALL))?;
        socket.set_write_timeout(Some(STALL))?;
        let form = match dial {
            Dial::Plain => Form::Plain,
            Dial::Tls(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                tls.set_buffer_limit(None);
                while tls.is_handshaking() {
                    tls.complete_io(&mut socket)?;
                }
                Form::Tls(Box::new(tls))
            }
            Dial::WebSocket => {
                frames::upgrade(&mut socket)?;
                Form::WebSocket(Frames::default())
            }
        };
        Ok(Wire { socket, form })
    }

    /// From now on nothing waits.
    pub(crate) fn unblock(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// From now on everything waits.
    pub(crate) fn block(&self) -> io::Result<()> {
        self.socket.set_nonblocking(false)
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Acknowledges on the level of TCP at once what was received.
    pub(crate) fn acknowledge(&self) {
        let _ = socket2::SockRef::from(&self.socket).set_tcp_quickack(true);
    }

    /// Reads once, into `raw`, and leaves the packets' bytes at the front of `plain`.
    pub(crate) fn fill(&mut self, raw: &mut [u8], plain: &mut [u8]) -> io::Result<Filled> {
        let into = if matches!(self.form, Form::Plain) { &mut plain[..raw.len()] } else { &mut *raw };
        let count = match self.socket.read(into) {
            Ok(0) => return Ok(Filled::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Filled::All(0)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Filled::Closed),
            Err(error) => return Err(error),
        };
        let bytes = match &mut self.form {
            Form::Plain => count,
            Form::Tls(tls) => open(tls, &raw[..count], plain)?,
            Form::WebSocket(frames) => frames.unwrap(&raw[..count], plain)?,
        };
        // A short read of a stream has emptied it.
        Ok(if count < raw.len() { Filled::All(bytes) } else { Filled::Some(bytes) })
    }

    /// Sends these packets and what was left before; what does not go now is kept.
    pub(crate) fn send(&mut self, packets: &mut Vec<u8>) -> io::Result<Sent> {
        match &mut self.form {
            Form::Plain => write(&mut self.socket, packets),
            Form::WebSocket(frames) => {
                frames.wrap(packets);
                packets.clear();
                write(&mut self.socket, &mut frames.out)
            }
            Form::Tls(tls) => {
                tls.writer().write_all(packets)?;
                packets.clear();
                while tls.wants_write() {
                    match tls.write_tls(&mut self.socket) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Sent::Part),
                        Err(error) => return Err(error),
                    }
                }
                Ok(Sent::All)
            }
        }
    }
}

fn write(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Sent> {
    let mut done = 0;
    while done < bytes.len() {
        match socket.write(&bytes[done..]) {
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bytes.drain(..done);
                return Ok(Sent::Part);
            }
            Err(error) => return Err(error),
        }
    }
    bytes.clear();
    Ok(Sent::All)
}

/// The plain text of these bytes of TLS.
fn open(tls: &mut ClientConnection, mut raw: &[u8], plain: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while !raw.is_empty() {
        tls.read_tls(&mut raw)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let end = at + state.plaintext_bytes_to_read();
        while at < end {
            at += tls.reader().read(&mut plain[at..end])?;
        }
    }
    Ok(at)
}
