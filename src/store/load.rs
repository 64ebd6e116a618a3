//! The log as it is found: at a start, and after a transaction that failed.
//!
//! Reads cursors, headers and the open segment, never the backlog. A reader whose state is damaged in
//! both places begins at the first row that is there: repeating is better than losing. A segment that
//! cannot be read is lost, and what readers still wanted of it is counted as damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use super::Checked;
use super::audience::Audience;
use super::index::Index;
use super::kept::{self, Standing};
use super::log::{Dictionary, Doubt, Gone, Log, Segment};
use super::read::Names;
use super::reader::{Fate, Kind, Reader, Span, State};
use super::room::{Room, Sizes};
use super::schema::{self, Fault, LEDGER, Ledger, state};
use super::segment::{self, Header, Named};
use super::successor;
use crate::record::{DropReason, Lease, Presence, ReaderId, Restored, RestoredSession, Seq, SessionRecord};

impl Log {
    /// Reads the log. Segments among `suspects` have failed before and are given up.
    pub(super) fn load(
        connection: &Connection,
        sizes: Sizes,
        rules: &Arc<Checked>,
        suspects: &BTreeMap<u32, Doubt>,
    ) -> Result<Log, Fault> {
        let ledger = state(connection, LEDGER)?.and_then(|blob| Ledger::unpack(&blob));
        let is_damaged = ledger.is_none();
        let mut log = Log::empty(ledger.unwrap_or_default(), sizes, rules.clone());
        let of = |of: Doubt| suspects.iter().filter(move |(_, doubt)| **doubt == of).map(|(id, _)| *id);
        let suspects: BTreeSet<u32> = of(Doubt::Segment).collect();
        log.spoilt = of(Doubt::Page).collect();
        let headers = segment::headers(connection)?;
        let (forgotten, passed) = log.load_readers(connection)?;
        let listed: BTreeSet<u32> = headers.keys().copied().collect();
        let tables = successor::tables(connection, "main")?;
        log.ledger.last_segment = log.ledger.last_segment.max(successor::newest(connection, &headers)?);
        let mut damage = if forgotten.is_empty() { Damage::None } else { Damage::Some };
        for (id, header) in headers {
            let (open, is_sound) = (id == log.ledger.last_segment, header.is_some());
            let read = match header {
                _ if suspects.contains(&id) => Err(Fault::Segment(id)),
                Some(header) if !open => log.load_closed(connection, id, &header),
                _ => log.load_by_scan(connection, id, open).map(|found| damage = damage.max(found)),
            };
            match read {
                Ok(()) => {}
                Err(Fault::Segment(id)) => {
                    // Its number may have been another's, whose table no header names now.
                    log.is_at_odds |= !is_sound
                        && !suspects.contains(&id)
                        && !tables.contains(&id)
                        && !tables.is_subset(&listed);
                    log.give_up(id);
                    damage = Damage::Some;
                }
                Err(fault) => return Err(fault),
            }
        }
        if is_damaged {
            log.guess_ledger(connection, passed)?;
        }
        if damage == Damage::None && !log.is_conserved() {
            (log.is_at_odds, damage) = (true, Damage::Some);
        }
        if damage == Damage::Some {
            log.reconcile(connection)?;
        }
        for id in forgotten {
            log.number_on(connection, id)?;
        }
        for id in log.bounded.iter().copied().collect::<Vec<_>>() {
            log.note_full(id);
        }
        Ok(log)
    }

    fn empty(ledger: Ledger, sizes: Sizes, rules: Arc<Checked>) -> Log {
        Log {
            readers: Default::default(),
            bounded: Default::default(),
            gone: Default::default(),
            segments: Default::default(),
            names: Dictionary::default(),
            index: Index::default(),
            ledger,
            sizes,
            dirty: BTreeSet::new(),
            numbered: BTreeSet::new(),
            released: Vec::new(),
            touched: BTreeSet::new(),
            lost: BTreeSet::new(),
            left: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            spoilt: BTreeSet::new(),
            resting: BTreeSet::new(),
            is_at_odds: false,
            retained: Default::default(),
            rules,
            room: Room::Unknown,
            is_behind: false,
        }
    }

