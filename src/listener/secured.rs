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
    /// Plain bytes that have come and were not taken.
    plain: usize,
    /// Sealed bytes that have come and made no plain ones yet: half a record, at most a whole one.
    begun: usize,
    /// Bytes that were sealed, or are about to be, and have not left.
    sealed: usize,
    /// What rustls keeps as long as the connection stands, whatever passes.
    resting: usize,
    /// What the peer has done against the rules of TLS, told once what came before it is taken.
    broken: Option<rustls::Error>,
}

impl Secured {
    /// After the handshake; what follows it in the same bytes is kept.
    pub(super) fn new(stream: TcpStream, mut connection: ServerConnection) -> Secured {
        connection.set_buffer_limit(Some(SEALED_MAX));
        let shown = connection.peer_certificates().unwrap_or_default();
        let resting = RESTING_BYTES + shown.iter().map(|certificate| certificate.len()).sum::<usize>();
        Secured { stream, connection, plain: 0, begun: 0, sealed: 0, resting, broken: None }
    }

    /// Bytes that wait here, on their way in or out.
    pub(super) fn held(&self) -> usize {
        self.plain + self.begun + self.sealed
    }

    /// What it takes beside them, also when it is idle.
    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    /// Plain bytes, and how many sealed ones were read for them; `None` where the peer has ended the stream.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match self.take(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            held => return held.map(|plain| (plain > 0).then_some(Received { wire: 0, plain })),
        }
        if let Some(error) = &self.broken {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        let wire = self.connection.read_tls(&mut self.stream)?;
        match self.connection.process_new_packets() {
            Ok(state) => {
                self.plain = state.plaintext_bytes_to_read();
                self.sealed = state.tls_bytes_to_write();
                self.begun = if self.plain > 0 { 0 } else { (self.begun + wire).min(RECORD_MAX) };
            }
            Err(error) => {
                // The alert says why; a peer that takes no bytes goes without.
                let _ = self.push();
                self.broken = Some(error);
            }
        }
        match self.take(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(Received { wire, plain: 0 })),
            read => read.map(|plain| (plain > 0).then_some(Received { wire, plain })),
        }
    }

    /// Takes plain bytes that are there.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.connection.reader().read(buffer)?;
        self.plain = self.plain.saturating_sub(taken);
        Ok(taken)
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
            let left = self.connection.write_tls(&mut self.stream)?;
            self.sealed = self.sealed.saturating_sub(left);
        }
        self.sealed = 0;
        Ok(())
    }

    fn taken(&mut self, taken: usize) -> io::Result<usize> {
        self.sealed += taken;
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

/// What an idle connection takes: 4,096 bytes that rustls has read into and never gives back, the keys of both
/// directions, its state. Measured: 2,000 clients took 7,800 bytes of resident memory more than over TCP.
const RESTING_BYTES: usize = 7_800;

/// Bytes of the largest record.
const RECORD_MAX: usize = (16 << 10) + 2_048 + 5;
