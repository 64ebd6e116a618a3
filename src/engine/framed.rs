//! The engine behind WebSocket, over real sockets: what a client of another's making sees.
//!
//! The client is tungstenite's own, save where it would not break the rules.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::{Message, WebSocket};

use super::intake::CONNECTION_BYTES_MAX;
use super::testing::{Client, PATIENCE, Running, StoreMode, connect, encode_to};
use crate::codec::{Packet, QoS, Version};
use crate::listener::testing::{Authority, Bearer, secure_listener};
use crate::listener::{Config, Protocol};

/// MQTT within messages of WebSocket.
struct Framed<S> {
    socket: WebSocket<S>,
    /// What came and was not read yet.
    left: io::Cursor<Vec<u8>>,
}

impl<S: Read + Write> Framed<S> {
    fn dial(stream: S) -> Framed<S> {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
        // Larger frames are errors.
        let config = WebSocketConfig::default().max_frame_size(Some(16 << 10));
        let client = tungstenite::client::client_with_config(request, stream, Some(config));
        let Ok((socket, response)) = client else { panic!("refused") };
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Framed { socket, left: io::Cursor::default() }
    }
}

impl<S: Read + Write> Read for Framed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.left.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.left = io::Cursor::new(bytes.to_vec()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => return Ok(0),
                Err(tungstenite::Error::Io(error)) => return Err(error),
                other => panic!("binary messages alone [MQTT5-6.0.0-1], not {other:?}"),
            }
        }
    }
}

impl<S: Read + Write> Write for Framed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(Message::binary(bytes.to_vec())).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(arrange: impl FnOnce(&mut super::Parts)) -> Running {
    Running::start(StoreMode::Prompt, |parts| {
        arrange(parts);
        let (bind, protocol) = ("127.0.0.1:0".to_owned(), "ws".to_owned());
        parts.listeners.push(Config { bind, protocol, ..Config::default() }.check().unwrap());
    })
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn client(running: &Running, client_id: &str) -> Client<Framed<TcpStream>> {
    let mut client = Client::over(Framed::dial(tcp(running.address_of(1))), Version::V5);
    client.greet(client_id);
    client
}

/// Writes what is no upgrade, and reads the answer to its end.
fn answer(running: &Running, request: &[u8]) -> String {
    let mut stream = tcp(running.address_of(1));
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

// [MQTT5-6.0.0-1] [MQTT5-6.0.0-4] [MQTT311-6.0.0-1] [MQTT311-6.0.0-4]
#[test]
fn messages_of_any_size_pass_between_websocket_and_tcp() {
    let running = start(|_| {});
    let mut framed = client(&running, "framed");
    framed.subscribe("t", QoS::AtMostOnce);
    let mut plain = Client::connect(running.address, Version::V311, "plain");
    plain.subscribe("t", QoS::AtMostOnce);
    for size in [0, 1, 100, 125, 126, 65_535, 65_536, 200_000] {
        framed.publish("t", &vec![7; size], QoS::AtMostOnce);
        assert_eq!((framed.message().payload.len(), plain.message().payload.len()), (size, size));
    }
    framed.disconnect();
    running.until(|status| status["engine"]["sockets"] == 1);
}

#[test]
fn websocket_passes_within_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    let server = authority.issue("server", &["localhost"], 1);
    let running = Running::start(StoreMode::Prompt, |parts| {
        let mut listener = secure_listener(server.tls());
        listener.protocol = Protocol::WebSocket;
        parts.listeners.push(listener);
    });
    let stream = Bearer::nobody(&authority.file).dial(running.address_of(1));
    let mut framed = Client::over(Framed::dial(stream), Version::V311);
    framed.greet("framed");
    framed.subscribe("t", QoS::AtMostOnce);
    for size in [1, 20_000, 200_000] {
        framed.publish("t", &vec![7; size], QoS::AtMostOnce);
        assert_eq!(framed.message().payload.len(), size);
    }
    framed.disconnect();
    running.until(|status| status["engine"]["sockets"] == 0);
}

#[test]
fn websocket_passes_over_a_unix_socket_as_from_a_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    let running = Running::start(StoreMode::Prompt, |parts| {
        let (bind, protocol) = (format!("unix:{}", path.display()), "ws".to_owned());
        parts.listeners.push(Config { bind, protocol, ..Config::default() }.check().unwrap());
    });
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut framed = Client::over(Framed::dial(stream), Version::V311);
    framed.greet("proxied");
    framed.disconnect();
    running.until(|status| status["engine"]["sockets"] == 0);
}