    /// Reads every reader's state; returns those whose state is damaged in both places, and how far the furthest of the
    /// routes was that are gone.
    fn load_readers(&mut self, connection: &Connection) -> Result<(Vec<ReaderId>, u64), Fault> {
        let (mut forgotten, mut passed) = (Vec::new(), 0);
        let (routes, gone): (Vec<_>, Vec<_>) =
            kept::routes(connection)?.into_iter().partition(|route| route.standing == Standing::Active);
        for route in gone {
            // Where that is damaged, or the disk does not read it, nobody else has to do without.
            let Ok(Some(reader)) = kept::reader(connection, route.reader, Kind::Route, route.name) else {
                continue;
            };
            passed = passed.max(reader.state.cursor);
            self.gone.insert(route.reader, Gone { name: reader.name, counters: reader.state.counters });
        }
        let routes = routes.into_iter().map(|route| (route.reader, Kind::Route, route.name));
        let sessions = kept::sessions(connection)?.into_iter();
        let sessions = sessions.map(|record| (record.reader, Kind::Session, record.client_id.to_string()));
        for (id, kind, name) in routes.chain(sessions) {
            let bounds = match kind {
                Kind::Route => self.rules.bounds_of(&name),
                Kind::Session => self.rules.bounds_of_sessions(),
            };
            let reader = match kept::reader(connection, id, kind, name.clone())? {
                Some(reader) => reader,
                None => {
                    tracing::error!(
                        reader = name,
                        "its cursor is damaged in both places: it reads again what is there"
                    );
                    forgotten.push(id);
                    Reader::restored(kind, name, State::default())
                }
            };
            self.put_reader(id, Reader { bounds, ..reader });
        }
        Ok((forgotten, passed))
    }

    /// Finds where a reader that has lost its state was in its numbers: at its last row.
    fn number_on(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        let Some(last) = self.readers.get(&id).map(Reader::last) else { return Ok(()) };
        let row = match self.row(connection, &mut Names::default(), id, last) {
            Err(Fault::Segment(_) | Fault::Page(_)) => None,
            read => read?,
        };
        self.change(id, |reader| {
            let number = row.map_or(reader.state.counters.received, |row| row.number);
            reader.state.numbered = reader.state.numbered.max(number);
        });
        Ok(())
    }

    /// A closed segment, from its header.
    fn load_closed(&mut self, connection: &Connection, id: u32, header: &Header) -> Result<(), Fault> {
        let segment =
            Segment { rows: header.rows, bytes: header.bytes, last: header.last, ..Segment::default() };
        let mut spans = Vec::new();
        for (reader, (count, first, last)) in &header.readers {
            let Some(state) = self.readers.get(reader).map(|reader| &reader.state) else { continue };
            let apart =
                *first > state.cursor && state.ahead.next_after(first - 1).is_none_or(|next| next > *last);
            let wanted = match apart {
                true => *count,
                false if *last <= state.cursor => 0,
                false => self.count_wanted(connection, *reader, id, u64::MAX)?,
            };
            if wanted > 0 {
                let span = Span { segment: id, last: *last };
                spans.push((*reader, *first, span, header.tally(*reader).share(wanted)));
            }
        }
        self.touched.insert(id);
        self.segments.insert(id, segment);
        for (reader, first, span, wanted) in spans {
            self.want(id, reader, wanted);
            if let Some(reader) = self.readers.get_mut(&reader) {
                reader.spans.insert(first, span);
            }
        }
        Ok(())
    }

    /// The open segment, or one whose header is damaged, from its rows.
    fn load_by_scan(&mut self, connection: &Connection, id: u32, open: bool) -> Result<Damage, Fault> {
        let mut damage = if open { Damage::None } else { Damage::Some };
        let mut is_at_odds = false;
        let mut segment = Segment::default();
        let mut names = Dictionary::default();
        let mut audiences: HashMap<u64, Audience> = HashMap::new();
        let mut named: Vec<Naming> = Vec::new();
        segment::scan(connection, id, |seq, row| {
            segment.rows += 1;
            // A page that comes twice, or another's, stands in the place of one that does not.
            is_at_odds |= row.is_some() && seq <= segment.last;
            let Some(row) = row.filter(|_| seq > segment.last) else {
                damage = Damage::Some;
                return;
            };
            segment.last = seq;
            segment.bytes += row.weight();
            if let Named::Here(topic) = row.topic {
                names.topics.insert(topic.into(), seq);
            }
            if let Named::Here(set) = row.audience {
                names.audiences.insert(set.into(), seq);
                audiences.insert(seq, Audience::unpack(set).unwrap_or_default());
            }
            let at = |named| if let Named::At(at) = named { at } else { seq };
            named.push(Naming {
                seq,
                topic: at(row.topic),
                audience: at(row.audience),
                weight: row.message_weight(0),
            });
        })?;
        self.is_at_odds |= is_at_odds;
        // Only now: a row that was copied here may name one with a higher number.
        let topics: HashMap<u64, u64> =
            names.topics.iter().map(|(topic, seq)| (*seq, topic.len() as u64)).collect();
        let mut rows: Vec<(u64, ReaderId, u64)> = Vec::new();
        for Naming { seq, topic, audience, weight } in named {
            let weight = weight + topics.get(&topic).copied().unwrap_or(0);
            match audiences.get(&audience) {
                Some(audience) => {
                    rows.extend(audience.members.iter().map(|member| (seq, member.want.reader, weight)))
                }
                None => damage = Damage::Some,
            }
        }
        if !open {
            self.load_headless(connection, id, &segment, rows)?;
            return Ok(damage);
        }
        // A damaged page above may lead to another's, whose rows are sound and counted there.
        let has_span = |(seq, reader, _): &(u64, ReaderId, u64)| {
            self.readers.get(reader).is_some_and(|reader| reader.spans.contains_key(seq))
        };
        if rows.iter().any(has_span) {
            return Err(Fault::Segment(id));
        }
        self.segments.insert(id, segment);
        (self.names, self.index.open_id) = (names, id);
        for (seq, reader, weight) in rows {
            let Some(state) = self.readers.get(&reader).map(|reader| &reader.state) else { continue };
            if state.is_settled(seq) {
                self.index.open.entry(reader).or_default().insert(seq);
            } else {
                self.note_row(reader, seq, weight);
            }
        }
        self.dirty.clear();
        Ok(damage)
    }

