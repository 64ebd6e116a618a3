//! The uplink's turn: the bridge's loop, its packets on the way, and upstream's answers.
//!
//! Each leaves and comes when the step says so, in its order.

use super::cloud::{Mood, Parcel, Row};
use super::world::World;
use crate::bridge;
use crate::record::ReaderId;

impl World {
    pub(super) fn reach(&mut self) {
        if !self.process().bridge.is_connected() {
            let present = self.cloud.connect();
            self.process().bridge.connect(present);
            self.gather();
        }
    }

    pub(super) fn break_uplink(&mut self) {
        self.lose_uplink();
        self.gather();
    }

    pub(super) fn lose_uplink(&mut self) {
        self.process().bridge.lose();
        self.cloud.lost();
    }

    pub(super) fn turn_link(&mut self, most: usize) {
        let result = self.process().bridge.turn(most);
        if let Err(why) = result {
            self.note(|| format!("the uplink ends: {why}"));
            self.cloud.lost();
        }
        self.gather();
    }

    pub(super) fn pass_on(&mut self, most: usize) {
        for packet in self.process().bridge.pass_on(most) {
            self.rise(packet);
        }
    }

    /// A packet reaches upstream.
    pub(super) fn rise(&mut self, packet: bridge::Up) {
        self.promises.moved += 1;
        self.note(|| format!("up {packet:?}"));
        let window = usize::from(self.course.window);
        let routes = self.process().routes.clone();
        let (books, promises) = (&self.books, &self.promises);
        let row = |parcel: &Parcel| {
            let reader = routes[parcel.0];
            let copies = promises.copies.get(&parcel.1);
            let mut seqs = copies.into_iter().flatten().map(|seq| seq.0);
            // What a limit took may be under way by then.
            let taken =
                |row: &(ReaderId, u64)| books.view.taken.contains(row) || books.disk.taken.contains(row);
            let wanted = seqs.any(|seq| books.view.wants(reader, seq) || taken(&(reader, seq)));
            let seq = promises.place_of(&parcel.1).map(|seq| seq.0);
            Row { wanted, seq }
        };
        let acknowledged = self.cloud.take(packet, window, row);
        if let Some(payload) = acknowledged {
            self.on_acknowledged_above(&payload);
        }
    }

    pub(super) fn answer_from_above(&mut self, most: usize, mood: Mood) {
        if !self.process().bridge.is_connected() {
            return;
        }
        for _ in 0..most {
            let command = self.cloud.next_command();
            let Some(packet) = command.or_else(|| self.cloud.answer(&mut self.random, mood)) else { break };
            self.note(|| format!("down {packet:?}"));
            if let Some(packet) = self.process().bridge.hear(packet) {
                self.rise(packet);
            }
        }
        self.process().bridge.hear(bridge::Down::Heard);
    }
}
