//! What the engine counts, for `status` and the tests.
//!
//! Numbers only ever grow, but for the gauges that say so.

use serde::Serialize;

use crate::broker::{Carried, Unsent};

/// Counts since the start, and three gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// The most that one of them took, in tenths of a microsecond as they are weighed.
    pub most_work: u64,
    /// Network clients that are connected, or whose last words are on their way.
    pub sockets: u64,
    /// In-process clients.
    pub ports: u64,
    /// Clients let in at a listener.
    pub accepted: u64,
    /// Clients turned away because `max_connections` were there.
    pub over_max_connections: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
    /// Packets decoded.
    pub packets_in: u64,
    /// Packets encoded for clients.
    pub packets_out: u64,
    /// Of those that came, packets that were not taken apart: messages that went the way of one before them, and words
    /// on exchanges that are a packet id.
    pub passed: u64,
    /// Connections that sent what is no MQTT.
    pub malformed: u64,
    /// QoS 0 deliveries dropped because the receiver had `max_send_buffer` waiting.
    pub dropped_send_buffer: u64,
    /// QoS 0 deliveries dropped because memory was short and the receiver among the slowest.
    pub dropped_memory: u64,
    /// QoS 0 deliveries dropped because the receiver takes no packet that large.
    pub dropped_too_large: u64,
    /// Bytes of the payloads of all of these.
    pub dropped_bytes: u64,
    /// Ports closed because they did not read what they had granted.
    pub ports_overrun: u64,
    /// Clients refused because their listener's `max_connections` were there.
    pub over_listener_connections: u64,
    /// Clients refused because `max_connections_per_address` were there.
    pub over_address_connections: u64,
    /// Clients refused because they came faster than `max_connect_rate`.
    pub over_connect_rate: u64,
    /// Passwords compared.
    pub passwords_compared: u64,
    /// Passwords that were compared a moment ago, and not again.
    pub passwords_remembered: u64,
    /// Logins by SCRAM that came to their end, right or wrong.
    pub scram_logins: u64,
    /// Passwords not compared because too many waited to be.
    pub passwords_unchecked: u64,
    /// Passwords not compared because too many wrong ones came from that address.
    pub over_login_failures: u64,
}

impl Counters {
    /// What the broker tells of it in `$SYS`.
    pub(super) fn carried(&self) -> Carried {
        Carried {
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            packets_in: self.packets_in,
            packets_out: self.packets_out,
            sockets: self.accepted,
            unsent: Unsent {
                send_buffer: self.dropped_send_buffer,
                memory: self.dropped_memory,
                too_large: self.dropped_too_large,
                bytes: self.dropped_bytes,
            },
        }
    }
}
