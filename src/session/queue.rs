//! Messages that wait in RAM for whichever client of a group has room first.
//!
//! Bounded in bytes by the caller (`max_send_buffer`).

use std::collections::VecDeque;

use super::Parcel;

/// The waiting messages of one group.
#[derive(Debug, Default)]
pub struct Queue {
    parcels: VecDeque<Parcel>,
    weight: usize,
}

impl Queue {
    /// Bytes that wait.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.parcels.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Lets a message wait behind the others.
    pub fn push(&mut self, parcel: Parcel) {
        self.weight += parcel.weight();
        self.parcels.push_back(parcel);
    }

    /// The message that has waited longest.
    pub fn first(&self) -> Option<&Parcel> {
        self.parcels.front()
    }

    /// Lets a message wait before the others: it was taken and has come back.
    pub fn push_front(&mut self, parcel: Parcel) {
        self.weight += parcel.weight();
        self.parcels.push_front(parcel);
    }

    /// Takes the message that has waited longest.
    pub fn pop(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop_front()?;
        self.weight -= parcel.weight();
        Some(parcel)
    }
}
