//! What a store has, as its readers see it: made by a script, and looked at after a start.
//!
//! It knows nothing of segments, cursors or pages. What a row says follows from its number alone, so
//! that a row that was never written, or one byte of it, is seen.

use std::collections::BTreeSet;

use super::*;

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Picture {
    last_seq: u64,
    lines: BTreeMap<ReaderId, Line>,
    /// Topic to the row that it was published with.
    retained: BTreeMap<String, u64>,
    /// What cannot be seen.
    hidden: Hidden,
}

/// One reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Line {
    route: bool,
    /// Row to its number.
    rows: BTreeMap<u64, u64>,
    /// Row to packet id, how far it is, and whether the row is there.
    leases: BTreeMap<u64, (u16, LeaseState, bool)>,
    inward: BTreeSet<u16>,
    received: u64,
    delivered: u64,
    dropped: BTreeMap<DropReason, u64>,
}

/// What a picture of a running store does not show; equal to any other.
#[derive(Debug, Clone, Default)]
struct Hidden {
    numbered: BTreeMap<ReaderId, u64>,
    last_reader: u32,
    /// Routes of the configuration, at the next start.
    configured: BTreeSet<ReaderId>,
    removed: BTreeMap<ReaderId, Line>,
}

impl PartialEq for Hidden {
    fn eq(&self, _: &Hidden) -> bool {
        true
    }
}

impl Eq for Hidden {}

impl Picture {
    /// Looks at everything that a store has just started with.
    pub(super) fn of(rig: &mut Rig) -> Result<Picture, String> {
        let mut picture = Picture { last_seq: rig.restored.last_seq.0, ..Picture::default() };
        for message in &rig.restored.retained {
            let seq = seq_of(message)?;
            if **message != *content(seq) {
                return Err(format!("a retained message is not what was written: {message:?}"));
            }
            picture.retained.insert(message.topic.to_string(), seq);
        }
        let status = rig.status();
        if let Some(trouble) = &status.trouble {
            return Err(format!("in trouble: {trouble}"));
        }
        for (reader, line) in status.readers {
            let dropped: u64 = line.dropped.values().sum();
            if line.received != line.delivered + line.queued + line.expired + dropped || line.expired > 0 {
                return Err(format!("not conserved: {line:?}"));
            }
            let rows = read_all(rig, reader, picture.last_seq)?;
            if rows.len() as u64 != line.queued {
                return Err(format!("{} rows are queued, and {} are read", line.queued, rows.len()));
            }
            let mut seen = Line { route: line.route, rows, ..Line::default() };
            (seen.received, seen.delivered, seen.dropped) = (line.received, line.delivered, line.dropped);
            picture.lines.insert(reader, seen);
        }
        for session in &rig.restored.sessions {
            let Some(line) = picture.lines.get_mut(&session.record.reader) else {
                return Err(format!("{session:?} has no reader"));
            };
            line.inward = session.inward.iter().copied().collect();
            let lease =
                |lease: &crate::record::Lease| (lease.seq.0, (lease.packet_id, lease.state, lease.has_row));
            line.leases = session.leases.iter().map(lease).collect();
        }
        Ok(picture)
    }

    /// Says where another one differs.
    pub(super) fn difference(&self, seen: &Picture) -> String {
        let mut found = Vec::new();
        if self.last_seq != seen.last_seq {
            found.push(format!("the last row is {}, not {}", seen.last_seq, self.last_seq));
        }
        if self.retained != seen.retained {
            found.push(format!("retained is {:?}, not {:?}", seen.retained, self.retained));
        }
        let readers: BTreeSet<_> = self.lines.keys().chain(seen.lines.keys()).collect();
        for reader in readers {
            let (kept, seen) = (self.lines.get(reader), seen.lines.get(reader));
            if kept != seen {
                found.push(format!("{reader:?} is {seen:?}, not {kept:?}"));
            }
        }
        found.join("; ")
    }

    /// What is seen, with what is hidden of the one that was made so, and the newest configuration.
    pub(super) fn hiding(self, made: &Picture, newest: &Picture) -> Picture {
        let configured = newest.hidden.configured.clone();
        Picture { hidden: Hidden { configured, ..made.hidden.clone() }, ..self }
    }

    /// The routes that the configuration names.
    pub(super) fn routes(&self) -> Vec<String> {
        let names = [(ReaderId(1), "one"), (ReaderId(2), "two")];
        let absent = self.hidden.configured.contains(&ReaderId(2));
        names.into_iter().filter(|(id, _)| id.0 == 1 || !absent).map(|(_, name)| name.to_string()).collect()
    }

