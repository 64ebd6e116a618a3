//! A TCP stream under TLS, after its handshake.
//!
//! Reads and writes plain bytes and never blocks. Plain bytes that rustls holds are handed out before the
//! kernel is asked again: once a read says `WouldBlock`, nothing is left here that the poll loop would
//! have to be told of. One call asks the kernel once at most, since a peer may send records without end
//! that hold nothing.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::Received;

/// TLS over TCP.
#[derive(Debug)]
pub struct Secured {
    pub(super) stream: TcpStream,
    connection: ServerConnection,
    /// What the peer has done against the rules of TLS, told once what came before it is taken.
    broken: Option<rustls::Error>,
}

impl Secured {
    /// After the handshake; what follows it in the same bytes is kept.
    pub(super) fn new(stream: TcpStream, mut connection: ServerConnection) -> Secured {
        connection.set_buffer_limit(Some(SEALED_MAX));
        Secured { stream, connection, broken: None }
    }

    /// Plain bytes, and how many sealed ones were read for them; `None` where the peer has ended the stream.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.connection.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            held => return held.map(|plain| (plain > 0).then_some(Received { wire: 0, plain })),
        }
        if let Some(error) = &self.broken {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        let wire = self.connection.read_tls(&mut self.stream)?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert says why; a peer that takes no bytes goes without.
            let _ = self.push();
            self.broken = Some(error);
        }
        match self.connection.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(Received { wire, plain: 0 })),
            read => read.map(|plain| (plain > 0).then_some(Received { wire, plain })),
        }
    }

    /// Whether bytes of TLS itself wait to leave: tickets, alerts, new keys.
    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Says within TLS that nothing more comes, so that the peer knows that nobody has cut it short.
    pub(super) fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
        // All that was to leave has left, so these few bytes find room, or nobody will miss them.
        let _ = self.push();
    }

    fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    fn taken(&mut self, taken: usize) -> io::Result<usize> {
        match self.push() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(taken),
            pushed => pushed.map(|()| taken),
        }
    }
}

impl Write for Secured {
    /// Takes plain bytes only once those before have left, so that little waits here.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let taken = self.connection.writer().write(bytes)?;
        self.taken(taken)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.push()?;
        let taken = self.connection.writer().write_vectored(parts)?;
        self.taken(taken)
    }

    /// `WouldBlock` while not all has left.
    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// Bytes of MQTT that wait here sealed, at most: one record. More waits where it was written.
const SEALED_MAX: usize = 16 << 10;
