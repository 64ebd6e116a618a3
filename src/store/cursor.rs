//! How readers move over the log: what comes next, what is settled, what is dropped.
//!
//! Rows that a reader wants are those in its spans that lie beyond its cursor and in no range ahead of
//! it; a row anywhere else is settled, whatever its table still says. So a row can end only once: a
//! settle of a row that was dropped meanwhile finds nothing, and counts nothing. Of a row in a QoS 2 exchange
//! the lease outlives the row, settled as that then is, until the exchange ends.

use rusqlite::Connection;

use super::log::Log;
use super::reader::{Fate, Reader, Span};
use super::schema::Fault;
use crate::record::{DropReason, ReaderId, Seq};

/// Where a reader's rows lie from one on that it wants.
pub(super) struct Stretch {
    /// The key of their span.
    key: u64,
    /// Which segment.
    pub(super) segment: u32,
    /// Its rows below this one are all wanted.
    pub(super) end: u64,
    /// Below this one none lies in another span.
    alone: u64,
}

impl Log {
    /// The first row after `after` in a reader's spans, settled or not.
    pub(super) fn next_row(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        after: u64,
    ) -> Result<Option<u64>, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(None) };
        // Spans overlap only where old rows were copied into a young segment, so few begin before.
        let mut best = reader.spans.range(after.saturating_add(1)..).next().map(|(first, _)| *first);
        for span in reader.spans.range(..=after).map(|(_, span)| span).filter(|span| span.last > after) {
            let next = self.index.rows(connection, span.segment, id)?.next_after(after);
            best = best.into_iter().chain(next).min();
        }
        Ok(best)
    }

    /// The first row after `after` that the reader still wants.
    pub(super) fn next_wanted(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        after: u64,
    ) -> Result<Option<u64>, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(None) };
        let mut after = after.max(reader.state.cursor);
        while let Some(next) = self.next_row(connection, id, after)? {
            let ahead = self.readers.get(&id).and_then(|reader| reader.state.ahead.run_of(next));
            match ahead {
                None => return Ok(Some(next)),
                Some((_, last)) => after = last,
            }
        }
        Ok(None)
    }

    /// Ends one row for a reader, if it still wants it, and counts that.
    pub(super) fn end(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        seq: u64,
        fate: Fate,
    ) -> Result<bool, Fault> {
        let key = self.find_span(connection, id, seq)?;
        match key {
            Some(key) => self.end_wanted(connection, id, key, &[Seq(seq)], fate)?,
            None => self.end_unwanted(id, seq, fate),
        }
        Ok(key.is_some())
    }

    /// Ends rows in any order. Those that follow each other are looked for once.
    pub(super) fn end_all(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        seqs: &[Seq],
        fate: Fate,
    ) -> Result<(), Fault> {
        let mut rest = seqs;
        while let Some(first) = rest.first() {
            let stretch = self.stretch(connection, id, first.0)?;
            let (seqs, others) = match &stretch {
                None => rest.split_at(1),
                Some(Stretch { segment, end, alone, .. }) => {
                    let rows = self.index.rows(connection, *segment, id)?;
                    let follows = |one: &Seq, next: &Seq| {
                        // Between a number and the next there is none of any span.
                        let is_next = next.0 == one.0 + 1 || next.0 < *alone;
                        next.0 < *end && is_next && rows.next_after(one.0) == Some(next.0)
                    };
                    rest.split_at(rest.chunk_by(follows).next().map_or(1, <[Seq]>::len))
                }
            };
            match stretch {
                Some(stretch) => self.end_wanted(connection, id, stretch.key, seqs, fate)?,
                None => self.end_unwanted(id, first.0, fate),
            }
            rest = others;
        }
        Ok(())
    }

    /// A row that its reader does not want any more has ended: if it was delivered, so has its exchange.
    fn end_unwanted(&mut self, id: ReaderId, seq: u64, fate: Fate) {
        if fate == Fate::Delivered {
            self.end_lease(id, seq);
        }
    }

    /// Ends rows of one span that follow each other, and counts that. A lease ends with what is delivered only.
    fn end_wanted(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        key: u64,
        seqs: &[Seq],
        fate: Fate,
    ) -> Result<(), Fault> {
        let (Some(first), Some(last)) = (seqs.first(), seqs.last()) else { return Ok(()) };
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
        reader.state.counters.count(fate, seqs.len() as u64);
        for Seq(seq) in seqs {
            if fate == Fate::Delivered {
                reader.state.leases.remove(seq);
            }
            if let Some(weight) = reader.handed.remove(seq) {
                self.released.push((id, *seq, weight));
            }
        }
        self.dirty.insert(id);
        self.reduce(id, key, seqs.len() as u64);
        self.absorb(connection, id, first.0, last.0)
    }

    /// Settles a row that is in an exchange and in no span, so that its lease is known to have none.
    pub(super) fn settle_if_lost(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        seq: u64,
    ) -> Result<(), Fault> {
        let is_settled = self.readers.get(&id).is_none_or(|reader| reader.state.is_settled(seq));
        if !is_settled && self.find_span(connection, id, seq)?.is_none() {
            self.absorb(connection, id, seq, seq)?;
        }
        Ok(())
    }

    /// The key of the span in which the reader still wants the row.
    pub(super) fn find_span(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        seq: u64,
    ) -> Result<Option<u64>, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(None) };
        if reader.state.is_settled(seq) {
            return Ok(None);
        }
        for (key, span) in reader.spans.range(..=seq).rev().filter(|(_, span)| span.last >= seq) {
            if self.index.rows(connection, span.segment, id)?.contains(seq) {
                return Ok(Some(*key));
            }
        }
        Ok(None)
    }

    /// From a row on that the reader still wants: where its rows lie, and how far.
    pub(super) fn stretch(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        seq: u64,
    ) -> Result<Option<Stretch>, Fault> {
        let Some(key) = self.find_span(connection, id, seq)? else { return Ok(None) };
        let Some(reader) = self.readers.get(&id) else { return Ok(None) };
        let Some(span) = reader.spans.get(&key) else { return Ok(None) };
        let settled = reader.state.ahead.next_after(seq).unwrap_or(u64::MAX);
        let end = settled.min(span.last.saturating_add(1));
        // One that begins before and goes on has old rows that were copied on. Which they are is not worth a look:
        // its index may be on a page that the disk does not read.
        let others = reader.spans.range(..end).filter(|(first, other)| **first != key && other.last > seq);
        let next = others.map(|(first, _)| (*first).max(seq + 1)).next();
        Ok(Some(Stretch { key, segment: span.segment, end, alone: next.unwrap_or(end).min(end) }))
    }

    /// Takes so many rows from what a reader wants of a span's segment.
    fn reduce(&mut self, id: ReaderId, key: u64, rows: u64) {
        let Some(span) = self.readers.get(&id).and_then(|reader| reader.spans.get(&key)).copied() else {
            return;
        };
        self.touched.insert(span.segment);
        let wants_more = self.unwant(span.segment, id, rows);
        if let Some(reader) = self.readers.get_mut(&id)
            && !wants_more
        {
            reader.remove_span(key);
        }
    }

    /// Moves the cursor over these rows, between which there is none that counts, or joins them to the ranges ahead.
    fn absorb(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        mut first: u64,
        mut last: u64,
    ) -> Result<(), Fault> {
        let Some(state) = self.readers.get(&id).map(|reader| &reader.state) else { return Ok(()) };
        let left = state.ahead.iter().rev().find(|run| run.1 < first);
        let right = state.ahead.iter().find(|run| run.0 > last);
        let cursor = state.cursor;
        // Where no row that counts lies between two settled places, they are one.
        if let Some(run) = left
            && self.next_row(connection, id, run.1)?.is_none_or(|next| next >= first)
        {
            first = run.0;
        }
        if let Some(run) = right
            && self.next_row(connection, id, last)?.is_none_or(|next| next >= run.0)
        {
            last = run.1;
        }
        let at_front = self.next_row(connection, id, cursor)?.is_none_or(|next| next >= first);
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
        if at_front {
            reader.state.cursor = cursor.max(last);
            reader.state.ahead.remove_through(last);
        } else {
            reader.state.ahead.insert_range(first, last);
        }
        if reader.spans.is_empty()
            && let Some(last) = reader.state.ahead.last()
        {
            reader.state.cursor = reader.state.cursor.max(last);
            reader.state.ahead.remove_through(last);
        }
        Ok(())
    }

    /// Drops the oldest rows of a reader that are not in a QoS 2 exchange and were not handed out.
    pub(super) fn drop_oldest(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        after: Seq,
        count: u64,
    ) -> Result<(), Fault> {
        let (mut after, mut dropped) = (after.0, 0);
        while dropped < count {
            let Some(next) = self.next_wanted(connection, id, after)? else { break };
            after = next;
            let is_out = |reader: &Reader| {
                reader.state.leases.contains_key(&next) || reader.handed.contains_key(&next)
            };
            if self.readers.get(&id).is_some_and(is_out) {
                continue;
            }
            self.end(connection, id, next, Fate::Dropped(DropReason::QueueFull))?;
            dropped += 1;
        }
        Ok(())
    }

    /// Drops every row up to `through` that a reader still wants.
    pub(super) fn advance(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        through: u64,
        fate: Fate,
    ) -> Result<u64, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(0) };
        let spans: Vec<(u64, Span)> =
            reader.spans.range(..=through).map(|(key, span)| (*key, *span)).collect();
        let mut dropped = 0;
        for (key, span) in spans {
            let wanted = self.wanted_of(span.segment, id);
            let gone = if span.last <= through {
                wanted
            } else {
                self.count_wanted(connection, id, span.segment, through)?
            };
            dropped += gone;
            self.reduce(id, key, gone);
            if gone < wanted {
                self.rekey(connection, id, key, through)?;
            }
        }
        if let Some(reader) = self.readers.get_mut(&id)
            && through > reader.state.cursor
        {
            reader.state.cursor = through;
            reader.state.ahead.remove_through(through);
            let left = reader.handed.split_off(&through.saturating_add(1));
            let ended = std::mem::replace(&mut reader.handed, left);
            self.released.extend(ended.into_iter().map(|(seq, weight)| (id, seq, weight)));
            reader.state.counters.count(fate, dropped);
            self.dirty.insert(id);
            self.settle_front(connection, id)?;
        }
        Ok(dropped)
    }

    /// Drops every row of one segment that a reader still wants, and none of another, however old. Returns how many.
    pub(super) fn end_of_segment(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        segment: u32,
        fate: Fate,
    ) -> Result<u64, Fault> {
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(0) };
        let own = reader.spans.iter().find(|(_, span)| span.segment == segment);
        let Some((key, Span { last, .. })) = own.map(|(key, span)| (*key, *span)) else { return Ok(0) };
        let mut others = reader.spans.range(..=last).filter(|(first, _)| **first != key);
        if others.any(|(_, other)| other.last >= key) {
            // Old rows were copied on, and others of them lie between.
            let seqs: Vec<Seq> = self.wanted_rows(connection, id, segment)?.into_iter().map(Seq).collect();
            self.end_all(connection, id, &seqs, fate)?;
            return Ok(seqs.len() as u64);
        }
        let handed: Vec<u64> = reader.handed.range(key..=last).map(|(seq, _)| *seq).collect();
        for seq in handed {
            self.released.extend(reader.handed.remove(&seq).map(|weight| (id, seq, weight)));
        }
        let rows = self.wanted_of(segment, id);
        self.reduce(id, key, rows);
        let is_at_rest = self.is_at_rest(id);
        self.change(id, |reader| {
            reader.state.counters.count(fate, rows);
            if is_at_rest {
                // Where it stands may not be read.
                reader.state.ahead.insert_range(key.max(reader.state.cursor + 1), last);
            }
        });
        if !is_at_rest {
            self.absorb(connection, id, key, last)?;
        }
        Ok(rows)
    }

    /// Rows that a reader still wants of a segment.
    pub(super) fn wanted_of(&self, segment: u32, id: ReaderId) -> u64 {
        self.segments.get(&segment).map_or(0, |segment| segment.wanted.of(id).rows)
    }

    /// Rows up to `through` that a reader still wants of a segment, counted one by one.
    pub(super) fn count_wanted(
        &mut self,
        connection: &Connection,
        id: ReaderId,
        segment: u32,
        through: u64,
    ) -> Result<u64, Fault> {
        let Some(reader) = self.readers.get(&id) else { return Ok(0) };
        let rows = self.index.rows(connection, segment, id)?;
        let (mut count, mut after) = (0, reader.state.cursor);
        while let Some(next) = rows.next_after(after).filter(|next| *next <= through) {
            match reader.state.ahead.run_of(next) {
                Some((_, last)) => after = last,
                None => {
                    // Count on to the end of the run or to the next settled range, whichever is first.
                    let run = rows.run_of(next).map_or(next, |run| run.1).min(through);
                    let ahead = reader.state.ahead.next_after(next).unwrap_or(u64::MAX);
                    let last = run.min(ahead.saturating_sub(1)).max(next);
                    count += last - next + 1;
                    after = last;
                }
            }
        }
        Ok(count)
    }

    /// Lets a span begin after `through`.
    fn rekey(&mut self, connection: &Connection, id: ReaderId, key: u64, through: u64) -> Result<(), Fault> {
        let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
        let Some(span) = reader.spans.get(&key).copied() else { return Ok(()) };
        let first = self.index.rows(connection, span.segment, id)?.next_after(through);
        let was_open = reader.open_span == Some(key);
        reader.remove_span(key);
        if let Some(first) = first {
            reader.spans.insert(first, span);
            reader.open_span = if was_open { Some(first) } else { reader.open_span };
        }
        Ok(())
    }

    /// Moves the cursor over ranges that have come to the front.
    fn settle_front(&mut self, connection: &Connection, id: ReaderId) -> Result<(), Fault> {
        loop {
            let Some(reader) = self.readers.get(&id) else { return Ok(()) };
            let (cursor, run) = (reader.state.cursor, reader.state.ahead.iter().next());
            let Some((first, last)) = run else { return Ok(()) };
            if self.next_row(connection, id, cursor)?.is_some_and(|next| next < first) {
                return Ok(());
            }
            let Some(reader) = self.readers.get_mut(&id) else { return Ok(()) };
            reader.state.cursor = last;
            reader.state.ahead.remove_through(last);
        }
    }
}
