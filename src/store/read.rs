//! Reading a reader's rows, in order, checked.
//!
//! Only rows of committed transactions that the reader still wants. A row that has run out of time or
//! whose checksum does not hold is never handed out: the caller is told, so that it is counted once, in
//! a transaction.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::Connection;

use super::audience::{Audience, unpack_qos};
use super::log::{Log, RETAIN, UNCLOCKED};
use super::pack::Unpack;
use super::reader::Kind;
use super::runs::Runs;
use super::schema::Fault;
use super::segment::{self, Found, Named, RawRow};
use super::turnover::named;
use crate::codec::Properties;
use crate::record::{Message, Now, Portion, ReaderId, Row, Rows, Seq};

/// What one read asks for.
pub(super) struct Question<'a> {
    /// Whose.
    pub(super) reader: ReaderId,
    /// After which row.
    pub(super) after: Seq,
    /// How much at most.
    pub(super) limit: Portion,
    /// For expiry, and for readings that had no clock.
    pub(super) now: Now,
    /// Rows that the open batch ends.
    pub(super) ended: &'a Runs,
}

/// What one read found.
pub(super) struct Answer {
    /// For the reader.
    pub(super) rows: Rows,
    /// Rows that have run out of time.
    pub(super) expired: Vec<Seq>,
    /// Rows that cannot be read.
    pub(super) damaged: Vec<Seq>,
    /// What the rows weigh.
    weight: usize,
}

/// Topics and audiences that were read lately.
#[derive(Debug, Default)]
pub(super) struct Names {
    topics: BTreeMap<(u32, u64), ByteString>,
    audiences: BTreeMap<(u32, u64), Audience>,
    weight: usize,
}

/// A row of a segment before its names are known.
struct Bare {
    topic: Result<Vec<u8>, u64>,
    audience: Result<Vec<u8>, u64>,
    numbers: Vec<u8>,
    message: Message,
}

