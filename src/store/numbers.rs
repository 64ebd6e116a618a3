//! Numbers that were given for good, apart from the log, which may be lost.
//!
//! A log that is loaded anew knows what its file says. Where that is damaged, or another file has taken its place,
//! numbers would be given a second time under the same epoch: so what commits have given is remembered here, and
//! only that. What a failed transaction gave is given again.

use std::collections::BTreeMap;

use super::log::Log;
use super::reader::Kind;
use crate::record::ReaderId;

/// The highest numbers that commits have given.
#[derive(Debug, Default)]
pub(super) struct Given {
    last_seq: u64,
    last_reader: u32,
    /// Of each route.
    numbered: BTreeMap<ReaderId, u64>,
}

impl Given {
    /// What a log as it was loaded has given.
    pub(super) fn of(log: &Log) -> Given {
        let routes = log.readers.iter().filter(|(_, reader)| reader.kind == Kind::Route);
        Given {
            last_seq: log.ledger.last_seq,
            last_reader: log.ledger.last_reader,
            numbered: routes.map(|(id, reader)| (*id, reader.state.numbered)).collect(),
        }
    }

    /// A commit holds what the log has given.
    pub(super) fn follow(&mut self, log: &mut Log) {
        self.last_seq = self.last_seq.max(log.ledger.last_seq);
        self.last_reader = self.last_reader.max(log.ledger.last_reader);
        for id in std::mem::take(&mut log.numbered) {
            if let Some(reader) = log.readers.get(&id) {
                self.numbered.insert(id, reader.state.numbered);
            }
        }
    }

    /// Sees to it that a log that was loaded anew gives none of them again; the next commit writes it.
    pub(super) fn raise(&mut self, log: &mut Log) {
        log.ledger.last_seq = log.ledger.last_seq.max(self.last_seq);
        log.ledger.last_reader = log.ledger.last_reader.max(self.last_reader);
        for (id, numbered) in &self.numbered {
            if log.readers.get(id).is_some_and(|reader| reader.state.numbered < *numbered) {
                log.change(*id, |reader| reader.state.numbered = *numbered);
            }
        }
        // A commit of which nobody knew whether it took place may be in it.
        let found = Given::of(log);
        (self.last_seq, self.last_reader) = (found.last_seq, found.last_reader);
        self.numbered.extend(found.numbered);
    }
}
