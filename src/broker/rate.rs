//! How fast one client may publish (`max_publish_rate`).
//!
//! A publish that comes too soon waits, and all that the client sends behind it: its connection is not
//! read on, TCP slows the sender, and nothing is dropped. Adapters have rates of their own and are exempt.

use super::connection::{Held, Phase};
use super::{Broker, ConnectionId, Effect, Turn};
use crate::codec::Packet;

impl Broker {
    /// Until when the packet has to wait.
    pub(super) fn too_soon(&mut self, id: ConnectionId, packet: &Packet, now: u64) -> Option<u64> {
        let rate = self.config.limits.max_publish_rate?;
        let Packet::Publish(_) = packet else { return None };
        let connection = self.connections.get_mut(id).filter(|connection| !connection.is_port())?;
        connection.allowance.take(rate, now).err()
    }

    /// Lets the packet wait.
    pub(super) fn slow_down(&mut self, id: ConnectionId, packet: Packet, until: u64, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.phase = Phase::Slowed(until);
        let held = Held::Packet(packet);
        self.memory.held += held.weight();
        connection.held.push_front(held);
        if !std::mem::replace(&mut connection.paused, true) {
            turn.effects.push(Effect::Pause { connection: id });
        }
        self.counters.slowed += 1;
        self.arm(id);
    }

    /// Its time has come.
    pub(super) fn speed_up(&mut self, id: ConnectionId, turn: &mut Turn<'_>) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.phase = Phase::Open;
            self.go_on(id, turn);
        }
    }
}