    /// A closed segment whose header is damaged: whose its rows are is written there once more.
    fn load_headless(
        &mut self,
        connection: &Connection,
        id: u32,
        segment: &Segment,
        rows: Vec<(u64, ReaderId, u64)>,
    ) -> Result<(), Fault> {
        self.index.note_headless(id);
        let Segment { rows: count, bytes, last, .. } = *segment;
        let mut header = Header { rows: count, bytes, last, ..Header::default() };
        let mut weights: BTreeMap<ReaderId, BTreeMap<u64, u64>> = BTreeMap::new();
        for (seq, reader, weight) in rows {
            weights.entry(reader).or_default().insert(seq, weight);
        }
        let mut is_missed = false;
        for (reader, weights) in weights {
            // One that wanted nothing any more has none. What a damaged one says of is counted as damaged, where no
            // salvage finds it from the rows.
            let rows = match segment::index(connection, id, reader) {
                Err(Fault::Segment(_)) => {
                    let state = self.readers.get(&reader).map(|reader| &reader.state);
                    is_missed |= state.is_some_and(|state| weights.keys().any(|seq| !state.is_settled(*seq)));
                    continue;
                }
                read => read?,
            };
            if header.enter(reader, &rows) {
                let of_its = weights.iter().filter(|(seq, _)| rows.contains(**seq));
                header.weights.insert(reader, of_its.map(|(_, weight)| weight).sum());
            }
        }
        if is_missed && header.readers.is_empty() {
            // It would go, as one that nobody wants.
            return Err(Fault::Segment(id));
        }
        self.is_at_odds |= is_missed;
        self.load_closed(connection, id, &header)
    }

    /// Goes on with what was found on the disk. What was handed out is still where it was, with what ended in a
    /// transaction that was undone. Neither how old the oldest row is nor whose the rows are is asked again: the disk
    /// may not read that any more.
    pub(super) fn renew(&mut self, found: Log) {
        let former = std::mem::replace(self, found);
        self.index.inherit(former.index);
        (self.left, self.unlisted) = (former.left, former.unlisted);
        for (id, before) in former.readers {
            if let Some(reader) = self.readers.get_mut(&id) {
                (reader.handed, reader.oldest) = (before.handed, before.oldest);
            }
        }
        for (id, seq, weight) in former.released {
            if let Some(reader) = self.readers.get_mut(&id) {
                reader.handed.insert(seq, weight);
            }
        }
        for reader in self.readers.values_mut() {
            reader.handed.retain(|seq, _| !reader.state.is_settled(*seq));
        }
    }

    fn give_up(&mut self, id: u32) {
        tracing::error!(segment = id, "a part of the store cannot be read and is given up");
        self.segments.remove(&id);
        self.lost.insert(id);
        if id == self.ledger.last_segment {
            self.names = Dictionary::default();
            self.index = Index::default();
        }
    }

    /// Order and reader numbers, where both copies of the ledger are damaged. A route that comes back is where it was:
    /// what has a number up to this one would pass it by.
    fn guess_ledger(&mut self, connection: &Connection, passed: u64) -> Result<(), Fault> {
        let rows = self.segments.values().map(|segment| segment.last);
        // A number that a reader has settled, or is to settle, is never given to a message that he has not had.
        let settled = self.readers.values().flat_map(|Reader { state, .. }| {
            let lease = state.leases.last_key_value().map(|(seq, _)| *seq);
            [Some(state.cursor), state.ahead.last(), lease].into_iter().flatten()
        });
        self.ledger.last_seq = rows.chain(settled).max().unwrap_or(0).max(passed);
        // Also of one that no list names any more: who comes next is not to take its state for his own.
        let readers = self.readers.keys().map(|reader| reader.0);
        self.ledger.last_reader = readers.max().unwrap_or(0).max(schema::last_reader(connection)?);
        Ok(())
    }

