//! Which rows of a segment are whose.
//!
//! Of the open segment this is kept in memory; a closed one carries it, and what was read lately is
//! remembered up to a limit. So a reader finds its rows without reading the others'.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::runs::Runs;
use super::schema::Fault;
use super::segment;
use crate::record::ReaderId;

/// The rows of each reader by segment.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The open segment's number.
    pub(super) open_id: u32,
    /// Rows of the open segment by reader. Bounded with the segment.
    pub(super) open: BTreeMap<ReaderId, Runs>,
    closed: BTreeMap<(u32, ReaderId), Runs>,
    weight: usize,
    /// Closed segments that were found without a header: they may have another index than they had.
    headless: BTreeSet<u32>,
}

impl Index {
    /// Which rows of the segment are the reader's.
    pub(super) fn rows(
        &mut self,
        connection: &Connection,
        id: u32,
        reader: ReaderId,
    ) -> Result<&Runs, Fault> {
        static NONE: Runs = Runs::new();
        if id == self.open_id {
            return Ok(self.open.get(&reader).unwrap_or(&NONE));
        }
        if !self.closed.contains_key(&(id, reader)) {
            let runs = segment::index(connection, id, reader)?;
            self.weight += runs.weight() + 1;
            if self.weight > RUNS_MAX {
                self.closed.clear();
                self.weight = runs.weight() + 1;
            }
            self.closed.insert((id, reader), runs);
        }
        Ok(self.closed.get(&(id, reader)).unwrap_or(&NONE))
    }

    /// Writes the open segment's index for these readers into it, and begins another.
    pub(super) fn close(
        &mut self,
        connection: &Connection,
        next: u32,
        mut keep: impl FnMut(ReaderId) -> bool,
    ) -> Result<BTreeMap<ReaderId, Runs>, Fault> {
        let mut open = std::mem::take(&mut self.open);
        open.retain(|reader, _| keep(*reader));
        for (reader, runs) in &open {
            segment::put_index(connection, self.open_id, *reader, runs)?;
        }
        self.open_id = next;
        Ok(open)
    }

    /// A closed segment was found without its header.
    pub(super) fn note_headless(&mut self, id: u32) {
        self.headless.insert(id);
    }

    /// Goes on with what another has read of closed segments, which never change but where they lose their header.
    pub(super) fn inherit(&mut self, former: Index) {
        for (key, runs) in former.closed {
            let weight = self.weight + runs.weight() + 1;
            let is_same = key.0 < self.open_id && !self.headless.contains(&key.0);
            if is_same && weight <= RUNS_MAX && !self.closed.contains_key(&key) {
                self.weight = weight;
                self.closed.insert(key, runs);
            }
        }
    }
}

/// Runs of closed segments that are remembered, 16 bytes each; at the limit all are forgotten.
const RUNS_MAX: usize = 65_536;
