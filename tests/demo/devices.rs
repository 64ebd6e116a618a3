//! Simulated devices: a Modbus meter, a scale on a serial line, an MQTT-SN sensor.
//!
//! Each runs in a thread of its own for as long as the demo does, and speaks its protocol from scratch,
//! so that the gateway's adapters meet something that does not share their code.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::stand::{SerialWire, monotonic};

/// A Modbus TCP meter: input registers 0 and 1 are the voltage as a float, 2 and 3 the power.
pub struct Meter {
    /// Where it listens.
    pub port: u16,
}

impl Meter {
    /// Starts it.
    pub fn start() -> Meter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                thread::spawn(move || serve(socket));
            }
        });
        Meter { port }
    }
}

/// Answers reads of registers (functions 3 and 4) until the connection ends.
fn serve(mut socket: TcpStream) {
    let start = monotonic();
    let mut request = [0; 12];
    while socket.read_exact(&mut request).is_ok() {
        let seconds = start.elapsed().as_secs_f32();
        let registers: Vec<u8> =
            [230.0 + (seconds / 7.0).sin() * 3.0, 1_500.0 + (seconds / 3.0).cos() * 400.0]
                .iter()
                .flat_map(|value: &f32| value.to_be_bytes())
                .collect();
        let from = usize::from(u16::from_be_bytes([request[8], request[9]])) * 2;
        let count = usize::from(u16::from_be_bytes([request[10], request[11]])) * 2;
        let body: Vec<u8> = (from..from + count).map(|at| registers.get(at).copied().unwrap_or(0)).collect();
        let mut answer = request[..4].to_vec();
        answer.extend(u16::try_from(body.len() + 3).unwrap().to_be_bytes());
        answer.extend([request[6], request[7], u8::try_from(body.len()).unwrap()]);
        answer.extend(body);
        if socket.write_all(&answer).is_err() {
            return;
        }
    }
}

/// A scale that says its weight once a second.
pub struct Scale {
    /// Its line.
    pub wire: SerialWire,
}

impl Scale {
    /// Starts it.
    pub fn start(folder: &Path) -> Scale {
        let wire = SerialWire::plug(folder);
        let mut near = wire.near();
        thread::spawn(move || {
            for turn in 0_u32.. {
                let weight = 12.0 + f64::from(turn % 20) * 0.05;
                if write!(near, "ST,GS,{weight:+.2} kg\r\n").is_err() {
                    return;
                }
                thread::park_timeout(Duration::from_secs(1));
            }
        });
        Scale { wire }
    }
}

/// A soil sensor that speaks MQTT-SN: connects, registers its topic, publishes at QoS 1.
pub struct Sensor;

impl Sensor {
    /// Starts it towards this port.
    pub fn start(port: u16) -> Sensor {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        thread::spawn(move || {
            loop {
                // Any failure is met as a mote would: connect anew.
                if sense(&socket).is_none() {
                    thread::park_timeout(Duration::from_secs(1));
                }
            }
        });
        Sensor
    }
}

fn sense(socket: &UdpSocket) -> Option<()> {
    let connect = [&[12, 0x04, 0x04, 0x01, 0, 60][..], b"soil-1"].concat();
    ask(socket, &connect, 0x05)?;
    let register = [&[22, 0x0A, 0, 0, 0, 1][..], b"sensors/soil/1/w"].concat();
    let answer = ask(socket, &register, 0x0B)?;
    let topic = [*answer.get(2)?, *answer.get(3)?];
    for id in 2_u16.. {
        let payload = format!("{:.1}", 31.0 + f32::from(id % 12) * 0.1);
        let mut publish = vec![u8::try_from(7 + payload.len()).ok()?, 0x0C, 0x20, topic[0], topic[1]];
        publish.extend(id.to_be_bytes());
        publish.extend(payload.as_bytes());
        ask(socket, &publish, 0x0D)?;
        thread::park_timeout(Duration::from_secs(1));
    }
    None
}

/// Sends a message and waits for the answer of this type.
fn ask(socket: &UdpSocket, message: &[u8], answer: u8) -> Option<Vec<u8>> {
    socket.send(message).ok()?;
    let mut buffer = [0; 256];
    loop {
        let count = socket.recv(&mut buffer).ok()?;
        if buffer.get(1) == Some(&answer) {
            return Some(buffer[..count].to_vec());
        }
    }
}