    /// Whether all that readers had received has ended or waits.
    fn is_conserved(&self) -> bool {
        self.readers.values().all(|reader| {
            let counters = &reader.state.counters;
            counters.received == counters.ended() + reader.waiting.rows
        })
    }

    /// Counts as damaged what readers had received and is nowhere to be found.
    pub(super) fn reconcile(&mut self, connection: &Connection) -> Result<(), Fault> {
        let ids: Vec<ReaderId> = self.readers.keys().copied().collect();
        for id in ids {
            self.settle_lost(connection, id)?;
            let queued = self.queued(connection, id)?;
            let Some(reader) = self.readers.get_mut(&id) else { continue };
            let counters = &mut reader.state.counters;
            let known = counters.ended() + queued;
            let missing = counters.received.saturating_sub(known);
            let beyond = known.saturating_sub(counters.received);
            // What was counted as damaged and is there after all was received before. Where its counters were lost,
            // what is there was received.
            counters.received += beyond - counters.recover(beyond);
            if missing > 0 {
                tracing::error!(
                    reader = reader.name,
                    rows = missing,
                    "rows of the store are damaged and lost"
                );
                counters.count(Fate::Dropped(DropReason::Damaged), missing);
            }
            self.dirty.insert(id);
        }
        Ok(())
    }

    /// Rows that are in exchanges and nowhere to be found are settled, as others that a lease has outlived.
    fn settle_lost(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        let Some(state) = self.readers.get(&id).map(|reader| &reader.state) else { return Ok(()) };
        let leased: Vec<u64> = state.leases.keys().copied().filter(|seq| !state.is_settled(*seq)).collect();
        for seq in leased {
            match self.settle_if_lost(connection, id, seq) {
                // Whoever reads it finds that out.
                Err(Fault::Segment(_) | Fault::Unreadable(_)) => {}
                settled => settled?,
            }
        }
        Ok(())
    }

    /// Rows that a reader still wants, counted from the rows.
    pub(super) fn queued(&mut self, connection: &Connection, id: ReaderId) -> Result<u64, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(0) };
        let spans: Vec<(u64, Span)> = reader.spans.iter().map(|(key, span)| (*key, *span)).collect();
        let mut queued = 0;
        for (first, span) in spans {
            let Some(state) = self.readers.get(&id).map(|reader| &reader.state) else { break };
            let ahead = state.ahead.next_after(first.saturating_sub(1)).is_some_and(|next| next <= span.last);
            queued += if first > state.cursor && !ahead && span.segment != self.ledger.last_segment {
                self.wanted_of(span.segment, id)
            } else {
                match self.count_wanted(connection, id, span.segment, u64::MAX) {
                    // As many as were counted before.
                    Err(Fault::Segment(_) | Fault::Unreadable(_)) => self.wanted_of(span.segment, id),
                    counted => counted?,
                }
            };
        }
        Ok(queued)
    }

    /// What a start hands to the broker.
    pub(super) fn restored(&mut self, connection: &Connection) -> Result<Restored, Fault> {
        let mut sessions = Vec::new();
        for record in kept::sessions(connection)? {
            sessions.extend(self.restored_session(connection, record)?);
        }
        Ok(Restored {
            store: Presence::There,
            last_seq: Seq(self.ledger.last_seq),
            last_reader: self.ledger.last_reader,
            sessions,
            retained: kept::retained(connection)?,
            alive: 0,
        })
    }

    fn restored_session(
        &mut self,
        connection: &Connection,
        record: SessionRecord,
    ) -> Result<Option<RestoredSession>, Fault> {
        let queued = self.queued(connection, record.reader)?;
        let Some(reader) = self.readers.get(&record.reader) else { return Ok(None) };
        let state = &reader.state;
        Ok(Some(RestoredSession {
            cursor: Seq(reader.state.cursor),
            last: Seq(reader.last()),
            queued,
            queued_bytes: reader.waiting.bytes,
            leases: state
                .leases
                .iter()
                .map(|(seq, held)| Lease {
                    seq: Seq(*seq),
                    packet_id: held.packet_id,
                    state: held.state,
                    holder: held.holder,
                    has_row: !state.is_settled(*seq),
                })
                .collect(),
            inward: reader.state.inward.iter().copied().collect(),
            record,
        }))
    }
}

/// A row whose names are in others.
struct Naming {
    seq: u64,
    topic: u64,
    audience: u64,
    /// In the bounds of its readers, without its topic.
    weight: u64,
}

/// Whether rows were found that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    None,
    Some,
}
