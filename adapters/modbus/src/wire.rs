//! The line itself: a serial device or a TCP connection, and how it is opened.
//!
//! Knows nothing of Modbus. What runs over a [`Wire`] asks it for one thing that async reading lacks: all
//! that has arrived already, without waiting, so that old bytes can be told from new ones.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_serial::SerialStream;

use crate::checked::{Line, Link, Parity};

/// Something to speak Modbus over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug + 'static {
    /// Reads what is there; `WouldBlock` where there is nothing.
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// Opens a wire, again and again where it breaks.
pub trait Connect: Send + 'static {
    /// What it opens.
    type Wire: Wire;

    /// Opens it, or says why not within ten seconds.
    fn connect(&mut self) -> impl Future<Output = io::Result<Self::Wire>> + Send;
}

/// Opens serial devices.
#[derive(Debug)]
pub struct SerialDialer(Line);

/// Opens TCP connections.
#[derive(Debug)]
pub struct TcpDialer(String);

/// How a link is opened.
#[derive(Debug)]
pub enum Dialer {
    /// A serial device.
    Serial(SerialDialer),
    /// A TCP connection.
    Tcp(TcpDialer),
}

impl Dialer {
    /// The way to open this link.
    pub fn of(link: &Link) -> Dialer {
        match link {
            Link::Serial(line) => Dialer::Serial(SerialDialer(line.clone())),
            Link::Tcp(address) => Dialer::Tcp(TcpDialer(address.clone())),
        }
    }
}

impl Wire for TcpStream {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }
}

impl Wire for SerialStream {
    fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }
}

impl Connect for TcpDialer {
    type Wire = TcpStream;

    async fn connect(&mut self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect(self.0.as_str());
        let stream = match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        // A question is one small packet and its answer is waited for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Connect for SerialDialer {
    type Wire = SerialStream;

    async fn connect(&mut self) -> io::Result<SerialStream> {
        let line = &self.0;
        let parity = match line.parity {
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
            Parity::None => tokio_serial::Parity::None,
        };
        let stop_bits =
            if line.stop_bits == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One };
        let builder = tokio_serial::new(line.device.as_str(), line.baud)
            .data_bits(tokio_serial::DataBits::Eight)
            .parity(parity)
            .stop_bits(stop_bits)
            .flow_control(tokio_serial::FlowControl::None);
        Ok(SerialStream::open(&builder)?)
    }
}

/// How long a device may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