impl Log {
    /// Reads rows of a reader.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        question: &Question<'_>,
    ) -> Result<Answer, Fault> {
        let reader = question.reader;
        let newest = question.after.max(Seq(self.ledger.last_seq));
        let rows = Rows { reader, rows: Vec::new(), through: newest, newest, left: 0 };
        let mut answer = Answer { rows, expired: Vec::new(), damaged: Vec::new(), weight: 0 };
        let mut after = question.after.0;
        if let Some(reader) = self.readers.get_mut(&reader) {
            reader.begin_handing(after);
        }
        while let Some(seq) = self.next_wanted(connection, reader, after)? {
            if answer.is_full(question.limit) {
                let through = after.max(question.after.0);
                answer.rows.through = Seq(through);
                answer.rows.left = self.left(connection, reader, through)?;
                break;
            }
            if let Some((_, last)) = question.ended.run_of(seq) {
                after = last;
                continue;
            }
            after = self.read_run(connection, names, question, seq, &mut answer)?;
            if after < seq {
                after = seq;
                match self.row(connection, names, reader, seq)? {
                    None => answer.damaged.push(Seq(seq)),
                    Some(row) => self.answer(row, question, &mut answer),
                }
            }
        }
        Ok(answer)
    }

    /// Reads an unbroken run of numbers, from one on that the reader wants: until there is enough, or something is
    /// wrong with the next. Returns the last one that it has read.
    fn read_run(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        question: &Question<'_>,
        first: u64,
        answer: &mut Answer,
    ) -> Result<u64, Fault> {
        let mut through = first - 1;
        let Some(stretch) = self.stretch(connection, question.reader, first)? else { return Ok(through) };
        let run = self.index.rows(connection, stretch.segment, question.reader)?.run_of(first);
        let end = question.ended.next_after(first).unwrap_or(u64::MAX).min(stretch.end);
        let last = run.map_or(first, |run| run.1).min(end - 1);
        let mut failed = None;
        segment::walk(connection, stretch.segment, (first, last), |row| {
            let Some(bare) = bare(row) else { return ControlFlow::Break(()) };
            let row = match names.row(connection, question.reader, stretch.segment, row.seq, bare) {
                Ok(Some(row)) => row,
                Ok(None) => return ControlFlow::Break(()),
                Err(fault) => {
                    failed = Some(fault);
                    return ControlFlow::Break(());
                }
            };
            through = row.seq.0;
            self.answer(row, question, answer);
            if answer.is_full(question.limit) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            // Once is enough, as of the row's own page.
            Some(fault @ Fault::Unreadable(_)) => Err(fault),
            _ => Ok(through),
        }
    }

    /// Hands a row out, unless it has run out of time.
    fn answer(&mut self, mut row: Row, question: &Question<'_>, answer: &mut Answer) {
        self.mend(Arc::make_mut(&mut row.message), &question.now);
        if self.has_expired(&row, question.reader, &question.now) {
            answer.expired.push(row.seq);
            return;
        }
        answer.weight += row.message.weight() + row.want.subscription_ids.weight();
        if let Some(reader) = self.readers.get_mut(&question.reader) {
            reader.hand(row.seq.0, row.message.weight() as u64);
        }
        answer.rows.rows.push(row);
    }

    /// Rows of a session beyond this one that it still wants and that are in no exchange.
    fn left(&mut self, connection: &Connection, id: ReaderId, through: u64) -> Result<u64, Fault> {
        let Some(reader) = self.readers.get(&id).filter(|reader| reader.kind == Kind::Session) else {
            return Ok(0);
        };
        let state = &reader.state;
        let leased = state.leases.range(through.saturating_add(1)..);
        let leased = leased.filter(|(seq, _)| !state.is_settled(**seq)).count() as u64;
        let beyond = reader.spans.iter().filter(|(_, span)| span.last > through);
        let spans: Vec<(u64, u32)> = beyond.map(|(first, span)| (*first, span.segment)).collect();
        let mut left = 0;
        for (first, segment) in spans {
            left += self.wanted_of(segment, id);
            if first <= through {
                left -= self.count_wanted(connection, id, segment, through)?.min(left);
            }
        }
        Ok(left.saturating_sub(leased))
    }

    /// Whether nobody should have the row any more; a QoS 2 exchange that has begun is brought to its end.
    fn has_expired(&self, row: &Row, reader: ReaderId, now: &Now) -> bool {
        let leased =
            self.readers.get(&reader).is_some_and(|reader| reader.state.leases.contains_key(&row.seq.0));
        !leased && (row.message.remaining(now) == Some(0) || self.is_too_old(row, reader, now))
    }

    /// Whether its reader wants nothing of that age.
    fn is_too_old(&self, row: &Row, reader: ReaderId, now: &Now) -> bool {
        let most = self.readers.get(&reader).and_then(|reader| reader.bounds.max_age);
        most.is_some_and(|most| now.age(row.message.received) >= most)
    }

    /// One row for one reader; `None` where it is damaged.
    pub(super) fn row(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        reader: ReaderId,
        seq: u64,
    ) -> Result<Option<Row>, Fault> {
        let row = self.row_below(connection, names, reader, seq);
        self.forgive(row)
    }

    /// What lies below a damaged page counts as damaged where its segment is spoilt.
    pub(super) fn forgive<T>(&self, found: Result<Option<T>, Fault>) -> Result<Option<T>, Fault> {
        match found {
            Err(Fault::Page(id)) if self.spoilt.contains(&id) => Ok(None),
            other => other,
        }
    }

    fn row_below(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        reader: ReaderId,
        seq: u64,
    ) -> Result<Option<Row>, Fault> {
        let Some(key) = self.find_span(connection, reader, seq)? else { return Ok(None) };
        let span = self.readers.get(&reader).and_then(|reader| reader.spans.get(&key));
        let Some(id) = span.map(|span| span.segment) else { return Ok(None) };
        let Found::Row(bare) = segment::with_row(connection, id, seq, bare)? else { return Ok(None) };
        names.row(connection, reader, id, seq, bare)
    }
}