    /// Whether both routes have their readers: until then their numbers could be given to others.
    pub(super) fn knows_both_routes(&self) -> bool {
        let known = |id| self.lines.contains_key(&id) || self.hidden.removed.contains_key(&id);
        known(ReaderId(1)) && known(ReaderId(2))
    }

    /// The next start has other routes.
    pub(super) fn change_routes(&mut self, random: &mut Random) {
        if random.below(2) == 0 && !self.hidden.configured.remove(&ReaderId(2)) {
            self.hidden.configured.insert(ReaderId(2));
        }
    }

    /// What a start does for the routes of the configuration, in its first commit.
    pub(super) fn name_routes(&mut self) {
        let absent = self.hidden.configured.contains(&ReaderId(2));
        self.hidden.last_reader = self.hidden.last_reader.max(9);
        for id in [ReaderId(1), ReaderId(2)] {
            if absent && id.0 == 2 {
                let Some(mut line) = self.lines.remove(&id) else { continue };
                let purged = line.rows.len() as u64;
                if purged > 0 {
                    *line.dropped.entry(DropReason::Purged).or_default() += purged;
                }
                line.rows.clear();
                self.hidden.removed.insert(id, line);
            } else if !self.lines.contains_key(&id) {
                let line = self.hidden.removed.remove(&id);
                self.lines.insert(id, line.unwrap_or(Line { route: true, ..Line::default() }));
            }
        }
    }

    /// Ends that routes ask for, outside of the broker's writes.
    pub(super) fn route_ends(
        &mut self,
        random: &mut Random,
    ) -> Vec<(ReaderId, Vec<u64>, Option<DropReason>)> {
        let mut ends = Vec::new();
        for reader in [ReaderId(1), ReaderId(2)] {
            let Some(line) = self.lines.get(&reader) else { continue };
            if random.below(3) > 0 {
                continue;
            }
            let reason = (random.below(5) == 0).then_some(DropReason::Refused);
            // Mostly the oldest; where there are many, many.
            let most = 6 + line.rows.len() / 2;
            let rows: Vec<u64> = line.rows.keys().copied().take(random.below(most)).collect();
            let rows: Vec<u64> = rows.into_iter().filter(|_| random.below(8) > 0).collect();
            for seq in &rows {
                self.end(reader, *seq, reason);
            }
            if !rows.is_empty() {
                ends.push((reader, rows, reason));
            }
        }
        ends
    }

    /// Some writes of the broker.
    pub(super) fn batch(&mut self, random: &mut Random) -> Vec<Write> {
        let mut batch = Vec::new();
        for _ in 0..random.below(16) {
            match random.below(16) {
                0 => batch.extend(self.session(random)),
                1..=3 => batch.extend(self.end_one(random)),
                4..=6 => batch.extend(self.lease(random)),
                _ => batch.push(self.put(random)),
            }
        }
        batch
    }

    fn put(&mut self, random: &mut Random) -> Write {
        self.last_seq += 1;
        let seq = self.last_seq;
        let message = content(seq);
        let mut audience = Vec::new();
        for (reader, line) in &mut self.lines {
            // The second route wants little, so that its rows are copied on.
            if random.below(if reader.0 == 2 { 9 } else { 2 }) > 0 {
                continue;
            }
            audience.push(want(*reader));
            line.received += 1;
            let numbered = self.hidden.numbered.entry(*reader).or_default();
            *numbered += u64::from(line.route);
            line.rows.insert(seq, *numbered);
        }
        if message.retain {
            self.retained.insert(message.topic.to_string(), seq);
        }
        let inward = self.any_session(random).filter(|_| random.below(4) == 0).map(|reader| {
            let packet_id = random.below(50) as u16 + 1;
            self.line(reader).inward.insert(packet_id);
            (reader, packet_id)
        });
        let retained = message.retain;
        Write::Message { seq: Seq(seq), message, audience: audience.into(), retained, inward }
    }

    fn session(&mut self, random: &mut Random) -> Option<Write> {
        if self.lines.len() > 4 || random.below(3) == 0 {
            let reader = self.any_session(random)?;
            if random.below(2) == 0 {
                let packet_id = self.line(reader).inward.pop_first()?;
                return Some(Write::InwardReleased { reader, packet_id });
            }
            self.lines.remove(&reader);
            return Some(Write::SessionRemoved { reader });
        }
        self.hidden.last_reader += 1;
        let reader = ReaderId(self.hidden.last_reader);
        self.lines.insert(reader, Line::default());
        Some(session(reader))
    }

