//! Random octets as a conversation: the entry for fuzzing, and for a plain test on stable.
//!
//! The octets choose who speaks (one of four addresses, the broker, the clock) and what is said. Nothing
//! may panic, no table may disagree with another, and what the codec reads it must write the same.

use core::net::SocketAddr;
use std::time::Duration;

use adapter_api::{Acknowledgement, Delivery, FromPort, Qos, Refusal, ToPort};
use bytes::Bytes;

use crate::codec::{decode, encode};
use crate::gateway::{Effect, Event, Gateway, Peer, PortNumber};
use crate::{Checked, Config, QosMinusOne};

/// Plays `octets` to a gateway and to the codec; panics where one of their promises is broken.
pub fn fuzz(octets: &[u8]) {
    codec_reads_what_it_writes(octets);
    let mut stage = Stage::new();
    let mut rest = octets;
    while let Some((&step, after)) = rest.split_first() {
        let length = usize::from(after.first().copied().unwrap_or(0)).min(after.len());
        let (said, after) = after.split_at(length);
        rest = after;
        stage.step(step, said);
        assert!(stage.gateway.is_consistent(), "the tables disagree");
    }
}

fn codec_reads_what_it_writes(octets: &[u8]) {
    if let Ok(message) = decode(&Bytes::copy_from_slice(octets)) {
        let written = encode(&message, usize::MAX).expect("what was read fits in a datagram");
        assert_eq!(decode(&written).as_ref(), Ok(&message), "written and read again");
    }
}

/// A gateway, its clock and the ports that it has opened.
struct Stage {
    gateway: Gateway,
    now: Duration,
    ports: Vec<PortNumber>,
    /// The last request of each kind, so that the broker's answers fit now and then.
    last_id: u64,
}

impl Stage {
    fn new() -> Stage {
        let settings = Config::default().check().expect("the default is right");
        let predefined = [(1, "predefined/one".to_owned())].into();
        let settings = Checked {
            qos_minus_one: QosMinusOne::Accepted,
            predefined,
            max_clients: 3,
            max_topics: 4,
            max_packet: 255,
            ..settings
        };
        Stage { gateway: Gateway::new(settings), now: Duration::ZERO, ports: Vec::new(), last_id: 0 }
    }

    fn step(&mut self, step: u8, said: &[u8]) {
        match step % 8 {
            0..=3 => {
                self.handle(Event::Datagram { from: peer(step % 4), octets: Bytes::copy_from_slice(said) })
            }
            4 | 5 => {
                if let Some(port) = self.port(said) {
                    self.handle(Event::Word { port, word: self.word(step, said) });
                }
            }
            6 => self.mishap(step, said),
            _ => {
                self.now += Duration::from_millis(u64::from(step) * 100);
                self.handle(Event::Tick);
            }
        }
    }

    /// A port ends or takes no more requests; seldom the whole service stops.
    fn mishap(&mut self, step: u8, said: &[u8]) {
        match self.port(said) {
            _ if step == 6 => self.handle(Event::Stop),
            Some(port) if step > 128 => self.handle(Event::Gone { port }),
            Some(port) => {
                let mut effects = Vec::new();
                self.gateway.choked(port, &FromPort::Grant(1), self.now, &mut effects);
                effects.into_iter().for_each(|effect| self.carry_out(effect));
            }
            None => self.handle(Event::Tick),
        }
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.gateway.handle(event, self.now, &mut effects);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Open { port, .. } => {
                self.ports.push(port);
                // Every fourth session is slow: the word that it stands comes by chance, or never.
                if port.0 % 4 != 3 {
                    let connected = ToPort::Connected { session_present: port.0 % 2 == 0 };
                    self.handle(Event::Word { port, word: connected });
                }
            }
            Effect::Ask {
                request:
                    FromPort::Publish { id, .. }
                    | FromPort::Subscribe { id, .. }
                    | FromPort::Unsubscribe { id, .. },
                ..
            } => {
                self.last_id = id;
            }
            Effect::Send { octets, .. } => {
                assert!(octets.len() <= 255 && decode(&octets).is_ok(), "only messages that fit are sent");
            }
            Effect::Ask { .. } | Effect::Drop { .. } | Effect::Note(_) => {}
        }
    }

    fn port(&self, said: &[u8]) -> Option<PortNumber> {
        let index = usize::from(said.last().copied().unwrap_or(0)).checked_rem(self.ports.len())?;
        self.ports.get(index).copied()
    }

    fn word(&self, step: u8, said: &[u8]) -> ToPort {
        let id = self.last_id;
        let octet = said.first().copied().unwrap_or(0);
        let qos = match octet % 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        match step >> 4 {
            0..=4 => ToPort::Message(Delivery {
                id: if qos == Qos::AtMostOnce { 0 } else { u16::from(octet) + 1 },
                topic: String::from_utf8_lossy(said.get(1..).unwrap_or_default()).into_owned(),
                payload: Bytes::copy_from_slice(said),
                qos,
                retain: octet > 128,
                dup: octet > 64,
            }),
            5 => ToPort::Drained,
            6..=8 => ToPort::Published(Acknowledgement { id, result: Ok(()) }),
            9 => ToPort::Published(Acknowledgement { id, result: Err(Refusal::QuotaExceeded) }),
            10..=12 => ToPort::Subscribed { id, result: Ok(qos) },
            13 => ToPort::Subscribed { id, result: Err(Refusal::NotAuthorized) },
            14 => ToPort::Unsubscribed { id },
            _ if octet > 128 => ToPort::Connected { session_present: octet % 2 == 0 },
            _ => ToPort::Closed(Refusal::TakenOver),
        }
    }
}