// [MQTT5-6.0.0-2] [MQTT311-6.0.0-2]
#[test]
fn packets_may_lie_across_frames_and_frames_may_hold_several() {
    let running = start(|_| {});
    let mut framed = client(&running, "pieces");
    framed.subscribe("t", QoS::AtMostOnce);
    let mut bytes = framed.bytes(&super::testing::publish("t", b"in pieces", QoS::AtMostOnce, 0));
    bytes.extend([0xC0, 0].repeat(3));
    for byte in &bytes {
        framed.send_bytes(&[*byte]);
    }
    assert_eq!(&*framed.message().payload, b"in pieces");
    framed.send_bytes(&bytes);
    for _ in 0..3 {
        assert_eq!(framed.next(), Packet::PingResp);
    }
    assert_eq!(&*framed.message().payload, b"in pieces");
    for _ in 0..3 {
        assert_eq!(framed.next(), Packet::PingResp);
    }
    // One message in fragments.
    let socket = &mut framed.stream().socket;
    for (byte, first) in [(0xC0_u8, true), (0, false)] {
        let opcode = OpCode::Data(if first { Data::Binary } else { Data::Continue });
        socket.send(Message::Frame(Frame::message(vec![byte], opcode, !first))).unwrap();
    }
    assert_eq!(framed.next(), Packet::PingResp);
}