    fn end_one(&mut self, random: &mut Random) -> Option<Write> {
        let (reader, seq) = self.any_row(random)?;
        match random.below(4) {
            0 => {
                self.end(reader, seq, Some(DropReason::TooLarge));
                Some(Write::Dropped { reader, seq: Seq(seq), reason: DropReason::TooLarge })
            }
            1 => {
                let count = random.below(4) as u64;
                let line = self.line(reader);
                let free = line.rows.keys().copied().filter(|seq| !line.leases.contains_key(seq));
                for seq in free.take(count as usize).collect::<Vec<_>>() {
                    self.end(reader, seq, Some(DropReason::QueueFull));
                }
                Some(Write::DropOldest { reader, after: Seq(0), count })
            }
            _ => {
                self.end(reader, seq, None);
                Some(Write::Settled { reader, seq: Seq(seq) })
            }
        }
    }

    fn lease(&mut self, random: &mut Random) -> Option<Write> {
        let (reader, row) = self.any_row(random)?;
        let line = self.lines.get_mut(&reader).filter(|line| !line.route)?;
        let leased = line.leases.keys().next().copied().filter(|_| random.below(3) > 0);
        let Some(leased) = leased else {
            let packet_id = random.below(60_000) as u16 + 1;
            line.leases.insert(row, (packet_id, LeaseState::Begun, true));
            return Some(Write::Leased { reader, seq: Seq(row), packet_id, holder: None });
        };
        let (seq, lease) = (Seq(leased), line.leases.get_mut(&leased)?);
        match random.below(3) {
            0 => {
                lease.1 = LeaseState::Received;
                Some(Write::LeaseReceived { reader, seq })
            }
            1 if lease.1 == LeaseState::Begun => {
                line.leases.remove(&leased);
                Some(Write::Unleased { reader, seq })
            }
            _ => {
                self.end(reader, leased, None);
                Some(Write::Settled { reader, seq })
            }
        }
    }

    fn any_session(&self, random: &mut Random) -> Option<ReaderId> {
        let sessions: Vec<ReaderId> =
            self.lines.iter().filter(|(_, line)| !line.route).map(|(id, _)| *id).collect();
        sessions.get(random.below(sessions.len().max(1))).copied()
    }

    fn any_row(&self, random: &mut Random) -> Option<(ReaderId, u64)> {
        let readers: Vec<ReaderId> = self.lines.keys().copied().collect();
        let reader = *readers.get(random.below(readers.len().max(1)))?;
        let rows = &self.lines.get(&reader)?.rows;
        Some((reader, *rows.keys().nth(random.below(10))?))
    }

    fn line(&mut self, reader: ReaderId) -> &mut Line {
        self.lines.get_mut(&reader).expect("it was chosen from them")
    }

    fn end(&mut self, reader: ReaderId, seq: u64, reason: Option<DropReason>) {
        let line = self.line(reader);
        if reason.is_none() {
            line.leases.remove(&seq);
        } else if let Some(lease) = line.leases.get_mut(&seq) {
            lease.2 = false;
        }
        if line.rows.remove(&seq).is_some() {
            match reason {
                None => line.delivered += 1,
                Some(reason) => *line.dropped.entry(reason).or_default() += 1,
            }
        }
    }
}

/// Reads everything that a reader wants, a few rows at a time.
fn read_all(rig: &mut Rig, reader: ReaderId, last: u64) -> Result<BTreeMap<u64, u64>, String> {
    let (mut rows, mut after) = (BTreeMap::new(), 0);
    loop {
        let read = rig.read(reader, after, 20).ok_or("a read is held back")?;
        for row in read.rows {
            if row.seq.0 <= after {
                return Err(format!("row {} comes after {after}", row.seq.0));
            }
            after = row.seq.0;
            if row.message != content(after) || row.want != want(reader) {
                return Err(format!("row {after} is not what was written: {:?}", row.message));
            }
            rows.insert(after, row.number);
        }
        if read.through.0 >= last {
            return Ok(rows);
        }
        after = read.through.0;
    }
}

/// What the message of this number says, in up to a page and a half.
pub(in crate::store::tests) fn content(seq: u64) -> Arc<Message> {
    let mut random = Random(seq);
    let mut message = Message::clone(&message(seq, &format!("t/{}", random.below(6))));
    let length = if random.below(12) == 0 { 6_000 } else { random.below(300) };
    message.payload = Bytes::from(format!("{seq} {}", "x".repeat(length)));
    message.retain = random.below(6) == 0;
    Arc::new(message)
}

fn seq_of(message: &Message) -> Result<u64, String> {
    let text = std::str::from_utf8(&message.payload).map_err(|error| error.to_string())?;
    text.split(' ').next().unwrap_or_default().parse().map_err(|_| format!("{text:?} was never written"))
}