impl Answer {
    /// Whether that is enough.
    fn is_full(&self, most: Portion) -> bool {
        let (found, heavy) = (self.rows.rows.len(), self.weight >= most.bytes as usize);
        let skipped = self.expired.len() + self.damaged.len();
        found >= most.rows as usize || (found > 0 && heavy) || skipped >= SKIPPED_MAX
    }
}

impl Names {
    /// A row of a segment with its names, as one reader has it; `None` where one of them is damaged.
    fn row(
        &mut self,
        connection: &Connection,
        reader: ReaderId,
        id: u32,
        seq: u64,
        bare: Bare,
    ) -> Result<Option<Row>, Fault> {
        let Some(topic) = self.topic(connection, id, seq, bare.topic)? else { return Ok(None) };
        let Some(audience) = self.audience(connection, id, seq, bare.audience)? else { return Ok(None) };
        let Some((member, place)) = audience.find(reader) else { return Ok(None) };
        let number = match place {
            None => 0,
            Some(place) => {
                let mut unpack = Unpack::new(&bare.numbers);
                let Some(number) = (0..=place).map(|_| unpack.number()).last().flatten() else {
                    return Ok(None);
                };
                number
            }
        };
        let message = Arc::new(Message { topic, ..bare.message });
        Ok(Some(Row { seq: Seq(seq), number, message, want: member.want.clone() }))
    }

    fn topic(
        &mut self,
        connection: &Connection,
        id: u32,
        seq: u64,
        name: Result<Vec<u8>, u64>,
    ) -> Result<Option<ByteString>, Fault> {
        let key = (id, name.as_ref().err().copied().unwrap_or(seq));
        if let Some(topic) = self.topics.get(&key) {
            return Ok(Some(topic.clone()));
        }
        let Some(bytes) = named(connection, id, name, |row| row.topic)? else { return Ok(None) };
        let Ok(topic) = ByteString::try_from(bytes) else { return Ok(None) };
        self.make_room(topic.len());
        self.topics.insert(key, topic.clone());
        Ok(Some(topic))
    }

    fn audience(
        &mut self,
        connection: &Connection,
        id: u32,
        seq: u64,
        name: Result<Vec<u8>, u64>,
    ) -> Result<Option<Audience>, Fault> {
        let key = (id, name.as_ref().err().copied().unwrap_or(seq));
        if let Some(audience) = self.audiences.get(&key) {
            return Ok(Some(audience.clone()));
        }
        let Some(bytes) = named(connection, id, name, |row| row.audience)? else { return Ok(None) };
        let Some(audience) = Audience::unpack(&bytes) else { return Ok(None) };
        self.make_room(audience.members.len() * 64);
        self.audiences.insert(key, audience.clone());
        Ok(Some(audience))
    }

    fn make_room(&mut self, bytes: usize) {
        self.weight += bytes + 64;
        if self.weight > NAMES_BYTES_MAX {
            *self = Names { weight: bytes + 64, ..Names::default() };
        }
    }
}

fn bare(row: &RawRow<'_>) -> Option<Bare> {
    let own = |named| match named {
        Named::Here(bytes) => Ok(<[u8]>::to_vec(bytes)),
        Named::At(seq) => Err(seq),
    };
    Some(Bare {
        topic: own(row.topic),
        audience: own(row.audience),
        numbers: row.numbers.to_vec(),
        message: Message {
            topic: ByteString::new(),
            payload: Bytes::copy_from_slice(row.payload),
            qos: unpack_qos(row.flags)?,
            retain: row.flags & RETAIN != 0,
            properties: Properties::from_kept(Bytes::copy_from_slice(row.properties)),
            expiry: row.expiry,
            received: row.wall,
            unclocked: row.flags & UNCLOCKED != 0,
        },
    })
}

/// And after so many rows that nobody can have, so that other readers get their turn.
const SKIPPED_MAX: usize = 1_000;

/// Names that are remembered; at the limit all are forgotten.
const NAMES_BYTES_MAX: usize = 1 << 20;