/// Frames may hold anything, but there are clients that look at one packet of a frame and find the next
/// when more comes: paho's C client does.
#[test]
fn whatever_leaves_together_each_packet_has_frames_of_its_own() {
    let running = start(|_| {});
    let mut framed = client(&running, "one-by-one");
    framed.subscribe("t", QoS::AtMostOnce);
    let [small, large] = [10, 40_000]
        .map(|size| framed.bytes(&super::testing::publish("t", &vec![7; size], QoS::AtMostOnce, 0)));
    let pings = [0xC0, 0].repeat(100);
    framed.send_bytes(&[&pings[..], &large, &small].concat());
    let mut expected = vec![vec![0xD0, 0]; 100];
    expected.push(small);
    expected.extend(large.chunks((16 << 10) - 4).map(<[u8]>::to_vec));
    let all = expected.iter().map(Vec::len).sum();
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while bytes < all {
        let Message::Binary(frame) = framed.stream().socket.read().unwrap() else { panic!("MQTT alone") };
        bytes += frame.len();
        frames.push(frame.to_vec());
    }
    expected.sort();
    frames.sort();
    assert!(frames == expected, "{:?}", frames.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn pings_are_answered_and_a_close_is_returned() {
    let running = start(|_| {});
    let mut framed = client(&running, "ping");
    let socket = &mut framed.stream().socket;
    socket.send(Message::Ping("there?".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("there?".into()));
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "".into() };
    socket.close(Some(goodbye.clone())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(Some(goodbye)));
    running.until(|status| status["engine"]["sockets"] == 0);
    assert_eq!(running.count("malformed"), 0);
}

/// Frames that hold nothing: what one client sends is taken in bounded pieces, and others in between.
#[test]
fn frames_that_hold_nothing_hold_up_nobody() {
    let running = start(|_| {});
    let mut bystander = Client::connect(running.address, Version::V5, "bystander");
    // Pings, unasked pongs, and empty pieces of messages, all masked with zeros.
    for first in [0x89, 0x8A, 0x82] {
        let mut wire = client(&running, "flood").into_stream().socket.get_ref().try_clone().unwrap();
        let frames = [first, 0x80, 0, 0, 0, 0].repeat(200_000);
        let (before, sent) = (running.status()["engine"].clone(), frames.len() as u64);
        let figure = |status: &serde_json::Value, name: &str| status[name].as_u64().unwrap();
        let sender = std::thread::spawn(move || wire.write_all(&frames).map(|()| wire));
        running.until(|status| {
            bystander.ping();
            figure(&status["engine"], "bytes_in") >= figure(&before, "bytes_in") + sent
        });
        let turns = running.count("turns") - figure(&before, "turns");
        assert!(turns >= sent / CONNECTION_BYTES_MAX as u64, "{turns} turns for {sent} bytes");
        drop(sender.join().unwrap());
        running.until(|status| status["engine"]["sockets"] == 1);
    }
    assert_eq!(running.count("malformed"), 0);
}

// [MQTT5-6.0.0-1] [MQTT311-6.0.0-1]
#[test]
fn text_ends_the_connection_and_is_counted() {
    let running = start(|_| {});
    let mut framed = client(&running, "text");
    framed.stream().socket.send(Message::text("hello")).unwrap();
    assert!(matches!(framed.next(), Packet::Disconnect(end) if end.reason.is_error()));
    let Message::Close(Some(close)) = framed.stream().socket.read().unwrap() else { panic!("a close") };
    assert_eq!(close.code, CloseCode::Unsupported);
    running.until(|status| status["engine"]["sockets"] == 0);
    assert_eq!(running.count("malformed"), 1);
}

#[test]
fn what_came_before_the_rules_were_broken_counts() {
    let running = start(|_| {});
    let mut bystander = Client::connect(running.address, Version::V5, "bystander");
    bystander.subscribe("t", QoS::AtMostOnce);
    let mut framed = client(&running, "hasty");
    let publish = framed.bytes(&super::testing::publish("t", b"good", QoS::AtMostOnce, 0));
    let length = 0x80 | u8::try_from(publish.len()).unwrap();
    // One frame masked with zeros, then a bare one, then what a reset would be the answer to.
    let bytes = [&[0x82, length, 0, 0, 0, 0][..], &publish, &[0x82, 2, 0xC0, 0], &[0; 100_000]].concat();
    framed.stream().socket.get_mut().write_all(&bytes).unwrap();
    assert_eq!(&*bystander.message().payload, b"good");
    assert!(matches!(framed.next(), Packet::Disconnect(_)), "no reset overtakes it");
    let Message::Close(Some(close)) = framed.stream().socket.read().unwrap() else { panic!("a close") };
    assert_eq!(close.code, CloseCode::Protocol);
}

#[test]
fn a_frame_that_is_not_masked_ends_the_connection() {
    let running = start(|_| {});
    let mut framed = client(&running, "bare");
    framed.stream().socket.get_mut().write_all(&[0x82, 2, 0xC0, 0]).unwrap();
    assert!(matches!(framed.next(), Packet::Disconnect(_)));
    let Message::Close(Some(close)) = framed.stream().socket.read().unwrap() else { panic!("a close") };
    assert_eq!(close.code, CloseCode::Protocol);
}

#[test]
fn what_is_no_upgrade_gets_its_status_and_the_end() {
    let running = start(|_| {});
    let mut bystander = client(&running, "bystander");
    let mut hello = Vec::new();
    encode_to(&connect(Version::V5, "lost"), &mut hello);
    for (request, status) in [
        (&b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n"[..], "HTTP/1.1 426 "),
        (b"GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 "),
        (&hello, "HTTP/1.1 400 "),
        (&[b'A'; 8_192], "HTTP/1.1 431 "),
    ] {
        let answer = answer(&running, request);
        assert!(answer.starts_with(status), "{answer}");
        bystander.ping();
    }
    running.until(|status| status["engine"]["malformed"] == 5 && status["engine"]["sockets"] == 1);
}

#[test]
fn a_page_of_another_place_comes_in_only_where_it_is_listed() {
    let request = b"GET /mqtt HTTP/1.1\r\nHost: x\r\nOrigin: https://panel.example\r\n\r\n";
    assert!(answer(&start(|_| {}), request).starts_with("HTTP/1.1 403 "));
    let running = Running::start(StoreMode::Prompt, |parts| {
        let (bind, protocol) = ("127.0.0.1:0".to_owned(), "ws".to_owned());
        let allowed_origins = vec!["https://panel.example".to_owned()];
        parts
            .listeners
            .push(Config { bind, protocol, allowed_origins, ..Config::default() }.check().unwrap());
    });
    // Past the origin, it lacks what makes an upgrade.
    assert!(answer(&running, request).starts_with("HTTP/1.1 426 "));
}

#[test]
fn a_slow_reader_gets_all_of_what_waits_for_it_in_whole_frames() {
    let running = start(|parts| parts.limits.max_send_buffer = 64 << 20);
    let mut slow = client(&running, "slow");
    slow.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(running.address, Version::V311, "pub");
    for number in 0..200_u32 {
        publisher.publish("t", &number.to_be_bytes().repeat(25_000), QoS::AtMostOnce);
    }
    publisher.ping();
    slow.stream().socket.send(Message::Ping("between".into())).unwrap();
    for number in 0..200_u32 {
        let message = slow.message();
        assert_eq!((message.payload.len(), &message.payload[99_996..]), (100_000, &number.to_be_bytes()[..]));
    }
    slow.ping();
}

#[test]
fn pings_that_nobody_reads_the_answers_of_take_no_memory_and_hold_up_nobody() {
    let running = start(|_| {});
    let mut flood = client(&running, "flood");
    let mut bystander = Client::connect(running.address, Version::V5, "bystander");
    // Masked with zeros, 125 bytes each: answered in full they would be as many bytes again.
    let ping = [&[0x89, 0xFD, 0, 0, 0, 0][..], &[b'p'; 125]].concat().repeat(1_000);
    let mut writer = flood.stream().socket.get_mut().try_clone().unwrap();
    let sender = std::thread::spawn(move || (0..300).try_for_each(|_| writer.write_all(&ping)));
    for _ in 0..100 {
        bystander.ping();
    }
    sender.join().unwrap().unwrap();
    // All were taken in although no answer was read; what is owed is one pong at a time.
    running.until(|status| status["engine"]["bytes_in"].as_u64() >= Some(300 * 131_000));
    bystander.ping();
    let socket = &mut flood.stream().socket;
    socket.send(Message::Ping("last".into())).unwrap();
    let mut pongs = 0;
    while socket.read().unwrap() != Message::Pong("last".into()) {
        pongs += 1;
    }
    // What the kernel took meanwhile came; the answers to the rest nobody has kept.
    assert!(pongs < 150_000, "{pongs} pongs for 300000 pings");
    socket.get_mut().shutdown(Shutdown::Both).unwrap();
    running.until(|status| status["engine"]["sockets"] == 1);
}
