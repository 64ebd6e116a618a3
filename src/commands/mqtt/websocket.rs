//! WebSocket of `pub` and `sub`, over TCP or TLS: the upgrade, then MQTT's bytes in masked frames.
//!
//! tungstenite reads, and answers pings and the close by itself; what we send is put into frames here, so
//! that a thread that waits for the broker keeps no other from writing. Both write whole frames under one
//! lock. A frame's mask is random, as proxies on the way want it.

use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, anyhow, bail};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Error, Message};

use super::link::PACKET_MAX;
use super::stream::Stream;

/// WebSocket, as one of the two threads sees it.
pub(super) struct WebSocket {
    /// The reading thread's alone, which holds it while it waits.
    inward: Arc<Mutex<Inward>>,
    outward: Outward,
    /// For the end, which waits for nobody.
    socket: Box<Stream>,
}

struct Inward {
    socket: tungstenite::WebSocket<Duplex>,
    /// What came and was not taken yet.
    left: Cursor<tungstenite::Bytes>,
}

/// The stream, for who writes whole frames.
type Outward = Arc<Mutex<Stream>>;

/// What tungstenite reads from and answers into.
struct Duplex {
    inward: Stream,
    outward: Outward,
}

impl WebSocket {
    /// Asks the broker at this host and port to speak WebSocket.
    pub(super) fn open(stream: Stream, host: &str, port: u16) -> anyhow::Result<WebSocket> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let mut request = format!("ws://{host}:{port}{PATH}").into_client_request()?;
        // [MQTT5-6.0.0-3] [MQTT311-6.0.0-3]
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        let inward = stream.try_clone().context("read from the broker")?;
        let socket = Box::new(stream.try_clone().context("read from the broker")?);
        let outward = Arc::new(Mutex::new(stream));
        let duplex = Duplex { inward, outward: outward.clone() };
        let config =
            WebSocketConfig::default().max_frame_size(Some(FRAME_MAX)).max_message_size(Some(FRAME_MAX));
        let (framed, response) = match tungstenite::client::client_with_config(request, duplex, Some(config))
        {
            Ok(opened) => opened,
            Err(HandshakeError::Failure(Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                bail!("the answer is {}: {}", response.status(), String::from_utf8_lossy(body).trim())
            }
            Err(error) => return Err(anyhow!("{error}")),
        };
        if response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_none_or(|chosen| chosen != PROTOCOL) {
            bail!("the broker speaks no MQTT within it");
        }
        let inward = Arc::new(Mutex::new(Inward { socket: framed, left: Cursor::default() }));
        Ok(WebSocket { inward, outward, socket })
    }

    pub(super) fn try_clone(&self) -> io::Result<WebSocket> {
        let socket = Box::new(self.socket.try_clone()?);
        Ok(WebSocket { inward: self.inward.clone(), outward: self.outward.clone(), socket })
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inward = lock(&self.inward);
        loop {
            let count = inward.left.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match inward.socket.read() {
                Ok(Message::Binary(bytes)) => inward.left = Cursor::new(bytes),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(0),
                // [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
                Ok(Message::Text(_)) => return Err(io::Error::other("text came, which is no MQTT")),
                Err(Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send(Frame::message(bytes.to_vec(), OpCode::Data(Data::Binary), true))
    }

    /// The broker answers it, and ends the connection.
    pub(super) fn say_end(&mut self) -> io::Result<()> {
        self.send(Frame::close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })))
    }

    pub(super) fn shutdown(&self) {
        self.socket.shutdown();
    }

    fn send(&self, mut frame: Frame) -> io::Result<()> {
        let mut mask = [0; 4];
        getrandom::fill(&mut mask).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        frame.header_mut().mask = Some(mask);
        let mut bytes = Vec::with_capacity(frame.len());
        frame.format(&mut bytes).map_err(io::Error::other)?;
        lock(&self.outward).write_all(&bytes)
    }
}

impl Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inward.read(buffer)
    }
}

impl Write for Duplex {
    /// All of it, so that no frame of the other thread comes in between.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.outward).write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where brokers serve MQTT over WebSocket, by custom.
const PATH: &str = "/mqtt";

/// The subprotocol.
const PROTOCOL: &str = "mqtt";

/// Bytes of the largest frame and message taken: room is made for as much as a header announces. MQTT may
/// be cut into frames anywhere, but most brokers send a packet in one, so it is what MQTT allows at most.
const FRAME_MAX: usize = PACKET_MAX;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use tungstenite::handshake::derive_accept_key;

    use super::*;

    #[test]
    fn a_frame_that_announces_more_than_any_packet_has_is_an_error_and_makes_no_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let broker = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let request = String::from_utf8(request).unwrap();
            let named = |line: &str| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.to_owned())
            };
            let key = request.lines().find_map(named).unwrap();
            let accept = derive_accept_key(key.as_bytes());
            let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
            let answer = format!(
                "{upgrade}\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).unwrap();
            // 2^62 bytes, in one binary frame.
            stream.write_all(&[0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
            stream
        });
        let stream = Stream::Tcp(TcpStream::connect(address).unwrap());
        let mut socket = WebSocket::open(stream, "127.0.0.1", address.port()).unwrap();
        let error = socket.read(&mut [0; 16]).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        drop(broker.join().unwrap());
    }
}