fn peer(number: u8) -> Peer {
    Peer { address: SocketAddr::from(([192, 0, 2, number], 10_000)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marsaglia's xorshift: one seed, one sequence.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn octet(&mut self) -> u8 {
            self.next().to_le_bytes()[3]
        }

        fn pick<'a>(&mut self, from: &'a [&'a [u8]]) -> &'a [u8] {
            from[usize::try_from(self.next() % 1_000).unwrap() % from.len()]
        }
    }

    #[test]
    fn random_datagrams_never_panic() {
        let mut random = Random(0x7469_6465_6761_7465);
        for _ in 0..20_000 {
            let length = random.octet() % 64;
            let octets: Vec<u8> = (0..length).map(|_| random.octet()).collect();
            fuzz(&octets);
        }
    }

    #[test]
    fn random_conversations_never_panic_nor_tangle_the_tables() {
        let mut random = Random(0x6d71_7474_2d73_6e31);
        for _ in 0..4_000 {
            let mut script = Vec::new();
            for _ in 0..60 {
                script.push(random.octet());
                let mut said = random.pick(SAID).to_vec();
                if random.octet() < 64 && !said.is_empty() {
                    let index = usize::from(random.octet()) % said.len();
                    said[index] = random.octet();
                }
                script.push(u8::try_from(said.len()).unwrap());
                script.extend_from_slice(&said[1.min(said.len())..]);
            }
            fuzz(&script);
        }
    }

    /// What clients say; the first octet doubles as the length field that the script needs.
    const SAID: &[&[u8]] = &[
        b"\x07\x04\x04\x01\x00\x0aa",
        b"\x07\x04\x00\x01\x00\x0aa",
        b"\x07\x04\x0c\x01\x00\x0ab",
        b"\x07\x04\x08\x01\x00\x0ac",
        b"\x05\x07\x20w1",
        b"\x02\x07",
        b"\x04\x09by",
        b"\x09\x0a\x00\x00\x00\x01a/b",
        b"\x09\x0c\x20\x00\x01\x00\x07hi",
        b"\x09\x0c\x40\x00\x01\x00\x08hi",
        b"\x09\x0c\x61\x00\x01\x00\x00hi",
        b"\x09\x0c\x22tt\x00\x09hi",
        b"\x04\x10\x00\x08",
        b"\x08\x12\x20\x00\x02a/#",
        b"\x08\x12\x40\x00\x03a/c",
        b"\x07\x12\x21\x00\x04\x00\x01",
        b"\x08\x14\x00\x00\x05a/#",
        b"\x07\x0b\x00\x01\x00\x01\x00",
        b"\x07\x0b\x00\x01\x00\x01\x03",
        b"\x07\x0d\x00\x01\x00\x02\x00",
        b"\x07\x0d\x00\x01\x00\x02\x02",
        b"\x04\x0f\x00\x03",
        b"\x04\x0e\x00\x03",
        b"\x02\x16",
        b"\x03\x16a",
        b"\x02\x18",
        b"\x04\x18\x00\x0a",
        b"\x03\x01\x00",
    ];
}
