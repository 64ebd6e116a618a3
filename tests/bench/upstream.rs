//! A cloud that takes messages as fast as they come, and counts and times them.
//!
//! It acknowledges as many new ones as it is told to and hangs up; until it is told of more it hangs up
//! at once. Of each topic a message may come again, but none before the one ahead of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate::codec::{Ack, ConnAck, Decoder, Packet, Properties, QoS, Reason, Side, Version, encode};

use crate::process::running_time;
use crate::publisher::number;
use crate::stand::{HANG, monotonic};

/// The cloud.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    changed: Condvar,
}

#[derive(Default)]
struct Tally {
    /// Messages that it has not seen yet and that may still be acknowledged.
    allowed: u64,
    watched: Watched,
    /// Of each topic the number that is next.
    next: BTreeMap<String, u64>,
    /// When the first and the last of the allowed ones came, and what the process had run then.
    first: Option<(Instant, Duration)>,
    last: Option<(Instant, Duration)>,
    taken: u64,
}

/// Whose processor time is measured.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Watched {
    #[default]
    Nobody,
    /// It has no number yet.
    Soon,
    Process(u32),
}

impl Watched {
    fn running_time(self) -> Duration {
        if let Watched::Process(pid) = self { running_time(pid) } else { Duration::ZERO }
    }
}

/// How one drain went.
pub(crate) struct Drain {
    pub(crate) a_second: f64,
    /// Processor time of the gateway for each message, in microseconds.
    pub(crate) cost: f64,
}

impl Upstream {
    /// Listens, and takes nothing yet.
    pub(crate) fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        // Ends with the program.
        std::thread::spawn(move || {
            // It stands for a machine elsewhere, which takes no processor from the gateway.
            let _ = rustix::process::setpriority_process(None, 19);
            for socket in listener.incoming().flatten() {
                serving.serve(socket);
            }
        });
        Upstream { port, shared }
    }

    /// From now on so many are taken that it has not seen yet.
    pub(crate) fn allow(&self, messages: u64) {
        let mut tally = self.shared.tally.lock().unwrap();
        tally.allowed = messages;
        (tally.taken, tally.first, tally.last) = (0, None, None);
    }

    /// The same, of a process that is still to be started: whoever comes waits until it is named.
    pub(crate) fn allow_once_watched(&self, messages: u64) {
        self.allow(messages);
        self.shared.tally.lock().unwrap().watched = Watched::Soon;
    }

    /// Measures the processor time of this process.
    pub(crate) fn watch(&self, pid: u32) {
        self.shared.tally.lock().unwrap().watched = Watched::Process(pid);
        self.shared.changed.notify_all();
    }

    /// Waits until they came.
    pub(crate) fn wait(&self) -> Drain {
        let (mut tally, mut seen) = (self.shared.tally.lock().unwrap(), 0);
        while tally.last.is_none() {
            let (next, waited) = self.shared.changed.wait_timeout(tally, HANG).unwrap();
            tally = next;
            assert!(!waited.timed_out() || tally.taken > seen, "the backlog does not come");
            seen = tally.taken;
        }
        let ((first, ran_first), (last, ran_last)) = (tally.first.unwrap(), tally.last.unwrap());
        let messages = f64::from(u32::try_from(tally.taken - WARM).unwrap());
        Drain {
            a_second: messages / (last - first).as_secs_f64(),
            cost: (ran_last - ran_first).as_secs_f64() * 1e6 / messages,
        }
    }

    /// How many messages of each topic it has had, counting those before its first.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.shared.tally.lock().unwrap().next.values().copied().collect()
    }
}

impl Shared {
    /// One connection, to its end.
    fn serve(&self, mut socket: TcpStream) {
        let tally = self.tally.lock().unwrap();
        let tally = self.changed.wait_while(tally, |tally| tally.watched == Watched::Soon).unwrap();
        if tally.allowed == 0 {
            return;
        }
        drop(tally);
        socket.set_nodelay(true).unwrap();
        let mut decoder = Decoder::new(Side::Server, 1 << 20);
        let mut version = Version::V311;
        let (mut buffer, mut out) = (vec![0; 65_536], Vec::new());
        while let Ok(count) = socket.read(&mut buffer) {
            if count == 0 {
                return;
            }
            decoder.feed(Bytes::copy_from_slice(&buffer[..count]));
            out.clear();
            let mut goes_on = true;
            while let Some(packet) = decoder.decode().expect("well-formed packets") {
                if let Packet::Connect(connect) = &packet {
                    version = connect.version;
                    decoder.set_version(version);
                }
                goes_on &= self.answer(&packet, version, &mut out);
            }
            if socket.write_all(&out).is_err() || !goes_on {
                return;
            }
        }
    }

    /// Answers a packet. Says whether the connection goes on.
    fn answer(&self, packet: &Packet, version: Version, out: &mut Vec<u8>) -> bool {
        let properties = Properties::new();
        let answer = match packet {
            Packet::Connect(_) => {
                Packet::ConnAck(ConnAck { session_present: false, reason: Reason::Success, properties })
            }
            Packet::PingReq => Packet::PingResp,
            Packet::Publish(publish) => {
                assert_eq!(publish.qos, QoS::AtLeastOnce);
                if !self.take(&publish.topic, number(&publish.payload)) {
                    return false;
                }
                Packet::PubAck(Ack { packet_id: publish.packet_id, reason: Reason::Success, properties })
            }
            Packet::Disconnect(_) => return false,
            other => panic!("{other:?} in place of a publish"),
        };
        encode(&answer, version, out).unwrap();
        true
    }

    /// Counts a message, if it is one of those that are allowed.
    fn take(&self, topic: &str, number: u64) -> bool {
        let mut tally = self.tally.lock().unwrap();
        if tally.allowed == 0 {
            return false;
        }
        let next = tally.next.entry(topic.to_owned()).or_default();
        assert!(number <= *next, "{number} of {topic} comes before {next}");
        if number < *next {
            return true;
        }
        *next += 1;
        tally.allowed -= 1;
        tally.taken += 1;
        if tally.taken == WARM {
            tally.first = Some((monotonic(), tally.watched.running_time()));
        }
        if tally.allowed == 0 {
            tally.last = Some((monotonic(), tally.watched.running_time()));
            self.changed.notify_all();
        }
        true
    }
}

/// Messages before the measurement begins: the first page is a short one, and the process just started.
const WARM: u64 = 500;
